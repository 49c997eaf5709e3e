"""A tree of clusters, which shows the items that join first."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from markovot import validate
from markovot._arrays import FloatArray, IntArray
from markovot.plot.common import (
    NEUTRAL,
    Distances,
    Labels,
    Style,
    check_class_names,
    check_frame,
    class_legend,
    classes,
    dissimilarities,
    item_names,
    new_axes,
    points_high,
    settle,
    styles,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METHODS = ("average", "complete", "single", "weighted")
"""The linkages that need only distances; the others assume coordinates."""


def dendrogram(
    distances: Distances,
    names: Sequence[Any] | None = None,
    *,
    labels: Labels | None = None,
    class_names: Mapping[Any, str] | None = None,
    method: str = "average",
    title: str | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the tree in which the nearest clusters join first, the root on the left.

    The place where two branches meet shows how far apart their clusters are. If all items of a branch are in one class,
    it has the colour of the class. Neighbours at the leaves are as near each other as the tree allows (optimal leaf
    order).

    Args:
        distances: k × k, finite, k > 1: an array, a tensor, or a `PairwiseSolution`. Entropic distances of things to
            themselves, on the diagonal, are ignored, and negative distances count as zero.
        names: What to write at each leaf. Default: numbers up to 100 items, nothing beyond.
        labels: The class of each item, which colours its name, its leaf and the branches.
        class_names: What to call a class in the legend; the class itself by default.
        method: The distance of clusters: the mean ("average", the default, which depends least on single pairs), the
            largest ("complete") or smallest ("single") among their items, or the mean of the two clusters joined last
            ("weighted").
        title: A title for the axes.
        ax: Where to draw; a new figure by default, as tall as the names need.

    Returns:
        The axes. Leaves stand at the heights 5, 15, 25, ..., the first at the foot.

    Raises:
        ValueError: If `distances` is not square, is not finite or has fewer than two items, if `names` or `labels` is
            of another length, or `method` is none of the four.
        ImportError: If matplotlib is not installed.

    Note:
        Deterministic. O(k^2) memory, O(k^3) time.

    References:
        Bar-Joseph, Gifford, Jaakkola: Fast optimal leaf ordering for hierarchical clustering (2001).

    Example:
        >>> ax = dendrogram([[0, 3, 1], [3, 0, 2], [1, 2, 0]], ["one", "two", "three"])
        >>> [text.get_text() for text in ax.get_yticklabels()]
        ['two', 'three', 'one']
    """
    from scipy.cluster import hierarchy
    from scipy.spatial.distance import squareform

    check_class_names(class_names)
    check_frame(ax, title)
    apart = dissimilarities("distances", distances)
    count = len(apart)
    if count < 2:
        raise ValueError("distances: a tree needs at least two items; got 1.")
    validate.choice("method", method, METHODS)
    written = item_names(names, count)
    if written is None:
        written = [str(k) if count <= 100 else "" for k in range(count)]
    kinds = None if labels is None else classes(labels, count)
    looks = {} if kinds is None else styles(kinds, class_names)
    tree = hierarchy.linkage(squareform(apart), method=method, optimal_ordering=True)

    ax = new_axes(ax, figsize=(6.4, float(np.clip(1.2 + 0.2 * count, 2.4, 12))))
    colors = _branch_colors(tree, kinds, looks)
    drawn = hierarchy.dendrogram(tree, no_plot=True, link_color_func=colors.__getitem__)
    order = np.array(drawn["leaves"])
    _frame(ax, [written[item] for item in order], float(tree[:, 2].max()))
    _draw_branches(ax, drawn)
    if kinds is not None:
        _mark_leaves(ax, order, kinds, looks)
    if title is not None:
        ax.set_title(title, fontsize=11)
    return ax


def _branch_colors(tree: FloatArray, kinds: list[Hashable] | None, looks: Mapping[Hashable, Style]) -> dict[int, str]:
    """The colour of the branches at each inner node: that of the class, if all items below are in the same class."""
    count = len(tree) + 1
    if kinds is None:
        return dict.fromkeys(range(count, 2 * count - 1), NEUTRAL)
    below: list[set[Hashable]] = [{kind} for kind in kinds]
    for left, right in tree[:, :2].astype(int):
        below.append(below[left] | below[right])
    return {
        node: looks[next(iter(found))].color if len(found) == 1 else NEUTRAL
        for node, found in enumerate(below)
        if node >= count
    }


def _frame(ax: "Axes", names: list[str], farthest: float) -> None:
    """Set limits that hold the tree, and write the names at its leaves in letters that fit."""
    ax.set_xlim(1.05 * farthest if farthest > 0 else 1.0, 0.0)
    ax.set_ylim(0.0, 10.0 * len(names))
    ax.yaxis.tick_right()
    ax.set_yticks(10.0 * np.arange(len(names)) + 5.0, names)
    ax.tick_params(axis="y", length=0, pad=7)
    ax.set_xlabel("distance")
    ax.spines[["top", "left", "right"]].set_visible(False)
    settle(ax)
    ax.tick_params(axis="y", labelsize=float(np.clip(0.8 * _room(ax), 3.5, 10)))


def _room(ax: "Axes") -> float:
    """The height of each leaf in points."""
    low, high = ax.get_ylim()
    return points_high(ax) * 10.0 / (high - low)


def _draw_branches(ax: "Axes", drawn: Mapping[str, Any]) -> None:
    """Draw each pair of branches as three lines: from one cluster to the meeting place, across, and to the other."""
    from matplotlib.collections import LineCollection

    heights, joints = np.array(drawn["icoord"]), np.array(drawn["dcoord"])
    ax.add_collection(
        LineCollection(
            list(np.stack([joints, heights], axis=2)),
            colors=drawn["color_list"],
            linewidths=float(np.clip(0.15 * _room(ax), 0.6, 1.6)),
        ),
        autolim=False,
    )


def _mark_leaves(ax: "Axes", order: IntArray, kinds: list[Hashable], looks: Mapping[Hashable, Style]) -> None:
    """Draw the mark of its class at each leaf, colour the names by class, and add a legend."""
    height = 10.0 * np.arange(len(order)) + 5.0
    found = [kinds[item] for item in order]
    for label, style in looks.items():
        members = np.array([kind == label for kind in found])
        ax.scatter(
            np.zeros(members.sum()),
            height[members],
            s=float(np.clip(0.5 * _room(ax), 2.0, 5.5)) ** 2,
            color=style.color,
            marker=style.marker,
            clip_on=False,
            zorder=3,
        )
    for text, kind in zip(ax.get_yticklabels(), found, strict=True):
        text.set_color(looks[kind].color)
    class_legend(ax, looks, Counter(kinds), below=43.0 / points_high(ax))
