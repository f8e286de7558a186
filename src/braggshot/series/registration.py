r"""Bring all crystals of a series to one grid, one twin and one origin.

The neighbour of a scan is the earlier scan that its crystal is compared with. All volumes share one shape and binning.
If both scans have the same voxels in space, crystals are compared voxel by voxel. Otherwise the neighbour's crystal is
interpolated. The voxel n of the new scan lies at the position n' in the neighbour's array:

.. math:: n' = (R' A')^{-1} R A\, n

Both count from the centre of their array. The columns of A are the edges of a voxel, R is the rotation that turns the scattering
vector q onto one fixed axis, and primes mark the neighbour.

A peak that lies a fraction of a voxel off the centre of the array gives the crystal a phase ramp. The ramp is removed before
crystals are compared. Along one axis with N voxels, the slope of the ramp is the phase of

.. math:: \sum_n \rho_n^* \rho_{n+1} = \sum_k |F_k|^2 e^{2\pi i k / N}

The left side follows from the object rho, the right side from the counts, the squared magnitudes of its Fourier transform F. The
crystal or its twin (the conjugate inversion) is kept, whichever correlates better with the neighbour after the best shift. The
strain maps of a series share one voxel size and one shape.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from braggshot.errors import DataError, GeometryError
from braggshot.iterative.iterate import Guess
from braggshot.physics import metrics
from braggshot.physics.fourier import centre_of_mass, inverted, to_corner
from braggshot.physics.geometry import direct_basis, direction, rotation_onto, scanned_line
from braggshot.physics.strain import mean_turn, on_grid, without_ramp
from braggshot.prepare import PrepareConfig
from braggshot.prepare.rocking import is_coarser
from braggshot.volumes import ComplexArray, DiffractionVolume, FloatArray, Reconstruction, Scan, StrainMap

ENOUGH = 2.2  # oversampling along the rocking axis with which a scan of larger steps is phased like any other [1]
# Largest distance between voxels of equal index in two grids that count as the same, over the middle half of the array [voxels].
SAME = 0.1


@dataclass(frozen=True)
class Grid:
    """Grid that every scan of a series shares.

    Parameters
    ----------
    shape, binning : shape and binning of the prepared volumes
    voxel_size : edges of a voxel of the strain maps (z, y, x) [m]; None without geometry
    map_shape : shape of the strain maps, odd so that the crystal's origin is the middle voxel; None without geometry
    step : step of the rocking angle [rad], or of the energy [J], between raw frames; None without geometry
    """

    shape: tuple[int, int, int]
    binning: tuple[int, int, int] | None
    voxel_size: tuple[float, float, float] | None
    map_shape: tuple[int, int, int] | None
    step: float | None = None


def grid_of(found: Reconstruction, strain: StrainMap | None) -> Grid:
    """Make the grid of a series from its first crystal; strain maps have room for a crystal that fills half of each axis."""
    window = found.volume.window
    binning = None if window is None else window.binning
    if strain is None or found.basis is None:
        return Grid(found.rho.shape, binning, None, None)
    z, y, x = strain.basis.diagonal().tolist()
    reach = np.abs(strain.rotation @ found.basis) @ (np.array(found.rho.shape) / 4)
    rooms = (max(n, 2 * math.ceil(r / edge) + 1) for n, r, edge in zip(strain.support.shape, reach, (z, y, x), strict=True))
    a, b, c = rooms
    return Grid(found.rho.shape, binning, (z, y, x), (a, b, c), _step_of_frames(found.volume))


def _step_of_frames(volume: DiffractionVolume) -> float | None:
    if volume.geometry is None or volume.window is None:
        return None
    try:
        return abs(scanned_line(volume.geometry, volume.window)[1])
    except GeometryError:
        return None


def hold_grid(config: PrepareConfig, grid: Grid | None, scan: Scan, sampling: float | None = 0.0) -> PrepareConfig:
    """Return the settings that prepare a scan on the grid of the series.

    `config` is unchanged if the series has no grid yet, or if the scan is prepared already and has the shape of the grid. A scan of
    every second frame, or fewer, gets the steps of the series, so that it has its voxels; the planes between its frames are empty.

    Parameters
    ----------
    sampling : oversampling along the rocking axis with the steps of the series. A scan that keeps an oversampling of `ENOUGH` with
        its own steps keeps them, and so does every scan if None [1]
    """
    if grid is None or (scan.prepared and tuple(scan.frames.shape) == grid.shape):
        return config
    held = replace(config, shape=grid.shape, binning=grid.binning or config.binning)
    frames, rows, columns = grid.binning or (1, 1, 1)
    if sampling is None or grid.step is None or not is_coarser(scan, frames * grid.step * max(1.0, sampling / (2 * ENOUGH))):
        return held
    return replace(held, binning=(1, rows, columns), step=frames * grid.step)  # a bin with an empty plane would not be valid


def carry_neighbour(previous: Reconstruction, volume: DiffractionVolume, axis: str = "y+") -> ComplexArray:
    """Bring the crystal of the neighbouring scan to the grid of `volume`; the field is zero outside the crystal.

    The crystal is scaled to the photons of `volume`, and gets the phase ramp that the position of the peak in `volume` implies.
    """
    field: ComplexArray = np.where(previous.support, previous.rho, 0)
    field = without_ramp(field, mean_turn(field))
    step = _step(previous, volume, axis)
    if step is not None:
        field = _interpolated(field, step, volume.shape)
    elif field.shape != volume.shape:
        raise DataError(f"{volume.name}: shape {volume.shape} where the series has {field.shape}, and no geometry to relate them.")
    photons = float(volume.intensity[volume.valid].sum(dtype=np.float64))
    power = float(np.sum(np.abs(field) ** 2))
    field = without_ramp(field, -measured_turn(volume))
    return (field * math.sqrt(photons / max(power, 1e-30))).astype(np.complex64)


def measured_turn(volume: DiffractionVolume) -> NDArray[np.float64]:
    """Compute the phase difference between neighbouring voxels along each axis, (3,), from the position of the peak [rad].

    The difference is a mean over the crystal. Every object that explains the counts has the same mean.
    """
    counts = torch.from_numpy(np.where(volume.valid, volume.intensity, 0).astype(np.float64))
    centres = [float(centre) for centre in centre_of_mass(counts)]
    return 2 * np.pi * np.array(centres) / np.array(volume.shape)


def _step(previous: Reconstruction, volume: DiffractionVolume, axis: str) -> NDArray[np.float64] | None:
    """Compute the matrix (3, 3) that converts voxel indices of `volume` to voxel indices of `previous`.

    Return None if both grids are the same, or if a geometry is not known.
    """
    q, before = volume.q_bragg, previous.volume.q_bragg
    if q is None or before is None or volume.reciprocal_basis is None or previous.basis is None:
        return None
    new = rotation_onto(q, direction(axis)) @ direct_basis(volume.reciprocal_basis, volume.shape)
    old = rotation_onto(before, direction(axis)) @ previous.basis
    step = np.linalg.solve(old, new)
    apart = float(np.abs((step - np.eye(3)) @ np.diag(np.array(volume.shape) / 4)).sum(axis=1).max())
    return None if apart < SAME and previous.rho.shape == volume.shape else np.asarray(step, dtype=np.float64)


def _interpolated(field: ComplexArray, step: FloatArray, shape: tuple[int, int, int]) -> ComplexArray:
    index = np.indices(shape).reshape(3, -1) - np.array(shape)[:, None] // 2
    places = (step @ index + np.array(field.shape)[:, None] // 2).reshape(3, *shape)
    parts = (ndimage.map_coordinates(part, places, order=1, mode="grid-constant") for part in (field.real, field.imag))
    real, imaginary = parts
    return np.asarray(real + 1j * imaginary)


def guess(field: ComplexArray) -> Guess:
    """Make an initial guess for the phasing from a crystal; its support holds voxels above a tenth of the largest amplitude."""
    rho = to_corner(torch.from_numpy(field))
    amplitude = rho.abs()
    return Guess(rho, amplitude > 0.1 * amplitude.max())


@dataclass(frozen=True)
class Registration:
    """Changes that aligned a crystal with its neighbour, the crystal of an earlier scan, and how well both agree afterwards.

    Parameters
    ----------
    correlation : correlation of the complex fields of the aligned crystal and its neighbour [1]
    margin : correlation of the kept twin with the neighbour, minus that of the rejected twin [1]
    twin : whether the crystal was replaced by its twin, the conjugate inversion
    shift : distance (z, y, x) by which the crystal was moved, in whole voxels so that no value is interpolated [voxels]
    rest : distance (z, y, x) that remains between crystal and neighbour, a fraction of a voxel [voxels]
    """

    correlation: float
    margin: float
    twin: bool
    shift: tuple[int, int, int]
    rest: tuple[float, float, float]


def register(found: Reconstruction, neighbour: ComplexArray) -> tuple[Reconstruction, Registration]:
    """Move a crystal to the origin of `neighbour`, after replacing it by its twin if that correlates better with `neighbour`.

    The crystal and `neighbour` must lie on the same grid.

    Raises
    ------
    DataError : if the crystal or `neighbour` is zero everywhere.
    """
    rho = np.where(found.support, found.rho, 0)
    if not np.abs(rho).max() > 0 or not np.abs(neighbour).max() > 0:
        raise DataError(f"{found.volume.name}: there is no crystal to compare with its neighbour.")
    # Single precision is enough to find a shift in voxels, and quicker.
    reference = torch.from_numpy(without_ramp(neighbour, mean_turn(neighbour)).astype(np.complex64))
    flat = without_ramp(rho, mean_turn(rho)).astype(np.complex64)
    tried = [metrics.align(torch.from_numpy(field), reference, allow_twin=False) for field in (flat, _inverted(flat).conj())]
    twin = tried[1].correlation > tried[0].correlation
    best, other = tried[twin], tried[not twin]
    z, y, x = (round(s) for s in best.shift)
    c, b, a = (s - round(s) for s in best.shift)
    placed = Registration(best.correlation, best.correlation - other.correlation, twin, (z, y, x), (c, b, a))
    return _moved(found, placed), placed


def _inverted(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """Invert a numpy array through the voxel N // 2, as `fourier.inverted` inverts a tensor."""
    return np.asarray(inverted(torch.from_numpy(np.ascontiguousarray(array))).numpy())


def _moved(found: Reconstruction, placed: Registration) -> Reconstruction:
    def move(array: NDArray[np.generic], conjugate: bool = False) -> NDArray[np.generic]:
        turned = _inverted(array) if placed.twin else array
        turned = turned.conj() if conjugate and placed.twin else turned
        return np.roll(turned, placed.shift, axis=(0, 1, 2))

    spread, ensemble = found.uncertainty, found.ensemble
    if spread is not None:
        maps = {name: getattr(spread, name) for name in ("phase", "strain", "amplitude")}
        moved = {name: move(values) for name, values in maps.items() if values is not None}
        if spread.deviations is not None:
            moved["deviations"] = np.stack([move(on_grid(one, found.support))[move(found.support)] for one in spread.deviations])
        spread = replace(spread, **moved)  # type: ignore[arg-type]
    if ensemble is not None and ensemble.mode is not None:
        ensemble = replace(ensemble, mode=move(ensemble.mode, conjugate=True))  # type: ignore[arg-type]
    said = {
        "series_twin": f"{'turned' if placed.twin else 'kept'}: the other twin correlates by {placed.margin:.3f} less",
        "series_origin": f"moved by {placed.shift} voxels onto its neighbour; {_text(placed.rest)} voxels remain",
    }
    return replace(
        found,
        rho=move(found.rho, conjugate=True),  # type: ignore[arg-type]
        support=move(found.support),  # type: ignore[arg-type]
        uncertainty=spread,
        ensemble=ensemble,
        choices={**found.choices, **said},
    )


def _text(rest: tuple[float, float, float]) -> str:
    return f"({', '.join(f'{value:+.2f}' for value in rest)})"


def on_map(strain: StrainMap, shape: tuple[int, int, int]) -> StrainMap:
    """Pad or cut a strain map to the shape that all strain maps of a series share; its middle voxel stays in the middle.

    Raises
    ------
    DataError : if the crystal reaches beyond `shape`.
    """
    filled = {}
    for part in dataclasses.fields(strain):
        array = getattr(strain, part.name)
        if isinstance(array, np.ndarray) and array.shape == strain.support.shape:
            empty = np.nan if part.name in _UNKNOWN_OUTSIDE else 0
            filled[part.name] = _cut_or_padded(array, shape, empty)
    if filled["support"].sum() != strain.support.sum():
        raise DataError(f"{strain.name}: the crystal reaches beyond the series' map of {shape} voxels; is it the same crystal?")
    return replace(strain, **filled)  # type: ignore[arg-type]


# Fields of a strain map that are padded with NaN; all other fields are padded with 0.
_UNKNOWN_OUTSIDE = {"displacement", "strain", "d_spacing", "lattice_parameter", "displacement_sigma", "strain_sigma"}


def _cut_or_padded(array: NDArray[np.generic], shape: tuple[int, int, int], empty: float) -> NDArray[np.generic]:
    whole = np.full(shape, empty, dtype=array.dtype)
    ours, theirs = [], []
    for have, want in zip(array.shape, shape, strict=True):
        offset = want // 2 - have // 2
        ours.append(slice(max(0, -offset), max(0, -offset) + min(have, want)))
        theirs.append(slice(max(0, offset), max(0, offset) + min(have, want)))
    kept = array[tuple(ours)]
    whole[tuple(slice(s.start, s.start + n) for s, n in zip(theirs, kept.shape, strict=True))] = kept
    return whole
