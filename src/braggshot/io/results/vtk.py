"""Write VTK image data (.vti) for ParaView.

The file is written without the VTK library, which takes half a gigabyte, because the format is a short XML text. ParaView's (x, y,
z) are those of the CXI laboratory frame: x outboard, y up, z downstream; no axis is flipped. Our last axis is ParaView's x and runs
fastest. Lengths are in nanometres, because ParaView's own tolerances suit numbers near one; without geometry they are in voxels.
The origin is at the voxel N // 2.

Image data has orthogonal axes. A skewed basis (the detector frame) is drawn with the right voxel sizes, along the orthogonal axes
that are nearest to its edges, and a note in the file says so. The nearest axes have the handedness of the edges, so no crystal is
drawn mirrored. Measure in the orthogonal crystal frame.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from numpy.typing import NDArray

from braggshot.io.atomic import replacing
from braggshot.io.results.strain_images import UNITS
from braggshot.volumes import FloatArray, Reconstruction, StrainMap

# Table of pixel types: name in numpy -> name in VTK.
_TYPES = {"float32": "Float32", "uint8": "UInt8"}


def write(path: str | Path, reconstruction: Reconstruction) -> None:
    """Write a reconstruction as VTK image data.

    The file holds all fields of the strain map. Without a strain map, it holds the amplitude [sqrt(photons)], the phase [rad] (0
    outside the support) and the support.

    Raises
    ------
    OutputError : if the file cannot be written.
    """
    if reconstruction.strain is not None:
        write_strain(path, reconstruction.strain)
        return
    rho, support = reconstruction.rho, reconstruction.support
    arrays: dict[str, tuple[NDArray[Any], str]] = {
        "amplitude": (np.abs(rho).astype(np.float32), "photons^0.5"),
        "phase": (np.where(support, np.angle(rho), 0).astype(np.float32), "rad"),
        "support": (support.astype(np.uint8), "1"),
    }
    write_arrays(path, arrays, reconstruction.basis, reconstruction.frame)


def write_strain(path: str | Path, strain_map: StrainMap) -> None:
    """Write all fields of a strain map; a field is NaN where it has no value.

    Fields that are lengths are in nm, like the axes.

    Raises
    ------
    OutputError : if the file cannot be written.
    """
    arrays: dict[str, tuple[NDArray[Any], str]] = {}
    for name, units in UNITS.items():
        values = getattr(strain_map, name)
        if values is None:
            continue
        values, units = (values * 1e9, "nm") if units == "m" else (values, units)
        arrays[name] = (values.astype(np.uint8 if values.dtype == bool else np.float32), units)
    write_arrays(path, arrays, strain_map.basis, strain_map.frame)


def write_arrays(
    path: str | Path, arrays: Mapping[str, tuple[NDArray[Any], str]], basis: FloatArray | None, frame: str = "detector"
) -> None:
    """Write several arrays on one grid.

    Parameters
    ----------
    arrays : name -> (array (z, y, x) of float32 or uint8, units); ParaView shows the first one when it opens the file. A last axis
        of 3 holds a vector (x, y, z), one of 6 a symmetric tensor (xx, yy, zz, xy, yz, xz)
    basis : columns are the voxel edges [m], components (z, y, x); None for a grid of unit voxels
    frame : coordinate frame of the grid, noted in the file

    Raises
    ------
    OutputError : if the file cannot be written.
    """
    first, *_ = arrays
    nz, ny, nx = arrays[first][0].shape[:3]
    grid, notes = _grid((nz, ny, nx), basis, frame)
    extent = f"0 {nx - 1} 0 {ny - 1} 0 {nz - 1}"
    headers, blocks, offset = [], [], 0
    for name, (array, units) in arrays.items():
        block = _encode(array)
        headers.append(
            f'<DataArray type="{_TYPES[array.dtype.name]}" Name={quoteattr(name)}{_parts(array)} format="appended" '
            f'offset="{offset}">'
            f'<InformationKey name="UNITS_LABEL" location="vtkDataArray">{escape(units)}</InformationKey></DataArray>'
        )
        blocks.append(block)
        offset += len(block)
    text = f"""<?xml version="1.0"?>
<!-- written by braggshot -->
<VTKFile type="ImageData" version="1.0" byte_order="LittleEndian" header_type="UInt64" compressor="vtkZLibDataCompressor">
<ImageData WholeExtent="{extent}" {grid}>
<FieldData>{"".join(_note(name, value) for name, value in notes.items())}</FieldData>
<Piece Extent="{extent}"><PointData Scalars={quoteattr(first)}>{"".join(headers)}</PointData></Piece>
</ImageData>
<AppendedData encoding="base64">_{"".join(blocks)}</AppendedData>
</VTKFile>
"""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="ascii", errors="xmlcharrefreplace")


def _parts(array: NDArray[Any]) -> str:
    """Return the attribute that says how many numbers a voxel holds; an empty text for one."""
    return "" if array.ndim == 3 else f' NumberOfComponents="{array.shape[3]}"'


def _grid(shape: tuple[int, int, int], basis: FloatArray | None, frame: str) -> tuple[str, dict[str, str]]:
    """Return the attributes Origin, Spacing and Direction of the grid, and notes for the file.

    VTK lists x first, so the rows and columns of `basis` are reversed.
    """
    edges = np.eye(3) if basis is None else np.asarray(basis)[::-1, ::-1] * 1e9
    spacing = np.linalg.norm(edges, axis=0)
    direction = edges / spacing
    skewed = not np.allclose(direction.T @ direction, np.eye(3), atol=1e-6)
    if skewed:
        left, _, right = np.linalg.svd(direction)
        direction = left @ right  # the orthogonal matrix that is nearest
    origin = -direction @ (spacing * [n // 2 for n in reversed(shape)])
    attributes = {"Origin": origin, "Spacing": spacing, "Direction": direction.ravel()}
    drawn = " (skewed axes, drawn at right angles)" if skewed else ""
    notes = {"frame": frame + drawn, "length_unit": "voxel" if basis is None else "nm"}
    return " ".join(f'{name}="{" ".join(f"{value:.9g}" for value in values)}"' for name, values in attributes.items()), notes


def _encode(array: NDArray[Any]) -> str:
    """Compress an array, and return it as base64 text: a header of four integers, then the compressed bytes.

    The header holds the number of blocks (always 1), the size of the block before compression [bytes], the size of a shorter last
    block (0: there is none), and the size of the block after compression [bytes].
    """
    raw = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()
    packed = zlib.compress(raw, level=1)
    return (base64.b64encode(struct.pack("<4Q", 1, len(raw), 0, len(packed))) + base64.b64encode(packed)).decode("ascii")


def _note(name: str, text: str) -> str:
    codes = " ".join(str(code) for code in (*text.encode(), 0))
    return f'<Array type="String" Name={quoteattr(name)} NumberOfTuples="1" format="ascii">{codes}</Array>'
