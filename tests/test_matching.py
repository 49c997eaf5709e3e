"""Hard matchings from soft alignments: optimal, blind to padding, and right about relabelled real graphs."""

import csv
import io
import itertools
import math
import zipfile
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor

from markovot import MarkovChain, costs, debiased, discounted_wl, horizon_wl, optimal_transition_coupling
from markovot.analysis.matching import Matching, accuracy, descriptors, disagreement, match

SETTING = {"delta": 0.1, "epsilon": 0.01}


def some_mass(n: int, m: int, seed: int) -> Tensor:
    mass = torch.rand(n, m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) ** 4
    return mass / mass.sum()


def shares(mass: np.ndarray) -> np.ndarray:
    """The scores by their definition, pair by pair."""
    found = np.zeros_like(mass)
    for i, j in np.ndindex(mass.shape):
        of_x, of_y = mass[i].sum(), mass[:, j].sum()
        found[i, j] = math.sqrt(mass[i, j] / of_x * mass[i, j] / of_y) if mass[i, j] else 0.0
    return found


def relabelled(weights: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The graph with its nodes in another order, and where each node went."""
    order = np.random.default_rng(seed).permutation(len(weights))
    return weights[np.ix_(order, order)], np.argsort(order)


def without_edges(weights: np.ndarray, share: float, seed: int) -> np.ndarray:
    symmetric = np.array_equal(weights, weights.T)
    left = np.triu(weights) if symmetric else weights.copy()
    sources, targets = np.nonzero(left)
    gone = np.random.default_rng(seed).permutation(len(sources))[: round(share * len(sources))]
    left[sources[gone], targets[gone]] = 0
    return np.maximum(left, left.T) if symmetric else left


def walks(one: np.ndarray, other: np.ndarray) -> tuple[MarkovChain, MarkovChain]:
    features = descriptors(one, other)
    return (
        MarkovChain.from_adjacency(one, features=features[0]),
        MarkovChain.from_adjacency(other, features=features[1]),
    )


def is_isomorphism(found: Matching, one: np.ndarray, other: np.ndarray) -> bool:
    return np.array_equal(one[np.ix_(found.rows, found.rows)], other[np.ix_(found.columns, found.columns)])


# --- the assignment


@pytest.mark.parametrize(("n", "m"), [(4, 4), (3, 5), (5, 3), (1, 1)])
@pytest.mark.parametrize("seed", range(7))
def test_no_other_matching_has_a_larger_product_of_scores(n: int, m: int, seed: int) -> None:
    mass = some_mass(n, m, seed)
    found = match(mass)
    score = shares(mass.numpy())
    k = min(n, m)
    small, large = (score, m) if n <= m else (score.T, n)
    best = max(
        math.prod(small[i, j] for i, j in enumerate(chosen)) for chosen in itertools.permutations(range(large), k)
    )
    assert len(found) == k == len(set(found.rows)) == len(set(found.columns))
    assert (np.diff(found.rows) > 0).all()
    np.testing.assert_allclose(found.scores, score[found.rows, found.columns], rtol=1e-12)
    assert math.prod(found.scores) == pytest.approx(best)
    assert found.score == pytest.approx(found.scores.mean())
    assert found.names is None


def test_scores_are_one_for_a_permutation_however_rare_the_states() -> None:
    order = [2, 0, 3, 1]
    mass = np.zeros((4, 4))
    mass[range(4), order] = [0.9, 0.0999, 1e-4, 1e-9]
    found = match(mass / mass.sum())
    assert found.columns.tolist() == order
    np.testing.assert_allclose(found.scores, 1.0, rtol=1e-12)
    assert found.score == pytest.approx(1.0)


def test_rare_states_count_as_much_as_frequent_ones() -> None:
    # By mass alone, (0, 0), (1, 1) is the better of the two: 0.5 + 0.008 against 0.4 + 0.09.
    mass = np.array([[0.5, 0.4], [0.09, 0.008]])
    assert match(mass).columns.tolist() == [1, 0]
    one_sided = match(np.array([[0.25, 0.25], [0.0, 0.5]]))
    assert one_sided.columns.tolist() == [0, 1]
    np.testing.assert_allclose(one_sided.scores, [math.sqrt(0.5), 0.5 / math.sqrt(0.5 * 0.75)])


def test_states_that_are_never_visited_get_what_is_left() -> None:
    mass = torch.tensor([[0.5, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.5, 0.0]])
    found = match(mass)
    assert found.columns.tolist() == [0, 2, 1]
    np.testing.assert_allclose(found.scores, [1.0, 0.0, 1.0], rtol=1e-12)


# --- what has an alignment


@pytest.mark.parametrize("epsilon", [0.0, 0.01])
def test_every_member_of_the_family(epsilon: float) -> None:
    weights = nx.to_numpy_array(nx.karate_club_graph())
    moved, truth = relabelled(weights, 0)
    x, y = walks(weights, moved)
    cost = costs.Euclidean()
    found = [
        discounted_wl(x, y, cost, delta=0.1, epsilon=epsilon),
        discounted_wl(x, y, cost, delta=0.1, epsilon=epsilon, depth=3),
        horizon_wl(x, y, cost, law=torch.tensor([0.5, 0.5]).double(), epsilon=epsilon),
        optimal_transition_coupling(x, y, cost, epsilon=epsilon),
    ]
    for solution in found:
        assert accuracy(match(solution), truth) == 1.0, type(solution)
    assert accuracy(match(debiased(discounted_wl, x, y, cost, delta=0.1, epsilon=0.01)), truth) == 1.0


def test_names() -> None:
    graph = nx.path_graph(["a", "b", "c"])
    x = MarkovChain.from_networkx(graph, features={"a": 0.0, "b": 1.0, "c": 2.0})
    y = MarkovChain.from_adjacency(nx.to_numpy_array(graph), features=torch.tensor([2.0, 1.0, 0.0]).double())
    assert match(discounted_wl(x, y, costs.Euclidean(), **SETTING)).names == [("a", 2), ("b", 1), ("c", 0)]
    assert match(discounted_wl(y, x, costs.Euclidean(), **SETTING)).names == [(0, "c"), (1, "b"), (2, "a")]
    assert match(discounted_wl(y, y, costs.Euclidean(), **SETTING)).names is None
    batch = discounted_wl([x, x], y, costs.Euclidean(), **SETTING)
    assert match(batch, 1).names == [("a", 2), ("b", 1), ("c", 0)]


@pytest.mark.parametrize("epsilon", [0.0, 0.01])
def test_padded_states_are_never_matched(epsilon: float) -> None:
    sizes_x, sizes_y = (4, 6, 3), (5, 5, 7)
    xs, ys = (
        [
            MarkovChain.from_networkx(
                nx.path_graph(n), features={k: float(k * (k + 1 + shift)) for k in range(n)}, laziness=0.1
            )
            for n in sizes
        ]
        for shift, sizes in ((0, sizes_x), (1, sizes_y))
    )
    together = discounted_wl(
        MarkovChain.stack(xs), MarkovChain.stack(ys), costs.Euclidean(), delta=0.2, epsilon=epsilon
    )
    runs = optimal_transition_coupling(MarkovChain.stack(xs), MarkovChain.stack(ys), costs.Euclidean(), epsilon=epsilon)
    for k, (x, y) in enumerate(zip(xs, ys, strict=True)):
        found = match(together, k)
        alone = match(discounted_wl(x, y, costs.Euclidean(), delta=0.2, epsilon=epsilon))
        assert len(found) == min(sizes_x[k], sizes_y[k])
        assert found.rows.max() < sizes_x[k]
        assert found.columns.max() < sizes_y[k]
        np.testing.assert_array_equal(found.rows, alone.rows)
        np.testing.assert_array_equal(found.columns, alone.columns)
        np.testing.assert_allclose(found.scores, alone.scores, rtol=1e-3, atol=1e-4)
        long = match(runs, k)
        assert len(long) == min(sizes_x[k], sizes_y[k])
        assert long.rows.max() < sizes_x[k]
        assert long.columns.max() < sizes_y[k]


def test_items_of_broadcast_batches() -> None:
    xs = [MarkovChain.from_networkx(nx.path_graph(n), features=dict.fromkeys(range(n), 0.0)) for n in (2, 5)]
    ys = [MarkovChain.from_networkx(nx.path_graph(n), features=dict.fromkeys(range(n), 0.0)) for n in (3, 4, 6)]
    x, y = MarkovChain.stack(xs), MarkovChain.stack(ys)
    grid = MarkovChain(
        x.to_dense().transition[:, None], initial="uniform", features=x.features[:, None], sizes=x.sizes[:, None]
    )
    solution = discounted_wl(grid, y, costs.Euclidean(), **SETTING)
    assert solution.value.shape == (2, 3)
    found = [len(match(solution, k)) for k in range(6)]
    assert found == [min(n, m) for n in (2, 5) for m in (3, 4, 6)]


# --- real graphs, relabelled


def macaque(folder: Path) -> np.ndarray:
    with zipfile.ZipFile(folder / "markov" / "IGRAPHDATA.zip") as archive:
        text = archive.read("IGRAPHDATA/macaque_edges.csv").decode()
    edges = np.array([[int(row["source"]), int(row["target"])] for row in csv.DictReader(io.StringIO(text))])
    weights = np.zeros((edges.max() + 1,) * 2)
    weights[edges[:, 0], edges[:, 1]] = 1
    return weights


def connectome(folder: Path) -> np.ndarray:
    """Structural, 100 parcels. Negative entries (the logarithm of a tiny count) are no ties: they are set to zero."""
    with zipfile.ZipFile(folder / "markov" / "HCP_GROUP_CONNECTOME.zip") as archive:
        text = archive.read("HCP_GROUP_CONNECTOME/strucMatrix_ctx_schaefer_100.csv").decode()
    weights = np.maximum(np.loadtxt(io.StringIO(text), delimiter=","), 0.0)
    np.fill_diagonal(weights, 0.0)
    return weights


@pytest.mark.parametrize("epsilon", [0.0, 0.01])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("seed", [0, 1])
def test_karate_club(epsilon: float, weighted: bool, seed: int) -> None:
    weights = nx.to_numpy_array(nx.karate_club_graph(), weight="weight" if weighted else None)
    moved, truth = relabelled(weights, seed)
    found = match(discounted_wl(*walks(weights, moved), costs.Euclidean(), delta=0.1, epsilon=epsilon))
    if weighted:  # no two members are alike
        assert accuracy(found, truth) == 1.0
        assert is_isomorphism(found, weights, moved)
        assert found.score > 0.9
    else:  # five members know the same two people and nobody else, and there are more who may be exchanged
        kind = orbits(nx.from_numpy_array(weights))
        assert len(set(kind)) == 27
        assert accuracy(found, truth, classes=[kind[k] for k in np.argsort(truth)]) == 1.0


def orbits(graph: nx.Graph) -> list[int]:
    """For each node, the least of those that an automorphism takes it to."""
    least = list(graph)
    for automorphism in nx.isomorphism.GraphMatcher(graph, graph).isomorphisms_iter():
        for node, image in automorphism.items():
            least[node] = min(least[node], image)
    return least


@pytest.mark.parametrize("seed", [0, 1])
def test_macaque_cortex(shared_data: Path, seed: int) -> None:
    weights = macaque(shared_data)
    assert not np.array_equal(weights, weights.T)
    moved, truth = relabelled(weights, seed)
    x, y = walks(weights, moved)
    assert x.features.shape == (45, 5)
    assert accuracy(match(discounted_wl(x, y, costs.Euclidean(), **SETTING)), truth) == 1.0


def test_connectome_of_a_hundred_parcels(shared_data: Path) -> None:
    weights = connectome(shared_data)
    moved, truth = relabelled(weights, 0)
    found = match(discounted_wl(*walks(weights, moved), costs.Euclidean(), **SETTING))
    assert len(found) == 100
    assert accuracy(found, truth) == 1.0


def test_accuracy_falls_gently_with_edges_and_a_second_look_helps() -> None:
    weights = nx.to_numpy_array(nx.karate_club_graph())
    first, second = [], []
    for share in (0.0, 0.1, 0.2):
        of_first, of_second = [], []
        for seed in range(4):
            moved, truth = relabelled(without_edges(weights, share, seed), seed)
            x, y = walks(weights, moved)
            found = match(discounted_wl(x, y, costs.Euclidean(), **SETTING))
            of_first.append(accuracy(found, truth))
            again = discounted_wl(x, y, disagreement(x, y, found), delta=0.1, epsilon=0.003)
            of_second.append(accuracy(match(again), truth))
        first.append(np.mean(of_first))
        second.append(np.mean(of_second))
    assert first[0] == second[0] == 1.0
    assert 1.0 > first[1] > 0.85
    assert first[1] > first[2] > 0.7
    assert second[1] > first[1]
    assert second[2] > first[2] + 0.05


# --- disagreement


def test_disagreement_against_loops() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.random((4, 4)), rng.random((6, 6))
    x, y = MarkovChain.from_adjacency(one), MarkovChain.from_adjacency(scipy.sparse.csr_array(other))
    found = match(some_mass(4, 6, 1))
    rows, right = (chain.to_dense().transition.numpy() for chain in (x, y))
    expected = np.zeros((4, 6))
    for i, j in np.ndindex(4, 6):
        shared = sum(abs(rows[i, k] - right[j, partner]) for k, partner in zip(found.rows, found.columns, strict=True))
        alone = sum(right[j, partner] for partner in range(6) if partner not in found.columns)
        expected[i, j] = (shared + alone) / 2
    computed = disagreement(x, y, found)
    np.testing.assert_allclose(computed, expected, rtol=1e-12)
    turned = Matching(*(part[np.argsort(found.columns)] for part in (found.columns, found.rows, found.scores)))
    torch.testing.assert_close(disagreement(y, x, turned), computed.T)
    assert computed.min() >= 0
    assert computed.max() <= 1


def test_disagreement_is_zero_along_an_isomorphism_and_keeps_the_dtype() -> None:
    weights = nx.to_numpy_array(nx.karate_club_graph())
    moved, truth = relabelled(weights, 3)
    x, y = (MarkovChain.from_adjacency(w).to(torch.float32) for w in (weights, moved))
    found = Matching(np.arange(34), truth, np.ones(34))
    cost = disagreement(x, y, found)
    assert cost.dtype == torch.float32
    np.testing.assert_allclose(cost[np.arange(34), truth], 0.0, atol=1e-6)
    assert not cost.requires_grad


# --- descriptors


def test_descriptors_against_their_definition() -> None:
    one = np.array([[0.0, 2.0, 0.0], [1.0, 0.0, 3.0], [0.0, 0.0, 0.0]])
    other = np.array([[1.0, 1.0], [0.5, 0.0]])
    found = descriptors(one, other, steps=3)
    plain = []
    for weights in (one, other):
        rows = weights / np.maximum(weights.sum(1, keepdims=True), 1e-300)
        rows[weights.sum(1) == 0] = np.eye(len(weights))[weights.sum(1) == 0]
        square = rows @ rows
        parts = [np.log1p(weights.sum(1)), np.log1p(weights.sum(0)), np.diag(square), np.diag(square @ rows)]
        plain.append(np.stack(parts, 1))
    nodes = np.concatenate(plain)
    for computed, raw in zip(found, plain, strict=True):
        np.testing.assert_allclose(computed, (raw - nodes.mean(0)) / nodes.std(0), rtol=1e-12)
    for form in (torch.from_numpy, scipy.sparse.csr_array, lambda w: torch.from_numpy(w).to_sparse()):
        again = descriptors(form(one), form(other), steps=3)
        for computed, expected in zip(again, found, strict=True):
            torch.testing.assert_close(computed, expected)


def test_descriptors_of_symmetric_graphs_and_of_graphs_without_differences() -> None:
    path = nx.to_numpy_array(nx.path_graph(4))
    assert descriptors(path, steps=1)[0].shape == (4, 1)
    assert descriptors(path, path)[1].shape == (4, 4)
    assert descriptors(path.astype(int))[0].dtype == torch.float64
    ring = descriptors(nx.to_numpy_array(nx.cycle_graph(5)))[0]
    np.testing.assert_allclose(ring, 0.0, atol=1e-12)


# --- accuracy


def test_accuracy_counts_true_pairs() -> None:
    found = Matching(np.array([0, 1, 3]), np.array([1, 0, 2]), np.ones(3))
    assert accuracy(found, [1, 0, 3, 2]) == 0.75  # state 2 of x was not matched
    assert accuracy(found, torch.tensor([1, 2, -1, 0])) == pytest.approx(1 / 3)
    assert accuracy(found, np.array([1, 2, -1, 0]), classes=["a", "b", "a", "b"]) == 1.0
    assert accuracy(found, np.array([1, 2, -1, 0]), classes=["a", "b", "b", "b"]) == pytest.approx(1 / 3)


# --- bad input


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: match("plan"), TypeError, "solution: str has no alignment. Give what discounted_wl"),
        (lambda: match(torch.ones(3)), ValueError, r"solution: a soft matching has shape \(n, m\), got \(3,\)"),
        (lambda: match(torch.ones(2, 3, 3)), ValueError, r"item: the solution is of a batch of shape \(2,\)"),
        (lambda: match(torch.ones(2, 3, 3), 2), IndexError, "item: no item 2 in a batch of 2"),
        (lambda: match(torch.ones(2, 3, 3), -1), IndexError, "item: no item -1"),
        (lambda: match(torch.ones(2, 3, 3), True), TypeError, "item: expected an integer, got bool"),
        (lambda: match(torch.ones(2, 3, 3), 0.5), TypeError, "item: expected an integer, got float"),
        (lambda: match(torch.tensor([[1.0, math.nan]])), ValueError, r"entry \(0, 1\) of the alignment is nan"),
        (lambda: match(torch.tensor([[1.0], [-1.0]])), ValueError, r"entry \(1, 0\) of the alignment is -1"),
        (lambda: match(torch.zeros(2, 2)), ValueError, r"the alignment has shape \(2, 2\) and no mass"),
        (lambda: descriptors(), ValueError, "adjacencies: there are none"),
        (lambda: descriptors(np.ones((2, 3))), ValueError, r"adjacencies: number 0: shape \(2, 3\)"),
        (lambda: descriptors(np.ones((2, 3, 3))), ValueError, r"number 0: shape \(2, 3, 3\) is that of a batch"),
        (lambda: descriptors(np.eye(2), -np.eye(2)), ValueError, r"number 1: entry \(0, 0\) is -1.0"),
        (lambda: descriptors([[1.0]]), TypeError, "number 0: expected a torch tensor or a NumPy array, got list"),
        (lambda: descriptors(np.eye(2), steps=0), ValueError, "steps: 0 is less than 1"),
        (lambda: descriptors(np.eye(2), steps=2.0), TypeError, "steps: expected an integer, got float"),
    ],
)
def test_bad_input(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("truth", "classes", "error", "message"),
    [
        ([0.5, 1.0], None, TypeError, r"truth: expected integers \(n,\), one for each state of x, got float64"),
        ([[0, 1]], None, TypeError, "truth: expected integers"),
        ([0], None, ValueError, "truth: it has 1 entries, but state 1 of x is matched"),
        ([-1, -1], None, ValueError, "truth: no state of x has a partner"),
        ([0, 1], ["a"], ValueError, "classes: there are 1, but there is a state 1 of y"),
    ],
)
def test_bad_truth(truth: Any, classes: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        accuracy(match(torch.eye(2)), truth, classes=classes)


def test_bad_disagreement() -> None:
    x = MarkovChain.from_transitions(torch.full((3, 3), 1 / 3, dtype=torch.float64))
    small = MarkovChain.from_transitions(torch.full((2, 2), 0.5).double())
    found = match(torch.eye(3))
    for arguments, error, message in (
        ((np.eye(3), x, found), TypeError, "x: expected a MarkovChain, got ndarray"),
        ((x, MarkovChain.stack([x, x]), found), ValueError, r"y: expected a single chain, got a batch of shape \(2,\)"),
        ((x, x, [0, 1, 2]), TypeError, "matching: expected what match returns, got list"),
        ((x, small, found), ValueError, "matching: it matches state 2 of y, which has 2 states"),
        ((x, x.to(torch.float32), found), TypeError, r"x: dtype torch\.float64 is not that of y, torch\.float32"),
    ):
        with pytest.raises(error, match=message):
            disagreement(*arguments)
