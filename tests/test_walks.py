"""Chains made from data: random walks on graphs, and steps counted in trajectories."""

import math
from typing import Any

import networkx as nx
import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor

from markovot.chains import MarkovChain, as_chain

# torch says these once, whoever makes a sparse tensor first.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse CS. tensor support is in beta:UserWarning"),
    pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled:UserWarning"),
]

WEIGHTS = torch.tensor([[0.0, 2.0, 6.0], [3.0, 1.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)


def dense(chain: MarkovChain) -> Tensor:
    return chain.to_dense().transition


# --- from_adjacency
LAZY_STAY = torch.tensor([[0.2, 0.2, 0.6], [0.6, 0.4, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    "layout", [lambda w: w, lambda w: w.to_sparse(), lambda w: w.to_sparse_csr(), lambda w: w.numpy()]
)
def test_walk_along_weights(layout: Any) -> None:
    chain = MarkovChain.from_adjacency(layout(WEIGHTS), laziness=0.2)
    assert chain.initial_law == "uniform"
    torch.testing.assert_close(dense(chain), LAZY_STAY, rtol=1e-15, atol=1e-16)
    still = dense(MarkovChain.from_adjacency(layout(WEIGHTS), laziness=1.0))
    assert torch.equal(still, torch.eye(3).double())
    plain = dense(MarkovChain.from_adjacency(layout(WEIGHTS)))
    torch.testing.assert_close(plain, torch.tensor([[0, 0.25, 0.75], [0.75, 0.25, 0], [0, 0, 1]]).double())


@pytest.mark.parametrize("layout", [lambda w: w, lambda w: w.to_sparse()])
def test_dead_ends(layout: Any) -> None:
    jump = dense(MarkovChain.from_adjacency(layout(WEIGHTS), dead_ends="uniform", laziness=0.25))
    torch.testing.assert_close(jump[2], torch.tensor([0.25, 0.25, 0.5]).double())
    with pytest.raises(ValueError, match=r"dead_ends: state 2 has no way out.*first of 1.*'stay'"):
        MarkovChain.from_adjacency(layout(WEIGHTS), dead_ends="error")
    with pytest.raises(ValueError, match=r"dead_ends: 'leave' is not one of 'stay', 'uniform', 'error'"):
        MarkovChain.from_adjacency(layout(WEIGHTS), dead_ends="leave")
    assert dense(MarkovChain.from_adjacency(layout(torch.zeros(1, 1)))).tolist() == [[1.0]]


@pytest.mark.parametrize("dead_ends", ["stay", "uniform"])
@pytest.mark.parametrize("laziness", [0.0, 0.3])
def test_adjacency_gradient(dead_ends: str, laziness: float) -> None:
    """Dense by gradcheck away from zero; sparse as dense on the stored entries; finite at dead ends."""
    weights = torch.rand(2, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1
    options = {"dead_ends": dead_ends, "laziness": laziness}
    assert torch.autograd.gradcheck(
        lambda w: MarkovChain.from_adjacency(w, **options).transition, weights.requires_grad_(), rtol=1e-6
    )
    dense_leaf, sparse_leaf = WEIGHTS.clone().requires_grad_(), WEIGHTS.to_sparse_csr().requires_grad_()
    by = torch.arange(9).double().view(3, 3) ** 2
    for leaf in (dense_leaf, sparse_leaf):
        (dense(MarkovChain.from_adjacency(leaf, **options)) * by).sum().backward()
    assert dense_leaf.grad[2].tolist() == [0, 0, 0]
    assert dense_leaf.grad[0].abs().max() > 0.01
    torch.testing.assert_close(sparse_leaf.grad.to_dense(), dense_leaf.grad * (WEIGHTS > 0))


def test_integers_are_counts_only_outside_torch() -> None:
    counts = WEIGHTS.long()
    for matrix in (counts.numpy(), scipy.sparse.csr_array(counts.numpy()), counts.numpy() > 0):
        assert MarkovChain.from_adjacency(matrix).dtype == torch.float64
    torch.testing.assert_close(dense(MarkovChain.from_adjacency(counts.numpy(), laziness=0.2)), LAZY_STAY)
    for matrix in (counts, counts.to_sparse()):
        with pytest.raises(TypeError, match=r"adjacency: dtype torch\.int64.*\.double\(\)"):
            MarkovChain.from_adjacency(matrix)


@pytest.mark.parametrize("layout", [lambda w: w, lambda w: w.to_sparse()])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (-1.0, r"\(0, 1\) is -1\.0.*negative"),
        (math.nan, r"\(0, 1\) is nan.*finite"),
        (math.inf, r"\(0, 1\) is inf"),
    ],
)
def test_bad_weights(layout: Any, bad: float, message: str) -> None:
    weights = WEIGHTS.clone()
    weights[0, 1] = bad
    with pytest.raises(ValueError, match="adjacency: entry " + message):
        MarkovChain.from_adjacency(layout(weights))


@pytest.mark.parametrize("layout", [lambda w: w, lambda w: w.to_sparse()])
def test_weights_at_both_ends_of_the_range_of_floats(layout: Any) -> None:
    """Sums that would overflow, inverses that would, and rows in which tiny stands beside large."""
    weights = torch.tensor([[1e308, 0.0, 1.5e308], [0.0, 1e-310, 3e-310], [1.0, 5e-324, 3.0]], dtype=torch.float64)
    leaf = weights.clone().requires_grad_()
    walk = dense(MarkovChain.from_adjacency(layout(leaf)))
    wanted = torch.tensor([[0.4, 0, 0.6], [0, 0.25, 0.75], [0.25, 0, 0.75]], dtype=torch.float64)
    torch.testing.assert_close(walk, wanted, rtol=1e-15, atol=1e-300)
    by = torch.tensor([[1.0, 0, 2], [3, 3, 3], [1, 2, 3]], dtype=torch.float64)
    (walk * by).sum().backward()
    stored = weights > 0
    exact = torch.where(stored, (by - (by * wanted).sum(-1, keepdim=True)) / weights.sum(-1, keepdim=True), 0.0)
    exact[0] = torch.tensor([-0.6, 0.0, 0.4], dtype=torch.float64) / 2.5 / 1e308
    torch.testing.assert_close(torch.where(stored, leaf.grad, 0.0), exact, rtol=1e-12, atol=0.0)
    alone = torch.tensor([[0.0, 1e-310], [2.0, 0.0]], dtype=torch.float64, requires_grad=True)
    (dense(MarkovChain.from_adjacency(layout(alone)))[0, 1] * 0.3).backward()
    assert alone.grad[0, 1] == 0.0
    half = torch.tensor([[1e-40, 3e-40], [3e38, 3e38]], requires_grad=True)
    torch.testing.assert_close(dense(MarkovChain.from_adjacency(layout(half)))[0], torch.tensor([0.25, 0.75]))


@pytest.mark.parametrize("laziness", [-0.1, 1.5, math.nan])
def test_bad_laziness(laziness: float) -> None:
    with pytest.raises(ValueError, match=r"laziness: .* is out of range.*between 0 and 1"):
        MarkovChain.from_adjacency(WEIGHTS, laziness=laziness)
    with pytest.raises(TypeError, match=r"laziness: expected a number, got str"):
        MarkovChain.from_adjacency(WEIGHTS, laziness="0.1")


# --- from_networkx
def test_undirected_graph_with_a_loop_and_an_isolated_node() -> None:
    graph = nx.Graph()
    graph.add_nodes_from(["c", "a", "b"])
    graph.add_edge("c", "a", weight=3.0)
    graph.add_edge("a", "a", weight=1.0)
    for chain in (MarkovChain.from_networkx(graph), as_chain(graph)):
        assert chain.is_sparse
        assert (chain.state_names, chain.initial_law, chain.features) == (["c", "a", "b"], "uniform", None)
        assert dense(chain).tolist() == [[0, 1, 0], [0.75, 0.25, 0], [0, 0, 1]]
    lazy = MarkovChain.from_networkx(graph, laziness=0.5)
    assert dense(lazy).tolist() == [[0.5, 0.5, 0], [0.375, 0.625, 0], [0, 0, 1]]
    with pytest.raises(ValueError, match="state 2 has no way out"):
        MarkovChain.from_networkx(graph, dead_ends="error")


def test_parallel_edges_are_summed() -> None:
    edges = [(0, 1, 1.0), (0, 1, 2.0), (0, 2, 1.0), (2, 2, 0.5), (2, 2, 0.5)]
    for kind, expected in (
        (nx.MultiGraph, [[0, 0.75, 0.25], [1, 0, 0], [0.5, 0, 0.5]]),
        (nx.MultiDiGraph, [[0, 0.75, 0.25], [0, 1, 0], [0, 0, 1]]),
    ):
        graph = kind()
        for u, v, w in edges:
            graph.add_edge(u, v, weight=w)
        assert dense(MarkovChain.from_networkx(graph)).tolist() == expected
    counted = nx.MultiGraph([(0, 1), (0, 1), (0, 2)])
    nx.set_edge_attributes(counted, 5.0, "weight")
    counted.edges[0, 2, 0]["weight"] = 1.0
    torch.testing.assert_close(dense(MarkovChain.from_networkx(counted, weight=None))[0, 1].item(), 2 / 3)


def test_weights_of_edges() -> None:
    graph = nx.DiGraph()
    graph.add_edge(0, 1, length=3)
    graph.add_edge(0, 2)  # counts as one
    graph.add_edge(1, 0, length=0.0)  # no edge at all
    chain = MarkovChain.from_networkx(graph, weight="length")
    assert dense(chain).tolist() == [[0, 0.75, 0.25], [0, 1, 0], [0, 0, 1]]
    assert dense(MarkovChain.from_networkx(graph)).tolist() == [[0, 0.5, 0.5], [1, 0, 0], [0, 0, 1]]


def test_walk_agrees_with_networkx() -> None:
    graph = nx.gnp_random_graph(30, 0.2, seed=1)
    for k, (u, v) in enumerate(graph.edges):
        graph.edges[u, v]["weight"] = 1.0 + k % 5
    expected = nx.to_numpy_array(graph)
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(dense(MarkovChain.from_networkx(graph)).numpy(), expected, rtol=1e-14)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (-2.0, ValueError, r"weight: edge \('a', 'b'\) has 'weight' = -2\.0, which is negative"),
        (math.nan, ValueError, r"edge \('a', 'b'\).*nan.*not finite"),
        (math.inf, ValueError, r"edge \('a', 'b'\).*inf.*not finite"),
        ("long", TypeError, r"edge \('a', 'b'\) is 'long', not a number.*weight=None"),
        (None, TypeError, r"edge \('a', 'b'\) is None"),
    ],
)
def test_bad_edges_are_named(value: Any, error: type[Exception], message: str) -> None:
    graph = nx.Graph()
    graph.add_edge("a", "b", weight=value)
    with pytest.raises(error, match=message):
        MarkovChain.from_networkx(graph)


def test_bad_graphs() -> None:
    with pytest.raises(ValueError, match="graph: it has no nodes"):
        MarkovChain.from_networkx(nx.Graph())
    with pytest.raises(TypeError, match="graph: expected a networkx graph, got Tensor"):
        MarkovChain.from_networkx(WEIGHTS)


# --- from_trajectories
def test_counts() -> None:
    chain = MarkovChain.from_trajectories([[0, 1, 0, 2, 2], [0, 1]])
    assert chain.is_sparse
    torch.testing.assert_close(dense(chain), torch.tensor([[0, 2 / 3, 1 / 3], [1, 0, 0], [0, 0, 1]]).double())
    assert (chain.initial_law, chain.state_names) == ("stationary", None)
    assert dense(MarkovChain.from_trajectories(np.array([0, 1, 1, 0])))[1].tolist() == [0.5, 0.5]
    assert dense(MarkovChain.from_trajectories(torch.tensor([[0, 1], [1, 1]]))).tolist() == [[0, 1], [0, 1]]
    assert MarkovChain.from_trajectories([[0], [], [1]]).num_states == 2


def test_pseudo_counts_and_unseen_states() -> None:
    chain = MarkovChain.from_trajectories([0, 1, 0], num_states=3, pseudo_count=1.0)
    assert not chain.is_sparse
    expected = torch.tensor([[0.25, 0.5, 0.25], [0.5, 0.25, 0.25], [1 / 3, 1 / 3, 1 / 3]]).double()
    torch.testing.assert_close(chain.transition, expected)
    unseen = MarkovChain.from_trajectories([0, 1], num_states=3, initial="uniform")
    assert dense(unseen).tolist() == [[0, 1, 0], [0, 1, 0], [0, 0, 1]]
    with pytest.raises(ValueError, match="state 1 has no way out"):
        MarkovChain.from_trajectories([0, 1], dead_ends="error")


def test_names_of_states() -> None:
    path = ["sun", "rain", "sun", "sun"]
    chain = MarkovChain.from_trajectories([path, path])
    assert (chain.state_names, dense(chain).tolist()) == (["rain", "sun"], [[0, 1], [0.5, 0.5]])
    ordered = MarkovChain.from_trajectories(path, state_names=["sun", "fog", "rain"])
    assert dense(ordered)[0].tolist() == [0.5, 0, 0.5]
    named = MarkovChain.from_trajectories([0, 1, 0], state_names=["low", "high"])
    assert (named.state_names, dense(named).tolist()) == (["low", "high"], [[0, 1], [1, 0]])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"trajectories": []}, ValueError, "trajectories: there are none|all empty"),
        ({"trajectories": [[]]}, ValueError, "all empty"),
        ({"trajectories": [0, -1]}, ValueError, r"number 0 holds the state -1"),
        ({"trajectories": [0.5, 1.0]}, TypeError, r"dtype float64.*integers or names"),
        ({"trajectories": "abab"}, TypeError, r"list\(text\)"),
        ({"trajectories": np.zeros((2, 2, 2), int)}, ValueError, r"number 0 has shape \(2, 2\)"),
        (
            {"trajectories": [0, 3], "num_states": 2},
            ValueError,
            r"num_states: 2 is too small, since state 3 occurs",
        ),
        (
            {"trajectories": [0, 3], "num_states": 2.5},
            TypeError,
            r"num_states: expected an integer, got float",
        ),
        ({"trajectories": [0, 1], "pseudo_count": -1.0}, ValueError, r"pseudo_count: -1\.0.*at least 0"),
        ({"trajectories": [0, 1], "pseudo_count": math.inf}, ValueError, r"pseudo_count: inf"),
        ({"trajectories": ["a", "z"], "state_names": ["a", "b"]}, ValueError, r"holds the state 'z'"),
        ({"trajectories": ["a", "b"], "state_names": ["a", "b", "a"]}, ValueError, "a name occurs twice"),
        ({"trajectories": [0, 2], "state_names": ["a", "b"]}, ValueError, "state_names: 2 is too small"),
    ],
)
def test_bad_trajectories(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        MarkovChain.from_trajectories(**arguments)
