"""The enclosure of the fixed point, at any cost and however roughly the local problems are solved."""

from itertools import product

import numpy as np
import pytest
import torch

from markovot.solving.bellman import Bellman, Enclosure
from markovot.solving.fixed_point import iterate
from markovot.transport.compiled.entropic import CompiledEngine
from markovot.transport.gather import GatherEngine
from markovot.transport.shared_kernel import SharedKernelEngine
from oracles import Array, Problem, entropic, random_problem
from solving import DENSE, MIXED, SPARSE, chain

ENGINES = (CompiledEngine, GatherEngine, SharedKernelEngine)
every_engine = pytest.mark.parametrize("engine", ENGINES)
every_layout = pytest.mark.parametrize("layouts", [DENSE, SPARSE, MIXED])
both_deltas = pytest.mark.parametrize("delta", [0.05, 0.95])


def a_problem(layouts: tuple[str, str], delta: float) -> Problem:
    degrees = tuple(None if layout == "dense" else 3 for layout in layouts)
    return random_problem(1, 5, 4, degrees=degrees, delta=delta, epsilon=0.03)


def bellman(problem: Problem, layouts: tuple[str, str], engine: type) -> Bellman:
    x = chain(torch.tensor(problem.A), "uniform", layouts[0])
    y = chain(torch.tensor(problem.B), "uniform", layouts[1])
    item, one = torch.zeros(1, dtype=torch.int64), torch.ones(1, dtype=torch.float64)
    local = engine(x.rows(), y.rows(), item, item, problem.epsilon * one)
    return Bellman(local, torch.tensor(problem.D)[None], problem.delta * one, None)


def assert_holds(found: Enclosure, truth: Array) -> None:
    low = (found.base + found.low[:, None, None])[0].numpy()
    high = (found.base + found.high[:, None, None])[0].numpy()
    assert (low <= truth + 1e-12).all()
    assert (truth <= high + 1e-12).all()


@both_deltas
@every_layout
@every_engine
def test_enclosure_holds_the_fixed_point(engine: type, layouts: tuple[str, str], delta: float) -> None:
    problem = a_problem(layouts, delta)
    truth = entropic(problem).cost_to_go
    far = truth + np.random.default_rng(2).normal(size=truth.shape)
    active = torch.ones(1, dtype=torch.bool)
    for gap in (10.0, 1e-1, 1e-3, 1e-12):
        gaps = torch.tensor([gap], dtype=torch.float64)
        for start in (far, np.zeros_like(truth)):
            assert_holds(bellman(problem, layouts, engine).enclose(torch.tensor(start)[None], gaps, active), truth)
        # At C* itself the residual is nothing but the error of the local problems.
        found = bellman(problem, layouts, engine).enclose(torch.tensor(truth)[None], gaps, active)
        assert_holds(found, truth)
        assert found.radius.item() <= gap / delta + 1e-10


@both_deltas
@every_layout
@every_engine
def test_a_loop_that_stops_early_holds_it_too(engine: type, layouts: tuple[str, str], delta: float) -> None:
    problem = a_problem(layouts, delta)
    truth = entropic(problem).cost_to_go
    starts = (torch.tensor(truth)[None], torch.zeros(1, 5, 4, dtype=torch.float64), None)
    for start, tolerance, max_iter in product(starts, (10.0, 0.3, 1e-3), (1, 2)):
        found = iterate(
            bellman(problem, layouts, engine),
            torch.tensor([tolerance], dtype=torch.float64),
            max_iter,
            start,
            polish=False,
        )
        assert_holds(found.enclosure, truth)
        assert found.num_iter.item() <= max_iter
