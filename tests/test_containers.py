"""What carries more than numbers, at every door: taken with the right value, or refused by the argument's name."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor

import markovot
from markovot import DecisionProcess, MarkovChain, as_chain, costs, discounted_wl, transport_cost
from markovot.analysis.groups import compare_groups
from markovot.learning import DiscountedWLLoss
from markovot.pairwise import distance_matrix

ROWS = np.array([[0.25, 0.75, 0.0], [0.5, 0.0, 0.5], [0.0, 1.0, 0.0]])
LAW = np.array([0.25, 0.25, 0.5])
CHAIN = MarkovChain.from_transitions(ROWS, initial=LAW)

# The argument's name, good numbers for it, and what is computed of them.
DOORS: dict[str, tuple[str, Any, Callable[[Any], Tensor]]] = {
    "transition": ("transition", ROWS, lambda v: MarkovChain.from_transitions(v, initial="uniform").transition),
    "adjacency": ("adjacency", ROWS, lambda v: MarkovChain.from_adjacency(v).transition),
    "stationary": ("transition", ROWS, markovot.stationary_distribution),
    "cost": ("cost", ROWS, lambda v: discounted_wl(CHAIN, CHAIN, v, delta=0.5, epsilon=0.1).value),
    "given": ("matrix", ROWS, lambda v: costs.resolve_cost(costs.Given(v), CHAIN, CHAIN)),
    "initial": ("initial", LAW, lambda v: MarkovChain.from_transitions(ROWS, initial=v).initial),
    "features": ("features", LAW, lambda v: MarkovChain.from_transitions(ROWS, features=v).features),
    "a": ("a", LAW, lambda v: transport_cost(v, LAW, ROWS, epsilon=0.1).value),
    "b": ("b", LAW, lambda v: transport_cost(LAW, v, ROWS, epsilon=0.1).value),
    "cost of laws": ("cost", ROWS, lambda v: transport_cost(LAW, LAW, v, epsilon=0.1).value),
    "reward": ("reward", LAW, lambda v: DecisionProcess(ROWS, v).reward),
    "actions": ("transition", ROWS, lambda v: DecisionProcess(v, LAW).transition[0]),
}


class Metres(np.ndarray):
    """Numbers with a unit."""


def masked(array: Any) -> Any:
    return np.ma.masked_array(array, mask=np.arange(array.size).reshape(array.shape) == 1)


def quiet(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """torch says once that some of its tensors are prototypes."""

    def made(array: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return make(array)

    return made


# What is refused everywhere, with a word of the repair.
REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "masked": (masked, r"masked.*filled"),
    "unit": (lambda a: a.view(Metres), r"Metres.*np\.asarray"),
    "structured": (lambda a: a.astype([("x", float)]), "array of numbers"),
    "scalar": (lambda a: np.array(0.5), r"shape \(\)"),
    "long double": (lambda a: a.astype(np.longdouble), r"\.astype\(float\)"),
    "complex": (lambda a: a.astype(complex), r"complex128.*real"),
    "complex tensor": (lambda a: torch.tensor(a).to(torch.complex64), r"complex64.*real"),
    "dates": (lambda a: np.zeros(a.shape, "M8[s]"), "array of numbers"),
    "masked tensor": (quiet(lambda a: torch.masked.masked_tensor(torch.tensor(a), torch.tensor(a) > 0)), "masked"),
    "nested": (quiet(lambda a: torch.nested.nested_tensor([torch.tensor(a)] * 2)), r"nested.*unbind"),
    "jagged": (quiet(lambda a: torch.nested.nested_tensor([torch.tensor(a)], layout=torch.jagged)), "nested"),
    "quantised": (
        quiet(lambda a: torch.quantize_per_tensor(torch.tensor(a).float(), 0.25, 0, torch.quint8)),
        "dequantize",
    ),
    "meta": (lambda a: torch.tensor(a, device="meta"), "meta"),
    "a class": (lambda a: MarkovChain, "class MarkovChain|got type"),
    "a function": (lambda a: len, "builtin_function"),
}
# Also refused, but as features.
NOT_MATRICES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "half": (lambda a: a.astype(np.float16), r"float16.*\.astype\(float\)"),
    "bfloat16": (lambda a: torch.tensor(a).bfloat16(), r"bfloat16.*\.double\(\)"),
    "float8": (lambda a: torch.tensor(a).to(torch.float8_e4m3fn), r"float8.*\.double\(\)"),
    "objects": (lambda a: a.astype(object), r"object.*\.astype\(float\)"),
    "list": (lambda a: a.tolist(), r"list.*as_tensor"),
    "bytes": (lambda a: torch.tensor(a).to(torch.int8), r"int8.*\.double\(\)"),
}
TAKEN: dict[str, Callable[[Any], Any]] = {
    "no mask": np.ma.masked_array,
    "foreign bytes": lambda a: a.astype(">f8"),
    "reversed": lambda a: a[::-1].copy()[::-1],
    "read-only": lambda a: np.broadcast_to(a, a.shape),
    "tensor": torch.tensor,
    "by columns": lambda a: torch.tensor(np.asfortranarray(a)),
}


@pytest.mark.parametrize("door", DOORS)
def test_what_carries_more_than_numbers(door: str) -> None:
    name, good, compute = DOORS[door]
    refused = REFUSED if door == "features" else REFUSED | NOT_MATRICES
    for kind, (make, message) in refused.items():
        with pytest.raises((TypeError, ValueError), match=message) as caught:
            compute(make(good))
        assert name in str(caught.value), kind
    right = compute(good)
    for make in TAKEN.values():
        torch.testing.assert_close(compute(make(good)), right)


@pytest.mark.parametrize("door", ["transition", "adjacency", "cost", "given", "initial", "a", "reward"])
def test_frames_are_refused_with_the_repair(door: str) -> None:
    pandas = pytest.importorskip("pandas")
    name, good, compute = DOORS[door]
    frame = (pandas.DataFrame if good.ndim == 2 else pandas.Series)(good)
    with pytest.raises(TypeError, match=rf"{name}: .*{name}\.to_numpy\(dtype=float\).*order of the states"):
        compute(frame)
    compute(frame.to_numpy(dtype=float))


@pytest.mark.parametrize("door", ["cost", "given", "initial", "features", "a", "cost of laws", "reward"])
def test_sparse_where_dense_is_wanted(door: str) -> None:
    name, good, compute = DOORS[door]
    with pytest.raises(TypeError, match=rf"{name}: .*{name}\.to_dense\(\)"):
        compute(torch.tensor(good).to_sparse())
    if good.ndim == 2:
        with pytest.raises(TypeError, match=rf"{name}: .*{name}\.toarray\(\)"):
            compute(scipy.sparse.csr_array(good))


def test_integers_are_summed_as_floats() -> None:
    """Hundreds of repeated ones do not fit into a byte, and two trues are two."""
    row, column = np.array([0] * 300 + [0, 1]), np.array([1] * 300 + [0, 0])
    wanted = torch.tensor([[1 / 301, 300 / 301], [1.0, 0.0]], dtype=torch.float64)
    for dtype in (np.int8, np.uint8, bool, np.int16, np.uint32, np.uint64, np.float32):
        ones = scipy.sparse.coo_array((np.ones(302, dtype), (row, column)), shape=(2, 2))
        found = MarkovChain.from_adjacency(ones).to_dense().transition
        torch.testing.assert_close(found.double(), wanted, rtol=1e-6, atol=0.0)
    wide = np.array([[200, 100], [50, 50]], dtype=np.uint8)
    walk = MarkovChain.from_adjacency(wide).transition
    torch.testing.assert_close(walk, torch.tensor([[2 / 3, 1 / 3], [0.5, 0.5]], dtype=torch.float64))
    with pytest.raises(TypeError, match=r"adjacency: 18446744073709551615 does not fit into int64"):
        MarkovChain.from_adjacency(np.array([[2**64 - 1]], dtype=np.uint64))


def test_features_in_half_precision_are_compared_in_single() -> None:
    """300 squared is beyond the range of float16."""
    for half in (np.array([0.0, 300.0, 1.0], np.float16), torch.tensor([0.0, 300.0, 1.0]).bfloat16()):
        chain = MarkovChain.from_transitions(ROWS, features=half)
        assert chain.features.dtype == torch.float32
        cost = costs.resolve_cost(costs.SquaredEuclidean(), chain, chain)
        torch.testing.assert_close(cost[1, 0], torch.as_tensor(float(half[1]) ** 2, dtype=torch.float64))
    assert costs.Euclidean()(torch.zeros(1).half(), torch.full((1,), 300.0).half()).dtype == torch.float32


def test_costs_given_to_laws_as_to_chains() -> None:
    """One rule: an array is converted to the dtype of what it compares; tensors must have it already."""
    single = torch.tensor(LAW, dtype=torch.float32)
    chain = MarkovChain.from_transitions(torch.tensor(ROWS).float(), initial=LAW)  # a law given as an array, too
    assert chain.initial.dtype == torch.float32
    for cost in (ROWS, costs.Given(ROWS), torch.tensor(ROWS).float()):
        assert transport_cost(single, single, cost, epsilon=0.1).value.dtype == torch.float32
        assert discounted_wl(chain, chain, cost, delta=0.5, epsilon=0.1).value.dtype == torch.float32
    wrong: list[tuple[Any, str]] = [
        (torch.tensor(ROWS), r"cost: dtype torch\.float64 is not that of the (laws|chains).*\.to\(torch\.float32\)"),
        (np.ones((3, 3), int), r"cost: dtype torch\.int64.*\.astype\(float\)"),
        (torch.ones(3, 3).long(), r"cost: dtype torch\.int64.*cost\.double\(\)"),
        (costs.ZeroOne, r"cost: .*the class ZeroOne itself\. Give an instance: costs\.ZeroOne\(\)"),
    ]
    for cost, message in wrong:
        with pytest.raises(TypeError, match=message):
            transport_cost(single, single, cost, epsilon=0.1)
        with pytest.raises(TypeError, match=message):
            discounted_wl(chain, chain, cost, delta=0.5, epsilon=0.1)
    with pytest.raises(TypeError, match=r"a: dtype torch\.int64.*\.astype\(float\)"):
        transport_cost(np.array([1, 0, 0]), LAW, ROWS, epsilon=0.1)


def test_a_class_instead_of_an_instance() -> None:
    for call in (
        lambda: distance_matrix([CHAIN], cost=costs.ZeroOne, delta=0.5, epsilon=0.1),
        lambda: DiscountedWLLoss(costs.ZeroOne, delta=0.5, epsilon=0.1),
        lambda: markovot.debiased(discounted_wl, CHAIN, CHAIN, costs.ZeroOne, delta=0.5, epsilon=0.1),
    ):
        with pytest.raises(TypeError, match=r"cost: .*the class ZeroOne itself\. Give an instance: costs\.ZeroOne\(\)"):
            call()
    with pytest.raises(TypeError, match="the class MarkovChain itself"):
        as_chain(MarkovChain)


def test_names_are_a_sequence() -> None:
    for names in ("abc", b"abc", {"a", "b", "c"}, {"a": 1, "b": 2, "c": 3}, 3):
        with pytest.raises(TypeError, match=r"state_names: expected a .*got"):
            MarkovChain.from_transitions(ROWS, state_names=names)
    with pytest.raises(TypeError, match="state_names: expected a list"):
        MarkovChain.from_trajectories(["a", "b", "a"], state_names="ab")
    assert MarkovChain.from_transitions(ROWS, state_names=iter("abc")).state_names == ["a", "b", "c"]


def test_columns_that_sum_to_one() -> None:
    rows = torch.tensor(ROWS)
    for wrong in (rows.T, ROWS.T, rows.T.to_sparse(), scipy.sparse.csr_array(ROWS.T), rows.T.expand(2, 3, 3)):
        with pytest.raises(ValueError, match=r"row 0 |row \(0, 0\) ") as caught:
            as_chain(wrong)
        assert "columns sum to one" in str(caught.value)
        assert "transition.transpose(-2, -1)" in str(caught.value)


def test_matrices_of_distances() -> None:
    distances = np.ones((4, 4)) - np.eye(4)
    for bad, message in ((masked(distances), r"masked.*filled"), (distances.view(Metres), r"Metres.*np\.asarray")):
        with pytest.raises((TypeError, ValueError), match=f"distances: .*{message}"):
            compare_groups(bad, [0, 0, 1, 1])
