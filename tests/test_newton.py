"""The batched entropic transport solver: certified, at every epsilon, whatever the marginals."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from torch.testing import assert_close

from markovot.transport.newton import plan, soft_transform, solve_transport


def problems(count, dx, dy, kind, seed):
    """Weights and costs in [0, 1]: random, uniform (degenerate), peaked (masses to 1e-12), tied costs."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    a, b = -random(count, dx).log(), -random(count, dy).log()
    if kind == "peaked":
        a, b = a**6, b**6
    if kind in ("uniform", "ties"):
        a, b = torch.ones_like(a), torch.ones_like(b)
    cost = random(count, dx, dy)
    if kind == "ties":
        cost = (3 * cost).floor() / 2
    return a / a.sum(dim=1, keepdim=True), b / b.sum(dim=1, keepdim=True), cost


def sinkhorn(a, b, cost, epsilon, steps=100_000):
    """The value of one problem, by log-domain Sinkhorn steps to a marginal error of 1e-13."""
    rows, columns = a > 0, b > 0
    a, b, cost = a[rows].numpy(), b[columns].numpy(), cost[rows][:, columns].numpy()
    g = np.zeros(len(b))
    for _ in range(steps):
        f = -epsilon * logsumexp(np.log(b) + (g - cost) / epsilon, axis=1)
        new = -epsilon * logsumexp(np.log(a)[:, None] + (f[:, None] - cost) / epsilon, axis=0)
        done = np.abs(b * np.expm1((g - new) / epsilon)).sum() < 1e-13
        g = new
        if done:
            break
    f = -epsilon * logsumexp(np.log(b) + (g - cost) / epsilon, axis=1)
    return a @ f + b @ g


def solve(a, b, cost, epsilon, gap=0.0, **options):
    return solve_transport(
        a, b, cost, torch.full((len(a),), epsilon, dtype=torch.float64),
        gap=torch.full((len(a),), gap, dtype=torch.float64), **options,
    )  # fmt: skip


def check(a, b, cost, epsilon, result, tolerance):
    """What every result must satisfy: the plan of (f, g) has the marginals, and the bounds are near."""
    density = (result.f.unsqueeze(2) + result.g.unsqueeze(1) - cost) / epsilon
    coupling = a.unsqueeze(2) * b.unsqueeze(1) * torch.exp(density)
    # Rounding of the potentials, of the size of the costs, is a relative error of the plan after exp.
    slack = 1e-13 + 1e-15 / epsilon
    assert_close(coupling.sum(dim=2), a, rtol=100 * slack, atol=slack)
    assert_close(coupling.sum(dim=1), b, rtol=0, atol=tolerance + 100 * slack)
    assert (result.lower <= result.upper).all()
    assert (result.upper - result.lower <= 2 * tolerance + 2e-14 * (1 + epsilon)).all()


@pytest.mark.parametrize("kind", ["random", "uniform", "peaked", "ties"])
@pytest.mark.parametrize(("dx", "dy"), [(1, 1), (3, 4), (8, 8), (20, 5), (30, 40)])
def test_converges_at_every_epsilon_from_cold(kind, dx, dy):
    a, b, cost = problems(20, dx, dy, kind, seed=dx + dy)
    for epsilon in (10.0, 1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5):
        result = solve(a, b, cost, epsilon)
        check(a, b, cost, epsilon, result, tolerance=2e-13 + 2e-15 / epsilon)
        assert (result.num_iter < 300).all()


@pytest.mark.parametrize("kind", ["random", "uniform", "peaked"])
@pytest.mark.parametrize("epsilon", [2.0, 0.3, 0.05])
def test_bounds_enclose_the_value_of_the_oracle(kind, epsilon):
    a, b, cost = problems(6, 4, 6, kind, seed=1)
    cost = 3 * cost - 1
    exact = torch.tensor([sinkhorn(*problem, epsilon) for problem in zip(a, b, cost, strict=True)])
    for gap in (1e-2, 1e-5, 0.0):
        result = solve(a, b, cost, epsilon, gap)
        assert (result.lower <= exact + 1e-13).all()
        assert (result.upper >= exact - 1e-13).all()
        assert (result.upper - result.lower <= max(gap, 2e-12)).all()


def test_an_unfinished_problem_is_still_enclosed():
    a, b, cost = problems(10, 6, 6, "random", seed=2)
    exact = solve(a, b, cost, 0.01)
    for max_iter in (1, 2, 5):
        early = solve(a, b, cost, 0.01, max_iter=max_iter)
        assert (early.num_iter == max_iter).all()
        assert (early.lower <= exact.upper).all()
        assert (early.upper >= exact.lower).all()
        assert (early.upper - early.lower > 1e-4).any()


@pytest.mark.parametrize(("dx", "dy"), [(4, 6), (6, 4)])
def test_zero_mass_takes_no_part(dx, dy):
    a, b, cost = problems(5, dx, dy, "random", seed=3)
    result = solve(a, b, cost, 0.05)
    wide_a = torch.cat([a[:, :2], torch.zeros(5, 1), a[:, 2:], torch.zeros(5, 2)], dim=1)
    wide_b = torch.cat([torch.zeros(5, 3), b], dim=1)
    wide = torch.full((5, dx + 3, dy + 3), 1e3, dtype=torch.float64)
    rows = [0, 1, *range(3, dx + 1)]
    wide[:, rows, 3:] = cost
    padded = solve(wide_a.double(), wide_b.double(), wide, 0.05)
    assert_close(padded.lower, result.lower, rtol=0, atol=1e-12)
    assert_close(padded.upper, result.upper, rtol=0, atol=1e-12)


def test_potentials_at_zero_mass_are_soft_transforms():
    a, b, cost = problems(3, 5, 4, "random", seed=4)
    a[:, 1], b[:, 2] = 0, 0
    a, b = a / a.sum(dim=1, keepdim=True), b / b.sum(dim=1, keepdim=True)
    epsilon = torch.full((3,), 0.1, dtype=torch.float64)
    result = solve(a, b, cost, 0.1)
    assert_close(result.f, soft_transform(b.log(), result.g, cost, epsilon), rtol=0, atol=1e-12)
    assert_close(result.g, soft_transform(a.log(), result.f, cost.mT, epsilon), rtol=0, atol=1e-11)


def test_special_problems_have_their_closed_forms():
    one = torch.ones(1, 1, dtype=torch.float64)
    b = torch.tensor([[0.25, 0.0, 0.75]], dtype=torch.float64)
    cost = torch.tensor([[[1.0, -9.0, 3.0]]], dtype=torch.float64)
    assert_close(solve(one, b, cost, 0.1).lower.item(), 2.5)  # a Dirac: the only coupling
    assert_close(solve(b, one, cost.mT, 0.1).upper.item(), 2.5)
    a, b, _ = problems(1, 3, 4, "random", seed=5)
    constant = torch.full((1, 3, 4), 7.0, dtype=torch.float64)
    for epsilon in (1e-6, 1.0, 1e3):
        assert_close(solve(a, b, constant, epsilon).lower.item(), 7.0)
    # Two states each, costs 0 on the diagonal and 1 off it, epsilon tiny: total variation.
    a = torch.tensor([[0.3, 0.7]], dtype=torch.float64)
    half = torch.full((1, 2), 0.5, dtype=torch.float64)
    assert_close(solve(a, half, 1 - torch.eye(2, dtype=torch.float64)[None], 1e-7).upper.item(), 0.2, rtol=0, atol=1e-6)


def test_large_costs_lose_only_what_rounding_takes():
    a, b, cost = problems(5, 4, 4, "random", seed=6)
    near, far = solve(a, b, cost, 0.02), solve(a, b, cost + 1e6, 0.02)
    assert_close(far.lower - 1e6, near.lower, rtol=0, atol=1e-8)
    assert (far.lower <= near.upper + 1e6).all()
    assert (far.upper >= near.lower + 1e6).all()


def test_problems_without_mass_are_zero():
    a, b, cost = problems(2, 3, 3, "random", seed=7)
    a[0] = 0
    result = solve(a, b, cost, 0.1)
    assert result.lower[0] == result.upper[0] == 0
    assert torch.isfinite(result.f).all()
    assert result.lower[1] > 0


@pytest.mark.parametrize("epsilon", [0.1, 1e-2, 1e-3])
def test_warm_start_saves_steps_and_changes_nothing(epsilon):
    a, b, cost = problems(50, 6, 5, "random", seed=8)
    cold = solve(a, b, cost, epsilon, 1e-9)
    moved = cost + 1e-3 * torch.rand(cost.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    fresh = solve(a, b, moved, epsilon, 1e-9)
    warm = solve(a, b, moved, epsilon, 1e-9, init=cold.g)
    assert warm.num_iter.double().mean() < 0.8 * fresh.num_iter.double().mean()
    assert_close(warm.lower, fresh.lower, rtol=0, atol=2e-9)


@pytest.mark.parametrize("change", [None, 1.0])
def test_a_misleading_warm_start_does_no_harm(change):
    a, b, cost = problems(50, 6, 5, "random", seed=10)
    far = 50 * torch.randn(b.shape, generator=torch.Generator().manual_seed(11), dtype=torch.float64)
    hint = None if change is None else torch.full((50,), change, dtype=torch.float64)
    result = solve(a, b, cost, 1e-3, 1e-9, init=far, change=hint)
    check(a, b, cost, 1e-3, result, tolerance=1e-9)


def test_batch_mates_and_epsilons_do_not_mix():
    a, b, cost = problems(8, 5, 5, "random", seed=12)
    epsilon, gap = torch.logspace(-4, 1, 8, dtype=torch.float64), torch.full((8,), 1e-2, dtype=torch.float64)
    together = solve_transport(a, b, cost, epsilon, gap=gap)
    for q in range(8):
        one = slice(q, q + 1)
        alone = solve_transport(a[one], b[one], cost[one], epsilon[one], gap=gap[one])
        assert_close(together.lower[one], alone.lower, rtol=0, atol=1e-12)
        assert_close(together.upper[one], alone.upper, rtol=0, atol=1e-12)
        assert together.num_iter[q] == alone.num_iter[0]


def test_deterministic_and_without_side_effects():
    a, b, cost = problems(10, 5, 7, "peaked", seed=13)
    copies = a.clone(), b.clone(), cost.clone()
    first, second = solve(a, b, cost, 1e-3), solve(a, b, cost, 1e-3)
    for left, right in zip(vars(first).values(), vars(second).values(), strict=True):
        assert torch.equal(left, right)
    for value, copy in zip((a, b, cost), copies, strict=True):
        assert torch.equal(value, copy)


def test_weights_are_normalised():
    a, b, cost = problems(4, 3, 4, "random", seed=14)
    scaled = solve(a * (1 + 1e-7), 3 * b, cost, 0.1)
    assert_close(scaled.lower, solve(a, b, cost, 0.1).lower, rtol=0, atol=1e-13)


def test_plan_has_exact_rows_and_near_columns():
    a, b, cost = problems(4, 3, 5, "random", seed=15)
    result = solve(a, b, cost, 0.05)
    coupling = plan(a, b, result.g, cost, torch.full((4,), 0.05, dtype=torch.float64))
    assert_close(coupling.sum(dim=2), a, rtol=0, atol=1e-15)
    assert_close(coupling.sum(dim=1), b, rtol=0, atol=1e-12)


def test_one_large_problem():
    a, b, cost = problems(1, 300, 400, "random", seed=16)
    result = solve(a, b, cost, 0.01, 1e-6)
    check(a, b, cost, 0.01, result, tolerance=1e-6)
