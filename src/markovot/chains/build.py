"""Transition matrices from adjacency matrices, networkx graphs and trajectories.

The rules for oddities, all in one place: parallel edges are summed; an undirected edge can be walked both
ways; a self-loop counts once; a state with no way out (total weight zero) stays where it is, unless
`dead_ends` says otherwise.
"""

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from markovot import validate
from markovot.compressed import Compressed, gather

DEAD_ENDS = ("stay", "uniform", "error")


def _check_dead_ends(dead: Tensor, dead_ends: str) -> None:
    if dead_ends == "error" and bool(dead.any()):
        raise ValueError(
            f"dead_ends: state {validate.place(validate.first(dead))} has no way out (no edge of positive "
            f"weight leaves it), the first of {int(dead.sum())}. Remove it, or use dead_ends='stay' or "
            "dead_ends='uniform'."
        )


def _check_totals(name: str, totals: Tensor) -> None:
    if not bool((totals.detach() < math.inf).all()):
        row = validate.place(validate.first(~(totals.detach() < math.inf)))
        raise ValueError(f"{name}: the weights of row {row} add up to infinity. Divide all weights by a large number.")


def walk_dense(adjacency: Tensor, laziness: float, dead_ends: str) -> Tensor:
    """Transition matrix (*batch, n, n) of the random walk along the weights, differentiable in them."""
    validate.entries("adjacency", adjacency)
    n = adjacency.shape[-1]
    totals = adjacency.sum(-1)
    _check_totals("adjacency", totals)
    dead = totals == 0
    _check_dead_ends(dead, dead_ends)
    identity = torch.eye(n, dtype=adjacency.dtype, device=adjacency.device)
    instead = identity if dead_ends != "uniform" else torch.full_like(identity, 1.0 / n)
    # Where the total is zero neither branch may divide by it: its gradient would be NaN although it is not
    # selected.
    walk = torch.where(dead[..., None], instead, adjacency / torch.where(dead, 1.0, totals)[..., None])
    return walk if laziness == 0 else laziness * identity + (1 - laziness) * walk


def walk_compressed(weights: Compressed, laziness: float, dead_ends: str) -> Compressed:
    """Transition rows of the random walk along the stored weights, differentiable in them."""
    owner, (_, columns, values) = weights.owner(), weights
    rows_shape = weights.rows_shape
    validate.stored_entries("adjacency", owner, columns, values.detach(), tuple(rows_shape))
    count, n = rows_shape.numel(), rows_shape[-1]
    totals = values.new_zeros(count).index_add(0, owner, values)
    _check_totals("adjacency", totals.view(rows_shape))
    dead = totals == 0
    _check_dead_ends(dead.view(rows_shape), dead_ends)
    walk = values / torch.where(dead, 1.0, totals)[owner]
    every = torch.arange(count, device=values.device)
    parts = [(owner, columns, walk)]
    stuck = every[dead]
    if dead_ends == "uniform":
        jumps = torch.arange(n, device=values.device).repeat(len(stuck))
        parts.append((stuck.repeat_interleave(n), jumps, values.new_full((len(jumps),), 1.0 / n)))
    elif len(stuck):
        parts.append((stuck, stuck % n, values.new_ones(len(stuck))))
    if laziness > 0:
        parts = [(rows, targets, (1 - laziness) * p) for rows, targets, p in parts]
        parts.append((every, every % n, values.new_full((count,), laziness)))
    if len(parts) == 1:
        return Compressed(weights.indptr, columns, walk)
    rows, targets, probabilities = (torch.cat(part) for part in zip(*parts, strict=True))
    return gather(rows, targets, probabilities, rows_shape)


def graph_weights(graph: Any, weight: str | None) -> tuple[Compressed, list[Any]]:
    """Weights of a networkx graph of any kind in compressed rows, and its nodes."""
    import networkx

    if not isinstance(graph, networkx.Graph):
        raise TypeError(f"graph: expected a networkx graph, got {type(graph).__name__}. as_chain takes other objects.")
    nodes = list(graph)
    if not nodes:
        raise ValueError("graph: it has no nodes. A chain needs at least one state.")
    number = {node: k for k, node in enumerate(nodes)}
    sources, targets, values = [], [], []
    # With weight=None the third item is 1 for every edge; an edge without the attribute counts as 1, as in
    # networkx.
    for u, v, w in graph.edges(data=weight, default=1) if weight is not None else ((*e[:2], 1) for e in graph.edges()):
        w = _edge_weight(u, v, w, weight)
        if w == 0:
            continue
        sources.append(number[u])
        targets.append(number[v])
        values.append(w)
        if u != v and not graph.is_directed():
            sources.append(number[v])
            targets.append(number[u])
            values.append(w)
    index = torch.tensor([sources, targets], dtype=torch.int64)
    return gather(index[0], index[1], torch.tensor(values, dtype=torch.float64), (len(nodes),)), nodes


def _edge_weight(u: Any, v: Any, w: Any, weight: Any) -> float:
    if not isinstance(w, int | float | numbers.Real | np.bool_):  # the plain types first: far faster
        raise TypeError(
            f"weight: attribute {weight!r} of edge ({u!r}, {v!r}) is {w!r}, not a number. Convert it, or use "
            "weight=None to count every edge as 1."
        )
    w = float(w)
    if not 0 <= w < math.inf:
        kind = "negative" if w < 0 else "not finite"
        raise ValueError(
            f"weight: edge ({u!r}, {v!r}) has {weight!r} = {w}, which is {kind}. Weights must be finite and >= 0."
        )
    return w


def count_steps(
    trajectories: Any, num_states: int | None, names: Sequence[Any] | None
) -> tuple[Compressed, list[Any] | None]:
    """Numbers of observed steps between states in compressed rows, and the states' names, if any."""
    if isinstance(trajectories, str):
        raise TypeError("trajectories: a string is not a trajectory. Use list(text) for its characters.")
    trajectories = trajectories if isinstance(trajectories, Tensor | np.ndarray) else list(trajectories)
    paths = [trajectories] if _is_path(trajectories) else list(trajectories)
    if not paths:
        raise ValueError("trajectories: there are none. Give at least one sequence of states.")
    arrays = [_path(path, k) for k, path in enumerate(paths)]
    if names is not None or any(array.dtype.kind != "i" for array in arrays):
        arrays, names = _number(arrays, names)
    n = 1 + max((int(array.max()) for array in arrays if len(array)), default=-1)
    if num_states is not None or names is not None:
        n = _enough(n, num_states if num_states is not None else len(names or ()))
    if n == 0:
        raise ValueError("trajectories: they are all empty. Give at least one state, or num_states.")
    steps = torch.from_numpy(np.concatenate([np.stack([a[:-1], a[1:]]) for a in arrays], axis=1))
    counts = gather(steps[0], steps[1], torch.ones(steps.shape[1], dtype=torch.float64), (n,))
    return counts, None if names is None else list(names)


def _is_path(value: Any) -> bool:
    if isinstance(value, Tensor | np.ndarray):
        return value.ndim == 1
    first = value[0] if len(value) else []
    return isinstance(first, str) or not isinstance(first, Sequence | np.ndarray | Tensor)


def _path(path: Any, k: int) -> Any:
    array = path.cpu().numpy() if isinstance(path, Tensor) else np.asarray(path)
    if array.ndim != 1:
        raise ValueError(f"trajectories: number {k} has shape {array.shape}. A trajectory is a sequence of states.")
    if len(array) == 0:
        return np.zeros(0, dtype=np.int64)
    if array.dtype.kind in "iu":
        if array.min() < 0:
            raise ValueError(f"trajectories: number {k} holds the state {array.min()}. States are numbered from 0.")
        return array.astype(np.int64)
    if array.dtype.kind in "UO":
        return array
    raise TypeError(
        f"trajectories: number {k} has dtype {array.dtype}. States are integers or names; bin or cluster "
        "real values first."
    )


def _number(arrays: list[Any], names: Sequence[Any] | None) -> tuple[list[Any], Sequence[Any]]:
    """Replace names of states by numbers; without `names`, in sorted order."""
    values = [array.tolist() for array in arrays]
    if names is None:
        names = sorted({name for path in values for name in path}, key=lambda name: (type(name).__name__, name))
    number = {name: k for k, name in enumerate(names)}
    if len(number) != len(names):
        raise ValueError("state_names: a name occurs twice. Names must differ.")
    if any(array.dtype.kind != "i" for array in arrays):
        for k, path in enumerate(values):
            unknown = [name for name in path if name not in number]
            if unknown:
                raise ValueError(
                    f"trajectories: number {k} holds the state {unknown[0]!r}, which is not in state_names."
                )
        return [np.array([number[name] for name in path], dtype=np.int64) for path in values], names
    return arrays, names


def _enough(seen: int, wanted: Any) -> int:
    if isinstance(wanted, bool) or not isinstance(wanted, numbers.Integral):
        raise TypeError(f"num_states: expected an integer, got {type(wanted).__name__}.")
    if wanted < seen or wanted < 1:
        raise ValueError(
            f"num_states: {wanted} is too small, since state {max(seen - 1, 0)} occurs. Use at least {max(seen, 1)}."
        )
    return int(wanted)
