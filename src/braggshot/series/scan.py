"""One scan of a series: from its frames to its row, on the grid and with the twin of its neighbour."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from braggshot.errors import DataError, FormatError, GeometryError
from braggshot.io import registry, results
from braggshot.iterative.iterate import Progress
from braggshot.output import OutputFormat
from braggshot.phasing.config import PhasingConfig
from braggshot.phasing.strategies import Trained, phase
from braggshot.phasing.verdict import judge
from braggshot.pipeline import finish_result
from braggshot.prepare import prepare
from braggshot.series import registration, table
from braggshot.series.registration import Grid, Registration
from braggshot.series.settings import SeriesSettings
from braggshot.series.sources import Source
from braggshot.series.table import Row
from braggshot.volumes import Agreement, Reconstruction, Scan

FAILURES = (DataError, FormatError, GeometryError, ArithmeticError, ValueError)  # of one scan; what is wrong with all stops the run
TWINS = 0.02  # margin below which the neighbour does not tell the twins apart


@dataclass(frozen=True)
class Chain:
    """What a scan needs of those before it; its neighbour always as written, so that a series that goes on is the same series.

    Parameters
    ----------
    grid : what all share
    neighbour : result CXI of the scan to follow
    digest : of that scan, see `table.digest`
    spacing : lattice spacing of the first accepted scan [m]
    """

    grid: Grid | None = None
    neighbour: Path | None = None
    digest: str | None = None
    spacing: float | None = None

    def after(self, row: Row, folder: Path, follows: Literal["previous", "first"]) -> Chain:
        """The chain once a scan has its row."""
        if row["verdict"] == "failed" or (self.neighbour is not None and follows == "first"):
            return self
        path = folder / f"{row['name']}.cxi"
        grid = self.grid or registration.grid_of(results.read(path), results.read_strain(path))
        return Chain(grid, path, row["settings"], self.spacing or row["d_spacing_m"])


@dataclass(frozen=True)
class Task:
    """One scan to be phased, and all that decides what comes out.

    Parameters
    ----------
    number : in the series
    name : stem of its files, which no other scan of the series has
    source : with an absolute path
    row : with nothing measured yet
    folder : where its files go
    settings, chain : of the series
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
        """What is written; the next scans read the CXI file."""
        return tuple(dict.fromkeys(("cxi", *self.settings.output.formats)))


def phased(task: Task, network: Trained | None = None) -> Generator[Progress, None, tuple[Row, Reconstruction | None]]:
    """A scan to its row and its result, which is for the caller to write; a failure is a row, without a result."""
    began = time.perf_counter()
    row, source, settings = task.row, task.source, task.settings
    try:
        options = dict(settings.input) if source.scan is None else {**settings.input, "scan": source.scan}
        scan = replace(registry.read(source.path, source.format, **options), name=task.name)
        row = {**row, "time": scan.provenance.get("time") or None}
        result, placed = yield from _reconstructed(scan, task, began, network)
        row = {**row, "name": task.name, **table.measured(result, task.chain.spacing)}
    except FAILURES as error:
        return table.failed(row, " ".join(str(error).split())), None
    if placed is not None:
        row |= {"correlation_to_previous": placed.correlation, "twin_margin": placed.margin}
    return row, result


def _reconstructed(
    scan: Scan, task: Task, began: float, network: Trained | None
) -> Generator[Progress, None, tuple[Reconstruction, Registration | None]]:
    settings, grid, read = task.settings, task.chain.grid, time.perf_counter()
    last = None if task.chain.neighbour is None else results.read(task.chain.neighbour)
    volume = prepare(scan, registration.hold_grid(settings.prepare, grid, scan))
    prepared = time.perf_counter()
    neighbour = None if last is None else registration.carry_neighbour(last, volume, settings.strain.axis)
    first = [registration.guess(neighbour)] if neighbour is not None and settings.series.warm else []
    phasing = settings.phasing if last is None else _fewer(settings.phasing, settings.series.cold)
    found = yield from phase(volume, phasing, first, network)
    found, placed = _checked(found, settings), None
    if neighbour is not None and found.support.any():
        found, placed = registration.register(found, neighbour)
        found = _with_doubt(found, placed)
    size = None if grid is None else grid.voxel_size
    on_grid = replace(settings, strain=replace(settings.strain, voxel_size=size)) if size else settings
    result = yield from finish_result(found, on_grid, {"read": read - began, "prepare": prepared - read})
    if result.strain is not None:
        shape = (grid or registration.grid_of(result, result.strain)).map_shape
        result = replace(result, strain=registration.on_map(result.strain, shape or result.strain.support.shape))
    return result, placed


def _fewer(phasing: PhasingConfig, cold: int | None) -> PhasingConfig:
    if cold is None:
        return phasing
    orientations = max(cold, phasing.orientations * cold // phasing.hypotheses)
    search_starts = (4 * cold, 2 * cold, cold)
    return replace(phasing, starts=cold, hypotheses=cold, orientations=orientations, search_starts=search_starts, max_tournaments=1)


def _checked(found: Reconstruction, settings: SeriesSettings) -> Reconstruction:
    """Doubt where the warm start won and no cold start confirms it: it may only repeat its neighbour.

    Its support by held-out voxels counts, so this alone is no failure; everything else that speaks against it is judged as ever.
    """
    facts = table.starts(found)
    limits = settings.phasing.limits
    if facts["start"] != "warm" or facts["warm_cold_correlation"] >= limits.agreement:
        return found
    confirmed = replace(found.quality, agreeing=Agreement(1, 1, 0, limits.agreement))
    verdict, reasons = judge(found.volume, found.rho, found.support, confirmed, limits)
    doubt = (
        f"the start from its neighbour predicts the held-out voxels best ({facts['warm_llk_free']:.3g} against "
        f"{facts['cold_llk_free']:.3g}), but the best cold start is another crystal (correlation "
        f"{facts['warm_cold_correlation']:.2f}): more cold starts may settle whether the neighbour biased it."
    )
    others = () if verdict == "good" else reasons
    return replace(found, verdict="doubtful" if verdict == "good" else verdict, reasons=(doubt, *others))


def _with_doubt(found: Reconstruction, placed: Registration) -> Reconstruction:
    if placed.margin >= TWINS or found.verdict == "failed":
        return found
    doubt = (
        f"both twins fit its neighbour nearly as well (correlation {placed.correlation:.3f}, margin {placed.margin:.3f}): "
        "the sign of the strain could differ from it."
    )
    others = () if found.verdict == "good" else found.reasons
    return replace(found, verdict="doubtful", reasons=(doubt, *others))
