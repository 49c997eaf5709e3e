"""Ground costs between states: values, gradients (also where features coincide), padding, and bad input."""

import math
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from torch import Tensor

from markovot import costs
from markovot.chains import MarkovChain
from markovot.costs import ground, resolve_cost

COSTS = [costs.Euclidean(), costs.SquaredEuclidean(), costs.AbsoluteDifference()]


def chain(n: int, features: Any = None, dtype: torch.dtype = torch.float64) -> MarkovChain:
    return MarkovChain.from_transitions(torch.full((n, n), 1 / n, dtype=dtype), features=features)


def points(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_loops(cost: Any, fx: Tensor, fy: Tensor) -> Tensor:
    of = {
        costs.ZeroOne: lambda a, b: float(any(s != t for s, t in zip(a, b, strict=True))),
        costs.Euclidean: lambda a, b: math.dist(a, b),
        costs.SquaredEuclidean: lambda a, b: sum((s - t) ** 2 for s, t in zip(a, b, strict=True)),
        costs.AbsoluteDifference: lambda a, b: sum(abs(s - t) for s, t in zip(a, b, strict=True)),
    }[type(cost)]
    return torch.tensor([[of(a, b) for b in fy.tolist()] for a in fx.tolist()], dtype=torch.float64)


@pytest.mark.parametrize("cost", [*COSTS, costs.ZeroOne()])
@pytest.mark.parametrize("p", [1, 3])
def test_values_against_loops(cost: Any, p: int) -> None:
    fx, fy = points(4, p), points(3, p, seed=1)
    fx[2], fy[1, 0] = fy[0], fx[0, 0]
    found = resolve_cost(cost, chain(4, fx), chain(3, fy))
    torch.testing.assert_close(found, by_loops(cost, fx, fy), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("cost", COSTS)
def test_numbers_are_vectors_of_one_component(cost: Any) -> None:
    fx, fy = points(4), points(3, seed=1)
    expected = by_loops(cost, fx[:, None], fy[:, None])
    torch.testing.assert_close(cost(fx, fy), expected)
    torch.testing.assert_close(resolve_cost(cost, chain(4, fx), chain(3, fy)), expected)


def test_euclidean_keeps_its_digits_between_near_and_far_away_points() -> None:
    fx = torch.tensor([[1e8, 1e8]], dtype=torch.float64)
    assert costs.Euclidean()(fx, fx + torch.tensor([3e-6, 4e-6])).item() == pytest.approx(5e-6, rel=1e-2)
    many = points(40, 2) + 1e6  # beyond 25 points torch's default switches to matrix products
    assert torch.equal(costs.Euclidean()(many, many).diagonal(), torch.zeros(40).double())


@pytest.mark.parametrize("cost", COSTS)
def test_gradients_in_features(cost: Any) -> None:
    fx, fy = points(2, 3, 2).requires_grad_(), points(2, 4, 2, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(cost, (fx, fy), rtol=1e-6)


@pytest.mark.parametrize("cost", COSTS)
def test_gradient_is_zero_where_features_coincide(cost: Any) -> None:
    fx = torch.tensor([[1.0, 2.0], [0.0, 0.0]], requires_grad=True)
    fy = fx.detach()[:1].clone().requires_grad_()
    cost(fx, fy)[0].sum().backward()
    assert fx.grad.tolist() == [[0, 0], [0, 0]]
    assert fy.grad.tolist() == [[0, 0]]


def test_labels_of_graphs() -> None:
    one, other = nx.path_graph(2), nx.path_graph(3)
    nx.set_node_attributes(one, {0: "C", 1: "N"}, "atom")
    nx.set_node_attributes(other, {0: "N", 1: "O", 2: "C"}, "atom")
    x, y = (MarkovChain.from_networkx(graph, features="atom") for graph in (one, other))
    found = resolve_cost(costs.ZeroOne(), x, y)
    assert found.dtype == torch.float64
    assert found.tolist() == [[1, 1, 0], [0, 1, 1]]


def test_labels_and_numbers() -> None:
    names, numbers = chain(2, ["C", "N"]), chain(2, torch.tensor([0.0, 1.0]))
    with pytest.raises(TypeError, match=r"codes of labels .* cannot be equal to numbers"):
        resolve_cost(costs.ZeroOne(), names, numbers)
    small = chain(2, torch.tensor([1, 5]))
    assert resolve_cost(costs.ZeroOne(), small, numbers).tolist() == [[1, 0], [1, 1]]
    for cost in COSTS:
        with pytest.raises(TypeError, match=r"those of y are torch\.int64 labels.*ZeroOne\(\).*\.double\(\)"):
            resolve_cost(cost, numbers, names)


def test_features_of_different_dtypes_are_compared_exactly() -> None:
    """As Python compares its numbers: 16777217 is not 16777216.0, which is what float32 would make of it."""
    numbers = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    kinds = (*numbers, torch.bool, torch.uint8, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64)
    large = torch.tensor([0, 1, 16777216, 16777217, 2**53 - 1, 2**53])
    for first in kinds:
        for second in kinds:
            x, y = large.to(first), large.to(second)
            wanted = [[float(a != b) for b in y.tolist()] for a in x.tolist()]
            assert costs.ZeroOne()(x, y).tolist() == wanted, (first, second)
    labels = torch.tensor([16777217])
    for n in (2, 3):
        x, y = chain(n, torch.full((n,), 16777216.0)), chain(n, labels.repeat(n))
        assert resolve_cost(costs.ZeroOne(), x, y).min() == 1
    for code in (-(2**63), 2**63 - 1, 2**53 + 1):
        with pytest.raises(TypeError, match=r"beyond 2\^53, cannot be equal to numbers"):
            costs.ZeroOne()(torch.tensor([code]), torch.tensor([float(code)]))
    with pytest.raises(ValueError, match="does not fit into int64"):
        costs.ZeroOne()(torch.tensor([2**64 - 1], dtype=torch.uint64), torch.tensor([-1]))


@pytest.mark.parametrize("cost", COSTS)
def test_half_precision_is_measured_in_float32(cost: Any) -> None:
    x, y = torch.tensor([[300.0], [0.0]]).half(), torch.tensor([[0.0]]).half()
    assert torch.equal(cost(x, y), cost(x.float(), y.float()))
    with pytest.raises(TypeError, match=r"those of y are torch\.bool labels"):
        cost(x, torch.tensor([[True]]))


def test_given_matrix_and_plain_tensor() -> None:
    matrix = points(2, 3).requires_grad_()
    x, y = chain(2), chain(3)
    for cost in (matrix, costs.Given(matrix)):
        found = resolve_cost(cost, x, y)
        assert torch.equal(found, matrix)
        (grad,) = torch.autograd.grad(found.sum(), matrix)
        assert torch.equal(grad, torch.ones(2, 3).double())
    for cost in (matrix.detach().numpy(), costs.Given(matrix.detach().numpy())):
        assert torch.equal(resolve_cost(cost, x, y), matrix)


def test_chain_dtype_wins() -> None:
    x = chain(2, torch.tensor([0.0, 1.0]).double(), torch.float32)
    for cost in (*COSTS, costs.ZeroOne(), np.ones((2, 2))):
        assert resolve_cost(cost, x, x).dtype == torch.float32


def test_batches_broadcast() -> None:
    fx, fy = points(5, 1, 2, 3), points(4, 3, 3, seed=1)
    x = MarkovChain.from_transitions(torch.full((5, 1, 2, 2), 0.5).double(), features=fx)
    y = MarkovChain.from_transitions(torch.full((4, 3, 3), 1 / 3, dtype=torch.float64), features=fy)
    found = resolve_cost(costs.Euclidean(), x, y)
    assert found.shape == (5, 4, 2, 3)
    for i in range(5):
        for j in range(4):
            torch.testing.assert_close(found[i, j], by_loops(costs.Euclidean(), fx[i, 0], fy[j]))
    matrix = points(2, 3)
    assert torch.equal(resolve_cost(matrix, x, y), matrix.expand(5, 4, 2, 3))
    numbers = MarkovChain.from_transitions(torch.full((2, 2, 2), 0.5).double(), features=points(2, 2))
    assert resolve_cost(costs.Euclidean(), numbers, numbers).shape == (2, 2, 2)  # labels (2, 2), not vectors
    with pytest.raises(ValueError, match=r"shapes \(2,\) \(x\), \(3,\) \(y\)"):
        resolve_cost(
            torch.zeros(2, 2).double(),
            numbers,
            MarkovChain.from_transitions(torch.eye(2).double().expand(3, 2, 2)),
        )


@pytest.mark.parametrize("cost", [*COSTS, costs.ZeroOne()])
def test_padded_states_cost_nothing_and_change_nothing(cost: Any) -> None:
    fx = [points(n, 2, seed=n).requires_grad_() for n in (2, 4)]
    fy = [points(n, 2, seed=7 + n) for n in (3, 1)]
    x = MarkovChain.stack([chain(len(f), f) for f in fx])
    y = MarkovChain.stack([chain(len(f), f) for f in fy])
    found = resolve_cost(cost, x, y)
    assert found.shape == (2, 4, 3)
    for k in range(2):
        alone = resolve_cost(cost, chain(len(fx[k]), fx[k]), chain(len(fy[k]), fy[k]))
        n, m = alone.shape
        assert torch.equal(found[k, :n, :m], alone)
        assert found[k].sum().item() == pytest.approx(alone.sum().item())
        if alone.requires_grad:
            (expected,) = torch.autograd.grad(alone.square().sum(), fx[k], retain_graph=True)
            (grad,) = torch.autograd.grad(found.square().sum(), fx[k], retain_graph=True)
            torch.testing.assert_close(grad, expected)


def test_anything_may_stand_at_padded_states_of_a_matrix() -> None:
    x = MarkovChain.stack([chain(1), chain(2)])
    y = chain(2)
    matrix = torch.tensor([[1.0, 2.0], [math.nan, math.inf]]).double().requires_grad_()
    batch = torch.stack([matrix, torch.ones(2, 2).double()])
    found = resolve_cost(batch, x, y)
    assert found.tolist() == [[[1, 2], [0, 0]], [[1, 1], [1, 1]]]
    found.sum().backward()
    assert matrix.grad.tolist() == [[1, 1], [0, 0]]
    with pytest.raises(
        ValueError, match=r"cost: entry \(1, 1, 0\) is nan"
    ):  # shared by both chains: real in the second
        resolve_cost(matrix, x, y)


@pytest.mark.parametrize(
    ("cost", "error", "message"),
    [
        (torch.ones(3, 2).double(), ValueError, r"cost: shape \(3, 2\) does not end in \(2, 3\)"),
        (torch.ones(6).double(), ValueError, r"cost: shape \(6,\)"),
        (
            torch.ones(2, 3),
            TypeError,
            r"cost: dtype torch\.float32 is not that of the chains, torch\.float64",
        ),
        (torch.ones(2, 3, dtype=torch.int64), TypeError, r"cost: dtype torch\.int64.*\.double\(\)"),
        (np.ones((2, 3), int), TypeError, r"cost: dtype torch\.int64.*\.astype\(float\)"),
        (
            torch.ones(2, 3, dtype=torch.float64, device="meta"),
            ValueError,
            "cost: a tensor on the device meta has no values",
        ),
        (torch.full((2, 3), math.nan).double(), ValueError, r"cost: entry \(0, 0\) is nan"),
        ("euclidean", TypeError, r"cost: expected a tensor.*got str"),
        (None, TypeError, "got NoneType"),
        (costs.Euclidean, TypeError, r"got the class Euclidean itself\. Give an instance: costs\.Euclidean\(\)"),
        (costs.Euclidean(), ValueError, "chain x has no features"),
        ([[1.0]], TypeError, "got list.*as_tensor"),
    ],
)
def test_bad_costs(cost: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        resolve_cost(cost, chain(2), chain(3))


def test_a_given_cost_is_checked_when_it_is_made() -> None:
    for bad, message in (([[1.0]], "got list"), (np.eye(2, dtype=int), r"int64.*\.astype\(float\)")):
        with pytest.raises(TypeError, match=f"matrix: .*{message}"):
            costs.Given(bad)


def test_chains_that_do_not_fit_together() -> None:
    two, three = chain(2, points(2, 2)), chain(2, points(2, 3))
    with pytest.raises(ValueError, match=r"x have shape \(2, 2\), those of y \(2, 3\).*same number of components"):
        resolve_cost(costs.Euclidean(), two, three)
    with pytest.raises(ValueError, match="chain y has no features"):
        resolve_cost(costs.Euclidean(), two, chain(2))
    with pytest.raises(TypeError, match=r"x: dtype torch\.float64 is not that of y, torch\.float32"):
        resolve_cost(torch.ones(2, 2).double(), two, chain(2, dtype=torch.float32))


def test_costs_compare_and_print() -> None:
    assert costs.Euclidean() == costs.Euclidean() != costs.ZeroOne()
    assert repr(costs.AbsoluteDifference()) == "AbsoluteDifference()"


@pytest.mark.parametrize("cost", COSTS)
def test_large_and_small_costs_agree(cost: costs.Cost, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(4)
    fx, fy = (torch.randn(2, size, 3, dtype=torch.float64, generator=generator) for size in (4, 5))
    fy[:, 0] = fx[:, 1]  # where they coincide, gradients are zero on both ways
    found = []
    for largest in (1 << 20, 0):
        monkeypatch.setattr(ground, "_DIFFERENCES", largest)
        leaf = fx.clone().requires_grad_()
        value = cost(leaf, fy)
        value.square().sum().backward()
        found.append((value.detach(), leaf.grad))
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-14)
