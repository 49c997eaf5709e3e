"""Sparse matrices of torch and SciPy, in every format, read into compressed rows.

Every format is first turned into places and values, with simple operations of NumPy and torch. The compiled loops of
SciPy and torch trust the indices that they get, and a wrong index makes them read or write anywhere. Flags that say
that indices are sorted or unique are not trusted either.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from markovot import validate
from markovot.chains.compressed import Compressed, gather, light, pointers
from markovot.validate.containers import is_scipy, own, plain_tensor


class _Stored(NamedTuple):
    """Stored entries in any order, their indices not yet checked: one row for each dimension of the matrix."""

    places: Tensor  # int64 (dims, nnz)
    values: Tensor  # (nnz,)


def is_sparse(matrix: Any) -> bool:
    """Whether this is a sparse torch tensor of any layout, or a SciPy sparse matrix."""
    if isinstance(matrix, Tensor):
        return matrix.layout != torch.strided and not matrix.is_nested
    return is_scipy(matrix)


def read(name: str, matrix: Any, *, integers: bool = False) -> Compressed:
    """Read a sparse torch tensor (any layout and batch dimensions) or a SciPy sparse matrix, into new storage.

    Values that require a gradient keep their connection: `backward` gives a torch tensor a sparse gradient. Entries at
    the same place are summed; a CSR tensor must not have any.

    Args:
        name: the argument, for messages.
        matrix: an object for which `is_sparse` is true.
        integers: whether integers and booleans are accepted. They become float64 before they are summed, since a sum
            may not fit into their own type.

    Raises:
        TypeError: another layout, another dtype than float32 and float64.
        ValueError: not square, empty, or indices out of range; a CSR tensor whose column indices are unsorted or
            repeated.
    """
    if isinstance(matrix, Tensor):
        return _read_tensor(name, matrix, integers)
    validate.square(name, matrix.shape)
    stored = _scipy_entries(name, matrix)
    return _compress(name, stored._replace(values=_numbers(name, stored.values, integers)), tuple(matrix.shape))


def _numbers(name: str, values: Tensor, integers: bool) -> Tensor:
    if integers and not values.is_floating_point() and not values.is_complex():
        return values.double()
    validate.floating(name, values)
    return values


def _compress(name: str, stored: _Stored, shape: tuple[int, ...], *, ordered: bool = False) -> Compressed:
    """Check the indices; sort and sum the entries if they are out of order. With `ordered`, refuse such entries."""
    index, values = stored
    if index.shape != (len(shape), len(values)):
        raise ValueError(
            f"{name}: there are indices of shape {tuple(index.shape)} for {len(values)} values of a matrix {shape}."
        )
    parts = light(index)
    sizes = zip(parts, shape, strict=True)
    if len(values) and any(bool(part.min() < 0) or bool(part.max() >= size) for part, size in sizes):
        bounds = torch.tensor(shape, device=index.device)[:, None]
        _, at = validate.first((index < 0) | (index >= bounds))
        raise ValueError(
            f"{name}: stored entry {at} is at {tuple(index[:, at].tolist())}, outside the shape {shape}. Correct its "
            "indices."
        )
    row = parts[0]
    for part, size in zip(parts[1:-1], shape[1:-1], strict=True):
        row = row * size + part
    keys = row * shape[-1] + parts[-1]
    owner = row if isinstance(row, Tensor) else torch.from_numpy(row)
    if bool((keys[1:] > keys[:-1]).all()):
        return Compressed(pointers(owner, shape[:-1]), index[-1].clone(), own(values))
    if ordered:
        raise ValueError(f"{name}: indices() are unsorted or repeated, though the tensor is marked as coalesced.")
    return gather(owner, index[-1], values, shape[:-1])


# --- torch
def _read_tensor(name: str, tensor: Tensor, integers: bool) -> Compressed:
    plain_tensor(name, tensor)
    layouts: dict[Any, Any] = {
        torch.sparse_coo: _read_coo,
        torch.sparse_csr: _read_blocks,
        torch.sparse_csc: _read_blocks,
        torch.sparse_bsr: _read_blocks,
        torch.sparse_bsc: _read_blocks,
    }
    if tensor.layout not in layouts:
        raise TypeError(f"{name}: layout {tensor.layout} is not supported. Convert it with {name}.to_dense().")
    if tensor.dense_dim():
        raise ValueError(
            f"{name}: hybrid sparse tensors (dense_dim() = {tensor.dense_dim()}) are not transition matrices."
        )
    validate.square(name, tensor.shape)
    validate.has_values(name, tensor)
    if not integers:
        validate.floating(name, tensor)
    return layouts[tensor.layout](name, tensor, integers)


def _read_coo(name: str, tensor: Tensor, integers: bool) -> Compressed:
    shape = tuple(tensor.shape)
    index, values = tensor._indices(), tensor._values()
    if tensor.requires_grad:
        # Only values() keeps the gradient, and only a coalesced tensor has it. So the indices are checked first.
        _compress(name, _Stored(index, values.detach()), shape)
        tensor = tensor if tensor.is_coalesced() else tensor.coalesce()
        index, values = tensor.indices(), tensor.values()
    return _compress(name, _Stored(index, _numbers(name, values, integers)), shape, ordered=tensor.is_coalesced())


def _read_blocks(name: str, tensor: Tensor, integers: bool) -> Compressed:
    """CSR and CSC, and BSR and BSC, whose entries are blocks."""
    by_rows = tensor.layout in (torch.sparse_csr, torch.sparse_bsr)
    blocked = tensor.layout in (torch.sparse_bsr, torch.sparse_bsc)
    if tensor.requires_grad and tensor.is_leaf and tensor.layout != torch.sparse_csr:
        raise TypeError(
            f"{name}: torch has no gradient for a tensor of layout {tensor.layout}. Convert it with "
            f"{name}.detach().to_dense().to_sparse_csr().requires_grad_()."
        )
    names = ("crow_indices", "col_indices") if by_rows else ("ccol_indices", "row_indices")
    starts, other = (getattr(tensor, each)().long() for each in names)
    values = _numbers(name, tensor.values(), integers)
    *batch, rows, columns = tensor.shape
    block = tuple(values.shape[-2:]) if blocked else (1, 1)
    lines = rows // block[0] if by_rows else columns // block[1]
    owner = _owner(name, names, starts, other, (*batch, lines))
    across = other.reshape(-1)
    if tensor.layout == torch.sparse_csr:
        return _csr(name, (starts, across, values.reshape(-1)), owner, columns)
    line = owner % lines
    places = (line, across) if by_rows else (across, line)
    items = torch.unravel_index(owner // lines, tuple(batch)) if batch else ()
    index = _spread((*items, *places), block)
    return _compress(name, _Stored(index, values.reshape(-1)), tuple(tensor.shape))


def _owner(name: str, names: tuple[str, str], starts: Tensor, other: Tensor, lines: tuple[int, ...]) -> Tensor:
    """The flat number of the row (of CSR; the column of CSC, the rows of blocks of BSR, ...) of each stored entry."""
    count = other.shape[-1]
    wanted = (*lines[:-1], lines[-1] + 1)
    if tuple(starts.shape) != wanted or tuple(other.shape) != (*lines[:-1], count):
        raise ValueError(
            f"{name}: {names[0]}() has shape {tuple(starts.shape)} and {names[1]}() {tuple(other.shape)}, which do not "
            f"fit the shape of the tensor: {wanted} and {(*lines[:-1], 'nnz')}."
        )
    if not bool(((starts[..., 0] == 0) & (starts[..., -1] == count)).all() & (starts.diff(dim=-1) >= 0).all()):
        raise ValueError(f"{name}: {names[0]}() must rise from 0 to the number of stored entries, {count}.")
    flat = other.reshape(-1)
    return Compressed(_joined(starts, count), flat, flat).owner()


def _joined(starts: Tensor, count: int) -> Tensor:
    """Row pointers into one common store, from those of a batch: each begins at 0, and has `count` entries."""
    offsets = count * torch.arange(starts[..., 0].numel(), device=starts.device)
    return starts + offsets.view(*starts.shape[:-1], 1)


def _csr(name: str, parts: tuple[Tensor, Tensor, Tensor], owner: Tensor, size: int) -> Compressed:
    starts, columns, values = parts
    keys, inner = light(owner) * size + light(columns), light(columns)
    inside = not len(inner) or (bool(inner.min() >= 0) and bool(inner.max() < size))
    if not inside or not bool((keys[1:] > keys[:-1]).all()):
        raise ValueError(
            f"{name}: col_indices() must lie in [0, {size}) and rise within each row. "
            "Build the tensor from a coalesced COO tensor, with .to_sparse_csr()."
        )
    if values.shape != columns.shape:
        raise ValueError(f"{name}: there are {len(columns)} col_indices() for {len(values)} values().")
    count = len(columns) // max(1, starts[..., 0].numel())
    return Compressed(_joined(starts, count), columns.clone(), own(values))


def _spread(index: tuple[Tensor, ...], block: tuple[int, ...]) -> Tensor:
    """Indices (dims, nnz) of all entries of blocks, from those of the blocks, (count,) for each dimension."""
    *items, row, column = (part[:, None, None] for part in index)
    down, along = (torch.arange(size, device=row.device) for size in block)
    row, column = row * block[0] + down[:, None], column * block[1] + along
    return torch.stack([part.reshape(-1) for part in torch.broadcast_tensors(*items, row, column)])


# --- SciPy
def _scipy_entries(name: str, matrix: Any) -> _Stored:
    """The stored entries of a SciPy matrix, without any of SciPy's own loops."""
    readers = {"csr": _lines, "csc": _lines, "bsr": _lines, "coo": _coordinates, "dia": _diagonals}
    reader = readers.get(matrix.format, _listed)
    index, values = reader(name, matrix)
    if index.dtype.kind not in "iu":
        raise TypeError(f"{name}: its indices have dtype {index.dtype}, not integers.")
    return _Stored(torch.from_numpy(index.astype(np.int64)), validate.as_tensor(name, values))


def _lines(name: str, matrix: Any) -> tuple[Any, Any]:
    """CSR, CSC and BSR."""
    starts, other, values = np.asarray(matrix.indptr), np.asarray(matrix.indices), matrix.data
    block = values.shape[1:] if matrix.format == "bsr" else (1, 1)
    across = matrix.format == "csc"
    lines = matrix.shape[1] if across else matrix.shape[0] // block[0]
    if starts.dtype.kind not in "iu" or other.dtype.kind not in "iu":
        raise TypeError(f"{name}: its indices have dtypes {starts.dtype} and {other.dtype}, not integers.")
    starts = starts.astype(np.int64)
    rises = starts.shape == (lines + 1,) and starts[0] == 0 and bool((np.diff(starts) >= 0).all())
    if not rises or starts[-1] > min(len(other), len(values)):
        raise ValueError(
            f"{name}: indptr must hold {lines + 1} numbers that rise from 0 to the number of stored entries, "
            f"{min(len(other), len(values))}."
        )
    count = int(starts[-1])  # entries beyond that are unused space
    owner = np.repeat(np.arange(lines), np.diff(starts))
    other, values = other[:count].astype(np.int64), values[:count]
    if across:
        return np.stack([other, owner]), values
    if matrix.format == "csr":
        return np.stack([owner, other]), values
    index, flat = _spread((torch.from_numpy(owner), torch.from_numpy(other)), block).numpy(), values.reshape(-1)
    return index[:, flat != 0], flat[flat != 0]  # blocks are padded with zeros


def _coordinates(name: str, matrix: Any) -> tuple[Any, Any]:
    parts = [np.asarray(part) for part in matrix.coords]
    if any(len(part) != len(matrix.data) for part in parts):
        raise ValueError(f"{name}: it has {[len(part) for part in parts]} indices for {len(matrix.data)} values.")
    return np.stack(parts), matrix.data


def _diagonals(name: str, matrix: Any) -> tuple[Any, Any]:
    data, offsets = matrix.data, np.asarray(matrix.offsets).astype(np.int64)
    if len(offsets) != len(data):
        raise ValueError(f"{name}: it has {len(offsets)} offsets for {len(data)} diagonals.")
    columns = np.broadcast_to(np.arange(data.shape[1]), data.shape)
    rows = columns - offsets[:, None]
    # Diagonals are padded with zeros, and may reach beyond the matrix.
    inside = (rows >= 0) & (rows < matrix.shape[0]) & (columns < matrix.shape[1]) & (data != 0)
    return np.stack([rows[inside], columns[inside]]), data[inside]


def _listed(name: str, matrix: Any) -> tuple[Any, Any]:
    """LIL and DOK: Python's own lists and dictionaries."""
    if matrix.format == "dok":
        keys = np.array(list(matrix.keys()), dtype=np.int64).reshape(-1, 2)
        return keys.T, np.array(list(matrix.values()), dtype=matrix.dtype)
    if matrix.format != "lil":
        raise TypeError(f"{name}: SciPy's format {matrix.format} is not supported. Convert it with {name}.tocsr().")
    counts = [len(row) for row in matrix.rows]
    if counts != [len(row) for row in matrix.data]:
        raise ValueError(f"{name}: its rows hold {counts} indices, but not so many values.")
    owner = np.repeat(np.arange(len(counts)), counts)
    columns = np.array([k for row in matrix.rows for k in row], dtype=np.int64)
    values: Any = np.array([v for row in matrix.data for v in row], dtype=matrix.dtype)
    return np.stack([owner, columns]), values
