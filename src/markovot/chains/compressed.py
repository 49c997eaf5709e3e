"""Compressed rows of a batch of matrices: row pointers, column indices and values in one flat store.

The row `i` of matrix `b` is `values[indptr[b, i]:indptr[b, i+1]]`, at the columns `indices[...]` of the same
slice. torch's own sparse tensors are read (see `sparse`) but never made: in a batch of them all items need the same
number of entries, and some operations cannot reach their values.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from markovot.autograd.transforms import outside, plain


class Compressed(NamedTuple):
    """Square matrices in compressed rows."""

    indptr: Tensor  # int64 (*batch, n+1)
    indices: Tensor  # int64 (nnz,)
    values: Tensor  # (nnz,)

    @property
    def rows_shape(self) -> torch.Size:
        """(*batch, n)."""
        return self.indptr[..., 1:].shape

    def owner(self) -> Tensor:
        """Flat number of the row of each stored entry, (nnz,)."""
        # Count the row ends up to each entry. torch.repeat_interleave wakes all threads for any work, and
        # took 12 ms instead of 10 µs on a busy machine.
        ends = self.indptr[..., 1:].reshape(-1)[:-1]
        return torch.bincount(ends, minlength=len(self.values))[: len(self.values)].cumsum(0)

    def row_sums(self, owner: Tensor) -> Tensor:
        """Sums of the rows, float64 (*batch, n), outside autograd."""
        sums = torch.zeros(self.rows_shape.numel(), dtype=torch.float64, device=self.values.device)
        return sums.index_add_(0, owner, self.values.detach().double()).view(self.rows_shape)

    def to_dense(self) -> Tensor:
        """The matrices, (*batch, n, n), differentiable in the values."""
        n = self.rows_shape[-1]
        flat = self.values.new_zeros(self.rows_shape.numel() * n)
        return flat.index_add(0, self.owner() * n + self.indices, self.values).view(*self.rows_shape, n)


def pointers(owner: Tensor, rows_shape: tuple[int, ...]) -> Tensor:
    """Row pointers, (*batch, n+1), of entries whose flat row numbers `owner` are in ascending order."""
    size = torch.Size(rows_shape)
    ends = torch.bincount(owner, minlength=size.numel()).cumsum(0).view(size)
    starts = torch.cat([ends.new_zeros(1), ends.flatten()[:-1]]).view(size)
    return torch.cat([starts[..., :1], ends], dim=-1)


def gather(owner: Tensor, columns: Tensor, values: Tensor, rows_shape: tuple[int, ...]) -> Compressed:
    """Compress entries in any order; entries at the same place are summed. Differentiable in the values."""
    n = rows_shape[-1]
    keys, slot = torch.unique(owner * n + columns, return_inverse=True)
    summed = values.new_zeros(len(keys)).index_add(0, slot, values)
    return Compressed(pointers(keys // n, rows_shape), keys % n, summed)


def check(name: str, rows: Compressed) -> None:
    """Refuse pointers and columns with which a loop would read beyond the arrays, or an entry twice.

    Compiled loops, also those of SciPy, follow these numbers blindly, so all input from outside is checked here first.

    Raises:
        TypeError: pointers or columns that are not int64.
        ValueError: parts that do not fit together, columns out of range, unsorted or repeated.
    """
    for part, tensor in (("indptr", rows.indptr), ("indices", rows.indices)):
        if tensor.dtype != torch.int64:
            raise TypeError(f"{name}: {part} has dtype {tensor.dtype}. Convert it with .long().")
    count, size = rows.indices.numel(), rows.indptr.shape[-1] - 1 if rows.indptr.dim() else 0
    if rows.indices.dim() != 1 or rows.values.shape[-1:] != (count,) or size < 1:
        raise ValueError(
            f"{name}: indptr {tuple(rows.indptr.shape)}, indices {tuple(rows.indices.shape)} and values "
            f"{tuple(rows.values.shape)} do not fit together. Give (*batch, n+1), (nnz,) and (nnz,)."
        )
    with outside():
        _check_places(name, light(rows.indptr).reshape(-1, size + 1), light(rows.indices))


def _check_places(name: str, indptr: Any, indices: Any) -> None:
    count, size = len(indices), indptr.shape[1] - 1
    ends = indptr[:, 1:]
    whole = indptr[0, 0] == 0 and indptr[-1, -1] == count and (indptr[1:, 0] == indptr[:-1, -1]).all()
    if not (bool(whole) and bool((ends >= indptr[:, :-1]).all())):
        raise ValueError(f"{name}: indptr must rise from 0 to the number of stored entries, {count}.")
    if not count:
        return
    if not (bool(indices.min() >= 0) and bool(indices.max() < size)):
        at = int(((indices < 0) | (indices >= size)).nonzero()[0].reshape(-1)[0])
        raise ValueError(f"{name}: column {int(indices[at])} of stored entry {at} does not lie in [0, {size}).")
    rises = indices[1:] > indices[:-1]
    starts = ends.reshape(-1)
    rises[starts[(starts > 0) & (starts < count)] - 1] = True  # between two rows, columns may fall
    if not bool(rises.all()):
        raise ValueError(f"{name}: columns must rise within each row. Sort them, and sum entries that are repeated.")


def light(tensor: Tensor) -> Any:
    """A small tensor as a NumPy array, since NumPy needs a fifth of torch's time for it."""
    with outside():
        tensor = plain(tensor)
        return tensor.numpy() if tensor.device.type == "cpu" else tensor
