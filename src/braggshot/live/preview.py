"""Make previews of a crystal: phase quickly the frames of a scan that have come so far.

Each preview is aligned with the preview before: grid and origin are the same.
Of the crystal and its twin, the one that agrees with the preview before is shown.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from braggshot.errors import DataError
from braggshot.iterative.iterate import Progress
from braggshot.live.mailbox import PreviewRequest
from braggshot.nn.two_scale import coarse_network
from braggshot.phasing.config import PhasingConfig
from braggshot.phasing.strategies import Trained, phase
from braggshot.pipeline import Settings, finish_result
from braggshot.prepare import PrepareConfig, prepare
from braggshot.series.registration import carry_neighbour, register
from braggshot.volumes import DiffractionVolume, Reconstruction

GROWTH_BEFORE_SEARCH = 1.5  # factor by which the number of frames must grow before a new window around the peak is searched for [1]


@dataclass(frozen=True)
class Preview:
    """A preview of a scan, complete or still being made.

    Parameters
    ----------
    volume : counts in the window around the Bragg peak
    window_frames : number of frames that had come when the position and size of this window were searched for
    result : the reconstruction; while this preview is being made, the result of the previous preview, or None if there was none
    """

    volume: DiffractionVolume
    window_frames: int
    result: Reconstruction | None = None


PreviewSteps = Generator[Progress | Preview, None, Preview]


def sketch(
    request: PreviewRequest, settings: Settings, hypotheses: int, network: Trained, previous: Preview | None
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

    Raises
    ------
    DataError : if the counts hold no peak yet, or if no crystal is found.
    """
    window, window_frames = choose_window(request, settings.prepare, previous)
    preview = Preview(prepare(request.scan, window), window_frames, None if previous is None else previous.result)
    yield preview
    low_resolution = coarse_network(network[0]), network[1]
    config = replace(_limit_orientations(settings.phasing, hypotheses), method="oneshot")
    return (yield from _phase_and_finish(preview, config, settings, low_resolution))


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
    registered_result = _register_to_previous(replace(result, uncertainty=None), preview.result)
    yield preview
    # Half data and noise samples would phase again; only the full job does so.
    strain = replace(settings.strain, half_data=False, noise_samples=0, facets=False)
    return replace(preview, result=(yield from finish_result(registered_result, replace(settings, strain=strain), {})))


def choose_window(request: PreviewRequest, config: PrepareConfig, previous: Preview | None) -> tuple[PrepareConfig, int]:
    """Choose the window of a preview, the part of the detector data around the Bragg peak that is phased.

    Return the settings that cut out the window, and the number of frames that had come when the window was last searched for.
    The window of the previous preview is used again, moved to the present position of the peak. Once the number of frames has grown
    to 1.5 times that at the last search, a new window is searched for, except if the scan is complete.
    """
    # The search for foreign peaks takes as long as all the rest; only the full job does it.
    config = replace(config, aliens="off")
    if (
        previous is not None
        and previous.volume.window is not None
        and (request.is_complete or request.frames < GROWTH_BEFORE_SEARCH * previous.window_frames)
    ):
        return _move_window(config, previous.volume, request), previous.window_frames
    if config.shape is not None and config.centre == "max" and not request.scan.prepared:
        # With the peak known, nothing else has to be searched for.
        config = replace(config, centre=_find_brightest_spot(request, slice(None), slice(None)))
    return config, request.frames


def _register_to_previous(result: Reconstruction, previous: Reconstruction | None) -> Reconstruction:
    """Align a crystal with the crystal of the previous preview, so that the picture stays steady.

    The crystal is replaced by its twin if the twin agrees better with the previous crystal, and is moved to the same origin.
    Without a previous crystal that it can be compared with, it is returned unchanged.
    """
    if previous is None or not previous.support.any():
        return result
    try:
        return register(result, carry_neighbour(previous, result.volume))[0]
    except DataError:  # the shapes differ, and no geometry relates them
        return result


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
    image = np.asarray(request.scan.frames[request.brightest]).astype(np.float32)
    valid = request.scan.valid
    if valid is not None:
        image *= valid if valid.ndim == 2 else valid[request.brightest]
    smooth = ndimage.gaussian_filter(ndimage.median_filter(image[rows, columns], 3), 1)
    row, column = np.unravel_index(int(smooth.argmax()), smooth.shape)
    return request.brightest, int(row) + (rows.start or 0), int(column) + (columns.start or 0)
