"""The loss within the rest of PyTorch: compiled models, autocast, workers that load data, several ranks."""

import multiprocessing
import os
import threading
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, Dataset

from markovot import MarkovChain, costs, discounted_wl
from markovot.learning import DiscountedWLLoss, LabelledChain

SETTING = {"delta": 0.3, "epsilon": 0.1}
SECONDS = 120  # that a child process may take, which no test waits for unless something hangs


def target_chain(n: int, seed: int) -> MarkovChain:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, n, dtype=torch.float64, generator=generator).softmax(1)
    features = torch.randn(n, 2, dtype=torch.float64, generator=generator)
    return MarkovChain.from_transitions(rows, initial="uniform", features=features)


class Predictor(nn.Module):
    """A network that predicts transition matrices, beside a chain of its own, with the loss inside."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 9, dtype=torch.float64)
        self.chain = LabelledChain(3, num_features=2, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            self.layer.weight.copy_(torch.randn(9, 4, generator=torch.Generator().manual_seed(1)))
            self.layer.bias.zero_()
        self.loss = loss

    def forward(self, inputs: Tensor, target: MarkovChain) -> Tensor:
        rows = self.layer(inputs.sin()).view(-1, 3, 3).softmax(-1)
        predicted = MarkovChain(rows, initial="uniform", features=self.chain.features.expand(len(rows), 3, 2))
        return (self.loss(predicted, target) + 2 * self.loss(self.chain(), target)).tanh()


def inputs(count: int = 2) -> Tensor:
    return torch.randn(count, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def values_and_gradients(call: Any, model: nn.Module, steps: int = 3) -> list[list[Tensor]]:
    found = []
    for step in range(steps):
        model.zero_grad()
        value = call(inputs() * (1 + step / 10), target_chain(4, 3))
        value.backward()
        found.append([value.detach(), *(parameter.grad.clone() for parameter in model.parameters())])
    return found


# --- compiled models
@pytest.fixture
def compiler():
    """A fresh compiler, whose own warnings are not ours to hear."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch._dynamo

        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        yield torch._dynamo.utils.counters
        torch._dynamo.reset()


BACKENDS = ["eager", "aot_eager"] + (["inductor"] if os.environ.get("MARKOVOT_TEST_INDUCTOR") else [])


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiled_models_give_the_same(compiler: Any, backend: str) -> None:
    loss = DiscountedWLLoss(costs.SquaredEuclidean(), **SETTING, warm_start=False)
    model = Predictor(loss)
    plain = values_and_gradients(model, model)
    compiled = values_and_gradients(torch.compile(model, backend=backend), model)
    for one, other in zip(plain, compiled, strict=True):
        for a, b in zip(one, other, strict=True):
            assert_close(b, a, rtol=1e-9, atol=1e-12)
    assert compiler["stats"]["unique_graphs"] >= 2  # something was compiled
    # The solver's loops are not traced: without that, there are some two hundred frames.
    assert compiler["frames"]["total"] < 40, dict(compiler["frames"])


def test_a_compiled_step_keeps_its_warm_start(compiler: Any) -> None:
    loss = DiscountedWLLoss(costs.SquaredEuclidean(), **SETTING)
    chain = LabelledChain(3, num_features=2, generator=torch.Generator().manual_seed(0))
    target = target_chain(4, 3)

    @torch.compile(backend="eager")
    def step(scale: Tensor) -> Tensor:
        return loss(chain(), target) * scale.exp()

    cold = discounted_wl(chain(), target, costs.SquaredEuclidean(), **SETTING)
    scale = torch.tensor(0.5, dtype=torch.float64)
    assert_close(step(scale), cold.value * scale.exp())
    first = int(loss.last.num_iter)
    assert_close(step(scale), cold.value * scale.exp(), rtol=1e-4, atol=1e-4)
    assert int(loss.last.num_iter) < first


# --- autocast
class MatrixProduct(costs.Cost):
    """A cost of the kind that autocast would compute in half precision."""

    def __call__(self, fx: Tensor, fy: Tensor) -> Tensor:
        return (fx @ fy.mT).square()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_autocast_does_not_reach_into_the_loss(dtype: torch.dtype) -> None:
    x, y = (target_chain(4, seed).to(dtype) for seed in (1, 2))
    x.features.requires_grad_()
    found = {}
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            assert (x.features.float() @ x.features.float().mT).dtype == (torch.bfloat16 if enabled else torch.float32)
            value = DiscountedWLLoss(MatrixProduct(), **SETTING)(x, y)
        assert value.dtype == dtype
        found[enabled] = value.detach(), torch.autograd.grad(value, x.features)[0]
    for plain, cast in zip(found[False], found[True], strict=True):
        assert_close(cast, plain, rtol=0, atol=0)


def test_predictions_in_half_precision_are_refused_and_the_repair_works() -> None:
    layer = nn.Linear(4, 9)
    loss = DiscountedWLLoss(torch.rand(3, 3, generator=torch.Generator().manual_seed(0)), **SETTING)
    target = target_chain(3, 1).to(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = layer(torch.ones(4)).view(3, 3)
        assert logits.dtype == torch.bfloat16
        rows = logits.exp() / logits.exp().sum(1, keepdim=True).bfloat16()
        with pytest.raises(TypeError, match=r"transition: dtype torch\.bfloat16 is not supported, .*\.double\(\)"):
            loss(rows, target)
        loss(logits.float().softmax(1), target).backward()
    assert float(layer.weight.grad.abs().max()) > 0


# --- workers that load data
class Solved(Dataset):
    """Item k: a chain, and its distance to a fixed one, which the worker computes."""

    fixed = target_chain(20, 0)

    def __init__(self, size: int = 4) -> None:
        self.chains = [target_chain(16 + k, k) for k in range(size)]

    def __len__(self) -> int:
        return len(self.chains)

    def __getitem__(self, k: int) -> tuple[MarkovChain, Tensor]:
        found = discounted_wl(self.chains[k], self.fixed, costs.SquaredEuclidean(), **SETTING)
        return self.chains[k], found.value


def stack_pairs(items: list[tuple[MarkovChain, Tensor]]) -> tuple[MarkovChain, Tensor]:
    return MarkovChain.stack(chain for chain, _ in items), torch.stack([value for _, value in items])


# Python 3.12 and later warn of every fork of a process that has threads, which torch's always has.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize(("method", "workers"), [("fork", 2), ("spawn", 1)])
def test_workers_solve_while_they_load(method: str, workers: int) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    data = Solved()
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        # Threads of ours and of torch's have been at work here before the workers start.
        wanted = torch.stack([data[k][1] for k in range(len(data))])
        batch = MarkovChain.stack(data.chains)
        discounted_wl(batch, Solved.fixed, costs.SquaredEuclidean(), delta=0.3, epsilon=0.0)
        assert any(thread.name.startswith("markovot") for thread in threading.enumerate())
        assert float((torch.ones(400, 400) @ torch.ones(400, 400)).mean()) == 400
        loader = DataLoader(
            data, batch_size=2, num_workers=workers, multiprocessing_context=method, collate_fn=stack_pairs,
            timeout=SECONDS,
        )  # fmt: skip
        batches = list(loader)
    finally:
        torch.set_num_threads(before)
    assert_close(torch.cat([values for _, values in batches]), wanted, rtol=0, atol=0)
    chains, values = batches[0]
    assert chains.sizes.tolist() == [16, 17]
    # What comes out of a loader is what a loss takes.
    loss = DiscountedWLLoss(costs.SquaredEuclidean(), **SETTING, reduction="none")
    assert_close(loss(chains, Solved.fixed), values, rtol=1e-6, atol=1e-9)


def test_a_loader_of_chains_needs_only_stack() -> None:
    chains = [target_chain(n, n) for n in (2, 4, 3)]
    (batch,) = DataLoader(chains, batch_size=3, collate_fn=MarkovChain.stack)
    assert batch.sizes.tolist() == [2, 4, 3]


# --- several ranks
RANKS = 2


def rank_main(rank: int, folder: str) -> None:
    """Train a step on this rank's share of the batch, and save the gradients."""
    from torch.nn.parallel import DistributedDataParallel

    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=RANKS,
        timeout=timedelta(seconds=SECONDS),
    )  # fmt: skip
    try:
        model = Predictor(DiscountedWLLoss(costs.SquaredEuclidean(), **SETTING))
        found = values_and_gradients_of_share(DistributedDataParallel(model), model, rank)
        torch.save(found, f"{folder}/{rank}.pt")
    finally:
        torch.distributed.destroy_process_group()


def values_and_gradients_of_share(call: Any, model: nn.Module, *ranks: int) -> list[list[Tensor]]:
    """Two steps on the mean of these ranks' losses; every rank has two inputs and a target of its own."""
    found = []
    method = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        method.zero_grad()
        losses = [call(inputs(4)[2 * rank : 2 * rank + 2], target_chain(4 + rank, rank)) for rank in ranks]
        torch.stack(losses).mean().backward()
        method.step()
        found.append([parameter.grad.clone() for parameter in model.parameters()])
    return found


@pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()), reason="torch has no gloo"
)
def test_two_ranks_find_the_gradient_of_one(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=rank_main, args=(rank, str(tmp_path))) for rank in range(RANKS)]
    for process in processes:
        process.start()
    model = Predictor(DiscountedWLLoss(costs.SquaredEuclidean(), **SETTING, warm_start=False))
    wanted = values_and_gradients_of_share(model, model, *range(RANKS))
    try:
        for process in processes:
            process.join(SECONDS)
        assert [process.exitcode for process in processes] == [0] * RANKS
    finally:
        for process in processes:
            process.kill()
    for rank in range(RANKS):
        for step, (found, alone) in enumerate(zip(torch.load(tmp_path / f"{rank}.pt"), wanted, strict=True)):
            for a, b in zip(found, alone, strict=True):
                assert_close(a, b, rtol=1e-4, atol=1e-5, msg=lambda text, k=step: f"step {k}: {text}")
