"""The pictures: what is drawn and where, not what the pixels look like."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from markovot import MarkovChain, datasets, plot
from markovot.plot import common, placing


def path_chain(num_states: int, features: list[int] | None = None, **options) -> MarkovChain:
    adjacency = torch.diag(torch.ones(num_states - 1, dtype=torch.float64), 1)
    labels = None if features is None else torch.tensor(features)
    return MarkovChain.from_adjacency(adjacency + adjacency.T, features=labels, **options)


def alignment_lines(axes):
    (lines,) = [collection for collection in axes.collections if collection.get_gid() == "alignment"]
    return lines


def written(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


@pytest.fixture
def blobs():
    rng = np.random.default_rng(3)
    points = rng.normal(size=(9, 2))
    labels = ["b", "a", "b", "c", "a", "b", "c", "a", "b"]
    return np.linalg.norm(points[:, None] - points[None], axis=-1), labels


def test_matrix_is_ordered_by_class(blobs, figure_axes):
    values, labels = blobs
    order = plot.class_order(values, labels)
    assert sorted(order.tolist()) == list(range(9))
    assert [labels[i] for i in order] == ["b"] * 4 + ["a"] * 3 + ["c"] * 2
    axes = plot.distance_matrix(values, labels, ax=figure_axes(), class_names={"a": "A", "b": "B", "c": "C"}, title="T")
    np.testing.assert_array_equal(axes.images[0].get_array(), values[np.ix_(order, order)])
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["B (4)", "A (3)", "C (2)"]
    np.testing.assert_allclose(axes.get_yticks(), [1.5, 5.0, 7.5])
    borders = [line.get_ydata()[0] for line in axes.lines if line.get_color() == "white"]
    assert borders == [3.5, 0.0, 6.5, 0.0]  # across and down: an upright line starts at the axes' foot
    assert axes.get_title() == "T"
    assert [other.get_ylabel() for other in axes.figure.axes] == ["", "distance"]


def test_within_a_class_neighbours_stand_together():
    position = np.array([0.0, 10.0, 1.0, 11.0, 2.0, 12.0])
    order = plot.class_order(np.abs(position[:, None] - position[None]), [0] * 6)
    assert sorted(position[order][:3].tolist()) in ([0.0, 1.0, 2.0], [10.0, 11.0, 12.0])
    assert np.abs(np.diff(position[order])).sum() == 12.0  # along the line, without turning back


def test_order_takes_an_entropic_distance(blobs):
    # Not zero on the diagonal, a little below zero between near ones, not quite symmetric.
    values, labels = blobs
    entropic = values - 0.01 + 1e-4 * np.arange(81).reshape(9, 9)
    np.testing.assert_array_equal(
        plot.class_order(entropic, labels), plot.class_order(values - np.diag(np.diag(values)), labels)
    )
    assert plot.class_order(torch.tensor([[-0.1]]), ["a"]).tolist() == [0]


@pytest.mark.parametrize("low", [-2.2e-18, -0.1])
def test_every_picture_of_items_takes_distances_below_zero(figure_axes, low):
    # Debiased ones: within one class, so that the tree joins the two below zero. They are drawn as if at zero.
    below = np.array([[0.0, low, 1.0, 1.1], [low, 0.0, 1.0, 1.2], [1.0, 1.0, 0.0, 0.3], [1.1, 1.2, 0.3, 0.0]])
    zero = np.maximum(below, 0.0)
    labels = ["a"] * 4
    np.testing.assert_array_equal(plot.class_order(below, labels), plot.class_order(zero, labels))
    drawn = plot.distance_matrix(below, labels, ax=figure_axes()).images[0].get_array()
    assert drawn.min() == low  # the distances themselves are shown as they are
    np.testing.assert_array_equal(plot.positions(below).place, plot.positions(zero).place)
    plot.embedding(below, labels, ax=figure_axes())
    plot.dendrogram(below, ax=figure_axes())


@pytest.mark.parametrize(
    ("values", "labels", "message"),
    [
        (np.zeros((2, 3)), [0, 1], r"values must be a square matrix .* got shape \(2, 3\)"),
        (np.zeros((0, 0)), [], r"values must be a square matrix .* got shape \(0, 0\)"),
        (np.zeros((2, 2)), [0, 1, 1], r"labels must name the class of each of the 2 items; got 3"),
        (np.array([[0.0, np.nan], [1.0, 0.0]]), [0, 1], r"values must be finite; got nan at \[0, 1\]"),
    ],
)
def test_bad_matrix_is_refused(values, labels, message):
    with pytest.raises(ValueError, match=message):
        plot.distance_matrix(values, labels)


def test_a_class_without_a_name_is_refused(blobs, figure_axes):
    with pytest.raises(ValueError, match=r"class_names has no name for the class 'b', only for \['a'\]"):
        plot.distance_matrix(*blobs, class_names={"a": "A"}, ax=figure_axes())


def test_a_pairwise_solution_is_drawn_like_its_values(blobs, figure_axes):
    values, labels = blobs
    solution = SimpleNamespace(value=values, error_bound=0 * values)
    axes = plot.distance_matrix(solution, labels, ax=figure_axes())
    np.testing.assert_array_equal(
        axes.images[0].get_array(), plot.distance_matrix(values, labels, ax=figure_axes()).images[0].get_array()
    )
    np.testing.assert_array_equal(plot.class_order(solution, labels), plot.class_order(values, labels))


def test_names_of_classes_lie_level_where_they_have_no_room_along(figure_axes):
    values = np.abs(np.subtract.outer(np.arange(12.0), np.arange(12.0)))
    roomy = plot.distance_matrix(values, [0] * 6 + [1] * 6, ax=figure_axes())
    assert {tick.get_rotation() for tick in roomy.get_yticklabels()} == {90.0}
    tight = plot.distance_matrix(values, [0] * 11 + ["alone"], ax=figure_axes())
    assert {tick.get_rotation() for tick in tight.get_yticklabels()} == {0.0}
    tight.figure.draw_without_rendering()
    boxes = [tick.get_window_extent() for tick in tight.get_yticklabels()]
    assert not boxes[0].overlaps(boxes[1])


def test_a_line_joins_each_pair_that_matters(figure_axes):
    mass = torch.tensor([[0.30, 0.02, 0.0], [0.05, 0.25, 0.08], [0.0, 0.05, 0.25]])
    x, y = path_chain(3), path_chain(3)
    for threshold, expected in [(0.0, 7), (0.15, 5), (0.25, 3), (0.9, 1), (1.0, 0)]:
        axes = plot.alignment(x, y, mass, threshold=threshold, ax=figure_axes())
        lines = alignment_lines(axes)
        lighter = torch.minimum(mass.sum(1)[:, None], mass.sum(0)[None])
        shown = (mass >= threshold * lighter) & (mass > 0)
        assert len(lines.get_segments()) == int(shown.sum()) == expected


def test_width_grows_with_mass_and_the_legend_names_it(figure_axes):
    mass = np.array([[0.5, 0.1], [0.15, 0.25]])
    axes = plot.alignment(path_chain(2), path_chain(2), mass, threshold=0.0, ax=figure_axes())
    lines = alignment_lines(axes)
    widths = np.array(lines.get_linewidths())
    np.testing.assert_allclose(widths / widths.max(), [0.2, 0.3, 0.5, 1.0])  # drawn from the lightest to the heaviest
    alphas = lines.get_colors()[:, 3]
    assert (np.diff(alphas) > 0).all()
    legend = axes.get_legend()
    assert "share" in legend.get_title().get_text()
    assert [text.get_text() for text in legend.get_texts()] == ["50 %", "25 %", "5 %"]


def test_different_labels_have_a_colour_of_their_own(figure_axes):
    x, y = path_chain(2, features=[0, 1]), path_chain(2, features=[1, 1])
    names, colors = ("C", "O"), {"C": "#000000", "O": "#ff0000"}
    mass = np.array([[0.5, 0.0], [0.2, 0.3]])
    axes = plot.alignment(
        x,
        y,
        mass,
        label_names=names,
        label_colors=colors,
        titles=("left", "right"),
        threshold=0.0,
        ax=figure_axes(),
    )
    assert written(axes) == ["C", "O", "left", "O", "O", "right"]
    assert [text.get_text() for text in axes.get_legend().get_texts()][3:] == [
        "same label",
        "different labels",
    ]
    drawn = [to_hex(color) for color in alignment_lines(axes).get_colors()[:, :3]]
    assert drawn == [common.SAME, common.SAME, common.DIFFERENT]  # the lightest first: O-O, O-O, C-O
    circles = axes.collections[2]  # after the lines of the alignment and of X's bonds
    np.testing.assert_allclose(circles.get_facecolors()[:, :3], [[0, 0, 0], [1, 0, 0]])


def test_states_are_named_by_label_name_number(figure_axes):
    mass = np.full((2, 2), 0.25)
    plain, named, labelled = (
        path_chain(2),
        path_chain(2, state_names=["rain", "sun"]),
        path_chain(2, features=[4, 5]),
    )
    assert written(plot.alignment(plain, named, mass, ax=figure_axes())) == [
        "0",
        "1",
        "X",
        "rain",
        "sun",
        "Y",
    ]
    assert written(plot.alignment(labelled, plain, mass, ax=figure_axes())) == ["4", "5", "X", "0", "1", "Y"]


def test_long_names_stand_below_their_states_and_short_ones_inside(figure_axes):
    mass = np.full((2, 2), 0.25)
    short, long = path_chain(2), path_chain(2, state_names=["drizzle", "sun"])
    axes = plot.alignment(short, long, mass, ax=figure_axes())
    notes = {text.get_text(): text for text in axes.texts}
    assert notes["0"].get_color() == "white"
    assert notes["sun"].get_color() == notes["drizzle"].get_color() != "white"
    assert notes["0"].xyann == (0, 0)
    assert notes["sun"].xyann[1] == notes["drizzle"].xyann[1] < 0
    letters = path_chain(2, state_names=["abc", "d"])
    _, _, small, _, large = plot.alignment(long, letters, mass, ax=figure_axes()).collections
    assert small.get_sizes()[0] < large.get_sizes()[0]  # no disc is made for a name that does not stand in it


def test_x_is_left_of_y_and_bonds_are_drawn(figure_axes):
    mutag = datasets.load_mutag()
    x, y = mutag.chains[0], mutag.chains[1]
    mass = np.full((x.num_states, y.num_states), 1.0)
    axes = plot.alignment(x, y, mass, threshold=0.0, ax=figure_axes())
    lines, bonds_x, states_x, bonds_y, states_y = axes.collections
    assert len(lines.get_segments()) == x.num_states * y.num_states
    assert len(bonds_x.get_segments()) == len(mutag.edges[0])
    assert len(bonds_y.get_segments()) == len(mutag.edges[1])
    assert states_x.get_offsets()[:, 0].max() < states_y.get_offsets()[:, 0].min()


@pytest.mark.parametrize("index", [0, 5, 36, 109, 150])
def test_layout_keeps_states_apart_and_bonds_even(index):
    chain = datasets.load_mutag().chains[index]
    bonds = placing.bonds_of(chain)
    place = placing.layout(chain.num_states, bonds)
    lengths = np.linalg.norm(place[bonds[:, 0]] - place[bonds[:, 1]], axis=1)
    apart = np.linalg.norm(place[:, None] - place[None], axis=-1) + 9 * np.eye(len(place))
    assert lengths.min() > 0.6
    assert lengths.max() < 1.4
    assert apart.min() > 0.35
    np.testing.assert_array_equal(place, placing.layout(chain.num_states, bonds))


def test_layout_takes_pieces_and_loners():
    bonds = np.array([[0, 1], [3, 4]])
    place = placing.layout(5, bonds)
    apart = np.linalg.norm(place[:, None] - place[None], axis=-1) + 9 * np.eye(5)
    np.testing.assert_allclose([apart[0, 1], apart[3, 4]], 1.0, rtol=1e-6)
    assert apart.min() > 0.99
    np.testing.assert_allclose(place.mean(0), 0.0, atol=1e-12)


def test_an_alignment_with_itself_is_level():
    chain = datasets.load_mutag().chains[0]
    bonds = placing.bonds_of(chain)
    left, right = placing.side_by_side(chain.num_states, bonds, chain.num_states, bonds, np.eye(chain.num_states))
    np.testing.assert_allclose(left[:, 1], right[:, 1], atol=1e-9)


def test_y_is_turned_to_lie_as_level_as_it_can():
    mutag = datasets.load_mutag()
    x, y = mutag.chains[6], mutag.chains[36]
    mass = np.random.default_rng(0).random((x.num_states, y.num_states)) ** 8
    left, right = placing.side_by_side(x.num_states, placing.bonds_of(x), y.num_states, placing.bonds_of(y), mass)
    left, right = left - left.mean(0), right - right.mean(0)

    def slant(turned):
        return (mass * ((left[:, None] - turned[None]) ** 2).sum(-1)).sum()

    for angle in np.linspace(0.1, 2 * np.pi, 20):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        for mirror in (1.0, -1.0):
            assert slant(right) <= slant(right @ turn @ np.diag([1.0, mirror])) + 1e-9


def test_dense_and_sparse_chains_draw_the_same(figure_axes):
    chain = datasets.load_mutag().chains[3]
    np.testing.assert_array_equal(placing.bonds_of(chain), placing.bonds_of(chain.to_dense()))


def test_tensors_that_need_gradients_are_drawn(figure_axes):
    chain = MarkovChain.from_transitions(torch.full((2, 2), 0.5, requires_grad=True))
    mass = torch.full((2, 2), 0.25, requires_grad=True)
    assert len(alignment_lines(plot.alignment(chain, chain, mass, ax=figure_axes())).get_segments()) == 4
    plot.distance_matrix(mass, [0, 1], ax=figure_axes())


def test_bad_alignments_are_refused():
    chain, batch = path_chain(2), MarkovChain.stack([path_chain(2), path_chain(2)])
    mass = np.full((2, 2), 0.25)
    for arguments, options, message in [
        ((batch, chain, mass), {}, r"chain_x: expected a single chain, got a batch of shape \(2,\)"),
        ((chain, batch, mass), {}, r"chain_y: expected a single chain"),
        ((chain, chain, mass[:1]), {}, r"alignment must have one row per state .* got \(1, 2\)"),
        ((chain, chain, mass * np.nan), {}, r"alignment must be finite and nonnegative"),
        ((chain, chain, mass - np.diag([0.0, 0.3])), {}, r"alignment must be .* entries go from -0.0"),
        ((chain, chain, 0 * mass), {}, r"alignment must be .* with some mass"),
        ((chain, chain, mass), {"threshold": 1.5}, "threshold: 1.5 is out of range"),
        ((chain, chain, mass), {"label_names": ["C"]}, r"label_names needs chains whose features"),
        (
            (path_chain(2, features=[0, 3]), chain, mass),
            {"label_names": ["C"]},
            r"label_names has 1 names.* 0 to 3",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            plot.alignment(*arguments, **options)
