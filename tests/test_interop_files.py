"""Graph files: what is read, by which rule, and what is refused with which line."""

import re
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch

from interop_checks import assert_same_chain, dense
from markovot import interop
from markovot.chains import MarkovChain, label_code


@pytest.fixture
def file(tmp_path: Path) -> Any:
    """Writes a file and gives its path."""

    def write(name: str, text: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def odd_graph(kind: type[nx.Graph]) -> nx.Graph:
    """Parallel edges in both senses, a self-loop, an edge of weight zero and one without a weight, an isolated node."""
    graph = kind()
    graph.add_nodes_from("abcde")
    graph.add_weighted_edges_from([("a", "b", 2.0), ("b", "a", 0.5), ("b", "c", 1.0), ("b", "c", 3.0), ("c", "c", 5.0)])
    graph.add_edge("a", "d", weight=0.0)
    graph.add_edge("d", "c")
    return graph


KINDS = [nx.Graph, nx.DiGraph, nx.MultiGraph, nx.MultiDiGraph]


# --- GraphML and GML
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", [".graphml", ".gml", ".GML"])
def test_graphml_and_gml_are_read_as_from_networkx(tmp_path: Path, kind: type[nx.Graph], suffix: str) -> None:
    graph, path = odd_graph(kind), tmp_path / f"graph{suffix}"
    (nx.write_graphml if suffix == ".graphml" else nx.write_gml)(graph, path)
    law = torch.tensor([0.5, 0.5, 0, 0, 0], dtype=torch.float64)
    for options in ({}, {"laziness": 0.1, "initial": law, "dead_ends": "uniform"}, {"weight": None}):
        wanted = MarkovChain.from_networkx(graph, **options)
        found = interop.read_graph(path, features=None, **options)
        order = [found.state_names.index(name) for name in "abcde"]
        torch.testing.assert_close(dense(found)[order][:, order], dense(wanted))
        assert (found.dtype, found.is_sparse, found.features) == (torch.float64, True, None)
        if suffix == ".graphml":  # GML orders nodes as it likes
            assert_same_chain(found, wanted)
    with pytest.raises(ValueError, match=rf"graph{suffix}: dead_ends: state \d has no way out"):
        interop.read_graph(path, dead_ends="error")
    assert interop.read_graph(path, initial="stationary").initial_law == "stationary"


@pytest.mark.parametrize("kind", KINDS)
def test_the_degree_counts_the_nodes_that_edges_lead_to(tmp_path: Path, kind: type[nx.Graph]) -> None:
    graph = odd_graph(kind)
    nx.write_graphml(graph, tmp_path / "graph.graphml")
    chain = interop.read_graph(tmp_path / "graph.graphml", laziness=0.5)
    wanted = [1.0, 2.0, 1.0, 1.0, 0.0] if graph.is_directed() else [1.0, 2.0, 3.0, 1.0, 0.0]
    assert chain.features.tolist() == wanted
    assert chain.features.dtype == torch.float64
    assert torch.equal(interop.read_graph(tmp_path / "graph.graphml", features="degree").features, chain.features)


def molecule(labels: list[Any], name: str = "label") -> nx.Graph:
    graph = nx.path_graph(len(labels))
    nx.set_node_attributes(graph, dict(enumerate(labels)), name)
    return graph


def test_features_are_attributes_of_the_nodes(tmp_path: Path) -> None:
    graph = molecule(["C", "O", "C"])
    nx.set_node_attributes(graph, {0: 1, 1: 2, 2: 4}, "mass")
    nx.write_graphml(graph, tmp_path / "g.graphml")
    codes = [label_code(label) for label in "COC"]
    assert interop.read_graph(tmp_path / "g.graphml").features.tolist() == codes
    assert interop.read_graph(tmp_path / "g.graphml", features="label").features.tolist() == codes
    assert interop.read_graph(tmp_path / "g.graphml", features="mass").features.tolist() == [1, 2, 4]
    with pytest.raises(ValueError, match=r"g\.graphml: features: attribute 'charge' has no value for 3 of 3 nodes"):
        interop.read_graph(tmp_path / "g.graphml", features="charge")


def test_auto_takes_labels_only_where_nodes_share_them_in_some_file(tmp_path: Path) -> None:
    def written(name: str, labels: list[Any]) -> Path:
        nx.write_graphml(molecule(labels), tmp_path / name)
        return tmp_path / name

    shared, own = written("shared.graphml", ["C", "C", "O"]), written("own.graphml", ["C", "O"])
    missing = tmp_path / "missing.graphml"
    graph = molecule(["C", "C", "O"])
    graph.add_edge(2, 3)
    nx.write_graphml(graph, missing)
    text = tmp_path / "text.edges"
    text.write_text("0 1")
    for paths, wanted in (
        ([shared], "label"),
        ([own], "degree"),
        ([shared, own], "label"),
        ([own, shared], "label"),
        ([own, own], "degree"),
        ([shared, missing], "degree"),
        ([missing], "degree"),
        ([shared, text], "degree"),
        ([], "degree"),
    ):
        assert interop.auto_features(paths) == wanted
        chains = interop.read_graphs(paths)
        for chain in chains:
            assert chain.features.is_floating_point() is (wanted == "degree")
    both = interop.read_graphs([shared, own])
    assert both[0].features[[1, 2]].tolist() == both[1].features.tolist()


def test_nodes_of_gml_are_named_by_labels_that_differ(file: Any) -> None:
    nodes = 'node [ id 7 label "{}" ] node [ id 3 label "{}" ] edge [ source 7 target 3 ]'
    named = interop.read_graph(file("a.gml", "graph [ " + nodes.format("Beak", "Fin") + " ]"))
    assert (named.state_names, named.features.tolist()) == (["Beak", "Fin"], [1, 1])
    asked = interop.read_graph(file("a.gml", "graph [ " + nodes.format("Beak", "Fin") + " ]"), features="label")
    assert asked.features.tolist() == [label_code("Beak"), label_code("Fin")]
    shared = interop.read_graph(file("b.gml", "graph [ " + nodes.format("C", "C") + " ]"))
    assert (shared.state_names, shared.features.tolist()) == ([7, 3], [label_code("C")] * 2)
    bare = interop.read_graph(file("c.gml", "graph [ node [ id 7 ] node [ id 3 ] edge [ source 7 target 3 ] ]"))
    assert bare.state_names == [7, 3]


def test_directed_overrides_what_graphml_says(tmp_path: Path) -> None:
    graph = odd_graph(nx.MultiDiGraph)
    nx.write_graphml(graph, tmp_path / "g.graphml")
    both_ways = nx.MultiGraph()
    both_ways.add_nodes_from(graph)
    both_ways.add_edges_from(graph.edges(data=True))
    assert_same_chain(
        interop.read_graph(tmp_path / "g.graphml", directed=False, features=None), MarkovChain.from_networkx(both_ways)
    )
    nx.write_graphml(both_ways, tmp_path / "u.graphml")
    for directed in (None, True, False):
        found = interop.read_graph(tmp_path / "u.graphml", directed=directed, features=None)
        assert_same_chain(found, MarkovChain.from_networkx(both_ways))
    with pytest.raises(TypeError, match="directed: 'no' is neither True nor False"):
        interop.read_graph(tmp_path / "u.graphml", directed="no")  # type: ignore[arg-type]


def test_the_weight_attribute_by_name(file: Any) -> None:
    path = file(
        "a.gml", "graph [ node [ id 0 ] node [ id 1 ] edge [ source 0 target 1 w 3 ] edge [ source 0 target 0 ] ]"
    )
    assert dense(interop.read_graph(path, weight="w"))[0].tolist() == [0.25, 0.75]
    assert dense(interop.read_graph(path))[0].tolist() == [0.5, 0.5]


GRAPHML = (
    '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">'
    '<key id="w" for="edge" attr.name="weight" attr.type="double"/>{}<graph edgedefault="directed">'
    '<node id="a"/><node id="b"/><edge source="a" target="{}"><data key="w">{}</data></edge></graph></graphml>'
)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.graphml", "", "not readable as GraphML: no element found: line 1"),
        ("a.graphml", "<graphml>\n<graph>\n</oops></graphml>", "not readable as GraphML: mismatched tag: line 3"),
        ("a.graphml", "<svg></svg>", "it holds 0 graphs, not one"),
        ("a.graphml", GRAPHML.format("<graph/>", "b", 1), "it holds 2 graphs, not one"),
        ("a.graphml", GRAPHML.format("", "z", 1), "the edge from 'a' to 'z' joins a node that does not exist"),
        ("a.graphml", GRAPHML.format("", "b", "much"), "could not convert string to float: 'much'"),
        ("a.graphml", GRAPHML.format("", "b", -1), r"a\.graphml: weight: edge \('a', 'b'\) has 'weight' = -1\.0"),
        ("a.gml", "graph [\n node [ id 0\n", r"not readable as GML: expected '\]', found EOF at \(3, 1\)"),
        ("a.gml", "", "not readable as GML: input contains no graph"),
        (
            "a.gml",
            'graph [ node [ id 0 ] node [ id 1 ] edge [ source 0 target 1 weight "x" ] ]',
            "attribute 'weight' of edge",
        ),
        ("a.gml", "graph [ ]", "graph: it has no nodes"),
        ("a.dot", "graph {}", r"suffix '\.dot' does not say.*\.graphml, \.gml, .* and \.csv; else give format="),
    ],
)
def test_bad_graphml_and_gml(file: Any, name: str, text: str, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        interop.read_graph(file(name, text))
    assert name in str(caught.value)


def test_graphml_is_read_when_it_is_right(file: Any) -> None:
    chain = interop.read_graph(file("a.graphml", GRAPHML.format("", "b", 2.5)))
    assert dense(chain).tolist() == [[0, 1], [0, 1]]


# --- edge lists
@pytest.mark.parametrize("kind", KINDS)
def test_edge_lists_are_read_as_from_networkx(tmp_path: Path, kind: type[nx.Graph]) -> None:
    graph = odd_graph(kind)
    graph.remove_node("e")  # no line can tell of an isolated node
    nx.write_edgelist(graph, tmp_path / "g.edgelist")
    names = MarkovChain.from_networkx(graph).state_names
    for weight in ("weight", None):
        found = interop.read_graph(tmp_path / "g.edgelist", directed=graph.is_directed(), weight=weight, laziness=0.2)
        order = [found.state_names.index(name) for name in names]
        wanted = MarkovChain.from_networkx(graph, weight=weight, laziness=0.2)
        torch.testing.assert_close(dense(found)[order][:, order], dense(wanted))
    nx.write_weighted_edgelist(graph, tmp_path / "w.txt")
    found = interop.read_graph(tmp_path / "w.txt", directed=graph.is_directed())
    order = [found.state_names.index(name) for name in names]
    torch.testing.assert_close(dense(found)[order][:, order], dense(MarkovChain.from_networkx(graph)))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.edges", "x y 1\ny z 3\n"),
        ("a.txt", "# a comment\n% another\n\n  x   y\t1\ny z 3.0  \n"),
        ("a.edgelist", "x,y,1\r\n y , z , 3\r\n"),
        ("a.csv", "x,y,1\ny,z,3"),
        ("a.csv", "source,target,weight\nx,y,1\ny,z,3"),
        ("a.csv", "From,To,how often\nx,y,1\ny,z,3"),
        ("a.csv", '\ufeffx,y,1\n"y",z,3\n'),
        ("a.txt", "x\ty\t1\ny\tz\t3\n"),
        ("a.edges", "x y {'weight': 1}\ny z {'weight': 3, 'other': 'a, b'}\n"),
        ("a.edges", "x y {}\ny z {'weight': 3}\n"),
        ("a.edges", "x y\ny z 3\n"),
        ("a.csv", "x,y\ny,z,3\n"),
        ("a.csv", "y,x,1\nz,y,1\nz,y,2"),
    ],
)
def test_every_way_to_write_an_edge_list(file: Any, name: str, text: str) -> None:
    chain = interop.read_graph(file(name, text))
    order = [chain.state_names.index(name) for name in "xyz"]
    assert dense(chain)[order][:, order].tolist() == [[0, 1, 0], [0.25, 0, 0.75], [0, 1, 0]]
    assert chain.features[order].tolist() == [1, 2, 1]


def test_weights_of_edge_lists_can_be_ignored(file: Any) -> None:
    for text in ("y x 9\ny z", "y,x,1\ny,z,anything", "y x {'weight': 5}\ny z {}"):
        assert dense(interop.read_graph(file("a.edges", text), weight=None))[0].tolist() == [0, 0.5, 0.5]
    braces = file("a.edges", "y x {'w': 1}\ny z {'w': 3, 'weight': 8}")
    assert dense(interop.read_graph(braces, weight="w"))[0].tolist() == [0, 0.25, 0.75]


def test_names_with_blanks_need_commas_or_tabs(file: Any) -> None:
    for text in ('New York,Los Angeles\nBoston,"Paris, Texas"', 'New York\tLos Angeles\nBoston\t"Paris, Texas"'):
        if "\t" in text:
            text = text.replace(", Texas", " Texas")
        chain = interop.read_graph(file("a.txt", text), directed=True)
        assert chain.state_names[:3] == ["New York", "Los Angeles", "Boston"]
        assert dense(chain)[0].tolist() == [0, 1, 0, 0]
    with pytest.raises(ValueError, match=r"line 1: .*weight 'Los' is not a number|line 1: expected.*4 fields"):
        interop.read_graph(file("a.txt", "New York Los Angeles"))


def test_names_that_are_all_whole_numbers_become_integers(file: Any) -> None:
    assert interop.read_graph(file("a.txt", "10 -2\n-2 3")).state_names == [10, -2, 3]
    assert interop.read_graph(file("a.txt", "10 a\na 3")).state_names == ["10", "a", "3"]
    assert interop.read_graph(file("a.txt", "007 1")).state_names == ["007", "1"]
    assert interop.read_graph(file("a.txt", "1.0 2")).state_names == ["1.0", "2"]


def test_edge_lists_are_undirected_unless_said_otherwise(file: Any) -> None:
    path = file("a.edges", "0 1\n1 2\n1 2\n2 2")
    assert dense(interop.read_graph(path)).tolist() == [[0, 1, 0], [1 / 3, 0, 2 / 3], [0, 2 / 3, 1 / 3]]
    assert torch.equal(dense(interop.read_graph(path, directed=False)), dense(interop.read_graph(path)))
    assert dense(interop.read_graph(path, directed=True)).tolist() == [[0, 1, 0], [0, 0, 1], [0, 0, 1]]
    both = file("c.edges", "source target\n0 1\n\n1 1\n1 0")
    for directed in (None, False):
        with pytest.raises(ValueError, match=r"line 5: it is the edge of line 2 the other way.*directed=True"):
            interop.read_graph(both, directed=directed)
    assert dense(interop.read_graph(both, directed=True)).tolist() == [[0, 1], [0.5, 0.5]]
    loops = interop.read_graph(file("b.edges", "0 1 0\n1 1"))
    assert dense(loops).tolist() == [[1, 0], [0, 1]]  # an edge of weight zero is none


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no lines with edges"),
        ("# nothing\n\n", "no lines with edges"),
        ("source target\n", "line 1: there are no edges below the header"),
        (
            "a b\n\nc\n",
            "line 3: expected source, target and perhaps a weight, got 1 field: 'c'. Nodes without edges need",
        ),
        ("a b 1 2", "line 1: expected .* got 4 fields: 'a b 1 2'"),
        ("a,b\na,,3", "line 2: expected source, target"),
        ("a b heavy", "line 1: weight 'heavy' is not a number. If this line is a header"),
        ("a b 1\na b heavy", r"line 2: weight 'heavy' is not a number. Write it like 2\.5"),
        ("a b 1\n# c\na b -2", "line 3: weight -2 is negative. Weights must be >= 0"),
        ("a b nan", "line 1: weight nan is not finite"),
        ("a b inf", "line 1: weight inf is not finite"),
        ("a b {'weight': -1}", "line 1: weight -1 is negative"),
        ("a b {'weight': 'x'}", "line 1: weight 'x' is not a number"),
        ("a b {'weight': None}", "line 1: weight None is not a number"),
        ("a b {weight: 1}", "line 1: '{weight: 1}' is not a dictionary of plain values"),
        ("a b {1}", r"line 1: '\{1\}' is not a dictionary"),
        ("a b " + "x" * 99, "line 1: weight 'xxx"),
        (b"a b\n\xff\xfe", "byte 4 is not UTF-8 text"),
    ],
)
def test_bad_edge_lists(file: Any, text: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=rf"{re.escape('a.edges')}.*{message}"):
        interop.read_graph(file("a.edges", text))


def test_a_matrix_is_no_edge_list(file: Any) -> None:
    with pytest.raises(ValueError, match="features: 'mass', but a text file has no attributes of nodes"):
        interop.read_graph(file("a.edges", "a b"), features="mass")
    with pytest.raises(ValueError, match="format: 'dot' is not one of 'graphml', 'gml', 'edges', 'adjacency'"):
        interop.read_graph(file("a.edges", "a b"), format="dot")


# --- adjacency matrices
MATRIX = np.array([[0, 2.0, 0, 1], [0, 0, 0.5, 0], [1, 1, 3, 0], [0, 0, 0, 0]])
ROWS = ["0,2,0,1", "0,0,.5,0", "1,1,3,0", "0,0,0,0"]


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        (ROWS, None),
        (["a,b,c,d", *ROWS], list("abcd")),
        (["10,11,12,13", *ROWS], [10, 11, 12, 13]),
        ([f"{name},{row}" for name, row in zip("abcd", ROWS, strict=True)], list("abcd")),
        ([",a,b,c,d", *(f"{name},{row}" for name, row in zip("abcd", ROWS, strict=True))], list("abcd")),
        (["node,a,b,c,d", *(f"{name},{row}" for name, row in zip("abcd", ROWS, strict=True))], list("abcd")),
        (['"a","b","c","d"', *(f'"{name}",{row}' for name, row in zip("abcd", ROWS, strict=True))], list("abcd")),
        ([",0,1,2,3", *(f"{k},{row}" for k, row in enumerate(ROWS))], [0, 1, 2, 3]),
        (["# made by hand", "", *ROWS], None),
    ],
)
def test_an_adjacency_matrix_with_names_or_without(file: Any, lines: list[str], names: list[Any] | None) -> None:
    law = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64)
    for options in ({}, {"laziness": 0.25, "initial": law, "dead_ends": "uniform"}):
        chain = interop.read_graph(file("a.csv", "\n".join(lines)), **options)
        wanted = MarkovChain.from_adjacency(MATRIX, state_names=names, features=[2.0, 1.0, 3.0, 0.0], **options)
        assert_same_chain(chain, wanted)
        assert chain.is_sparse
    plain = "\n".join(line for line in lines if not line.startswith("#")).replace(",", " ")
    if not plain.startswith((" ", "\n", '"')):
        found = interop.read_graph(file("a.txt", plain), format="adjacency", features=None)
        assert_same_chain(found, MarkovChain.from_adjacency(MATRIX, state_names=names))
    counted = interop.read_graph(file("a.csv", "\n".join(lines)), weight=None)
    torch.testing.assert_close(dense(counted), dense(MarkovChain.from_adjacency((MATRIX > 0).astype(float))))


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_a_square_of_numbers_is_a_matrix_also_where_it_could_be_edges(file: Any, n: int) -> None:
    matrix = np.ones((n, n)) - np.eye(n) if n > 1 else np.ones((1, 1))
    text = "\n".join(",".join(f"{x:g}" for x in row) for row in matrix)
    chain = interop.read_graph(file("a.csv", text))
    assert_same_chain(chain, MarkovChain.from_adjacency(matrix, features=[float(max(n - 1, 1))] * n))
    if n in (2, 3):
        edges = interop.read_graph(file("a.csv", text), format="edges", directed=True)
        assert dense(edges).tolist() == [[0, 1], [1, 0]]
    if n == 1:
        assert chain.num_states == 1


@pytest.mark.parametrize(
    ("text", "names", "kind"),
    [
        ("a,b\n0,1\n1,0", ["a", "b"], "adjacency"),  # names above a square
        ("0,1\n1,2\n2,0", [0, 1, 2], "edges"),  # numbers above it: three edges
        ("a,0,1\nb,1,0", ["a", "0", "b", "1"], "edges"),  # names before two rows: two weighted edges
        (",a,b\na,0,1\nb,1,0", ["a", "b"], "adjacency"),  # an empty corner
        ("a,b\na,0,1\nb,1,0", ["a", "b"], "adjacency"),  # as R writes it
        ("source,target\n0,1\n0,1", [0, 1], "edges"),  # a header of edges
        ("source,target,weight\n0,1,1\n0,1,0\n2,1,1", [0, 1, 2], "edges"),
        ("a,b,c\n0,1,0\n1,0,1\n0,1,0", ["a", "b", "c"], "adjacency"),
    ],
)
def test_what_a_small_csv_file_is(file: Any, text: str, names: list[Any], kind: str) -> None:
    chain = interop.read_graph(file("a.csv", text))
    assert chain.state_names == names
    assert_same_chain(chain, interop.read_graph(file("a.csv", text), format=kind))


def test_a_matrix_said_to_be_undirected_must_be_symmetric(file: Any) -> None:
    path = file("a.csv", "\n".join(ROWS))
    with pytest.raises(ValueError, match=r"a\.csv: row 1, column 2 is 2, but row 2, column 1 is 0\. An undirected"):
        interop.read_graph(path, directed=False)
    assert_same_chain(interop.read_graph(path, directed=True), interop.read_graph(path))
    symmetric = MATRIX + MATRIX.T
    path = file("b.csv", "\n".join(",".join(map(str, row)) for row in symmetric))
    found = interop.read_graph(path, directed=False, features=None)
    assert_same_chain(found, MarkovChain.from_adjacency(symmetric))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3,4\n2,2,3,4\n3,2,3,4", "3 rows of 4 fields are not a square"),  # the last row is missing
        ("1,1,3,4" + 4 * "\n1,2,3,4", "5 rows of 4 fields are not a square"),  # one row too many
        ("1,2,3,4,5\n1,2,3,4,5", "2 rows of 5 fields are not a square"),
        ("0,1,0,0\n1,0,0,0\n0,0,1\n0,0,0,1", "line 3: it has 3 weights, but there are 4 rows"),
        ("0,1,0,0\n1,0,x,0\n0,0,1,0\n0,0,0,1", "line 2: weight 'x' is not a number"),
        ("0,1,0,0\n1,0,-1,0\n0,0,1,0\n0,0,0,1", "line 2: weight -1 is negative"),
        ("0,1,0,0\n1,0,,0\n0,0,1,0\n0,0,0,1", "line 2: weight '' is not a number"),
        (",a,b,c\na,0,1,1\nc,1,0,1\nb,1,1,0", "line 3: the row is named 'c', but column 2 is 'b'"),
        ("# only this", "no lines with edges"),
    ],
)
def test_bad_matrices(file: Any, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"a\.csv.*{message}"):
        interop.read_graph(file("a.csv", text))


# --- several
def test_a_missing_file_says_so(tmp_path: Path) -> None:
    for name in ("a.edges", "a.csv", "a.gml", "a.graphml"):
        with pytest.raises(FileNotFoundError, match=re.escape(name)):
            interop.read_graph(tmp_path / name)


def test_options_reach_every_file(file: Any) -> None:
    paths = [file("a.edges", "0 1 2"), str(file("b.csv", "0,1,0,0\n1,0,0,0\n0,0,0,1\n0,0,0,0"))]
    chains = interop.read_graphs(paths, directed=True, laziness=0.5, dead_ends="uniform", features=None)
    assert [dense(chain)[-1].tolist() for chain in chains] == [[0.25, 0.75], [0.125, 0.125, 0.125, 0.625]]
    assert interop.read_graphs(paths, initial="stationary", weight=None)[0].initial_law == "stationary"
    assert [chain.num_states for chain in interop.read_graphs(paths[:1] * 2, format="edges")] == [2, 2]
    assert interop.auto_features(paths[:1], format="edges") == "degree"
