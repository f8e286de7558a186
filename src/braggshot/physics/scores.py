r"""Score how near a reconstruction comes to a known crystal, after alignment (`braggshot.physics.metrics.align`).

The known crystal, the truth, and the reconstruction are each divided by their typical amplitude,
:math:`\sum|\rho|^3 / \sum|\rho|^2`, which noise in one voxel does not change. The crystal is where the truth then exceeds 1/2.
Arrays are (z, y, x), numpy; the truth is the first argument of the functions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from braggshot.physics.metrics import align
from braggshot.volumes import BoolArray, ComplexArray, FloatArray

SUCCESS = 0.95  # least complex correlation with the true crystal, after alignment, with which it counts as found [1]
# Least value of the score `blend` with which a failed reconstruction is called a mixture of object and twin [1]. `blend` correlates
# the twin with what is left of the reconstruction after its part along the true crystal is subtracted.
BLENDED = 0.7
EDGE = 0.5  # amplitude at the surface of the true crystal, relative to its typical amplitude [1]
# Thresholds on amplitude over typical amplitude [1]: the score `iou` is computed for each, with the voxels above it as support.
THRESHOLDS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
STRAIN_PER_TURN = 0.2355e-9 / (2 * math.pi * 10e-9)
"""Strain along one axis for a phase difference of 1 rad per voxel, with Au(111) planes and voxels of 10 nm as in publications."""


@dataclass(frozen=True)
class Scores:
    """Scores of one reconstruction against its truth.

    Parameters
    ----------
    correlation : |<truth, found>| / (|truth| |found|), aligned up to twin, sub-voxel shift, global phase and scale [1]
    twin : True if the reconstruction is the conjugate inversion of the truth
    blend : correlation of the twin of the truth with what is left of the reconstruction after its part along the truth is
        subtracted; near 1 where object and twin are mixed [1]
    ssim : structural similarity of the amplitudes, windows of 7^3 [1]
    iou : intersection over union of the supports, for each of `THRESHOLDS` on the found amplitude [1]
    phase_mae : mean |phase error| on the true support [rad]; a voxel where nothing was found counts pi / 2, like a random phase
    gradient_rmse : root mean square error of the phase difference between neighbours, over all axes, in the interior of the truth
        where the reconstruction is not zero [rad]
    """

    correlation: float
    twin: bool
    blend: float
    ssim: float
    iou: tuple[float, ...]
    phase_mae: float
    gradient_rmse: float

    @property
    def success(self) -> bool:
        """Tell whether the crystal was found: whether `correlation` reaches `SUCCESS`."""
        return self.correlation >= SUCCESS

    @property
    def strain_rmse(self) -> float:
        """Root mean square error of the strain: `gradient_rmse` times `STRAIN_PER_TURN` [1]."""
        return self.gradient_rmse * STRAIN_PER_TURN


def compare(truth: ComplexArray, found: ComplexArray) -> Scores:
    """Align a reconstruction to its truth and score it.

    Raises
    ------
    ValueError : if the shapes differ or one of the two is zero everywhere.
    """
    reference = torch.from_numpy(np.asarray(truth, np.complex64))
    aligned = align(torch.from_numpy(np.asarray(found, np.complex64)), reference)
    one, two = typical(truth), typical(aligned.field.numpy())
    body = np.abs(one) > EDGE
    return Scores(
        correlation=aligned.correlation,
        twin=aligned.twin,
        blend=blend(one, two),
        ssim=ssim(np.abs(one), np.abs(two)),
        iou=tuple(overlap(body, np.abs(two) > threshold) for threshold in THRESHOLDS),
        phase_mae=phase_mae(one, two, body),
        gradient_rmse=gradient_rmse(one, two, body),
    )


def typical(rho: ComplexArray) -> ComplexArray:
    """Divide a field by its typical amplitude, sum |rho|^3 / sum |rho|^2."""
    amplitude = np.abs(rho).astype(np.float64)
    return rho * ((amplitude**2).sum() / (amplitude**3).sum())


def ssim(truth: FloatArray, found: FloatArray) -> float:
    """Compute the structural similarity of amplitudes (Wang et al., IEEE Trans. Image Process. 13, 600 (2004)), windows of 7^3."""
    from skimage.metrics import structural_similarity  # takes half a second to import

    return float(structural_similarity(truth, found, win_size=7, data_range=1.0))  # type: ignore[no-untyped-call]


def overlap(truth: BoolArray, found: BoolArray) -> float:
    """Compute the intersection of two bodies over their union [1]."""
    return float((truth & found).sum() / max(1, (truth | found).sum()))


def phase_mae(truth: ComplexArray, found: ComplexArray, body: BoolArray) -> float:
    """Compute the mean of |arg(found / truth)| over `body` [rad] without global phase; a voxel without amplitude counts pi / 2."""
    product = found[body] * truth[body].conj()
    mean = product.sum()
    error = np.abs(np.angle(product * (mean.conj() / max(abs(mean), 1e-30))))
    return float(np.where(product == 0, math.pi / 2, error).mean())


def gradient_rmse(truth: ComplexArray, found: ComplexArray, body: BoolArray) -> float:
    """Compute the RMS error of the phase differences between neighbouring voxels [rad]; NaN if no voxels are left.

    The outermost layer of voxels of `body` is left out, as are voxels where nothing was found.
    """
    inside = ndimage.binary_erosion(body) & (np.abs(found) > 0)
    if not inside.any():
        return math.nan
    # The turn of found / truth is the difference of their turns, whatever the wraps.
    errors = np.angle(np.concatenate([_pairs(found * truth.conj(), inside, axis) for axis in range(3)]))
    return float(np.sqrt((errors**2).mean())) if errors.size else math.nan


def _pairs(field: ComplexArray, inside: BoolArray, axis: int) -> ComplexArray:
    """List field[n + 1] conj(field[n]) for all neighbours n and n + 1 along `axis` that both lie in the region `inside`."""
    before = tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))
    after = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
    both = inside[before] & inside[after]
    return field[after][both] * field[before][both].conj()


def blend(truth: ComplexArray, found: ComplexArray) -> float:
    """Subtract from `found` its part along `truth`, and correlate the rest with the twin of `truth`, after alignment [1]."""
    one, two = (torch.from_numpy(np.asarray(field, np.complex64)) for field in (truth, found))
    rest = two - one * (torch.vdot(one.flatten(), two.flatten()) / torch.vdot(one.flatten(), one.flatten()))
    if not rest.any():
        return 0.0
    twin = one.conj().flip(0, 1, 2)
    return align(rest, twin, allow_twin=False).correlation
