"""Files: one module per format or instrument, and the registry that chooses by looking at the file.

>>> from braggshot import io                        # doctest: +SKIP
>>> scan = io.read("example.spec", scan=54)         # doctest: +SKIP
>>> io.describe("example.spec")["scans"]            # doctest: +SKIP
"""

from braggshot.io.registry import Format, describe, formats, read

__all__ = ["Format", "describe", "formats", "read"]
