"""Checks of tensors: probabilities, costs, laws, and the parameters delta and epsilon.

Each check is a few tensor operations and one transfer of a yes or no to the host; only when the answer is no
does it look for the culprit, and then it raises `ValueError` or `TypeError` with the argument's name, the
offending value and the repair.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from markovot.autograd.transforms import plain
from markovot.validate.arguments import items, real
from markovot.validate.containers import array, as_tensor

FLOATING = (torch.float32, torch.float64)
# Rows and laws must sum to one within this tolerance. It is well above the error of normalising in the given
# precision.
SUM_TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-9}

# A solver treats probabilities of a law below this as zero. Their effect, at most this share of the range of the cost,
# is far below rounding, 2^-52. Their potentials, which could not be found, are those of states without mass.
NEGLIGIBLE = 2.0**-104

_DIVIDE = "Divide it by its sum."
_DIVIDE_ROWS = "Divide each row by its sum; if this is an adjacency matrix, use MarkovChain.from_adjacency."


def first(wrong: Tensor) -> tuple[int, ...]:
    """Index of the first True entry."""
    return tuple(torch.nonzero(wrong)[0].tolist())


def place(index: tuple[int, ...]) -> str:
    """An index as people write it: `3` or `(0, 3)`."""
    return str(index[0]) if len(index) == 1 else str(index)


def labels(name: str, value: Any, what: str) -> list[Any]:
    """Check one hashable label for each of several things; entries of arrays become plain Python values."""
    if isinstance(value, Tensor | np.ndarray) and value.ndim:
        value = array(name, value).tolist()
    found = [
        array(name, one).item() if isinstance(one, np.generic | Tensor | np.ndarray) and one.ndim == 0 else one
        for one in items(name, value, what)
    ]
    try:
        set(found)
    except TypeError as error:
        raise TypeError(f"{name}: {error}. Give one word or number for each member.") from None
    return found


def floating(name: str, tensor: Tensor) -> None:
    """Refuse everything but float32 and float64."""
    if tensor.is_complex():
        raise TypeError(
            f"{name}: dtype {tensor.dtype} is not supported, only float32 and float64. Take the real numbers that are "
            f"meant, for instance {name}.real.astype(float) of an array, or {name}.real of a tensor."
        )
    if tensor.dtype not in FLOATING:
        raise TypeError(
            f"{name}: dtype {tensor.dtype} is not supported, only float32 and float64. "
            f"Convert it with {name}.double() (for a NumPy or SciPy array, .astype(float))."
        )


def matrices(name: str, value: Any) -> Tensor:
    """A dense tensor or array of shape (*batch, n, n) with floating-point entries."""
    tensor = as_tensor(name, value)
    floating(name, tensor)
    square(name, tensor.shape)
    return tensor


def square(name: str, shape: tuple[int, ...]) -> None:
    """Refuse shapes that are not (*batch, n, n) with at least one state and one chain."""
    if len(shape) < 2 or shape[-1] != shape[-2]:
        raise ValueError(
            f"{name}: shape {tuple(shape)} is not (*batch, n, n). Row i must hold the entries from state i "
            "to every state."
        )
    if 0 in shape:
        raise ValueError(f"{name}: shape {tuple(shape)} is an empty chain. A chain needs at least one state.")


def same_kind(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    """Refuse two tensors of different dtypes or devices: the result would silently follow one of them."""
    if tensor.dtype != other.dtype:
        raise TypeError(
            f"{name}: dtype {tensor.dtype} is not that of {other_name}, {other.dtype}. Convert one, with "
            f".to({other.dtype}) (an array with .astype('{str(other.dtype).removeprefix('torch.')}'))."
        )
    if tensor.device != other.device:
        raise ValueError(
            f"{name}: device {tensor.device} is not that of {other_name}, {other.device}. Move one, with "
            f".to('{other.device}')."
        )


def entries(name: str, tensor: Tensor) -> None:
    """Refuse negative and non-finite entries."""
    tensor = plain(tensor)
    if not bool(((tensor >= 0) & (tensor < math.inf)).all()):
        _raise_entry(name, tensor)


def _raise_entry(name: str, tensor: Tensor) -> None:
    index = first(~((tensor >= 0) & (tensor < math.inf)))
    value = tensor[index].item()
    kind = "negative" if value < 0 else "not finite"
    raise ValueError(f"{name}: entry {place(index)} is {value}, which is {kind}. Entries must be finite and >= 0.")


def finite(name: str, tensor: Tensor) -> None:
    """Refuse non-finite entries."""
    tensor = plain(tensor)
    if not bool(torch.isfinite(tensor).all()):
        index = first(~torch.isfinite(tensor))
        raise ValueError(f"{name}: entry {place(index)} is {tensor[index].item()}. Entries must be finite.")


def distributions(name: str, tensor: Tensor, *, noun: str = "row", repair: str = _DIVIDE_ROWS) -> None:
    """Refuse rows, along the last dimension, that are not probability distributions.

    Args:
        name: the argument, for the message.
        tensor: (*batch, n), float32 or float64.
        noun: what one row is called in the message.
        repair: what to do about a sum other than one.
    """
    detached = plain(tensor)
    sums = detached.sum(-1, dtype=torch.float64)
    tolerance = SUM_TOLERANCE[tensor.dtype]
    # amin and amax let NaN through, and a comparison with NaN is False: this one line also finds NaN and
    # infinities.
    if bool((detached.amin() >= 0) & ((sums - 1).abs().amax() <= tolerance)):
        return
    entries(name, detached)
    if repair is _DIVIDE_ROWS and detached.shape[-1:] == detached.shape[-2:-1]:
        repair = _or_transpose(name, detached.sum(-2, dtype=torch.float64), tolerance)
    raise_sum(name, sums, tolerance, noun=noun, repair=repair)


def _or_transpose(name: str, columns: Tensor, tolerance: float) -> str:
    """The repair for rows that do not sum to one. If the columns do, it is to transpose the matrix."""
    if not bool(((columns - 1).abs() <= tolerance).all()):
        return _DIVIDE_ROWS
    return (
        "The columns sum to one: row i must hold the probabilities from state i, so transpose it, with "
        f"{name}.transpose(-2, -1) (an array or a SciPy matrix with .T)."
    )


def raise_sum(name: str, sums: Tensor, tolerance: float, *, noun: str = "row", repair: str = _DIVIDE_ROWS) -> None:
    """Raise the error that names the first of `sums` that is not one."""
    index = first(~((sums - 1).abs() <= tolerance))
    which = f"{noun} {place(index)} sums" if index else "it sums"
    raise ValueError(f"{name}: {which} to {sums[index].item():.12g}, not 1 (tolerance {tolerance:g}). {repair}")


def stored_rows(name: str, owner: Tensor, indices: Tensor, values: Tensor, sums: Tensor) -> None:
    """`distributions` for rows in compressed form.

    Args:
        name: the argument, for the message.
        owner: (nnz,) flat number of the row of each stored entry.
        indices: (nnz,) column of each stored entry.
        values: (nnz,) the entries.
        sums: (*batch, n) row sums, float64.
    """
    detached, sums = plain(values), plain(sums)
    tolerance = SUM_TOLERANCE[values.dtype]
    smallest = detached.amin() >= 0 if len(detached) else torch.ones((), dtype=torch.bool, device=values.device)
    if bool(smallest & ((sums - 1).abs().amax() <= tolerance)):
        return
    stored_entries(name, owner, indices, detached, tuple(sums.shape))
    columns = torch.zeros_like(sums).reshape(-1)
    columns.index_add_(0, owner // sums.shape[-1] * sums.shape[-1] + indices, detached.double())
    raise_sum(name, sums, tolerance, repair=_or_transpose(name, columns, tolerance))


def stored_entries(name: str, owner: Tensor, indices: Tensor, values: Tensor, rows_shape: tuple[int, ...]) -> None:
    """Refuse negative and non-finite stored entries, and name the entry by (*batch, row, column)."""
    wrong = ~((values >= 0) & (values < math.inf))
    if not bool(wrong.any()):
        return
    at = first(wrong)
    index = (*(int(k) for k in np.unravel_index(int(owner[at]), rows_shape)), int(indices[at]))
    value = values[at].item()
    kind = "negative" if value < 0 else "not finite"
    raise ValueError(f"{name}: entry {place(index)} is {value}, which is {kind}. Entries must be finite and >= 0.")


def law(name: str, value: Any, like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Check a law (or a batch of laws) on the states, and broadcast it.

    Args:
        name: the argument, for the message.
        value: tensor or array, (n,) or any shape that broadcasts to `shape`.
        like: tensor whose dtype and device the law must share; an array is converted to them.
        shape: (*batch, n).

    Returns:
        The law, expanded to `shape`.
    """
    tensor = as_tensor(name, value)
    floating(name, tensor)
    if isinstance(value, Tensor):
        same_kind(name, tensor, "the chain", like)
    broadcasts = 0 < tensor.dim() <= len(shape) and tensor.shape[-1] == shape[-1]
    if not broadcasts or any(k not in (1, s) for k, s in zip(tensor.shape[::-1], shape[::-1], strict=False)):
        raise ValueError(
            f"{name}: shape {tuple(tensor.shape)} does not fit {tuple(shape)}. Give one probability for each state."
        )
    distributions(name, tensor, noun="law", repair=_DIVIDE)
    return tensor.to(like).expand(shape)


def _parameter(name: str, value: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A number or a tensor of numbers (one for each item of the batch) as a tensor of the chains' kind."""
    if isinstance(value, Tensor | np.ndarray):
        tensor = as_tensor(name, value)
        floating(name, tensor)
        return tensor.to(device=device, dtype=dtype)
    found = real(name, value, wanted="a number or a floating-point tensor")
    return torch.tensor(found, dtype=dtype, device=device)


def discount(value: Any, *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Check `delta`, which must lie in (0, 1], and return it as a tensor that keeps its gradient."""
    delta = _parameter("delta", value, dtype, device)
    given = plain(delta)
    inside = (given > 0) & (given <= 1)
    if not bool(inside.all()):
        worst = given[~inside].flatten()[0].item()
        raise ValueError(
            f"delta: {worst:.12g} is outside (0, 1]. delta is the probability of stopping at each step: 1 "
            "compares only the initial states, small values look far ahead."
        )
    return delta


def regularisation(value: Any, *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Check `epsilon`: finite and positive, or 0 for every item, and return it as a tensor that keeps its gradient."""
    epsilon = _parameter("epsilon", value, dtype, device)
    detached = plain(epsilon)
    if bool(((detached > 0) & (detached < math.inf)).all()):
        return epsilon
    wrong = ~((detached >= 0) & (detached < math.inf))
    if bool(wrong.any()):
        raise ValueError(
            f"epsilon: {detached[wrong].flatten()[0].item():.12g} is not a finite number >= 0. epsilon is in units "
            "of the cost: a hundredth of the cost's range is a common choice, and 0 asks for exact transport."
        )
    if bool((detached > 0).any()):
        raise ValueError(
            "epsilon: some items have 0 and others do not. Exact and entropic transport are different methods: solve "
            "the two kinds of items apart."
        )
    if device.type != "cpu":
        raise ValueError(
            f"epsilon: 0 asks for exact transport, which runs on the CPU, but the chains are on {device}. Move them "
            "with .to('cpu'), or use a small positive epsilon."
        )
    return epsilon


def single_numbers(delta: Any, epsilon: Any) -> tuple[float, float]:
    """Check `delta` and `epsilon` where all problems share one of each."""
    cpu = torch.device("cpu")
    found = (
        discount(delta, dtype=torch.float64, device=cpu),
        regularisation(epsilon, dtype=torch.float64, device=cpu),
    )
    for name, value in zip(("delta", "epsilon"), found, strict=True):
        if value.ndim:
            raise ValueError(f"{name}: shape {tuple(value.shape)}. All pairs share one number.")
    return float(found[0]), float(found[1])


def normalised(law: Tensor) -> Tensor:
    """A checked law, divided by its sum in float64; for autograd this divisor is a constant.

    Probabilities below `NEGLIGIBLE` become zero, and keep their gradient.
    """
    law = law.double()
    law = law / sums(law.detach()).unsqueeze(-1)
    return law - law.detach() * (law.detach() < NEGLIGIBLE)


def sums(rows: Tensor) -> Tensor:
    """Sums along the last dimension, added from its beginning, so that zeros at the end (padding) change no bit."""
    return rows.cumsum(-1)[..., -1]


def broadcast(*shapes: tuple[int, ...]) -> torch.Size:
    """The common shape of several, or ValueError."""
    # Not torch.broadcast_shapes: it imports sympy, which takes half a second.
    return torch.Size(np.broadcast_shapes(*shapes))
