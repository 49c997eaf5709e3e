"""Products with the frozen plans: the transpose is the adjoint, for every layout, padding and way to make plans."""

import pytest
import torch
from torch import Tensor

import markovot
from markovot import MarkovChain
from markovot.transport.compiled import entropic
from oracles import random_problem

KINDS = {
    "sparse": ((5, 11), (2, 3)),
    "narrower first": ((9, 12), (2, 5)),
    "dense": ((6, 9), (None, None)),
    "dense first": ((4, 17), (None, 3)),
    "dense second": ((17, 4), (3, None)),
    "two states": ((2, 3), (None, 2)),
}


def chains_of(kind: str, seed: int) -> tuple[MarkovChain, MarkovChain, Tensor]:
    (n, m), degrees = KINDS[kind]
    problem = random_problem(seed, n, m, degrees=degrees).tensors()
    # Uneven rows: one state is reached from all, one row is full.
    for name, degree in zip("AB", degrees, strict=True):
        if degree is not None:
            problem[name][:, 0] += 0.3
            problem[name][-1] += 0.1
            problem[name] /= problem[name].sum(1, keepdim=True)
    x, y = (MarkovChain.from_transitions(problem[k], initial="uniform") for k in "AB")
    return x, y, problem["D"]


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_the_transpose_is_the_adjoint(kind: str, stored: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not stored:
        monkeypatch.setattr(entropic, "STORED_BYTES", 0)
    parts = [chains_of(kind, seed) for seed in (0, 1)]
    smaller = MarkovChain.from_transitions(torch.full((2, 2), 0.5, dtype=torch.float64), initial="uniform")
    x = MarkovChain.stack([parts[0][0], parts[1][0], smaller])
    y = MarkovChain.stack([parts[0][1], smaller, parts[1][1]])
    solution = markovot.discounted_wl(x, y, parts[0][2], delta=0.3, epsilon=0.1)
    generator = torch.Generator().manual_seed(2)
    for solved in solution.details.answer.solved:
        engine, shape = solved.bellman.engine, solved.cost_to_go.shape
        assert isinstance(engine, entropic.CompiledEngine)
        mask = solved.problem.pairing.mask
        real = torch.ones(shape, dtype=torch.bool) if mask is None else mask
        v, w = (torch.rand(shape, generator=generator, dtype=torch.float64) * real for _ in range(2))
        active = torch.ones(len(v), dtype=torch.bool)
        forward, back = engine.apply(v, active), engine.apply_transpose(w, active)
        torch.testing.assert_close((w * forward).sum((1, 2)), (back * v).sum((1, 2)), rtol=1e-12, atol=0)
        torch.testing.assert_close(back.sum((1, 2)), w.sum((1, 2)), rtol=1e-9, atol=0)  # mass is kept
        assert (back[~real] == 0).all()
        for item in range(len(v)):
            row, column, mass = engine.couplings(item)
            moved = torch.zeros(back[item].numel(), dtype=torch.float64)
            moved.index_add_(0, column, w[item].flatten()[row] * mass)
            torch.testing.assert_close(back[item].flatten(), moved, rtol=1e-12, atol=1e-15)
