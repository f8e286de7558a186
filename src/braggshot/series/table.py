"""Define the table of a series: the columns of a row, its files, and a check whether a row of an earlier run is still valid.

Lengths are in metres, volumes in cubic metres, strain is a pure number. A value that is not known is an empty cell.
"""

from __future__ import annotations

import csv
import datetime
import hashlib
import importlib.metadata
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from braggshot import config
from braggshot.display import printable
from braggshot.errors import FormatError, OutputError
from braggshot.io.atomic import replacing
from braggshot.physics.strain import summary_table
from braggshot.series.sources import Source, parse_value
from braggshot.volumes import Reconstruction

Row = dict[str, Any]
MEASURED = (
    "volume_m3", "volume_low_m3", "volume_high_m3", "lattice_parameter_m", "d_spacing_m", "strain_mean", "strain_std",
    "strain_mean_surface", "strain_std_surface", "strain_sigma", "displacement_range_m", "dislocation_voxels",
    "dislocation_lines", "dislocation_length_m", "resolution_m", "resolution_fsc_half_data_m", "resolution_prtf_m",
    "resolution_fsc_starts_m", "resolution_edge_m", "chi2", "llk_free", "agreement", "correlation_to_previous",
    "twin_margin", "cold_llk_free", "warm_llk_free", "warm_cold_correlation", "seconds",
)  # fmt: skip
"""Columns of measured values, in the order of writing; a name that ends in _m or _m3 has the unit m or m³."""
RESOLUTIONS = ("fsc_half_data", "prtf", "fsc_starts", "edge")  # methods that measure the resolution, the most reliable first
# Columns that hold text; all others may hold numbers.
TEXT = ("input", "name", "time", "repeats", "resolution_method", "start", "verdict", "reasons", "settings")
# Columns at the beginning and at the end of the table.
_FIRST, _LAST = ("input", "name", "time", "elapsed_s"), ("resolution_method", "start", "verdict", "reasons", "settings")


def columns(rows: Sequence[Row]) -> list[str]:
    """List the columns of the table in the order of writing: name and time, columns of the user, measured values, verdict."""
    own = dict.fromkeys(name for row in rows for name in row)
    given = [name for name in own if name not in {*_FIRST, *MEASURED, *_LAST}]
    return [*_FIRST, *given, *MEASURED, *_LAST]


def new_row(source: Source, settings: str, name: str = "", time: Any = None) -> Row:
    """Return a row of the table for a scan, still without measured values."""
    return {
        "input": source.label,
        "name": name,
        "time": time if isinstance(time, str) else None,
        **source.metadata,
        **dict.fromkeys(MEASURED),
        "settings": settings,
    }


def summarise_result(result: Reconstruction, first_spacing: float | None) -> Row:
    """Return the measured values of a result, as columns of its row of the table.

    `strain_mean` is the strain of the crystal's mean lattice relative to the first accepted scan, whose mean lattice spacing is
    `first_spacing` [m].
    """
    known: Row = {} if result.strain is None else summary_table(result.strain)
    columns = {name: known[name] for name in MEASURED if name in known}
    spacing = known.get("d_spacing_m")
    if spacing is not None:
        columns["strain_mean"] = spacing / (first_spacing or spacing) - 1
    lengths = {"prtf": result.quality.resolution} if result.strain is None else result.strain.resolution
    method, length = next(iter(lengths.items()), (None, None))
    agreeing = result.quality.agreeing
    return {
        **columns,
        **{f"resolution_{name}_m": value for name, value in lengths.items()},
        "resolution_m": length,
        "resolution_method": method if length is not None else None,
        "chi2": result.quality.chi2,
        "llk_free": result.quality.llk_free,
        "agreement": agreeing.same / agreeing.others if agreeing is not None and agreeing.others else None,
        "verdict": result.verdict,
        "reasons": " ".join(result.reasons),
        "seconds": result.seconds.get("total"),
        **compare_starts(result),
    }


def compare_starts(result: Reconstruction) -> Row:
    """Compare the warm start (from the crystal of an earlier scan) with the cold (random) starts.

    The returned columns say how well each kind of start predicts the held-out voxels, and whether both lead to the same crystal.
    """
    listed = None if result.ensemble is None else result.ensemble.table
    if listed is None:
        return {"start": None}
    llk, correlation, is_warm = (np.asarray(listed.get(name, np.zeros(0))) for name in ("llk_free", "correlation", "warm"))
    if not is_warm.any():
        return {"start": "cold", "cold_llk_free": float(llk.min())}
    warm, cold = is_warm > 0, is_warm == 0
    chosen_is_warm = bool(warm[int(correlation.argmax())])
    # Each correlation is with the chosen start: that of the best start of the other kind says whether both kinds agree.
    other = cold if chosen_is_warm else warm
    between = correlation[other][int(np.nan_to_num(llk[other], nan=np.inf).argmin())]
    return {
        "start": "warm" if chosen_is_warm else "cold",
        "cold_llk_free": float(llk[cold].min()),
        "warm_llk_free": float(llk[warm].min()),
        "warm_cold_correlation": float(between),
    }


def fail_row(row: Row, reason: str) -> Row:
    """Return the row of a scan that could not be computed."""
    return {**row, "verdict": "failed", "reasons": reason}


def add_elapsed(rows: Sequence[Row]) -> list[Row]:
    """Add to each row the time that has passed since the first scan of the series with a known time [s]."""
    stamps = [_stamp(row.get("time")) for row in rows]
    first = next((stamp for stamp in stamps if stamp is not None), None)
    pairs = zip(rows, stamps, strict=True)
    return [{**row, "elapsed_s": None if stamp is None or first is None else stamp - first} for row, stamp in pairs]


def unify_resolution(rows: Sequence[Row]) -> list[Row]:
    """Give the resolution of all rows by one method: the most reliable one that has a value in every row that is not failed.

    If there is no such method, the rows keep their own resolutions.
    """
    counting = [row for row in rows if row.get("verdict") != "failed"] or rows
    common = next((m for m in RESOLUTIONS if all(row.get(f"resolution_{m}_m") is not None for row in counting)), None)
    if common is None:
        return list(rows)
    column = f"resolution_{common}_m"
    return [row if row.get(column) is None else {**row, "resolution_m": row[column], "resolution_method": common} for row in rows]


def _stamp(time: Any) -> float | None:
    """Return the seconds since the epoch of an ISO date; a date without a time zone is local time."""
    try:
        return datetime.datetime.fromisoformat(str(time)).timestamp()
    except (ValueError, OverflowError):
        return None


def digest(settings: Any, source: Source, follows: str | None = None) -> str:
    """Return a short hash of everything that determines a row of the table, except the frames.

    The hash covers the program's version, all settings but those of the output, the scan number, the file format, and the hash of
    the neighbour (the earlier scan that this scan is compared with). The scans of a group are covered by its `input`.
    """
    decides = {name: part for name, part in config.dump(settings).items() if name != "output"}
    parts = [importlib.metadata.version("braggshot"), decides, source.scan, source.format, follows]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:12]


def is_current(row: Row, begun: Row, folder: Path) -> bool:
    """Tell whether a row of an earlier run is still valid.

    It is valid if its scan and settings equal those of `begun`, the row that this run begins for the scan, and if its CXI file
    exists.
    """
    same = row["input"] == begun["input"] and row["settings"] == begun["settings"]
    return same and (folder / f"{row['name']}.cxi").exists()


def read(path: Path) -> list[Row]:
    """Read the rows of an earlier run; return an empty list if there is no file.

    Raises
    ------
    FormatError : if the file is no table of a series.
    """
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:  # as names of files are
        rows = list(csv.DictReader(stream))
    if any(not {"input", "name", "settings"} <= set(row) or None in row or None in row.values() for row in rows):
        raise FormatError(f"{path}: is no table of a series; choose another folder.")
    return [{key: (cell or None) if key in TEXT else parse_value(cell) for key, cell in row.items()} for row in rows]


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write all rows as CSV; the file is whole or is not written.

    Raises
    ------
    OutputError : if the file cannot be written.
    """
    with (
        replacing(path, durable=True) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream,
    ):
        writer = csv.DictWriter(stream, columns(rows), restval="")
        writer.writeheader()
        writer.writerows({name: _cell(cell) for name, cell in row.items()} for row in rows)


def _cell(cell: Any) -> Any:
    return "" if cell is None or (isinstance(cell, float) and not math.isfinite(cell)) else cell


def write_parquet(path: Path, rows: Sequence[Row]) -> None:
    """Write all rows as Parquet, numbers as float64.

    Raises
    ------
    OutputError : if pyarrow is not installed, or the file cannot be written.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise OutputError(
            f"{path.name} needs pyarrow: pip install 'braggshot[series]'; series.csv holds the same table."
        ) from error
    names = columns(rows)
    arrays = [_array(pyarrow, [row.get(name) for row in rows], name in TEXT) for name in names]
    with replacing(path) as temporary:
        parquet.write_table(pyarrow.table(dict(zip(names, arrays, strict=True))), temporary)


def _array(pyarrow: Any, cells: Sequence[Any], is_text: bool) -> Any:
    if is_text or any(isinstance(cell, str) for cell in cells):
        return pyarrow.array([None if cell is None else printable(cell) for cell in cells], pyarrow.string())
    return pyarrow.array([None if cell is None else float(cell) for cell in cells], pyarrow.float64())


def describe_row(row: Mapping[str, Any]) -> str:
    """Describe a row in one line, with lengths in the units that are usual for crystals."""
    if row.get("chi2") is None:
        return f"{row['input']}: failed: {row['reasons']}"
    summed = f"; {row['repeats']}" if row.get("repeats") else ""
    parts = [
        ("volume_m3", "{:.4g} µm³", 1e18), ("lattice_parameter_m", "a {:.5f} Å", 1e10), ("strain_std", "strain ±{:.2e}", 1.0),
        ("chi2", "chi2 {:.4f}", 1.0), ("correlation_to_previous", "like its neighbour {:.3f}", 1.0),
    ]  # fmt: skip
    said = [form.format(row[name] * scale) for name, form, scale in parts if row.get(name) is not None]
    return f"{row['name']}: {row['verdict']}, {', '.join(said)}{summed}"


def closing_message(folder: Path) -> str:
    """Return the message at the end of a run: the path of the HTML report, and why files are missing that a run usually leaves."""
    rows = read(folder / "series.csv")
    missing = [] if (folder / "series.parquet").exists() else ["no series.parquet: it needs pip install 'braggshot[series]'"]
    if not any(row["verdict"] != "failed" and row.get("strain_std") is not None for row in rows):
        missing.append("no series.gif: no good or doubtful scan has a strain map")
    left_out = f" ({'; '.join(missing)})" if missing else ""
    return f"{folder / 'series.html'}{left_out}"
