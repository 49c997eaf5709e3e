"""Distances of chains that walk for a finite or any other random time: the public functions."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from markovot import validate
from markovot.autograd.centring import centred
from markovot.autograd.eager import eagerly
from markovot.chains import chain_of
from markovot.costs import resolve_cost
from markovot.distances.walks import Horizon, check_depth, distance
from markovot.solution import HorizonSolution


@eagerly
def wl(
    x: Any,
    y: Any,
    cost: Any,
    *,
    depth: int,
    epsilon: float | Tensor,
    rtol: float = 1e-4,
    max_iter: int = 100,
    throw: bool = True,
) -> HorizonSolution:
    r"""The Weisfeiler-Lehman distance of depth k between two Markov chains: their states after k steps.

    $$d = OT_\epsilon(\nu, \mu; C^{(0)}), \qquad C^{(t)}_{ij} = OT_\epsilon(A_i, B_j; C^{(t+1)}), \qquad C^{(k)} = D,$$

    the least expected cost of the pair of states at time k, over all ways to run the two chains together.

    Args:
        x: a chain with n states, or whatever `as_chain` accepts, or a batch of them; transition A, initial law nu.
        y: the same with m states; transition B, initial law mu. Batch dimensions are broadcast.
        cost: ground cost D between states: a tensor (*batch, n, m), or an object of `markovot.costs`.
        depth: the number of steps k, an integer >= 0. 0 compares the initial laws.
        epsilon: in units of the cost; a number or a tensor (*batch). The entropic bias is at most
            (k + 1) * epsilon * log(largest support). 0, for every item, asks for exact transport, on the CPU only: the
            distance of Chen et al., which for stationary initial laws does not fall as the depth grows.
        rtol: wanted certified error, relative to the range of the cost (to one where that is zero).
        max_iter: has no effect, since there are always k sweeps; it is here since all distances take the same settings.
        throw: raise a `SolveError` if some item did not converge, rather than return it with its status.

    Returns:
        A `HorizonSolution`, values in units of the cost.

    Raises:
        TypeError: integer or mixed dtypes, or something that is neither a chain nor a cost.
        ValueError: bad probabilities, costs, shapes, depth or epsilon; a stationary law that is not unique.
        SolveError: not converged (see `throw`).

    Note:
        Differentiable in the cost, both transitions, both initial laws and epsilon, as `discounted_wl` is; local
        problems are solved further where an input requires a gradient. Time: k sweeps over the local problems, and as
        many for a gradient; beyond 128 MiB of costs, k n m numbers, twice as many. Memory: these costs, or every
        sqrt(k)-th of them. Deterministic.

    References:
        Chen, Lim, Memoli, Wan, Wang: Weisfeiler-Lehman meets Gromov-Wasserstein (ICML 2022).

    Example:
        >>> import torch, markovot
        >>> from markovot import wl
        >>> x = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64)
        >>> y = torch.tensor([[0.3, 0.7], [0.6, 0.4]], dtype=torch.float64)
        >>> cost = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
        >>> print(*(f"{wl(x, y, cost, depth=depth, epsilon=0.0).value.item():.3f}" for depth in (0, 1, 2)))
        0.205 0.272 0.312
    """
    throw, accuracy = validate.flag("throw", throw), validate.accuracy(rtol, max_iter)
    x, y = chain_of("x", x), chain_of("y", y)
    ground = resolve_cost(cost, x, y)
    steps = check_depth(depth)
    epsilon = validate.regularisation(epsilon, dtype=torch.float64, device=x.device)
    hazards = torch.zeros(steps, dtype=torch.float64, device=x.device)
    return distance((x, y), ground, epsilon, Horizon(hazards, None, {}), accuracy, throw=throw)


@eagerly
def horizon_wl(
    x: Any,
    y: Any,
    cost: Any,
    *,
    law: Any,
    epsilon: float | Tensor,
    tail: float | Tensor | None = None,
    rtol: float = 1e-4,
    max_iter: int = 100,
    throw: bool = True,
) -> HorizonSolution:
    r"""The distance between two Markov chains at a random time T of any law: the OTM distance.

    $$d = OT_\epsilon(\nu, \mu; C^{(0)}), \qquad
      C^{(t)}_{ij} = h_t D_{ij} + (1 - h_t)\, OT_\epsilon(A_i, B_j; C^{(t+1)}), \qquad
      h_t = \frac{p_t}{p_t + p_{t+1} + \dots + p_k},$$

    the least expected cost of the pair of states at a time T, independent of the chains, with `P(T = t) = p_t` for
    t = 0, ..., k, over all ways to run the two chains together. T = k gives `wl`, a geometric T `discounted_wl`.

    Args:
        x: a chain with n states, or whatever `as_chain` accepts, or a batch of them; transition A, initial law nu.
        y: the same with m states; transition B, initial law mu. Batch dimensions are broadcast.
        cost: ground cost D between states: a tensor (*batch, n, m), or an object of `markovot.costs`.
        law: the probabilities p_0, ..., p_k of T: a tensor (*batch, k + 1) that sums to one.
        epsilon: in units of the cost; a number or a tensor (*batch). The entropic bias is at most
            (E T + 1) * epsilon * log(largest support). 0, for every item, asks for exact transport, on the CPU only.
        tail: None (default): T is at most k. A number in (0, 1], or a tensor (*batch): the last probability p_k is
            that of k steps or more, and T - k is geometric with this parameter, as in `discounted_wl` with this delta;
            1 stops at k.
        rtol: wanted certified error, relative to the range of the cost (to one where that is zero).
        max_iter: the most sweeps for a tail. Nothing else is iterated.
        throw: raise a `SolveError` if some item did not converge, rather than return it with its status.

    Returns:
        A `HorizonSolution`, values in units of the cost.

    Raises:
        TypeError: integer or mixed dtypes, or something that is neither a chain nor a cost.
        ValueError: bad probabilities, costs, shapes, law, tail or epsilon; a stationary law that is not unique; a law
            that requires a gradient and ends in zeros, where it has none.
        SolveError: not converged (see `throw`).

    Note:
        Differentiable in the cost, both transitions, both initial laws, epsilon, tail, and the law (centred, as for the
        initial ones), all as in `discounted_wl`; local problems are solved further where an input requires a gradient.
        Time: k sweeps over the local problems, and as many for a gradient; beyond 128 MiB of costs, k n m numbers,
        twice as many. Memory: these costs, or every sqrt(k)-th of them. Deterministic.

    References:
        Brugere, Wan, Wang: Distances for Markov Chains, and Their Differentiation (arXiv 2302.08621).

    Example:
        >>> import torch, markovot
        >>> from markovot import horizon_wl
        >>> x = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64)
        >>> y = torch.tensor([[0.3, 0.7], [0.6, 0.4]], dtype=torch.float64)
        >>> cost = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
        >>> law = torch.tensor([0.5, 0.25, 0.25])
        >>> print(f"{horizon_wl(x, y, cost, law=law, epsilon=0.0).value.item():.3f}")
        0.318
    """
    throw, accuracy = validate.flag("throw", throw), validate.accuracy(rtol, max_iter)
    x, y = chain_of("x", x), chain_of("y", y)
    ground = resolve_cost(cost, x, y)
    law = _check_law(law, x.device)
    epsilon = validate.regularisation(epsilon, dtype=torch.float64, device=x.device)
    shapes = {"law": law.shape[:-1]}
    if tail is not None:
        tail = _check_tail(tail, x.device)
        shapes["tail"] = tail.shape
    return distance((x, y), ground, epsilon, Horizon(_hazards(law), tail, shapes), accuracy, throw=throw)


def _check_law(law: Any, device: torch.device) -> Tensor:
    """The law of T in float64, with gradients centred along its simplex."""
    law = validate.as_tensor("law", law)
    validate.floating("law", law)
    if not law.dim() or not law.shape[-1]:
        raise ValueError(f"law: shape {tuple(law.shape)} has no times. Give the chances to stop at 0, 1, ..., k.")
    validate.distributions("law", law, noun="law", repair="Divide it by its sum.")
    if torch.is_grad_enabled() and law.requires_grad and bool((law.detach()[..., -1] == 0).any()):
        raise ValueError(
            "law: it requires a gradient and its last probability is 0, where the distance has none: it would depend "
            "on how the walk goes on from there. Leave the zeros at the end out, or pass law.detach()."
        )
    law = validate.normalised(law.to(device))
    return law.detach() + centred(law - law.detach())


def _check_tail(tail: Any, device: torch.device) -> Tensor:
    if isinstance(tail, Tensor | np.ndarray):
        tail = validate.as_tensor("tail", tail)
        validate.floating("tail", tail)
    else:
        tail = torch.tensor(validate.number("tail", tail, 0.0, 1.0), dtype=torch.float64, device=device)
    outside = ~((tail > 0) & (tail <= 1))
    if bool(outside.any()):
        raise ValueError(
            f"tail: {tail.detach()[outside].flatten()[0].item():.12g} is outside (0, 1]. It is the chance to stop at "
            "each step from the last of the law on; None or 1 stops there."
        )
    return tail.to(device=device, dtype=torch.float64)


def _hazards(law: Tensor) -> Tensor:
    """`p_t / (p_t + ... + p_k)` for t < k, and 1 where P(T >= t) is zero."""
    later = law.flip(-1).cumsum(-1).flip(-1)
    reached = later > 0
    return torch.where(reached, law / torch.where(reached, later, 1.0), 1.0)[..., :-1]
