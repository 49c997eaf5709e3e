"""The value, the cost to go and their certificate, against answers that were found without the package."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import markovot
from markovot import MarkovChain, Status
from markovot.transport import engines
from oracles import (
    Problem,
    deterministic,
    entropic,
    entropic_bias,
    exact,
    forced_coupling,
    random_problem,
    sinkhorn,
    stationary,
)
from solving import DENSE, MIXED, SPARSE, chain, cost_range, csr, solve, solve_tensors, value_iteration

SHAPES = {
    "dense": ({"n": 4, "m": 3}, DENSE),
    "sparse": ({"n": 6, "m": 5, "degrees": (2, 3)}, SPARSE),
    "mixed": ({"n": 3, "m": 6, "degrees": (None, 2)}, MIXED),
    "mixed the other way": ({"n": 6, "m": 3, "degrees": (2, None)}, ("sparse", "dense")),
    "zeros in a dense tensor": ({"n": 5, "m": 5, "degrees": (2, 4), "zeros": 1}, DENSE),
    "one state": ({"n": 1, "m": 4}, DENSE),
    "one and one": ({"n": 1, "m": 1}, SPARSE),
    "degree one": ({"n": 4, "m": 4, "degrees": (1, 2)}, SPARSE),
}
# What the oracles themselves may be wrong by, for costs in [0, 1].
ORACLE = 1e-12


def assert_certified(problem: Problem, found: markovot.Solution, rtol: float, truth: float) -> None:
    """The true error is within the stated bound, and the stated bound within the request."""
    assert found.status is Status.CONVERGED
    bound = found.error_bound.item()
    assert abs(found.value.item() - truth) <= bound + ORACLE, f"{found.value.item()} is not {truth} +- {bound}"
    assert 0 <= bound <= rtol * cost_range(problem)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(("delta", "epsilon"), [(0.1, 0.05), (0.5, 0.02), (0.9, 1.0)])
def test_error_is_within_the_bound_and_the_bound_within_rtol(name: str, delta: float, epsilon: float) -> None:
    shape, layouts = SHAPES[name]
    problem = random_problem(1, **shape, delta=delta, epsilon=epsilon)
    truth = entropic(problem)
    for rtol in (1e-2, 1e-4, 1e-7, 1e-10):
        found = solve(problem, layouts, rtol=rtol)
        assert_certified(problem, found, rtol, truth.value)
        # The bound is for the distance; each entry of the cost to go is known about as well.
        np.testing.assert_allclose(found.cost_to_go, truth.cost_to_go, atol=4 * rtol * cost_range(problem) + ORACLE)
        assert found.value.dtype == torch.float64
        assert found.value.shape == ()


@pytest.mark.parametrize("name", ["dense", "sparse", "mixed"])
def test_newton_and_repeated_sweeps_find_the_same(name: str) -> None:
    shape, layouts = SHAPES[name]
    problem = random_problem(2, **shape, delta=0.4, epsilon=0.05)
    found = solve(problem, layouts, rtol=1e-9)
    with value_iteration():
        slow = solve(problem, layouts, rtol=1e-9, max_iter=200)
    assert int(slow.num_iter) > int(found.num_iter)
    for each in (found, slow):
        assert_certified(problem, each, 1e-9, entropic(problem).value)


@pytest.mark.parametrize("delta", [0.01, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("epsilon", [1e-4, 1e-3, 1e-2, 1.0, 10.0])
@pytest.mark.parametrize("layouts", [DENSE, SPARSE, MIXED])
def test_extremes_of_epsilon_and_delta(layouts: tuple[str, str], epsilon: float, delta: float) -> None:
    degrees = tuple(None if layout == "dense" else 2 for layout in layouts)
    problem = random_problem(3, 3, 4, degrees=degrees, delta=delta, epsilon=epsilon)
    problem = replace(problem, epsilon=epsilon * cost_range(problem))
    # Below a hundredth of the range Sinkhorn needs too many steps: there the oracle is the trust region.
    truth = entropic(problem, "sinkhorn" if epsilon > 0.01 else "dual").value
    assert_certified(problem, solve(problem, layouts, rtol=1e-4), 1e-4, truth)
    assert_certified(problem, solve(problem, layouts, rtol=1e-8), 1e-8, truth)


@pytest.mark.parametrize(("delta", "epsilon"), [(0.02, 0.05), (0.3, 0.02), (0.9, 3.0)])
@pytest.mark.parametrize("name", SHAPES)
def test_matrix_products_find_the_same(
    name: str, delta: float, epsilon: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The engine of large dense chains, made to solve small ones.
    monkeypatch.setattr(engines, "DENSE_DEGREE", 0)
    shape, layouts = SHAPES[name]
    problem = random_problem(26, **shape, delta=delta, epsilon=epsilon)
    truth = entropic(problem).value
    for rtol in (1e-4, 1e-10):
        assert_certified(problem, solve(problem, layouts, rtol=rtol), rtol, truth)


def test_larger_dense_chains() -> None:
    problem = random_problem(27, 42, 40, delta=0.5, epsilon=0.3)
    assert_certified(problem, solve(problem, rtol=1e-8), 1e-8, entropic(problem).value)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_units_of_the_cost_do_not_matter(scale: float) -> None:
    problem = random_problem(4, delta=0.2, epsilon=0.05)
    scaled = replace(problem, D=scale * problem.D, epsilon=scale * problem.epsilon)
    found = solve(scaled, rtol=1e-9)
    assert abs(found.value.item() / scale - entropic(problem).value) <= found.error_bound.item() / scale + ORACLE
    assert found.error_bound.item() <= 1e-9 * scale


@pytest.mark.parametrize("shift", [-3.0, 100.0])
def test_a_constant_in_the_cost_is_a_constant_in_the_distance(shift: float) -> None:
    problem = random_problem(5, delta=0.2, epsilon=0.05)
    found = solve(replace(problem, D=problem.D + shift), rtol=1e-9)
    assert abs(found.value.item() - shift - entropic(problem).value) <= found.error_bound.item() + 100 * ORACLE


@pytest.mark.parametrize("layouts", [DENSE, SPARSE, MIXED])
@pytest.mark.parametrize("constant", [0.0, 2.5, -1.0])
def test_constant_cost_is_its_own_distance(constant: float, layouts: tuple[str, str]) -> None:
    problem = replace(random_problem(6), D=np.full((4, 3), constant))
    found = solve(problem, layouts, rtol=1e-4)
    assert found.status is Status.CONVERGED
    assert found.error_bound.item() <= 1e-4  # relative to one, since the range is zero
    assert abs(found.value.item() - constant) <= found.error_bound.item()


@pytest.mark.parametrize("shape", [{"n": 5, "m": 4, "degrees": (2, 3)}, {"n": 4, "m": 4}])
def test_tiny_epsilon_lies_between_the_linear_programme_and_its_bias(shape: dict[str, object]) -> None:
    problem = random_problem(7, **shape, delta=0.1, epsilon=1e-4)
    found, least = solve(problem, SPARSE, rtol=1e-6), exact(problem)
    bound = found.error_bound.item()
    assert least - bound - ORACLE <= found.value.item() <= least + entropic_bias(problem) + bound


def test_closed_forms() -> None:
    one = random_problem(8, 1, 5, delta=0.05)
    assert_certified(one, solve(one), 1e-10, forced_coupling(one))

    rng = np.random.default_rng(9)
    moves = replace(
        random_problem(9, 5, 4, delta=0.05), A=np.eye(5)[rng.permutation(5)], B=np.eye(4)[rng.permutation(4)]
    )
    for layouts in (DENSE, SPARSE):
        np.testing.assert_allclose(solve(moves, layouts).cost_to_go, deterministic(moves), atol=4e-10)
    start = replace(moves, nu=np.eye(5)[2], mu=np.eye(4)[3])
    assert_certified(start, solve(start), 1e-10, deterministic(moves)[2, 3])

    now = replace(random_problem(10), delta=1.0)
    found = solve(now)
    assert_certified(now, found, 1e-10, float(sinkhorn(now.nu, now.mu, now.D, now.epsilon).value))
    np.testing.assert_allclose(found.cost_to_go, now.D, rtol=1e-12)


def test_default_initial_law_of_a_tensor_is_stationary() -> None:
    problem = random_problem(11)
    problem = replace(problem, nu=stationary(problem.A), mu=stationary(problem.B))
    inputs = problem.tensors()
    for convert in (torch.Tensor.clone, csr):
        found = markovot.discounted_wl(
            convert(inputs["A"]),
            convert(inputs["B"]),
            inputs["D"],
            delta=0.3,
            epsilon=0.1,
            rtol=1e-9,
        )
        assert_certified(problem, found, 1e-9, entropic(problem).value)


def test_default_tolerance_is_one_in_ten_thousand_of_the_range() -> None:
    problem = random_problem(12, delta=0.05, epsilon=0.01)
    inputs = problem.tensors()
    x, y = (MarkovChain.from_transitions(inputs[rows], initial=inputs[law]) for rows, law in (("A", "nu"), ("B", "mu")))
    assert_certified(
        problem,
        markovot.discounted_wl(x, y, inputs["D"], delta=0.05, epsilon=0.01),
        1e-4,
        entropic(problem).value,
    )


@pytest.mark.parametrize("layouts", [DENSE, SPARSE, MIXED])
def test_single_precision_in_and_out_with_an_honest_bound(layouts: tuple[str, str]) -> None:
    problem = random_problem(13, 5, 4, degrees=(3, 2), delta=0.1, epsilon=0.02)
    inputs = {name: value.float() for name, value in problem.tensors().items()}
    # The problem that single precision states, with sums of exactly one, not the one it was rounded from.
    stated = {name: inputs[name].double().numpy() for name in ("A", "B", "D", "nu", "mu")}
    laws = {name: stated[name] / stated[name].sum(-1, keepdims=True) for name in ("A", "B", "nu", "mu")}
    rounded = Problem(**(stated | laws), delta=0.1, epsilon=0.02)
    found = solve_tensors(inputs | {"delta": 0.1, "epsilon": 0.02}, layouts, rtol=1e-5)
    assert found.value.dtype == found.error_bound.dtype == found.cost_to_go.dtype == torch.float32
    assert abs(found.value.item() - entropic(rounded).value) <= found.error_bound.item()
    assert found.error_bound.item() <= 1e-5 * cost_range(problem) + 1e-6


@pytest.mark.parametrize("layouts", [DENSE, SPARSE, MIXED])
def test_batch_dimensions_broadcast(layouts: tuple[str, str]) -> None:
    problems = [random_problem(seed, 4, 3, degrees=(2, None), delta=0.2, epsilon=0.1) for seed in (20, 21, 22)]
    x = MarkovChain.stack([_chain(problem.A, problem.nu, layouts[0]) for problem in problems])
    y = _chain(problems[0].B, problems[0].mu, layouts[1])
    cost = torch.stack([torch.tensor(problem.D) for problem in problems[:2]])[:, None]
    found = markovot.discounted_wl(x, y, cost, delta=0.2, epsilon=0.1, rtol=1e-8)
    assert found.value.shape == found.error_bound.shape == (2, 3)
    assert found.cost_to_go.shape == (2, 3, 4, 3)
    assert np.shape(found.status) == (2, 3)
    for i in range(2):
        for j in range(3):
            alone = replace(problems[0], A=problems[j].A, nu=problems[j].nu, D=problems[i].D)
            assert abs(found.value[i, j].item() - entropic(alone).value) <= found.error_bound[i, j].item() + ORACLE


def test_delta_and_epsilon_may_be_batches() -> None:
    problem = random_problem(23)
    inputs = problem.tensors()
    delta, epsilon = (
        torch.tensor([[0.1], [0.7]], dtype=torch.float64),
        torch.tensor([0.05, 0.3, 2.0], dtype=torch.float64),
    )
    x, y = _chain(problem.A, problem.nu, "dense"), _chain(problem.B, problem.mu, "dense")
    found = markovot.discounted_wl(x, y, inputs["D"], delta=delta, epsilon=epsilon, rtol=1e-8)
    assert found.value.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            alone = replace(problem, delta=delta[i, 0].item(), epsilon=epsilon[j].item())
            assert abs(found.value[i, j].item() - entropic(alone).value) <= found.error_bound[i, j].item() + ORACLE


def test_starting_from_a_previous_solution_keeps_the_answer() -> None:
    problem = random_problem(24, delta=0.05, epsilon=0.02)
    first = solve(problem, rtol=1e-6)
    nearby = replace(problem, D=problem.D + 1e-3 * np.random.default_rng(0).uniform(size=problem.D.shape))
    cold, warm = solve(nearby, rtol=1e-6), solve(nearby, rtol=1e-6, init=first)
    assert_certified(nearby, warm, 1e-6, entropic(nearby).value)
    assert int(warm.num_iter) <= int(cold.num_iter)


def test_inputs_are_not_modified() -> None:
    inputs = random_problem(25).tensors()
    before = {name: value.clone() for name, value in inputs.items()}
    solve_tensors(inputs)
    for name, value in inputs.items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def _chain(rows: np.ndarray, law: np.ndarray, layout: str) -> MarkovChain:
    return chain(torch.tensor(rows), torch.tensor(law), layout)
