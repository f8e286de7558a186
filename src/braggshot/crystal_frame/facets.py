r"""Find the facets of a crystal, where the normals of its surface pile up; measure their areas and strains, and name them.

The normals of the surface's triangles, weighted by area, give a density over all directions n,

.. math:: \rho(n) = \sum_t A_t \exp\left(\frac{n \cdot n_t - 1}{\kappa^2}\right),

where triangle t has the area A_t and the normal n_t, and kappa is `KERNEL`. Each peak of this density is the normal of a facet.

The scattering vector is the normal of the reflecting planes. So only one angle of the crystal's orientation is unknown: the
rotation about the scattering vector. The chosen rotation is the one that brings the facets closest to planes of low index. The
density over directions follows the stereographic method of Carnis et al., J. Appl. Cryst. 54, 1 (2021), and of Richard et al.,
J. Appl. Cryst. 51, 1672 (2018).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from braggshot.physics import lattice
from braggshot.physics.lattice import Lattice
from braggshot.physics.surface import find_surface
from braggshot.volumes import BoolArray, Facet, FloatArray

_SMOOTHING = 1.0  # Gaussian width for smoothing the amplitude [voxels]; less leaves terraces that scatter the normals of a facet
# Gaussian width for smoothing the density of surface normals over directions [rad]: about the angle by which voxels and rounded
# edges spread the normals of one facet.
KERNEL = np.radians(7.0)
# Least angle between the normals of two facets [rad]; of two directions that are closer, only the denser one becomes a facet.
APART = np.radians(22.0)
FLAT, EDGE = np.radians(14.0), np.radians(32.0)
"""Largest angles between the normal of a facet and the normals of its surface triangles [rad]. Triangles within `FLAT` give the
facet's normal, centre and strain; triangles within `EDGE` give its area."""
TOLERANCE = np.radians(10.0)  # largest angle between the normal of a facet and that of the lattice plane that names it [rad]
# Least share of the facets' total area that must fit lattice planes within the angle `TOLERANCE` [1]. With a smaller share no facet
# is named, because some facets fit by chance however the crystal is turned.
SETTLED = 0.6
# Least share of the whole surface whose normals must lie within the angle `FLAT` of a direction to make it a facet [1].
LEAST = 0.015
# Least concentration of the surface normals around the direction of a facet [1]: the area with normals within half of `FLAT` of the
# direction, divided by the area with normals within `FLAT`. On a sphere the concentration is a quarter.
PILED = 0.38
# Largest spread of the surface normals around the direction of a facet, along the tangent in which they spread most, over the
# spread of normals that are even within `FLAT` [1]. A ball has 1. Around a rod, a cone or a rounded edge the normals lie on an arc,
# which gives 1.1. Facets of crystals of 18 to 36 voxels have 0.4 to 0.9.
SPREAD = 0.95
ROUGH = 30  # width of a crystal below which its facets are found only roughly [voxels]


def facets(amplitude: FloatArray, support: BoolArray, strain: FloatArray, basis: FloatArray, most: int = 26) -> tuple[Facet, ...]:
    """Find the facets of a crystal, the largest first, not yet named.

    The tuple is empty if the crystal has no surface, or if no direction stands out among the normals of its surface.

    Parameters
    ----------
    amplitude, support, strain : amplitude, mask of the crystal's voxels, and strain [1]; arrays (z, y, x) on an orthogonal grid
    basis : columns are the voxel edges [m]
    most : largest number of facets that are looked for
    """
    triangles = _triangles(amplitude, support, basis)
    if triangles is None:
        return ()
    centres, normals, areas = triangles
    directions = _peaks(normals, areas, most)
    if not len(directions):
        return ()
    angle = np.arccos(np.clip(normals @ directions.T, -1, 1))
    nearest = angle.argmin(axis=1)
    strains = _below(strain, support, basis, centres, normals)
    found = []
    for number, direction in enumerate(directions):
        flat = (nearest == number) & (angle[:, number] < FLAT)
        whole = (nearest == number) & (angle[:, number] < EDGE)
        known = flat & np.isfinite(strains)
        mean = np.average(strains[known], weights=areas[known]) if known.any() else np.nan
        spread = np.sqrt(np.average((strains[known] - mean) ** 2, weights=areas[known])) if known.any() else np.nan
        middle = np.average(centres[flat], axis=0, weights=areas[flat])
        area = float(areas[whole].sum())
        found.append(Facet(direction, area, area / float(areas.sum()), middle, float(mean), float(spread)))
    return tuple(sorted(found, key=lambda facet: -facet.area))


def indexed(found: Sequence[Facet], q: FloatArray, reflection: Sequence[int], cell: Lattice, highest: int = 1) -> tuple[Facet, ...]:
    """Name facets after lattice planes; `hkl` stays None where no plane is within `TOLERANCE`.

    The crystal is turned about q so that the facets fit lattice planes best. If less than the share `SETTLED` of the facets' area
    is then within `TOLERANCE` of a plane, no facet is named: the facets are planes of higher indices than those that were tried.

    Parameters
    ----------
    q : scattering vector, in the axes of the facets' normals [1/m]
    reflection : hkl of q
    cell : the unit cell
    highest : largest index of the planes that are tried

    Notes
    -----
    A rotation that is a symmetry of the crystal gives each facet another name of the same family of planes. Such names are equally
    right.
    """
    if not found:
        return ()
    planes = np.array([hkl for hkl in itertools.product(range(-highest, highest + 1), repeat=3) if np.gcd.reduce(hkl) == 1])
    ideal = lattice.normals(planes, cell)
    # Vectors as (x, y, z): the fit knows rotations only, and (z, y, x) is a left-handed order.
    measured, q = np.array([facet.normal[::-1] for facet in found]), q[::-1]
    weight = np.array([facet.share for facet in found])
    turn = _orientation(ideal, lattice.normals(reflection, cell), measured, q / np.linalg.norm(q), weight)
    angle = np.arccos(np.clip(measured @ (ideal @ turn.T).T, -1, 1))
    names = angle.argmin(axis=1)
    if weight[angle.min(axis=1) < TOLERANCE].sum() < SETTLED * weight.sum():
        return tuple(found)  # any turn would name some
    named = []
    for number, facet in enumerate(found):
        off = float(angle[number, names[number]])
        h, k, l = planes[names[number]].tolist()  # noqa: E741
        hkl = (h, k, l) if off < TOLERANCE else None
        named.append(replace(facet, hkl=hkl, off=off))
    return tuple(named)


def _triangles(
    amplitude: FloatArray, support: BoolArray, basis: FloatArray
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]] | None:
    """Find the triangles that form a crystal's surface: centres (n, 3) [m], outward unit normals (n, 3), areas (n,) [m^2].

    The surface is where the smoothed amplitude falls to half of the median amplitude in the support. None is returned if there is
    no such surface.
    """
    if not support.any():
        return None
    # A little beyond the support: cut at it, the surface would be terraces.
    near = ndimage.binary_dilation(support, iterations=2)
    surface = find_surface(np.where(near, amplitude, 0), 0.5 * float(np.median(amplitude[support])), basis, smoothing=_SMOOTHING)
    if surface is None:
        return None
    outward = surface.normals[surface.triangles].mean(axis=1)
    normals = outward / np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-30)
    return surface.points[surface.triangles].mean(axis=1), normals, surface.areas


def _peaks(normals: FloatArray, areas: FloatArray, most: int) -> NDArray[np.float64]:
    """Find the directions (n, 3) at which the surface's normals pile up; each is the mean of the normals around it."""
    sphere = _evenly(2000)
    density = np.concatenate([np.exp((part @ normals.T - 1) / KERNEL**2) @ areas for part in np.array_split(sphere, 20)])
    found: list[NDArray[np.float64]] = []
    for start in sphere[np.argsort(-density)]:
        if any(start @ other > np.cos(APART) for other in found):
            continue
        direction = _mean_normal(start, normals, areas)
        if any(direction @ other > np.cos(APART) for other in found):
            continue
        near, nearer = (normals @ direction > np.cos(angle) for angle in (FLAT, FLAT / 2))
        area = areas[near].sum()
        if area < LEAST * areas.sum() or areas[nearer].sum() < PILED * area:
            continue
        if _spread(direction, normals[near], areas[near]) > SPREAD:
            continue
        found.append(direction)
        if len(found) == most:
            break
    return np.array(found).reshape(-1, 3)


def _mean_normal(start: FloatArray, normals: FloatArray, areas: FloatArray) -> NDArray[np.float64]:
    """Move a direction to the mean of the normals within `FLAT` of it, until it stays where it is."""
    direction = np.asarray(start, dtype=np.float64)
    for _ in range(30):
        near = normals @ direction > np.cos(FLAT)
        mean = (normals[near] * areas[near, None]).sum(axis=0)
        moved, direction = direction, mean / max(float(np.linalg.norm(mean)), 1e-30)
        if moved @ direction > 1 - 1e-8:
            break
    return direction


def _spread(direction: FloatArray, normals: FloatArray, areas: FloatArray) -> float:
    r"""Return the spread of normals within `FLAT` of a direction, relative to that of normals that are spread evenly.

    It is the square root of the larger eigenvalue of the second moments of the normals in the tangent plane of the direction,
    :math:`M = \sum_t A_t \, s_t s_t^T / \sum_t A_t` with :math:`s_t = n_t - (n_t \cdot d) d`, over `FLAT` / 2.
    """
    along = normals - (normals @ direction)[:, None] * direction
    moments = (along.T * areas) @ along / areas.sum()
    return float(np.sqrt(np.linalg.eigvalsh(moments)[-1]) / (FLAT / 2))


def _evenly(n: int) -> NDArray[np.float64]:
    """Make unit vectors spread evenly over the sphere (a Fibonacci spiral)."""
    k = np.arange(n) + 0.5
    polar, turn = np.arccos(1 - 2 * k / n), np.pi * (1 + 5**0.5) * k
    return np.stack([np.cos(polar), np.sin(polar) * np.sin(turn), np.sin(polar) * np.cos(turn)], axis=1)


def _below(
    strain: FloatArray, support: BoolArray, basis: FloatArray, centres: FloatArray, normals: FloatArray
) -> NDArray[np.float64]:
    """Return the strain one voxel below each triangle of the surface, read at the nearest voxel of the support."""
    depth = abs(np.linalg.det(basis)) ** (1 / 3)
    index = np.rint((centres - depth * normals) @ np.linalg.inv(basis).T).astype(int) + np.array(support.shape) // 2
    index = np.clip(index, 0, np.array(support.shape) - 1)
    nearest = ndimage.distance_transform_edt(~support, return_distances=False, return_indices=True)
    return np.asarray(strain[tuple(nearest[:, *index.T])], dtype=np.float64)


def _orientation(
    ideal: FloatArray, along: FloatArray, measured: FloatArray, q: FloatArray, weight: FloatArray
) -> NDArray[np.float64]:
    """Find the rotation from the crystal's axes to the axes of the facets' normals.

    The rotation turns the normal of the reflecting planes onto the scattering vector q. The angle of a further turn about q is
    chosen so that the facets fit lattice planes best.
    """
    from scipy.spatial.transform import Rotation  # here, because it takes long to import and not every scan needs it

    onto = Rotation.align_vectors(q[None], along[None])[0]
    best, lowest = onto.as_matrix(), np.inf
    for angle in np.radians(np.arange(0, 360, 1.0)):
        turn = (Rotation.from_rotvec(angle * q) * onto).as_matrix()
        off = np.arccos(np.clip((measured @ (ideal @ turn.T).T).max(axis=1), -1, 1))
        cost = float(weight @ np.minimum(off, 2 * TOLERANCE))
        if cost < lowest - 1e-9:
            best, lowest = turn, cost
    close = measured @ (ideal @ best.T).T
    names, fits = close.argmax(axis=1), close.max(axis=1) > np.cos(TOLERANCE)
    if not fits.any():
        return np.asarray(best)
    # q is known far better than any facet, so it holds the fit.
    pairs = np.vstack([q, measured[fits]]), np.vstack([along, ideal[names[fits]]])
    return np.asarray(Rotation.align_vectors(*pairs, weights=np.append(10 * weight[fits].sum(), weight[fits]))[0].as_matrix())
