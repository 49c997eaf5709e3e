"""torch's global modes change nothing: default devices and dtypes, inference mode, no_grad, autocast."""

import ast
import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import markovot
import public_calls
from engine_contract import default_dtype, elsewhere
from markovot import MarkovChain, costs
from markovot.learning import DiscountedWLLoss, LabelledChain, several_steps
from markovot.transport import engines
from markovot.transport.gather import GatherEngine
from markovot.transport.shared_kernel import SharedKernelEngine
from public_calls import Call
from solving import csr

SOURCE = Path(markovot.__file__).parent

# What torch makes on its default device where it is not told another.
MAKERS = {
    "arange", "as_tensor", "asarray", "empty", "eye", "full", "linspace", "logspace", "normal", "ones", "rand",
    "randint", "randn", "randperm", "range", "scalar_tensor", "sparse_compressed_tensor", "sparse_coo_tensor",
    "sparse_csr_tensor", "tensor", "tril_indices", "triu_indices", "zeros",
}  # fmt: skip

# Time is measured, pictures are drawn on axes, and what solutions compute later is compared through their fields.
NOT_COMPARED = {"seconds", "details", "solution", "history"}


MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "meta": lambda: torch.device("meta"),
    "float64": lambda: default_dtype(torch.float64),
    "float16": lambda: default_dtype(torch.float16),
    "inference": torch.inference_mode,
    "no_grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}
# Training needs gradients, which these two forbid.
TRAINS = ("learning.minimise", "learning.Training.run", "learning.barycentre", "learning.coarsen",
          "learning.fit_distances", "learning.gradient_flow")  # fmt: skip
# Modules start at random numbers, float32 and float16 by request of the caller alone; and scikit-learn counts calls.
RANDOM = ("learning.TransitionMatrix", "learning.LabelledChain")


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Call]:
    return public_calls.good_calls(tmp_path_factory.mktemp("calls"))


@pytest.fixture(autouse=True)
def _close_pictures():
    yield
    from matplotlib import pyplot

    pyplot.close("all")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", MODES)
def test_public_calls_give_the_same_in_every_mode(mode: str, calls: dict[str, Call]) -> None:
    for name, call in calls.items():
        if name in RANDOM or name.startswith("plot.") or (mode in ("inference", "no_grad") and name in TRAINS):
            continue
        outside = parts_of(call())
        with MODES[mode]():
            inside = call()
        found = parts_of(inside)
        assert found.keys() == outside.keys(), name
        for part, value in outside.items():
            same(f"{name}: {part}", found[part], value)


def same(where: str, found: Any, wanted: Any) -> None:
    """The same bits."""
    if isinstance(wanted, Tensor):
        found = found.clone() if isinstance(found, Tensor) else found
        assert_close(found, wanted, rtol=0, atol=0, equal_nan=True, msg=lambda text: f"{where}: {text}")
    elif isinstance(wanted, np.ndarray) and wanted.dtype.kind != "O":
        np.testing.assert_array_equal(found, wanted, err_msg=where)
    else:
        assert repr(found) == repr(wanted), where


def parts_of(result: Any, name: str = "result") -> dict[str, Any]:
    """All tensors, arrays and numbers of a result, by where they are in it."""
    if isinstance(result, Tensor) and result.layout != torch.strided:
        return {name: result.detach().to_dense()}
    if isinstance(result, Tensor | np.ndarray | float | int | str | bool):
        return {name: result.detach() if isinstance(result, Tensor) else result}
    if isinstance(result, MarkovChain):
        result = {"rows": result.to_dense().transition, "initial": result.initial, "features": result.features}
    elif isinstance(result, torch.nn.Module):
        result = dict(result.state_dict())
    elif dataclasses.is_dataclass(result) and not isinstance(result, type):
        result = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    elif isinstance(result, tuple | list):
        result = dict(enumerate(result))
    if not isinstance(result, dict):
        return {}
    found = {}
    for key, value in result.items():
        if key not in NOT_COMPARED:
            found |= parts_of(value, f"{name}.{key}")
    return found


def random_chain(n: int, seed: int, *, layout: str = "dense") -> Tensor:
    rows = torch.rand(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if layout == "sparse":
        rows = torch.where(rows > 0.5, rows, 0.0) + torch.eye(n).double()
    rows = rows / rows.sum(1, keepdim=True)
    return csr(rows) if layout == "sparse" else rows


def use(engine: type | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this engine serve everything; None: the one that is chosen on the CPU."""
    if engine is not None:
        monkeypatch.setattr(engines, "engine_classes", lambda *_: [engine])


def assert_same_in_every_mode(run: Callable[[], list[Tensor]], engine: type | None) -> None:
    outside = run()
    modes = {mode: MODES[mode] for mode in ("meta", "float64", "float16", "autocast")}
    for mode, entered in modes.items() if engine is None else [("elsewhere", elsewhere)]:  # slow: all at once
        with entered():
            inside = run()
        for k, (found, wanted) in enumerate(zip(inside, outside, strict=True)):
            same(f"{mode}, number {k}", found.detach(), wanted.detach())


@pytest.mark.parametrize("layout", ["dense", "sparse"])
@pytest.mark.parametrize(
    ("engine", "epsilon"), [(None, 0.0), (None, 0.01), (None, 0.5), (GatherEngine, 0.1), (SharedKernelEngine, 0.1)]
)
def test_values_and_gradients_are_the_same_in_every_mode(
    layout: str, epsilon: float, engine: type | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(engine, monkeypatch)
    x, y, small = (random_chain(n, seed, layout=layout) for seed, n in enumerate((6, 5, 3)))
    fx, fy, small_features = (torch.arange(n).double()[:, None].sin() for n in (6, 5, 3))
    law = torch.tensor([0.25, 0.25, 0.5]).double()
    setting: dict[str, Any] = {"cost": costs.Euclidean(), "epsilon": epsilon}

    def run() -> list[Tensor]:
        first, second = x.clone().requires_grad_(), y.clone().requires_grad_()
        pair = [MarkovChain.from_transitions(t, features=f) for t, f in ((first, fx), (second, fy))]
        smaller = MarkovChain.from_transitions(small, features=small_features)
        one = markovot.discounted_wl(*pair, **setting, delta=0.2)
        again = markovot.discounted_wl(*pair, **setting, delta=0.21, init=one)
        stacks = [MarkovChain.stack([chain, smaller]) for chain in pair]
        batch = markovot.discounted_wl(*stacks, **setting, delta=0.2)
        steps = markovot.wl(*stacks, **setting, depth=2)
        late = markovot.horizon_wl(*pair, **setting, law=law, tail=0.5)
        far = markovot.optimal_transition_coupling(*pair, **setting)
        debiased = markovot.debiased(markovot.discounted_wl, *pair, **setting, delta=0.5)
        plain = markovot.transport_cost(pair[0].initial, pair[1].initial, one.cost_to_go, epsilon=epsilon)
        values = [one.value, again.value, batch.value, steps.value, late.value, far.value, debiased.value, plain.value]
        sum(value.sum() for value in values).backward()
        kept = [one.alignment, one.cost_to_go, late.alignment, far.gain, plain.plan, one.coupling(0, 1)]
        return [*values, *kept, *(dense(t.grad) for t in (first, second))]

    assert_same_in_every_mode(run, engine)


def dense(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor if tensor.layout == torch.strided else tensor.to_dense()


@pytest.mark.parametrize("engine", [None, GatherEngine, SharedKernelEngine])
def test_second_order_is_the_same_in_every_mode(engine: type | None, monkeypatch: pytest.MonkeyPatch) -> None:
    use(engine, monkeypatch)
    x, y, cost = random_chain(4, 0), random_chain(3, 1), torch.arange(12.0).double().reshape(4, 3).sin()
    inputs = (x, cost, torch.tensor(0.2).double(), torch.tensor(0.1).double())

    def value(rows: Tensor, cost: Tensor, delta: Tensor, epsilon: Tensor) -> Tensor:
        return markovot.discounted_wl(rows, y, cost, delta=delta, epsilon=epsilon).value

    def run() -> list[Tensor]:
        blocks = torch.autograd.functional.hessian(value, inputs)
        return [
            *(block for row in blocks for block in row),
            torch.func.grad(value)(*inputs),
            torch.func.jvp(value, inputs, tuple(map(torch.ones_like, inputs)))[1],
        ]

    assert_same_in_every_mode(run, engine)


def test_single_precision_under_autocast() -> None:
    rows, mean = random_chain(6, 0).float(), torch.arange(6.0)[:, None].sin()
    spread = mean[:, :, None].square() + 0.5
    features = {
        costs.Euclidean(): mean,
        costs.SquaredEuclidean(): mean,
        costs.AbsoluteDifference(): mean,
        costs.ZeroOne(): mean,
        costs.JensenShannon(): rows,
        costs.GaussianWasserstein(1): costs.GaussianWasserstein.features(mean, spread),
    }

    def run(cost: Any, given: Tensor) -> list[Tensor]:
        chain = MarkovChain.from_transitions(rows / rows.sum(1, keepdim=True), features=given)
        seldom = several_steps(chain, 2.5)
        found = markovot.discounted_wl(chain, seldom, cost, delta=0.2, epsilon=0.1)
        return [found.value, found.alignment, seldom.transition, chain.initial]

    for cost, given in features.items():
        outside = run(cost, given)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = run(cost, given)
        for found, wanted in zip(inside, outside, strict=True):
            same(type(cost).__name__, found, wanted)


# --- tensors without values, and those of inference mode


def test_tensors_made_in_inference_mode_can_be_trained_with() -> None:
    def make() -> tuple[MarkovChain, MarkovChain, Tensor, Tensor]:
        parts = [MarkovChain.from_transitions(random_chain(n, n), features=torch.arange(n).double()) for n in (3, 4)]
        return parts[0], MarkovChain.stack(parts), torch.tensor(0.2).double(), torch.tensor(0.1).double()

    def step(x: MarkovChain, y: MarkovChain, delta: Tensor, epsilon: Tensor) -> list[Tensor]:
        module = LabelledChain(2, num_features=1, generator=torch.Generator().manual_seed(0))
        loss = DiscountedWLLoss(costs.Euclidean(), delta=delta, epsilon=epsilon)(module(), y)
        loss.backward()
        cost = torch.ones(3, 4, dtype=torch.float64).requires_grad_()
        far = markovot.discounted_wl(x, y, cost, delta=delta, epsilon=epsilon)
        far.value.sum().backward()
        again = markovot.debiased(markovot.discounted_wl, x, y, costs.Euclidean(), delta=0.5, epsilon=0.1)
        return [loss.detach(), module.transition.logits.grad, cost.grad, far.alignment, again.value]

    wanted = step(*make())
    with torch.inference_mode():
        made = make()
        markovot.discounted_wl(*made[:2], costs.Euclidean(), delta=0.5, epsilon=0.1)
    found = step(*made)
    kept = make()
    with torch.inference_mode():  # what a chain keeps for later is made inside
        markovot.discounted_wl(*kept[:2], costs.Euclidean(), delta=0.5, epsilon=0.1)
    for one, two, three in zip(found, step(*kept), wanted, strict=True):
        same("made inside", one, three)
        same("used inside", two, three)


def test_tensors_without_values_are_refused_by_name(calls: dict[str, Call]) -> None:
    meta = torch.empty(2, 2, dtype=torch.float64, device="meta")
    for name, argument in (
        ("MarkovChain.from_transitions", "transition"), ("MarkovChain.from_adjacency", "adjacency"),
        ("MarkovChain.from_transitions", "features"), ("MarkovChain.from_transitions", "initial"),
        ("discounted_wl", "cost"), ("discounted_wl", "delta"), ("discounted_wl", "epsilon"), ("discounted_wl", "x"),
        ("horizon_wl", "law"), ("horizon_wl", "tail"), ("transport_cost", "a"), ("transport_cost", "cost"),
        ("DecisionProcess", "reward"), ("DecisionProcess.under", "policy"), ("stationary_distribution", "transition"),
        ("learning.DiscountedWLLoss", "weights"), ("learning.TransitionMatrix", "support"),
        ("learning.LabelledChain", "features"), ("analysis.matching.match", "solution"),
        ("costs.resolve_cost", "cost"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=rf"{argument}.*meta"):
            calls[name](**{argument: meta})
    with pytest.raises(ValueError, match=r"to: .*meta"):
        calls["discounted_wl"].arguments["x"].to("meta")


# --- the rule


def test_every_tensor_names_its_device() -> None:
    nameless = []
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and (node.func.value.id, node.func.attr in MAKERS) == ("torch", True)
                and all(keyword.arg != "device" for keyword in node.keywords)
            ):
                nameless.append(f"{path.relative_to(SOURCE)}:{node.lineno}: torch.{node.func.attr}")
    assert not nameless, "\n".join(nameless)
