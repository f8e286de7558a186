"""Make previews of a crystal: phase quickly the frames of a scan that have come so far.

Each preview is aligned with the preview before: grid and origin are the same.
Of the crystal and its twin, the one that agrees with the preview before is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import ndimage
from threadpoolctl import threadpool_limits

from braggshot.errors import DataError
from braggshot.io.frames import ArrayFrames
from braggshot.iterative.iterate import Progress
from braggshot.live.assemble import LARGEST_COUNT
from braggshot.live.mailbox import PreviewRequest
from braggshot.nn.two_scale import coarse_network
from braggshot.phasing.config import PhasingConfig
from braggshot.phasing.strategies import Trained, phase
from braggshot.physics.geometry import direct_basis
from braggshot.pipeline import Settings, drain, finish_result
from braggshot.prepare import PrepareConfig, prepare
from braggshot.prepare.window import fast_length
from braggshot.series.registration import carry_neighbour, register
from braggshot.volumes import DiffractionVolume, Reconstruction, Scan

GROWTH_BEFORE_SEARCH = 1.5  # factor by which the number of frames must grow before a new window around the peak is searched for [1]
ALIKE = 1.25  # largest ratio of the lengths of two windows along an axis at which the new one is not worth a change [1]
ROUGH = 48  # edge of the window before the peak has passed, when its reach cannot be known [voxels]
FIRST_LOOK = "the peak has not passed yet: this is a rough first look, made from a part of the pattern."
RELATED = 0.3  # least correlation of two crystals at which one is turned and moved onto the other [1]


@dataclass(frozen=True)
class Preview:
    """A preview of a scan, complete or still being made.

    Parameters
    ----------
    volume : counts in the window around the Bragg peak
    window_frames : number of frames that had come when the position and size of this window were searched for
    is_rough : whether this window was found before the peak had passed
    window_change : how the window differs from that of the previous preview, in words; empty where it does not
    result : the reconstruction; while this preview is being made, the result of the previous preview, or None if there was none
    """

    volume: DiffractionVolume
    window_frames: int
    is_rough: bool = False
    window_change: str = ""
    result: Reconstruction | None = None


PreviewSteps = Generator[Progress | Preview, None, Preview]


@contextmanager
def use_one_thread() -> Iterator[None]:
    """Limit torch and the linear algebra of numpy to one thread inside a ``with`` block.

    More threads would not make a small preview faster. They would slow down the receiver of frames and the server of the browser
    page, and where these hold a core, a product of small matrices that is shared out waits for that core, up to half a second.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(threads)


def sketch(
    request: PreviewRequest,
    settings: Settings,
    hypotheses: int,
    network: Trained,
    previous: Preview | None,
    pause: Callable[[], None] = lambda: None,
) -> PreviewSteps:
    """Make a quick preview: let the network phase the frames so far at low resolution; missing frames are masked.

    This generator yields the unfinished preview after each stage, so that the caller can stop there. The generator returns the
    finished preview. Facets, uncertainty and the search for foreign peaks are left out, because a preview does not show them.

    Parameters
    ----------
    request : the scan as far as it is measured
    settings : settings of the full reconstruction
    hypotheses : number of answers of the network that are kept as guesses of the crystal
    network : the trained network that the settings name
    previous : the previous preview of the same scan; its window is used again, moved to the present position of the peak
    pause : function that is called between the stages of the preparation; its errors end the preview

    Raises
    ------
    DataError : if the counts hold no peak yet, or if no crystal is found.
    """
    preview = prepare_part(request, settings.prepare, previous, pause)
    yield preview
    low_resolution = coarse_network(network[0]), network[1]
    config = replace(_limit_orientations(settings.phasing, hypotheses), method="oneshot")
    return (yield from _phase_and_finish(preview, config, settings, low_resolution))


def rehearse(settings: Settings, hypotheses: int, network: Trained) -> None:
    """Make a preview of a made-up pattern, and throw it away; what is loaded and compiled for the first one takes seconds.

    The pattern is that of a block of 7 x 8 x 9 voxels, with a peak of 10^5 photons.
    """
    block = np.pad(np.ones((7, 8, 9)), ((9, 8), (8, 8), (8, 7)))
    magnitude = np.abs(np.fft.fftshift(np.fft.fftn(block)))
    counts = np.rint(1e5 * (magnitude / magnitude.max()) ** 2).astype(np.uint32)
    scan, peak = Scan(ArrayFrames(counts), name="rehearsal"), len(counts) // 2
    request = PreviewRequest(scan.name, scan, peak, len(counts), 0.0, is_complete=False, is_past_peak=True)
    drain(sketch(request, replace(settings, prepare=PrepareConfig()), hypotheses, network, None))


def improve(preview: Preview, settings: Settings, hypotheses: int, network: Trained, is_complete: bool) -> PreviewSteps:
    """Phase the frames of a preview again, with the network at its full resolution, for a better picture.

    For an incomplete scan the answers of the network are also refined by iterations. For a complete scan they are not, because its
    full reconstruction comes next anyway.
    """
    config = replace(_limit_orientations(settings.phasing, hypotheses), method="oneshot" if is_complete else "refine")
    return (yield from _phase_and_finish(preview, config, settings, network))


def _limit_orientations(config: PhasingConfig, hypotheses: int) -> PhasingConfig:
    """Return phasing settings for a fast preview, with less work for the network.

    The network predicts the crystal from only `hypotheses` copies of the diffraction pattern, each turned differently. At most
    `hypotheses` of its predictions are kept.
    """
    return replace(config, hypotheses=hypotheses, orientations=hypotheses)


def _phase_and_finish(preview: Preview, config: PhasingConfig, settings: Settings, network: Trained) -> PreviewSteps:
    """Phase a preview with the settings `config`, align the crystal with that of the previous preview, and compute its strain."""
    without_adaptation = replace(config, adapt=replace(config.adapt, steps=0))  # phasing settings, but no training of the network
    result = yield from phase(preview.volume, without_adaptation, network=network)
    if not result.support.any():
        raise DataError(f"{preview.volume.name}: no crystal yet.")
    yield preview
    aligned = align_with(replace(result, uncertainty=None), preview.result)
    if preview.is_rough:
        aligned = replace(aligned, verdict="not judged", reasons=(FIRST_LOOK,))  # a word about a finished scan would mislead
    if preview.window_change:
        aligned = replace(aligned, choices={**aligned.choices, "window": preview.window_change})
    yield preview
    # Half data and noise samples would phase again, and a curved grid takes seconds to straighten; only the full job does so.
    strain = replace(settings.strain, half_data=False, noise_samples=0, facets=False, curvature=False)
    finished = yield from finish_result(aligned, replace(settings, strain=strain), {})
    if preview.is_rough and finished.strain is not None:  # in a part of the peak a phase may turn where nothing is
        finished = replace(finished, strain=replace(finished.strain, lines=()))
    return replace(preview, result=finished)


def prepare_part(
    request: PreviewRequest, config: PrepareConfig, previous: Preview | None, pause: Callable[[], None] = lambda: None
) -> Preview:
    """Prepare the frames so far in the window of the previous preview, or in a new one where that has become unfit.

    A new window is searched for once the peak has passed, and whenever the number of frames has grown to 1.5 times that at the last
    search, except if the scan is complete. A new window that is like the old one is not taken, so that the picture stays steady.
    """
    # The search for foreign peaks takes as long as all the rest; only the full job does it.
    config = replace(config, aliens="off")
    result, is_rough = (None if previous is None else previous.result), not (request.is_past_peak or request.is_complete)
    if previous is None or _needs_search(request, previous):
        found = prepare(request.scan, _search_config(request, config, is_rough), pause=pause)
        if previous is None or not _is_alike(found, previous.volume):
            change = "" if previous is None else _describe_change(found, previous.volume, request.frames)
            return Preview(found, request.frames, is_rough, change, result)
        previous = replace(previous, window_frames=request.frames, is_rough=is_rough)
    volume = prepare(request.scan, _move_window(config, previous.volume, request), pause=pause)
    return replace(previous, volume=volume, window_change="")


def _needs_search(request: PreviewRequest, previous: Preview) -> bool:
    """Tell whether the window of the previous preview may have become unfit."""
    if previous.volume.window is None or (previous.is_rough and (request.is_past_peak or request.is_complete)):
        return True
    return not request.is_complete and request.frames >= GROWTH_BEFORE_SEARCH * previous.window_frames


def _search_config(request: PreviewRequest, config: PrepareConfig, is_rough: bool) -> PrepareConfig:
    """Return the settings that search for a window.

    If `is_rough`, the window is a box of at most 48 voxels an edge about the brightest spot, which is quick. A part of the peak
    does not tell how far it reaches, nor how large the crystal is, so nothing is binned.
    """
    if config.centre != "max" or request.scan.prepared or (config.shape is None and not is_rough):
        return config
    # With the peak known, nothing else has to be searched for.
    config = replace(config, centre=_find_brightest_spot(request, slice(None), slice(None)))
    if config.shape is not None:
        return config
    z, y, x = (fast_length(min(n, limit, ROUGH)) for n, limit in zip(request.scan.frames.shape, config.max_shape, strict=True))
    return replace(config, shape=(z, y, x), binning=(1, 1, 1) if config.binning == "auto" else config.binning)


def _is_alike(found: DiffractionVolume, before: DiffractionVolume) -> bool:
    """Tell whether two windows have the same binning and nearly the same lengths."""
    if found.window is None or before.window is None or found.window.binning != before.window.binning:
        return False
    return all(max(a, b) <= ALIKE * min(a, b) for a, b in zip(found.shape, before.shape, strict=True))


def _describe_change(found: DiffractionVolume, before: DiffractionVolume, frames: int) -> str:
    """Return in words how a window has changed."""
    now, then = (" x ".join(map(str, volume.shape)) for volume in (found, before))
    return f"from {frames} frames on the window is {now} voxels, before it was {then}"


def align_with(result: Reconstruction, previous: Reconstruction | None) -> Reconstruction:
    """Turn and move a crystal onto that of the previous picture of its scan, so that what is seen stays steady.

    The crystal is replaced by its twin if the twin agrees better with the previous crystal, and is moved to the same origin.
    Counts do not tell a crystal from its twin, so neither is more right. The choices of the result say what was done. A crystal
    that does not resemble the previous one, or cannot be compared with it, is returned unchanged.
    """
    if previous is None or not previous.support.any() or not result.support.any():
        return result
    try:
        neighbour = carry_neighbour(_on_nominal_grid(previous), _on_nominal_grid(result).volume)
        aligned, placed = register(result, neighbour)
    except DataError:  # the shapes differ, and neither geometry nor window relates them
        return result
    if placed.correlation < RELATED:
        return result
    said = {
        "twin": f"{'turned' if placed.twin else 'kept'} to be as in the picture before; its twin fits by {placed.margin:.3f} less",
        "origin": f"moved by {placed.shift} voxels to be as in the picture before",
    }
    before = {name: f"{result.choices[name]}; " if name in result.choices else "" for name in said}
    return replace(aligned, choices={**result.choices, **{name: before[name] + words for name, words in said.items()}})


def _on_nominal_grid(result: Reconstruction) -> Reconstruction:
    """Return a crystal without geometry on nominal voxels, which relate windows of one scan: edges of a raw voxel are 1."""
    window = result.volume.window
    if result.volume.reciprocal_basis is not None or window is None:
        return result
    reciprocal = np.diag(np.array(window.binning, dtype=float))
    volume = replace(result.volume, reciprocal_basis=reciprocal, q_bragg=np.array([0.0, 1.0, 0.0]))
    return replace(result, volume=volume, basis=direct_basis(reciprocal, volume.shape))


def _move_window(config: PrepareConfig, previous: DiffractionVolume, request: PreviewRequest) -> PrepareConfig:
    """Move the window of the previous preview to the brightest spot of the brightest frame, without searching for a new one."""
    assert previous.window is not None
    # Look only inside the previous window: a bright spot elsewhere is another peak.
    rows, columns = (
        slice(max(0, first), first + bins * size)
        for first, bins, size in zip(previous.window.start[1:], previous.window.binning[1:], previous.shape[1:], strict=True)
    )
    return replace(
        config, centre=_find_brightest_spot(request, rows, columns), shape=previous.shape, binning=previous.window.binning
    )


def _find_brightest_spot(request: PreviewRequest, rows: slice, columns: slice) -> tuple[int, int, int]:
    """Return the frame, row and column of the brightest spot in the brightest frame.

    Only the given `rows` and `columns` are searched. Hot pixels are filtered out first.
    """
    image = np.asarray(request.scan.frames[request.brightest])
    if image.dtype.kind == "f":
        image = np.where(np.abs(image) <= LARGEST_COUNT, image, 0)
    image = image.astype(np.float32)
    valid = request.scan.valid
    if valid is not None:
        image *= valid if valid.ndim == 2 else valid[request.brightest]
    smooth = ndimage.gaussian_filter(ndimage.median_filter(image[rows, columns], 3), 1)
    row, column = np.unravel_index(int(smooth.argmax()), smooth.shape)
    return request.brightest, int(row) + (rows.start or 0), int(column) + (columns.start or 0)
