"""A distance matrix, ordered by class."""

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from markovot._arrays import IntArray
from markovot.plot.common import (
    Distances,
    Labels,
    as_array,
    check_class_names,
    check_frame,
    class_name,
    classes,
    dissimilarities,
    new_axes,
    points_high,
    settle,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LETTER = 5.2  # the mean width of a letter, in points, in type of ten points


def distance_matrix(
    values: Distances,
    labels: Labels,
    *,
    class_names: Mapping[Any, str] | None = None,
    title: str | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw a square distance matrix, ordered by class, with a bracket for each class.

    Within a class, items that are close stand side by side (average linkage with optimal leaf order), so that
    blocks on the diagonal are groups of similar items.

    Args:
        values: The distances, k × k, finite: an array, a tensor, or a `PairwiseSolution`.
        labels: The class of each of the k items.
        class_names: What to write at the bracket of a class; the class itself by default.
        title: A title for the axes.
        ax: Where to draw; a new figure by default.

    Returns:
        The axes. The order of the items is not kept; see `class_order`, which makes it.

    Raises:
        ValueError: If `values` is not square, is empty or not finite, or `labels` is of another length.
        ImportError: If matplotlib is not installed.

    Note:
        Deterministic. O(k^2) memory, O(k^2) time but for the leaf order, which is O(c^3) in the largest class
        c.

    Example:
        >>> ax = distance_matrix([[0, 2, 1], [2, 0, 2], [1, 2, 0]], ["a", "b", "a"])
        >>> ax.images[0].get_array().tolist()
        [[0.0, 1.0, 2.0], [1.0, 0.0, 2.0], [2.0, 2.0, 0.0]]
    """
    check_class_names(class_names)
    check_frame(ax, title)
    matrix = as_array("values", values)
    order = class_order(matrix, labels)
    names = classes(labels, len(matrix))
    ax = new_axes(ax, figsize=(6.4, 5.4))
    image = ax.imshow(matrix[np.ix_(order, order)], cmap="viridis_r", interpolation="nearest")
    bar = ax.figure.colorbar(image, ax=ax, fraction=0.046, pad=0.03)
    bar.set_label("distance")
    bar.outline.set_visible(False)

    ax.spines[:].set_visible(False)
    if title is not None:
        ax.set_title(title, fontsize=11)
    _name_classes(ax, [names[i] for i in order], class_names)
    return ax


def class_order(values: Distances, labels: Labels) -> IntArray:
    """The order in which `distance_matrix` draws.

    Classes come as they first appear; within a class, items that are close stand side by side.

    Args:
        values: The distances, k × k, finite: an array, a tensor, or a `PairwiseSolution`.
        labels: The class of each of the k items.

    Returns:
        A permutation of 0 .. k-1.

    Raises:
        ValueError: If `values` is not square, is empty or not finite, or `labels` is of another length.

    Example:
        >>> class_order([[0, 2, 1], [2, 0, 2], [1, 2, 0]], ["a", "b", "a"]).tolist()
        [0, 2, 1]
    """
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    apart = dissimilarities("values", values)
    names = classes(labels, len(apart))
    order: list[int] = []
    for name in dict.fromkeys(names):
        members = np.array([i for i, other in enumerate(names) if other == name])
        if len(members) > 2:
            tree = linkage(squareform(apart[np.ix_(members, members)]), method="average", optimal_ordering=True)
            members = members[leaves_list(tree)]
        order.extend(members.tolist())
    return np.array(order, dtype=np.int64)


def _name_classes(ax: "Axes", labels: list[Hashable], class_names: Mapping[Any, str] | None) -> None:
    """Draw a named bracket left of the rows of each class, and lines between the classes."""
    starts = [i for i, label in enumerate(labels) if i == 0 or label != labels[i - 1]]
    stops = [*starts[1:], len(labels)]
    across = ax.get_yaxis_transform()  # x as a share of the axes, y in rows
    for start, stop in zip(starts, stops, strict=True):
        margin = 0.06 * min(stop - start, 10)  # neighbouring brackets must not touch
        top, bottom = start - 0.5 + margin, stop - 0.5 - margin
        ax.plot(
            (-0.01, -0.025, -0.025, -0.01),
            (top, top, bottom, bottom),
            transform=across,
            color="0.25",
            lw=1.2,
            clip_on=False,
        )
    for start in starts[1:]:
        ax.axhline(start - 0.5, color="white", linewidth=1.2)
        ax.axvline(start - 0.5, color="white", linewidth=1.2)
    counts = [stop - start for start, stop in zip(starts, stops, strict=True)]
    names = [f"{class_name(labels[start], class_names)} ({count})" for start, count in zip(starts, counts, strict=True)]
    ax.set_xticks([])
    middles = [(start + stop - 1) / 2 for start, stop in zip(starts, stops, strict=True)]
    ax.set_yticks(middles, names, rotation=90, va="center", fontsize=10)
    ax.tick_params(axis="y", length=0, pad=12)
    settle(ax)
    room = points_high(ax) * np.array(counts) / sum(counts)
    if any(_LETTER * len(name) > height for name, height in zip(names, room, strict=True)):
        # If some names are longer than their brackets, all are written level, in letters that fit.
        ax.set_yticks(middles, names, rotation=0, va="center", fontsize=float(np.clip(0.85 * room.min(), 4, 10)))
