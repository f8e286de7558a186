"""Write results, and read them back.

strain_images   the strain map inside a CXI entry
cxi             the result CXI: crystal, measurement, strain, how it was found
npz             a NumPy archive for scripts
vtk             VTK image data for ParaView
cohere          a folder from which cohere goes on
cdiutils        the file from which cdiutils post-processes
"""

from braggshot.io.results.cxi import read, read_strain, write

__all__ = ["read", "read_strain", "write"]
