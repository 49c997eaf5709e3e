"""MUTAG as shipped: the published counts, and every bond against the raw file."""

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
