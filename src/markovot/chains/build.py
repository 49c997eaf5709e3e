"""Transition matrices from adjacency matrices and networkx graphs.

The rules for oddities, all in one place: parallel edges are summed; an undirected edge can be walked both
ways; a self-loop counts once; a state with no way out (total weight zero) stays where it is, unless
`dead_ends` says otherwise.
"""

import math
import numbers
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from markovot import validate
from markovot.autograd.transforms import plain
from markovot.chains.compressed import Compressed, gather

_Map = Callable[[Tensor], Tensor]
DEAD_ENDS = ("stay", "uniform", "error")
# With more states than this, the row pointers alone would take gigabytes.
MOST_STATES = 1 << 28


def _check_dead_ends(dead: Tensor, dead_ends: str) -> None:
    if dead_ends == "error" and bool(dead.any()):
        raise ValueError(
            f"dead_ends: state {validate.place(validate.first(dead))} has no way out (no edge of positive "
            f"weight leaves it), the first of {int(dead.sum())}. Remove it, or use dead_ends='stay' or "
            "dead_ends='uniform'."
        )


def _shares(weights: Tensor, peaks: Tensor, add: _Map, spread: _Map) -> Tensor:
    """Weights divided by the sums of their rows, differentiable; rows of weight zero stay so.

    Rows near the ends of the range of floats are scaled first: their sums, or the inverses of the sums, would overflow.

    Args:
        weights: checked.
        peaks: the largest weight of each row, detached.
        add: from entries to the sums of rows.
        spread: from one number for each row to its entries.
    """
    info = torch.finfo(weights.dtype)
    odd = (peaks > 0) & ((peaks < info.tiny**0.5) | (peaks > info.max**0.5))
    # Where the total is zero or not used, we must not divide by it: the gradient would be NaN, although the quotient is
    # not selected.
    plainly = weights / spread(torch.where(odd | (peaks == 0), 1.0, add(weights)))
    if not bool(plain(odd).any()):
        return plainly
    still = weights.detach()
    factor = torch.where(odd, (1.0 / peaks).clamp(max=info.max), 1.0)
    scaled = still * spread(factor)
    total = torch.where(peaks == 0, 1.0, add(scaled))
    shares = scaled / spread(total)
    # The same numbers, with the first derivative (g - <g, shares>) / sum. The difference is taken before the quotient,
    # so that a zero derivative stays zero for any sum. (A second one would lie beyond the range of floats.)
    step = (weights - still) * spread((factor / total).clamp(max=info.max))
    return torch.where(spread(odd), shares + step - shares * spread(add(step)), plainly)


def walk_dense(adjacency: Tensor, laziness: float, dead_ends: str) -> Tensor:
    """Transition matrix (*batch, n, n) of the random walk along the weights, differentiable in them."""
    validate.entries("adjacency", adjacency)
    n = adjacency.shape[-1]
    peaks = adjacency.detach().amax(-1)
    dead = peaks == 0
    _check_dead_ends(dead, dead_ends)
    identity = torch.eye(n, dtype=adjacency.dtype, device=adjacency.device)
    instead = identity if dead_ends != "uniform" else torch.full_like(identity, 1.0 / n)
    shares = _shares(adjacency, peaks, lambda entries: entries.sum(-1), lambda rows: rows[..., None])
    walk = torch.where(dead[..., None], instead, shares)
    return walk if laziness == 0 else laziness * identity + (1 - laziness) * walk


def walk_compressed(weights: Compressed, laziness: float, dead_ends: str) -> Compressed:
    """Transition rows of the random walk along the stored weights, differentiable in them."""
    owner, (_, columns, values) = weights.owner(), weights
    rows_shape = weights.rows_shape
    validate.stored_entries("adjacency", owner, columns, values.detach(), tuple(rows_shape))
    count, n = rows_shape.numel(), rows_shape[-1]
    zero = values.new_zeros(count)
    peaks = zero.scatter_reduce(0, owner, values.detach(), "amax")
    dead = peaks == 0
    _check_dead_ends(dead.view(rows_shape), dead_ends)
    walk = _shares(values, peaks, lambda entries: zero.index_add(0, owner, entries), lambda rows: rows[owner])
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
    validate.key("weight", weight)
    nodes = list(graph)
    if not nodes:
        raise ValueError("graph: it has no nodes. A chain needs at least one state.")
    if weight is not None:
        _check_weight(graph, weight)
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
    index = torch.tensor([sources, targets], dtype=torch.int64, device="cpu")
    return gather(index[0], index[1], torch.tensor(values, dtype=torch.float64, device="cpu"), (len(nodes),)), nodes


def _check_weight(graph: Any, weight: Any) -> None:
    """Refuse a name that no attribute has: every edge would silently count as 1."""
    if isinstance(weight, bool):
        raise TypeError(
            f"weight: expected the name of an edge attribute, or None, got {type(weight).__name__}. Set the weights in "
            "the graph by networkx.set_edge_attributes; None counts every edge as 1."
        )
    if weight == "weight" or not graph.size() or any(weight in data for *_, data in graph.edges(data=True)):
        return
    known = ", ".join(sorted({repr(name) for *_, data in graph.edges(data=True) for name in data}))
    raise ValueError(
        f"weight: no edge has an attribute {validate.shown(weight)}, only {known or 'none'}. Name one of them, or use "
        "weight=None to count every edge as 1."
    )


def _edge_weight(u: Any, v: Any, w: Any, weight: Any) -> float:
    if not isinstance(w, int | float | numbers.Real | np.bool_):  # the plain types first: far faster
        raise TypeError(
            f"weight: attribute {weight!r} of edge ({u!r}, {v!r}) is {w!r}, not a number. Convert it, or use "
            "weight=None to count every edge as 1."
        )
    try:
        w = float(w)
    except OverflowError:  # an integer beyond all floats
        w = math.inf if w > 0 else -math.inf
    if not 0 <= w < math.inf:
        kind = "negative" if w < 0 else "not finite"
        raise ValueError(
            f"weight: edge ({u!r}, {v!r}) has {weight!r} = {w}, which is {kind}. Weights must be finite and >= 0."
        )
    return w
