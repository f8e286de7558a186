"""Compare methods of phasing on crystals that are known: suites -> methods -> rows -> table.

suites    draw crystals and their diffraction, the same for every method and every run
methods   name the ways of phasing
rows      phase and score; one row per crystal and method, written to disk at once
table     compute medians, intervals and rates of the rows
"""
