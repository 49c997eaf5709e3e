"""Features of states: numbers, vectors of numbers, and labels such as strings, as tensors.

Labels must mean the same in every graph, whichever labels happen to occur in it, so they are not numbered in
the order in which they are met: a label's code is a hash of the label itself, the same in every graph,
process and version.
"""

import hashlib
import numbers
from collections.abc import Hashable, ItemsView, Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np
import torch
from torch import Tensor

from markovot import validate

_EXACT = 2**53  # up to this number every integer has its own float64
# For other dtypes torch lacks some operations, and it compares some of them with each other only after rounding.
_KEPT = (torch.float32, torch.float64, torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_WIDENED = {torch.float16: torch.float32, torch.bfloat16: torch.float32}
_WIDENED |= dict.fromkeys((torch.uint16, torch.uint32, torch.uint64), torch.int64)


def is_missing(value: Any) -> bool:
    """Whether an entry stands for no value: None, NaN, NaT, pandas' NA, a masked entry."""
    if isinstance(value, str | bytes | int):  # by far the most frequent, and the quickest to recognise
        return False
    if value is None or value is np.ma.masked:
        return True
    if isinstance(value, float | np.generic):
        return bool(value != value)
    return type(value).__name__ in ("NAType", "NaTType")  # pandas need not be installed


def exact(features: Tensor) -> Tensor:
    """Features in a dtype in which any two are compared exactly; differentiable.

    Half precision becomes float32, and wide unsigned integers become int64.

    Raises:
        TypeError: complex numbers, and dtypes of less than half precision.
        ValueError: unsigned integers beyond int64.
    """
    if features.dtype in _KEPT:
        return features
    wider = _WIDENED.get(features.dtype)
    if wider is None:
        repair = "Stack the real and imaginary parts." if features.is_complex() else "Convert them to float32 or int64."
        raise TypeError(f"features: dtype {features.dtype} is not supported. {repair}")
    widened = features.to(wider)
    if features.dtype == torch.uint64 and bool((widened < 0).any()):
        at = validate.first(widened < 0)
        raise ValueError(
            f"features: entry {validate.place(at)} is {features[at].item()}, which does not fit into int64. If it is "
            "a name, use strings."
        )
    return widened


def label_code(label: Hashable) -> int:
    """The integer code of a label that is not a number: the same in every graph and in every process.

    None has a code too, but as a feature it is refused: it stands for a missing value.

    The code is the first 8 bytes of the BLAKE2b hash of the label and its type, as a signed integer. Two
    different labels share a code with probability 2^-64.

    Args:
        label: a string, bytes, None, or a tuple of labels and numbers.

    Returns:
        An integer that fits into int64.

    Raises:
        TypeError: any other type, since Python has no hash of it that is the same in every process.

    Example:
        >>> label_code("C") == label_code("C"), label_code("C") == label_code("N")
        (True, False)
    """
    return int.from_bytes(hashlib.blake2b(_canonical(label), digest_size=8).digest(), "little", signed=True)


def _canonical(label: Any) -> bytes:
    """Bytes that differ for different labels: the type, the length, the content."""
    if isinstance(label, str):
        kind, content = b"s", label.encode("utf-8", "surrogatepass")
    elif isinstance(label, bytes):
        kind, content = b"b", label
    elif label is None:
        kind, content = b"n", b""
    elif is_missing(label):
        raise ValueError(f"features: {label!r} in a label is a missing value. Fill it in, or leave it out.")
    elif _is_number(label):
        # Numbers count as one label if they are equal: 1, 1.0 and True.
        try:
            kind, content = b"f", (str(int(label)) if label == label // 1 else float(label).hex()).encode()
        except (OverflowError, ValueError):
            raise ValueError(f"features: the label {validate.shown(label)} is too large. Use a string.") from None
    elif isinstance(label, tuple):
        kind, content = b"t", b"".join(map(_canonical, label))
    else:
        raise TypeError(
            f"features: {label!r} of type {type(label).__name__} is neither a number, a vector of numbers, "
            "nor a label (a string, bytes, or a tuple of these). Give a mapping from node to one of these, for "
            f"instance {{node: str(value)}}."
        )
    return kind + len(content).to_bytes(8, "little") + content


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real | np.bool_) or (isinstance(value, Tensor | np.ndarray) and value.ndim == 0)


def _is_vector(value: Any) -> bool:
    if isinstance(value, Tensor | np.ndarray):
        return value.ndim == 1
    return isinstance(value, list | tuple) and len(value) > 0 and all(map(_is_number, value))


def encode(values: Sequence[Any], names: Sequence[Any]) -> Tensor:
    """One feature for each state as one tensor.

    Args:
        values: one for each state: numbers (also bool), or vectors of numbers of one length, or labels.
        names: the states, for error messages.

    Returns:
        Numbers: float64 (n,) (or the dtype of tensors that were given, with their gradient). Vectors: (n, p).
        Labels: int64 (n,), see `label_code`.

    Raises:
        TypeError: numbers mixed with labels or vectors, since such a feature could not be compared between graphs.
        ValueError: missing values, vectors of different lengths, numbers that are not finite.
    """
    for value, name in zip(values, names, strict=True):
        _check_there(value, name)
    kinds = ["number" if _is_number(v) else "vector" if _is_vector(v) else "label" for v in values]
    for kind, value, name in zip(kinds, values, names, strict=True):
        if kind != kinds[0]:
            raise TypeError(
                f"features: {values[0]!r} of node {names[0]!r} is a {kinds[0]}, but {value!r} of node "
                f"{name!r} is a {kind}. All nodes need the same kind; give a mapping from node to feature."
            )
    if kinds[0] == "label":
        return torch.tensor([label_code(value) for value in values], dtype=torch.int64, device="cpu")
    rows = [_row(value, name) for value, name in zip(values, names, strict=True)]
    for row, name in zip(rows, names, strict=True):
        if row.shape != rows[0].shape:
            raise ValueError(
                f"features: the vector of node {names[0]!r} has {len(rows[0])} components, that of node "
                f"{name!r} {len(row)}."
            )
        if not bool(torch.isfinite(row).all()):
            raise ValueError(f"features: that of node {name!r} is {row.detach().tolist()}. Numbers must be finite.")
    return torch.stack(rows)


def _check_there(value: Any, name: Any) -> None:
    """Refuse a missing value, which would otherwise become a label like any other."""
    if isinstance(value, list | tuple):
        for part in value:
            _check_there(part, name)
    elif is_missing(value):
        raise ValueError(
            f"features: that of node {name!r} is {value!r}, a missing value. Fill it in; if it is a kind of its own, "
            "give it a name, such as 'missing'."
        )


def _row(value: Any, name: Any) -> Tensor:
    if isinstance(value, Tensor) and value.is_floating_point():
        return value
    array = value.cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    if array.dtype.kind in "iuO" and array.size:
        largest = max(array.reshape(-1).tolist(), key=abs)
        if abs(largest) > _EXACT:
            raise ValueError(
                f"features: {largest} of node {name!r} has no exact float64. If it is a name, use the string "
                f"{str(largest)!r}."
            )
    return value.double() if isinstance(value, Tensor) else torch.tensor(array.astype(np.float64), device="cpu")


def of_nodes(graph: Any, features: Any, nodes: Sequence[Any]) -> Tensor:
    """Features of a networkx graph's nodes, in the order of `nodes`.

    Args:
        graph: the graph.
        features: the name of a node attribute; a mapping from node to feature, or a similar object of networkx or
            pandas (`G.degree`, `G.nodes(data=...)`, a Series by node); or a tensor, array or list in node order.
        nodes: the nodes.
    """
    if isinstance(features, list) or (isinstance(features, np.ndarray | Tensor) and features.ndim):
        pairs = [item for item in features if isinstance(item, tuple) and len(item) == 2] if len(features) else []
        if len(pairs) == len(nodes) and [node for node, _ in pairs] == list(nodes):
            raise ValueError("features: a list of pairs (node, feature). Make it a mapping: dict(features).")
        return of_states(features, torch.Size(), len(nodes), torch.device("cpu"))
    if (found := _by_node(features)) is not None:
        source = "the mapping"
    else:
        validate.key("features", features)
        found = {node: data[features] for node, data in graph.nodes(data=True) if features in data}
        source = f"attribute {validate.shown(features)}"
    missing = [node for node in nodes if node not in found]
    if missing:
        raise ValueError(
            f"features: {source} has no value for {len(missing)} of {len(nodes)} nodes, the first of them "
            f"{missing[0]!r}. Give every node a value, or pass a mapping from node to value."
        )
    return encode([found[node] for node in nodes], nodes)


def _by_node(features: Any) -> Mapping[Any, Any] | None:
    """A mapping from node to feature, from any type that is one; None for the name of an attribute."""
    if isinstance(features, Mapping):
        return features
    import networkx

    views = networkx.classes.reportviews
    if isinstance(features, ItemsView | views.DiDegreeView | views.NodeDataView):
        return dict(features)
    if getattr(features, "ndim", None) == 1 and hasattr(features, "index") and hasattr(features, "items"):
        if not features.index.is_unique:
            raise ValueError("features: the index of the Series names a node twice. Give every node one value.")
        return dict(features.items())
    array = isinstance(features, np.ndarray | Tensor)  # of no dimension
    if array or callable(features) or isinstance(features, Iterator | Set) or not isinstance(features, Hashable):
        repair = "{node: f(node) for node in graph}" if callable(features) else "dict(zip(graph, values))"
        raise TypeError(
            f"features: expected the name of a node attribute, a mapping from node to feature, or an array or list in "
            f"the order of the nodes, got {type(features).__name__}. Give a mapping, for instance {repair}."
        )
    return None


def of_states(features: Any, batch: torch.Size, n: int, device: torch.device) -> Tensor:
    """Features given with a transition matrix: a tensor, an array, or a list with one feature for each state.

    Returns:
        (*batch, n) or (*batch, n, p); one set of features is shared by the chains of a batch.
    """
    if isinstance(features, Tensor):
        features = validate.usable("features", features)
    if isinstance(features, np.ndarray):
        features = _of_array(features)
    if isinstance(features, list | tuple):
        if len(features) != n:
            raise ValueError(f"features: there are {len(features)} for {n} states. Give one feature for each state.")
        features = encode(features, range(n)).to(device)
    if not isinstance(features, Tensor):
        raise TypeError(
            "features: expected a tensor, an array, or a list with one entry for each state, got "
            f"{type(features).__name__}. Convert it, for instance by list(...), or a Series by .tolist()."
        )
    return _fit(features, batch, n, device)


def _of_array(features: np.ndarray[Any, Any]) -> Tensor | list[Any]:
    """An array of numbers as a tensor with its own memory; an array of labels as a list."""
    if np.ma.is_masked(features):
        raise ValueError("features: some entries are masked, and so missing. Fill them in: features.filled(...).")
    if features.dtype.kind in "OUST":
        found: list[Any] = features.tolist()
        return found
    if features.dtype.kind not in "fiub" or features.dtype.itemsize > 8:
        raise TypeError(f"features: dtype {features.dtype} is not supported. Use floats, integers or strings.")
    # A copy, in the byte order and the memory layout that torch knows.
    return torch.from_numpy(np.array(features, dtype=features.dtype.newbyteorder("="), order="C"))


def _fit(features: Tensor, batch: torch.Size, n: int, device: torch.device) -> Tensor:
    if features.device != device:
        raise ValueError(
            f"features are on {features.device} but the chain is on {device}. Move them, with .to('{device}')."
        )
    features = exact(features)
    if features.is_floating_point() and not bool(torch.isfinite(features).all()):
        at = tuple(torch.nonzero(~torch.isfinite(features))[0].tolist())
        raise ValueError(f"features: entry {at} is {features[at].item()}. Features must be finite.")
    own = (*batch, n)
    if tuple(features.shape[: len(own)]) == own and features.dim() - len(own) in (0, 1):
        return features
    if features.dim() in (1, 2) and len(features) == n:
        return features.expand(*batch, *features.shape)
    raise ValueError(
        f"features: shape {tuple(features.shape)} does not fit {own}. Give one number or vector for each "
        f"state: shape {own} or {(*own, 'p')}."
    )
