"""Compare methods of phasing on known crystals: suites of crystals -> methods -> rows of results -> table.

faults       write raw scans with one fault each, and prepare them
trust        draw crystals of many kinds, and scans with the faults that real scans have
suites       draw crystals and their diffraction, the same for every method and every run
methods      name the methods of phasing that are compared
coverage     count the voxels whose error is within one sigma
rows         phase and score crystals; one row of results per crystal and method, written to disk as soon as it is known
table        compute medians, intervals and rates from the rows of results
reliability  count how often each verdict is right, per class of crystals
"""
