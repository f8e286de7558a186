"""Write the lines of dislocations as VTK poly data (.vtp), which ParaView shows beside the image data of the crystal.

Axes and lengths are those of the image data (`braggshot.io.results.vtk`): (x, y, z) of the strain map's frame, in nm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggshot.errors import OutputError
from braggshot.io.atomic import replacing
from braggshot.volumes import FloatArray, Reconstruction


def write(path: str | Path, reconstruction: Reconstruction) -> None:
    """Write the dislocations of a reconstruction; the file holds no line where none was found.

    Raises
    ------
    OutputError : if there is no strain map, so that lines have no place in metres, or the file cannot be written.
    """
    if reconstruction.strain is None:
        name = reconstruction.volume.name
        raise OutputError(f"{path}: lines of dislocations need a strain map, and {name} has none; give the geometry.")
    lines = reconstruction.strain.lines
    values: dict[str, Sequence[Any]] = {
        "G_dot_b": [line.winding for line in lines],
        "confidence": [line.confidence for line in lines],
        "length_nm": [line.length * 1e9 for line in lines],
        "is_closed": [int(line.is_closed) for line in lines],
    }
    write_lines(path, [line.points for line in lines], values)


def write_lines(path: str | Path, lines: Sequence[FloatArray], values: Mapping[str, Sequence[Any]]) -> None:
    """Write lines of points (n, 3), components (z, y, x) [m], and values by name, one number or vector (x, y, z) for each line.

    Raises
    ------
    OutputError : if the file cannot be written.
    """
    points = np.concatenate([line[:, ::-1] * 1e9 for line in lines]) if lines else np.zeros((0, 3))
    ends = np.cumsum([len(line) for line in lines], dtype=int)
    first = next(iter(values))
    cells = "".join(_array(name, np.array(each)) for name, each in values.items())
    text = f"""<?xml version="1.0"?>
<!-- written by braggshot -->
<VTKFile type="PolyData" version="1.0" byte_order="LittleEndian">
<PolyData>
<Piece NumberOfPoints="{len(points)}" NumberOfVerts="0" NumberOfLines="{len(lines)}" NumberOfStrips="0" NumberOfPolys="0">
<CellData Scalars="{first}">{cells}</CellData>
<Points>{_array("Points", points.reshape(-1, 3))}</Points>
<Lines>{_array("connectivity", np.arange(len(points)))}{_array("offsets", ends)}</Lines>
</Piece>
</PolyData>
</VTKFile>
"""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="ascii")


def _array(name: str, values: NDArray[Any]) -> str:
    whole = values.dtype.kind in "iu"
    numbers = " ".join(str(value) if whole else f"{value:.7g}" for value in np.ravel(values).tolist())
    parts = ' NumberOfComponents="3"' if values.ndim == 2 else ""
    return f'<DataArray type="{"Int64" if whole else "Float32"}" Name="{name}"{parts} format="ascii">{numbers}</DataArray>\n'
