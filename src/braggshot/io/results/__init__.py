"""Write results, and read them back.

strain_images   write and read the strain map inside a CXI entry
cxi             write and read the result CXI: crystal, measurement, strain, settings
npz             write a NumPy archive for scripts
vtk             write VTK image data for ParaView
vtp             write the lines of dislocations for ParaView
cohere          write a folder from which cohere continues, and read its objects
cdiutils        write the file that cdiutils post-processes, and read its folder
objects         read an object of any of these programs, and write it for another
"""

from braggshot.io.results.cxi import read, read_strain, write

__all__ = ["read", "read_strain", "write"]
