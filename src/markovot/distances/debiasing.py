"""The debiased version of any of the distances."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from markovot import validate
from markovot.chains import chain_of
from markovot.costs import Cost, Given
from markovot.costs.ground import not_a_cost
from markovot.solution import Solution, Status


def debiased(distance: Callable[..., Any], x: Any, y: Any, cost: Cost, **settings: Any) -> Any:
    r"""A distance less the mean of the two self-distances.

    $$d(X, Y) - \tfrac12 d(X, X) - \tfrac12 d(Y, Y)$$

    Entropy lifts the distance of a chain to itself above zero; this takes it off, so that identical chains are at zero.

    Args:
        distance: `discounted_wl`, `wl`, `horizon_wl`, `optimal_transition_coupling`, or another function
            `distance(x, y, cost, **settings)`.
        x: a chain, or what `as_chain` accepts.
        y: the same; the same object as x gives 0.
        cost: an object of `markovot.costs`, which also knows the costs between states of one chain; or three cost
            matrices `(x to y, x to x, y to y)`.
        settings: passed on to `distance`, such as `delta` and `epsilon`.

    Returns:
        The solution of `distance(x, y)`, with `value` and `error_bound` of the debiased distance, in units of the cost,
        and the worst of the three statuses. Its alignment, plan and potentials are those of `distance(x, y)`.

    Raises:
        TypeError: a single cost matrix, which does not tell the costs within x and within y.
        ValueError: `init`, which serves one problem only; what `distance` raises.
        SolveError: one of the three did not converge.

    Note:
        Differentiable like `distance`, through all three. Three solves instead of one. The value may be below zero, and
        need not obey the triangle inequality. At epsilon = 0 self-distances are 0 where the cost within a chain is 0 on
        its diagonal, and nothing changes.

    References:
        Feydy et al.: Interpolating between Optimal Transport and MMD using Sinkhorn Divergences (2019), for transport.

    Example:
        >>> import torch, markovot
        >>> x = markovot.MarkovChain.from_transitions(torch.tensor([[0.9, 0.1], [0.1, 0.9]]), features=[0, 1])
        >>> y = markovot.MarkovChain.from_transitions(torch.tensor([[0.8, 0.2], [0.2, 0.8]]), features=[0, 1])
        >>> setting = {"delta": 0.2, "epsilon": 0.1}
        >>> markovot.discounted_wl(x, y, markovot.costs.ZeroOne(), **setting).value.item() > 0.2
        True
        >>> found = markovot.debiased(markovot.discounted_wl, x, y, markovot.costs.ZeroOne(), **setting)
        >>> print(f"{found.value.item():.4f}")
        0.0600
    """
    if settings.get("init") is not None:
        raise ValueError("init: an earlier solution serves one problem, but three are solved here. Leave it out.")
    validate.function("distance", distance)
    x_chain = chain_of("x", x)
    y_chain = x_chain if y is x else chain_of("y", y)
    between, within_x, within_y = _costs(cost)
    solution: Solution = distance(x_chain, y_chain, between, **settings)
    if y_chain is x_chain:
        zero = 0.0 * solution.value
        return replace(solution, value=zero, error_bound=0.0 * solution.error_bound)
    own_x, own_y = (
        distance(chain, chain, own, **settings) for chain, own in ((x_chain, within_x), (y_chain, within_y))
    )
    return replace(
        solution,
        value=solution.value - 0.5 * (own_x.value + own_y.value),
        error_bound=solution.error_bound + 0.5 * (own_x.error_bound + own_y.error_bound),
        status=_worst(solution.status, own_x.status, own_y.status),
    )


def _costs(cost: Any) -> tuple[Any, Any, Any]:
    if isinstance(cost, tuple) and len(cost) == 3:
        return cost
    if isinstance(cost, Cost) and not isinstance(cost, Given):
        return cost, cost, cost
    if isinstance(cost, type):
        raise not_a_cost("an object such as costs.ZeroOne(), or three matrices", cost)
    raise TypeError(
        "cost: one matrix tells the costs from x to y, but not those within x and within y. Give an object that "
        "compares features, such as costs.ZeroOne(), or three matrices (x to y, x to x, y to y)."
    )


def _worst(*found: Any) -> Any:
    """For each item, the last of the statuses in the order of `Status`."""
    order = list(Status)
    places = np.stack(np.broadcast_arrays(*(np.vectorize(order.index, otypes=[int])(one) for one in found))).max(axis=0)
    return order[int(places)] if places.ndim == 0 else np.array(order, dtype=object)[places]
