r"""The gain of one pair of chains, and its gradient.

Differentiating `g + h = D + OT(A, B; h)` with dOT = <pi, dh> + <f, dA> + <g, dB> + KL deps (envelope theorem), and
taking the mean under the stationary law lambda of the coupled chain, where dh cancels since lambda P = lambda, give

    grad D = lambda                              grad A_ik = sum_j lambda_ij f_ij^k
    grad epsilon = <lambda, KL>                  grad B_jl = sum_i lambda_ij g_ij^l

with no linear system except that for lambda. Potentials are defined up to a constant; gradients in rows are centred.
"""

import math
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from markovot.average.iteration import GainInputs, LongRun, iterate
from markovot.average.operators import Sets
from markovot.solution import Status
from markovot.solving.adjoint import centre_rows, meets_itself
from markovot.solving.bellman import cost_range, tolerance
from markovot.solving.problem import Plans, Problem
from markovot.transport.threads import own_threads
from markovot.transport.units import confined

# Gains that differ by no more than this share of the range of the cost count as equal.
TIE = 1e-12


@dataclass
class SolvedGain:
    """A solved pair of chains, without padding, as a batch of one item."""

    problem: Problem[GainInputs[Tensor]]
    joint: Sets
    found: LongRun
    wanted: Tensor  # (1,), the error that was to be reached
    last_step: float = math.inf  # the coupled chains go on for ever

    @property
    def status(self) -> list[Status]:
        """How the solve ended."""
        return self.found.status

    @property
    def num_iter(self) -> Tensor:
        """Sweeps over all local problems, (1,)."""
        return self.found.num_iter

    @property
    def value(self) -> Tensor:
        """The middle of the enclosure of the least gain, (1,)."""
        return self._certified[0]

    @property
    def error_bound(self) -> Tensor:
        """Half the width of that enclosure, (1,)."""
        return self._certified[1]

    @cached_property
    def _certified(self) -> tuple[Tensor, Tensor]:
        """The enclosure, cut to the range of the costs. Copies of one chain may be known to have the least cost."""
        given, rows = self.problem.inputs, self.problem.pairing.rows
        lower, upper = self.found.lower.amin()[None], self.found.upper.amin()[None]
        low, high = self._limits
        if bool(given.epsilon == 0) and meets_itself(given.ground[0], rows):
            high = low
        return confined(0.5 * (lower + upper), 0.5 * (upper - lower), (low, high))

    @property
    def _limits(self) -> tuple[Tensor, Tensor]:
        ground = self.problem.inputs.ground
        return ground.amin()[None], ground.amax()[None]

    @property
    def gain(self) -> Tensor:
        """The gain of every first pair, (1, n, m)."""
        return self.joint.spread((0.5 * (self.found.lower + self.found.upper)).clamp(*self._limits))

    @property
    def classes(self) -> Tensor:
        """The joint class of every pair, (1, n, m)."""
        return self.joint.labels[None]

    @property
    def bias(self) -> Tensor:
        """The bias, whose minimum in each joint class is zero, (1, n, m)."""
        return self.found.bias - self.joint.spread(self.joint.least(self.found.bias))

    def outputs(self) -> tuple[Tensor, ...]:
        """The value."""
        return (self.value,)

    @cached_property
    def _law(self) -> Tensor:
        """The stationary law of the coupled chain on the joint class of least gain, the first of those that tie."""
        centre, ground = 0.5 * (self.found.lower + self.found.upper), self.problem.inputs.ground
        tie = TIE * (ground.amax() - ground.amin())
        with own_threads():
            return self.found.chain.stationary_law(int((centre <= centre.amin() + tie).double().argmax()))

    def alignment(self) -> Tensor:
        """The stationary law of the coupled chain, (1, n, m)."""
        return self._law

    def couplings(self, item: int, step: int = 0) -> Plans:
        """All local plans, the same at every step."""
        return self.found.engine.couplings(item)

    def pullback(self, needed: tuple[bool, ...], grad_value: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients in the order of `GainInputs`; only the needed ones are computed."""
        need, engine = GainInputs(*needed), self.found.engine
        weight = grad_value[:, None, None] * self._law
        for_x, for_y = self.problem.pairing.entries
        return (
            weight if need.ground else None,
            centre_rows(engine.gradient_x(weight, for_x.pattern), for_x) if need.x else None,
            centre_rows(engine.gradient_y(weight, for_y.pattern), for_y) if need.y else None,
            (weight * engine.kl()).flatten(1).sum(1) if need.epsilon else None,
        )


def solve(
    problem: Problem[GainInputs[Tensor]], joint: Sets, rtol: float, max_iter: int, *, polish: bool
) -> SolvedGain:
    """Solve one pair of chains.

    Args:
        problem: what to solve.
        joint: the joint classes of the pair.
        rtol: wanted certified error, relative to the range of the cost.
        max_iter: sweeps.
        polish: take one more step past the tolerance, for gradients.
    """
    wanted = tolerance(cost_range(problem.inputs.ground, None), rtol)
    return SolvedGain(problem, joint, iterate(problem, joint, wanted, max_iter, polish=polish), wanted)
