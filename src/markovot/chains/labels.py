"""Features of states: numbers, vectors of numbers, and labels such as strings, as tensors.

Labels must mean the same in every graph, whichever labels happen to occur in it, so they are not numbered in
the order in which they are met: a label's code is a hash of the label itself, the same in every graph,
process and version.
"""

import hashlib
import numbers
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

_EXACT = 2**53  # up to here every integer has its own float64


def label_code(label: Hashable) -> int:
    """The integer code of a label that is not a number: the same in every graph and in every process.

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
    elif _is_number(label):
        # As numbers are compared: 1, 1.0 and True are one label.
        kind, content = b"f", (str(int(label)) if label == label // 1 else float(label).hex()).encode()
    elif isinstance(label, tuple):
        kind, content = b"t", b"".join(map(_canonical, label))
    else:
        raise TypeError(
            f"features: {label!r} of type {type(label).__name__} is neither a number, a vector of numbers, "
            "nor a label (a string, bytes, None, or a tuple of these). Give a mapping from node to one of "
            f"these, for instance {{node: str(value)}}."
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
        ValueError: vectors of different lengths, numbers that are not finite.
    """
    kinds = ["number" if _is_number(v) else "vector" if _is_vector(v) else "label" for v in values]
    for kind, value, name in zip(kinds, values, names, strict=True):
        if kind != kinds[0]:
            raise TypeError(
                f"features: {values[0]!r} of node {names[0]!r} is a {kinds[0]}, but {value!r} of node "
                f"{name!r} is a {kind}. All nodes need the same kind; give a mapping from node to feature."
            )
    if kinds[0] == "label":
        return torch.tensor([label_code(value) for value in values], dtype=torch.int64)
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
    return value.double() if isinstance(value, Tensor) else torch.tensor(array.astype(np.float64))


def of_nodes(graph: Any, features: Any, nodes: Sequence[Any]) -> Tensor:
    """Features of a networkx graph's nodes, in the order of `nodes`: by attribute name, or from a mapping."""
    if isinstance(features, Mapping):
        found, source = features, "the mapping"
    else:
        found = {node: data[features] for node, data in graph.nodes(data=True) if features in data}
        source = f"attribute {features!r}"
    missing = [node for node in nodes if node not in found]
    if missing:
        raise ValueError(
            f"features: {source} has no value for {len(missing)} of {len(nodes)} nodes, the first of them "
            f"{missing[0]!r}. Give every node a value, or pass a mapping from node to value."
        )
    return encode([found[node] for node in nodes], nodes)


def of_states(features: Any, batch: torch.Size, n: int, device: torch.device) -> Tensor:
    """Features given with a transition matrix: a tensor, an array, or a list with one feature for each state.

    Returns:
        (*batch, n) or (*batch, n, p); one set of features is shared by the chains of a batch.
    """
    if isinstance(features, np.ndarray) and features.dtype.kind in "OUS":
        features = features.tolist()
    if isinstance(features, np.ndarray):
        if features.dtype.kind not in "fiub":
            raise TypeError(f"features: dtype {features.dtype} is not supported. Use floats, integers or strings.")
        features = torch.tensor(features)
    elif isinstance(features, list | tuple):
        if len(features) != n:
            raise ValueError(f"features: there are {len(features)} for {n} states. Give one feature for each state.")
        features = encode(features, range(n)).to(device)
    if not isinstance(features, Tensor):
        raise TypeError(
            "features: expected a tensor, an array, or a list with one entry for each state, got "
            f"{type(features).__name__}."
        )
    return _fit(features, batch, n, device)


def _fit(features: Tensor, batch: torch.Size, n: int, device: torch.device) -> Tensor:
    if features.device != device:
        raise ValueError(
            f"features are on {features.device} but the chain is on {device}. Move them, with .to('{device}')."
        )
    if features.is_complex():
        raise TypeError(f"features: dtype {features.dtype} is not supported. Stack the real and imaginary parts.")
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
