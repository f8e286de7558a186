"""Sort the frames of a rocking curve onto a regular grid of angles, or of an energy scan of energies, and correct their flux.

Frames may be repeated, missing or unevenly spaced. Every plane of the grid lists the frames that were measured at its angle. The
intensity of a plane is the sum of the counts of its frames, divided by the sum of their fluxes. Fluxes are relative to the median
flux, so counts stay close to the measured ones and Poisson statistics stay valid.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from braggshot.errors import DataError
from braggshot.physics.geometry import KEV, steps_energy
from braggshot.volumes import BoolArray, FloatArray, Geometry, Scan

REPEATED = 0.2  # least step between different angles, as a share of the mean step; a smaller one means a repeated angle [1]
TOLERANCE = 0.25  # largest deviation of a step from a multiple of the median step, for a regular grid [median steps]
TWICE = 1.75  # least ratio of steps from which a scan counts as one of every second frame, or fewer [1]
MOST = 16  # largest number of planes per frame, where the step of the grid is given [1]
UNEVEN = 0.1  # largest share of steps off the regular grid; with more of them, frames are not sorted onto a grid [1]


@dataclass(frozen=True)
class Scanned:
    """What is stepped from frame to frame: words for it, for one, many and steps of it; a unit to show, and its size [SI]."""

    name: str
    one: str
    many: str
    steps: str
    unit: str
    size: float


ANGLE = Scanned("rocking angle", "an angle", "angles", "rocking steps", "deg", float(np.radians(1.0)))
ENERGY = Scanned("photon energy", "an energy", "energies", "steps of the energy", "eV", KEV / 1e3)


@dataclass(frozen=True)
class RockingGrid:
    """Planes of a regular rocking curve.

    Parameters
    ----------
    frames : for each plane, the numbers of the raw frames measured at its angle; empty if there is none
    weight : (n,) summed flux of those frames relative to the median frame; 0 where no frame can be trusted [1]
    regular : True if the planes are the frames, one by one and in order
    steps : remarks on the scan, in words
    """

    frames: tuple[tuple[int, ...], ...]
    weight: NDArray[np.float64]
    regular: bool = True
    steps: tuple[str, ...] = ()


def stepped_values(scan: Scan) -> tuple[FloatArray | None, Scanned]:
    """Return what each frame of a scan was measured at: the photon energy [J] in an energy scan, else the rocking angle [rad]."""
    if scan.geometry is not None and steps_energy(scan.geometry):
        return np.asarray(scan.geometry.energy, dtype=float), ENERGY
    return scan.rocking_angle, ANGLE


def rocking_grid(
    n_frames: int,
    angle: FloatArray | None = None,
    monitor: FloatArray | None = None,
    arrived: BoolArray | None = None,
    scanned: Scanned = ANGLE,
    step: float | None = None,
) -> RockingGrid:
    """Sort frames onto a regular grid of angles.

    Frames at one angle share a plane, an angle that was left out becomes an empty plane, and the direction of the scan is kept.
    Steps between angles should be whole multiples of the median step, or of `step`. If more than a tenth of them are not, each
    frame becomes a plane of its own, in the order of the angles, and a remark says so.

    Parameters
    ----------
    n_frames : number of frames
    angle : (n,) rocking angle of each frame [rad], or its energy [J]; None means evenly spaced in the order of the frames. A frame
        whose angle is not finite belongs to no plane; if fewer than three are finite, the frames count as evenly spaced
    monitor : (n,) incident flux [arbitrary]; a frame without a positive value is not trusted
    arrived : (n,) False for frames that are missing; None means that all frames are present
    scanned : what `angle` is
    step : step of the grid, in the unit of `angle`; None takes the median step. A finer one leaves empty planes between frames

    Raises
    ------
    DataError : if the length of `angle`, `monitor` or `arrived` is not `n_frames`, or if no frame has a positive monitor.
    """
    for name, values in ((scanned.name, angle), ("monitor", monitor), ("list of frames that arrived", arrived)):
        if values is not None and np.shape(values) != (n_frames,):
            raise DataError(f"the {name} has shape {np.shape(values)}, expected one value for each of {n_frames} frames.")
    here = np.ones(n_frames, dtype=bool) if arrived is None else arrived
    flux, steps = _relative_flux(n_frames, monitor, here)
    planes, noticed = _planes(n_frames, angle, scanned, step)
    weight = np.array([sum(flux[frame] for frame in plane) for plane in planes])
    trusted = tuple(tuple(frame for frame in plane if flux[frame] > 0) for plane in planes)
    return RockingGrid(trusted, weight, planes == _one_frame_each(range(n_frames)), steps + noticed)


def empty_share(scan: Scan, step: float | None = None) -> float:
    """Return the share of planes without a frame among those from the first to the last plane with one.

    The planes are those of `rocking_grid`, `step` apart; of a scan that was prepared already, those of its array.
    """
    if scan.prepared:
        each_frame = scan.valid is not None and scan.valid.ndim == 3
        filled = np.asarray(scan.valid).any(axis=(1, 2)) if each_frame else np.ones(scan.frames.shape[0], dtype=np.bool_)
    else:
        values, scanned = stepped_values(scan)
        grid = rocking_grid(scan.frames.shape[0], values, None, scan.arrived, scanned, step)
        filled = grid.weight > 0
    there = np.flatnonzero(filled)
    return 1 - there.size / (int(np.ptp(there)) + 1) if there.size else 0.0


def is_coarser(scan: Scan, step: float) -> bool:
    """Tell whether the frames of a raw scan lie at least twice as far apart as `step` [rad, or J for energies]."""
    values = None if scan.prepared else stepped_values(scan)[0]
    if values is None:
        return False
    known = np.sort(np.asarray(values, dtype=float)[np.isfinite(values)])
    strides = np.diff(known)
    strides = strides[strides > REPEATED * step]
    return bool(strides.size > 1 and np.median(strides) > TWICE * step)


def regular_geometry(geometry: Geometry | None, grid: RockingGrid) -> Geometry | None:
    """Return a geometry with one angle or energy for each plane of `grid`, not for each frame, of all that is scanned."""
    if geometry is None or grid.regular:
        return geometry
    filled = [index for index, plane in enumerate(grid.frames) if plane]

    def per_plane(values: float | FloatArray) -> float | FloatArray:
        if not np.ndim(values):
            return values
        means = [np.asarray(values, dtype=float)[list(grid.frames[index])].mean() for index in filled]
        line = np.polynomial.Polynomial.fit(filled, means, 1)
        return np.interp(np.arange(len(grid.frames)), filled, means, line(0), line(len(grid.frames) - 1))

    sample = tuple(replace(circle, angle=per_plane(circle.angle)) for circle in geometry.sample)
    return replace(geometry, energy=per_plane(geometry.energy), sample=sample)


def _relative_flux(n_frames: int, monitor: FloatArray | None, here: BoolArray) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    absent = () if here.all() else (f"{int((~here).sum())} of {n_frames} frames are not there: masked",)
    if monitor is None:
        return here.astype(float), absent
    counts = np.asarray(monitor, dtype=float)
    good = np.isfinite(counts) & (counts > 0) & here
    if not good.any():
        raise DataError("no frame has a positive monitor; switch it off with prepare.monitor=false.")
    flux = np.where(good, counts, 0) / np.median(counts[good])
    spread = 100 * float(flux[good].std())
    dark = int((here & ~good).sum())
    lost = f"; {dark} frames without flux masked" if dark else ""
    return flux, (f"divided by the monitor relative to its median (spread {spread:.2g} %{lost})", *absent)


def _planes(
    n_frames: int, angle: FloatArray | None, scanned: Scanned, given: float | None
) -> tuple[tuple[tuple[int, ...], ...], tuple[str, ...]]:
    """Return the frames of each plane, and remarks in words."""
    known = np.flatnonzero(np.isfinite(np.asarray(np.nan if angle is None else angle, dtype=float)))
    if angle is None or known.size < 3:
        return _one_frame_each(range(n_frames)), ()
    values, half = np.asarray(angle, dtype=float)[known], known.size // 2
    lost = (f"{n_frames - known.size} frames without {scanned.one} left out",) if known.size < n_frames else ()
    direction = 1 if values[half:].mean() >= values[:half].mean() else -1
    order = known[np.argsort(direction * values, kind="stable")]
    stride = np.diff(np.sort(direction * values))
    if not stride.sum() > 0:
        return _one_frame_each(range(n_frames)), (f"the {scanned.name} does not change; frames taken as evenly spaced",)
    step = given or float(np.median(stride[stride > REPEATED * stride.mean()]))
    whole = np.rint(stride / step).astype(int)
    off = np.abs(stride / step - whole) > TOLERANCE
    spread = 100 * float((stride[whole == 1] / step).std()) if (whole == 1).any() else 0.0
    about = f"{step / scanned.size:.4g} {scanned.unit}"
    uneven = (f"uneven {scanned.steps}: they spread by {spread:.2g} % about {about}",) if spread > 5 else ()
    if off.mean() > UNEVEN or whole.sum() + 1 > (2 if given is None else MOST) * known.size:
        note = f"{scanned.steps} follow no regular grid; frames taken as they are, in the order of their {scanned.many}"
        return _one_frame_each(order.tolist()), (*lost, note, *uneven)
    index = np.concatenate([[0], np.cumsum(whole)])
    planes: list[list[int]] = [[] for _ in range(int(index[-1]) + 1)]
    for plane, frame in zip(index, order, strict=True):
        planes[plane].append(int(frame))
    finer = () if given is None else (f"put on {scanned.steps} of {about}, {np.median(whole):g} from frame to frame",)
    return tuple(tuple(sorted(plane)) for plane in planes), (*lost, *finer, *_notices(planes, order, scanned), *uneven)


def _one_frame_each(frames: Iterable[int]) -> tuple[tuple[int, ...], ...]:
    return tuple((frame,) for frame in frames)


def _notices(planes: list[list[int]], order: NDArray[np.intp], scanned: Scanned) -> tuple[str, ...]:
    missing = [index for index, plane in enumerate(planes) if not plane]
    repeated = sum(len(plane) - 1 for plane in planes if plane)
    notes = []
    if (np.diff(order) < 0).any():
        notes.append(f"frames sorted by their {scanned.name}")
    if repeated:
        notes.append(f"{repeated} repeated frames averaged")
    if missing:
        notes.append(f"{len(missing)} missing frames left as masked planes (first at {missing[0]})")
    return tuple(notes)
