"""The public distance of depth infinity: check the input, solve, attach the gradient."""

from typing import Any

import torch
from torch import Tensor

from markovot import validate
from markovot.autograd.eager import eagerly
from markovot.chains import chain_of
from markovot.costs import resolve_cost
from markovot.distances import walks
from markovot.distances.answer import packaged, solved_in_parts
from markovot.distances.walks import Horizon
from markovot.solution import ChainSolution, HorizonSolution
from markovot.solving.adjoint import SolvedDistance
from markovot.solving.call import DistanceCall
from markovot.solving.inputs import Prepared, prepared
from markovot.solving.parts import Part
from markovot.solving.problem import Inputs


@eagerly
def discounted_wl(
    x: Any,
    y: Any,
    cost: Any,
    *,
    delta: float | Tensor,
    epsilon: float | Tensor,
    depth: int | None = None,
    rtol: float = 1e-4,
    max_iter: int = 100,
    init: ChainSolution | None = None,
    throw: bool = True,
) -> ChainSolution:
    r"""The discounted Weisfeiler-Lehman distance between two Markov chains, of depth infinity or of a finite depth.

    $$d = OT_\epsilon(\nu, \mu; C^*), \qquad
      C^*_{ij} = \delta D_{ij} + (1 - \delta)\, OT_\epsilon(A_i, B_j; C^*),$$

    with $OT_\epsilon(a, b; C) = \min_\pi \langle \pi, C \rangle + \epsilon\, KL(\pi | a \otimes b)$: the least expected
    cost of the pair of states at a random time, geometric with parameter delta, over all ways to run the two chains
    together. A finite depth k stops the walk after k steps: the time is the smaller of k and the geometric one. The
    distance is that of `horizon_wl` with its law, `C^(k) = D` and `C^(t) = delta D + (1 - delta) OT(A, B; C^(t+1))`.

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
        rtol: wanted certified error, relative to the range of the cost (to one where that is zero). It does not change
            the answer beyond `error_bound`. The default 1e-4 is far below the entropic bias at usual epsilon; 1e-10 is
            within reach.
        max_iter: the most sweeps over all local problems. 3 to 10 are usual. A finite depth has nothing to iterate.
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
    throw, (rtol, max_iter) = validate.flag("throw", throw), validate.accuracy(rtol, max_iter)
    x, y = chain_of("x", x), chain_of("y", y)
    ground = resolve_cost(cost, x, y)
    delta = validate.discount(delta, dtype=torch.float64, device=x.device)
    epsilon = validate.regularisation(epsilon, dtype=torch.float64, device=x.device)
    if depth is not None:
        if init is not None:
            raise ValueError("init: a finite depth is solved level by level and has no use for a start. Leave it out.")
        steps = walks.check_depth(depth)
        horizon = Horizon(delta[..., None].expand(*delta.shape, steps), None, {"delta": delta.shape})
        return walks.distance((x, y), ground, epsilon, horizon, (rtol, max_iter), throw=throw)
    given = prepared((x, y), ground, epsilon, {"delta": delta.shape})
    _check_init(init, given)
    starts = {} if init is None else _starts(init, given)

    def call(part: Part, derivatives: bool) -> DistanceCall:
        start = starts.get(_place(part)) if starts else None
        return DistanceCall(part.pairing, rtol, max_iter, start, polish=derivatives)

    inputs = Inputs(given.ground, given.x, given.y, *given.laws(), given.items(delta), given.epsilon)
    answer, found = solved_in_parts(given, inputs, call)
    return packaged(answer, found, ChainSolution, throw=throw)


def _check_init(init: Any, given: Prepared) -> None:
    if init is None:
        return
    if not isinstance(init, ChainSolution) or isinstance(init, HorizonSolution):
        raise TypeError(f"init: expected a solution of discounted_wl of depth infinity, got {type(init).__name__}.")
    x, y = given.chains
    wanted = (*given.batch, x.num_states, y.num_states)
    if tuple(init.cost_to_go.shape) != wanted:
        raise ValueError(
            f"init: it solves a problem of shape {tuple(init.cost_to_go.shape)}, this one has {wanted}. Leave it out."
        )


def _starts(init: ChainSolution, given: Prepared) -> dict[Any, SolvedDistance]:
    """The parts of an earlier solution by their sizes and items: a part in which both agree can start from its own."""
    answer = init.details.answer
    if not (answer.unit.is_one and given.unit.is_one):
        return {}
    return {_place(part): solved for part, solved in zip(answer.parts, answer.solved, strict=True)}


def _place(part: Part) -> Any:
    return part.shape, None if part.items is None else tuple(part.items.tolist())
