"""DiffractionVolume to Reconstruction: which strategy, which start, and what all starts say together.

``iterative`` runs many random starts through a recipe; voxels held out from all of them choose the best start (llk_free), and the
others say how far to trust it. ``oneshot`` and ``refine`` take hypotheses from a network and pass through the same selection.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from braggshot.errors import ConfigError, DataError
from braggshot.physics import metrics
from braggshot.physics.forward import mutual_coherence, spread
from braggshot.physics.fourier import to_centre
from braggshot.physics.geometry import direct_basis
from braggshot.physics.strain import spread as spread_of
from braggshot.refine.iterate import Guess, Progress, RefineConfig, Start, run_starts
from braggshot.refine.projections import Measured, ShrinkWrap, held_out_voxels, measured
from braggshot.verdict import Limits, judge
from braggshot.volumes import BoolArray, ComplexArray, DiffractionVolume, Ensemble, FloatArray, Quality, Reconstruction, Uncertainty

PRTF_CUTOFF = 1 / math.e


@dataclass(frozen=True)
class PhasingConfig:
    """How a volume is phased.

    Parameters
    ----------
    method : "auto" or "iterative" ("oneshot" and "refine" need a network)
    starts : random starts
    seed : of the held-out voxels and, plus its number, of each start
    device : "auto", "cpu" or "cuda"
    free : share of the valid voxels that is held out [1]
    free_radius : radius of the held-out balls [voxels]
    free_centre : radius about the peak, as a share of each axis, where nothing is held out [1]
    partial_coherence : "auto" lets the best start go on while its point spread is estimated, and where that predicts the held-out
        voxels better all starts follow; "on" asks no voxels; "off"
    coherence_recipe : the second round
    coherence_gain : share by which llk_free must fall for "auto" to keep it [1]
    refine : how one start is phased
    limits : what the verdict tolerates
    """

    method: Literal["auto", "oneshot", "refine", "iterative"] = "auto"
    starts: int = 10
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    free: float = 0.05
    free_radius: int = 1
    free_centre: float = 0.1
    partial_coherence: Literal["auto", "on", "off"] = "auto"
    coherence_recipe: str = "PSF+8*(40*HIO+10*ER+PSF)+60*ER+PSF+20*ER"
    coherence_gain: float = 0.2
    refine: RefineConfig = field(default_factory=RefineConfig)
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.starts < 1:
            raise ConfigError(f"phasing.starts must be at least 1, found {self.starts}.")
        if not 0 <= self.free < 0.5:
            raise ConfigError(f"phasing.free is a share between 0 and 0.5, found {self.free}.")


def phase(volume: DiffractionVolume, config: PhasingConfig | None = None) -> Generator[Progress, None, Reconstruction]:
    """Phase a volume, yielding progress; the generator's value is the reconstruction.

    Raises
    ------
    DataError : if no valid voxel holds a count.
    ConfigError : for a method that is not installed or a device that is not there.
    """
    config = config or PhasingConfig()
    if config.method in {"oneshot", "refine"}:
        raise ConfigError(f"method {config.method!r} needs a trained network, and none is installed; use --method iterative.")
    torch.set_flush_denormal(True)  # denormal numbers make a CPU crawl
    began = time.perf_counter()
    data = prepare_measured(volume, config)
    host = _on_cpu(data)
    starts = yield from run_starts(data, config.refine, config.starts, config.seed)
    if config.partial_coherence != "off":
        starts = yield from _with_point_spread(starts, data, host, config)
    phased = time.perf_counter()
    result = assemble(volume, host, starts, config)
    seconds = {"phasing": phased - began, "assembly": time.perf_counter() - phased}
    return replace(result, seconds=seconds)


def _with_point_spread(
    starts: list[Start], data: Measured, host: Measured, config: PhasingConfig
) -> Generator[Progress, None, list[Start]]:
    """Go on from the starts while estimating the point spread; "auto" keeps that only where held-out voxels gain from it.

    A wrong object also gains from blur, so the question is put to the best start alone, and by the voxels it has not seen.
    """
    best = min(range(len(starts)), key=lambda number: score(starts[number], host).llk_free)
    tried = yield from _second_round([starts[best]], data, config, starts[best].seed)
    before, after = score(starts[best], host).llk_free, score(tried[0], host).llk_free
    # Not a number, where nothing was held out, is no gain.
    if config.partial_coherence == "auto" and not after < (1 - config.coherence_gain) * before:
        return starts
    others = [start for number, start in enumerate(starts) if number != best]
    rest = yield from _second_round(others, data, config, config.seed)
    return [*rest[:best], tried[0], *rest[best:]]


def _second_round(starts: list[Start], data: Measured, config: PhasingConfig, seed: int) -> Generator[Progress, None, list[Start]]:
    recipe = replace(config.refine, recipe=config.coherence_recipe, shrink_wrap=_settled(config.refine.shrink_wrap))
    first = [Guess(start.rho, start.support, start.threshold) for start in starts]
    return (yield from run_starts(data, recipe, len(starts), seed, first))


def _settled(shrink_wrap: ShrinkWrap) -> ShrinkWrap:
    """The width that the first round ended with; a wide blur would undo its support."""
    return replace(shrink_wrap, sigma_start=shrink_wrap.sigma_end)


def prepare_measured(volume: DiffractionVolume, config: PhasingConfig) -> Measured:
    """The volume on the device to use, its held-out voxels drawn."""
    if not (volume.intensity[volume.valid] > 0).any():
        raise DataError(f"{volume.name}: no valid voxel holds a count; check the mask and the threshold.")
    valid = torch.from_numpy(np.ascontiguousarray(volume.valid))
    generator = torch.Generator().manual_seed(config.seed)
    held_out = held_out_voxels(valid, config.free, config.free_radius, config.free_centre, generator)
    data = measured(torch.from_numpy(np.ascontiguousarray(volume.intensity, dtype=np.float32)), valid, held_out)
    device = _device(config.device)
    return Measured(*(getattr(data, name).to(device) for name in Measured.__dataclass_fields__))


def _device(wish: str) -> torch.device:
    if wish == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device 'cuda' was asked for, but no CUDA device is there; use --device cpu.")
    return torch.device("cuda" if wish != "cpu" and torch.cuda.is_available() else "cpu")


def _on_cpu(data: Measured) -> Measured:
    return Measured(*(getattr(data, name).cpu() for name in Measured.__dataclass_fields__))


@dataclass(frozen=True)
class Score:
    """One start against its measurement; fields as in `Quality`, scale as in `metrics.misfit`."""

    chi2: float
    r_factor: float
    llk: float
    llk_free: float
    chi2_coherent: float
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
    return Score(result.chi2, result.r_factor, float(llk), float(free), coherent.chi2, result.scale)


def assemble(volume: DiffractionVolume, data: Measured, starts: list[Start], config: PhasingConfig) -> Reconstruction:
    """Choose a start by llk_free, align the others to it, and judge."""
    scores = [score(start, data) for start in starts]
    # Without held-out voxels llk_free is not a number; chi2 then has to choose, and the verdict says less.
    keys = [s.llk_free if config.free > 0 else s.chi2 for s in scores]
    best = min(range(len(starts)), key=keys.__getitem__)
    rho, support, shift = _canonical(starts[best], scores[best].scale)
    reference = torch.from_numpy(rho)
    aligned, correlation, twins = [], [], []
    for number, start in enumerate(starts):
        result = metrics.align(to_centre(start.rho) * scores[number].scale, reference)
        aligned.append(result.field)
        correlation.append(1.0 if number == best else result.correlation)
        twins.append(result.twin)
    agreeing = [a for a, c in zip(aligned, correlation, strict=True) if c >= config.limits.agreement]
    basis = None if volume.reciprocal_basis is None else direct_basis(volume.reciprocal_basis, volume.shape)
    ensemble, resolution = _ensemble(volume, starts, scores, correlation, twins, aligned, agreeing)
    chosen = scores[best]
    quality = Quality(
        chosen.chi2, chosen.r_factor, chosen.llk, chosen.llk_free, tuple(correlation), resolution, chosen.chi2_coherent
    )
    verdict, reasons = judge(volume, rho, support, quality, config.limits)
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
        method="iterative",
        choices={
            "sign": "forward transform exp(-2 pi i k.n / N), so phase = -q.u",
            "twin": f"as start {best} came out; {sum(twins)} of {len(starts)} starts were its conjugate inversion and were turned",
            "origin": f"support centred at N // 2 by a shift of {shift} voxels; mean phase inside the support is zero",
            "start": f"start {best} of {len(starts)}, chosen by " + ("llk_free" if config.free > 0 else "chi2"),
        },
        psf={"sigma": starts[best].sigma, "eta": starts[best].eta} if any(starts[best].sigma) else None,
        uncertainty=_uncertainty(agreeing, support, basis, volume.q_bragg),
    )


def _uncertainty(agreeing: list[Tensor], support: BoolArray, basis: FloatArray | None, q: FloatArray | None) -> Uncertainty | None:
    """Spread of the starts that agree; one alone says nothing about it."""
    if len(agreeing) < 2:
        return None
    phase, strain = spread_of(torch.stack(agreeing).numpy(), support, basis, q)
    return Uncertainty(phase, strain, len(agreeing), "starts that agree")


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
    """Table of starts, PCA weights of all, PRTF of those that agree, and the resolution it gives [m]."""
    _, weights = metrics.modes(torch.stack(aligned))
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
    ensemble = Ensemble(columns, weights.numpy(), curve.numpy(), frequency)
    # With one start the PRTF only says that the start fits its data; it is no measure of resolution.
    resolution = _resolution(curve.numpy(), frequency) if basis is not None and len(agreeing) > 1 else None
    return ensemble, resolution


def _resolution(curve: FloatArray, frequency: FloatArray) -> float:
    """Full period 2 pi / q where the PRTF first falls below 1/e, or of the last shell if it never does [m]."""
    below = np.nonzero(curve < PRTF_CUTOFF)[0]
    return float(2 * math.pi / frequency[below[0] if below.size else -1])
