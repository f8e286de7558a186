"""Draw crystals of many kinds, and scans with the faults that real scans have, to test the verdict and one sigma at scale.

Each class holds crystals of one generator, or mild crystals whose scans have one fault. In the class "as measured" all of these are
mixed at random. Each crystal has a seed of its own. No other suite, training or benchmark uses seeds from `FIRST_SEED` on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Generator, Tensor

from braggshot.crystals import displacement
from braggshot.crystals.atomistic import AtomisticSettings, build_particle, measure_reflection
from braggshot.crystals.detector import DetectorSettings, Range, blur, measure
from braggshot.crystals.even import draw_even
from braggshot.crystals.random import directions, log_uniform, uniform
from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.crystals.scan import gold_at_34idc
from braggshot.physics.fourier import fourier
from braggshot.physics.sampling import oversampling
from braggshot.volumes import ComplexArray, DiffractionVolume

FIRST_SEED = 131 * 2_400_000 + 7  # seeds of training are multiples of 131; those of the other suites end far below
APART = 1000  # number of seeds that are kept for each class
NEIGHBOUR_SEED = 131 * 1000 * APART  # the seed of a neighbour follows that of its crystal by so much
STEP = math.radians(0.01)  # rocking step of the geometry that gives the phase a strain [rad]

T = TypeVar("T")
Body = Callable[[int, CrystalSettings], tuple[Tensor, float]]


@dataclass(frozen=True)
class Kind:
    """Class of crystals and of scans.

    Parameters
    ----------
    settings : settings of the crystals
    body : function of seed and settings that returns the crystal (z, y, x), of any scale, and its phase range [rad]
    faults : names of faults from `FAULTS`
    chance : probability of each fault [1]
    mixed : names of other classes, one of which gives the crystal; a name that is given twice is drawn twice as often
    sizes : edges of the volume, one of which is drawn [voxels]
    """

    settings: CrystalSettings
    body: Body
    faults: tuple[str, ...] = ()
    chance: float = 1.0
    mixed: tuple[str, ...] = ()
    sizes: tuple[int, ...] = (48, 64)


def gridded(seed: int, settings: CrystalSettings) -> tuple[Tensor, float]:
    """Draw a crystal of random body and random phase field."""
    rho, volume = simulate_volume(seed, settings)
    return torch.from_numpy(rho), float(volume.provenance["phase_range"])


def even(seed: int, settings: CrystalSettings) -> tuple[Tensor, float]:
    """Draw a crystal whose body and phase have a centre of inversion."""
    _, span, rho, _ = draw_even(seed, settings.shape[0])
    return rho, span


def summed(seed: int, settings: CrystalSettings) -> tuple[Tensor, float]:
    """Draw a facetted particle of some 50 000 displaced atoms; the crystal is the transform of the exact sum over the atoms.

    The atoms are not relaxed, so that no other program is needed and the crystal is drawn in seconds. A voxel is larger than a unit
    cell; else the window would reach the next Bragg peaks.
    """
    chosen = replace(_ATOMS, shape=settings.shape, oversampling=settings.oversampling)
    generator = torch.Generator().manual_seed(seed)
    rho, volume = measure_reflection(generator, build_particle(generator, chosen), chosen)
    return torch.from_numpy(rho), float(volume.provenance["atomistic"]["phase_range"])


_MILD = CrystalSettings(
    oversampling=(2.1, 5.0), phase_range=(0.0, 2 * math.pi), displacements=tuple(displacement.FIELDS), redraws=8
)
_ATOMS = AtomisticSettings(
    cells=28.0, loads=("free", "bending", "torsion", "substrate", "contacts"), strain=(0.003, 0.02), dislocations=1, voids=1
)

FAULTS: dict[str, Range] = {
    "few photons": (3e2, 3e4),
    "neighbour": (0.05, 0.5),
    "drift": (0.5, 4.0),
    "point spread": (0.3, 0.9),
    "aliens": (1.0, 4.0),
    "gap": (3.0, 20.0),
}
"""Range of the number that describes each fault; its logarithm is drawn uniformly.

"few photons" gives the photons in the brightest voxel, in place of 1e4 to 1e7. "neighbour" is the norm of a second crystal, which
scatters coherently, over that of the crystal [1]. "drift" is the largest deviation of the rocking angle [steps]. "point spread" is
the standard deviation of the blur by partial coherence [voxels]. "aliens" is the number of foreign peaks, rounded down. "gap" is
the width of the gaps of the detector, of which each direction has one [pixels].
"""


def _strained(low: float, high: float, highest_sampling: float, sizes: tuple[int, ...]) -> Kind:
    """Return the class of crystals with a phase range from `low` to `high` [pi]; small crystals cannot hold a wide one."""
    wanted = replace(_MILD, phase_range=(low * math.pi, high * math.pi), oversampling=(2.1, highest_sampling))
    return Kind(wanted, gridded, sizes=sizes)


KINDS: dict[str, Kind] = {
    "mild, to 2 pi": Kind(_MILD, gridded),
    "2 to 4 pi": _strained(2, 4, 4.0, (48, 64)),
    "4 to 6 pi": _strained(4, 6, 3.5, (64,)),
    "6 to 8 pi": _strained(6, 8, 3.0, (64,)),
    "dislocations": Kind(
        replace(_MILD, phase_range=(0.0, math.pi), displacements=tuple(displacement.DISLOCATIONS)), gridded
    ),
    "even fields": Kind(_MILD, even),
    "lattice sums": Kind(replace(_MILD, oversampling=(2.1, 4.0)), summed, sizes=(48,)),
    "gaps": Kind(_MILD, gridded, ("gap",)),
    "blur": Kind(_MILD, gridded, ("point spread",)),
    "few photons": Kind(_MILD, gridded, ("few photons",)),
    "aliens": Kind(_MILD, gridded, ("aliens",)),
    "neighbour": Kind(_MILD, gridded, ("neighbour",)),
    "drift": Kind(_MILD, gridded, ("drift",)),
    "as measured": Kind(
        _MILD, gridded, tuple(FAULTS), 0.3,
        (*["mild, to 2 pi"] * 4, "2 to 4 pi", "4 to 6 pi", "6 to 8 pi", "dislocations", "even fields", "lattice sums"),
    ),
}  # fmt: skip
"""Classes by name. The number of a class gives its seeds, so a new one goes to the end.

Half of the classes hold mild crystals, so that the verdict `good` is not rare.
"""


def seed_of(group: str, number: int) -> int:
    """Return the seed of a crystal of a class; no two crystals of the suite have the same."""
    return FIRST_SEED + 131 * (APART * list(KINDS).index(group) + number)


def draw(group: str, seed: int, _: CrystalSettings) -> Callable[[], tuple[ComplexArray, DiffractionVolume]]:
    """Return a function that gives a true crystal of a class, and the counts of its scan."""

    def drawn() -> tuple[ComplexArray, DiffractionVolume]:
        kind, generator = KINDS[group], torch.Generator().manual_seed(seed)
        crystal = KINDS[_pick(generator, kind.mixed)] if kind.mixed else kind
        settings = replace(crystal.settings, shape=(_pick(generator, crystal.sizes),) * 3)
        # Numbers are drawn for all faults, so that a fault that is there does not change the others.
        numbers = {name: float(log_uniform(generator, *FAULTS[name])) for name in FAULTS}
        present = uniform(generator, 0, 1, len(FAULTS)) < kind.chance
        faults = {name: numbers[name] for name, here in zip(FAULTS, present, strict=True) if here and name in kind.faults}
        peak = faults.get("few photons", float(log_uniform(generator, *settings.counts)))
        rho, phase_range = crystal.body(seed, settings)
        rho = rho * (peak / fourier(rho).abs().square().amax()).sqrt()
        counts, valid = measure_scan(generator, rho, faults, seed)
        facts = {"seed": seed, "phase_range": phase_range, "drawn": {"peak": peak} | faults}
        volume = DiffractionVolume(
            counts.numpy(), valid.numpy(), f"trust_{seed}", geometry=gold_at_34idc(settings.shape[0], STEP),
            oversampling=oversampling(counts.numpy(), valid.numpy()), steps=("simulated",), provenance=facts,
        )  # fmt: skip
        return rho.numpy(), volume

    return drawn


def _pick(generator: Generator, choices: tuple[T, ...]) -> T:
    return choices[int(torch.randint(len(choices), (), generator=generator))]


def measure_scan(generator: Generator, rho: Tensor, faults: dict[str, float], seed: int) -> tuple[Tensor, Tensor]:
    """Draw the counts of a scan with faults; the blur and the drift act on the expected photons, before Poisson noise.

    Parameters
    ----------
    generator : random numbers
    rho : (z, y, x) crystal, scaled so that |F[rho]|^2 is in photons
    faults : numbers by the names of `FAULTS`
    seed : seed of the crystal, from which that of a neighbour follows

    Returns
    -------
    counts, valid : (z, y, x) [photons], and True on the pixels that no gap covers
    """
    field = rho + faults["neighbour"] * neighbour(generator, rho, seed) if "neighbour" in faults else rho
    expected = fourier(field).abs().square()
    if "aliens" in faults:
        expected = expected + foreign_peaks(generator, expected, int(faults["aliens"]))
    if "point spread" in faults:
        expected = blur(expected[None], torch.tensor([faults["point spread"]]))[0].clamp_min(0)
    if "drift" in faults:
        expected = resample_frames(expected, drift_curve(generator, len(expected), faults["drift"]))
    detector = DetectorSettings(gaps=float("gap" in faults), gap_widths=(round(faults.get("gap", 1)),))
    counts, valid = measure(generator, expected[None], detector)
    return counts[0], valid[0]


def neighbour(generator: Generator, rho: Tensor, seed: int) -> Tensor:
    """Draw a second crystal, as strong as `rho`, half a window away along a random axis; no two crystals touch there."""
    other, _ = gridded(seed + NEIGHBOUR_SEED, replace(_MILD, shape=(rho.shape[0],) * 3))
    axis = int(torch.randint(3, (), generator=generator))
    return torch.roll(other, rho.shape[axis] // 2, axis) * (torch.linalg.vector_norm(rho) / torch.linalg.vector_norm(other))


def foreign_peaks(generator: Generator, expected: Tensor, number: int) -> Tensor:
    """Draw `number` Gaussian peaks of 0.1 to 10 % of the brightest voxel, 15 to 45 % of the window away from its middle."""
    total = torch.zeros_like(expected)
    for _ in range(number):
        away = directions(generator) * uniform(generator, 0.15, 0.45) * min(expected.shape)
        width, height = uniform(generator, 0.7, 2.0), log_uniform(generator, 1e-3, 1e-1) * expected.amax()
        z, y, x = (
            torch.exp(-(((torch.arange(n) - n // 2 - place) / width) ** 2) / 2)
            for n, place in zip(expected.shape, away, strict=True)
        )
        total += height * z[:, None, None] * y[:, None] * x
    return total


def drift_curve(generator: Generator, frames: int, largest: float) -> Tensor:
    r"""Draw how far each frame is from its angle (frames,) [steps]: a smooth random curve.

    .. math:: d(t) = \sum_{k=1}^{5} \frac{a_k}{k} \cos(\pi k t + \phi_k)

    t grows from 0 to 1 along the scan; the a_k are normal and the phases random. Mean and slope are taken off, because an
    experiment cannot tell them from another angle and another step. The largest deviation is `largest`.
    """
    t = torch.linspace(0, 1, frames, dtype=torch.float64)
    k = torch.arange(1, 6)
    weight = torch.randn(5, generator=generator) / k
    curve = torch.cos(math.pi * k * t[:, None] + uniform(generator, 0, 2 * math.pi, 5)) @ weight.double()
    line = torch.stack([torch.ones_like(t), t], dim=1)
    curve = curve - line @ torch.linalg.lstsq(line, curve[:, None]).solution[:, 0]
    return curve * (largest / curve.abs().amax())


def resample_frames(expected: Tensor, moved: Tensor) -> Tensor:
    r"""Compute the intensity at the frames k + `moved`_k of a rocking scan of N frames, by trigonometric interpolation.

    .. math:: I(k + d_k) = \frac{1}{N} \sum_m \hat I_m \, e^{2 \pi i m (k + d_k) / N}

    The hat is the discrete transform along the rocking axis. This is exact where the oversampling along the axis is 2 or more.

    Parameters
    ----------
    expected : (z, y, x) intensity at the frames 0, 1, ... [photons]
    moved : (z,) distance of each frame from its place [steps]
    """
    frames = len(expected)
    place = torch.arange(frames, dtype=torch.float64) + moved
    waves = torch.exp(2j * math.pi * place[:, None] * torch.fft.fftfreq(frames, dtype=torch.float64)) / frames
    spectrum = torch.fft.fft(expected.double(), dim=0)
    return torch.tensordot(waves, spectrum, dims=1).real.clamp_min(0).to(expected.dtype)
