"""All engines, by one contract; what only some of them have is in the files named for them."""

from functools import partial

import pytest
import torch
from torch.testing import assert_close

from engine_contract import CompiledContract, Elsewhere, TorchContract
from local_problems import Case
from markovot.transport import gather, shared_kernel
from markovot.transport.compiled import entropic
from markovot.transport.compiled.entropic import CompiledEngine
from markovot.transport.compiled.exact import ExactEngine
from markovot.transport.gather import GatherEngine
from markovot.transport.rows import Rows
from markovot.transport.shared_kernel import SharedKernelEngine


class TestCompiled(CompiledContract):
    engine = CompiledEngine


class TestCompiledWithoutStore(TestCompiled):
    """Plans that are recomputed at every product, as those of large items are."""

    @pytest.fixture(autouse=True)
    def _no_store(self, monkeypatch):
        monkeypatch.setattr(entropic, "STORED_BYTES", 0)


class TestExact(CompiledContract):
    engine = ExactEngine
    exact = True


class TestSharedKernel(TorchContract):
    engine = SharedKernelEngine


class TestGather(TorchContract):
    engine = GatherEngine


class TestSharedKernelElsewhere(TorchContract):
    engine = partial(Elsewhere, SharedKernelEngine)


class TestGatherElsewhere(TorchContract):
    engine = partial(Elsewhere, GatherEngine)


# --- of the torch engines


def test_a_second_sweep_saves_work(monkeypatch):
    case = Case(3, 3, seed=5)
    work = []
    original_solve, original_evaluate = gather.solve_transport, shared_kernel.evaluate

    def solve(*args, **kwargs):
        result = original_solve(*args, **kwargs)
        work.append(int(result.num_iter.sum()))
        return result

    def evaluate(state, kernel):
        work.append(state.done.numel())
        return original_evaluate(state, kernel)

    monkeypatch.setattr(gather, "solve_transport", solve)
    monkeypatch.setattr(shared_kernel, "evaluate", evaluate)
    moved = case.cost + 1e-4 * case.v
    for kind in (GatherEngine, SharedKernelEngine):
        warm, cold = case.engine(kind), case.engine(kind)
        warm.sweep(case.cost, case.gap(1e-5), case.active)
        work.clear()
        first = warm.sweep(moved, case.gap(1e-5), case.active)
        warm_work = sum(work)
        work.clear()
        second = cold.sweep(moved, case.gap(1e-5), case.active)
        assert warm_work < 0.8 * sum(work)
        assert_close(first[0], second[0], rtol=0, atol=1e-5)


def test_rows_of_very_different_degrees():
    """One hub among states of low degree: several buckets, and the same values as with dense rows."""
    hub = torch.full((1, 12, 12), 0.0, dtype=torch.float64)
    hub[0, 0] = 1 / 12
    hub[0, 1:, 0] = 0.5
    hub[0, torch.arange(1, 12), torch.arange(1, 12)] = 0.5
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), (hub[0] > 0).sum(1).cumsum(0)])[None]
    rows = Rows(torch.tensor([12]), indptr, hub[0].nonzero()[:, 1], hub[hub > 0])
    zero, one = torch.zeros(1, dtype=torch.int64), torch.ones(1, dtype=torch.bool)
    cost = torch.rand(1, 12, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    epsilon, gap = torch.tensor([0.1], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    sparse, dense = (kind(rows, rows, zero, zero, epsilon) for kind in (GatherEngine, SharedKernelEngine))
    assert len(sparse.buckets) == 4
    assert_close(sparse.sweep(cost, gap, one)[0], dense.sweep(cost, gap, one)[0], rtol=0, atol=1e-12)
    assert_close(sparse.apply(cost, one), dense.apply(cost, one), rtol=0, atol=1e-11)
