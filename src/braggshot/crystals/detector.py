"""Turn expected photons into the counts of a detector: point spread, background, Poisson noise, gaps and bad pixels.

Volumes are batches (n, z, y, x) centred at N // 2. Gaps, dead pixels and the beam stop hide the same pixels of every frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from braggshot.crystals.random import uniform
from braggshot.physics.forward import convolve_psf
from braggshot.physics.fourier import AXES, frequencies, pad

Range = tuple[float, float]


@dataclass(frozen=True)
class DetectorSettings:
    """Settings of the simulated detector; the defaults describe a perfect detector.

    A range is (lowest, highest), and a value in it is drawn for each pattern.

    Parameters
    ----------
    background : range of the uniform background [photons per voxel]
    point_spread : range of the standard deviation of the Gaussian blur that partial coherence causes [voxels]
    gaps : probability of a gap across the rows, and of one across the columns [1]
    gap_widths : possible widths of a gap, one of which is drawn [pixels]
    beam_stop : range of the radius of a disc, centred on the brightest pixel, that hides pixels, 0 for none [pixels]
    dead : share of dead pixels [1]
    saturation : counts from which a voxel is no longer trusted, 0 for no limit
    missing : largest number of frames of a scan that are lost
    """

    background: Range = (0.0, 0.0)
    point_spread: Range = (0.0, 0.0)
    gaps: float = 0.0
    gap_widths: tuple[int, ...] = (3, 6, 12, 38)
    beam_stop: Range = (0.0, 0.0)
    dead: float = 0.0
    saturation: float = 0.0
    missing: int = 0


def scale_exposure(rho: Tensor, counts: Tensor) -> Tensor:
    """Scale crystals so that `counts` (n,) photons are expected in the brightest voxel of |F[rho]|^2."""
    # The transform is not centred: a shift of the origin changes only the phases, not the maximum of the modulus.
    field = torch.view_as_real(torch.fft.fftn(rho, dim=AXES, norm="ortho"))
    peak = field.square().sum(-1).amax(AXES)
    return rho * (counts / peak).sqrt()[:, None, None, None]


def diffract(box: Tensor, shape: Sequence[int]) -> Tensor:
    """Compute the intensities |F[rho]|^2 (n, z, y, x) of crystals rho, centred at N // 2.

    `box` (n, z, y, x) holds the crystals. Before the transform F the box is padded with zeros to `shape`. A phase ramp on the
    small box centres the transform at N // 2, which is cheaper than rolling two large arrays.
    """
    for axis, size in zip(AXES, shape, strict=True):
        index = torch.arange(box.shape[axis], device=box.device)
        box = box * torch.exp(2j * math.pi / size * (index * (size // 2) % size)).reshape(-1, *[1] * (-1 - axis))
    field = torch.fft.fftn(pad(box, shape), dim=AXES, norm="ortho")
    return torch.addcmul(field.real.square(), field.imag, field.imag)


def measure(generator: Generator, expected: Tensor, settings: DetectorSettings | None = None) -> tuple[Tensor, Tensor]:
    """Draw counts for expected intensities, and a mask of the valid voxels.

    Poisson noise is applied to the intensity, never to the magnitude.

    Parameters
    ----------
    generator : random numbers, on the device of `expected`
    expected : (n, z, y, x) expected intensity [photons]
    settings : properties of the detector

    Returns
    -------
    counts : (n, z, y, x) [photons], 0 where not valid
    valid : (n, z, y, x), False on hidden pixels, saturated voxels and lost frames
    """
    settings = settings or DetectorSettings()
    n, shape = expected.shape[0], expected.shape[1:]
    if settings.point_spread[1] > 0:
        expected = blur(expected, uniform(generator, *settings.point_spread, n))
    if settings.background[1] > 0:
        expected = expected + uniform(generator, *settings.background, n)[:, None, None, None]
    counts = torch.poisson(expected, generator=generator)
    pixels, arrived = draw_chip(generator, counts, settings), draw_frames(generator, n, shape[0], settings.missing)
    valid = pixels[:, None] & arrived[:, :, None, None]
    if settings.saturation > 0:
        valid = valid & (counts < settings.saturation)
    return counts * valid, valid


def blur(expected: Tensor, sigma: Tensor) -> Tensor:
    """Convolve intensities with a Gaussian of standard deviation `sigma` (n,) [voxels], the same along each axis."""
    along = (frequency.reshape(-1) for frequency in frequencies(expected.shape[1:], sigma.device))
    z, y, x = (torch.exp(-2 * (math.pi * sigma[:, None] * frequency) ** 2) for frequency in along)
    x = x[:, : x.shape[1] // 2 + 1]
    coherence = (z[:, :, None] * y[:, None, :])[..., None] * x[:, None, None, :]
    return convolve_psf(expected, coherence)  # the origin does not change a convolution


def draw_chip(generator: Generator, counts: Tensor, settings: DetectorSettings) -> Tensor:
    """Draw a mask (n, rows, columns) of the pixels of the detector, False on gaps, the beam stop and dead pixels."""
    n, _, rows, columns = counts.shape
    valid = _draw_gap(generator, n, rows, settings)[:, :, None] & _draw_gap(generator, n, columns, settings)[:, None, :]
    if settings.beam_stop[1] > 0:
        brightest = counts.sum(1).flatten(1).argmax(1)
        row = torch.arange(rows, device=counts.device)[:, None] - (brightest // columns)[:, None, None]
        column = torch.arange(columns, device=counts.device) - (brightest % columns)[:, None, None]
        valid &= row**2 + column**2 >= uniform(generator, *settings.beam_stop, n)[:, None, None] ** 2
    if settings.dead > 0:
        valid &= uniform(generator, 0, 1, *valid.shape) >= settings.dead
    return valid


def draw_frames(generator: Generator, n: int, count: int, missing: int) -> Tensor:
    """Draw a mask (n, count) of the frames; a random number of them, from 0 to `missing`, is lost (False)."""
    if not missing:
        return torch.ones(n, count, dtype=torch.bool, device=generator.device)
    rank = uniform(generator, 0, 1, n, count).argsort(1).argsort(1)
    return rank >= torch.randint(missing + 1, (n, 1), generator=generator, device=generator.device)


def _draw_gap(generator: Generator, n: int, size: int, settings: DetectorSettings) -> Tensor:
    """Draw a mask (n, size) of the rows or columns that no gap covers.

    A gap may come close to the middle of the detector but never covers it, because experiments keep the peak out of the gaps.
    """
    present, side, place, which = uniform(generator, 0, 1, 4, n, 1)
    widths = torch.tensor(settings.gap_widths, device=generator.device)
    width = widths[(which * len(widths)).long()]
    clear = 2  # number of rows or columns on either side of the middle that no gap covers
    start = clear + 1 + (place * (size // 2 - clear)).long()
    from_middle = torch.arange(size, device=generator.device) - size // 2
    from_middle = torch.where(side < 0.5, from_middle, -from_middle)
    return ~((from_middle >= start) & (from_middle < start + width) & (present < settings.gaps))
