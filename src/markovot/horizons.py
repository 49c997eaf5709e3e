"""Distances of chains that walk for a finite or any other random time: the public functions."""

import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from markovot import couplings, recursion, validate
from markovot._eager import eagerly
from markovot._implicit import implicit
from markovot._transforms import recording
from markovot.assembly import batch_shape, common_inputs, layout, measured
from markovot.chains import MarkovChain, as_chain
from markovot.costs import resolve_cost
from markovot.fixed_point import PolicyIteration, Solver, check_solver
from markovot.recursion import Inputs, Problem, Solved
from markovot.solution import ChainSolution, rounded, statuses
from markovot.transport.units import Unit


@dataclass(frozen=True, eq=False)
class HorizonSolution(ChainSolution):
    """The distance of two Markov chains at a random time T, with the optimal couplings behind it.

    Attributes:
        cost_to_go: C^(0), the distance from every pair of first states (*batch, n, m); differentiable.
    """

    @property
    def alignment(self) -> Tensor:
        """The law of (X_T, Y_T) for the optimally coupled chains, a probability on pairs of states (*batch, n, m).

        It says how the states of X and Y correspond, and it is the gradient of the distance in the cost. Computed on
        first use by one pass over the levels.
        """
        return self._details.alignment()

    def coupling(self, i: int, j: int, step: int = 0) -> Tensor:
        """The optimal coupling of the rows `x[i]` and `y[j]` at a step: it changes with the time that is left.

        Args:
            i: a state of x, counted from 0.
            j: a state of y.
            step: from time `step` to `step + 1`.

        Returns:
            A dense tensor (n, m) with marginals `x[i]` and `y[j]`.

        Raises:
            ValueError: the solution is of a batch; `transition_coupling(item)` serves these.
            IndexError: no such states; no such step.
        """
        return self._details.coupling(i, j, step)

    def transition_coupling(self, item: int = 0, step: int = 0) -> Any:
        """The optimal coupled chain on pairs of states at a step: a SciPy sparse array (nm, nm), rows summing to one.

        Args:
            item: which item of a batch, counted in row-major order.
            step: from time `step` to `step + 1`. From the last level of a law with a tail on, it stays the same.

        Returns:
            A `scipy.sparse.csr_array`. Row `i * m + j` holds the coupling of `x[i]` and `y[j]`, column `k * m + l` the
            next pair. Computed at each call, by one sweep over the local problems.

        Raises:
            IndexError: no such item; no such step.
        """
        return self._details.transition_coupling(item, step)


@eagerly
def wl(
    x: Any,
    y: Any,
    cost: Any,
    *,
    depth: int,
    epsilon: float | Tensor,
    solver: Solver = PolicyIteration(),
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
        solver: its `rtol` is the wanted certified error, relative to the range of the cost (to one where that is zero).
            Nothing is iterated, and nothing else of it matters.
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
        >>> from markovot.horizons import wl
        >>> x = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64)
        >>> y = torch.tensor([[0.3, 0.7], [0.6, 0.4]], dtype=torch.float64)
        >>> cost = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
        >>> print(*(f"{wl(x, y, cost, depth=depth, epsilon=0.0).value.item():.3f}" for depth in (0, 1, 2)))
        0.205 0.272 0.312
    """
    x, y = as_chain(x), as_chain(y)
    ground = resolve_cost(cost, x, y)
    depth = _check_depth(depth)
    epsilon = validate.regularisation(epsilon, dtype=torch.float64, device=x.device)
    check_solver(solver)
    batch = batch_shape(ground.shape[:-2], epsilon=epsilon.shape)
    hazards = torch.zeros(*batch, depth, dtype=torch.float64, device=x.device)
    return _distance((x, y), ground, (hazards, None, epsilon), batch, solver, throw=throw)


@eagerly
def horizon_wl(
    x: Any,
    y: Any,
    cost: Any,
    *,
    law: Any,
    epsilon: float | Tensor,
    tail: float | Tensor | None = None,
    solver: Solver = PolicyIteration(),
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
        solver: its `rtol` is the wanted certified error, relative to the range of the cost (to one where that is zero).
            Only a tail is iterated, in the solver's way.
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
        >>> from markovot.horizons import horizon_wl
        >>> x = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64)
        >>> y = torch.tensor([[0.3, 0.7], [0.6, 0.4]], dtype=torch.float64)
        >>> cost = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
        >>> law = torch.tensor([0.5, 0.25, 0.25])
        >>> print(f"{horizon_wl(x, y, cost, law=law, epsilon=0.0).value.item():.3f}")
        0.318
    """
    x, y = as_chain(x), as_chain(y)
    ground = resolve_cost(cost, x, y)
    law = _check_law(law, x.device)
    epsilon = validate.regularisation(epsilon, dtype=torch.float64, device=x.device)
    shapes = {"law": law.shape[:-1], "epsilon": epsilon.shape}
    if tail is not None:
        tail = _check_tail(tail, x.device)
        shapes["tail"] = tail.shape
    check_solver(solver)
    batch = batch_shape(ground.shape[:-2], **shapes)
    return _distance((x, y), ground, (_hazards(law), tail, epsilon), batch, solver, throw=throw)


def truncated(
    chains: tuple[MarkovChain, MarkovChain],
    ground: Tensor,
    delta: Tensor,
    epsilon: Tensor,
    *,
    depth: int,
    solver: Solver,
    throw: bool,
) -> HorizonSolution:
    """`discounted_wl` of a finite depth, its other arguments being checked."""
    depth = _check_depth(depth)
    batch = batch_shape(ground.shape[:-2], delta=delta.shape, epsilon=epsilon.shape)
    hazards = delta[..., None].expand(*delta.shape, depth)
    return _distance(chains, ground, (hazards, None, epsilon), batch, solver, throw=throw)


def _check_depth(depth: Any) -> int:
    if isinstance(depth, bool) or not isinstance(depth, numbers.Integral):
        raise TypeError(f"depth: expected an integer, got {type(depth).__name__}. It is a number of steps.")
    if depth < 0:
        raise ValueError(f"depth: {depth} is negative. 0 compares the initial laws, k the states after k steps.")
    return int(depth)


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
    return law + (law.detach() - law).mean(-1, keepdim=True)  # the same numbers; their gradient less its mean


def _check_tail(tail: Any, device: torch.device) -> Tensor:
    if isinstance(tail, Tensor | np.ndarray):
        tail = validate.as_tensor("tail", tail)
        validate.floating("tail", tail)
    else:
        tail = torch.tensor(validate.number("tail", tail, 0.0, 1.0), dtype=torch.float64)
    outside = ~((tail > 0) & (tail <= 1))
    if bool(outside.any()):
        raise ValueError(
            f"tail: {tail.detach()[outside].flatten()[0].item():.12g} is outside (0, 1]. It is the chance to stop at "
            "each step from the last of the law on; None or 1 stops there."
        )
    return tail.to(device=device, dtype=torch.float64)


def _hazards(law: Tensor) -> Tensor:
    """`p_t / (p_t + ... + p_k)` for t < k, and one where T is never so large."""
    later = law.flip(-1).cumsum(-1).flip(-1)
    reached = later > 0
    return torch.where(reached, law / torch.where(reached, later, 1.0), 1.0)[..., :-1]


def _distance(
    chains: tuple[MarkovChain, MarkovChain],
    ground: Tensor,
    horizon: tuple[Tensor, Tensor | None, Tensor],
    batch: torch.Size,
    solver: Solver,
    *,
    throw: bool,
) -> HorizonSolution:
    """Solve, attach the gradient, and package; `horizon` are the hazards, the tail and epsilon."""
    hazards, tail, epsilon = horizon
    common, place = common_inputs(*chains, ground, batch), layout(*chains, batch)
    scale = measured(common.ground, epsilon.expand(batch).reshape(-1), place.mask)
    inputs = Inputs(
        scale.ground,
        *common[1:],
        hazards.expand(*batch, hazards.shape[-1]).reshape(batch.numel(), hazards.shape[-1]),
        (torch.ones_like(epsilon) if tail is None else tail).expand(batch).reshape(-1),
        scale.epsilon,
    )
    needs_gradient = recording(*inputs)
    solved: Solved | None = None

    def run(*tensors: Tensor) -> tuple[tuple[Tensor, Tensor], Any]:
        nonlocal solved
        given = Inputs(*(tensor.contiguous() for tensor in tensors))
        problem = Problem(given, (chains[0].rows(), chains[1].rows()), *place, has_tail=tail is not None)
        solved = recursion.solve(problem, solver, polish=needs_gradient)
        return (solved.value, solved.cost_to_go), solved.pullback

    if needs_gradient:
        value, cost_to_go = implicit(run, *inputs)
    else:
        (value, cost_to_go), _ = run(*(tensor.detach() for tensor in inputs))
    assert solved is not None
    solution = _package(solved, (value, cost_to_go), scale.unit, batch, chains)
    if throw:
        solution.raise_unless_converged(scale.unit.outside(solved.wanted).view(batch))
    return solution


def _package(
    solved: Solved,
    found: tuple[Tensor, Tensor],
    unit: Unit,
    batch: torch.Size,
    chains: tuple[MarkovChain, MarkovChain],
) -> HorizonSolution:
    """The solution of a batch, from the differentiable values and costs to go."""
    value, cost_to_go = (unit.outside(each) for each in found)
    value, bound = rounded(value, unit.outside(solved.error_bound), chains[0].dtype)
    details = _Details(solved, unit, batch, chains)
    return HorizonSolution(
        value=value.view(batch),
        error_bound=bound.view(batch),
        status=statuses(solved.status, batch),
        num_iter=solved.num_iter.view(batch),
        plan=details.shaped(solved.outer.plan),
        potentials=(details.shaped(unit.outside(solved.outer.f)), details.shaped(unit.outside(solved.outer.g))),
        cost_to_go=details.shaped(cost_to_go),
        _details=details,
    )


class _Details:
    """What a solution computes only when asked."""

    def __init__(
        self, solved: Solved, unit: Unit, batch: torch.Size, chains: tuple[MarkovChain, MarkovChain]
    ) -> None:
        self.chains = chains
        self._solved = solved
        self._unit = unit
        self._batch = batch
        self._dtype = chains[0].dtype

    @property
    def solved(self) -> Any:
        raise TypeError(
            "solution: it is of a finite horizon or of one with a law of its own, and here only a solution of "
            "discounted_wl of depth infinity will do."
        )

    @property
    def cost_to_go_error(self) -> Tensor:
        cost, error = (self._unit.outside(each) for each in (self._solved.cost_to_go, self._solved.cost_error))
        return rounded(cost, error, self._dtype)[1].view(self._batch)

    def shaped(self, values: Tensor) -> Tensor:
        return values.to(self._dtype).view(*self._batch, *values.shape[1:])

    def alignment(self) -> Tensor:
        return self.shaped(self._solved.occupation())

    def coupling(self, i: int, j: int, step: int) -> Tensor:
        n, m = self._solved.cost_to_go.shape[1:]
        couplings.check_pair(self._batch, (n, m), (i, j), instead="transition_coupling(item, step)")
        self._check_step("coupling", step)
        return couplings.of_states(self._solved.couplings(0, step), (n, m), (i, j), self._dtype)

    def transition_coupling(self, item: int, step: int) -> Any:
        num, n, m = self._solved.cost_to_go.shape
        couplings.check_item(item, num)
        self._check_step("transition_coupling", step)
        return couplings.of_chains(self._solved.couplings(item, step), (n, m))

    def _check_step(self, name: str, step: int) -> None:
        depth = self._solved.problem.depth
        if step < 0 or (step >= depth and not self._solved.problem.has_tail):
            raise IndexError(f"{name}: no step {step} in a walk of at most {depth} steps. They count from 0.")
