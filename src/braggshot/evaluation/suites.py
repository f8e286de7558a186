"""Define suites of crystals for evaluation, in groups that differ in one property.

No network was trained on these crystals. The number of a crystal determines its seed, which is the same in every group. So
crystals are reproducible, and groups differ only in the property that they are named after; in the suite "trust" every crystal
has its own seed. Recipes and limits of braggshot were
tuned on crystals with other seeds, far from these. Training seeds are all multiples of 131; the seeds of the suites are not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import h5py

from braggshot.crystals import displacement
from braggshot.crystals.detector import DetectorSettings
from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.errors import ConfigError, DataError
from braggshot.evaluation import faults, trust
from braggshot.io import registry
from braggshot.physics.sampling import oversampling
from braggshot.prepare import prepare
from braggshot.volumes import ComplexArray, DiffractionVolume

Drawing = Callable[[], tuple[ComplexArray, DiffractionVolume]]
FIRST_SEED = 131 * 100_000 + 7  # seed of the first crystal of each group


@dataclass(frozen=True)
class Crystal:
    """One crystal of a suite of crystals for evaluation.

    Parameters
    ----------
    name : unique name in its suite
    group : name of its group
    draw : function that returns the true crystal and its diffraction volume, whose oversampling is estimated from the counts
    """

    name: str
    group: str
    draw: Drawing


def _simulated(_: str, seed: int, settings: CrystalSettings) -> Drawing:
    def draw() -> tuple[ComplexArray, DiffractionVolume]:
        truth, volume = simulate_volume(seed, settings)
        return truth, _measure_oversampling(volume)

    return draw


def _measure_oversampling(volume: DiffractionVolume) -> DiffractionVolume:
    """Return a volume with the oversampling estimated from its counts, in place of the simulation's exact oversampling."""
    return replace(volume, oversampling=oversampling(volume.intensity, volume.valid))


@dataclass(frozen=True)
class Suite:
    """Groups of crystals for evaluation.

    Parameters
    ----------
    about : what differs between the groups, in words, for the table of results
    groups : settings of the crystals of each group, by the group's name; empty for crystals that are read from files
    coherent : True if the beam is known to be fully coherent, so that no method fits a point spread
    draw : function of group, seed and settings that returns the function `Crystal.draw`
    seed : function of group and number of a crystal that returns its seed
    """

    about: str
    groups: Mapping[str, CrystalSettings] = field(default_factory=dict)
    coherent: bool = True
    draw: Callable[[str, int, CrystalSettings], Drawing] = _simulated
    seed: Callable[[str, int], int] = lambda _, k: FIRST_SEED + 131 * k

    def crystals(self, number: int, first: int = 0) -> Iterator[Crystal]:
        """Yield `number` crystals of each group from number `first` on, taking the groups in turn.

        So a run that is stopped early has evaluated about as many crystals of each group.
        """
        for k in range(first, first + number):
            for group, settings in self.groups.items():
                yield Crystal(f"{group} #{k}", group, self.draw(group, self.seed(group, k), settings))


def from_folder(folder: Path, number: int, first: int = 0) -> Iterator[Crystal]:
    """List `number` CXI files of a folder, from number `first` on, that hold the true crystal beside the counts.

    Atomistic crystals are such files.

    Raises
    ------
    ConfigError : if there is no such file.
    """
    files = sorted(folder.glob("*.cxi"))[first : first + number]
    if not files:
        raise ConfigError(f"{folder}: no CXI files with a truth; make some with benchmarks/atomistic.py, or give another --data.")
    for path in files:
        yield Crystal(path.stem, "all", _stored(path))


def _stored(path: Path) -> Drawing:
    def draw() -> tuple[ComplexArray, DiffractionVolume]:
        volume = prepare(registry.read(path))
        with h5py.File(path) as file:
            if "entry_1/truth_1/data" not in file:
                raise DataError(f"{path}: holds no truth (entry_1/truth_1/data), so nothing can be evaluated on it.")
            truth = file["entry_1/truth_1/data"][()]
        if truth.shape != volume.shape:
            raise DataError(f"{path}: the truth has shape {truth.shape}, the prepared counts {volume.shape}.")
        return truth, volume

    return draw


# Settings that the crystals of all groups have in common; each group replaces a few of them. Phase fields are smooth, because a
# dislocation would change the phase range. A field that does not reach the wanted phase range is drawn anew.
_BASE = CrystalSettings(
    oversampling=(2.1, 4.0), phase_range=(2 * math.pi,) * 2, counts=(1e6, 1e6), displacements=tuple(displacement.FIELDS), redraws=8
)


def _group_by_range(base: CrystalSettings, *multiples: int) -> dict[str, CrystalSettings]:
    """Return the settings of groups of crystals, one group for each phase range k pi, with k from `multiples`."""
    return {"pi" if k == 1 else f"{k} pi": replace(base, phase_range=(k * math.pi,) * 2) for k in multiples}


def _gap(width: int) -> CrystalSettings:
    return replace(_BASE, detector=DetectorSettings(gaps=1.0 if width else 0.0, gap_widths=(max(1, width),)))


# Settings of crystals that are large enough for a phase range of 6 pi, with fields drawn anew until one allows it. A third of the
# crystals of "strain" are too small for 6 pi, and keep what their voxels allow.
_STRONG = replace(_BASE, oversampling=(2.1, 3.0), phase_range=(6 * math.pi,) * 2, redraws=32)

# Settings of the crystals with dislocations, and of small crystals for a quick test.
_DISLOCATED = replace(_BASE, phase_range=(math.pi,) * 2, displacements=tuple(displacement.DISLOCATIONS))
_SMALL = replace(_BASE, shape=(32, 32, 32), oversampling=(2.1, 3.0))

# Suites of crystals for evaluation, by name.
SUITES = {
    "strain": Suite(
        "phase range inside the crystal, peak 1e6; and dislocations in a field of pi",
        _group_by_range(_BASE, 1, 2, 4, 6) | {"dislocations": _DISLOCATED},
    ),
    "strong": Suite(
        "phase range, reached by every crystal; behind gaps: of 6 pixels, one across the rows and one across the columns",
        {
            "6 pi": _STRONG,
            "8 pi": replace(_STRONG, oversampling=(2.1, 2.6), phase_range=(8 * math.pi,) * 2),
            "4 pi, gaps": replace(_STRONG, phase_range=(4 * math.pi,) * 2, detector=_gap(6).detector),
            "6 pi, gaps": replace(_STRONG, detector=_gap(6).detector),
        },
    ),
    "photons": Suite(
        "photons in the brightest voxel, phase range 2 pi",
        {f"1e{k}": replace(_BASE, counts=(10.0**k, 10.0**k)) for k in range(2, 8)},
    ),
    "oversampling": Suite(
        "array over crystal on each axis, phase range 2 pi",
        {str(k): replace(_BASE, oversampling=(k, k + 0.1), anisotropy=1.0) for k in range(2, 7)},
    ),
    "gaps": Suite(
        "a detector gap of so many pixels across the rows and one across the columns, phase range 2 pi",
        {str(width): _gap(width) for width in (0, 6, 12, 38)},
    ),
    "coherence": Suite(
        "standard deviation of the beam's point spread [voxels], phase range 2 pi",
        {str(s): replace(_BASE, detector=DetectorSettings(point_spread=(s, s))) for s in (0.0, 0.5, 1.0)},
        coherent=False,
    ),
    "large": Suite("96 x 128 x 128 voxels", _group_by_range(replace(_BASE, shape=(96, 128, 128)), 1, 2)),
    "atomistic": Suite("particles relaxed atom by atom, their diffraction summed over atoms; files of --data"),
    "faults": Suite(
        "raw scans of 32^3 voxels with one fault each, and the same scans masked by hand; peak 5e4, phase range pi",
        dict.fromkeys(faults.GROUPS, replace(_SMALL, counts=(5e4, 5e4), phase_range=(math.pi,) * 2)),
        draw=faults.draw,
    ),
    "trust": Suite(
        "crystals of many kinds, phase range 0 to 8 pi, and scans with faults, mixed as real scans have them; 48^3 and 64^3",
        {name: kind.settings for name, kind in trust.KINDS.items()},
        coherent=False,
        draw=trust.draw,
        seed=trust.seed_of,
    ),
    "smoke": Suite("32^3 voxels, to see that everything works", _group_by_range(_SMALL, 1)),
}


def crystals(name: str, number: int, folder: Path | None = None, first: int = 0) -> Iterator[Crystal]:
    """List the crystals of a suite: `number` of each group, or, for a suite that reads files, `number` files of `folder`.

    Both begin with the crystal of number `first`.

    Raises
    ------
    ConfigError : if the suite does not exist, or needs a folder of files and none is given.
    """
    if name not in SUITES:
        raise ConfigError(f"no suite {name!r}; known: {', '.join(SUITES)}.")
    if SUITES[name].groups:
        return SUITES[name].crystals(number, first)
    if folder is None:
        raise ConfigError(f"the suite {name!r} reads its crystals from files; give their folder with --data.")
    return from_folder(folder, number, first)
