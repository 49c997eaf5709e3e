"""One call of the distance as autograd and `torch.func` see it: its numbers, and its derivatives in every mode."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from markovot.autograd.implicit import Implicit
from markovot.solving import adjoint
from markovot.solving.adjoint import Inputs, Problem, Solved
from markovot.solving.fixed_point import Solver
from markovot.solving.inputs import Layout, rows_of
from markovot.solving.tangents import Tangents
from markovot.transport.rows import Rows


class Outputs(NamedTuple):
    """What one call computes, for P items; the first two are differentiable."""

    value: Tensor  # (P,)
    cost_to_go: Tensor  # (P, n, m)
    error_bound: Tensor  # (P,)
    num_iter: Tensor  # int64 (P,)
    plan: Tensor  # (P, n, m)
    f: Tensor  # (P, n)
    g: Tensor  # (P, m)

    @classmethod
    def of(cls, solved: Solved) -> "Outputs":
        """The outputs of a solved batch."""
        outer = solved.outer
        return cls(
            solved.value, solved.cost_to_go, solved.error_bound, solved.fixed_point.num_iter,
            outer.plan, outer.f, outer.g,
        )  # fmt: skip


class DistanceCall(Implicit):
    """Solves the pairs of a batch of chains, once.

    Args:
        layout: which chains meet, and where their rows may vary.
        rows: of both, if they are known: a chain keeps them. None: made from the inputs.
        solver: how, and how accurately.
        init: a solved problem of the same shape to start from.
        polish: go a step further than the tolerance, for derivatives.
    """

    num_differentiable = 2
    twice = True
    fold: "DistanceCall | None" = None

    def __init__(
        self, layout: Layout, rows: tuple[Rows, Rows] | None, solver: Solver, init: Solved | None, *, polish: bool
    ) -> None:
        self._layout = layout
        self._rows = rows
        self._solver = solver
        self._init = init
        self._polish = polish
        self._solved: Solved | None = None

    @property
    def solved(self) -> Solved:
        """What was found, by this call or by the one that stood for it under vmap."""
        if self.fold is not None:
            return self.fold.solved
        assert self._solved is not None, "asked before the call"
        return self._solved

    def solve(self, *tensors: Tensor) -> Outputs:
        """Solve, from detached `Inputs`."""
        inputs = Inputs(*(tensor.contiguous() for tensor in tensors))
        x, y = self._layout.entries
        rows = self._rows or (rows_of(inputs.x, x), rows_of(inputs.y, y))
        problem = Problem(inputs, rows, *self._layout)
        self._solved = adjoint.solve(problem, self._solver, init=self._init, polish=self._polish)
        self._init = None  # which would keep its own start, and so on to the first
        return Outputs.of(self._solved)

    def pullback(self, needed: tuple[bool, ...], *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """See `adjoint`."""
        return self.solved.pullback(needed, *grads)

    def pushforward(self, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        """See `tangents`."""
        return Tangents(self.solved, tangents, None).outputs()

    def curvature(
        self, needed: tuple[bool, ...], grads: Sequence[Tensor | None], tangents: Sequence[Tensor | None]
    ) -> tuple[Tensor | None, ...]:
        """See `tangents`."""
        return Tangents(self.solved, tangents, needed).curvature(*grads)

    def folded(self, size: int) -> "DistanceCall":
        """The same chains `size` times; starts are not taken along."""
        return DistanceCall(self._layout.repeated(size), None, self._solver, None, polish=self._polish)
