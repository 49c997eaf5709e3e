"""The compiled engine: sparse, dense and mixed chains on the CPU."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from markovot.linear import Linear, bicgstab
from markovot.transport import kernels, kernels_gradient, kernels_linear, layout
from markovot.transport.kernels import INDEPENDENT, RECOMPUTED, STORED, Columns, Items, Lanes, Side, State
from markovot.transport.rows import Rows
from markovot.transport.simd import LANES
from markovot.transport.threads import run

# Plans are kept, not recomputed at every product, as long as all of them take at most this many bytes.
STORED_BYTES = 1 << 27
# Rows of one item are cut into tasks of about this many plan entries.
TASK_ENTRIES = 1 << 14
# Systems of up to this many plan entries are solved whole in compiled code, one item after the other.
COMPILED_ENTRIES = 1 << 21


class CompiledEngine:
    """Local transport problems solved eight at a time by damped Newton, in compiled code.

    The lanes run over the states of the chain with the smaller rows, so that the Newton systems are small: the engine
    swaps the chains where that is the first. It works on the CPU, in float64.
    """

    def __init__(self, rows_x: Rows, rows_y: Rows, pair_x: Tensor, pair_y: Tensor, epsilon: Tensor) -> None:
        self._n, self._m = rows_x.num_states, rows_y.num_states
        self._swapped = _mean_square(rows_x) < _mean_square(rows_y)
        row_stride, column_stride = (1, self._m) if self._swapped else (self._m, 1)
        if self._swapped:
            rows_x, rows_y, pair_x, pair_y = rows_y, rows_x, pair_y, pair_x
        self._rows, self._lane_rows = rows_x, rows_y
        self._row_stride, self._column_stride = row_stride, column_stride
        self._order = layout.state_order(rows_y)
        self._side = Side(*layout.side_arrays(rows_x, row_stride))
        self._lanes = Lanes(*layout.lane_arrays(rows_y, self._order, column_stride)[0])
        self._columns: Columns | None = None
        self._items = self._allocate(pair_x.numpy(), pair_y.numpy(), epsilon.numpy())
        self._tasks, self._task_work = self._cut()
        self._cost = np.zeros(0)
        self.evaluations = 0

    def _allocate(self, x: Any, y: Any, epsilon: Any) -> Items:
        indptr, lanes = self._side.indptr, self._lanes
        entries = indptr[x, -1] - indptr[x, 0]
        num_groups = np.diff(lanes.groups)[y]
        total = lanes.total[y]
        f_start = _starts(LANES * num_groups * entries)
        g_start = _starts(LANES * self._rows.sizes.numpy()[x] * total)
        plan_start = _starts(LANES * entries * total)
        self._entries = np.diff(plan_start)
        stored = plan_start[1:] * 8 <= STORED_BYTES
        kept = plan_start[1:][stored].max(initial=0)
        self._state = State(np.zeros(f_start[-1]), np.zeros(g_start[-1]), np.empty(kept))
        self._mode = np.where(stored, STORED, RECOMPUTED)
        independent = np.full(x.size, INDEPENDENT)
        size = self._n * self._m
        return Items(
            x, y, f_start[:-1], g_start[:-1], plan_start[:-1], size, self._row_stride, epsilon, independent
        )

    def _cut(self) -> tuple[Any, Any]:
        """Cut the rows of every item into tasks: an array (item, first, last) and the work of each."""
        sizes = self._rows.sizes.numpy()[self._items.x]
        pieces = np.clip(self._entries // TASK_ENTRIES, 1, np.maximum(sizes, 1))
        item = np.repeat(np.arange(sizes.size), pieces)
        piece = np.arange(item.size) - np.repeat(_starts(pieces)[:-1], pieces)
        first = sizes[item] * piece // pieces[item]
        last = sizes[item] * (piece + 1) // pieces[item]
        return np.stack([item, first, last], axis=1), self._entries[item] // pieces[item]

    def _run(self, call: Any, active: Tensor) -> list[Any]:
        chosen = active.numpy()[self._tasks[:, 0]]
        return run(call, self._tasks[chosen], self._task_work[chosen])

    def sweep(self, cost: Tensor, gap: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        """Certified bounds of every local value, from warm potentials; the plans serve the other methods."""
        flat = cost.reshape(-1).numpy()
        if self._cost.size:
            change = (cost - torch.from_numpy(self._cost).view_as(cost)).flatten(1)
            warmth = (change.amax(1) - change.amin(1)).numpy()
        else:
            warmth = np.full(len(cost), np.inf)
        self._items = self._items._replace(mode=np.where(active.numpy(), self._mode, self._items.mode))
        self._cost = flat
        lower, upper = torch.zeros_like(cost), torch.zeros_like(cost)
        low, high = lower.view(-1).numpy(), upper.view(-1).numpy()
        wanted = gap.numpy()

        def call(tasks: Any) -> int:
            return kernels.sweep(
                tasks, self._items, self._side, self._lanes, self._state, flat, wanted, warmth, low, high
            )

        self.evaluations += sum(self._run(call, active))
        return lower, upper

    def warm_start(self, other: Any) -> None:
        """Take over the potentials of an engine for chains with the same supports; others are of no use."""
        if (
            isinstance(other, CompiledEngine)
            and other._column_stride == self._column_stride
            and np.array_equal(other._items.x, self._items.x)
            and np.array_equal(other._items.y, self._items.y)
            and np.array_equal(other._side.index, self._side.index)
            and np.array_equal(other._side.indptr, self._side.indptr)
            and np.array_equal(other._lanes.index, self._lanes.index)
            and np.array_equal(other._lanes.states, self._lanes.states)
        ):
            self._state.g[:] = other._state.g
            self._cost = other._cost

    def apply(self, v: Tensor, active: Tensor) -> Tensor:
        """P v with the plans of the last sweep (before the first: of the independent couplings)."""
        out = torch.zeros_like(v)
        source, target = v.reshape(-1).numpy(), out.view(-1).numpy()
        self._run(
            lambda tasks: kernels.apply(
                tasks, self._items, self._side, self._lanes, self._state, self._cost, source, target
            ),
            active,
        )
        return out

    def apply_transpose(self, v: Tensor, active: Tensor) -> Tensor:
        """P^T v, likewise."""
        out = torch.zeros_like(v)
        source, target = v.reshape(-1).numpy(), out.view(-1).numpy()
        columns = self._column_view()
        self._run(
            lambda tasks: kernels.apply_transpose(
                tasks, self._items, self._side, columns, self._lanes, self._state, self._cost, source, target
            ),
            active,
        )
        return out

    def _column_view(self) -> Columns:
        if self._columns is None:
            self._columns = Columns(*layout.column_arrays(self._rows))
        return self._columns

    def solve(
        self, rhs: Tensor, discount: Tensor, tolerance: Tensor, active: Tensor, *, transpose: bool, max_iter: int
    ) -> Linear:
        """Solve `(I - (1 - delta) P) x = rhs`, or its transpose, to a residual norm of at most `tolerance`."""
        small = torch.from_numpy(self._entries <= COMPILED_ENTRIES)
        result = Linear(torch.zeros_like(rhs), torch.zeros_like(tolerance))
        if bool((active & ~small).any()):
            result = bicgstab(
                self.apply_transpose if transpose else self.apply,
                rhs, discount, tolerance, active & ~small, transpose=transpose, max_iter=max_iter,
            )  # fmt: skip
        if bool((active & small).any()):
            self._solve_compiled(rhs, discount, tolerance, active & small, result, transpose, max_iter)
        return result

    def _solve_compiled(
        self, rhs: Tensor, discount: Tensor, tolerance: Tensor, active: Tensor, result: Linear,
        transpose: bool, max_iter: int,
    ) -> None:  # fmt: skip
        chosen = np.flatnonzero(active.numpy())
        sizes = self._rows.sizes.numpy()[self._items.x[chosen]]
        tasks = np.stack([chosen, np.zeros_like(chosen), sizes], axis=1)
        columns = self._column_view() if transpose else _NO_COLUMNS
        source, target = rhs.reshape(-1).numpy(), result.x.view(-1).numpy()
        deltas, wanted, reached = discount.numpy(), tolerance.numpy(), result.residual.numpy()
        run(
            lambda part: kernels_linear.bicgstab(
                part, transpose, max_iter, self._items, self._side, columns, self._lanes, self._state, self._cost,
                deltas, wanted, source, target, reached,
            ),
            tasks,
            10 * self._entries[chosen],
        )  # fmt: skip

    def kl(self) -> Tensor:
        """KL(pi_ij | A_i x B_j), (P, n, m)."""
        out = torch.zeros(len(self._items.x), self._n, self._m, dtype=torch.float64)
        target = out.view(-1).numpy()
        self._run(
            lambda tasks: kernels.divergence(
                tasks, self._items, self._side, self._lanes, self._state, self._cost, target
            ),
            self._everything(),
        )
        return out

    def _everything(self) -> Tensor:
        return torch.ones(len(self._items.x), dtype=torch.bool)

    def gradient_x(self, weights: Tensor, pattern: Rows | None) -> Tensor:
        """Sum over j of `weights_ij f_ij`, at the pattern's entries (all: None), summed over items of a chain."""
        return self._lane_gradient(weights, pattern) if self._swapped else self._row_gradient(weights, pattern)

    def gradient_y(self, weights: Tensor, pattern: Rows | None) -> Tensor:
        """Sum over i of `weights_ij g_ij`, likewise."""
        return self._row_gradient(weights, pattern) if self._swapped else self._lane_gradient(weights, pattern)

    def _row_gradient(self, weights: Tensor, pattern: Rows | None) -> Tensor:
        wanted = _full_pattern(self._rows) if pattern is None else pattern
        view = Side(*layout.side_arrays(wanted, self._row_stride))
        x = self._items.x
        counts = (view.indptr[:, -1] - view.indptr[:, 0])[x]
        starts = _starts(counts)
        out = np.zeros(starts[-1])
        source = weights.reshape(-1).numpy()
        self._run(
            lambda tasks: kernels_gradient.row_potentials(
                tasks, self._items, self._side, self._lanes, self._state, self._cost, source, view, starts[:-1], out
            ),
            self._everything(),
        )
        entry = np.arange(starts[-1]) - np.repeat(starts[:-1] - view.indptr[x, 0], counts)
        return _collect(entry, out, wanted, full=pattern is None)

    def _lane_gradient(self, weights: Tensor, pattern: Rows | None) -> Tensor:
        wanted = _full_pattern(self._lane_rows) if pattern is None else pattern
        fields, entries = layout.lane_arrays(wanted, self._order, self._column_stride)
        view = Lanes(*fields)
        y = self._items.y
        counts = LANES * view.total[y]
        starts = _starts(counts)
        out = np.zeros(starts[-1])
        source = weights.reshape(-1).numpy()
        num_groups = np.diff(self._lanes.groups)[y]
        item = np.repeat(np.arange(y.size), num_groups)
        first = np.arange(item.size) - np.repeat(_starts(num_groups)[:-1], num_groups)
        tasks = np.stack([item, first, first + 1], axis=1)
        run(
            lambda part: kernels_gradient.lane_potentials(
                part, self._items, self._side, self._lanes, self._state, self._cost, source, view, starts[:-1], out
            ),
            tasks,
            np.full(item.size, TASK_ENTRIES),
        )
        slots = np.arange(starts[-1]) - np.repeat(starts[:-1] - view.start[view.groups[y]], counts)
        return _collect(entries[slots], out, wanted, full=pattern is None)

    def couplings(self, item: int) -> tuple[Tensor, ...]:
        """All local plans of an item: rows i*m+j, columns k*m+l, masses."""
        i, j, k, l, mass = kernels.plans(
            item, self._items, self._side, self._lanes, self._state, self._cost, self._column_stride
        )
        if self._swapped:
            i, j, k, l = j, i, l, k
        return tuple(torch.from_numpy(part) for part in (i * self._m + j, k * self._m + l, mass))


_NO_COLUMNS = Columns(np.zeros((1, 1), np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64))


def _mean_square(rows: Rows) -> float:
    return float(rows.degrees.double().square().sum() / rows.sizes.sum())


def _starts(counts: Any) -> Any:
    return np.concatenate(([0], np.cumsum(counts)))


def _full_pattern(rows: Rows) -> Rows:
    """Every entry of every matrix."""
    batch, n = rows.degrees.shape
    indptr = (torch.arange(batch)[:, None] * n + torch.arange(n + 1)) * n
    indices = torch.arange(n).repeat(batch * n)
    return Rows(rows.sizes, indptr, indices, torch.ones(indices.numel(), dtype=torch.float64))


def _collect(entries: Any, values: Any, pattern: Rows, *, full: bool) -> Tensor:
    """Add up values that fall on the same entry of the pattern; entries of -1 are padding."""
    inside = entries >= 0
    total = np.bincount(entries[inside], weights=values[inside], minlength=pattern.indices.numel())
    result = torch.from_numpy(total)
    return result.view(*pattern.degrees.shape, -1) if full else result
