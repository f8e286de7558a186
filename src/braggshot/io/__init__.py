"""Files: one module per format or instrument, and the registry that chooses by looking at the file.

>>> from braggshot.io.registry import read, describe, formats    # doctest: +SKIP
>>> scan = read("example.spec", scan=54)                         # doctest: +SKIP
"""
