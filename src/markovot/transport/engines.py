"""Which engine solves the local problems."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from markovot.transport.engine import Engine
from markovot.transport.gather import GatherEngine
from markovot.transport.rows import Rows
from markovot.transport.shared_kernel import SharedKernelEngine, UnsafeRange

# On the CPU, matrix products overtake the compiled kernels where rows are this full (root mean square degrees).
DENSE_DEGREE = 40

Found = TypeVar("Found")
Sides = tuple[Rows, Rows]


def with_engine(
    rows: Sides,
    pairs: tuple[Tensor, Tensor],
    epsilon: Tensor,
    cost_range: Callable[[], Tensor],
    call: Callable[[Engine], Found],
) -> Found:
    """Return `call(engine)` for a new engine, of the fastest kind that is safe for the range of the costs."""
    return Serving(rows, pairs, epsilon, cost_range).run(call)


class Serving:
    """The engine in use; when a cost leaves its safe range, the next kind of engine replaces it.

    Args:
        rows: the rows of the chains X, and those of the chains Y.
        pairs: which chains an item takes, int64 (P,) each.
        epsilon: (P,).
        cost_range: gives the ranges of the costs, (P,); a function, since only large dense chains need to know.
    """

    def __init__(
        self, rows: Sides, pairs: tuple[Tensor, Tensor], epsilon: Tensor, cost_range: Callable[[], Tensor]
    ) -> None:
        self._make = lambda kind: kind(*rows, *pairs, epsilon)
        self._kinds = iter(engine_classes(rows, pairs, epsilon, cost_range))
        self.engine: Engine = self._make(next(self._kinds))

    def run(self, call: Callable[[Engine], Found]) -> Found:
        """What `call(engine)` returns."""
        while True:
            try:
                return call(self.engine)
            except UnsafeRange:  # the last kind is safe at any range
                self.engine = self._make(next(self._kinds))


def engine_classes(
    rows: tuple[Rows, Rows], pairs: tuple[Tensor, Tensor], epsilon: Tensor, cost_range: Callable[[], Tensor]
) -> list[Any]:
    """Engines for these pairs of chains, epsilon and range of costs: the fastest first, the last one safe at any range.

    Exact transport (epsilon = 0) has one engine, on the CPU. Otherwise compiled kernels on the CPU; matrix products for
    large dense chains, and on other devices for dense ones, where `exp(-C / epsilon)` stays within floating point;
    padded gathers on other devices otherwise. An engine that meets a cost outside its range raises `UnsafeRange`, and
    the next one takes over.
    """
    if bool((epsilon == 0).all()):
        from markovot.transport.compiled.exact import ExactEngine

        return [ExactEngine]
    chosen: list[Any] = []
    on_cpu = epsilon.device.type == "cpu"
    fullness = torch.minimum(rows[0].fullness[pairs[0]], rows[1].fullness[pairs[1]])
    degree = float(fullness.amax()) if len(fullness) else 0.0
    dense = degree >= DENSE_DEGREE if on_cpu else 2 * degree >= max(side.num_states for side in rows)
    if dense and SharedKernelEngine.is_safe(cost_range(), epsilon):
        chosen.append(SharedKernelEngine)
    if on_cpu:
        from markovot.transport.compiled.entropic import CompiledEngine

        return [*chosen, CompiledEngine]
    return [*chosen, GatherEngine]
