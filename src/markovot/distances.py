"""The public distances: check the input, choose an engine, solve, attach the gradient."""

import math
from typing import Any

import torch
from torch import Tensor

from markovot import couplings, horizons, validate
from markovot._eager import eagerly
from markovot._transforms import is_wrapped, recording
from markovot.adjoint import Inputs, Solved
from markovot.assembly import batch_shape, common_inputs, layout, measured
from markovot.calls import DistanceCall, Outputs
from markovot.chains import MarkovChain, as_chain
from markovot.costs import resolve_cost
from markovot.fixed_point import PolicyIteration, Solver, check_solver
from markovot.solution import ChainSolution, Status, rounded, statuses
from markovot.transport.units import Unit


@eagerly
def discounted_wl(
    x: Any,
    y: Any,
    cost: Any,
    *,
    delta: float | Tensor,
    epsilon: float | Tensor,
    depth: int | None = None,
    solver: Solver = PolicyIteration(),
    init: ChainSolution | None = None,
    throw: bool = True,
) -> ChainSolution:
    r"""The discounted Weisfeiler-Lehman distance between two Markov chains, of depth infinity or of a finite depth.

    $$d = OT_\epsilon(\nu, \mu; C^*), \qquad
      C^*_{ij} = \delta D_{ij} + (1 - \delta)\, OT_\epsilon(A_i, B_j; C^*),$$

    with $OT_\epsilon(a, b; C) = \min_\pi \langle \pi, C \rangle + \epsilon\, KL(\pi | a \otimes b)$: the least expected
    cost of the pair of states at a random time, geometric with parameter delta, over all ways to run the two chains
    together. A finite depth k stops the walk after k steps: the time is the smaller of k and the geometric one, and
    the distance that of `horizon_wl` with this law, `C^(k) = D` and `C^(t) = delta D + (1 - delta) OT(A, B; C^(t+1))`.

    Args:
        x: a chain with n states, or whatever `as_chain` accepts, or a batch of them; transition A, initial law nu.
        y: the same with m states; transition B, initial law mu. Batch dimensions are broadcast.
        cost: ground cost D between states: a tensor (*batch, n, m), or an object of `markovot.costs`.
        delta: in (0, 1]; a number or a tensor (*batch). The chance to stop at each step: 1 compares initial laws only,
            small values look about 1/delta steps ahead.
        epsilon: in units of the cost; a number or a tensor (*batch). Smaller is closer to the unregularised distance:
            the entropic bias is at most about (1 - delta) / delta * epsilon * log(degree). 0, for every item, asks for
            exact transport: a metric where the cost is one, on the CPU only.
        depth: the most steps, an integer >= 0, or None (default) for no limit. Depth k is within
            `(1 - delta)^k max|D - C*|` of depth infinity, and takes k sweeps over all local problems where that takes
            3 to 10.
        solver: `PolicyIteration` (default) or `ValueIteration`, with the certified tolerance `rtol`. It does not change
            the answer beyond `error_bound`. A finite depth leaves nothing to iterate, and takes only `rtol` from it.
        init: an earlier solution of a problem of the same shape, to start from, as in training loops. It does not
            change the answer beyond `error_bound`. Measured with costs that moved by 0.1 %: three to four times as
            fast at n = m = 256 and small epsilon, a tenth faster where a solve takes 3 ms anyway. Not for a finite
            depth, which has no fixed point to find.
        throw: raise a `SolveError` if some item did not converge, rather than return it with its status.

    Returns:
        A `ChainSolution`, values in units of the cost; for a finite depth, a `HorizonSolution`.

    Raises:
        TypeError: integer or mixed dtypes, or something that is neither a chain nor a cost.
        ValueError: bad probabilities, costs, shapes, delta, epsilon or depth; a stationary law that is not unique.
        SolveError: not converged (see `throw`).

    Note:
        Differentiable in the cost (and the features behind it), both transitions (dense: all entries, sparse: the
        stored ones), both initial laws, delta and epsilon: `backward`, forward mode and second order (one and two more
        solves, and potentials of all local problems once more), and `torch.func`'s grad, vmap, jvp, hessian. Gradients
        in laws and rows are centred. Where a derivative may be wanted, one more step is taken past the tolerance,
        since derivatives are as good as `C*`. At epsilon = 0 gradients are elements of the super- or subdifferential
        (envelope theorem): those of the plans and potentials that were found, which is the gradient wherever they are
        unique; second derivatives do not exist there. Not for a finite depth: `backward` only.
        Computed in float64 whatever the dtype; deterministic. Memory O(n m (dx + dy)), dx and dy the largest degrees,
        and on the CPU at most 128 MiB of plans that are kept rather than recomputed. A solution holds on to them.

    References:
        Brugere, Wan, Wang: Distances for Markov Chains, and Their Differentiation (arXiv 2302.08621).

    Example:
        >>> import torch, markovot
        >>> x = torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float64)
        >>> y = torch.tensor([[0.5, 0.5], [0.5, 0.5]], dtype=torch.float64)
        >>> cost = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64, requires_grad=True)
        >>> solution = markovot.discounted_wl(x, y, cost, delta=0.2, epsilon=0.01)
        >>> print(f"{solution.value.item():.4f}, certified to {solution.error_bound.item():.0e}")
        0.3299, certified to 5e-15
    """
    x, y = as_chain(x), as_chain(y)
    ground = resolve_cost(cost, x, y)
    delta = validate.discount(delta, dtype=torch.float64, device=x.device)
    epsilon = validate.regularisation(epsilon, dtype=torch.float64, device=x.device)
    check_solver(solver)
    if depth is not None:
        _refuse_init(init)
        return horizons.truncated((x, y), ground, delta, epsilon, depth=depth, solver=solver, throw=throw)
    batch = batch_shape(ground.shape[:-2], delta=delta.shape, epsilon=epsilon.shape)
    delta, epsilon = (parameter.expand(batch).reshape(-1) for parameter in (delta, epsilon))
    common, place = common_inputs(x, y, ground, batch), layout(x, y, batch)
    scale = measured(common.ground, epsilon, place.mask)
    inputs = Inputs(scale.ground, *common[1:], delta, scale.epsilon)
    _check_init(init, batch, x, y)
    derivatives = recording(*inputs)
    start = init._details.solved if init is not None and init._details.unit.is_one and scale.unit.is_one else None
    rows = None if is_wrapped(x.parameter) or is_wrapped(y.parameter) else (x.rows(), y.rows())
    call = DistanceCall(place, rows, solver, start, polish=derivatives)
    found = Outputs(*call(*inputs)) if derivatives else call.solve(*(tensor.detach() for tensor in inputs))
    solved = call.solved
    # Under vmap the outputs hide its axes; what is no tensor, and what errors say, has them before the batch.
    whole = batch if call.fold is None else torch.Size((len(solved.wanted) // max(1, batch.numel()), *batch))
    if throw and not all(status is Status.CONVERGED for status in solved.fixed_point.status):
        wanted = scale.unit.outside(solved.wanted).view(whole)
        _package(solved, Outputs.of(solved), scale.unit, (whole, whole), (x, y)).raise_unless_converged(wanted)
    return _package(solved, found, scale.unit, (batch, whole), (x, y))


def _refuse_init(init: Any) -> None:
    if init is not None:
        raise ValueError("init: a finite depth is solved level by level and has no use for a start. Leave it out.")


def _check_init(init: Any, batch: torch.Size, x: MarkovChain, y: MarkovChain) -> None:
    if init is None:
        return
    if not isinstance(init, ChainSolution):
        raise TypeError(f"init: expected a solution of discounted_wl, got {type(init).__name__}.")
    wanted = (*batch, x.num_states, y.num_states)
    if tuple(init.cost_to_go.shape) != wanted:
        raise ValueError(
            f"init: it solves a problem of shape {tuple(init.cost_to_go.shape)}, this one has {wanted}. Leave it out."
        )


def _package(
    solved: Solved,
    found: Outputs,
    unit: Unit,
    shapes: tuple[torch.Size, torch.Size],
    chains: tuple[MarkovChain, MarkovChain],
) -> ChainSolution:
    """The solution of a batch; `shapes` are its own, and that of all solved items, of which vmap may hide a part."""
    dtype, (batch, whole) = chains[0].dtype, shapes
    value, bound = rounded(unit.outside(found.value), unit.outside(found.error_bound), dtype)
    details = _Details(solved, unit, batch, chains)
    return ChainSolution(
        value=value.view(batch),
        error_bound=bound.view(batch),
        status=statuses(solved.fixed_point.status, whole),
        num_iter=found.num_iter.view(batch),
        plan=details.shaped(found.plan),
        potentials=(details.shaped(unit.outside(found.f)), details.shaped(unit.outside(found.g))),
        cost_to_go=details.shaped(unit.outside(found.cost_to_go)),
        _details=details,
    )


class _Details:
    """What a solution computes only when asked."""

    def __init__(
        self, solved: Solved, unit: Unit, batch: torch.Size, chains: tuple[MarkovChain, MarkovChain]
    ) -> None:
        self.solved = solved
        self.unit = unit
        self.chains = chains
        self._batch = batch
        self._dtype = chains[0].dtype

    def shaped(self, values: Tensor) -> Tensor:
        return values.to(self._dtype).view(*self._batch, *values.shape[1:])

    @property
    def cost_to_go_error(self) -> Tensor:
        self._refuse_hidden()
        found = self.solved.cost_to_go, self.solved.fixed_point.enclosure.radius
        cost, error = (self.unit.outside(each) for each in found)
        return rounded(cost, error, self._dtype)[1].view(self._batch)

    def _refuse_hidden(self) -> None:
        if len(self.solved.wanted) != math.prod(self._batch):
            raise NotImplementedError(
                "alignment, coupling: inside a transform such as torch.func.vmap they have no shape of their own. Give "
                "discounted_wl a batch; or take the gradient of the value in the cost, which is the alignment."
            )

    def alignment(self) -> Tensor:
        self._refuse_hidden()
        delta = self.solved.inputs.discount[:, None, None]
        return self.shaped(delta * self.solved.occupation())

    def coupling(self, i: int, j: int) -> Tensor:
        self._refuse_hidden()
        n, m = self.solved.outer.plan.shape[1:]
        couplings.check_pair(self._batch, (n, m), (i, j), instead="transition_coupling(item)")
        return couplings.of_states(self.solved.bellman.engine.couplings(0), (n, m), (i, j), self._dtype)

    def transition_coupling(self, item: int) -> Any:
        self._refuse_hidden()
        couplings.check_item(item, math.prod(self._batch))
        n, m = self.solved.outer.plan.shape[1:]
        return couplings.of_chains(self.solved.bellman.engine.couplings(item), (n, m))
