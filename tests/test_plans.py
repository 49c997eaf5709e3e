"""Plans and couplings are such: their marginals are the laws and rows that they couple, to within rounding."""

import numpy as np
import pytest
import torch
from torch import Tensor

import markovot
from markovot import MarkovChain
from markovot.transport.single import COMPILED_STATES

ROUNDING = 1e-14
COARSE = {"rtol": 1e-2}


def rows(n: int, seed: int, share: float = 1.0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    weights = torch.rand(n, n, dtype=torch.float64, generator=random) ** 4
    weights = weights * (torch.rand(n, n, generator=random) < share) + 0.1 * torch.eye(n).roll(1, 0)
    return weights / weights.sum(1, keepdim=True)


@pytest.mark.parametrize("epsilon", [0.0, 0.003, 0.1])
@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_couplings_of_coarse_solves_have_their_marginals(epsilon, layout):
    for seed, (n, m) in enumerate([(5, 3), (2, 6), (7, 7)]):
        a, b = rows(n, seed, 0.5 if layout == "sparse" else 1.0), rows(m, seed + 10)
        x = MarkovChain.from_transitions(a.to_sparse_coo() if layout == "sparse" else a, initial="uniform")
        y = MarkovChain.from_transitions(b, initial="uniform")
        cost = torch.rand(n, m, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        found = [
            markovot.discounted_wl(x, y, cost, delta=0.1, epsilon=epsilon, **COARSE),
            markovot.wl(x, y, cost, depth=2, epsilon=epsilon, **COARSE),
            markovot.optimal_transition_coupling(x, y, cost, epsilon=epsilon, rtol=1e-2),
        ]
        for solution in found:
            if hasattr(solution, "plan"):
                torch.testing.assert_close(solution.plan.sum(1), x.initial, rtol=0, atol=ROUNDING)
                torch.testing.assert_close(solution.plan.sum(0), y.initial, rtol=0, atol=ROUNDING)
            whole = solution.transition_coupling().toarray().reshape(n, m, n, m)
            assert (whole >= 0).all()
            np.testing.assert_allclose(whole.sum(3), np.broadcast_to(a[:, None], (n, m, n)), rtol=0, atol=ROUNDING)
            np.testing.assert_allclose(whole.sum(2), np.broadcast_to(b[None], (n, m, m)), rtol=0, atol=ROUNDING)
            np.testing.assert_allclose(solution.coupling(1, 0).numpy(), whole[1, 0], rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("n", [6, COMPILED_STATES + 4])
def test_plans_of_coarse_transport_have_their_marginals(n):
    """Solved by compiled kernels, and by torch where both sides are large; laws with states that carry no mass."""
    random = torch.Generator().manual_seed(n)
    a, b = torch.rand(2, 3, n, dtype=torch.float64, generator=random) ** 6
    a[:, 1] = b[:, 0] = 0.0
    a, b = a / a.sum(1, keepdim=True), b / b.sum(1, keepdim=True)
    cost = torch.rand(3, n, n, dtype=torch.float64, generator=random)
    for epsilon in (0.01, 0.3):
        found = markovot.transport_cost(a, b, cost, epsilon=epsilon, rtol=1e-2)
        torch.testing.assert_close(found.plan.sum(2), a, rtol=0, atol=ROUNDING)
        torch.testing.assert_close(found.plan.sum(1), b, rtol=0, atol=ROUNDING)
        assert (found.plan >= 0).all()
        # as near to optimal as the bound says, the entropic term included
        product = a[:, :, None] * b[:, None, :]
        entropy = torch.special.xlogy(found.plan, found.plan / product.clamp(min=1e-300)).sum((1, 2))
        own = (found.plan * cost).sum((1, 2)) + epsilon * entropy
        assert (own >= found.value - found.error_bound - 1e-12).all()
        assert (own <= found.value + 0.02).all()


def test_items_of_padded_batches_have_their_marginals():
    made = [[MarkovChain.from_transitions(rows(n, n), initial="uniform") for n in sizes] for sizes in ((3, 5), (6, 2))]
    xs, ys = made
    cost = torch.rand(2, 5, 6, dtype=torch.float64, generator=torch.Generator())
    x, y = MarkovChain.stack(xs), MarkovChain.stack(ys)
    found = markovot.discounted_wl(x, y, cost, delta=0.1, epsilon=0.02, **COARSE)
    for item, (n, m) in enumerate([(3, 6), (5, 2)]):
        whole = found.transition_coupling(item).toarray().reshape(5, 6, 5, 6)[:n, :m]
        a, b = xs[item].transition[:, None].expand(n, m, n), ys[item].transition[None].expand(n, m, m)
        np.testing.assert_allclose(whole.sum(3)[:, :, :n], a, rtol=0, atol=ROUNDING)
        np.testing.assert_allclose(whole.sum(2)[:, :, :m], b, rtol=0, atol=ROUNDING)
    torch.testing.assert_close(found.plan.sum(2), x.initial, rtol=0, atol=ROUNDING)
