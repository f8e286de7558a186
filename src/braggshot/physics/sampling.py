r"""Measure how finely a pattern is sampled, from the counts alone: the oversampling is array size over crystal size, per axis.

The transform of an intensity is the autocorrelation A(s) of the crystal. It ends at the crystal's extent, but where the crystal is
strained A is so faint far out that its end cannot be seen. The reason is that a few bright speckles make most of A. So every
speckle is given the same weight first (the pattern is *whitened*):

.. math:: r = \frac{I - m}{m + \sqrt m + 1 + 0.003\,\bar m}

with the counts I, their mean m over about a speckle, and the mean :math:`\bar m` of m over all photons. Whitened speckles of any
strained crystal are like those of a random field. So :math:`|\mathcal F r|^2` at a shift s is the volume that the crystal and its
copy, shifted by s, have in common. Beyond the extent only noise is left, whose level is known, because counts are Poisson numbers.

Arrays are numpy, (z, y, x) = (frames, rows, columns), origin at N // 2; extents are in voxels of direct space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from braggshot.physics.autocorrelation import autocorrelation, coherent_extent, outer, plane_maxima, taper
from braggshot.volumes import BoolArray, ComplexArray, FloatArray

Floats = NDArray[np.float32]

LARGEST = 600_000  # number of voxels about the peak that are looked at; further out there are few counts
ROUNDS, GAP_ROUNDS = 4, 9  # largest number of times that a pattern is whitened, without and with voxels that are not valid
SETTLED = 0.02  # relative change of the object's extent between two rounds of whitening, below which the extent is final [1]
MEAN = 1.0  # standard deviation of the local mean m [speckles]
# Local mean, relative to its mean over all photons, below which speckles count less, because they only show the surface [1].
FAINT = 0.003
SMOOTH = 0.35  # standard deviation of the mean that is subtracted from the whitened pattern, to remove its coarse part [speckles]
SIGNIFICANT = 3.0  # least power of a plane of shifts that is taken for the crystal and not for noise [mean power of the noise]
STEEP, AHEAD = 3.5, 1.1  # the crystal ends where its power falls by the first factor while the shift rises by the second [1]
# Least power, over the largest of all shifts, of a rise beyond a fall; fainter rises come from detector and flux.
ISLAND = 0.1
DEPTH = 0.04  # power at the crystal's extent, relative to that between 0.4 and 0.75 of the end of the fall [1]
PER_DECADE = 0.11  # growth of the extent per decade by which noise raises the level at which it is measured [1]
TRUSTED = 0.9  # share of the extent of the plain autocorrelation that is believed, if it lies before the end of the fall [1]
STRAINED = (0.1, 0.2)  # |A| / A(0) at half the extent up to which, and from which, the plain extent is not and is taken [1]
CORRECTED = 1.05  # extent where the amplitude is a tenth of the largest, over the extent of the plain autocorrelation [1]
TURNS = 4  # number of times that the band is limited and the valid voxels are restored, in each round
BAND, GROWTH = 0.95, 1.15  # first band relative to the extent of the plain autocorrelation, and its largest growth per round [1]
WIDE = 1.08  # largest ratio of the measured extent to the band that was searched; above it a wider band is searched [1]
FLAT, FAINTEST = 1.7, 0.1  # largest ratio of the levels of a floor, and its largest level over that of all shifts [1]
SMALLEST = 4.0  # extent of the smallest crystal whose size is certain [voxels]
CLEAR = 10.0  # least level at which a slow fall may end, because noise hides a faint plateau [mean power of the noise]
ALIKE = 0.3  # relative difference from the plain extent up to which the end of a slow fall is certain [1]
FULL = 0.3  # power at the face of the array, over that inside, from which the crystal fills the array [1]
# Radii, relative to the extent, between which the power of a whitened pattern is averaged; the shift along an axis, relative to the
# extent, beyond which it is noise [1].
SHELL, OUTSIDE = (0.4, 0.6), 1.15
ENOUGH = 1000  # number of voxels from which a median is taken for the noise
STANDS_OUT = 0.45  # least power above the noise, over the noise; that of smoothed noise has a standard deviation of 0.15 [1]
# Power, relative to that average, at which the body of all shifts ends, and its volume over eight times that of the crystal [1].
ENDS, BODIES = (0.02, 0.05, 0.1, 0.2, 0.4), (1.51, 1.35, 1.21, 1.01, 0.72)
GAP_END = 2  # which of these levels is taken where voxels are not valid: what they spread is not wholly undone
GATHERED = 8  # number of turns that undo how voxels that are not valid spread the power
_TINY = 1e-20  # least power in a denominator [1]
BOX = 0.37  # volume of a crystal over that of the box of its extents, the median of 80 crystals [1]


@dataclass(frozen=True)
class Extent:
    """Extent of a crystal along each axis [voxels of direct space].

    Parameters
    ----------
    size : (z, y, x), at most N / 2, the largest extent that can be seen
    certain : (z, y, x), False where no end of the crystal stands out, so that it may be larger or smaller
    shape : (z, y, x), shape of the pattern that it was measured from
    """

    size: tuple[float, float, float]
    certain: tuple[bool, bool, bool]
    shape: tuple[int, ...]

    @property
    def oversampling(self) -> tuple[float, float, float]:
        """Return the array size over the size of the crystal, per axis."""
        z, y, x = (length / extent for length, extent in zip(self.shape, self.size, strict=True))
        return z, y, x


def oversampling(intensity: FloatArray, valid: BoolArray | None = None) -> tuple[float, float, float]:
    """Measure the oversampling per axis, array size over crystal size; 2 where the crystal is too large for the array.

    Raises
    ------
    DataError : if there are no counts.
    """
    return object_extent(intensity, valid).oversampling


def object_extent(intensity: FloatArray, valid: BoolArray | None = None) -> Extent:
    """Measure the extent of a crystal, whatever its strain.

    The size of a speckle is the oversampling that is sought, so a pattern is whitened again with each new answer, from that of the
    plain autocorrelation on. Voxels that are not valid are continued from the band of the pattern, which the extent limits
    (algorithm of Papoulis and Gerchberg); a band that is too narrow shows in the valid voxels, and is widened.

    Parameters
    ----------
    intensity : (z, y, x) [photons], the peak within a tenth of the middle
    valid : (z, y, x), None means all

    Raises
    ------
    DataError : if there are no counts.
    """
    counts, seen = _central(np.asarray(intensity, np.float32), valid)
    modulus, relative_noise = autocorrelation(counts, None if seen is None else seen > 0)
    coherent, plain = plane_maxima(modulus), np.array(coherent_extent(modulus, relative_noise))
    shape, size, band = np.array(counts.shape), plain, BAND * plain
    field: Floats | None = None
    rounds: list[NDArray[np.float64]] = []
    certain = np.zeros(3, bool)
    for _ in range(ROUNDS if seen is None else GAP_ROUNDS):
        white, variance = whiten(counts, seen, shape / size)
        field = white if seen is None else _continue(white, seen, band, field)
        ends = _whitened_ends(field, variance, plain)
        size = np.array([max(end, min(TRUSTED * start, bottom)) for (end, bottom, _), start in zip(ends, plain, strict=True)])
        if seen is None:
            size = _prefer_plain(plain, size, coherent)
        # Rounded, because the last bits of sums depend on where arrays lie in memory, and searches depend on the last bits.
        size = np.round(np.clip(size, 2, shape / 2), 3)
        certain = np.array([found for _, _, found in ends])
        rounds.append(size)
        if seen is not None:
            if np.all(size <= WIDE * band):
                break
            band = np.minimum(np.maximum(band, np.minimum(size, GROWTH * band)), shape / 2)
            size = np.minimum(size, 1.1 * band)
        elif len(rounds) > 1 and np.all(np.abs(rounds[-1] / rounds[-2] - 1) < SETTLED):
            break
    whole = np.array(np.shape(intensity)) / shape
    z, y, x = (np.max(rounds[-2 if seen is None else -1 :], axis=0) * whole).tolist()
    return Extent((z, y, x), (bool(certain[0]), bool(certain[1]), bool(certain[2])), np.shape(intensity))


def _whitened_ends(field: Floats, variance: Floats, plain: NDArray[np.float64]) -> list[tuple[float, float, bool]]:
    """Find, per axis, where the power of a whitened pattern ends; as `_end` returns it.

    `variance` is that of the photon noise, `plain` (3,) the extent of the plain autocorrelation [voxels].
    """
    power, noise = _power(field, variance)
    profiles = [_above_floor(profile.astype(float), noise) for profile in plane_maxima(power)]
    return [_end(*one, float(start)) for one, start in zip(profiles, plain, strict=True)]


def _power(field: Floats, variance: Floats) -> tuple[Floats, float]:
    """Compute the smoothed power of a whitened pattern at each shift (zero shift at N // 2), and the power of its photon noise."""
    window = taper(field.shape)
    power: Floats = np.abs(fft.fftshift(fft.fftn(field * window))) ** 2
    smooth: Floats = ndimage.gaussian_filter(power, 1, mode="wrap", truncate=3)
    return smooth, float(np.sum(variance * window**2, dtype=np.float64))


def _above_floor(profile: NDArray[np.float64], noise: float) -> tuple[NDArray[np.float64], float]:
    """Subtract from a profile the level at which it ends, if that is flat and faint: unequal pixels leave such a level.

    Returns
    -------
    profile : power above that level
    noise : power below which the profile is not to be trusted
    """
    tail = profile[-max(2, profile.size // 6) :]
    if tail.max() >= FLAT * tail.min() or tail.max() >= FAINTEST * profile.max():
        return profile, noise
    return np.maximum(profile - tail.mean() + noise, noise), max(noise, tail.mean() / 2)


def _prefer_plain(plain: NDArray[np.float64], white: NDArray[np.float64], coherent: list[Floats]) -> NDArray[np.float64]:
    """Choose between the extents of the plain autocorrelation and of the whitened pattern, per axis, or take a mean of both.

    Without strain the plain one is the better. Strain shows at half the extent: there |A| / A(0) is 0.3 to 0.5 for a crystal
    without strain, whose copies overlap by so much of their volume, and far less where the phase changes between the copies.
    """
    middle = [np.interp(end / 2, np.arange(profile.size), profile) for end, profile in zip(white, coherent, strict=True)]
    share = np.interp(middle, STRAINED, (0, 1))
    chosen: NDArray[np.float64] = (CORRECTED * plain) ** share * white ** (1 - share)
    return chosen


def filled_share(intensity: FloatArray, valid: BoolArray | None, oversampling: Sequence[float]) -> float:
    r"""Measure which share of the array the crystal fills, whatever its strain.

    .. math:: \frac{1}{1.51} \; \frac{|\{s: P(s) > 0.02\, \bar P\}|}{8 N}

    P is the power of the whitened pattern at a shift s, :math:`\bar P` its mean around half the extent, N the number of voxels.
    Voxels that are not valid spread it; that is undone. The shifts at which a convex crystal and its copy still touch fill eight
    times its volume, and more where it has no centre of inversion. Where noise or gaps hide 0.02, a higher level is taken, and its
    own factor. On 40 crystals with phase ranges of 2 to 8 pi the standard deviation of the result was 15 %, behind gaps
    on 60 of 2 to 6 pi 9 to 13 %. Where nothing stands out of the noise, the share is taken from the box of the three extents.

    Parameters
    ----------
    intensity, valid : as in `object_extent`
    oversampling : array size over crystal size, per axis
    """
    counts, seen = _central(np.asarray(intensity, np.float32), valid)
    shape = np.array(counts.shape)
    size = shape / np.array(oversampling)
    power, noise = _power(*whiten(counts, seen, shape / size))
    if seen is not None:
        power = _gather(power, seen)
    shifts = np.meshgrid(*[np.abs(np.arange(n) - n // 2) / extent for n, extent in zip(shape, size, strict=True)], indexing="ij")
    radius = np.linalg.norm(shifts, axis=0)
    outside = power[np.max(shifts, axis=0) > OUTSIDE]
    floor = float(np.median(outside)) if outside.size > ENOUGH else noise
    shell = float(power[(radius >= SHELL[0]) & (radius <= SHELL[1])].mean()) - floor
    level = max(ENDS[0 if seen is None else GAP_END] * shell, STANDS_OUT * floor)
    parts, number = ndimage.label(ndimage.binary_fill_holes(power - floor > level))
    if number == 0 or level > ENDS[-1] * shell:
        return BOX / float(np.prod(oversampling))
    body = np.bincount(parts.ravel())[1:].max() / power.size
    return float(body / 8 / np.interp(level / shell, ENDS, BODIES))


def _gather(power: Floats, seen: Floats) -> Floats:
    r"""Undo how voxels that are not valid spread the power of a whitened pattern over other shifts.

    Whitened speckles are nearly a random field W, which the mask m multiplies. The power of the product is that of the field,
    convolved with the power of the mask:

    .. math:: \langle |\mathcal F(m W)|^2 \rangle = \langle |\mathcal F W|^2 \rangle * |\mathcal F m|^2

    The convolution is undone by turns of Richardson and Lucy, which keep the power positive.
    """
    spread = np.abs(fft.fftn(seen * taper(seen.shape))) ** 2
    along = fft.rfftn(spread / spread.sum())

    def convolve(values: Floats) -> Floats:
        spread_out: Floats = np.maximum(fft.irfftn(fft.rfftn(values) * along, s=values.shape), np.float32(_TINY))
        return spread_out

    gathered = power
    for _ in range(GATHERED):
        gathered = gathered * convolve(power / convolve(gathered))
    return gathered


def crystal_extent(rho: ComplexArray) -> tuple[int, int, int]:
    """Return the extent of a reconstruction along each axis, where |rho| exceeds a tenth of its 99.9th percentile [voxels]."""
    amplitude = np.abs(rho)
    inside = amplitude > 0.1 * np.percentile(amplitude[amplitude > 0], 99.9)
    z, y, x = (int(np.ptp(places)) + 1 for places in np.nonzero(inside))
    return z, y, x


def whiten(counts: Floats, seen: Floats | None, speckle: NDArray[np.float64]) -> tuple[Floats, Floats]:
    """Give every speckle of a pattern the same weight.

    The coarse part of the whitened pattern is subtracted, and the mean of each pixel and of each frame. They hold what does not
    rock, such as a flat field that was not given, and the changes of the beam's flux.

    Parameters
    ----------
    counts, seen : (z, y, x) counts, 0 where not valid, and 1 where valid, else 0; None means that all are valid
    speckle : (3,) size of a speckle, which is the oversampling [voxels]

    Returns
    -------
    field : (z, y, x) whitened pattern, 0 where not valid
    variance : (z, y, x) variance of its photon noise
    """
    mean = np.maximum(_local_mean(counts, seen, MEAN * speckle), np.float32(0))
    typical = np.square(mean, dtype=np.float64).sum() / mean.sum(dtype=np.float64)
    weight = np.float32(1) / (mean + np.sqrt(mean) + np.float32(1 + FAINT * typical))
    field: Floats = (counts - mean) * weight
    variance: Floats = mean * weight**2
    if seen is not None:
        field, variance = field * seen, variance * seen
    field = field - _local_mean(field, seen, SMOOTH * speckle)
    for axes in (0, (1, 2)):
        if seen is None:
            field = field - field.mean(axis=axes, keepdims=True)
        else:
            field = (field - field.sum(axis=axes, keepdims=True) / np.maximum(seen.sum(axis=axes, keepdims=True), 1)) * seen
    return field, variance


def _central(counts: Floats, valid: BoolArray | None) -> tuple[Floats, Floats | None]:
    """Return the counts about the middle and where they are valid (1 or 0; None for everywhere), not more than `LARGEST` voxels."""
    shape = list(counts.shape)
    while np.prod(shape) > LARGEST:
        axis = int(np.argmax(shape))
        shape[axis] = fft.prev_fast_len(shape[axis] - 1, real=True)
    part = tuple(slice(size // 2 - kept // 2, size // 2 - kept // 2 + kept) for size, kept in zip(counts.shape, shape, strict=True))
    if valid is None or valid[part].all():
        return counts[part], None
    return np.where(valid[part], counts[part], np.float32(0)), valid[part].astype(np.float32)


def _local_mean(field: Floats, seen: Floats | None, sigma: NDArray[np.float64]) -> Floats:
    """Compute the mean about each voxel, weighted by a Gaussian of standard deviation `sigma` (3,) [voxels], over valid voxels."""
    along = [np.exp(-2 * (np.pi * width * f) ** 2).astype(np.float32) for width, f in zip(sigma, _frequencies(field), strict=True)]
    gaussian = outer(*along)

    def blur(values: Floats) -> Floats:
        blurred: Floats = fft.irfftn(fft.rfftn(values) * gaussian, s=field.shape)
        return blurred

    mean = blur(field)
    if seen is not None:
        mean /= np.maximum(blur(seen), np.float32(0.02))
    return mean


def _continue(field: Floats, seen: Floats, band: NDArray[np.float64], earlier: Floats | None) -> Floats:
    """Continue a whitened pattern into voxels that are not valid, by turns limiting its band and restoring the valid voxels.

    Parameters
    ----------
    field, seen : (z, y, x) whitened pattern, and 1 where valid, else 0
    band : (3,) shifts up to which the pattern has power [voxels]
    earlier : continued pattern of the round before, if there was one
    """
    shifts = [size * np.abs(f) for size, f in zip(field.shape, _frequencies(field), strict=True)]
    inside = outer(*(shift <= reach + 0.5 for shift, reach in zip(shifts, band, strict=True)))
    valid = seen > 0
    continued = field if earlier is None else np.where(valid, field, earlier)
    for _ in range(TURNS if earlier is not None else 2 * TURNS):
        continued = np.where(valid, field, fft.irfftn(fft.rfftn(continued) * inside, s=field.shape))
    return continued


def _frequencies(field: Floats) -> list[NDArray[np.float64]]:
    """Return the frequencies [1/voxel] of the three axes of the transform of a real volume; the last axis holds half of them."""
    z, y, x = field.shape
    return [fft.fftfreq(z), fft.fftfreq(y), fft.rfftfreq(x)]


def _end(profile: NDArray[np.float64], noise: float, plain: float) -> tuple[float, float, bool]:
    """Find the extent of a crystal from the largest power of the whitened pattern in the plane of each shift.

    Power is nearly constant up to the extent, falls steeply about it, and is noise, or what gaps leave, further out. Where it
    falls nowhere steeply, the crystal fills the array if power at the face is as that inside the extent `plain` of the plain
    autocorrelation. Else the fall is a slow one, and the crystal ends where power first comes down to the level of an end, if
    that lies well above the noise.

    Returns
    -------
    end : extent [voxels]
    bottom : shift at which the steep fall ends [voxels]
    found : False if power falls nowhere steeply, unless the crystal fills the array or has about the extent `plain`
    """
    number = profile.size
    shifts, logs = np.arange(number), np.log(np.maximum(profile, 1e-30))
    fine = np.arange(1, number - 1, 0.25)
    here, ahead = np.interp(fine, shifts, logs), np.interp(AHEAD * fine + 0.5, shifts, logs)
    lowest = np.interp(fine, shifts, np.minimum.accumulate(logs))
    is_crystal = (here >= np.log(ISLAND * profile.max())) | (here <= lowest + np.log(1.5))
    steep = fine[(here - ahead >= np.log(STEEP)) & (here >= np.log(SIGNIFICANT * noise)) & is_crystal]
    bottom = min(AHEAD * steep.max() + 0.5, number) if steep.size else float(number)
    inside = _power_inside(logs, plain)
    fills = not steep.size and profile[-2:].mean() > FULL * inside
    wanted = DEPTH * _power_inside(logs, bottom)
    if not steep.size and not fills and DEPTH * inside > CLEAR * noise:
        wanted = DEPTH * inside
        bottom = float(np.argmax((profile < wanted) & (shifts > 0.4 * plain))) or bottom
    level = max(SIGNIFICANT * noise, wanted)
    above = np.flatnonzero(profile[: int(bottom) + 2] >= level)
    last = int(above[-1]) if above.size else 0
    if last + 1 < number and profile[last] >= level:
        end = last + (profile[last] - level) / (profile[last] - profile[last + 1])
    else:
        end = float(last)
    raised = np.clip(np.log10(level / wanted), 0, 1)
    extent = float(min(end, bottom) * (1 + PER_DECADE * raised))
    found = bool(steep.size) or fills or abs(extent / plain - 1) < ALIKE
    return extent, float(bottom), bool(found and extent > SMALLEST)


def _power_inside(logs: NDArray[np.float64], extent: float) -> float:
    """Compute the geometric mean of the power from 0.4 to 0.75 of an extent [voxels], from its logarithm at each shift."""
    shifts = np.arange(logs.size)
    return float(np.exp(logs[(shifts >= 0.4 * extent) & (shifts <= max(0.75 * extent, 0.4 * extent + 1))].mean()))
