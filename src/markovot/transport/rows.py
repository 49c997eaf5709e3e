"""Transition rows on their support: what every transport engine takes."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of the transition matrices of a batch of chains, in one flat compressed store.

    Row i of chain b has the states `indices[indptr[b, i]:indptr[b, i+1]]` and there the probabilities `values`, all
    positive. Rows beyond `sizes[b]` are empty.
    """

    sizes: Tensor  # int64 (B,)
    indptr: Tensor  # int64 (B, n+1)
    indices: Tensor  # int64 (nnz,)
    values: Tensor  # float64 (nnz,)
    layouts: dict[Any, Any] = field(default_factory=dict, repr=False)  # engines keep their own layouts of the rows here

    @property
    def num_states(self) -> int:
        """The number of states n, padding included."""
        return self.indptr.shape[1] - 1

    @cached_property
    def degrees(self) -> Tensor:
        """Number of stored entries of each row, (B, n)."""
        return self.indptr.diff(dim=1)

    @cached_property
    def fullness(self) -> Tensor:
        """Root mean square of the numbers of stored entries of the real rows of each chain, (B,)."""
        return (self.degrees.double().square().sum(1) / self.sizes).sqrt()

    @cached_property
    def max_degree(self) -> int:
        """The largest number of stored entries of a row."""
        return max(1, int(self.degrees.max()))

    def owners(self) -> tuple[Tensor, Tensor]:
        """The chain and the row to which each stored entry belongs, two (nnz,) tensors."""
        degrees = self.degrees
        # We count the row ends up to each entry, since torch.repeat_interleave wakes all threads, whatever the size.
        ends = degrees.reshape(-1).cumsum(0)[:-1]
        count = self.indices.numel()
        flat = torch.bincount(ends, minlength=count + 1)[:count].cumsum(0)
        return flat // self.num_states, flat % self.num_states

    def alone(self, chain: int) -> "Rows":
        """One chain of the batch, without its padding."""
        n = int(self.sizes[chain])
        if len(self.sizes) == 1 and n == self.num_states:
            return self
        indptr = self.indptr[chain : chain + 1, : n + 1]
        first, last = int(indptr[0, 0]), int(indptr[0, -1])
        return Rows(self.sizes[chain : chain + 1], indptr - first, self.indices[first:last], self.values[first:last])

    def to_dense(self) -> Tensor:
        """The transition matrices, (B, n, n), zero off the support."""
        batch, n = self.degrees.shape
        chain, row = self.owners()
        dense = self.values.new_zeros(batch, n, n)
        dense[chain, row, self.indices] = self.values
        return dense


def array(tensor: Tensor) -> NDArray[Any]:
    """The numbers of a tensor as kernels take them: contiguous, and without a copy where the tensor is contiguous.

    numba compiles a kernel anew for each layout of its arrays, and takes an axis of stride 0, as `expand` makes it, for
    one that holds numbers of its own.
    """
    return (tensor if tensor.is_contiguous() else tensor.contiguous()).numpy()


def flat(tensor: Tensor) -> NDArray[Any]:
    """The numbers of a tensor as `array` gives them, in one dimension."""
    return array(tensor).reshape(-1)
