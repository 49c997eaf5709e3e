"""Features of states: numbers, vectors and labels, from networkx graphs and beside matrices."""

import math
import subprocess
import sys
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from torch import Tensor

from markovot.chains import MarkovChain, label_code

ROWS = torch.tensor([[0.0, 0.5, 0.5], [0.25, 0.75, 0.0], [1.0, 0.0, 0.0]], dtype=torch.float64)


def featured(values: list[Any]) -> nx.Graph:
    graph = nx.path_graph(len(values))
    nx.set_node_attributes(graph, dict(enumerate(values)), "f")
    return graph


def features_of(values: list[Any]) -> Tensor:
    features = MarkovChain.from_networkx(featured(values), features="f").features
    assert features is not None
    return features


def test_features_are_numbers_vectors_or_labels() -> None:
    assert torch.equal(features_of([1, 2.5, True, np.float32(3)]), torch.tensor([1, 2.5, 1, 3]).double())
    assert torch.equal(features_of([(1, 2), [3, 4]]), torch.tensor([[1, 2], [3, 4]]).double())
    assert torch.equal(features_of([np.array([1.0]), np.array([2.0])]), torch.tensor([[1], [2]]).double())
    labels = features_of(["C", "N", "C"])
    assert labels.dtype == torch.int64
    assert labels[0] == labels[2] != labels[1]


def test_labels_mean_the_same_in_every_graph() -> None:
    one, other = features_of(["N", "C"]), features_of(["O", "C", "Cl", "N"])
    assert one[1] == other[1]
    assert one[0] == other[3]
    assert len(set(other.tolist())) == 4


def test_codes_are_the_same_in_every_process_and_version() -> None:
    code = "from markovot.chains import label_code; print(label_code('C'), label_code(('C', 1)))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.split() == [str(label_code("C")), str(label_code(("C", 1)))]
    assert label_code("C") == -7559979751003468129  # a change would break stored features


def test_codes_tell_labels_apart() -> None:
    labels = [
        "",
        "1",
        b"1",
        None,
        ("1",),
        ("1", "1"),
        ("11",),
        (1,),
        (1.5,),
        (("1",), "1"),
        ("1", ("1",)),
        (True, None),
    ]
    assert len({label_code(label) for label in labels}) == len(labels)
    assert label_code((1,)) == label_code((1.0,)) == label_code((True,))
    assert label_code(np.str_("C")) == label_code("C")


def test_features_from_a_mapping_and_as_tensors_with_gradient() -> None:
    graph = nx.path_graph(["x", "y"])
    chain = MarkovChain.from_networkx(graph, features={"y": 2, "x": 1, "elsewhere": 7})
    assert chain.features.tolist() == [1, 2]
    leaf = torch.tensor([1.0, 2.0], requires_grad=True)
    chain = MarkovChain.from_networkx(graph, features={"x": leaf, "y": leaf * 3})
    chain.features.sum().backward()
    assert leaf.grad.tolist() == [4, 4]


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        (["C", 1], TypeError, r"'C' of node 0 is a label, but 1 of node 1 is a number"),
        ([1, [1.0]], TypeError, r"node 1 is a vector"),
        ([[1.0], [1.0, 2.0]], ValueError, r"node 0 has 1 components, that of node 1 2"),
        ([1.0, math.nan], ValueError, r"node 1 is nan"),
        ([2**53 + 1, 1], ValueError, r"9007199254740993 of node 0 has no exact float64.*'9007199254740993'"),
        ([2**80, 1], ValueError, r"of node 0 has no exact float64"),
        ([torch.tensor(2**53 + 1), torch.tensor(1)], ValueError, r"9007199254740993 of node 0 has no exact float64"),
        ([[1, 2], [1, -(2**53) - 1]], ValueError, r"-9007199254740993 of node 1 has no exact float64"),
        ([{"C"}, {"N"}], TypeError, r"\{'C'\} of type set is neither.*mapping"),
    ],
)
def test_bad_features(values: list[Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        features_of(values)


def test_missing_features_are_named() -> None:
    graph = featured([1, 2, 3])
    del graph.nodes[1]["f"]
    with pytest.raises(ValueError, match=r"attribute 'f' has no value for 1 of 3 nodes, the first of them 1"):
        MarkovChain.from_networkx(graph, features="f")
    with pytest.raises(ValueError, match=r"the mapping has no value for 2 of 3 nodes, the first of them 0"):
        MarkovChain.from_networkx(graph, features={1: 1.0})


def test_features_of_matrices() -> None:
    batch = ROWS.expand(2, 3, 3)

    def shape(rows: Tensor, features: Any) -> tuple[int, ...]:
        return tuple(MarkovChain.from_transitions(rows, features=features).features.shape)

    assert shape(ROWS, torch.arange(3)) == (3,)
    assert shape(ROWS, np.ones((3, 5))) == (3, 5)
    assert shape(ROWS, ["a", "b", "c"]) == (3,)
    assert shape(ROWS, np.array(["a", "b", "c"])) == (3,)
    assert shape(batch, torch.ones(2, 3)) == (2, 3)
    assert shape(batch, torch.ones(2, 3, 4)) == (2, 3, 4)
    assert shape(batch, torch.ones(3, 4)) == (2, 3, 4)  # shared by the chains of the batch
    for features, message in (
        (torch.ones(4), r"features: shape \(4,\) does not fit \(3,\)"),
        (["a"], r"features: there are 1 for 3 states"),
        (torch.tensor([1.0, math.inf, 0.0]), r"features: entry \(1,\) is inf"),
    ):
        with pytest.raises(ValueError, match=message):
            shape(ROWS, features)
    with pytest.raises(TypeError, match=r"features: expected .* got int"):
        shape(ROWS, 3)
    with pytest.raises(ValueError, match="state_names: there are 2 names for 3 states"):
        MarkovChain.from_transitions(ROWS, state_names=["a", "b"])
