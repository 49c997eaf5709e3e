"""The engine for epsilon = 0: exact transport on the CPU."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from markovot.transport.compiled import exact_sweeps, layout
from markovot.transport.compiled.exact_sweeps import NO_TREE, TREE, Batch, Items, Trees
from markovot.transport.compiled.kernel_engine import KernelEngine, Kernels, collect, pattern_of, starts, zeros
from markovot.transport.compiled.simplex import make_tree
from markovot.transport.compiled.sweeps import INDEPENDENT, Side
from markovot.transport.rows import Rows, array, flat
from markovot.transport.threads import run


class ExactEngine(KernelEngine):
    """Local transport problems solved by the simplex method, each from its basis in the last sweep.

    Gradients are elements of the super- or sub-differential: those of the plans and potentials that were found, which
    is the gradient wherever they are unique.
    """

    _kernels = Kernels(
        make_tree, exact_sweeps.make_memory, exact_sweeps.sweep, exact_sweeps.apply, exact_sweeps.apply_transpose,
        exact_sweeps.bicgstab, exact_sweeps.bicgstab_transpose, exact_sweeps.policy_iteration,
    )  # fmt: skip

    def __init__(self, rows_x: Rows, rows_y: Rows, pair_x: Tensor, pair_y: Tensor, epsilon: Tensor) -> None:
        super().__init__()
        self._rows_x, self._rows_y = rows_x, rows_y
        self._n, self._m = rows_x.num_states, rows_y.num_states
        side_x, side_y = Side(*layout.side_arrays(rows_x)), Side(*layout.side_arrays(rows_y))
        x, y = array(pair_x), array(pair_y)
        sizes_x, sizes_y = rows_x.sizes.numpy()[x], rows_y.sizes.numpy()[y]
        entries_x = side_x.indptr[x, -1] - side_x.indptr[x, 0]
        entries_y = side_y.indptr[y, -1] - side_y.indptr[y, 0]
        start = starts(entries_x * sizes_y + entries_y * sizes_x)
        self._entries = entries_x * entries_y
        self._mode = np.full(x.size, TREE)
        trees = Trees(
            np.full(start[-1], NO_TREE), np.zeros(start[-1]), np.zeros(start[-1]), np.zeros(start[-1], dtype=np.int64)
        )
        items = Items(
            x, y, sizes_x, sizes_y, start[:-1], self._n * self._m, self._m, np.full(x.size, INDEPENDENT),
            rows_x.max_degree, rows_y.max_degree,
        )  # fmt: skip
        self._batch = Batch(items, side_x, side_y, trees)

    def warm_start(self, other: Any) -> None:
        """Take over the trees of an engine for chains with the same rows; others are not feasible here."""
        if isinstance(other, ExactEngine) and all(
            np.array_equal(theirs, ours) for theirs, ours in zip(other._structure(), self._structure(), strict=True)
        ):
            for theirs, ours in zip(other._batch.trees, self._batch.trees, strict=True):
                ours[:] = theirs
            self._cost = other._cost

    def _structure(self) -> tuple[Any, ...]:
        batch = self._batch
        return batch.items.x, batch.items.y, *batch.x, *batch.y

    def apply_transpose(self, v: Tensor, active: Tensor) -> Tensor:
        """P^T v, with the plans of the last sweep."""
        out = zeros(v)
        source, target = flat(v), flat(out)
        chosen = np.flatnonzero(active.numpy())
        run(
            lambda tasks: exact_sweeps.apply_transpose(tasks, self._batch, self._cost, source, target),
            self._whole(chosen),
            self._entries[chosen],
        )
        return out

    # --- what the gradient needs
    def kl(self) -> Tensor:
        """KL(pi_ij | A_i x B_j) of the plans found, (P, n, m)."""
        out = torch.zeros(len(self._mode), self._n, self._m, dtype=torch.float64, device="cpu")
        target = out.view(-1).numpy()
        self._run(lambda tasks: exact_sweeps.divergence(tasks, self._batch, target))
        return out

    def gradient_x(self, weights: Tensor, pattern: Rows | None) -> Tensor:
        """Sum over j of `weights_ij f_ij`, at the pattern's entries (all: None), summed over items of a chain."""
        tasks, work = self._row_tasks
        return self._gradient(exact_sweeps.row_potentials, weights, pattern, self._rows_x, "x", (tasks, work))

    def gradient_y(self, weights: Tensor, pattern: Rows | None) -> Tensor:
        """Sum over i of `weights_ij g_ij`, likewise."""
        columns = self._batch.items.columns
        item = np.repeat(np.arange(columns.size), columns)
        first = np.arange(item.size) - np.repeat(starts(columns)[:-1], columns)
        tasks = np.stack([item, first, first + 1], axis=1), (self._entries // np.maximum(columns, 1))[item]
        return self._gradient(exact_sweeps.column_potentials, weights, pattern, self._rows_y, "y", tasks)

    def _gradient(
        self, kernel: Any, weights: Tensor, pattern: Rows | None, rows: Rows, side: str, tasks: tuple[Any, Any]
    ) -> Tensor:
        wanted = pattern_of(pattern, rows)
        view = Side(*layout.side_arrays(wanted))
        chain = getattr(self._batch.items, side)
        counts = (view.indptr[:, -1] - view.indptr[:, 0])[chain]
        begin = starts(counts)
        out = np.zeros(begin[-1])
        source = flat(weights)
        run(lambda part: kernel(part, self._batch, self._cost, source, view, begin[:-1], out), *tasks)
        entry = np.arange(begin[-1]) - np.repeat(begin[:-1] - view.indptr[chain, 0], counts)
        return collect(entry, out, wanted, full=pattern is None)

    def couplings(self, item: int) -> tuple[Tensor, Tensor, Tensor]:
        """All local plans of an item: rows i*m+j, columns k*m+l, masses."""
        i, j, k, l, mass = exact_sweeps.plans(item, self._batch)
        return torch.from_numpy(i * self._m + j), torch.from_numpy(k * self._m + l), torch.from_numpy(mass)
