"""Linear systems with K, where the recurrence of BiCGStab breaks down: few distinct rows, few distinct eigenvalues."""

import pytest
import torch
from torch import Tensor

import markovot
from markovot import MarkovChain
from markovot.transport import linear

COUNT, SIZE = 60, 12


def few_rows(seed: int) -> Tensor:
    """Stochastic matrices (COUNT, SIZE, SIZE) of low rank, with entries of all sizes."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.rand(COUNT, 2 + seed % 4, SIZE, dtype=torch.float64, generator=generator) ** 200
    which = torch.randint(0, rows.shape[1], (COUNT, SIZE), generator=generator)
    matrices = rows.gather(1, which[:, :, None].expand(-1, -1, SIZE))
    return matrices / matrices.sum(2, keepdim=True)


@pytest.mark.parametrize("transpose", [False, True])
def test_breakdowns_start_the_recurrence_anew(transpose: bool) -> None:
    rhs = torch.zeros(COUNT, SIZE, 1, dtype=torch.float64)
    rhs[:, 0] = 1.0
    active, delta = torch.ones(COUNT, dtype=torch.bool), torch.full((COUNT,), 0.1, dtype=torch.float64)
    tolerance = torch.full((COUNT,), 1e-13, dtype=torch.float64)
    for seed in range(40):
        matrices = few_rows(seed).mT if transpose else few_rows(seed)

        def product(v: Tensor, _: Tensor, matrices: Tensor = matrices) -> Tensor:
            return matrices @ v

        found = linear.bicgstab(product, rhs, delta, tolerance, active, transpose=transpose, max_iter=200)
        assert (found.residual <= tolerance).all()
        expected = torch.linalg.solve(torch.eye(SIZE, dtype=torch.float64) - 0.9 * matrices, rhs)
        torch.testing.assert_close(found.x, expected, rtol=1e-10, atol=1e-11)


def test_compiled_breakdowns_start_the_recurrence_anew() -> None:
    # Near-deterministic chains: the plans are nearly permutations, and the adjoint lives in a few dimensions.
    generator = torch.Generator().manual_seed(1)
    for _ in range(60):
        rows = [torch.rand(n, n, dtype=torch.float64, generator=generator) ** 30 for n in (3, 4)]
        chains = [MarkovChain.from_transitions(r / r.sum(1, keepdim=True), initial="uniform") for r in rows]
        cost = torch.rand(3, 4, dtype=torch.float64, generator=generator)
        solution = markovot.discounted_wl(*chains, cost, delta=0.1, epsilon=0.05)
        solved = solution.details.solved
        tolerance, active = torch.full((1,), 1e-13, dtype=torch.float64), torch.ones(1, dtype=torch.bool)
        found = solved.bellman.engine.solve(
            solved.outer.plan, solved.inputs.discount, tolerance, active, transpose=True, max_iter=300
        )
        assert found.residual.item() <= 1e-13
