"""Write the lines of dislocations as VTK poly data (.vtp), which ParaView shows beside the image data of the crystal.

Axes and lengths are those of the image data (`braggshot.io.results.vtk`): (x, y, z) of the strain map's frame, in nm.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from braggshot.errors import OutputError
from braggshot.io.atomic import replacing
from braggshot.volumes import Dislocation, Reconstruction

# Values of each line: name -> kind of number in VTK.
_VALUES = {"G_dot_b": "Int32", "confidence": "Float32", "length_nm": "Float32", "is_closed": "UInt8"}


def write(path: str | Path, reconstruction: Reconstruction) -> None:
    """Write the dislocations of a reconstruction; the file holds no line where none was found.

    Raises
    ------
    OutputError : if there is no strain map, so that lines have no place in metres, or the file cannot be written.
    """
    if reconstruction.strain is None:
        name = reconstruction.volume.name
        raise OutputError(f"{path}: lines of dislocations need a strain map, and {name} has none; give the geometry.")
    write_lines(path, reconstruction.strain.lines)


def write_lines(path: str | Path, lines: Sequence[Dislocation]) -> None:
    """Write lines, each with G . b [1], its confidence [1], its length [nm] and whether it is closed.

    Raises
    ------
    OutputError : if the file cannot be written.
    """
    points = np.concatenate([line.points[:, ::-1] * 1e9 for line in lines]) if lines else np.zeros((0, 3))
    ends = np.cumsum([len(line.points) for line in lines], dtype=int)
    values = {
        "G_dot_b": [line.winding for line in lines],
        "confidence": [line.confidence for line in lines],
        "length_nm": [line.length * 1e9 for line in lines],
        "is_closed": [int(line.is_closed) for line in lines],
    }
    cells = "".join(_array(name, kind, np.array(values[name])) for name, kind in _VALUES.items())
    text = f"""<?xml version="1.0"?>
<!-- written by braggshot -->
<VTKFile type="PolyData" version="1.0" byte_order="LittleEndian">
<PolyData>
<Piece NumberOfPoints="{len(points)}" NumberOfVerts="0" NumberOfLines="{len(lines)}" NumberOfStrips="0" NumberOfPolys="0">
<CellData Scalars="G_dot_b">{cells}</CellData>
<Points>{_array("Points", "Float32", points, ' NumberOfComponents="3"')}</Points>
<Lines>{_array("connectivity", "Int64", np.arange(len(points)))}{_array("offsets", "Int64", ends)}</Lines>
</Piece>
</PolyData>
</VTKFile>
"""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="ascii")


def _array(name: str, kind: str, values: NDArray[np.generic], parts: str = "") -> str:
    numbers = " ".join(f"{value:.7g}" if kind.startswith("Float") else str(int(value)) for value in np.ravel(values).tolist())
    return f'<DataArray type="{kind}" Name="{name}"{parts} format="ascii">{numbers}</DataArray>\n'
