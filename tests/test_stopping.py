"""When iterations end: the one rule, and its twin in compiled code, step by step."""

import math

import pytest
import torch
from torch import Tensor

from markovot import Status
from markovot.solving.bellman import Bellman
from markovot.solving.fixed_point import iterate
from markovot.solving.stopping import Stopping
from markovot.transport.compiled import kernel_engine
from markovot.transport.compiled.entropic import CompiledEngine
from markovot.transport.compiled.exact import ExactEngine
from markovot.transport.forcing import PATIENCE
from oracles import Problem, random_problem
from solving import DENSE, MIXED, SPARSE, chain


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def sweeps(stop: Stopping, *radii: Tensor) -> list[list[bool]]:
    """Which items go on after each sweep."""
    found = []
    for radius in radii:
        stop.update(radius)
        found.append(stop.active.tolist())
    return found


def test_an_item_ends_where_its_error_meets_its_own_tolerance():
    stop = Stopping(numbers(1.0, 0.1), 9)
    radii = numbers(2.0, 2.0), numbers(1.0, 0.2), numbers(1.0, 0.1)
    assert sweeps(stop, *radii) == [[True, True], [False, True], [False, False]]
    assert stop.num_iter.tolist() == [2, 3]
    assert stop.status(numbers(1.0, 0.1)) == [Status.CONVERGED] * 2


def test_with_polish_it_takes_one_step_more_unless_that_is_spared():
    radii = numbers(2.0, 2.0, 2.0), numbers(0.9, 1e-4, 2.0), numbers(0.8, 1e-4, 2.0)
    assert sweeps(Stopping(numbers(1.0, 1.0, 1.0), 9, polish=True), *radii)[1:] == [[True] * 3, [False, False, True]]
    spared = Stopping(numbers(1.0, 1.0, 1.0), 9, polish=True, spare=1e-3)
    assert sweeps(spared, *radii)[1:] == [[True, False, True], [False, False, True]]


def test_the_last_sweep_is_the_last():
    stop = Stopping(numbers(1e-9), 2)
    assert sweeps(stop, numbers(2.0), numbers(1.0)) == [[True], [False]]
    assert stop.status(numbers(1.0)) == [Status.MAX_ITER_REACHED]
    assert stop.status(numbers(math.inf)) == stop.status(numbers(math.nan)) == [Status.NOT_FINITE]


def test_an_error_that_stops_falling_ends_an_item_but_not_one_that_is_excused():
    stop, excused = (Stopping(numbers(1e-9), 99) for _ in range(2))
    for count in range(PATIENCE + 1):
        assert bool(stop.active) == (count <= PATIENCE)
        stop.update(numbers(0.5))
        excused.update(numbers(0.5))
        excused.excuse(torch.tensor([True]))
    assert not stop.active
    assert stop.num_iter.tolist() == [PATIENCE + 1]
    assert excused.active
    assert stop.status(numbers(0.5)) == [Status.STALLED]


def test_what_is_not_finite_ends_at_once():
    assert sweeps(Stopping(numbers(1.0, 1.0), 9), numbers(math.nan, 2.0)) == [[False, True]]


CASES = {
    "dense": (CompiledEngine, DENSE, 0.03),
    "sparse": (CompiledEngine, SPARSE, 0.01),
    "mixed": (CompiledEngine, MIXED, 0.3),
    "exact": (ExactEngine, SPARSE, 0.0),
}


def bellman(problem: Problem, layouts: tuple[str, str], engine: type) -> Bellman:
    sides = zip((problem.A, problem.B), layouts, strict=True)
    x, y = (chain(torch.tensor(rows), "uniform", layout) for rows, layout in sides)
    item, one = torch.zeros(1, dtype=torch.int64), torch.ones(1, dtype=torch.float64)
    local = engine(x.rows(), y.rows(), item, item, problem.epsilon * one)
    return Bellman(local, torch.tensor(problem.D)[None], problem.delta * one, None)


@pytest.mark.parametrize("polish", [False, True])
@pytest.mark.parametrize("delta", [0.05, 0.6])
@pytest.mark.parametrize("case", CASES)
def test_the_compiled_loop_takes_the_same_steps(
    case: str, delta: float, polish: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, layouts, epsilon = CASES[case]
    degrees = tuple(None if layout == "dense" else 3 for layout in layouts)
    problem = random_problem(4, 6, 5, degrees=degrees, delta=delta, epsilon=epsilon)
    tolerance, taken = numbers(1e-9), []
    for max_iter in range(1, 12):
        found = []
        for limit in (1 << 20, 0):
            monkeypatch.setattr(kernel_engine, "WHOLE_ENTRIES", limit)
            operator = bellman(problem, layouts, engine)
            assert operator.engine.solves_whole == (limit > 0)
            found.append(iterate(operator, tolerance, max_iter, None, polish=polish))
        compiled, stepped = found
        assert compiled.status == stepped.status
        assert compiled.num_iter.tolist() == stepped.num_iter.tolist()
        # Local problems and linear systems are solved to a share of the residual, so steps agree no better than that.
        radius = stepped.enclosure.radius
        torch.testing.assert_close(compiled.enclosure.radius, radius, rtol=0.1, atol=1e-9)
        torch.testing.assert_close(compiled.cost, stepped.cost, rtol=0, atol=float(0.1 * radius + 1e-9))
        taken.append(compiled.num_iter.item())
    assert taken[:2] == [1, 2]
    assert compiled.status == [Status.CONVERGED]
    assert taken[-1] == taken[-2] < 11
