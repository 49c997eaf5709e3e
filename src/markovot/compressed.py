"""Compressed rows of a batch of matrices: row pointers, column indices and values in one flat store.

The row `i` of matrix `b` is `values[indptr[b, i]:indptr[b, i+1]]`, at the columns `indices[...]` of the same
slice. torch's own sparse tensors are read and never made: their batches need equal counts, and values cannot
be reached by every operation.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from markovot import validate


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


def is_scipy(matrix: Any) -> bool:
    """Whether this is a SciPy sparse array or matrix, found out without importing SciPy."""
    if not type(matrix).__module__.startswith("scipy.sparse"):
        return False
    import scipy.sparse

    return bool(scipy.sparse.issparse(matrix))


def is_sparse(matrix: Any) -> bool:
    """Whether this is a sparse torch tensor of any layout, or a SciPy sparse matrix."""
    return matrix.layout != torch.strided if isinstance(matrix, Tensor) else is_scipy(matrix)


def read(name: str, matrix: Any) -> Compressed:
    """Read a sparse torch tensor (CSR or COO, any batch dimensions) or a SciPy sparse matrix.

    The values keep their connection to a torch tensor that requires grad: `backward` gives that tensor a
    sparse gradient.

    Raises:
        TypeError: another layout.
        ValueError: not square, empty, or a CSR tensor whose column indices are out of range, unsorted or
        repeated.
    """
    if is_scipy(matrix):
        return _read_scipy(name, matrix)
    if matrix.layout == torch.sparse_coo:
        return _read_coo(name, matrix)
    if matrix.layout == torch.sparse_csr:
        return _read_csr(name, matrix)
    raise TypeError(f"{name}: layout {matrix.layout} is not supported. Convert it with {name}.to_sparse_csr().")


def _read_coo(name: str, tensor: Tensor) -> Compressed:
    if tensor.dense_dim():
        raise ValueError(
            f"{name}: hybrid sparse tensors (dense_dim() = {tensor.dense_dim()}) are not transition matrices."
        )
    validate.square(name, tensor.shape)
    tensor = tensor if tensor.is_coalesced() else tensor.coalesce()  # coalescing sums repeated entries
    *batch, row, column = tensor.indices()
    owner = torch.zeros_like(row)
    for index, size in zip([*batch, row], tensor.shape[:-1], strict=True):
        owner = owner * size + index
    # A tensor may be declared coalesced without being so.
    if bool(((owner * tensor.shape[-1] + column).diff() <= 0).any()):
        raise ValueError(f"{name}: indices() are unsorted or repeated, though the tensor is marked as coalesced.")
    return Compressed(pointers(owner, tensor.shape[:-1]), column, tensor.values())


def _read_csr(name: str, tensor: Tensor) -> Compressed:
    if tensor.dense_dim():
        raise ValueError(
            f"{name}: hybrid sparse tensors (dense_dim() = {tensor.dense_dim()}) are not transition matrices."
        )
    validate.square(name, tensor.shape)
    crow, column = tensor.crow_indices().long(), tensor.col_indices().long()
    count = column.shape[-1]
    # torch does not check these by default, and reading out of bounds would give wrong numbers quietly.
    if not bool(((crow[..., 0] == 0) & (crow[..., -1] == count)).all() & (crow.diff(dim=-1) >= 0).all()):
        raise ValueError(f"{name}: crow_indices() must rise from 0 to the number of stored entries, {count}.")
    batch = crow[..., 0].numel()
    offsets = count * torch.arange(batch, device=crow.device).view(*crow.shape[:-1], 1)
    rows = Compressed(crow + offsets, column.reshape(-1), tensor.values().reshape(-1))
    keys = rows.owner() * tensor.shape[-1] + rows.indices
    outside = (rows.indices < 0) | (rows.indices >= tensor.shape[-1])
    if bool(outside.any() | (keys.diff() <= 0).any()):
        raise ValueError(
            f"{name}: col_indices() must lie in [0, {tensor.shape[-1]}) and rise within each row. "
            "Build the tensor from a coalesced COO tensor, with .to_sparse_csr()."
        )
    return rows


def _read_scipy(name: str, matrix: Any) -> Compressed:
    validate.square(name, matrix.shape)
    csr = matrix.tocsr()
    if not csr.has_canonical_format:
        csr = csr.copy()  # summing works in place, and inputs are never modified
        csr.sum_duplicates()
    if csr.dtype.kind not in "fiub":
        raise TypeError(f"{name}: dtype {csr.dtype} is not supported. Convert it with {name}.astype(float).")
    values = validate.as_tensor(name, csr.data)
    return Compressed(torch.from_numpy(csr.indptr).long(), torch.from_numpy(csr.indices).long(), values)
