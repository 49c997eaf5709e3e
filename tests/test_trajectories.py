"""What is taken for a trajectory, and what for a state: never merged, never split, never made of missing values."""

import math
from collections import deque
from typing import Any

import networkx as nx
import numpy as np
import pandas
import pytest
import torch

from interop_checks import dense
from markovot.chains import MarkovChain

FRAME = pandas.DataFrame({"who": [1, 1, 2, 2], "state": ["a", "b", "b", "a"]})


def states(trajectories: Any, **options: Any) -> Any:
    chain = MarkovChain.from_trajectories(trajectories, initial="uniform", **options)
    return chain.state_names or chain.num_states


def test_every_container_of_states_is_read_alike() -> None:
    wanted = dense(MarkovChain.from_trajectories([0, 1, 1, 2, 0]))
    path = [0, 1, 1, 2, 0]
    for same in (
        tuple(path), deque(path), iter(path), np.array(path), np.array(path, dtype=object), np.array(path, np.uint64),
        torch.tensor(path), list(torch.tensor(path)), [np.array(k) for k in path], pandas.Series(path),
        pandas.Series(path, dtype="Int64"), pandas.Index(path), [path], [pandas.Series(path)], [torch.tensor(path)],
        np.array([path]), dict.fromkeys("a", path).values(), (x for x in [path]), [np.array(path), np.zeros(0)],
    ):  # fmt: skip
        torch.testing.assert_close(dense(MarkovChain.from_trajectories(same)), wanted)
    names = ["b", "a", "b"]
    for same in (np.array(names), pandas.Series(names), pandas.Series(names, dtype="category"), [np.array(names)]):
        assert states(same) == ["a", "b"]
        assert type(states(same)[0]) is str
    ragged = np.array([[0, 1], [1, 0, 1]], dtype=object)
    assert states(ragged) == 2
    assert states([part.tolist() for _, part in FRAME.groupby("who")["state"]]) == ["a", "b"]


def test_words_are_states_and_are_never_split() -> None:
    assert states(["sun", "rain", "sun"]) == ["rain", "sun"]
    assert states([["sun", "rain"]]) == states(["sun", "rain"], state_names=["rain", "sun"]) == ["rain", "sun"]
    assert states(["a", "b", "c"]) == ["a", "b", "c"]
    assert states([list(word) for word in ("abba", "cab")]) == ["a", "b", "c"]
    with pytest.raises(ValueError, match=r"\['hello', 'world'\] could be one trajectory.*\[words\].*\[list\(word\)"):
        states(["hello", "world"])


@pytest.mark.parametrize("missing", [None, math.nan, np.float32("nan"), pandas.NA, pandas.NaT, np.ma.masked])
def test_missing_values_are_no_states(missing: Any) -> None:
    for path in (["a", missing, "b"], [["b", "b"], ["a", missing]], [0, missing, 1], np.array(["a", missing], object)):
        with pytest.raises(ValueError, match=r"number [01] holds .* at place 1, a missing value.*'missing'"):
            states(path)


def test_missing_values_of_columns_and_arrays_are_no_states() -> None:
    for path in (
        pandas.Series(["a", None, "b"]), pandas.Series(["a", None], dtype="category"), np.array([0.0, np.nan]),
        pandas.Series([0, None], dtype="Int64"), [pandas.Series([0, 1]), pandas.Series([0, None])],
    ):  # fmt: skip
        with pytest.raises(ValueError, match="at place 1, a missing value"):
            states(path)
    with pytest.raises(ValueError, match="some states are masked"):
        states(np.ma.array([0, 1, 2], mask=[False, True, False]))
    with pytest.raises(TypeError, match="number 1 is None, a missing value among trajectories"):
        states([[0, 1], None])


@pytest.mark.parametrize(
    ("trajectories", "error", "message"),
    [
        (["1", 2, "1", 1], TypeError, r"'1', a name, and the state 2, an integer"),
        ([["a", "b"], [0, 1]], TypeError, r"number 0 holds the state 'a', a name, but number 1 the state 0"),
        ([0, True], TypeError, r"holds True of type bool"),
        ([0, 1.0], TypeError, r"the state 1\.0.*integers or names"),
        ([[1.5]], TypeError, r"the state 1\.5"),
        (np.array([True, False]), TypeError, "dtype bool"),
        (np.array(["2020-01-01"], "datetime64[D]"), TypeError, "dtype datetime64"),
        ([pandas.Timestamp(0)], TypeError, r"of type Timestamp.*str\(state\)"),
        (torch.tensor([0.0, 1.0], requires_grad=True), TypeError, "dtype torch.float32"),
        (torch.ones(2, dtype=torch.bfloat16), TypeError, "dtype torch.bfloat16"),
        (torch.eye(2, dtype=torch.int64).to_sparse(), TypeError, "layout torch.sparse_coo"),
        (np.array(3), TypeError, r"shape \(\)"),
        (3, TypeError, "got int"),
        ([(0, 1), (1, 2)], TypeError, r"tuple \(0, 1\), which could be a trajectory or a state"),
        (zip("ab", "bc", strict=True), TypeError, "could be a trajectory or a state"),
        ([[(0, 1), (1, 2)]], ValueError, r"shape \(2, 2\): at place 0 it holds \(0, 1\)"),
        ([["a", "b"], "hello"], TypeError, "number 1 is 'hello', a state among trajectories"),
        ([[0, 1], 0], TypeError, "number 1 is 0, a state among trajectories"),
        ("hello", TypeError, r"list\(text\)"),
        (b"abc", TypeError, r"bytes are not a trajectory"),
        ([b"a", b"b"], TypeError, r"of type bytes"),
        ([bytearray(b"ab")], TypeError, "bytearray are not a trajectory"),
        ({"a", "b"}, TypeError, "got set"),
        ({"x": [0, 1]}, TypeError, r"got dict.*mapping\.values"),
        (FRAME, TypeError, r"got DataFrame.*groupby.*from_frame"),
        ([FRAME], TypeError, r"number 0: expected.*got DataFrame"),
        (FRAME.groupby("who"), TypeError, "GroupBy"),
        (FRAME.groupby("who")["state"], TypeError, "GroupBy"),
        (nx.path_graph(3), TypeError, "got Graph"),
        ([0, 10**12], ValueError, r"holds the state 1000000000000.*as strings"),
        ([0, 10**400], ValueError, r"holds the state 1000"),
        (np.array([0, 2**64 - 1], np.uint64), ValueError, r"holds the state 18446744073709551615"),
    ],
)  # fmt: skip
def test_what_is_no_trajectory_is_refused(trajectories: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        states(trajectories)


@pytest.mark.parametrize("names", ["ab", {"a", "b"}, {"a": 0, "b": 1}, 3])
def test_names_of_states_have_an_order(names: Any) -> None:
    with pytest.raises(TypeError, match=f"state_names: expected a .*got {type(names).__name__}"):
        states(["a", "b"], state_names=names)
