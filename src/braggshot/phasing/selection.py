"""Many starts to one reconstruction: held-out voxels choose, the others are aligned to the choice, and all of them are judged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from braggshot.iterative.iterate import Start
from braggshot.iterative.projections import Measured
from braggshot.phasing.verdict import Limits, in_company, judge
from braggshot.physics import metrics
from braggshot.physics.forward import mutual_coherence, spread
from braggshot.physics.fourier import to_centre
from braggshot.physics.geometry import direct_basis
from braggshot.physics.resolution import shell_correlation
from braggshot.physics.strain import amplitude_spread
from braggshot.physics.strain import spread as spread_of
from braggshot.volumes import BoolArray, ComplexArray, DiffractionVolume, Ensemble, FloatArray, Quality, Reconstruction, Uncertainty

PRTF_CUTOFF = 1 / math.e

CALIBRATION: dict[str, dict[str, float]] = {
    "starts": {"phase": 1.52, "strain": 1.53, "amplitude": 2.05},
    "photons": {"phase": 3.2, "strain": 3.1, "amplitude": 4.25},
    "both": {"phase": 1.24, "strain": 1.24, "amplitude": 1.7},
}
"""Error that covers 68 % over the plain spread, by where the spread is from (`benchmarks/calibration.py`, peaks of 1e3 to 1e6).

What all starts share, such as too tight a support, is in no spread; and redrawn counts are not followed to the end.
"""


@dataclass(frozen=True)
class Score:
    """One start against its measurement; fields as in `Quality`, scale as in `metrics.misfit`."""

    chi2: float
    r_factor: float
    llk: float
    llk_free: float
    chi2_coherent: float
    unseen: float
    scale: float


def score(start: Start, data: Measured) -> Score:
    """chi2 and R over all valid voxels, llk over the phased and llk_free over the held-out ones.

    The model is what the detector would count, sqrt(|F|^2 * p) with the estimated point spread p, and |F| itself without one.
    """
    magnitude = torch.fft.fftn(start.rho, norm="ortho").abs()
    coherent = result = metrics.misfit(magnitude, data.intensity, data.valid)
    if any(start.sigma):
        coherence = mutual_coherence(torch.tensor(start.sigma), torch.tensor(start.eta), data.shape)
        result = metrics.misfit(spread(magnitude.square(), coherence).sqrt(), data.intensity, data.valid)
    seen = data.valid.clone().reshape(-1)
    seen[data.free] = False
    model, counts = result.magnitude.square().reshape(-1), data.intensity.reshape(-1)
    llk = metrics.half_deviance(model[seen], counts[seen]).mean()
    free = metrics.half_deviance(model[data.free], counts[data.free]).mean()
    unseen = metrics.excess(model[data.free], counts[data.free])
    return Score(result.chi2, result.r_factor, float(llk), float(free), coherent.chi2, unseen, result.scale)


def ranked(scores: list[Score]) -> list[int]:
    """Numbers of the starts, best first by held-out voxels; where there are none chi2 has to choose, and the verdict says less."""
    return sorted(range(len(scores)), key=lambda k: scores[k].chi2 if math.isnan(scores[k].llk_free) else scores[k].llk_free)


def best_of(scores: list[Score]) -> int:
    """Number of the start that is `ranked` first."""
    return ranked(scores)[0]


def assemble(volume: DiffractionVolume, data: Measured, starts: list[Start], limits: Limits, method: str) -> Reconstruction:
    """Choose a start by held-out voxels and, among equals, by its company; align the others to it, and judge."""
    scores = [score(start, data) for start in starts]
    best, (aligned, correlation, twins) = _chosen(starts, scores, limits)
    rho, support, shift = _canonical(starts[best], scores[best].scale)
    agreeing = [a for a, c in zip(aligned, correlation, strict=True) if c >= limits.agreement]
    basis = None if volume.reciprocal_basis is None else direct_basis(volume.reciprocal_basis, volume.shape)
    ensemble, resolution = _ensemble(volume, starts, scores, correlation, twins, aligned, agreeing)
    chosen = scores[best]
    quality = Quality(
        chi2=chosen.chi2,
        r_factor=chosen.r_factor,
        llk=chosen.llk,
        llk_free=chosen.llk_free,
        agreement=tuple(correlation),
        resolution=resolution,
        chi2_coherent=chosen.chi2_coherent,
        unseen=None if math.isnan(chosen.unseen) else chosen.unseen,
    )
    counting = _counting(correlation, scores, best, limits)
    stuck = len(starts) - len(counting)
    verdict, reasons = judge(volume, rho, support, replace(quality, agreement=counting), limits, stuck)
    history = starts[best].history.numpy()
    return Reconstruction(
        rho=rho,
        support=support,
        volume=volume,
        quality=quality,
        basis=basis,
        ensemble=ensemble,
        verdict=verdict,
        reasons=reasons,
        history={"iteration": history[:, 0], "error": history[:, 1], "support_fraction": history[:, 2]},
        method=method,
        choices={
            "sign": "forward transform exp(-2 pi i k.n / N), so phase = -q.u",
            "twin": f"as start {best} came out; {sum(twins)} of {len(starts)} starts were its conjugate inversion and were turned",
            "origin": f"support centred at N // 2 by a shift of {shift} voxels; mean phase inside the support is zero",
            "start": f"start {best} of {len(starts)}, chosen by {_by(scores, best)}",
        },
        psf={"sigma": starts[best].sigma, "eta": starts[best].eta} if any(starts[best].sigma) else None,
        uncertainty=_uncertainty(agreeing, support, basis, volume.q_bragg),
    )


_Aligned = tuple[list[Tensor], list[float], list[bool]]


def _chosen(starts: list[Start], scores: list[Score], limits: Limits) -> tuple[int, _Aligned]:
    """Number of the start to show, and all starts aligned to it.

    Held-out voxels hardly tell starts apart that differ by noise. So where most others do not agree with the first, the next one
    with which they do takes its place, provided that it predicts the voxels as well, to `Limits.tie`.
    """
    order = ranked(scores)
    first = _aligned_to(order[0], starts, scores)
    for best in order:
        if not scores[best].llk_free <= (1 + limits.tie) * scores[order[0]].llk_free:
            break
        found = first if best == order[0] else _aligned_to(best, starts, scores)
        counting = _counting(found[1], scores, best, limits)
        if len(counting) < 2 or in_company(counting, limits):
            return best, found
    return order[0], first


def _aligned_to(best: int, starts: list[Start], scores: list[Score]) -> _Aligned:
    """Fields on the scale of the counts, correlations, and whether each was the twin."""
    rho, _, _ = _canonical(starts[best], scores[best].scale)
    reference = torch.from_numpy(rho)
    found = [metrics.align(to_centre(start.rho) * one.scale, reference) for start, one in zip(starts, scores, strict=True)]
    correlation = [1.0 if number == best else result.correlation for number, result in enumerate(found)]
    return [result.field for result in found], correlation, [result.twin for result in found]


def _by(scores: list[Score], best: int) -> str:
    if math.isnan(scores[best].llk_free):
        return "chi2"
    return "llk_free" if best == best_of(scores) else "llk_free and the agreement of the others"


def _counting(correlation: list[float], scores: list[Score], best: int, limits: Limits) -> tuple[float, ...]:
    """Correlations of the starts that are not stuck."""
    most = limits.rival * scores[best].llk_free
    return tuple(c for c, one in zip(correlation, scores, strict=True) if not one.llk_free > most)


def _uncertainty(agreeing: list[Tensor], support: BoolArray, basis: FloatArray | None, q: FloatArray | None) -> Uncertainty | None:
    """Spread of the starts that agree; one alone says nothing about it."""
    if len(agreeing) < 2:
        return None
    fields = torch.stack(agreeing).numpy()
    spread = spread_of(fields, support, basis, q)
    plain = Uncertainty(*spread, len(agreeing), "starts that agree, calibrated", amplitude_spread(fields, support))
    return scaled(plain, CALIBRATION["starts"])


def scaled(spread: Uncertainty, factors: Mapping[str, float]) -> Uncertainty:
    """Each quantity times its factor; what is None stays None."""
    maps = {name: getattr(spread, name) for name in factors}
    return replace(spread, **{name: values * np.float32(factors[name]) for name, values in maps.items() if values is not None})


def _canonical(start: Start, scale: float) -> tuple[ComplexArray, BoolArray, tuple[int, int, int]]:
    """The chosen start with its support in the middle and its mean phase at zero; whole voxels, so no value changes."""
    support = to_centre(start.support)
    shift = [0, 0, 0]
    for axis, n in enumerate(support.shape):
        profile = support.sum(tuple(a for a in range(3) if a != axis)).double()
        angle = torch.angle((profile * torch.exp(2j * math.pi * torch.arange(n) / n)).sum())
        shift[axis] = n // 2 - round(float(angle) * n / (2 * math.pi)) % n
    rho = torch.roll(to_centre(start.rho), shift, (0, 1, 2)) * scale
    total = rho.sum()
    rho = rho * (total.conj() / total.abs().clamp_min(1e-30))
    moved = torch.roll(support, shift, (0, 1, 2))
    return rho.to(torch.complex64).numpy(), moved.numpy(), (shift[0], shift[1], shift[2])


def _ensemble(
    volume: DiffractionVolume,
    starts: list[Start],
    scores: list[Score],
    correlation: list[float],
    twins: list[bool],
    aligned: list[Tensor],
    agreeing: list[Tensor],
) -> tuple[Ensemble, float | None]:
    """Table of starts, PCA of all, PRTF of those that agree, and the resolution it gives [m]."""
    modes, weights = metrics.modes(torch.stack(aligned))
    overlap = torch.vdot(modes[0].flatten(), aligned[correlation.index(max(correlation))].flatten())
    mode = (modes[0] * overlap / overlap.abs()).to(torch.complex64).numpy()
    basis = None if volume.reciprocal_basis is None else torch.from_numpy(np.asarray(volume.reciprocal_basis))
    number, radii = metrics.shells(torch.Size(volume.shape), max(8, min(volume.shape) // 2), basis)
    curve = metrics.prtf(torch.stack(agreeing).mean(0), torch.from_numpy(volume.intensity), torch.from_numpy(volume.valid), number)
    columns = {
        "start": np.arange(len(starts), dtype=float),
        "seed": np.array([s.seed for s in starts], dtype=float),
        "chi2": np.array([s.chi2 for s in scores]),
        "chi2_coherent": np.array([s.chi2_coherent for s in scores]),
        "r_factor": np.array([s.r_factor for s in scores]),
        "llk": np.array([s.llk for s in scores]),
        "llk_free": np.array([s.llk_free for s in scores]),
        "correlation": np.array(correlation),
        "twin": np.array(twins, dtype=float),
        "threshold": np.array([s.threshold for s in starts]),
        "support_fraction": np.array([float(s.support.float().mean()) for s in starts]),
    }
    frequency = radii.double().numpy()
    # The first that agrees against each other one: two solutions of the same data.
    pairs = [shell_correlation(agreeing[0], other, number) for other in agreeing[1:]]
    fsc = torch.stack(pairs).mean(0).numpy() if pairs else None
    ensemble = Ensemble(columns, weights.numpy(), curve.numpy(), frequency, fsc, mode=mode)
    # With one start the PRTF only says that the start fits its data; it is no measure of resolution.
    resolution = _resolution(curve.numpy(), frequency) if basis is not None and len(agreeing) > 1 else None
    return ensemble, resolution


def _resolution(curve: FloatArray, frequency: FloatArray) -> float:
    """Full period 2 pi / q where the PRTF first falls below 1/e, or of the last shell if it never does [m]."""
    below = np.nonzero(curve < PRTF_CUTOFF)[0]
    return float(2 * math.pi / frequency[below[0] if below.size else -1])
