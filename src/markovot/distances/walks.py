"""Distances at a random time, solved level by level: the code that `discounted_wl`, `wl` and `horizon_wl` share."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from markovot import validate
from markovot.autograd.implicit import Once
from markovot.distances.answer import packaged, solved_in_parts
from markovot.solution import HorizonSolution
from markovot.solving import recursion
from markovot.solving.inputs import Chains, prepared
from markovot.solving.parts import Part
from markovot.solving.problem import Problem
from markovot.solving.recursion import SolvedWalk, WalkInputs


class Horizon(NamedTuple):
    """The law of the time at which two walks stop."""

    hazards: Tensor  # (*batch, k), the chance to stop at t for a walk that has come so far
    tail: Tensor | None  # (*batch), the chance to stop at each step from k on; None: it stops at k
    shapes: dict[str, torch.Size]  # the batch shapes of what the caller gave, by name


def check_depth(depth: Any) -> int:
    """Refuse a depth that is not a number of steps."""
    depth = validate.count("depth", depth, low=-validate.LARGEST)
    if depth < 0:
        raise ValueError(f"depth: {depth} is negative. 0 compares the initial laws, k the states after k steps.")
    return depth


def distance(
    chains: Chains, ground: Tensor, epsilon: Tensor, horizon: Horizon, accuracy: tuple[float, int], *, throw: bool
) -> HorizonSolution:
    """Solve for checked arguments, attach the gradient, and return the solution."""
    given = prepared(chains, ground, epsilon, horizon.shapes)
    hazards, tail, _ = horizon
    delta = torch.ones_like(epsilon) if tail is None else tail
    inputs = WalkInputs(
        given.ground, given.x, given.y, *given.laws(), given.items(hazards, hazards.shape[-1]), given.items(delta),
        given.epsilon,
    )  # fmt: skip

    def call(part: Part, derivatives: bool) -> Once[SolvedWalk]:
        def solve(*tensors: Tensor) -> SolvedWalk:
            numbers = WalkInputs(*(tensor.contiguous() for tensor in tensors))
            problem = Problem(numbers, part.pairing)
            return recursion.solve(problem, *accuracy, has_tail=tail is not None, polish=derivatives)

        return Once(solve, num_differentiable=2)

    answer, found = solved_in_parts(given, inputs, call)
    return packaged(answer, found, HorizonSolution, throw=throw)
