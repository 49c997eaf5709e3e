"""What all pictures share: reading distances, making axes, colours and shapes of classes, names of states."""

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from markovot import validate
from markovot._arrays import FloatArray
from markovot._optional import require
from markovot.analysis import similarity
from markovot.chains.labels import is_missing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from markovot.pairwise import PairwiseSolution

Distances: TypeAlias = "ArrayLike | Tensor | PairwiseSolution"
Labels: TypeAlias = Sequence[Hashable] | ArrayLike

ELEMENT_COLORS = {
    "C": "#4a4f55",
    "N": "#3461c9",
    "O": "#d23a32",
    "F": "#2f9e63",
    "I": "#7b3fa0",
    "Cl": "#1c8a3c",
    "Br": "#94421f",
}
"""The usual colours of chemical elements, for `label_colors`."""

SAME, DIFFERENT = "#3b7dbd", "#e08214"  # lines between states of the same label, or of different ones
NEUTRAL = "#4d4d4d"  # for items without a class

# The colours of Okabe and Ito, which colour-blind people can tell apart, except yellow, which is faint on white.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
INSIDE = 3  # names of states with more letters do not fit into their discs
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


class Style(NamedTuple):
    """How the items of a class look."""

    name: str
    color: str
    marker: str


def as_array(name: str, values: Any) -> FloatArray:
    """Distances, or another array, as NumPy floats; for a `PairwiseSolution` its `value`."""
    if hasattr(values, "value") and hasattr(values, "error_bound"):
        values = values.value
    return validate.reals(name, values)


def square_matrix(name: str, values: Any) -> FloatArray:
    """Distances of all items to all, checked to be square and finite."""
    matrix = as_array(name, values)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.size == 0:
        raise ValueError(f"{name} must be a square matrix of distances; got shape {matrix.shape}.")
    if not np.isfinite(matrix).all():
        row, column = np.argwhere(~np.isfinite(matrix))[0]
        raise ValueError(
            f"{name} must be finite; got {matrix[row, column]} at [{row}, {column}]. "
            "Leave out the items that have no distance."
        )
    return matrix


def dissimilarities(name: str, values: Any) -> FloatArray:
    """A square matrix, checked, as the dissimilarities of `similarity.dissimilarities`."""
    return similarity.symmetrised(square_matrix(name, values))


def classes(labels: Labels, count: int, name: str = "labels") -> list[Hashable]:
    """The class of each of `count` items; `name` is the name of the argument."""
    found = validate.labels(name, labels, "the class of each item")
    if len(found) != count:
        raise ValueError(f"{name} must name the class of each of the {count} items; got {len(found)} labels.")
    missing = [k for k, label in enumerate(found) if is_missing(label)]
    if missing:
        raise ValueError(
            f"{name}: that of item {missing[0]} is {found[missing[0]]!r}, a missing value. Leave the item out, or give "
            "it a class of its own, such as 'unknown'."
        )
    return found


def item_names(names: Sequence[Any] | None, count: int) -> list[str] | None:
    """The names of `count` items, as text."""
    if names is None:
        return None
    if len(validate.sequence("names", names, "names")) != count:
        raise ValueError(f"names must name each of the {count} items; got {len(names)} names.")
    return [str(name) for name in names]


def class_name(label: Hashable, class_names: Mapping[Any, str] | None) -> str:
    """What to write for a class."""
    if class_names is None:
        return str(label)
    if label not in class_names:
        raise ValueError(f"class_names has no name for the class {label!r}, only for {list(class_names)}.")
    return class_names[label]


def styles(labels: Sequence[Hashable], class_names: Mapping[Any, str] | None) -> dict[Hashable, Style]:
    """A style for each class, in the order in which the classes first appear; there are 49 different ones.

    Colour and shape change together, so that up to seven classes can be told apart by either alone.
    """
    return {
        label: Style(
            class_name(label, class_names), PALETTE[k % len(PALETTE)], MARKERS[(k + k // len(PALETTE)) % len(MARKERS)]
        )
        for k, label in enumerate(dict.fromkeys(labels))
    }


def check_frame(ax: Any, title: Any = None) -> None:
    """Check, before anything is drawn, that `ax` is axes of matplotlib and the title a string."""
    if title is not None:
        validate.text("title", title)
    if ax is not None:
        axes = require("matplotlib.axes", extra="plot", what="markovot.plot")
        validate.instance("ax", ax, axes.Axes, "axes of matplotlib, such as plt.gca()")


def check_class_names(names: Any) -> None:
    """Check that names of classes are a mapping of strings, or None."""
    if names is not None:
        for label, name in validate.mapping("class_names", names, "from classes to names").items():
            validate.text(f"class_names[{validate.shown(label)}]", name)


def check_titles(titles: Any) -> None:
    """Check the titles of two chains."""
    if len(validate.texts("titles", titles)) != 2:
        raise ValueError(f"titles: there are {len(titles)}. Give two, one for X and one for Y.")


def check_colors(colors: Any) -> None:
    """Check that colours are a mapping from names of states to colours."""
    if colors is None:
        return
    known = require("matplotlib.colors", extra="plot", what="markovot.plot")
    for name, color in validate.mapping("label_colors", colors, "from names to colours").items():
        if not known.is_color_like(color):
            raise ValueError(f"label_colors: {validate.shown(color)}, for {name!r}, is no colour of matplotlib's.")


def new_axes(ax: "Axes | None", figsize: tuple[float, float]) -> "Axes":
    """The axes given, or those of a new figure."""
    if ax is not None:
        return ax
    pyplot = require("matplotlib.pyplot", extra="plot", what="markovot.plot")
    axes: Axes = pyplot.subplots(figsize=figsize, layout="compressed")[1]
    return axes


def settle(ax: "Axes") -> None:
    """Lay the figure out, so that sizes are the ones that will be drawn."""
    root: Any = ax.figure.figure  # of a subfigure, the whole
    root.draw_without_rendering()


def points_high(ax: "Axes") -> float:
    """The height of the axes in points."""
    return float(ax.get_window_extent().height * 72.0 / ax.figure.dpi)


def class_legend(ax: "Axes", looks: Mapping[Hashable, Style], counts: Mapping[Hashable, int], below: float) -> None:
    """Draw a legend of the classes and their sizes below the axes, at distance `below`, a share of the axes' height."""
    from matplotlib.lines import Line2D

    ax.legend(
        handles=[
            Line2D([], [], linestyle="", color=look.color, marker=look.marker, label=f"{look.name} ({counts[label]})")
            for label, look in looks.items()
        ],
        loc="upper center",
        bbox_to_anchor=(0.5, -below),
        ncols=min(len(looks), 4),
        frameon=False,
        fontsize=9,
        handletextpad=0.2,
    )


def state_colors(names: list[str], chosen: Mapping[str, str] | None) -> dict[str, str]:
    """A colour per name: the chosen one, or else one of a palette, taken in the order of the names."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    palette = [to_hex(color) for color in colormaps["tab10"].colors]  # type: ignore[attr-defined]
    distinct = sorted(set(names))
    return {name: (chosen or {}).get(name, palette[k % len(palette)]) for k, name in enumerate(distinct)}


def state_diameter(ax: "Axes", names: Sequence[str]) -> float:
    """The diameter of a state in points: large enough for names inside, but well below the length of a bond."""
    longest = len(max(names, key=len))
    width, height = np.asarray(ax.get_window_extent().size) * 72.0 / ax.figure.dpi
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    bond = min(width / (right - left), height / (top - bottom))
    return float(np.clip(0.62 * bond, 4.0, 13.0 + 2.0 * (longest if longest <= INSIDE else 1)))


def write_states(ax: "Axes", place: FloatArray, names: Sequence[str], colors: Sequence[str], diameter: float) -> None:
    """Write the names of states: inside the discs, in the given colours, if all are short; else below, in dark."""
    from matplotlib.patheffects import withStroke

    inside = len(max(names, key=len)) <= INSIDE
    for point, name, color in zip(place, names, colors, strict=True):
        ax.annotate(
            name,
            point,
            xytext=(0, 0 if inside else -0.6 * diameter - 1),
            textcoords="offset points",
            ha="center",
            va="center_baseline" if inside else "top",
            color=color if inside else "0.1",
            fontsize=0.5 * diameter if inside else 8.5,
            weight="bold" if inside else "normal",
            path_effects=None if inside else [withStroke(linewidth=2.0, foreground="white")],
            zorder=4 if inside else 5,
        )


def frame_pair(ax: "Axes", place_x: FloatArray, place_y: FloatArray) -> None:
    """Limits that hold two chains side by side, and a title above each."""
    ax.set_axis_off()
    everything = np.concatenate([place_x, place_y])
    low, high = everything.min(0) - 0.6, everything.max(0) + 0.6
    ax.set_xlim(low[0], high[0])
    ax.set_ylim(low[1], high[1] + 0.8)
    ax.set_aspect("equal")


def title_above(ax: "Axes", place: FloatArray, title: str) -> None:
    """A title above one of the two chains that `frame_pair` framed."""
    middle = (place[:, 0].min() + place[:, 0].max()) / 2
    ax.text(middle, ax.get_ylim()[1] - 0.6, title, ha="center", va="bottom", fontsize=11)


def open_frame(ax: "Axes", title: str | None) -> None:
    """Frame axes for curves: grid lines behind them, no lines at the top and right, and a title if there is one."""
    ax.grid(axis="y", color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    if title is not None:
        ax.set_title(title, fontsize=11)
