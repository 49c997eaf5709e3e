"""The oracles agree with one another, where they were written independently."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from oracles import (
    FIELDS,
    Problem,
    centred,
    deterministic,
    dual_transport,
    entropic,
    entropic_bias,
    exact,
    exact_transport,
    forced_coupling,
    numerical_gradient,
    random_law,
    random_problem,
    random_rows,
    sinkhorn,
    stationary,
    unrolled,
    value_iteration,
)

SHAPES = [
    {},
    {"n": 3, "m": 5, "degrees": (2, None)},
    {"n": 5, "m": 3, "degrees": (3, 2), "zeros": 1},
]


@pytest.mark.parametrize("zeros", [0, 2])
@pytest.mark.parametrize("epsilon", [0.02, 0.3, 5.0])
def test_sinkhorn_and_the_trust_region_agree(epsilon: float, zeros: int) -> None:
    rng = np.random.default_rng(1)
    a, b, cost = random_law(rng, 5, zeros), random_law(rng, 4, zeros), rng.uniform(0, 1, (5, 4))
    one, two = sinkhorn(a, b, cost, epsilon), dual_transport(a, b, cost, epsilon)
    np.testing.assert_allclose(one.value, two.value, rtol=1e-12)
    np.testing.assert_allclose(one.plan, two.plan, atol=1e-12)
    np.testing.assert_allclose(one.f - one.f.mean(), two.f - two.f.mean(), atol=1e-11)
    np.testing.assert_allclose(one.plan.sum(1), a, atol=1e-12)
    np.testing.assert_allclose(one.plan.sum(0), b, atol=1e-12)
    np.testing.assert_allclose(one.value, (one.plan * cost).sum() + epsilon * one.kl, rtol=1e-12)


def test_one_transport_tends_to_the_linear_programme() -> None:
    rng = np.random.default_rng(2)
    a, b, cost = random_law(rng, 5), random_law(rng, 4), rng.uniform(0, 1, (5, 4))
    exact_value = exact_transport(a, b, cost)
    gaps = [float(dual_transport(a, b, cost, epsilon).value) - exact_value for epsilon in (1e-1, 1e-2, 1e-3, 1e-4)]
    assert all(0 <= gap <= epsilon * np.log(4) for gap, epsilon in zip(gaps, (1e-1, 1e-2, 1e-3, 1e-4), strict=True))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("delta", "epsilon"), [(0.1, 0.1), (0.5, 0.03), (1.0, 0.3), (0.3, 10.0)])
def test_newton_value_iteration_and_the_dual_agree(shape: dict, delta: float, epsilon: float) -> None:
    problem = random_problem(3, **shape, delta=delta, epsilon=epsilon)
    answer = entropic(problem)
    np.testing.assert_allclose(answer.cost_to_go, value_iteration(problem).cost_to_go, atol=2e-12)
    np.testing.assert_allclose(answer.cost_to_go, entropic(problem, "dual").cost_to_go, atol=2e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_entropic_distance_tends_to_the_linear_programme(shape: dict) -> None:
    problem = random_problem(4, **shape)
    least = exact(problem)
    for epsilon in (1e-1, 1e-2, 1e-3, 1e-4):
        small = replace(problem, epsilon=epsilon)
        assert -1e-12 <= entropic(small, "dual").value - least <= entropic_bias(small)


def test_exact_distance_of_a_chain_to_itself_is_zero() -> None:
    problem = random_problem(5, 4, 4)
    same = replace(problem, B=problem.A, mu=problem.nu, D=1 - np.eye(4))
    np.testing.assert_allclose(exact(same), 0.0, atol=1e-12)


def test_closed_forms() -> None:
    one = random_problem(6, 1, 4)
    np.testing.assert_allclose(entropic(one).value, forced_coupling(one), rtol=1e-12)
    np.testing.assert_allclose(exact(one), forced_coupling(one), rtol=1e-10)

    rng = np.random.default_rng(7)
    moves = replace(random_problem(7, 4, 3), A=np.eye(4)[rng.permutation(4)], B=np.eye(3)[rng.integers(0, 3, 3)])
    np.testing.assert_allclose(entropic(moves).cost_to_go, deterministic(moves), rtol=1e-12)
    np.testing.assert_allclose(exact(replace(moves, nu=np.eye(4)[1], mu=np.eye(3)[2])), deterministic(moves)[1, 2])

    now = replace(random_problem(8), delta=1.0)
    np.testing.assert_allclose(entropic(now).value, sinkhorn(now.nu, now.mu, now.D, now.epsilon).value, rtol=1e-12)
    np.testing.assert_allclose(exact(now), exact_transport(now.nu, now.mu, now.D), rtol=1e-10)


def test_stationary_law_is_kept_by_the_chain() -> None:
    rows = random_rows(np.random.default_rng(9), 6, 2)
    np.testing.assert_allclose(stationary(rows) @ rows, stationary(rows), atol=1e-14)


@pytest.mark.parametrize("shape", SHAPES)
def test_unrolled_loop_has_the_value_and_the_differences(shape: dict) -> None:
    problem = random_problem(10, **shape)
    inputs = {name: value.requires_grad_() for name, value in problem.tensors().items()}
    value = unrolled(**inputs)
    np.testing.assert_allclose(value.item(), entropic(problem).value, rtol=1e-12)
    value.backward()
    rng = np.random.default_rng(11)
    for name in FIELDS:
        x = np.asarray(getattr(problem, name))
        direction = rng.normal(size=x.shape)
        if name in ("A", "B", "nu", "mu"):
            # Along the simplex, on the support.
            direction = centred(direction, x > 0).numpy()
        found = numerical_gradient(lambda y, name=name: _value(problem, name, y), x, direction, 3e-4)
        np.testing.assert_allclose((inputs[name].grad.numpy() * direction).sum(), found, rtol=1e-7, atol=1e-10)


def test_unrolled_loop_has_the_one_sided_derivative_off_the_support() -> None:
    problem = random_problem(12, 4, 3, degrees=(2, 2))
    inputs = {name: value.requires_grad_() for name, value in problem.tensors().items()}
    unrolled(**inputs).backward()
    rng = np.random.default_rng(13)
    direction = np.where(problem.A > 0, -0.3 * problem.A, rng.uniform(0, 0.15, problem.A.shape))
    direction -= np.where(problem.A > 0, direction.sum(1, keepdims=True) / 2, 0.0)
    found = numerical_gradient(lambda y: _value(problem, "A", y), problem.A, direction, 1e-3, one_sided=True)
    np.testing.assert_allclose((inputs["A"].grad.numpy() * direction).sum(), found, rtol=1e-6)


def test_centred_rows_sum_to_zero_on_the_mask() -> None:
    rows, mask = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), torch.eye(3, 4) == 0
    result = centred(rows, mask)
    torch.testing.assert_close(result.sum(-1), torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(result[~mask], torch.zeros(3, dtype=torch.float64))
    kept = torch.where(mask, rows.double() - result, 0.0).sum(-1) / mask.sum(-1)
    torch.testing.assert_close(kept, (rows * mask).double().sum(-1) / mask.sum(-1))


def _value(problem: Problem, name: str, x: np.ndarray) -> float:
    return entropic(replace(problem, **{name: x if x.ndim else float(x)})).value
