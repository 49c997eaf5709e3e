"""`markovot report`: the page of a file of distances, and what it needs of the data."""

import json
import re
import sys

import numpy as np
import pytest

from cli_checks import complaint, good, loaded, run, write_graphs
from markovot import report, solution

pytest.importorskip("plotly")
pytest.importorskip("sklearn")


@pytest.fixture
def graphs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_graphs(tmp_path / "graphs", classes=True)
    return "graphs"


@pytest.fixture
def stored(graphs, tmp_path):
    good("distances", graphs, "-o", tmp_path / "stored.npz", "--delta", "0.3", "--epsilon", "0.05")
    return tmp_path / "stored.npz"


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text())[1])


def change(path, **arrays):
    with np.load(path) as file:
        before = dict(file)
    settings = json.loads(str(before["settings"])) | arrays.pop("settings", {})
    np.savez_compressed(path, **(before | arrays | {"settings": np.array(json.dumps(settings))}))


def test_the_page_of_a_file(stored, tmp_path):
    assert good("report", stored) == f"wrote {tmp_path / 'stored.html'}\n"
    page = tmp_path / "stored.html"
    data = data_of(page)
    assert data["names"] == ["path4", "path5", "path6", "ring4", "ring5", "ring6"]
    assert [one[0] for one in data["classes"]] == ["path", "ring"]
    assert [len(rows) for rows in data["neighbours"]] == [5] * 6
    assert len(data["drawings"]["pairs"]) == 15
    assert "<h1>graphs: delta 0.3, epsilon 0.05, zero-one cost of labels</h1>" in page.read_text()


def test_options(stored, tmp_path):
    facts = loaded("report", stored, "-o", tmp_path / "a.html", "-k", "2", "--title", "Rings & paths")
    assert facts == {"report": str(tmp_path / "a.html"), "graphs": 6, "not_converged": 0}
    assert [len(rows) for rows in data_of(tmp_path / "a.html")["neighbours"]] == [2] * 6
    assert "<h1>Rings &amp; paths</h1>" in (tmp_path / "a.html").read_text()
    result = run("report", stored, "--progress")
    assert (result.exit_code, "alignment/s" in result.stderr) == (0, True)


def test_alignments_are_those_of_the_stored_settings(graphs, tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    options = ["--delta", "0.4", "--epsilon", "0.03", "--rtol", "1e-6", "--debiased", "--features", "height"]
    good("distances", graphs, "-o", path, *options, "--cost", "absolute", "--laziness", "0.3")
    kept = {}
    monkeypatch.setattr(report, "write_report", lambda *_, **given: kept.update(given))
    good("report", path)
    assert kept["title"] == "graphs: delta 0.4, epsilon 0.03, debiased, absolute cost of attributes"
    solved = kept["solve"](kept["chains"][0], kept["chains"][4])
    stay = kept["chains"][0].to_dense().transition.diagonal()
    np.testing.assert_allclose(stay, 0.3)
    with np.load(path) as file:
        own = [kept["solve"](kept["chains"][k], kept["chains"][k]).value.item() for k in (0, 4)]
        np.testing.assert_allclose(solved.value.item() - sum(own) / 2, file["value"][0, 4], atol=1e-5)
    assert solved.error_bound <= 1e-5


def test_mutag_has_the_names_of_its_atoms(tmp_path, monkeypatch):
    kept = {}
    monkeypatch.setattr(report, "write_report", lambda *_, **given: kept.update(given))
    good("distances", "mutag", "-o", tmp_path / "m.npz", "--delta", "0.9", "--epsilon", "1", "--rtol", "0.1")
    good("report", tmp_path / "m.npz")
    assert kept["label_names"][:3] == ("C", "N", "O")
    assert kept["targets"][:2] == ["mutagenic", "not mutagenic"]


def test_data_that_moved_are_named(stored, tmp_path, monkeypatch):
    (tmp_path / "graphs").rename(tmp_path / "elsewhere")
    line = complaint(1, "report", stored)
    assert f"the data of {stored} are not at 'graphs' any more, seen from here: name the data with --data" in line
    good("report", stored, "--data", "elsewhere")
    line = complaint(2, "report", stored, "--data", "nowhere")
    assert "Invalid value for --data: there is no file or folder 'nowhere'" in line


def test_without_alignments_the_data_are_not_needed(stored, tmp_path):
    (tmp_path / "graphs").rename(tmp_path / "elsewhere")
    good("report", stored, "--no-alignments")
    assert data_of(tmp_path / "stored.html")["drawings"] is None
    assert "--data is of no use with --no-alignments" in complaint(
        2, "report", stored, "--no-alignments", "--data", "x"
    )


def test_data_that_changed_are_refused(stored, graphs, tmp_path):
    one = tmp_path / graphs / "ring" / "ring6.graphml"
    text = one.read_text()
    one.write_text(text.replace("red", "green"))
    assert f"'graphs' has changed since {stored} was written, or is other data: name the data" in complaint(
        1, "report", stored
    )
    one.unlink()
    assert f"{stored} has distances of 6 graphs, but 'graphs' holds 5: name the data" in complaint(1, "report", stored)


def test_a_file_from_before_sources_were_kept(stored):
    with np.load(stored) as file:
        before = dict(file)
    settings = json.loads(str(before["settings"]))
    assert settings.pop("source") == "graphs"
    np.savez_compressed(stored, **(before | {"settings": np.array(json.dumps(settings))}))
    assert f"{stored} does not say where its data are: name the data with --data" in complaint(1, "report", stored)
    good("report", stored, "--data", "graphs")


def test_files_of_something_else_are_refused(tmp_path):
    assert "does not exist" in complaint(2, "report", tmp_path / "none.npz")
    other = tmp_path / "other.npz"
    np.savez(other, a=np.zeros(2))
    assert f"{other} is not a file of `markovot distances`" in complaint(1, "report", other)
    other.write_text("hello")
    assert f"{other} is not a file of `markovot distances`" in complaint(1, "report", other)


def test_what_did_not_converge_is_on_the_page(stored, tmp_path):
    with np.load(stored) as file:
        status = file["status"].copy().astype("U20")
    status[0, 1] = status[1, 0] = "MAX_ITER_REACHED"
    change(stored, status=status)
    assert loaded("report", stored)["not_converged"] == 1
    text = (tmp_path / "stored.html").read_text()
    assert "1 pair did not converge" in text
    assert f"path4 and path5: MAX_ITER_REACHED. {solution.Status.MAX_ITER_REACHED.value}" in text


def test_an_invalid_graph_is_on_the_page(stored, tmp_path):
    with np.load(stored) as file:
        value, status = file["value"].copy(), file["status"].copy().astype("U20")
    value[2] = value[:, 2] = np.nan
    status[2] = status[:, 2] = "INVALID"
    change(stored, value=value, status=status, settings={"invalid": {"2": "its edges were eaten"}})
    good("report", stored)
    text = (tmp_path / "stored.html").read_text()
    assert "1 graph without distances" in text
    assert "path6: its edges were eaten" in text


def test_a_missing_library_is_named_before_the_work(stored, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "plotly"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "plotly", None)
    assert "pip install 'markovot[report]'" in complaint(1, "report", stored)


def test_the_page_must_be_html(stored):
    assert "does not end in .html" in complaint(2, "report", stored, "-o", "a.pdf")
