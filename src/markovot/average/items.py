r"""Batches of pairs of chains, one after another, and the gradient of their gains.

Differentiating `g + h = D + OT(A, B; h)` with dOT = <pi, dh> + <f, dA> + <g, dB> + KL deps (envelope theorem), and
taking the mean under the stationary law lambda of the coupled chain, in which dh cancels since lambda P = lambda,

    grad D = lambda                              grad A_ik = sum_j lambda_ij f_ij^k
    grad epsilon = <lambda, KL>                  grad B_jl = sum_i lambda_ij g_ij^l

with no linear system but that for lambda. Potentials are defined up to a constant, and gradients in rows are centred.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from markovot.average.iteration import Found, Problem, iterate
from markovot.average.operators import Sets
from markovot.average.recurrence import Phases, joint_classes, phases, support
from markovot.solving.adjoint import Entries, centre_rows, meets_itself
from markovot.solving.bellman import cost_range, tolerance
from markovot.solving.inputs import Pairing
from markovot.transport.engines import engine_classes
from markovot.transport.shared_kernel import UnsafeRange
from markovot.transport.threads import own_threads
from markovot.transport.units import confined

# Gains no further apart than this share of the range of the cost tie.
TIE = 1e-12
_FIRST = torch.zeros(1, dtype=torch.int64, device="cpu")


class Inputs(NamedTuple):
    """The tensors in which the gain is differentiable; float64, one item of the batch after another."""

    ground: Tensor  # (P, n, m)
    x: Tensor  # transition (*B, n, n), or stored values (nnz,)
    y: Tensor
    epsilon: Tensor  # (P,)


@dataclass
class Item:
    """One pair of chains, without padding, solved."""

    problem: Problem
    found: Found
    wanted: float  # the error that was to be reached
    meets_itself: bool  # exact transport between copies of one chain, whose states have the least cost to themselves

    @property
    def best(self) -> int:
        """The joint class of least gain, the first of those that tie."""
        centre = 0.5 * (self.found.lower + self.found.upper)
        tie = TIE * (self.problem.ground.amax() - self.problem.ground.amin())
        return int((centre <= centre.amin() + tie).double().argmax())

    @property
    def certified(self) -> tuple[Tensor, Tensor]:
        """The middle of the enclosure of the least gain, and half its width: a mean of costs lies among them."""
        lower, upper = self.found.lower.amin(), self.found.upper.amin()
        low, high = self._limits
        high = low if self.meets_itself else high
        return confined(0.5 * (lower + upper), 0.5 * (upper - lower), (low, high))

    @property
    def gain(self) -> Tensor:
        """The gain of every first pair, (n, m)."""
        return self.problem.joint.spread((0.5 * (self.found.lower + self.found.upper)).clamp(*self._limits))[0]

    @property
    def _limits(self) -> tuple[Tensor, Tensor]:
        return self.problem.ground.amin(), self.problem.ground.amax()

    @property
    def bias(self) -> Tensor:
        """The bias, least zero in each joint class, (n, m)."""
        joint, bias = self.problem.joint, self.found.bias
        return (bias - joint.spread(joint.least(bias)))[0]

    @cached_property
    def law(self) -> Tensor:
        """The stationary law of the coupled chain on the best class, (1, n, m)."""
        with own_threads():
            return self.found.chain.stationary_law(self.best)


@dataclass
class Solved:
    """A solved batch."""

    items: list[Item]
    inputs: Inputs
    pairing: Pairing

    @property
    def value(self) -> Tensor:
        """The middles of the enclosures of the least gains, (P,)."""
        return torch.stack([item.certified[0] for item in self.items])

    @property
    def error_bound(self) -> Tensor:
        """Half their widths, (P,)."""
        return torch.stack([item.certified[1] for item in self.items])

    def padded(self, parts: list[Tensor]) -> Tensor:
        """One tensor (P, n, m) from those of the items, zero at padding."""
        whole = torch.zeros(self.inputs.ground.shape, dtype=parts[0].dtype, device=parts[0].device)
        for place, part in zip(whole, parts, strict=True):
            place[: part.shape[0], : part.shape[1]] = part
        return whole

    def pullback(self, needed: tuple[bool, ...], grad_value: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients in `Inputs`, in their order, of which only the needed ones are computed."""
        weights = [float(grad) * item.law for grad, item in zip(grad_value, self.items, strict=True)]
        given = self.inputs
        ground = self.padded([weight[0] for weight in weights]) if needed[0] else None
        x = self._transitions(weights, 0, given.x) if needed[1] else None
        y = self._transitions(weights, 1, given.y) if needed[2] else None
        epsilon = None
        if needed[3]:
            pairs = zip(weights, self.items, strict=True)
            epsilon = torch.stack([(weight * item.found.engine.kl()).sum() for weight, item in pairs])
        return ground, x, y, epsilon

    def _transitions(self, weights: list[Tensor], side: int, given: Tensor) -> Tensor:
        """The gradient in the transitions of one side, summed over the items of each chain."""
        total = torch.zeros_like(given)
        entries = self.pairing.entries[side]
        for weight, item, chain in zip(weights, self.items, self.pairing.pairs[side].tolist(), strict=True):
            pattern = None if entries.pattern is None else entries.pattern.alone(chain)
            engine = item.found.engine
            gradient = engine.gradient_y(weight, pattern) if side else engine.gradient_x(weight, pattern)
            n = weight.shape[1 + side]
            every = torch.ones(1, n, dtype=torch.bool, device=given.device)
            gradient = centre_rows(gradient, Entries(pattern, every))
            if entries.pattern is None:
                total.view(-1, *given.shape[-2:])[chain, :n, :n] += gradient[0]
            else:
                first = int(entries.pattern.indptr[chain, 0])
                total[first : first + gradient.numel()] += gradient
        return total


def solve(inputs: Inputs, pairing: Pairing, rtol: float, max_iter: int, *, polish: bool) -> Solved:
    """Solve every item.

    Args:
        inputs: of the batch.
        pairing: its chains.
        rtol: wanted certified error, relative to the range of the cost.
        max_iter: sweeps.
        polish: go a step further, for gradients.

    Raises:
        ValueError: a chain has no single long run (see `recurrence`).
    """
    items = []
    known: tuple[dict[int, Phases], dict[int, Phases]] = ({}, {})
    for place, chains in enumerate(zip(*(side.tolist() for side in pairing.pairs), strict=True)):
        rows = pairing.rows[0].alone(chains[0]), pairing.rows[1].alone(chains[1])
        for side, name in enumerate("xy"):
            if chains[side] not in known[side]:
                known[side][chains[side]] = phases(name, support(rows[side]))
        labels = joint_classes(known[0][chains[0]], known[1][chains[1]])
        ground = inputs.ground[place : place + 1, : rows[0].num_states, : rows[1].num_states].contiguous()
        joint = Sets(torch.from_numpy(labels).to(ground.device))
        problem = Problem(ground, rows, inputs.epsilon[place : place + 1], joint)
        wanted = float(tolerance(cost_range(ground, None), rtol))
        found = _solve(problem, wanted, max_iter, polish)
        items.append(Item(problem, found, wanted, bool(problem.epsilon == 0) and meets_itself(ground[0], rows)))
    return Solved(items, inputs, pairing)


def _solve(problem: Problem, wanted: float, max_iter: int, polish: bool) -> Found:
    classes = engine_classes(problem.rows, (_FIRST, _FIRST), problem.epsilon, lambda: cost_range(problem.ground, None))
    for engine_class in classes:
        try:
            return iterate(problem, engine_class, wanted, max_iter, polish=polish)
        except UnsafeRange:
            continue
    raise AssertionError("the last engine is safe at any range")
