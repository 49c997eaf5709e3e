"""Graph files: GraphML, GML, edge lists and adjacency matrices."""

from collections import Counter
from collections.abc import Callable, Iterable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple
from xml.etree import ElementTree
from xml.parsers import expat

from torch import Tensor

from markovot import validate
from markovot._optional import require
from markovot.chains import MarkovChain, build
from markovot.interop import _tables
from markovot.interop._common import adjacency_of, stands_both_ways

if TYPE_CHECKING:
    from scipy.sparse import csr_array

FORMATS = ("graphml", "gml", "edges", "adjacency")
_SUFFIXES = {".graphml": "graphml", ".gml": "gml", ".edgelist": "edges", ".edges": "edges", ".txt": "edges"}


class _Matrix(NamedTuple):
    """The graph of a text file."""

    adjacency: "csr_array"
    names: list[Any] | None


_Graph = Any  # a networkx graph or a _Matrix


def read_graph(
    path: str | PathLike[str],
    *,
    format: str | None = None,
    features: str | None = "auto",
    weight: str | None = "weight",
    directed: bool | None = None,
    laziness: float = 0.0,
    initial: str | Tensor = "uniform",
    dead_ends: str = "stay",
) -> MarkovChain:
    r"""The random walk on a graph in a file, as a sparse float64 chain named after the nodes.

    As in `MarkovChain.from_networkx`: parallel edges are summed, an undirected edge is walked both ways, a self-loop
    counts once, edges of weight zero are left out, and a node with no way out, such as an isolated one, stays where it
    is.

    - GraphML (.graphml) and GML (.gml), read by networkx. The nodes of GML are named by their labels, where all differ,
      else by their ids.
    - An edge list (.edgelist, .edges, .txt): lines `source target [weight]`, separated by blanks, tabs or commas. A
      first line `source,target` or `from,to` is a header. Also as networkx writes it: `0 1 {'weight': 2.5}`. Where it
      is undirected, an edge that stands both ways is refused: it would be walked both ways twice.
    - An adjacency matrix: a square of weights, from row to column, with names above it, before it, both or neither.
      Names that are numbers need to stand above it, and to be different whole numbers.
    - .csv: a square of numbers is an adjacency matrix, also where it is 2 × 2 or 3 × 3; so are more than 3 columns, and
      a row of names (not numbers) above a square. Any other 2 or 3 columns are an edge list. `format` overrides.

    In text, lines that begin with # or % are comments, and names that are all whole numbers become integers.

    Args:
        path: the file.
        format: "graphml", "gml", "edges" or "adjacency". None: chosen by the suffix.
        features: the attribute of the nodes to compare, or "degree": the number of nodes that a node's edges lead to,
            itself included where it has a self-loop. "auto": "label", if every node has one and two nodes share one
            (labels that all differ are names), else "degree"; `auto_features` says which. None: no features.
        weight: the attribute that holds an edge's weight; edges without it count as 1, but some edge must have it,
            unless it is "weight". In text, the third column, by whatever name. None: all edges count as 1.
        directed: whether an edge is walked from source to target only. None: what the file says; edge lists, which do
            not say, are undirected, and a matrix is taken as it stands. False: edges of directed GraphML and GML are
            walked both ways (and where both directions are there, summed), and a matrix must be symmetric. True changes
            nothing for GraphML and GML that say they are undirected.
        laziness: the probability of staying, in [0, 1].
        initial: "uniform", "stationary", or a tensor with one probability for each node.
        dead_ends: "stay", "uniform" or "error", as in `MarkovChain.from_adjacency`.

    Returns:
        The chain. Numbers as features become float64, strings their `label_code`.

    Raises:
        OSError: the file cannot be opened.
        ImportError: networkx is not installed, for GraphML and GML.
        TypeError: `directed` is neither True, False nor None.
        ValueError: a file that is not as described, with its line where there is one; nodes without the feature; what
            `MarkovChain.from_adjacency` raises.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "path.edgelist")
        ...     _ = path.write_text("a b 1\nb c 3\n")
        ...     chain = read_graph(path)
        >>> chain.state_names, chain.features.tolist(), chain.to_dense().transition[1].tolist()
        (['a', 'b', 'c'], [1.0, 2.0, 1.0], [0.25, 0.0, 0.75])
    """
    return read_graphs(
        [validate.path("path", path)],
        format=format,
        features=features,
        weight=weight,
        directed=directed,
        laziness=laziness,
        initial=initial,
        dead_ends=dead_ends,
    )[0]


def read_graphs(
    paths: Iterable[str | PathLike[str]],
    *,
    format: str | None = None,
    features: str | None = "auto",
    weight: str | None = "weight",
    directed: bool | None = None,
    laziness: float = 0.0,
    initial: str | Tensor = "uniform",
    dead_ends: str = "stay",
) -> list[MarkovChain]:
    """The random walks on graphs in several files, with features of one kind.

    Args:
        paths: the files; their formats may differ.
        format: as in `read_graph`, and so are all that follow.
        features: "auto" takes the labels only if every node of every file has one, and in some file two nodes share
            one; otherwise the degree, for all.
        weight: the attribute that holds an edge's weight.
        directed: whether edges are walked one way.
        laziness: the probability of staying, in [0, 1].
        initial: "uniform" or "stationary"; a tensor fits only graphs of one size.
        dead_ends: "stay", "uniform" or "error".

    Returns:
        One chain for each file.

    Raises:
        OSError, ImportError, TypeError, ValueError: as in `read_graph`.
    """
    for name, attribute in (("features", features), ("weight", weight)):
        if attribute is not None:
            validate.text(name, attribute)
    graphs = [(path, _load(path, format, weight, directed)) for path in _paths(paths)]
    if features == "auto":
        features = _auto([graph for _, graph in graphs])
    chains = []
    for path, graph in graphs:
        try:
            found = _features(graph, features, weight)
            walk: dict[str, Any] = {"laziness": laziness, "initial": initial, "dead_ends": dead_ends}
            if isinstance(graph, _Matrix):
                chain = MarkovChain.from_adjacency(graph.adjacency, features=found, state_names=graph.names, **walk)
            else:
                chain = MarkovChain.from_networkx(graph, features=found, weight=weight, **walk)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{path}: {error}") from error
        chains.append(chain)
    return chains


def auto_features(paths: Iterable[str | PathLike[str]], *, format: str | None = None) -> str:
    """What `features="auto"` means for these files: "label" or "degree".

    Args:
        paths: the files, all that are to be compared.
        format: as in `read_graph`.

    Returns:
        "label" if every node of every file has one, and in some file two nodes share one; else "degree".

    Raises:
        OSError, ImportError, ValueError: as in `read_graph`.

    Example:
        >>> import networkx, pathlib, tempfile
        >>> graph = networkx.path_graph(3)
        >>> networkx.set_node_attributes(graph, {0: "C", 1: "C", 2: "O"}, "label")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     networkx.write_graphml(graph, pathlib.Path(folder, "molecule.graphml"))
        ...     auto_features([pathlib.Path(folder, "molecule.graphml")])
        'label'
    """
    return _auto([_load(path, format, None, None) for path in _paths(paths)])


# --- files to graphs
def _paths(paths: Iterable[str | PathLike[str]]) -> list[Path]:
    if isinstance(paths, str | bytes | PathLike):
        raise TypeError(f"paths: expected a list of paths, got the single one {paths!r}. Put it into a list.")
    given = validate.items("paths", paths, "the paths of several files")
    return [Path(validate.path(f"paths[{k}]", path)) for k, path in enumerate(given)]


def _load(path: Path, format: str | None, weight: str | None, directed: bool | None) -> _Graph:
    if directed is not None:
        validate.flag("directed", directed)
    table = None
    if format is not None:
        validate.choice("format", format, FORMATS)
    elif path.suffix.lower() == ".csv":
        table = _tables.read_table(path)
        format = "adjacency" if _tables.is_adjacency(table) else "edges"
    else:
        format = _SUFFIXES.get(path.suffix.lower())
    if format is None:
        raise ValueError(
            f"{path}: the suffix {path.suffix!r} does not say what kind of file it is. Known are "
            f"{', '.join(_SUFFIXES)} and .csv; else give format=, one of {', '.join(map(repr, FORMATS))}."
        )
    if format in ("graphml", "gml"):
        graph = _read_graphml(path) if format == "graphml" else _read_gml(path)
        return _both_ways(graph) if directed is False and graph.is_directed() else graph
    return _read_text(table or _tables.read_table(path), format, weight, directed)


def _read_text(table: _tables.Table, format: str, weight: str | None, directed: bool | None) -> _Matrix:
    read = _tables.edges_of_list if format == "edges" else _tables.edges_of_matrix
    sources, targets, weights, n, names = read(table, weight)
    one_way = format == "adjacency" or bool(directed)  # a matrix has an entry for each way
    if not one_way and (found := stands_both_ways(sources, targets)) is not None:
        first, second = (len(table.rows) - len(sources) + k for k in found)  # below a header
        raise table.trouble(
            second,
            f"it is the edge of line {table.lines[first]} the other way, but edge lists are undirected unless said "
            "otherwise. If the file lists all edges both ways, use directed=True; if these are two edges whose weights "
            "add up, write both the same way.",
        )
    adjacency = adjacency_of(sources, targets, weights, n, directed=one_way)
    if format == "adjacency" and directed is False:
        rows, columns = (adjacency - adjacency.T).nonzero()
        if len(rows):
            i, j = int(rows[0]), int(columns[0])
            raise ValueError(
                f"{table.path}: row {i + 1}, column {j + 1} is {adjacency[i, j]:g}, but row {j + 1}, column {i + 1} is "
                f"{adjacency[j, i]:g}. An undirected graph has a symmetric matrix. Repair it, or leave directed out."
            )
    return _Matrix(adjacency, names)


def _read_graphml(path: Path) -> _Graph:
    networkx = require("networkx", extra="graphs", what="reading GraphML")
    _parsed(path, "GraphML", _check_entities)
    _parsed(path, "GraphML", _check_graphml)
    return _parsed(path, "GraphML", networkx.read_graphml)


def _parsed(path: Path, kind: str, read: Callable[[BinaryIO], Any]) -> Any:
    """Call `read` on a file. The file is passed open, so that networkx does not unpack it because of its suffix.

    Raises:
        ValueError: anything went wrong; the parsers raise errors of many kinds.
    """
    try:
        with path.open("rb") as file:
            return read(file)
    except OSError:
        raise
    except Exception as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error) or type(error).__name__
        raise ValueError(f"{path}: not readable as {kind}: {reason}. Export it anew, or use another format.") from error


def _check_entities(file: BinaryIO) -> None:
    """Refuse a file that declares entities: with these, a few lines can expand to more text than memory holds."""

    def refuse(name: str, *_: Any) -> None:
        raise ValueError(f"it declares the entity {name!r}, which graphs do not need")

    parser = expat.ParserCreate()
    parser.EntityDeclHandler = refuse
    parser.ParseFile(file)


def _check_graphml(file: BinaryIO) -> None:
    """Refuse files that networkx would read without an error: several graphs, edges to nodes that do not exist."""
    elements = [(element.tag.rpartition("}")[2], element) for element in ElementTree.parse(file).iter()]
    count = sum(tag == "graph" for tag, _ in elements)
    if count != 1:
        raise ValueError(f"it holds {count} graphs, not one")
    nodes = {element.get("id") for tag, element in elements if tag == "node"}
    for tag, element in elements:
        ends = (element.get("source"), element.get("target"))
        if tag == "edge" and not nodes.issuperset(ends):
            raise ValueError(f"the edge from {ends[0]!r} to {ends[1]!r} joins a node that does not exist")


def _read_gml(path: Path) -> _Graph:
    networkx = require("networkx", extra="graphs", what="reading GML")

    def read(file: BinaryIO) -> _Graph:
        graph = networkx.read_gml(file, label=None)
        labels = networkx.get_node_attributes(graph, "label")
        if len(labels) == len(graph) == len(set(map(str, labels.values()))):
            # A copy in the same order; the attribute stays.
            graph = networkx.relabel_nodes(graph, labels)
        return graph

    return _parsed(path, "GML", read)


def _both_ways(graph: _Graph) -> _Graph:
    """An undirected graph with every edge of a directed one; edges listed both ways become parallel, and are summed."""
    import networkx

    undirected = networkx.MultiGraph()
    undirected.add_nodes_from(graph.nodes(data=True))
    undirected.add_edges_from(graph.edges(data=True))
    return undirected


# --- features
def _labels(graph: _Graph) -> list[Any] | None:
    """The labels of the nodes, if all have one."""
    if isinstance(graph, _Matrix):
        return None
    labels = [data.get("label") for _, data in graph.nodes(data=True)]
    return None if None in labels else labels


def _auto(graphs: list[_Graph]) -> str:
    every = [_labels(graph) for graph in graphs]
    shared = any(max(Counter(map(str, labels)).values(), default=0) > 1 for labels in every if labels is not None)
    return "label" if shared and None not in every else "degree"


def _features(graph: _Graph, features: str | None, weight: str | None) -> Any:
    """The features in the form that the constructors of chains take."""
    if features is None:
        return None
    if isinstance(graph, _Matrix):
        if features != "degree":
            raise ValueError(
                f"features: {features!r}, but a text file has no attributes of nodes. Use 'degree' or None, or GraphML "
                "or GML."
            )
        return graph.adjacency.indptr[1:].astype(float) - graph.adjacency.indptr[:-1]
    if features == "degree":
        weights, nodes = build.graph_weights(graph, weight)
        return dict(zip(nodes, weights.indptr.diff().double().tolist(), strict=True))
    return features
