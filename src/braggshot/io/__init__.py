"""Read and write files; the registry chooses a reader by looking at the file.

atomic        write a file under a temporary name, then rename it
codecs        decode LZ4, bitshuffle, Blosc and Zstandard images
swmr          open HDF5 files that another program is writing
archives      read arrays of .npz archives
files         open HDF5, TIFF and .npy files, with errors that say what is wrong
chunks        check compressed chunks of HDF5 files before HDF5 sees them
heads         look at the files of many images before they are read
written       find which frames of an HDF5 dataset were written
axes          find the axes of frames, rows and columns; refuse values that are no counts
hdf5          write and read groups, data sets with units, nested settings
frames        hold detector images that stay on disk until they are indexed
measurement   write and read a prepared measurement inside a CXI entry
formats/      read and write counts in files of no particular instrument
beamlines/    read scans of beamlines, one module for each
stated        apply what a user states in place of the files: dark, mask, energy, geometry
results/      write and read results: CXI, VTK, and files for other programs
registry      find the reader of a file; packages add readers as entry points ``braggshot.formats``

>>> from braggshot import io                        # doctest: +SKIP
>>> scan = io.read("example.spec", scan=54)         # doctest: +SKIP
>>> io.describe("example.spec")["scans"]            # doctest: +SKIP
"""

from braggshot.io.registry import Format, describe, formats, read

__all__ = ["Format", "describe", "formats", "read"]
