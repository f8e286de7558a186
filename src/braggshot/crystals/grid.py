"""Compute voxel positions of a batch of crystals: r = basis @ (n - origin), on any basis, also a skewed one.

Every shape and phase field in this package is a function of position. It is evaluated directly on the grid in use and never
interpolated. Such a grid may be a coarse one on which the extent of a shape is measured, the voxels of a training volume, or the
skewed voxels of a detector frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """Positions r = basis @ (n - origin) of the voxels n of `batch` crystals.

    The unit of length is such that a crystal's inscribed radius is about 1.

    Parameters
    ----------
    basis : (batch, 3, 3), columns are the voxel edges, in this unit of length
    origin : (batch, 3), index of the point r = 0 [voxels]
    shape : numbers of voxels (z, y, x)
    """

    basis: Tensor
    origin: Tensor
    shape: tuple[int, int, int]

    @property
    def batch(self) -> int:
        """Number of crystals in the batch."""
        return self.basis.shape[0]

    @property
    def pitch(self) -> Tensor:
        """Edge of a cube with a voxel's volume (batch, 1, 1, 1), in the unit in which a crystal's inscribed radius is about 1."""
        return torch.linalg.det(self.basis).abs().pow(1 / 3)[:, None, None, None]

    def transform(self, matrix: Tensor) -> Grid:
        """Return the same voxels in other coordinates: r -> matrix @ r, `matrix` (batch, 3, 3) or (3, 3)."""
        return replace(self, basis=matrix @ self.basis)

    def shift_origin(self, shift: Tensor) -> Grid:
        """Return the same voxels with the origin moved to the position `shift` (batch, 3): r -> r - shift."""
        return replace(self, origin=self.origin + torch.linalg.solve(self.basis, shift))

    def select(self, index: Tensor) -> Grid:
        """Return the grid of those crystals of the batch that have the indices `index`."""
        return replace(self, basis=self.basis[index], origin=self.origin[index])

    def edges(self, vectors: Tensor) -> Tensor:
        """Return basis^T v for `vectors` v (..., batch, 3): the change of v . r from one voxel to the next along each axis."""
        return (vectors.unsqueeze(-2) @ self.basis).squeeze(-2)

    def dot(self, vectors: Tensor) -> Tensor:
        """Return v . r for one vector v per crystal and the position r of every voxel, (batch, 3) -> (batch, z, y, x)."""
        z, y, x = self.separate(self.edges(vectors))
        return z[:, :, None, None] + y[:, None, :, None] + x[:, None, None, :]

    def waves(self, vectors: Tensor, coefficients: Tensor) -> Tensor:
        """Sum plane waves at every voxel position r: Re sum_j c_j exp(i k_j . r).

        `vectors` (batch, waves, 3) are the k_j, and complex `coefficients` (batch, waves) the c_j. Each wave is the product of
        three factors, one for each axis; a matrix product sums these products over the waves.
        """
        along = self.edges(vectors.transpose(0, 1)).transpose(0, 1)
        z, y, x = (torch.exp(1j * phase) for phase in self.separate(along))
        plane = (coefficients[..., None] * z)[..., None] * y[..., None, :]
        return torch.einsum("bjzy,bjx->bzyx", plane, x).real

    def separate(self, along: Tensor) -> list[Tensor]:
        """Return three terms, one for each axis, that add up to v . r for a vector v and the voxel positions r.

        `along` (batch, [vectors,] 3) holds the dot products of v and each of the three voxel edges.
        """
        terms = []
        for axis, size in enumerate(self.shape):
            origin = self.origin[:, axis].reshape(-1, *[1] * (along.ndim - 1))
            index = torch.arange(size, device=along.device, dtype=along.dtype)
            terms.append(along[..., axis, None] * (index - origin))
        return terms


def centred_grid(basis: Tensor, shape: Sequence[int], offset: Tensor | float = 0.0) -> Grid:
    """Return a grid with r = 0 at the voxel N // 2 plus `offset` (batch, 3) [voxels]."""
    middle = torch.tensor([n // 2 for n in shape], dtype=basis.dtype, device=basis.device)
    z, y, x = shape
    return Grid(basis, middle.expand(basis.shape[0], 3) + offset, (z, y, x))
