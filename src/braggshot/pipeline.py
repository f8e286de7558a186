"""Reconstruct a crystal from a scan: run the stages read, prepare, phase and strain one after the other.

>>> import braggshot                                          # doctest: +SKIP
>>> result = braggshot.reconstruct("scan.cxi", seed=1)        # doctest: +SKIP
>>> result.save("out/")                                       # doctest: +SKIP
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from braggshot import config
from braggshot.crystal_frame import StrainConfig, strain_map
from braggshot.crystal_frame.strain_map import unit_cell
from braggshot.display import progress_line
from braggshot.errors import DataError
from braggshot.io import registry
from braggshot.iterative.iterate import Guess, Progress
from braggshot.output import OutputConfig, Result, check_writable, files_of
from braggshot.phasing.config import PhasingConfig
from braggshot.phasing.duration import estimate_duration
from braggshot.phasing.rocking_angles import estimate_drift, say_drift
from braggshot.phasing.self_flat import estimate_flat, is_uneven, say_flat
from braggshot.phasing.strategies import Trained, phase, refuse_unread
from braggshot.phasing.uncertainty import with_half_data, with_photon_noise
from braggshot.physics.plausibility import check_strain
from braggshot.physics.sampling import crystal_extent
from braggshot.prepare import PrepareConfig, RepeatsConfig, prepare
from braggshot.volumes import DiffractionVolume, Reconstruction, Scan, StrainMap

VERDICTS = ("good", "doubtful", "failed")  # from the best to the worst
LARGER = 1.3  # extent of the crystal over the extent measured from the counts, from which the scan is phased again [1]
FILLED = 0.95  # extent of the crystal over half the array, the largest that can be phased, from which it fills its box [1]
REDRAWS = 5  # noisy copies of the counts that give the errors of a good crystal which no other start gives
P = TypeVar("P")
T = TypeVar("T")


@dataclass(frozen=True, repr=False)
class Settings(config.Changes):
    """Settings of a reconstruction, one table for each stage; `input` is passed to the reader of the scan unchanged.

    `repeats` is read where repeats of one scan are added (`braggshot.sum_repeats`).
    """

    input: dict[str, Any] = field(default_factory=dict)
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    repeats: RepeatsConfig = field(default_factory=RepeatsConfig)
    phasing: PhasingConfig = field(default_factory=PhasingConfig)
    strain: StrainConfig = field(default_factory=StrainConfig)
    output: OutputConfig = field(default_factory=OutputConfig)


def load(path: str | Path, format: str | None = None, **options: Any) -> Scan:
    """Open a scan; see `braggshot.io.registry.read`."""
    return registry.read(path, format, **options)


def reconstruct(
    source: Scan | str | Path,
    settings: Settings | Mapping[str, Any] | None = None,
    *,
    format: str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    progress: bool | None = None,
    **phasing: Any,
) -> Result:
    """Turn a raw scan into a crystal.

    Parameters
    ----------
    source : a scan, or the path of one
    settings : nested settings as in a TOML file, such as ``{"input": {"scan": 54}}``
    format : format of the file, if its content does not tell
    on_progress : called after each iteration
    progress : show a line with the step, the error and the time left; None shows it in a terminal and in a notebook
    phasing : settings of the stage ``phasing``, such as ``seed=1`` or ``method="refine"``; ``recipe=...`` stands for the setting
        ``iterative.recipe``. If ``starts`` or ``recipe`` is given without a method, the method is "iterative"

    Raises
    ------
    BraggshotError : for every error that the user can cause; the message is one line.
    """
    given = config.changed(settings) if isinstance(settings, Settings) else settings or {}
    resolved = resolve(config.merge(given, _phasing_table(phasing)) if phasing else given)
    name = source.name if isinstance(source, Scan) else Path(source).stem
    with progress_line(name, progress) as show:

        def report(now: Progress) -> None:
            show(now)
            if on_progress is not None:
                on_progress(now)

        return Result(drain(run(source, resolved, format), report))


def drain(running: Generator[P, None, T], on_progress: Callable[[P], None] | None = None) -> T:
    """Run a generator to its end, passing what it yields to `on_progress`; returns the generator's value."""
    try:
        while True:
            progress = next(running)
            if on_progress is not None:
                on_progress(progress)
    except StopIteration as finished:
        value: T = finished.value
        return value


def resolve(settings: Mapping[str, Any]) -> Settings:
    """Turn nested settings into `Settings`; every name and value is checked.

    Raises
    ------
    ConfigError : for a name that is not known, a value that does not fit, or a setting that the chosen method does not read.
    """
    resolved = config.resolve(Settings, settings)
    refuse_unread_settings(resolved, settings)
    return resolved


def refuse_unread_settings(resolved: Settings, given: Mapping[str, Any], also: Iterable[str] = ()) -> None:
    """Refuse settings of phasing that were given but have no effect, because the chosen method does not read them.

    The settings listed in `also` are allowed, because the caller reads them itself.

    Raises
    ------
    ConfigError : for a setting that is not read; the message names the setting to use in its place.
    """
    refuse_unread(resolved.phasing.method, _leaves(given.get("phasing", {})), also)


def _leaves(table: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in table.items():
        if isinstance(value, Mapping) and value and prefix + name != "options":
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def _phasing_table(phasing: Mapping[str, Any]) -> dict[str, Any]:
    table = dict(phasing)
    if "recipe" in table:
        table["iterative"] = {"recipe": table.pop("recipe")}
    return {"phasing": imply_method(table)}


def imply_method(phasing: Mapping[str, Any]) -> dict[str, Any]:
    """Add the method "iterative" to settings that name random starts or their recipe, but no method."""
    wants = {"starts", "iterative"} & set(phasing)
    return {"method": "iterative", **phasing} if wants else dict(phasing)


def run(
    source: Scan | str | Path,
    settings: Settings,
    format: str | None = None,
    network: Trained | None = None,
    place: str | Path | None = None,
) -> Generator[Progress, None, Reconstruction]:
    """Reconstruct a scan as a generator that its caller owns; the generator's value is the crystal with its strain.

    Parameters
    ----------
    source : a scan, or the path of one
    settings : resolved settings
    format : format of the file, if its content does not tell
    network : the network that the settings name, if it is in memory already
    place : file or folder that the result will be written to; checked before any work, so that the measurement is not replaced

    Raises
    ------
    OutputError : if nothing can be written to `place`, or a measured file would be replaced.
    """
    refuse_unread_settings(settings, config.changed(settings))
    began = time.perf_counter()
    scan = source if isinstance(source, Scan) else registry.read(source, format, **settings.input)
    if place is not None:
        check_writable(place, files_of(scan), [scan.name], settings.output.formats, settings.output.force)
    read = time.perf_counter()
    phased = yield from prepare_and_phase(scan, settings.prepare, settings.phasing, network)
    return (yield from finish_result(phased, settings, {"read": read - began}))


def estimate_seconds(source: Scan | str | Path, settings: Settings, format: str | None = None) -> tuple[float, float]:
    """Estimate how long phasing a scan takes on this machine: the time if the first guess is right, and the longest time [s].

    The scan is read and prepared, and a few iterations are timed.
    """
    scan = source if isinstance(source, Scan) else registry.read(source, format, **settings.input)
    return estimate_duration(prepare(scan, settings.prepare), settings.phasing)


def prepare_and_phase(
    scan: Scan,
    preparation: PrepareConfig,
    phasing: PhasingConfig,
    network: Trained | None = None,
    guesses: Callable[[DiffractionVolume], Sequence[Guess]] = lambda volume: (),
) -> Generator[Progress, None, Reconstruction]:
    """Prepare a scan and phase it; hold the crystal against its measured size, and prepare and phase again where they disagree.

    The window, the binning and the network's grid rest on the size of the crystal that was measured before phasing. If axes were
    binned automatically, and no crystal is found or it is larger than measured or fills its box, the scan is phased again without
    binning. If nothing was binned, a doubtful crystal that is larger than measured is phased again with its own size. The better
    result is returned; its steps say what was tried.

    Where no flat field is given, and the first crystal shows that the detector counts unevenly, the gains of its pixels are
    estimated from the scan (`braggshot.phasing.self_flat`); if they are kept, the scan is phased again with them before all that.
    Then it is looked whether frames are off their rocking angles (`braggshot.phasing.rocking_angles`).

    Parameters
    ----------
    scan : the scan
    preparation, phasing : settings of both stages
    network : the network that the settings name, if it is in memory already
    guesses : function that returns, for a prepared volume, objects near the crystal, from which additional starts begin
    """
    began = time.perf_counter()
    volume = prepare(scan, preparation)
    spent = {"prepare": time.perf_counter() - began}
    found = yield from phase(volume, phasing, guesses(volume), network, partial(is_uneven, scan, preparation, phasing))
    spent["phasing"], began = found.seconds["phasing"], time.perf_counter()
    flat = yield from estimate_flat(scan, found, preparation, phasing, network)
    is_broken_off = flat is not None and flat.is_uneven and phasing.method == "auto" and found.verdict != "good"
    if flat is not None and (flat.volume is not None or is_broken_off):
        spent["self_flat"] = time.perf_counter() - began
        corrected = flat.volume or volume
        second = yield from phase(corrected, phasing, guesses(corrected), network)
        spent["phasing"] += second.seconds["phasing"]
        if _rank(second) <= _rank(found):
            found = second
        elif flat.volume is not None:
            flat = flat.refuse(f"the verdict with it is {second.verdict}, without it {found.verdict}")
    found = yield from _undo_drift(found, preparation, phasing, network, spent)
    began = time.perf_counter()
    again = None if "frames_off" in found.volume.provenance else _prepare_again(scan, found, preparation)
    if again is not None:
        spent["prepare"] += time.perf_counter() - began
        found, seconds = yield from _phase_again(found, again, phasing, network, guesses)
        spent["phasing"] += seconds
    return replace(found if flat is None else say_flat(found, flat), seconds=spent)


def _undo_drift(
    found: Reconstruction, preparation: PrepareConfig, phasing: PhasingConfig, network: Trained | None, spent: dict[str, float]
) -> Generator[Progress, None, Reconstruction]:
    """Look whether frames are off their angles; if so, phase the counts at even angles. Times are added to `spent` [s]."""
    began = time.perf_counter()
    drift = yield from estimate_drift(found, preparation, phasing, network)
    seconds = time.perf_counter() - began
    if seconds > 0.05:  # nearly always nothing is estimated
        spent["drift"] = seconds
    if drift is None:
        return found
    if drift.volume is None:
        return say_drift(found, drift)
    second = yield from phase(drift.volume, phasing, drift.guesses, network)
    spent["phasing"] += second.seconds["phasing"]
    if _rank(second) > _rank(found):
        unused = replace(drift, volume=None, said=f"{drift.said}; not used, because the verdict with it is worse")
        # Starts agree, but on a crystal that explains the counts less well than one whose frames are moved.
        return say_drift(replace(found, verdict="doubtful", reasons=()) if found.verdict == "good" else found, unused)
    if phasing.method == "refine" and second.verdict == "good":
        why = "the crystal was fitted together with the angles, and no independent start was asked (method auto does)."
        second = replace(second, verdict="doubtful", reasons=(why, *second.reasons))
    return say_drift(second, drift)


def _phase_again(
    found: Reconstruction,
    again: tuple[DiffractionVolume, str],
    phasing: PhasingConfig,
    network: Trained | None,
    guesses: Callable[[DiffractionVolume], Sequence[Guess]],
) -> Generator[Progress, None, tuple[Reconstruction, float]]:
    """Phase a volume that was prepared again, for a reason in words.

    Return the better of this result and the one before, and how long it took [s].
    """
    volume, why = again
    try:
        second = yield from phase(volume, phasing, guesses(volume), network)
    except DataError as error:  # such as a volume that does not fit into memory without binning: the first result stands
        steps = (*found.volume.steps, f"not phased a second time, {why}: {error}")
        return replace(found, volume=replace(found.volume, steps=steps)), 0.0
    kept, outcome = (second, "kept") if _is_better(second, found) else (found, "not kept, because it is no better")
    steps = (*kept.volume.steps, f"phased a second time, {why}: {outcome}")
    return replace(kept, volume=replace(kept.volume, steps=steps)), second.seconds["phasing"]


def _is_better(second: Reconstruction, first: Reconstruction) -> bool:
    """Tell whether the second of two results has the better verdict, or the same and predicts held-out voxels as well or better.

    Misfits are compared on the same grid only; a second result on a finer grid is preferred.
    """
    ranks = _rank(second), _rank(first)
    if ranks[0] != ranks[1] or second.volume.shape != first.volume.shape:
        return ranks[0] <= ranks[1]
    return second.quality.llk_free <= first.quality.llk_free


def _rank(found: Reconstruction) -> int:
    return VERDICTS.index(found.verdict)


def _prepare_again(
    scan: Scan, found: Reconstruction, preparation: PrepareConfig
) -> tuple[DiffractionVolume, str] | None:  # fmt: skip
    """Return the volume for a second phasing, and the reason for it in words; None where a second phasing is not needed."""
    volume, window = found.volume, found.volume.window
    if volume.oversampling is None:
        return None
    shape, measured = np.array(volume.shape), np.array(volume.oversampling)
    size = np.array(crystal_extent(found.rho)) if found.support.any() else np.zeros(3)
    larger = bool((size > LARGER * shape / measured).any())
    if window is not None and window.binning != (1, 1, 1) and preparation.binning == "auto":
        if found.verdict == "failed":
            why = "unbinned, because no crystal was found"
        elif (size > FILLED * shape / 2).any():
            why = "unbinned, because the crystal fills its box"
        elif larger:
            why = "unbinned, because the crystal is larger than it was measured"
        else:
            return None
        return prepare(scan, replace(preparation, binning=(1, 1, 1)), volume.gain), why
    if larger and found.verdict == "doubtful":
        z, y, x = np.minimum(measured, shape / np.maximum(size, 1)).tolist()
        return replace(volume, oversampling=(z, y, x)), "with the size of the crystal found, which is larger than measured"
    return None


def with_errors(phased: Reconstruction, samples: int = 0, seed: int = 0) -> Generator[Progress, None, Reconstruction]:
    """Add the errors of `samples` redrawn counts; without any, a good crystal that no other start gives has a few redrawn."""
    is_alone = phased.verdict == "good" and phased.uncertainty is None and phased.frame == "detector"
    samples = samples or (REDRAWS if is_alone else 0)
    if samples and phased.support.any():
        return (yield from with_photon_noise(phased, samples, seed))
    return phased


def finish_result(
    phased: Reconstruction, settings: Settings, seconds: Mapping[str, float]
) -> Generator[Progress, None, Reconstruction]:
    """Add to a phased crystal its strain, the settings, the time of each stage and, if asked for, uncertainty and resolution.

    `seconds` holds the times of the stages before phasing [s].
    """
    began = time.perf_counter()
    if settings.strain.half_data and phased.support.any():
        phased = yield from with_half_data(phased, settings.phasing)
    phased = yield from with_errors(phased, settings.strain.noise_samples, settings.phasing.seed)
    strain, noticed = _strain(phased, settings.strain)
    said = (*phased.volume.provenance.get("noticed", ()), *noticed)
    summed = {name: phased.volume.provenance[name] for name in ("repeats",) if name in phased.volume.provenance}
    spent = {**seconds, **phased.seconds, "strain": time.perf_counter() - began}
    return replace(
        phased,
        volume=replace(phased.volume, provenance={**phased.volume.provenance, "noticed": said}),
        configuration={**config.dump(settings), "program": {"name": "braggshot", **versions()}},
        choices={**phased.choices, **summed},
        seconds={**spent, "total": sum(spent.values())},
        strain=strain,
    )


def _strain(phased: Reconstruction, settings: StrainConfig) -> tuple[StrainMap | None, tuple[str, ...]]:
    """Make the strain map; return it, or None if there is none, and what is to be noticed about it, in words."""
    if phased.volume.q_bragg is None:
        why = "there is no geometry" if phased.volume.geometry is None else "the geometry cannot be used"
        return None, (f"no strain map and no lengths in metres: {why}",)
    try:
        found = strain_map(phased, settings)
    except DataError as error:
        return None, (f"no strain map: {error}",)
    bent = [found.choices["curvature"]] if "curvature" in found.choices else []
    return found, (*bent, *check_strain(found, unit_cell(settings) if settings.lattice else None, settings.voxel_sizes))


@cache
def versions() -> dict[str, str]:
    """Return the versions of braggshot, of Python, and of the libraries on which the numbers of a result depend."""
    return {"version": version("braggshot"), "python": platform.python_version()} | {
        name: version(name) for name in ("torch", "numpy", "scipy", "h5py")
    }
