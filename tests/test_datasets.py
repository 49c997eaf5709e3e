"""MUTAG as shipped: the published counts, every bond against the raw file, and choosing some of its graphs."""

import dataclasses
import io
import zipfile
from collections import Counter
from importlib import resources

import numpy as np
import pytest
import torch

from markovot import datasets


@pytest.fixture(scope="module")
def mutag():
    return datasets.load_mutag()


def test_counts_are_the_published_ones(mutag):
    sizes = [chain.num_states for chain in mutag.chains]
    assert len(mutag) == len(mutag.targets) == len(mutag.edges) == len(mutag.edge_labels) == 188
    assert round(float(np.mean(sizes)), 2) == 17.93
    assert round(float(np.mean([len(edges) for edges in mutag.edges])), 2) == 19.79
    assert Counter(mutag.targets.tolist()) == {1: 125, -1: 63}
    assert set(mutag.target_names) == {1, -1}


def test_labels_are_atoms_and_bonds(mutag):
    atoms = Counter(mutag.label_names[label] for chain in mutag.chains for label in chain.features.tolist())
    assert atoms == {"C": 2395, "N": 345, "O": 593, "F": 12, "I": 1, "Cl": 23, "Br": 2}
    bonds = Counter(mutag.edge_label_names[label] for labels in mutag.edge_labels for label in labels.tolist())
    assert bonds == {"aromatic": 2354, "single": 1004, "double": 362, "triple": 1}
    assert all(chain.features.dtype == torch.int64 for chain in mutag.chains)


def test_every_oxygen_has_at_most_two_bonds_and_every_halogen_one(mutag):
    # Chemistry is an oracle of its own: mixed-up labels or shifted node numbers break it.
    most = {"O": 2, "F": 1, "Cl": 1, "Br": 1, "I": 1, "C": 4, "N": 4}
    for chain, edges in zip(mutag.chains, mutag.edges, strict=True):
        degree = np.bincount(edges.ravel(), minlength=chain.num_states)
        assert (degree >= 1).all()
        for label, number in zip(chain.features.tolist(), degree, strict=True):
            assert number <= most[mutag.label_names[label]]


@pytest.mark.parametrize("laziness", [0.0, 0.1, 0.5])
def test_a_chain_is_the_lazy_walk_along_the_bonds(laziness):
    mutag = datasets.load_mutag(laziness=laziness)
    for index in (0, 7, 187):
        chain, edges = mutag.chains[index], mutag.edges[index]
        size = chain.num_states
        walk = torch.zeros(size, size, dtype=torch.float64)
        for i, j in edges.tolist():
            walk[i, j] = walk[j, i] = 1.0
        walk = laziness * torch.eye(size, dtype=torch.float64) + (1 - laziness) * walk / walk.sum(1, keepdim=True)
        assert chain.is_sparse
        assert chain.dtype == torch.float64
        torch.testing.assert_close(chain.to_dense().transition, walk, rtol=0, atol=1e-15)
        torch.testing.assert_close(chain.initial, torch.full((size,), 1 / size, dtype=torch.float64))
        assert chain.initial_law == "uniform"


@pytest.mark.parametrize("laziness", [-0.1, 1.5, float("nan")])
def test_bad_laziness_is_refused(laziness):
    with pytest.raises(ValueError, match="laziness"):
        datasets.load_mutag(laziness=laziness)


def test_calls_do_not_share_data():
    first, second = datasets.load_mutag(), datasets.load_mutag()
    first.chains[0].features[0] = 6
    first.edges[0][0] = 99
    assert second.chains[0].features[0] == 0
    assert second.edges[0].max() < 17


def test_data_and_citation_ship_with_the_package(mutag):
    folder = resources.files("markovot") / "data"
    assert (folder / "MUTAG.zip").is_file()
    notes = (folder / "README.md").read_text(encoding="utf-8")
    for source in (notes, mutag.citation):
        assert "Debnath" in source
        assert "2007.08663" in source


def test_equals_the_raw_file(mutag, shared_data):
    raw = (shared_data / "graphs" / "MUTAG.zip").read_bytes()
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        lines = {
            part: archive.read(f"MUTAG/MUTAG_{part}.txt").decode().splitlines()
            for part in ("A", "edge_labels", "graph_indicator", "graph_labels", "node_labels")
        }
    # Node by node and bond by bond, in plain Python: graph -> its nodes, in the file's order.
    nodes: dict[int, list[int]] = {}
    for node, graph in enumerate(lines["graph_indicator"], start=1):
        nodes.setdefault(int(graph), []).append(node)
    bonds: dict[int, dict[tuple[int, int], int]] = {graph: {} for graph in nodes}
    for pair, label in zip(lines["A"], lines["edge_labels"], strict=True):
        i, j = (int(part) for part in pair.split(","))
        graph = int(lines["graph_indicator"][i - 1])
        if i < j:
            bonds[graph][nodes[graph].index(i), nodes[graph].index(j)] = int(label)

    assert mutag.targets.tolist() == [int(line) for line in lines["graph_labels"]]
    for index, members in enumerate(nodes.values()):
        atoms = [int(lines["node_labels"][node - 1]) for node in members]
        assert mutag.chains[index].features.tolist() == atoms
        edges = [tuple(edge) for edge in mutag.edges[index].tolist()]
        assert dict(zip(edges, mutag.edge_labels[index].tolist(), strict=True)) == bonds[index + 1]


def test_equals_what_the_reader_of_such_sets_finds(mutag, shared_data):
    read = datasets.load_tudataset(shared_data / "graphs" / "MUTAG.zip")
    assert read.targets.tolist() == mutag.targets.tolist()
    assert read.feature_kind == mutag.feature_kind == "labels"
    for one, other in zip(read.chains, mutag.chains, strict=True):
        torch.testing.assert_close(one.to_dense().transition, other.to_dense().transition, rtol=0, atol=0)
        assert one.features.tolist() == other.features.tolist()


# --- choosing graphs
def test_subset_keeps_what_belongs_to_each_graph(mutag):
    some = mutag.subset([3, -1, 3])
    assert len(some) == 3
    assert some.numbers.tolist() == [3, 187, 3]
    for position, index in enumerate([3, 187, 3]):
        assert some.chains[position] is mutag.chains[index]
        assert some.targets[position] == mutag.targets[index]
        assert some.edges[position] is mutag.edges[index]
        assert some.edge_labels[position] is mutag.edge_labels[index]
    assert some.target_names == mutag.target_names
    assert some.label_names == mutag.label_names
    assert some.citation == mutag.citation
    assert some.feature_kind == "labels"


def test_subset_of_a_subset_remembers_the_numbers_in_the_file(mutag):
    assert mutag.subset(range(10, 20)).subset([0, 5]).numbers.tolist() == [10, 15]


def test_subset_by_bools(mutag):
    harmless = mutag.subset(mutag.targets == -1)
    assert len(harmless) == 63
    assert set(harmless.targets.tolist()) == {-1}


def test_subset_may_be_empty(mutag):
    none = mutag.subset([])
    assert len(none) == len(none.targets) == 0
    assert repr(none) == "GraphDataset(MUTAG: 0 graphs in 0 classes, 0.0 nodes each in the mean, features: labels)"
    assert len(none.subset([])) == 0


def test_subset_of_a_set_without_labels_of_edges(mutag):
    assert dataclasses.replace(mutag, edge_labels=[]).subset([1, 2]).edge_labels == []


@pytest.mark.parametrize(
    ("indices", "error", "message"),
    [
        ([0, 188], ValueError, "indices: 188, but the set has 188 graphs, from 0 to 187"),
        ([-189], ValueError, "indices: -189, but the set has 188 graphs"),
        ([0.0, 1.0], TypeError, "indices: dtype float64. Positions are integers"),
        (["3"], TypeError, "indices: dtype <U1. Positions are integers"),
        ([True, False], ValueError, "indices: 2 bools for 188 graphs"),
        ([[1, 2]], ValueError, r"indices: shape \(1, 2\). Give a sequence of positions"),
        (3, TypeError, "indices: expected an array, got int"),
    ],
)
def test_subset_refuses_what_is_no_choice(mutag, indices, error, message):
    with pytest.raises(error, match=message):
        mutag.subset(indices)


def test_repr_says_what_is_in_the_set(mutag):
    assert repr(mutag) == "GraphDataset(MUTAG: 188 graphs in 2 classes, 17.9 nodes each in the mean, features: labels)"
    assert "1 graph in 1 class, 17.0 nodes" in repr(mutag.subset([0]))


def test_set_cannot_be_changed(mutag):
    with pytest.raises(dataclasses.FrozenInstanceError):
        mutag.name = "other"
