"""Edge lists in pandas data frames: one graph or many, with a table of nodes beside them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from markovot import validate
from markovot._arrays import FloatArray, IntArray
from markovot._optional import require
from markovot.chains import MarkovChain, single
from markovot.interop._common import adjacency_of, names_of, stands_both_ways, steps_of

if TYPE_CHECKING:
    from pandas import DataFrame


class Frames(NamedTuple):
    """Graphs as two tables."""

    edges: "DataFrame"  # source, target, weight
    nodes: "DataFrame"  # node, and features


def from_frame(
    edges: "DataFrame",
    nodes: "DataFrame | None" = None,
    *,
    directed: bool,
    features: str | Sequence[str] | None = None,
    laziness: float = 0.0,
    initial: str | Tensor = "uniform",
    dead_ends: str = "stay",
) -> MarkovChain:
    """The random walk on a graph given as an edge list, as a sparse float64 chain named after the nodes.

    As in `MarkovChain.from_networkx`: parallel edges are summed, an undirected edge is walked both ways, a self-loop
    counts once, edges of weight zero are left out, and a node with no way out, such as an isolated one, stays where
    it is.

    Args:
        edges: columns `source`, `target` and, if the graph is weighted, `weight` >= 0; other columns are not read.
            Other names: `edges.rename(columns={"from": "source"})`.
        nodes: column `node`, once each, in the order wanted for the states, and features. Isolated nodes are only known
            from here. Default: the nodes of the edges, in the order in which they are met.
        directed: whether an edge is walked from source to target only. The table does not say, so you must. With
            False, each edge must be listed one way. An edge that is listed both ways is refused, since it would be
            walked both ways twice. A table that lists every edge both ways is a directed one.
        features: the column of `nodes` to compare, as an array is taken by `MarkovChain.from_transitions`: integers
            stay labels, strings become their `label_code`. A list of columns makes vectors (n, p). None: no features.
        laziness: the probability of staying, in [0, 1].
        initial: "uniform", "stationary", or a tensor with one probability for each node.
        dead_ends: "stay", "uniform" or "error", as in `MarkovChain.from_adjacency`.

    Returns:
        The chain.

    Raises:
        ImportError: pandas is not installed.
        TypeError: not data frames, or weights that are not numbers.
        ValueError: columns that are missing or stand twice, missing values, negative or non-finite weights, nodes that
            stand twice in `nodes` or not at all, no nodes, edges that stand both ways although `directed` is False; a
            column `graph`, which is for `from_frames`.

    Example:
        >>> import pandas
        >>> edges = pandas.DataFrame({"source": ["a", "b"], "target": ["b", "c"], "weight": [1.0, 3.0]})
        >>> chain = from_frame(edges, directed=False)
        >>> chain.state_names, chain.to_dense().transition[1].tolist()
        (['a', 'b', 'c'], [0.25, 0.0, 0.75])
    """
    _check_table("edges", edges, ["source", "target"])
    if "graph" in edges:
        raise ValueError("edges: a column 'graph' says that there are many. Use from_frames, or drop the column.")
    walk = {"laziness": laziness, "initial": initial, "dead_ends": dead_ends}
    return _chain(edges, _check_nodes(nodes, features), directed, features, walk)


def from_frames(
    edges: "DataFrame",
    nodes: "DataFrame | None" = None,
    *,
    directed: bool,
    features: str | Sequence[str] | None = None,
    laziness: float = 0.0,
    initial: str | Tensor = "uniform",
    dead_ends: str = "stay",
) -> dict[Any, MarkovChain]:
    """Many graphs given as one edge list, whose column `graph` tells them apart.

    Args:
        edges: as in `from_frame`, and a column `graph`. Nodes of different graphs may share names.
        nodes: as in `from_frame`, and a column `graph`. Graphs without edges are only known from here.
        directed: whether an edge is walked from source to target only.
        features: as in `from_frame`.
        laziness: the probability of staying, in [0, 1].
        initial: "uniform" or "stationary"; a tensor fits only graphs of one size.
        dead_ends: "stay", "uniform" or "error", as in `MarkovChain.from_adjacency`.

    Returns:
        The chain of each graph, by its value in the column `graph`, in the order in which `nodes`, or without it
        `edges`, names them. `list(result.values())` is what `distance_matrix` takes.

    Raises:
        ImportError, TypeError, ValueError: as in `from_frame`, with the name of the graph; edges of a graph that
            `nodes` does not know.

    Example:
        >>> import pandas
        >>> edges = pandas.DataFrame({"graph": ["x", "x", "y"], "source": [1, 2, 1], "target": [2, 3, 2]})
        >>> {name: chain.num_states for name, chain in from_frames(edges, directed=False).items()}
        {'x': 3, 'y': 2}
    """
    _check_table("edges", edges, ["graph", "source", "target"])
    nodes = _check_nodes(nodes, features, also=["graph"])
    parts = dict(iter(edges.groupby("graph", sort=False, observed=True)))
    walk = {"laziness": laziness, "initial": initial, "dead_ends": dead_ends}
    tables = dict.fromkeys(parts) if nodes is None else dict(iter(nodes.groupby("graph", sort=False, observed=True)))
    unknown = [name for name in parts if name not in tables]
    if unknown:
        raise ValueError(
            f"nodes: graph {unknown[0]!r} has edges, but no nodes in the table. Add them, or leave nodes out."
        )
    if not tables:
        raise ValueError("edges: there are no graphs in them. Give at least one row.")
    chains = {}
    for name, table in tables.items():
        try:
            chains[name] = _chain(parts.get(name, edges.iloc[:0]), table, directed, features, walk)
        except (TypeError, ValueError) as error:
            raise type(error)(f"graph {name!r}: {error}") from error
    return chains


def to_frame(chain: MarkovChain) -> Frames:
    """A single chain as an edge list, whose weights are the transition probabilities, and a table of its states.

    `from_frame(*to_frame(chain), directed=True, features="feature")` is the same chain, except for the initial law:
    pass it as `initial=`. Probabilities in float32 become float64, and rows are divided by their sums.

    Args:
        chain: a single chain of either layout.

    Returns:
        `edges` with columns `source`, `target`, `weight`, one row for each step of positive probability; `nodes` with
        columns `node` (the states' names or numbers) and, where there are features, `feature`, or `feature_0`,
        `feature_1`, ... for vectors. Without gradients.

    Raises:
        ImportError: pandas is not installed.
        TypeError: not a chain.
        ValueError: a batch, or names that occur twice.

    Example:
        >>> import torch
        >>> edges, nodes = to_frame(MarkovChain.from_transitions(torch.tensor([[0.0, 1.0], [0.5, 0.5]])))
        >>> edges.values.tolist()
        [[0.0, 1.0, 1.0], [1.0, 0.0, 0.5], [1.0, 1.0, 0.5]]
    """
    pandas = require("pandas", extra="frames", what="to_frame")
    steps = steps_of(chain, "to_frame")
    names = _column(names_of(chain, "to_frame"))
    edges = {"source": names[steps.sources.cpu().numpy()], "target": names[steps.targets.cpu().numpy()]}
    edges["weight"] = steps.probabilities.detach().cpu().numpy()
    nodes = {"node": names}
    if chain.features is not None:
        table = chain.features.detach().cpu().numpy()
        many = table.ndim == 2
        nodes |= {f"feature_{k}": table[:, k] for k in range(table.shape[1])} if many else {"feature": table}
    return Frames(pandas.DataFrame(edges), pandas.DataFrame(nodes))


def to_frames(chains: Mapping[Any, MarkovChain] | Sequence[MarkovChain]) -> Frames:
    """Many chains as one edge list and one table of states, whose column `graph` tells them apart.

    Args:
        chains: single chains by name, or a sequence of them, which are numbered from 0.

    Returns:
        As from `to_frame`, with a first column `graph`.

    Raises:
        ImportError, TypeError, ValueError: as in `to_frame`; no chains.

    Example:
        >>> import torch
        >>> parts = {name: MarkovChain.from_transitions(torch.eye(2), initial="uniform") for name in "xy"}
        >>> to_frames(parts).nodes.values.tolist()
        [['x', 0], ['x', 1], ['y', 0], ['y', 1]]
    """
    pandas = require("pandas", extra="frames", what="to_frames")
    parts = chains if isinstance(chains, Mapping) else enumerate(validate.items("chains", chains, "several chains"))
    parts = dict(parts)
    if not parts:
        raise ValueError("chains: there are none. Give at least one.")
    frames = {name: to_frame(single(f"chains[{validate.shown(name)}]", chain)) for name, chain in parts.items()}
    for name, frame in frames.items():
        for table in frame:
            table.insert(0, "graph", _column([name] * len(table)))
    return Frames(*(pandas.concat(tables, ignore_index=True) for tables in zip(*frames.values(), strict=True)))


# --- reading
def _check_table(name: str, table: Any, columns: list[str]) -> None:
    """Refuse objects that are no data frame, and missing columns or values."""
    pandas = require("pandas", extra="frames", what="from_frame")
    if not isinstance(table, pandas.DataFrame):
        raise TypeError(
            f"{name}: expected a pandas DataFrame, got {type(table).__name__}. Convert it: pandas.DataFrame(...)."
        )
    for column in columns:
        if column not in table:
            known = ", ".join(map(repr, table.columns))
            raise ValueError(
                f"{name}: there is no column {column!r}, only {known or 'none'}. Rename one: "
                f"{name}.rename(columns={{...: {column!r}}})."
            )
        _check_once(name, table, column)
        missing = table[column].isna().to_numpy()
        if missing.any():
            row = table.index[missing].tolist()[0]
            raise ValueError(
                f"{name}: column {column!r} has no value in row {row!r}, the first of {int(missing.sum())}. Fill it "
                "in, or drop the row."
            )


def _check_once(name: str, table: "DataFrame", column: str) -> None:
    if getattr(table[column], "ndim", 2) != 1:
        raise ValueError(
            f"{name}: the column {column!r} stands there {table[column].shape[1]} times. Drop or rename all but one."
        )


def _check_nodes(
    nodes: "DataFrame | None", features: str | Sequence[str] | None, also: Sequence[str] = ()
) -> "DataFrame | None":
    wanted = [] if features is None else [features] if isinstance(features, str) else _listed(features)
    if nodes is None:
        if features is not None:
            raise ValueError(f"features: {features!r} names columns of nodes, but there is no such table. Give nodes=.")
        return None
    if features is not None and not wanted:
        raise ValueError("features: an empty list of columns. Name at least one, or use None.")
    _check_table("nodes", nodes, [*also, "node", *wanted])
    return nodes


def _listed(features: Any) -> list[str]:
    return list(validate.sequence("features", features, "columns"))


def _chain(
    edges: "DataFrame",
    nodes: "DataFrame | None",
    directed: bool,
    features: str | Sequence[str] | None,
    walk: dict[str, Any],
) -> MarkovChain:
    """The chain of one graph."""
    validate.flag("directed", directed)
    sources, targets, names = _ends(edges, nodes)
    weights = _weights(edges)
    if not directed and (found := stands_both_ways(sources, targets)) is not None:
        i, j = names[sources[found[0]]], names[targets[found[0]]]
        here, there = (edges.index.tolist()[k] for k in found)
        raise ValueError(
            f"directed: False, but edges hold {i!r} to {j!r} in row {here!r}, and {j!r} to {i!r} in row {there!r}. If "
            "the table lists all edges both ways, use directed=True; if these are two edges whose weights add up, "
            "write both the same way."
        )
    adjacency = adjacency_of(sources, targets, weights, len(names), directed=directed)
    values = None if nodes is None or features is None else _features(nodes, features)
    return MarkovChain.from_adjacency(adjacency, features=values, state_names=names, **walk)


def _ends(edges: "DataFrame", nodes: "DataFrame | None") -> tuple[IntArray, IntArray, list[Any]]:
    """The numbers of the edges' ends, and the names of the nodes."""
    import pandas

    ends = [edges["source"].tolist(), edges["target"].tolist()]
    names = list(dict.fromkeys(end for edge in zip(*ends, strict=True) for end in edge))
    if nodes is not None:
        twice = nodes["node"].duplicated()
        if twice.any():
            raise ValueError(
                f"nodes: {nodes['node'][twice].iloc[0]!r} stands in the table more than once. Keep one row of each."
            )
        names = nodes["node"].tolist()
    if not names:
        raise ValueError("edges: there are none, and so no nodes. A chain needs at least one; give nodes=.")
    number = pandas.Index(names, dtype=object)
    sources, targets = (number.get_indexer(pandas.Index(part, dtype=object)) for part in ends)
    unknown = (sources < 0) | (targets < 0)
    if unknown.any():
        row = int(np.flatnonzero(unknown)[0])
        name = ends[0][row] if sources[row] < 0 else ends[1][row]
        where = edges.index.tolist()[row]
        raise ValueError(
            f"edges: {name!r} in row {where!r} is not in the table of nodes. Add it, or write it alike: its type is "
            f"{type(name).__name__}."
        )
    return sources, targets, names


def _weights(edges: "DataFrame") -> FloatArray:
    if "weight" not in edges:
        return np.ones(len(edges))
    _check_once("edges", edges, "weight")
    column = edges["weight"]
    if column.dtype.kind not in "fiub":
        raise TypeError(
            f"edges: the weights are {column.dtype}, not numbers. Convert them: edges['weight'].astype(float); without "
            "the column, every edge counts as 1."
        )
    weights = column.to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = ~((weights >= 0) & (weights < np.inf))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        where, edge = edges.index.tolist()[row], edges.iloc[row]
        raise ValueError(
            f"edges: the weight in row {where!r}, from {edge['source']!r} to {edge['target']!r}, is {weights[row]}. "
            "Weights must be finite and >= 0."
        )
    return weights


def _features(nodes: "DataFrame", features: str | Sequence[str]) -> Any:
    if not isinstance(features, str):
        for column in features:
            if nodes[column].dtype.kind not in "fiub":
                raise TypeError(
                    f"features: column {column!r} is {nodes[column].dtype}, but vectors are made of numbers. Name a "
                    "single column of labels, or numbers only."
                )
        return torch.from_numpy(np.stack([_numbers(nodes[column]) for column in features], axis=1))
    values = nodes[features]
    return _numbers(values) if values.dtype.kind in "fiub" else values.tolist()


def _numbers(column: Any) -> Any:
    # Older versions of pandas turn its own types, such as Int64, into objects unless a dtype is given.
    return column.to_numpy(dtype=getattr(column.dtype, "numpy_dtype", column.dtype))


def _column(values: list[Any]) -> Any:
    """A column from values of any type, also tuples; integers stay integers."""
    if all(type(value) is int for value in values):
        return np.array(values, dtype=np.int64)
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column
