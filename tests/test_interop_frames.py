"""Edge lists in pandas data frames: one graph and many, both ways."""

from typing import Any

import networkx as nx
import numpy as np
import pandas
import pytest
import torch

from interop_checks import assert_same_chain, dense, sample
from markovot import interop
from markovot.chains import MarkovChain, as_chain, label_code
from markovot.datasets import load_mutag


def edge_frame(*rows: tuple[Any, ...], **more: Any) -> pandas.DataFrame:
    return pandas.DataFrame(rows, columns=["source", "target", "weight"][: len(rows[0]) if rows else 2]).assign(**more)


EDGES = edge_frame(("a", "b", 1.0), ("b", "c", 2.0), ("b", "c", 1.0), ("c", "c", 3.0), ("a", "c", 0.0))
NODES = pandas.DataFrame({"node": ["d", "c", "b", "a"], "size": [4, 3, 2, 1], "kind": ["x", "y", "x", "z"]})


@pytest.mark.parametrize("directed", [False, True])
def test_oddities_are_treated_as_in_networkx(directed: bool) -> None:
    """Parallel edges (in both senses where they are directed), self-loops, an edge of weight zero, an isolated node."""
    graph = (nx.MultiDiGraph if directed else nx.MultiGraph)()
    graph.add_nodes_from(NODES["node"])
    edges = pandas.concat([EDGES, edge_frame(("c", "b", 2.0))]) if directed else EDGES
    graph.add_weighted_edges_from(edges.itertuples(index=False))
    law = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    for options in ({}, {"laziness": 0.3, "initial": law, "dead_ends": "uniform"}, {"initial": "stationary"}):
        wanted = MarkovChain.from_networkx(graph, **options)
        found = interop.from_frame(edges, NODES, directed=directed, **options)
        assert found.initial_law == wanted.initial_law
        assert found.compressed.indices.tolist() == wanted.compressed.indices.tolist()  # no entry of weight zero
        if options.get("initial") != "stationary":
            assert_same_chain(found, wanted)
    with pytest.raises(ValueError, match="dead_ends: state 0 has no way out"):
        interop.from_frame(EDGES, NODES, directed=directed, dead_ends="error")


def test_nodes_without_a_table_stand_in_the_order_in_which_they_are_met() -> None:
    chain = interop.from_frame(EDGES, directed=False)
    assert chain.state_names == ["a", "b", "c"]
    assert dense(chain)[0].tolist() == [0, 1, 0]
    unweighted = interop.from_frame(EDGES.drop(columns="weight"), directed=True)
    assert dense(unweighted).tolist() == [[0, 0.5, 0.5], [0, 0, 1], [0, 0, 1]]


def test_features_are_columns_of_the_nodes() -> None:
    def features(which: Any, table: pandas.DataFrame = NODES) -> torch.Tensor:
        found = interop.from_frame(EDGES, table, directed=False, features=which).features
        assert found is not None
        return found

    assert interop.from_frame(EDGES, NODES, directed=False).features is None
    assert (features("size").tolist(), features("size").dtype) == ([4, 3, 2, 1], torch.int64)
    assert features("kind").tolist() == [label_code(kind) for kind in "xyxz"]
    assert torch.equal(features("kind", NODES.astype({"kind": "category"})), features("kind"))
    assert features("size", NODES.astype({"size": "float32"})).dtype == torch.float32
    assert torch.equal(features("size", NODES.astype({"size": "Int64"})), features("size"))
    vectors = features(["size", "half"], NODES.assign(half=NODES["size"] / 2))
    assert torch.equal(vectors, torch.tensor([[4, 2], [3, 1.5], [2, 1], [1, 0.5]]).double())
    assert features(["size"]).shape == (4, 1)


def test_weights_of_pandas_own_types() -> None:
    for kind in ("Float64", "int64", "Int64", "bool", "float32"):
        chain = interop.from_frame(edge_frame(("a", "b", 1), ("b", "a", 1)).astype({"weight": kind}), directed=True)
        assert dense(chain).tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("layout", ["dense", "sparse"])
@pytest.mark.parametrize("features", [None, torch.arange(4), torch.ones(4).float(), torch.randn(4, 3).double()])
@pytest.mark.parametrize("names", [None, ["a", "b", "c", "d"], [3, 1, 0, 2], ["a", 1, ("b", 2), None.__class__]])
def test_a_chain_comes_back(layout: str, features: Any, names: Any) -> None:
    chain = sample(layout, features=features, state_names=names)
    edges, nodes = interop.to_frame(chain)
    columns = None if features is None else "feature" if features.ndim == 1 else [f"feature_{k}" for k in range(3)]
    back = interop.from_frame(edges, nodes, directed=True, features=columns)
    assert_same_chain(back, chain, names=False)
    assert back.state_names == (names or [0, 1, 2, 3])


def test_what_the_tables_hold() -> None:
    edges, nodes = interop.to_frame(sample(features=torch.eye(4)[:, :2], state_names=list("abcd")))
    assert list(edges.columns) == ["source", "target", "weight"]
    assert edges.to_numpy().tolist()[:3] == [["a", "b", 0.7], ["a", "c", 0.3], ["b", "a", 0.1]]
    assert len(edges) == 7
    assert list(nodes.columns) == ["node", "feature_0", "feature_1"]
    plain = interop.to_frame(sample())
    assert plain.edges.dtypes.astype(str).tolist() == ["int64", "int64", "float64"]
    assert list(plain.nodes.columns) == ["node"]


def test_many_graphs_come_back() -> None:
    chains = load_mutag().chains[:20]
    edges, nodes = interop.to_frames(chains)
    assert list(edges.columns) == ["graph", "source", "target", "weight"]
    assert list(nodes.columns) == ["graph", "node", "feature"]
    assert len(nodes) == sum(chain.num_states for chain in chains)
    back = interop.from_frames(edges, nodes, directed=True, features="feature")
    assert list(back) == list(range(20))
    for found, wanted in zip(back.values(), chains, strict=True):
        assert_same_chain(found, wanted, names=False)
    named = interop.to_frames({"x": sample(), ("y", 1): sample(state_names=list("abcd"))})
    assert list(interop.from_frames(*named, directed=True)) == ["x", ("y", 1)]


def test_graphs_are_told_apart_by_their_column() -> None:
    edges = edge_frame((1, 2), (2, 3), (1, 2), graph=["q", "p", "q"])
    chains = interop.from_frames(edges, directed=True, laziness=0.5, initial="stationary", dead_ends="uniform")
    assert list(chains) == ["q", "p"]
    assert [chain.state_names for chain in chains.values()] == [[1, 2], [2, 3]]
    assert dense(chains["p"]).tolist() == [[0.5, 0.5], [0.25, 0.75]]
    assert chains["p"].initial_law == "stationary"
    assert dense(interop.from_frames(edges, directed=False)["p"]).tolist() == [[0, 1], [1, 0]]
    nodes = pandas.DataFrame({"graph": ["lone", "p", "p", "q", "q"], "node": [1, 2, 3, 1, 2], "f": [5, 6, 7, 8, 9]})
    chains = interop.from_frames(edges, nodes, directed=True, features="f")
    assert list(chains) == ["lone", "p", "q"]
    assert dense(chains["lone"]).tolist() == [[1]]
    assert chains["q"].features.tolist() == [8, 9]
    category = edges.astype({"graph": pandas.CategoricalDtype(["p", "q", "unused"])})
    assert set(interop.from_frames(category, directed=True)) == {"p", "q"}


def test_inputs_are_not_changed() -> None:
    edges, nodes = EDGES.copy(), NODES.copy()
    chain = interop.from_frame(edges, nodes, directed=False, features="size")
    chain.features[:] = 0
    pandas.testing.assert_frame_equal(edges, EDGES)
    pandas.testing.assert_frame_equal(nodes, NODES)


BAD_WEIGHT = edge_frame(("a", "b", 1.0), ("b", "c", -2.0)).set_axis([10, 11])


@pytest.mark.parametrize(
    ("edges", "nodes", "options", "error", "message"),
    [
        (nx.Graph(), None, {}, TypeError, "edges: expected a pandas DataFrame, got Graph"),
        (EDGES, [1], {}, TypeError, "nodes: expected a pandas DataFrame, got list"),
        (
            EDGES.rename(columns={"source": "from"}),
            None,
            {},
            ValueError,
            r"edges: there is no column 'source', only 'from', 'target', 'weight'. Rename one: edges\.rename",
        ),
        (EDGES, NODES.drop(columns="node"), {}, ValueError, "nodes: there is no column 'node'"),
        (
            EDGES,
            NODES,
            {"features": "mass"},
            ValueError,
            "nodes: there is no column 'mass', only 'node', 'size', 'kind'",
        ),
        (EDGES, None, {"features": "size"}, ValueError, "'size' names columns of nodes, but there is no such table"),
        (EDGES, NODES, {"features": []}, ValueError, "features: an empty list"),
        (EDGES, NODES, {"features": ["size", "kind"]}, TypeError, "column 'kind' is .* made of numbers"),
        (
            EDGES,
            NODES.replace("x", None),
            {"features": "kind"},
            ValueError,
            "'kind' has no value in row 0, the first of 2",
        ),
        (edge_frame(("a", None), ("b", "c")), None, {}, ValueError, "'target' has no value in row 0, the first of 1"),
        (EDGES, pandas.concat([NODES, NODES[1:2]]), {}, ValueError, "nodes: 'c' stands in the table more than once"),
        (EDGES, NODES[:-1], {}, ValueError, "edges: 'a' in row 0 is not in the table of nodes.*its type is str"),
        (edge_frame(("a", "q")), NODES, {}, ValueError, "edges: 'q' in row 0 is not in the table"),
        (BAD_WEIGHT, None, {}, ValueError, r"weight in row 11, from 'b' to 'c', is -2\.0"),
        (BAD_WEIGHT.replace(-2.0, np.nan), None, {}, ValueError, "weight in row 11, from 'b' to 'c', is nan"),
        (BAD_WEIGHT.replace(-2.0, np.inf), None, {}, ValueError, "is inf. Weights must be finite"),
        (
            BAD_WEIGHT.astype({"weight": "Float64"}).replace(-2.0, pandas.NA),
            None,
            {},
            ValueError,
            "weight in row 11.*is nan",
        ),
        (EDGES.astype({"weight": str}), None, {}, TypeError, r"weights are \w+, not numbers.*astype\(float\)"),
        (edge_frame(), None, {}, ValueError, "edges: there are none, and so no nodes"),
        (EDGES.assign(graph=1), None, {}, ValueError, "a column 'graph'.*Use from_frames"),
        (
            edge_frame(("a", "b"), ("c", "c"), ("b", "a")).set_axis([10, 11, 12]),
            None,
            {},
            ValueError,
            "hold 'a' to 'b' in row 10, and 'b' to 'a' in row 12.*directed=True.*write both the same way",
        ),
        (EDGES.set_axis(["source", "target", "source"], axis=1), None, {}, ValueError, "'source' stands there 2 times"),
        (EDGES.assign(w=1).set_axis([*EDGES, "weight"], axis=1), None, {}, ValueError, "'weight' stands there 2 times"),
        (EDGES, NODES.set_axis(["node", "node", "kind"], axis=1), {}, ValueError, "nodes: the column 'node' stands"),
        (EDGES, NODES.set_axis(["node", "f", "f"], axis=1), {"features": "f"}, ValueError, "'f' stands there 2 times"),
        (EDGES, None, {"directed": "yes"}, TypeError, "directed: 'yes' is neither True nor False"),
    ],
)
def test_bad_tables(edges: Any, nodes: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        interop.from_frame(edges, nodes, **{"directed": False, **options})


def test_a_frame_is_no_chain_unasked() -> None:
    square = pandas.DataFrame([[0.0, 1.0], [1.0, 0.0]], index=["a", "b"], columns=["a", "b"])
    for thing in (square, [square], (np.eye(2), square["a"])):
        with pytest.raises(TypeError, match=r"does not convert .*from_frame\(.*from_transitions\(frame\.to_numpy\(\)"):
            as_chain(thing)


def test_whether_edges_are_directed_must_be_said() -> None:
    for read in (interop.from_frame, interop.from_frames):
        with pytest.raises(TypeError, match="directed"):
            read(EDGES.assign(graph=1))  # type: ignore[call-arg]


def test_errors_of_many_graphs_name_the_graph() -> None:
    many = BAD_WEIGHT.assign(graph=["x", "y"])
    with pytest.raises(ValueError, match="graph 'y': edges: the weight in row 11"):
        interop.from_frames(many, directed=True)
    with pytest.raises(ValueError, match="edges: there is no column 'graph'"):
        interop.from_frames(EDGES, directed=True)
    with pytest.raises(ValueError, match="nodes: there is no column 'graph'"):
        interop.from_frames(many, NODES, directed=True)
    with pytest.raises(ValueError, match="graph 'x' has edges, but no nodes in the table"):
        interop.from_frames(many, NODES.assign(graph="y"), directed=True)
    with pytest.raises(ValueError, match="there are no graphs in them"):
        interop.from_frames(many[:0], directed=True)
    with pytest.raises(ValueError, match="chains: there are none"):
        interop.to_frames([])
    with pytest.raises(ValueError, match=r"chains\[0\]: expected a single chain"):
        interop.to_frames([MarkovChain.stack([sample()])])
    with pytest.raises(ValueError, match="'a' is the name of 2 states"):
        interop.to_frame(sample(state_names=["a", "a", "b", "c"]))
    with pytest.raises(TypeError, match="takes a MarkovChain, got DataFrame"):
        interop.to_frame(EDGES)  # type: ignore[arg-type]
