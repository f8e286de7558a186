"""Make the pictures of a strain map: the surface coloured by strain or displacement, with the names of facets, and slices.

The range of colours is symmetric about zero and ends at a round number. The colour map is perceptually even (coolwarm: Moreland,
Proc. 5th Int. Symp. Visual Computing, 2009). Lengths are in nm and displacements in pm.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from braggshot.report import figures
from braggshot.report.figures import Colours, Picture
from braggshot.report.surface import ColouredSurface, isosurface, render, view_axes
from braggshot.volumes import Facet, FloatArray, StrainMap

_SIDE = 240  # pixels along each side of a slice
_FACING = 0.45  # least cosine between a facet's normal and the direction to the viewer for its name to be written
_LABEL = (0.16, 0.08)  # width and height kept free for the name of a facet, as shares of the picture's width and height [1]
VIEWS = (30, 120, 210, 300)  # azimuths from which the surface of the crystal is drawn [degrees]


@dataclass(frozen=True)
class Material:
    """Strain map ready to be drawn; lengths in nm, displacement in pm."""

    found: StrainMap
    basis: FloatArray
    surface: ColouredSurface | None
    half: float
    displacement: FloatArray
    strains: Colours
    displacements: Colours
    amplitudes: Colours


def material(found: StrainMap) -> Material:
    """Prepare a strain map for drawing: surface, scale and colours that all its pictures share; the support may be empty."""
    basis = found.basis * 1e9
    surface = isosurface(found.amplitude * np.exp(1j * found.phase), found.support, basis)
    displacement = found.displacement * 1e12
    inside = found.bulk if found.bulk.any() else found.support
    window = float(np.linalg.norm(basis, axis=0).min() * min(found.support.shape) / 2)
    return Material(
        found=found,
        basis=basis,
        surface=surface,
        half=window if surface is None else 1.15 * float(np.abs(surface.corners).max()),
        displacement=displacement,
        strains=symmetric(found.strain[inside], ""),
        displacements=symmetric(displacement[inside], "pm"),
        amplitudes=Colours(
            "viridis", 0.0, float(np.percentile(found.amplitude[inside], 99.5)) if inside.any() else 1.0, "√photons"
        ),
    )


def symmetric(values: FloatArray, unit: str) -> Colours:
    """Choose a range of colours that is symmetric about zero and holds nearly all values.

    It ends at 1, 2 or 5 times a power of ten.
    """
    known = np.abs(values[np.isfinite(values)])
    largest = float(np.percentile(known, 98)) if known.any() else 1.0
    power = 10.0 ** np.floor(np.log10(largest))
    limit = next(step * power for step in (1, 2, 5, 10) if largest <= step * power * 1.0001)
    return Colours("coolwarm", -limit, limit, unit)


def views(shown: Material, what: str = "strain", size: int = 420, azimuths: tuple[int, ...] = ()) -> tuple[Picture, ...]:
    """Draw the surface from several sides, coloured by "strain" or "displacement", with facet names; empty without a surface."""
    if shown.surface is None:
        return ()
    values, colours = _field(shown, what)
    surface = replace(shown.surface, field=_at_the_surface(shown, values) + 0j)
    pictures = []
    for azimuth in azimuths or VIEWS:
        axes = view_axes(np.radians(azimuth), np.radians(figures.ELEVATION))
        q = shown.found.q_bragg / np.linalg.norm(shown.found.q_bragg)
        arrows = {name: arrow for name, arrow in zip("zyx", np.eye(3), strict=True) if arrow @ q < 0.995}  # else q stands for it
        arrows["q"] = q
        triad = tuple((name, float(axes[0] @ arrow), float(axes[1] @ arrow)) for name, arrow in arrows.items())
        rgba = render(surface, axes, size, lambda field: colours(field.real)[:, :3] / 255.0)
        width = 2 * surface.radius
        labels = _labels(shown.found.facets, surface, axes)
        inside = tuple(0.5 + (line.points * 1e9 - surface.centre) @ axes[:2].T / width for line in shown.found.lines)
        pictures.append(Picture(rgba, f"from azimuth {azimuth}°", "", "", width, width, "nm", triad, labels, inside))
    return tuple(pictures)


def _field(shown: Material, what: str) -> tuple[FloatArray, Colours]:
    fields = {
        "strain": (shown.found.strain, shown.strains),
        "displacement": (shown.displacement, shown.displacements),
        "amplitude": (shown.found.amplitude, shown.amplitudes),
    }
    return fields[what]


def _at_the_surface(shown: Material, values: FloatArray) -> NDArray[np.float64]:
    """Return the value for each corner of the surface's triangles, as an array (triangle, 3).

    Values are interpolated one voxel deeper inside the crystal than the corners.
    """
    assert shown.surface is not None
    depth = abs(float(np.linalg.det(shown.basis))) ** (1 / 3)
    places = shown.surface.corners + shown.surface.centre - depth * shown.surface.normals
    index = places @ np.linalg.inv(shown.basis).T + np.array(values.shape) // 2
    filled = _filled(values, shown)
    return np.asarray(ndimage.map_coordinates(filled, np.moveaxis(index, -1, 0), order=1, mode="nearest"), dtype=np.float64)


def _filled(values: FloatArray, shown: Material) -> NDArray[np.float64]:
    """Give voxels outside the crystal the value of the nearest voxel inside, so that interpolation uses no empty voxel."""
    known = shown.found.support & np.isfinite(values)
    if not known.any():
        return np.zeros(values.shape)
    nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    return np.asarray(values[tuple(nearest)], dtype=np.float64)


def _labels(facets: tuple[Facet, ...], surface: ColouredSurface, axes: FloatArray) -> tuple[tuple[str, float, float], ...]:
    """List the names of facets that face the viewer, with their places on the picture (right, up), 0 to 1 from the lower left."""
    found: list[tuple[str, float, float]] = []
    for facet in facets:
        if facet.hkl is None or facet.normal @ axes[2] < _FACING:
            continue
        right, up, _ = 0.5 + axes @ (facet.centre * 1e9 - surface.centre) / (2 * surface.radius)
        if all(abs(right - across) > _LABEL[0] or abs(up - along) > _LABEL[1] for _, across, along in found):  # the largest wins
            found.append((plane_name(facet.hkl), float(right), float(up)))
    return tuple(found)


def plane_name(hkl: tuple[int, int, int]) -> str:
    """Write the name of the plane (hkl), with bars over negative indices."""
    return "(" + "".join(f"{abs(index)}\N{COMBINING OVERLINE}" if index < 0 else str(index) for index in hkl) + ")"


def slices(shown: Material, what: str = "strain") -> tuple[Picture, ...]:
    """Draw strain, displacement or amplitude on three planes through the centre of mass, inside the iso-surface only."""
    found = shown.found
    values, colours = _field(shown, what)
    centre = np.zeros(3) if shown.surface is None else shown.surface.centre
    middle = np.array(ndimage.center_of_mass(found.support)) if found.support.any() else np.array(found.support.shape) // 2
    through = shown.basis @ (middle - np.array(found.support.shape) // 2)
    filled = _filled(values, shown)
    height = np.where(ndimage.binary_dilation(found.support, iterations=2), found.amplitude, 0) / max(found.iso_level, 1e-30)
    pictures = []
    for across, up in (("x", "y"), ("z", "y"), ("z", "x")):
        index = _plane(shown, through, centre, "zyx".index(across), "zyx".index(up))
        rgba = colours(ndimage.map_coordinates(filled, index, order=1, mode="nearest"))
        inside = ndimage.map_coordinates(height, index, order=1)
        rgba[..., 3] = np.asarray(np.clip((inside - 0.95) * 10, 0, 1) * 255, dtype=np.uint8)
        pictures.append(Picture(rgba, f"{across}{up} plane", f"{across} →", f"{up} ↑", 2 * shown.half, 2 * shown.half, "nm"))
    return tuple(pictures)


def _plane(shown: Material, through: FloatArray, centre: FloatArray, across: int, up: int) -> NDArray[np.float64]:
    """Compute the fractional voxel indices of the pixels of a slice along two Cartesian axes; the first row is the top one."""
    steps = (np.arange(_SIDE) + 0.5 - _SIDE / 2) * (2 * shown.half / _SIDE)
    places = np.empty((3, _SIDE, _SIDE))
    places[:] = through[:, None, None]
    places[across] = centre[across] + steps[None, :]
    places[up] = centre[up] - steps[:, None]
    index = np.einsum("ij,jkl->ikl", np.linalg.inv(shown.basis), places)
    return np.asarray(index + (np.array(shown.found.support.shape) // 2)[:, None, None])


def histogram(shown: Material, bins: int = 61) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """Compute histograms of the strain in the "bulk" and in the "surface": the centres of the bins, and densities.

    A density is the share of the voxels whose strain lies in the bin, divided by the width of the bin.
    """
    edges = np.linspace(1.5 * shown.strains.low, 1.5 * shown.strains.high, bins + 1)
    parts = {"bulk": shown.found.bulk, "surface": shown.found.surface}
    densities = {}
    for name, where in parts.items():
        chosen = shown.found.strain[where & ~shown.found.dislocation & np.isfinite(shown.found.strain)].astype(np.float64)
        counts, _ = np.histogram(chosen, edges)
        densities[name] = counts / max(1, chosen.size) / np.diff(edges)
    return (edges[1:] + edges[:-1]) / 2, densities
