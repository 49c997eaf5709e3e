"""A chain as arrows between its states, and strips of chains side by side."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from markovot import validate
from markovot.chains import MarkovChain, single
from markovot.chains.names import short_names
from markovot.plot.common import (
    NEUTRAL,
    PALETTE,
    FloatArray,
    as_array,
    check_colors,
    check_frame,
    new_axes,
    state_colors,
)
from markovot.plot.placing import layout

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDEST = 2.6  # points: the arrow of a step that is certain


def chain(
    chain: MarkovChain,
    *,
    place: ArrayLike | None = None,
    names: Sequence[Any] | None = None,
    label_colors: Mapping[str, str] | None = None,
    threshold: float = 0.1,
    title: str | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw a chain: its states as discs, its likely steps as arrows. Likelier steps are wider and darker.

    Args:
        chain: a single chain.
        place: the position of each state, (n, 2). Default: its features, if these are pairs of numbers; else positions
            that make likely steps short.
        names: what to write on the states. Default: labels or names, where the chain has them.
        label_colors: a colour for each name, such as `ELEMENT_COLORS`. Default: all states alike.
        threshold: the least probability of a step that is drawn, in [0, 1].
        title: a title for the axes.
        ax: where to draw; a new figure by default.

    Returns:
        The axes. The arrows are its patches with the gid "step"; the rings of states that may stay have the gid "stay".

    Raises:
        ValueError: a batch, places or names of another number than the states, a threshold outside [0, 1].
        ImportError: matplotlib is not installed.

    Note:
        Deterministic. Meant for up to some fifty states.

    Example:
        >>> import torch
        >>> ring = MarkovChain.from_transitions(torch.eye(3).roll(1, 1), initial="uniform")
        >>> ax = chain(ring)
        >>> len([patch for patch in ax.patches if patch.get_gid() == "step"])
        3
    """
    single("chain", chain)
    threshold = validate.number("threshold", threshold, 0.0, 1.0)
    check_colors(label_colors)
    check_frame(ax, title)
    rows = chain.detach().to_dense().transition.double().numpy(force=True)
    points = _places(chain, rows, place, threshold)
    texts = _texts(chain, names)
    ax = new_axes(ax, figsize=(4.2, 4.2))
    ax.set_aspect("equal")
    ax.set_axis_off()
    margin = 0.14 * max(float(np.ptp(points, axis=0).max()), 1e-9)
    ax.set_xlim(points[:, 0].min() - margin, points[:, 0].max() + margin)
    ax.set_ylim(points[:, 1].min() - margin, points[:, 1].max() + margin)
    size = 7.0 if texts is None else 12.0
    _draw_steps(ax, points, rows, threshold, size)
    colors: Any = PALETTE[0]
    if texts is not None and label_colors is not None:
        found = state_colors(texts, label_colors)
        colors = [found[text] for text in texts]
    ax.scatter(points[:, 0], points[:, 1], s=size**2, c=colors, edgecolors="white", linewidths=0.8, zorder=3)
    for point, text in zip(points, texts or [], strict=False):
        ax.annotate(
            text, point, ha="center", va="center_baseline", color="white", fontsize=0.55 * size, weight="bold", zorder=4
        )
    if title is not None:
        ax.set_title(title, fontsize=10)
    return ax


def strip(
    chains: Sequence[MarkovChain],
    *,
    titles: Sequence[str] | None = None,
    threshold: float = 0.1,
    axes: Sequence["Axes"] | None = None,
) -> list["Axes"]:
    """Draw chains side by side, on one scale: snapshots of a flow, or the small chains of several coarsenings.

    Args:
        chains: single chains. If their features are pairs of numbers, these are the positions, in one common frame.
        titles: one above each.
        threshold: as in `chain`.
        axes: where to draw, one for each chain; a new figure by default.

    Returns:
        The axes, one for each chain.

    Raises:
        ValueError: no chains, titles or axes of another number, and what `chain` raises.
        ImportError: matplotlib is not installed.

    Example:
        >>> import torch
        >>> rings = [MarkovChain.from_transitions(torch.eye(n).roll(1, 1), initial="uniform") for n in (3, 4)]
        >>> len(strip(rings, titles=["three", "four"]))
        2
    """
    chains = [single(f"chains[{k}]", one) for k, one in enumerate(validate.items("chains", chains, "several chains"))]
    if not chains:
        raise ValueError("chains: there are none to draw.")
    threshold = validate.number("threshold", threshold, 0.0, 1.0)
    if titles is not None:
        titles = validate.texts("titles", titles)
    for name, others in (("titles", titles), ("axes", axes)):
        if others is not None and len(validate.sequence(name, others, name)) != len(chains):
            raise ValueError(f"{name}: {len(others)} for {len(chains)} chains. Give one for each.")
    if axes is None:
        axes = _row(len(chains))
    drawn = [
        chain(one, threshold=threshold, title=None if titles is None else titles[k], ax=ax)
        for k, (one, ax) in enumerate(zip(chains, axes, strict=True))
    ]
    if all(_has_plane(one) for one in chains):
        frames = np.array([[*ax.get_xlim(), *ax.get_ylim()] for ax in drawn])
        for ax in drawn:
            ax.set_xlim(frames[:, 0].min(), frames[:, 1].max())
            ax.set_ylim(frames[:, 2].min(), frames[:, 3].max())
    return drawn


def _row(count: int) -> list["Axes"]:
    from markovot._optional import require

    pyplot = require("matplotlib.pyplot", extra="plot", what="markovot.plot")
    figure = pyplot.figure(figsize=(2.3 * count, 2.6), layout="compressed")
    return list(figure.subplots(1, count, squeeze=False)[0])


def _has_plane(one: MarkovChain) -> bool:
    features = one.features
    return features is not None and features.is_floating_point() and features.shape[-2:] == (one.num_states, 2)


def _places(one: MarkovChain, rows: FloatArray, place: ArrayLike | None, threshold: float) -> FloatArray:
    if place is not None:
        points = as_array("place", place)
        if points.shape != (one.num_states, 2):
            raise ValueError(f"place: shape {points.shape}, wanted {(one.num_states, 2)}, a point for each state.")
        return points
    if _has_plane(one):
        return as_array("features", one.features)
    likely = np.argwhere(np.triu(np.maximum(rows, rows.T) >= max(threshold, 1e-12), 1))
    return layout(one.num_states, likely)


def _texts(one: MarkovChain, names: Sequence[Any] | None) -> list[str] | None:
    if names is not None:
        if len(validate.sequence("names", names, "names")) != one.num_states:
            raise ValueError(f"names: {len(names)} for {one.num_states} states. Give one for each.")
        return [str(name) for name in names]
    has_labels = one.features is not None and not torch.is_floating_point(one.features)
    return short_names(one, None) if one.state_names is not None or has_labels else None


def _draw_steps(ax: "Axes", points: FloatArray, rows: FloatArray, threshold: float, size: float) -> None:
    """Draw the arrows, light ones first; two states that lead to each other get two bent arrows."""
    from matplotlib.patches import FancyArrowPatch

    steps = np.argwhere((rows >= threshold) & (rows > 0))
    for i, j in steps[np.argsort(rows[steps[:, 0], steps[:, 1]], kind="stable")]:
        chance = float(rows[i, j])
        look: dict[str, Any] = {"linewidth": max(WIDEST * chance, 0.5), "alpha": 0.45 + 0.5 * chance}
        if i == j:
            _draw_ring(ax, points[i], size, look)
            continue
        arrow = FancyArrowPatch(
            tuple(points[i]),
            tuple(points[j]),
            connectionstyle="arc3,rad=0.12",
            arrowstyle="-|>",
            mutation_scale=5.0 + 5.0 * chance,
            shrinkA=size / 2,
            shrinkB=size / 2,
            color=NEUTRAL,
            zorder=2,
            **look,
        )
        arrow.set_gid("step")
        ax.add_patch(arrow)


def _draw_ring(ax: "Axes", point: FloatArray, size: float, look: dict[str, Any]) -> None:
    """Draw a ring around the disc of a state that may stay where it is."""
    ring = ax.scatter(
        [point[0]],
        [point[1]],
        s=(size + 5) ** 2,
        facecolors="none",
        edgecolors=NEUTRAL,
        linewidths=look["linewidth"],
        alpha=look["alpha"],
        zorder=2.5,
    )
    ring.set_gid("stay")
