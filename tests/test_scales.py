"""Costs of any size, and what no distance can leave: the range of its ground costs."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

import markovot
from markovot import MarkovChain, costs
from markovot.pairwise import distance_matrix
from markovot.transport.units import LARGEST_EPSILON

SCALES = [5e-324 * 2**40, 1e-300, 1e-160, 1e160, 1e300]


def laws(*shape: int, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    weights = torch.rand(*shape, dtype=torch.float64, generator=random)
    return weights / weights.sum(-1, keepdim=True)


A, B = laws(4, 4, seed=0), laws(3, 3, seed=1)
D = torch.rand(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
OWN = (D[:, :1] - D[:, :1].T).abs()  # costs of the first chain's states among themselves


def discounted(x: Any, y: Any, cost: Tensor, epsilon: float) -> Any:
    return markovot.discounted_wl(x, y, cost, delta=0.2, epsilon=epsilon)


def truncated(x: Any, y: Any, cost: Tensor, epsilon: float) -> Any:
    return markovot.discounted_wl(x, y, cost, delta=0.2, epsilon=epsilon, depth=3)


def average(x: Any, y: Any, cost: Tensor, epsilon: float) -> Any:
    return markovot.optimal_transition_coupling(x, y, cost, epsilon=epsilon)


def transport(x: Tensor, y: Tensor, cost: Tensor, epsilon: float) -> Any:
    return markovot.transport_cost(x[0], y[0], cost, epsilon=epsilon)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "discounted": discounted, "truncated": truncated, "average": average, "transport": transport,
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("epsilon", [0.0, 0.02])
def test_distances_and_gradients_scale_with_the_cost(name, epsilon):
    def solve(scale: float) -> tuple[float, float, Tensor, Tensor]:
        x, cost = A.clone().requires_grad_(), (scale * D).requires_grad_()
        found = FUNCTIONS[name](x, B, cost, scale * epsilon)
        found.value.backward()
        return float(found.value.detach()) / scale, float(found.error_bound) / scale, cost.grad, x.grad / scale

    value, bound, by_cost, by_rows = solve(1.0)
    for scale in SCALES:
        scaled_value, scaled_bound, scaled_by_cost, scaled_by_rows = solve(scale)
        assert abs(scaled_value - value) <= bound + scaled_bound + 1e-10, scale
        assert scaled_bound <= 1e-4, scale
        torch.testing.assert_close(scaled_by_cost, by_cost, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(scaled_by_rows, by_rows, rtol=1e-4, atol=1e-6)


def test_matrices_scale_with_the_cost():
    points = [[0.0, 0.3, 1.0, 0.6], [0.9, 0.1, 0.4]]
    for epsilon in (0.0, 0.02):
        found = {}
        for scale in (1.0, *SCALES[1:]):
            chains = [
                MarkovChain.from_transitions(rows, features=scale * torch.tensor(own, dtype=torch.float64))
                for rows, own in zip((A, B), points, strict=True)
            ]
            setting = {"cost": costs.AbsoluteDifference(), "delta": 0.2, "epsilon": scale * epsilon, "progress": False}
            found[scale] = distance_matrix(chains, **setting).value / scale
        for values in found.values():
            torch.testing.assert_close(torch.from_numpy(values), torch.from_numpy(found[1.0]), rtol=1e-4, atol=1e-6)


def test_bisimulation_scales_with_the_rewards():
    reward = torch.tensor([[0.0, 1.0], [0.5, 0.2], [1.0, 0.0]], dtype=torch.float64)
    walks = torch.stack([laws(3, 3, seed=3), laws(3, 3, seed=4)])
    plain = markovot.bisimulation(markovot.DecisionProcess(walks, reward), gamma=0.9)
    for scale in SCALES[1:]:
        scaled = markovot.bisimulation(markovot.DecisionProcess(walks, scale * reward), gamma=0.9)
        torch.testing.assert_close(scaled.value / scale, plain.value, rtol=0, atol=3e-6)
        assert scaled.error_bound / scale <= 1e-6


@pytest.mark.parametrize("name", ["discounted", "truncated", "transport"])
def test_an_epsilon_far_above_the_costs_leaves_the_independent_coupling(name):
    exact = {"discounted": independent_value(), "transport": float(A[0] @ D @ B[0])}
    for ratio in (1e6, 10 * LARGEST_EPSILON, 1e30, 1e298):
        found = FUNCTIONS[name](A, B, 1e-10 * D, 1e-10 * ratio)
        assert found.error_bound <= 1e-14, ratio
        if name in exact:
            # the value at a finite epsilon is below it, by no more than Hoeffding's lemma says
            below = 1e-10 * exact[name] - float(found.value)
            assert -float(found.error_bound) <= below <= float(found.error_bound) + 1e-10 / (0.2 * 8 * ratio), ratio


def independent_value() -> float:
    """The discounted cost of two chains that move independently, from stationary laws."""
    identity = torch.eye(12, dtype=torch.float64)
    cost = torch.linalg.solve(identity - 0.8 * torch.kron(A, B), 0.2 * D.flatten()).view(4, 3)
    return float(markovot.stationary_distribution(A) @ cost @ markovot.stationary_distribution(B))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_constant_cost_is_the_distance_exactly(name):
    for constant in (0.0, 0.3, 1e-300, 7e200):
        for epsilon in (0.0, 0.1, 1e30):
            found = FUNCTIONS[name](A, B, torch.full((4, 3), constant, dtype=torch.float64), epsilon)
            assert (found.value, found.error_bound) == (constant, 0.0), (constant, epsilon)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_chain_is_at_distance_zero_from_itself(name):
    for other in (A, A.clone()):
        found = FUNCTIONS[name](A, other, OWN, 0.0)
        assert (found.value, found.error_bound) == (0.0, 0.0)
    assert FUNCTIONS[name](A, A.flip(0), OWN, 0.0).value > 0.01
    assert FUNCTIONS[name](A, A, OWN + 0.5 * torch.eye(4), 0.0).value > 0.01  # states are not at zero from themselves


def test_in_a_batch_only_the_items_that_meet_themselves_are_zero():
    chains = MarkovChain.from_transitions(torch.stack([A, A.flip(0), A.roll(1, 0)]), initial="uniform")
    columns = MarkovChain(chains.transition[:, None], initial="uniform")
    found = markovot.discounted_wl(columns, chains, OWN, delta=0.3, epsilon=0.0)
    assert torch.equal(found.value == 0, torch.eye(3, dtype=torch.bool))
    assert torch.equal(found.error_bound == 0, torch.eye(3, dtype=torch.bool))


def test_the_diagonal_of_an_exact_matrix_is_zero():
    random = torch.Generator().manual_seed(8)
    chains = []
    for n in (3, 7, 40, 5):
        rows = torch.rand(n, n, dtype=torch.float64, generator=random)
        features = torch.randint(3, (n,), generator=random)
        chains.append(MarkovChain.from_transitions(rows / rows.sum(1, keepdim=True), features=features))
    found = distance_matrix(chains, cost=costs.ZeroOne(), delta=0.2, epsilon=0.0, progress=False)
    assert (found.value.diagonal() == 0).all()
    assert (found.error_bound.diagonal() == 0).all()
    assert (found.value >= 0).all()


def test_no_distance_leaves_the_range_of_its_costs():
    """Chains that agree but for a little, where a certified interval reaches beyond zero."""
    for seed in range(20):
        x, y = laws(3, 3, seed=seed), laws(3, 3, seed=seed)
        y[0] += 1e-7 * torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64)
        cost = 1.0 - torch.eye(3, dtype=torch.float64)
        for name, solve in FUNCTIONS.items():
            for low in (0.0, -0.5, 0.25):
                found = solve(x, y, low + cost, 0.0)
                assert found.value >= low, (name, seed)
                assert found.value <= low + 1.0, (name, seed)
                if hasattr(found, "cost_to_go"):
                    assert found.cost_to_go.min() >= low, (name, seed)
                    assert (found.cost_to_go_error >= 0).all(), (name, seed)


def test_the_error_of_costs_to_go_holds_for_all_of_them():
    coarse, fine = (
        markovot.discounted_wl(A, B, D, delta=0.1, epsilon=0.05, rtol=rtol)
        for rtol in (1e-2, 1e-11)
    )
    worst = float((coarse.cost_to_go - fine.cost_to_go).abs().max())
    assert worst <= coarse.cost_to_go_error + fine.cost_to_go_error
    levels = [
        markovot.wl(A, B, D, depth=4, epsilon=0.05, rtol=rtol)
        for rtol in (1e-2, 1e-11)
    ]
    worst = float((levels[0].cost_to_go - levels[1].cost_to_go).abs().max())
    assert worst <= levels[0].cost_to_go_error + levels[1].cost_to_go_error


def test_asking_for_more_never_gives_less():
    problems = []
    for seed in range(6):
        random = torch.Generator().manual_seed(seed)
        n, m = torch.randint(4, 21, (2,), generator=random).tolist()
        cost = torch.rand(n, m, dtype=torch.float64, generator=random)
        problems.append((laws(n, seed=seed), laws(m, seed=seed + 50), cost))
    for a, b, cost in problems:
        for epsilon in (1e-7, 1e-8, 1e-9, 1e-10):
            bounds = [
                float(markovot.transport_cost(a, b, cost, epsilon=epsilon, rtol=rtol, throw=False).error_bound)
                for rtol in (1e-3, 1e-5, 1e-7, 1e-9, 1e-12)
            ]
            # but for the last bits: ends of nested intervals are rounded
            assert all(later <= (1 + 1e-9) * earlier for earlier, later in pairwise(bounds)), bounds
            assert math.isfinite(bounds[-1])
