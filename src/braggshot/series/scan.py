"""Phase one scan of a series, from its frames to its row of the table.

The result lies on the grid that all scans of the series share. The neighbour of a scan is the earlier scan that its crystal is
compared with. The crystal or its twin is kept, whichever agrees better with the neighbour.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from braggshot.errors import DataError, FormatError, GeometryError
from braggshot.io import results
from braggshot.iterative.iterate import Guess, Progress
from braggshot.output import OutputFormat
from braggshot.phasing.config import PhasingConfig
from braggshot.phasing.sparse import SMOOTH, completed, phase_sparse
from braggshot.phasing.strategies import Trained
from braggshot.phasing.verdict import judge
from braggshot.pipeline import finish_result, prepare_and_phase
from braggshot.prepare import PrepareConfig, prepare
from braggshot.prepare.rocking import empty_share
from braggshot.series import registration, table
from braggshot.series.registration import Grid, Registration
from braggshot.series.repeats import read_source, say_repeats
from braggshot.series.settings import SeriesSettings
from braggshot.series.sources import Source
from braggshot.series.table import Row
from braggshot.volumes import Agreement, ComplexArray, DiffractionVolume, Reconstruction, Scan

Place = Callable[[Reconstruction], Reconstruction]
# Errors that make only one scan fail; its row of the table tells the reason. Any other error stops the run.
FAILURES = (DataError, FormatError, GeometryError, ArithmeticError, ValueError)
# Least difference between the correlations of a crystal and of its twin with an earlier scan [1]. If the two differ by less, the
# choice between crystal and twin is doubtful.
TWINS = 0.02
# Least share of planes without a frame for a scan of few frames, which is phased from the crystal of its neighbour alone [1].
SPARSE = 0.3


@dataclass(frozen=True)
class Chain:
    """Results of earlier scans that the next scan depends on.

    The neighbour is the earlier scan that the next crystal is compared with. It is read from its file, so that a resumed series
    gives the same numbers as an uninterrupted one.

    Parameters
    ----------
    grid : common grid of the series
    neighbour : path of the neighbour's result CXI
    digest : hash of all that determined the neighbour's result except its frames, from `table.digest`
    spacing : lattice spacing of the first accepted scan [m]
    """

    grid: Grid | None = None
    neighbour: Path | None = None
    digest: str | None = None
    spacing: float | None = None

    def after(self, row: Row, folder: Path, follows: Literal["previous", "first"]) -> Chain:
        """Return the results that the next scans depend on, given the finished row of a scan."""
        if row["verdict"] == "failed" or (self.neighbour is not None and follows == "first"):
            return self
        path = folder / f"{row['name']}.cxi"
        grid = self.grid or registration.grid_of(results.read(path), results.read_strain(path))
        return Chain(grid, path, row["settings"], self.spacing or row["d_spacing_m"])


@dataclass(frozen=True)
class Task:
    """One scan to be phased, and everything else that its result depends on.

    Parameters
    ----------
    number : number of the scan in the series
    name : stem of the names of its output files, unique in the series
    source : the scan, with an absolute path
    row : row of the table, still without measured values
    folder : output folder
    settings, chain : settings of the series, and results of earlier scans
    """

    number: int
    name: str
    source: Source
    row: Row
    folder: Path
    settings: SeriesSettings
    chain: Chain

    @property
    def formats(self) -> tuple[OutputFormat, ...]:
        """Output formats; the CXI file is always written, because later scans of the series start from the crystal in it."""
        return tuple(dict.fromkeys(("cxi", *self.settings.output.formats)))


def phase_scan(
    task: Task, network: Trained | None = None, place: Place | None = None
) -> Generator[Progress, None, tuple[Row, Reconstruction | None]]:
    """Phase a scan, and return its row of the table and its result.

    The caller writes the result. A scan that fails gives a row with the reason, and None as result. `place` turns and moves the
    crystal of a scan without a neighbour, whose twin and origin nothing else determines; None leaves it as it came out.
    """
    began = time.perf_counter()
    row, source, settings = task.row, task.source, task.settings
    try:
        scan = replace(read_source(source, settings), name=task.name)
        row = {**row, "time": scan.provenance.get("time") or None, **say_repeats(scan)}
        result, placed = yield from _reconstruct(scan, task, began, network, place)
        row = {**row, "name": task.name, **table.summarise_result(result, task.chain.spacing)}
    except FAILURES as error:
        return table.fail_row(row, " ".join(str(error).split())), None
    if placed is not None:
        row |= {"correlation_to_previous": placed.correlation, "twin_margin": placed.margin}
    return row, result


def _reconstruct(
    scan: Scan, task: Task, began: float, network: Trained | None, place: Place | None
) -> Generator[Progress, None, tuple[Reconstruction, Registration | None]]:
    settings, grid, read = task.settings, task.chain.grid, time.perf_counter()
    last = None if task.chain.neighbour is None else results.read(task.chain.neighbour)

    def carry(volume: DiffractionVolume) -> ComplexArray | None:
        return None if last is None else registration.carry_neighbour(last, volume, settings.strain.axis)

    def guesses(volume: DiffractionVolume) -> list[Guess]:
        neighbour = carry(volume) if settings.series.warm else None
        return [] if neighbour is None else [registration.guess(neighbour)]

    phasing = settings.phasing if last is None else _reduce_starts(settings.phasing, settings.series.cold)
    sampling = last.volume.oversampling[0] if last is not None and last.volume.oversampling and settings.series.warm else None
    preparation = registration.hold_grid(settings.prepare, grid, scan, sampling)
    if last is not None and settings.series.warm and empty_share(scan, preparation.step) >= SPARSE:
        found = yield from _follow(scan, preparation, last, settings)
    else:
        found = yield from prepare_and_phase(scan, preparation, phasing, network, guesses)
        found = doubt_warm_start(found, settings)
    placed, neighbour = None, carry(found.volume)
    if neighbour is not None and found.support.any():
        found, placed = registration.register(found, neighbour)
        found = doubt_twin(found, placed)
    elif last is None and place is not None:
        found = place(found)
    size = None if grid is None else grid.voxel_size
    on_grid = replace(settings, strain=replace(settings.strain, voxel_size=size)) if size else settings
    result = yield from finish_result(found, on_grid, {"read": read - began})
    if result.strain is not None:
        shape = (grid or registration.grid_of(result, result.strain)).map_shape
        result = replace(result, strain=registration.on_map(result.strain, shape or result.strain.support.shape))
    return result, placed


def _follow(
    scan: Scan, preparation: PrepareConfig, last: Reconstruction, settings: SeriesSettings
) -> Generator[Progress, None, Reconstruction]:
    """Phase a scan of few frames from the crystal of its neighbour; the crystal of random starts would be mixed with its copies."""
    began = time.perf_counter()
    volume = prepare(scan, preparation)
    crystal, turn = registration.carry_neighbour(last, volume, settings.strain.axis), registration.measured_turn(volume)
    spent = {"prepare": time.perf_counter() - began}
    found = yield from phase_sparse(volume, crystal, turn, settings.phasing, settings.series.cold or SMOOTH)
    found = doubt_warm_start(replace(found, seconds={**spent, **found.seconds}), settings, completed(found))
    return found if last.psf is None else _doubt_coherence(found)


def _doubt_coherence(result: Reconstruction) -> Reconstruction:
    doubt = "its neighbour was phased with a point spread, and a scan of few frames is phased as if the beam were coherent."
    if result.verdict == "good":
        return replace(result, verdict="doubtful", reasons=(doubt,))
    return replace(result, reasons=(*result.reasons, doubt))


def _reduce_starts(phasing: PhasingConfig, cold: int | None) -> PhasingConfig:
    if cold is None:
        return phasing
    orientations = max(cold, phasing.orientations * cold // phasing.hypotheses)
    search_starts = (4 * cold, 2 * cold, cold)
    return replace(phasing, starts=cold, hypotheses=cold, orientations=orientations, search_starts=search_starts, max_tournaments=1)


def doubt_warm_start(result: Reconstruction, settings: SeriesSettings, volume: DiffractionVolume | None = None) -> Reconstruction:
    """Call a result doubtful if it comes from a warm start (an earlier scan's crystal) and no cold (random) start confirms it.

    Such a result may only repeat the earlier scan, but it predicts the held-out voxels best. So this doubt alone does not make the
    verdict "failed"; all other checks apply unchanged, to `volume` if it is given, else to the volume of the result.
    """
    facts = table.compare_starts(result)
    limits = settings.phasing.limits
    if facts["start"] != "warm" or facts["warm_cold_correlation"] >= limits.agreement:
        return result
    confirmed = replace(result.quality, agreeing=Agreement(1, 1, 0, limits.agreement))
    verdict, reasons = judge(volume or result.volume, result.rho, result.support, confirmed, limits)
    doubt = (
        f"the start from its neighbour predicts the held-out voxels best ({facts['warm_llk_free']:.3g} against "
        f"{facts['cold_llk_free']:.3g}), but the best cold start is another crystal (correlation "
        f"{facts['warm_cold_correlation']:.2f}): more cold starts may settle whether the neighbour biased it."
    )
    others = () if verdict == "good" else reasons
    return replace(result, verdict="doubtful" if verdict == "good" else verdict, reasons=(doubt, *others))


def doubt_twin(result: Reconstruction, placed: Registration) -> Reconstruction:
    """Call a result doubtful if its twin agrees nearly as well with an earlier scan: the sign of its strain could be wrong."""
    if placed.margin >= TWINS or result.verdict == "failed":
        return result
    doubt = (
        f"both twins fit its neighbour nearly as well (correlation {placed.correlation:.3f}, margin {placed.margin:.3f}): "
        "the sign of the strain could differ from it."
    )
    others = () if result.verdict == "good" else result.reasons
    return replace(result, verdict="doubtful", reasons=(doubt, *others))
