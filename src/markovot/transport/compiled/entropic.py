"""The compiled entropic engine: sparse, dense and mixed chains on the CPU."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from markovot.transport.compiled import krylov, layout, policy, potentials, sweeps
from markovot.transport.compiled.kernel_engine import KernelEngine, Kernels, collect, pattern_of, starts
from markovot.transport.compiled.simd import LANES
from markovot.transport.compiled.sweeps import (
    INDEPENDENT,
    RECOMPUTED,
    STORED,
    Batch,
    Columns,
    Items,
    Lanes,
    Side,
    State,
    Transposable,
)
from markovot.transport.rows import Rows, array, flat
from markovot.transport.threads import run

# The plans of an item are kept, not recomputed at every product, as long as they take at most this many bytes.
STORED_BYTES = 1 << 27


class CompiledEngine(KernelEngine):
    """Local transport problems solved eight at a time by damped Newton, in compiled code.

    The lanes run over the states of the chain with the smaller rows, so that the Newton systems are small: the engine
    swaps the chains where that is the first. It works on the CPU, in float64.
    """

    _kernels = Kernels(
        sweeps.make_scratch, policy.make_memory, sweeps.sweep, sweeps.apply, sweeps.apply_transpose,
        krylov.bicgstab, krylov.bicgstab_transpose, policy.policy_iteration,
    )  # fmt: skip

    def __init__(self, rows_x: Rows, rows_y: Rows, pair_x: Tensor, pair_y: Tensor, epsilon: Tensor) -> None:
        super().__init__()
        self._columns: Columns | None = None
        self._n, self._m = rows_x.num_states, rows_y.num_states
        # All items have the same answer, or else some are solved the slower way round: see `parts`.
        self._swapped = bool((rows_x.fullness[pair_x[:1]] < rows_y.fullness[pair_y[:1]]).any())
        row_stride, column_stride = (1, self._m) if self._swapped else (self._m, 1)
        if self._swapped:
            rows_x, rows_y, pair_x, pair_y = rows_y, rows_x, pair_y, pair_x
        self._rows, self._lane_rows = rows_x, rows_y
        self._row_stride, self._column_stride = row_stride, column_stride
        self._order = layout.state_order(rows_y)
        side = Side(*layout.side_arrays(rows_x))
        lanes = Lanes(*layout.lane_arrays(rows_y, self._order, column_stride)[0])
        self._batch = self._allocate(side, lanes, *map(array, (pair_x, pair_y, epsilon)))

    def _allocate(self, side: Side, lanes: Lanes, x: Any, y: Any, epsilon: Any) -> Batch:
        entries = side.indptr[x, -1] - side.indptr[x, 0]
        sizes = self._rows.sizes.numpy()[x]
        f_start = starts(LANES * np.diff(lanes.groups)[y] * entries)
        g_start = starts(LANES * sizes * lanes.total[y])
        plan_start = starts(LANES * entries * lanes.total[y])
        self._entries = np.diff(plan_start)
        stored = self._entries * 8 <= STORED_BYTES
        kept = plan_start[1:][stored].max(initial=0)
        self._mode = np.where(stored, STORED, RECOMPUTED)
        state = State(np.zeros(f_start[-1]), np.zeros(g_start[-1]), np.empty(kept))
        items = Items(
            x, y, sizes, f_start[:-1], g_start[:-1], plan_start[:-1], self._n * self._m, self._row_stride, epsilon,
            np.full(x.size, INDEPENDENT), self._rows.max_degree, self._lane_rows.max_degree,
        )  # fmt: skip
        return Batch(items, side, lanes, state)

    def _transposable(self) -> Transposable:
        """The batch with both chains' columns, which only products with P^T need."""
        if self._columns is None:
            targets = layout.target_arrays(self._lane_rows, self._order, self._column_stride)
            self._columns = Columns(*layout.column_arrays(self._rows), *targets)
        return Transposable(self._batch, self._columns)

    # --- warm starts
    def warm_start(self, other: Any) -> None:
        """Take over the potentials of an engine for chains with the same supports; others are of no use."""
        if isinstance(other, CompiledEngine) and all(
            np.array_equal(theirs, ours) for theirs, ours in zip(other._structure(), self._structure(), strict=True)
        ):
            self._batch.state.g[:] = other._batch.state.g
            self._cost = other._cost

    def _structure(self) -> tuple[Any, ...]:
        batch = self._batch
        return (
            batch.items.x, batch.items.y, batch.side.indptr, batch.side.index, batch.lanes.states, batch.lanes.index,
        )  # fmt: skip

    # --- what the gradient needs
    def kl(self) -> Tensor:
        """KL(pi_ij | A_i x B_j), (P, n, m)."""
        out = torch.zeros(len(self._mode), self._n, self._m, dtype=torch.float64, device="cpu")
        target = out.view(-1).numpy()
        self._run(lambda tasks: sweeps.divergence(tasks, self._batch, self._cost, target))
        return out

    def gradient_x(self, weights: Tensor, pattern: Rows | None) -> Tensor:
        """Sum over j of `weights_ij f_ij`, at the pattern's entries (all: None), summed over items of a chain."""
        return self._lane_gradient(weights, pattern) if self._swapped else self._row_gradient(weights, pattern)

    def gradient_y(self, weights: Tensor, pattern: Rows | None) -> Tensor:
        """Sum over i of `weights_ij g_ij`, likewise."""
        return self._row_gradient(weights, pattern) if self._swapped else self._lane_gradient(weights, pattern)

    def _row_gradient(self, weights: Tensor, pattern: Rows | None) -> Tensor:
        wanted = pattern_of(pattern, self._rows)
        view = Side(*layout.side_arrays(wanted))
        x = self._batch.items.x
        counts = (view.indptr[:, -1] - view.indptr[:, 0])[x]
        begin = starts(counts)
        out = np.zeros(begin[-1])
        source = flat(weights)
        self._run(
            lambda tasks: potentials.row_potentials(tasks, self._batch, self._cost, source, view, begin[:-1], out)
        )
        entry = np.arange(begin[-1]) - np.repeat(begin[:-1] - view.indptr[x, 0], counts)
        return collect(entry, out, wanted, full=pattern is None)

    def _lane_gradient(self, weights: Tensor, pattern: Rows | None) -> Tensor:
        wanted = pattern_of(pattern, self._lane_rows)
        fields, entries = layout.lane_arrays(wanted, self._order, self._column_stride)
        view = Lanes(*fields)
        y = self._batch.items.y
        counts = LANES * view.total[y]
        begin = starts(counts)
        out = np.zeros(begin[-1])
        source = flat(weights)
        num_groups = np.diff(view.groups)[y]
        item = np.repeat(np.arange(y.size), num_groups)
        first = np.arange(item.size) - np.repeat(starts(num_groups)[:-1], num_groups)
        run(
            lambda tasks: potentials.lane_potentials(
                tasks, self._batch, self._cost, source, view, begin[:-1], out
            ),
            np.stack([item, first, first + 1], axis=1),
            (self._entries // num_groups)[item],
        )
        slots = np.arange(begin[-1]) - np.repeat(begin[:-1] - view.start[view.groups[y]], counts)
        return collect(entries[slots], out, wanted, full=pattern is None)

    def couplings(self, item: int) -> tuple[Tensor, Tensor, Tensor]:
        """All local plans of an item: rows i*m+j, columns k*m+l, masses."""
        i, j, k, l, mass = sweeps.plans(item, self._batch, self._cost, self._column_stride)
        if self._swapped:
            i, j, k, l = j, i, l, k
        return torch.from_numpy(i * self._m + j), torch.from_numpy(k * self._m + l), torch.from_numpy(mass)
