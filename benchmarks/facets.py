"""Facets of a reconstruction, and whether their angles are those of {111} and {100} facets of an fcc crystal.

    python benchmarks/facets.py result.cxi

The surface's normals, weighted by area, pile up where there are facets. With a 111 reflection the scattering vector q is the
normal of one {111} plane, so each facet's angle to q is known beforehand: 0, 70.5, 109.5 or 180 degrees for {111}, 54.7 or 125.3
for {100}; so are the angles between facets.
"""

from __future__ import annotations

import sys

import numpy as np
from scipy import ndimage
from skimage.measure import marching_cubes

from braggshot.crystal_frame import to_lab
from braggshot.io import results
from braggshot.volumes import Reconstruction

KERNEL = np.deg2rad(7)  # spread of normals on one facet: voxel noise and rounded edges
LARGEST, APART = 14, np.deg2rad(25)
TO_Q = {"{111}": (0.0, 70.53, 109.47, 180.0), "{100}": (54.74, 125.26)}


def facets(result: Reconstruction, level: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Unit normals (n, 3) of the strongest facets and the share of the surface within 10 degrees of each."""
    lab = to_lab(result)
    amplitude = ndimage.gaussian_filter(np.abs(lab.rho), 1.0)
    points, faces, _, _ = marching_cubes(amplitude, level * np.median(np.abs(lab.rho)[lab.support]))
    gradient = np.stack([ndimage.map_coordinates(g, points.T, order=1) for g in np.gradient(ndimage.gaussian_filter(amplitude, 1))])
    normals = -(gradient / np.linalg.norm(gradient, axis=0)).T[faces].mean(1)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    corners = points[faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
    n = 6000  # directions spread evenly over the sphere
    k = np.arange(n) + 0.5
    polar, turn = np.arccos(1 - 2 * k / n), np.pi * (1 + 5**0.5) * k
    sphere = np.stack([np.cos(polar), np.sin(polar) * np.sin(turn), np.sin(polar) * np.cos(turn)], 1)
    density = np.concatenate([np.exp((part @ normals.T - 1) / KERNEL**2) @ area for part in np.array_split(sphere, 20)])
    found: list[np.ndarray] = []
    for direction in sphere[np.argsort(-density)]:
        if all(np.arccos(np.clip(direction @ other, -1, 1)) > APART for other in found):
            near = normals @ direction > np.cos(2 * KERNEL)
            mean = (normals[near] * area[near, None]).sum(0)
            found.append(mean / np.linalg.norm(mean))
        if len(found) == LARGEST:
            break
    share = np.array([area[normals @ f > np.cos(np.deg2rad(10))].sum() for f in found]) / area.sum()
    order = np.argsort(-share)
    return np.array(found)[order], share[order]


def main(path: str) -> None:
    """Print facets, nearest allowed angle to q, and the deviation; then what random directions would give."""
    result = results.read(path)
    normals, share = facets(result)
    q = result.volume.q_bragg / np.linalg.norm(result.volume.q_bragg)
    to_q = np.rad2deg(np.arccos(np.clip(normals @ q, -1, 1)))
    allowed = [(angle, name) for name, angles in TO_Q.items() for angle in angles]
    print("| facet | share of surface [%] | angle to q [deg] | nearest of fcc [deg] | off [deg] |\n|---|---|---|---|---|")
    off = []
    for number, (angle, part) in enumerate(zip(to_q, share, strict=True)):
        nearest, name = min(allowed, key=lambda item: abs(item[0] - angle))
        off.append(angle - nearest)
        print(f"| {number + 1} | {100 * part:.1f} | {angle:.1f} | {name} {nearest:.1f} | {angle - nearest:+.1f} |")
    weight = share / share.sum()
    chance = np.random.default_rng(0).normal(size=(20_000, 3))
    chance_angle = np.rad2deg(np.arccos(chance @ q / np.linalg.norm(chance, axis=1)))
    expected = np.mean(np.min([np.abs(chance_angle - angle) for angle, _ in allowed], axis=0))
    print(f"area-weighted mean deviation {np.sum(weight * np.abs(off)):.1f} deg; random directions {expected:.1f} deg")


if __name__ == "__main__":
    main(sys.argv[1])
