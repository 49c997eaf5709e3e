"""Transport problems with costs of their own: the initial coupling, and `transport_cost`."""

from contextlib import nullcontext
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from markovot.transport import newton
from markovot.transport.rows import array
from markovot.transport.threads import own_threads, run

# Up to this many states on the smaller side, the compiled kernel is faster; beyond, the torch solver with its BLAS.
COMPILED_STATES = 96
# Newton steps of an entropic problem; the compiled kernel has a limit of its own, which is smaller.
MAX_ITER = 1000
# Up to so many entries, operations are too short for torch's threads to gain more than their waiting costs.
SERIAL_ENTRIES = 1 << 18


@dataclass(frozen=True)
class Coupled:
    """Certified values, potentials and plans of a batch of problems; the plans are couplings, to rounding."""

    lower: Tensor  # (Q,)
    upper: Tensor  # (Q,)
    f: Tensor  # (Q, n)
    g: Tensor  # (Q, m)
    plan: Tensor  # (Q, n, m)
    num_iter: Tensor  # int64 (Q,)

    @property
    def value(self) -> Tensor:
        """The middle of the certified interval, (Q,)."""
        return 0.5 * (self.lower + self.upper)

    def kl(self, cost: Tensor, epsilon: Tensor) -> Tensor:
        """KL(plan | a x b), (Q,)."""
        if bool((epsilon == 0).all()):
            product = self.plan.sum(2, keepdim=True) * self.plan.sum(1, keepdim=True)
            return torch.special.xlogy(self.plan, self.plan / product.clamp(min=torch.finfo(torch.float64).tiny)).sum(
                (1, 2)
            )
        scores = self.f[:, :, None] + self.g[:, None, :] - cost
        return (self.plan * scores).flatten(1).sum(1) / epsilon


def solve_problems(
    a: Tensor,
    b: Tensor,
    cost: Tensor,
    epsilon: Tensor,
    gap: Tensor,
    *,
    init: Tensor | None = None,
    max_iter: int = MAX_ITER,
) -> Coupled:
    """Solve `min <pi, C> + eps KL(pi | a x b)` for Q problems, each to `upper - lower <= gap`, on any device.

    Args:
        a: weights (Q, n), float64; zeros take no part.
        b: weights (Q, m).
        cost: (Q, n, m).
        epsilon: (Q,).
        gap: (Q,).
        init: first potentials g (Q, m).
        max_iter: the most Newton steps of an entropic problem.
    """
    if bool((epsilon == 0).all()):
        return _exact(*(tensor.detach().contiguous() for tensor in (a, b, cost)))
    if a.device.type == "cpu" and min(a.shape[1], b.shape[1]) <= COMPILED_STATES:
        a, b, cost = (tensor.detach().contiguous() for tensor in (a, b, cost))
        return _compiled((a, b, cost, epsilon.contiguous(), gap.contiguous()), init, max_iter)
    if a.device.type == "cpu" and len(a) > 1:
        parts = [(q, None if init is None else init[q : q + 1]) for q in range(len(a))]
        each = [
            solve_problems(*(part[q : q + 1] for part in (a, b, cost, epsilon, gap)), init=start, max_iter=max_iter)
            for q, start in parts
        ]
        return Coupled(*(torch.cat([getattr(one, field.name) for one in each]) for field in fields(Coupled)))
    serial = a.device.type == "cpu" and cost.numel() <= SERIAL_ENTRIES
    with own_threads() if serial else nullcontext():
        found = newton.solve_transport(a, b, cost, epsilon, gap=gap, init=init, max_iter=max_iter)
    plan = onto_marginals(newton.plan(a, b, found.g, cost, epsilon), a, b)
    return Coupled(found.lower, found.upper, found.f, found.g, plan, found.num_iter)


def onto_marginals(plan: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Round plans (Q, n, m) so that their rows sum to a and their columns to b.

    Rows and columns with too much mass are scaled down; the missing mass is added as a product (Altschuler, Weed,
    Rigollet: Near-linear time approximation algorithms for optimal transport via Sinkhorn iteration, 2017).
    """
    tiny = torch.finfo(plan.dtype).tiny
    plan = plan * (a / plan.sum(2).clamp(min=tiny)).clamp(max=1.0)[:, :, None]
    plan = plan * (b / plan.sum(1).clamp(min=tiny)).clamp(max=1.0)[:, None, :]
    missing_a, missing_b = (a - plan.sum(2)).clamp(min=0.0), (b - plan.sum(1)).clamp(min=0.0)
    return plan + missing_a[:, :, None] * (missing_b / missing_b.sum(1, keepdim=True).clamp(min=tiny))[:, None, :]


def _exact(a: Tensor, b: Tensor, cost: Tensor) -> Coupled:
    from markovot.transport.compiled import exact_problems

    num = len(a)
    lower, upper = (torch.zeros(num, dtype=torch.float64, device="cpu") for _ in range(2))
    found = Coupled(
        lower, upper, torch.zeros_like(a), torch.zeros_like(b), torch.zeros_like(cost),
        torch.zeros(num, dtype=torch.int64, device="cpu"),
    )  # fmt: skip
    fields = (found.lower, found.upper, found.f, found.g, found.plan, found.num_iter)
    problems, arrays = (tuple(map(array, tensors)) for tensors in ((a, b, cost), fields))
    run(
        lambda tasks: exact_problems.solve_problems(
            tasks, problems, arrays, exact_problems.make_memory(a.shape[1], b.shape[1])
        ),
        np.stack([np.arange(num), np.arange(1, num + 1)], axis=1),
        np.full(num, 4 * a.shape[1] * b.shape[1]),
    )
    return found


def _both_ways(swapped: Tensor, given: tuple[Tensor, ...], init: Tensor | None, max_iter: int) -> Coupled:
    """Solve the problems whose two sides are exchanged separately from the others."""
    halves = [swapped.nonzero()[:, 0], (~swapped).nonzero()[:, 0]]
    found = []
    for half in halves:
        some = tuple(part[half] for part in given)
        found.append(_compiled(some, None if init is None else init[half], max_iter))
    order = torch.argsort(torch.cat(halves))
    return Coupled(*(torch.cat([getattr(one, field.name) for one in found])[order] for field in fields(Coupled)))


def _compiled(given: tuple[Tensor, ...], init: Tensor | None, max_iter: int) -> Coupled:
    from markovot.transport.compiled import dual, entropic_problems
    from markovot.transport.compiled.simd import LANES

    a, b, cost, epsilon, gap = given
    # The Newton systems have the size of the second side, so that is to be the smaller one.
    swapped = (a > 0).sum(1) < (b > 0).sum(1)
    if bool(swapped.any()) and not bool(swapped.all()):
        return _both_ways(swapped, given, init, max_iter)
    num, swap = len(a), bool(swapped.any())
    sides = (b, a, cost.mT.contiguous()) if swap else (a, b, cost)
    start = torch.zeros_like(sides[1]) if swap or init is None else init.clone(memory_format=torch.contiguous_format)
    lower, upper = torch.zeros_like(epsilon), torch.zeros_like(epsilon)
    count = torch.zeros(num, dtype=torch.int64, device="cpu")
    first = np.arange(0, num, LANES)
    problems, found = tuple(map(array, sides)), tuple(map(array, (start, lower, upper, count)))
    wanted = array(epsilon), array(gap), min(max_iter, int(dual.MAX_ITER))
    run(
        lambda tasks: entropic_problems.solve_problems(
            tasks, problems, wanted, *found, entropic_problems.make_memory(*sides[2].shape[1:])
        ),
        np.stack([first, np.minimum(first + LANES, num)], axis=1),
        np.full(first.size, 20 * LANES * a.shape[1] * b.shape[1]),
    )
    f, g, plan = torch.empty_like(a), start, torch.empty_like(cost)
    if swap:
        # One half-step from the potentials of the first side to those of the second; it also makes the rows exact.
        g, other = torch.empty_like(b), torch.empty_like(sides[2])
        entropic_problems.finish(problems, wanted[0], found[0], array(g), array(other), np.empty(sides[0].shape[1]))
    missing = np.empty(a.shape[1])
    entropic_problems.finish(tuple(map(array, (a, b, cost))), wanted[0], array(g), array(f), array(plan), missing)
    return Coupled(lower, upper, f, g, plan, count)
