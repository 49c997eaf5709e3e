"""Checks of plain arguments: numbers, counts, words, paths, and everything else that is no tensor.

Each takes the argument's name and its value, returns the value as the package uses it, or raises `TypeError` (of the
wrong kind) or `ValueError` (of the right kind, but out of range) with the name, the value and the repair.
"""

import math
import numbers
import operator
import os
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import Tensor

# Larger counts do not fit into an integer of NumPy or torch.
LARGEST = 2**63 - 1

# In Python a bool is an integer, and an array with one entry turns into a number, which loses its gradient.
_NO_NUMBERS = (bool, np.bool_, Tensor, np.ndarray)

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 60


def shown(value: Any) -> str:
    """A value as messages show it: in one line, however long or odd it is."""
    if isinstance(value, Tensor | np.ndarray):
        return f"{type(value).__name__} of shape {tuple(value.shape)}"
    if isinstance(value, int) and value.bit_length() > 200:
        return f"{'-' if value < 0 else ''}10^{int(value.bit_length() * math.log10(2))}"
    return " ".join(_short.repr(value).split())


def kind(value: Any) -> str:
    """The kind of a value, for messages, with the repair where there is only one."""
    if isinstance(value, type):
        return f"the class {value.__name__} itself"
    if isinstance(value, Tensor | np.ndarray):
        one = value.ndim == 0
        return f"{type(value).__name__} {'with one entry: take .item()' if one else f'of shape {tuple(value.shape)}'}"
    return type(value).__name__


def number(name: str, value: Any, low: float, high: float, *, open_at_low: bool = False) -> float:
    """Check a plain number in [low, high], or in (low, high]."""
    found = real(name, value)
    if not low <= found <= high or math.isinf(found) or (open_at_low and found == low):  # also catches NaN
        least = f"above {low:g}" if open_at_low else f"at least {low:g}"
        bounds = f"{least} and finite" if high == math.inf else f"between {low:g} and {high:g}"
        given = shown(value) if math.isinf(found) else found
        raise ValueError(f"{name}: {given} is out of range. It must be {bounds}.")
    return found


def accuracy(rtol: Any, max_iter: Any) -> tuple[float, int]:
    """Check how accurately, and with how many steps at most, something is to be solved."""
    found = number("rtol", rtol, 0.0, 1.0)
    if not 0 < found < 1:
        raise ValueError(f"rtol: {found:g} is not between 0 and 1. Try 1e-4.")
    return found, count("max_iter", max_iter, low=1)


def real(name: str, value: Any, *, wanted: str = "a number") -> float:
    """Check that a value is a plain number, and return it as a float: infinite if no float is so large."""
    if isinstance(value, _NO_NUMBERS) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: expected {wanted}, got {kind(value)}.")
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]  # reals have an order


def count(name: str, value: Any, *, low: int = 0, high: int = LARGEST) -> int:
    """Check a plain integer in [low, high]: Python's or NumPy's, but no bool, and no float with a whole value."""
    if isinstance(value, _NO_NUMBERS) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name}: expected an integer, got {kind(value)}.")
    found = operator.index(value)
    if found < low:
        raise ValueError(f"{name}: {shown(found)} is less than {low}. Give an integer of at least {low}.")
    if found > high:
        raise ValueError(f"{name}: {shown(found)} is more than {high}. Give an integer of at most {high}.")
    return found


def flag(name: str, value: Any) -> bool:
    """Check that a value is True or False: a string such as "no" would count as true."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}: {shown(value)} is neither True nor False.")
    return bool(value)


def choice(name: str, value: Any, options: tuple[str, ...]) -> str:
    """Check one of several words."""
    if not isinstance(value, str) or value not in options:
        raise ValueError(f"{name}: {shown(value)} is not one of {', '.join(map(repr, options))}.")
    return value


def text(name: str, value: Any) -> str:
    """Check a string."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a string, got {kind(value)}.")
    return value


def key(name: str, value: Any) -> Any:
    """Check the name of something in a mapping, such as an attribute of a graph's nodes, which need not be a string."""
    try:
        hash(value)
    except TypeError:
        raise TypeError(f"{name}: expected a name, got {kind(value)}.") from None
    if isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a name, got {kind(value)}.")
    return value


def function(name: str, value: Any) -> Any:
    """Check that a value can be called."""
    if not callable(value):
        raise TypeError(f"{name}: expected a function, got {kind(value)}.")
    return value


def instance(name: str, value: Any, wanted: type | tuple[type, ...], what: str) -> Any:
    """Check an object of the package or of a library; `what` says in words which, and where it comes from."""
    if not isinstance(value, wanted):
        raise TypeError(f"{name}: expected {what}, got {kind(value)}.")
    return value


def path(name: str, value: Any) -> Any:
    """Check the path of a file or folder, which need not exist yet."""
    found = os.fspath(value) if isinstance(value, str | os.PathLike) and not isinstance(value, type) else None
    if not isinstance(found, str):
        raise TypeError(f"{name}: expected a path, a string or a pathlib.Path, got {kind(value)}.")
    if not found or "\0" in found:
        raise ValueError(f"{name}: {shown(value)} is no path of a file or a folder.")
    return value


def mapping(name: str, value: Any, what: str) -> Mapping[Any, Any]:
    """Check a mapping, such as a dictionary; `what` describes it in messages."""
    found: Mapping[Any, Any] = instance(name, value, Mapping, f"a mapping {what}")
    return found


def items(name: str, value: Any, what: str) -> list[Any]:
    """Check that a value is iterable, but no string and no mapping, and return its items as a list."""
    if isinstance(value, str | bytes | bytearray | Mapping | type) or getattr(value, "ndim", 1) == 0:
        raise TypeError(f"{name}: expected {what}, got {kind(value)}.")
    try:
        return list(value)
    except TypeError:
        raise TypeError(f"{name}: expected {what}, got {kind(value)}. Give a list.") from None


def texts(name: str, value: Any, *, least: int = 0) -> list[str]:
    """Check several strings."""
    return [text(name, one) for one in sequence(name, value, "strings", least=least)]


@contextmanager
def named(name: str) -> Iterator[None]:
    """Put the name of the argument in front of errors from checks that do not know it."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if type(error) not in (TypeError, ValueError):
            raise
        raise type(error)(f"{name}: {error}") from error


def executor(name: str, value: Any) -> Any:
    """Check that a value is an executor, with a method `submit(function, *arguments)`."""
    if isinstance(value, type) or not callable(getattr(value, "submit", None)):
        raise TypeError(f"{name}: expected an executor with submit(function, ...), got {kind(value)}.")
    return value


def sequence(name: str, value: Any, items: str, *, least: int = 0) -> Sequence[Any]:
    """Check a sequence (a list, tuple or array, but no string); `items` describes its entries in messages."""
    lists = hasattr(value, "__len__") and hasattr(value, "__getitem__") and getattr(value, "ndim", 1) > 0
    if not lists or isinstance(value, str | bytes | bytearray | type | Mapping):
        raise TypeError(f"{name}: expected a sequence of {items}, got {kind(value)}.")
    if len(value) < least:
        raise ValueError(f"{name}: there are {len(value)} {items}. Give at least {least}.")
    found: Sequence[Any] = value
    return found
