"""PyTorch Geometric: graphs and data sets in, chains out, and back; on the real library."""

import warnings
import zipfile
from importlib import resources
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch

from interop_checks import assert_same_chain, dense, sample
from markovot import costs, discounted_wl, interop
from markovot.chains import MarkovChain, as_chain
from markovot.datasets import load_mutag

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the library says things about torch when it is imported
    from torch_geometric import EdgeIndex
    from torch_geometric.data import Batch, Data, HeteroData
    from torch_geometric.datasets import FakeDataset, TUDataset
    from torch_geometric.utils import from_networkx

PATH = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])  # 0 - 1 - 2, both ways


def graph(**parts: Any) -> Data:
    return Data(**{"edge_index": PATH, "num_nodes": 4, **parts})


def test_a_graph_becomes_its_walk() -> None:
    chain = interop.from_pyg(graph(x=torch.eye(4)))
    assert dense(chain).tolist() == [[0, 1, 0, 0], [0.5, 0, 0.5, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
    assert (chain.dtype, chain.is_sparse, chain.initial_law, chain.state_names) == (
        torch.float64,
        True,
        "uniform",
        None,
    )
    assert torch.equal(chain.features, torch.eye(4))


def test_options_are_those_of_from_adjacency() -> None:
    law = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64)
    chain = interop.from_pyg(graph(), laziness=0.2, initial=law, dead_ends="uniform")
    walk = torch.zeros(4, 4, dtype=torch.float64)
    walk[tuple(PATH)] = 1
    assert_same_chain(chain, MarkovChain.from_adjacency(walk, laziness=0.2, initial=law, dead_ends="uniform"))
    with pytest.raises(ValueError, match="dead_ends: state 3 has no way out"):
        interop.from_pyg(graph(), dead_ends="error")
    assert interop.from_pyg(Data(edge_index=PATH, num_nodes=3), initial="stationary").initial.tolist() == [
        0.25,
        0.5,
        0.25,
    ]


@pytest.mark.parametrize("kind", [nx.Graph, nx.DiGraph, nx.MultiGraph, nx.MultiDiGraph])
def test_oddities_are_treated_as_in_networkx(kind: type[nx.Graph]) -> None:
    """Parallel edges, self-loops, edges one way, isolated nodes."""
    original = kind()
    original.add_nodes_from(range(5))
    original.add_weighted_edges_from(
        [(0, 1, 2.0), (1, 2, 1.0), (1, 2, 3.0), (2, 2, 5.0), (3, 0, 1.0)], weight="edge_weight"
    )
    data = from_networkx(original)
    data.edge_weight = data.edge_weight.double()
    found = interop.from_pyg(data, laziness=0.1)
    wanted = MarkovChain.from_networkx(original, weight="edge_weight", laziness=0.1)
    assert_same_chain(found, wanted, names=False)


def test_an_edge_index_of_the_library_s_own_class() -> None:
    data = Data(edge_index=EdgeIndex(PATH, sparse_size=(4, 4), sort_order="row", is_undirected=True))
    assert_same_chain(interop.from_pyg(data, laziness=0.1), interop.from_pyg(graph(), laziness=0.1))
    once = Data(edge_index=EdgeIndex([[0, 1], [1, 2]], sparse_size=(4, 4), sort_order="row"))
    assert_same_chain(interop.from_pyg(once, directed=False), interop.from_pyg(graph()))


def test_the_library_warns_where_it_guesses_the_number_of_nodes() -> None:
    with pytest.warns(UserWarning, match="Unable to accurately infer 'num_nodes'"):
        assert interop.from_pyg(Data(edge_index=PATH)).num_states == 3
    with (
        pytest.warns(UserWarning, match="num_nodes"),
        pytest.raises(ValueError, match=r"no nodes.*set data\.num_nodes"),
    ):
        interop.from_pyg(Data())


def test_undirected_edges_that_stand_once() -> None:
    # 1 - 2 twice, both written the same way; two self-loops.
    once = torch.tensor([[0, 2, 2, 2, 1], [1, 1, 2, 1, 1]])
    original = nx.MultiGraph([(0, 1), (2, 1), (2, 2), (2, 1), (1, 1)])
    original.add_node(3)
    wanted = MarkovChain.from_networkx(original)
    order = [wanted.state_names.index(k) for k in range(4)]
    found = interop.from_pyg(Data(edge_index=once, num_nodes=4), directed=False)
    torch.testing.assert_close(dense(found), dense(wanted)[order][:, order])
    one_way = interop.from_pyg(Data(edge_index=once, num_nodes=4))
    assert dense(one_way)[0].tolist() == [0, 1, 0, 0]
    assert dense(one_way)[1].tolist() == [0, 1, 0, 0]
    with pytest.raises(ValueError, match=r"both \(0, 1\) and \(1, 0\).*leave directed=True"):
        interop.from_pyg(graph(), directed=False)
    with pytest.raises(TypeError, match="directed: 'no' is neither True nor False"):
        interop.from_pyg(graph(), directed="no")  # type: ignore[arg-type]


def test_weights_of_every_shape_and_kind() -> None:
    values = [1.0, 1.0, 3.0, 1.0]
    wanted = [0.25, 0, 0.75, 0]
    for given in (
        torch.tensor(values),
        torch.tensor(values)[:, None],
        torch.tensor(values).double(),
        torch.tensor(values).long(),
    ):
        for name in ("edge_weight", "edge_attr"):
            chain = interop.from_pyg(graph(**{name: given}), weight=name)
            assert dense(chain)[1].tolist() == wanted
            assert chain.dtype == (torch.float32 if given.dtype == torch.float32 else torch.float64)
    kinds = graph(edge_attr=torch.tensor(values))
    assert dense(interop.from_pyg(kinds))[1].tolist() == [0.5, 0, 0.5, 0]
    assert dense(interop.from_pyg(graph(edge_weight=torch.tensor(values)), weight=None))[1].tolist() == [0.5, 0, 0.5, 0]


def test_gradients_reach_the_edge_weights() -> None:
    weights = torch.tensor([1.0, 1.0, 3.0, 1.0], dtype=torch.float64, requires_grad=True)
    chain = interop.from_pyg(graph(edge_weight=weights, x=torch.arange(4.0)[:, None]))
    other = interop.from_pyg(graph(x=torch.arange(4.0)[:, None]))
    discounted_wl(chain, other, costs.Euclidean(), delta=0.2, epsilon=0.1).value.backward()
    assert weights.grad is not None
    assert weights.grad[1:3].abs().min() > 1e-3
    torch.testing.assert_close(
        weights.grad[[0, 3]], torch.zeros(2).double()
    )  # the only way out: scaling it changes nothing


def test_features_by_name() -> None:
    data = graph(x=torch.eye(4), z=torch.tensor([6, 7, 6, 8]), symbols=["C", "N", "C", "O"])
    assert interop.from_pyg(data, features="z").features.tolist() == [6, 7, 6, 8]
    wanted = MarkovChain.from_transitions(torch.eye(4), initial="uniform", features=["C", "N", "C", "O"]).features
    assert torch.equal(interop.from_pyg(data, features="symbols").features, wanted)
    assert interop.from_pyg(data, features=None).features is None
    assert interop.from_pyg(graph()).features is None


@pytest.mark.parametrize("layout", ["dense", "sparse"])
@pytest.mark.parametrize(
    "features", [None, torch.tensor([1, 2, 1, 0]), torch.ones(4).double(), torch.eye(4), ["C", "N", "C", "O"]]
)
def test_a_chain_comes_back(layout: str, features: Any) -> None:
    chain = sample(layout, features=features, state_names=["a", "b", "c", 4])
    data = interop.to_pyg(chain)
    assert data.validate()
    assert_same_chain(interop.from_pyg(data), chain)
    plain = sample(layout)
    assert_same_chain(interop.from_pyg(interop.to_pyg(plain)), plain)
    assert data.num_nodes == 4
    assert data.edge_index.tolist() == [[0, 0, 1, 1, 1, 2, 3], [1, 2, 0, 1, 2, 0, 3]]


def test_gradients_pass_through_to_pyg() -> None:
    rows = torch.tensor([[0.0, 1.0], [0.5, 0.5]], requires_grad=True)
    interop.to_pyg(MarkovChain.from_transitions(rows)).edge_weight[1].backward()
    assert rows.grad.tolist() == [[0, 0], [1, 0]]
    with pytest.raises(ValueError, match="to_pyg takes a single chain"):
        interop.to_pyg(MarkovChain.stack([sample()]))
    with pytest.raises(TypeError, match="to_pyg takes a MarkovChain, got Data"):
        interop.to_pyg(graph())


# --- data sets
def test_mutag_is_the_same_through_pyg(tmp_path: Path) -> None:
    packed = resources.files("markovot") / "data" / "MUTAG.zip"
    with packed.open("rb") as file, zipfile.ZipFile(file) as archive:
        (tmp_path / "MUTAG" / "raw").mkdir(parents=True)
        for name in archive.namelist():
            if name.endswith(".txt"):
                (tmp_path / "MUTAG" / "raw" / Path(name).name).write_bytes(archive.read(name))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = TUDataset(str(tmp_path), "MUTAG")
    chains, targets = interop.from_pyg_dataset(dataset, laziness=0.1)
    mutag = load_mutag()
    assert len(chains) == len(mutag) == 188
    assert targets.tolist() == [int(target > 0) for target in mutag.targets]
    for found, wanted in zip(chains, mutag.chains, strict=True):
        torch.testing.assert_close(dense(found), dense(wanted))
        assert torch.equal(found.features.argmax(1), wanted.features)
    batch = Batch.from_data_list(list(dataset[:3]))
    again = interop.from_pyg_dataset(batch, laziness=0.1)
    assert [chain.num_states for chain in again.chains] == [17, 13, 13]
    assert_same_chain(again.chains[2], chains[2])
    assert again.targets.tolist() == targets[:3].tolist()


def test_a_made_up_data_set_with_edge_weights() -> None:
    torch.manual_seed(0)
    dataset = FakeDataset(num_graphs=5, avg_num_nodes=20, avg_degree=4, edge_dim=1, is_undirected=False)
    chains, targets = interop.from_pyg_dataset(
        dataset, weight="edge_weight" if "edge_weight" in dataset[0] else "edge_attr"
    )
    assert len(chains) == 5
    assert targets.tolist() == [int(data.y) for data in dataset]
    for chain, data in zip(chains, dataset, strict=True):
        assert torch.equal(chain.features, data.x)
        weights = data.edge_weight if "edge_weight" in data else data.edge_attr
        walk = torch.zeros(data.num_nodes, data.num_nodes).index_put(
            tuple(data.edge_index), weights.flatten(), accumulate=True
        )
        torch.testing.assert_close(dense(chain), dense(MarkovChain.from_adjacency(walk)))


def test_options_reach_every_graph_of_a_data_set() -> None:
    once = [
        Data(edge_index=torch.tensor([[0], [1]]), num_nodes=3, w=torch.tensor([2.0]), f=torch.arange(3))
        for _ in range(2)
    ]
    chains, _ = interop.from_pyg_dataset(
        once, features="f", weight="w", directed=False, laziness=0.5, initial="uniform", dead_ends="uniform"
    )
    for chain in chains:
        assert dense(chain).tolist()[:2] == [[0.5, 0.5, 0], [0.5, 0.5, 0]]
        assert dense(chain)[2, 0] > 0.1
        assert chain.features.tolist() == [0, 1, 2]
    assert interop.from_pyg_dataset(once, initial="stationary").chains[0].initial_law == "stationary"


def test_targets_of_every_shape() -> None:
    def targets(*values: Any, **options: Any) -> Any:
        return interop.from_pyg_dataset([graph(y=y) for y in values], **options).targets

    np.testing.assert_array_equal(targets(torch.tensor([1]), torch.tensor([0])), [1, 0])
    np.testing.assert_array_equal(targets(torch.tensor(1.5), 2.5), [1.5, 2.5])
    np.testing.assert_array_equal(targets(torch.ones(1, 3), torch.zeros(1, 3)), [[1, 1, 1], [0, 0, 0]])
    assert targets(None, None) is None
    assert targets(torch.zeros(4), target=None) is None
    np.testing.assert_array_equal(interop.from_pyg_dataset([graph(label=3)], target="label").targets, [3])
    with pytest.raises(ValueError, match=r"graph 1 has no attribute 'y'.*target=None"):
        targets(torch.tensor([1]), None)
    with pytest.raises(ValueError, match=r"'y' of graph 0 has shape \(4,\).*Targets of nodes"):
        targets(torch.zeros(4))
    with pytest.raises(ValueError, match="graph 1 has 2 numbers in 'y', graph 0 has 3"):
        targets(torch.ones(1, 3), torch.ones(1, 2))
    with pytest.raises(ValueError, match="graph 0 has no attribute 'z'"):
        targets(None, target="z")


def test_errors_of_data_sets_name_the_graph() -> None:
    with pytest.raises(ValueError, match=r"dataset: graph 1: weight: edge 2, \(1, 2\), has 'edge_weight' = -1"):
        interop.from_pyg_dataset([graph(), graph(edge_weight=torch.tensor([1.0, 1, -1, 1]))])
    with pytest.raises(ValueError, match="holds no graphs"):
        interop.from_pyg_dataset([])
    with pytest.raises(TypeError, match=r"single graph\. Use from_pyg\(data\)"):
        interop.from_pyg_dataset(graph())
    with pytest.raises(TypeError, match="graph 0: data: expected a torch_geometric Data object, got Graph"):
        interop.from_pyg_dataset([nx.path_graph(2)])


@pytest.mark.parametrize(
    ("data", "options", "error", "message"),
    [
        (Batch.from_data_list([graph(), graph()]), {}, TypeError, r"Use from_pyg_dataset\(batch\)"),
        (HeteroData(), {}, TypeError, "to_homogeneous"),
        ([graph()], {}, TypeError, "got list. For a data set, use from_pyg_dataset"),
        (Data(num_nodes=0), {}, ValueError, "no nodes"),
        (Data(num_nodes=2), {}, ValueError, "no edge_index"),
        (graph(edge_index=PATH.float()), {}, TypeError, r"edge_index is torch\.float32.*edge_index\.long"),
        (graph(edge_index=PATH.T), {}, ValueError, r"shape \(4, 2\), not \(2, number of edges\)"),
        (graph(edge_index=PATH + 2), {}, ValueError, r"edge 2, \(3, 4\), leads outside the 4 nodes"),
        (graph(edge_index=PATH - 1), {}, ValueError, r"edge 0, \(-1, 0\), leads outside"),
        (
            graph(),
            {"features": "z"},
            ValueError,
            "features: the graph has no attribute 'z', only 'edge_index', 'num_nodes'",
        ),
        (graph(), {"features": 3}, TypeError, "features: expected a string, got int"),
        (graph(), {"weight": "edge_attr"}, ValueError, "weight: the graph has no attribute 'edge_attr'.*weight=None"),
        (graph(edge_weight=[1, 2, 3, 4]), {}, TypeError, "'edge_weight' is list, not a tensor"),
        (
            graph(edge_weight=torch.ones(4, dtype=torch.complex64)),
            {},
            TypeError,
            r"torch\.complex64, not a tensor of real",
        ),
        (graph(edge_attr=torch.ones(4, 2)), {"weight": "edge_attr"}, ValueError, r"shape \(4, 2\).*Choose a column"),
        (graph(edge_weight=torch.ones(3)), {}, ValueError, r"shape \(3,\), not \(4,\)"),
        (
            graph(edge_weight=torch.tensor([1, torch.inf, 1, 1])),
            {},
            ValueError,
            "edge 1.*= inf. Weights must be finite",
        ),
        (graph(edge_weight=torch.tensor([1, torch.nan, 1, 1])), {}, ValueError, "edge 1.*= nan"),
        (graph(x=torch.ones(3, 2)), {}, ValueError, r"features: shape \(3, 2\) does not fit \(4,\)"),
    ],
)
def test_what_is_no_graph(data: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        interop.from_pyg(data, **options)


def test_a_negative_weight_does_not_hide_behind_a_parallel_edge() -> None:
    twice = Data(edge_index=torch.tensor([[0, 0], [1, 1]]), num_nodes=2, edge_weight=torch.tensor([2.0, -1.0]))
    with pytest.raises(ValueError, match=r"edge 1, \(0, 1\), has 'edge_weight' = -1"):
        interop.from_pyg(twice)


def test_as_chain_names_the_function() -> None:
    with pytest.raises(TypeError, match=r"as_chain does not convert Data\. Use markovot\.interop\.from_pyg\(data\)"):
        as_chain(graph())
    with pytest.raises(TypeError, match="from_pyg_dataset"):
        as_chain([graph()])
