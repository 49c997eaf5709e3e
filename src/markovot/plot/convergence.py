"""How fast the certified error falls, sweep by sweep."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from markovot import validate
from markovot.chains import chain_of
from markovot.costs import resolve_cost
from markovot.distances.discounted import discounted_wl
from markovot.plot.common import MARKERS, NEUTRAL, PALETTE, FloatArray, IntArray, check_frame, new_axes, open_frame
from markovot.solving.fixed_point import PolicyIteration, Solver, ValueIteration, check_solver

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DENSE_SWEEPS = 12  # every one of the first so many is looked at, and then ten in each doubling
SOLVERS: Mapping[str, Solver] = {
    "policy iteration": PolicyIteration(rtol=1e-10),
    "value iteration": ValueIteration(rtol=1e-10, max_iter=1000),
}
"""What `convergence` draws by default."""


class ErrorHistory(NamedTuple):
    """How well a problem was solved after so many sweeps.

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
    solvers: Mapping[str, Solver] = SOLVERS,
    title: str | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the certified error of the distance of two chains against the number of sweeps, on a log axis.

    A sweep solves all local transport problems once. The dotted line falls by `1 - delta` a sweep, the least that value
    iteration gains.

    Args:
        x: A single chain, or what `as_chain` accepts.
        y: Another.
        cost: As in `discounted_wl`.
        delta: As in `discounted_wl`.
        epsilon: As in `discounted_wl`.
        solvers: What to compare, by the names in the legend. Each is run until its certified error meets its `rtol`,
            or for its `max_iter` sweeps. The default are policy and value iteration to 1e-10 of the range of the cost,
            the latter for at most 1000 sweeps.
        title: A title for the axes.
        ax: Where to draw; a new figure by default.

    Returns:
        The axes: one line for each solver, in their order, from `error_history`.

    Raises:
        TypeError: If a solver is not one, or what `discounted_wl` raises for bad input.
        ValueError: If `solvers` is empty, x or y is a batch, or what `discounted_wl` raises.
        ImportError: If matplotlib is not installed.

    Note:
        Deterministic. Solutions keep no history, so every point of a line is a solve of its own: see `error_history`.

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float64)
        >>> y = torch.tensor([[0.5, 0.5], [0.5, 0.5]], dtype=torch.float64)
        >>> ax = convergence(x, y, 1 - torch.eye(2, dtype=torch.float64), delta=0.5, epsilon=0.1)
        >>> [line.get_label() for line in ax.lines]
        ['policy iteration', 'value iteration', 'factor 1 − δ a sweep']
    """
    check_frame(ax, title)
    if not validate.mapping("solvers", solvers, "from names to solvers"):
        raise ValueError("solvers must name at least one solver, such as {'policy iteration': PolicyIteration()}.")
    for name, solver in solvers.items():
        known = (PolicyIteration, ValueIteration)
        validate.instance(f"solvers[{validate.shown(name)}]", solver, known, "a solver, such as PolicyIteration()")
    histories = {
        name: error_history(x, y, cost, delta=delta, epsilon=epsilon, solver=solver) for name, solver in solvers.items()
    }
    ax = new_axes(ax, figsize=(6.4, 4.2))
    for k, (name, history) in enumerate(histories.items()):
        ax.plot(
            history.num_iter,
            np.maximum(history.error_bound, np.finfo(float).tiny),  # a bound may be zero, which a log axis is not
            label=name,
            color=PALETTE[k % len(PALETTE)],
            marker=MARKERS[k % len(MARKERS)],
            markersize=4.5,
            linewidth=1.5,
        )
    _draw_rate(ax, histories, float(delta))
    ax.set_yscale("log")
    ax.set_xscale("log" if max(history.num_iter[-1] for history in histories.values()) > 30 else "linear")
    _whole_numbers(ax)
    ax.set_xlabel("sweeps over all local problems")
    ax.set_ylabel("certified error, in units of the cost")
    open_frame(ax, title)
    ax.legend(frameon=False, fontsize=9)
    return ax


def error_history(
    x: Any, y: Any, cost: Any, *, delta: float, epsilon: float, solver: Solver = PolicyIteration(rtol=1e-10)
) -> ErrorHistory:
    """The certified error of the distance of two chains after 1, 2, 3, ... sweeps.

    Args:
        x: A single chain, or what `as_chain` accepts.
        y: Another.
        cost: As in `discounted_wl`.
        delta: As in `discounted_wl`.
        epsilon: As in `discounted_wl`.
        solver: It is run for 1, 2, 3, ... sweeps, until it meets its `rtol` or stalls, or to its `max_iter`. Beyond
            twelve, only about ten numbers in each doubling are tried.

    Returns:
        An `ErrorHistory`.

    Raises:
        TypeError: If the solver is not one, or what `discounted_wl` raises for bad input.
        ValueError: If x or y is a batch, or what `discounted_wl` raises.

    Note:
        Each number of sweeps is a solve from the start. Policy iteration, done in ten sweeps, takes the time of some
        five solves; value iteration to s sweeps the time of about 10 s of them.

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float64)
        >>> y = torch.tensor([[0.5, 0.5], [0.5, 0.5]], dtype=torch.float64)
        >>> history = error_history(x, y, 1 - torch.eye(2, dtype=torch.float64), delta=0.5, epsilon=0.1)
        >>> bool((history.error_bound[1:] < history.error_bound[:-1]).all())
        True
    """
    check_solver(solver)
    delta, epsilon = validate.single_numbers(delta, epsilon)
    x, y = chain_of("x", x).detach(), chain_of("y", y).detach()
    for name, chain in (("x", x), ("y", y)):
        if chain.batch_shape:
            raise ValueError(f"{name} must be a single chain; got a batch of shape {tuple(chain.batch_shape)}.")
    ground = resolve_cost(cost, x, y).detach()
    swept: list[int] = []
    bounds: list[float] = []
    sweeps = 1
    while True:
        run: Any = replace(solver, max_iter=sweeps)  # type: ignore[type-var]
        with torch.no_grad():
            solution = discounted_wl(x, y, ground, delta=delta, epsilon=epsilon, solver=run, throw=False)
        done = int(solution.num_iter)
        if not swept or done > swept[-1]:
            swept.append(done)
            bounds.append(float(solution.error_bound))
        if done < sweeps or bool(solution.converged) or sweeps == solver.max_iter:
            return ErrorHistory(np.array(swept, dtype=np.int64), np.array(bounds))
        sweeps = min(_next(sweeps), solver.max_iter)


def _next(sweeps: int) -> int:
    return sweeps + 1 if sweeps < DENSE_SWEEPS else math.ceil(sweeps * 2**0.1)


def _draw_rate(ax: "Axes", histories: Mapping[str, ErrorHistory], delta: float) -> None:
    """From the first point of the slowest solver, down by a factor `1 - delta` a sweep."""
    slowest = max(histories.values(), key=lambda history: history.num_iter[-1])
    if delta >= 1 or len(slowest.num_iter) < 2 or not slowest.error_bound[0] > 0:
        return
    sweeps = np.linspace(slowest.num_iter[0], slowest.num_iter[-1], 200)
    line = slowest.error_bound[0] * (1 - delta) ** (sweeps - sweeps[0])
    ax.plot(sweeps, line, linestyle=":", color=NEUTRAL, linewidth=1.2, label="factor 1 − δ a sweep", zorder=1)


def _whole_numbers(ax: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator

    if ax.get_xscale() == "linear":
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    else:
        ax.xaxis.set_major_formatter("{x:g}")
