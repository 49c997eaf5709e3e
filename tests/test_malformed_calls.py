"""Every argument of every public function, given nonsense: it is refused by its name, or it works."""

import inspect
import re
import typing
import warnings
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

import markovot
import public_calls
from public_calls import Call

NAMES = dict(public_calls.public())

# Made anew for each call: generators are used up, and nothing may be left behind by another call.
NONSENSE: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "True": lambda: True,
    "a word": lambda: "x",
    "no word": lambda: "",
    "bytes": lambda: b"x",
    "no list": list,
    "no mapping": dict,
    "no tuple": lambda: (),
    "an object": object,
    "nan": lambda: float("nan"),
    "inf": lambda: float("inf"),
    "-1": lambda: -1,
    "0": lambda: 0,
    "1.5": lambda: 1.5,
    "10^400": lambda: 10**400,
    "-10^400": lambda: -(10**400),
    "10^5000": lambda: 10**5000,
    "complex": lambda: 1j,
    "a fraction": lambda: Fraction(10**400, 3),
    "a decimal": lambda: Decimal("NaN"),
    "nan of NumPy": lambda: np.float64("nan"),
    "an array": lambda: np.array([1, 2]),
    "an array of words": lambda: np.array(["a", "b"]),
    "an array of objects": lambda: np.array([object(), None], dtype=object),
    "an array of no dimension": lambda: np.array(3),
    "a tensor of no dimension": lambda: torch.tensor(2),
    "an empty tensor": lambda: torch.ones(2, 0),
    "half precision": lambda: torch.ones(2, 2, 2, 2, dtype=torch.float16),
    "a tensor of bools": lambda: torch.tensor([True, False]),
    "a complex tensor": lambda: torch.ones(2, 2, dtype=torch.complex64),
    "a tensor without values": lambda: torch.empty(2, 2, device="meta"),
    "a sparse tensor": lambda: torch.eye(2).double().to_sparse(),
    "a vector of nan": lambda: torch.full((3,), torch.nan).double(),
    "a class": lambda: int,
    "a function": lambda: lambda: None,
    "a generator": lambda: (number for number in (1, 2)),
    "a list of oddities": lambda: [object(), None],
    "a ragged list": lambda: [[1.0, 2.0], [3.0]],
    "a mapping": lambda: {"a": object()},
    "a set": lambda: {1, 2},
}  # fmt: skip

# Functions of the caller's own, whose errors are not for this package to change.
OWN = {
    (argument, what)
    for argument in ("objective", "optimiser", "distance", "solve")
    for what in ("a class", "a function")
}

# What a function documents to raise beside TypeError and ValueError: the message need not name the argument.
DOCUMENTED = (markovot.SolveError, OSError)


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Call]:
    return public_calls.good_calls(tmp_path_factory.mktemp("calls"))


@pytest.fixture(autouse=True)
def _write_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_each_public_function_has_a_good_call(calls: dict[str, Call]) -> None:
    assert sorted(calls) == sorted(NAMES)


@pytest.mark.parametrize("room", public_calls.MODULES)
def test_nonsense_is_refused_by_name(room: str, calls: dict[str, Call]) -> None:
    names = [name for name in NAMES if room_of(name) == room]
    wrong = [f"{name}: {fault}" for name in names for fault in faults_of(calls[name])]
    assert names
    assert not wrong, "\n".join([f"{len(wrong)} bad answers", *wrong])


def room_of(name: str) -> str:
    """The module that makes a name public."""
    return max((room for room in public_calls.MODULES if f"markovot.{name}".startswith(f"{room}.")), key=len)


def faults_of(call: Call) -> list[str]:
    """What is wrong with the answers of one function."""
    from matplotlib import pyplot

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        call()
        found = [
            f"{argument} = {what}: {fault}"
            for argument in arguments_of(call)
            for what, make in NONSENSE.items()
            if (argument, what) not in OWN and (fault := fault_of(call, argument, what, make)) is not None
        ]
    pyplot.close("all")
    return found


def arguments_of(call: Call) -> dict[str, inspect.Parameter]:
    return {
        name: parameter
        for name, parameter in inspect.signature(call.function).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD and name not in ("self", "cls")
    }


def fault_of(call: Call, argument: str, what: str, make: Callable[[], Any]) -> str | None:
    """What is wrong with the answer to one nonsense, None where nothing is."""
    value = make()
    try:
        call(**{argument: value})
    except (TypeError, ValueError, IndexError) as error:
        if type(error) not in (TypeError, ValueError, IndexError) and not isinstance(error, DOCUMENTED):
            return f"{type(error).__name__}: {error}"
        if argument in ("path", "paths") and str(error).startswith(("a: ", "x: ")):
            return None  # the file itself is named
        named = re.search(rf"(?<![A-Za-z0-9_]){re.escape(argument)}(?![A-Za-z0-9_])", str(error))
        return None if named and len(str(error)) < 1000 else f"not named: {type(error).__name__}: {str(error)[:200]}"
    except DOCUMENTED:
        return None
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    return "taken" if must_be_refused(arguments_of(call)[argument], value) else None


def must_be_refused(parameter: inspect.Parameter, value: Any) -> bool:
    """Whether the annotation alone says that the value is of the wrong kind."""
    wanted = parameter.annotation
    if typing.get_origin(wanted) is typing.Union or "|" in str(wanted):
        return False
    if wanted in (bool, "bool"):
        return not isinstance(value, bool)
    if wanted in (int, "int"):
        return isinstance(value, bool) or not isinstance(value, int)
    if wanted in (float, "float"):
        return isinstance(value, bool) or not isinstance(value, int | float | Fraction)
    if wanted in (str, "str"):
        return not isinstance(value, str)
    return False
