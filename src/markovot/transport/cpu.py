"""The compiled engine: sparse, dense and mixed chains on the CPU."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from markovot.linear import Linear, bicgstab
from markovot.transport import kernels, kernels_gradient, kernels_linear, kernels_policy, layout
from markovot.transport.forcing import LINEAR_STEPS, START_STEPS
from markovot.transport.kernels import INDEPENDENT, RECOMPUTED, STORED, Batch, Columns, Items, Lanes, Side, State
from markovot.transport.kernels_policy import Control, Problem, Result
from markovot.transport.rows import Rows
from markovot.transport.simd import LANES
from markovot.transport.threads import own_threads, run

# Plans are kept, not recomputed at every product, as long as all of them take at most this many bytes.
STORED_BYTES = 1 << 27
# Rows of one item are cut into tasks of about this many plan entries.
TASK_ENTRIES = 1 << 14
# Items of up to this many plan entries are solved whole in compiled code, each on one thread.
WHOLE_ENTRIES = 1 << 17
# Linear systems of up to this many are; beyond, every product is shared among threads.
COMPILED_ENTRIES = 1 << 21


class CompiledEngine:
    """Local transport problems solved eight at a time by damped Newton, in compiled code.

    The lanes run over the states of the chain with the smaller rows, so that the Newton systems are small: the engine
    swaps the chains where that is the first. It works on the CPU, in float64.
    """

    has_threads = True

    def __init__(self, rows_x: Rows, rows_y: Rows, pair_x: Tensor, pair_y: Tensor, epsilon: Tensor) -> None:
        self._n, self._m = rows_x.num_states, rows_y.num_states
        self._swapped = rows_x.degree < rows_y.degree
        row_stride, column_stride = (1, self._m) if self._swapped else (self._m, 1)
        if self._swapped:
            rows_x, rows_y, pair_x, pair_y = rows_y, rows_x, pair_y, pair_x
        self._rows, self._lane_rows = rows_x, rows_y
        self._row_stride, self._column_stride = row_stride, column_stride
        self._order = layout.state_order(rows_y)
        side = Side(*layout.side_arrays(rows_x))
        lanes = Lanes(*layout.lane_arrays(rows_y, self._order, column_stride)[0])
        self._batch = self._allocate(side, lanes, pair_x.numpy(), pair_y.numpy(), epsilon.numpy())
        self._cost = np.zeros(0)
        self.evaluations = 0

    def _allocate(self, side: Side, lanes: Lanes, x: Any, y: Any, epsilon: Any) -> Batch:
        entries = side.indptr[x, -1] - side.indptr[x, 0]
        sizes = self._rows.sizes.numpy()[x]
        f_start = _starts(LANES * np.diff(lanes.groups)[y] * entries)
        g_start = _starts(LANES * sizes * lanes.total[y])
        plan_start = _starts(LANES * entries * lanes.total[y])
        self._entries = np.diff(plan_start)
        stored = plan_start[1:] * 8 <= STORED_BYTES
        kept = plan_start[1:][stored].max(initial=0)
        self._mode = np.where(stored, STORED, RECOMPUTED)
        state = State(np.zeros(f_start[-1]), np.zeros(g_start[-1]), np.empty(kept))
        items = Items(
            x, y, sizes, f_start[:-1], g_start[:-1], plan_start[:-1], self._n * self._m, self._row_stride, epsilon,
            np.full(x.size, INDEPENDENT), self._rows.max_degree, self._lane_rows.max_degree,
        )  # fmt: skip
        return Batch(items, side, _NO_COLUMNS, lanes, state)

    @cached_property
    def _row_tasks(self) -> tuple[Any, Any]:
        """Cut the rows of every item into tasks: an array (item, first, last) and the work of each."""
        sizes = self._batch.items.rows
        pieces = np.clip(self._entries // TASK_ENTRIES, 1, np.maximum(sizes, 1))
        item = np.repeat(np.arange(sizes.size), pieces)
        piece = np.arange(item.size) - np.repeat(_starts(pieces)[:-1], pieces)
        first = sizes[item] * piece // pieces[item]
        last = sizes[item] * (piece + 1) // pieces[item]
        return np.stack([item, first, last], axis=1), self._entries[item] // pieces[item]

    def _run(self, call: Callable[[Any], Any], active: Tensor | None = None) -> list[Any]:
        tasks, work = self._row_tasks
        if active is None or bool(active.all()):
            return run(call, tasks, work)
        chosen = active.numpy()[tasks[:, 0]]
        return run(call, tasks[chosen], work[chosen])

    def _whole(self, items: Any) -> Any:
        """Tasks that are whole items."""
        tasks = np.zeros((items.size, 3), dtype=np.int64)
        tasks[:, 0] = items
        tasks[:, 2] = self._batch.items.rows[items]
        return tasks

    def _transposable(self) -> Batch:
        """The batch with the columns of the first chains, which only products with P^T need."""
        if self._batch.columns is _NO_COLUMNS:
            self._batch = self._batch._replace(columns=Columns(*layout.column_arrays(self._rows)))
        return self._batch

    # --- sweeps and the fixed point
    def sweep(self, cost: Tensor, gap: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        """Certified bounds of every local value, from warm potentials; the plans serve the other methods."""
        flat = cost.reshape(-1).numpy()
        warmth = self._warmth(cost)
        mode = self._batch.items.mode
        mode[:] = np.where(active.numpy(), self._mode, mode)
        self._cost = flat
        lower, upper = torch.zeros_like(cost), torch.zeros_like(cost)
        low, high, wanted = lower.view(-1).numpy(), upper.view(-1).numpy(), gap.numpy()
        counts = self._run(lambda tasks: kernels.sweep(tasks, self._batch, flat, wanted, warmth, low, high), active)
        self.evaluations += sum(counts)
        return lower, upper

    def _warmth(self, cost: Tensor) -> Any:
        """How far the costs moved since the last sweep, which bounds how far the potentials have to."""
        if not self._cost.size:
            return np.full(len(cost), np.inf)
        change = (cost - torch.from_numpy(self._cost).view_as(cost)).flatten(1)
        return (change.amax(1) - change.amin(1)).numpy()

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

    @property
    def solves_whole(self) -> bool:
        """Whether every item is small enough for `policy_iteration`."""
        return bool((self._entries <= WHOLE_ENTRIES).all())

    def policy_iteration(
        self, ground: Tensor, discount: Tensor, tolerance: Tensor, scale: Tensor, start: Tensor | None,
        *, polish: bool, max_iter: int,
    ) -> tuple[dict[str, Tensor], Tensor]:  # fmt: skip
        """The whole loop of `fixed_point.iterate`, in compiled code: fields of `Result` as tensors, and C."""
        cost = torch.zeros_like(ground) if start is None else start.clone(memory_format=torch.contiguous_format)
        wide = {name: torch.zeros_like(ground) for name in ("base", "residual", "lower", "upper")}
        narrow = {name: torch.zeros_like(discount) for name in ("low", "high")}
        steps = torch.zeros(len(discount), dtype=torch.int64)
        flat = {name: tensor.view(-1).numpy() for name, tensor in (wide | narrow).items()}
        result = Result(cost=cost.view(-1).numpy(), num_iter=steps.numpy(), **flat)
        problem = Problem(
            ground.reshape(-1).numpy(), discount.numpy(), tolerance.numpy(), scale.numpy(), self._mode,
            self._warmth(cost),
        )  # fmt: skip
        tasks = self._whole(np.arange(len(discount)))
        control = Control(start is None, polish, max_iter, START_STEPS, LINEAR_STEPS)
        run(
            lambda part: kernels_policy.policy_iteration(part, self._batch, problem, result, control),
            tasks,
            50 * self._entries,
        )
        self._cost = result.cost
        return wide | narrow | {"num_iter": steps}, cost

    # --- products and linear systems
    def apply(self, v: Tensor, active: Tensor) -> Tensor:
        """P v with the plans of the last sweep (before the first: of the independent couplings)."""
        out = torch.zeros_like(v)
        source, target = v.reshape(-1).numpy(), out.view(-1).numpy()
        self._run(lambda tasks: kernels.apply(tasks, self._batch, self._cost, source, target), active)
        return out

    def apply_transpose(self, v: Tensor, active: Tensor) -> Tensor:
        """P^T v, likewise."""
        out = torch.zeros_like(v)
        source, target = v.reshape(-1).numpy(), out.view(-1).numpy()
        batch = self._transposable()
        self._run(lambda tasks: kernels.apply_transpose(tasks, batch, self._cost, source, target), active)
        return out

    def solve(
        self, rhs: Tensor, discount: Tensor, tolerance: Tensor, active: Tensor, *, transpose: bool, max_iter: int
    ) -> Linear:
        """Solve `(I - (1 - delta) P) x = rhs`, or its transpose, to a residual norm of at most `tolerance`."""
        small = torch.from_numpy(self._entries <= COMPILED_ENTRIES)
        result = Linear(torch.zeros_like(rhs), torch.zeros_like(tolerance))
        if bool((active & ~small).any()):
            product = self.apply_transpose if transpose else self.apply
            large = active & ~small
            with own_threads():
                result = bicgstab(product, rhs, discount, tolerance, large, transpose=transpose, max_iter=max_iter)
        chosen = np.flatnonzero((active & small).numpy())
        if chosen.size:
            batch = self._transposable() if transpose else self._batch
            source, target = rhs.reshape(-1).numpy(), result.x.view(-1).numpy()
            deltas, wanted, reached = discount.numpy(), tolerance.numpy(), result.residual.numpy()
            run(
                lambda tasks: kernels_linear.bicgstab(
                    tasks, batch, self._cost, transpose, max_iter, deltas, wanted, source, target, reached
                ),
                self._whole(chosen),
                10 * self._entries[chosen],
            )
        return result

    # --- what the gradient needs
    def kl(self) -> Tensor:
        """KL(pi_ij | A_i x B_j), (P, n, m)."""
        out = torch.zeros(len(self._mode), self._n, self._m, dtype=torch.float64)
        target = out.view(-1).numpy()
        self._run(lambda tasks: kernels.divergence(tasks, self._batch, self._cost, target))
        return out

    def gradient_x(self, weights: Tensor, pattern: Rows | None) -> Tensor:
        """Sum over j of `weights_ij f_ij`, at the pattern's entries (all: None), summed over items of a chain."""
        return self._lane_gradient(weights, pattern) if self._swapped else self._row_gradient(weights, pattern)

    def gradient_y(self, weights: Tensor, pattern: Rows | None) -> Tensor:
        """Sum over i of `weights_ij g_ij`, likewise."""
        return self._row_gradient(weights, pattern) if self._swapped else self._lane_gradient(weights, pattern)

    def _row_gradient(self, weights: Tensor, pattern: Rows | None) -> Tensor:
        wanted = _pattern(pattern, self._rows)
        view = Side(*layout.side_arrays(wanted))
        x = self._batch.items.x
        counts = (view.indptr[:, -1] - view.indptr[:, 0])[x]
        starts = _starts(counts)
        out = np.zeros(starts[-1])
        source = weights.reshape(-1).numpy()
        self._run(
            lambda tasks: kernels_gradient.row_potentials(
                tasks, self._batch, self._cost, source, view, starts[:-1], out
            )
        )
        entry = np.arange(starts[-1]) - np.repeat(starts[:-1] - view.indptr[x, 0], counts)
        return _collect(entry, out, wanted, full=pattern is None)

    def _lane_gradient(self, weights: Tensor, pattern: Rows | None) -> Tensor:
        wanted = _pattern(pattern, self._lane_rows)
        fields, entries = layout.lane_arrays(wanted, self._order, self._column_stride)
        view = Lanes(*fields)
        y = self._batch.items.y
        counts = LANES * view.total[y]
        starts = _starts(counts)
        out = np.zeros(starts[-1])
        source = weights.reshape(-1).numpy()
        num_groups = np.diff(view.groups)[y]
        item = np.repeat(np.arange(y.size), num_groups)
        first = np.arange(item.size) - np.repeat(_starts(num_groups)[:-1], num_groups)
        run(
            lambda tasks: kernels_gradient.lane_potentials(
                tasks, self._batch, self._cost, source, view, starts[:-1], out
            ),
            np.stack([item, first, first + 1], axis=1),
            (self._entries // num_groups)[item],
        )
        slots = np.arange(starts[-1]) - np.repeat(starts[:-1] - view.start[view.groups[y]], counts)
        return _collect(entries[slots], out, wanted, full=pattern is None)

    def couplings(self, item: int) -> tuple[Tensor, Tensor, Tensor]:
        """All local plans of an item: rows i*m+j, columns k*m+l, masses."""
        i, j, k, l, mass = kernels.plans(item, self._batch, self._cost, self._column_stride)
        if self._swapped:
            i, j, k, l = j, i, l, k
        return torch.from_numpy(i * self._m + j), torch.from_numpy(k * self._m + l), torch.from_numpy(mass)


_NO_COLUMNS = Columns(np.zeros((1, 1), np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64))


def _starts(counts: Any) -> Any:
    starts = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=starts[1:])
    return starts


def _pattern(pattern: Rows | None, rows: Rows) -> Rows:
    """The entries that may vary: all (None), the rows' own (whose layouts exist already), or those and some zeros."""
    if pattern is not None:
        return rows if pattern.indices is rows.indices else pattern
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
