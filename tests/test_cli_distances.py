"""The command line on whole data sets: distances that can be resumed, their pictures, classification."""

import json
import re
import signal
import sqlite3

import networkx
import numpy as np
import pytest

import markovot
from cli_checks import complaint, good, loaded, run, started, write_graphs
from markovot import costs, datasets, interop, pairwise
from markovot.cli import classify
from markovot.cli import distances as module
from markovot.cli import plot as pictures


@pytest.fixture
def graphs(tmp_path):
    return write_graphs(tmp_path / "graphs", classes=True)


@pytest.fixture
def stored(graphs, tmp_path):
    path = tmp_path / "stored.npz"
    good("distances", graphs, "-o", path)
    return path


def chains_of(folder):
    return interop.read_graphs(sorted(folder.glob("*/*")), laziness=0.1)


# --- distances
@pytest.mark.parametrize("debiased", [False, True])
def test_distances_are_those_of_the_package(graphs, tmp_path, debiased):
    path = tmp_path / "a.npz"
    options = ["--debiased"] if debiased else []
    facts = loaded("distances", graphs, "-o", path, "--delta", "0.3", "--epsilon", "0.02", "--rtol", "1e-6", *options)
    wanted = pairwise.distance_matrix(
        chains_of(graphs), cost=costs.ZeroOne(), delta=0.3, epsilon=0.02, debiased=debiased,
        rtol=1e-6, progress=False,
    )  # fmt: skip
    with np.load(path, allow_pickle=False) as file:
        found = dict(file)
    np.testing.assert_array_equal(found["value"], wanted.value)
    np.testing.assert_array_equal(found["error_bound"], wanted.error_bound)
    assert found["error_bound"].max() <= 2e-6
    assert (found["status"] == "CONVERGED").all()
    assert found["targets"].tolist() == [0, 0, 0, 1, 1, 1]
    assert found["names"].tolist() == ["path4", "path5", "path6", "ring4", "ring5", "ring6"]
    settings = json.loads(str(found["settings"]))
    assert settings["class_names"] == {"0": "path", "1": "ring"}
    for name, value in {
        "markovot": markovot.__version__, "data": "graphs", "features": "labels", "cost": "zero-one", "delta": 0.3,
        "epsilon": 0.02, "rtol": 1e-6, "debiased": debiased, "named": True, "invalid": {}, "reading": {},
    }.items():  # fmt: skip
        assert settings[name] == value
    between = wanted.value[np.triu_indices(6, k=1)]
    assert (facts["graphs"], facts["pairs"], facts["not_converged"]) == (6, 21, 0)
    assert (facts["smallest"], facts["largest"]) == (between.min(), between.max())
    assert sorted(tmp_path.iterdir()) == [path, graphs]


def test_distances_prints_a_summary(graphs, tmp_path):
    result = run("distances", graphs, "-o", tmp_path / "a.npz", "--debiased")
    assert result.stderr == ""
    for part in ("6 graphs of graphs, 21 pairs", "between graphs", "certified error", "zero-one, of labels"):
        assert part in result.stdout
    assert "0.2, 0.01, debiased" in result.stdout


def test_a_complete_file_is_left_as_it_is(stored, graphs, monkeypatch):
    monkeypatch.setattr(pairwise, "distance_matrix", None)
    before = stored.read_bytes()
    result = run("distances", graphs, "-o", stored)
    assert result.exit_code == 0
    assert result.stderr == f"{stored} is complete: nothing to do (--force begins anew)\n"
    assert "21 pairs" in result.stdout
    assert stored.read_bytes() == before
    assert run("distances", graphs, "-o", stored, "-q").stderr == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--delta", "0.5"], "with delta 0.2, not 0.5"),
        (["--epsilon", "0.5"], "with epsilon 0.01, not 0.5"),
        (["--rtol", "0.5"], "with rtol 0.0001, not 0.5"),
        (["--debiased"], "with debiased False, not True"),
        (["--laziness", "0.5"], "of other data"),
        (["--initial", "stationary"], "of other data"),
        (["--features", "degree"], "of other data"),
    ],
)  # fmt: skip
def test_a_file_of_other_settings_is_refused(stored, graphs, options, message):
    before = stored.read_bytes()
    line = complaint(1, "distances", graphs, "-o", stored, *options)
    assert f"holds distances {message}: name another file, or begin anew with --force" in line
    assert stored.read_bytes() == before
    good("distances", graphs, "-o", stored, "--force", *options)
    assert stored.read_bytes() != before


def test_a_file_of_another_cost_is_refused(graphs, tmp_path):
    command = ["distances", graphs, "-o", tmp_path / "a.npz", "--features", "height", "--cost"]
    assert loaded(*command, "absolute")["cost"] == "absolute"
    assert "with cost absolute, not euclidean" in complaint(1, *command, "auto")
    assert loaded(*command, "euclidean", "--force")["cost"] == "euclidean"
    assert loaded(*command, "auto")["cost"] == "euclidean"


def test_a_file_of_other_data_is_refused(stored, graphs):
    (graphs / "ring" / "ring6.graphml").unlink()
    assert "of other data" in complaint(1, "distances", graphs, "-o", stored)


def test_a_file_of_something_else_is_refused(graphs, tmp_path):
    path = tmp_path / "other.npz"
    path.write_text("hello")
    assert "other.npz is not a file of `markovot distances`" in complaint(1, "distances", graphs, "-o", path)
    np.savez(path, value=np.zeros((2, 2)))
    assert "is not a file of `markovot distances`" in complaint(1, "plot", path)
    np.savez(path, value=np.zeros((2, 2)), settings="{}")
    assert "it has no error_bound" in complaint(1, "plot", path)


def test_a_checkpoint_of_other_settings_is_refused_until_forced(graphs, tmp_path):
    path, checkpoint = tmp_path / "a.npz", tmp_path / "a.npz.checkpoint"
    pairwise.distance_matrix(
        chains_of(graphs), cost=costs.ZeroOne(), delta=0.7, epsilon=0.01, checkpoint=checkpoint, progress=False
    )
    result = run("distances", graphs, "-o", path)
    assert result.exit_code == 1
    assert "delta" in result.stderr.splitlines()[-1]
    assert not path.exists()
    good("distances", graphs, "-o", path, "--force")
    assert sorted(tmp_path.iterdir()) == [path, graphs]


def test_pairs_that_did_not_converge_are_kept_and_a_failure(graphs, tmp_path):
    path = tmp_path / "a.npz"
    result = run("distances", graphs, "-o", path, "--rtol", "1e-30", "--json")
    assert result.exit_code == 1
    facts = json.loads(result.stdout)
    assert 0 < facts["not_converged"] <= 21
    assert f"{facts['not_converged']} pairs did not converge, the first (0, 0): " in result.stderr
    with np.load(path) as file:
        assert (file["status"] != "CONVERGED").any()
        assert np.isfinite(file["value"]).all()
    assert run("distances", graphs, "-o", path, "--rtol", "1e-30").exit_code == 1  # the second time too


def test_an_invalid_graph_is_named_and_nan(tmp_path, graphs):
    # A stationary law that is not unique makes one graph unusable.
    parts = networkx.Graph([(0, 1), (2, 3)])
    networkx.set_node_attributes(parts, "red", "label")
    networkx.write_graphml(parts, graphs / "path" / "parts.graphml")
    result = run("distances", graphs, "-o", tmp_path / "a.npz", "--initial", "stationary", "--json")
    assert result.exit_code == 1
    assert "1 invalid graphs, with distances NaN in" in result.stderr
    assert "number 0: " in result.stderr
    facts = json.loads(result.stdout)
    assert list(facts["invalid"]) == ["0"]
    with np.load(tmp_path / "a.npz") as file:
        assert np.isnan(file["value"][0]).all()
        assert np.isfinite(file["value"][1:, 1:]).all()
        assert set(file["status"][0]) == {"INVALID"}
    assert "finite" in complaint(1, "plot", tmp_path / "a.npz")


def test_a_progress_bar_is_shown_where_wanted(graphs, tmp_path):
    assert "21/21" in run("distances", graphs, "-o", tmp_path / "a.npz", "--progress").stderr
    assert run("distances", graphs, "-o", tmp_path / "b.npz").stderr == ""


# --- interruptions, of real processes
MUTAG = ["distances", "mutag", "--delta", "0.5", "--rtol", "1e-3", "-o"]


def interrupted(path, how):
    """A run that is stopped by a signal once it has kept some of its work."""
    process = started(*MUTAG, path, "--progress")
    log = path.with_name(f"{path.name}.checkpoint-wal")  # grows with each commit, of which there are two a second
    seen, empty = "", None
    while not (re.search(r"(1\d|[2-8]\d)%", seen) and empty is not None and log.stat().st_size > empty):
        piece = process.stderr.read(1)
        assert piece, f"it ended too early: {seen}"
        seen = seen[-200:] + piece
        if empty is None and "0%" in seen:
            empty = log.stat().st_size
    process.send_signal(how)
    out, errors = process.communicate(timeout=120)
    return process.returncode, out, errors


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    path = tmp_path_factory.mktemp("undisturbed") / "a.npz"
    good(*MUTAG, path)
    return path


def test_a_killed_run_is_continued_to_the_same_bits(tmp_path, undisturbed):
    path, checkpoint = tmp_path / "a.npz", tmp_path / "a.npz.checkpoint"
    code, out, _ = interrupted(path, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert out == ""
    assert checkpoint.exists()
    assert not path.exists()
    with sqlite3.connect(checkpoint) as connection:
        (kept,) = connection.execute("SELECT count(*) FROM block").fetchone()
    connection.close()
    assert kept > 0
    result = run(*MUTAG, path)
    assert result.exit_code == 0, result.output
    assert result.stderr == f"continuing {checkpoint}\n"
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == undisturbed.read_bytes()


def test_ctrl_c_keeps_finished_work_and_says_so_in_one_line(tmp_path, undisturbed):
    path = tmp_path / "a.npz"
    code, out, errors = interrupted(path, signal.SIGINT)
    assert code == 130, errors
    assert out == ""
    last = errors.replace("\r", "\n").rstrip("\n").splitlines()[-1]
    assert last == f"markovot: interrupted; finished pairs are in {path}.checkpoint, and the same command goes on"
    assert "Traceback" not in errors
    assert not path.exists()
    good(*MUTAG, path)
    assert path.read_bytes() == undisturbed.read_bytes()


def test_a_run_goes_on_from_what_the_checkpoint_holds(graphs, tmp_path, monkeypatch):
    """All pairs are in the checkpoint already: nothing is solved again."""
    path, checkpoint = tmp_path / "a.npz", tmp_path / "a.npz.checkpoint"
    found = pairwise.distance_matrix(
        chains_of(graphs), cost=costs.ZeroOne(), delta=0.2, epsilon=0.01, checkpoint=checkpoint, progress=False
    )
    from markovot.pairwise import running

    monkeypatch.setattr(running, "solve_block", None)
    assert run("distances", graphs, "-o", path).stderr == f"continuing {checkpoint}\n"
    with np.load(path) as file:
        np.testing.assert_array_equal(file["value"], found.value)


def test_a_run_that_cannot_write_leaves_its_checkpoint(graphs, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    assert "No space left on device" in complaint(1, "distances", graphs, "-o", tmp_path / "a.npz")
    assert (tmp_path / "a.npz.checkpoint").exists()
    assert not (tmp_path / "a.npz").exists()


# --- plot
@pytest.mark.parametrize("kind", ["matrix", "map", "dendrogram"])
def test_plot_draws_each_kind(stored, kind):
    before = set(stored.parent.iterdir())
    assert good("plot", stored, "--kind", kind) == f"wrote {stored.parent / f'stored-{kind}.png'}\n"
    picture = stored.parent / f"stored-{kind}.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert set(stored.parent.iterdir()) - before == {picture}


def test_plot_writes_where_and_what_it_is_told(stored, tmp_path):
    path = tmp_path / "tree.svg"
    facts = loaded("plot", stored, "--kind", "dendrogram", "-o", path, "--title", "Two kinds of graphs")
    assert facts == {"plot": str(path), "kind": "dendrogram"}
    assert path.read_text().startswith("<?xml")
    assert "must be" not in complaint(2, "plot", stored, "-o", tmp_path / "tree.txt")


@pytest.fixture
def drawn(monkeypatch):
    """What the pictures are asked for."""
    from markovot import plot

    calls = []
    for name in ("distance_matrix", "embedding", "dendrogram"):
        monkeypatch.setattr(plot, name, lambda *given, name=name, **options: calls.append((name, given, options)))
    return calls


def test_pictures_show_names_and_classes(stored, drawn):
    found = module.read_output(stored)
    names = ["path4", "path5", "path6", "ring4", "ring5", "ring6"]
    classes = {0: "path", 1: "ring"}
    for kind in ("matrix", "map", "dendrogram"):
        pictures.draw(kind, found, "title")
    (matrix, given_matrix, options_matrix), (_, given_map, options_map), (_, given_tree, options_tree) = drawn
    assert matrix == "distance_matrix"
    assert given_matrix[1] == given_map[1] == options_tree["labels"] == [0, 0, 0, 1, 1, 1]
    assert options_matrix["class_names"] == options_map["class_names"] == options_tree["class_names"] == classes
    assert options_map["names"] == given_tree[1] == names


def test_pictures_without_classes_and_names(drawn):
    settings = {"class_names": {}, "named": False}
    stored = {
        "value": np.zeros((2, 2)), "targets": np.zeros(0, int), "names": np.array(["0", "1"]), "settings": settings
    }  # fmt: skip
    for kind in ("matrix", "map", "dendrogram"):
        pictures.draw(kind, stored, "title")
    (_, matrix, _), (_, points, of_map), (_, tree, of_tree) = drawn
    assert matrix[1] == ["graphs", "graphs"]
    assert points[1] is of_map["names"] is tree[1] is of_tree["labels"] is None
    settings["named"], stored["names"] = True, np.array(["x"] * 151)
    for kind in ("map", "dendrogram"):
        pictures.draw(kind, stored, "title")
    assert drawn[-2][2]["names"] is drawn[-1][1][1] is None


def test_the_title_says_what_is_shown(stored):
    settings = module.read_output(stored)["settings"]
    assert pictures._title(settings) == "graphs: delta 0.2, epsilon 0.01"
    assert pictures._title(settings | {"debiased": True}) == "graphs: delta 0.2, epsilon 0.01, debiased"


# --- classify
CLASSIFY = ["--delta", "0.2", "--delta", "0.5", "--folds", "3", "--inner-folds", "2", "--rtol", "1e-3"]


@pytest.fixture(scope="module")
def some_mutag(tmp_path_factory):
    """Every sixth molecule, in the layout of TUDatasets."""
    folder = tmp_path_factory.mktemp("some") / "SOME"
    folder.mkdir()
    mutag = datasets.load_mutag().subset(range(0, 188, 6))
    sizes = [chain.num_states for chain in mutag.chains]
    first = np.cumsum([1, *sizes[:-1]])
    edges = np.concatenate([edges + start for edges, start in zip(mutag.edges, first, strict=True)])
    tables = {
        "A": edges,
        "graph_indicator": np.repeat(np.arange(len(sizes)) + 1, sizes),
        "graph_labels": mutag.targets,
        "node_labels": np.concatenate([chain.features.numpy() for chain in mutag.chains]),
    }
    for part, table in tables.items():
        np.savetxt(folder / f"SOME_{part}.txt", table, fmt="%d", delimiter=", ")
    return folder


def test_classify_gives_the_accuracies_of_the_package(some_mutag, tmp_path):
    from markovot.analysis import classification

    facts = loaded("classify", some_mutag, *CLASSIFY, "--seed", "7", "--checkpoint", tmp_path / "kept")
    wanted = classification.classify(
        datasets.load_tudataset(some_mutag), deltas=(0.2, 0.5), rtol=1e-3,
        protocol=classification.NestedCV(folds=3, inner_folds=2, seed=7), progress=False,
    )  # fmt: skip
    assert list(facts["accuracy"]) == ["knn", "svm"]
    for method, accuracy in wanted.items():
        assert facts["accuracy"][method] == json.loads(json.dumps(accuracy.summary()))
    for name, value in {
        "data": "SOME", "graphs": 32, "classes": 2, "features": "labels", "folds": 3, "inner_folds": 2, "seed": 7
    }.items():  # fmt: skip
        assert facts[name] == value
    assert len(list((tmp_path / "kept").glob("SOME-*"))) == 2


def test_classify_prints_a_table(some_mutag):
    text = good("classify", some_mutag, *CLASSIFY, "--method", "knn", "--epsilon", "0.05")
    assert "nearest neighbour" in text
    assert "support vector machine" not in text
    # a narrow terminal breaks the line
    assert re.search(r"\d\d\.\d% \d+\.\d% delta 0.\d, epsilon 0.05.* \(\d of 3 folds\)", " ".join(text.split()))


def test_classify_says_what_was_chosen_most_often():
    class Accuracy:
        chosen = tuple(
            {"setting": {"delta": delta, "epsilon": 0.01}, "debiased": twice, "kind": "gaussian", "scale": 3.0, "C": 1}
            for delta, twice in ((0.2, True), (0.5, False), (0.2, True))
        )

    words = "gaussian, delta 0.2, epsilon 0.01, scale 3, C 1, debiased (2 of 3 folds)"
    assert classify.favourite(Accuracy) == words


def test_classify_hands_its_options_on(some_mutag, monkeypatch):
    from markovot.analysis import classification

    asked = {}
    monkeypatch.setattr(classification, "classify", lambda dataset, **options: asked.update(options) or {})
    loaded("classify", some_mutag)
    assert asked["protocol"] == classification.PROTOCOL
    assert (asked["methods"], asked["deltas"], asked["epsilons"]) == (["knn", "svm"], (0.1, 0.2, 0.5), (0.01,))
    assert (asked["rtol"], asked["checkpoint"], asked["progress"]) == (1e-4, None, False)
    loaded(
        "classify", some_mutag, "--psd", "clip", "--folds", "4", "--inner-folds", "3", "--seed", "1", "--method", "svm",
        "--method", "svm", "--epsilon", "0.1", "--epsilon", "0.2", "--rtol", "0.01", "--progress",
        "--checkpoint", "here",
    )  # fmt: skip
    assert asked["protocol"] == classification.NestedCV(folds=4, inner_folds=3, seed=1, psd="clip")
    assert (asked["methods"], asked["deltas"], asked["epsilons"]) == (["svm"], (0.1, 0.2, 0.5), (0.1, 0.2))
    assert (asked["rtol"], str(asked["checkpoint"])) == (0.01, "here")
    assert asked["progress"] is True


def test_classify_needs_classes_and_enough_graphs(tmp_path):
    graphs = write_graphs(tmp_path / "plain")
    assert "has no classes" in complaint(1, "classify", graphs)
    assert "too few for 10 folds" in complaint(1, "classify", write_graphs(tmp_path / "few", classes=True))
    assert "too few for 10 folds" in complaint(1, "classify", "languages")
