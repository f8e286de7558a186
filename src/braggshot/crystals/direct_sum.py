r"""Compute a rocking or energy scan frame by frame from its geometry, without a Fourier transform or a voxel basis.

.. math:: F(\text{frame, row, column}) = \sum_n \rho_n\, e^{-i (q - g) \cdot r_n}, \qquad q = q(\text{frame, row, column}), \quad
          \rho_n = s_n e^{-i g \cdot u_n}

q is `braggshot.physics.geometry.scattering_vector` of the pixel, including the curvature of the Ewald sphere. g is the scattering
vector of the undistorted lattice. r_n are the points of a crystal in the laboratory, with the sample as it stood at the reference
frame; s_n and u_n are the density and the displacement at these points. The sum is slow; it serves to check the fast simulation
(`braggshot.crystals.scan`) and the strain map (`braggshot.crystal_frame`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from braggshot.physics.geometry import scattering_vector
from braggshot.volumes import ComplexArray, FloatArray, Geometry


def rocking_scan(
    rho: ComplexArray, edges: Sequence[float], g: FloatArray, geometry: Geometry, shape: tuple[int, int, int], reference: float
) -> NDArray[np.complex128]:
    """Compute the complex amplitude on every pixel of every frame of a rocking scan or an energy scan.

    Parameters
    ----------
    rho : (z, y, x) crystal on an orthogonal grid of the laboratory, r = 0 at N // 2
    edges : voxel edges of the crystal's grid (z, y, x) [m]; 2 pi / edge must exceed the width of the detector in reciprocal space
    g : scattering vector of the undistorted lattice, in the laboratory at frame `reference` [1/m]
    geometry : circles of the diffractometer, distance and pixels of the detector
    shape : (frames, rows, columns) of the scan
    reference : index of the frame at which the sample has the orientation of `rho`

    Returns
    -------
    F : (frames, rows, columns) [units of rho]

    Raises
    ------
    GeometryError : if the geometry describes neither a rocking scan nor an energy scan.
    """
    rows, columns = np.indices(shape[1:])
    frames = []
    for frame in range(shape[0]):
        offset = scattering_vector(geometry, frame, rows.ravel(), columns.ravel(), reference) - g
        frames.append(amplitude(rho, edges, offset).reshape(shape[1:]))
    return np.stack(frames)


def amplitude(rho: ComplexArray, edges: Sequence[float], offset: FloatArray) -> NDArray[np.complex128]:
    """Compute the amplitude (n,) that a crystal scatters to n pixels [units of rho].

    On orthogonal axes exp(-i offset . r) is a product of one factor per axis. So the sum over the voxels r is taken along one axis
    after the other.

    Parameters
    ----------
    rho, edges : as in `rocking_scan`
    offset : (n, 3) scattering vector of each pixel minus that of the undistorted lattice [1/m]
    """
    z, y, x = (
        np.exp(-1j * np.outer(offset[:, axis], edge * (np.arange(size) - size // 2)))
        for axis, (edge, size) in enumerate(zip(edges, rho.shape, strict=True))
    )
    along_x = np.tensordot(rho, x, axes=(2, 1))  # sum over x of crystal times phase factor, one for each of n pixels: (z, y, n)
    return np.asarray(np.einsum("zyn,ny,nz->n", along_x, y, z, optimize=["einsum_path", (0, 1), (0, 1)]))
