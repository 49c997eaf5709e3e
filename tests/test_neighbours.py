"""Nearest neighbours: those of the full matrix, with few pairs solved."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from markovot import MarkovChain, SolveError, Status, costs
from markovot.datasets import load_mutag
from markovot.pairwise import distance_matrix, nearest_neighbours, neighbours
from markovot.transport.compiled import pairs

SETTING = {"cost": costs.ZeroOne(), "delta": 0.2, "epsilon": 0.01, "progress": False}


@pytest.fixture(scope="module")
def molecules():
    return load_mutag().chains[:60]


def by_the_matrix(value: np.ndarray, k: int, *, without_self: bool) -> np.ndarray:
    value = value.copy()
    if without_self:
        np.fill_diagonal(value, np.inf)
    return np.argsort(value, axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("epsilon", [0.0, 0.01])
@pytest.mark.parametrize("k", [1, 4])
def test_neighbours_among_themselves_are_those_of_the_matrix(molecules, k, epsilon):
    setting = SETTING | {"epsilon": epsilon}
    matrix = distance_matrix(molecules, **setting)
    found = nearest_neighbours(molecules, k=k, **setting)
    expected = by_the_matrix(matrix.value, k, without_self=True)
    np.testing.assert_array_equal(found.index, expected)
    np.testing.assert_array_equal(found.value, np.take_along_axis(matrix.value, expected, axis=1))
    np.testing.assert_array_equal(found.error_bound, np.take_along_axis(matrix.error_bound, expected, axis=1))
    assert (found.status == Status.CONVERGED).all()
    assert found.num_solved.mean() < 12


def test_neighbours_among_others_are_those_of_the_matrix(molecules):
    matrix = distance_matrix(molecules[:20], molecules[20:], **SETTING)
    found = nearest_neighbours(molecules[:20], molecules[20:], 3, **SETTING)
    np.testing.assert_array_equal(found.index, by_the_matrix(matrix.value, 3, without_self=False))
    assert found.num_solved.mean() < 20


@dataclass(frozen=True)
class Unknown(costs.Cost):
    """The same cost, of which nothing is known."""

    def __call__(self, fx, fy):
        return costs.ZeroOne()(fx, fy)


@pytest.mark.parametrize("cost", [costs.Euclidean(), costs.SquaredEuclidean(), costs.AbsoluteDifference(), Unknown()])
@pytest.mark.parametrize("k", [1, 3])
def test_any_cost(cost, k):
    generator = torch.Generator().manual_seed(5)
    chains = []
    for n in range(3, 15):
        weights = torch.rand(n, n, generator=generator, dtype=torch.float64) ** 4
        features = torch.rand(n, 2, generator=generator, dtype=torch.float64) + 0.2 * (n % 3)
        chains.append(MarkovChain.from_adjacency(weights, features=features, initial="uniform"))
    setting = SETTING | {"cost": cost}
    matrix = distance_matrix(chains, **setting)
    found = nearest_neighbours(chains, k=k, **setting)
    np.testing.assert_array_equal(found.index, by_the_matrix(matrix.value, k, without_self=True))


def test_one_given_matrix():
    generator = torch.Generator().manual_seed(5)
    rows = [torch.rand(4, 4, generator=generator, dtype=torch.float64) for _ in range(8)]
    chains = [MarkovChain.from_adjacency(row, initial="uniform") for row in rows]
    setting = SETTING | {"cost": costs.Given(1.0 - torch.eye(4, dtype=torch.float64))}
    matrix = distance_matrix(chains, **setting)
    found = nearest_neighbours(chains, **setting)
    np.testing.assert_array_equal(found.index, by_the_matrix(matrix.value, 1, without_self=True))


def test_identical_chains_are_each_others_neighbours_in_order(molecules):
    chains = [molecules[0], molecules[1], molecules[0], molecules[2], molecules[0]]
    found = nearest_neighbours(chains, k=3, **SETTING)
    np.testing.assert_array_equal(found.index[0, :2], [2, 4])
    np.testing.assert_array_equal(found.index[2, :2], [0, 4])
    np.testing.assert_array_equal(found.index[4, :2], [0, 2])
    matrix = distance_matrix(chains, **SETTING)
    np.testing.assert_array_equal(found.index, by_the_matrix(matrix.value, 3, without_self=True))


def test_all_references_in_order(molecules):
    found = nearest_neighbours(molecules[:2], molecules[2:8], 6, **SETTING)
    assert (np.sort(found.index, axis=1) == np.arange(6)).all()
    assert (np.diff(found.value, axis=1) >= 0).all()
    np.testing.assert_array_equal(found.num_solved, [6, 6])


def test_a_wrong_bound_would_be_seen(molecules, monkeypatch):
    """The tests above could not fail if pairs were never ruled out by their bounds."""
    real = neighbours.lower_bounds
    monkeypatch.setattr(neighbours, "lower_bounds", lambda *given: real(*given) + 0.05)
    matrix = distance_matrix(molecules, **SETTING)
    found = nearest_neighbours(molecules, **SETTING)
    assert (found.index != by_the_matrix(matrix.value, 1, without_self=True)).any()


def test_large_pairs_are_neighbours_too(molecules, monkeypatch):
    compiled = nearest_neighbours(molecules[:10], k=2, **SETTING)
    monkeypatch.setattr(pairs, "PAIR_ENTRIES", 0)
    alone = nearest_neighbours(molecules[:10], k=2, **SETTING)
    np.testing.assert_array_equal(alone.index, compiled.index)


def test_invalid_chains_are_named_and_nobodys_neighbours(molecules):
    chains = [*molecules[:4], torch.eye(3, dtype=torch.float64) * 2]
    with pytest.raises(SolveError, match=r"1 invalid, .*queries\[4\] \(transition: row 0 sums to 2") as caught:
        nearest_neighbours(chains, **SETTING)
    found = caught.value.solution
    assert found.index[4, 0] == -1
    assert np.isnan(found.value[4, 0])
    assert found.status[4, 0] == Status.INVALID
    np.testing.assert_array_equal(found.index[:4], nearest_neighbours(molecules[:4], **SETTING).index)
    quiet = nearest_neighbours(molecules[:2], chains, throw=False, **SETTING)
    assert set(quiet.invalid) == {("references", 4)}
    assert (quiet.index >= 0).all()


def test_what_did_not_converge_is_told(molecules):
    accuracy = {"rtol": 1e-9, "max_iter": 1}
    with pytest.raises(SolveError, match=r"5 distances did not converge; the first, of query 0 and reference \d"):
        nearest_neighbours(molecules[:5], **accuracy, **SETTING)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"debiased": True}, r"debiased: True, but lower bounds.*distance_matrix\(\.\.\., debiased=True\)"),
        ({"k": 0}, "k: 0 is not a number between 1 and 3"),
        ({"k": 4}, "k: 4 is not a number between 1 and 3"),
        ({"k": 1.5}, "k: expected an integer, got float"),
        ({"delta": 2.0}, "delta: 2 is outside"),
    ],
)
def test_bad_requests_are_refused(molecules, change, message):
    with pytest.raises((TypeError, ValueError), match=message):
        nearest_neighbours(molecules[:4], **SETTING | change)


def test_progress_is_shown_or_not(molecules, capsys):
    nearest_neighbours(molecules[:3], **SETTING)
    assert capsys.readouterr().err == ""
    nearest_neighbours(molecules[:3], **SETTING | {"progress": True})
    assert "3/3" in capsys.readouterr().err
