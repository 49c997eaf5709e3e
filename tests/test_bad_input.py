"""Each bad input is refused by name, with the offending value and the repair."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import markovot
from markovot import MarkovChain
from solving import csr


def rows(n: int, **kind: Any) -> Tensor:
    return torch.full((n, n), 1.0 / n, dtype=torch.float64, **kind)


def law(n: int) -> Tensor:
    return torch.full((n,), 1.0 / n, dtype=torch.float64)


def call(**change: Any) -> markovot.Solution:
    """A good call with one argument replaced."""
    good: dict[str, Any] = {
        "x": rows(2),
        "y": rows(3),
        "cost": torch.ones(2, 3).double(),
        "delta": 0.2,
        "epsilon": 0.1,
    }
    arguments = good | change
    return markovot.discounted_wl(arguments.pop("x"), arguments.pop("y"), arguments.pop("cost"), **arguments)


def put(tensor: Tensor, index: tuple[int, ...], value: float) -> Tensor:
    changed = tensor.clone()
    changed[index] = value
    return changed


def test_the_good_call_is_good() -> None:
    assert call().value.item() == pytest.approx(1.0, abs=1e-4)


CHAINS = {
    "negative": (put(put(rows(2), (1, 0), -0.5), (1, 1), 1.5), ValueError, r"\(1, 0\).*-0\.5.*>= 0"),
    "nan": (put(rows(2), (0, 1), math.nan), ValueError, r"\(0, 1\).*nan.*finite"),
    "infinite": (put(rows(2), (0, 1), math.inf), ValueError, r"\(0, 1\).*inf.*finite"),
    "sum": (put(rows(2), (1, 1), 0.75), ValueError, r"row 1 sums to 1\.25.*Divide each row"),
    "adjacency": (torch.ones(3, 3).double(), ValueError, r"row 0 sums to 3.*from_adjacency"),
    "rectangular": (torch.full((2, 3), 1 / 3).double(), ValueError, r"shape \(2, 3\)"),
    "vector": (law(3), ValueError, r"shape \(3,\)"),
    "empty": (torch.empty(0, 0).double(), ValueError, r"\(0, 0\).*at least one state"),
    "integers": (torch.eye(2, dtype=torch.int64), TypeError, r"int64.*\.double\(\)"),
    "half": (rows(2).half(), TypeError, r"float16.*float32 and float64"),
    "string": ("ring", TypeError, r"str"),
}


@pytest.mark.parametrize("argument", ["x", "y"])
@pytest.mark.parametrize("name", CHAINS)
def test_bad_chains(name: str, argument: str) -> None:
    value, error, message = CHAINS[name]
    with pytest.raises(error, match=message):
        call(**{argument: value})


@pytest.mark.parametrize("name", ["negative", "nan", "infinite", "sum", "integers"])
def test_bad_sparse_chains(name: str) -> None:
    value, error, message = CHAINS[name]
    with pytest.raises(error, match=message):
        call(x=csr(value))


def test_a_bad_item_in_a_batch_is_named() -> None:
    batch = torch.stack([rows(2), rows(2)])
    with pytest.raises(ValueError, match=r"row \(1, 0\) sums to 1\.25"):
        call(x=put(batch, (1, 0, 0), 0.75))


COSTS = {
    "nan": (torch.full((2, 3), math.nan).double(), ValueError, r"cost.*\(0, 0\).*nan"),
    "infinite": (put(torch.ones(2, 3).double(), (1, 2), math.inf), ValueError, r"cost.*\(1, 2\).*inf"),
    "transposed": (torch.ones(3, 2).double(), ValueError, r"cost.*\(3, 2\).*2.*3"),
    "vector": (torch.ones(6).double(), ValueError, r"cost.*\(6,\)"),
    "integers": (torch.ones(2, 3, dtype=torch.int64), TypeError, r"cost.*int64.*double"),
    "single precision": (torch.ones(2, 3), TypeError, r"cost.*float32.*float64"),
    "other device": (torch.ones(2, 3, dtype=torch.float64, device="meta"), ValueError, r"cost.*meta.*cpu"),
    "string": ("euclidean", TypeError, r"cost.*str"),
    "no features": (None, TypeError, r"cost.*NoneType"),
}


@pytest.mark.parametrize("name", COSTS)
def test_bad_costs(name: str) -> None:
    value, error, message = COSTS[name]
    with pytest.raises(error, match=message):
        call(cost=value)


def test_cost_object_without_features() -> None:
    with pytest.raises(ValueError, match="features"):
        call(cost=markovot.costs.Euclidean())


@pytest.mark.parametrize("delta", [0.0, -0.1, 1.5, math.nan, math.inf])
def test_delta_outside_its_interval(delta: float) -> None:
    with pytest.raises(ValueError, match=rf"delta: {delta:g}.*\(0, 1\]"):
        call(delta=delta)
    with pytest.raises(ValueError, match=rf"delta: {delta:g}.*\(0, 1\]"):
        call(delta=torch.tensor([0.5, delta]).double())


@pytest.mark.parametrize("epsilon", [-0.1, math.nan, math.inf])
def test_epsilon_must_be_finite_and_not_negative(epsilon: float) -> None:
    with pytest.raises(ValueError, match=rf"epsilon: {epsilon:g} is not a finite number >= 0.*exact transport"):
        call(epsilon=epsilon)


@pytest.mark.parametrize("argument", ["delta", "epsilon"])
def test_parameters_are_numbers_and_required(argument: str) -> None:
    with pytest.raises(TypeError, match=argument):
        call(**{argument: "small"})
    with pytest.raises(TypeError, match=rf"{argument}.*(int64|integer)"):
        call(**{argument: torch.tensor(1)})
    options = {"delta": 0.2, "epsilon": 0.1}
    del options[argument]
    with pytest.raises(TypeError, match=argument):
        markovot.discounted_wl(rows(2), rows(2), torch.ones(2, 2).double(), **options)


def test_chains_of_different_types_or_devices() -> None:
    with pytest.raises(TypeError, match=r"float32.*float64|float64.*float32"):
        call(x=rows(2).float())
    with pytest.raises((TypeError, ValueError), match="meta"):
        call(x=rows(2, device="meta"))


def test_batches_that_do_not_broadcast() -> None:
    with pytest.raises(ValueError, match=r"\(2,\).*\(3,\)"):
        call(x=rows(2).expand(2, 2, 2), y=rows(3).expand(3, 3, 3))
    with pytest.raises(ValueError, match=r"delta.*\(4,\)|\(4,\).*delta|broadcast"):
        call(x=rows(2).expand(2, 2, 2), delta=torch.full((4,), 0.5).double())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.tensor([0.6, 0.6]).double(), r"initial.*1\.2.*Divide"),
        (torch.tensor([1.5, -0.5]).double(), r"initial.*1 is -0\.5"),
        (law(3), r"initial.*\(3,\).*one probability for each state"),
        ("somewhere", r"initial.*'somewhere'.*'stationary'"),
    ],
)
def test_bad_initial_laws(value: Tensor | str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MarkovChain.from_transitions(rows(2), initial=value)


def test_several_closed_classes_have_no_one_stationary_law() -> None:
    with pytest.raises(ValueError, match="uniform"):
        call(x=torch.eye(2).double())
    with pytest.raises(ValueError, match="uniform"):
        call(x=csr(torch.eye(2).double()))
    chain = MarkovChain.from_transitions(torch.eye(2).double(), initial="uniform")
    assert call(x=chain).value.item() == pytest.approx(1.0, abs=1e-4)


def test_bad_accuracy() -> None:
    with pytest.raises(ValueError, match=r"rtol: 0 is not between 0 and 1"):
        call(rtol=0.0)
    with pytest.raises(ValueError, match="rtol"):
        call(rtol=math.nan)
    with pytest.raises(ValueError, match=r"max_iter: 0"):
        call(max_iter=0)


def test_init_is_a_solution() -> None:
    with pytest.raises(TypeError, match=r"init: expected a solution .*got Tensor"):
        call(init=torch.ones(2, 3))
    other = markovot.discounted_wl(rows(4), rows(3), torch.ones(4, 3).double(), delta=0.2, epsilon=0.1)
    with pytest.raises(ValueError, match=r"init.*\(4, 3\).*\(2, 3\)"):
        call(init=other)


def test_options_are_keyword_only() -> None:
    with pytest.raises(TypeError, match="positional"):
        markovot.discounted_wl(rows(2), rows(3), torch.ones(2, 3).double(), 0.2, 0.1)


TRANSPORT = {
    "sum": ({"a": torch.tensor([0.5, 0.6]).double()}, ValueError, r"a: .*sums to 1\.1.*Divide"),
    "negative": ({"b": torch.tensor([1.5, -0.5, 0.0]).double()}, ValueError, r"b: entry 1 is -0\.5"),
    "nan": ({"a": torch.tensor([math.nan, 1.0]).double()}, ValueError, r"a: .*nan"),
    "empty": ({"a": torch.empty(0).double()}, ValueError, r"a: .*\(0,\)"),
    "shape": ({"cost": torch.ones(3, 2).double()}, ValueError, r"cost.*\(3, 2\)"),
    "nan cost": ({"cost": torch.full((2, 3), math.nan).double()}, ValueError, r"cost.*nan"),
    "integers": ({"a": torch.tensor([1, 0])}, TypeError, r"a: .*int64"),
    "types": ({"b": law(3).float()}, TypeError, r"float32.*float64|float64.*float32"),
    "epsilon": ({"epsilon": -1.0}, ValueError, r"epsilon: -1"),
    "batch": ({"a": law(2).expand(2, 2), "b": law(3).expand(4, 3)}, ValueError, r"\(2,\).*\(4,\)"),
}


@pytest.mark.parametrize("name", TRANSPORT)
def test_bad_transport(name: str) -> None:
    change, error, message = TRANSPORT[name]
    good: dict[str, Any] = {"a": law(2), "b": law(3), "cost": torch.ones(2, 3).double(), "epsilon": 0.1}
    arguments = good | change
    with pytest.raises(error, match=message):
        markovot.transport_cost(arguments["a"], arguments["b"], arguments["cost"], epsilon=arguments["epsilon"])


def test_bad_stationary_distribution() -> None:
    with pytest.raises(ValueError, match=r"row 1 sums to 1\.25"):
        markovot.stationary_distribution(CHAINS["sum"][0])
    with pytest.raises(ValueError, match="closed"):
        markovot.stationary_distribution(torch.eye(3).double())
