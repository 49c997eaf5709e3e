"""Sets of graphs in the TUDataset text layout, as chains."""

import os
from typing import Any

import numpy as np
import torch
from torch import Tensor

from markovot import validate
from markovot.datasets.dataset import GraphDataset
from markovot.datasets.graphs import Edges, Nodes, read_edges, read_nodes, walks
from markovot.datasets.tables import Tables, opened

FEATURES = ("auto", "labels", "attributes", "degree")
EMPTY_GRAPHS = ("error", "skip")
COLLECTION = (
    "C. Morris, N. M. Kriege, F. Bause, K. Kersting, P. Mutzel, M. Neumann. TUDataset: A collection of "
    "benchmark datasets for learning with graphs. ICML 2020 workshop GRL+, arXiv 2007.08663."
)


def load_tudataset(
    path: str | os.PathLike[str],
    *,
    features: str = "auto",
    laziness: float = 0.1,
    initial: str = "uniform",
    directed: bool = False,
    empty_graphs: str = "error",
) -> GraphDataset:
    r"""Load a set of graphs in the TUDataset text layout.

    A walker on a graph stays on its node with probability `laziness`, and otherwise moves along an edge chosen
    uniformly. The layout is one of text files, of which line k of each speaks of the same item: `NAME_A.txt` (edges
    "i, j" between nodes, numbered from 1 through all graphs), `NAME_graph_indicator.txt` (the graph of each node, from
    1), `NAME_graph_labels.txt` (the class of each graph); and, where they exist, `_node_labels`, `_node_attributes`
    and `_edge_labels`. Edge and graph attributes are not read: every edge weighs the same.

    The rules for oddities, all in one place. An edge that is listed several times, in one direction or in both, is one
    edge, with the label of its first line. A self-loop is one way out like any other. A node without edges stays where
    it is. The nodes of a graph need not stand together, and keep their order. Blank lines at the end of a file are
    ignored; any other deviation from this description is refused.

    Args:
        path: the folder or the zip of one set. The files may lie in it, or one or two folders deeper.
        features: what is known of a node: "labels" (integer codes; as vectors where a node has several), "attributes"
            (real vectors, as they stand: neither scaled nor centred), "degree" (the number of its neighbours, itself
            included where it has a self-loop; of a directed set, those it leads to), or "auto", the first of these that
            the set has. Files that are not wanted are not read.
        laziness: the probability of staying, in [0, 1]. Some is wise: without it, a walk on a bipartite graph never
            forgets whether the number of its steps is even.
        initial: the law of the first node: "uniform", since a disconnected graph has no unique stationary law,
            or "stationary", which fails for such a graph when it is first used.
        directed: whether a line "i, j" can be walked from i to j only. The sets of the collection are undirected, also
            those that list each edge once.
        empty_graphs: what becomes of graphs without nodes, which cannot be chains: "error", or "skip", which leaves
            them and their classes out, so that their `numbers` are missing in the result.

    Returns:
        The set: sparse float64 chains, whose features are int64 labels (n,) or (n, p), float64 attributes (n, p), or
        float64 degrees (n,), as `feature_kind` says.

    Raises:
        FileNotFoundError: nothing at `path`, no set in it, or one of the three files missing that every set has.
        ValueError: an argument outside its range; a file that is not as described (its name, the line and the repair
            are in the message); a set for regression; `features` that the set lacks, or that are not finite; a zip that
            is damaged or encrypted, or whose files take more than `datasets.tables.MAX_UNPACKED` bytes (512 MiB) when
            unpacked. A folder may be of any size.

    Note:
        Takes time in proportion to the files: about 1 s per 500,000 nodes and 1,000,000 lines of edges. Nothing is
        downloaded.

    References:
        Morris et al., TUDataset: A collection of benchmark datasets for learning with graphs, arXiv 2007.08663. Please
        cite also the paper of the set, which its own notes name.

    Example:
        >>> import pathlib, tempfile
        >>> files = {
        ...     "A": "1, 2\n2, 1\n3, 4\n4, 4\n",
        ...     "graph_indicator": "1\n1\n2\n2\n2\n", "graph_labels": "7\n-1\n",
        ... }
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for part, text in files.items():
        ...         _ = pathlib.Path(folder, f"TINY_{part}.txt").write_text(text)
        ...     tiny = load_tudataset(folder)
        >>> tiny
        GraphDataset(TINY: 2 graphs in 2 classes, 2.5 nodes each in the mean, features: degree)
        >>> tiny.chains[1].features.tolist(), tiny.edges[1].tolist()
        ([1.0, 2.0, 0.0], [[0, 1], [1, 1]])
    """
    validate.choice("features", features, FEATURES)
    laziness = validate.number("laziness", laziness, 0.0, 1.0)
    validate.choice("initial", initial, ("uniform", "stationary"))
    validate.choice("empty_graphs", empty_graphs, EMPTY_GRAPHS)
    directed = validate.flag("directed", directed)
    with opened(validate.path("path", path)) as tables:
        return assemble(
            tables,
            features=features,
            laziness=laziness,
            initial=initial,
            directed=directed,
            empty_graphs=empty_graphs,
        )


def assemble(
    tables: Tables, *, features: str, laziness: float, initial: str, directed: bool, empty_graphs: str
) -> GraphDataset:
    """The set that the files hold; see load_tudataset, which has checked the arguments."""
    nodes, targets, numbers = read_nodes(tables, empty_graphs)
    edges = read_edges(tables, nodes, directed)
    kind, values = _read_features(tables, features, nodes, edges)
    firsts, inner = nodes.starts[:-1].tolist(), edges.starts[1:-1]
    labels = edges.labels
    if labels is not None and labels.shape[1] == 1:
        labels = labels[:, 0]
    return GraphDataset(
        name=tables.name,
        chains=walks(nodes, edges, values, laziness, initial),
        targets=targets,
        target_names={target: str(target) for target in np.unique(targets).tolist()},
        feature_kind=kind,
        numbers=numbers,
        edges=[part - first for part, first in zip(np.split(edges.pairs, inner), firsts, strict=True)],
        edge_labels=[] if labels is None else np.split(labels, inner),
        citation=COLLECTION,
    )


def _read_features(tables: Tables, wanted: str, nodes: Nodes, edges: Edges) -> tuple[str, Tensor]:
    """The kind of the features, and the features of all nodes in their new order.

    Raises:
        ValueError: the set lacks what is wanted; attributes that are not finite.
    """
    present = [kind for kind in ("labels", "attributes") if f"node_{kind}" in tables] + ["degree"]
    kind = present[0] if wanted == "auto" else wanted
    if kind not in present:
        raise ValueError(
            f"features: {wanted!r}, but the set has no {tables.file(f'node_{wanted}')}. "
            f"Use {' or '.join(repr(other) for other in present)}."
        )
    count = len(nodes.owner)
    if kind == "degree":
        return kind, torch.from_numpy(np.bincount(edges.ways[0], minlength=count).astype(np.float64))
    dtype: Any = np.int64 if kind == "labels" else np.float64
    table = tables.read_beside("graph_indicator", count, f"node_{kind}", dtype)
    wrong = ~np.isfinite(table).all(1)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"{tables.line(f'node_{kind}', row)}: {table[row].tolist()} is not finite, the first of {int(wrong.sum())} "
            "such lines. Replace the values, or use other features: "
            f"{' or '.join(repr(other) for other in present if other != kind)}."
        )
    values = torch.from_numpy(table[nodes.order])
    return kind, values[:, 0] if kind == "labels" and values.shape[1] == 1 else values
