"""Costs between laws: values against SciPy and closed forms, derivatives of two orders, metrics, degenerate laws."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.spatial.distance
import torch
from torch import Tensor

from markovot import MarkovChain, costs, discounted_wl
from markovot.costs import GaussianWasserstein, JensenShannon, resolve_cost


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussians(n: int, p: int, seed: int, *, regular: float = 0.3) -> tuple[Tensor, Tensor]:
    mean = torch.randn(n, p, generator=generator(seed), dtype=torch.float64)
    factor = torch.randn(n, p, p, generator=generator(seed + 100), dtype=torch.float64)
    return mean, factor @ factor.mT + regular * torch.eye(p)


def laws(n: int, p: int, seed: int) -> Tensor:
    found = torch.rand(n, p, generator=generator(seed), dtype=torch.float64) ** 3
    return found / found.sum(1, keepdim=True)


def gaussian_features(n: int, p: int, seed: int) -> Tensor:
    return GaussianWasserstein.features(*gaussians(n, p, seed))


# --- values


@pytest.mark.parametrize("p", [1, 2, 4])
def test_wasserstein_against_scipy(p: int) -> None:
    (m, s), (n, t) = gaussians(3, p, 0), gaussians(4, p, 1)
    found = GaussianWasserstein(p)(GaussianWasserstein.features(m, s), GaussianWasserstein.features(n, t))
    for i, j in np.ndindex(3, 4):
        root = scipy.linalg.sqrtm(s[i].numpy())
        cross = scipy.linalg.sqrtm(root @ t[j].numpy() @ root).real
        squared = float((m[i] - n[j]).square().sum()) + np.trace(s[i].numpy() + t[j].numpy() - 2 * cross)
        assert found[i, j].item() == pytest.approx(math.sqrt(squared), rel=1e-9)


def test_wasserstein_of_numbers_is_that_of_mean_and_standard_deviation() -> None:
    mean, deviation = torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([[1.0], [0.0], [3.0]])
    law = GaussianWasserstein.features(mean, deviation.square()[..., None])
    torch.testing.assert_close(
        GaussianWasserstein(1)(law, law), costs.Euclidean()(*[torch.cat([mean, deviation], 1)] * 2)
    )


def test_wasserstein_of_commuting_covariances_in_closed_form() -> None:
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator(5), dtype=torch.float64))[0]
    one, other = torch.tensor([1.0, 4.0, 9.0]).double(), torch.tensor([16.0, 1.0, 0.0]).double()
    covariances = torch.stack([turn @ torch.diag(values) @ turn.T for values in (one, other)])
    law = GaussianWasserstein.features(torch.zeros(2, 3).double(), covariances)
    expected = (one.sqrt() - other.sqrt()).square().sum().sqrt()
    torch.testing.assert_close(GaussianWasserstein(3)(law, law)[0, 1], expected)


def test_wasserstein_without_spread_is_euclidean() -> None:
    mean = torch.randn(4, 3, generator=generator(0), dtype=torch.float64)
    law = GaussianWasserstein.features(mean, torch.zeros(4, 3, 3).double())
    torch.testing.assert_close(GaussianWasserstein(3)(law, law), costs.Euclidean()(mean, mean))


def test_wasserstein_keeps_its_digits_between_near_laws() -> None:
    mean, covariance = gaussians(1, 3, 2)
    law = GaussianWasserstein.features(mean, covariance)
    grown = GaussianWasserstein.features(mean, covariance * (1 + 1e-9) ** 2)
    expected = 1e-9 * covariance[0].trace().sqrt()  # W2 of S and c^2 S is |c - 1| sqrt(tr S)
    torch.testing.assert_close(GaussianWasserstein(3)(law, grown)[0, 0], expected, rtol=1e-5, atol=0)
    assert GaussianWasserstein(3)(law, law).item() == 0.0


@pytest.mark.parametrize("p", [2, 5])
def test_jensen_shannon_against_scipy(p: int) -> None:
    one, other = laws(3, p, 0), laws(4, p, 1)
    one[0] = torch.eye(p)[0]
    other[2] = torch.eye(p)[1]
    found = JensenShannon()(one, other)
    for i, j in np.ndindex(3, 4):
        expected = scipy.spatial.distance.jensenshannon(one[i].numpy(), other[j].numpy(), base=2)
        assert found[i, j].item() == pytest.approx(expected, rel=1e-7)
    assert found[0, 2].item() == pytest.approx(1.0, rel=1e-15)
    torch.testing.assert_close(JensenShannon()(one, one).diagonal(), torch.zeros(3).double(), rtol=0, atol=0)


def test_jensen_shannon_keeps_its_digits_between_near_laws_and_bears_tiny_probabilities() -> None:
    p = torch.tensor([[0.3, 0.7]]).double()
    q = p + torch.tensor([1e-9, -1e-9]).double()
    expected = math.sqrt((1e-9**2 / 0.3 + 1e-9**2 / 0.7) / (8 * math.log(2)))
    assert JensenShannon()(p, q).item() == pytest.approx(expected, rel=1e-6)
    tiny = torch.tensor([[1.0, 1e-300]]).double()
    assert JensenShannon()(tiny, tiny.flip(1)).item() == pytest.approx(1.0)


# --- what a metric is


COSTS: list[tuple[Any, Callable[[int, int], Tensor]]] = [
    (GaussianWasserstein(2), lambda n, seed: gaussian_features(n, 2, seed)),
    (JensenShannon(), lambda n, seed: laws(n, 4, seed)),
]


@pytest.mark.parametrize(("cost", "draw"), COSTS)
@pytest.mark.parametrize("seed", range(3))
def test_it_is_a_metric(cost: Any, draw: Any, seed: int) -> None:
    law = draw(7, seed)
    found = cost(law, law)
    torch.testing.assert_close(found, found.T, rtol=1e-12, atol=1e-14)
    assert (found.diagonal() == 0).all()
    assert (found + torch.eye(7) > 0).all()
    through = (found[:, :, None] + found[None, :, :]).amin(1)
    assert (found <= through + 1e-12).all()
    if isinstance(cost, JensenShannon):
        assert found.max() <= 1


@pytest.mark.parametrize("seed", range(3))
def test_wasserstein_of_moved_turned_and_stretched_laws(seed: int) -> None:
    (m, s), cost = gaussians(5, 3, seed), GaussianWasserstein(3)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator(seed), dtype=torch.float64))[0]
    plain = cost(*[GaussianWasserstein.features(m, s)] * 2)
    moved = cost(*[GaussianWasserstein.features(2 * m @ turn.T + 7, 4 * turn @ s @ turn.T)] * 2)
    torch.testing.assert_close(moved, 2 * plain, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("cost", "draw"), COSTS)
def test_float32_is_as_good_as_its_input(cost: Any, draw: Any) -> None:
    one, other = draw(4, 0), draw(3, 1)
    found = cost(one.float(), other.float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), cost(one, other), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("cost", "draw"), COSTS)
def test_batches_and_padding(cost: Any, draw: Any) -> None:
    one, other = torch.stack([draw(4, 0), draw(4, 1)]), draw(3, 2)
    found = cost(one[:, None], other[None, None])
    assert found.shape == (2, 1, 4, 3)
    torch.testing.assert_close(found[1, 0], cost(one[1], other))
    parts = [draw(n, n).requires_grad_() for n in (2, 5)]
    x = MarkovChain.stack(
        [
            MarkovChain.from_transitions(torch.full((len(f), len(f)), 1 / len(f), dtype=torch.float64), features=f)
            for f in parts
        ]
    )
    y = MarkovChain.from_transitions(torch.full((3, 3), 1 / 3, dtype=torch.float64), features=other)
    padded = resolve_cost(cost, x, y)
    assert (padded[0, 2:] == 0).all()
    for k, f in enumerate(parts):
        alone = cost(f, other)
        torch.testing.assert_close(padded[k, : len(f)], alone)
        (expected,) = torch.autograd.grad(alone.sum(), f, retain_graph=True)
        (grad,) = torch.autograd.grad(padded[k].sum(), f, retain_graph=True)
        torch.testing.assert_close(grad, expected)


# --- derivatives


@pytest.mark.parametrize("p", [1, 3])
def test_gradients_of_wasserstein(p: int) -> None:
    (m, s), (n, t) = gaussians(2, p, 3), gaussians(3, p, 4)
    inputs = [tensor.requires_grad_() for tensor in (m, s, n, t)]

    def run(m: Tensor, s: Tensor, n: Tensor, t: Tensor) -> Tensor:
        return GaussianWasserstein(p)(GaussianWasserstein.features(m, s), GaussianWasserstein.features(n, t))

    assert torch.autograd.gradcheck(run, inputs, rtol=1e-6)
    assert torch.autograd.gradgradcheck(run, inputs, rtol=1e-5)


@pytest.mark.parametrize("same", ["round", "equal"])
def test_gradients_where_eigenvalues_or_covariances_coincide(same: str) -> None:
    mean, covariance = gaussians(1, 3, 6)
    if same == "round":
        covariance = 2.0 * torch.eye(3, dtype=torch.float64)[None]
    other = GaussianWasserstein.features(mean + 1.0, covariance)

    def run(s: Tensor) -> Tensor:
        return GaussianWasserstein(3)(GaussianWasserstein.features(mean, s), other)

    # The covariances are equal, but the means differ: no root of zero stands in the way.
    (grad,) = torch.autograd.grad(run(covariance.requires_grad_()), covariance)
    torch.testing.assert_close(grad, torch.zeros_like(grad), rtol=0, atol=1e-12)
    away = GaussianWasserstein.features(mean, 1.5 * covariance.detach())

    def further(s: Tensor) -> Tensor:
        return GaussianWasserstein(3)(GaussianWasserstein.features(mean, s), away)

    assert torch.autograd.gradcheck(further, (covariance,), rtol=1e-6)
    assert torch.autograd.gradgradcheck(further, (covariance,), rtol=1e-5)


@pytest.mark.parametrize(("cost", "draw"), COSTS)
def test_gradients_are_zero_between_equal_laws_and_finite_everywhere(cost: Any, draw: Any) -> None:
    law = draw(3, 0).requires_grad_()
    fixed = torch.cat([law.detach(), draw(1, 1)])
    found = cost(law, fixed)
    (grad,) = torch.autograd.grad(found[:, :3].diagonal().sum(), law, retain_graph=True)
    assert (grad == 0).all()
    (grad,) = torch.autograd.grad(found.sum(), law)
    assert grad.isfinite().all()
    assert (grad != 0).any(1).all()


def test_gradients_of_degenerate_laws_are_finite() -> None:
    flat = torch.diag(torch.tensor([1.0, 0.0]).double())[None].requires_grad_()
    law = GaussianWasserstein.features(torch.zeros(1, 2).double(), flat)
    other = GaussianWasserstein.features(torch.zeros(1, 2).double(), torch.eye(2).double()[None] * 4)
    value = GaussianWasserstein(2)(law, other)
    assert value.item() == pytest.approx(math.sqrt(1 + 4))
    (grad,) = torch.autograd.grad(value, flat)
    # Along the direction in which it has spread: d/ds ((sqrt s - 2)^2 + 4)^(1/2) at s = 1.
    assert grad[0, 0, 0].item() == pytest.approx((1 - 2) / 2 / math.sqrt(5))
    assert grad.isfinite().all()
    letters = torch.tensor([[1.0, 0.0, 0.0]]).double().requires_grad_()
    (grad,) = torch.autograd.grad(JensenShannon()(letters, torch.tensor([[0.5, 0.5, 0.0]]).double()), letters)
    assert grad.isfinite().all()


@pytest.mark.parametrize("p", [2, 4])
def test_gradients_of_jensen_shannon(p: int) -> None:
    def run(one: Tensor, other: Tensor) -> Tensor:
        return JensenShannon()(one.softmax(-1), other.softmax(-1))

    inputs = [torch.randn(n, p, generator=generator(n), dtype=torch.float64).requires_grad_() for n in (2, 3)]
    assert torch.autograd.gradcheck(run, inputs, rtol=1e-6)
    assert torch.autograd.gradgradcheck(run, inputs, rtol=1e-5)


def test_a_distance_of_chains_has_gradients_in_emissions() -> None:
    transition = torch.tensor([[0.9, 0.1], [0.3, 0.7]], dtype=torch.float64)
    (m, s), fixed = gaussians(2, 2, 0), gaussian_features(2, 2, 1)

    def run(m: Tensor, s: Tensor) -> Tensor:
        x = MarkovChain.from_transitions(transition, features=GaussianWasserstein.features(m, s))
        y = MarkovChain.from_transitions(transition.flip(0), features=fixed, initial="uniform")
        return discounted_wl(
            x, y, GaussianWasserstein(2), delta=0.3, epsilon=0.1, rtol=1e-9
        ).value

    assert torch.autograd.gradcheck(run, (m.requires_grad_(), s.requires_grad_()), rtol=1e-4, atol=1e-6)


# --- bad input


def broken(value: float) -> Tensor:
    covariance = torch.eye(2).double().repeat(3, 1, 1)
    covariance[1, 0, 1] = value
    return GaussianWasserstein.features(torch.zeros(3, 2).double(), covariance)


GOOD = gaussian_features(3, 2, 0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: GaussianWasserstein(2.0), TypeError, "dimension: expected an integer, got float"),
        (lambda: GaussianWasserstein(True), TypeError, "dimension: expected an integer, got bool"),
        (lambda: GaussianWasserstein(0), ValueError, "dimension: 0 is less than 1"),
        (lambda: GaussianWasserstein(3)(GOOD, GOOD), ValueError, r"those of x have 6 components, not 12.*dimension=3"),
        (lambda: GaussianWasserstein(2)(GOOD, GOOD[:, :5]), ValueError, "same number of components"),
        (lambda: GaussianWasserstein(2)(GOOD.long(), GOOD), TypeError, r"those of x are torch\.int64"),
        (
            lambda: GaussianWasserstein(2)(GOOD, broken(0.5)),
            ValueError,
            "features: the covariance of state 1 of y is not symmetric",
        ),
        (
            lambda: GaussianWasserstein(1)(torch.tensor([[0.0, 1.0], [0.0, -2.0]]), torch.ones(1, 2)),
            ValueError,
            "the covariance of state 1 of x has the eigenvalue -2.*learn a factor F of F F",
        ),
        (
            lambda: GaussianWasserstein.features(torch.zeros(3, 2), torch.zeros(3, 2)),
            ValueError,
            r"covariance: shape \(3, 2\) does not go with a mean of shape \(3, 2\)",
        ),
        (lambda: GaussianWasserstein.features(torch.zeros(3), torch.zeros(3, 3)), ValueError, "covariance: shape"),
        (
            lambda: JensenShannon()(torch.tensor([[0.5, 0.5], [0.7, 0.7]]), torch.ones(1, 2) / 2),
            ValueError,
            "features: row 1 of x is no law: its least entry is 0.7, its sum 1.4",
        ),
        (
            lambda: JensenShannon()(torch.ones(1, 2) / 2, torch.tensor([[1.5, -0.5]])),
            ValueError,
            "features: row 0 of y is no law: its least entry is -0.5",
        ),
        (lambda: JensenShannon()(torch.tensor([1, 2]), torch.tensor([1.0, 2.0])), TypeError, r"torch\.int64 labels"),
    ],
)
def test_bad_input(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
