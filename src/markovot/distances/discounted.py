"""The public distances: check the input, choose an engine, solve, attach the gradient."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from markovot import validate
from markovot.autograd.eager import eagerly
from markovot.autograd.transforms import is_wrapped, recording
from markovot.chains import MarkovChain, chain_of
from markovot.costs import resolve_cost
from markovot.distances import couplings, horizons
from markovot.solution import ChainSolution, Status, rounded, statuses
from markovot.solving.adjoint import Inputs, Solved
from markovot.solving.call import DistanceCall, Outputs
from markovot.solving.fixed_point import PolicyIteration, Solver, check_solver
from markovot.solving.inputs import batch_shape, common_inputs, layout, measured
from markovot.solving.parts import Part, divide, joined, listed, located, same_parts
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
        A `ChainSolution`, values in units of the cost; for a finite depth, a `HorizonSolution`. The value lies between
        the least and the largest cost, for every epsilon. The bound is 0 for a constant cost, and at epsilon = 0 for
        two copies of one chain whose states have the least cost to themselves.

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
        Computed in float64 whatever the dtype; deterministic. On the CPU an item of a batch has the value, bound, costs
        to go, plan and alignment that it has alone, to the bit, whatever its mates and its padding (not inside
        transforms of torch.func). Memory O(n m (dx + dy)) a pair, dx and dy the largest degrees, and on the CPU at most
        128 MiB of plans for each pair that are kept rather than recomputed. A solution holds on to them.

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
    throw = validate.flag("throw", throw)
    x, y = chain_of("x", x), chain_of("y", y)
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
    rows = None if is_wrapped(x.parameter) or is_wrapped(y.parameter) else (x.rows(), y.rows())
    parts = divide(place, rows, inputs)
    starts = _starts(init, parts) if scale.unit.is_one else [None] * len(parts)
    calls = [
        DistanceCall(part.layout, part.rows, solver, start, polish=derivatives)
        for part, start in zip(parts, starts, strict=True)
    ]
    found = []
    for part, call in zip(parts, calls, strict=True):
        given = part.take(inputs)
        found.append(Outputs(*call(*given)) if derivatives else call.solve(*(tensor.detach() for tensor in given)))
    answer = Answer(parts, [call.solved for call in calls], scale.unit, (x, y))
    # Under vmap the outputs hide its axes; what is no tensor, and what errors say, has them before the batch.
    whole = batch if calls[0].fold is None else torch.Size((len(answer.wanted) // max(1, batch.numel()), *batch))
    if throw and not all(status is Status.CONVERGED for status in answer.status):
        plain = [Outputs.of(solved) for solved in answer.solved]
        _package(answer, answer.joined(plain), whole, whole).raise_unless_converged(answer.wanted.view(whole))
    return _package(answer, answer.joined(found), batch, whole)


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


def _starts(init: ChainSolution | None, parts: list[Part]) -> list[Solved | None]:
    """Of an earlier solution what each part can start from; nothing where it was cut in other parts."""
    if init is not None:
        answer = init._details.answer
        if answer.unit.is_one and same_parts(answer.parts, parts):
            return list(answer.solved)
    return [None] * len(parts)


class Answer(NamedTuple):
    """A solved batch, in parts, and what it was asked for."""

    parts: list[Part]
    solved: list[Solved]  # one for each part
    unit: Unit
    chains: tuple[MarkovChain, MarkovChain]

    @property
    def status(self) -> list[Status]:
        """That of every item."""
        return listed(self.parts, lambda number: self.solved[number].fixed_point.status)

    @property
    def wanted(self) -> Tensor:
        """The error that every item was to meet, in units of the cost, (P,)."""
        return self.unit.outside(joined(self.parts, [solved.wanted for solved in self.solved]))

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of states n and m, padding included."""
        return self.chains[0].num_states, self.chains[1].num_states

    def joined(self, found: list[Outputs]) -> Outputs:
        """The outputs of the batch from those of the parts, in units of the cost."""
        (n, m), parts, outside = self.shape, self.parts, self.unit.outside
        value, cost_to_go, bound, num_iter, plan, f, g = zip(*found, strict=True)
        return Outputs(
            outside(joined(parts, value)), outside(joined(parts, cost_to_go, n, m)), outside(joined(parts, bound)),
            joined(parts, num_iter), joined(parts, plan, n, m), outside(joined(parts, f, n)),
            outside(joined(parts, g, m)),
        )  # fmt: skip


def _package(answer: Answer, found: Outputs, batch: torch.Size, whole: torch.Size) -> ChainSolution:
    """The solution of a batch; `whole` is the shape of all solved items, of which vmap may hide a part."""
    details = _Details(answer, batch)
    value, bound = rounded(found.value, found.error_bound, answer.chains[0].dtype)
    return ChainSolution(
        value=value.view(batch),
        error_bound=bound.view(batch),
        status=statuses(answer.status, whole),
        num_iter=found.num_iter.view(batch),
        plan=details.shaped(found.plan),
        potentials=(details.shaped(found.f), details.shaped(found.g)),
        cost_to_go=details.shaped(found.cost_to_go),
        _details=details,
    )


class _Details:
    """What a solution computes only when asked."""

    def __init__(self, answer: Answer, batch: torch.Size) -> None:
        self.answer = answer
        self._batch = batch
        self._dtype = answer.chains[0].dtype

    @property
    def chains(self) -> tuple[MarkovChain, MarkovChain]:
        return self.answer.chains

    @property
    def solved(self) -> Solved:
        """What was found of a single pair."""
        return self.answer.solved[0]

    @property
    def unit(self) -> Unit:
        return self.answer.unit

    def shaped(self, values: Tensor) -> Tensor:
        return values.to(self._dtype).view(*self._batch, *values.shape[1:])

    @property
    def cost_to_go_error(self) -> Tensor:
        self._refuse_hidden()
        outside, parts = self.unit.outside, self.answer.parts
        cost = joined(parts, [solved.cost_to_go for solved in self.answer.solved], *self.answer.shape)
        error = joined(parts, [solved.fixed_point.enclosure.radius for solved in self.answer.solved])
        return rounded(outside(cost), outside(error), self._dtype)[1].view(self._batch)

    def _refuse_hidden(self) -> None:
        if len(self.answer.wanted) != math.prod(self._batch):
            raise NotImplementedError(
                "alignment, coupling: inside a transform such as torch.func.vmap they have no shape of their own. Give "
                "discounted_wl a batch; or take the gradient of the value in the cost, which is the alignment."
            )

    def alignment(self) -> Tensor:
        self._refuse_hidden()
        found = [solved.inputs.discount[:, None, None] * solved.occupation() for solved in self.answer.solved]
        return self.shaped(joined(self.answer.parts, found, *self.answer.shape))

    def _couplings(self, item: int) -> tuple[couplings.Entries, couplings.Chains]:
        number, place = located(self.answer.parts, item)
        part, solved = self.answer.parts[number], self.answer.solved[number]
        found = part.entries(solved.bellman.engine.couplings(place), self.answer.shape[1])
        return found, solved.problem.chains(place)

    def coupling(self, i: int, j: int) -> Tensor:
        self._refuse_hidden()
        couplings.check_pair(self._batch, self.answer.shape, (i, j), instead="transition_coupling(item)")
        entries, chains = self._couplings(0)
        return couplings.of_states(entries, self.answer.shape, chains, (i, j), self._dtype)

    def transition_coupling(self, item: int) -> Any:
        self._refuse_hidden()
        couplings.check_item(item, math.prod(self._batch))
        entries, chains = self._couplings(item)
        return couplings.of_chains(entries, self.answer.shape, chains)
