"""Distances as other libraries take them."""

import dataclasses
import functools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from markovot import costs, datasets, discounted_wl
from markovot.analysis import similarity
from markovot.analysis.classification import NestedCV, nested_accuracy
from markovot.analysis.groups import compare_groups
from markovot.pairwise import distance_matrix


@functools.cache
def few():
    """Debiased distances of molecules, some of them equal but for the names of their atoms, all a little lowered."""
    mutag = datasets.load_mutag()
    chains = [mutag.chains[number] for number in (0, 0, 1, 1, 2, 2, 3, 3)]
    setting = {"cost": costs.ZeroOne(), "delta": 0.2, "epsilon": 0.05}
    found = distance_matrix(chains, debiased=True, progress=False, **setting)
    off = np.where(np.eye(len(chains), dtype=bool), 0.0, 1e-6)
    return dataclasses.replace(found, value=found.value - off), ["a", "b"] * 4, chains, setting


def test_other_libraries_take_dissimilarities():
    found = few()[0]
    apart = similarity.dissimilarities(found)
    assert (found.value < 0).sum() >= 8
    assert_allclose(apart, np.maximum(found.value, 0.0), rtol=0, atol=1e-15)
    leaves_list(linkage(squareform(apart), "average", optimal_ordering=True))
    neighbors = pytest.importorskip("sklearn.neighbors")
    machine = neighbors.KNeighborsClassifier(1, metric="precomputed")
    machine.fit(apart, few()[1]).predict(apart)
    # What they say of the distances themselves, which is why.
    with pytest.raises(ValueError, match="negative distances"):
        leaves_list(linkage(squareform(found.value), "average"))
    with pytest.raises(ValueError, match="Negative values in data passed to X"):
        machine.fit(found.value, few()[1])


def test_they_are_symmetric_with_a_diagonal_of_zeros_and_the_given_matrix_is_kept():
    given = np.array([[0.3, 1.0, -2e-18], [1.0002, 0.2, 2.0], [-2e-18, 2.0, np.float64(0.1)]])
    before = given.copy()
    assert_allclose(similarity.dissimilarities(given), [[0, 1.0001, 0], [1.0001, 0, 2], [0, 2, 0]], rtol=1e-15)
    assert_array_equal(given, before)
    with pytest.raises(ValueError, match="distances: NaN or infinity in row 0"):
        similarity.dissimilarities([[np.nan, 1.0], [1.0, 0.0]])
    with pytest.raises(ValueError, match=r"distances: shape \(1, 2\) is not that of a square matrix"):
        similarity.dissimilarities([[1.0, 2.0]])


def test_only_so_much_below_zero_counts_as_zero():
    given = np.array([-1.0, -0.1, -0.0, 0.5, np.nan])
    assert_array_equal(similarity.nonnegative(given), [0.0, 0.0, 0.0, 0.5, np.nan])
    assert_array_equal(similarity.nonnegative(given, 0.2), [-1.0, 0.0, 0.0, 0.5, np.nan])


def test_whatever_takes_distances_takes_those_below_zero(tmp_path):
    found, labels, chains, setting = few()
    zero = np.maximum(found.value, 0.0)
    assert compare_groups(found, labels) == compare_groups(zero, labels)
    pytest.importorskip("sklearn")
    protocol = NestedCV(folds=2, inner_folds=2, debiased=(False,))
    for method in ("knn", "svm"):
        given, clipped = (
            nested_accuracy({"one": matrix}, labels, method=method, protocol=protocol, progress=False)
            for matrix in (found.value, zero)
        )
        assert_array_equal(given.accuracy, clipped.accuracy)
    pytest.importorskip("plotly")
    from markovot.report import write_report

    solve = functools.partial(discounted_wl, **setting)
    write_report(found, tmp_path / "page.html", chains=chains, solve=solve, targets=labels, progress=False)
