"""How the objective of a training falls, step by step."""

from typing import TYPE_CHECKING

import numpy as np

from markovot import validate
from markovot.learning.history import History
from markovot.plot.common import NEUTRAL, PALETTE, check_frame, new_axes, open_frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def history(history: History, *, title: str | None = None, ax: "Axes | None" = None) -> "Axes":
    """Draw the objective of a training against its steps, on a log axis where all values are positive.

    The best step is marked. If several problems were trained side by side, such as restarts, the best one is
    highlighted, and the others are grey.

    Args:
        history: what `markovot.learning.minimise` returns, or the `history` of a barycentre, a coarsening, a fit.
        title: a title for the axes.
        ax: where to draw; a new figure by default.

    Returns:
        The axes: one line for each problem, in their order, and a marker.

    Raises:
        ValueError: the history has no steps.
        ImportError: matplotlib is not installed.

    Example:
        >>> import numpy as np
        >>> from markovot.learning import History
        >>> steps = History(np.array([0.5, 0.2, 0.3]), np.zeros(3), np.ones(3, dtype=np.int64), np.ones(3))
        >>> ax = history(steps)
        >>> ax.get_yscale(), len(ax.lines)
        ('log', 2)
    """
    validate.instance("history", history, History, "the History of a training")
    check_frame(ax, title)
    if not len(history):
        raise ValueError("history: it has no steps to draw.")
    ax = new_axes(ax, figsize=(6.4, 4.0))
    values = history.value.reshape(len(history), -1)
    winner = int(values.min(0).argmin())
    for problem, column in enumerate(values.T):
        wins = problem == winner
        ax.plot(column, color=PALETTE[0] if wins else "0.75", linewidth=1.6 if wins else 0.9, zorder=2 + wins)
    best = int(values[:, winner].argmin())
    ax.plot([best], [values[best, winner]], marker="o", color=NEUTRAL, markersize=5, linestyle="", zorder=4)
    ax.annotate(
        f"{values[best, winner]:.3g}",
        (best, values[best, winner]),
        xytext=(0, 7),
        textcoords="offset points",
        ha="right" if best > len(values) / 2 else "left",
        fontsize=9,
    )
    if bool((values > 0).all()):
        ax.set_yscale("log")
        if np.log10(values.max() / values.min()) < 1:  # otherwise the axis would have at most one number
            _plain_numbers(ax)
    ax.set_xlabel("step")
    ax.set_ylabel("objective")
    open_frame(ax, title)
    return ax


def _plain_numbers(ax: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator, NullFormatter

    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_major_formatter("{x:.3g}")
    ax.yaxis.set_minor_formatter(NullFormatter())
