"""The optimal couplings of rows, as solutions show them, from the entries `(row, column, mass)` that engines give."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from markovot import validate
from markovot.transport.rows import Rows

Entries = tuple[Tensor, Tensor, Tensor]
Chains = tuple[Rows, Rows]  # the two chains of one pair, without padding
_TINY = np.finfo(np.float64).tiny


def check_pair(batch: torch.Size, shape: tuple[int, int], states: tuple[int, int]) -> None:
    """Refuse a batch of solutions, and states that do not exist."""
    if batch.numel() != 1:
        raise ValueError(
            f"coupling: the solution is of a batch of shape {tuple(batch)}. Solve the one pair alone, or use "
            "transition_coupling(item)."
        )
    (n, m), (i, j) = shape, states
    for name, state in (("i", i), ("j", j)):
        validate.count(name, state, low=-validate.LARGEST)
    if not (0 <= i < n and 0 <= j < m):
        raise IndexError(f"coupling: no states ({i}, {j}) among {n} x {m}. Both, i and j, count from 0.")


def check_item(item: int, num_items: int) -> None:
    """Refuse an item that is not in the batch."""
    if not 0 <= validate.count("item", item, low=-validate.LARGEST) < num_items:
        raise IndexError(f"transition_coupling: no item {item} in a batch of {num_items}.")


def of_states(
    entries: Entries, shape: tuple[int, int], chains: Chains, states: tuple[int, int], dtype: torch.dtype
) -> Tensor:
    """The coupling of the rows of two states, dense (n, m); its marginals are the rows, to within rounding."""
    row, column, mass = (part.cpu().numpy() for part in entries)
    (n, m), (i, j) = shape, states
    chosen = row == i * m + j
    plan = np.zeros(n * m)
    plan[column[chosen]] = _onto_rows((row[chosen], column[chosen], mass[chosen]), m, chains)
    return torch.from_numpy(plan).view(n, m).to(entries[2].device, dtype)


def of_chains(entries: Entries, shape: tuple[int, int], chains: Chains) -> Any:
    """The coupled chain on pairs of states, a SciPy sparse array (nm, nm); each row is the coupling of two rows."""
    from scipy.sparse import coo_array

    n, m = shape
    row, column, mass = (part.cpu().numpy() for part in entries)
    return coo_array((_onto_rows((row, column, mass), m, chains), (row, column)), shape=(n * m, n * m)).tocsr()


def _onto_rows(entries: tuple[Any, Any, Any], m: int, chains: Chains) -> Any:
    """The masses of plans, rounded onto the rows that they couple.

    Rows and columns with too much mass are scaled down; the missing mass is added as a product (Altschuler, Weed,
    Rigollet: Near-linear time approximation algorithms for optimal transport via Sinkhorn iteration, 2017).
    """
    row, column, mass = entries
    x, y = (rows.to_dense()[0].cpu().numpy() for rows in chains)
    (k, l), width = divmod(column, m), max(len(x), len(y))
    a, b = x[row // m, k], y[row % m, l]
    in_row, in_column = _Sums(row * width + k), _Sums(row * width + l)
    mass = mass * np.minimum(1.0, a / np.maximum(in_row(mass), _TINY))
    mass = mass * np.minimum(1.0, b / np.maximum(in_column(mass), _TINY))
    missing_a, missing_b = np.maximum(a - in_row(mass), 0.0), np.maximum(b - in_column(mass), 0.0)
    # Every entry of a row holds the mass that the whole row misses: divided by the number of entries, it counts once.
    whole = _Sums(row)(missing_a / in_row(np.ones_like(mass)))
    return mass + missing_a * missing_b / np.maximum(whole, _TINY)


class _Sums:
    """Sums the values of all entries with the same key, and gives each entry the sum of its key."""

    def __init__(self, keys: Any) -> None:
        _, self._group = np.unique(keys, return_inverse=True)

    def __call__(self, values: Any) -> Any:
        return np.bincount(self._group, weights=values)[self._group]
