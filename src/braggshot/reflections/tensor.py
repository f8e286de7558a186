r"""Turn a density and a displacement into strains, rotations and what follows from them; numpy, float64, SI.

.. math::
    J_{ab} = \frac{\partial u_a}{\partial r_b}, \quad \varepsilon = \tfrac12 (J + J^T), \quad
    \omega = \tfrac12 \nabla \times u, \quad \varepsilon_{vM} = \sqrt{\tfrac23\, \varepsilon' : \varepsilon'}

epsilon' is the strain without its mean normal part. Strains and rotations are small; terms of second order are neglected. They
refer to the mean lattice of the bulk. Its own strain against the given cell follows from the scattering vectors:

.. math:: Q_j = (1 + E)^{-T} B h_j, \qquad \bar\varepsilon = \tfrac12 (E + E^T)

The six strains are listed as xx, yy, zz, xy, yz, xz, as VTK does, the rotation as x, y, z; the components of u as z, y, x.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from braggshot.volumes import BoolArray, FloatArray

SIX = ("xx", "yy", "zz", "xy", "yz", "xz")
THREE = ("x", "y", "z")
PLACE = {"z": 0, "y": 1, "x": 2}
_SURFACE = 0.5  # amplitude of the surface as a share of the median of the bulk [1]


@dataclass(frozen=True)
class Fields:
    """What the displacement of a crystal means, on its grid; NaN outside the support.

    Parameters
    ----------
    support : (z, y, x) True where the density is over half that of the bulk
    displacement : (3, z, y, x) components z, y, x, without mean and mean gradient [m]
    strain : (6, z, y, x) xx, yy, zz, xy, yz, xz [1]
    rotation : (3, z, y, x) about x, y, z [rad]
    gradient : (3, 3) mean J of the bulk that was taken off; its part that is not in Q counts [1]
    """

    support: BoolArray
    displacement: FloatArray
    strain: FloatArray
    rotation: FloatArray
    gradient: FloatArray


def material(density: FloatArray) -> BoolArray:
    """Find the voxels inside the surface: density over half the bulk's median, the largest connected part."""
    smooth = ndimage.gaussian_filter(density, 0.7)
    bulk = smooth[smooth > 0.5 * smooth.max()]
    inside = smooth > _SURFACE * float(np.median(bulk))
    labels, count = ndimage.label(inside)
    if count > 1:
        inside = labels == 1 + int(np.argmax(ndimage.sum_labels(inside, labels, np.arange(1, count + 1))))
    return np.asarray(ndimage.binary_fill_holes(inside))


def derive(
    u: FloatArray,
    support: BoolArray,
    voxel: float,
    region: BoolArray | None = None,
    base: tuple[FloatArray, FloatArray] | None = None,
) -> Fields:
    """Compute strain and rotation of a displacement.

    Parameters
    ----------
    u : (3, z, y, x) along the grid's axes [m]
    support : voxels inside the crystal
    voxel : edge of the cubic voxels [m]
    region : voxels where u is known, with those beyond the surface to which the fit continues it; None takes the support
    base : J (3, 3, z, y, x) [1] and u (3, z, y, x) [m] to which these are added; None for none
    """
    core = ndimage.binary_erosion(support)
    core = core if core.any() else support
    jacobian = gradients(u, support if region is None else region | support, voxel)
    jacobian = np.where(support, jacobian if base is None else jacobian + base[0], np.nan)
    mean = np.nanmean(jacobian[:, :, core], axis=2)
    place = (np.indices(support.shape) - np.reshape([n // 2 for n in support.shape], (3, 1, 1, 1))) * voxel
    moved = (u if base is None else u + base[1]) - np.tensordot(mean, place, axes=1)
    moved = np.where(support, moved - moved[:, core].mean(axis=1)[:, None, None, None], np.nan)
    local = jacobian - mean[:, :, None, None, None]
    return Fields(support, moved, six_of(local), rotation_of(local), mean)


def known_in_plane(values: FloatArray, kind: str) -> NDArray[np.float64]:
    """Set to NaN what two reflections in the plane of x and y do not measure: what moves along z, or changes along it.

    Parameters
    ----------
    values : (3, ...) or (6, ...)
    kind : "displacement", "strain" or "rotation"
    """
    names = {"displacement": ("z", "y", "x"), "strain": SIX, "rotation": ("y z", "x z", "x y")}[kind]
    unknown = np.array([("z" in name) for name in names])
    return np.where(unknown.reshape(-1, *[1] * (values.ndim - 1)), np.nan, values)


def gradients(u: FloatArray, support: BoolArray, voxel: float) -> NDArray[np.float64]:
    """Compute J (3, 3, z, y, x) [1]: central differences inside, one-sided ones at the surface; NaN where there is no neighbour."""
    found = np.full((3, 3, *support.shape), np.nan)
    for axis in range(3):
        ahead: BoolArray = np.roll(support, -1, axis) & support
        steps = np.where(ahead, np.roll(u, -1, axis + 1) - u, 0.0) / voxel
        total, count = steps + np.roll(steps, 1, axis + 1), ahead + np.roll(ahead, 1, axis).astype(int)
        found[:, axis] = np.where(support & (count > 0), total / np.maximum(count, 1), np.nan)
    return found


def six_of(jacobian: FloatArray) -> NDArray[np.float64]:
    """List the six strains of J (3, 3, ...), components in the order (z, y, x)."""
    pairs = [(PLACE[a], PLACE[b]) for a, b in map(tuple, SIX)]
    return np.stack([(jacobian[a, b] + jacobian[b, a]) / 2 for a, b in pairs])


def rotation_of(jacobian: FloatArray) -> NDArray[np.float64]:
    """List the rotations about x, y and z of J (3, 3, ...), components in the order (z, y, x) [rad]."""
    z, y, x = 0, 1, 2
    return np.stack([jacobian[z, y] - jacobian[y, z], jacobian[x, z] - jacobian[z, x], jacobian[y, x] - jacobian[x, y]]) / 2


def matrix_of(six: FloatArray) -> NDArray[np.float64]:
    """Make the matrix (3, 3, ...) with components (z, y, x) of six strains."""
    found = np.empty((3, 3, *six.shape[1:]))
    for (a, b), values in zip(map(tuple, SIX), six, strict=True):
        found[PLACE[a], PLACE[b]] = found[PLACE[b], PLACE[a]] = values
    return found


def principal(six: FloatArray) -> NDArray[np.float64]:
    """Compute the principal strains (3, ...), the largest first; NaN where a strain is."""
    matrix = np.moveaxis(matrix_of(six), (0, 1), (-2, -1))
    known: BoolArray = np.asarray(np.isfinite(matrix).all(axis=(-2, -1)))
    values = np.linalg.eigvalsh(np.where(known[..., None, None], matrix, 0.0))[..., ::-1]
    return np.moveaxis(np.where(known[..., None], values, np.nan), -1, 0)


def von_mises(six: FloatArray) -> NDArray[np.float64]:
    """Compute the equivalent strain of von Mises [1]."""
    matrix = matrix_of(six)
    mean = (matrix[0, 0] + matrix[1, 1] + matrix[2, 2]) / 3
    deviator = matrix - np.eye(3).reshape(3, 3, *[1] * mean.ndim) * mean
    return np.asarray(np.sqrt(2 / 3 * (deviator**2).sum(axis=(0, 1))))


def turned(six: FloatArray, turn: FloatArray) -> NDArray[np.float64]:
    """Return six strains along other axes, to which the rotation `turn` (3, 3) leads, components (z, y, x)."""
    return six_of(np.einsum("ai,bj,ij...->ab...", turn, turn, matrix_of(six)))


def lattice_strain(qs: FloatArray, vectors: FloatArray) -> NDArray[np.float64] | None:
    """Fit the mean strain of the lattice (6,) against a cell to three scattering vectors or more; None for fewer.

    Parameters
    ----------
    qs : (n, 3) measured, along the crystal's axes [1/m]
    vectors : (n, 3) of the unstrained cell [1/m]
    """
    if len(qs) < 3:
        return None
    moved = np.linalg.lstsq(vectors, qs)[0].T  # Q = (1 + E)^-T B h
    return six_of(np.linalg.inv(moved).T - np.eye(3))
