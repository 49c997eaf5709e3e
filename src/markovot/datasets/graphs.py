"""The nodes and edges of all graphs of a set in the TUDataset layout, and their walks, all at once.

Whole arrays are processed, not one graph after another: a set may have thousands of graphs and a million nodes.
"""

from typing import NamedTuple

import numpy as np
from torch import Tensor

from markovot._arrays import IntArray
from markovot.chains import MarkovChain
from markovot.chains.compressed import Compressed
from markovot.datasets.tables import Tables


class Nodes(NamedTuple):
    """The nodes of all graphs, renumbered so that those of a graph stand together."""

    order: IntArray  # the numbers in the file, from 0, of the nodes in their new order
    owner: IntArray  # the graph in the file, from 0, of each node of the file
    starts: IntArray  # graph g has the nodes starts[g] to starts[g + 1] - 1 of the new order


class Edges(NamedTuple):
    """The edges of all graphs, each once, in ascending order of their nodes' new numbers."""

    pairs: IntArray  # (number of edges, 2)
    labels: IntArray | None  # a row for each
    starts: IntArray  # graph g has the edges starts[g] to starts[g + 1] - 1
    ways: IntArray  # (2, number of ways): from where, where to; an undirected edge can be walked both ways


def read_nodes(tables: Tables, empty_graphs: str) -> tuple[Nodes, IntArray, IntArray]:
    """The nodes; the class of each graph that has any; that graph's number in the file.

    Raises:
        ValueError: no graphs, a node of a graph that does not exist, graphs without nodes unless they are skipped.
    """
    hint = "Classes are integers, one for each graph; the values of a regression are not read."
    targets = tables.read("graph_labels", np.int64, columns=1, hint=hint)[:, 0]
    if len(targets) == 0:
        raise ValueError(f"{tables.file('graph_labels')}: it is empty. A set needs at least one graph.")
    owner = tables.read("graph_indicator", np.int64, columns=1)[:, 0] - 1
    outside = (owner < 0) | (owner >= len(targets))
    if outside.any():
        row = int(outside.argmax())
        raise ValueError(
            f"{tables.line('graph_indicator', row)}: there is no graph {owner[row] + 1}. Graphs are numbered from 1 to "
            f"{len(targets)}, the number of lines of {tables.file('graph_labels')}."
        )
    sizes = np.bincount(owner, minlength=len(targets))
    empty, kept = np.flatnonzero(sizes == 0), np.flatnonzero(sizes)
    if len(kept) == 0 or (len(empty) and empty_graphs == "error"):
        repair = "leave them out with empty_graphs='skip'" if len(kept) else "there is no other graph"
        raise ValueError(
            f"{tables.file('graph_indicator')}: graph {empty[0] + 1} has no nodes, the first of {len(empty)} without. "
            f"A chain needs at least one state; {repair}."
        )
    starts = np.concatenate([[0], np.cumsum(sizes[kept])])
    return Nodes(np.argsort(owner, kind="stable"), owner, starts), targets[kept], kept


def read_edges(tables: Tables, nodes: Nodes, directed: bool) -> Edges:
    """The edges.

    Raises:
        ValueError: a node that does not exist, an edge between two graphs.
    """
    count = len(nodes.owner)
    lines = tables.read("A", np.int64, columns=2) - 1
    outside = ((lines < 0) | (lines >= count)).any(1)
    if outside.any():
        row = int(outside.argmax())
        raise ValueError(
            f"{tables.line('A', row)}: an edge between the nodes {lines[row, 0] + 1} and {lines[row, 1] + 1}. Nodes "
            f"are numbered from 1 to {count}, the number of lines of {tables.file('graph_indicator')}."
        )
    graphs = nodes.owner[lines]
    across = graphs[:, 0] != graphs[:, 1]
    if across.any():
        row = int(across.argmax())
        (i, j), (g, h) = (lines[row] + 1).tolist(), (graphs[row] + 1).tolist()
        raise ValueError(
            f"{tables.line('A', row)}: an edge between node {i} of graph {g} and node {j} of graph {h}. Edges stay "
            f"within a graph; remove it, or correct {tables.file('graph_indicator')}."
        )
    labels = tables.read_beside("A", len(lines), "edge_labels", np.int64) if "edge_labels" in tables else None
    place = np.empty(count, np.int64)
    place[nodes.order] = np.arange(count)
    pairs = place[lines] if directed else np.sort(place[lines], axis=1)
    _, first = np.unique(pairs[:, 0] * count + pairs[:, 1], return_index=True)
    pairs = pairs[first]
    back = pairs[pairs[:, 0] != pairs[:, 1], ::-1]  # a self-loop counts as one way, not two
    ways = pairs if directed else np.concatenate([pairs, back])
    starts = np.searchsorted(pairs[:, 0], nodes.starts)
    return Edges(pairs, None if labels is None else labels[first], starts, ways.T)


def walks(nodes: Nodes, edges: Edges, features: Tensor, laziness: float, initial: str) -> list[MarkovChain]:
    """The random walk on each graph, with the features of its nodes."""
    from scipy.sparse import csr_array

    # We make and check one walk on the union of all graphs, and cut the chains out of it as blocks. Making thousands
    # of chains one by one takes ten times as long.
    count = len(nodes.owner)
    weights = csr_array((np.ones(edges.ways.shape[1]), tuple(edges.ways)), shape=(count, count))
    indptr, indices, values = MarkovChain.from_adjacency(weights, laziness=laziness).compressed
    starts: list[int] = nodes.starts.tolist()
    bounds: list[int] = indptr[nodes.starts].tolist()
    chains = []
    for g in range(len(starts) - 1):
        first, last, low, high = *starts[g : g + 2], *bounds[g : g + 2]
        # Copies: a view would keep the whole set in memory, and carry it along whenever a chain is pickled.
        rows = Compressed(indptr[first : last + 1] - low, indices[low:high] - first, values[low:high].clone())
        chains.append(MarkovChain(rows, initial=initial, features=features[first:last].clone()))
    return chains
