"""Two chains side by side, and their soft alignment."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from markovot import validate
from markovot._arrays import FloatArray, IntArray
from markovot.chains import MarkovChain, single
from markovot.chains.names import labels_of, short_names
from markovot.plot.common import (
    DIFFERENT,
    SAME,
    as_array,
    check_colors,
    check_frame,
    check_titles,
    frame_pair,
    new_axes,
    state_colors,
    state_diameter,
    title_above,
    write_states,
)
from markovot.plot.placing import bonds_of, side_by_side

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDEST = 5.0  # width of the line of the heaviest pair, in points


def alignment(
    chain_x: MarkovChain,
    chain_y: MarkovChain,
    alignment: ArrayLike | Tensor,
    *,
    label_names: Sequence[str] | None = None,
    label_colors: Mapping[str, str] | None = None,
    titles: tuple[str, str] = ("X", "Y"),
    threshold: float = 0.15,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw two chains side by side, and their soft alignment as lines between states.

    The wider a line, the more of the alignment's mass it carries. If the features of the chains are integer
    labels, lines between states with different labels have another colour: the distance comes from these. Y is
    turned and mirrored so that the lines are as level as possible.

    Args:
        chain_x: A single chain (no batch dimensions), drawn on the left. Two states are joined where either
            moves to the other; directions are not drawn.
        chain_y: The chain on the right.
        alignment: How much of X's state i goes with Y's state j, n × m, nonnegative: `Solution.alignment`.
        label_names: The name of feature 0, 1, ..., written on the states. By default the states' own names,
            or else their labels or numbers.
        label_colors: A colour for each name written on a state; distinct colours by default. See
            `ELEMENT_COLORS`.
        titles: What to write above X and Y.
        threshold: A line is drawn if it carries at least this share of the mass of one of the two states it
            joins; in [0, 1]. A state without a line has no clear partner.
        ax: Where to draw; a new figure by default.

    Returns:
        The axes. The lines are its collection whose gid is "alignment".

    Raises:
        ValueError: If a chain is a batch, if `alignment` is not a nonnegative finite n × m matrix with some
            mass, or if `threshold` is outside [0, 1].
        ImportError: If matplotlib is not installed.

    Note:
        Deterministic. The layout takes time O(n^3): meant for chains of up to a few hundred states.

    Example:
        >>> import torch
        >>> from markovot import MarkovChain
        >>> path = MarkovChain.from_adjacency(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        >>> ax = alignment(path, path, torch.tensor([[0.4, 0.1], [0.1, 0.4]]))
        >>> len([c for c in ax.collections if c.get_gid() == "alignment"][0].get_segments())
        4
    """
    check_titles(titles)
    check_colors(label_colors)
    check_frame(ax)
    mass = _checked_alignment(chain_x, chain_y, alignment, threshold)
    names_x, names_y = short_names(chain_x, label_names), short_names(chain_y, label_names)
    bonds_x, bonds_y = bonds_of(chain_x), bonds_of(chain_y)
    place_x, place_y = side_by_side(chain_x.num_states, bonds_x, chain_y.num_states, bonds_y, mass)

    ax = new_axes(ax, figsize=(8.0, 4.8))
    frame_pair(ax, place_x, place_y)
    labels_x, labels_y = labels_of(chain_x), labels_of(chain_y)
    if labels_x is None or labels_y is None:
        same = np.ones(mass.shape, dtype=bool)
    else:
        same = labels_x[:, None] == labels_y[None]
    _draw_lines(ax, place_x, place_y, mass, same, threshold)
    colors = state_colors(names_x + names_y, label_colors)
    for place, bonds, names, title in zip(
        (place_x, place_y), (bonds_x, bonds_y), (names_x, names_y), titles, strict=True
    ):
        _draw_chain(ax, place, bonds, names, colors)
        title_above(ax, place, title)
    return ax


def _checked_alignment(
    chain_x: MarkovChain, chain_y: MarkovChain, alignment: ArrayLike | Tensor, threshold: float
) -> FloatArray:
    for name, chain in (("chain_x", chain_x), ("chain_y", chain_y)):
        single(name, chain)
    validate.number("threshold", threshold, 0.0, 1.0)
    mass = as_array("alignment", alignment)
    expected = (chain_x.num_states, chain_y.num_states)
    if mass.shape != expected:
        raise ValueError(
            "alignment must have one row per state of chain_x and one column per state of chain_y, "
            f"{expected}; got {mass.shape}."
        )
    if not np.isfinite(mass).all() or mass.min() < -1e-9 or mass.max() <= 0.0:
        raise ValueError(
            "alignment must be finite and nonnegative, with some mass; "
            f"its entries go from {mass.min()} to {mass.max()}."
        )
    return mass


def _draw_lines(
    ax: "Axes",
    place_x: FloatArray,
    place_y: FloatArray,
    mass: FloatArray,
    same: NDArray[np.bool_],
    threshold: float,
) -> None:
    """Draw the lines of the alignment, light ones first, and a legend for their width and colour."""
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgba
    from matplotlib.lines import Line2D

    heaviest = mass.max()
    lighter = np.minimum(mass.sum(1)[:, None], mass.sum(0)[None, :])
    pairs = np.argwhere((mass >= threshold * lighter) & (mass > 0))
    pairs = pairs[np.argsort(mass[pairs[:, 0], pairs[:, 1]], kind="stable")]
    shares = mass[pairs[:, 0], pairs[:, 1]] / heaviest
    hues = [SAME if same[i, j] else DIFFERENT for i, j in pairs]

    def style(share: float) -> dict[str, Any]:
        return {"linewidth": max(WIDEST * share, 0.5), "alpha": 0.45 + 0.4 * share}

    lines = LineCollection(
        [np.array([place_x[i], place_y[j]]) for i, j in pairs],
        colors=[to_rgba(color, style(share)["alpha"]) for color, share in zip(hues, shares, strict=True)],
        linewidths=[style(share)["linewidth"] for share in shares],
        capstyle="round",
        zorder=1,
    )
    lines.set_gid("alignment")
    ax.add_collection(lines, autolim=False)

    handles = [
        Line2D([], [], color=SAME, label=f"{100 * share * heaviest / mass.sum():.2g} %", **style(share))
        for share in (1.0, 0.5, 0.1)
    ]
    if DIFFERENT in hues:
        handles += [Line2D([], [], color=SAME, linewidth=3, label="same label")]
        handles += [Line2D([], [], color=DIFFERENT, linewidth=3, label="different labels")]
    ax.legend(
        handles=handles,
        title="share of the alignment that a line carries",
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        ncols=len(handles),
        frameon=False,
        fontsize=9,
        title_fontsize=9,
    )


def _draw_chain(ax: "Axes", place: FloatArray, bonds: IntArray, names: list[str], colors: Mapping[str, str]) -> None:
    from matplotlib.collections import LineCollection

    segments = [place[[i, j]] for i, j in bonds]
    ax.add_collection(LineCollection(segments, colors="0.2", linewidths=2.0, zorder=2), autolim=False)
    diameter = state_diameter(ax, names)
    ax.scatter(
        place[:, 0],
        place[:, 1],
        s=diameter**2,
        c=[colors[name] for name in names],
        edgecolors="white",
        zorder=3,
    )
    write_states(ax, place, names, ["white"] * len(names), diameter)
