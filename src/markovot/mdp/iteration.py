r"""Policy iteration for the fixed point of `operator.Operator`.

The fixed point is the value of a game in turns: in each pair of states one player takes the action, to make the cost to
go large, then the other one takes the coupling, to make it small. After Hoffman and Karp (1966): keep the couplings of
all actions, find the cost to go against the best actions (`respond`, which solves no transport problem), then find the
optimal couplings for that cost, and repeat. With exact steps the cost falls each time, so no couplings occur twice.

With the couplings P^a of a sweep at C, action a has the value `q^a(C) + gamma P^a x` at C + x, for every epsilon: the
entropic terms are part of q^a(C). Against fixed couplings the actions are improved by policy iteration in turn,

    (I - gamma P) x' = max over a of (q^a + gamma P^a x) - C - x,         P has the P^a of the best action in each pair,

which is Newton's method for a convex function: from its second step on, x grows.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from markovot.mdp.operator import Enclosure, Operator, one
from markovot.solution import Status
from markovot.solving.stopping import Stopping
from markovot.transport.forcing import FINAL_SHARE, FORCING, LOCAL_FORCING, LOCAL_SHARE
from markovot.transport.threads import own_threads

# The most steps of the policy iteration for the actions: more than was ever needed, and stopping early does no harm.
RESPONSE_STEPS = 100


class FixedPoint(NamedTuple):
    """Where the iteration ended."""

    value: Tensor  # (n, m), the middle of the enclosure
    radius: float  # its certified error
    actions: Tensor  # int64 (n, m), the maximising action
    status: Status
    num_iter: int  # sweeps over all transport problems


def iterate(operator: Operator, tolerance: float, max_iter: int) -> FixedPoint:
    """Find the fixed point to `tolerance` in the maximum norm; nothing is raised.

    Args:
        operator: the operator T.
        tolerance: wanted radius of the enclosure.
        max_iter: sweeps over all transport problems.
    """
    gamma = operator.gamma
    cost = operator.pin((1 - gamma) * operator.ground)  # T(0): it lies below C*, and shows which states are near
    goal = (1 - gamma) * tolerance  # of the residual
    gap = max(LOCAL_SHARE * goal, LOCAL_FORCING * float(operator.ground.max()))
    stop = Stopping(one(tolerance), max_iter)
    with own_threads():
        while True:
            found = operator.enclose(cost, gap)
            if not stop.update(one(found.radius)):
                break
            residual = float(found.residual.abs().max())
            step = respond(operator, found, max(FINAL_SHARE * goal, FORCING * residual))
            # While costs still change, the couplings improve, even if the error of the worst pair does not fall yet.
            stop.excuse(one(float(step.abs().max())) > tolerance)
            cost = cost + step
            gap = max(LOCAL_SHARE * goal, LOCAL_FORCING * residual * (1 - gamma))
    actions = operator.best(found.values, float(cost.abs().max()))
    status = stop.status(one(found.radius))[0]
    return FixedPoint(operator.centre(found), found.radius, actions, status, int(stop.num_iter))


def respond(operator: Operator, found: Enclosure, tolerance: float) -> Tensor:
    """The x for which C + x is the cost to go of the present couplings against the best actions, (n, m).

    Args:
        operator: the operator T, with the plans of the sweep at C.
        found: what that sweep gave.
        tolerance: wanted residual.
    """
    cost = found.base - found.residual
    x, values, residual = torch.zeros_like(cost), found.values, found.residual
    for _ in range(RESPONSE_STEPS):
        largest = float(residual.abs().max())
        if not largest > tolerance:
            break
        best = operator.best(values, float((cost + x).abs().max()))
        solved = operator.solve(best, residual, max(FINAL_SHARE * tolerance, FORCING * largest))
        # Where the linear system was not solved, a step of value iteration is taken, which always contracts.
        x = x + (solved.x if float(solved.residual) < largest else residual)
        moves = operator.moves(x)
        values = [value + operator.gamma * move for value, move in zip(found.values, moves, strict=True)]
        residual = operator.pin(torch.stack(values).amax(0)) - cost - x
    return x
