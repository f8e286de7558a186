"""A picture of a scan as far as it is measured: quickly made, on the grid, twin and origin of the picture before."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from braggshot.errors import DataError
from braggshot.iterative.iterate import Progress
from braggshot.live.mailbox import PreviewRequest
from braggshot.nn.two_scale import beginning
from braggshot.phasing.config import PhasingConfig
from braggshot.phasing.strategies import Trained, phase
from braggshot.pipeline import Settings, finish_result
from braggshot.prepare import PrepareConfig, prepare
from braggshot.series.registration import carried, registered
from braggshot.volumes import DiffractionVolume, Reconstruction

GROWTH_BEFORE_SEARCH = 1.5  # times the frames of the last search for a window, after which the fringes may reach further


@dataclass(frozen=True)
class Preview:
    """A picture, or as much of it as is made.

    Parameters
    ----------
    volume : the counts, in their window
    searched : how many frames there were when that window was searched for
    result : None before the first of a scan is made; in the making that of the picture before
    """

    volume: DiffractionVolume
    window_frames: int
    result: Reconstruction | None = None


PreviewSteps = Generator[Progress | Preview, None, Preview]


def sketch(
    request: PreviewRequest, settings: Settings, hypotheses: int, network: Trained, previous: Preview | None
) -> PreviewSteps:
    """The network's low resolution on the frames that are there; those that are not are masked.

    A generator that yields what there is between its stages, where it can be given up; its value is the picture. What is not drawn
    is left out: facets, uncertainty, foreign peaks.

    Parameters
    ----------
    wanted : the scan as far as it is measured
    settings : of the main job
    hypotheses : of the network
    network : the one that the settings name
    before : the picture before of the same scan, whose window is moved to the peak as it now stands

    Raises
    ------
    DataError : where there is no peak yet, or no crystal.
    """
    window, window_frames = choose_window(request, settings.prepare, previous)
    preview = Preview(prepare(request.scan, window), window_frames, None if previous is None else previous.result)
    yield preview
    low_resolution = beginning(network[0]), network[1]
    config = replace(_limit_orientations(settings.phasing, hypotheses), method="oneshot")
    return (yield from _phase_and_finish(preview, config, settings, low_resolution))


def improve(preview: Preview, settings: Settings, hypotheses: int, network: Trained, is_complete: bool) -> PreviewSteps:
    """The same frames: of a whole scan, which the full job takes next, the network's whole pass; else refined by the engine."""
    config = replace(_limit_orientations(settings.phasing, hypotheses), method="oneshot" if is_complete else "refine")
    return (yield from _phase_and_finish(preview, config, settings, network))


def _limit_orientations(config: PhasingConfig, hypotheses: int) -> PhasingConfig:
    """As many orientations as hypotheses: a picture has a second."""
    return replace(config, hypotheses=hypotheses, orientations=hypotheses)


def _phase_and_finish(preview: Preview, config: PhasingConfig, settings: Settings, network: Trained) -> PreviewSteps:
    without_adaptation = replace(config, adapt=replace(config.adapt, steps=0))  # learning from each pattern is for the full job
    result = yield from phase(preview.volume, without_adaptation, network=network)
    if not result.support.any():
        raise DataError(f"{preview.volume.name}: no crystal yet.")
    yield preview
    registered_result = _register_to_previous(replace(result, uncertainty=None), preview.result)
    yield preview
    # Half data and noise samples phase again, which is for the full job.
    strain = replace(settings.strain, half_data=False, noise_samples=0, facets=False)
    return replace(preview, result=(yield from finish_result(registered_result, replace(settings, strain=strain), {})))


def choose_window(request: PreviewRequest, config: PrepareConfig, previous: Preview | None) -> tuple[PrepareConfig, int]:
    """How to prepare the scan, and when its window was searched for: anew after half as many more frames, never at the end."""
    # Foreign peaks are not looked for: that takes as long as all the rest, and the full job does it.
    config = replace(config, aliens="off")
    if (
        previous is not None
        and previous.volume.window is not None
        and (request.is_complete or request.frames < GROWTH_BEFORE_SEARCH * previous.window_frames)
    ):
        return _move_window(config, previous.volume, request), previous.window_frames
    if config.shape is not None and config.centre == "max" and not request.scan.prepared:
        config = replace(
            config, centre=_find_brightest_spot(request, slice(None), slice(None))
        )  # and nothing else is to be searched for
    return config, request.frames


def _register_to_previous(result: Reconstruction, previous: Reconstruction | None) -> Reconstruction:
    """The twin and origin of the picture before, so that the crystal does not jump about on the screen."""
    if previous is None or not previous.support.any():
        return result
    try:
        return registered(result, carried(previous, result.volume))[0]
    except DataError:  # of another shape, without a geometry to relate them
        return result


def _move_window(config: PrepareConfig, previous: DiffractionVolume, request: PreviewRequest) -> PrepareConfig:
    """The window before, about the brightest spot of the brightest frame: nothing has to be searched for."""
    assert previous.window is not None
    # Where the peak was, give or take its own width: what is bright elsewhere does not count.
    rows, columns = (
        slice(max(0, first), first + bins * size)
        for first, bins, size in zip(previous.window.start[1:], previous.window.binning[1:], previous.shape[1:], strict=True)
    )
    return replace(
        config, centre=_find_brightest_spot(request, rows, columns), shape=previous.shape, binning=previous.window.binning
    )


def _find_brightest_spot(request: PreviewRequest, rows: slice, columns: slice) -> tuple[int, int, int]:
    """The brightest spot of the brightest frame, in a part of it; hot pixels are no spots."""
    image = np.asarray(request.scan.frames[request.brightest]).astype(np.float32)
    valid = request.scan.valid
    if valid is not None:
        image *= valid if valid.ndim == 2 else valid[request.brightest]
    smooth = ndimage.gaussian_filter(ndimage.median_filter(image[rows, columns], 3), 1)
    row, column = np.unravel_index(int(smooth.argmax()), smooth.shape)
    return request.brightest, int(row) + (rows.start or 0), int(column) + (columns.start or 0)
