"""Pictures of trainings and of chains: what is drawn, and where."""

import numpy as np
import pytest
import torch

from learning_checks import directed_ring
from markovot import MarkovChain, plot
from markovot.learning import History

DOUBLE = torch.float64


def history(value):
    value = np.array(value, dtype=float)
    return History(value, np.zeros_like(value), np.zeros(value.shape, dtype=np.int64), np.zeros(len(value)))


def patches(axes, gid):
    return [patch for patch in axes.patches if patch.get_gid() == gid]


def rings_of(axes):
    return [found for found in axes.collections if found.get_gid() == "stay"]


# --- histories
def test_history_is_drawn_on_a_log_axis_with_its_best_step(figure_axes):
    axes = plot.history(history([9.0, 0.1, 0.5]), title="T", ax=figure_axes())
    line, best = axes.lines
    np.testing.assert_array_equal(line.get_ydata(), [9.0, 0.1, 0.5])
    assert (best.get_xdata()[0], best.get_ydata()[0]) == (1, 0.1)
    assert axes.get_yscale() == "log"
    assert axes.get_title() == "T"
    assert [text.get_text() for text in axes.texts] == ["0.1"]


def test_history_that_is_not_positive_has_a_linear_axis(figure_axes):
    axes = plot.history(history([1.0, -0.5]), ax=figure_axes())
    assert axes.get_yscale() == "linear"


def test_of_several_problems_the_best_stands_out(figure_axes):
    axes = plot.history(history([[3.0, 2.0, 4.0], [2.5, 1.0, 3.0]]), ax=figure_axes())
    colors = [line.get_color() for line in axes.lines[:3]]
    assert colors[0] == colors[2] != colors[1]
    assert axes.lines[3].get_ydata()[0] == 1.0


def test_an_empty_history_is_refused():
    with pytest.raises(ValueError, match="no steps to draw"):
        plot.history(history([]))


# --- chains
def test_chain_stands_at_its_features_and_has_an_arrow_for_each_likely_step(figure_axes):
    ring = directed_ring(4)
    axes = plot.chain(ring, title="ring", ax=figure_axes())
    np.testing.assert_allclose(axes.collections[-1].get_offsets(), ring.features.numpy())
    assert len(patches(axes, "step")) == 4
    assert not rings_of(axes)
    assert not axes.texts
    assert axes.get_title() == "ring"


def test_likelier_steps_are_wider_and_unlikely_ones_left_out(figure_axes):
    rows = torch.tensor([[0.0, 0.7, 0.3], [0.95, 0.0, 0.05], [0.0, 0.0, 1.0]], dtype=DOUBLE)
    chain = MarkovChain.from_transitions(rows, initial="uniform")
    axes = plot.chain(chain, ax=figure_axes())
    widths = [arrow.get_linewidth() for arrow in patches(axes, "step")]
    assert widths == sorted(widths)
    np.testing.assert_allclose(widths, np.array([0.3, 0.7, 0.95]) * 2.6)
    assert len(rings_of(axes)) == 1
    assert len(patches(plot.chain(chain, threshold=0.01, ax=figure_axes()), "step")) == 4


def test_names_and_colours(figure_axes):
    chain = MarkovChain.from_adjacency(torch.ones(2, 2, dtype=DOUBLE), features=torch.tensor([6, 8]))
    axes = plot.chain(chain, ax=figure_axes())
    assert [text.get_text() for text in axes.texts] == ["6", "8"]
    axes = plot.chain(chain, names=["C", "O"], label_colors=plot.ELEMENT_COLORS, place=np.eye(2), ax=figure_axes())
    assert [text.get_text() for text in axes.texts] == ["C", "O"]
    colors = axes.collections[-1].get_facecolors()
    assert (colors[0] != colors[1]).any()
    np.testing.assert_allclose(axes.collections[-1].get_offsets(), np.eye(2))


def test_strip_has_one_frame(figure_axes):
    small, large = directed_ring(3), directed_ring(4)
    large = MarkovChain.from_transitions(large.transition, initial="uniform", features=3 * large.features)
    left, right = plot.strip([small, large], titles=["a", "b"], axes=[figure_axes(), figure_axes()])
    assert left.get_xlim() == right.get_xlim()
    assert left.get_ylim() == right.get_ylim()
    assert left.get_xlim()[0] < -3
    assert [left.get_title(), right.get_title()] == ["a", "b"]


RING = directed_ring(3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plot.chain(MarkovChain.stack([RING])), "chain: expected a single chain, got a batch"),
        (lambda: plot.chain(RING, threshold=2.0), "threshold: 2.0 is out of range"),
        (lambda: plot.chain(RING, place=np.zeros((2, 2))), r"place: shape \(2, 2\), wanted \(3, 2\)"),
        (lambda: plot.chain(RING, names=["a"]), "names: 1 for 3 states"),
        (lambda: plot.strip([]), "chains: there are none"),
        (lambda: plot.strip([RING], titles=[]), "titles: 0 for 1 chains"),
        (lambda: plot.strip([RING], axes=[]), "axes: 0 for 1 chains"),
    ],
)
def test_refuses_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
