r"""Phase a scan of few frames from a crystal that is nearly the same, such as that of the scan before.

A crystal that is e voxels long along the rocking axis, in an array of N planes, has a transform F that is determined by planes at
most N / e apart. Its intensity needs half that distance. Between the two, planes s apart give a crystal overlaid with its copies,
which lie N / s voxels apart, and random starts end in such a mixture. Where it is known how far the crystal reaches, the copies are
excluded, and the fine sampling of rows and columns suffices for the phases.

=======  =============================================================  ===============================
start    amplitude and support of                                       phase
=======  =============================================================  ===============================
warm     the crystal given                                              of the crystal given
flat     the crystal given                                              zero
smooth   the crystal given                                              random, smooth
=======  =============================================================  ===============================

All know the shape of the crystal given, and only the first knows its phase. So where the others come to the same crystal, the
counts have said what its strain is. The support changes with the counts, by a blur so narrow that it does not run into the copies.
The starts that are alike are averaged: what the counts leave open differs from start to start. The beam counts as coherent, because
the planes are too far apart to show a point spread.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import fft, ndimage

from braggshot.iterative.iterate import Guess, IterativeConfig, Progress, Start, continue_starts, flush_denormals, run_starts
from braggshot.iterative.projections import Measured, ShrinkWrap
from braggshot.phasing import memory
from braggshot.phasing.config import PhasingConfig
from braggshot.phasing.pattern import blur_factor
from braggshot.phasing.problem import PhasingContext, device_of, prepare_measured, to_device
from braggshot.phasing.selection import align_to, alike, best_of, judge_chosen, score
from braggshot.phasing.verdict import judge
from braggshot.physics.fourier import to_corner
from braggshot.physics.sampling import crystal_extent
from braggshot.physics.strain import mean_turn, without_ramp
from braggshot.volumes import ComplexArray, DiffractionVolume, FloatArray, Reconstruction

FOLLOW = IterativeConfig(
    recipe="5*(5*HIO+5*RAAR+FLAT)+8*(10*RAAR+FLAT)+20*ER",
    shrink_wrap=ShrinkWrap(period=10, sigma_start=1.2, sigma_end=0.8, sigma_settle=0.5),
    flatness=0.2,
)
"""Settings of the iterations in which the support follows the counts; a wider blur would let it grow into the empty planes."""

SETTLE = IterativeConfig(recipe="8*(10*RAAR+FLAT)+40*ER", shrink_wrap=ShrinkWrap(period=0), flatness=0.2)
"""Settings of the next iterations, in a support that stays."""

POLISH = IterativeConfig(recipe="30*ER", shrink_wrap=ShrinkWrap(period=0))
"""Settings of the iterations from the mean of the starts that are alike."""

ALIKE = 0.985  # least correlation with the start that predicts the held-out voxels best, for a start to enter the mean [1]
CLOSE = 2.0  # largest llk_free of a start that enters the mean, over that of the best one [1]

# Length of the crystal over that which the planes determine, from which the support stays and the verdict is failed [1].
HELD = 1.3
SUPPORT = 0.1  # amplitude, relative to the largest, above which a voxel belongs to the first support [1]
WAVES, DEPTH = 0.25, 2.0  # correlation length over the crystal's extent [1] and standard deviation [rad] of a smooth random phase
SMOOTH = 5  # number of starts with a smooth random phase
BYTES = (100, 48)  # main memory per voxel for the volume, and for each start [bytes]


def phase_sparse(
    volume: DiffractionVolume,
    crystal: ComplexArray,
    turn: FloatArray,
    config: PhasingConfig,
    smooth: int = SMOOTH,
) -> Generator[Progress, None, Reconstruction]:
    """Phase a volume with empty planes from a crystal that is nearly the same; the generator's value is the reconstruction.

    Parameters
    ----------
    volume : the volume; the oversampling that it tells along the rocking axis is not used
    crystal : (z, y, x) a crystal near that of the volume, on its grid, zero outside its support
    turn : (3,) phase ramp that the counts ask for, per voxel along each axis [rad]
    config : settings of phasing, of which those of the random starts are not read
    smooth : number of starts that know the shape of `crystal` and get a smooth random phase

    Raises
    ------
    DataError : if no valid voxel holds a count, or the memory is too small.
    """
    began = time.perf_counter()
    if config.check_memory:
        memory.require(volume.name, volume.shape, BYTES, 2 + smooth, device_of(config.device))
    z, y, x = (n / max(1, size) for n, size in zip(volume.shape, crystal_extent(crystal), strict=True))
    volume = replace(volume, oversampling=(z, y, x))
    data = prepare_measured(volume, config)
    context = PhasingContext(volume, data, to_device(data, "cpu"), config)
    guesses = [_guess(field, data.photons) for field in starting_fields(crystal, turn, smooth, config.seed)]
    is_held_back = _length(crystal) < HELD * len(volume.valid) / _distance(volume)
    follow = _suited(FOLLOW, volume) if is_held_back else SETTLE
    starts = yield from flush_denormals(run_starts(data, follow, len(guesses), config.seed, guesses))
    starts = yield from flush_denormals(continue_starts(starts, data, SETTLE))
    mean, members = average(starts, context.data_cpu)
    (mean,) = yield from flush_denormals(continue_starts([mean], data, POLISH))
    found = _judge(context, [*starts, mean], members)
    return replace(found, seconds={"phasing": time.perf_counter() - began})


def starting_fields(crystal: ComplexArray, turn: FloatArray, smooth: int, seed: int) -> list[ComplexArray]:
    """List the fields from which a scan of few frames is phased: the crystal, its shape with a flat phase, and with random ones."""
    generator = np.random.default_rng(seed)
    width = [WAVES * size for size in crystal_extent(crystal)]
    phases: list[NDArray[np.float64] | float] = [0.0]
    for _ in range(smooth):
        wave = ndimage.gaussian_filter(generator.normal(size=crystal.shape), width, mode="wrap")
        phases.append(DEPTH * wave / wave.std())
    shapes = [np.abs(crystal) * np.exp(1j * phase) for phase in phases]
    return [without_ramp(without_ramp(field, mean_turn(field)), -turn) for field in (crystal, *shapes)]


def _guess(field: ComplexArray, photons: float) -> Guess:
    scaled = field * np.sqrt(photons / max(float(np.sum(np.abs(field) ** 2)), 1e-30))
    rho = to_corner(torch.from_numpy(scaled.astype(np.complex64)))
    amplitude = rho.abs()
    return Guess(rho, amplitude > SUPPORT * amplitude.max())


def _suited(settings: IterativeConfig, volume: DiffractionVolume) -> IterativeConfig:
    """Suit the blur of the shrink-wrap to the number of voxels in the crystal."""
    factor, old = blur_factor(volume.oversampling), settings.shrink_wrap
    return replace(settings, shrink_wrap=replace(old, sigma_start=factor * old.sigma_start, sigma_end=factor * old.sigma_end))


def average(starts: list[Start], data: Measured) -> tuple[Start, list[int]]:
    """Average the starts that are like the one which predicts the held-out voxels best; return the mean, and their indices.

    What the counts determine is the same in these starts; what they leave open differs from start to start, and averages out.
    """
    scores = [score(start, data) for start in starts]
    best = best_of(scores)
    chosen = align_to(best, starts, scores)
    members = alike(chosen, ALIKE, CLOSE)
    rho = to_corner(torch.stack([chosen.fields[k] for k in members]).mean(0).to(torch.complex64))
    amplitude = rho.abs()
    return replace(starts[best], rho=rho, support=amplitude > SUPPORT * amplitude.max()), members


def _judge(context: PhasingContext, starts: list[Start], members: list[int]) -> Reconstruction:
    """Judge the last start, the mean of others; empty planes count as measured where the planes beside them determine them."""
    volume, limits = context.volume, context.config.limits
    chosen = align_to(len(starts) - 1, starts, [score(start, context.data_cpu) for start in starts])
    found = judge_chosen(volume, starts, chosen, limits, "from the crystal before")
    apart, size = _distance(volume), _length(found.rho)
    reaches = len(volume.valid) / apart
    verdict, reasons = judge(completed(found), found.rho, found.support, found.quality, limits)
    if size > reaches:
        doubt = (
            f"the crystal is {size} voxels long along the rocking axis, and planes {apart} apart determine {reaches:.1f}: what "
            "lies further apart is mixed; measure more frames."
        )
        others = () if verdict == "good" else reasons
        is_failed = verdict == "failed" or size >= HELD * reaches
        verdict, reasons = "failed" if is_failed else "doubtful", (doubt, *others)
    elif verdict == "good":
        reasons = (f"{reasons[0]} One plane of {apart} was measured; all starts know the shape of the crystal before.",)
    assert found.ensemble is not None
    is_warm = np.array([1.0, *np.zeros(len(starts) - 2), float(members == [0])])
    ensemble = replace(found.ensemble, table={**found.ensemble.table, "warm": is_warm})
    choices = {**found.choices, "start": f"mean of {len(members)} of {len(starts) - 1} starts that are alike, refined"}
    return replace(found, ensemble=ensemble, choices=choices, verdict=verdict, reasons=reasons)


def _length(rho: ComplexArray) -> int:
    """Return the length of a crystal along the rocking axis, between places of half its amplitude [voxels]."""
    amplitude = np.abs(rho)
    typical = float(np.median(amplitude[amplitude > SUPPORT * amplitude.max(initial=0)])) if amplitude.any() else 0.0
    inside = np.flatnonzero((amplitude > 0.5 * typical).any(axis=(1, 2)))
    return int(np.ptp(inside)) + 1 if inside.size else 0


def _distance(volume: DiffractionVolume) -> int:
    """Return the distance between the planes that hold valid voxels, in planes: their median."""
    measured = np.flatnonzero(volume.valid.any(axis=(1, 2)))
    return int(np.median(np.diff(measured))) if measured.size > 1 else len(volume.valid)


def completed(found: Reconstruction) -> DiffractionVolume:
    """Return the volume with the intensity of the crystal on the planes without a valid voxel, as if it had been measured."""
    inside = np.where(found.support, found.rho, 0).astype(np.complex64)
    model = np.abs(fft.fftshift(fft.fftn(fft.ifftshift(inside), norm="ortho"))) ** 2
    empty = ~found.volume.valid.any(axis=(1, 2), keepdims=True)
    return replace(found.volume, intensity=np.where(empty, model, found.volume.intensity), valid=found.volume.valid | empty)
