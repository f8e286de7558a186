"""Choose the start that predicts the held-out voxels best, align the others to it, and judge it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from braggshot.iterative.iterate import Start
from braggshot.iterative.projections import Measured
from braggshot.phasing.calibration import uncertainty_of_starts
from braggshot.phasing.verdict import Limits, in_company, judge
from braggshot.physics import metrics
from braggshot.physics.forward import convolve_psf, mutual_coherence
from braggshot.physics.fourier import centre_of_mass, to_centre
from braggshot.physics.geometry import direct_basis
from braggshot.physics.resolution import shell_correlation
from braggshot.volumes import Agreement, BoolArray, ComplexArray, DiffractionVolume, Ensemble, FloatArray, Quality, Reconstruction

PRTF_CUTOFF = 1 / math.e  # value of the phase retrieval transfer function (PRTF) at which the resolution is read off [1]


@dataclass(frozen=True)
class Score:
    """Misfits of one start to the counts, and the factor `scale` by which its object is multiplied to fit the counts best.

    The misfits have the names and meanings of those in `braggshot.volumes.Quality`.
    """

    chi2: float
    r_factor: float
    llk: float
    llk_free: float
    chi2_coherent: float
    unseen: float
    scale: float


def score(start: Start, data: Measured) -> Score:
    """Compare a start with the counts: chi2 and R over all valid voxels, llk over the phased and llk_free over the held-out ones.

    The magnitude of the model is |F|, with F the transform of the start; with an estimated point spread p it is the root of the
    convolution |F|^2 * p.
    """
    magnitude = torch.fft.fftn(start.rho, norm="ortho").abs()
    coherent = result = metrics.misfit(magnitude, data.intensity, data.valid)
    if any(start.sigma):
        coherence = mutual_coherence(torch.tensor(start.sigma), torch.tensor(start.eta), data.shape)
        result = metrics.misfit(convolve_psf(magnitude.square(), coherence).sqrt(), data.intensity, data.valid)
    seen = data.valid.clone().reshape(-1)
    seen[data.free] = False
    model, counts = result.magnitude.square().reshape(-1), data.intensity.reshape(-1)
    llk = metrics.half_deviance(model[seen], counts[seen]).mean()
    free = metrics.half_deviance(model[data.free], counts[data.free]).mean()
    unseen = metrics.excess_misfit(model[data.free], counts[data.free])
    return Score(result.chi2, result.r_factor, float(llk), float(free), coherent.chi2, unseen, result.scale)


def ranked(scores: list[Score]) -> list[int]:
    """Sort the indices of the starts, best first: by the misfit llk_free of held-out voxels, or by chi2 if none is held out."""
    return sorted(range(len(scores)), key=lambda k: scores[k].chi2 if math.isnan(scores[k].llk_free) else scores[k].llk_free)


def best_of(scores: list[Score]) -> int:
    """Return the index of the start of least misfit llk_free of held-out voxels, or of least chi2 if none is held out."""
    return ranked(scores)[0]


@dataclass(frozen=True)
class Chosen:
    """The start that is chosen, its number, and all starts aligned to it, each with its misfits.

    Parameters
    ----------
    fields : aligned starts, scaled to the counts, with the middle of the chosen support in the middle of the array
    correlation : of each start with the chosen one [1]
    twins : True for a start that was turned, because it was the conjugate inversion of the chosen one
    """

    best: int
    scores: list[Score]
    fields: list[Tensor]
    correlation: list[float]
    twins: list[bool]


def choose(starts: list[Start], data: Measured, limits: Limits) -> Chosen:
    """Choose the start to show, and align all starts to it.

    Starts that differ only by noise predict the held-out voxels almost equally well. So if most starts do not agree with the start
    of least misfit llk_free, the next in rank with which most starts agree is chosen. Its llk_free may be larger by at most the
    share `Limits.tie_margin`.
    """
    scores = [score(start, data) for start in starts]
    order = ranked(scores)
    first = align_to(order[0], starts, scores)
    for best in order:
        if not scores[best].llk_free <= (1 + limits.tie_margin) * scores[order[0]].llk_free:
            break
        chosen = first if best == order[0] else align_to(best, starts, scores)
        agreeing = _count_agreeing(chosen, limits)
        if agreeing.others == 0 or in_company(agreeing, limits):
            return chosen
    return first


def align_to(best: int, starts: list[Start], scores: list[Score]) -> Chosen:
    """Align all starts to one of them, which is shown."""
    rho, _, _ = centre_and_dephase(starts[best], scores[best].scale)
    reference = torch.from_numpy(rho)
    found = [
        metrics.Alignment(reference, 1.0, (0.0, 0.0, 0.0), twin=False)
        if number == best
        else metrics.align(to_centre(start.rho) * one.scale, reference)
        for number, (start, one) in enumerate(zip(starts, scores, strict=True))
    ]
    return Chosen(best, scores, [one.field for one in found], [one.correlation for one in found], [one.twin for one in found])


def alike(chosen: Chosen, agreement: float, ratio: float = math.inf) -> list[int]:
    """List the starts that agree with the one that is shown, itself included.

    Parameters
    ----------
    agreement : least correlation with the one that is shown [1]
    ratio : largest llk_free over that of the one that is shown; not looked at where nothing is held out [1]
    """
    most = ratio * chosen.scores[chosen.best].llk_free
    pairs = enumerate(zip(chosen.correlation, chosen.scores, strict=True))
    return [k for k, (correlation, misfits) in pairs if correlation >= agreement and not misfits.llk_free > most]


def judge_chosen(volume: DiffractionVolume, starts: list[Start], chosen: Chosen, limits: Limits, method: str) -> Reconstruction:
    """Judge the chosen start; return it as a reconstruction."""
    best, scores = chosen.best, chosen.scores
    rho, support, shift = centre_and_dephase(starts[best], scores[best].scale)
    agreeing = [chosen.fields[k] for k in alike(chosen, limits.agreement)]
    # A stuck start may come near the crystal, but its errors are not those of the crystal.
    solved = [chosen.fields[k] for k in alike(chosen, limits.agreement, limits.stuck_ratio)]
    basis = None if volume.reciprocal_basis is None else direct_basis(volume.reciprocal_basis, volume.shape)
    ensemble, resolution = _ensemble(volume, starts, chosen, agreeing)
    quality = quality_of(scores[best], chosen.correlation, resolution, _count_agreeing(chosen, limits))
    verdict, reasons = judge(volume, rho, support, quality, limits)
    history, turned = starts[best].history.numpy(), sum(chosen.twins)
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
            "twin": f"as start {best} came out; {turned} of {len(starts)} starts were its conjugate inversion and were turned",
            "origin": f"support centred at N // 2 by a shift of {shift} voxels; mean phase inside the support is zero",
            "start": f"start {best} of {len(starts)}, chosen by {_by(scores, best)}",
        },
        psf={"sigma": starts[best].sigma, "eta": starts[best].eta} if any(starts[best].sigma) else None,
        uncertainty=uncertainty_of_starts(solved, support, basis, volume.q_bragg),
    )


def quality_of(misfits: Score, agreement: Sequence[float], resolution: float | None, agreeing: Agreement | None) -> Quality:
    """Put the misfits of a crystal together with what its starts have in common."""
    return Quality(
        chi2=misfits.chi2,
        r_factor=misfits.r_factor,
        llk=misfits.llk,
        llk_free=misfits.llk_free,
        agreement=tuple(agreement),
        resolution=resolution,
        chi2_coherent=misfits.chi2_coherent,
        unseen=None if math.isnan(misfits.unseen) else misfits.unseen,
        agreeing=agreeing,
    )


def _by(scores: list[Score], best: int) -> str:
    if math.isnan(scores[best].llk_free):
        return "chi2"
    return "llk_free" if best == best_of(scores) else "llk_free and the agreement of the others"


def _count_agreeing(chosen: Chosen, limits: Limits) -> Agreement:
    """Count the starts that agree with the chosen start; stuck starts are left out."""
    counting, same = (len(alike(chosen, least, limits.stuck_ratio)) for least in (0.0, limits.agreement))
    return Agreement(max(0, same - 1), max(0, counting - 1), len(chosen.scores) - counting, limits.agreement)


def centre_and_dephase(start: Start, scale: float) -> tuple[ComplexArray, BoolArray, tuple[int, int, int]]:
    """Shift a start by whole voxels so that its support is in the middle, scale it, and make its mean phase zero."""
    support = to_centre(start.support)
    shift = [-round(float(centre)) for centre in centre_of_mass(support.double())]
    rho = torch.roll(to_centre(start.rho), shift, (0, 1, 2)) * scale
    total = rho.sum()
    rho = rho * (total.conj() / total.abs().clamp_min(1e-30))
    moved = torch.roll(support, shift, (0, 1, 2))
    return rho.to(torch.complex64).numpy(), moved.numpy(), (shift[0], shift[1], shift[2])


def _ensemble(
    volume: DiffractionVolume,
    starts: list[Start],
    chosen: Chosen,
    agreeing: list[Tensor],
) -> tuple[Ensemble, float | None]:
    """Make the statistics of all starts, and the resolution [m]; the resolution is None if it cannot be measured.

    The statistics hold a table, the principal components of the starts, the phase retrieval transfer function (PRTF) of the starts
    that agree, and the Fourier shell correlation between these. The resolution is read off the PRTF.
    """
    modes, weights = metrics.modes(torch.stack(chosen.fields))
    overlap = torch.vdot(modes[0].flatten(), chosen.fields[chosen.best].flatten())
    mode = (modes[0] * overlap / overlap.abs()).to(torch.complex64).numpy()
    basis = None if volume.reciprocal_basis is None else torch.from_numpy(np.asarray(volume.reciprocal_basis))
    number, radii = metrics.shells(torch.Size(volume.shape), max(8, min(volume.shape) // 2), basis)
    curve = metrics.prtf(torch.stack(agreeing).mean(0), torch.from_numpy(volume.intensity), torch.from_numpy(volume.valid), number)
    scores = chosen.scores
    columns = {
        "start": np.arange(len(starts), dtype=float),
        "seed": np.array([s.seed for s in starts], dtype=float),
        "chi2": np.array([s.chi2 for s in scores]),
        "chi2_coherent": np.array([s.chi2_coherent for s in scores]),
        "r_factor": np.array([s.r_factor for s in scores]),
        "llk": np.array([s.llk for s in scores]),
        "llk_free": np.array([s.llk_free for s in scores]),
        "correlation": np.array(chosen.correlation),
        "twin": np.array(chosen.twins, dtype=float),
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
    """Return the resolution by the phase retrieval transfer function (PRTF) [m].

    This is 2 pi / q, with q the distance from the Bragg peak at which the PRTF first falls below 1/e. If it never does, q is the
    largest distance.
    """
    below = np.nonzero(curve < PRTF_CUTOFF)[0]
    return float(2 * math.pi / frequency[below[0] if below.size else -1])
