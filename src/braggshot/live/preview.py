"""A picture of a scan as far as it is measured: quickly made, on the grid, twin and origin of the picture before."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from braggshot.errors import DataError
from braggshot.iterative.iterate import Progress
from braggshot.live.mailbox import Wanted
from braggshot.nn.two_scale import coarse_network
from braggshot.phasing.config import PhasingConfig
from braggshot.phasing.strategies import Trained, phase
from braggshot.pipeline import Settings, finish_result
from braggshot.prepare import PrepareConfig, prepare
from braggshot.series.registration import carry_neighbour, register
from braggshot.volumes import DiffractionVolume, Reconstruction

SEARCH_AGAIN = 1.5  # times the frames of the last search for a window, after which the fringes may reach further


@dataclass(frozen=True)
class Picture:
    """A picture, or as much of it as is made.

    Parameters
    ----------
    volume : the counts, in their window
    searched : how many frames there were when that window was searched for
    result : None before the first of a scan is made; in the making that of the picture before
    """

    volume: DiffractionVolume
    searched: int
    result: Reconstruction | None = None


Making = Generator[Progress | Picture, None, Picture]


def sketch(wanted: Wanted, settings: Settings, hypotheses: int, network: Trained, before: Picture | None) -> Making:
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
    how, searched = _window(wanted, settings.prepare, before)
    part = Picture(prepare(wanted.scan, how), searched, None if before is None else before.result)
    yield part
    quick = coarse_network(network[0]), network[1]
    config = replace(_few(settings.phasing, hypotheses), method="oneshot")
    return (yield from _finished(part, config, settings, quick))


def improved(picture: Picture, settings: Settings, hypotheses: int, network: Trained, whole: bool) -> Making:
    """The same frames: of a whole scan, which the full job takes next, the network's whole pass; else refined by the engine."""
    config = replace(_few(settings.phasing, hypotheses), method="oneshot" if whole else "refine")
    return (yield from _finished(picture, config, settings, network))


def _few(config: PhasingConfig, hypotheses: int) -> PhasingConfig:
    """As many orientations as hypotheses: a picture has a second."""
    return replace(config, hypotheses=hypotheses, orientations=hypotheses)


def _finished(part: Picture, config: PhasingConfig, settings: Settings, network: Trained) -> Making:
    quick = replace(config, adapt=replace(config.adapt, steps=0))  # learning from each pattern is for the full job
    found = yield from phase(part.volume, quick, network=network)
    if not found.support.any():
        raise DataError(f"{part.volume.name}: no crystal yet.")
    yield part
    placed = _as_before(replace(found, uncertainty=None), part.result)
    yield part
    # Half data and noise samples phase again, which is for the full job.
    strain = replace(settings.strain, half_data=False, noise_samples=0, facets=False)
    return replace(part, result=(yield from finish_result(placed, replace(settings, strain=strain), {})))


def _window(wanted: Wanted, config: PrepareConfig, before: Picture | None) -> tuple[PrepareConfig, int]:
    """How to prepare the scan, and when its window was searched for: anew after half as many more frames, never at the end."""
    # Foreign peaks are not looked for: that takes as long as all the rest, and the full job does it.
    config = replace(config, aliens="off")
    if before is not None and before.volume.window is not None and (wanted.whole or wanted.frames < SEARCH_AGAIN * before.searched):
        return _moved(config, before.volume, wanted), before.searched
    if config.shape is not None and config.centre == "max" and not wanted.scan.prepared:
        config = replace(config, centre=_spot(wanted, slice(None), slice(None)))  # and nothing else is to be searched for
    return config, wanted.frames


def _as_before(found: Reconstruction, before: Reconstruction | None) -> Reconstruction:
    """The twin and origin of the picture before, so that the crystal does not jump about on the screen."""
    if before is None or not before.support.any():
        return found
    try:
        return register(found, carry_neighbour(before, found.volume))[0]
    except DataError:  # of another shape, without a geometry to relate them
        return found


def _moved(config: PrepareConfig, before: DiffractionVolume, wanted: Wanted) -> PrepareConfig:
    """The window before, about the brightest spot of the brightest frame: nothing has to be searched for."""
    assert before.window is not None
    # Where the peak was, give or take its own width: what is bright elsewhere does not count.
    rows, columns = (
        slice(max(0, first), first + bins * size)
        for first, bins, size in zip(before.window.start[1:], before.window.binning[1:], before.shape[1:], strict=True)
    )
    return replace(config, centre=_spot(wanted, rows, columns), shape=before.shape, binning=before.window.binning)


def _spot(wanted: Wanted, rows: slice, columns: slice) -> tuple[int, int, int]:
    """The brightest spot of the brightest frame, in a part of it; hot pixels are no spots."""
    image = np.asarray(wanted.scan.frames[wanted.brightest]).astype(np.float32)
    valid = wanted.scan.valid
    if valid is not None:
        image *= valid if valid.ndim == 2 else valid[wanted.brightest]
    smooth = ndimage.gaussian_filter(ndimage.median_filter(image[rows, columns], 3), 1)
    row, column = np.unravel_index(int(smooth.argmax()), smooth.shape)
    return wanted.brightest, int(row) + (rows.start or 0), int(column) + (columns.start or 0)
