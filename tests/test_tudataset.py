"""The TUDataset layout: the published counts of real sets, and every oddity and fault in tiny ones."""

import math
import pickle
import re
import shutil

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from markovot import MarkovChain, datasets

# The README of the data, checked against the collection's page: graphs, nodes and edges in the mean, classes, features.
PUBLISHED = {
    "MUTAG": (188, 17.93, 19.79, 2, "labels", ()),
    "PTC_MR": (344, 14.29, 14.69, 2, "labels", ()),
    "PROTEINS": (1113, 39.06, 72.82, 2, "labels", ()),
    "PROTEINS_full": (1113, 39.06, 72.82, 2, "attributes", (29,)),
    "ENZYMES": (600, 32.63, 62.14, 6, "attributes", (18,)),
    "NCI1": (4110, 29.87, 32.30, 2, "labels", ()),
    "IMDB-BINARY": (1000, 19.77, 96.53, 2, "degree", ()),
    "COX2": (467, 41.22, 43.45, 2, "attributes", (3,)),
    "KKI": (83, 26.96, 48.42, 2, "labels", ()),
    "OHSU": (79, 82.01, 199.66, 2, "labels", ()),
    "Letter-med": (2250, 4.67, 3.21, 15, "attributes", (2,)),
    "SYNTHETICnew": (300, 100.00, 196.25, 2, "attributes", (1,)),
    "Cuneiform": (267, 21.27, 44.80, 30, "labels", (2,)),
    "AIDS": (2000, 15.69, 16.20, 2, "labels", ()),
    "FIRSTMM_DB": (41, 1377.27, 3074.10, 11, "labels", ()),
}

# Graph 1: the path 1 - 2 - 3. Graph 2: the edge 4 - 5, and the lone node 6.
TINY = {
    "A": "1, 2\n2, 1\n2, 3\n3, 2\n4, 5\n5, 4\n",
    "graph_indicator": "1\n1\n1\n2\n2\n2\n",
    "graph_labels": "1\n-1\n",
    "node_labels": "0\n7\n0\n3\n0\n7\n",
    "node_attributes": "0.5, 1\n1.5, -1\n2.5, 1e-3\n3.5, 0\n4.5, 0\n5.5, 0\n",
    "edge_labels": "1\n1\n2\n2\n3\n3\n",
}
REQUIRED = ("A", "graph_indicator", "graph_labels")


@pytest.fixture
def written(tmp_path):
    """Writes a set, TINY but for what is given, into a folder; None leaves a file out."""

    def write(name="TINY", folder=tmp_path, **parts):
        folder.mkdir(parents=True, exist_ok=True)
        for part, text in (TINY | parts).items():
            if text is not None:
                (folder / f"{name}_{part}.txt").write_bytes(text.encode())
        return folder

    return write


def bare(**parts):
    """Only the files that every set has, but for what is given."""
    return dict.fromkeys(set(TINY) - set(REQUIRED)) | parts


# --- real sets
@pytest.mark.parametrize("name", PUBLISHED)
def test_real_set_has_the_published_counts(shared_data, name):
    graphs, nodes, edges, classes, kind, more = PUBLISHED[name]
    found = datasets.load_tudataset(shared_data / "graphs" / f"{name}.zip", features=kind)
    assert len(found) == len(found.chains) == len(found.targets) == len(found.edges) == graphs
    sizes = [chain.num_states for chain in found.chains]
    assert round(float(np.mean(sizes)), 2) == nodes
    assert round(float(np.mean([len(part) for part in found.edges])), 2) == edges
    assert len(np.unique(found.targets)) == len(found.target_names) == classes
    assert found.name == name
    assert found.feature_kind == kind
    dtype = torch.int64 if kind == "labels" else torch.float64
    for chain, size in zip(found.chains, sizes, strict=True):
        assert chain.features.shape == (size, *more)
        assert chain.features.dtype == dtype


@pytest.mark.parametrize(
    ("name", "kind"), [("ENZYMES", "labels"), ("Letter-med", "attributes"), ("IMDB-BINARY", "degree")]
)
def test_auto_takes_labels_before_attributes_before_degree(shared_data, name, kind):
    assert datasets.load_tudataset(shared_data / "graphs" / f"{name}.zip").feature_kind == kind


def test_isolated_nodes_of_enzymes_stay_where_they_are(shared_data):
    enzymes = datasets.load_tudataset(shared_data / "graphs" / "ENZYMES.zip", features="degree")
    lonely = 0
    for chain in enzymes.chains:
        for state in torch.nonzero(chain.features == 0)[:, 0].tolist():
            low, high = chain.indptr[state : state + 2].tolist()
            assert chain.indices[low:high].tolist() == [state]
            assert chain.values[low:high].tolist() == [1.0]
            lonely += 1
    assert lonely == 106


def test_letters_of_two_columns_are_compared_as_pairs(shared_data):
    from markovot.costs import ZeroOne

    cuneiform = datasets.load_tudataset(shared_data / "graphs" / "Cuneiform.zip")
    features = cuneiform.chains[0].features
    cost = ZeroOne()(features, features)
    for i, j in ((0, 1), (0, 4), (2, 3)):
        assert cost[i, j] == float(features[i].tolist() != features[j].tolist())


# --- what is read
@pytest.mark.parametrize("laziness", [0.0, 0.1, 1.0])
def test_chains_are_those_of_each_graph_alone(shared_data, laziness):
    cox2 = datasets.load_tudataset(shared_data / "graphs" / "COX2.zip", laziness=laziness)
    for index in (0, 100, 466):
        chain, edges = cox2.chains[index], cox2.edges[index]
        n = chain.num_states
        both = np.concatenate([edges, edges[:, ::-1]]).T
        weights = csr_array((np.ones(both.shape[1]), tuple(both)), shape=(n, n))
        alone = MarkovChain.from_adjacency(weights, laziness=laziness)
        torch.testing.assert_close(chain.to_dense().transition, alone.to_dense().transition, rtol=0, atol=0)
        assert chain.is_sparse
        assert chain.dtype == torch.float64


def test_tiny_set_is_read_as_it_stands(written):
    tiny = datasets.load_tudataset(written(), laziness=0.2)
    assert tiny.name == "TINY"
    assert tiny.targets.tolist() == [1, -1]
    assert tiny.target_names == {1: "1", -1: "-1"}
    assert tiny.numbers.tolist() == [0, 1]
    assert [chain.features.tolist() for chain in tiny.chains] == [[0, 7, 0], [3, 0, 7]]
    assert [edges.tolist() for edges in tiny.edges] == [[[0, 1], [1, 2]], [[0, 1]]]
    assert [labels.tolist() for labels in tiny.edge_labels] == [[1, 2], [3]]
    path, rest = (chain.to_dense().transition for chain in tiny.chains)
    expected = torch.tensor([[0.2, 0.8, 0.0], [0.4, 0.2, 0.4], [0.0, 0.8, 0.2]], dtype=torch.float64)
    torch.testing.assert_close(path, expected)
    expected = torch.tensor([[0.2, 0.8, 0.0], [0.8, 0.2, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(rest, expected)
    assert "2007.08663" in tiny.citation


def test_laziness_is_a_tenth_and_the_law_uniform_by_default(written):
    chain = datasets.load_tudataset(written()).chains[0]
    assert chain.to_dense().transition.diagonal().tolist() == [0.1, 0.1, 0.1]
    assert chain.initial_law == "uniform"


def test_stationary_law_on_request_is_that_of_the_degrees(written):
    tiny = datasets.load_tudataset(written(), initial="stationary")
    expected = torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64)
    torch.testing.assert_close(tiny.chains[0].initial, expected)
    with pytest.raises(ValueError, match="the stationary law is not unique"):
        _ = tiny.chains[1].initial


def test_attributes_are_taken_as_they_stand(written):
    tiny = datasets.load_tudataset(written(), features="attributes")
    assert tiny.feature_kind == "attributes"
    expected = torch.tensor([[0.5, 1.0], [1.5, -1.0], [2.5, 1e-3]], dtype=torch.float64)
    torch.testing.assert_close(tiny.chains[0].features, expected, rtol=0, atol=0)


def test_one_attribute_is_a_vector_of_one(written):
    tiny = datasets.load_tudataset(written(node_attributes="1\n2\n3\n4\n5\n6\n"), features="attributes")
    assert tiny.chains[1].features.tolist() == [[4.0], [5.0], [6.0]]


def test_degree_counts_neighbours_once(written):
    folder = written(A="1, 2\n2, 1\n1, 2\n2, 3\n4, 4\n4, 5\n5, 4\n", edge_labels=None)
    tiny = datasets.load_tudataset(folder, features="degree")
    assert tiny.feature_kind == "degree"
    assert [chain.features.tolist() for chain in tiny.chains] == [[1.0, 2.0, 1.0], [2.0, 1.0, 0.0]]
    assert tiny.chains[0].features.dtype == torch.float64


def test_features_left_out_are_not_read(written):
    folder = written(node_attributes="nonsense")
    assert datasets.load_tudataset(folder).feature_kind == "labels"
    assert datasets.load_tudataset(folder, features="degree").feature_kind == "degree"


def test_what_a_set_lacks_is_empty(written):
    tiny = datasets.load_tudataset(written(**bare()))
    assert tiny.edge_labels == []
    assert tiny.label_names == tiny.edge_label_names == ()


def test_chains_keep_no_more_than_themselves(written):
    # A view would carry the tensors of the whole set along, whenever a chain is pickled.
    count = 500
    folder = written(
        **bare(
            A="".join(f"{i}, {i + 1}\n" for i in range(1, 2 * count, 2)),
            graph_indicator="".join(f"{i // 2 + 1}\n" for i in range(2 * count)),
            graph_labels="0\n" * count,
        )
    )
    tiny = datasets.load_tudataset(folder)
    assert len(pickle.dumps(tiny.chains[0])) < 5000
    tiny.chains[0].features[0] = 9.0
    tiny.edges[0][0] = 9
    assert tiny.chains[1].features.tolist() == [1.0, 1.0]
    assert tiny.edges[1].tolist() == [[0, 1]]


# --- where it is read from
@pytest.mark.parametrize("inside", ["", "TINY", "TINY/raw"])
def test_files_may_lie_deeper_in_a_folder_or_a_zip(written, tmp_path, inside):
    written(folder=tmp_path / "set" / inside)
    (tmp_path / "set" / "README.md").write_text("notes")
    (tmp_path / "set" / "__MACOSX").mkdir()
    (tmp_path / "set" / "__MACOSX" / "._TINY_A.txt").write_text("not ours")
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "set")
    for path in (tmp_path / "set", str(tmp_path / "set"), packed):
        tiny = datasets.load_tudataset(path)
        assert tiny.name == "TINY"
        assert len(tiny) == 2


def test_path_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"path: there is no .*nothing\. Give the folder or the zip"):
        datasets.load_tudataset(tmp_path / "nothing")


def test_file_that_is_no_zip_is_refused(written):
    with pytest.raises(ValueError, match=r"TINY_A\.txt is neither a folder nor a zip file\. Give the folder"):
        datasets.load_tudataset(written() / "TINY_A.txt")


def test_folder_without_a_set_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(FileNotFoundError, match=r"holds no set in the TUDataset layout: no file's name ends"):
        datasets.load_tudataset(tmp_path)


def test_folder_of_several_sets_is_refused(written, tmp_path):
    written(folder=tmp_path / "a")
    written(name="OTHER", folder=tmp_path / "b")
    with pytest.raises(ValueError, match=r"holds several sets: OTHER, TINY\. Give the folder or the zip of one"):
        datasets.load_tudataset(tmp_path)
    assert datasets.load_tudataset(tmp_path / "b").name == "OTHER"


def test_set_that_lies_in_two_folders_is_refused(written, tmp_path):
    # One of them may be another version: their files must not be mixed.
    for inside in ("a", "b"):
        written(folder=tmp_path / inside)
    with pytest.raises(ValueError, match=r"holds several sets: TINY, TINY\."):
        datasets.load_tudataset(tmp_path)


def test_set_that_lies_nearest_is_taken(written, tmp_path):
    written(folder=tmp_path)
    written(name="OTHER", folder=tmp_path / "old" / "copy")
    assert datasets.load_tudataset(tmp_path).name == "TINY"


@pytest.mark.parametrize("part", REQUIRED)
def test_missing_file_that_every_set_has_is_named(written, part):
    folder = written(**{part: None})
    with pytest.raises(FileNotFoundError, match=rf"TINY_{part}\.txt: .* does not hold it, and every set needs it"):
        datasets.load_tudataset(folder)


def test_set_for_regression_is_refused(written):
    folder = written(graph_labels=None, graph_attributes="0.5\n1.5\n")
    with pytest.raises(ValueError, match=r"TINY_graph_labels\.txt: .*a set for regression\. Only classes are read"):
        datasets.load_tudataset(folder)


# --- oddities with a rule
def test_edge_listed_several_times_is_one_edge_with_the_label_of_its_first_line(written):
    folder = written(A="2, 1\n1, 2\n1, 2\n2, 1\n3, 2\n4, 5\n", edge_labels="5\n6\n7\n8\n9\n4\n")
    tiny = datasets.load_tudataset(folder, laziness=0.0)
    assert tiny.edges[0].tolist() == [[0, 1], [1, 2]]
    assert tiny.edge_labels[0].tolist() == [5, 9]
    assert tiny.chains[0].to_dense().transition[1].tolist() == [0.5, 0.0, 0.5]


def test_edge_listed_in_one_direction_is_walked_both_ways(written):
    folder = written(A="2, 1\n2, 3\n5, 4\n", edge_labels=None)
    once, twice = datasets.load_tudataset(folder), datasets.load_tudataset(written(edge_labels=None))
    for one, other in zip(once.chains, twice.chains, strict=True):
        torch.testing.assert_close(one.to_dense().transition, other.to_dense().transition, rtol=0, atol=0)


def test_directed_edges_are_walked_one_way_only(written):
    folder = written(A="1, 2\n3, 2\n2, 3\n4, 5\n4, 5\n", edge_labels="1\n2\n3\n4\n5\n")
    tiny = datasets.load_tudataset(folder, laziness=0.0, directed=True, features="degree")
    assert [edges.tolist() for edges in tiny.edges] == [[[0, 1], [1, 2], [2, 1]], [[0, 1]]]
    assert [labels.tolist() for labels in tiny.edge_labels] == [[1, 3, 2], [4]]
    assert tiny.chains[0].to_dense().transition.tolist() == [[0, 1, 0], [0, 0, 1], [0, 1, 0]]
    assert tiny.chains[1].to_dense().transition.tolist() == [[0, 1, 0], [0, 1, 0], [0, 0, 1]]  # dead ends stay
    assert tiny.chains[1].features.tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("directed", [False, True])
def test_self_loop_counts_once(written, directed):
    folder = written(A="1, 1\n1, 1\n1, 2\n2, 1\n", edge_labels=None)
    tiny = datasets.load_tudataset(folder, laziness=0.0, directed=directed)
    assert tiny.chains[0].to_dense().transition[0].tolist() == [0.5, 0.5, 0.0]
    assert [0, 0] in tiny.edges[0].tolist()


def test_graphs_without_edges_stay_where_they_are(written):
    tiny = datasets.load_tudataset(written(**bare(A="")))
    for chain, edges in zip(tiny.chains, tiny.edges, strict=True):
        assert chain.to_dense().transition.tolist() == torch.eye(3).tolist()
        assert edges.shape == (0, 2)


def test_nodes_of_a_graph_need_not_stand_together(written):
    # TINY with its nodes in the order 6, 1, 4, 2, 5, 3: the same two graphs, their nodes in the order of the file.
    folder = written(
        A="2, 4\n4, 6\n3, 5\n",
        graph_indicator="2\n1\n2\n1\n2\n1\n",
        node_labels="7\n0\n3\n7\n0\n0\n",
        node_attributes="5.5\n0.5\n3.5\n1.5\n4.5\n2.5\n",
        edge_labels="1\n2\n3\n",
    )
    tiny = datasets.load_tudataset(folder)
    assert [chain.features.tolist() for chain in tiny.chains] == [[0, 7, 0], [7, 3, 0]]
    assert [edges.tolist() for edges in tiny.edges] == [[[0, 1], [1, 2]], [[1, 2]]]
    assert [labels.tolist() for labels in tiny.edge_labels] == [[1, 2], [3]]
    values = datasets.load_tudataset(folder, features="attributes").chains[1].features
    assert values.tolist() == [[5.5], [3.5], [4.5]]
    degrees = datasets.load_tudataset(folder, features="degree").chains[1].features
    assert degrees.tolist() == [0.0, 1.0, 1.0]


def test_nodes_keep_their_order_in_large_graphs_too(written):
    # Graphs 1 and 2 take turns; the label of a node is its place in the file.
    count = 400
    folder = written(
        **bare(
            A="1, 3\n",
            graph_indicator="".join(f"{i % 2 + 1}\n" for i in range(count)),
            node_labels="".join(f"{i}\n" for i in range(count)),
        )
    )
    odd, even = datasets.load_tudataset(folder).chains
    assert odd.features.tolist() == list(range(0, count, 2))
    assert even.features.tolist() == list(range(1, count, 2))


def test_several_labels_are_vectors(written):
    tiny = datasets.load_tudataset(written(node_labels="0, 1\n" * 6, edge_labels="1, 2\n" * 6))
    assert tiny.chains[0].features.tolist() == [[0, 1]] * 3
    assert tiny.chains[0].features.dtype == torch.int64
    assert tiny.edge_labels[0].tolist() == [[1, 2]] * 2


@pytest.mark.parametrize("change", [("\n", "\r\n"), (", ", ","), (", ", " ,\t"), ("\n", "  \n"), ("", "")])
def test_spaces_and_ends_of_lines_do_not_matter(written, change):
    texts = {part: text.replace(*change) if change[0] else f"\ufeff{text}\n\n \n" for part, text in TINY.items()}
    tiny = datasets.load_tudataset(written(**texts))
    assert [edges.tolist() for edges in tiny.edges] == [[[0, 1], [1, 2]], [[0, 1]]]
    assert [chain.features.tolist() for chain in tiny.chains] == [[0, 7, 0], [3, 0, 7]]


def test_graphs_without_nodes_are_refused_or_skipped(written):
    folder = written(graph_indicator="2\n2\n2\n4\n4\n4\n", graph_labels="5\n6\n7\n8\n9\n")
    with pytest.raises(ValueError, match=r"graph 1 has no nodes, the first of 3 without\. .* empty_graphs='skip'"):
        datasets.load_tudataset(folder)
    tiny = datasets.load_tudataset(folder, empty_graphs="skip")
    assert tiny.numbers.tolist() == [1, 3]
    assert tiny.targets.tolist() == [6, 8]
    assert tiny.target_names == {6: "6", 8: "8"}
    assert [edges.tolist() for edges in tiny.edges] == [[[0, 1], [1, 2]], [[0, 1]]]
    assert [chain.num_states for chain in tiny.chains] == [3, 3]


def test_set_of_nothing_but_empty_graphs_is_refused(written):
    folder = written(**bare(A="", graph_indicator=""))
    with pytest.raises(ValueError, match=r"graph 1 has no nodes, the first of 2 without.*there is no other graph"):
        datasets.load_tudataset(folder, empty_graphs="skip")


# --- faults
FAULTS = {
    "a node that is not a number": ("A", "1, 2\n2, x\n", r"line 2: '2, x' is not 2 integers separated by commas"),
    "three numbers for an edge": ("A", "1, 2\n1, 2, 3\n", r"line 2: '1, 2, 3' is not 2 integers"),
    "one number for an edge": ("A", "1, 2\n2\n", r"line 2: '2' is not 2 integers"),
    "no comma": ("A", "1 2\n", r"line 1: '1 2' is not 2 integers separated by commas"),
    "two edges on a line": ("A", "1,\n2 3,4\n", r"line 1: '1,' is not 2 integers"),
    "a comment": ("A", "1, 2\n# 2, 1\n", r"line 2: '# 2, 1' is not 2 integers"),
    "a comment behind an edge": ("A", "1, 2\n2, 1 # note\n", r"line 2: '2, 1 # note' is not 2 integers"),
    "node 0": ("A", "1, 2\n2, 0\n", r"line 2: an edge between the nodes 2 and 0\. Nodes are numbered from 1 to 6"),
    "node 7 of 6": ("A", "1, 2\n7, 6\n", r"line 2: an edge between the nodes 7 and 6\. Nodes are numbered from 1 to 6"),
    "an edge between graphs": (
        "A", "1, 2\n3, 4\n",
        r"line 2: an edge between node 3 of graph 1 and node 4 of graph 2\. Edges stay within a graph",
    ),
    "graph 0": ("graph_indicator", "0\n0\n0\n1\n1\n1\n", r"line 1: there is no graph 0\. Graphs are numbered from 1"),
    "graph 3 of 2": ("graph_indicator", "1\n1\n1\n2\n2\n3\n", r"line 6: there is no graph 3\. .* from 1 to 2"),
    "two graphs of a node": ("graph_indicator", "1\n1, 2\n1\n2\n2\n2\n", r"line 2: '1, 2' is not one integer"),
    "an empty line": ("graph_indicator", "1\n1\n\n1\n2\n2\n2\n", r"line 3: it is empty\. Delete it"),
    "a line of spaces": ("graph_indicator", "1\n1\n1\n  \n2\n2\n2\n", r"line 4: it is empty\. Delete it"),
    "an empty first line": ("graph_indicator", "\n1\n1\n1\n2\n2\n2\n", r"line 1: it is empty\. Delete it"),
    "a class that is a real number": ("graph_labels", "1\n0.5\n", r"line 2: '0\.5' is not one integer\. Classes are"),
    "a class that is a name": ("graph_labels", "yes\nno\n", r"line 1: 'yes' is not one integer\. Classes are"),
    "two classes of a graph": ("graph_labels", "1, 0\n0, 0\n", r"line 1: '1, 0' is not one integer\. Classes"),
    "a class beyond 64 bits": ("graph_labels", "1\n99999999999999999999\n", r"line 2: '9{20}' is not one"),
    "no classes": ("graph_labels", "\n", r"it is empty\. A set needs at least one graph"),
    "a label that is a name": ("node_labels", "0\n7\nC\n3\n0\n7\n", r"line 3: 'C' is not one integer"),
    "a label that is a real number": ("node_labels", "0\n7\n1.7\n3\n0\n7\n", r"line 3: '1\.7' is not one integer"),
    "too few labels": ("node_labels", "0\n7\n0\n", r"it has 3 lines, but TINY_graph_indicator\.txt has 6\. Line k"),
    "too many labels": ("node_labels", "0\n" * 7, r"it has 7 lines, but TINY_graph_indicator\.txt has 6"),
    "too few labels of edges": ("edge_labels", "1\n", r"it has 1 line, but TINY_A\.txt has 6"),
    "an edge label that is a name": ("edge_labels", "1\n1\n-\n2\n3\n3\n", r"line 3: '-' is not one integer"),
    "a long line": ("A", "1, " * 40 + "1\n", r"line 1: '(1, ){19}\.\.\.' is not 2 integers"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_named_by_file_and_line(written, fault):
    part, text, message = FAULTS[fault]
    folder = written(**{part: text})
    with pytest.raises(ValueError, match=rf"TINY_{part}\.txt(: |, ){message}"):
        datasets.load_tudataset(folder)


ATTRIBUTE_FAULTS = {
    "not a number": ("1\n2\nnan\n4\ninf\n6\n", r"line 3: \[nan\] is not finite, the first of 2 such lines.*'labels'"),
    "infinite": ("1, 0\n2, -inf\n3, 0\n4, 0\n5, 0\n6, 0\n", r"line 2: \[2\.0, -inf\] is not finite, the first of 1"),
    "a name": ("1\n2\nabc\n4\n5\n6\n", r"line 3: 'abc' is not one number"),
    "another length": ("1, 2\n1\n1, 2\n1, 2\n1, 2\n1, 2\n", r"line 2: '1' is not 2 numbers separated by commas"),
    "too few": ("1\n2\n", r"it has 2 lines, but TINY_graph_indicator\.txt has 6"),
}


@pytest.mark.parametrize("fault", ATTRIBUTE_FAULTS)
def test_fault_of_attributes_is_named(written, fault):
    text, message = ATTRIBUTE_FAULTS[fault]
    folder = written(node_attributes=text)
    with pytest.raises(ValueError, match=rf"TINY_node_attributes\.txt(: |, ){message}"):
        datasets.load_tudataset(folder, features="attributes")


@pytest.mark.parametrize("bad", [1, 2, 3, 500, 998, 999, 1000])
def test_bad_line_is_found_wherever_it_stands(written, bad):
    lines = ["1, 2"] * 1000
    lines[bad - 1] = "1; 2"
    lines[-1] = "nonsense"  # the first counts, not the last
    with pytest.raises(ValueError, match=rf"TINY_A\.txt, line {bad}: '{'nonsense' if bad == 1000 else '1; 2'}'"):
        datasets.load_tudataset(written(A="\n".join(lines), edge_labels=None))


@pytest.mark.parametrize(
    ("wanted", "others"), [("labels", "'attributes' or 'degree'"), ("attributes", "'labels' or 'degree'")]
)
def test_features_that_the_set_lacks_are_refused(written, wanted, others):
    folder = written(**{f"node_{wanted}": None})
    message = rf"features: '{wanted}', but the set has no TINY_node_{wanted}\.txt\. Use {others}\."
    with pytest.raises(ValueError, match=message):
        datasets.load_tudataset(folder, features=wanted)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("features", "colour"), ("initial", "given"), ("initial", torch.ones(3) / 3), ("empty_graphs", "ignore"),
        ("laziness", -0.1), ("laziness", 1.5), ("laziness", math.nan),
    ],
)  # fmt: skip
def test_arguments_outside_their_range_are_refused_before_anything_is_read(tmp_path, name, value):
    with pytest.raises((ValueError, TypeError), match=f"^{re.escape(name)}"):
        datasets.load_tudataset(tmp_path / "nothing", **{name: value})
