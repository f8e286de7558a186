"""Phase and score crystals: one row of results per crystal and method, written as soon as it is known.

A run that is started again computes only the missing rows.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from braggshot.errors import DataError, FormatError
from braggshot.evaluation.coverage import coverage
from braggshot.evaluation.methods import Choice, network_of, phasing_of
from braggshot.evaluation.suites import SUITES, crystals
from braggshot.io.atomic import replacing
from braggshot.iterative.iterate import Start
from braggshot.nn.weights import locate
from braggshot.phasing.config import PhasingConfig
from braggshot.phasing.problem import prepare_measured
from braggshot.phasing.selection import score
from braggshot.phasing.strategies import phase
from braggshot.physics.fourier import fourier, inverse_fourier, to_corner
from braggshot.physics.scores import THRESHOLDS, compare
from braggshot.pipeline import drain, prepare_and_phase, with_errors
from braggshot.prepare import PrepareConfig
from braggshot.prepare.window import cut, raw_centre, raw_extent
from braggshot.volumes import ComplexArray, DiffractionVolume, Scan

Row = dict[str, Any]
# Errors in phasing one crystal that do not stop an evaluation: the error is written in place of the crystal's results.
FAILURES = (DataError, ArithmeticError, ValueError)


@dataclass(frozen=True)
class Report:
    """Progress of an evaluation: the new row of results, the number of rows done, and the number of all rows."""

    done: int
    total: int
    row: Row


def evaluate(
    folder: Path,
    suites: Sequence[str],
    methods: Sequence[str],
    choice: Choice | None = None,
    number: int = 20,
    data: Path | None = None,
    first: int = 0,
) -> Iterator[Report]:
    """Phase crystals by several methods and write the results to ``results.json`` in `folder`; yield a report for every new row.

    Parameters
    ----------
    suites, methods : names of suites of crystals, and of methods of phasing
    choice : networks, device and seed; None takes the defaults
    number : number of crystals per group
    data : folder of files that hold counts and the true crystal, for suites that read files
    first : number of the first crystal of each group

    Raises
    ------
    ConfigError : if a suite, method or network does not exist.
    """
    choice = choice or Choice()
    configs = {(s, m): phasing_of(m, choice, SUITES[s].coherent if s in SUITES else True) for s in suites for m in methods}
    prints = {method: fingerprint(method, choice) for method in methods}
    todo = [(suite, crystal) for suite in suites for crystal in crystals(suite, number, data, first)]
    rows = read(folder / "results.json")
    done, known = 0, {key(row) for row in rows}
    for suite, crystal in todo:
        missing = [m for m in methods if (suite, crystal.name, m, prints[m]) not in known]
        done += len(methods) - len(missing)
        drawn = crystal.draw() if missing else None
        for method in missing:
            assert drawn is not None
            warm_up(method, configs[suite, method])
            facts = {"suite": suite, "group": crystal.group, "crystal": crystal.name, "method": method, "network": prints[method]}
            row = facts | judge_crystal(*drawn, configs[suite, method])
            # An older row of this method, of another network, gives way.
            rows = [old for old in rows if key(old)[:3] != key(row)[:3]] + [row]
            write(folder / "results.json", rows)
            done += 1
            yield Report(done, len(todo) * len(methods), row)


def judge_crystal(truth: ComplexArray, volume: DiffractionVolume, config: PhasingConfig) -> Row:
    """Phase a volume and return the scores against the true crystal; if phasing fails, return the error in their place."""
    truth = on_window(truth, volume)
    facts = _facts(volume) | _truth_misfits(truth, volume, config)
    # Atomistic crystals come from files that are prepared already; the others go through the whole preparation.
    prepared = volume.window is not None
    geometry = None if prepared else volume.geometry
    said = dict(volume.provenance)
    scan = Scan(volume.intensity, volume.name, volume.valid, geometry=geometry, prepared=prepared, provenance=said)
    began = time.perf_counter()
    try:
        result = drain(with_errors(drain(prepare_and_phase(scan, PrepareConfig(), config))))
        reached = on_window(truth, result.volume)
        scores = compare(reached, result.rho)
        covered = coverage(result, reached)
    except FAILURES as error:
        seconds = time.perf_counter() - began
        return facts | {"correlation": 0.0, "success": False, "seconds": seconds, "error": f"{type(error).__name__}: {error}"}
    quality = result.quality
    return facts | {
        "correlation": scores.correlation,
        "success": scores.success,
        "twin": scores.twin,
        "blend": scores.blend,
        "hybrid": 1 - scores.correlation,
        "ssim": scores.ssim,
        "iou": {str(t): value for t, value in zip(THRESHOLDS, scores.iou, strict=True)},
        "phase_mae": scores.phase_mae,
        "strain_rmse": scores.strain_rmse,
        "chi2": quality.chi2,
        "r_factor": quality.r_factor,
        "llk_free": quality.llk_free,
        "coverage": covered,
        "verdict": result.verdict,
        "reasons": list(result.reasons),
        "noticed": list(result.volume.provenance.get("noticed", ())),
        "seconds": result.seconds["phasing"],
    }


# Names of the methods that have run once in this process. Later runs of these methods need no compilation and can be timed.
_WARM: set[str] = set()


def warm_up(method: str, config: PhasingConfig) -> None:
    """Run a method once on a small crystal, so that the measured times include no one-time work such as compilation."""
    if method not in _WARM:
        _, volume = next(SUITES["smoke"].crystals(1)).draw()
        with contextlib.suppress(*FAILURES):
            drain(phase(volume, replace(config, starts=1, hypotheses=1, orientations=1)))
        _WARM.add(method)


def _facts(volume: DiffractionVolume) -> Row:
    """Return facts about a simulated crystal that need no phasing: shape of the volume, oversampling, true phase range."""
    known = volume.provenance.get("phase_range", volume.provenance.get("atomistic", {}).get("phase_range"))
    facts = {"shape": list(volume.shape), "oversampling": list(volume.oversampling or ()), "phase_range": known}
    return facts | ({"drawn": volume.provenance["drawn"]} if "drawn" in volume.provenance else {})


def on_window(truth: ComplexArray, volume: DiffractionVolume) -> ComplexArray:
    r"""Bring a true crystal to the grid of a volume that was cropped, padded or binned from its pattern.

    The transform of the truth is cut as the counts were. The object of binned counts has the same voxels, but fewer of them; the
    centre of a bin, a fraction :math:`\delta` of a voxel off, gives it a phase ramp.

    Parameters
    ----------
    truth : (z, y, x) true crystal on the grid of the whole pattern
    volume : prepared volume, with its window on the pattern
    """
    window, shape = volume.window, volume.shape
    if window is None or (shape == truth.shape and window.start == (0, 0, 0)):
        return truth
    start, stop = raw_extent(window, shape)
    size = np.subtract(stop, start)
    field = cut(fourier(torch.from_numpy(truth)).numpy(), start, size.tolist())
    rho = inverse_fourier(torch.from_numpy(field)).numpy()
    offset = raw_centre(window, shape) - np.add(start, size // 2)
    for axis, (length, shift) in enumerate(zip(size, offset, strict=True)):
        ramp = np.exp(-2j * np.pi * shift * (np.arange(length) - length // 2) / length)
        rho = rho * np.expand_dims(ramp, [other for other in range(3) if other != axis])
    return cut(rho.astype(np.complex64), (size // 2 - np.array(shape) // 2).tolist(), shape)


def _truth_misfits(truth: ComplexArray, volume: DiffractionVolume, config: PhasingConfig) -> Row:
    """Return the misfits between the true crystal and its measured counts, which are due to photon noise.

    The computed pattern is not blurred by a point spread. So if partial coherence blurs the counts, the misfits include the blur.
    """
    data = prepare_measured(volume, PhasingConfig(device="cpu", seed=config.seed))
    rho = to_corner(torch.from_numpy(truth))
    exact = score(Start(rho, rho.abs() > 0, 0, 0.0, (0.0, 0.0, 0.0), 0.0, torch.zeros(0, 3)), data)
    return {"chi2_floor": exact.chi2, "r_factor_floor": exact.r_factor, "llk_free_floor": exact.llk_free}


def fingerprint(method: str, choice: Choice) -> str:
    """Return the name of a method's network and the first digits of its file's SHA-256; empty for a method without a network."""
    name = network_of(method, choice)
    return "" if name is None else f"{Path(name).stem}:{hashlib.sha256(locate(name).read_bytes()).hexdigest()[:8]}"


def key(row: Row) -> tuple[str, str, str, str]:
    """Return what identifies a row of results: names of the suite, the crystal and the method, and fingerprint of the network."""
    return row["suite"], row["crystal"], row["method"], row["network"]


def read(path: Path) -> list[Row]:
    """Read the rows of results of an earlier run; return an empty list if the file does not exist.

    Raises
    ------
    FormatError : if the file is no list of results.
    """
    if not path.exists():
        return []
    try:
        rows: list[Row] = json.loads(path.read_text())
        _ = [key(row) for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{path}: is no list of results; give another folder with -o.") from error
    return rows


def merge(folder: Path, parts: Sequence[Path]) -> None:
    """Add to ``results.json`` in `folder` the rows of other folders, for crystals and methods that it does not have yet.

    Raises
    ------
    FormatError : if the results of a part are missing or are no list of results.
    """
    rows = read(folder / "results.json")
    for part in parts:
        if not (part / "results.json").exists():
            raise FormatError(f"{part}: holds no results.json; give the folder of a part that was evaluated.")
        known = {key(row)[:3] for row in rows}  # whatever the network, so that no crystal counts twice
        rows += [row for row in read(part / "results.json") if key(row)[:3] not in known]
    if parts:
        write(folder / "results.json", rows)


def write(path: Path, rows: list[Row]) -> None:
    """Write rows of results as JSON, one row per line; a number that is not finite becomes null."""
    lines = ",\n".join(json.dumps({name: _plain(value) for name, value in row.items()}) for row in rows)
    with replacing(path, durable=True) as temporary:
        temporary.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
