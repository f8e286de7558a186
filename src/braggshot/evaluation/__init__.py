"""Compare methods of phasing on known crystals: suites of crystals -> methods -> rows of results -> table.

faults    write raw scans with one fault each, and prepare them
suites    draw crystals and their diffraction, the same for every method and every run
methods   name the methods of phasing that are compared
rows      phase and score crystals; one row of results per crystal and method, written to disk as soon as it is known
table     compute medians, intervals and rates from the rows of results
"""
