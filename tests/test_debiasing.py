"""The debiased distance: any of the family, less its self-distances, with gradients."""

import pytest
import torch

import markovot
from markovot import MarkovChain, SolveError, Status, costs, debiased, discounted_wl
from markovot.pairwise import distance_matrix

SETTING = {"delta": 0.3, "epsilon": 0.1, "rtol": 1e-10}


def chain(seed: int, n: int, **options) -> MarkovChain:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(n, n, generator=generator, dtype=torch.float64) + 0.05
    features = torch.rand(n, 2, generator=generator, dtype=torch.float64)
    return MarkovChain.from_adjacency(weights, **{"features": features, "initial": "uniform"} | options)


def test_half_of_each_self_distance_is_taken_off():
    x, y = chain(1, 4), chain(2, 5)
    pairs = [discounted_wl(a, b, costs.Euclidean(), **SETTING) for a, b in ((x, y), (x, x), (y, y))]
    found = debiased(discounted_wl, x, y, costs.Euclidean(), **SETTING)
    expected = pairs[0].value - 0.5 * (pairs[1].value + pairs[2].value)
    torch.testing.assert_close(found.value, expected, rtol=0, atol=1e-14)
    assert found.error_bound == pairs[0].error_bound + 0.5 * (pairs[1].error_bound + pairs[2].error_bound)
    assert found.status is Status.CONVERGED
    torch.testing.assert_close(found.alignment, pairs[0].alignment)
    assert found.value < pairs[0].value


def test_it_agrees_with_the_matrix_over_a_data_set():
    chains = [chain(seed, 3 + seed) for seed in range(3)]
    whole = distance_matrix(chains, cost=costs.Euclidean(), delta=0.3, epsilon=0.1, debiased=True, progress=False)
    for i in range(3):
        for j in range(3):
            alone = debiased(discounted_wl, chains[i], chains[j], costs.Euclidean(), **SETTING)
            assert abs(alone.value.item() - whole.value[i, j]) < 1e-3


def test_the_same_chain_is_at_zero():
    x = chain(1, 4)
    found = debiased(discounted_wl, x, x, costs.Euclidean(), **SETTING)
    assert found.value == found.error_bound == 0
    twin = chain(1, 4)
    assert abs(debiased(discounted_wl, x, twin, costs.Euclidean(), **SETTING).value.item()) < 1e-8


def test_gradients_pass_through_all_three():
    weights = torch.rand(4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64) + 0.1
    features = torch.rand(4, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    y = chain(2, 3)

    def value(weights, features):
        x = MarkovChain.from_adjacency(weights, features=features, initial="stationary")
        return debiased(discounted_wl, x, y, costs.SquaredEuclidean(), **SETTING).value

    assert torch.autograd.gradcheck(
        value, (weights.requires_grad_(), features.requires_grad_()), eps=1e-5, atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("distance", "settings"),
    [
        (markovot.wl, {"depth": 3, "epsilon": 0.1}),
        (markovot.horizon_wl, {"law": torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64), "epsilon": 0.1}),
        (markovot.discounted_wl, {"delta": 0.3, "depth": 2, "epsilon": 0.1}),
        (markovot.optimal_transition_coupling, {"epsilon": 0.1}),
    ],
)
def test_every_member_has_one(distance, settings):
    x, y = chain(1, 4), chain(2, 3)
    values = [distance(a, b, costs.Euclidean(), **settings).value for a, b in ((x, y), (x, x), (y, y))]
    found = debiased(distance, x, y, costs.Euclidean(), **settings)
    torch.testing.assert_close(found.value, values[0] - 0.5 * (values[1] + values[2]), rtol=0, atol=1e-12)


def test_three_matrices_serve_too():
    x, y = chain(1, 4), chain(2, 3)
    cost = costs.Euclidean()
    matrices = tuple(cost(a.features, b.features) for a, b in ((x, y), (x, x), (y, y)))
    torch.testing.assert_close(
        debiased(discounted_wl, x, y, matrices, **SETTING).value, debiased(discounted_wl, x, y, cost, **SETTING).value
    )


def test_batches():
    x = MarkovChain.stack([chain(1, 4), chain(2, 3)])
    y = MarkovChain.stack([chain(3, 3), chain(4, 4)])
    found = debiased(discounted_wl, x, y, costs.Euclidean(), **SETTING)
    assert found.value.shape == found.status.shape == (2,)
    alone = debiased(discounted_wl, chain(2, 3), chain(4, 4), costs.Euclidean(), **SETTING)
    torch.testing.assert_close(found.value[1], alone.value, rtol=0, atol=1e-9)


def test_the_worst_status_is_told():
    x, y = chain(1, 4), chain(2, 3)
    setting = {"delta": 0.3, "epsilon": 0.1, "rtol": 1e-9, "max_iter": 1}
    assert debiased(discounted_wl, x, y, costs.Euclidean(), throw=False, **setting).status is Status.MAX_ITER_REACHED
    with pytest.raises(SolveError):
        debiased(discounted_wl, x, y, costs.Euclidean(), **setting)


def test_what_does_not_serve_three_problems_is_refused():
    x, y = chain(1, 4), chain(2, 3)
    for cost in (torch.ones(4, 3).double(), costs.Given(torch.ones(4, 3).double())):
        with pytest.raises(TypeError, match=r"cost: one matrix tells the costs from x to y.*three matrices"):
            debiased(discounted_wl, x, y, cost, **SETTING)
    init = discounted_wl(x, y, costs.Euclidean(), **SETTING)
    with pytest.raises(ValueError, match="init: an earlier solution serves one problem, but three"):
        debiased(discounted_wl, x, y, costs.Euclidean(), init=init, **SETTING)
