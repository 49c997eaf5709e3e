"""Policy iteration for the least long-run mean cost of a pair of chains, and its certificate.

    T(h) = D + OT_eps(A, B; h),        g + h = T(h),        g constant on each joint class.

T is monotone, concave, and `T(h + s) = T(h) + s` for constants s. So for ANY h, on each joint class,

    min (T(h) - h)  <=  g  <=  max (T(h) - h):

where `T(h) >= h + a`, the mean of `D + P h - h` under the stationary law of any coupled chain P, which is the mean of
D, is at least a; and where `T(h) <= h + b`, the coupled chain that T chooses at h has a mean cost of at most b. (At
epsilon > 0 the costs are those with the entropic term.) The bounds of all sweeps hold together.

A step is Newton's: with P the plans at h, the next h solves `(I - P) h = c - g`, `c + P h = T(h)` at the old h. Each
gain is that of a policy, hence above the least one, and no larger than the last.
"""

import math
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from markovot.average.operators import Independent, Sets, monotone_order
from markovot.average.poisson import CoupledChain, independent_bias
from markovot.solution import Status
from markovot.transport.engine import Engine
from markovot.transport.forcing import (
    FINAL_SHARE,
    LOCAL_FORCING,
    LOCAL_SHARE,
    PATIENCE,
    POLISH,
    PROGRESS,
    START_SHARE,
    START_STEPS,
)  # fmt: skip
from markovot.transport.rows import Rows
from markovot.transport.threads import own_threads

# Sums of three numbers as large as the bias are rounded by no more than this share of it.
ROUND_OFF = 4 * 2.0**-52
# Linear systems are not asked for less than this share of the bias.
LINEAR_FLOOR = 1e-14
# Linear systems, whose products cost little beside a sweep, are solved to this share of the last residual.
FORCING = 1e-3
# An entropic step larger than this, in ranges of the cost, comes of sets of different cost that P all but never leaves.
# Then, and where a system is not solved, P is stopped with a small probability at each step, a smaller one each time:
# halfway between value and policy iteration.
DAMPED_ABOVE, DAMPING, RELAXED = 1e6, 1e-3, 0.3


class Problem(NamedTuple):
    """One pair of chains."""

    ground: Tensor  # (1, n, m), D
    rows: tuple[Rows, Rows]
    epsilon: Tensor  # (1,)
    joint: Sets


class Found(NamedTuple):
    """Where the iteration ended."""

    engine: Engine  # its plans are those of the last sweep
    chain: CoupledChain
    bias: Tensor  # (1, n, m), the h of the last sweep
    lower: Tensor  # (count,), of the gain of each joint class
    upper: Tensor
    status: Status
    num_iter: int


def iterate(problem: Problem, engine_class: Any, tolerance: float, max_iter: int, *, polish: bool) -> Found:
    """Find the gain of every joint class to `tolerance`.

    Args:
        problem: what to solve.
        engine_class: of the engine for the local problems.
        tolerance: wanted half-width of the enclosures.
        max_iter: sweeps.
        polish: go a step further than the tolerance asks, for gradients.
    """
    with own_threads() if problem.ground.device.type == "cpu" else nullcontext():
        return _Iteration(problem, engine_class, tolerance).run(max_iter, polish)


class _Iteration:
    def __init__(self, problem: Problem, engine_class: Any, tolerance: float) -> None:
        ground, joint = problem.ground, problem.joint
        self.ground, self.joint, self.tolerance = ground, joint, tolerance
        self.scale = (ground.amax() - ground.amin())[None]
        self.goal = torch.full_like(self.scale, tolerance)
        independent = Independent(*problem.rows)
        self.start = independent_bias(independent, joint, ground, START_SHARE * self.scale, START_STEPS)
        exact = not bool(problem.epsilon.any())
        rows = monotone_order(problem.rows, self.start) if exact else problem.rows
        only = torch.zeros(1, dtype=torch.int64, device=ground.device)
        self.engine: Engine = engine_class(*rows, only, only, problem.epsilon)
        self.chain = CoupledChain(self.engine, independent, joint, exact=exact)
        self.damping = DAMPING
        self.active = torch.ones(1, dtype=torch.bool, device=ground.device)
        self.lower, self.upper = joint.least(ground), joint.largest(ground)

    def run(self, max_iter: int, polish: bool) -> Found:
        h = self.start
        gap = torch.maximum(LOCAL_SHARE * self.goal, LOCAL_FORCING * self.scale)
        best, stale, met, num_iter = math.inf, 0, False, 0
        while True:
            residual, width = self._sweep(h, gap)
            num_iter += 1
            radius = float(0.5 * (self.upper - self.lower).amax())
            stale = 0 if radius < PROGRESS * best else stale + 1
            best = min(best, radius)
            polished, met = met or radius <= POLISH * self.tolerance, radius <= self.tolerance
            done = met and (polished or not polish)
            finite = bool(residual.isfinite().all())
            if done or num_iter >= max_iter or stale >= PATIENCE or not finite:
                if not finite or not math.isfinite(radius - self.tolerance):
                    status = Status.NOT_FINITE
                elif radius <= self.tolerance:
                    status = Status.CONVERGED
                else:
                    status = Status.MAX_ITER_REACHED if num_iter >= max_iter else Status.STALLED
                return Found(self.engine, self.chain, h, self.lower, self.upper, status, num_iter)
            share = POLISH if met else 1.0
            h = h + self._step(h, residual, width, share)
            gap = torch.maximum(share * LOCAL_SHARE * self.goal, LOCAL_FORCING * width)

    def _sweep(self, h: Tensor, gap: Tensor) -> tuple[Tensor, Tensor]:
        """Solve the local problems at h, and narrow the enclosures; T(h) - h, and the largest of its ranges, (1,)."""
        joint = self.joint
        lower, upper = self.engine.sweep(h, gap, self.active)
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
