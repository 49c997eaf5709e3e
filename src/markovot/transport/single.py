"""Transport problems with costs of their own: the initial coupling, and `transport_cost`."""

import numpy as np
import torch
from torch import Tensor

from markovot.transport import newton
from markovot.transport.newton import TransportResult

# Up to this many states on the smaller side, the compiled kernel is the faster one; beyond, BLAS in the torch solver.
COMPILED_STATES = 96


def solve_problems(
    a: Tensor, b: Tensor, cost: Tensor, epsilon: Tensor, gap: Tensor, *, init: Tensor | None = None
) -> TransportResult:
    """Solve `min <pi, C> + eps KL(pi | a x b)` for Q problems, each to `upper - lower <= gap`, on any device.

    Args:
        a: weights (Q, n), float64; zeros take no part.
        b: weights (Q, m).
        cost: (Q, n, m).
        epsilon: (Q,).
        gap: (Q,).
        init: first potentials g (Q, m).
    """
    if a.device.type != "cpu" or min(a.shape[1], b.shape[1]) > COMPILED_STATES:
        return newton.solve_transport(a, b, cost, epsilon, gap=gap, init=init)
    if a.shape[1] < b.shape[1]:
        swapped = _compiled(b, a, cost.mT, epsilon, gap, None)
        g = swapped.f
        f = newton.soft_transform(b.log(), g, cost, epsilon)  # so that here too the rows of the plan are exact
        return TransportResult(swapped.lower, swapped.upper, f, g, swapped.num_iter)
    return _compiled(a, b, cost, epsilon, gap, init)


def _compiled(
    a: Tensor, b: Tensor, cost: Tensor, epsilon: Tensor, gap: Tensor, init: Tensor | None
) -> TransportResult:
    from markovot.transport import kernels_single
    from markovot.transport.simd import LANES
    from markovot.transport.threads import run

    num = len(a)
    f = torch.zeros_like(a)
    g = torch.zeros_like(b) if init is None else init.clone()
    lower, upper = torch.zeros_like(epsilon), torch.zeros_like(epsilon)
    count = torch.zeros(num, dtype=torch.int64)
    first = np.arange(0, num, LANES)
    problems = tuple(tensor.detach().contiguous().numpy() for tensor in (a, b, cost))
    wanted = epsilon.contiguous().numpy(), gap.contiguous().numpy()
    found = tuple(tensor.numpy() for tensor in (g, f, lower, upper, count))
    run(
        lambda tasks: kernels_single.solve_problems(tasks, problems, wanted, *found),
        np.stack([first, np.minimum(first + LANES, num)], axis=1),
        np.full(first.size, 20 * LANES * a.shape[1] * b.shape[1]),
    )
    return TransportResult(lower, upper, f, g, count)
