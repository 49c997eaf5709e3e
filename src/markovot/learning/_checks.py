"""Checks for parametrised chains, and the softmax of rows that are stored in compressed form."""

from typing import Any, NoReturn

import torch
from torch import Tensor

from markovot import validate
from markovot.chains import labels, sparse

# A matrix counts as reversible if its flows are symmetric up to this share of the largest one.
REVERSIBLE_TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-8}


# More states, restarts or snapshots than this fit into no machine, so they are refused at once.
MANY = 1 << 24


def positive(name: str, value: Any) -> int:
    """Check a count, such as the number of states, which must be at least 1."""
    return validate.count(name, value, low=1, high=MANY)


def floating(dtype: Any) -> None:
    """Refuse every dtype but float32 and float64."""
    if not isinstance(dtype, torch.dtype) or dtype not in validate.FLOATING:
        raise TypeError(f"dtype: {validate.shown(dtype)} is not supported. Use torch.float32 or torch.float64.")


def generator(given: Any) -> torch.Generator | None:
    """Check a generator of random numbers, or None for torch's own."""
    if given is not None:
        validate.instance("generator", given, torch.Generator, "a torch.Generator")
    return given


def raise_not_finite(name: str, values: Tensor) -> NoReturn:
    """Raise an error that names the first entry of a parameter that gives no probabilities."""
    values = values.detach()
    wrong = values.isnan() | (values == torch.inf)
    if bool(wrong.any()):
        index = validate.first(wrong)
        what = f"entry {validate.place(index)} is {values[index].item()}"
    else:
        what = "some row has no finite entry"
    raise ValueError(
        f"{name}: {what}. An earlier step spoilt it: look for NaN in the loss or its gradients, or take smaller steps."
    )


def softmax(values: Tensor) -> Tensor:
    """The softmax along the last dimension. torch's own wakes all threads at any size: 16 ms on a busy machine."""
    weights = (values - values.detach().amax(-1, keepdim=True)).exp()
    return weights / weights.sum(-1, keepdim=True)


def softmax_of_rows(values: Tensor, owner: Tensor, num_rows: int) -> Tensor:
    """The softmax of the stored entries of each row; `owner` is each entry's row. Safe at any range."""
    detached = values.detach()
    highest = detached.new_full((num_rows,), -torch.inf).scatter_reduce(0, owner, detached, "amax")
    weights = (values - highest[owner]).exp()
    return weights / weights.new_zeros(num_rows).index_add(0, owner, weights)[owner]


def support_entries(support: Any, n: int) -> tuple[Tensor, Tensor]:
    """Rows and columns of the entries of a mask (n, n) that are not zero, row by row."""
    if sparse.is_sparse(support):
        rows = sparse.read("support", support, integers=True)
        shape, keep = rows.rows_shape, rows.values.detach() != 0
        owner, columns = rows.owner()[keep], rows.indices[keep]
    else:
        mask = validate.as_tensor("support", support).detach()
        validate.square("support", mask.shape)
        shape = mask.shape[:-1]
        owner, columns = torch.nonzero(mask, as_tuple=True) if mask.dim() == 2 else (mask, mask)
    if shape != (n,):
        raise ValueError(f"support: it is for {tuple(shape)} states, not for {n}. Give a mask ({n}, {n}).")
    return owner.cpu(), columns.cpu()


def supported(owner: Tensor, columns: Tensor, n: int, *, symmetric: bool) -> None:
    """Refuse a support with an empty row, or one that is not symmetric where it must be."""
    counts = torch.bincount(owner, minlength=n)
    if bool((counts == 0).any()):
        row = int((counts == 0).nonzero()[0])
        raise ValueError(
            f"support: row {row} is empty, so that state {row} could go nowhere. Give each row an entry, for instance "
            "the one on the diagonal."
        )
    lonely = ~torch.isin(columns * n + owner, owner * n + columns)
    if symmetric and bool(lonely.any()):
        i, j = (int(part[lonely][0]) for part in (owner, columns))
        raise ValueError(
            f"support: it has the step ({i}, {j}), but not ({j}, {i}). A reversible chain can walk each edge both "
            "ways: use support | support.T."
        )


def without_laziness(transition: Tensor, laziness: float) -> Tensor:
    """The moves M of a lazy walk `l I + (1 - l) M`."""
    if laziness == 0:
        return transition
    stay = transition.diagonal()
    if bool((stay < laziness * (1 - 1e-6)).any()):
        row = int(stay.argmin())
        raise ValueError(
            f"laziness: {laziness:g} is more than {stay[row].item():.6g}, the probability with which state {row} "
            "stays. Use no more than the smallest entry on the diagonal."
        )
    # What is left of a probability of exactly l is rounding, not a step.
    left = torch.where(stay > laziness * (1 + 1e-6), stay - laziness, 0.0)
    return transition.diagonal_scatter(left) / (1 - laziness)


def reversible(flows: Tensor) -> None:
    """Refuse flows `pi_i P_ij` that are not symmetric."""
    difference = (flows - flows.T).abs()
    if float(difference.max()) > REVERSIBLE_TOLERANCE[flows.dtype] * float(flows.max()):
        i, j = divmod(int(difference.argmax()), len(flows))
        raise ValueError(
            f"transition: it is not reversible: the stationary flow from {i} to {j} is {flows[i, j].item():.6g}, that "
            f"from {j} to {i} is {flows[j, i].item():.6g}. Use reversible=False, or start at the mean of the chain and "
            "its time reversal."
        )


def inside_support(transition: Tensor, inside: Tensor) -> None:
    """Refuse positive probabilities outside the support."""
    beyond = (transition > 0) & ~inside
    if bool(beyond.any()):
        index = validate.first(beyond)
        raise ValueError(
            f"transition: entry {validate.place(index)} is {transition[index].item():.6g}, but is not in the support. "
            "The support must hold all positive entries."
        )


def no_zeros(chosen: Tensor, *, dense: bool) -> None:
    """Refuse zeros among the probabilities that get a logit."""
    if bool((chosen > 0).all()):
        return
    first = validate.place(validate.first(~(chosen > 0)))
    if dense:
        raise ValueError(
            f"transition: entry {first} is 0, which a softmax never is. Give support=transition > 0 to keep zeros at "
            "zero, or a pseudo_count, such as 0.001, to start beside it."
        )
    raise ValueError(
        f"transition: entry number {first} of the support is 0, which a softmax never is. Take it out of the support, "
        "or give a pseudo_count, such as 0.001."
    )


def normal(shape: tuple[int, ...], generator: torch.Generator | None, dtype: torch.dtype) -> Tensor:
    """Standard normal numbers; the same, up to rounding, in both dtypes."""
    device = generator.device if generator is not None else "cpu"
    return torch.randn(shape, generator=generator, dtype=torch.float64, device=device).to("cpu", dtype)


def initial_features(
    n: int, features: Any, num_features: int | None, generator: torch.Generator | None, dtype: torch.dtype
) -> Tensor | None:
    """The initial features, copied: floats in `dtype`, labels in int64."""
    if features is not None and num_features is not None:
        raise ValueError("num_features: features are given, which say how many they are. Leave one of the two out.")
    if num_features is not None:
        return normal((n, positive("num_features", num_features)), generator, dtype)
    if features is None:
        return None
    device = features.device if isinstance(features, Tensor) else torch.device("cpu")
    found = labels.of_states(features, torch.Size(), n, device).detach().cpu()
    return found.to(dtype, copy=True) if found.is_floating_point() else found.clone()
