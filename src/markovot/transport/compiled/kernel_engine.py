"""What engines of compiled kernels share: tasks and threads, the loops, linear systems, and collecting gradients."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from markovot.autograd.transforms import plain
from markovot.transport.compiled import layout
from markovot.transport.compiled.krylov import make_vectors
from markovot.transport.compiled.policy import Control, Goals, Result
from markovot.transport.forcing import LINEAR_STEPS, START_STEPS
from markovot.transport.linear import Linear, bicgstab
from markovot.transport.rows import Rows, array, flat
from markovot.transport.threads import WHOLE_ENTRIES, own_threads, run

# Rows of one item are cut into tasks of about this many entries.
TASK_ENTRIES = 1 << 14
# Linear systems of up to this many are; beyond, every product is shared among threads.
COMPILED_ENTRIES = 1 << 21


class Kernels(NamedTuple):
    """The compiled kernels of one kind of batch, and what makes the memory of `sweep` and of `policy_iteration`."""

    make_scratch: Any
    make_memory: Any
    sweep: Any
    apply: Any
    apply_transpose: Any
    bicgstab: Any
    bicgstab_transpose: Any
    policy_iteration: Any


class KernelEngine:
    """An engine of compiled kernels, for a batch that it lays out for them.

    A subclass sets `_kernels`, `_batch`, `_mode` (how plans come about) and `_entries` (the work of each item).
    """

    has_threads = True
    _kernels: Kernels
    _batch: Any
    _mode: Any
    _entries: Any

    def __init__(self) -> None:
        self._cost = np.zeros(0)
        self.evaluations = 0

    @cached_property
    def _row_tasks(self) -> tuple[Any, Any]:
        """Cut the rows of every item into tasks: an array (item, first, last) and the work of each."""
        sizes = self._batch.items.rows
        pieces = np.clip(self._entries // TASK_ENTRIES, 1, np.maximum(sizes, 1))
        item = np.repeat(np.arange(sizes.size), pieces)
        piece = np.arange(item.size) - np.repeat(starts(pieces)[:-1], pieces)
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

    def _transposable(self) -> Any:
        """What products with P^T read: the batch, and what else they need."""
        return self._batch

    # --- sweeps and the fixed point
    def sweep(self, cost: Tensor, gap: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        """Certified bounds of every local value, from warm potentials; the plans serve the other methods."""
        cost = self._of_active(cost, active)
        source = flat(cost)
        warmth = self._warmth(cost)
        mode = self._batch.items.mode
        mode[:] = np.where(active.numpy(), self._mode, mode)
        self._cost = source
        lower, upper = zeros(cost), zeros(cost)
        low, high, wanted = flat(lower), flat(upper), array(gap)
        items = self._batch.items
        counts = self._run(
            lambda tasks: self._kernels.sweep(
                tasks, self._batch, source, wanted, warmth, low, high,
                self._kernels.make_scratch(items.max_degree, items.max_width),
            ),
            active,
        )  # fmt: skip
        self.evaluations += sum(counts)
        return lower, upper

    def _of_active(self, cost: Tensor, active: Tensor) -> Tensor:
        """The costs of the active items, and of the others those of their last sweep, to which their plans belong."""
        if bool(active.all()):
            return cost
        before = torch.from_numpy(self._cost).view_as(cost) if self._cost.size else torch.zeros_like(cost)
        return torch.where(active[:, None, None], cost, before)

    def _warmth(self, cost: Tensor) -> Any:
        """How far the costs moved since the last sweep, which bounds how far the potentials have to."""
        if not self._cost.size:
            return np.full(len(cost), np.inf)
        change = (cost - torch.from_numpy(self._cost).view_as(cost)).flatten(1)
        return array(change.amax(1) - change.amin(1))

    @property
    def solves_whole(self) -> bool:
        """Whether every item is small enough for `policy_iteration`."""
        return bool((self._entries <= WHOLE_ENTRIES).all())

    def policy_iteration(
        self, ground: Tensor, discount: Tensor, tolerance: Tensor, scale: Tensor, start: Tensor | None,
        *, polish: bool, max_iter: int,
    ) -> tuple[dict[str, Tensor], Tensor]:  # fmt: skip
        """The whole loop of `fixed_point.iterate`, in compiled code: fields of `Result` as tensors, and C."""
        cost = zeros(ground) if start is None else start.clone(memory_format=torch.contiguous_format)
        wide = {name: zeros(ground) for name in ("base", "residual", "lower", "upper")}
        narrow = {name: zeros(discount) for name in ("low", "high")}
        steps = torch.zeros(len(discount), dtype=torch.int64, device="cpu")
        arrays = {name: flat(tensor) for name, tensor in (wide | narrow).items()}
        result = Result(cost=flat(cost), num_iter=array(steps), **arrays)
        problem = Goals(
            flat(ground), array(discount), array(tolerance), array(scale), self._mode, self._warmth(cost)
        )
        tasks = self._whole(np.arange(len(discount)))
        control = Control(start is None, polish, max_iter, START_STEPS, LINEAR_STEPS)
        items = self._batch.items
        run(
            lambda part: self._kernels.policy_iteration(
                part, self._batch, problem, result, control,
                self._kernels.make_memory(items.max_degree, items.max_width, items.size),
            ),
            tasks,
            50 * self._entries,
        )  # fmt: skip
        self._cost = result.cost
        return wide | narrow | {"num_iter": steps}, cost

    # --- products and linear systems
    def apply(self, v: Tensor, active: Tensor) -> Tensor:
        """P v with the plans of the last sweep (before the first: of the independent couplings)."""
        out = zeros(v)
        source, target = flat(v), flat(out)
        self._run(lambda tasks: self._kernels.apply(tasks, self._batch, self._cost, source, target), active)
        return out

    def apply_transpose(self, v: Tensor, active: Tensor) -> Tensor:
        """P^T v, likewise."""
        out = zeros(v)
        source, target = flat(v), flat(out)
        batch = self._transposable()
        self._run(lambda tasks: self._kernels.apply_transpose(tasks, batch, self._cost, source, target), active)
        return out

    def solve(
        self, rhs: Tensor, discount: Tensor, tolerance: Tensor, active: Tensor, *, transpose: bool, max_iter: int
    ) -> Linear:
        """Solve `(I - (1 - delta) P) x = rhs`, or its transpose, to a residual norm of at most `tolerance`."""
        small = torch.from_numpy(self._entries <= COMPILED_ENTRIES)
        result = Linear(zeros(rhs), zeros(tolerance))
        if bool((active & ~small).any()):
            product = self.apply_transpose if transpose else self.apply
            large = active & ~small
            with own_threads():
                result = bicgstab(product, rhs, discount, tolerance, large, transpose=transpose, max_iter=max_iter)
        chosen = np.flatnonzero((active & small).numpy())
        if chosen.size:
            batch = self._transposable() if transpose else self._batch
            kernel = self._kernels.bicgstab_transpose if transpose else self._kernels.bicgstab
            source, target, size = flat(rhs), flat(result.x), self._batch.items.size
            deltas, wanted, reached = array(discount), array(tolerance), array(result.residual)
            run(
                lambda tasks: kernel(
                    tasks, batch, size, self._cost, max_iter, deltas, wanted, source, target, reached,
                    make_vectors(size),
                ),
                self._whole(chosen),
                10 * self._entries[chosen],
            )  # fmt: skip
        return result


def zeros(like: Tensor) -> Tensor:
    """Zeros of that shape that kernels can write to: one after another, whatever the strides of the other tensor."""
    return torch.zeros_like(like, memory_format=torch.contiguous_format)


def starts(counts: Any) -> Any:
    """Where parts of these sizes begin that lie one after another, and where the last one ends."""
    begin = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=begin[1:])
    return begin


def pattern_of(pattern: Rows | None, rows: Rows) -> Rows:
    """The entries that may vary: all (None), the rows' own (whose layouts exist already), or those and some zeros."""
    if pattern is not None:
        return rows if _are_one(pattern.indices, rows.indices) and _are_one(pattern.indptr, rows.indptr) else pattern
    every = layout.full(rows)
    return rows if torch.equal(rows.indices, every.indices) else every  # rows may be full, and in another order


def _are_one(some: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same numbers in memory: `detach` makes another object each time."""
    some, other = plain(some), plain(other)
    return some.data_ptr() == other.data_ptr() and some.shape == other.shape and some.stride() == other.stride()


def collect(entries: Any, values: Any, pattern: Rows, *, full: bool) -> Tensor:
    """Add up values that fall on the same entry of the pattern (`full`: all of them; 0 at padded states).

    Entries of -1 are padding.
    """
    inside = entries >= 0
    total = np.bincount(entries[inside], weights=values[inside], minlength=pattern.indices.numel())
    result = torch.from_numpy(total)
    if not full:
        return result
    real = torch.arange(pattern.num_states, device="cpu") < pattern.sizes.unsqueeze(1)
    return torch.where(real.unsqueeze(2) & real.unsqueeze(1), result.view(*real.shape, -1), 0.0)
