"""Chains in files: plain arrays and JSON in NumPy's .npz format, which is read without running any code.

The file says what it holds, with a digest that reveals damage. Still, nothing in it is trusted: its content is checked
in the same way as input from a user.
"""

import hashlib
import json
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from markovot import validate
from markovot._files import placed, written_whole
from markovot.chains.compressed import Compressed

_FORMAT = "markovot chain 1"
_ABOUT = "about"

Arrays = dict[str, NDArray[Any]]


def write(path: Any, chain: Any) -> None:
    """Store a chain or a batch of chains."""
    file = placed("path", path)
    arrays = {name: _array(name, tensor) for name, tensor in _tensors(chain).items()}
    about = {
        "format": _FORMAT,
        "initial": chain.initial_law,
        "state_names": None if chain.state_names is None else [_written(name) for name in chain.state_names],
    }
    about["digest"] = _digest(about, arrays)
    with written_whole(file) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays, **{_ABOUT: np.array(json.dumps(about))})  # type: ignore[arg-type]


def _tensors(chain: Any) -> dict[str, Tensor]:
    """The tensors that a chain is made of."""
    found = chain.compressed._asdict() if chain.is_sparse else {"transition": chain.transition}
    if chain.features is not None:
        found["features"] = chain.features
    if chain.is_padded:
        found["sizes"] = chain.sizes
    if chain.initial_law == "given":
        found["initial"] = chain.initial
    return found


def _array(name: str, tensor: Tensor) -> NDArray[Any]:
    try:
        return tensor.detach().cpu().contiguous().numpy()
    except TypeError as error:  # NumPy lacks some of PyTorch's types
        raise TypeError(f"{name}: dtype {tensor.dtype} cannot be stored. Convert it to float32 or float64.") from error


def _written(name: Any) -> Any:
    """A name as JSON. A list holds the names of one chain's states; a tuple is a name, and is written otherwise."""
    if isinstance(name, np.generic):
        name = name.item()  # a plain value that is equal, with the same hash
    if name is None or type(name) in (str, int, bool):
        return name
    if type(name) is float:
        return {"float": name.hex()}
    if type(name) is tuple:
        return {"tuple": [_written(part) for part in name]}
    if type(name) is list:
        return [_written(part) for part in name]
    raise TypeError(
        f"state_names: {name!r} of type {type(name).__name__} cannot be stored. Names are strings, integers, floats, "
        "truth values, None, and tuples of these."
    )


def _read_name(stored: Any) -> Any:
    if isinstance(stored, list):
        return [_read_name(part) for part in stored]
    if isinstance(stored, dict):
        ((kind, content),) = stored.items()
        return float.fromhex(content) if kind == "float" else tuple(_read_name(part) for part in content)
    return stored


def _digest(about: dict[str, Any], arrays: Arrays) -> str:
    digest = hashlib.blake2b(json.dumps(about, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        digest.update(repr((name, array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def read(path: Any, kind: Any) -> Any:
    """The chain in a file, made by `kind.from_transitions` and `kind.stack`."""
    about, arrays = _read(path)
    try:
        return _restored(about, arrays, kind)
    except Exception as error:
        raise ValueError(f"path: {path} holds no valid chain: {error}") from error


def _read(path: Any) -> tuple[dict[str, Any], Arrays]:
    with open(validate.path("path", path), "rb") as stream:  # errors of `open` name the file
        try:
            with np.load(stream, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            about = json.loads(str(arrays.pop(_ABOUT)))
            known, digest = about["format"] == _FORMAT, about.pop("digest")
        except Exception as error:  # zip files and arrays fail in many ways
            raise ValueError(
                f"path: {path} is not a chain stored by MarkovChain.save, or is damaged ({error})."
            ) from error
    if not known:
        raise ValueError(f"path: {path} is in the format {about['format']!r}, and this version reads {_FORMAT!r}.")
    if digest != _digest(about, arrays):
        raise ValueError(f"path: {path} is damaged: its digest does not match what it holds. Store the chain again.")
    return about, arrays


def _restored(about: dict[str, Any], arrays: Arrays, kind: Any) -> Any:
    tensors = {name: validate.as_tensor(name, array) for name, array in arrays.items()}
    dense = tensors.get("transition")
    chain = kind(
        _pointed(tensors) if dense is None else validate.matrices("transition", dense),
        initial=tensors["initial"] if about["initial"] == "given" else about["initial"],
        features=tensors.get("features"),
        state_names=None if about["state_names"] is None else _read_name(about["state_names"]),
        sizes=tensors.get("sizes"),
    )
    if not chain.is_padded:
        _check(chain, kind)
        return chain
    parts = list(chain)
    for part in parts:
        _check(part, kind)
    # The parts do not show the padding.
    again = kind.stack(parts)
    if again.state_names != chain.state_names or not _same(_tensors(again), _tensors(chain)):
        raise ValueError("its padding is not empty.")
    return chain


def _same(some: dict[str, Tensor], others: dict[str, Tensor]) -> bool:
    return some.keys() == others.keys() and all(torch.equal(some[name], others[name]) for name in some)


def _pointed(tensors: dict[str, Tensor]) -> Compressed:
    """Compressed rows whose pointers can be followed."""
    rows = Compressed(tensors["indptr"], tensors["indices"], tensors["values"])
    validate.floating("values", rows.values)
    pointers, count = rows.indptr, len(rows.values)
    if any(part.dtype != torch.int64 for part in rows[:2]) or rows.values.dim() != 1 or rows.indices.shape != (count,):
        raise ValueError("indptr, indices and values: they do not belong together.")
    if pointers.dim() < 1 or pointers.shape[-1] < 2 or pointers.numel() == 0:
        raise ValueError(f"indptr: shape {tuple(pointers.shape)} is an empty chain.")
    first, last = pointers[..., 0].flatten(), pointers[..., -1].flatten()
    meet = int(first[0]) == 0 and int(last[-1]) == count and torch.equal(first[1:], last[:-1])
    if not meet or bool((pointers.diff(dim=-1) < 0).any()):
        raise ValueError(f"indptr: it does not rise from 0 to the number of stored entries, {count}.")
    return rows


def _check(chain: Any, kind: Any) -> None:
    """Check a chain without padding as if a user had given it."""
    names = chain.state_names
    if names is not None and chain.batch_shape:
        if len(names) != chain.batch_shape.numel() or any(own != names[0] for own in names):
            raise ValueError("state_names: the chains of a batch share the names of their states.")
        names = names[0]
    initial = chain._initial
    kind.from_transitions(
        _coo(chain) if chain.is_sparse else _summing_to_one(chain.transition, chain.transition.sum(-1, keepdim=True)),
        initial=initial if isinstance(initial, str) else _summing_to_one(initial, initial.sum(-1, keepdim=True)),
        features=chain.features,
        state_names=names,
    )


def _coo(chain: Any) -> Tensor:
    rows, owner = chain.compressed, chain.compressed.owner()
    values = _summing_to_one(rows.values, rows.row_sums(owner).reshape(-1)[owner])
    places = torch.stack([*torch.unravel_index(owner, rows.rows_shape), rows.indices])
    size = (*rows.rows_shape, chain.num_states)
    device = values.device
    return torch.sparse_coo_tensor(places, values, size, is_coalesced=True, check_invariants=True, device=device)


def _summing_to_one(probabilities: Tensor, sums: Tensor) -> Tensor:
    """Probabilities divided by their sums, which are one only to float32 in a chain that was converted to float64."""
    near = (sums - 1).abs() <= validate.SUM_TOLERANCE[torch.float32]
    return probabilities / torch.where(near, sums, 1.0) if probabilities.dtype == torch.float64 else probabilities
