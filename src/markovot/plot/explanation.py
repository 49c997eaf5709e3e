"""The explanation of a distance, drawn on the two chains."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from markovot._arrays import FloatArray, IntArray
from markovot.analysis.explain import Explanation
from markovot.chains.names import short_names
from markovot.plot.common import (
    as_array,
    check_frame,
    check_titles,
    frame_pair,
    new_axes,
    state_diameter,
    title_above,
    write_states,
)
from markovot.plot.placing import bonds_of, side_by_side

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Color: TypeAlias = tuple[float, float, float]

WIDEST = 6.0  # points: the line of the transition with the largest effect
CLOSER, APART = "#2166ac", "#b2182b"  # more weight of a transition brings the chains closer, or sets them apart
_STATES, _NEGATIVE = "YlOrBr", "#9e9ac8"  # colours of states that add to the distance, and of those that reduce it


def explanation(
    explanation: Explanation,
    *,
    label_names: Sequence[str] | None = None,
    titles: tuple[str, str] = ("X", "Y"),
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the two chains, and show which states the distance comes from, and which transitions would change it.

    The darker and larger a state, the more it adds to the distance. The wider the line between two states, the more the
    distance changes with the weight of the transitions between them, both ways together: red where more weight sets the
    chains further apart, blue where it brings them closer. The caption says how the distance divides into states and
    entropy. The places are those of `alignment`.

    Args:
        explanation: What `markovot.analysis.explain.explain` returned.
        label_names: The name of feature 0, 1, ..., written on the states. By default those of the explanation; or else
            the states' own names, their labels or numbers.
        titles: What to write above X and Y.
        ax: Where to draw; a new figure by default.

    Returns:
        The axes. The lines between states are its collections whose gids are "transitions x" and "transitions y", the
        states those called "states x" and "states y".

    Raises:
        TypeError: If it is no explanation.
        ValueError: If features have no name in `label_names`.
        ImportError: If matplotlib is not installed.

    Note:
        The chance of staying where one is has an effect too; it is not drawn: see `Explanation.top_transitions`.
        Deterministic. The layout takes time O(n^3): meant for chains of up to a few hundred states.

    Example:
        >>> import torch, markovot
        >>> from markovot.analysis.explain import explain
        >>> path = markovot.MarkovChain.from_adjacency(torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64))
        >>> cost = torch.tensor([[0.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
        >>> ax = explanation(explain(markovot.discounted_wl(path, path, cost, delta=0.5, epsilon=0.1)))
        >>> [text.get_text() for text in ax.texts][:3]
        ['0', '1', 'X']
    """
    if not isinstance(explanation, Explanation):
        raise TypeError(
            f"explanation: expected what markovot.analysis.explain.explain returns, got {type(explanation).__name__}."
        )
    check_titles(titles)
    check_frame(ax)
    chains = explanation.x, explanation.y
    words = explanation.label_names if label_names is None else label_names
    names = [short_names(chain, words) for chain in chains]
    bonds = [bonds_of(chain) for chain in chains]
    mass = as_array("alignment", explanation.alignment)
    places = side_by_side(len(names[0]), bonds[0], len(names[1]), bonds[1], mass)
    value = float(explanation.value)
    shares = [as_array("contributions", added) / (value or 1.0) for added in (explanation.state_x, explanation.state_y)]
    effects = [
        _both_ways(as_array("effect", effect), pairs)
        for effect, pairs in zip((explanation.transition_x, explanation.transition_y), bonds, strict=True)
    ]
    ax = new_axes(ax, figsize=(8.0, 5.4))
    frame_pair(ax, *places)
    widest = max([abs(effect).max(initial=0.0) for effect in effects])
    most = max([abs(share).max(initial=0.0) for share in shares]) or 1.0
    for letter, place, pairs, effect in zip("xy", places, bonds, effects, strict=True):
        _draw_transitions(ax, place, pairs, effect / (widest or 1.0), f"transitions {letter}")
    for letter, place, share, words, title in zip("xy", places, shares, names, titles, strict=True):
        _draw_states(ax, place, share / most, words, f"states {letter}")
        title_above(ax, place, title)
    _legend(ax, widest, most)
    _caption(ax, explanation)
    return ax


def _both_ways(effect: FloatArray, pairs: IntArray) -> FloatArray:
    """The total effect of the two weights between the states of each pair, one for each direction."""
    there, back = pairs[:, 0], pairs[:, 1]
    result: FloatArray = effect[there, back] + effect[back, there]
    return result


def _line_width(relative: Any, least: float = 0.8) -> Any:
    return least + (WIDEST - least) * np.abs(relative)


def _draw_transitions(ax: "Axes", place: FloatArray, pairs: IntArray, relative: FloatArray, gid: str) -> None:
    """Draw the lines between states, the largest effects on top; lines with little effect are thin."""
    from matplotlib.collections import LineCollection

    order = np.argsort(np.abs(relative), kind="stable")
    least = float(np.clip(1.2 * len(place) / max(len(pairs), 1), 0.15, 0.8))
    lines = LineCollection(
        [place[[i, j]] for i, j in pairs[order]],
        colors=[_hue(size) for size in relative[order]],
        linewidths=_line_width(relative[order], least),
        zorder=2,
    )
    lines.set_gid(gid)
    ax.add_collection(lines, autolim=False)


def _hue(relative: float) -> Color:
    """The colour of a line: red or blue, and greyer for a smaller effect."""
    from matplotlib.colors import to_rgb

    strong, weak = np.array(to_rgb(APART if relative > 0 else CLOSER)), np.array(to_rgb("0.75"))
    share = min(1.0, 1.5 * abs(relative) ** 0.5)
    red, green, blue = share * strong + (1 - share) * weak
    return red, green, blue


def _fill(relative: float) -> Color:
    """The colour of a state, given what it adds relative to the state that adds most."""
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb

    if relative < 0:
        return to_rgb(_NEGATIVE)
    return colormaps[_STATES](0.04 + 0.78 * float(relative))[:3]


def _draw_states(ax: "Axes", place: FloatArray, relative: FloatArray, names: list[str], gid: str) -> None:
    diameter = state_diameter(ax, names)
    fills = np.array([_fill(size) for size in relative])
    states = ax.scatter(
        place[:, 0],
        place[:, 1],
        s=_area(diameter, relative),
        c=fills,
        edgecolors="0.35",
        linewidths=0.8,
        zorder=3,
    )
    states.set_gid(gid)
    light = fills @ [0.299, 0.587, 0.114] > 0.55
    write_states(ax, place, names, np.where(light, "0.1", "white").tolist(), diameter)


def _area(diameter: float, relative: Any) -> Any:
    """The area of a state's disc in square points. Its name must fit, so even the smallest disc has some size."""
    return diameter**2 * (0.5 + 0.7 * np.abs(relative))


def _legend(ax: "Axes", widest: float, most: float) -> None:
    """Draw the legends below the axes: for discs on the left, for lines on the right."""
    from matplotlib.lines import Line2D

    def disc(relative: float) -> Line2D:
        return Line2D(
            [], [], linestyle="", marker="o", color=_fill(relative), markeredgecolor="0.35", markeredgewidth=0.8,
            markersize=np.sqrt(_area(11.0, relative)), label=f"{100 * relative * most:.2g} %",
        )  # fmt: skip

    def line(relative: float) -> Line2D:
        words = f"{relative * widest:+.2g}".replace("-", "−")
        return Line2D([], [], color=_hue(relative), linewidth=_line_width(relative), label=words)

    style: dict[str, Any] = {"frameon": False, "fontsize": 9, "title_fontsize": 9}
    style |= {"handletextpad": 0.9, "columnspacing": 1.3, "handlelength": 1.6}
    discs = ax.legend(
        handles=[disc(relative) for relative in (1.0, 0.5, 0.1)],
        title="share of the distance that a state adds",
        loc="upper right",
        bbox_to_anchor=(0.46, -0.04),
        ncols=3,
        **style,
    )
    ax.add_artist(discs)
    ax.legend(
        handles=[line(relative) for relative in (-1.0, -0.5, 0.5, 1.0)],
        title="change of the distance per relative growth of a weight",
        loc="upper left",
        bbox_to_anchor=(0.5, -0.04),
        ncols=4,
        **style,
    )


def _caption(ax: "Axes", explanation: Explanation) -> None:
    words = (
        f"distance {float(explanation.value):.3g} = {float(explanation.contributions.sum()):.3g} from states that "
        f"differ + {float(explanation.entropy):.3g} from entropy"
    )
    ax.text(0.5, 0.0, words, transform=ax.transAxes, ha="center", va="center", fontsize=9.5, color="0.25")
