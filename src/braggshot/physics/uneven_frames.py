r"""Compute the intensity of a crystal at frames off their angles, find how far they are off, and bring counts to even frames.

A frame that was to be taken at k was taken at k + d_k [steps]. The crystal predicts it there,

.. math:: M_k = \Bigl| \frac{1}{\sqrt{N_z}} \sum_z \hat\rho_{xy}(z)\, e^{-2 \pi i (k - N_z // 2 + d_k)(z - N_z // 2) / N_z} \Bigr|^2

with the transform over rows and columns under the hat. Crystal and deviations are fitted to the counts together: where the crystal
is fitted alone, it takes up much of the drift, and the deviations that it then asks for are far too small. Mean and slope of d are
taken off, because an offset is another angle and a slope another step: counts cannot tell them. Arrays are (z, y, x).
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from braggshot.volumes import BoolArray, ComplexArray, FloatArray

Floats = NDArray[np.float64]

ANSCOMBE = 0.375  # added to counts under the root, so that the variance of 2 sqrt(I + 3/8) is 1 for Poisson counts [photons]
FIRST_MOVE = 0.05  # scale of the deviations in the search relative to their prior, so that crystal and deviations move alike [1]
EDGE = 0.12  # amplitude of the crystal's surface, relative to that inside, beyond which voxels are left out of the support [1]
BLUR = (1.5, 0.5)  # standard deviation of the blur under that threshold, in the first and in the last round [voxels]
TURNS = 5  # steps of the search after which a fit pauses; the search goes on with what it knows
RIDGE = 1e-3  # weight of the ridge in the interpolation, relative to a frame's own weight [1]
FAR = 1.0  # distance from the nearest frame from which a plane is not determined [steps]
HEARSAY = 0.2  # largest share of the weights of a voxel that may come from filled counts [1]


@dataclass(frozen=True)
class Wander:
    """What deviations are expected: a smooth part of mean square (`smooth` / k)^2 in the cosine of k half waves, a white part.

    Parameters
    ----------
    smooth : size of the drift [steps]
    white : standard deviation of the jitter [steps]
    """

    smooth: float
    white: float

    def variance(self, frames: int) -> Floats:
        """Return the variance of the coefficients of the cosines 1 to frames - 1 [steps^2]."""
        k = np.arange(1, frames)
        return np.asarray((self.smooth / k) ** 2 + 2 * self.white**2 / frames)


def waves(frames: int) -> Floats:
    """Return cosines (frames, frames - 1) of 1, 2, ... half waves along the scan, without their mean and slope [1]."""
    t = (np.arange(frames) + 0.5) / frames
    return np.asarray(without_line(np.cos(np.pi * t[:, None] * np.arange(1, frames))))


def without_line(values: Floats) -> Floats:
    """Take the mean and the slope along the first axis off."""
    line = np.stack([np.ones(len(values)), np.linspace(-1, 1, len(values))], axis=1)
    return np.asarray(values - line @ np.linalg.lstsq(line, values, rcond=None)[0])


def intensity_at(rho: Tensor, moved: Tensor) -> Tensor:
    """Compute the intensity of a crystal `rho` (z, y, x) at the frames k + `moved`_k [photons]; see the module."""
    frames = len(rho)
    lateral = torch.fft.fft2(torch.fft.ifftshift(rho, dim=(1, 2)), norm="ortho")
    z = torch.arange(frames) - frames // 2
    turns = (z + moved)[:, None] * z / frames
    turning = torch.exp(-2j * math.pi * (turns - turns.detach().round())).to(rho.dtype) / math.sqrt(frames)
    return torch.fft.fftshift(torch.tensordot(turning, lateral, 1), dim=(1, 2)).abs().square()


def fit_frames(
    counts: FloatArray, seen: BoolArray, rho: ComplexArray, moved: Floats, wander: Wander | None, rounds: int, turns: int = 50
) -> Generator[None, None, tuple[ComplexArray, Floats]]:
    """Fit a crystal and the deviations of the frames to counts together, in rounds that each draw the support anew.

    It pauses after every `TURNS` turns, so that the caller can do other work; its value is what it found.

    Parameters
    ----------
    counts, seen : counts [photons], and True where they are fitted
    rho : crystal to begin from [sqrt(photons)]
    moved : (z,) deviations to begin from [steps]
    wander : what deviations are expected; None holds them
    rounds, turns : number of rounds, and of steps of the search (L-BFGS) in each

    Returns
    -------
    rho, moved : crystal and deviations
    """
    for number in range(rounds):
        blur = BLUR[0] + (BLUR[1] - BLUR[0]) * number / max(rounds - 1, 1)
        rho, moved = yield from _fit_round(counts, seen, rho, moved, wander, turns, blur)
    return rho, moved


def _fit_round(
    counts: FloatArray, seen: BoolArray, rho: ComplexArray, moved: Floats, wander: Wander | None, turns: int, blur: float
) -> Generator[None, None, tuple[ComplexArray, Floats]]:
    r"""Minimise the misfit :math:`\frac12 \sum (2\sqrt{M + 3/8} - 2\sqrt{I + 3/8})^2` and that of the deviations to their prior."""
    support = torch.from_numpy(_support(rho, blur))
    weight = torch.from_numpy(seen.astype(np.float32))
    root = 2 * torch.sqrt(torch.from_numpy(counts.astype(np.float32)) + ANSCOMBE)
    start = torch.view_as_real(torch.from_numpy(rho.astype(np.complex64)))[support]
    size = float(start.square().sum(1).mean().sqrt()) or 1.0
    inside = (start / size).requires_grad_()
    frames = len(counts)
    deviation = torch.from_numpy(np.sqrt((wander or Wander(0.0, 0.0)).variance(frames)))
    basis, begin = torch.from_numpy(waves(frames)) * deviation, torch.from_numpy(moved)
    free = torch.zeros(frames - 1, dtype=torch.float64, requires_grad=wander is not None)
    per_voxel = 100 / float(weight.sum())

    def place() -> tuple[Tensor, Tensor]:
        body = torch.zeros(*counts.shape, 2).index_put((support,), inside * size)
        return torch.view_as_complex(body), begin + FIRST_MOVE * basis @ free

    search = torch.optim.LBFGS(
        [inside, free] if wander is not None else [inside], max_iter=TURNS, max_eval=2 * TURNS, history_size=30,
        tolerance_grad=1e-9, tolerance_change=1e-12, line_search_fn="strong_wolfe",
    )  # fmt: skip

    def misfit() -> Tensor:
        search.zero_grad()
        root_model = 2 * torch.sqrt(intensity_at(*place()) + ANSCOMBE)
        loss = ((root_model - root).square() * weight).sum() + (FIRST_MOVE * free).square().sum()
        loss = loss / 2 * per_voxel
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    for _ in range(-(-turns // TURNS)):
        search.step(misfit)  # type: ignore[no-untyped-call]
        yield
    with torch.no_grad():
        body, there = place()
    return body.numpy(), without_line(there.numpy())


def _support(rho: ComplexArray, blur: float) -> BoolArray:
    amplitude = ndimage.gaussian_filter(np.abs(rho), blur)
    typical = np.percentile(amplitude[amplitude > 0.1 * amplitude.max()], 90)
    return np.asarray(amplitude > EDGE * typical)


def to_even_frames(
    counts: FloatArray, valid: BoolArray, filled: FloatArray, moved: Floats, extent: float
) -> tuple[NDArray[np.float32], BoolArray]:
    r"""Bring counts that were taken at the frames k + `moved`_k to the frames k, by band-limited interpolation.

    .. math:: R = B_0 S B^H (B S B^H + \lambda 1)^{-1}

    B and B_0 are the waves :math:`e^{2 \pi i m \theta / N}` at the frames as taken and as wanted. S is 1 up to the shift at which
    the autocorrelation of the crystal ends, and faint beyond it.

    Parameters
    ----------
    counts, valid : counts [photons], and True where they can be trusted
    filled : counts to take where they cannot, such as those that a crystal predicts [photons]
    moved : (z,) deviations [steps]
    extent : extent of the crystal along the frames [voxels]

    Returns
    -------
    counts, valid : at even frames; planes that no frame is near, and voxels that rest on filled counts, are not valid
    """
    frames, place = len(counts), np.arange(len(counts))
    shift = place - frames // 2
    band = np.where(np.abs(shift) <= extent + 1, 1.0, RIDGE)
    taken, even = (np.exp(2j * np.pi / frames * (place + by)[:, None] * shift) for by in (moved, np.zeros(frames)))
    kernel = (taken * band) @ taken.conj().T + RIDGE * frames * np.eye(frames)
    onto = ((even * band) @ taken.conj().T @ np.linalg.inv(kernel)).real
    found = np.maximum(np.tensordot(onto, np.where(valid, counts, filled), 1), 0).astype(np.float32)
    hearsay = np.tensordot(np.abs(onto), (~valid).astype(np.float64), 1) / np.abs(onto).sum(1)[:, None, None]
    near = np.abs(place[:, None] - (place + moved)).min(1) <= FAR
    good = np.asarray((hearsay <= HEARSAY) & near[:, None, None])
    return found * good, good
