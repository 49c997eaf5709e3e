"""Policy iteration for the least long-run mean cost of a pair of chains, and its certificate.

    T(h) = D + OT_eps(A, B; h),        g + h = T(h),        g constant on each joint class.

T is monotone, concave, and `T(h + s) = T(h) + s` for constants s. So for ANY h, on each joint class,

    min (T(h) - h)  <=  g  <=  max (T(h) - h):

where `T(h) >= h + a`, the mean of `D + P h - h` under the stationary law of any coupled chain P, which is the mean of
D, is at least a; and where `T(h) <= h + b`, the coupled chain that T chooses at h has a mean cost of at most b. (At
epsilon > 0 the costs are those with the entropic term.) The bounds of all sweeps hold together.

A step is Newton's: with P the plans at h, the next h solves `(I - P) h = c - g`, where c is given by `c + P h = T(h)`
at the old h. Each gain is that of a policy, hence not below the least one, and not above the one before.
"""

from contextlib import nullcontext
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from markovot.average.operators import Independent, Sets, monotone_order
from markovot.average.poisson import CoupledChain, independent_bias
from markovot.solution import Status
from markovot.solving.problem import Problem
from markovot.solving.stopping import Stopping
from markovot.transport.engine import Engine
from markovot.transport.engines import with_engine
from markovot.transport.forcing import (
    FINAL_SHARE,
    LOCAL_FORCING,
    LOCAL_SHARE,
    POLISH,
    START_SHARE,
    START_STEPS,
)  # fmt: skip
from markovot.transport.threads import own_threads

T = TypeVar("T")

# Sums of three numbers as large as the bias are rounded by no more than this share of it.
ROUND_OFF = 4 * 2.0**-52
# No linear system is solved to a residual below this share of the bias.
LINEAR_FLOOR = 1e-14
# Linear systems, whose products cost little beside a sweep, are solved to this share of the last residual.
FORCING = 1e-3
# An entropic step above this, in ranges of the cost, means that P almost never leaves some sets, of different costs.
# Then, and where a system is not solved, P is stopped at each step with a small probability, a smaller one each time.
# This lies between value and policy iteration.
DAMPED_ABOVE, DAMPING, RELAXED = 1e6, 1e-3, 0.3


class GainInputs(NamedTuple, Generic[T]):
    """One field for each tensor in which the gain is differentiable, as in `problem.Inputs`."""

    ground: T  # (1, n, m), D
    x: T  # transition (1, n, n), or stored values (nnz,)
    y: T
    epsilon: T  # (1,)


class LongRun(NamedTuple):
    """Where the iteration ended."""

    engine: Engine  # its plans are those of the last sweep
    chain: CoupledChain
    bias: Tensor  # (1, n, m), the h of the last sweep
    lower: Tensor  # (count,), of the gain of each joint class
    upper: Tensor
    status: list[Status]
    num_iter: Tensor  # (1,)


def iterate(
    problem: Problem[GainInputs[Tensor]], joint: Sets, tolerance: Tensor, max_iter: int, *, polish: bool
) -> LongRun:
    """Find the gain of every joint class of one pair of chains.

    Args:
        problem: what to solve.
        joint: the joint classes.
        tolerance: wanted half-width of the enclosures, (1,).
        max_iter: sweeps.
        polish: take one more step past the tolerance, for gradients.
    """
    given, rows = problem.inputs, problem.pairing.rows
    ground = given.ground
    with own_threads() if ground.device.type == "cpu" else nullcontext():
        scale = (ground.amax() - ground.amin())[None]
        independent = Independent(*rows)
        start = independent_bias(independent, joint, ground, START_SHARE * scale, START_STEPS)
        exact = not bool(given.epsilon.any())

        def run(engine: Engine) -> LongRun:
            chain = CoupledChain(engine, independent, joint, exact=exact)
            stop = Stopping(tolerance, max_iter, polish=polish, spare=POLISH)
            return _Iteration(ground, scale, chain, stop).run(start)

        ordered = monotone_order(rows, start) if exact else rows
        return with_engine(ordered, problem.pairing.pairs, given.epsilon, lambda: scale, run)


class _Iteration:
    def __init__(self, ground: Tensor, scale: Tensor, chain: CoupledChain, stop: Stopping) -> None:
        self.ground, self.scale, self.chain, self.stop = ground, scale, chain, stop
        self.joint = chain.joint
        self.goal = stop.tolerance
        self.damping = DAMPING
        self.lower, self.upper = self.joint.least(ground), self.joint.largest(ground)

    def run(self, start: Tensor) -> LongRun:
        h = start
        gap = torch.maximum(LOCAL_SHARE * self.goal, LOCAL_FORCING * self.scale)
        while True:
            residual, width = self._sweep(h, gap)
            radius = 0.5 * (self.upper - self.lower).amax()[None]
            radius = torch.where(residual.isfinite().all(), radius, torch.nan)
            if not self.stop.update(radius):
                chain, status = self.chain, self.stop.status(radius)
                return LongRun(chain.engine, chain, h, self.lower, self.upper, status, self.stop.num_iter)
            share = POLISH if bool(self.stop.met) else 1.0
            h = h + self._step(h, residual, width, share)
            gap = torch.maximum(share * LOCAL_SHARE * self.goal, LOCAL_FORCING * width)

    def _sweep(self, h: Tensor, gap: Tensor) -> tuple[Tensor, Tensor]:
        """Solve the local problems at h, and narrow the enclosures. Returns T(h) - h, and its largest range, (1,)."""
        joint = self.joint
        lower, upper = self.chain.engine.sweep(h, gap, self.stop.active)
        self.chain.forget()
        residual = self.ground + lower - h
        rounding = ROUND_OFF * (h.abs().amax() + self.ground.abs().amax())
        low = joint.least(residual) - rounding
        high = joint.largest(residual + (upper - lower)) + rounding
        self.lower, self.upper = torch.fmax(self.lower, low), torch.fmin(self.upper, high)
        return residual, (high - low).amax()[None]

    def _step(self, h: Tensor, residual: Tensor, width: Tensor, share: float) -> Tensor:
        """The new h less the old one."""
        goal = share * FINAL_SHARE * self.goal
        floor = LINEAR_FLOOR * h.abs().amax()
        forcing = torch.maximum(torch.maximum(goal, FORCING * width), floor)
        x, solved = self.chain.evaluate(residual, forcing, tie=goal)
        if not solved or (not self.chain.exact and bool(x.abs().amax() > DAMPED_ABOVE * self.scale)):
            middle = self.joint.spread(0.5 * (self.joint.least(residual) + self.joint.largest(residual)))
            x = self.chain.resolvent(residual - middle, self.damping, forcing)
            self.damping *= RELAXED
        if not bool(x.isfinite().all()):
            x = 0.5 * residual  # a lazy step of value iteration
        return x - self.joint.spread(self.joint.mean(x))
