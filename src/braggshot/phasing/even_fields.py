"""Begin from paraboloids where random starts fail: at a crystal whose shape and phase have a centre of inversion.

Strain that is the same at r and -r, such as that of a shell on a cube, a ball or a cylinder, gives a phase that is even about the
centre: phi(r) = phi(-r). Crystal and twin then fill the same body with opposite curvature. Random starts shrink to a few bright
voxels, which explain most of the smooth pattern. Such a pattern tells what it is: it is the same at q and -q.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from braggshot.iterative.iterate import Guess
from braggshot.iterative.projections import Measured
from braggshot.physics.fourier import to_corner

SYMMETRIC = 0.99  # least symmetry of the pattern of such a crystal; of other strained crystals it is at most 0.97 [1]
COMPARED = 0.5  # least share of the pattern that its inversion must overlap [1]
# Smallest and largest phase range of a paraboloid [rad], and smallest and largest factor of its curvature along an axis [1].
RANGES, CURVATURES = (np.pi, 4.5 * np.pi), (0.7, 1.3)


def is_even(data: Measured) -> bool:
    """Tell whether the pattern is that of a crystal whose shape and phase have a centre of inversion."""
    return inversion_symmetry(data) >= SYMMETRIC


def inversion_symmetry(data: Measured) -> float:
    r"""Compute how alike a pattern and its inversion through a point are; held-out voxels are left out.

    .. math:: \max_c \frac{\sum_k m_k m_{c - k}}{\sum_k m_k^2 v_{c - k}}

    with the measured magnitude m, zero where the mask v is zero; both sums are convolutions.

    Returns
    -------
    The symmetry, from 0 to 1; a point c where less than half of the pattern has a partner does not count.
    """
    seen = data.valid.clone().view(-1).index_fill_(0, data.free, False).view(data.shape).float()
    magnitude = data.magnitude * seen
    transforms = [torch.fft.fftn(part) for part in (magnitude, magnitude.square(), seen)]
    product = torch.fft.ifftn(transforms[0].square()).real
    power = torch.fft.ifftn(transforms[1] * transforms[2]).real
    enough = power > COMPARED * magnitude.square().sum()
    return float((product[enough] / power[enough]).max()) if enough.any() else 0.0


def paraboloids(data: Measured, oversampling: Sequence[float], number: int, seed: int) -> list[Guess]:
    r"""Make guesses of a crystal: an ellipsoid of the measured size with a parabolic phase.

    .. math:: \phi(r) = s \sum_i a_i (2 r_i / e_i)^2

    The extent e along axis i is the number of voxels over the oversampling. The range s and the factors a are drawn at random. The
    other sign of s belongs to the twin.

    Parameters
    ----------
    data : the measurement, on the grid of the guesses
    oversampling : array size over crystal size, per axis
    number : number of guesses
    seed : seed of the random numbers
    """
    generator = np.random.default_rng(seed)
    places = [2 * ratio * (np.arange(n) - n // 2) / n for n, ratio in zip(data.shape, oversampling, strict=True)]
    squares = np.stack(np.meshgrid(*(place**2 for place in places), indexing="ij"))
    inside, box = squares.sum(0) <= 1, squares.max(0) <= 1
    level = np.sqrt(float(data.magnitude.square().sum()) / max(1, int(inside.sum())))
    guesses = []
    for _ in range(number):
        phase = generator.uniform(*RANGES) * np.tensordot(generator.uniform(*CURVATURES, 3), squares, 1)
        rho = (level * inside * np.exp(1j * phase)).astype(np.complex64)
        start, support = (to_corner(torch.from_numpy(part)).to(data.magnitude.device) for part in (rho, box))
        guesses.append(Guess(start, support))
    return guesses
