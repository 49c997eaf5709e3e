"""The parts of the Poisson equation of a coupled chain: sets of pairs, the independent coupling, LU factors."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from markovot.average.recurrence import support
from markovot.transport.rows import Rows

# Where rows are this full, and on other devices, the independent coupling is applied by two dense products.
DENSE_SHARE = 1 / 8
# The matrix of the independent coupling is not formed if it has more entries than this.
MOST_ENTRIES = 1 << 23
# Steps of the power method, for the order of states.
ORDER_STEPS = 10


class Sets:
    """Disjoint sets of pairs of states.

    Args:
        labels: which set each pair is in, int64 (n, m), counted from 0; -1: in none.
    """

    def __init__(self, labels: Tensor) -> None:
        self.labels = labels
        self.inside = labels >= 0
        self.count = int(labels.max()) + 1
        self._slot = torch.where(self.inside, labels, self.count).reshape(-1)
        self.sizes = torch.bincount(self._slot, minlength=self.count + 1)[: self.count]

    def mean(self, v: Tensor) -> Tensor:
        """The mean of v (1, n, m) over each set, (count,)."""
        if self.count == 1:
            return (v * self.inside).sum()[None] / self.sizes
        sums = v.new_zeros(self.count + 1).index_add_(0, self._slot, v.reshape(-1))
        return sums[:-1] / self.sizes

    def least(self, v: Tensor) -> Tensor:
        """The least value of v in each set, (count,)."""
        start = v.new_full((self.count + 1,), torch.inf)
        return start.scatter_reduce_(0, self._slot, v.reshape(-1), "amin")[:-1]

    def largest(self, v: Tensor) -> Tensor:
        """The largest value of v in each set, (count,)."""
        return -self.least(-v)

    def spread(self, values: Tensor) -> Tensor:
        """Write the value of each set (count,) at all its pairs, (1, n, m); zero elsewhere."""
        return torch.cat([values, values.new_zeros(1)])[self._slot].view(1, *self.labels.shape)

    def only(self, chosen: int) -> "Sets":
        """The one chosen set."""
        return Sets(torch.where(self.labels == chosen, 0, -1))


class Independent:
    """The coupling that moves two chains independently of each other: v -> A v B^T."""

    def __init__(self, rows_x: Rows, rows_y: Rows) -> None:
        self._x, self._y = support(rows_x), support(rows_y)
        n, m = self._x.shape[0], self._y.shape[0]
        device = rows_x.values.device
        self._dense: tuple[Tensor, Tensor] | None = None
        if device.type != "cpu" or self._x.nnz * m + n * self._y.nnz >= DENSE_SHARE * n * m * (n + m):
            a, b = (torch.from_numpy(rows.toarray()).to(device) for rows in (self._x, self._y))
            self._dense = (a, b)

    def __call__(self, v: Tensor) -> Tensor:
        """A v B^T of (1, n, m)."""
        if self._dense is not None:
            return self._dense[0] @ v @ self._dense[1].mT
        return torch.from_numpy((self._y @ (self._x @ v[0].numpy()).T).T[None].copy())

    def matrix(self) -> Any:
        """The Kronecker product of A and B, a SciPy sparse array (nm, nm), or None where it would be too large."""
        from scipy.sparse import kron

        return kron(self._x, self._y, format="csr") if self._x.nnz * self._y.nnz <= MOST_ENTRIES else None


def monotone_order(rows: tuple[Rows, Rows], cost: Tensor) -> tuple[Rows, Rows]:
    """The same chains, with row entries sorted so that the north-west corner rule gives a good first plan.

    The states are sorted by the leading singular vectors of the cost, after its row and column means are subtracted. If
    the cost were a product of two vectors, coupling both sides in this order would be optimal. Measured on block models
    of 40 to 100 states: the simplex method needs a half to two thirds of the pivots.

    Args:
        rows: the rows of the two chains.
        cost: (1, n, m).
    """
    centred = cost[0] - cost[0].mean(0) - cost[0].mean(1, keepdim=True) + cost[0].mean()
    u = centred[:, centred.square().sum(0).argmax()]
    for _ in range(ORDER_STEPS):
        v = centred.mT @ u
        u = torch.nn.functional.normalize(centred @ v, dim=0)
    # states that should be coupled have a negative product
    return _ordered(rows[0], u), _ordered(rows[1], -(centred.mT @ u))


def _ordered(rows: Rows, place: Tensor) -> Rows:
    owner = rows.owners()[1]
    order = torch.argsort(place[rows.indices], stable=True)
    order = order[torch.argsort(owner[order], stable=True)]
    return Rows(rows.sizes, rows.indptr, rows.indices[order], rows.values[order])


class Factors:
    """LU factors of `I - P + E W`: E gives each pair the value of its set, W takes the mean over each set.

    The dense part E W becomes a border of the matrix: `(I - P) x + E g = b`, `W x = 0` has the solution `z = x + E g`.

    Args:
        matrix: P, a SciPy sparse array (nm, nm), whose rows outside the sets are zero.
        sets: which pairs are in which set, or None for no sets.
    """

    def __init__(self, matrix: Any, sets: Sets | None) -> None:
        from scipy.sparse import csc_array, csr_array
        from scipy.sparse.linalg import splu

        size = matrix.shape[0]
        count = 0 if sets is None else sets.count
        labels = np.full(size, -1) if sets is None else sets.labels.reshape(-1).cpu().numpy()
        sizes = np.zeros(0) if sets is None else sets.sizes.cpu().numpy()
        every, inside = np.arange(size), np.flatnonzero(labels >= 0)
        below, ones = size + labels[inside], np.ones(inside.size)
        self._border = csr_array((ones, (inside, labels[inside])), shape=(size, count))
        row = np.concatenate([every, np.repeat(every, np.diff(matrix.indptr)), inside, below])
        column = np.concatenate([every, matrix.indices, below, inside])
        value = np.concatenate([np.ones(size), -matrix.data, ones, 1.0 / sizes[labels[inside]]])
        self._lu = splu(csc_array((value, (row, column)), shape=(size + count, size + count)))

    def solve(self, rhs: Tensor, *, transpose: bool) -> Tensor:
        """The solution z of the system, or of its transpose (with P^T and (E W)^T); rhs and z are (1, n, m)."""
        b = rhs.reshape(-1).cpu().numpy()
        # The transpose is `(I - P)^T z + W^T s = b`, `E^T z = E^T b`. Summed over a set, it gives s = E^T z.
        below = self._border.T @ b if transpose else np.zeros(self._border.shape[1])
        found = self._lu.solve(np.append(b, below), trans="T" if transpose else "N")
        x, g = found[: b.size], found[b.size :]
        z = x if transpose else x + self._border @ g
        return torch.from_numpy(z).view_as(rhs).to(rhs.device)

