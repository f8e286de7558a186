"""Apply sparse matrices to rows of numbers, forward and backward, in torch; as fast as reading the numbers once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from torch.nn.functional import embedding_bag

from braggshot.volumes import BoolArray


@dataclass(frozen=True)
class Rows:
    """Compressed rows of a sparse matrix: columns and values of all rows in turn, and where each row begins."""

    columns: Tensor
    begins: Tensor
    values: Tensor


@dataclass(frozen=True)
class Linear:
    """A sparse matrix, and its transpose for the gradient; its rows and columns all have entries, or stand for zeros."""

    forward: Rows
    backward: Rows

    def __matmul__(self, nodes: Tensor) -> Tensor:
        """Multiply the matrix (m, n) by nodes (n, c); differentiable in the nodes."""
        result: Tensor = _Product.apply(nodes, self)  # type: ignore[no-untyped-call]
        return result


def linear(matrix: Any) -> Linear:
    """Make a `Linear` of a scipy matrix (m, n), in single precision."""
    return Linear(*(_rows(sparse.csr_matrix(one)) for one in (matrix, matrix.T)))


def second_differences(region: BoolArray) -> Any:
    """Return the scipy matrix (m, nodes) of u(n - 1) - 2 u(n) + u(n + 1) along each axis, where the region holds all three."""
    number = np.full(region.shape, -1)
    number[region] = np.arange(region.sum())
    triples = []
    for axis in range(3):
        low, middle, high = (np.moveaxis(number, axis, 0)[part].ravel() for part in (slice(None, -2), slice(1, -1), slice(2, None)))
        inside = (low >= 0) & (middle >= 0) & (high >= 0)
        triples.append(np.stack([low[inside], middle[inside], high[inside]]))
    nodes = np.concatenate(triples, axis=1)
    rows = np.broadcast_to(np.arange(nodes.shape[1]), nodes.shape)
    values = np.broadcast_to(np.array([[1.0], [-2.0], [1.0]]), nodes.shape)
    return sparse.csr_matrix((values.ravel(), (rows.ravel(), nodes.ravel())), shape=(nodes.shape[1], int(region.sum())))


def _rows(matrix: Any) -> Rows:
    return Rows(
        torch.from_numpy(matrix.indices).long(),
        torch.from_numpy(matrix.indptr[:-1]).long(),
        torch.from_numpy(matrix.data).float(),
    )


def _sum(rows: Rows, values: Tensor) -> Tensor:
    return embedding_bag(rows.columns, values.contiguous(), rows.begins, mode="sum", per_sample_weights=rows.values)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, nodes: Tensor, matrix: Linear) -> Tensor:
        context.matrix = matrix
        return _sum(matrix.forward, nodes)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _sum(context.matrix.backward, gradients[0]), None
