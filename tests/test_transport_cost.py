"""One entropic transport problem: value, bound, plan, potentials and gradients."""

import numpy as np
import pytest
import torch

import markovot
from markovot import SolveError, Status
from oracles import Array, centred, dual_transport, exact_transport, random_law, sinkhorn


def problem(seed: int, n: int = 4, m: int = 5, zeros: int = 0) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(seed)
    return random_law(rng, n, zeros), random_law(rng, m, zeros), rng.uniform(0, 1, (n, m))


def solve(a: Array, b: Array, cost: Array, epsilon: float) -> markovot.Solution:
    return markovot.transport_cost(torch.tensor(a), torch.tensor(b), torch.tensor(cost), epsilon=epsilon)


@pytest.mark.parametrize("epsilon", [1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0])
@pytest.mark.parametrize(("n", "m", "zeros"), [(4, 5, 0), (1, 3, 0), (1, 1, 0), (6, 6, 2), (12, 30, 0), (40, 3, 1)])
def test_value_is_within_its_bound(n: int, m: int, zeros: int, epsilon: float) -> None:
    a, b, cost = problem(1, n, m, zeros)
    found, truth = solve(a, b, cost, epsilon), dual_transport(a, b, cost, epsilon)
    assert found.status is Status.CONVERGED
    assert abs(found.value.item() - float(truth.value)) <= found.error_bound.item() + 1e-13
    assert found.error_bound.item() <= 1e-4 * (np.ptp(cost) or 1.0)


@pytest.mark.parametrize("epsilon", [0.02, 0.3])
def test_plan_and_potentials(epsilon: float) -> None:
    a, b, cost = problem(2, zeros=1)
    found, truth = solve(a, b, cost, epsilon), sinkhorn(a, b, cost, epsilon)
    np.testing.assert_allclose(found.plan, truth.plan, atol=1e-4)
    np.testing.assert_allclose(found.plan.sum(), 1.0, rtol=1e-12)
    np.testing.assert_allclose(found.plan.sum(1), a, atol=1e-5)
    np.testing.assert_allclose(found.plan.sum(0), b, atol=1e-5)
    f, g = found.potentials
    assert f.shape == (4,)
    assert g.shape == (5,)
    value = (f * torch.tensor(a)).sum() + (g * torch.tensor(b)).sum()
    assert abs(value.item() - float(truth.value)) <= 2 * found.error_bound.item() + 1e-13


def test_tiny_epsilon_is_close_to_the_linear_programme() -> None:
    a, b, cost = problem(3)
    gap = solve(a, b, cost, 1e-4).value.item() - exact_transport(a, b, cost)
    assert -1e-4 <= gap <= 1e-4 * np.log(4) + 1e-4


def test_batches_broadcast() -> None:
    parts = [problem(seed) for seed in (4, 5, 6)]
    a = torch.stack([torch.tensor(part[0]) for part in parts])[:, None]
    b = torch.stack([torch.tensor(part[1]) for part in parts[:2]])
    cost, epsilon = torch.tensor(parts[0][2]), torch.tensor([[0.05], [0.2], [1.0]]).double()
    found = markovot.transport_cost(a, b, cost, epsilon=epsilon)
    assert found.value.shape == found.error_bound.shape == np.shape(found.status) == (3, 2)
    assert found.plan.shape == (3, 2, 4, 5)
    for i in range(3):
        for j in range(2):
            truth = sinkhorn(parts[i][0], parts[j][1], parts[0][2], epsilon[i, 0].item()).value
            assert abs(found.value[i, j].item() - float(truth)) <= found.error_bound[i, j].item() + 1e-13


def test_gradients() -> None:
    a, b, cost = problem(7, zeros=1)
    truth = sinkhorn(a, b, cost, 0.1)
    leaves = [torch.tensor(x, requires_grad=True) for x in (a, b, cost, np.array(0.1))]
    found = markovot.transport_cost(*leaves[:3], epsilon=leaves[3])
    (3 * found.value).backward()
    expected = [centred(truth.f), centred(truth.g), truth.plan, truth.kl]
    for leaf, grad, flat in zip(leaves, expected, (True, True, False, False), strict=True):
        got = centred(leaf.grad) if flat else leaf.grad
        np.testing.assert_allclose(got, 3 * np.asarray(grad), atol=1e-3)


def test_epsilon_is_not_moved_by_another_item() -> None:
    parts = [problem(seed, 6, 6) for seed in (8, 9)]
    stacked = [torch.stack([torch.tensor(part[k]) for part in parts]) for k in range(3)]
    found = markovot.transport_cost(*stacked, epsilon=torch.tensor([1e-4, 5.0]).double())
    for k, epsilon in enumerate([1e-4, 5.0]):
        truth = float(dual_transport(*parts[k], epsilon).value)
        assert abs(found.value[k].item() - truth) <= found.error_bound[k].item() + 1e-13


def test_second_order_request_is_refused() -> None:
    a, b, cost = (torch.tensor(x) for x in problem(10))
    value = markovot.transport_cost(a, b, cost.requires_grad_(), epsilon=0.1).value
    with pytest.raises(NotImplementedError, match="second-order"):
        torch.autograd.grad(value, cost, create_graph=True)


def test_single_precision() -> None:
    a, b, cost = (torch.tensor(x).float() for x in problem(11))
    found = markovot.transport_cost(a, b, cost, epsilon=0.1)
    assert found.value.dtype == found.plan.dtype == torch.float32
    a, b = (law.double() / law.double().sum() for law in (a, b))
    truth = float(sinkhorn(a.numpy(), b.numpy(), cost.double().numpy(), 0.1).value)
    assert abs(found.value.item() - truth) <= found.error_bound.item() + 1e-6


@pytest.mark.parametrize("n", [5, 120])
def test_newton_steps_end_where_the_caller_says(n: int) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (weights / weights.sum() for weights in torch.rand(2, n, dtype=torch.float64, generator=generator))
    cost = torch.rand(n, n, dtype=torch.float64, generator=generator)
    setting = {"epsilon": 1e-3, "rtol": 1e-8}
    best = markovot.transport_cost(a, b, cost, **setting)
    assert int(best.num_iter) > 3
    found = markovot.transport_cost(a, b, cost, **setting, max_iter=3, throw=False)
    assert found.status is Status.MAX_ITER_REACHED
    assert int(found.num_iter) == 3
    assert not abs(float(found) - float(best)) > float(found.error_bound + best.error_bound)
    with pytest.raises(SolveError, match=r"did not converge: after 3 iterations.*Raise `max_iter`"):
        markovot.transport_cost(a, b, cost, **setting, max_iter=3)
    exact = markovot.transport_cost(a, b, cost, epsilon=0.0, max_iter=1)
    assert exact.status is Status.CONVERGED
