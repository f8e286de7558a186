"""Compute the surface, slices and colours of a crystal in space, as arrays, by the choices of the user.

A `Solid` is made once for each reconstruction and holds everything that does not depend on choices; `mesh` and `planes` apply the
choices of a `View`. Coordinates are (z, y, x) of the crystal's frame, in nm where the geometry is known, in voxels where it is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from braggshot.physics.surface import find_surface
from braggshot.report import text
from braggshot.report.figures import Colours, phase_colours
from braggshot.report.strain_figures import symmetric
from braggshot.volumes import FloatArray, Reconstruction, StrainMap

Axis = Literal["x", "y", "z"]
TITLES = {
    "strain": "strain along q",
    "displacement": "displacement along q",
    "phase": "phase",
    "amplitude": "amplitude",
    "d_spacing": "lattice spacing",
    "lattice_parameter": "lattice parameter",
    "sigma": "one sigma of the strain",
}
"""Quantity that may colour a surface or a slice -> its title; a page starts with the first one that the crystal has."""
SLICES: tuple[tuple[Axis, Axis, Axis], ...] = (("z", "x", "y"), ("y", "z", "x"), ("x", "z", "y"))
"""Axes of the three slices: normal to the slice, to the right, upwards."""

MAX_TRIANGLES = 60_000  # largest number of triangles of a surface; about 1 MB to send
# Largest number of triangles of a surface while its scan is measured; few, since a browser without a graphics card draws slowly.
MAX_TRIANGLES_LIVE = 8_000
_MAX_VOXELS = 1_000_000  # largest number of voxels of the box around the crystal; in a larger box, voxels are skipped
_MAX_PIXELS = 96  # longest side of a slice [pixels]
_LINE_POINTS = 200  # number of points along a line profile
_SMOOTHING = 0.7  # standard deviation of the Gaussian that smooths the steps of the amplitude at a sharp support [voxels]
_MARGIN = 3  # margin of the box around the support [voxels]


@dataclass(frozen=True)
class View:
    """The choices of one user of the page.

    Parameters
    ----------
    colouring : a key of `TITLES`
    level : amplitude of the iso-surface, relative to the median amplitude inside the support [1]
    cut : axis across which the crystal is cut open; None leaves it whole
    kept : share of the crystal's extent along `cut` that stays, from its low end [1]
    places : positions of the slices across z, y and x, as shares of the crystal's extent [1]
    max_triangles : largest number of triangles of the surface
    """

    colouring: str = "strain"
    level: float = 0.5
    cut: Axis | None = None
    kept: float = 0.5
    places: tuple[float, float, float] = (0.5, 0.5, 0.5)
    max_triangles: int = MAX_TRIANGLES


@dataclass(frozen=True, eq=False)
class Solid:
    """A crystal ready to be drawn, on the voxels of the box around its support.

    Parameters
    ----------
    name : name of the scan
    height : (z, y, x) smoothed amplitude, divided by the median amplitude inside the support [1]
    fields : key of `TITLES` -> (z, y, x) values, outside the crystal those of the nearest voxel inside; phase as exp(i phase)
    colours : colours and units of the fields
    basis : columns are the voxel edges [`unit`]
    origin : voxel index of r = 0 in the box
    low, high : lower and upper corner of the box that just holds the crystal [`unit`]
    unit : "nm" or "voxels"
    frame : name of the coordinate frame, in words
    q : unit vector along the scattering vector; None where it is not known
    lines : dislocations, (n, 3) points each [`unit`], and what to say of each
    """

    name: str
    height: FloatArray
    fields: Mapping[str, NDArray[Any]]
    colours: Mapping[str, Colours]
    basis: FloatArray
    origin: FloatArray
    low: FloatArray
    high: FloatArray
    unit: str
    frame: str
    q: FloatArray | None
    lines: tuple[tuple[FloatArray, str], ...] = ()

    def colouring(self, wished: str) -> str:
        """Return the name `wished` of a quantity if the crystal has it, else the name of the first one in `TITLES` that it has."""
        return wished if wished in self.fields else next(name for name in TITLES if name in self.fields)


@dataclass(frozen=True)
class Mesh:
    """An iso-surface of triangles, with a value at each corner or, for a phase that wraps, a value for each triangle.

    Parameters
    ----------
    points : (n, 3) float32 [unit of the solid]
    triangles : (m, 3) int32, or uint16 where that is enough
    values : (n,) or (m,) float32 [unit of the colours]
    """

    points: NDArray[np.float32]
    triangles: NDArray[Any]
    values: NDArray[np.float32]

    @property
    def is_by_triangle(self) -> bool:
        """True if `values` has a value for each triangle, False if it has one for each corner."""
        return len(self.values) == len(self.triangles) != len(self.points)


@dataclass(frozen=True)
class Plane:
    """One slice: values on a grid of points, NaN outside the crystal.

    Parameters
    ----------
    normal, across, up : names of the axes
    at : position along the normal [unit of the solid]
    x, y : positions of the columns, and of the rows from bottom to top [unit of the solid]
    values : (row, column) float32
    """

    normal: Axis
    across: Axis
    up: Axis
    at: float
    x: NDArray[np.float32]
    y: NDArray[np.float32]
    values: NDArray[np.float32]


def solid(result: Reconstruction) -> Solid | None:
    """Make a crystal ready to be drawn, with its strain where that is known; None if there is no crystal."""
    strain = result.strain
    if strain is not None and strain.support.any() and strain.amplitude[strain.support].max() > 0:
        return _solid_of_strain(strain)
    if not result.support.any() or not np.abs(result.rho[result.support]).max() > 0:
        return None
    rho = result.rho * np.exp(-1j * np.angle(np.sum(result.rho[result.support])))
    amplitude = np.abs(rho)
    colours = {"phase": phase_colours(rho[result.support]), "amplitude": _amplitudes(amplitude[result.support])}
    cubes = result.frame == "detector" and result.basis is None
    frame = "detector frame: z, y, x are rocking, row, column" if cubes else text.FRAMES[result.frame]
    basis = np.eye(3) if result.basis is None else result.basis * 1e9
    whole = _WholeCrystal(result.volume.name, amplitude, result.support, basis, "voxels" if result.basis is None else "nm", frame)
    return _crop_to_box(whole, {"phase": _unit_phase(rho), "amplitude": amplitude}, colours, result.volume.q_bragg)


def _solid_of_strain(strain: StrainMap) -> Solid:
    """Make a crystal from a strain map; colour ranges follow the bulk, or the whole support if there is no bulk."""
    inside = strain.bulk if strain.bulk.any() else strain.support
    displacement = strain.displacement * 1e12
    colours = {
        "strain": symmetric(strain.strain[inside], ""),
        "displacement": symmetric(displacement[inside], "pm"),
        "phase": phase_colours(np.exp(1j * strain.phase[inside])),
        "amplitude": _amplitudes(strain.amplitude[inside]),
    }
    fields = {
        "strain": strain.strain,
        "displacement": displacement,
        "phase": _unit_phase_inside(strain),
        "amplitude": strain.amplitude,
    }
    lengths = {"d_spacing": strain.d_spacing, "lattice_parameter": strain.lattice_parameter}
    more = {name: metres * 1e10 for name, metres in lengths.items() if metres is not None}
    if strain.strain_sigma is not None:
        more["sigma"] = strain.strain_sigma
    for name, values in more.items():
        if np.isfinite(values[inside]).any():
            fields[name], colours[name] = values, _between_percentiles(values[inside], "" if name == "sigma" else "Å")
    frame = strain.choices.get("frame", f"{strain.frame} frame")
    whole = _WholeCrystal(strain.name, strain.amplitude, strain.support, strain.basis * 1e9, "nm", frame)
    lines = tuple((line.points * 1e9, text.dislocations([line])) for line in strain.lines)
    return replace(_crop_to_box(whole, fields, colours, strain.q_bragg), lines=lines)


def _amplitudes(inside: FloatArray) -> Colours:
    """Return the colours of amplitudes, from 0 to the 99.5th percentile."""
    return Colours("viridis", 0.0, float(np.percentile(inside, 99.5)), "√photons")


def _between_percentiles(inside: FloatArray, unit: str) -> Colours:
    """Return the colours of a quantity without a natural zero, from its 1st to its 99th percentile."""
    low, high = np.nanpercentile(inside, (1, 99))
    margin = max(1e-6 * abs(float(high)), 1e-12) * (high <= low)
    return Colours("viridis", float(low - margin), float(high + margin), unit)


def _unit_phase(rho: NDArray[Any]) -> NDArray[np.complex64]:
    """Return exp(i phase) of an object."""
    return np.exp(1j * np.angle(rho)).astype(np.complex64)


def _unit_phase_inside(strain: StrainMap) -> NDArray[np.complex64]:
    """Return exp(i phase) inside the support and 1 elsewhere, to save computing time where nothing is shown."""
    unit = np.ones(strain.phase.shape, np.complex64)
    unit[strain.support] = np.exp(1j * strain.phase[strain.support])
    return unit


@dataclass(frozen=True)
class _WholeCrystal:
    """The crystal on its whole grid, before `_crop_to_box` crops it."""

    name: str
    amplitude: FloatArray
    support: NDArray[np.bool_]
    basis: FloatArray
    unit: str
    frame: str


def _crop_to_box(
    whole: _WholeCrystal, fields: Mapping[str, NDArray[Any]], colours: Mapping[str, Colours], q: FloatArray | None
) -> Solid:
    """Crop a crystal to the box around its support, with a border of zeros; voxels are skipped if there are too many."""
    extent = ndimage.find_objects(whole.support.astype(np.uint8))[0]
    box = tuple(slice(max(0, part.start - _MARGIN), part.stop + _MARGIN) for part in extent)
    inside = whole.support[box]
    thinning = max(1, int(np.ceil((inside.size / _MAX_VOXELS) ** (1 / 3))))
    every = (slice(None, None, thinning),) * 3
    # A border of zeros closes the surface of a crystal that touches the edge of its grid.
    height = np.pad(ndimage.gaussian_filter(whole.amplitude[box], _SMOOTHING)[every], 1)
    median = float(np.median(whole.amplitude[whole.support]))
    start = np.array([part.start for part in box])
    corners = (np.argwhere(whole.support) - np.array(whole.support.shape) // 2) @ whole.basis.T
    half = np.abs(whole.basis).sum(axis=1) / 2
    return Solid(
        name=whole.name,
        height=(height / (median or 1.0)).astype(np.float32),
        fields={name: np.pad(values[every], 1, mode="edge") for name, values in _extend_fields(fields, box, inside).items()},
        colours=colours,
        basis=whole.basis * thinning,
        origin=(np.array(whole.support.shape) // 2 - start) / thinning + 1,
        low=corners.min(axis=0) - half,
        high=corners.max(axis=0) + half,
        unit=whole.unit,
        frame=whole.frame,
        q=None if q is None else q / np.linalg.norm(q),
    )


def _extend_fields(
    fields: Mapping[str, NDArray[Any]], box: tuple[slice, ...], inside: NDArray[np.bool_]
) -> dict[str, NDArray[Any]]:
    """Fill fields outside the crystal with the value of the nearest voxel inside, so that interpolation meets no gap."""
    filled: dict[str, NDArray[Any]] = {}
    searched, nearest = np.zeros(0, bool), ()
    for name, values in fields.items():
        known = inside & np.isfinite(values[box])
        if not np.array_equal(known, searched) and known.any():  # most fields are known at the same voxels
            searched = known
            nearest = tuple(ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True))
        kind = np.complex64 if np.iscomplexobj(values) else np.float32
        filled[name] = values[box][nearest].astype(kind) if known.any() else np.zeros(known.shape, np.float32)
    return filled


def mesh(shown: Solid, view: View) -> Mesh | None:
    """Make the iso-surface, with a flat face if the crystal is cut open; None if nothing of the crystal is left at this level."""
    name = shown.colouring(view.colouring)
    return meshes(shown, view, [name]).get(name)


def meshes(shown: Solid, view: View, names: Sequence[str]) -> dict[str, Mesh]:
    """Make one iso-surface as `mesh` does, with the values of each quantity in `names`; empty if nothing of the crystal is left."""
    height = shown.height / max(view.level, 1e-3)
    if view.cut is not None:
        axis = "zyx".index(view.cut)
        plane = shown.low[axis] + view.kept * (shown.high[axis] - shown.low[axis])
        edge = float(np.linalg.norm(shown.basis[axis]))
        # The height falls below 1 beyond the plane, linearly across it, so that the face is flat wherever the voxels lie.
        height = np.minimum(height, 1 + (plane - _positions_along(shown, axis)) / edge)
    if not height.min() < 1 < height.max():
        return {}
    corners, triangles = _triangles(height, view.max_triangles)
    index = corners.T + _inward_step(shown.height, corners.T) * (1 if view.cut is None else _is_skin(shown, view, corners))
    points = ((corners - shown.origin) @ shown.basis.T).astype(np.float32)
    faces = triangles.astype(np.uint16 if len(corners) <= 2**16 else np.int32)
    return {name: Mesh(points, faces, _values_at(shown, name, index, triangles)) for name in names}


def _values_at(shown: Solid, name: str, index: FloatArray, triangles: NDArray[Any]) -> NDArray[np.float32]:
    """Read a quantity at the corners of the surface, or in the middle of each triangle if it is a phase that wraps.

    A triangle across a wrap would show all colours.
    """
    if name == "phase" and shown.colours[name].high >= np.pi:
        return _interpolate(shown.fields[name], index[:, triangles].mean(axis=2))
    return _interpolate(shown.fields[name], index)


def _triangles(height: FloatArray, max_triangles: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Find the corners (n, 3) of the surface as voxel indices, and its triangles; a coarser grid is used if they are too many."""
    for step in range(1, 9):
        surface = find_surface(height, 1.0, np.eye(3), smoothing=0, step=step)
        assert surface is not None  # the caller has looked whether the height passes 1
        if len(surface.triangles) <= max_triangles:
            break
    assert surface is not None
    return surface.index - 1, surface.triangles  # without the border


def _positions_along(shown: Solid, axis: int) -> FloatArray:
    """Return the position of every voxel along one axis."""
    index = np.indices(shown.height.shape, sparse=True)
    parts = [shown.basis[axis, k] * (index[k] - shown.origin[k]) for k in range(3)]
    return np.asarray(parts[0] + parts[1] + parts[2])


def _inward_step(height: FloatArray, index: FloatArray) -> FloatArray:
    """Return a vector for each point of the surface: it points into the crystal and is one voxel long.

    The value that colours a point is read at the tip of its vector, because voxels at the surface itself are half empty.
    """
    slope = np.stack([ndimage.map_coordinates(part, index, order=1) for part in np.gradient(height)])
    return np.asarray(slope / np.maximum(np.linalg.norm(slope, axis=0), 1e-30))


def _is_skin(shown: Solid, view: View, points: FloatArray) -> NDArray[np.bool_]:
    """Tell which vertices of the mesh lie on the crystal's own surface, and not on the flat face where the crystal is cut open."""
    own = ndimage.map_coordinates(shown.height, points.T, order=1)
    return np.asarray(own < 1.1 * view.level)


def _interpolate(field: NDArray[Any], index: FloatArray) -> NDArray[np.float32]:
    """Interpolate a field linearly; a phase is interpolated as a complex number, so that its wraps leave no seam."""
    if np.iscomplexobj(field):
        real, imaginary = (ndimage.map_coordinates(part, index, order=1, mode="nearest") for part in (field.real, field.imag))
        return np.arctan2(imaginary, real).astype(np.float32)
    return ndimage.map_coordinates(field, index, order=1, mode="nearest").astype(np.float32)


def planes(shown: Solid, view: View) -> tuple[Plane, ...]:
    """Make the slices across z, y and x, with values inside the iso-surface only."""
    name = shown.colouring(view.colouring)
    slices = []
    for (normal, across, up), share in zip(SLICES, view.places, strict=True):
        n, a, u = ("zyx".index(axis) for axis in (normal, across, up))
        at = shown.low[n] + share * (shown.high[n] - shown.low[n])
        x, y = (_pixel_positions(shown, axis) for axis in (a, u))
        places = np.empty((3, len(y), len(x)))
        places[n], places[a], places[u] = at, x[None, :], y[:, None]
        index = np.einsum("ij,jkl->ikl", np.linalg.inv(shown.basis), places) + shown.origin[:, None, None]
        inside = ndimage.map_coordinates(shown.height, index, order=1) >= view.level
        values = np.where(inside, _interpolate(shown.fields[name], index), np.nan).astype(np.float32)
        slices.append(Plane(normal, across, up, float(at), x, y, values))
    return tuple(slices)


def line(shown: Solid, view: View, ends: Sequence[Sequence[float]]) -> tuple[FloatArray, NDArray[np.float32]]:
    """Read a quantity along the straight line between two points, NaN outside the iso-surface.

    Parameters
    ----------
    ends : two points, (z, y, x) [unit of the solid]

    Returns
    -------
    Distances from the first point [unit of the solid], and the values there.
    """
    start, end = np.asarray(ends, dtype=float)
    share = np.linspace(0, 1, _LINE_POINTS)
    index = np.linalg.inv(shown.basis) @ (start + share[:, None] * (end - start)).T + shown.origin[:, None]
    inside = ndimage.map_coordinates(shown.height, index, order=1) >= view.level
    values = _interpolate(shown.fields[shown.colouring(view.colouring)], index)
    return share * float(np.linalg.norm(end - start)), np.where(inside, values, np.nan).astype(np.float32)


def _pixel_positions(shown: Solid, axis: int) -> NDArray[np.float32]:
    """Return the positions of the pixels of a slice along an axis: about six per voxel, and a little beyond the crystal."""
    size = float(shown.high[axis] - shown.low[axis])
    edge = float(np.linalg.norm(shown.basis, axis=0).min())
    number = int(np.clip(6 * size / edge, 8, _MAX_PIXELS))
    return np.linspace(shown.low[axis] - 0.05 * size, shown.high[axis] + 0.05 * size, number, dtype=np.float32)
