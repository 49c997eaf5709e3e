"""The command line on graphs: info, compare, neighbours, and how DATA are read."""

import json
import shutil

import networkx
import numpy as np
import pytest
import torch

import markovot
from cli_checks import complaint, good, loaded, run, write_graphs
from markovot import costs, datasets, interop
from markovot.cli import data
from markovot.cli.info import shape
from markovot.cli.program import Reading

NOTHING = dict.fromkeys(("features", "laziness", "initial", "directed", "weight", "empty_graphs"))


def read(path, **options):
    return data.load(str(path), Reading(**(NOTHING | options)))


@pytest.fixture
def graphs(tmp_path):
    return write_graphs(tmp_path / "graphs")


@pytest.fixture
def two(tmp_path):
    """A path of three nodes as a matrix, and one of four as an edge list."""
    first, second = tmp_path / "three.csv", tmp_path / "four.edgelist"
    first.write_text(",a,b,c\na,0,1,0\nb,1,0,1\nc,0,1,0\n")
    second.write_text("p q\nq r\nr s\n")
    return first, second


# --- info
def test_info_of_mutag():
    facts = loaded("info", "mutag")
    assert facts["classes"] == [
        {"class": -1, "name": "not mutagenic", "graphs": 63, "share": 63 / 188},
        {"class": 1, "name": "mutagenic", "graphs": 125, "share": 125 / 188},
    ]
    assert facts["nodes"]["total"] == 3371
    assert facts["edges"]["total"] == 3721
    assert facts["features"]["names"] == ["C", "N", "O", "F", "I", "Cl", "Br"]
    assert facts["pairs"] == 188 * 189 // 2
    text = good("info", "mutag")
    for part in ("MUTAG", "17.93 in the mean, 10 to 28, 3,371 in all", "labels (7 different: C, N", "not mutagenic"):
        assert part in text


def test_info_of_the_languages():
    facts = loaded("info", "languages", "--initial", "uniform")
    assert (facts["graphs"], facts["initial_law"], facts["laziness"]) == (31, "uniform", 0.0)
    assert {"Romance", "Germanic", "Slavic"} <= {kind["name"] for kind in facts["classes"]}
    assert facts["directed_graphs"] == 31
    assert facts["self_loops"] is None
    assert "self loops" not in good("info", "languages")


@pytest.mark.parametrize(
    ("features", "kind", "cost"),
    [("labels", "labels", "zero-one"), ("attributes", "attributes", "euclidean"), ("degree", "degree", "zero-one")],
)  # fmt: skip
def test_info_of_a_real_set(shared_data, features, kind, cost):
    facts = loaded("info", shared_data / "graphs" / "ENZYMES.zip", "--features", features)
    assert (facts["name"], facts["graphs"], len(facts["classes"])) == ("ENZYMES", 600, 6)
    assert (facts["features"]["kind"], facts["cost"]) == (kind, cost)
    assert round(facts["nodes"]["mean"], 2) == 32.63
    assert facts["isolated_nodes"] == 106
    assert f"{kind} " in good("info", shared_data / "graphs" / "ENZYMES.zip", "--features", features)


def test_info_counts_what_is_odd(tmp_path):
    odd = networkx.DiGraph([("a", "b"), ("b", "a"), ("b", "c"), ("c", "c"), ("d", "e")])
    odd.add_node("f")
    chain = markovot.MarkovChain.from_networkx(odd, laziness=0.1)
    assert shape(chain) == (4, True, 3, 1)
    assert shape(chain.to_dense()) == (4, True, 3, 1)
    both = markovot.MarkovChain.from_networkx(odd.to_undirected(), laziness=0.1)
    assert shape(both) == (3, False, 3, 1)
    networkx.write_gml(odd, tmp_path / "odd.gml")
    facts = loaded("info", tmp_path)
    assert (facts["graphs"], facts["directed_graphs"], facts["graphs_in_several_parts"]) == (1, 1, 1)
    facts = loaded("info", tmp_path, "--undirected")
    assert facts["directed_graphs"] == 0


# --- DATA
def test_a_folder_of_files_is_a_set_with_their_names(graphs):
    found = read(graphs)
    assert found.names == ["path4", "path5", "path6", "ring4", "ring5", "ring6"]
    assert found.set.feature_kind == "labels"
    assert len(found.set.targets) == 0
    assert found.class_of(0) is None
    assert [chain.num_states for chain in found.set.chains] == [4, 5, 6, 4, 5, 6]
    torch.testing.assert_close(
        found.set.chains[3].to_dense().transition[0], torch.tensor([0.1, 0.45, 0, 0.45], dtype=torch.float64)
    )


def test_folders_are_classes(tmp_path):
    found = read(write_graphs(tmp_path, classes=True))
    assert found.set.targets.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.set.target_names == {0: "path", 1: "ring"}
    assert found.class_of(5) == "ring"
    shutil.copy(tmp_path / "ring" / "ring4.graphml", tmp_path / "stray.graphml")
    assert "but stray.graphml lies outside" in complaint(1, "info", tmp_path)


def test_notes_and_hidden_files_are_no_graphs(graphs):
    for name in ("README.txt", "licence.txt", ".hidden.csv", "picture.png"):
        (graphs / name.replace("licence", "LICENSE")).write_text("no graph")
    assert len(read(graphs)) == 6


def test_one_file_is_a_set_of_one(graphs):
    assert loaded("info", graphs / "ring5.graphml")["graphs"] == 1


def test_files_take_the_options_of_files(graphs):
    found = read(graphs, features="height", laziness=0.5, initial="stationary")
    assert found.set.feature_kind == "attributes"
    assert found.set.chains[0].initial_law == "stationary"
    assert found.set.chains[0].features.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert float(found.set.chains[0].to_dense().transition[1, 1]) == 0.5
    assert read(graphs, features="degree").set.chains[0].features.tolist() == [1, 2, 2, 1]
    assert read(graphs, features="degree").set.feature_kind == "degree"


def test_weights_have_the_name_that_is_given(tmp_path):
    networkx.write_graphml(networkx.Graph([(0, 1, {"load": 3.0}), (1, 2, {"load": 1.0})]), tmp_path / "a.graphml")
    chain = read(tmp_path, weight="load", laziness=0.0).set.chains[0]
    assert chain.to_dense().transition[1].tolist() == [0.75, 0.0, 0.25]


def test_labels_that_are_numbers_are_labels(tmp_path):
    graph = networkx.path_graph(3)
    networkx.set_node_attributes(graph, {0: 6, 1: 6, 2: 8}, "label")
    networkx.write_graphml(graph, tmp_path / "a.graphml")
    assert read(tmp_path).set.feature_kind == "labels"
    assert loaded("info", tmp_path)["cost"] == "zero-one"


def test_a_folder_in_the_layout_of_tudatasets_is_found_at_any_depth(tmp_path):
    inner = tmp_path / "TINY" / "raw"
    inner.mkdir(parents=True)
    for part, text in {"A": "1, 2\n2, 1\n", "graph_indicator": "1\n1\n3\n", "graph_labels": "7\n8\n9\n"}.items():
        (inner / f"TINY_{part}.txt").write_text(text)
    for folder in (tmp_path, tmp_path / "TINY", inner):
        assert "graph 2 has no nodes" in complaint(1, "info", folder)
        facts = loaded("info", folder, "--empty-graphs", "skip")
        assert (facts["name"], facts["graphs"], facts["isolated_nodes"]) == ("TINY", 2, 1)
        assert [kind["class"] for kind in facts["classes"]] == [7, 9]
    assert loaded("info", tmp_path, "--empty-graphs", "skip", "--directed")["directed_graphs"] == 0
    (inner / "TINY_A.txt").write_text("1, 2\n")
    assert loaded("info", tmp_path, "--empty-graphs", "skip", "--directed")["directed_graphs"] == 1


def test_the_built_in_set_comes_before_a_folder_of_its_name(graphs, monkeypatch):
    graphs.rename(graphs.with_name("mutag"))
    monkeypatch.chdir(graphs.parent)
    assert loaded("info", "mutag")["graphs"] == 188
    assert loaded("info", "./mutag")["graphs"] == 6


def test_mutag_takes_the_options_of_other_sets():
    found = read("mutag", features="degree", laziness=0.0, initial="stationary").set
    assert found.feature_kind == "degree"
    assert found.label_names == ()
    assert found.target_names == {1: "mutagenic", -1: "not mutagenic"}
    assert found.chains[0].initial_law == "stationary"
    plain = datasets.load_mutag()
    for ours, theirs in zip(read("mutag").set.chains, plain.chains, strict=True):
        torch.testing.assert_close(ours.values, theirs.values, rtol=0, atol=0)
        assert ours.features.tolist() == theirs.features.tolist()


@pytest.mark.parametrize(
    ("name", "kind", "cost"),
    [
        ("auto", "labels", costs.ZeroOne()),
        ("auto", "degree", costs.ZeroOne()),
        ("auto", "attributes", costs.Euclidean()),
        ("zero-one", "attributes", costs.ZeroOne()),
        ("euclidean", "labels", costs.Euclidean()),
        ("squared-euclidean", "labels", costs.SquaredEuclidean()),
        ("absolute", "labels", costs.AbsoluteDifference()),
    ],
)  # fmt: skip
def test_costs_have_names(name, kind, cost):
    chosen, called = data.choose_cost(name, kind)
    assert chosen == cost
    assert called == (name if name != "auto" else "euclidean" if kind == "attributes" else "zero-one")


# --- compare
def test_compare_gives_the_distance_of_the_package(two):
    facts = loaded("compare", *two, "--delta", "0.4", "--epsilon", "0.05", "--rtol", "1e-8", "--laziness", "0.2")
    x, y = interop.read_graphs(two, laziness=0.2)
    accuracy = {"rtol": 1e-8}
    solution = markovot.discounted_wl(x, y, costs.ZeroOne(), delta=0.4, epsilon=0.05, **accuracy)
    assert facts["distance"] == float(solution.value)
    assert facts["error_bound"] == float(solution.error_bound) < 1e-8
    assert (facts["a"]["states"], facts["b"]["states"]) == (3, 4)
    assert (facts["status"], facts["cost"], facts["features"]) == ("CONVERGED", "zero-one", "degree")


def test_compare_by_exact_transport_is_zero_for_equal_graphs(two):
    facts = loaded("compare", two[0], two[0], "--epsilon", "0")
    assert abs(facts["distance"]) <= facts["error_bound"] < 1e-9
    assert "distance        0.000000, certified to" in good("compare", two[0], two[0], "--epsilon", "0")
    assert loaded("compare", *two, "--epsilon", "0")["distance"] < loaded("compare", *two)["distance"]


def test_compare_lists_the_best_partner_of_each_state(two):
    facts = loaded("compare", *two, "--epsilon", "0.001")
    mass = markovot.discounted_wl(
        *interop.read_graphs(two, laziness=0.1), costs.ZeroOne(), delta=0.2, epsilon=0.001
    ).alignment.numpy()
    pairs = {pair["a"]: pair for pair in facts["alignment"]}
    assert next(iter(pairs)) == "b"  # the middle carries most
    assert pairs["b"]["b"] in "qr"  # and goes with a node of the same degree
    for row, state in enumerate("abc"):
        pair = pairs[state]
        assert pair["mass"] == mass[row].max()
        assert pair["b"] == "pqrs"[mass[row].argmax()]
        np.testing.assert_allclose(pair["share"], mass[row].max() / mass[row].sum(), rtol=1e-12)
        assert pair["cost"] == float((state == "b") != (pair["b"] in "qr"))


def test_compare_prints_what_matters(two):
    text = good("compare", *two)
    for part in ("three.csv, 3 states", "four.edgelist, 4 states", "certified to", "zero-one, of degree", "0.2, 0.01"):
        assert part in text
    lines = text.splitlines()
    assert "state of three" in lines[-5]
    assert lines[-3].split()[0] == "b"
    assert len(good("compare", *two, "--top", "1").splitlines()) == len(lines) - 2
    assert "state of three" not in good("compare", *two, "--top", "0")
    assert "debiased" not in text


def test_compare_of_equal_graphs_is_zero_where_debiased(two):
    facts = loaded("compare", two[0], two[0], "--debiased")
    assert facts["debiased"] == 0.0 < facts["distance"]
    facts = loaded("compare", *two, "--debiased")
    own = [loaded("compare", one, one) for one in two]
    np.testing.assert_allclose(facts["debiased"], facts["distance"] - sum(o["distance"] for o in own) / 2, atol=1e-15)
    bounds = facts["error_bound"] + sum(o["error_bound"] for o in own) / 2
    np.testing.assert_allclose(facts["debiased_error_bound"], bounds, rtol=1e-12)
    assert "debiased        0.2" in good("compare", *two, "--debiased")


@pytest.mark.parametrize("cost", ["absolute", "euclidean", "squared-euclidean"])
def test_compare_takes_costs_and_attributes(graphs, cost):
    pair = graphs / "ring4.graphml", graphs / "path6.graphml"
    facts = loaded("compare", *pair, "--features", "height", "--cost", cost, "--epsilon", "0.1")
    x, y = interop.read_graphs(pair, features="height", laziness=0.1)
    wanted = markovot.discounted_wl(x, y, data.choose_cost(cost, "")[0], delta=0.2, epsilon=0.1)
    assert facts["distance"] == float(wanted.value)
    assert (facts["features"], facts["cost"]) == ("height", cost)


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_compare_draws_the_alignment(two, tmp_path, suffix):
    picture = tmp_path / f"ab{suffix}"
    result = run("compare", *two, "--plot", picture)
    assert result.exit_code == 0
    assert result.stderr == f"wrote {picture}\n"
    assert picture.read_bytes().startswith({".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}[suffix])
    assert sorted(tmp_path.iterdir()) == sorted([*two, picture])
    assert run("compare", *two, "--plot", picture, "--quiet").stderr == ""
    assert loaded("compare", *two, "--plot", picture)["plot"] == str(picture)


def test_compare_of_what_does_not_converge_prints_it_and_fails(two):
    result = run("compare", *two, "--rtol", "1e-30", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["status"] != "CONVERGED"
    assert "did not converge" in result.stderr
    assert result.stderr.count("\n") == 1


def test_compare_refuses_features_that_are_not_there(two, graphs):
    assert "text file has no attributes" in complaint(1, "compare", *two, "--features", "colour")
    pair = graphs / "ring4.graphml", graphs / "path6.graphml"
    assert "attribute 'colour' has no value for 4 of 4 nodes" in complaint(1, "compare", *pair, "--features", "colour")


# --- neighbours
def nearest(chains, number, k):
    """The k nearest others, by solving all pairs."""
    accuracy = {"rtol": 1e-4}
    distances = {
        other: float(
            markovot.discounted_wl(
                chains[number], chain, costs.ZeroOne(), delta=0.2, epsilon=0.01, **accuracy
            ).value
        )
        for other, chain in enumerate(chains)
        if other != number
    }
    return sorted(distances.items(), key=lambda pair: pair[1])[:k]


def test_neighbours_by_number():
    facts = loaded("neighbours", "mutag", "17", "-k", "4")
    assert (facts["query"], facts["number"], facts["pairs"]) == ("17", 17, 187)
    assert 4 <= facts["pairs_solved"] <= 187
    wanted = nearest(datasets.load_mutag().chains, 17, 4)
    np.testing.assert_allclose([one["distance"] for one in facts["neighbours"]], [d for _, d in wanted], atol=2e-4)
    assert [one["number"] for one in facts["neighbours"]] == [number for number, _ in wanted]
    assert {one["class"] for one in facts["neighbours"]} <= {"mutagenic", "not mutagenic"}
    assert all(one["error_bound"] <= 1e-4 and one["status"] == "CONVERGED" for one in facts["neighbours"])


def test_neighbours_prints_a_table():
    lines = good("neighbours", "mutag", "17", "-k", "2").splitlines()
    assert lines[0].split() == ["query", "17", "(mutagenic)"]
    assert any(line.startswith("pairs solved") and line.endswith("of 187") for line in lines)
    assert lines[-4].split() == ["graph", "class", "distance", "certified", "error"]
    assert len(lines[-1].split()) in (4, 5)


def test_neighbours_by_name(graphs):
    facts = loaded("neighbours", graphs, "ring6", "-k", "1")
    assert (facts["number"], facts["neighbours"][0]["name"], facts["neighbours"][0]["class"]) == (5, "ring4", None)
    assert "name" in good("neighbours", graphs, "ring6", "-k", "1")
    assert loaded("neighbours", "languages", "Danish", "-k", "1")["neighbours"][0]["name"] == "Norwegian"


def test_neighbours_of_a_file_are_read_as_the_set_is(graphs, tmp_path):
    query = tmp_path / "query.graphml"
    shutil.copy(graphs / "ring5.graphml", query)
    facts = loaded("neighbours", graphs, query, "-k", "2", "--features", "height", "--laziness", "0.3")
    assert facts["number"] is None
    assert facts["pairs"] == 6
    x, y = interop.read_graphs([query, graphs / "ring5.graphml"], features="height", laziness=0.3)
    wanted = markovot.discounted_wl(x, y, costs.Euclidean(), delta=0.2, epsilon=0.01)
    assert facts["neighbours"][0]["name"] == "ring5"
    np.testing.assert_allclose(facts["neighbours"][0]["distance"], float(wanted.value), atol=2 * 5e-4)


def test_labels_of_a_file_are_those_of_the_set(tmp_path):
    """Molecule 5 of MUTAG, written with the names of its atoms, is found again."""
    mutag = datasets.load_mutag()
    graph = networkx.Graph(mutag.edges[5].tolist())
    atoms = [mutag.label_names[label] for label in mutag.chains[5].features.tolist()]
    networkx.set_node_attributes(graph, dict(enumerate(atoms)), "label")
    networkx.set_node_attributes(graph, dict(enumerate(atoms)), "atom")
    networkx.write_graphml(graph, tmp_path / "molecule.graphml")
    for options in ([], ["--query-features", "atom"]):
        facts = loaded("neighbours", "mutag", tmp_path / "molecule.graphml", "-k", "1", *options)
        own = markovot.discounted_wl(mutag.chains[5], mutag.chains[5], costs.ZeroOne(), delta=0.2, epsilon=0.01)
        np.testing.assert_allclose(facts["neighbours"][0]["distance"], float(own.value), atol=2e-4)
    message = complaint(1, "neighbours", "mutag", tmp_path / "molecule.graphml", "--query-features", "colour")
    assert "attribute 'colour'" in message


def test_labels_that_the_set_lacks_equal_none_of_its_own(tmp_path):
    graph = networkx.path_graph(3)
    networkx.set_node_attributes(graph, {0: "C", 1: "Xe", 2: "O"}, "label")
    networkx.write_graphml(graph, tmp_path / "a.graphml")
    chain = data.read_like(read("mutag"), tmp_path / "a.graphml", None)
    assert chain.features.tolist()[::2] == [0, 2]
    assert chain.features[1] not in range(7)
    assert chain.features.dtype == torch.int64
    degree = data.read_like(read("mutag", features="degree"), tmp_path / "a.graphml", None)
    assert degree.features.tolist() == [1.0, 2.0, 1.0]


def test_neighbours_that_are_not_certain_are_a_failure(graphs):
    result = run("neighbours", graphs, "ring6", "-k", "1", "--rtol", "1e-30", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["neighbours"]
    assert "the neighbours are not certain" in result.stderr


def test_neighbours_leave_out_graphs_that_cannot_be_used_and_fail(graphs):
    parts = networkx.Graph([(0, 1), (2, 3)])
    networkx.set_node_attributes(parts, "red", "label")
    networkx.write_graphml(parts, graphs / "unconnected.graphml")
    result = run("neighbours", graphs, "ring6", "-k", "2", "--initial", "stationary", "--json")
    assert result.exit_code == 1
    assert result.stderr.startswith("markovot: 1 invalid graphs, left out; the first is number 6: ")
    facts = json.loads(result.stdout)
    assert len(facts["neighbours"]) == 2
    assert list(facts["invalid"]) == ["6"]
    assert "stationary" in complaint(1, "neighbours", graphs, "unconnected", "-k", "2", "--initial", "stationary")


def test_a_file_for_attributes_needs_the_name_of_one(shared_data, graphs):
    letters = shared_data / "graphs" / "Letter-med.zip"
    message = complaint(2, "neighbours", letters, graphs / "ring4.graphml")
    assert "goes with the attributes of the data? Name it." in message
