"""Compute strain from a reconstruction of another program: PyNX, cohere, cdiutils, or any CXI with the object in it.

The object does not tell the size of its voxels in metres. The raw scan does, once it is known in which window of the scan the
object was phased. The window is taken to be as large as the array first. If that does not explain the counts, because the object
was cropped or the counts were binned, the window is searched (`braggshot.physics.frame_search`). All mirrored objects and the
conjugate one are tried too. Then the counts judge the object: its misfit is compared with that after a short refinement.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from braggshot import config as configuration
from braggshot.crystal_frame import strain_map
from braggshot.errors import DataError
from braggshot.io import registry
from braggshot.io.results.objects import read_object
from braggshot.iterative.iterate import Guess, IterativeConfig, run_starts
from braggshot.iterative.projections import ShrinkWrap, measured
from braggshot.output import check_writable, files_of
from braggshot.phasing.verdict import Limits, judge_by_counts, noise_floor
from braggshot.physics import metrics
from braggshot.physics.fourier import crop, fourier, inverted, pad, to_centre, to_corner
from braggshot.physics.frame_search import MIRRORS, find_placement
from braggshot.physics.geometry import direct_basis
from braggshot.physics.sampling import crystal_extent
from braggshot.physics.strain import without_ramp
from braggshot.pipeline import Settings, drain, resolve, versions
from braggshot.prepare import PrepareConfig, prepare
from braggshot.prepare.survey import sum_bins
from braggshot.prepare.window import cut, raw_centre
from braggshot.volumes import BoolArray, ComplexArray, DiffractionVolume, Quality, Reconstruction, Scan, Window

# An object is mirrored only if this lowers the misfit to less than this share of what it is as stored [1].
BETTER = 0.9
# A window that was found is taken to be the array as it is stored if no axis differs by more than this share [1].
NEAR = 0.03
REFINEMENT = "20*ER"  # from the object, in its own support
AXES = ("rocking", "row", "column")


def postprocess(
    path: str | Path,
    scan: Scan | str | Path | None = None,
    settings: Settings | Mapping[str, Any] | None = None,
    *,
    format: str | None = None,
    place: str | Path | None = None,
) -> Reconstruction:
    """Compute the strain map of an object on disk, from the scan that it explains.

    Parameters
    ----------
    path : result CXI (braggshot, PyNX, cdiutils' modes), a cohere results folder, or its ``image.npy``
    scan : the raw scan; may be left out for a result of braggshot, which keeps its geometry
    settings : settings as for `braggshot.reconstruct`; ``prepare.binning`` must be that of the object
    format : format of the scan, if its content does not tell
    place : file or folder that the result will be written to; checked before any work, so that no file that is read is replaced

    Raises
    ------
    FormatError : if the file holds no object.
    DataError : if the object does not explain the scan.
    GeometryError : if nothing says where the detector stood.
    OutputError : if nothing can be written to `place`, or a file that is read would be replaced.
    """
    began = time.perf_counter()
    resolved = settings if isinstance(settings, Settings) else resolve(settings or {})
    found = read_object(path)
    raw = scan if isinstance(scan, Scan) or scan is None else registry.read(scan, format, **resolved.input)
    if place is not None:
        name = found.volume.name if raw is None else raw.name
        kept = [path, *([] if raw is None else files_of(raw))]
        check_writable(place, kept, [name], resolved.output.formats, resolved.output.force)
    if raw is not None:
        found = placed(found, raw, resolved.prepare, resolved.phasing.limits)
    if found.verdict in ("not judged", "explained"):  # a verdict of our own phasing stays
        found = judged(found, resolved.phasing.limits)
    read = time.perf_counter()
    strain = strain_map(found, resolved.strain)
    ended = time.perf_counter()
    return replace(
        found,
        configuration={
            "phased_with": dict(found.configuration),
            "postprocessed_with": {**configuration.dump(resolved), "program": {"name": "braggshot", **versions()}},
        },
        seconds={"read": read - began, "strain": ended - read, "total": ended - began},
        strain=strain,
    )


@dataclass(frozen=True)
class _Placed:
    """An object on the grid of prepared counts: which window, how it was mirrored, and how well it fits.

    Parameters
    ----------
    rho, support, volume : object and counts on one grid
    mirrored : axes along which the object was mirrored; all three stand for its complex conjugate
    moved : by how many raw voxels the window was moved
    excess : misfit of the magnitudes beyond photon noise [1]
    """

    rho: ComplexArray
    support: BoolArray
    volume: DiffractionVolume
    mirrored: tuple[int, ...]
    moved: tuple[int, int, int]
    excess: float


def placed(found: Reconstruction, scan: Scan, settings: PrepareConfig, limits: Limits) -> Reconstruction:
    """Bring an object onto the grid of the counts in which it was phased, mirrored or conjugated where the counts say so.

    Raises
    ------
    DataError : if the object explains the counts on no grid.
    """
    if found.support.all():  # a file without a support
        amplitude = np.abs(found.rho)
        found = replace(found, support=amplitude > 0.1 * np.percentile(amplitude, 99.9))
    found = replace(found, rho=np.where(found.support, found.rho, 0).astype(np.complex64))
    first = _place(found, scan, replace(settings, shape=found.rho.shape), MIRRORS)
    best = first
    if best is None or best.excess > limits.excess_good or _improves(best, limits):
        others = [_place(one, scan, grid, mirrors) for one, grid, mirrors in _searched(found, scan, settings)]
        best = min((one for one in (first, *others) if one is not None), key=lambda one: one.excess, default=None)
    if best is None or best.excess > limits.excess_failed:
        missed = "has no place in its counts" if best is None else f"misses its magnitudes by {100 * best.excess:.0f} %"
        raise DataError(
            f"the object does not explain the scan {scan.name}: it {missed} beyond photon noise, also on other grids, mirrored and "
            f"conjugated (at most {100 * limits.excess_failed:.0f} % are allowed); check the scan number and prepare.binning."
        )
    choices = {**found.choices, **_choices(best, found.rho.shape)}
    return replace(_measured(found, best), choices=choices)


def _improves(best: _Placed, limits: Limits) -> bool:
    """Tell whether a short refinement improves an object much, as it does on a grid that is not quite right."""
    return _misfit(best.rho, best.volume) > limits.refined**2 * _misfit(_refined(best.rho, best.support, best.volume), best.volume)


def _searched(
    found: Reconstruction, scan: Scan, settings: PrepareConfig
) -> Iterator[tuple[Reconstruction, PrepareConfig, Sequence[tuple[int, ...]]]]:
    """Search the window in which an object was phased; yield the object, a grid that it may have, and the mirrorings to try.

    Binned counts have their centre voxel between two raw voxels if the binning is even. On the grid of unbinned counts the object
    then has a phase ramp, which is taken off; and likely binnings are tried too.
    """
    unit = (1, 1, 1) if settings.binning == "auto" else settings.binning
    volume = prepare(scan, replace(settings, shape=None, binning=unit))
    if volume.oversampling is None or not found.support.any():
        return
    magnitude = torch.from_numpy(np.sqrt(np.maximum(volume.intensity, 0)) * volume.valid)
    object_ = torch.from_numpy(found.rho)
    place = find_placement(object_, magnitude, volume.oversampling, crystal_extent(found.rho))
    extents, stored = np.array(place.extents), np.array(found.rho.shape)
    binnings = {(1, 1, 1), (1, 2, 2), (2, 1, 1), (2, 2, 2)} if settings.binning == "auto" else {(1, 1, 1)}
    whole = np.maximum(1, np.rint(extents / stored))
    if settings.binning == "auto" and (np.abs(whole * stored / extents - 1) < NEAR).all():
        binnings.add((int(whole[0]), int(whole[1]), int(whole[2])))
    for binning in sorted(binnings):
        near = np.abs(np.array(binning) * stored / extents - 1) < NEAR  # the array was phased as it is stored
        z, y, x = (int(n) for n in np.where(near, stored, np.rint(extents / binning)))
        bins_z, bins_y, bins_x = (a * b for a, b in zip(unit, binning, strict=True))
        turn = 2 * np.pi * np.where(np.array(binning) % 2, place.between, 0) / extents
        turned = replace(found, rho=without_ramp(found.rho, turn).astype(np.complex64))
        yield turned, replace(settings, shape=(z, y, x), binning=(bins_z, bins_y, bins_x)), (place.mirrored,)


def _place(
    found: Reconstruction, scan: Scan, grid: PrepareConfig, mirrors: Sequence[tuple[int, ...]]
) -> _Placed | None:  # fmt: skip
    """Place an object on a grid: choose the mirroring, and move the window of the counts to where its pattern lies.

    The result is None if the object does not fit into the grid.
    """
    assert grid.shape is not None
    resized = [_resized(torch.from_numpy(array), grid.shape) for array in (found.rho, found.support)]
    if int(resized[1].sum()) < int(found.support.sum()):
        return None
    volume = prepare(scan, grid)
    magnitude = torch.from_numpy(np.sqrt(np.maximum(volume.intensity, 0)) * volume.valid)
    matches = {mirrored: _match(_mirrored(resized[0], mirrored), magnitude) for mirrored in mirrors}
    mirrored = min(matches, key=lambda one: matches[one].misfit * (1 if one else BETTER))
    rho, support = _mirrored(resized[0], mirrored), _mirrored(resized[1], () if len(mirrored) == 3 else mirrored)
    moved, window = (0, 0, 0), volume.window
    if window is not None:
        # Where the model's pattern lies further on, the window must start earlier.
        start = np.subtract(window.start, np.multiply(matches[mirrored].shift, window.binning))
        try:
            start = _best_start(scan, grid, window, start, rho)
            volume = _moved(scan, grid, volume, start)
        except DataError:  # no peak there
            return None
        z, y, x = (window.start - start).tolist()
        moved = (z, y, x)
    excess = math.sqrt(max(0.0, _misfit(rho.numpy(), volume) - noise_floor(volume.intensity, volume.valid)))
    return _Placed(rho.numpy(), support.numpy(), volume, mirrored, moved, excess)


def _best_start(scan: Scan, grid: PrepareConfig, window: Window, start: NDArray[np.int_], rho: torch.Tensor) -> NDArray[np.int_]:
    """Find the raw voxel at which the window of binned counts begins, from one that is right but for a part of a binned voxel."""
    bins = np.array(window.binning)
    if bins.max() == 1:
        return start
    z, y, x = (bins * (rho.shape + np.array(4))).tolist()
    wide = prepare(scan, replace(grid, shape=(z, y, x), binning=(1, 1, 1)))
    assert wide.window is not None
    origin, size, model = np.array(wide.window.start), (bins * rho.shape).tolist(), fourier(rho).abs()

    def misfit(first: NDArray[np.int_]) -> float:
        part = (first - origin).tolist()
        counts, seen = (
            sum_bins(cut(array, part, size), window.binning) for array in (wide.intensity, wide.valid.astype(np.float32))
        )
        return metrics.misfit(model, torch.from_numpy(counts), torch.from_numpy(seen > bins.prod() - 0.5)).chi2

    best = misfit(start)
    for step in [*np.eye(3, dtype=int), *-np.eye(3, dtype=int)] * 2:
        while (lower := misfit(start + step)) < best:
            best, start = lower, start + step
    return start


def _moved(scan: Scan, grid: PrepareConfig, volume: DiffractionVolume, start: NDArray[np.int_]) -> DiffractionVolume:
    """Prepare the counts of a window that begins at other raw voxels, or nearest to these."""
    for _ in range(3):  # an even number of binned voxels has two middles, and `prepare` takes the one that is nearer to the peak
        window = volume.window
        if window is None or window.start == tuple(start):
            break
        middle = np.floor(raw_centre(window, volume.shape)).astype(int) + start - window.start
        z, y, x = np.clip(middle, 0, np.array(window.raw_shape) - 1).tolist()
        volume = prepare(scan, replace(grid, binning=window.binning, centre=(z, y, x)))
    return volume


def _resized(field: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Crop and pad a field about its middle to another shape."""
    smaller = [min(a, b) for a, b in zip(field.shape, shape, strict=True)]
    return pad(crop(field, smaller), shape)


def _mirrored(field: torch.Tensor, axes: tuple[int, ...]) -> torch.Tensor:
    """Mirror a field along some axes; along all three, take its complex conjugate, which scatters into the same pattern."""
    return field.conj().resolve_conj() if len(axes) == 3 else inverted(field, [axis - 3 for axis in axes])


def _misfit(rho: ComplexArray, volume: DiffractionVolume) -> float:
    return _fit(rho, volume).chi2


def _fit(rho: ComplexArray, volume: DiffractionVolume) -> metrics.Misfit:
    model = fourier(torch.from_numpy(rho)).abs()
    return metrics.misfit(model, torch.from_numpy(volume.intensity), torch.from_numpy(volume.valid))


def _refined(rho: ComplexArray, support: BoolArray, volume: DiffractionVolume) -> ComplexArray:
    """Refine an object for 20 iterations in its own support, because an update of the support would repair a wrong object."""
    valid = torch.from_numpy(np.ascontiguousarray(volume.valid))
    data = measured(torch.from_numpy(volume.intensity), valid, torch.zeros_like(valid))
    scaled = torch.from_numpy(rho * np.float32(_fit(rho, volume).scale))
    guess = Guess(to_corner(scaled), to_corner(torch.from_numpy(support)))
    (start,) = drain(run_starts(data, IterativeConfig(recipe=REFINEMENT, shrink_wrap=ShrinkWrap(period=0)), 1, first=[guess]))
    found: ComplexArray = to_centre(start.rho).numpy()
    return found


@dataclass(frozen=True)
class _Match:
    """Lowest misfit of model and measured magnitudes over all shifts [1], and the shift of the model for it [voxels]."""

    misfit: float
    shift: tuple[int, int, int]


def _match(rho: torch.Tensor, magnitude: torch.Tensor) -> _Match:
    model = fourier(rho).abs()
    product = torch.fft.fftn(model) * torch.fft.fftn(magnitude.to(model.dtype)).conj()
    grid = torch.fft.ifftn(product).real
    place = [int(index) for index in np.unravel_index(int(grid.argmax()), grid.shape)]
    z, y, x = (index - n if index > n // 2 else index for index, n in zip(place, grid.shape, strict=True))
    norm = torch.linalg.vector_norm(model) * torch.linalg.vector_norm(magnitude)
    correlation = float(grid.max() / norm.clamp_min(1e-30))
    return _Match(math.sqrt(max(0.0, 1 - correlation**2)), (z, y, x))


def _choices(best: _Placed, stored: Sequence[int]) -> dict[str, str]:
    """Say in words what was changed of an object, and why."""
    names = [AXES[axis] for axis in best.mirrored]
    window, shape = best.volume.window, best.volume.shape
    binning = (1, 1, 1) if window is None else window.binning
    because = "because the counts are explained so"
    return {
        "sign_of_the_object": f"conjugated, {because}" if len(names) == 3 else "as the file's layout says",
        "mirror": f"mirrored along {' and '.join(names)}, {because}" if 0 < len(names) < 3 else "as stored",
        "crop": f"the counts were cropped {best.moved} raw voxels apart from where it was phased" if any(best.moved) else "none",
        "grid": f"phased as {shape} voxels of {binning} raw voxels"
        + ("" if tuple(stored) == tuple(shape) else f", and cropped to {tuple(stored)}: found by the counts"),
    }


def judged(found: Reconstruction, limits: Limits) -> Reconstruction:
    """Judge an object by the counts on its grid; without counts it stays not judged.

    A short refinement hardly improves an object that explains the counts.
    """
    volume = found.volume
    if not (volume.intensity[volume.valid] > 0).any() or not found.support.any():
        return found
    reached = _misfit(_refined(found.rho, found.support, volume), volume)
    verdict, reasons = judge_by_counts(volume, found.rho, found.support, found.quality, reached, limits)
    said = (found.choices.get(name, "") for name in ("grid", "mirror", "sign_of_the_object"))
    changed = [text for text in said if "the counts" in text]
    return replace(found, verdict=verdict, reasons=(*reasons, *(f"the object was {said}." for said in changed)))


def _measured(found: Reconstruction, best: _Placed) -> Reconstruction:
    """Put the placed object in place of the stored one, scaled to the counts, with its misfit and its voxel edges in metres."""
    volume = best.volume
    fit = _fit(best.rho, volume)
    basis = None if volume.reciprocal_basis is None else direct_basis(volume.reciprocal_basis, volume.shape)
    return replace(
        found,
        rho=(best.rho * fit.scale).astype(np.complex64),
        support=best.support,
        volume=volume,
        quality=Quality(fit.chi2, fit.r_factor, found.quality.llk, found.quality.llk_free),
        basis=basis,
        frame="detector",
        uncertainty=None,
    )
