"""How fast the certified error falls, sweep by sweep."""

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from markovot import validate
from markovot._arrays import FloatArray, IntArray
from markovot.chains import chain_of
from markovot.costs import resolve_cost
from markovot.distances.discounted import discounted_wl
from markovot.plot.common import MARKERS, NEUTRAL, PALETTE, check_frame, new_axes, open_frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DENSE_SWEEPS = 12  # up to here every number of sweeps is tried, and beyond about ten in each doubling


class ErrorHistory(NamedTuple):
    """The certified errors of a problem after several numbers of sweeps.

    Attributes:
        num_iter: numbers of sweeps, ascending (s,).
        error_bound: the certified error after them (s,), in units of the cost.
    """

    num_iter: IntArray
    error_bound: FloatArray


def convergence(
    x: Any,
    y: Any,
    cost: Any,
    *,
    delta: float,
    epsilon: float,
    rtol: float = 1e-10,
    max_iter: int = 100,
    title: str | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the certified error of the distance of two chains against the number of sweeps, on a log axis.

    A sweep solves all local transport problems once. The dotted line falls by `1 - delta` a sweep, which is what
    repeated sweeps alone would gain at the least.

    Args:
        x: A single chain, or what `as_chain` accepts.
        y: Another.
        cost: As in `discounted_wl`.
        delta: As in `discounted_wl`.
        epsilon: As in `discounted_wl`.
        rtol: The certified error at which the line ends, relative to the range of the cost.
        max_iter: The most sweeps.
        title: A title for the axes.
        ax: Where to draw; a new figure by default.

    Returns:
        The axes, with the line of `error_history`.

    Raises:
        TypeError: What `discounted_wl` raises for bad input.
        ValueError: If x or y is a batch, or what `discounted_wl` raises.
        ImportError: If matplotlib is not installed.

    Note:
        Deterministic. Solutions keep no history, so every point of the line is a solve of its own: see `error_history`.

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float64)
        >>> y = torch.tensor([[0.5, 0.5], [0.5, 0.5]], dtype=torch.float64)
        >>> ax = convergence(x, y, 1 - torch.eye(2, dtype=torch.float64), delta=0.5, epsilon=0.1)
        >>> [line.get_label() for line in ax.lines]
        ['certified error', 'factor 1 − δ a sweep']
    """
    check_frame(ax, title)
    history = error_history(x, y, cost, delta=delta, epsilon=epsilon, rtol=rtol, max_iter=max_iter)
    ax = new_axes(ax, figsize=(6.4, 4.2))
    ax.plot(
        history.num_iter,
        np.maximum(history.error_bound, np.finfo(float).tiny),  # a bound may be zero, but a log axis has no zero
        label="certified error",
        color=PALETTE[0],
        marker=MARKERS[0],
        markersize=4.5,
        linewidth=1.5,
    )
    _draw_rate(ax, history, float(delta))
    ax.set_yscale("log")
    ax.set_xscale("log" if history.num_iter[-1] > 30 else "linear")
    _whole_numbers(ax)
    ax.set_xlabel("sweeps over all local problems")
    ax.set_ylabel("certified error, in units of the cost")
    open_frame(ax, title)
    ax.legend(frameon=False, fontsize=9)
    return ax


def error_history(
    x: Any, y: Any, cost: Any, *, delta: float, epsilon: float, rtol: float = 1e-10, max_iter: int = 100
) -> ErrorHistory:
    """The certified error of the distance of two chains after 1, 2, 3, ... sweeps.

    Args:
        x: A single chain, or what `as_chain` accepts.
        y: Another.
        cost: As in `discounted_wl`.
        delta: As in `discounted_wl`.
        epsilon: As in `discounted_wl`.
        rtol: Sweeps are added until the certified error meets this, relative to the range of the cost, or stalls.
        max_iter: The most sweeps. Beyond twelve, only about ten numbers in each doubling are tried.

    Returns:
        An `ErrorHistory`.

    Raises:
        TypeError: What `discounted_wl` raises for bad input.
        ValueError: If x or y is a batch, or what `discounted_wl` raises.

    Note:
        Each number of sweeps is a solve from the start. A distance that is done in ten sweeps takes the time of some
        five solves.

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float64)
        >>> y = torch.tensor([[0.5, 0.5], [0.5, 0.5]], dtype=torch.float64)
        >>> history = error_history(x, y, 1 - torch.eye(2, dtype=torch.float64), delta=0.5, epsilon=0.1)
        >>> bool((history.error_bound[1:] < history.error_bound[:-1]).all())
        True
    """
    rtol, max_iter = validate.accuracy(rtol, max_iter)
    delta, epsilon = validate.single_numbers(delta, epsilon)
    x, y = chain_of("x", x).detach(), chain_of("y", y).detach()
    for name, chain in (("x", x), ("y", y)):
        if chain.batch_shape:
            raise ValueError(f"{name} must be a single chain; got a batch of shape {tuple(chain.batch_shape)}.")
    ground = resolve_cost(cost, x, y).detach()
    setting: Any = {"delta": delta, "epsilon": epsilon, "rtol": rtol, "throw": False}
    swept: list[int] = []
    bounds: list[float] = []
    sweeps = 1
    while True:
        with torch.no_grad():
            solution = discounted_wl(x, y, ground, max_iter=sweeps, **setting)
        done = int(solution.num_iter)
        if not swept or done > swept[-1]:
            swept.append(done)
            bounds.append(float(solution.error_bound))
        if done < sweeps or bool(solution.converged) or sweeps == max_iter:
            return ErrorHistory(np.array(swept, dtype=np.int64), np.array(bounds))
        sweeps = min(_next(sweeps), max_iter)


def _next(sweeps: int) -> int:
    return sweeps + 1 if sweeps < DENSE_SWEEPS else math.ceil(sweeps * 2**0.1)


def _draw_rate(ax: "Axes", history: ErrorHistory, delta: float) -> None:
    """Draw a line from the first point that falls by a factor `1 - delta` in each sweep."""
    if delta >= 1 or len(history.num_iter) < 2 or not history.error_bound[0] > 0:
        return
    sweeps = np.linspace(history.num_iter[0], history.num_iter[-1], 200)
    line = history.error_bound[0] * (1 - delta) ** (sweeps - sweeps[0])
    ax.plot(sweeps, line, linestyle=":", color=NEUTRAL, linewidth=1.2, label="factor 1 − δ a sweep", zorder=1)


def _whole_numbers(ax: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator

    if ax.get_xscale() == "linear":
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    else:
        ax.xaxis.set_major_formatter("{x:g}")
