"""Compare methods on crystals that are known: suites -> methods -> rows -> table.

suites    crystals and their diffraction, the same ones for every method and every run
methods   ways of phasing, by name
rows      one row per crystal and method, on disk as soon as it is there
table     medians, intervals and rates of the rows
"""
