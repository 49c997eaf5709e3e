"""Checks at the public boundary: what passes, what does not, and what the message says."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from markovot import validate

KIND: dict[str, Any] = {"dtype": torch.float64, "device": torch.device("cpu")}


def test_discount_keeps_gradients_and_dtype() -> None:
    delta = torch.tensor([0.5, 1.0], requires_grad=True)
    found = validate.discount(delta, **KIND)
    assert found.dtype == torch.float64
    found.sum().backward()
    assert delta.grad.tolist() == [1, 1]
    assert validate.discount(1, **KIND).item() == 1
    assert validate.discount(np.float32(0.5), **KIND).item() == 0.5
    assert validate.discount(np.array([0.5, 0.25]), **KIND).tolist() == [0.5, 0.25]


@pytest.mark.parametrize("delta", [0.0, -0.5, 1.0000001, math.nan, math.inf])
def test_discount_out_of_range(delta: float) -> None:
    with pytest.raises(ValueError, match=rf"delta: {delta:.12g} is outside \(0, 1\]"):
        validate.discount(delta, **KIND)
    with pytest.raises(ValueError, match=rf"delta: {delta:.12g} is outside \(0, 1\]"):
        validate.discount(torch.tensor([[0.5], [delta]], dtype=torch.float64), **KIND)


def test_regularisation() -> None:
    epsilon = torch.tensor(0.1, requires_grad=True)
    validate.regularisation(epsilon, **KIND).backward()
    assert epsilon.grad.item() == 1
    for bad in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match=rf"epsilon: {bad:g} is not a finite number >= 0"):
            validate.regularisation(bad, **KIND)
    assert validate.regularisation(0.0, **KIND) == 0
    with pytest.raises(ValueError, match="some items have 0 and others do not"):
        validate.regularisation(torch.tensor([0.1, 0.0]), **KIND)
    with pytest.raises(ValueError, match=r"epsilon: -1 "):
        validate.regularisation(torch.tensor([0.0, -1.0]), **KIND)


@pytest.mark.parametrize("check", [validate.discount, validate.regularisation])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("small", "got str"),
        (True, "got bool"),
        (None, "got NoneType"),
        (torch.tensor(1), "int64"),
        (1j, "got complex"),
    ],
)
def test_parameters_are_numbers(check: Any, value: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        check(value, **KIND)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distributions(dtype: torch.dtype) -> None:
    rows = torch.softmax(torch.randn(50, 3000, generator=torch.Generator().manual_seed(0), dtype=dtype) * 5, -1)
    validate.distributions("rows", rows)
    for bad, message in (
        (math.nan, r"rows: entry \(7, 9\) is nan, which is not finite"),
        (-1e-3, r"rows: entry \(7, 9\) is -0\.001.*negative"),
        (math.inf, r"rows: entry \(7, 9\) is inf"),
        (1.0, r"rows: row 7 sums to"),
    ):
        changed = rows.clone()
        changed[7, 9] = bad
        with pytest.raises(ValueError, match=message):
            validate.distributions("rows", changed)


def test_law_broadcasts() -> None:
    like = torch.zeros(1, dtype=torch.float64)
    law = torch.tensor([0.5, 0.5]).double()
    assert validate.law("a", law, like, (3, 2)).shape == (3, 2)
    assert validate.law("a", law.expand(3, 2), like, (3, 2)).shape == (3, 2)
    for shape in ((3,), (3, 3), (2, 3, 2)):
        with pytest.raises(ValueError, match=r"a: shape .* does not fit .*one probability for each state"):
            validate.law("a", torch.full(shape, 0.5).double(), like, (3, 2))
    with pytest.raises(ValueError, match=r"a: law 1 sums to 1\.5, not 1.*Divide it by its sum"):
        validate.law("a", torch.tensor([[0.5, 0.5], [0.5, 1.0], [1, 0]]).double(), like, (3, 2))
    with pytest.raises(ValueError, match=r"a: it sums to 0\.75"):
        validate.law("a", torch.tensor([0.5, 0.25]).double(), like, (2,))
    with pytest.raises(TypeError, match=r"a: dtype torch\.float32 is not that of the chain, torch\.float64"):
        validate.law("a", law.float(), like, (2,))
    with pytest.raises(TypeError, match="a: expected a torch tensor or a NumPy array, got list"):
        validate.law("a", [0.5, 0.5], like, (2,))


def test_what_comes_in_is_copied_but_for_tensors_with_a_gradient() -> None:
    array = np.array([[0.5, 0.5], [1.0, 0.0]])
    assert validate.as_tensor("a", array).data_ptr() != array.ctypes.data
    for odd in (array[::-1], array.astype(">f8"), array.T, np.broadcast_to(array, (3, 2, 2)), array[()][0, 0:0]):
        assert validate.as_tensor("a", odd).tolist() == odd.tolist()
    tensor = torch.ones(2, 2)
    assert validate.as_tensor("a", tensor).data_ptr() != tensor.data_ptr()
    wide = validate.as_tensor("a", tensor.expand(1000, 2, 2))
    assert wide.shape == (1000, 2, 2)
    assert wide.untyped_storage().nbytes() == tensor.untyped_storage().nbytes()
    leaf = tensor.requires_grad_()
    assert validate.as_tensor("a", leaf) is leaf


@pytest.mark.parametrize(
    ("value", "error"), [(math.nan, ValueError), (2, ValueError), ("1", TypeError), (True, TypeError)]
)
def test_number(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="laziness"):
        validate.number("laziness", value, 0.0, 1.0)
    assert validate.number("laziness", np.float64(1.0), 0.0, 1.0) == 1.0


def test_plain_arguments_of_every_library_are_taken() -> None:
    assert validate.count("k", np.int64(3), low=1) == 3
    assert type(validate.count("k", np.uint8(3))) is int
    assert validate.number("x", Fraction(1, 4), 0.0, 1.0) == 0.25
    assert validate.number("x", np.float32(0.5), 0.0, 1.0) == 0.5
    assert validate.flag("f", np.True_) is True
    assert validate.accuracy(np.float32(0.5), np.int64(7)) == (0.5, 7)


def test_numbers_beyond_every_float_are_out_of_range() -> None:
    for value in (10**400, -(10**400), Fraction(10**400)):
        with pytest.raises(ValueError, match=r"x: .*out of range\. It must be between 0 and 1"):
            validate.number("x", value, 0.0, 1.0)
    with pytest.raises(ValueError, match=r"k: 10\^\d+ is more than"):
        validate.count("k", 10**5000)
    for value in (torch.tensor(1), np.array(1)):
        with pytest.raises(TypeError, match=r"k: expected an integer, got \w+ with one entry: take \.item\(\)"):
            validate.count("k", value)
