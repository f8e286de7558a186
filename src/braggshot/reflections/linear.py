"""Apply a sparse matrix to rows of numbers, forward and backward, in torch; as fast as reading the numbers once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from scipy import sparse
from torch import Tensor
from torch.nn.functional import embedding_bag


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
