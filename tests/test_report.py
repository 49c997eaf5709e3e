"""The report page: what it holds, that nothing on it can run or fetch, and what it says of uncertain distances."""

import base64
import copy
import dataclasses
import functools
import hashlib
import json
import re
import sys
from html.parser import HTMLParser
from importlib import resources

import numpy as np
import pytest
import torch

from markovot import MarkovChain, Status, costs, discounted_wl
from markovot.pairwise import PairwiseSolution, distance_matrix
from markovot.pairwise.solution import STATUSES
from markovot.plot import class_order, positions
from markovot.report import alignments, content, write_report

pytest.importorskip("plotly")
pytest.importorskip("sklearn")

SETTING = {"cost": costs.ZeroOne(), "delta": 0.3, "epsilon": 0.05}
SOLVE = functools.partial(discounted_wl, **SETTING, throw=False)


def path_chain(*labels: int) -> MarkovChain:
    adjacency = torch.diag(torch.ones(len(labels) - 1, dtype=torch.float64), 1)
    return MarkovChain.from_adjacency(adjacency + adjacency.T, features=torch.tensor(labels), laziness=0.1)


@pytest.fixture(scope="module")
def chains():
    return [path_chain(*labels) for labels in [(0, 1, 0), (0, 1, 1), (1, 1, 1, 0), (0, 0), (0, 1, 0, 1), (2, 1, 0)]]


@pytest.fixture(scope="module")
def found(chains):
    return distance_matrix(chains, **SETTING, progress=False)


class Page(HTMLParser):
    """What a browser makes of the page: its tags, scripts and text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.open = ""
        self.feed(text)
        self.data = json.loads(self.scripts[0])

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.open = ""

    def handle_data(self, data):
        if self.open == "script":
            self.scripts[-1] += data
        elif self.open != "style":
            self.text += data


@pytest.fixture
def written(tmp_path):
    def write(found, **options):
        path = tmp_path / "page.html"
        write_report(found, path, **{"progress": False} | options)
        assert list(tmp_path.iterdir()) == [path]
        return Page(path.read_text(encoding="utf-8"))

    return write


def pairs_of(value: np.ndarray, bound: np.ndarray, status: np.ndarray) -> PairwiseSolution:
    return PairwiseSolution(value, bound, status, np.ones(value.shape, dtype=np.int32))


def random_solution(count: int, seed: int = 0) -> PairwiseSolution:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(count, 3))
    value = np.linalg.norm(points[:, None] - points[None], axis=-1)
    bound = np.full(value.shape, 1e-6)
    return pairs_of(value, bound, np.full(value.shape, Status.CONVERGED, dtype=object))


def unpacked(matrix: dict, name: str, kind: str) -> np.ndarray:
    rows = matrix["rows"]
    full = np.zeros((rows, rows))
    full[np.triu_indices(rows)] = np.frombuffer(base64.b64decode(matrix[name]), dtype=kind)
    return full + np.triu(full, 1).T


# --- what the page holds
def test_the_page_holds_the_distances(written, found, chains):
    targets, names = ["a", "b", "a", "b", "a", "a"], ["one", "two", "three", "four", "five", "six"]
    page = written(found, targets=targets, names=names, title="Six paths", k=2)
    data = page.data
    assert ("title", {}) in page.tags
    assert page.text.count("Six paths") == 2
    assert data["names"] == names
    assert [one[0] for one in data["classes"]] == ["a", "b"]
    assert data["classes"][0][1:] != data["classes"][1][1:]
    assert data["class"] == [0, 1, 0, 1, 0, 0]
    assert data["order"] == class_order(found, targets).tolist()
    place, stress = positions(found)
    np.testing.assert_allclose(data["map"]["place"], place, rtol=1e-4, atol=1e-12)
    assert data["map"]["stress"] == stress
    order = np.ix_(data["order"], data["order"])
    np.testing.assert_allclose(unpacked(data["matrix"], "value", "<f4"), found.value[order], rtol=1e-6)
    np.testing.assert_allclose(unpacked(data["matrix"], "bound", "<f4"), found.error_bound[order], rtol=1e-6)
    assert (data["matrix"]["block"], data["matrix"]["status"]) == (1, None)
    assert [len(rows) for rows in data["neighbours"]] == [2] * 6
    assert data["drawings"] is None
    assert "The alignments of neighbours were not asked for." in page.text


def test_without_names_and_classes(written, found):
    page = written(found)
    assert page.data["names"] == ["0", "1", "2", "3", "4", "5"]
    assert [one[0] for one in page.data["classes"]] == ["graphs"]
    assert "Distances" in page.text


@pytest.mark.parametrize("targets", [np.array([1, 0, 1, 0, 0, 0]), torch.tensor([1, 0, 1, 0, 0, 0])])
def test_classes_may_be_arrays(written, found, targets):
    assert [one[0] for one in written(found, targets=targets).data["classes"]] == ["1", "0"]


def test_alignments_of_neighbours_are_drawn(written, found, chains):
    page = written(found, chains=chains, solve=SOLVE, k=2)
    drawings = page.data["drawings"]
    pairs = {tuple(sorted((i, row[0]))) for i, rows in enumerate(page.data["neighbours"]) for row in rows}
    assert set(drawings["pairs"]) == {f"{i}-{j}" for i, j in pairs}
    assert drawings["sizes"] == [chain.num_states for chain in chains]
    for i, j in pairs:
        mass = SOLVE(chains[i], chains[j]).alignment.numpy()
        lines = {(a, b): share for a, b, share in drawings["pairs"][f"{i}-{j}"]["lines"]}
        for a, b in np.ndindex(mass.shape):
            is_line = mass[a, b] >= 0.15 * min(mass[a].sum(), mass[:, b].sum())
            assert ((a, b) in lines) == is_line
            if is_line:
                sign = 1 if chains[i].features[a] == chains[j].features[b] else -1
                np.testing.assert_allclose(lines[a, b], sign * 1000 * mass[a, b], rtol=6e-3)
        turn = np.reshape(drawings["pairs"][f"{i}-{j}"]["turn"], (2, 2))
        np.testing.assert_allclose(turn @ turn.T, np.eye(2), atol=3e-3)
    graph = drawings["graphs"]["4"]
    assert graph["bonds"] == [[0, 1], [1, 2], [2, 3]]
    assert [drawings["states"][state][0] for state in graph["states"]] == ["0", "1", "0", "1"]
    assert len({color for _, color in drawings["states"]}) == 3


def test_the_turn_brings_aligned_states_together(chains):
    drawings = alignments.Drawings(chains, None)
    rng = np.random.default_rng(0)
    drawings.place = {number: rng.normal(size=(chains[number].num_states, 2)) for number in (1, 5)}  # nothing is level
    pair = drawings.pair(1, 5, SOLVE)
    mass = SOLVE(chains[1], chains[5]).alignment.numpy()
    x, y = drawings.place[1], drawings.place[5]

    def apart(turn):
        return (mass * ((x[:, None] - (y @ turn)[None]) ** 2).sum(-1)).sum()

    best = np.reshape(pair["turn"], (2, 2))
    for angle in np.linspace(0, 2 * np.pi, 25):
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        assert apart(best) <= apart(turn) + 0.02
        assert apart(best) <= apart(turn * [1, -1]) + 0.02


def test_names_of_labels_and_their_colours(written, found, chains):
    page = written(found, chains=chains, solve=SOLVE, label_names=["C", "N", "O"], k=1)
    assert dict(page.data["drawings"]["states"])["O"] == "#d23a32"  # the colours of chemical elements
    page = written(found, chains=chains, solve=SOLVE, label_names=["red", "green", "blue"], k=1)
    assert {name for name, _ in page.data["drawings"]["states"]} <= {"red", "green", "blue"}


def test_large_graphs_are_not_drawn(written, found, chains, monkeypatch):
    monkeypatch.setattr(alignments, "MAX_STATES", 3)
    page = written(found, chains=chains, solve=SOLVE, k=5)
    drawings = page.data["drawings"]
    assert set(drawings["graphs"]) == {"0", "1", "3", "5"}
    assert len(drawings["pairs"]) == 6
    assert drawings["not_drawn"] == 15 - 6
    assert "Not drawn: 9 alignments of graphs with more than" in page.text


def test_graphs_full_of_edges_stand_in_columns(written):
    full = MarkovChain.from_adjacency(torch.ones(10, 10).double() - torch.eye(10).double(), features=torch.arange(10))
    chains = [full, path_chain(0, 1, 2), path_chain(3, 4)]
    found = distance_matrix(chains, **SETTING, progress=False)
    page = written(found, chains=chains, solve=SOLVE)
    drawings = page.data["drawings"]
    place = np.array(drawings["graphs"]["0"]["place"])
    np.testing.assert_allclose(place[:, 0], 0)
    assert (np.diff(place[:, 1]) < 0).all()
    assert drawings["graphs"]["0"]["bonds"] == []
    assert drawings["graphs"]["1"]["bonds"] == [[0, 1], [1, 2]]
    assert drawings["pairs"]["0-1"]["turn"] == [1, 0, 0, 1]
    assert drawings["pairs"]["1-2"]["turn"] != [1, 0, 0, 1]
    assert "Too full of edges to be drawn with them: 1 graph, whose states stand in a column instead." in page.text


def test_an_alignment_that_did_not_converge_is_marked(chains):
    def stopped(x, y):
        solution = SOLVE(x, y)
        object.__setattr__(solution, "status", Status.STALLED)
        return solution

    assert alignments.Drawings(chains, None).pair(0, 1, stopped)["status"] == STATUSES.index(Status.STALLED)


# --- neighbours
def test_neighbours_are_the_nearest():
    found = random_solution(9)
    for item, rows in enumerate(content.neighbours_of(found, 4)):
        order = [j for j in np.argsort(found.value[item]) if j != item][:4]
        assert [row[0] for row in rows] == order
        np.testing.assert_allclose([row[1] for row in rows], found.value[item, order], rtol=1e-6)
        assert {row[2] for row in rows} == {1e-6}
        assert [row[4] for row in rows] == [0, 0, 0, 0]
    assert [len(rows) for rows in content.neighbours_of(found, 99)] == [8] * 9


def test_neighbours_within_the_errors_are_tied():
    value = np.array([[0.0, 1.0, 1.5, 3.0], [1.0, 0, 5, 5], [1.5, 5, 0, 5], [3.0, 5, 5, 0]])
    bound = np.zeros((4, 4))
    bound[0] = [0, 0.3, 0.2, 0.1]
    status = np.full((4, 4), Status.CONVERGED, dtype=object)
    rows = content.neighbours_of(pairs_of(value, bound, status), 3)[0]
    assert [(row[0], row[4]) for row in rows] == [(1, 0), (2, 1), (3, 0)]
    bound[0, 2] = np.inf
    rows = content.neighbours_of(pairs_of(value, bound, status), 3)[0]
    assert [(row[2], row[4]) for row in rows] == [(0.3, 0), (None, 1), (0.1, 1)]


# --- what is uncertain is visible
def test_a_certain_matrix_says_so(written, found):
    page = written(found)
    between = found.value[np.triu_indices(6, k=1)]
    bound = found.error_bound[np.triu_indices(6, k=1)].max()
    assert f"6 graphs, 21 pairs; distances {between.min():.4g} to {between.max():.4g}" in page.text
    assert f"the largest of which is {bound:.2g} ({100 * bound / between.max():.2g} % of the largest" in page.text
    assert "All pairs converged." in page.text
    assert "not converge" not in page.text.replace("not converged", "")
    assert ("section", {"id": "certainty", "class": "good", "aria-label": "How certain"}) in page.tags


def test_pairs_that_did_not_converge_are_visible(written, found, chains):
    rough = pairs_of(found.value, found.error_bound.copy(), found.status.copy())
    for i, j in [(1, 4), (4, 1)]:
        rough.status[i, j] = Status.MAX_ITER_REACHED
        rough.error_bound[i, j] = 0.25
    page = written(rough, targets=list("aabbbb"), k=5, names=[f"<g{k}>" for k in range(6)])
    code = STATUSES.index(Status.MAX_ITER_REACHED)
    assert "1 pair did not converge" in page.text
    assert "All pairs converged" not in page.text
    assert f"<g1> and <g4>: MAX_ITER_REACHED. {Status.MAX_ITER_REACHED.value}" in page.text
    assert "the largest of which is 0.25" in page.text
    order = page.data["order"]
    wanted = np.zeros((6, 6))
    wanted[order.index(1), order.index(4)] = wanted[order.index(4), order.index(1)] = code
    np.testing.assert_array_equal(unpacked(page.data["matrix"], "status", "u1"), wanted)
    assert [row[2:4] for row in page.data["neighbours"][1] if row[0] == 4] == [[0.25, code]]
    assert page.data["statuses"][code] == ["MAX_ITER_REACHED", Status.MAX_ITER_REACHED.value]
    assert any(tag == "section" and attributes.get("class") == "warning" for tag, attributes in page.tags)


def test_graphs_without_distances_are_visible(written, chains):
    bad = path_chain(0, 1, 2)
    bad.features = torch.tensor([0.0, float("nan"), 1.0])
    floats = [MarkovChain(chain._rows, initial="uniform", features=chain.features.double()) for chain in chains]
    found = distance_matrix([*floats[:2], bad, *floats[2:]], **SETTING, progress=False, throw=False)
    assert np.isnan(found.value[2]).all()
    page = written(found, chains=[*floats[:2], bad, *floats[2:]], solve=SOLVE, targets=list("aabbbbb"))
    assert "1 graph without distances" in page.text
    assert "2: features" in page.text
    assert "did not converge:" not in page.text
    assert "Not on the map, for want of finite distances to others: 1 graph." in page.text
    assert page.data["map"]["place"][2] is None
    assert page.data["map"]["place"].count(None) == 1
    assert page.data["order"][-1] == 2
    assert page.data["neighbours"][2] == []
    assert not any(row[0] == 2 for rows in page.data["neighbours"] for row in rows)
    assert np.isnan(unpacked(page.data["matrix"], "value", "<f4")[-1]).all()


def test_a_bound_that_is_not_finite_is_not_hidden(written):
    found = random_solution(5)
    found.error_bound[0, 1] = found.error_bound[1, 0] = np.nan
    found.status[0, 1] = found.status[1, 0] = Status.NOT_FINITE
    page = written(found)
    assert "the largest of which is inf." in page.text
    assert [row[2] for row in page.data["neighbours"][0] if row[0] == 1] == [None]


def test_many_troubles_are_counted_and_some_listed(written):
    found = random_solution(20)
    found.status[:] = Status.STALLED
    page = written(found)
    assert "210 pairs did not converge" in page.text
    assert page.text.count("STALLED. ") == 50
    assert "and 160 more." in page.text


def test_measured_leaves_out_as_little_as_it_can():
    values = np.zeros((5, 5))
    values[3, :] = values[:, 3] = np.nan
    assert content.measured(values).tolist() == [0, 1, 2, 4]
    values[0, 1] = values[1, 0] = values[1, 2] = values[2, 1] = np.inf
    assert content.measured(values).tolist() == [0, 2, 4]
    assert content.measured(np.full((2, 2), np.nan)).tolist() == []


# --- large sets
def test_a_large_matrix_is_shown_in_blocks(written, monkeypatch):
    monkeypatch.setattr(content, "MAX_ROWS", 3)
    found = random_solution(8)  # blocks of 3, 3 and 2 items
    found.error_bound[0, 7] = found.error_bound[7, 0] = 0.5
    found.status[0, 7] = found.status[7, 0] = Status.STALLED
    found.value[1, 2] = found.value[2, 1] = np.nan
    page = written(found)
    matrix, order = page.data["matrix"], page.data["order"]
    assert (matrix["block"], matrix["rows"]) == (3, 3)
    value, bound, status = (
        unpacked(matrix, name, kind) for name, kind in [("value", "<f4"), ("bound", "<f4"), ("status", "u1")]
    )
    groups = [order[:3], order[3:6], order[6:]]
    for a, b in np.ndindex(3, 3):
        block = np.ix_(groups[a], groups[b])
        np.testing.assert_allclose(value[a, b], np.nanmean(found.value[block]), rtol=1e-6)
        np.testing.assert_allclose(bound[a, b], found.error_bound[block].max(), rtol=1e-6)
        assert (status[a, b] > 0) == (found.status[block] != Status.CONVERGED).any()
    assert "each of its cells is the mean of 3 × 3 pairs" in page.text


def test_a_map_of_many_items_starts_from_classical_scaling_alone(monkeypatch):
    monkeypatch.setattr(content, "_MANY", 5)
    found = random_solution(6)
    assert content.map_of(found.value, np.arange(6))["stress"] == positions(found, starts=0).stress


# --- nothing runs, nothing is fetched
EVIL = ["</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<b>&amp;</b>", "' \" `${1}`", "$title"]
EVIL_TOO = ["<!--<script>", "--></title><svg/onload=alert(1)>", "\u2028\u2029]]>", "\0\udcff", '" onclick="x', "x"]


def test_what_people_type_is_only_text(written, found, chains):
    page = written(
        found, targets=[*EVIL, "a"], names=[*EVIL, "b"], title=EVIL[0], chains=chains, solve=SOLVE,
        label_names=EVIL[:3], k=1,
    )  # fmt: skip
    assert [tag for tag, _ in page.tags].count("script") == 3
    assert not {"img", "b"} & {tag for tag, _ in page.tags}
    assert page.data["names"] == [*EVIL, "b"]
    assert [one[0] for one in page.data["classes"]] == [*EVIL, "a"]
    assert page.text.count(EVIL[0]) == 2  # the title, of the window and of the page


def test_no_name_brings_an_element_or_an_attribute(written, found, chains, monkeypatch):
    def tags(names, title):
        parts = [copy.copy(chain) for chain in chains]
        for part, name in zip(parts, names, strict=True):
            part.state_names = [name] * part.num_states
        wrong = found.status.copy()
        wrong[0, 1] = wrong[1, 0] = Status.STALLED
        doubtful = dataclasses.replace(found, status=wrong, invalid={("chains", 2): title})
        page = written(doubtful, targets=names, names=names, title=title, chains=parts, solve=SOLVE, k=1)
        assert page.data["names"] == names
        assert {name for name, _ in page.data["drawings"]["states"]} <= set(names)
        return [(tag, attributes) for tag, attributes in page.tags if attributes.get("http-equiv") is None]

    plain = tags(list("abcdef"), "plain")
    for names in ([*EVIL, "x"], EVIL_TOO):
        for title in names:
            assert tags(names, title) == plain


def test_the_script_makes_text_of_what_people_type():
    """Neither the page nor Plotly, which reads some HTML in text, is given it in any other way."""
    script = (resources.files("markovot.report") / "report.js").read_text(encoding="utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|hovertemplate|hovertext", script)
    for line in script.splitlines():
        if re.search(r"\b(name|ticktext): .*data\.|name: .*name", line):
            assert "forPlotly(" in line, line


def test_only_the_scripts_of_the_page_may_run_and_nothing_may_be_fetched(written, found):
    page = written(found)
    (policy,) = [one["content"] for tag, one in page.tags if one.get("http-equiv") == "Content-Security-Policy"]
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in page.scripts[1:]]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert {rules[name] for name in ("default-src", "form-action", "base-uri")} == {"'none'"}
    assert rules["script-src"].split() == [f"'sha256-{digest}'" for digest in digests]
    assert len(page.scripts) == 3
    for _, attributes in page.tags:
        assert not {"src", "href"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)


def test_the_library_stands_once_on_the_page(written, found, tmp_path):
    written(found)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert len(re.findall(r"plotly\.js v\d", text)) == 1
    assert len(text) < 6e6


def test_a_script_that_names_its_own_end_is_harmless(written, found, monkeypatch):
    import plotly.offline

    monkeypatch.setattr(plotly.offline, "get_plotlyjs", lambda: 'const end = "</script>";\r\n')
    assert written(found).scripts[1] == 'const end = "<\\/script>";\n'


# --- errors
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chains": [1]}, "solve: it goes with chains, to align neighbours. Give both, or neither."),
        ({"solve": SOLVE}, "chains: it goes with solve, to align neighbours"),
        ({"chains": [1], "solve": SOLVE}, "chains: 1 chains for distances of 6 graphs"),
        ({"targets": ["a"]}, "targets: 1 for 6 graphs. Give one for each."),
        ({"targets": ["a", None, "a", "b", "b", "b"]}, "targets: that of item 1 is None, a missing value"),
        ({"names": ["a"]}, "names: 1 for 6 graphs. Give one for each."),
        ({"k": 0}, "k: 0 is less than 1"),
        ({"k": True}, "k: expected an integer, got bool"),
        ({"k": 1.5}, "k: expected an integer, got float"),
    ],
)
def test_bad_arguments_are_refused(found, tmp_path, options, message):
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        write_report(found, tmp_path / "page.html", progress=False, **options)
    assert list(tmp_path.iterdir()) == []


def test_only_the_distances_of_one_set_are_shown(chains, tmp_path):
    with pytest.raises(TypeError, match=r"found: list is no PairwiseSolution\. distance_matrix returns one"):
        write_report([[0.0]], tmp_path / "page.html")
    other = distance_matrix(chains[:2], chains[2:4], **SETTING, progress=False)
    with pytest.raises(ValueError, match=re.escape("found: distances of shape (2, 2) between two sets")):
        write_report(other, tmp_path / "page.html")


def test_there_must_be_something_to_show(tmp_path):
    nothing = pairs_of(np.full((2, 2), np.nan), np.ones((2, 2)), np.full((2, 2), Status.INVALID, dtype=object))
    with pytest.raises(ValueError, match="found: it has no finite distance, so there is nothing to show"):
        write_report(nothing, tmp_path / "page.html")


@pytest.mark.parametrize(("library", "extra"), [("plotly", "report"), ("sklearn", "sklearn")])
def test_a_missing_library_is_named(found, tmp_path, monkeypatch, library, extra):
    for name in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=re.escape(f"pip install 'markovot[{extra}]'")):
        write_report(found, tmp_path / "page.html")


def test_a_file_that_cannot_be_written_leaves_nothing(found, tmp_path):
    (tmp_path / "page.html").mkdir()
    with pytest.raises(OSError, match=r"page\.html"):
        write_report(found, tmp_path / "page.html", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_progress_is_shown_if_wanted(found, chains, tmp_path, capsys):
    options = {"chains": chains, "solve": SOLVE, "k": 1}
    write_report(found, tmp_path / "page.html", progress=False, **options)
    assert capsys.readouterr().err == ""
    write_report(found, tmp_path / "page.html", progress=True, **options)
    assert "alignment/s" in capsys.readouterr().err
