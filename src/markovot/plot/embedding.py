"""A map: items as points in the plane, whose distances are as close as possible to the given ones."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from markovot import validate
from markovot._arrays import FloatArray, IntArray
from markovot._optional import require
from markovot.plot.common import (
    NEUTRAL,
    Distances,
    Labels,
    check_class_names,
    check_frame,
    class_legend,
    classes,
    dissimilarities,
    item_names,
    new_axes,
    settle,
    styles,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_STARTS = 1_000_000  # more starts would never end
_MAX_ITER, _EPS = 1000, 1e-6  # for one run of SMACOF; after 300 iterations some maps of 200 items are not finished
_CORNERS = [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1)]  # where a name may stand


class Positions(NamedTuple):
    """Where `embedding` draws the items.

    Attributes:
        place: the points (k, 2), centred, in units of the distance.
        stress: how far the map is from the given distances: 0 for a perfect map. See `positions`.
    """

    place: FloatArray
    stress: float


def embedding(
    distances: Distances,
    labels: Labels | None = None,
    *,
    names: Sequence[Any] | None = None,
    class_names: Mapping[Any, str] | None = None,
    seed: int = 0,
    starts: int = 4,
    title: str | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw a map of all items: points that are near each other stand for items that are.

    A note in the corner says how exact the map is: the relative error of its distances, in the root mean square.
    Directions mean nothing, and neither does the position of the centre.

    Args:
        distances: k × k, finite: an array, a tensor, or a `PairwiseSolution`. The diagonal is ignored, and negative
            distances count as zero.
        labels: The class of each item, shown by colour and shape, with a legend. Up to 49 look different.
        names: What to write beside each point; for some dozens of items, so that there is room.
        class_names: What to call a class in the legend; the class itself by default.
        seed: For the random starts.
        starts: How many random starts to try besides classical scaling, at least 0. The best map is drawn.
        title: A title for the axes.
        ax: Where to draw; a new figure by default.

    Returns:
        The axes. The places are those of `positions`, with the same seed and starts.

    Raises:
        ValueError: If `distances` is not square, is empty or not finite, or `labels` or `names` is of another length.
        ImportError: If matplotlib or scikit-learn is not installed.

    Note:
        Deterministic. See `positions` for the method and its time.

    Example:
        >>> ax = embedding([[0, 2, 1], [2, 0, 2], [1, 2, 0]], ["a", "b", "a"], names=["one", "two", "three"])
        >>> [text.get_text() for text in ax.texts]
        ['map distances off by 0.0 %', 'one', 'two', 'three']
    """
    check_class_names(class_names)
    check_frame(ax, title)
    apart = dissimilarities("distances", distances)
    kinds = None if labels is None else classes(labels, len(apart))
    written = item_names(names, len(apart))
    place, stress = positions(apart, seed=seed, starts=starts)
    ax = new_axes(ax, figsize=(6.4, 5.6))
    _draw_points(ax, place, kinds, class_names)
    _frame(ax, place)
    if title is not None:
        ax.set_title(title, fontsize=11)
    honesty = f"map distances off by {100 * stress:.1f} %"
    ax.text(0.99, 0.012, honesty, transform=ax.transAxes, ha="right", va="bottom", fontsize=9, color="0.35")
    if written is not None:
        _write_names(ax, place, written)
    return ax


def positions(distances: Distances, *, seed: int = 0, starts: int = 4) -> Positions:
    r"""Points in the plane whose distances come closest to the given ones (metric multidimensional scaling).

    $$\min_x \sum_{i<j} (|x_i - x_j| - d_{ij})^2, \qquad
      \text{stress} = \Big(\sum_{i<j} (|x_i - x_j| - d_{ij})^2 \Big/ \sum_{i<j} d_{ij}^2\Big)^{1/2}.$$

    Args:
        distances: k × k, finite: an array, a tensor, or a `PairwiseSolution`.
        seed: For the random starts.
        starts: How many random starts to try besides classical scaling, at least 0.

    Returns:
        The points, turned so that they spread most from left to right, and the stress: 0.05 is a good map, at 0.2
        distances are off by a fifth.

    Raises:
        ValueError: If `distances` is not square, is empty or not finite, or `starts` is negative.
        ImportError: If scikit-learn is not installed.

    Note:
        Deterministic for a seed. Each start takes scikit-learn's SMACOF up to 1000 iterations of time O(k^2): seconds
        for some hundreds of items.

    References:
        Borg, Groenen: Modern Multidimensional Scaling (2005).

    Example:
        >>> place, stress = positions([[0, 3, 4], [3, 0, 5], [4, 5, 0]])
        >>> print(f"{np.linalg.norm(place[1] - place[2]):.2f}, stress {stress:.2f}")
        5.00, stress 0.00
    """
    apart = dissimilarities("distances", distances)
    seed, starts = validate.count("seed", seed), validate.count("starts", starts, high=MOST_STARTS)
    manifold = require("sklearn.manifold", extra="sklearn", what="markovot.plot.embedding")
    if not apart.any():
        return Positions(np.zeros((len(apart), 2)), 0.0)
    scale = apart.max()
    rng = np.random.default_rng(seed)
    candidates = [_classical(apart / scale)] + [rng.normal(size=(len(apart), 2)) for _ in range(starts)]
    best = Positions(np.zeros((len(apart), 2)), np.inf)
    for start in candidates:
        place, _ = manifold.smacof(
            apart / scale, metric=True, init=start, n_init=1, max_iter=_MAX_ITER, eps=_EPS, normalized_stress=False
        )
        stress = _stress(place, apart / scale)
        if stress < best.stress * (1 - 1e-6):  # the first of equals, whatever the rounding
            best = Positions(place, stress)
    return Positions(scale * _upright(best.place), best.stress)


def _classical(apart: FloatArray) -> FloatArray:
    """Classical scaling: the plane of largest spread, were the distances Euclidean."""
    square = apart**2
    centred = square - square.mean(0) - square.mean(1)[:, None] + square.mean()
    value, vector = np.linalg.eigh(-centred / 2)
    place = np.zeros((len(apart), 2))
    kept = min(len(apart), 2)
    place[:, :kept] = (vector * np.sqrt(np.maximum(value, 0)))[:, ::-1][:, :kept]
    return place


def _stress(place: FloatArray, apart: FloatArray) -> float:
    drawn = np.linalg.norm(place[:, None] - place[None], axis=-1)
    return float(np.sqrt(((drawn - apart) ** 2).sum() / (apart**2).sum()))


def _upright(place: FloatArray) -> FloatArray:
    """Centre the points, with the longest axis level. Signs are fixed, so that a map is never mirrored."""
    place = place - place.mean(0)
    _, axes = np.linalg.eigh(place.T @ place)
    turned = place @ axes[:, ::-1]
    heaviest = np.abs(turned).argmax(0)
    return turned * np.where(turned[heaviest, [0, 1]] < 0, -1.0, 1.0)


def _frame(ax: "Axes", place: FloatArray) -> None:
    """Limits with room for names around the points, and no axes: directions mean nothing."""
    low, high = place.min(0), place.max(0)
    reach = float((high - low).max()) or 1.0
    half = np.maximum(0.5 * (high - low) + 0.09 * reach, 0.3 * reach)  # even points on a line need room for names
    middle = 0.5 * (low + high)
    ax.set_xlim(middle[0] - half[0], middle[0] + half[0])
    ax.set_ylim(middle[1] - half[1] - 0.02 * reach, middle[1] + half[1])
    ax.set_aspect("equal")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_color("0.8")


def _draw_points(ax: "Axes", place: FloatArray, kinds: list[Any] | None, class_names: Mapping[Any, str] | None) -> None:
    size = float(np.clip(4000 / len(place), 18, 60))
    if kinds is None:
        ax.scatter(place[:, 0], place[:, 1], s=size, color=NEUTRAL, edgecolors="white", linewidths=0.6, zorder=2)
        return
    looks = styles(kinds, class_names)
    for label, style in looks.items():
        members = np.array([kind == label for kind in kinds])
        ax.scatter(
            place[members, 0],
            place[members, 1],
            s=size,
            color=style.color,
            marker=style.marker,
            edgecolors="white",
            linewidths=0.6,
            alpha=0.9,
            zorder=2,
        )
    class_legend(ax, looks, Counter(kinds), below=0.01)


def _write_names(ax: "Axes", place: FloatArray, names: list[str]) -> None:
    """Write each name near its point, where it covers least of the points, the other names and the outside."""
    size = float(np.clip(14 - 0.12 * len(names), 6.5, 10))
    notes = [
        ax.annotate(name, point, xytext=(0, 0), textcoords="offset points", fontsize=size, color="0.15", zorder=3)
        for name, point in zip(names, place, strict=True)
    ]
    settle(ax)
    pixels = ax.figure.dpi / 72.0  # for each point of type
    points = ax.transData.transform(place)
    extents = np.array([note.get_window_extent().size for note in notes])
    # Candidates (k, c, 2): the lower left corner of the name, touching the point's disc; at two distances.
    ways = np.array(_CORNERS, dtype=float)
    reach = np.where(np.abs(ways).sum(1) > 1, 0.45, 0.65)[:, None] * size * pixels
    near = points[:, None] + ways * reach + 0.5 * (ways - 1) * extents[:, None]
    corners = np.concatenate([near, near + 1.3 * size * pixels * ways], axis=1)
    chosen = _least_covered(corners, extents, points, 0.4 * size * pixels, np.array(ax.get_window_extent().extents))
    for note, point, corner, choice in zip(notes, points, corners[range(len(names)), chosen], chosen, strict=True):
        note.set_position(tuple((corner - point) / pixels))
        note.set_verticalalignment("bottom")
        if choice >= len(_CORNERS):  # a name far from its point is joined to it by a line
            middle = (corner - point + 0.5 * np.array(note.get_window_extent().size)) / pixels
            ax.annotate(
                "", tuple(ax.transData.inverted().transform(point)), xytext=tuple(middle), textcoords="offset points",
                arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.6}, zorder=1,
            )  # fmt: skip


def _least_covered(
    corners: FloatArray, extents: FloatArray, points: FloatArray, radius: float, frame: FloatArray
) -> IntArray:
    """The best candidate place for each name, improved one name after another until nothing changes."""
    boxes = np.concatenate([corners, corners + extents[:, None]], axis=2)  # left, bottom, right, top
    dots = np.hstack([points - radius, points + radius])
    inside = np.prod(np.minimum(boxes, frame)[..., 2:] - np.maximum(boxes, frame)[..., :2], axis=2)
    fixed = np.array([[_covered(box, dots) for box in options] for options in boxes])
    fixed += 10 * (np.prod(extents, axis=1)[:, None] - inside)
    # Ties go to the earlier place, and to a near one unless it covers a tenth of the name.
    fixed += np.prod(extents, axis=1)[:, None] * np.where(np.arange(len(corners[0])) < len(_CORNERS), 0, 0.1)
    chosen = fixed.argmin(1)
    for _ in range(20):
        before = chosen.copy()
        for k in range(len(chosen)):
            others = np.delete(boxes[np.arange(len(chosen)), chosen], k, axis=0)
            chosen[k] = np.argmin([fixed[k, c] + _covered(box, others) for c, box in enumerate(boxes[k])])
        if (chosen == before).all():
            break
    return chosen


def _covered(box: FloatArray, others: FloatArray) -> float:
    """The area of a box (left, bottom, right, top) that other boxes (k, 4) cover."""
    width = np.minimum(box[2], others[:, 2]) - np.maximum(box[0], others[:, 0])
    height = np.minimum(box[3], others[:, 3]) - np.maximum(box[1], others[:, 1])
    return float((np.maximum(width, 0) * np.maximum(height, 0)).sum())
