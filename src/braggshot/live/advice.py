r"""Say while a scan is measured what would make it better: end it, rock further, recentre, finer steps, fewer counts.

All follows from the counts so far. The intensity of a plane of the pattern, at the distance k from the peak, falls as
:math:`A / k^2` beyond the peak, because the surface of a crystal scatters as :math:`q^{-4}` (Porod's law). So of all scattering

.. math:: s = \frac{A}{k_e\,N}, \qquad A = \overline{n(k)\,k^2}

lies beyond the last plane, at the distance :math:`k_e`; n are the counts of the last planes above the background, and N those of
the scan. The same holds for rows and columns at the edges of the detector. Near the peak the counts fall faster than that; so for
what is still to come, the share beyond a plane is taken to fall as :math:`1/k^2`, and nobody is told to rock further too early.

The strain that the counts show is predicted as `braggshot.physics.exposure` does it for a planned scan.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from braggshot.live.mailbox import PreviewRequest
from braggshot.live.preview import Preview
from braggshot.live.status import Journal, Status
from braggshot.physics import exposure
from braggshot.physics.geometry import direct_basis
from braggshot.physics.plausibility import check_counts
from braggshot.physics.sampling import BOX
from braggshot.prepare.rocking import ANGLE, stepped_values
from braggshot.snapshot import Advice
from braggshot.volumes import BoolArray, DiffractionVolume

ENOUGH = 0.02  # share of the scattering beyond an edge up to which the scan reaches far enough [1]; settled on replayed scans
CORNER = 0.35  # distance from the middle, in rows and in columns, beyond which only background is taken to be [sizes]
EDGE = 0.1  # share of an axis by which a window must lie inside what was measured, to have left out what is faint [1]
# Measured oversampling up to which a crystal may be larger than can be phased; the least that can be measured is 2 [1].
LEAST = 2.05
JUDGED = 1e4  # photons in the brightest voxel from which results are called good
FALL = 2.0  # power of 1/k with which the share beyond a plane is taken to fall while frames are still to come [1]
MINUTE = 60.0  # [s]


@dataclass(frozen=True)
class Tail:
    """The faint end of a pattern at one edge of what was measured.

    Parameters
    ----------
    share, error : share of the scattering beyond the edge, and one standard deviation of it from counting [1]
    distance : distance of the edge from the peak [raw voxels]
    """

    share: float
    error: float
    distance: float

    def beyond(self, distance: float) -> float:
        """Return the share that lies farther from the peak than `distance` [raw voxels], farther out than the edge."""
        return self.share * (self.distance / max(distance, 1.0)) ** FALL

    def distance_for(self, share: float) -> float:
        """Return the distance from the peak beyond which a wanted share lies [raw voxels]."""
        return self.distance * (self.share / share) ** (1 / FALL)


def advise(
    request: PreviewRequest,
    volume: DiffractionVolume,
    is_rough: bool = False,
    seconds: float | None = None,
    enough: float = ENOUGH,
) -> tuple[Advice, ...]:
    """List what would make a scan better, the most urgent first.

    Parameters
    ----------
    request : the scan as far as it is measured
    volume : its prepared counts; of a scan that was prepared before nothing is said
    is_rough : whether the window of the volume was found before the peak had passed; then only saturation is told
    seconds : time since the first frame [s]; None if it is not known
    enough : share of the scattering beyond the last frame from which the scan may end [1]
    """
    if volume.window is None or request.scan.prepared:  # somebody has cut the frames out already
        return ()
    found = list(_saturation(request, volume))
    if not is_rough and (request.is_past_peak or request.is_complete):
        found += [*_range(request, volume, seconds, enough), *_centre(volume), *_sampling(request, volume)]
    return tuple(found)


def tell(status: Status, journal: Journal, request: PreviewRequest, preview: Preview) -> None:
    """Show advice on the page, if its scan is the current one, and write what is new to the file of events."""
    current = status.latest()[1]
    if current.scan != request.name:
        return
    seconds = None if request.asked is None else request.asked - request.began
    found = advise(request, preview.volume, preview.is_rough, seconds)
    known = {advice.kind for advice in current.advice}
    status.change(advice=found)
    for advice in found:
        if advice.kind not in known:
            journal.write("advice", request.name, request.frames, kind=advice.kind, words=advice.words)


def measure_tails(volume: DiffractionVolume, axis: int, first: int, last: int) -> tuple[Tail | None, Tail | None]:
    """Measure the tails of a pattern at the low and at the high edge of an axis; None where the pattern ends before the edge.

    Parameters
    ----------
    volume : prepared counts with a window
    axis : 0 for frames, 1 for rows, 2 for columns
    first, last : first and last raw index that was measured
    """
    assert volume.window is not None
    bins, start, size = volume.window.binning[axis], volume.window.start[axis], volume.shape[axis]
    net, variance, there = _profile(volume, axis)
    planes, total = np.flatnonzero(there), float(net[there].sum())
    if len(planes) < 4 or total <= 0:
        return None, None
    middle = float((np.maximum(net, 0) * there * np.arange(size)).sum() / np.maximum(net[there], 0).sum())
    sampling = 2.0 if volume.oversampling is None else volume.oversampling[axis]
    margin = max(2.0, EDGE * bins * size)
    tails: list[Tail | None] = []
    for edge, left_out in ((planes[0], start - first), (planes[-1], last - (start + bins * size - 1))):
        reach = abs(edge - middle) + 0.5  # planes
        if left_out > margin:
            tails.append(None)
            continue
        number = int(np.clip(round(2 * sampling), 3, max(3, reach / 2)))
        near = planes[:number] if edge == planes[0] else planes[-number:]
        weight = np.abs(near - middle) ** 2
        height, spread = float((net[near] * weight).mean()), math.sqrt(float((variance[near] * weight**2).sum())) / len(near)
        tails.append(Tail(max(height, 0.0) / reach / total, spread / reach / total, reach * bins))
    return tails[0], tails[1]


def predict_strain(volume: DiffractionVolume, more: float = 1.0) -> tuple[float, str] | None:
    """Predict one sigma of the strain that the counts show, and name its unit; of phase differences where there is no geometry.

    Parameters
    ----------
    volume : prepared counts
    more : factor by which the counts are multiplied

    Returns
    -------
    One sigma of the strain [1] and "", or of the phase's difference from voxel to voxel [rad] and " rad per voxel"; None without
    counts.
    """
    net, _, there = _profile(volume, 0)
    photons, sampling = more * float(net[there].sum()), volume.oversampling
    if photons <= 0 or sampling is None:
        return None
    voxels = BOX * math.prod(size / ratio for size, ratio in zip(volume.shape, sampling, strict=True))
    error = exposure.gradient_error(photons / voxels)
    if volume.reciprocal_basis is None or volume.q_bragg is None:
        return error, " rad per voxel"
    step = exposure.step_along(volume.q_bragg, direct_basis(volume.reciprocal_basis, volume.shape))
    return error / (float(np.linalg.norm(volume.q_bragg)) * step), ""


def _profile(volume: DiffractionVolume, axis: int) -> tuple[NDArray[np.float64], NDArray[np.float64], BoolArray]:
    """Return the counts of each plane above the background, their variance, and whether the plane was measured."""
    counts, valid = np.asarray(volume.intensity, np.float64), volume.valid
    rows, columns = (np.abs(np.arange(size) - size // 2) > CORNER * size for size in volume.shape[1:])
    corner = valid & rows[:, None] & columns
    voxels = int(corner.sum())
    level = float(counts[corner].sum()) / max(voxels, 1)
    others = tuple(other for other in range(3) if other != axis)
    seen, total = valid.sum(others), (counts * valid).sum(others)
    return total - level * seen, total + seen**2 * level / max(voxels, 1), seen > 0.5 * seen.max()


def _range(request: PreviewRequest, volume: DiffractionVolume, seconds: float | None, enough: float) -> Iterator[Advice]:
    """Tell whether the rocking curve reaches far enough on both sides, and whether the counts are enough."""
    assert volume.window is not None
    planned, arrived = volume.window.raw_shape[0], request.scan.arrived
    here = np.arange(planned) if arrived is None or len(arrived) != planned else np.flatnonzero(arrived)
    before, after = measure_tails(volume, 0, int(here[0]), int(here[-1]))
    is_over = request.is_complete or (request.expected is not None and len(here) >= request.expected)
    counts = _describe_counts(volume, seconds)
    reaches = after is None or after.share + after.error <= enough
    if reaches and not is_over:
        left = 0.0 if after is None else after.share
        yield Advice("enough", f"enough frames: {_share(left)} lies beyond the last one; end the scan here{counts}")
    if before is not None and before.share - 2 * before.error > enough:
        frames = _frames(request, before.distance_for(enough) - before.distance)
        yield Advice("rock", f"begin {frames} earlier: {_share(before.share)} lies before the first frame")
    # What the frames that are still planned will measure is no fault; without a plan nobody knows how far the scan will go.
    if after is not None and (is_over or request.expected is not None):
        end = after.distance + (0 if is_over else planned - 1 - int(here[-1]))
        if after.beyond(end) * (1 - 2 * after.error / max(after.share, 1e-9)) > enough:
            frames, last = _frames(request, after.distance_for(enough) - end), "last" if is_over else "last planned"
            yield Advice("rock", f"go on for {frames} more: {_share(after.beyond(end))} lies beyond the {last} frame")
    peak = float(volume.intensity.max())
    if peak < JUDGED and (is_over or reaches):
        times = math.ceil(JUDGED / max(peak, 1.0))
        few = f"few photons, {peak:.2g} in the brightest voxel; 10 000 make a good verdict"
        yield Advice("counts", f"{few}: measure {times} times as long, or add repeats{counts}")


def _frames(request: PreviewRequest, number: float) -> str:
    """Say a number of frames, and how far the scan steps in them where that is known."""
    number = max(1, math.ceil(number))
    values, scanned = stepped_values(request.scan)
    known = np.asarray([] if values is None else values, dtype=float)
    known = known[np.isfinite(known)]
    if known.size < 2:
        return f"about {number} frames"
    step = abs(float(np.median(np.diff(known)))) / scanned.size
    return f"about {number} frames ({number * step:.2g} {'°' if scanned is ANGLE else scanned.unit})"


def _share(share: float) -> str:
    return f"about {100 * min(share, 0.5):.2g} % of the scattering"


def _describe_counts(volume: DiffractionVolume, seconds: float | None) -> str:
    """Say which strain the counts show, and what another minute of counting would bring."""
    now = predict_strain(volume)
    if now is None:
        return ""
    words = f"; predicted sigma of the {'phase' if now[1] else 'strain'} {now[0]:.1e}{now[1]}"
    later = None if not seconds else predict_strain(volume, 1 + MINUTE / seconds)
    return words if later is None else f"{words}, after another minute of repeats {later[0]:.1e}"


def _centre(volume: DiffractionVolume) -> Iterator[Advice]:
    """Tell whether an edge of the detector cuts the pattern, and by how many pixels to move it."""
    assert volume.window is not None
    moves, cut, worst = [], False, 0.0
    for axis, name in ((1, "rows"), (2, "columns")):
        size, bins = volume.window.raw_shape[axis], volume.window.binning[axis]
        tails = measure_tails(volume, axis, 0, size - 1)
        shares = [0.0 if tail is None or tail.share - 2 * tail.error < ENOUGH else tail.share for tail in tails]
        peak = volume.window.start[axis] + bins * (volume.shape[axis] // 2) + (bins - 1) / 2
        away = round(size // 2 - peak)
        if max(shares) > 0 and abs(away) > 0.05 * size and (away > 0) == (shares[0] >= shares[1]):
            moves.append(f"{away:+d} {name}")
        cut, worst = cut or max(shares) > 0, max(worst, *shares)
    if moves:
        yield Advice(
            "recentre",
            f"move the pattern by {' and '.join(moves)} to the middle of the detector: {_share(worst)} lies beyond its edge",
        )
    elif cut:
        yield Advice("recentre", f"the detector is too small or too near for the pattern: {_share(worst)} lies beyond its edge")


def _sampling(request: PreviewRequest, volume: DiffractionVolume) -> Iterator[Advice]:
    """Tell whether the pattern is sampled too coarsely to be phased; the least oversampling that can be measured is 2."""
    assert volume.window is not None
    if volume.oversampling is None or not request.is_past_peak:
        return
    raw = [ratio * bins for ratio, bins in zip(volume.oversampling, volume.window.binning, strict=True)]
    if raw[0] <= LEAST:
        halved = _frames(request, 1).removeprefix("about 1 frames").strip(" ()")
        yield Advice(
            "step", f"the rocking step is too coarse{f', {halved}' if halved else ''}: the crystal fills the array; halve it"
        )
    if min(raw[1:]) <= LEAST:
        yield Advice(
            "step", "the pixels are too coarse: the crystal fills the array; move the detector away, or take a smaller crystal"
        )


def _saturation(request: PreviewRequest, volume: DiffractionVolume) -> Iterator[Advice]:
    """Tell whether the detector counts too much: counters that are full, or pixels at the peak that it has marked as such."""
    image = np.asarray(request.scan.frames[request.brightest])
    valid = request.scan.valid
    image = image if valid is None else image * (valid if valid.ndim == 2 else valid[request.brightest])
    no_count = request.scan.provenance.get("no_count")
    full = [] if no_count is None else [*_overflown(volume)]
    for words in [*full, *check_counts(image if no_count is None else np.where(image == no_count, 0, image))][:1]:
        yield Advice("saturating", f"{words}; take an attenuator, or a shorter exposure")


def _overflown(volume: DiffractionVolume) -> Iterator[str]:
    """Tell voxels without a count beside the brightest one, whose pixels count in most other frames: they were full."""
    frame, row, column = np.unravel_index(int(np.argmax(volume.intensity)), volume.shape)
    place = tuple(slice(max(0, int(at) - 2), int(at) + 3) for at in (row, column))
    there = volume.valid.any((1, 2))
    usual = volume.valid[there].mean(0)[place] > 0.5
    missing = int((usual & ~volume.valid[int(frame)][place]).sum())
    if missing:
        yield f"{missing} voxels beside the brightest one hold no count: they were full"
