r"""Resample a pattern at wider spacings, on which its crystal is phased in a fraction of the time.

An intensity is band-limited, because the crystal is finite: its samples at an oversampling of 2 determine it everywhere. So a
pattern that is sampled more finely than needed is resampled at wider spacings w:

.. math:: I'_j = \prod_a w_a \frac{\sum_k L(k / w - j)\, I_k}{\sum_k L(k / w - j)},
   \qquad L(x) = \mathrm{sinc}(x)\, \mathrm{sinc}(x / 5), \quad |x| < 5

I_k are the counts of the voxels k, I'_j those of the samples j, and a numbers the axes. L is Lanczos' kernel, applied axis by axis;
the factors w_a keep the number of photons.

The samples reach as far out as the voxels, so the crystal keeps its voxels of direct space; only the empty space around it becomes
smaller. Zeros around the crystal bring it back to the finer spacing exactly, by the definition of the Fourier transform.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from braggshot.iterative.iterate import Guess, IterativeConfig, Progress, Start, continue_starts, run_starts
from braggshot.iterative.projections import Measured, ShrinkWrap, blur, measured
from braggshot.physics.autocorrelation import fill_unmeasured
from braggshot.physics.fourier import AXES, crop, inverted, pad, to_centre, to_corner

LOBES = 5  # number of lobes of Lanczos' kernel on either side
# Number of iterations that fill the voxels without valid counts. Each limits the band, then restores the valid counts.
TURNS = 10
# Numbers of samples are multiples of these, (z, y, x): transforms of other lengths take up to three times as long for a voxel.
STEPS = (4, 4, 8)
SLOW = (11, 13, 17, 19, 23, 29, 31)  # prime factors of lengths whose transforms take long


@dataclass(frozen=True)
class Spacing:
    """Change from the voxels of a pattern to samples at wider spacings.

    Parameters
    ----------
    original : shape of the pattern (z, y, x) [voxels]
    spacing : distance from one sample to the next, per axis, at least 1 [voxels of the pattern]
    shape : number of samples per axis; the middle sample lies on the voxel N // 2, and samples beyond the pattern are not valid
    oversampling : number of samples over crystal size, per axis, if the samples reach as far out as the pattern [1]
    """

    original: tuple[int, int, int]
    spacing: tuple[float, float, float]
    shape: tuple[int, int, int]
    oversampling: tuple[float, float, float]


def widest(shape: Sequence[int], oversampling: Sequence[float], wanted: float) -> Spacing:
    """Choose spacings that leave at least a wanted oversampling, with as many samples as give fast transforms.

    Parameters
    ----------
    shape : shape of the pattern
    oversampling : measured oversampling of the pattern, per axis
    wanted : least oversampling that is left; an axis that has less stays as it is [1]
    """
    counts = [min(n, _fast(n * wanted / s, step)) for n, s, step in zip(shape, oversampling, STEPS, strict=True)]
    z, y, x = (n / m for n, m in zip(shape, counts, strict=True))
    whole, samples = ((sizes[0], sizes[1], sizes[2]) for sizes in (shape, counts))
    return Spacing(whole, (z, y, x), samples, (oversampling[0] / z, oversampling[1] / y, oversampling[2] / x))


def _fast(least: float, step: int) -> int:
    """Return the smallest multiple of `step` from `least` on without a slow prime factor."""
    number = step * math.ceil(least / step)
    while any(number % prime == 0 for prime in SLOW):
        number += step
    return number


def widen(data: Measured, oversampling: Sequence[float], wanted: float) -> Measured:
    """Resample a measurement at the widest spacings that leave a wanted oversampling; held-out voxels are not used.

    The result has no held-out voxels: bring starts back (`reshape_start`) to compare them with those of `data`. Where nothing would
    be gained, the result is `data` itself.
    """
    how = widest(tuple(data.shape), oversampling, wanted)
    if how.shape == how.original:
        return data
    seen = data.valid.clone().view(-1).index_fill_(0, data.free, False).view(data.shape)
    counts, good = resample(to_centre(data.intensity * seen), to_centre(seen), how)
    return measured(counts, good, torch.zeros_like(good))


def refine_wide(
    guesses: Sequence[Guess], data: Measured, wide: Measured, rounds: Sequence[IterativeConfig], polish: str, seed: int
) -> Generator[Progress, None, list[Start]]:
    """Phase from guesses at wider spacings, then by the recipe `polish` on all voxels of `data`, in a support that stays.

    Parameters
    ----------
    guesses : guesses on the grid of `data`
    wide : `data` at wider spacings, by `widen`; if it is `data` itself, there is nothing to polish
    rounds : settings of the phasing at wider spacings, one after the other; each start draws a new threshold for each
    seed : start k draws all its random numbers from seed + k
    """
    left = [reshape_guess(guess, wide.shape) for guess in guesses]
    for config in rounds:
        found = yield from run_starts(wide, config, len(guesses), seed, left)
        left = [Guess(start.rho, start.support) for start in found]
    if wide is data:
        return found
    settings = replace(rounds[-1], recipe=polish, shrink_wrap=ShrinkWrap(period=0))
    return (yield from continue_starts([reshape_start(start, data.shape) for start in found], data, settings))


def reshape_start(start: Start, shape: Sequence[int]) -> Start:
    """Bring a start to a pattern of another shape that reaches as far out: cut the space around it, or put zeros there."""
    return replace(start, rho=_reshape(start.rho, shape), support=_reshape(start.support, shape))


def reshape_guess(guess: Guess, shape: Sequence[int]) -> Guess:
    """Bring a guess to a pattern of another shape that reaches as far out: cut the space around it, or put zeros there."""
    return replace(guess, rho=_reshape(guess.rho, shape), support=_reshape(guess.support, shape))


def _reshape(field: Tensor, shape: Sequence[int]) -> Tensor:
    centred = to_centre(field)
    smaller = [min(a, b) for a, b in zip(field.shape, shape, strict=True)]
    return to_corner(pad(crop(centred, smaller), shape))


def resample(counts: Tensor, valid: Tensor, how: Spacing) -> tuple[Tensor, Tensor]:
    """Resample counts and the mask of valid voxels (..., z, y, x), centred at N // 2.

    A sample is valid where at least half of the kernel's weight lies on valid voxels. The kernel needs a smooth pattern, so voxels
    that are not valid are filled with counts that are plausible for a crystal of the measured extent.
    """
    kernels = [_kernel(*line, counts.device) for line in zip(how.original, how.shape, how.spacing, strict=True)]
    good = along_axes(kernels, valid.to(counts.dtype)) >= 0.5
    brought = math.prod(how.spacing) * along_axes(kernels, _filled(counts, valid, how)).clamp_min(0)
    return torch.where(good, brought, torch.zeros_like(brought)), good


def _kernel(n: int, samples: int, spacing: float, device: torch.device) -> Tensor:
    """Compute the weights (samples, n) with which n voxels along one axis add up to each sample.

    The weights of a sample are zero if more than half of its kernel lies beyond the voxels.
    """
    voxel, sample = (torch.arange(size, dtype=torch.float64, device=device) - size // 2 for size in (n, samples))
    x = voxel / spacing - sample[:, None]
    # Rounded: nothing at all from other voxels where a sample lies on one.
    weight = (torch.sinc(x) * torch.sinc(x / LOBES) * (x.abs() < LOBES)).round(decimals=12)
    total = weight.sum(1, keepdim=True)
    return torch.where(total >= spacing / 2, weight / total, 0).float()


def along_axes(matrices: Sequence[Tensor], field: Tensor) -> Tensor:
    """Multiply each of the last three axes of a field by a matrix of its own, (new length, old length)."""
    for axis, matrix in zip((-3, -2, -1), matrices, strict=True):
        field = (matrix @ field.transpose(axis, -2)).transpose(axis, -2)
    return field.contiguous()


def _filled(counts: Tensor, valid: Tensor, how: Spacing) -> Tensor:
    """Fill counts that are not valid with values that fit the band of the pattern, which the crystal's extent limits.

    The first values are those of I(-q), which differ from I(q) if the crystal is strained. Then two steps alternate: limit the
    band, and restore the valid counts (algorithm of Papoulis and Gerchberg).
    """
    filled: Tensor = fill_unmeasured(counts, valid, inverted, lambda field: blur(field.float(), 2.0))
    if max(how.spacing) == 1 or valid.all():
        return filled
    inside = torch.ones((), dtype=torch.bool, device=counts.device)
    for axis, (n, w, ratio) in enumerate(zip(how.original, how.spacing, how.oversampling, strict=True)):
        shift = torch.fft.fftfreq(n, 1 / n, device=counts.device).abs()
        extent = 1.05 * n / (ratio * w) + 1 if w > 1 else n
        inside = inside & (shift <= extent)[: n // 2 + 1 if axis == 2 else n].reshape([-1 if a == axis else 1 for a in range(3)])
    for _ in range(TURNS):
        limited = torch.fft.irfftn(torch.fft.rfftn(filled, dim=AXES) * inside, s=how.original, dim=AXES)
        filled = torch.where(valid, counts, limited.clamp_min(0))
    return filled
