"""The optimal transition coupling of two chains: the public function, and what it returns."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor

from markovot import validate
from markovot.autograd.copying import Copyable
from markovot.autograd.eager import eagerly
from markovot.autograd.implicit import implicit
from markovot.autograd.transforms import recording
from markovot.average import items
from markovot.average.items import Inputs, Solved
from markovot.chains import chain_of
from markovot.costs import resolve_cost
from markovot.distances import couplings
from markovot.solution import Solution, as_number, in_short, rounded, statuses
from markovot.solving.inputs import Pairing, batch_shape, layout, measured
from markovot.transport.units import Unit


@dataclass(frozen=True, eq=False, repr=False)
class TransitionCouplingSolution(Copyable):
    """The least long-run mean cost of two coupled chains, with its certificate and the coupling behind it.

    Attributes:
        value: the gain: the least mean cost per step in the long run (*batch), in units of the cost; differentiable.
        error_bound: certified: the true gain lies within it of `value` (*batch).
        status: a `Status`, or for a batch an array of them.
        num_iter: sweeps over all local problems, a tensor (*batch).
        gain: the least long-run mean cost from every pair of first states (*batch, n, m). It is `value` everywhere,
            unless the periods of both chains have a common divisor: then pairs fall into `classes` that are never left,
            each with a gain of its own, and `value` is the least. Each is as accurate as `value` was asked to be.
        classes: which pairs of states can meet in one run of the two chains: labels from 0 on, int64 (*batch, n, m); -1
            at padded states.
        bias: the relative cost to go h (*batch, n, m), `gain + h = D + OT(A, B; h)`: how much more it costs in total to
            start from a pair rather than from the best one of its class, where h is zero. No certificate.
    """

    value: Tensor
    error_bound: Tensor
    status: Any
    num_iter: Tensor
    gain: Tensor
    classes: Tensor
    bias: Tensor
    _details: "_Details"

    def __repr__(self) -> str:
        return in_short(self)

    def __float__(self) -> float:
        return as_number(self)

    @property
    def converged(self) -> Tensor:
        """Whether each item met its tolerance, bool (*batch)."""
        return cast(Tensor, Solution.converged.__get__(self))

    def raise_unless_converged(self, wanted: Tensor) -> None:
        """Raise a `SolveError` that names the items that did not converge, their bounds, and the repair.

        Args:
            wanted: the error bound that each item was to meet (*batch), in units of the cost.

        Raises:
            SolveError: some item did not converge.
        """
        Solution.raise_unless_converged(cast(Solution, self), wanted)  # it reads what both have

    @property
    def alignment(self) -> Tensor:
        """The stationary law of the optimally coupled chain, a probability on pairs of states (*batch, n, m).

        It couples the stationary laws of the two chains, and is the gradient of the gain in the cost. It says which
        states go together, and how often. Where the coupled chain has several recurrent classes that cost the same, it
        is the law of the largest one (of the first of these). Computed on first use by one linear solve.

        Raises:
            RuntimeError: it was not found, since the coupled chain mixes too slowly.
        """
        return self._details.alignment

    @property
    def expected_cost(self) -> Tensor:
        """The mean ground cost under `alignment` (*batch): `value` without its entropic term.

        It is the cost of a transition coupling, so no less than the gain at epsilon = 0.
        """
        return self._details.expected_cost

    def coupling(self, i: int, j: int) -> Tensor:
        """The optimal coupling of the rows `x[i]` and `y[j]`.

        Args:
            i: a state of x, counted from 0.
            j: a state of y.

        Returns:
            A dense tensor (n, m) with marginals `x[i]` and `y[j]`.

        Raises:
            ValueError: the solution is of a batch; `transition_coupling(item)` serves these.
            IndexError: no such states.
        """
        return self._details.coupling(i, j)

    def transition_coupling(self, item: int = 0) -> Any:
        """The optimal coupled chain on pairs of states: a SciPy sparse array (nm, nm) whose rows sum to one.

        Args:
            item: which item of a batch, counted in row-major order; n and m are its own numbers of states.

        Returns:
            A `scipy.sparse.csr_array`. Row `i * m + j` holds the coupling of `x[i]` and `y[j]`, column `k * m + l` the
            next pair.

        Raises:
            IndexError: no such item.
        """
        return self._details.transition_coupling(item)


@eagerly
def optimal_transition_coupling(
    x: Any,
    y: Any,
    cost: Any,
    *,
    epsilon: float | Tensor = 0.0,
    rtol: float = 1e-6,
    max_iter: int = 100,
    throw: bool = True,
) -> TransitionCouplingSolution:
    r"""The optimal transition coupling of two Markov chains: their distance in the long run.

    $$g = \min_P \min_{\lambda P = \lambda} \langle \lambda, D + \epsilon\, KL(P | A \otimes B) \rangle,
      \qquad g + h = D + OT_\epsilon(A, B; h),$$

    the least mean cost per step of the pair of states, over all chains P on pairs whose rows couple those of A and B,
    and their stationary laws. It is the limit of `discounted_wl(..., epsilon=0)` as delta goes to 0, and has no delta
    to choose. The initial laws of the chains play no part.

    Args:
        x: a chain with n states, or whatever `as_chain` accepts, or a batch of them; transition A, with one closed
            class of states. Periodic ones are welcome (see `gain` of the solution).
        y: the same with m states; transition B. Batch dimensions are broadcast.
        cost: ground cost D between states: a tensor (*batch, n, m), or an object of `markovot.costs`.
        epsilon: in units of the cost; a number or a tensor (*batch). 0 (default), for every item: exact transport, on
            the CPU only. Above it, each row pays for its distance from the independent coupling: then g lies above the
            exact gain, by at most epsilon times the mean entropy of the rows, `epsilon * log(degree)`.
        rtol: wanted certified error, relative to the range of the cost (to one where that is zero). Exact policy
            iteration ends after finitely many sweeps, so 1e-10 costs little more than the default.
        max_iter: sweeps over all local problems. 3 to 10 are usual.
        throw: raise a `SolveError` if some item did not converge, rather than return it with its status.

    Returns:
        A `TransitionCouplingSolution`, values in units of the cost.

    Raises:
        TypeError: integer or mixed dtypes, or something that is neither a chain nor a cost.
        ValueError: bad probabilities, costs, shapes or epsilon; a chain with several closed classes; states that are
            left for ever, in chains whose periods have a common divisor.
        SolveError: not converged (see `throw`).

    Note:
        Differentiable in the cost (and the features behind it), both transitions (dense: all entries, sparse: the
        stored ones), and epsilon; first order. Gradients in rows are centred. At epsilon = 0, or where classes tie,
        they are elements of the superdifferential: the gradient wherever the optimal coupling is unique. Where an input
        requires a gradient, one more step is taken past the tolerance.
        The items of a batch are solved one after another. Time: policy iteration, a sweep over all n m transport
        problems each step, of which the first is by far the longest at epsilon = 0, and one Poisson equation of
        matrix-free products. Memory O(n m (dx + dy)), dx and dy the largest degrees. Float64 whatever the dtype;
        deterministic.

    References:
        O'Connor, McGoff, Nobel: Optimal transport for stationary Markov chains via policy iteration (JMLR 2022).
        Puterman: Markov Decision Processes (1994), chapters 8 and 9.

    Example:
        >>> import torch, markovot
        >>> x = torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float64)
        >>> y = torch.tensor([[0.5, 0.5], [0.5, 0.5]], dtype=torch.float64)
        >>> cost = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
        >>> solution = optimal_transition_coupling(x, y, cost)
        >>> print(f"{solution.value.item():.4f}")
        0.4000
        >>> solution.alignment
        tensor([[0.3000, 0.2000],
                [0.2000, 0.3000]], dtype=torch.float64)
    """
    throw, max_iter = validate.flag("throw", throw), validate.count("max_iter", max_iter, low=1)
    x, y = chain_of("x", x), chain_of("y", y)
    ground = resolve_cost(cost, x, y)
    epsilon = validate.regularisation(epsilon, dtype=torch.float64, device=x.device)
    rtol = validate.number("rtol", rtol, 1e-15, 1.0)
    batch = batch_shape(ground.shape[:-2], epsilon=epsilon.shape)
    if not batch.numel():
        raise ValueError(f"x, y, cost, epsilon: a batch of shape {tuple(batch)} holds no problem. Give at least one.")
    n, m = x.num_states, y.num_states
    ground, epsilon = ground.double().expand(*batch, n, m).reshape(-1, n, m), epsilon.expand(batch).reshape(-1)
    place = layout(x, y, batch)
    scale = measured(ground, epsilon, place.mask, bounded=False)
    inputs = Inputs(scale.ground, x.parameter.double(), y.parameter.double(), scale.epsilon)
    needs_gradient = recording(*inputs)
    solved: Solved | None = None

    def run(*tensors: Tensor) -> tuple[tuple[Tensor], Any]:
        nonlocal solved
        pairing = Pairing((x.rows(), y.rows()), *place)
        solved = items.solve(Inputs(*tensors), pairing, rtol, max_iter, polish=needs_gradient)
        return (solved.value,), solved.pullback

    if needs_gradient:
        (value,) = implicit(run, *inputs)
    else:
        (value,), _ = run(*(tensor.detach() for tensor in inputs))
    assert solved is not None
    solution = _package(solved, value, scale.unit, batch, x.dtype)
    if throw:
        wanted = value.new_tensor([item.wanted for item in solved.items])
        solution.raise_unless_converged(scale.unit.outside(wanted).view(batch))
    return solution


def _package(
    solved: Solved, value: Tensor, unit: Unit, batch: torch.Size, dtype: torch.dtype
) -> TransitionCouplingSolution:
    details = _Details(solved, unit, batch, dtype)
    value, bound = rounded(unit.outside(value), unit.outside(solved.error_bound), dtype)
    found = [item.found for item in solved.items]
    labels = solved.padded([item.problem.joint.labels + 1 for item in solved.items]) - 1
    return TransitionCouplingSolution(
        value=value.view(batch),
        error_bound=bound.view(batch),
        status=statuses([each.status for each in found], batch),
        num_iter=torch.tensor([each.num_iter for each in found], device=value.device).view(batch),
        gain=details.costs([item.gain for item in solved.items]),
        classes=labels.view(*batch, *labels.shape[1:]),
        bias=details.costs([item.bias for item in solved.items]),
        _details=details,
    )


class _Details:
    """What a solution computes only when asked."""

    def __init__(self, solved: Solved, unit: Unit, batch: torch.Size, dtype: torch.dtype) -> None:
        self.solved = solved
        self._unit = unit
        self._batch = batch
        self._dtype = dtype

    def shaped(self, parts: list[Tensor]) -> Tensor:
        return self._shaped(self.solved.padded(parts))

    def costs(self, parts: list[Tensor]) -> Tensor:
        return self._shaped(self._unit.outside(self.solved.padded(parts)))

    def _shaped(self, whole: Tensor) -> Tensor:
        return whole.to(self._dtype).view(*self._batch, *whole.shape[1:])

    @cached_property
    def alignment(self) -> Tensor:
        return self.shaped([item.law[0] for item in self.solved.items])

    @cached_property
    def expected_cost(self) -> Tensor:
        found = [(item.law * item.problem.ground).sum() for item in self.solved.items]
        return self._unit.outside(torch.stack(found)).to(self._dtype).view(self._batch)

    def coupling(self, i: int, j: int) -> Tensor:
        item = self.solved.items[0]
        n, m = item.problem.joint.labels.shape
        couplings.check_pair(self._batch, (n, m), (i, j), instead="transition_coupling(item)")
        return couplings.of_states(item.found.engine.couplings(0), (n, m), item.problem.rows, (i, j), self._dtype)

    def transition_coupling(self, item: int) -> Any:
        couplings.check_item(item, math.prod(self._batch))
        one = self.solved.items[item]
        n, m = one.problem.joint.labels.shape
        return couplings.of_chains(one.found.engine.couplings(0), (n, m), one.problem.rows)
