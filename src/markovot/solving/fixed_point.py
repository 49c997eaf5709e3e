"""The one outer loop: iterate a Bellman operator until the certificate meets the tolerance.

Policy iteration is Newton's method for `C - T(C) = 0`. The derivative of T at C is `(1 - delta) P`, P the plans, so a
step solves `K x = T(C) - C` with `K = I - (1 - delta) P`. T is concave and monotone, so from any start the first exact
step lands above C* and the sequence then decreases to it: no line search is needed. Steps are solved only as far as
they help.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from markovot.solution import Status
from markovot.solving.bellman import Bellman, Enclosure
from markovot.solving.stopping import Stopping
from markovot.transport.forcing import (
    FINAL_SHARE,
    FORCING,
    LINEAR_STEPS,
    LOCAL_FORCING,
    LOCAL_SHARE,
    POLISH,
    START_SHARE,
    START_STEPS,
)
from markovot.transport.threads import own_threads

Step = Callable[[Bellman, Enclosure, Tensor, Tensor], Tensor]


def newton_step(bellman: Bellman, enclosure: Enclosure, forcing: Tensor, active: Tensor) -> Tensor:
    """What policy iteration adds to T(C) to get the next C, (P, n, m).

    Args:
        bellman: the operator; its engine holds the plans of the last sweep.
        enclosure: what that sweep gave.
        forcing: how far the linear systems are solved, (P,).
        active: which items take the step.
    """
    found = bellman.engine.solve(
        enclosure.residual, bellman.discount, forcing, active, transpose=False, max_iter=LINEAR_STEPS
    )
    # Where the linear system was not solved, C becomes T(C), a step of value iteration, which always contracts.
    solved = found.residual < enclosure.residual.abs().flatten(1).amax(1)
    return torch.where(solved[:, None, None], found.x - enclosure.residual, 0.0)


class FixedPoint(NamedTuple):
    """Where the loop ended, per item."""

    enclosure: Enclosure  # the closest of all sweeps; `residual` and `local` are those of the same sweep
    cost: Tensor  # (P, n, m), the C of the last sweep: the frozen plans are optimal for it
    status: list[Status]
    num_iter: Tensor  # (P,)


def iterate(
    bellman: Bellman,
    tolerance: Tensor,
    max_iter: int,
    start: Tensor | None,
    *,
    polish: bool,
    step: Step = newton_step,
) -> FixedPoint:
    """Find C* to `tolerance` (P,) in the maximum norm.

    Args:
        bellman: the operator.
        tolerance: wanted radius of the enclosure.
        max_iter: the most sweeps.
        start: first C (P, n, m). Default: the cost to go of the independent coupling, itself a policy, so above C*.
        polish: take one more step past the tolerance: gradients are only as accurate as C.
        step: finds the next C from T(C). Tests replace Newton's method by value iteration.

    Returns:
        Where each item ended, and whether it met the tolerance; nothing is raised.
    """
    if step is newton_step and bellman.engine.solves_whole:
        return _iterate_whole(bellman, tolerance, max_iter, start, polish)
    with own_threads() if bellman.engine.has_threads else nullcontext():
        return _iterate(bellman, Stopping(tolerance, max_iter, polish=polish), start, step)


def _iterate(bellman: Bellman, stop: Stopping, start: Tensor | None, step: Step) -> FixedPoint:
    cost = independent_cost(bellman, stop.active) if start is None else start
    goal = bellman.discount * stop.tolerance  # of the residual
    allowed = LOCAL_SHARE * goal
    gap = torch.maximum(allowed, LOCAL_FORCING * bellman.spread)
    enclosure = closest = None
    while True:
        found = bellman.enclose(cost, gap, stop.active)
        enclosure = found if enclosure is None else _merge(enclosure, found, stop.active)
        closer = stop.active if closest is None else stop.active & (enclosure.radius <= closest.radius)
        closest = enclosure if closest is None else _merge(closest, enclosure, closer)
        if not stop.update(enclosure.radius):
            break
        residual = enclosure.residual.abs().flatten(1).amax(1)
        # `where` of two tensors: of two plain numbers, it would have torch's default dtype.
        final = torch.where(stop.met, POLISH * goal, FINAL_SHARE * goal)
        forcing = torch.maximum(final, FORCING * residual)
        move = enclosure.residual + step(bellman, enclosure, forcing, stop.active)
        cost = torch.where(stop.active[:, None, None], cost + move, cost)
        gap = torch.maximum(
            torch.where(stop.met, POLISH * allowed, allowed), LOCAL_FORCING * residual * bellman.discount
        )
    return FixedPoint(closest, cost, stop.status(closest.radius), stop.num_iter)


def _iterate_whole(
    bellman: Bellman, tolerance: Tensor, max_iter: int, start: Tensor | None, polish: bool
) -> FixedPoint:
    """The same loop, run by an engine that has it in compiled code."""
    found, cost = bellman.engine.policy_iteration(
        bellman.ground, bellman.discount, tolerance, bellman.spread, start, polish=polish, max_iter=max_iter
    )
    enclosure = Enclosure(found["base"], found["low"], found["high"], found["residual"], found["lower"])
    status = Status.each(enclosure.radius, tolerance, found["num_iter"] >= max_iter)
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
