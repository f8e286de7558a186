"""Measure how much of a crystal voxels without counts leave open.

A narrow gap hides scattering that the voxels around it and the size of the crystal still determine, because the amplitude
changes little over the width of a speckle. Where the frame cuts the peak, nothing beyond the cut is determined.
"""

from __future__ import annotations

import numpy as np
from scipy import fft

from braggshot.volumes import BoolArray, ComplexArray

ITERATIONS = 10  # iterations of `undetermined_share`; more of them believe in components that noise would hide


def unmeasured_share(rho: ComplexArray, support: BoolArray, valid: BoolArray) -> float:
    r"""Return the share of a crystal's scattering that falls on voxels without valid counts.

    .. math:: \sum_{q \notin V} |F_q|^2 \,/\, \sum_q |F_q|^2

    Parameters
    ----------
    rho, support : the crystal, which is cut to its support, (z, y, x), about the array's middle
    valid : mask V of the voxels with valid counts, the Bragg peak in the array's middle
    """
    power = np.abs(fft.fftn(_cut(rho, support), norm="ortho")) ** 2
    hidden = power[~fft.ifftshift(valid)].sum(dtype=np.float64)
    return float(hidden / max(float(power.sum(dtype=np.float64)), 1e-30))


def undetermined_share(rho: ComplexArray, support: BoolArray, valid: BoolArray, iterations: int = ITERATIONS) -> float:
    r"""Return the share of a crystal that neither the measured voxels nor its support determine.

    Suppose that even the phases of the measured voxels were known. The crystal is then sought in its support S from them alone,

    .. math:: A\,x = A\,\rho, \qquad A = P_S F^{-1} P_V F P_S,

    by conjugate gradients from x = 0. After n iterations components are left of which more than a share 1 - 1/n^2 or so scatters
    into unmeasured voxels; noise would hide them. The share is :math:`\sum|\rho - x|^2 / \sum|\rho|^2` [1].

    Parameters
    ----------
    rho, support, valid : as in `unmeasured_share`
    iterations : number n of iterations, of two transforms each
    """
    inside, measured = fft.ifftshift(support), fft.ifftshift(valid)

    def observe(x: ComplexArray) -> ComplexArray:
        seen = np.where(measured, fft.fftn(x, norm="ortho"), 0).astype(np.complex64)
        return np.where(inside, fft.ifftn(seen, norm="ortho"), 0).astype(np.complex64)

    # The error e = rho - x obeys the same equation with right side zero, so x itself is not needed.
    error = _cut(rho, support)
    total, residual = _power(error), observe(error)
    direction, size = residual, _power(residual)
    for _ in range(iterations):
        if size <= 1e-12 * total:
            break
        seen = observe(direction)
        step = size / float(np.vdot(direction, seen).real)
        error, residual = error - step * direction, residual - step * seen
        size, before = _power(residual), size
        direction = residual + size / before * direction
    return _power(error) / max(total, 1e-30)


def _cut(rho: ComplexArray, support: BoolArray) -> ComplexArray:
    """Return a crystal cut to its support, as complex64, with the array's middle moved to its corner."""
    return fft.ifftshift(np.where(support, rho, 0).astype(np.complex64))


def _power(field: ComplexArray) -> float:
    return float(np.vdot(field, field).real)
