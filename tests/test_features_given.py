"""What users give as features and weights: every container, missing values, odd dtypes, names that are not there."""

import math
from typing import Any

import networkx as nx
import numpy as np
import pandas
import pytest
import torch
from torch import Tensor

from markovot.chains import MarkovChain, label_code

ROWS = torch.full((3, 3), 1 / 3, dtype=torch.float64)


def features_of(values: list[Any]) -> Tensor:
    graph = nx.path_graph(len(values))
    nx.set_node_attributes(graph, dict(enumerate(values)), "f")
    return MarkovChain.from_networkx(graph, features="f").features


def features_beside(values: list[Any]) -> Tensor:
    return MarkovChain.from_transitions(ROWS, features=values).features


def test_features_of_nodes_in_every_container() -> None:
    graph = nx.star_graph(["c", "a", "b"])
    nx.set_node_attributes(graph, {"c": 2, "a": 1, "b": 1}, "d")
    for features in (
        "d", dict(graph.degree), graph.degree, graph.degree(), graph.nodes(data="d"), dict(graph.degree).items(),
        [2, 1, 1], np.array([2.0, 1.0, 1.0]), torch.tensor([2.0, 1.0, 1.0]).double(),
        pandas.Series({"a": 1, "b": 1, "c": 2}),
    ):  # fmt: skip
        assert MarkovChain.from_networkx(graph, features=features).features.tolist() == [2, 1, 1]
    for features, error, message in (
        ([1, 2], ValueError, "there are 2 for 3 states"),
        (np.ones(4), ValueError, r"shape \(4,\) does not fit"),
        (list(graph.degree), ValueError, r"list of pairs .*dict\(features\)"),
        (pandas.Series([1, 2, 3]), ValueError, "the mapping has no value for 3 of 3 nodes"),
        (pandas.Series([1, 2, 3], index=["a", "a", "b"]), ValueError, "names a node twice"),
        (graph.degree(["a"]), ValueError, "has no value for 2 of 3 nodes"),
        (lambda node: 1, TypeError, r"got function.*f\(node\) for node in graph"),
        ((k for k in range(3)), TypeError, r"got generator.*dict\(zip"),
        ({1, 2, 3}, TypeError, "got set"),
        (frozenset("abc"), TypeError, "got frozenset"),
        (pandas.DataFrame({"d": [1, 2, 3]}), TypeError, "got DataFrame"),
        ("degree", ValueError, "attribute 'degree' has no value for 3 of 3 nodes"),
        ((1, 2, 3), ValueError, "has no value for 3 of 3 nodes"),
        (graph.nodes, TypeError, "of type dict is neither"),
    ):
        with pytest.raises(error, match=message):
            MarkovChain.from_networkx(graph, features=features)


@pytest.mark.parametrize("missing", [None, math.nan, np.float32("nan"), pandas.NA, pandas.NaT, np.datetime64("NaT")])
def test_a_missing_value_is_no_label(missing: Any) -> None:
    for values in (["C", missing, "N"], [1.0, missing, 2.0], [("C", 1), ("C", missing), ("N", 1)]):
        for call in (features_of, features_beside):
            with pytest.raises(ValueError, match=r"that of node 1 is .*, a missing value.*'missing'"):
                call(values)
        objects = np.empty(3, dtype=object)
        objects[:] = values
        with pytest.raises(ValueError, match=r"that of node 1 is .*, a missing value"):
            MarkovChain.from_transitions(ROWS, features=objects)


def test_masked_features_are_missing() -> None:
    for masked in (np.ma.array([1, 2, 3], mask=[0, 1, 0]), np.ma.array(["a", "b", "c"], mask=[0, 1, 0])):
        with pytest.raises(ValueError, match=r"features: 1 of its 3 entries are masked.*filled"):
            MarkovChain.from_transitions(ROWS, features=masked)
    with pytest.raises(ValueError, match=r"nan in a label is a missing value"):
        label_code(("C", math.nan))


@pytest.mark.parametrize(
    ("given", "kept"),
    [(torch.float16, torch.float32), (torch.bfloat16, torch.float32), (torch.uint16, torch.int64),
     (torch.uint64, torch.int64), (torch.bool, torch.bool), (torch.int32, torch.int32)],
)  # fmt: skip
def test_features_are_held_in_a_dtype_that_compares_exactly(given: torch.dtype, kept: torch.dtype) -> None:
    found = MarkovChain.from_transitions(ROWS, features=torch.tensor([1, 0, 1]).to(given)).features
    assert (found.dtype, found.tolist()) == (kept, [1, 0, 1])


def test_arrays_of_every_layout_are_features_and_odd_dtypes_are_refused() -> None:
    wanted = [3.0, 2.0, 1.0]
    for kind in (">f8", "f2", "u8", ">i2"):
        assert features_beside(np.array([1, 2, 3], kind)[::-1]).tolist() == wanted
    for features in (np.array([[1.0], [2.0], [3.0]], order="F")[::-1, 0],):
        assert MarkovChain.from_transitions(ROWS, features=features).features.tolist() == wanted
    for features, message in (
        (np.array(wanted, np.longdouble), "dtype float128|dtype longdouble"),
        (np.zeros(3, "M8[D]"), "dtype datetime64"),
        (torch.zeros(3).to(torch.float8_e4m3fn), "dtype torch.float8_e4m3fn is not supported"),
        (torch.zeros(3, dtype=torch.complex64), "real and imaginary"),
        (pandas.Series(wanted), r"got Series.*\.tolist\(\)"),
    ):
        with pytest.raises(TypeError, match=message):
            MarkovChain.from_transitions(ROWS, features=features)
    with pytest.raises(TypeError, match="18446744073709551615 does not fit into int64"):
        MarkovChain.from_transitions(ROWS, features=np.array([0, 2**64 - 1, 1], np.uint64))


def test_a_weight_that_no_edge_has_is_refused() -> None:
    graph = nx.Graph([("a", "b", {"weight": 2.0}), ("a", "c", {"w": 1.0})])
    assert MarkovChain.from_networkx(nx.path_graph(3)).num_states == 3  # the default name may be absent
    assert MarkovChain.from_networkx(nx.empty_graph(2), weight="w").num_states == 2
    assert MarkovChain.from_networkx(graph, weight="w").num_states == 3
    for weight, error, message in (
        ("wieght", ValueError, "no edge has an attribute 'wieght', only 'w', 'weight'"),
        (2, ValueError, "no edge has an attribute 2"),
        (True, TypeError, "name of an edge attribute, or None, got bool"),
        (False, TypeError, "got bool"),
        (["weight"], TypeError, "expected a name, got list"),
        ({("a", "b"): 1.0}, TypeError, "expected a name, got dict"),
        (lambda u, v, data: 1.0, ValueError, "no edge has an attribute <function"),
    ):
        with pytest.raises(error, match=message):
            MarkovChain.from_networkx(graph, weight=weight)
    with pytest.raises(ValueError, match=r"'weight' = inf, which is not finite"):
        MarkovChain.from_networkx(nx.Graph([(0, 1, {"weight": 10**400})]))
