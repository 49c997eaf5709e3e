"""The public function for one transport problem between two laws."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from markovot import validate
from markovot.autograd.centring import centred
from markovot.autograd.eager import eagerly
from markovot.autograd.implicit import Once
from markovot.autograd.transforms import plain
from markovot.costs.ground import given_cost
from markovot.solution import Solution, Status, rounded, statuses
from markovot.solving.bellman import cost_limits, cost_range, tolerance
from markovot.solving.inputs import measured
from markovot.transport.single import MAX_ITER, Coupled, solve_problems
from markovot.transport.units import Unit, confined


@eagerly
def transport_cost(
    a: Any,
    b: Any,
    cost: Any,
    *,
    epsilon: float | Tensor,
    rtol: float = 1e-4,
    max_iter: int = MAX_ITER,
    throw: bool = True,
) -> Solution:
    r"""Optimal transport between two laws, entropic or (epsilon = 0) exact.

    $$\min_\pi \langle \pi, C \rangle + \epsilon\, KL(\pi | a \otimes b)$$

    over the couplings of a and b. The value includes the entropic term, and equals `<f, a> + <g, b>` at the potentials.

    Args:
        a: law (*batch, n), sums to one; states without mass take no part.
        b: law (*batch, m).
        cost: C (*batch, n, m), finite; an array is converted to the laws' dtype and device. All batch dimensions are
            broadcast.
        epsilon: in units of the cost; a number or a tensor (*batch). 0, for every item, is exact, on the CPU only.
        rtol: wanted certified error, relative to the range of the cost (to one where the range is zero).
        max_iter: the most Newton steps of an entropic problem, which takes tens; exact transport counts none.
        throw: raise a `SolveError` if some item did not converge.

    Returns:
        A `Solution`, values in units of the cost.

    Raises:
        TypeError: integer or mixed dtypes.
        ValueError: negative or non-finite entries, laws that do not sum to one, wrong shapes, bad epsilon.
        SolveError: not converged.

    Note:
        Differentiable (first order) in a, b, cost and epsilon; gradients in laws are centred, and at epsilon = 0 they
        are those of the plan and potentials that were found. Damped Newton on the dual: tens of steps at any epsilon,
        each O(n m min(n, m)); exact transport by the simplex method. Computed in float64 whatever the dtype;
        deterministic.

    References:
        Feydy et al.: Interpolating between Optimal Transport and MMD using Sinkhorn Divergences (2019), for the
        potentials.

    Example:
        >>> import torch, markovot
        >>> a, b = torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.75])
        >>> cost = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        >>> print(f"{markovot.transport_cost(a, b, cost, epsilon=0.01).value.item():.3f}")
        0.252
    """
    a, b, cost = _checked(a, b, cost)
    (rtol, max_iter), throw = validate.accuracy(rtol, max_iter), validate.flag("throw", throw)
    epsilon = validate.regularisation(epsilon, dtype=torch.float64, device=a.device)
    n, m, dtype = a.shape[-1], b.shape[-1], a.dtype
    batch = _batch_shape(a, b, cost, epsilon)
    laws = (
        validate.normalised(a).expand(*batch, n).reshape(-1, n),
        validate.normalised(b).expand(*batch, m).reshape(-1, m),
    )
    cost, epsilon = cost.double().expand(*batch, n, m).reshape(-1, n, m), epsilon.expand(batch).reshape(-1)
    scale = measured(cost, epsilon, None)
    inputs = (*laws, scale.ground, scale.epsilon)
    wanted = tolerance(cost_range(plain(scale.ground), None), rtol)

    def solve(a: Tensor, b: Tensor, cost: Tensor, epsilon: Tensor) -> SolvedTransport:
        return SolvedTransport(a, b, cost, epsilon, solve_problems(a, b, cost, epsilon, wanted, max_iter=max_iter))

    call = Once(solve)
    (value,) = call(*inputs)
    exhausted = (call.solved.found.num_iter >= max_iter) & (scale.epsilon.detach() > 0)
    status = Status.each(call.solved.certified[1], wanted, exhausted)
    solution = _package(call.solved, value, scale.unit, batch, statuses(status, batch), dtype)
    if throw:
        solution.raise_unless_converged(scale.unit.outside(wanted).view(batch))
    return solution


def _checked(a: Any, b: Any, cost: Any) -> tuple[Tensor, Tensor, Tensor]:
    a, b = (_law(name, law) for name, law in (("a", a), ("b", b)))
    validate.same_kind("b", b, "a", a)
    cost = given_cost(cost, a, "the laws")
    if cost.shape[-2:] != (a.shape[-1], b.shape[-1]):
        raise ValueError(
            f"cost: shape {tuple(cost.shape)} does not end in {(a.shape[-1], b.shape[-1])}, the numbers of states of a "
            "and b."
        )
    validate.finite("cost", cost)
    return a, b, cost


def _law(name: str, value: Any) -> Tensor:
    law = validate.as_tensor(name, value)
    if not law.ndim or not law.shape[-1]:
        raise ValueError(f"{name}: shape {tuple(law.shape)} has no states. Give at least one probability.")
    validate.floating(name, law)
    validate.distributions(name, law, noun="law", repair="Divide it by its sum.")
    return law


def _batch_shape(a: Tensor, b: Tensor, cost: Tensor, epsilon: Tensor) -> torch.Size:
    shapes = a.shape[:-1], b.shape[:-1], cost.shape[:-2], epsilon.shape
    try:
        return validate.broadcast(*shapes)
    except ValueError:
        listed = ", ".join(str(tuple(shape)) for shape in shapes)
        raise ValueError(f"a, b, cost, epsilon: batches of shapes {listed} do not broadcast.") from None


@dataclass
class SolvedTransport:
    """Solved problems, and their gradient."""

    a: Tensor
    b: Tensor
    cost: Tensor
    epsilon: Tensor
    found: Coupled

    def outputs(self) -> tuple[Tensor, ...]:
        """The values."""
        return (self.certified[0],)

    def pullback(self, needed: tuple[bool, ...], grad: Tensor) -> tuple[Tensor | None, ...]:
        """The envelope theorem: f, g, the plan, and KL."""
        found = self.found
        return (
            grad[:, None] * centred(found.f, None) if needed[0] else None,
            grad[:, None] * centred(found.g, None) if needed[1] else None,
            grad[:, None, None] * found.plan if needed[2] else None,
            grad * found.kl(self.cost, self.epsilon) if needed[3] else None,
        )

    @cached_property
    def certified(self) -> tuple[Tensor, Tensor]:
        """The middle of the certified interval, and half its width, (Q,): the value is a mean of costs."""
        low, high = cost_limits(self.cost, (self.a > 0)[:, :, None] & (self.b > 0)[:, None, :])
        if bool((self.epsilon == 0).all()) and self.a.shape == self.b.shape:
            own = self.cost.diagonal(dim1=1, dim2=2).masked_fill(self.a == 0, -torch.inf).amax(1)
            high = torch.where((self.a == self.b).all(1) & (own == low), low, high)
        return confined(self.found.value, 0.5 * (self.found.upper - self.found.lower), (low, high))


def _package(
    solved: SolvedTransport, value: Tensor, unit: Unit, batch: torch.Size, status: Any, dtype: torch.dtype
) -> Solution:
    """The solution, in units of the cost."""
    n, m = solved.cost.shape[1:]
    bound, found = solved.certified[1], solved.found
    value, bound, f, g = (unit.outside(each) for each in (value, bound, found.f, found.g))
    value, bound = rounded(value, bound, dtype)
    return Solution(
        value=value.view(batch),
        error_bound=bound.view(batch),
        status=status,
        num_iter=found.num_iter.view(batch),
        plan=found.plan.to(dtype).view(*batch, n, m),
        potentials=(f.to(dtype).view(*batch, n), g.to(dtype).view(*batch, m)),
    )
