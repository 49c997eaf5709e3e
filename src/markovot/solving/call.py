"""One call of the distance as autograd and `torch.func` see it: its numbers, and its derivatives in every mode."""

from collections.abc import Sequence

from torch import Tensor

from markovot.autograd.implicit import Implicit
from markovot.solving import adjoint
from markovot.solving.adjoint import SolvedDistance
from markovot.solving.problem import Inputs, Pairing, Problem
from markovot.solving.tangents import Tangents


class DistanceCall(Implicit):
    """Solves the pairs of a batch of chains, once.

    Args:
        pairing: which chains meet, and their rows.
        rtol: wanted certified error, relative to the range of the cost.
        max_iter: the most sweeps.
        init: a solved problem of the same shape to start from.
        polish: go a step further than the tolerance, for derivatives.
    """

    num_differentiable = 2
    twice = True
    fold: "DistanceCall | None" = None

    def __init__(
        self, pairing: Pairing, rtol: float, max_iter: int, init: SolvedDistance | None, *, polish: bool
    ) -> None:
        self._pairing = pairing
        self._rtol, self._max_iter = rtol, max_iter
        self._init = init
        self._polish = polish
        self._solved: SolvedDistance | None = None

    @property
    def solved(self) -> SolvedDistance:
        """What this call found, or the call that replaced it under vmap."""
        if self.fold is not None:
            return self.fold.solved
        assert self._solved is not None, "asked before the call"
        return self._solved

    def solve(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Solve, from detached `Inputs`."""
        inputs = Inputs(*(tensor.contiguous() for tensor in tensors))
        problem = Problem(inputs, self._pairing.filled(inputs.x, inputs.y))
        self._solved = adjoint.solve(problem, self._rtol, self._max_iter, init=self._init, polish=self._polish)
        self._init = None  # a kept start would keep its own start in memory, and so on back to the first one
        return self._solved.outputs()

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
        """The call for `size` copies of the same chains, without a start."""
        return DistanceCall(self._pairing.repeated(size), self._rtol, self._max_iter, None, polish=self._polish)
