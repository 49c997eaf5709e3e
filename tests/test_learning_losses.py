"""The distance as a loss: reductions, warm starts that change no answer, what it keeps, and how it fails."""

import copy
import gc
import io
import pickle
import types
import weakref

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch.testing import assert_close

from markovot import ChainSolution, MarkovChain, SolveError, costs, discounted_wl
from markovot.learning import DiscountedWLLoss, LabelledChain, TransitionMatrix

SETTING = {"delta": 0.3, "epsilon": 0.1}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_chain(n: int, seed: int, **options) -> MarkovChain:
    module = LabelledChain(n, num_features=2, transition=_spread(n, seed), generator=seeded(seed), **options)
    return module().detach()


def _spread(n: int, seed: int) -> TransitionMatrix:
    module = TransitionMatrix(n, generator=seeded(seed))
    with torch.no_grad():
        module.logits.mul_(10)
    return module


def model(n: int = 4, seed: int = 0, **options) -> LabelledChain:
    return LabelledChain(n, num_features=2, generator=seeded(seed), **options)


def make(**options) -> DiscountedWLLoss:
    return DiscountedWLLoss(options.pop("cost", costs.SquaredEuclidean()), **(SETTING | options))


TARGETS = [random_chain(3, 1), random_chain(5, 2), random_chain(4, 3)]


def values_alone(x: list[MarkovChain], **options) -> torch.Tensor:
    setting = {"cost": costs.SquaredEuclidean(), **SETTING, **options}
    return torch.stack([discounted_wl(a, b, **setting).value for a, b in zip(x, TARGETS, strict=True)])


# --- what it returns
@pytest.mark.parametrize("weights", [None, [0.2, 3.0, 0.0]])
def test_reductions(weights: list[float] | None) -> None:
    predicted = [model(n, seed=n)() for n in (2, 4, 3)]
    alone = values_alone(predicted)
    w = torch.ones(3, dtype=torch.float64) if weights is None else torch.tensor(weights, dtype=torch.float64)
    wanted = {"none": w * alone, "sum": (w * alone).sum(), "mean": (w * alone).sum() / w.sum()}
    given = None if weights is None else torch.tensor(weights)
    for reduction, value in wanted.items():
        loss = make(reduction=reduction, weights=given)
        assert_close(loss(predicted, TARGETS), value, rtol=1e-6, atol=1e-9)
        assert_close(loss(MarkovChain.stack(predicted), MarkovChain.stack(TARGETS)), value, rtol=1e-6, atol=1e-9)
    single = make(reduction="mean")(predicted[0], TARGETS[0])
    assert_close(single, alone[0])
    assert single.shape == ()


def test_one_chain_against_many_as_for_a_barycentre() -> None:
    chain = model()()
    found = make()(chain, TARGETS)
    assert_close(found, values_alone([chain] * 3).mean(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("what", ["epsilon", "delta", "rtol", "max_iter", "cost"])
def test_every_setting_is_passed_on(what: str) -> None:
    other = {
        "epsilon": 0.5,
        "delta": 0.9,
        "rtol": 1e-2,
        "max_iter": 50,
        "cost": costs.Euclidean(),
    }[what]
    setting = {"cost": costs.SquaredEuclidean(), **SETTING, what: other}
    chain = model()()
    assert_close(make(**{what: other})(chain, TARGETS[0]), discounted_wl(chain, TARGETS[0], **setting).value)
    if what not in ("rtol", "max_iter"):
        default = make()(chain, TARGETS[0])
        assert float((default - discounted_wl(chain, TARGETS[0], **setting).value).detach().abs()) > 1e-3


def test_settings_that_are_tensors_move_and_parameters_are_learned() -> None:
    matrix = torch.rand(2, 2, dtype=torch.float64, generator=seeded())
    loss = DiscountedWLLoss(
        torch.nn.Parameter(matrix),
        delta=torch.nn.Parameter(torch.tensor(0.5, dtype=torch.float64)),
        epsilon=torch.tensor([0.1, 0.2], dtype=torch.float64),
        weights=torch.ones(2),
    )
    chain = TransitionMatrix(2, generator=seeded())()
    loss(chain, chain.detach()).backward()
    assert set(dict(loss.named_parameters())) == {"cost", "delta"}
    assert all(float(parameter.grad.abs().max()) > 0 for parameter in loss.parameters())
    assert list(loss.state_dict()) == ["cost", "delta"]
    assert loss.float().epsilon.dtype == torch.float32
    array = DiscountedWLLoss(matrix.numpy(), delta=0.5, epsilon=0.1)
    assert_close(array(chain, chain), DiscountedWLLoss(matrix, delta=0.5, epsilon=0.1)(chain, chain))


# --- optima
@pytest.mark.parametrize("optimiser", ["adam", "lbfgs"])
def test_a_single_state_learns_the_mean_of_the_features_it_meets(optimiser: str) -> None:
    # All couplings with a single state are one, so that d = sum_j w_j |f - f_j|^2 with w the discounted occupation.
    target = TARGETS[1]
    nu = target.initial
    steps = torch.eye(5, dtype=torch.float64) - 0.7 * target.transition.T
    weights = 0.3 * torch.linalg.solve(steps, nu)
    wanted = weights @ target.features
    module = model(1)
    train(module, make(rtol=1e-10), target, optimiser)
    assert_close(module.features.detach()[0], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("optimiser", ["adam", "lbfgs"])
def test_transition_probabilities_reach_the_optimum(optimiser: str) -> None:
    def flip(stay: float) -> torch.Tensor:
        return torch.tensor([[stay, 1 - stay], [1 - stay, stay]], dtype=torch.float64)

    cost = 1 - torch.eye(2, dtype=torch.float64)
    target = MarkovChain.from_transitions(flip(0.2))
    setting = {"cost": cost, "delta": 0.3, "epsilon": 0.2, "rtol": 1e-12}
    # The problem is the same with both states exchanged, so the least value is found among such chains.
    best = minimize_scalar(
        lambda stay: discounted_wl(flip(stay), target, **setting).value.item(), bounds=(0.01, 0.99), method="bounded",
        options={"xatol": 1e-8},
    )  # fmt: skip
    module = LabelledChain(2, generator=seeded(4))
    value = train(module, DiscountedWLLoss(**setting), target, optimiser)
    assert value == pytest.approx(best.fun, abs=1e-6)
    assert_close(module().transition.detach(), flip(best.x), rtol=0, atol=2e-3)
    assert 0.05 < best.x < 0.19


def train(module: LabelledChain, loss: DiscountedWLLoss, target: MarkovChain, optimiser: str) -> float:
    if optimiser == "adam":
        method = torch.optim.Adam(module.parameters(), lr=0.05)
    else:
        method = torch.optim.LBFGS(module.parameters(), line_search_fn="strong_wolfe", tolerance_grad=1e-8)

    def closure() -> torch.Tensor:
        method.zero_grad()
        value = loss(module(), target)
        value.backward()
        return value

    for _ in range(200 if optimiser == "adam" else 5):
        value = method.step(closure)
    return float(value.detach())


# --- warm starts
@pytest.mark.parametrize("epsilon", [0.05, 0.0])
@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_warm_starts_change_no_answer(layout: str, epsilon: float) -> None:
    support = None if layout == "dense" else torch.eye(4) + torch.eye(4).roll(1, 0)
    module = model(transition=TransitionMatrix(4, support=support, generator=seeded(6)), initial="stationary")
    warm, cold = (make(epsilon=epsilon, reduction="none", warm_start=flag) for flag in (True, False))
    method = torch.optim.SGD(module.parameters(), lr=0.05)
    for step in range(12):
        found = {}
        for name, loss in (("warm", warm), ("cold", cold)):
            method.zero_grad()
            values = loss([module()] * 3, TARGETS)
            values.sum().backward()
            found[name] = values.detach(), [parameter.grad.clone() for parameter in module.parameters()]
        bound = warm.last.error_bound + cold.last.error_bound
        assert bool(((found["warm"][0] - found["cold"][0]).abs() <= bound + 1e-15).all()), step
        for a, b in zip(found["warm"][1], found["cold"][1], strict=True):
            assert_close(a, b, rtol=1e-3, atol=1e-4)
        method.step()


def count_sweeps(loss: DiscountedWLLoss, x: object, y: object) -> int:
    loss(x, y)
    return int(loss.last.num_iter.sum())


def test_a_warm_start_saves_sweeps_and_evaluation_has_none() -> None:
    chain = model()()
    accuracy = {"rtol": 1e-9}
    loss, cold = make(**accuracy, epsilon=0.01), make(**accuracy, epsilon=0.01, warm_start=False)
    first = count_sweeps(loss, chain, TARGETS)
    assert count_sweeps(loss, chain, TARGETS) < first
    assert [count_sweeps(cold, chain, TARGETS) for _ in range(2)] == [first, first]
    loss.eval()
    assert count_sweeps(loss, chain, TARGETS) == first
    assert count_sweeps(loss, chain, [TARGETS[0]]) > 0  # another shape, which the kept start survives
    loss.train()
    assert count_sweeps(loss, chain, TARGETS) < first
    loss.reset()
    assert loss.last is None
    assert count_sweeps(loss, chain, TARGETS) == first


def test_starts_are_given_up_where_the_problem_changes() -> None:
    loss = make(reduction="none")
    chain, other = model(4)(), model(3)()
    float_targets = [target.to(torch.float32) for target in TARGETS]
    reordered = [TARGETS[2], TARGETS[1], TARGETS[0]]  # of the same padded shape, but other sizes
    problems = [
        (chain, TARGETS), (chain, reordered), (chain, TARGETS[1]), (other, TARGETS[1]), ([chain] * 3, TARGETS),
        (chain.detach().to(torch.float32), float_targets), (chain, TARGETS),
    ]  # fmt: skip
    for x, y in problems:
        cold = discounted_wl(x, y, costs.SquaredEuclidean(), **SETTING)
        assert_close(loss(x, y), cold.value, rtol=0, atol=0)
        assert loss.last.num_iter.tolist() == cold.num_iter.tolist()
    # Settings may change between steps: epsilon annealed, even to exact transport.
    for epsilon in (0.1, 0.01, 0.0, 0.1):
        loss.epsilon = epsilon
        cold = discounted_wl(chain, TARGETS, costs.SquaredEuclidean(), delta=0.3, epsilon=epsilon)
        assert_close(loss(chain, TARGETS), cold.value, rtol=1e-4, atol=1e-4)
    loss.epsilon = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    assert loss(chain, TARGETS).shape == (3,)


# --- what is kept
def test_the_last_solution_is_there_and_detached() -> None:
    loss = make()
    assert loss.last is None
    chain = model()()
    value = loss(chain, TARGETS)
    assert isinstance(loss.last, ChainSolution)
    assert_close(loss.last.value.mean(), value.detach())
    assert not loss.last.value.requires_grad
    assert not loss.last.cost_to_go.requires_grad
    assert_close(loss.last.alignment.sum((1, 2)), torch.ones(3, dtype=torch.float64))
    value.backward()  # which what is kept does not disturb


def tensors_within(root: object) -> list[torch.Tensor]:
    """All tensors that are reachable from an object."""
    seen, found, stack = set(), [], [root]
    while stack:
        one = stack.pop()
        if id(one) in seen or isinstance(one, type | types.ModuleType | types.FunctionType):
            continue
        seen.add(id(one))
        if isinstance(one, torch.Tensor):
            found.append(one)
        stack.extend(gc.get_referents(one))
    return found


@pytest.mark.parametrize("epsilon", [0.1, 0.0])
@pytest.mark.parametrize("initial", ["stationary", "learned"])
def test_no_autograd_graph_is_kept(initial: str, epsilon: float) -> None:
    loss = make(epsilon=epsilon)
    module = model(initial=initial)
    chain = module()
    value = loss(chain, random_chain(4, 9))
    kept = tensors_within(loss.last)
    assert len(kept) > 10
    assert [tensor.shape for tensor in kept if tensor.requires_grad or tensor.grad_fn is not None] == []
    watched = [weakref.ref(part) for part in (chain.transition, chain.initial, value)]
    del chain, value
    assert [part() for part in watched] == [None] * 3


def test_memory_does_not_grow_over_a_thousand_steps() -> None:
    module, loss = model(2), make()
    method = torch.optim.SGD(module.parameters(), lr=1e-3)

    def alive() -> int:
        gc.collect()
        return sum(type(one) in (torch.Tensor, torch.nn.Parameter) for one in gc.get_objects())

    counts = []
    for step in range(1000):
        method.zero_grad()
        loss(module(), TARGETS[0]).backward()
        method.step()
        if step in (9, 499, 999):
            counts.append(alive())
    assert counts[0] == counts[1] == counts[2]


def test_solvers_are_freed_without_the_garbage_collector() -> None:
    module, loss = model(2), make()
    solvers = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            loss(module(), TARGETS[0]).backward()
            solvers.append(weakref.ref(loss.last.details.solved))
        assert [solver() is None for solver in solvers] == [True] * 4 + [False]
    finally:
        gc.enable()


@pytest.mark.parametrize("how", ["copy", "deepcopy", "pickle", "save"])
def test_copies_leave_the_start_behind(how: str) -> None:
    loss = make(weights=torch.ones(3), reduction="sum")
    chain = model()()
    wanted = loss(chain, TARGETS)
    assert loss.state_dict() == {}
    if how == "save":
        store = io.BytesIO()
        torch.save(loss, store)
        store.seek(0)
        other = torch.load(store, weights_only=False)
    else:
        other = {"copy": copy.copy, "deepcopy": copy.deepcopy, "pickle": lambda m: pickle.loads(pickle.dumps(m))}[how](
            loss
        )
    assert other.last is None
    assert loss.last is not None
    assert_close(other(chain, TARGETS), wanted, rtol=0, atol=0)
    assert_close(loss(chain, TARGETS), wanted, rtol=1e-4, atol=1e-4)


def test_no_grad_and_inference() -> None:
    loss, module = make(), model()
    wanted = loss(module(), TARGETS)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            found = loss(module(), TARGETS)
        assert not found.requires_grad
        assert_close(found, wanted.detach(), rtol=1e-3, atol=1e-4)
        loss(module(), TARGETS).backward()  # after it, training goes on


def test_other_models_make_a_batch_of_dense_matrices() -> None:
    layer = torch.nn.Linear(3, 2 * 16, dtype=torch.float64)
    rows = layer(torch.ones(3, dtype=torch.float64)).view(2, 4, 4).softmax(-1)
    loss = make(cost=torch.rand(4, 4, dtype=torch.float64, generator=seeded()))
    loss(rows, rows.detach().flip(0)).backward()
    assert float(layer.weight.grad.abs().max()) > 0


# --- how it fails
def test_a_failed_solve_names_the_item_and_leaves_no_start() -> None:
    targets = [TARGETS[1], TARGETS[1], TARGETS[1]]
    setting = {"delta": 0.1, "epsilon": 0.001}
    loss = make(reduction="none", **setting)
    one_state = MarkovChain.from_transitions(torch.ones(1, 1, dtype=torch.float64), features=torch.zeros(1, 2).double())
    chain = model()()
    problem = [chain, one_state, chain], targets
    loss.rtol, loss.max_iter = 1e-4, 2
    with pytest.raises(SolveError, match="2 items \\(0, 2\\) did not converge: after 2 iterations") as caught:
        loss(*problem)
    assert caught.value.solution.value.shape == (3,)
    loss.rtol, loss.max_iter = 1e-9, 100
    loss(*problem)
    loss.rtol, loss.max_iter = 1e-12, 1
    with pytest.raises(SolveError, match="did not converge"):
        loss([model(seed=1)(), one_state, chain], targets)
    loss.rtol, loss.max_iter = 1e-9, 100
    cold = discounted_wl(problem[0], problem[1], costs.SquaredEuclidean(), rtol=1e-9, **setting)
    assert count_sweeps(loss, *problem) == int(cold.num_iter.sum())
    assert count_sweeps(loss, *problem) < int(cold.num_iter.sum())


@pytest.mark.parametrize("part", ["transition", "features", "initial law"])
@pytest.mark.parametrize("name", ["x", "y"])
def test_what_is_not_finite_is_named(name: str, part: str) -> None:
    good = random_chain(3, 1)
    rows, law, features = good.transition.clone(), torch.full((3,), 1 / 3, dtype=torch.float64), good.features.clone()
    spoilt = {"transition": rows, "features": features, "initial law": law}[part]
    spoilt.view(-1)[1] = torch.nan
    bad = MarkovChain(rows, initial=law, features=features)
    x, y = (bad, good) if name == "x" else (good, bad)
    with pytest.raises(ValueError, match=rf"{name}, {part}: entry .*1\)? is nan\. Entries must be finite"):
        make()(x, y)


def test_spoilt_costs_and_large_features() -> None:
    rows = torch.eye(2, dtype=torch.float64)
    matrix = torch.nn.Parameter(torch.tensor([[0.0, torch.nan], [1.0, 0.0]], dtype=torch.float64))
    with pytest.raises(ValueError, match=r"cost: entry \(0, 1\) is nan"):
        DiscountedWLLoss(matrix, **SETTING)(torch.full_like(rows, 0.5), torch.full_like(rows, 0.5))
    # Finite numbers whose sum is not are no reason to stop.
    large = torch.tensor([[3e38], [3e38]])
    chain = MarkovChain.from_transitions(torch.full((2, 2), 0.5), features=large)
    assert make(cost=costs.AbsoluteDifference())(chain, chain).item() == pytest.approx(0.0, abs=0.5)


REFUSED = {
    "reduction": ({"reduction": "median"}, ValueError, "reduction: 'median' is not one of 'mean', 'sum', 'none'"),
    "rtol": ({"rtol": "fine"}, TypeError, "rtol: expected a number, got str"),
    "delta": ({"delta": 0.0}, ValueError, r"delta: 0 is outside \(0, 1\]"),
    "epsilon": ({"epsilon": -1.0}, ValueError, "epsilon: -1 is not a finite number"),
    "cost": ({"cost": "euclidean"}, TypeError, r"cost: expected a cost such as costs\.Euclidean\(\), .* got str"),
    "weights": ({"weights": torch.tensor([1.0, -1.0])}, ValueError, "weights: entry 1 is -1.0, which is negative"),
    "no weight": ({"weights": torch.zeros(2)}, ValueError, r"weights: they are all 0\. Some item needs"),
    "whole weights": ({"weights": torch.ones(2, dtype=torch.int64)}, TypeError, "weights: dtype torch.int64"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_losses_that_are_refused(name: str) -> None:
    options, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        make(**options)


def test_weights_must_fit_the_batch() -> None:
    with pytest.raises(ValueError, match=r"weights: shape \(2,\) does not fit the batch, \(3,\)\. Give one weight"):
        make(weights=torch.ones(2))(model()(), TARGETS)


def test_half_precision_is_refused_with_the_repair() -> None:
    rows = torch.full((2, 2), 0.5, dtype=torch.bfloat16)
    with pytest.raises(TypeError, match=r"dtype torch.bfloat16 is not supported, .*\.double\(\)"):
        make(cost=torch.ones(2, 2))(rows, rows)
    with pytest.raises(TypeError, match=r"x: dtype torch\.bfloat16 is not supported"):
        make(cost=torch.ones(2, 2))(MarkovChain(rows, initial="uniform"), rows.float())
    with pytest.raises(TypeError, match=r"dtype torch\.float32 is not that of"):
        make()(model(dtype=torch.float32)(), TARGETS[0])


def test_print() -> None:
    assert repr(make()) == "DiscountedWLLoss(delta=0.3, epsilon=0.1, reduction='mean', warm_start=True)"


def test_numbers_are_reproducible() -> None:
    def run() -> np.ndarray:
        module, loss = model(), make()
        method = torch.optim.Adam(module.parameters(), lr=0.05)
        for _ in range(20):
            method.zero_grad()
            loss(module(), TARGETS).backward()
            method.step()
        return module.features.detach().numpy()

    np.testing.assert_array_equal(run(), run())
