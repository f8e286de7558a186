"""Place a detector by the transformations of a NeXus file, and say its place as a geometry does.

A NeXus file says of each pixel edge and of the first pixel how far along which vector it lies, and on what that depends: a chain of
translations and rotations that ends at the laboratory (``depends_on`` is "."). Motors that are circles of the diffractometer are
left out of the chain here, so that the place is that with all circles at zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import h5py
import numpy as np
from numpy.typing import NDArray

from braggshot.io.beamlines.values import parse_unit, read_numbers, to_text
from braggshot.io.chunks import read_region
from braggshot.io.files import find_node

LONGEST = 32  # number of transformations that are followed, one after the other
SIDES = ("x+", "x-", "y+", "y-")  # axes along which rows and columns may grow


@dataclass(frozen=True)
class Pose:
    """Place of a detector with all circles at zero, in the terms of `braggshot.volumes.Geometry` (angles in degrees)."""

    distance: float
    pixel_size: tuple[float, float]
    direct_beam: tuple[float, float]
    row_axis: str
    column_axis: str
    rotation_deg: float
    tilt_azimuth_deg: float
    tilt_deg: float


def follow(file: h5py.File, path: str, is_circle: Callable[[h5py.Dataset], bool]) -> NDArray[np.float64] | None:
    """Return the matrix (4, 4) of a transformation and all that it depends on; None if the chain is broken.

    Circles are left out. Components are those of the file, lengths are in metres.
    """
    whole = np.eye(4)
    for _ in range(LONGEST):
        item = find_node(file, path)
        if not isinstance(item, h5py.Dataset):
            return None
        if not is_circle(item):
            step = _matrix(item)
            if step is None:
                return None
            whole = step @ whole
        path = to_text(item.attrs.get("depends_on", ".")).strip()
        if path in {".", ""}:
            return whole
        path = path if find_node(file, path) is not None else f"{item.parent.name}/{path}"
    return None


def _matrix(item: h5py.Dataset) -> NDArray[np.float64] | None:
    from scipy.spatial.transform import Rotation  # here, because it takes long to import and few files need it

    numbers, vector = read_numbers(read_region(item))[0], np.asarray(item.attrs.get("vector", ()))
    if not numbers.size or not np.isfinite(numbers[0]) or vector.shape != (3,) or vector.dtype.kind not in "iuf":
        return None
    unit, matrix = parse_unit(item.attrs.get("units", "")), np.eye(4)
    if to_text(item.attrs.get("transformation_type", "")) == "rotation":
        size = unit.size if unit is not None and unit.kind == "angle" else np.pi / 180
        length = np.linalg.norm(vector)
        if not length > 0:
            return None
        matrix[:3, :3] = Rotation.from_rotvec(numbers[0] * size * vector / length).as_matrix()
    else:
        matrix[:3, 3] = numbers[0] * (unit.size if unit is not None and unit.kind == "length" else 1e-3) * vector
    return matrix


def describe_pose(first: NDArray[np.float64], row: NDArray[np.float64], column: NDArray[np.float64]) -> Pose | None:
    """Say the place of a detector as a geometry does; None if the beam does not meet its plane downstream.

    Parameters
    ----------
    first, row, column : place of the first pixel, and the steps to the next row and the next column, all circles at zero, with the
        components (x, y, z) of the laboratory [m]
    """
    from scipy.spatial.transform import Rotation  # here, because it takes long to import and few files need it

    try:
        at_row, at_column, distance = np.linalg.solve(np.stack([row, column, [0.0, 0.0, -1.0]], axis=1), -first)
    except np.linalg.LinAlgError:
        return None
    size = float(np.linalg.norm(row)), float(np.linalg.norm(column))
    if not (distance > 0 and np.isfinite([at_row, at_column, distance]).all()):
        return None
    r = row / size[0]
    c = column - (column @ r) * r
    c /= np.linalg.norm(c)
    units = {side: np.eye(3)["xyz".index(side[0])] * (1 if side[1] == "+" else -1) for side in SIDES}
    pairs = [(a, b) for a in SIDES for b in SIDES if a[0] != b[0]]
    row_axis, column_axis = max(pairs, key=lambda pair: float(units[pair[0]] @ r + units[pair[1]] @ c))
    a, b = units[row_axis], units[column_axis]
    turned = np.stack([r, c, np.cross(r, c)], axis=1) @ np.stack([a, b, np.cross(a, b)], axis=1).T
    normal = turned[:, 2]
    axis = np.cross([0.0, 0.0, 1.0], normal)
    tilt = float(np.arctan2(np.linalg.norm(axis), normal[2]))
    axis = axis / np.linalg.norm(axis) if tilt > 1e-12 else np.zeros(3)
    in_plane = Rotation.from_rotvec(-tilt * axis).as_matrix() @ turned
    a, b = in_plane @ a, in_plane @ b  # rows and columns of the detector before it is tilted
    return Pose(
        distance=float(distance),
        pixel_size=size,
        direct_beam=(float(at_row), float(at_column)),
        row_axis=row_axis,
        column_axis=column_axis,
        rotation_deg=float(np.degrees(np.arctan2(in_plane[1, 0], in_plane[0, 0]))),
        tilt_azimuth_deg=float(np.degrees(np.arctan2(axis @ a, -(axis @ b)))),
        tilt_deg=float(np.degrees(tilt)),
    )
