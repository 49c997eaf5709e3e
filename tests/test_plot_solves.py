"""Pictures of solves: how the certified error falls, and what makes a distance."""

import sys

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex, to_rgb

from markovot import MarkovChain, Status, costs, discounted_wl, plot
from markovot.analysis.explain import explain
from markovot.datasets import load_mutag
from markovot.plot import common
from solving import value_iteration

X = torch.tensor([[0.8, 0.2, 0.0], [0.1, 0.6, 0.3], [0.0, 0.5, 0.5]], dtype=torch.float64)
Y = torch.tensor([[0.5, 0.5], [0.3, 0.7]], dtype=torch.float64)
COST = torch.tensor([[0.0, 1.0], [1.0, 0.2], [0.4, 2.0]], dtype=torch.float64)
PROBLEM = {"delta": 0.2, "epsilon": 0.05}


def bound(**accuracy):
    return float(discounted_wl(X, Y, COST, **PROBLEM, **accuracy, throw=False).error_bound)


# --- convergence


def test_history_is_what_solves_of_so_many_sweeps_certify():
    history = plot.error_history(X, Y, COST, **PROBLEM, rtol=1e-9)
    assert history.num_iter.tolist() == list(range(1, len(history.num_iter) + 1))
    expected = [bound(rtol=1e-9, max_iter=k) for k in history.num_iter.tolist()]
    np.testing.assert_array_equal(history.error_bound, expected)
    assert history.error_bound[-1] <= 1e-9 * 2.0 < history.error_bound[-2]
    assert (np.diff(history.error_bound) < 0).all()


def test_long_histories_are_sampled_and_end_where_the_solver_does():
    with value_iteration():
        history = plot.error_history(X, Y, COST, **PROBLEM, rtol=1e-9, max_iter=1000)
        whole = discounted_wl(X, Y, COST, **PROBLEM, rtol=1e-9, max_iter=1000)
    assert history.num_iter[-1] == int(whole.num_iter) > 30
    assert history.error_bound[-1] == float(whole.error_bound)
    assert history.num_iter[:12].tolist() == list(range(1, 13))
    assert len(history.num_iter) < 12 + 10 * np.log2(history.num_iter[-1] / 12) + 2
    assert (np.diff(history.num_iter) > 0).all()


@pytest.mark.parametrize("max_iter", [1, 5, 14])
def test_a_history_ends_at_the_solver_s_last_sweep(max_iter):
    with value_iteration():
        history = plot.error_history(X, Y, COST, **PROBLEM, rtol=1e-9, max_iter=max_iter)
        assert history.error_bound[-1] == bound(rtol=1e-9, max_iter=max_iter)
    assert history.num_iter[-1] == max_iter


def test_a_solver_that_stalls_ends_its_history(monkeypatch):
    asked = []

    def counted(*arguments, max_iter, **options):
        asked.append(max_iter)
        return discounted_wl(*arguments, max_iter=max_iter, **options)

    monkeypatch.setattr(sys.modules["markovot.plot.convergence"], "discounted_wl", counted)
    # No solver reaches 1e-17 of the range of the cost in float64.
    history = plot.error_history(X, Y, COST, **PROBLEM, rtol=1e-17)
    whole = discounted_wl(X, Y, COST, **PROBLEM, rtol=1e-17, throw=False)
    assert whole.status is Status.STALLED
    assert history.num_iter.tolist() == list(range(1, int(whole.num_iter) + 1))
    assert asked == [*history.num_iter.tolist(), int(whole.num_iter) + 1]  # one more, to see that it stalled
    assert history.error_bound[-1] == float(whole.error_bound) < 1e-10


def test_the_history_is_a_line_beside_the_rate(figure_axes):
    axes = plot.convergence(X, Y, COST, **PROBLEM, title="T", ax=figure_axes())
    line, rate = axes.lines
    history = plot.error_history(X, Y, COST, **PROBLEM)
    np.testing.assert_array_equal(line.get_xdata(), history.num_iter)
    np.testing.assert_array_equal(line.get_ydata(), history.error_bound)
    assert line.get_label() == "certified error"
    assert axes.get_yscale() == "log"
    assert axes.get_title() == "T"
    assert rate.get_label() == "factor 1 − δ a sweep"
    x, y = rate.get_xdata(), rate.get_ydata()
    np.testing.assert_allclose(np.diff(np.log(y)) / np.diff(x), np.log(0.8))
    assert y[0] == line.get_ydata()[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [line.get_label() for line in axes.lines]


def test_the_line_ends_at_the_accuracy_that_is_asked_for(figure_axes):
    rough, fine = (plot.convergence(X, Y, COST, **PROBLEM, rtol=rtol, ax=figure_axes()) for rtol in (1e-3, 1e-8))
    assert len(rough.lines[0].get_xdata()) < len(fine.lines[0].get_xdata()) <= 30
    assert fine.get_xscale() == "linear"
    with value_iteration():
        slow = plot.convergence(X, Y, COST, **PROBLEM, rtol=1e-8, max_iter=1000, ax=figure_axes())
    assert slow.get_xscale() == "log"


def test_a_solve_of_one_sweep_has_a_point_and_no_rate(figure_axes):
    axes = plot.convergence(X, Y, COST, delta=1.0, epsilon=0.05, ax=figure_axes())
    assert {len(line.get_xdata()) for line in axes.lines} == {1}
    assert len(axes.lines) == 1


def test_an_error_of_zero_has_a_place_on_the_axis(figure_axes):
    one = torch.ones(1, 1, dtype=torch.float64)
    assert plot.error_history(one, one, 0 * one, **PROBLEM).error_bound.tolist() == [0.0]
    axes = plot.convergence(one, one, 0 * one, **PROBLEM, ax=figure_axes())
    assert all(line.get_ydata()[0] > 0 for line in axes.lines)


def test_chains_that_require_gradients_are_solved_without(figure_axes):
    leaf = X.clone().requires_grad_()
    chain = MarkovChain.from_transitions(leaf, features=[0.0, 1.0, 2.0])
    other = MarkovChain.from_transitions(Y, features=[0.0, 1.0])
    history = plot.error_history(chain, other, costs.AbsoluteDifference(), **PROBLEM)
    plain = discounted_wl(
        chain.detach(), other, costs.AbsoluteDifference(), **PROBLEM, rtol=1e-10
    )
    assert history.num_iter[-1] == int(plain.num_iter)  # not a step more, which gradients would take


def test_bad_solves_are_refused(figure_axes):
    with pytest.raises(ValueError, match=r"rtol: 0 is not between 0 and 1"):
        plot.convergence(X, Y, COST, **PROBLEM, rtol=0.0, ax=figure_axes())
    with pytest.raises(ValueError, match=r"y must be a single chain; got a batch of shape \(1,\)"):
        plot.error_history(X, Y[None], COST, **PROBLEM)
    with pytest.raises(ValueError, match=r"x must be a single chain; got a batch of shape \(2,\)"):
        plot.error_history(torch.stack([X, X]), Y, COST, **PROBLEM)


# --- explanation


@pytest.fixture(scope="module")
def molecules():
    mutag = load_mutag()
    x, y = mutag.chains[3], mutag.chains[140]
    solution = discounted_wl(x, y, costs.ZeroOne(), delta=0.2, epsilon=0.01)
    return explain(solution, label_names=mutag.label_names), mutag


def part(axes, gid):
    (found,) = [collection for collection in axes.collections if collection.get_gid() == gid]
    return found


def test_states_grow_and_darken_with_what_they_add(molecules, figure_axes):
    found, _ = molecules
    axes = plot.explanation(found, ax=figure_axes())
    for letter, added in (("x", found.state_x), ("y", found.state_y)):
        states = part(axes, f"states {letter}")
        order = np.argsort(added.numpy(), kind="stable")
        sizes = states.get_sizes()[order]
        light = states.get_facecolors()[order][:, :3] @ [0.299, 0.587, 0.114]
        assert (np.diff(sizes) >= 0).all()
        assert sizes[-1] > sizes[0]
        assert light[-1] < light[0]
    # One scale for both chains.
    assert part(axes, "states y").get_sizes().max() > part(axes, "states x").get_sizes().max()


def test_lines_show_the_effects_of_both_ways(molecules, figure_axes):
    found, mutag = molecules
    axes = plot.explanation(found, ax=figure_axes())
    widest = []
    for letter, effect, number in (("x", found.transition_x, 3), ("y", found.transition_y, 140)):
        lines = part(axes, f"transitions {letter}")
        place = np.asarray(part(axes, f"states {letter}").get_offsets())
        both = {tuple(edge): float(effect[tuple(edge)] + effect[tuple(edge[::-1])]) for edge in mutag.edges[number]}
        drawn = []
        for ends, color in zip(lines.get_segments(), lines.get_colors(), strict=True):
            near = [int(np.linalg.norm(place - end, axis=1).argmin()) for end in ends]
            drawn.append(both[tuple(sorted(near))])
            red, _, blue = color[:3]
            assert (red > blue) == (drawn[-1] > 0)
        assert sorted(drawn) == sorted(both.values())
        assert (np.diff(np.abs(drawn)) >= 0).all()  # the important ones on top
        assert (np.diff(lines.get_linewidths()) >= 0).all()
        widest.append((max(map(abs, drawn)), max(lines.get_linewidths())))
    assert max(widest)[1] == 6.0 > min(widest)[1]  # one scale for both chains


def test_words_and_legends_say_what_is_seen(molecules, figure_axes):
    found, mutag = molecules
    axes = plot.explanation(found, titles=("left", "right"), ax=figure_axes())
    words = [text.get_text() for text in axes.texts]
    atoms = [[mutag.label_names[label] for label in mutag.chains[k].features] for k in (3, 140)]
    assert words == [
        *atoms[0], "left", *atoms[1], "right",
        f"distance {float(found.value):.3g} = {float(found.contributions.sum()):.3g} from states that differ + "
        f"{float(found.entropy):.3g} from entropy",
    ]  # fmt: skip
    effects = axes.get_legend()
    discs = next(child for child in axes.get_children() if type(child).__name__ == "Legend" and child is not effects)
    most = max(float(found.state_x.max()), float(found.state_y.max())) / float(found.value)
    assert [text.get_text() for text in discs.get_texts()] == [f"{100 * most * part:.2g} %" for part in (1, 0.5, 0.1)]
    assert [text.get_text()[0] for text in effects.get_texts()] == ["−", "−", "+", "+"]
    named = plot.explanation(found, label_names=["c", "n", "o", "f", "i", "cl", "br"], ax=figure_axes())
    assert {"c", "n", "o", "cl"} < {text.get_text() for text in named.texts}


def test_pieces_of_an_explanation_stand_where_the_alignment_puts_them(molecules, figure_axes):
    found, _ = molecules
    explained = plot.explanation(found, ax=figure_axes())
    aligned = plot.alignment(found.x, found.y, found.alignment, ax=figure_axes())
    for letter, states in zip("xy", (aligned.collections[2], aligned.collections[4]), strict=True):
        np.testing.assert_array_equal(part(explained, f"states {letter}").get_offsets(), states.get_offsets())


def test_what_makes_nothing_is_drawn_pale(figure_axes):
    still = MarkovChain.from_transitions(torch.eye(2, dtype=torch.float64), initial="uniform")
    solution = discounted_wl(still, still, torch.zeros(2, 2, dtype=torch.float64), delta=1.0, epsilon=0.1)
    axes = plot.explanation(explain(solution), ax=figure_axes())
    assert len(part(axes, "transitions x").get_segments()) == 0
    assert len(set(part(axes, "states x").get_sizes().tolist())) == 1
    walk = MarkovChain.from_transitions(Y, initial="uniform")
    stops = discounted_wl(walk, walk, 1 - torch.eye(2, dtype=torch.float64), delta=1.0, epsilon=0.1)
    lines = part(plot.explanation(explain(stops), ax=figure_axes()), "transitions x")
    np.testing.assert_allclose(lines.get_colors()[:, :3], [to_rgb("0.75")])


def test_what_takes_away_has_a_colour_of_its_own(figure_axes):
    axes = plot.explanation(explain(discounted_wl(X, Y, COST + torch.tensor([-1.0, 3.0]), **PROBLEM)), ax=figure_axes())
    assert "#9e9ac8" in {to_hex(color) for color in part(axes, "states x").get_facecolors()}


def test_only_explanations_are_explained():
    with pytest.raises(TypeError, match=r"explanation: expected what markovot\.analysis\.explain\.explain .*got float"):
        plot.explanation(0.2)


def test_label_names_must_fit(molecules):
    found, _ = molecules
    with pytest.raises(ValueError, match=r"label_names has 2 names, but the labels go from 0 to"):
        plot.explanation(found, label_names=["C", "N"])


def test_pictures_are_drawn_without_warnings_in_figures_of_their_own(molecules, figure_axes):
    figure_axes()  # for matplotlib without a screen
    for axes in (plot.explanation(molecules[0]), plot.convergence(X, Y, COST, **PROBLEM)):
        axes.figure.draw_without_rendering()
    assert common.SAME != common.DIFFERENT
