"""Pictures of distances and alignments. Needs the extra `plot` (matplotlib)."""

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from markovot._layout import bonds_of, side_by_side
from markovot.chains import MarkovChain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

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

_SAME, _DIFFERENT = "#3b7dbd", "#e08214"  # lines between states of the same label, or of different ones
_WIDEST = 5.0  # points: the line of the heaviest pair in an alignment


def distance_matrix(
    values: ArrayLike | Tensor,
    labels: Sequence[Hashable] | ArrayLike,
    *,
    class_names: Mapping[Any, str] | None = None,
    title: str | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw a square distance matrix, ordered by class, with a bracket for each class.

    Within a class, items that are close stand side by side (average linkage with optimal leaf order), so that
    blocks on the diagonal are groups of similar items.

    Args:
        values: The distances, k × k, finite.
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
    matrix = _as_array(values)
    order = class_order(matrix, labels)
    ax = _axes(ax, figsize=(6.4, 5.4))
    image = ax.imshow(matrix[np.ix_(order, order)], cmap="viridis_r", interpolation="nearest")
    bar = ax.figure.colorbar(image, ax=ax, fraction=0.046, pad=0.03)
    bar.set_label("distance")
    bar.outline.set_visible(False)

    ax.spines[:].set_visible(False)
    if title is not None:
        ax.set_title(title, fontsize=11)
    _name_classes(ax, [list(labels)[i] for i in order], class_names)  # type: ignore[arg-type]
    return ax


def class_order(values: ArrayLike | Tensor, labels: Sequence[Hashable] | ArrayLike) -> IntArray:
    """The order in which `distance_matrix` draws.

    Classes come as they first appear; within a class, items that are close stand side by side.

    Args:
        values: The distances, k × k, finite.
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

    matrix = _as_array(values)
    names = list(labels)  # type: ignore[arg-type]
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.size == 0:
        raise ValueError(f"values must be a square matrix of distances; got shape {matrix.shape}.")
    if len(names) != len(matrix):
        raise ValueError(f"labels must name the class of each of the {len(matrix)} items; got {len(names)} labels.")
    if not np.isfinite(matrix).all():
        row, column = np.argwhere(~np.isfinite(matrix))[0]
        raise ValueError(
            f"values must be finite; got {matrix[row, column]} at [{row}, {column}]. "
            "Leave out the items that have no distance."
        )
    order: list[int] = []
    for name in dict.fromkeys(names):
        members = np.array([i for i, other in enumerate(names) if other == name])
        if len(members) > 2:
            block = matrix[np.ix_(members, members)]
            # No checks: an entropic distance of a thing to itself is not zero, and plays no part here.
            apart = squareform((block + block.T) / 2, checks=False)
            tree = linkage(apart, method="average", optimal_ordering=True)
            members = members[leaves_list(tree)]
        order.extend(members.tolist())
    return np.array(order, dtype=np.int64)


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

    The wider a line, the more of the alignment's mass it carries. Where the chains have integer labels for
    features, lines between states of different labels have a colour of their own: that is where the distance
    comes from. Y is turned and mirrored so that the lines run as level as they can.

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
    mass = _checked_alignment(chain_x, chain_y, alignment, threshold)
    names_x, names_y = _state_names(chain_x, label_names), _state_names(chain_y, label_names)
    bonds_x, bonds_y = bonds_of(chain_x), bonds_of(chain_y)
    place_x, place_y = side_by_side(chain_x.num_states, bonds_x, chain_y.num_states, bonds_y, mass)

    ax = _axes(ax, figsize=(8.0, 4.8))
    ax.set_axis_off()
    everything = np.concatenate([place_x, place_y])
    low, high = everything.min(0) - 0.6, everything.max(0) + 0.6
    ax.set_xlim(low[0], high[0])
    ax.set_ylim(low[1], high[1] + 0.8)
    ax.set_aspect("equal")

    labels_x, labels_y = _labels(chain_x), _labels(chain_y)
    if labels_x is None or labels_y is None:
        same = np.ones(mass.shape, dtype=bool)
    else:
        same = labels_x[:, None] == labels_y[None]
    _draw_lines(ax, place_x, place_y, mass, same, threshold)
    colors = _colors(names_x + names_y, label_colors)
    for place, bonds, names, title in zip(
        (place_x, place_y), (bonds_x, bonds_y), (names_x, names_y), titles, strict=True
    ):
        _draw_chain(ax, place, bonds, names, colors)
        ax.text(
            (place[:, 0].min() + place[:, 0].max()) / 2,
            high[1] + 0.2,
            title,
            ha="center",
            va="bottom",
            fontsize=11,
        )
    return ax


def _as_array(values: ArrayLike | Tensor) -> FloatArray:
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=np.float64)


def _axes(ax: "Axes | None", figsize: tuple[float, float]) -> "Axes":
    if ax is not None:
        return ax
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError("markovot.plot needs matplotlib: pip install 'markovot[plot]'.") from error
    return pyplot.subplots(figsize=figsize, layout="compressed")[1]


def _name_classes(ax: "Axes", labels: list[Hashable], class_names: Mapping[Any, str] | None) -> None:
    """A named bracket left of the rows of each class, and a line where one class ends and the next begins."""
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
    names = [labels[i] if class_names is None else class_names[labels[i]] for i in starts]
    ax.set_xticks([])
    ax.set_yticks(
        [(start + stop - 1) / 2 for start, stop in zip(starts, stops, strict=True)],
        [f"{name} ({stop - start})" for name, start, stop in zip(names, starts, stops, strict=True)],
        rotation=90,
        va="center",
        fontsize=10,
    )
    ax.tick_params(axis="y", length=0, pad=12)


def _checked_alignment(
    chain_x: MarkovChain, chain_y: MarkovChain, alignment: ArrayLike | Tensor, threshold: float
) -> FloatArray:
    for name, chain in (("chain_x", chain_x), ("chain_y", chain_y)):
        if tuple(chain.batch_shape) != ():
            raise ValueError(f"{name} must be a single chain; got a batch of shape {tuple(chain.batch_shape)}.")
    if not 0.0 <= threshold <= 1.0:
        raise ValueError(f"threshold must lie in [0, 1], as a share of a state's mass; got {threshold}.")
    mass = _as_array(alignment)
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


def _labels(chain: MarkovChain) -> IntArray | None:
    """The chain's features where they are integer labels."""
    features = chain.features
    if features is None or features.ndim != 1 or features.is_floating_point():
        return None
    return features.cpu().numpy().astype(np.int64)


def _state_names(chain: MarkovChain, label_names: Sequence[str] | None) -> list[str]:
    """What to write on each state."""
    labels = _labels(chain)
    if label_names is not None:
        if labels is None:
            raise ValueError("label_names needs chains whose features are integer labels, one per state.")
        if labels.max() >= len(label_names) or labels.min() < 0:
            raise ValueError(
                f"label_names has {len(label_names)} names, but the labels go from {labels.min()} to "
                f"{labels.max()}. Give one name for each label from 0 up."
            )
        return [label_names[label] for label in labels]
    if chain.state_names is not None:
        return [str(name) for name in chain.state_names]
    return [str(label) for label in (range(chain.num_states) if labels is None else labels)]


def _draw_lines(
    ax: "Axes",
    place_x: FloatArray,
    place_y: FloatArray,
    mass: FloatArray,
    same: NDArray[np.bool_],
    threshold: float,
) -> None:
    """The lines of the alignment, light ones first, and a legend for their width and colour."""
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgba
    from matplotlib.lines import Line2D

    heaviest = mass.max()
    lighter = np.minimum(mass.sum(1)[:, None], mass.sum(0)[None, :])
    pairs = np.argwhere((mass >= threshold * lighter) & (mass > 0))
    pairs = pairs[np.argsort(mass[pairs[:, 0], pairs[:, 1]], kind="stable")]
    shares = mass[pairs[:, 0], pairs[:, 1]] / heaviest
    hues = [_SAME if same[i, j] else _DIFFERENT for i, j in pairs]

    def style(share: float) -> dict[str, Any]:
        return {"linewidth": max(_WIDEST * share, 0.5), "alpha": 0.45 + 0.4 * share}

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
        Line2D([], [], color=_SAME, label=f"{100 * share * heaviest / mass.sum():.2g} %", **style(share))
        for share in (1.0, 0.5, 0.1)
    ]
    if _DIFFERENT in hues:
        handles += [Line2D([], [], color=_SAME, linewidth=3, label="same label")]
        handles += [Line2D([], [], color=_DIFFERENT, linewidth=3, label="different labels")]
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
    diameter = _state_diameter(ax, len(max(names, key=len)))
    ax.scatter(
        place[:, 0],
        place[:, 1],
        s=diameter**2,
        c=[colors[name] for name in names],
        edgecolors="white",
        zorder=3,
    )
    for (x, y), name in zip(place, names, strict=True):
        ax.text(
            x,
            y,
            name,
            ha="center",
            va="center_baseline",
            color="white",
            fontsize=0.52 * diameter,
            weight="bold",
            zorder=4,
        )


def _state_diameter(ax: "Axes", longest_name: int) -> float:
    """In points: room for the name, but well below the length of a bond."""
    width, height = np.asarray(ax.get_window_extent().size) * 72.0 / ax.figure.dpi
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    bond = min(width / (right - left), height / (top - bottom))
    return float(np.clip(0.62 * bond, 4.0, 13.0 + 2.0 * longest_name))


def _colors(names: list[str], chosen: Mapping[str, str] | None) -> dict[str, str]:
    """A colour per name: the chosen one, or else one of a palette, taken in the order of the names."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    palette = [to_hex(color) for color in colormaps["tab10"].colors]  # type: ignore[attr-defined]
    distinct = sorted(set(names))
    return {name: (chosen or {}).get(name, palette[k % len(palette)]) for k, name in enumerate(distinct)}
