"""Maps and trees of items: where the points stand, which branches join, what the marks say."""

import importlib
import warnings
from collections import Counter

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from scipy.cluster.hierarchy import cophenet, linkage
from scipy.spatial.distance import squareform

from markovot import plot
from markovot.plot import common
from markovot.plot.dendrogram import METHODS


@pytest.fixture
def flat():
    """Points of the plane, and their distances."""
    points = np.random.default_rng(1).normal(size=(12, 2)) * [3.0, 1.0]
    return points, np.linalg.norm(points[:, None] - points[None], axis=-1)


@pytest.fixture
def crowd():
    """Distances that no map shows truly: a noisy metric of high dimension, in three groups."""
    rng = np.random.default_rng(2)
    points = rng.normal(size=(15, 6)) + 4.0 * np.repeat(np.eye(6)[:3], 5, axis=0)
    return np.linalg.norm(points[:, None] - points[None], axis=-1), ["a"] * 5 + ["b"] * 5 + ["c"] * 5


def apart(place):
    return np.linalg.norm(place[:, None] - place[None], axis=-1)


def written(axes):
    return [text.get_text() for text in axes.texts if text.get_text()]


# --- maps


def test_plane_distances_are_mapped_truly(flat):
    _, distances = flat
    place, stress = plot.positions(distances)
    assert stress < 1e-3
    np.testing.assert_allclose(apart(place), distances, atol=0.02)
    np.testing.assert_allclose(place.mean(0), 0.0, atol=1e-9)
    assert np.ptp(place[:, 0]) > np.ptp(place[:, 1])


def test_stress_is_the_relative_error_of_the_map(crowd):
    distances, _ = crowd
    place, stress = plot.positions(distances)
    expected = np.sqrt(((apart(place) - distances) ** 2).sum() / (distances**2).sum())
    assert stress == pytest.approx(expected)
    assert 0.05 < stress < 0.4


def test_a_map_has_its_longest_axis_level_and_no_mirror_image(crowd):
    place, _ = plot.positions(crowd[0])
    spread = place.T @ place
    np.testing.assert_allclose(spread - np.diag(np.diag(spread)), 0.0, atol=1e-9 * spread.max())
    assert spread[0, 0] > spread[1, 1]
    assert place.max(0) == pytest.approx(np.abs(place).max(0))  # what lies farthest out lies right, or up


def test_the_map_scales_with_the_distances(crowd):
    distances, _ = crowd
    small, large = plot.positions(distances), plot.positions(1000 * distances)
    np.testing.assert_allclose(large.place, 1000 * small.place, rtol=1e-6)
    assert large.stress == pytest.approx(small.stress)


def test_a_seed_gives_one_map_and_more_starts_no_worse_a_one(crowd):
    distances, _ = crowd
    np.testing.assert_array_equal(plot.positions(distances, seed=3).place, plot.positions(distances, seed=3).place)
    alone = plot.positions(distances, starts=0)
    np.testing.assert_array_equal(plot.positions(distances, starts=0, seed=9).place, alone.place)
    tried = [plot.positions(distances, starts=6, seed=seed).stress for seed in range(3)]
    assert max(tried) <= alone.stress * (1 + 1e-6)


def test_random_starts_find_what_classical_scaling_misses():
    # Not at all a plane: there, SMACOF stops at a worse map from classical scaling than from the best of ten starts.
    half = np.triu(np.random.default_rng(1).uniform(0.5, 1.5, size=(8, 8)), 1)
    distances = half + half.T
    alone, tried = plot.positions(distances, starts=0), plot.positions(distances, starts=10, seed=1)
    assert tried.stress < 0.95 * alone.stress
    once = [plot.positions(distances, starts=1, seed=seed).stress for seed in range(5)]
    assert max(once) > 1.01 * min(once)


def test_entropic_distances_are_mapped_like_others(flat):
    _, distances = flat
    entropic = distances + 0.3 * np.eye(12)
    entropic[0, 1] += 0.02
    entropic[1, 0] -= 0.02
    np.testing.assert_allclose(plot.positions(entropic).place, plot.positions(distances).place, atol=1e-9)
    below = distances.copy()
    below[0, 1] = below[1, 0] = -1e-3
    nought = distances.copy()
    nought[0, 1] = nought[1, 0] = 0.0
    np.testing.assert_array_equal(plot.positions(below).place, plot.positions(nought).place)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_few_items_or_none_apart_are_mapped(count, figure_axes):
    assert plot.positions(np.zeros((count, count))).stress == 0.0
    axes = plot.embedding(np.zeros((count, count)), names=range(count), ax=figure_axes())
    assert written(axes) == ["map distances off by 0.0 %", *map(str, range(count))]
    place, stress = plot.positions(2.0 * (1 - np.eye(count)))
    np.testing.assert_allclose(apart(place), 2.0 * (1 - np.eye(count)), atol=1e-2)
    assert stress < 1e-2


def test_each_class_has_colour_shape_and_a_line_in_the_legend(crowd, figure_axes):
    distances, labels = crowd
    axes = plot.embedding(distances, labels, class_names={"a": "A", "b": "B", "c": "C"}, title="T", ax=figure_axes())
    place, stress = plot.positions(distances)
    for k, group in enumerate(axes.collections):
        np.testing.assert_allclose(group.get_offsets(), place[5 * k : 5 * k + 5])
        assert to_hex(group.get_facecolors()[0]) == common.PALETTE[k]
    assert len({group.get_paths()[0].vertices.tobytes() for group in axes.collections}) == 3
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["A (5)", "B (5)", "C (5)"]
    assert written(axes) == [f"map distances off by {100 * stress:.1f} %"]
    assert axes.get_title() == "T"
    assert axes.get_aspect() == 1.0


def test_a_map_without_classes_has_one_colour(crowd, figure_axes):
    distances, _ = crowd
    axes = plot.embedding(distances, ax=figure_axes(), seed=2, starts=1)
    (group,) = axes.collections
    np.testing.assert_allclose(group.get_offsets(), plot.positions(distances, seed=2, starts=1).place)
    assert axes.get_legend() is None
    assert to_hex(group.get_facecolors()[0]) == common.NEUTRAL


def test_names_cover_neither_each_other_nor_much_of_the_points(crowd, figure_axes):
    distances, labels = crowd
    names = [f"item number {k}" for k in range(15)]
    axes = plot.embedding(distances, labels, names=names, ax=figure_axes())
    assert written(axes)[1:] == names
    axes.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts[1:] if text.get_text()]
    frame = axes.get_window_extent()
    for k, box in enumerate(boxes):
        assert frame.x0 - 1 < box.x0 < box.x1 < frame.x1 + 1
        for other in boxes[:k]:
            width = min(box.x1, other.x1) - max(box.x0, other.x0)
            height = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert min(width, height) < 0.25 * box.height  # letters do not fill the height of their box
    dots = axes.transData.transform(plot.positions(distances).place)
    assert sum(box.contains(*dot) for box in boxes for dot in dots) == 0


def test_names_far_from_their_points_are_joined_to_them(figure_axes):
    # Ten points in one place: there is room for eight names around it, and for the others farther out.
    distances = np.zeros((11, 11))
    distances[10, :10] = distances[:10, 10] = 1.0
    axes = plot.embedding(distances, names=[f"name {k}" for k in range(11)], ax=figure_axes())
    assert sum(text.arrow_patch is not None for text in axes.texts if hasattr(text, "arrow_patch")) >= 2


def test_up_to_49_classes_look_different():
    looks = common.styles(range(49), None).values()
    assert len({(look.color, look.marker) for look in looks}) == 49
    first = list(looks)[:7]
    assert len({look.color for look in first}) == len({look.marker for look in first}) == 7


# --- trees


@pytest.mark.parametrize("method", METHODS)
def test_branches_join_as_in_the_linkage(crowd, figure_axes, method):
    distances, _ = crowd
    axes = plot.dendrogram(distances, method=method, ax=figure_axes())
    tree = linkage(squareform(distances, checks=False), method=method, optimal_ordering=True)
    joints = [segment[1, 0] for segment in axes.collections[0].get_segments()]
    np.testing.assert_allclose(sorted(joints), np.sort(tree[:, 2]), rtol=1e-12)
    assert axes.get_xlim() == pytest.approx((1.05 * tree[:, 2].max(), 0.0))  # the root on the left


def test_leaves_stand_in_an_order_that_the_tree_allows(crowd, figure_axes):
    distances, labels = crowd
    names = [f"{label}{k}" for k, label in enumerate(labels)]
    axes = plot.dendrogram(distances, names, labels=labels, title="T", ax=figure_axes())
    leaves = [text.get_text() for text in axes.get_yticklabels()]
    assert sorted(leaves) == sorted(names)
    assert [leaf[0] for leaf in leaves] in [list(order) for order in ("aaaaabbbbbccccc", "cccccbbbbbaaaaa")] or len(
        {leaf[0] for leaf in leaves[:5]}
    ) == 1
    np.testing.assert_allclose(axes.get_yticks(), 10.0 * np.arange(15) + 5.0)
    assert axes.get_title() == "T"
    assert axes.get_xlabel() == "distance"


def test_items_along_a_line_are_leaves_in_that_order(figure_axes):
    places = np.random.default_rng(4).permutation(np.cumsum(np.random.default_rng(5).random(12)))
    axes = plot.dendrogram(np.abs(places[:, None] - places), ax=figure_axes())
    leaves = places[[int(text.get_text()) for text in axes.get_yticklabels()]]
    assert leaves.tolist() in (sorted(places), sorted(places, reverse=True))


def test_classes_colour_names_leaves_and_branches(crowd, figure_axes):
    distances, labels = crowd
    names = {"a": "A", "b": "B", "c": "C"}
    looks = common.styles(labels, names)
    axes = plot.dendrogram(distances, labels, labels=labels, class_names=names, ax=figure_axes())
    for text in axes.get_yticklabels():
        assert to_hex(text.get_color()) == looks[text.get_text()].color
    counts = Counter(to_hex(color) for color in axes.collections[0].get_colors())
    # Five items of a class join by four branches; the three classes by two more.
    assert counts == {looks["a"].color: 4, looks["b"].color: 4, looks["c"].color: 4, common.NEUTRAL: 2}
    leaves = [text.get_text() for text in axes.get_yticklabels()]
    for label, group in zip(looks, axes.collections[1:], strict=True):
        heights = [10.0 * k + 5.0 for k, leaf in enumerate(leaves) if leaf == label]
        np.testing.assert_allclose(group.get_offsets(), [(0.0, height) for height in heights])
        assert to_hex(group.get_facecolors()[0]) == looks[label].color
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["A (5)", "B (5)", "C (5)"]


def test_without_classes_there_is_one_colour_and_no_legend(crowd, figure_axes):
    axes = plot.dendrogram(crowd[0], ax=figure_axes())
    (branches,) = axes.collections
    assert {to_hex(color) for color in branches.get_colors()} == {common.NEUTRAL}
    assert axes.get_legend() is None
    assert sorted(int(text.get_text()) for text in axes.get_yticklabels()) == list(range(15))


def test_many_leaves_without_names_have_none(figure_axes):
    place = np.random.default_rng(0).random(101)
    axes = plot.dendrogram(np.abs(place[:, None] - place), ax=figure_axes())
    assert {text.get_text() for text in axes.get_yticklabels()} == {""}


def test_the_diagonal_and_asymmetries_play_no_part_in_the_tree(crowd, figure_axes):
    distances, _ = crowd
    skewed = distances + 0.2 * np.eye(15)
    skewed[2, 7] += 0.1
    skewed[7, 2] -= 0.1
    below = distances.copy()
    below[0, 1] = below[1, 0] = -0.01
    for other, expected in ((skewed, distances), (below, np.where(below < 0, 0.0, below))):
        one, two = (
            plot.dendrogram(each, ax=figure_axes()).collections[0].get_segments() for each in (other, expected)
        )
        np.testing.assert_allclose(one, two)


def test_average_linkage_keeps_the_order_of_well_separated_groups(crowd):
    # What the drawing claims: items of a group join before groups do.
    distances, labels = crowd
    tree = squareform(cophenet(linkage(squareform(distances, checks=False), method="average")))
    same = np.equal.outer(labels, labels) & ~np.eye(15, dtype=bool)
    assert tree[same].max() < tree[~np.equal.outer(labels, labels)].min()


def test_two_items_and_items_at_distance_zero_make_a_tree(figure_axes):
    for distances in (np.array([[0.0, 1.0], [1.0, 0.0]]), np.zeros((3, 3))):
        axes = plot.dendrogram(distances, ax=figure_axes())
        assert len(axes.get_yticklabels()) == len(distances)
        left, right = axes.get_xlim()
        assert left > right == 0.0


# --- both


@pytest.mark.parametrize("draw", [plot.embedding, plot.dendrogram, plot.distance_matrix])
def test_parts_of_a_figure_will_do(draw, crowd, figure_axes):
    distances, labels = crowd
    halves = figure_axes().figure.subfigures(1, 2)
    options = {} if draw is plot.distance_matrix else {"names": labels}
    axes = draw(distances, labels=labels, ax=halves[1].subplots(), **options)
    assert axes.figure is halves[1]


@pytest.mark.parametrize("draw", [plot.embedding, plot.dendrogram])
def test_tensors_and_new_figures_will_do(draw, crowd, figure_axes):
    distances, _ = crowd
    figure_axes()  # for matplotlib without a screen
    axes = draw(torch.tensor(distances, requires_grad=True), labels=torch.arange(15) // 5)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["0 (5)", "1 (5)", "2 (5)"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        axes.figure.draw_without_rendering()


@pytest.mark.parametrize("draw", [plot.embedding, plot.dendrogram])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distances": np.zeros((2, 3))}, r"distances must be a square matrix .* got shape \(2, 3\)"),
        ({"distances": np.zeros((0, 0))}, r"distances must be a square matrix"),
        ({"distances": np.array([[0, np.inf], [1, 0]])}, r"distances must be finite; got inf at \[0, 1\].*Leave out"),
        ({"labels": [0]}, r"labels must name the class of each of the 2 items; got 1 labels"),
        ({"names": ["x"]}, r"names must name each of the 2 items; got 1 names"),
        ({"labels": [0, 1], "class_names": {0: "x"}}, r"class_names has no name for the class 1, only for \[0\]"),
    ],
)
def test_bad_input_is_refused(draw, options, message, figure_axes):
    with pytest.raises(ValueError, match=message):
        draw(**{"distances": np.array([[0.0, 1.0], [1.0, 0.0]]), "ax": figure_axes(), **options})


def test_what_one_of_them_refuses(figure_axes):
    with pytest.raises(ValueError, match="starts: -1 is less than 0"):
        plot.embedding(np.zeros((2, 2)), starts=-1)
    with pytest.raises(ValueError, match="method: 'ward' is not one of 'average', 'complete', "):
        plot.dendrogram(np.zeros((2, 2)), method="ward")
    with pytest.raises(ValueError, match=r"a tree needs at least two items; got 1"):
        plot.dendrogram(np.zeros((1, 1)))


def test_a_missing_library_is_asked_for_by_its_extra(monkeypatch, figure_axes):
    real = importlib.import_module

    def without(missing):
        def load(name, package=None):
            if name.split(".")[0] == missing:
                raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)
            return real(name, package)

        monkeypatch.setattr("markovot._optional.import_module", load)

    without("sklearn")
    with pytest.raises(ImportError, match=r"markovot\.plot\.embedding needs sklearn.*'markovot\[sklearn\]'"):
        plot.embedding(np.zeros((2, 2)))
    without("matplotlib")
    with pytest.raises(ImportError, match=r"markovot\.plot needs matplotlib.*'markovot\[plot\]'"):
        plot.dendrogram(np.zeros((2, 2)))
