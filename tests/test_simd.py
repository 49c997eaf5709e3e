"""The vector type of the kernels: which arrays its functions read, and which they refuse."""

import numpy as np
import pytest
from numba.core.errors import TypingError

from markovot.transport.compiled.compiling import kernel
from markovot.transport.compiled.simd import gather, lane_sum, load, scatter_add, splat, store

pytestmark = pytest.mark.usefixtures("kernel_cache")


def loading(x, where):
    return lane_sum(load(x, 1))


def storing(x, where):
    store(x, 1, splat(2.0))
    return 16.0


def gathering(x, where):
    return lane_sum(gather(x, 1, where, 2))


def adding(x, where):
    scatter_add(x, 1, where, 2, splat(1.0))
    return 0.0


FUNCTIONS = [loading, storing, gathering, adding]
INDEXED = [gathering, adding]
KINDS = ["another type", "the other type", "unsigned", "two axes", "no axis", "strided", "reversed"]


def vector() -> np.ndarray:
    return np.arange(20.0)


def indices() -> np.ndarray:
    return np.arange(12) % 5


def strange(kind: str, good: np.ndarray) -> np.ndarray:
    """The array as numba would take it for another type."""
    return {
        "another type": lambda: good.astype(np.float32 if good.dtype == float else np.int32),
        "the other type": lambda: good.astype(np.int64 if good.dtype == float else np.float64),
        "unsigned": lambda: good.astype(np.uint64),
        "two axes": lambda: np.stack([good, good]),
        "no axis": lambda: good[0],
        "strided": lambda: np.repeat(good, 2)[::2],
        "reversed": lambda: good[::-1],
    }[kind]()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_vectors_of_float64_with_indices_of_int64_are_taken(function):
    x, where = vector(), indices()
    taken = {"loading": x[1:9].sum(), "storing": 16.0, "gathering": x[1 + where[2:10]].sum(), "adding": 0.0}
    changed = x.copy()
    if function is storing:
        changed[1:9] = 2.0
    if function is adding:
        np.add.at(changed, 1 + where[2:10], 1.0)
    assert kernel(function)(x, where) == taken[function.__name__]
    np.testing.assert_array_equal(x, changed)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_other_arrays_are_refused(function, kind):
    x = strange(kind, vector())
    with pytest.raises(TypingError, match="array: expected a contiguous vector of float64"):
        kernel(function)(x, indices())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("function", INDEXED)
def test_other_indices_are_refused(function, kind):
    with pytest.raises(TypingError, match="indices: expected a contiguous vector of int64"):
        kernel(function)(vector(), strange(kind, indices()))
