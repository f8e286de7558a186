r"""Measure how finely a pattern is sampled, from the intensity alone.

The inverse transform of an intensity is the autocorrelation of the object (the Patterson function),

.. math:: A(s) = \sum_r \rho(r)\, \rho^*(r + s), \qquad |A(s)| = 0 \;\text{ for }\; |s_a| \ge e_a

so the shift s_a at which |A| vanishes along axis a is the extent e_a of the object, and N_a / e_a is its oversampling, for any
phase inside. Towards this shift |A| falls with the volume in which two shifted copies of the object overlap: linearly in the
remaining shift for a facet, quadratically for a curved rim, cubically for a corner. A straight line through sqrt|A| just above the
noise finds the end in these three cases to a few percent. Arrays are numpy, (z, y, x), origin at N // 2; extents are in voxels of
direct space.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import fft, ndimage

from braggshot.errors import DataError
from braggshot.volumes import BoolArray, FloatArray

Number = TypeVar("Number", bound=np.generic)

# Least modulus of the autocorrelation that is taken for the object and not for noise [standard deviations of the noise].
SIGNIFICANT = 5.0
# Lowest and highest modulus of the autocorrelation, relative to its maximum, from which the object's end is extrapolated [1].
FLOOR, CEILING = 0.003, 0.05
# Largest ln of the ratio between the halo in the middle of the array and at its faces [1]. The halo is a faint background around
# the autocorrelation, from differences between pixels and between the fluxes of frames.
GROWTH = 4.0


def autocorrelation(intensity: FloatArray, valid: BoolArray | None = None) -> tuple[NDArray[np.float32], float]:
    """Compute the modulus of the object's autocorrelation and its noise, both relative to the centre value A(0).

    The intensity is tapered to the faces of the array by a cosine, because a pattern that is cut there would ring. A voxel that is
    not valid takes the count I(-q) on the other side of the peak, which equals I(q) without strain. If I(-q) is not valid either,
    the voxel takes the mean of log(1 + I) over its neighbours.

    Parameters
    ----------
    intensity : (z, y, x) [photons]
    valid : (z, y, x), None means all

    Returns
    -------
    modulus : (z, y, x), 1 at N // 2
    noise : standard deviation of the modulus by Poisson noise, the same everywhere

    Raises
    ------
    DataError : if there are no counts.
    """
    filled = np.asarray(intensity, np.float32) if valid is None or valid.all() else _fill(intensity, valid)
    filled = filled * taper(filled.shape)
    total = float(filled.sum(dtype=np.float64))
    if not total > 0:
        raise DataError("there are no counts to measure the oversampling from.")
    # Modulus of the autocorrelation; the phase is not used, so the origin of the intensity need not be moved before the transform.
    modulus = np.abs(fft.fftshift(fft.fftn(filled)))
    return modulus / np.float32(total), float(np.sqrt(total)) / total


def coherent_extent(modulus: NDArray[np.float32], noise: float) -> tuple[float, float, float]:
    """Measure the extent of the object along each axis where |A| ends [voxels of direct space]; at most N / 2.

    Differences between pixels and between the fluxes of frames leave a faint halo around the autocorrelation of the object. The
    end of the object is extrapolated from a level above the noise and above the halo, which is measured outside a first estimate
    of the object. The autocorrelation of a strained crystal is itself faint far out. So the halo is taken to be at most what the
    modulus at the faces of the array allows. The extent of a strongly strained crystal still comes out too small.

    Parameters
    ----------
    modulus, noise : as `autocorrelation` returns them
    """
    ceiling = min(max(CEILING, SIGNIFICANT * noise), 0.4)
    first = _ends(modulus, ceiling)
    halo = max(_halo(profile, end) for profile, end in zip(plane_maxima(modulus), first, strict=True))
    level = float(np.clip(1.5 * halo, min(max(FLOOR, SIGNIFICANT * noise), ceiling), ceiling))
    z, y, x = _ends(modulus, level)
    return z, y, x


def taper(shape: Sequence[int]) -> NDArray[np.float32]:
    """Return the cosine taper that falls from 1 in the middle of an array to nearly 0 at its faces."""
    return outer(*(np.cos(np.pi * (np.arange(size) - size // 2) / (size + 1)).astype(np.float32) for size in shape))


def outer(z: NDArray[Any], y: NDArray[Any], x: NDArray[Any]) -> NDArray[Any]:
    """Multiply values along three axes to a volume."""
    volume: NDArray[Any] = z[:, None, None] * y[:, None] * x
    return volume


def mirror(volume: NDArray[Number], centre: tuple[int, ...]) -> NDArray[Number]:
    """Reflect a volume through the voxel `centre`; 0 where the reflection of a voxel lies outside the array."""
    reflected = np.zeros_like(volume)
    low = [max(0, 2 * c - size + 1) for c, size in zip(centre, volume.shape, strict=True)]
    high = [min(size, 2 * c + 1) for c, size in zip(centre, volume.shape, strict=True)]
    common = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    reflected[common] = np.flip(volume[common])
    return reflected


def _fill(intensity: FloatArray, valid: BoolArray) -> NDArray[np.float32]:
    """Fill voxels that are not valid with the counts from the other side of the peak, as far as the array reaches there."""
    counts = np.where(valid, intensity, 0).astype(np.float32)
    peak = np.unravel_index(int(counts.argmax()), counts.shape)
    centre = tuple(int(index) for index in peak)
    filled: NDArray[np.float32] = fill_unmeasured(
        counts, valid, lambda field: mirror(field, centre), lambda field: ndimage.gaussian_filter(field.astype(np.float32), 2)
    )
    return filled


def fill_unmeasured(counts: Any, valid: Any, reflect: Callable[[Any], Any], smooth: Callable[[Any], Any]) -> Any:
    r"""Fill voxels that are not valid with the counts :math:`I(-q)` on the other side of the Bragg peak.

    If :math:`I(-q)` is not valid either, the mean of :math:`\ln(1 + I)` over the neighbours is taken.

    Parameters
    ----------
    counts, valid : numpy arrays or torch tensors of one shape; counts of voxels that are not valid are not looked at
    reflect : function that reflects an array, of counts or of validity, through q = 0; the function decides where q = 0 is and
        what lies beyond the array
    smooth : function that blurs a field by about two voxels
    """
    xp: Any = torch if isinstance(counts, torch.Tensor) else np
    known = valid | reflect(valid)
    filled = xp.where(valid, counts, reflect(xp.where(valid, counts, xp.zeros_like(counts))))
    if known.all():
        return filled
    level = smooth(xp.log1p(filled) * known) / xp.clip(smooth(known), 1e-6, None)
    return xp.where(known, filled, xp.expm1(level))


def plane_maxima(modulus: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Find, per axis, the largest modulus of the autocorrelation in the planes at shifts 0, 1, 2, ... to either side."""
    profiles = []
    for axis, size in enumerate(modulus.shape):
        planes = modulus.max(axis=tuple(other for other in range(3) if other != axis))
        shift = np.arange((size + 1) // 2)
        profiles.append(np.maximum(planes[size // 2 + shift], planes[size // 2 - shift]))
    return profiles


def _halo(profile: NDArray[np.float32], end: float) -> float:
    """Estimate the modulus of the halo, a faint background around the autocorrelation of the object.

    This is the largest modulus beyond the `end` of the object, but at most the modulus at the face of the array, extrapolated to
    `end`.
    """
    face = float(profile[-max(1, profile.size // 10) :].max())
    return min(float(profile[int(np.ceil(1.1 * end)) + 1 :].max(initial=0)), face * math.exp(GROWTH * (1 - end / profile.size)))


def _ends(modulus: NDArray[np.float32], level: float) -> list[float]:
    """Find where the object ends on each axis: extrapolate the part of the autocorrelation above `level` about its centre."""
    parts, _ = ndimage.label(modulus > 0.99 * level)
    body = np.where(parts == parts[tuple(size // 2 for size in modulus.shape)], modulus, 0)
    return [min(_end(np.sqrt(profile), level), size / 2) for profile, size in zip(plane_maxima(body), modulus.shape, strict=True)]


def _end(root: NDArray[np.float32], level: float) -> float:
    """Fit a line to the shifts at which sqrt|A|, with A the autocorrelation, falls to five heights; return the shift at height 0.

    The result is infinite if sqrt|A| stays above one of the heights.
    """
    heights = np.sqrt(np.geomspace(level, min(4 * level, 0.7), 5))
    last = np.array([np.flatnonzero(root >= height)[-1] for height in heights])
    if last.max() + 1 >= root.size:
        return np.inf
    shifts = last + (root[last] - heights) / (root[last] - root[last + 1])
    return float(np.polynomial.polynomial.polyfit(heights, shifts, 1)[0])
