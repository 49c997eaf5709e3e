"""Steps between states, counted in trajectories.

The types of its entries decide what kind of trajectory it is. NumPy is not asked, since it turns a number beside a
string into a string, None into a name, and tuples into rows.
"""

import numbers
from collections.abc import Iterator, Sequence, ValuesView
from typing import Any

import numpy as np
import torch
from torch import Tensor

from markovot import validate
from markovot.chains.build import MOST_STATES
from markovot.chains.compressed import Compressed, gather
from markovot.chains.labels import is_missing

_REPAIR = "States are integers or names (strings); "


def count_steps(
    trajectories: Any, num_states: int | None, names: Sequence[Any] | None
) -> tuple[Compressed, list[Any] | None]:
    """Numbers of observed steps between states in compressed rows, and the states' names, if any."""
    entries = _entries("trajectories", trajectories)
    single = isinstance(entries, np.ndarray) or not any(map(_is_sequence, entries))
    if single:
        paths = [_path(0, entries)] if len(entries) or isinstance(entries, np.ndarray) else []
        if names is None:
            _check_words(paths)
    else:
        paths = [_path(k, _inner(k, path)) for k, path in enumerate(entries)]
    if not paths:
        raise ValueError("trajectories: there are none. Give at least one sequence of states.")
    named = [k for k, path in enumerate(paths) if isinstance(path, list)]
    numbered = [k for k, path in enumerate(paths) if not isinstance(path, list) and len(path)]
    if named and numbered:
        k, j = named[0], numbered[0]
        raise TypeError(
            f"trajectories: number {k} holds the state {paths[k][0]!r}, a name, but number {j} the state "
            f"{int(paths[j][0])}, an integer. Write all states in one way, for instance as strings."
        )
    arrays: list[Any] = paths
    if names is not None or named:
        arrays, names = _number(paths, bool(named), names)
    n = 1 + max((int(array.max()) for array in arrays if len(array)), default=-1)
    if num_states is not None:
        n = _enough("num_states", n, num_states)
    elif names is not None:
        n = _enough("state_names", n, len(names))
    if n == 0:
        raise ValueError("trajectories: they are all empty. Give at least one state, or num_states.")
    steps = torch.from_numpy(np.concatenate([np.stack([a[:-1], a[1:]]) for a in arrays], axis=1))
    counts = gather(steps[0], steps[1], torch.ones(steps.shape[1], dtype=torch.float64, device="cpu"), (n,))
    return counts, None if names is None else list(names)


def _entries(name: str, value: Any) -> Any:
    """The entries of a container, in its order: a vector of numbers as an array, anything else as a list."""
    if isinstance(value, Tensor):
        _check_real(name, value)
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        if np.ma.is_masked(value):
            raise ValueError(f"{name}: some states are masked, and so missing. Cut the trajectory there.")
        if value.ndim == 0:
            raise TypeError(f"{name}: expected a sequence of states, got an array of shape ().")
        if value.dtype.kind in "OUST":
            found: list[Any] = value.tolist()
            return found
        return value if value.ndim == 1 else list(value)
    if isinstance(value, str):
        raise TypeError(f"{name}: a string is not a trajectory. Use list(text) for its characters.")
    if isinstance(value, bytes | bytearray | memoryview):
        raise TypeError(f"{name}: {type(value).__name__} are not a trajectory. Use list(data) for their values.")
    # A Series or an Index, of pandas or of others, has one dimension. A data frame would give its columns, a mapping
    # its keys, a set its members in any order, a graph its nodes.
    one_dimension = len(getattr(value, "shape", ())) == 1 and hasattr(value, "__iter__")
    if one_dimension or isinstance(value, Sequence | Iterator | ValuesView):
        return list(value)
    repair = "Give a list (or a list of lists), an array, or a tensor."
    if hasattr(value, "columns"):
        repair = (
            "Give a column, frame['state'], or the parts of one: [part.tolist() for _, part in "
            "frame.groupby('trajectory')['state']]; a table of edges goes to markovot.interop.from_frame."
        )
    elif hasattr(value, "get_group"):
        repair = "Give its parts: [part.tolist() for _, part in frame.groupby('trajectory')['state']]."
    elif hasattr(value, "values"):
        repair = "Give list(mapping.values())."
    raise TypeError(f"{name}: expected sequences of states, or a single one, got {type(value).__name__}. {repair}")


def _check_real(name: str, tensor: Tensor) -> None:
    if tensor.is_floating_point() or tensor.is_complex() or tensor.layout != torch.strided:
        what = f"dtype {tensor.dtype}" if tensor.layout == torch.strided else f"layout {tensor.layout}"
        raise TypeError(f"{name}: a tensor of {what}. {_REPAIR}bin or cluster real values first.")


def _check_words(paths: list[Any]) -> None:
    """Refuse words without repetition, which could be states or trajectories of letters."""
    words = paths[0] if paths and isinstance(paths[0], list) else []
    if words and len(set(words)) == len(words) and all(len(word) > 1 for word in words):
        raise ValueError(
            f"trajectories: {_short(words)} could be one trajectory, whose states are words, or many, whose states are "
            "letters. For the first, put it into a list, [words]; for the second, use [list(word) for word in words]."
        )


def _is_sequence(entry: Any) -> bool:
    """Whether an entry is a trajectory of its own, and not a state."""
    if isinstance(entry, str | bytes) or getattr(entry, "ndim", None) == 0:
        return False
    return hasattr(entry, "__iter__")


def _inner(k: int, path: Any) -> Any:
    name = f"trajectories: number {k}"
    if isinstance(path, tuple):
        raise TypeError(
            f"{name} is the tuple {_short(path)}, which could be a trajectory or a state. Give each trajectory as a "
            "list: [list(path) for path in trajectories]. If tuples are states, name each by a string: [str(state) for "
            "state in trajectory]."
        )
    if not _is_sequence(path):
        kind = "a missing value" if is_missing(path) else "a state"
        raise TypeError(f"{name} is {_short(path)}, {kind} among trajectories. Give each trajectory as a list.")
    return _entries(name, path)


def _path(k: int, entries: Any) -> Any:
    """A trajectory of integers as an array, one of names as a list of strings."""
    where = f"trajectories: number {k}"
    if isinstance(entries, np.ndarray):
        if entries.dtype.kind == "f" and np.isnan(entries).any():
            _refuse_missing(k, int(np.isnan(entries).argmax()), np.nan)
        if len(entries) and entries.dtype.kind not in "iu":
            raise TypeError(f"{where} has dtype {entries.dtype}. {_REPAIR}bin or cluster real values first.")
        return _integers(where, entries)
    if any(hasattr(kind, "ndim") for kind in set(map(type, entries))):  # entries of a tensor or an array
        entries = [e.item() if getattr(e, "ndim", None) == 0 and not is_missing(e) else e for e in entries]
    kinds = {kind: _kind(kind) for kind in set(map(type, entries))}
    for at, entry in enumerate(entries):
        if is_missing(entry):
            _refuse_missing(k, at, entry)
    if None in kinds.values():
        _refuse_state(where, entries, next(at for at, entry in enumerate(entries) if kinds[type(entry)] is None))
    if len(set(kinds.values())) == 2:
        name = next(entry for entry in entries if isinstance(entry, str))
        integer = next(entry for entry in entries if not isinstance(entry, str))
        raise TypeError(
            f"{where} holds the state {name!r}, a name, and the state {integer!r}, an integer. Write all states in one "
            "way, for instance as strings: [str(state) for state in trajectory]."
        )
    return [str.__str__(entry) for entry in entries] if str in kinds.values() else _integers(where, entries)


def _kind(kind: type) -> type | None:
    """What states of a type are: str for names, int for integers, None for neither."""
    if issubclass(kind, str):
        return str
    if issubclass(kind, bool):
        return None
    return int if issubclass(kind, numbers.Integral) else None


def _refuse_missing(k: int, at: int, value: Any) -> None:
    raise ValueError(
        f"trajectories: number {k} holds {value!r} at place {at}, a missing value. Cut the trajectory in two there, "
        "leave the entry out, or, if it is a state of its own, give it a name, such as 'missing'."
    )


def _refuse_state(where: str, entries: list[Any], at: int) -> None:
    state = entries[at]
    if isinstance(state, float):
        repair = f"{_REPAIR}bin or cluster real values first."
        raise TypeError(f"{where} has dtype float64: it holds the state {state!r}. {repair}")
    if _is_sequence(state):
        within = np.shape(state) if isinstance(state, np.ndarray | Tensor) else (len(state),)
        shape = (len(entries), *within)
        raise ValueError(
            f"{where} has shape {shape}: at place {at} it holds {_short(state)}. A trajectory is a sequence of "
            "states, which are integers or names: name each by a string, [str(state) for state in trajectory]."
        )
    raise TypeError(
        f"{where} holds {_short(state)} of type {type(state).__name__}. {_REPAIR}write others as strings: [str(state) "
        "for state in trajectory]."
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _integers(where: str, states: Any) -> Any:
    if len(states) == 0:
        return np.zeros(0, dtype=np.int64)
    least, largest = (min(states), max(states)) if isinstance(states, list) else (int(states.min()), int(states.max()))
    if least < 0:
        raise ValueError(f"{where} holds the state {least}. States are numbered from 0.")
    if largest >= MOST_STATES:
        raise ValueError(
            f"{where} holds the state {largest}. States are numbered from 0, so that there would be {largest + 1}. If "
            "the numbers are names, give them as strings."
        )
    return np.array(states, dtype=np.int64)


def _number(paths: list[Any], named: bool, names: Any) -> tuple[list[Any], list[Any]]:
    """Names of states replaced by numbers; without `names`, in sorted order."""
    if names is None:
        names = sorted({name for path in paths for name in path})
    names = list(names)
    number = {name: k for k, name in enumerate(names)}
    if len(number) != len(names):
        raise ValueError("state_names: a name occurs twice. Names must differ.")
    if not named:
        return paths, names
    for k, path in enumerate(paths):
        unknown = [name for name in path if name not in number]
        if unknown:
            raise ValueError(f"trajectories: number {k} holds the state {unknown[0]!r}, which is not in state_names.")
    return [np.array([number[name] for name in path], dtype=np.int64) for path in paths], names


def _enough(name: str, seen: int, wanted: Any) -> int:
    wanted = validate.count(name, wanted, low=-validate.LARGEST, high=MOST_STATES)
    if wanted < seen or wanted < 1:
        raise ValueError(
            f"{name}: {wanted} is too small, since state {max(seen - 1, 0)} occurs. Use at least {max(seen, 1)}."
        )
    return wanted
