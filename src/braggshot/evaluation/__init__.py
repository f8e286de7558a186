"""Compare methods of phasing on crystals that are known: suites -> methods -> rows -> table.

suites    draw crystals and their diffraction, the same for every method and every run
methods   name the methods of phasing that are compared
rows      phase and score; one row per crystal and method, written to disk as soon as it is known
table     compute medians, intervals and rates of the rows
"""
