"""The loop over the scans of a series; each row is yielded, and on disk, as soon as it is known.

A scan that cannot be computed, or whose verdict is ``failed``, has its row with the reason and is nobody's neighbour. A second call
goes on with what is missing: rows of the same scan and settings hold as long as their CXI file is there.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from braggshot import config, pipeline
from braggshot.errors import ConfigError, DataError, FormatError, GeometryError
from braggshot.io import registry, results
from braggshot.io.atomic import sweep
from braggshot.phasing import PhasingConfig, phase
from braggshot.pipeline import OutputConfig, Result, Settings, completed
from braggshot.prepare import prepare
from braggshot.refine.iterate import Progress
from braggshot.series import registration, table
from braggshot.series.registration import Grid, Registration
from braggshot.series.sources import Source
from braggshot.series.table import Row
from braggshot.verdict import judge
from braggshot.volumes import Reconstruction

FAILURES = (DataError, FormatError, GeometryError, ArithmeticError, ValueError)  # of one scan; what is wrong with all stops the run
SAME = 0.95  # correlation from which warm and cold starts are one crystal
TWINS = 0.02  # margin below which the neighbour does not tell the twins apart


@dataclass(frozen=True)
class SeriesConfig:
    """How scans hang together.

    Parameters
    ----------
    warm : start from the neighbour too, beside the starts that know nothing of it
    cold : number of those from the second scan on; None is as many as for the first
    against : column that the plots run along; None takes the time, or the number of the scan
    movie : write series.gif
    """

    warm: bool = True
    cold: int | None = None
    against: str | None = None
    movie: bool = True

    def __post_init__(self) -> None:
        if self.cold is not None and self.cold < 1:
            raise ConfigError(
                f"series.cold must be at least 1, found {self.cold}: without cold starts nothing checks the warm one."
            )


@dataclass(frozen=True)
class SeriesSettings(Settings):
    """The settings of the main job, and those of the series."""

    output: OutputConfig = field(default_factory=lambda: OutputConfig(("cxi",)))
    series: SeriesConfig = field(default_factory=SeriesConfig)


@dataclass(frozen=True)
class Report:
    """A row, how many are done and will be, and whether it was there already."""

    done: int
    total: int
    row: Row
    reused: bool


@dataclass(frozen=True)
class _Chain:
    """What the next scan needs of those before: the common grid, the last accepted one (or its file), the first one's spacing."""

    grid: Grid | None = None
    last: Reconstruction | Path | None = None
    spacing: float | None = None


def resolve(settings: Mapping[str, Any]) -> SeriesSettings:
    """Nested settings to `SeriesSettings`, every name and value checked."""
    return config.resolve(SeriesSettings, settings)


def run(
    scans: Sequence[Source],
    folder: str | Path,
    settings: SeriesSettings | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Iterator[Report]:
    """Phase a series into `folder`, yielding each row as it is done; the caller may stop at any time and call again.

    One run at a time writes to a folder; what a killed one left half-written there is removed.

    At the end ``series.parquet`` (with pyarrow), ``series.png``, ``series.gif`` and ``series.html`` are written too.

    Parameters
    ----------
    scans : from `sources`, in the order in which the crystal changed
    folder : gets ``series.csv`` and a result CXI per scan
    settings : resolved
    on_progress : called after each iteration of the phasing

    Raises
    ------
    ConfigError : for settings that fit no scan.
    DataError : at the end, if not one scan could be computed.
    OutputError : if a file cannot be written.
    """
    settings, folder = settings or SeriesSettings(), Path(folder)
    pipeline.check_writable(folder)
    sweep(folder)
    prints = [table.digest(settings, source) for source in scans]
    earlier = table.read(folder / "series.csv")
    held = {
        number: next((row for row in earlier if table.holds(row, source, prints[number], folder)), None)
        for number, source in enumerate(scans)
    }
    rows: list[Row] = []
    chain = _Chain()
    for number, source in enumerate(scans):
        row = held.pop(number)
        reused = row is not None
        if row is None:
            row, chain = _scan(source, folder, settings, chain, table.begun(source, prints[number]), rows, on_progress)
        else:
            row = {**row, **source.metadata}
            chain = _recalled(row, folder, chain)
        rows = table.with_one_resolution(table.with_elapsed([*rows, row]))
        table.write(folder / "series.csv", [*rows, *(later for later in held.values() if later is not None)])
        yield Report(number + 1, len(scans), rows[-1], reused)
    if all(row["chi2"] is None for row in rows):
        raise DataError(f"none of the {len(rows)} scans could be computed; the first said: {rows[0]['reasons']}")
    _finish(folder, rows, settings)


def _scan(
    source: Source,
    folder: Path,
    settings: SeriesSettings,
    chain: _Chain,
    row: Row,
    rows: Sequence[Row],
    on_progress: Callable[[Progress], None] | None,
) -> tuple[Row, _Chain]:
    """One scan to its row and files, and what the next one needs; a failure is a row too."""
    began = time.perf_counter()
    try:
        options = dict(settings.input) if source.scan is None else {**settings.input, "scan": source.scan}
        scan = registry.read(source.path, source.format, **options)
        row = {**row, "time": scan.provenance.get("time") or None}
        scan = replace(scan, name=_free_name(scan.name, rows))
        result, placed = pipeline.finish(_reconstructed(scan, settings, chain, began), on_progress)
        facts = table.measured(result, chain.spacing)
    except FAILURES as error:
        return table.failed(row, " ".join(str(error).split())), chain
    pipeline.write(result, folder, tuple(dict.fromkeys(("cxi", *settings.output.formats))))
    row = {**row, "name": scan.name, **facts}
    if placed is not None:
        row |= {"correlation_to_previous": placed.correlation, "twin_margin": placed.margin}
    if result.verdict == "failed":
        return row, chain
    grid = chain.grid or registration.grid_of(result, result.strain)
    return row, _Chain(grid, result, chain.spacing or facts.get("d_spacing_m"))


def _free_name(name: str, rows: Sequence[Row]) -> str:
    """A name that no other scan of the series has."""
    taken = {row["name"] for row in rows}
    return next(n for n in (name, *(f"{name}-{k}" for k in range(2, len(rows) + 3))) if n not in taken)


def _reconstructed(
    scan: Any, settings: SeriesSettings, chain: _Chain, began: float
) -> Generator[Progress, None, tuple[Result, Registration | None]]:
    read = time.perf_counter()
    grid, last = chain.grid, results.read(chain.last) if isinstance(chain.last, Path) else chain.last
    volume = prepare(scan, registration.held(settings.prepare, grid, scan))
    prepared = time.perf_counter()
    neighbour = None if last is None else registration.carried(last, volume, settings.strain.axis)
    first = [registration.guess(neighbour)] if neighbour is not None and settings.series.warm else []
    phasing = settings.phasing if last is None else _fewer(settings.phasing, settings.series.cold)
    found = yield from phase(volume, phasing, first)
    found, placed = _checked(found, settings), None
    if neighbour is not None and found.support.any():
        found, placed = registration.registered(found, neighbour)
        found = _with_doubt(found, placed)
    size = None if grid is None else grid.voxel_size
    on_grid = replace(settings, strain=replace(settings.strain, voxel_size=size)) if size else settings
    result = yield from completed(found, on_grid, {"read": read - began, "prepare": prepared - read})
    if result.strain is not None:
        shape = (grid or registration.grid_of(result, result.strain)).map_shape
        result = replace(result, strain=registration.on_map(result.strain, shape or result.strain.support.shape))
    return result, placed


def _fewer(phasing: PhasingConfig, cold: int | None) -> PhasingConfig:
    return phasing if cold is None else replace(phasing, starts=cold, hypotheses=cold)


def _checked(found: Reconstruction, settings: SeriesSettings) -> Reconstruction:
    """Doubt where the warm start won and no cold start confirms it: it may only repeat its neighbour.

    Its support by held-out voxels counts, so this alone is no failure; everything else that speaks against it is judged as ever.
    """
    facts = table.starts(found)
    if facts["start"] != "warm" or facts["warm_cold_correlation"] >= SAME:
        return found
    limits = settings.phasing.limits
    verdict, reasons = judge(found.volume, found.rho, found.support, replace(found.quality, agreement=(1.0, 1.0)), limits)
    doubt = (
        f"the start from the scan before predicts the held-out voxels best ({facts['warm_llk_free']:.3g} against "
        f"{facts['cold_llk_free']:.3g}), but the best cold start is another crystal (correlation "
        f"{facts['warm_cold_correlation']:.2f}): more cold starts may settle whether the neighbour biased it."
    )
    others = () if verdict == "good" else reasons
    return replace(found, verdict="doubtful" if verdict == "good" else verdict, reasons=(doubt, *others))


def _with_doubt(found: Reconstruction, placed: Registration) -> Reconstruction:
    if placed.margin >= TWINS or found.verdict == "failed":
        return found
    doubt = (
        f"both twins fit the scan before nearly as well (correlation {placed.correlation:.3f}, margin {placed.margin:.3f}): "
        "the sign of the strain could differ from it."
    )
    others = () if found.verdict == "good" else found.reasons
    return replace(found, verdict="doubtful", reasons=(doubt, *others))


def _recalled(row: Row, folder: Path, chain: _Chain) -> _Chain:
    """The chain after a scan of an earlier run."""
    if row["verdict"] == "failed":
        return chain
    path = folder / f"{row['name']}.cxi"
    grid = chain.grid
    if grid is None:
        grid = registration.grid_of(results.read(path), results.read_strain(path))
    return _Chain(grid, path, chain.spacing or row["d_spacing_m"])


def _finish(folder: Path, rows: Sequence[Row], settings: SeriesSettings) -> None:
    from braggshot.report.series import write as write_report

    if importlib.util.find_spec("pyarrow") is not None:
        table.write_parquet(folder / "series.parquet", rows)
    write_report(folder, rows, settings.series.against, settings.series.movie)
