"""The one outer loop: iterate a Bellman operator until the certificate meets the tolerance.

Policy iteration is Newton's method for `C - T(C) = 0`. The derivative of T at C is `(1 - delta) P`, P the plans, so a
step solves `K x = T(C) - C` with `K = I - (1 - delta) P`. T is concave and monotone, so from any start the first exact
step lands above C* and the sequence then decreases to it: no line search is needed. Steps are solved only as far as
they help.
"""

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from markovot import validate
from markovot.solution import Status
from markovot.solving.bellman import Bellman, Enclosure
from markovot.transport.forcing import (
    FINAL_SHARE,
    FORCING,
    LINEAR_STEPS,
    LOCAL_FORCING,
    LOCAL_SHARE,
    PATIENCE,
    POLISH,
    PROGRESS,
    START_SHARE,
    START_STEPS,
)
from markovot.transport.threads import own_threads


@dataclass(frozen=True)
class PolicyIteration:
    """Newton's method for the fixed point: few steps at every delta.

    Args:
        rtol: wanted certified error, relative to the range of the cost (to one where the range is zero). The default
            1e-4 is far below the entropic bias at usual epsilon; 1e-10 is within reach in float64.
        max_iter: sweeps over all local problems. 3 to 10 are usual.
    """

    rtol: float = 1e-4
    max_iter: int = 100

    def __post_init__(self) -> None:
        _check(self)

    def step(self, bellman: Bellman, enclosure: Enclosure, forcing: Tensor, active: Tensor) -> Tensor:
        """C - the old C, apart from T(C) - C."""
        found = bellman.engine.solve(
            enclosure.residual, bellman.discount, forcing, active, transpose=False, max_iter=LINEAR_STEPS
        )
        # A system that was not solved leaves a step of value iteration, which always contracts.
        solved = found.residual < enclosure.residual.abs().flatten(1).amax(1)
        return torch.where(solved[:, None, None], found.x - enclosure.residual, 0.0)


@dataclass(frozen=True)
class ValueIteration:
    """Repeated application of T, shifted to the middle of its enclosure: each sweep gains at least 1 - delta.

    Args:
        rtol: as in `PolicyIteration`.
        max_iter: sweeps. About log(rtol * delta) / log(1 - delta) are needed in the worst case.
    """

    rtol: float = 1e-4
    max_iter: int = 10_000

    def __post_init__(self) -> None:
        _check(self)

    def step(self, bellman: Bellman, enclosure: Enclosure, forcing: Tensor, active: Tensor) -> Tensor:
        """A constant: the middle of the enclosure."""
        middle = (0.5 * (enclosure.low + enclosure.high))[:, None, None]
        return middle if bellman.mask is None else middle * bellman.mask


class Solver(Protocol):
    """What the loop asks of a method."""

    @property
    def rtol(self) -> float:
        """Wanted certified error, relative to the range of the cost."""

    @property
    def max_iter(self) -> int:
        """The most sweeps it may take."""

    def step(self, bellman: Bellman, enclosure: Enclosure, forcing: Tensor, active: Tensor) -> Tensor:
        """The next C - the present one, apart from T(C) - C, solved to `forcing` (P,) for the active items."""


def check_solver(solver: object) -> None:
    """Refuse what is not a solver."""
    if not isinstance(solver, PolicyIteration | ValueIteration):
        raise TypeError(f"solver: expected an object such as PolicyIteration(rtol=1e-4), got {type(solver).__name__}.")


def _check(solver: Solver) -> None:
    rtol = validate.number("rtol", solver.rtol, 0.0, 1.0)
    if not 0 < rtol < 1:
        raise ValueError(f"rtol: {rtol:g} is not between 0 and 1. Try 1e-4, the default.")
    # Kernels take Python's numbers, whatever they were given as.
    object.__setattr__(solver, "rtol", rtol)
    object.__setattr__(solver, "max_iter", validate.count("max_iter", solver.max_iter, low=1))


class FixedPoint(NamedTuple):
    """Where the loop ended, per item."""

    enclosure: Enclosure  # the closest of all sweeps; `residual` and `local` are those of the same sweep
    cost: Tensor  # (P, n, m), the C of the last sweep: the frozen plans are optimal for it
    status: list[Status]
    num_iter: Tensor  # (P,)


def iterate(bellman: Bellman, solver: Solver, tolerance: Tensor, start: Tensor | None, *, polish: bool) -> FixedPoint:
    """Find C* to `tolerance` (P,) in the maximum norm.

    Args:
        bellman: the operator.
        solver: `PolicyIteration` or `ValueIteration`.
        tolerance: wanted radius of the enclosure.
        start: first C (P, n, m). Default: the cost to go of the independent coupling, itself a policy, so above C*.
        polish: go one step further than the tolerance asks, for gradients, which are as good as C.

    Returns:
        Where each item ended, and whether it met the tolerance; nothing is raised.
    """
    if isinstance(solver, PolicyIteration) and bellman.engine.solves_whole:
        return _iterate_whole(bellman, solver, tolerance, start, polish)
    with own_threads() if bellman.engine.has_threads else nullcontext():
        return _iterate(bellman, solver, tolerance, start, polish)


def _iterate(bellman: Bellman, solver: Solver, tolerance: Tensor, start: Tensor | None, polish: bool) -> FixedPoint:
    num_items = len(tolerance)
    active = torch.ones(num_items, dtype=torch.bool, device=tolerance.device)
    cost = independent_cost(bellman, active) if start is None else start
    goal = bellman.discount * tolerance  # of the residual
    allowed = LOCAL_SHARE * goal
    gap = torch.maximum(allowed, LOCAL_FORCING * bellman.spread)
    num_iter = torch.zeros(num_items, dtype=torch.int64, device=tolerance.device)
    best = torch.full_like(tolerance, torch.inf)
    stale = torch.zeros_like(num_iter)
    met = torch.zeros_like(active)
    polished = torch.zeros_like(active) if polish else torch.ones_like(active)
    enclosure = closest = None
    while True:
        found = bellman.enclose(cost, gap, active)
        enclosure = found if enclosure is None else _merge(enclosure, found, active)
        closer = active if closest is None else active & (enclosure.radius <= closest.radius)
        closest = enclosure if closest is None else _merge(closest, enclosure, closer)
        num_iter += active
        radius = enclosure.radius
        progress = radius < PROGRESS * best
        stale = torch.where(progress, 0, stale + 1)
        best = torch.minimum(best, radius)
        polished = polished | (met & active)
        met = met | (radius <= tolerance)
        active = active & ~(met & polished) & (num_iter < solver.max_iter) & (stale < PATIENCE) & radius.isfinite()
        if not bool(active.any()):
            break
        residual = enclosure.residual.abs().flatten(1).amax(1)
        # Of tensors: chosen between two numbers, the result would have torch's default dtype.
        final = torch.where(met, POLISH * goal, FINAL_SHARE * goal)
        forcing = torch.maximum(final, FORCING * residual)
        step = enclosure.residual + solver.step(bellman, enclosure, forcing, active)
        cost = torch.where(active[:, None, None], cost + step, cost)
        gap = torch.maximum(torch.where(met, POLISH * allowed, allowed), LOCAL_FORCING * residual * bellman.discount)
    return FixedPoint(closest, cost, _statuses(closest.radius, tolerance, num_iter, solver), num_iter)


def _iterate_whole(
    bellman: Bellman, solver: PolicyIteration, tolerance: Tensor, start: Tensor | None, polish: bool
) -> FixedPoint:
    """The same loop, run by an engine that has it in compiled code."""
    found, cost = bellman.engine.policy_iteration(
        bellman.ground, bellman.discount, tolerance, bellman.spread, start, polish=polish, max_iter=solver.max_iter
    )
    enclosure = Enclosure(found["base"], found["low"], found["high"], found["residual"], found["lower"])
    status = _statuses(enclosure.radius, tolerance, found["num_iter"], solver)
    return FixedPoint(enclosure, cost, status, found["num_iter"])


def independent_cost(bellman: Bellman, active: Tensor) -> Tensor:
    """The cost to go where the two chains move independently of each other, roughly solved."""
    delta = bellman.discount[:, None, None]
    rough = bellman.engine.solve(
        delta * bellman.ground, bellman.discount, START_SHARE * bellman.discount * bellman.spread, active,
        transpose=False, max_iter=START_STEPS,
    )  # fmt: skip
    return rough.x


def _merge(old: Enclosure, new: Enclosure, active: Tensor) -> Enclosure:
    """The new enclosure of active items, the old one of the others."""
    wide = active[:, None, None]
    return Enclosure(
        torch.where(wide, new.base, old.base),
        torch.where(active, new.low, old.low),
        torch.where(active, new.high, old.high),
        torch.where(wide, new.residual, old.residual),
        torch.where(wide, new.local, old.local),
    )


def _statuses(radius: Tensor, tolerance: Tensor, num_iter: Tensor, solver: Solver) -> list[Status]:
    result = []
    for r, wanted, steps in zip(radius.tolist(), tolerance.tolist(), num_iter.tolist(), strict=True):
        if not math.isfinite(r - wanted):
            result.append(Status.NOT_FINITE)
        elif r <= wanted:
            result.append(Status.CONVERGED)
        else:
            result.append(Status.MAX_ITER_REACHED if steps >= solver.max_iter else Status.STALLED)
    return result
