"""Make the pictures of a reconstruction as plain arrays, so that the page and the slide show the same ones.

Direct space is drawn in the Cartesian axes of the basis (z, y, x), never in the skewed axes of the voxels, and all slices have the
same scale. Phases are interpolated in the complex field and shown inside the support only, with their mean at zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from braggshot.physics import forward, metrics
from braggshot.physics.fourier import fourier
from braggshot.report import text
from braggshot.report.surface import ColouredSurface, bulk, isosurface, render, view_axes
from braggshot.volumes import BoolArray, ComplexArray, DiffractionVolume, FloatArray, Reconstruction

Pixels = NDArray[np.uint8]
PNG = {"compress_level": 4}  # of zlib: the pictures are 3 % larger than with its default, in two thirds of the time
VIEWS = (30, 120, 210, 300)  # azimuths from which the surface of the crystal is drawn [degrees]
ELEVATION = 25.0  # elevation from which the surface of the crystal is drawn [degrees]
_SIDE = 240  # pixels along each side of a slice
_UNKNOWN = (128, 128, 128, 255)  # colour of voxels that are not valid (RGBA)


@dataclass(frozen=True)
class Colours:
    """Colour map for values from `low` to `high`; `name` is matplotlib's name of the map."""

    name: str
    low: float
    high: float
    unit: str
    logarithmic: bool = False

    def __call__(self, values: FloatArray) -> Pixels:
        """Turn values into RGBA; values outside the range get the colours of the range's ends."""
        norm = mpl.colors.LogNorm if self.logarithmic else mpl.colors.Normalize
        shown = norm(self.low, self.high)(np.clip(values, self.low, self.high))
        return np.asarray(mpl.colormaps[self.name](shown, bytes=True), dtype=np.uint8)


@dataclass(frozen=True)
class Picture:
    """One panel of a page, slide or figure.

    Parameters
    ----------
    rgba : (height, width, 4), first row on top
    title : title of the panel
    across, along : names of the horizontal and vertical directions, with arrows
    width, height : lengths that the panel spans [`unit`]
    triad : name of each coordinate axis, and components right and up of its unit vector, for views in three dimensions
    labels : texts and their places (right, up), 0 to 1 from the lower left
    lines : lines inside the crystal, as places (n, 2) of this kind
    """

    rgba: Pixels
    title: str
    across: str
    along: str
    width: float
    height: float
    unit: str
    triad: tuple[tuple[str, float, float], ...] = ()
    labels: tuple[tuple[str, float, float], ...] = ()
    lines: tuple[FloatArray, ...] = ()

    @property
    def is_dark(self) -> bool:
        """Tell whether the picture is dark at the bottom, so that a scale bar there has to be white."""
        bottom = self.rgba[-max(1, len(self.rgba) // 8) :].astype(float)
        return float((bottom[..., :3].mean(axis=-1) * bottom[..., 3] / 255).mean()) < 100 and bottom[..., 3].mean() > 200


@dataclass(frozen=True)
class Crystal:
    """Reconstruction ready to be drawn, with a mean phase of zero.

    `basis`, the centre of the slices and their half width `half` are in `unit`.
    """

    rho: ComplexArray
    support: BoolArray
    basis: FloatArray
    unit: str
    surface: ColouredSurface | None
    centre: FloatArray
    half: float
    phases: Colours
    amplitudes: Colours
    q_bragg: FloatArray | None


@dataclass(frozen=True)
class Diffraction:
    """Pictures of central planes: measured counts, fitted counts, and the difference of their square roots."""

    measured: tuple[Picture, ...]
    fitted: tuple[Picture, ...]
    difference: tuple[Picture, ...]
    counts: Colours
    errors: Colours


def crystal(reconstruction: Reconstruction) -> Crystal:
    """Prepare a reconstruction for drawing: crystal, scale and colours that all its pictures share; the support may be empty."""
    support = reconstruction.support
    rho = reconstruction.rho * np.exp(-1j * np.angle(np.sum(reconstruction.rho[support])))
    basis: FloatArray = np.eye(3)
    unit = "voxels"
    if reconstruction.basis is not None:
        basis, unit = reconstruction.basis * 1e9, "nm"
    surface = isosurface(rho, support, basis)
    window = float(np.linalg.norm(basis, axis=0).min() * min(rho.shape) / 2)
    amplitude = np.abs(rho[support])
    return Crystal(
        rho=rho,
        support=support,
        basis=basis,
        unit=unit,
        surface=surface,
        centre=np.zeros(3) if surface is None else surface.centre,
        half=window if surface is None else 1.3 * float(np.abs(surface.corners).max()),
        phases=phase_colours(rho[bulk(rho, support)]),
        amplitudes=Colours("viridis", 0.0, float(np.percentile(amplitude, 99.5)) if amplitude.any() else 1.0, "√photons"),
        q_bragg=None if reconstruction.basis is None else reconstruction.volume.q_bragg,
    )


def phase_colours(inside: ComplexArray) -> Colours:
    """Choose the colours of phases: a symmetric range that ends at a simple fraction of pi and holds nearly all phases.

    A range that ends at pi gets a cyclic colour map.
    """
    largest = float(np.percentile(np.abs(np.angle(inside)), 99)) if inside.size else np.pi
    limit = next((np.pi * part for part in (1 / 8, 1 / 4, 1 / 2, 3 / 4) if largest <= np.pi * part), np.pi)
    return Colours("twilight_shifted" if limit == np.pi else "coolwarm", -limit, limit, "rad")


def views(shown: Crystal, size: int = 420) -> tuple[Picture, ...]:
    """Draw the surface from four sides, coloured by its phase; no pictures where there is no surface."""
    if shown.surface is None:
        return ()

    def colour(field: ComplexArray) -> FloatArray:
        return shown.phases(np.angle(field))[:, :3] / 255.0

    pictures = []
    for azimuth in VIEWS:
        axes = view_axes(np.radians(azimuth), np.radians(ELEVATION))
        arrows: dict[str, FloatArray] = dict(zip("zyx", np.eye(3), strict=True))
        if shown.q_bragg is not None:
            arrows["q"] = shown.q_bragg / np.linalg.norm(shown.q_bragg)
        triad = tuple((name, float(axes[0] @ arrow), float(axes[1] @ arrow)) for name, arrow in arrows.items())
        rgba = render(shown.surface, axes, size, colour)
        width = 2 * shown.surface.radius
        pictures.append(Picture(rgba, f"from azimuth {azimuth}°", "", "", width, width, shown.unit, triad))
    return tuple(pictures)


def slices(shown: Crystal) -> tuple[tuple[Picture, ...], tuple[Picture, ...]]:
    """Draw amplitude and phase on the three Cartesian planes through the crystal's centre of mass."""
    weight = np.abs(shown.rho) * shown.support
    middle = np.array(ndimage.center_of_mass(weight)) if weight.any() else np.array(shown.rho.shape) // 2
    through = shown.basis @ (middle - np.array(shown.rho.shape) // 2)
    amplitudes: list[Picture] = []
    phases: list[Picture] = []
    for across, up in (("x", "y"), ("z", "y"), ("z", "x")):
        field, inside = _plane(shown, through, "zyx".index(across), "zyx".index(up))
        for pictures, colours, values in (
            (amplitudes, shown.amplitudes, np.abs(field)),
            (phases, shown.phases, np.angle(field)),
        ):
            rgba = colours(values)
            rgba[..., 3] = inside
            pictures.append(
                Picture(rgba, f"{across}{up} plane", f"{across} →", f"{up} ↑", 2 * shown.half, 2 * shown.half, shown.unit)
            )
    return tuple(amplitudes), tuple(phases)


def _plane(shown: Crystal, through: FloatArray, across: int, up: int) -> tuple[ComplexArray, Pixels]:
    """Compute the complex field and the opacity at each pixel of a slice that is parallel to two Cartesian axes.

    The field is interpolated linearly. The opacity is 0 outside the support. The first row is the top one.
    """
    steps = (np.arange(_SIDE) + 0.5 - _SIDE / 2) * (2 * shown.half / _SIDE)
    places = np.empty((3, _SIDE, _SIDE))
    places[:] = through[:, None, None]
    places[across] = shown.centre[across] + steps[None, :]
    places[up] = shown.centre[up] - steps[:, None]
    index = np.einsum("ij,jkl->ikl", np.linalg.inv(shown.basis), places)
    index += (np.array(shown.rho.shape) // 2)[:, None, None]
    parts = [ndimage.map_coordinates(part, index, order=1) for part in (shown.rho.real, shown.rho.imag)]
    inside = ndimage.map_coordinates(shown.support.astype(np.float32), index, order=1)
    return parts[0] + 1j * parts[1], np.asarray(np.clip((inside - 0.4) * 5, 0, 1) * 255, dtype=np.uint8)


def fitted_magnitude(reconstruction: Reconstruction) -> FloatArray | None:
    """Compute the fitted magnitudes c|F| on the grid of the measured counts [sqrt(photons)], or None if this is not possible.

    F is the Fourier transform of the object, and c the scale that fits the counts best. The estimated point spread is applied. The
    result is None without counts, without a crystal, or if the crystal lies on another grid.
    """
    volume = reconstruction.volume
    same_grid = reconstruction.frame == "detector" and reconstruction.rho.shape == volume.shape
    if not same_grid or not (volume.valid & (volume.intensity > 0)).any() or not reconstruction.support.any():
        return None
    rho = torch.from_numpy(np.where(reconstruction.support, reconstruction.rho, 0).astype(np.complex64))
    psf = reconstruction.psf
    spread = forward.PointSpread(tuple(psf["sigma"]), psf.get("eta", 0.0)) if psf and "sigma" in psf else None
    magnitude = forward.intensity(rho, spread).sqrt() if spread else fourier(rho).abs()
    try:
        return metrics.misfit(magnitude, torch.from_numpy(volume.intensity), torch.from_numpy(volume.valid)).magnitude.numpy()
    except ValueError:
        return None  # a crystal of zeros fits nothing


def diffraction(reconstruction: Reconstruction) -> Diffraction | None:
    """Draw measured counts, fitted counts and the difference of their roots; None for a result without measured counts."""
    magnitude = fitted_magnitude(reconstruction)
    if magnitude is None:
        return None
    volume = reconstruction.volume
    highest = float(volume.intensity[volume.valid].max())
    positive = volume.intensity[volume.valid & (volume.intensity > 0)]
    counts = Colours("inferno", max(float(np.percentile(positive, 1)) / 2, highest * 1e-7), highest, "photons", logarithmic=True)
    error = magnitude - np.sqrt(np.clip(volume.intensity, 0, None))
    limit = max(2.0, float(np.percentile(np.abs(error[volume.valid]), 99.9)))
    errors = Colours("RdBu_r", -limit, limit, "√photons")
    masked = np.where(volume.valid, 0.0, np.nan)
    return Diffraction(
        _central_planes(volume, volume.intensity + masked, counts),
        _central_planes(volume, magnitude**2, counts),
        _central_planes(volume, error + masked, errors),
        counts,
        errors,
    )


def _central_planes(volume: DiffractionVolume, values: FloatArray, colours: Callable[[Any], Pixels]) -> tuple[Picture, ...]:
    """Draw the three planes of the detector grid through the voxel N // 2; voxels whose value is not a number are grey."""
    names = ("rocking", "row", "column")
    basis = volume.reciprocal_basis
    steps, unit = (np.ones(3), "voxels") if basis is None else (np.linalg.norm(basis, axis=0) * 1e-9, "nm⁻¹")
    pictures = []
    for normal, down, across in ((0, 1, 2), (1, 0, 2), (2, 0, 1)):
        plane = np.take(values, values.shape[normal] // 2, axis=normal)
        rgba = colours(np.nan_to_num(plane))
        rgba[np.isnan(plane)] = _UNKNOWN
        size = [float(n * step) for n, step in zip(volume.shape, steps, strict=True)]
        title = f"{names[down]} – {names[across]}"
        pictures.append(Picture(rgba, title, f"{names[across]} →", f"{names[down]} ↓", size[across], size[down], unit))
    return tuple(pictures)


def scale_bar(width: float) -> float:
    """Choose the length of a scale bar: 1, 2 or 5 times a power of ten, between 0.18 and 0.45 of the picture's `width`."""
    power = 10.0 ** np.floor(np.log10(0.45 * width))
    return float(max(step for step in (power, 2 * power, 5 * power) if step <= 0.45 * width))


def ends(colours: Colours) -> tuple[str, str]:
    """Write the ends of a range of colours as text, with so many digits that they differ."""
    largest, width = max(abs(colours.low), abs(colours.high)), colours.high - colours.low
    digits = 3 + max(0, math.ceil(math.log10(largest / width))) if width > 0 else 3
    return label(colours.low, colours.unit, digits), label(colours.high, colours.unit, digits)


def label(value: float, unit: str, digits: int = 3) -> str:
    """Write a value as text: in the unit "rad" as a fraction of pi, in any other unit with three significant digits or more."""
    if unit != "rad":
        return text.number(value, digits).replace("-", "−")
    part = Fraction(abs(value) / np.pi).limit_denominator(16)
    name = ("" if part.numerator == 1 else str(part.numerator)) + "π" + ("" if part.denominator == 1 else f"/{part.denominator}")
    return "−" + name if value < 0 else name
