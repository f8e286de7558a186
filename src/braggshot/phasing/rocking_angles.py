r"""Find how far the frames of a scan are off their rocking angles, because the sample drifts, and phase the scan again without it.

The crystal found as if nothing drifted and the deviations of the frames are fitted to the counts together
(`braggshot.physics.uneven_frames`), as if the angles drift, and as if they jitter if that does not explain the counts. The counts
are brought to even frames by the better deviations, phased again from scratch, and fitted again, as long as held-out voxels are
predicted better.

Held-out voxels belong neither to the crystals nor to the deviations: on the way to even frames they are replaced by what the
crystal predicts. They decide whether the deviations are kept: half their deviance must fall by a share against the crystal that
was found, and against the same fit with the deviations held at zero, and come near that of photon noise.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from braggshot.iterative.iterate import Guess, Progress
from braggshot.phasing.config import PhasingConfig
from braggshot.phasing.self_flat import held_out, held_out_misfit
from braggshot.phasing.strategies import Trained, phase
from braggshot.phasing.verdict import is_settled
from braggshot.physics.forward import PointSpread, intensity
from braggshot.physics.fourier import to_corner
from braggshot.physics.geometry import steps_energy
from braggshot.physics.sampling import crystal_extent, oversampling
from braggshot.physics.uneven_frames import ANSCOMBE, Wander, fit_frames, intensity_at, to_even_frames
from braggshot.prepare import PrepareConfig
from braggshot.volumes import BoolArray, ComplexArray, DiffractionVolume, Reconstruction

Floats = NDArray[np.float64]

DRIFT, JITTER = Wander(4.0, 0.1), Wander(0.1, 0.5)
ROUNDS, MORE = 6, 12  # rounds of each of the two fits, and of the one that is continued
CYCLES = 3  # largest number of times that the scan is phased with the deviations so far
# Least share of the misfit that moves of single frames take away for deviations to be estimated, and for a fit to be tried, of a
# crystal that is good [1].
HINT, FAINT = 0.015, 0.008
TRIED, HELPS = 3, 0.08  # rounds of the fit that is tried for a crystal that is good, and the least share that it takes away [1]
ROOM = 1.1  # misfit of held-out voxels, over that of photon noise, below which nothing is left for deviations to explain [1]
# Half waves along the scan that make a smooth curve, and the least share of what moves take away that such a curve takes, for
# deviations to be suspected in a crystal that is good and too large for the fit [1]. Faults of the crystal reach 0.53.
WAVES, SMOOTH = 8, 0.55
HALF = 0.2  # distance at which the misfit of each frame is looked at, to both sides of its angle [steps]
EXPLAINED = 1.6  # largest misfit of held-out voxels, over that of photon noise, with which deviations are kept [1]
LOWERED = 0.1  # least share by which deviations must lower the misfit of the held-out voxels to be kept [1]
OFFERED = ("auto", "refine")  # methods in which deviations are estimated unasked; other methods do what they are told
MOST = 2**19  # most voxels of a volume for which "auto" estimates deviations; the time grows in proportion
# What is said where single frames fit better elsewhere, which those of a wrong crystal do too.
UNSURE = "frames may lie off their angles (the sample drifts or the stage jitters), or the crystal is wrong"
LEAST = 0.1  # largest deviation below which frames count as even [steps]


@dataclass(frozen=True)
class Drift:
    """What came of the estimate: the volume at even angles, None if they were not found, and what was found, in words.

    Parameters
    ----------
    moved : (z,) deviations of the frames from their angles [steps]
    guesses : the crystal that was fitted with them
    """

    volume: DiffractionVolume | None
    said: str
    moved: Floats
    guesses: tuple[Guess, ...] = ()


@dataclass(frozen=True)
class _Fit:
    """Crystal and deviations that were fitted together, and their misfit of the held-out voxels (half the deviance per voxel)."""

    rho: ComplexArray
    moved: Floats
    misfit: float


def estimate_drift(
    found: Reconstruction, preparation: PrepareConfig, phasing: PhasingConfig, network: Trained | None = None
) -> Generator[Progress, None, Drift | None]:
    r"""Estimate how far the frames are off their angles from the counts and a first crystal; None if nothing is to be said.

    It begins where held-out voxels are missed by more than photon noise, and where moves of single frames, by the parabola through
    the misfit L at three places, take enough of the misfit away:

    .. math:: \frac{\sum_k L'_k{}^2 / 2 L''_k}{\sum_k L_k}

    Where the verdict is good, a short fit of a drift must also predict the held-out voxels better than one without; it does not
    where the crystal is at fault.

    Parameters
    ----------
    found : crystal that was found as if the frames were even
    preparation, phasing : settings of both stages
    network : the network that the settings name, if it is in memory already
    """
    volume = found.volume
    if not _is_asked_for(found, preparation, phasing):
        return None
    held = held_out(volume.valid, phasing)
    seen = volume.valid & ~held
    psf = None if found.psf is None else PointSpread(tuple(found.psf["sigma"]), float(found.psf["eta"]))
    model = intensity(torch.from_numpy(found.rho), psf).numpy().astype(np.float64)
    plain = held_out_misfit(volume.intensity, model, seen, held)
    if plain < ROOM * noise_misfit(model[held]):
        return None
    share, smooth = _share_by_moves(found.rho, volume, seen)
    is_good = found.verdict == "good"
    if preparation.drift == "auto" and volume.intensity.size > MOST:
        is_likely = share >= HINT and (smooth >= SMOOTH or not is_good)
        return Drift(None, f"{UNSURE}; prepare.drift=on estimates how far, in minutes", np.zeros(0)) if is_likely else None
    if share < (FAINT if is_good else HINT):
        return None
    still = np.zeros(len(volume.intensity))
    if is_good and not (yield from _helps(volume, seen, held, found.rho)):
        return None
    held_still = yield from _fit(volume, seen, held, found.rho, still, None, ROUNDS)
    best = yield from _search(volume, seen, held, held_still, found.rho, phasing, network)
    plain = min(plain, held_still.misfit)
    largest, better = float(np.abs(best.moved).max()), 1 - best.misfit / plain
    told = f"voxels kept from it are predicted {100 * better:.0f} % better so"
    said = f"frames lie up to {largest:.2g} steps off their angles; {told}"
    if better < LOWERED or largest < LEAST:
        return None
    if best.misfit > EXPLAINED * noise_misfit(_model(best.rho, best.moved)[held]):
        return Drift(None, f"{UNSURE}; no angles were found that explain the counts", best.moved)
    rho = to_corner(torch.from_numpy(best.rho))
    return Drift(_even(volume, best, volume.valid, said), said, best.moved, (Guess(rho, rho.abs() > 0),))


def _helps(volume: DiffractionVolume, seen: BoolArray, held: BoolArray, rho: ComplexArray) -> Generator[Progress, None, bool]:
    """Tell whether a short fit predicts the held-out voxels better with a drift than without; a generator of progress."""
    misfits, still = [], np.zeros(len(volume.intensity))
    for expected in (None, DRIFT):
        fit = yield from _fit(volume, seen, held, rho, still, expected, TRIED)
        misfits.append(fit.misfit)
    without, with_drift = misfits
    return with_drift <= (1 - HELPS) * without


def _search(
    volume: DiffractionVolume, seen: BoolArray, held: BoolArray, held_still: _Fit, rho: ComplexArray, phasing: PhasingConfig,
    network: Trained | None,
) -> Generator[Progress, None, _Fit]:  # fmt: skip
    """Fit deviations as those of a drift and, where that does not explain the counts, of a jitter; phase and fit again with them.

    The value is the best fit, which is `held_still`, with no deviations, where none predicts the held-out voxels better.
    """
    still, best, wander = np.zeros(len(volume.intensity)), held_still, DRIFT
    for expected in (DRIFT, JITTER):
        first = yield from _fit(volume, seen, held, rho, still, expected, ROUNDS)
        fit = yield from _fit(volume, seen, held, first.rho, first.moved, expected, MORE)
        if fit.misfit < best.misfit:
            best, wander = fit, expected
        if best.misfit < EXPLAINED * noise_misfit(_model(best.rho, best.moved)[held]):
            break
    quick = replace(phasing, method="refine", partial_coherence="off")
    for _ in range(CYCLES):
        again = yield from phase(_even(volume, best, seen), quick, network=network)
        this = yield from _fit(volume, seen, held, again.rho, best.moved, wander, MORE)
        if this.misfit >= best.misfit:
            break
        best = this
    return best


def say_drift(found: Reconstruction, drift: Drift) -> Reconstruction:
    """Say in a result what came of the estimate, and what counts cannot tell."""
    is_undone = drift.volume is not None
    said = f"{drift.said}; a constant offset and a constant stretch of the angles cannot be told" if is_undone else drift.said
    noticed = (*found.volume.provenance.get("noticed", ()), f"the rocking angles are not even: {said}" if is_undone else said)
    provenance = {**found.volume.provenance, "noticed": noticed, **({"frames_off": drift.moved.tolist()} if is_undone else {})}
    reason = f"the sample drifted or the stage jittered: {said}." if is_undone else f"{said}."
    reasons = found.reasons if found.verdict == "good" else (*found.reasons, reason)
    return replace(
        found,
        volume=replace(found.volume, provenance=provenance),
        choices={**found.choices, "rocking angles": said},
        reasons=reasons,
    )


def noise_misfit(expected: Floats) -> float:
    r"""Return half the deviance per voxel that photon noise leaves: 1/2 at high counts, -x ln x + ... at few.

    It is the mean over Poisson counts I about x of :math:`x - I + I \ln(I / x)`, summed over the counts that matter below 10.
    """
    x = np.maximum(expected, 1e-6)
    few = x < 10
    counts = np.arange(60)
    log_factorial = np.concatenate([[0], np.cumsum(np.log(np.arange(1, 60)))])
    chance = np.exp(counts * np.log(x[few, None]) - x[few, None] - log_factorial)
    ratio = np.where(counts > 0, np.maximum(counts, 1) / x[few, None], 1)
    low = (chance * (x[few, None] - counts + counts * np.log(ratio))).sum(1)
    high = 0.5 + 1 / (12 * x[~few])
    return float((low.sum() + high.sum()) / max(x.size, 1))


def _share_by_moves(rho: ComplexArray, volume: DiffractionVolume, seen: BoolArray) -> tuple[float, float]:
    """Return what moving each frame by itself takes away, without offset and slope.

    The first number is the share of the misfit that the moves take away beyond chance [1], the second the share of this that moves
    along a smooth curve take, of up to `WAVES` half waves along the scan [1].
    """
    root, frames = 2 * np.sqrt(volume.intensity + ANSCOMBE), len(volume.intensity)
    below, here, above = (
        ((2 * np.sqrt(_model(rho, np.full(frames, by)) + ANSCOMBE) - root) ** 2 * seen).sum((1, 2)) / 2 for by in (-HALF, 0, HALF)
    )
    slope, bend = (above - below) / (2 * HALF), (above + below - 2 * here) / HALF**2
    bent = bend > 0.1 * max(float(np.median(bend)), 0.0)  # a frame whose misfit does not bend upwards has no best place
    move = np.where(bent, -slope / np.where(bent, bend, 1), 0)
    weight = np.where(bent, bend, 0)
    place = (np.arange(frames) + 0.5) / frames
    line = np.stack([np.ones(frames), place], axis=1)
    curve = np.cos(np.pi * np.outer(place, np.arange(1, max(1, min(WAVES, frames // 6)) + 1)))
    move -= _fitted(line, move, weight)
    smooth = _fitted(curve - _fitted(line, curve, weight), move, weight)
    taken = float((weight * move**2).sum() / 2)
    by_chance = frames  # twice what photon noise gives on average
    return (taken - by_chance) / max(float(here.sum()), 1.0), float((weight * smooth**2).sum() / 2) / max(taken, 1e-30)


def _fitted(terms: Floats, values: Floats, weight: Floats) -> Floats:
    """Return the sum of `terms` that fits `values` best, by weighted least squares; both have one row per frame."""
    root = np.sqrt(weight).reshape(-1, *[1] * (values.ndim - 1))
    factors = np.linalg.lstsq(np.sqrt(weight)[:, None] * terms, root * values, rcond=None)[0]
    fitted: Floats = terms @ factors
    return fitted


def _is_asked_for(found: Reconstruction, preparation: PrepareConfig, phasing: PhasingConfig) -> bool:
    """Tell whether frames may be moved: they are no bins nor energies, nor moved already, and a crystal is there.

    Moved frames cannot mend a verdict that only faults of the measurement have lowered.
    """
    volume, window = found.volume, found.volume.window
    fixed = window is not None and (window.binning[0] != 1 or window.straight)
    fixed |= "frames_off" in volume.provenance or (volume.geometry is not None and steps_energy(volume.geometry))
    unexplained = phasing.method in OFFERED and (found.verdict == "good" or not is_settled(found, phasing.limits))
    wanted = preparation.drift == "on" or (preparation.drift == "auto" and unexplained)
    return wanted and not fixed and phasing.method != "oneshot" and phasing.free_fraction > 0 and bool(found.support.any())


def _fit(
    volume: DiffractionVolume, seen: BoolArray, held: BoolArray, rho: ComplexArray, moved: Floats, wander: Wander | None,
    rounds: int,
) -> Generator[Progress, None, _Fit]:  # fmt: skip
    fitting, done = fit_frames(volume.intensity, seen, rho, moved, wander, rounds), 0
    while True:
        try:
            next(fitting)
        except StopIteration as finished:
            rho, moved = finished.value
            break
        done += 1
        yield Progress(done, done + 1, "rocking angles", (0,), None, None)
    model = _model(rho, moved)
    return _Fit(rho, moved, held_out_misfit(volume.intensity, model, seen, held))


def _model(rho: ComplexArray, moved: Floats) -> Floats:
    return intensity_at(torch.from_numpy(rho), torch.from_numpy(moved)).numpy().astype(np.float64)


def _even(volume: DiffractionVolume, fit: _Fit, seen: BoolArray, said: str = "") -> DiffractionVolume:
    """Return the volume with its counts at even frames; those that are not seen are replaced by what the crystal predicts."""
    extent = crystal_extent(fit.rho)[0]
    counts, valid = to_even_frames(volume.intensity, seen, _model(fit.rho, fit.moved), fit.moved, extent)
    steps = (*volume.steps, f"{said}: counts interpolated to even angles") if said else volume.steps
    return replace(volume, intensity=counts, valid=valid, oversampling=oversampling(counts, valid), steps=steps)
