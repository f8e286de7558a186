"""A picture of a scan as far as it is measured: quickly made, on the grid, twin and origin of the picture before."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from braggshot.errors import DataError
from braggshot.live.desk import Wanted
from braggshot.phasing import PhasingConfig, phase
from braggshot.pipeline import Result, Settings, completed
from braggshot.prepare import PrepareConfig, prepare
from braggshot.refine.iterate import Progress
from braggshot.series.registration import carried, registered
from braggshot.volumes import DiffractionVolume, Reconstruction

SEARCH_AGAIN = 1.5  # times the frames of the last search for a window, after which the fringes may reach further


@dataclass(frozen=True)
class Picture:
    """A result, and how many frames there were when its window was searched for."""

    result: Result
    searched: int


def sketch(wanted: Wanted, settings: Settings, hypotheses: int, before: Picture | None) -> Generator[Progress, None, Picture]:
    """One forward pass of the network on the frames that are there; those that are not are masked.

    Parameters
    ----------
    wanted : the scan as far as it is measured
    settings : of the main job
    hypotheses : of the network
    before : the picture before of the same scan, whose window is moved to the peak as it now stands

    Raises
    ------
    DataError : where there is no peak yet, or no crystal.
    """
    # Foreign peaks are not looked for: that takes as long as all the rest, and the full job does it.
    prepared: PrepareConfig = replace(settings.prepare, aliens="off")
    searched = wanted.frames
    if before is not None and before.result.volume.window is not None and wanted.frames < SEARCH_AGAIN * before.searched:
        prepared, searched = _moved(prepared, before.result.volume, wanted), before.searched
    volume = prepare(wanted.scan, prepared)
    config = replace(settings.phasing, method="oneshot", hypotheses=hypotheses)
    return Picture((yield from _finished(volume, config, settings, before)), searched)


def improved(picture: Picture, settings: Settings, hypotheses: int) -> Generator[Progress, None, Picture]:
    """The same frames, the network's hypotheses refined by the physics engine for at most 70 iterations."""
    config = replace(settings.phasing, method="refine", hypotheses=hypotheses)
    return replace(picture, result=(yield from _finished(picture.result.volume, config, settings, picture)))


def _finished(
    volume: DiffractionVolume, config: PhasingConfig, settings: Settings, before: Picture | None
) -> Generator[Progress, None, Result]:
    found = yield from phase(volume, config)
    if not found.support.any():
        raise DataError(f"{volume.name}: no crystal yet.")
    # Half data and noise samples phase again, which is for the full job.
    strain = replace(settings.strain, half_data=False, noise_samples=0)
    return (yield from completed(_as_before(found, before), replace(settings, strain=strain), {}))


def _as_before(found: Reconstruction, before: Picture | None) -> Reconstruction:
    """The twin and origin of the picture before, so that the crystal does not jump about on the screen."""
    if before is None or not before.result.support.any():
        return found
    try:
        return registered(found, carried(before.result, found.volume))[0]
    except DataError:  # of another shape, without a geometry to relate them
        return found


def _moved(config: PrepareConfig, before: DiffractionVolume, wanted: Wanted) -> PrepareConfig:
    """The window before, about the brightest spot of the brightest frame: nothing has to be searched for."""
    assert before.window is not None
    image = np.asarray(wanted.scan.frames[wanted.brightest]).astype(np.float32)
    valid = wanted.scan.valid
    if valid is not None:
        image *= valid if valid.ndim == 2 else valid[wanted.brightest]
    # Where the peak was, give or take its own width: hot pixels elsewhere do not count.
    rows, columns = (
        slice(max(0, first), first + bins * size)
        for first, bins, size in zip(before.window.start[1:], before.window.binning[1:], before.shape[1:], strict=True)
    )
    smooth = ndimage.gaussian_filter(image[rows, columns], 1)
    row, column = np.unravel_index(int(smooth.argmax()), smooth.shape)
    centre = (wanted.brightest, int(row) + rows.start, int(column) + columns.start)
    return replace(config, centre=centre, shape=before.shape, binning=before.window.binning)
