"""The report page in a real browser: opened, clicked, read. Opt-in (`make browser`): needs chromium and chromedriver.

Not collected by `make test`, which finds files named test_*.py. The last check saves what a laptop shows as a picture.
"""

import functools
import json
import os
from pathlib import Path

import numpy as np
import pytest
import webdriver

from markovot import Status, costs, discounted_wl
from markovot.datasets import load_mutag
from markovot.pairwise import PairwiseSolution, distance_matrix
from markovot.report import write_report

WINDOW = (1366, 911)  # the browser takes some of the height for itself
PICTURE = os.environ.get("MARKOVOT_REPORT_PICTURE")
SETTING = {"cost": costs.ZeroOne(), "delta": 0.2, "epsilon": 0.01}
EVIL = "<script>document.title = 'ran'</script>"
ENTER = "\ue007"
RIGHT = "\ue014"

# Where a graph is on the map, and a cell in the matrix, in the window.
MAP_POINT = """
const place = JSON.parse(document.getElementById('data').textContent).map.place[arguments[0]];
const plot = document.getElementById('map'), box = plot.getBoundingClientRect(), layout = plot._fullLayout;
return [box.left + layout.xaxis._offset + layout.xaxis.l2p(place[0]),
        box.top + layout.yaxis._offset + layout.yaxis.l2p(place[1])];
"""
CELL_POINT = """
const plot = document.getElementById('matrix');
plot.scrollIntoView({block: 'center'});
const box = plot.getBoundingClientRect(), layout = plot._fullLayout;
return [box.left + layout.xaxis._offset + layout.xaxis.l2p(arguments[1]),
        box.top + layout.yaxis._offset + layout.yaxis.l2p(arguments[0])];
"""
LISTED = """
return [...document.querySelectorAll('#neighbours tbody tr')].map(row => [...row.cells].map(cell => cell.textContent));
"""
DRAWN = """
return [...document.querySelectorAll('#alignment line.aligned')].map(line => line.getAttribute('stroke-width'));
"""
CHOOSE = """
const list = document.getElementById('graph');
list.value = arguments[0];
list.dispatchEvent(new Event('change'));
"""


@pytest.fixture(scope="module")
def solved():
    if webdriver.missing():
        needed = " and ".join(webdriver.missing())
        pytest.fail(f"{needed} not found. On Debian: apt-get install chromium chromium-driver")
    mutag = load_mutag()
    return mutag, distance_matrix(mutag.chains, **SETTING, progress=False)


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    with webdriver.browser(tmp_path_factory.mktemp("browser"), WINDOW) as window:
        window.open_blank()
        yield window


@pytest.fixture(scope="module")
def page(solved, tmp_path_factory):
    mutag, found = solved
    path = tmp_path_factory.mktemp("page") / "mutag.html"
    write_report(
        found, path, chains=mutag.chains, solve=functools.partial(discounted_wl, **SETTING, throw=False),
        targets=[mutag.target_names[target] for target in mutag.targets.tolist()], label_names=mutag.label_names,
        title="MUTAG: delta 0.2, epsilon 0.01, zero-one cost of labels", progress=False,
    )  # fmt: skip
    return path


@pytest.fixture
def opened(window, page):
    """The page, just opened; at the end, nothing must have gone wrong, nor been fetched."""
    show(window, page)
    yield window
    assert quiet(window, page)


def show(window, page: Path) -> None:
    window.open_blank()
    for kind in ("browser", "performance"):
        window.log(kind)
    window.open(page)


def quiet(window, page: Path) -> bool:
    """Whether nothing was said on the console, and nothing but the page and what it holds was asked for."""
    assert window.log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in window.log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    outside = [url for url in asked if not url.startswith("data:")]
    assert outside == [page.resolve().as_uri()]
    return True


def nearest(found, graph: int, k: int = 5) -> list[int]:
    values = found.value[graph].copy()
    values[graph] = np.inf
    return np.argsort(values, kind="stable")[:k].tolist()


def expected_lines(mutag, first: int, second: int) -> int:
    mass = discounted_wl(mutag.chains[first], mutag.chains[second], **SETTING).alignment.numpy()
    return int((mass >= 0.15 * np.minimum(mass.sum(1)[:, None], mass.sum(0)[None])).sum())


def check_graph(window, mutag, found, graph: int) -> None:
    """The list of neighbours of a graph, and the alignment with the nearest, are the right ones."""
    near = nearest(found, graph)
    rows = window.run(LISTED)
    assert [row[0].removeprefix("≈ ") for row in rows] == [str(other) for other in near]
    assert [row[1] for row in rows] == [mutag.target_names[int(mutag.targets[other])] for other in near]
    np.testing.assert_allclose([float(row[2]) for row in rows], found.value[graph, near], rtol=1e-3)
    np.testing.assert_allclose([float(row[3]) for row in rows], found.error_bound[graph, near], rtol=0.06)
    assert len(window.run(DRAWN)) == expected_lines(mutag, graph, near[0]) > 10


def test_a_click_on_a_point_shows_its_neighbours_and_their_alignment(opened, solved):
    mutag, found = solved
    spread = np.linalg.norm  # a point that stands alone, so that the click can mean no other
    place = np.array(opened.run("return JSON.parse(document.getElementById('data').textContent).map.place"))
    apart = spread(place[:, None] - place[None], axis=-1) + 9 * np.eye(len(place))
    graph = int(apart.min(1).argmax())
    opened.click_at(*opened.run(MAP_POINT, graph))
    assert opened.run("return document.getElementById('graph').value") == str(graph)
    assert opened.run("return document.getElementById('chosen').textContent").startswith(f"{graph} (")
    check_graph(opened, mutag, found, graph)
    tip = opened.run("const tip = document.getElementById('tip'); return tip.hidden ? '' : tip.textContent")
    assert tip.startswith(f"{graph} (")


def test_a_click_on_a_cell_shows_the_graph_of_its_row_beside_that_of_its_column(opened, solved):
    found = solved[1]
    order = opened.run("return JSON.parse(document.getElementById('data').textContent).order")
    graph = order[60]
    column = order.index(nearest(found, graph)[2])
    opened.click_at(*opened.run(CELL_POINT, 60, column))
    assert opened.run("return document.getElementById('graph').value") == str(graph)
    pressed = opened.run("return document.querySelector('#neighbours [aria-pressed=true]').dataset.graph")
    assert pressed == str(order[column])
    tip = opened.run("return document.getElementById('tip').textContent")
    assert f"distance {found.value[graph, order[column]]:.3g}"[:13] in tip
    assert "error at most" in tip
    far = int(found.value[graph].argmax())
    opened.click_at(*opened.run(CELL_POINT, 60, order.index(far)))
    assert "5 nearest only" in opened.run("return document.getElementById('remark').textContent")
    assert opened.run(DRAWN) == []


def test_the_keyboard_reaches_everything(opened, solved):
    mutag, found = solved
    order = opened.run("return JSON.parse(document.getElementById('data').textContent).order")
    check_graph(opened, mutag, found, order[0])
    opened.press("#map", RIGHT + RIGHT)
    check_graph(opened, mutag, found, order[2])
    opened.press("#previous", ENTER)
    check_graph(opened, mutag, found, order[1])
    second = nearest(found, order[1])[1]
    opened.press("#neighbours tbody tr:nth-child(2) button[data-graph]", ENTER)
    assert opened.run("return document.getElementById('pair').textContent").startswith(f"{order[1]} (")
    assert len(opened.run(DRAWN)) == expected_lines(mutag, order[1], second)
    opened.press("#neighbours tbody tr:nth-child(2) button[aria-label]", ENTER)
    check_graph(opened, mutag, found, second)


def test_no_button_sends_the_data_away(opened):
    for picture in ("map", "matrix"):
        titles = opened.run(
            f"return [...document.querySelectorAll('#{picture} .modebar-btn')].map(b => b.dataset.title)"
        )
        assert set(titles) == {"Download plot as a PNG", "Zoom", "Pan", "Zoom in", "Zoom out", "Reset axes"}


def test_names_do_not_run_and_troubles_are_seen(window, solved, tmp_path):
    found = solved[1]
    few = np.arange(12)
    part = PairwiseSolution(
        *(array[np.ix_(few, few)].copy() for array in (found.value, found.error_bound, found.status, found.num_iter))
    )
    part.status[2, 3] = part.status[3, 2] = Status.STALLED
    part.value[5] = part.value[:, 5] = np.nan
    part.status[5] = part.status[:, 5] = Status.INVALID
    part.invalid["chains", 5] = EVIL
    page = tmp_path / "evil.html"
    names = [f"{EVIL} {number}" for number in few]
    write_report(part, page, targets=[EVIL, "<b>b</b>"] * 6, names=names, title=EVIL, k=11, progress=False)
    show(window, page)
    window.press("#map", RIGHT)
    assert window.run("return document.title") == EVIL
    assert window.run("return document.querySelectorAll('#pictures b, #detail b').length") == 0
    assert window.run("return document.querySelectorAll('script').length") == 3
    assert "1 pair did not converge" in window.run("return document.getElementById('certainty').textContent")
    assert not window.run("return document.getElementById('marks').hidden")
    assert window.run("return document.querySelectorAll('#matrix .layer-above image').length") == 1
    window.run(CHOOSE, 2)
    assert window.run("return [...document.querySelectorAll('tr.wrong')].map(row => row.cells[0].textContent)") == [
        names[3]
    ]
    window.run(CHOOSE, 5)
    assert "no distance to any other" in window.run("return document.getElementById('remark').textContent")
    assert quiet(window, page)


def test_it_fits_a_laptop_and_a_telephone(opened):
    for width in (1366, 1024, 500):
        opened.resize(width, WINDOW[1])
        assert opened.run("return document.documentElement.scrollWidth <= window.innerWidth"), width
    opened.resize(*WINDOW)
    if PICTURE:
        opened.resize(WINDOW[0], 1310)
        opened.run(CHOOSE, 132)
        opened.screenshot(Path(PICTURE))
        opened.resize(*WINDOW)
