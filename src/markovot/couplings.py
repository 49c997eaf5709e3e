"""The optimal couplings of rows, as solutions show them, from the entries `(row, column, mass)` that engines give."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

Entries = tuple[Tensor, Tensor, Tensor]


def check_pair(batch: torch.Size, shape: tuple[int, int], states: tuple[int, int], *, instead: str) -> None:
    """Refuse a pair of states of a batch, or one that is not there; `instead` is what serves batches."""
    if batch.numel() != 1:
        raise ValueError(
            f"coupling: the solution is of a batch of shape {tuple(batch)}. Solve the one pair alone, or use {instead}."
        )
    (n, m), (i, j) = shape, states
    if not (0 <= i < n and 0 <= j < m):
        raise IndexError(f"coupling: no states ({i}, {j}) among {n} x {m}. Both count from 0.")


def check_item(item: int, num_items: int) -> None:
    """Refuse an item that is not in the batch."""
    if not 0 <= item < num_items:
        raise IndexError(f"transition_coupling: no item {item} in a batch of {num_items}.")


def of_states(entries: Entries, shape: tuple[int, int], states: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """The coupling of the rows of two states, dense (n, m)."""
    row, column, mass = entries
    (n, m), (i, j) = shape, states
    chosen = row == i * m + j
    dense = torch.zeros(n * m, dtype=torch.float64, device=mass.device)
    return dense.index_add(0, column[chosen], mass[chosen]).view(n, m).to(dtype)


def of_chains(entries: Entries, shape: tuple[int, int]) -> Any:
    """The coupled chain on pairs of states, a SciPy sparse array (nm, nm)."""
    from scipy.sparse import coo_array

    n, m = shape
    row, column, mass = (np.asarray(part.cpu()) for part in entries)
    return coo_array((mass, (row, column)), shape=(n * m, n * m)).tocsr()
