"""Count the voxels whose error lies within the one sigma that a reconstruction carries.

Counted are the voxels of the bulk, one layer inside the surface of the support. A right sigma covers 68 % of them.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from braggshot.physics import strain
from braggshot.physics.metrics import align
from braggshot.volumes import BoolArray, ComplexArray, FloatArray, Reconstruction


def bulk_of(found: Reconstruction) -> BoolArray:
    """Return the support without its outermost layer of voxels (z, y, x)."""
    return np.asarray(ndimage.binary_erosion(found.support))


def errors(found: Reconstruction, truth: ComplexArray, bulk: BoolArray) -> dict[str, NDArray[np.float64]]:
    """Compute the errors of a reconstruction on the n voxels of its bulk.

    Parameters
    ----------
    found : reconstruction
    truth : (z, y, x) true crystal on the grid of the reconstruction
    bulk : (z, y, x) True on the voxels that count

    Returns
    -------
    The errors (n,) of the phase [rad], of the amplitude relative to it [1] and, with a geometry, of the strain [1], by name.
    """
    # The truth is brought onto the answer, so the answer's sigma stays where it is.
    aligned = align(torch.from_numpy(truth), torch.from_numpy(found.rho)).field.numpy()
    turn = np.angle(found.rho * aligned.conj())[bulk]
    turn = np.angle(np.exp(1j * (turn - np.angle(np.exp(1j * turn).mean()))))
    one, other = (np.abs(field)[bulk] / np.abs(field)[bulk].mean() for field in (found.rho, aligned))
    wrong = {"phase": turn, "amplitude": (one - other) / np.maximum(one, 1e-12)}
    basis, q = found.basis, found.volume.q_bragg
    if basis is not None and q is not None and strain.has_gradient(found.support):
        maps = [
            strain.strain(strain.gradient(strain.phase_differences(field, found.support), basis), q)
            for field in (found.rho, aligned)
        ]
        wrong["strain"] = (maps[0] - maps[1])[bulk]
    return wrong


def share_within(error: FloatArray, sigma: FloatArray) -> float:
    """Compute the share of the errors (n,) that are no larger than their sigma (n,) [1]."""
    return float((np.abs(error) <= np.maximum(sigma, 1e-12)).mean())


def coverage(found: Reconstruction, truth: ComplexArray) -> dict[str, float] | None:
    """Return the share of the bulk within one sigma [1], by quantity; None without a sigma or without a bulk."""
    bulk = bulk_of(found)
    if found.uncertainty is None or not bulk.any():
        return None
    sigmas = {name: getattr(found.uncertainty, name) for name in ("phase", "strain", "amplitude")}
    wrong = errors(found, truth, bulk)
    return {name: share_within(wrong[name], sigma[bulk]) for name, sigma in sigmas.items() if sigma is not None and name in wrong}
