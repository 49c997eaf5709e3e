"""Distances at finite and other random times: against the recursion by slow oracles, unrolled autograd, differences."""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import markovot
from markovot import MarkovChain, SolveError, Status, discounted_wl, transport_cost
from markovot.analysis.explain import explain
from markovot.distances.horizons import HorizonSolution, horizon_wl, wl
from markovot.solving import recursion
from markovot.transport import engines
from markovot.transport.compiled.entropic import CompiledEngine
from markovot.transport.gather import GatherEngine
from markovot.transport.shared_kernel import SharedKernelEngine
from oracles import (
    Array,
    Problem,
    centred,
    deterministic,
    entropic,
    exact_transport,
    numerical_gradient,
    random_problem,
    sinkhorn,
    stationary,
)
from solving import DENSE, MIXED, SPARSE, chain, cost_range, solve, value_iteration

SHAPES = {
    "dense": ({"n": 4, "m": 3}, DENSE),
    "sparse": ({"n": 5, "m": 4, "degrees": (3, 2)}, SPARSE),
    "mixed": ({"n": 3, "m": 5, "degrees": (None, 2)}, MIXED),
    "zeros in a dense tensor": ({"n": 4, "m": 5, "degrees": (2, 4), "zeros": 1}, DENSE),
    "one state": ({"n": 1, "m": 4}, DENSE),
}
NAMES = ("A", "B", "D", "nu", "mu", "epsilon")
LAWS = ("A", "B", "nu", "mu", "law")
LAW = np.array([0.1, 0.0, 0.4, 0.2, 0.3])
# What the oracles themselves may be wrong by, for costs in [0, 1].
ORACLE = 1e-12
CHEAP = 25  # levels below the last one that stand for a tail


@dataclass(frozen=True)
class Horizon:
    """One of the ways to give a horizon, and its hazards."""

    kind: str
    depth: int = 0
    law: Any = None
    tail: Any = None

    def hazards(self, delta: Any) -> list[Any]:
        """h_0, ..., h_(k-1); a tail is so many more of them."""
        if self.kind == "wl":
            return [0.0] * self.depth
        if self.kind == "discounted":
            return [delta] * self.depth
        law = self.law
        own = [law[t] / law[t:].sum() for t in range(len(law) - 1)]
        return own if self.tail is None else own + [self.tail] * CHEAP

    def solve(self, tensors: dict[str, Tensor], layouts=DENSE, *, rtol: float = 1e-10, **options: Any):
        """By the package."""
        x, y = chain(tensors["A"], tensors["nu"], layouts[0]), chain(tensors["B"], tensors["mu"], layouts[1])
        options = {"epsilon": tensors["epsilon"], "rtol": rtol} | options
        if self.kind == "wl":
            return wl(x, y, tensors["D"], depth=self.depth, **options)
        if self.kind == "discounted":
            return discounted_wl(x, y, tensors["D"], depth=self.depth, delta=tensors["delta"], **options)
        law = torch.as_tensor(self.law)
        return horizon_wl(x, y, tensors["D"], law=law, tail=self.tail, **options)


HORIZONS = {
    "depth 0": Horizon("wl", 0),
    "depth 1": Horizon("wl", 1),
    "depth 3": Horizon("wl", 3),
    "discounted": Horizon("discounted", 4),
    "law": Horizon("law", law=LAW),
    "tail": Horizon("law", law=LAW, tail=0.6),
    "nothing but a tail": Horizon("law", law=np.ones(1), tail=0.6),
}


def expected(problem: Problem, horizon: Horizon) -> tuple[float, Array]:
    """The distance and C^(0), by Sinkhorn or linear programmes, level by level."""

    def transport(a: Array, b: Array, cost: Array) -> Array:
        if problem.epsilon:
            return sinkhorn(a, b, cost, problem.epsilon).value
        shape = np.broadcast_shapes(a.shape[:-1], b.shape[:-1])
        a, b = np.broadcast_to(a, (*shape, a.shape[-1])), np.broadcast_to(b, (*shape, b.shape[-1]))
        return np.array([exact_transport(a[at], b[at], cost) for at in np.ndindex(shape)]).reshape(shape)

    cost = problem.D
    for hazard in reversed(horizon.hazards(problem.delta)):
        cost = hazard * problem.D + (1 - hazard) * transport(problem.A[:, None], problem.B[None], cost)
    return float(transport(problem.nu, problem.mu, cost)), cost


def unrolled(
    A: Tensor, B: Tensor, D: Tensor, nu: Tensor, mu: Tensor, epsilon: Tensor, hazards: list[Any], inner: int = 25
) -> Tensor:
    """The recursion over Sinkhorn steps in plain torch; masses are factors, so that zeros have gradients."""

    def soft(exponent: Tensor, mass: Tensor, dim: int) -> Tensor:
        top = exponent.amax(dim, keepdim=True).detach()
        return -epsilon * (top.squeeze(dim) + torch.log((mass * torch.exp(exponent - top)).sum(dim)))

    def transport(a: Tensor, b: Tensor, cost: Tensor, g: Tensor, count: int) -> tuple[Tensor, Tensor]:
        for _ in range(count):
            f = soft((g[..., None, :] - cost) / epsilon, b[..., None, :], -1)
            g = soft((f[..., :, None] - cost) / epsilon, a[..., :, None], -2)
        return (f * a).sum(-1) + (g * b).sum(-1), g

    cost, g = D, D.new_zeros(*D.shape, D.shape[1])
    for hazard in reversed(hazards):
        value, g = transport(A[:, None, :], B[None, :, :], cost, g, inner)
        cost = hazard * D + (1 - hazard) * value
    return transport(nu, mu, cost, D.new_zeros(D.shape[1]), 10 * inner)[0]


def leaves(problem: Problem) -> dict[str, Tensor]:
    return {name: value.requires_grad_() for name, value in problem.tensors().items()}


def assert_same_gradient(found: Tensor, want: Tensor | Array, name: str, mask: Any, tol: float) -> None:
    want = torch.as_tensor(want, dtype=torch.float64)
    if name in LAWS:
        found, want = centred(found, mask), centred(want, mask)
    scale = max(want.abs().max().item(), 1e-3)
    torch.testing.assert_close(found / scale, want / scale, rtol=0, atol=tol, msg=lambda text: f"{name}: {text}")


def stored(problem: Problem, layouts: tuple[str, str]) -> dict[str, Any]:
    sides = zip(("A", "B"), (problem.A, problem.B), layouts, strict=True)
    return {name: rows > 0 for name, rows, layout in sides if layout == "sparse"}


# --- the value
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("kind", HORIZONS)
def test_error_is_within_the_bound_and_the_bound_within_rtol(kind: str, name: str) -> None:
    shape, layouts = SHAPES[name]
    problem, horizon = random_problem(1, **shape, delta=0.3, epsilon=0.1), HORIZONS[kind]
    value, cost_to_go = expected(problem, horizon)
    slack = ORACLE + 0.4**CHEAP * (horizon.tail is not None)
    for rtol in (1e-2, 1e-4, 1e-9):
        found = horizon.solve(problem.tensors(), layouts, rtol=rtol)
        assert isinstance(found, HorizonSolution)
        assert found.status is Status.CONVERGED
        assert abs(found.value.item() - value) <= found.error_bound.item() + slack
        assert 0 <= found.error_bound.item() <= rtol * cost_range(problem)
        np.testing.assert_allclose(found.cost_to_go, cost_to_go, atol=2 * rtol * cost_range(problem) + slack)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("kind", ["depth 1", "depth 3", "discounted", "law"])
def test_exact_transport_equals_linear_programmes_level_by_level(kind: str, name: str) -> None:
    problem = random_problem(2, **SHAPES[name][0], epsilon=0.0)
    found = HORIZONS[kind].solve(problem.tensors(), SHAPES[name][1])
    value, cost_to_go = expected(problem, HORIZONS[kind])
    assert found.error_bound.item() < 1e-10
    assert abs(found.value.item() - value) < 1e-9
    np.testing.assert_allclose(found.cost_to_go, cost_to_go, atol=1e-9)
    assert abs((found.alignment.numpy() * problem.D).sum() - value) < 1e-9


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_depth_0_is_transport_between_the_initial_laws(epsilon: float) -> None:
    problem = random_problem(3, epsilon=epsilon)
    tensors = problem.tensors()
    want = transport_cost(tensors["nu"], tensors["mu"], tensors["D"], epsilon=epsilon, rtol=1e-12)
    for horizon in (Horizon("wl", 0), Horizon("discounted", 0), Horizon("law", law=np.ones(1))):
        found = horizon.solve(tensors, rtol=1e-12)
        assert abs(found.value.item() - want.value.item()) < 1e-12
        assert int(found.num_iter) == 0
        torch.testing.assert_close(found.cost_to_go, tensors["D"])
        torch.testing.assert_close(found.alignment, want.plan, rtol=0, atol=1e-9)


def test_depth_1_by_hand() -> None:
    A, B = np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([[0.5, 0.5], [0.0, 1.0]])
    problem = Problem(A, B, 1 - np.eye(2), np.array([1.0, 0.0]), np.array([0.5, 0.5]), 0.2, 0.0)
    # 0-1 costs give total variation: [[1/2, 1], [0, 1/2]] between the rows; the first law of x is a point.
    found = Horizon("wl", 1).solve(problem.tensors())
    np.testing.assert_allclose(found.cost_to_go, [[0.5, 1.0], [0.0, 0.5]], atol=1e-14)
    assert found.value.item() == pytest.approx(0.75, abs=1e-14)
    # 0.2 [[0, 1], [1, 0]] + 0.8 of these: the deepest level is D, not delta D.
    found = Horizon("discounted", 1).solve(problem.tensors())
    np.testing.assert_allclose(found.cost_to_go, [[0.4, 1.0], [0.2, 0.4]], atol=1e-14)
    assert found.value.item() == pytest.approx(0.7, abs=1e-14)


@pytest.mark.parametrize("epsilon", [0.0, 0.2])
def test_deterministic_moves_are_followed(epsilon: float) -> None:
    rng = np.random.default_rng(4)
    moves_x, moves_y = rng.permutation(5), rng.permutation(4)
    problem = random_problem(4, 5, 4, delta=0.4, epsilon=epsilon)
    problem = replace(problem, A=np.eye(5)[moves_x], B=np.eye(4)[moves_y])
    after = [problem.D]
    for _ in range(4):
        after.append(after[-1][moves_x][:, moves_y])
    for layouts in (DENSE, SPARSE):
        found = Horizon("wl", 4).solve(problem.tensors(), layouts, rtol=1e-12)
        np.testing.assert_allclose(found.cost_to_go, after[4], atol=1e-12)
        found = Horizon("law", law=LAW).solve(problem.tensors(), layouts, rtol=1e-12)
        np.testing.assert_allclose(found.cost_to_go, np.tensordot(LAW, after, 1), atol=1e-12)
        found = Horizon("law", law=LAW, tail=0.4).solve(problem.tensors(), layouts, rtol=1e-12)
        rest = deterministic(problem)[np.linalg.matrix_power(problem.A, 4).argmax(1)]
        rest = rest[:, np.linalg.matrix_power(problem.B, 4).argmax(1)]
        np.testing.assert_allclose(found.cost_to_go, np.tensordot(LAW[:4], after[:4], 1) + LAW[4] * rest, atol=1e-12)


@pytest.mark.parametrize("kind", ["depth 3", "discounted", "law"])
def test_the_bound_adds_up_what_local_problems_may_be_wrong_by(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, horizon, off = random_problem(41, epsilon=0.1), HORIZONS[kind], 1e-3

    class Low(CompiledEngine):
        """Its values are known within `off` only, and are in truth at the upper end."""

        def sweep(self, cost: Tensor, gap: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
            lower, upper = super().sweep(cost, gap, active)
            return lower - 2 * off, upper

    monkeypatch.setattr(engines, "engine_classes", lambda *_: [Low])
    found = horizon.solve(problem.tensors(), rtol=1e-6, throw=False)
    survival = np.cumprod(1 - np.array(horizon.hazards(problem.delta)))
    error = expected(problem, horizon)[0] - found.value.item()
    assert error == pytest.approx(off * survival.sum(), abs=1e-5)
    assert error - 1e-9 <= found.error_bound.item() <= off * survival.sum() + 1e-6
    assert found.status is Status.STALLED


# --- members of the family agree
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
@pytest.mark.parametrize("layouts", [DENSE, SPARSE, MIXED])
def test_the_same_law_of_the_horizon_gives_the_same_distance(layouts: tuple[str, str], epsilon: float) -> None:
    problem = random_problem(5, 4, 4, degrees=(3, 2), delta=0.3, epsilon=epsilon)
    tensors = problem.tensors()
    geometric = 0.3 * 0.7 ** np.arange(5)
    geometric[4] = 0.7**4
    endless = solve(problem, layouts)
    pairs = [
        (Horizon("wl", 3), Horizon("law", law=np.eye(4)[3])),
        (Horizon("wl", 3), Horizon("law", law=np.eye(6)[3])),  # zeros after the last time are of no account
        (Horizon("discounted", 4), Horizon("law", law=geometric)),
        (Horizon("discounted", 4), Horizon("law", law=geometric, tail=1.0)),
        (None, Horizon("law", law=np.ones(1), tail=0.3)),
        (None, Horizon("law", law=geometric, tail=0.3)),
        (None, Horizon("law", law=np.r_[1, np.zeros(2)], tail=0.3)),
    ]
    for left, right in pairs[:-1]:
        want = endless if left is None else left.solve(tensors, layouts)
        found = right.solve(tensors, layouts)
        torch.testing.assert_close(found.value, want.value, rtol=0, atol=3e-10)
        torch.testing.assert_close(found.cost_to_go, want.cost_to_go, rtol=0, atol=3e-10)
        torch.testing.assert_close(found.alignment, want.alignment, rtol=0, atol=1e-6)
    never = pairs[-1][1].solve(tensors, layouts)  # the tail is not reached
    torch.testing.assert_close(never.cost_to_go, tensors["D"], rtol=0, atol=1e-14)
    torch.testing.assert_close(never.value, Horizon("wl", 0).solve(tensors, layouts).value, rtol=0, atol=1e-10)


@pytest.mark.parametrize("delta", [0.1, 0.5])
@pytest.mark.parametrize("epsilon", [0.0, 0.05])
def test_finite_depths_approach_depth_infinity_as_fast_as_they_must(delta: float, epsilon: float) -> None:
    problem = random_problem(6, 4, 4, delta=delta, epsilon=epsilon)
    limit = solve(problem, rtol=1e-12)
    start = float((problem.tensors()["D"] - limit.cost_to_go).abs().max())
    errors = []
    for depth in (0, 1, 2, 4, 8, 16):
        found = Horizon("discounted", depth).solve(problem.tensors(), rtol=1e-12)
        error = float((found.cost_to_go - limit.cost_to_go).abs().max())
        assert error <= (1 - delta) ** depth * start + 1e-11
        assert abs(found.value.item() - limit.value.item()) <= error + 1e-11
        errors.append(error)
    # The bound has the right order: errors at twice the depth are about squares of one another.
    assert errors[-1] > 1e-4 * (1 - delta) ** 16 * start
    assert errors[-1] < errors[0]


def test_exact_distances_of_stationary_chains_do_not_fall_with_the_depth() -> None:
    for seed in range(5):
        problem = random_problem(seed, 4, 4, degrees=(2, 2), epsilon=0.0)
        problem = replace(problem, nu=stationary(problem.A), mu=stationary(problem.B))
        values = [Horizon("wl", depth).solve(problem.tensors()).value.item() for depth in range(6)]
        assert all(later >= before - 1e-9 for before, later in pairwise(values))
        assert values[-1] > values[0]


def test_a_chain_is_at_distance_zero_from_itself_at_every_depth() -> None:
    problem = random_problem(7, 5, 5, epsilon=0.0)
    problem = replace(problem, B=problem.A, mu=problem.nu, D=1 - np.eye(5))
    for horizon in (Horizon("wl", 4), Horizon("discounted", 4), Horizon("law", law=LAW, tail=0.5)):
        assert abs(horizon.solve(problem.tensors(), rtol=1e-12).value.item()) < 1e-12


# --- batches, precision, engines
@pytest.mark.parametrize("layouts", [DENSE, SPARSE, MIXED])
def test_batches_broadcast(layouts: tuple[str, str]) -> None:
    problems = [random_problem(seed, 4, 3, degrees=(2, None), epsilon=0.1) for seed in (8, 9, 10)]
    x = MarkovChain.stack([chain(torch.tensor(p.A), torch.tensor(p.nu), layouts[0]) for p in problems])
    y = chain(torch.tensor(problems[0].B), torch.tensor(problems[0].mu), layouts[1])
    laws = np.array([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])
    tails = torch.tensor([[0.3], [0.8]], dtype=torch.float64)
    options = {"epsilon": 0.1, "rtol": 1e-9}
    law = torch.tensor(laws)[:, None]
    for tail in (None, tails):
        found = horizon_wl(x, y, torch.tensor(problems[0].D), law=law, tail=tail, **options)
        assert found.value.shape == found.error_bound.shape == found.num_iter.shape == (2, 3)
        assert found.cost_to_go.shape == found.alignment.shape == (2, 3, 4, 3)
        assert np.shape(found.status) == (2, 3)
        torch.testing.assert_close(found.alignment.sum((2, 3)), torch.ones(2, 3).double(), rtol=0, atol=1e-8)
        for i, j in np.ndindex(2, 3):
            alone = replace(problems[0], A=problems[j].A, nu=problems[j].nu)
            own = Horizon("law", law=laws[i], tail=None if tail is None else tails[i].item())
            single = own.solve(alone.tensors(), layouts, rtol=1e-9)
            assert abs(found.value[i, j] - single.value) <= 2e-9
            torch.testing.assert_close(found.alignment[i, j], single.alignment, rtol=0, atol=1e-6)
    delta = torch.tensor([[0.2], [1.0]], dtype=torch.float64)
    found = discounted_wl(x, y, torch.tensor(problems[0].D), delta=delta, depth=3, **options)
    assert found.value.shape == (2, 3)
    for i, j in np.ndindex(2, 3):
        alone = replace(problems[0], A=problems[j].A, nu=problems[j].nu, delta=delta[i].item())
        assert abs(found.value[i, j].item() - expected(alone, Horizon("discounted", 3))[0]) <= 1e-9
    epsilon = torch.tensor([0.1, 0.3, 1.0], dtype=torch.float64)
    found = wl(x, y, torch.tensor(problems[0].D), depth=2, **options | {"epsilon": epsilon})
    alone = replace(problems[0], A=problems[2].A, nu=problems[2].nu, epsilon=1.0)
    assert abs(found.value[2].item() - expected(alone, Horizon("wl", 2))[0]) <= 1e-9


@pytest.mark.parametrize("layout", ["dense", "sparse"])
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
@pytest.mark.parametrize("tail", [None, 0.4])
def test_stacked_chains_of_different_sizes_equal_each_alone(tail: Any, epsilon: float, layout: str) -> None:
    problems = [random_problem(seed, n, m, epsilon=epsilon) for seed, n, m in ((11, 4, 3), (12, 2, 5))]
    given = [leaves(problem) for problem in problems]
    x = MarkovChain.stack([chain(own["A"], own["nu"], layout) for own in given])
    y = MarkovChain.stack([chain(own["B"], own["mu"], layout) for own in given])
    cost = torch.full((2, 4, 5), 7.0, dtype=torch.float64)  # what stands at padding does not matter
    for item, own in enumerate(given):
        cost[item, : own["D"].shape[0], : own["D"].shape[1]] = own["D"]
    law = torch.tensor(LAW)
    found = horizon_wl(x, y, cost, law=law, tail=tail, epsilon=epsilon, rtol=1e-11)
    weights = torch.tensor([1.0, -2.0], dtype=torch.float64)
    ((weights * found.value).sum() + found.cost_to_go.sum()).backward()
    assert (found.cost_to_go[0, :, 3:] == 0).all()
    assert (found.alignment[1, 2:] == 0).all()
    for item, (problem, own) in enumerate(zip(problems, given, strict=True)):
        alone = leaves(problem)
        single = Horizon("law", law=LAW, tail=tail).solve(alone, (layout, layout), rtol=1e-11)
        (weights[item] * single.value + single.cost_to_go.sum()).backward()
        torch.testing.assert_close(found.value[item], single.value, rtol=0, atol=1e-10)
        for name in ("A", "B", "D", "nu", "mu"):
            assert_same_gradient(own[name].grad, alone[name].grad, name, None, 1e-6)


@pytest.mark.parametrize("layouts", [DENSE, SPARSE])
@pytest.mark.parametrize("kind", ["depth 3", "tail"])
def test_single_precision_in_and_out_with_an_honest_bound(kind: str, layouts: tuple[str, str]) -> None:
    problem = random_problem(13, 5, 4, degrees=(3, 2), epsilon=0.1)
    tensors = {name: value.float() for name, value in problem.tensors().items()}
    given = {name: tensors[name].double().numpy() for name in ("A", "B", "D", "nu", "mu")}
    laws = {name: given[name] / given[name].sum(-1, keepdims=True) for name in ("A", "B", "nu", "mu")}
    rounded = Problem(**(given | laws), delta=0.3, epsilon=float(tensors["epsilon"]))
    tensors["D"].requires_grad_()
    found = HORIZONS[kind].solve(tensors, layouts, rtol=1e-5)
    found.value.backward()
    kinds = (found.value, found.error_bound, found.cost_to_go, found.plan, found.alignment, tensors["D"].grad)
    assert all(part.dtype == torch.float32 for part in kinds)
    assert abs(found.value.item() - expected(rounded, HORIZONS[kind])[0]) <= found.error_bound.item() + 0.4**CHEAP
    assert found.error_bound.item() <= 1e-5 * cost_range(problem) + 1e-6


@pytest.mark.parametrize("engine", [GatherEngine, SharedKernelEngine])
@pytest.mark.parametrize("name", ["dense", "sparse", "zeros in a dense tensor"])
@pytest.mark.parametrize("kind", ["depth 3", "discounted", "tail"])
def test_other_engines_find_the_same(kind: str, name: str, engine: type, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, layouts = random_problem(14, **SHAPES[name][0], delta=0.3, epsilon=0.1), SHAPES[name][1]
    found = []
    for classes in ([CompiledEngine], [engine]):
        monkeypatch.setattr(engines, "engine_classes", lambda *_, classes=classes: classes)
        given = leaves(problem)
        solution = HORIZONS[kind].solve(given, layouts)
        solution.value.backward()
        found.append((solution, given))
    (left, expected_gradients), (right, given) = found
    torch.testing.assert_close(right.cost_to_go, left.cost_to_go, rtol=0, atol=3e-10)
    torch.testing.assert_close(right.alignment, left.alignment, rtol=0, atol=1e-8)
    couplings = [solution.transition_coupling(step=2).toarray() for solution in (left, right)]
    np.testing.assert_allclose(*couplings, atol=1e-8)
    masks = stored(problem, layouts)
    for key in NAMES:
        assert_same_gradient(given[key].grad, expected_gradients[key].grad, key, masks.get(key), 1e-7)


def test_an_engine_that_meets_costs_out_of_its_range_hands_over(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_problem(15, epsilon=2e-4)
    monkeypatch.setattr(engines, "engine_classes", lambda *_: [SharedKernelEngine, GatherEngine])
    given = leaves(problem)
    found = HORIZONS["depth 3"].solve(given, rtol=1e-8)
    found.value.backward()
    monkeypatch.undo()
    again = leaves(problem)
    want = HORIZONS["depth 3"].solve(again, rtol=1e-8)
    want.value.backward()
    assert abs(found.value.item() - want.value.item()) <= 2e-8
    assert_same_gradient(given["A"].grad, again["A"].grad, "A", None, 1e-4)


# --- gradients
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("kind", HORIZONS)
def test_all_gradients_equal_those_of_the_unrolled_loop(kind: str, name: str) -> None:
    shape, layouts = SHAPES[name]
    problem, horizon = random_problem(16, **shape, delta=0.3, epsilon=0.2), HORIZONS[kind]
    found, want = leaves(problem), leaves(problem)
    extra: dict[str, tuple[Tensor, Tensor]] = {"delta": (found["delta"], want["delta"])}
    if horizon.kind == "law":
        parts = {"law": torch.tensor(horizon.law), "tail": torch.tensor(horizon.tail or 1.0, dtype=torch.float64)}
        extra = {key: (part.clone().requires_grad_(), part.clone().requires_grad_()) for key, part in parts.items()}
        mine, theirs = ({key: pair[side] for key, pair in extra.items()} for side in (0, 1))
        if horizon.tail is None:
            del extra["tail"], mine["tail"], theirs["tail"]
        horizon, oracle = replace(horizon, **mine), replace(horizon, **theirs)
    else:
        oracle = horizon
    unrolled(*(want[key] for key in NAMES), hazards=oracle.hazards(want["delta"])).backward()
    horizon.solve(found, layouts, rtol=1e-11).value.backward()
    masks = stored(problem, layouts)
    for key in NAMES:
        grad = want[key].grad
        assert_same_gradient(
            found[key].grad, torch.zeros_like(want[key]) if grad is None else grad, key, masks.get(key), 1e-6
        )
    for key, (mine, theirs) in extra.items():
        if theirs.grad is not None:
            assert_same_gradient(mine.grad, theirs.grad, key, None, 1e-6)
    for law in (found["A"], found["B"], found["nu"], found["mu"], *(extra["law"][:1] if "law" in extra else ())):
        if law.grad is not None:  # centred
            torch.testing.assert_close(law.grad.sum(-1), torch.zeros(law.shape[:-1]).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["dense", "sparse", "mixed"])
@pytest.mark.parametrize("kind", ["depth 3", "discounted", "law", "tail"])
def test_gradients_equal_differences_at_small_epsilon(kind: str, name: str) -> None:
    shape, layouts = SHAPES[name]
    problem = random_problem(17, **shape, delta=0.1, epsilon=0.01)
    given, horizon, rng = leaves(problem), HORIZONS[kind], np.random.default_rng(0)
    horizon.solve(given, layouts, rtol=1e-12).value.backward()
    masks = stored(problem, layouts)
    for key in (*NAMES, "delta") if kind == "discounted" else NAMES:
        at = np.asarray(getattr(problem, key))
        direction = rng.normal(size=at.shape)
        if key in LAWS:
            direction = centred(direction, masks.get(key)).numpy()
        direction = direction / np.abs(direction).max()
        slope = float((given[key].grad * torch.as_tensor(direction)).sum())

        def value(x: Array, key: str = key) -> float:
            moved = replace(problem, **{key: x if x.ndim else float(x)})
            return horizon.solve(moved.tensors(), layouts, rtol=1e-12).value.item()

        want = numerical_gradient(value, at, direction, 2e-4)
        np.testing.assert_allclose(slope, want, rtol=1e-6, atol=1e-6 * given[key].grad.abs().max().item(), err_msg=key)


@pytest.mark.parametrize("name", ["dense", "sparse", "mixed"])
@pytest.mark.parametrize("kind", ["depth 3", "discounted", "tail"])
def test_exact_gradients_equal_differences_where_the_optimum_is_unique(kind: str, name: str) -> None:
    shape, layouts = SHAPES[name]
    problem = random_problem(18, **shape, delta=0.3, epsilon=0.0)
    horizon, rng = HORIZONS[kind], np.random.default_rng(1)
    law = torch.tensor(LAW).requires_grad_()
    given = {key: value.requires_grad_(key != "epsilon") for key, value in problem.tensors().items()}
    own = replace(horizon, law=law) if horizon.kind == "law" else horizon
    own.solve(given, layouts, rtol=1e-13).value.backward()
    for key in ("A", "B", "D", "nu", "mu", *(("delta",) if kind == "discounted" else ())):
        at = np.asarray(getattr(problem, key))
        direction = rng.normal(size=at.shape)
        if key in LAWS:
            direction = centred(np.where(at > 0, direction, 0.0), at > 0).numpy()
        slope = float((given[key].grad * torch.as_tensor(direction)).sum())

        def value(x: Array, key: str = key) -> float:
            moved = replace(problem, **{key: x if x.ndim else float(x)})
            return horizon.solve(moved.tensors(), layouts, rtol=1e-13).value.item()

        np.testing.assert_allclose(slope, numerical_gradient(value, at, direction, 1e-6), rtol=1e-6, atol=1e-7)
    if horizon.kind == "law":
        direction = np.array([0.3, 0.0, -0.5, 0.1, 0.1])

        def moved_law(x: Array) -> float:
            return replace(horizon, law=x).solve(problem.tensors(), layouts, rtol=1e-13).value.item()

        want = numerical_gradient(moved_law, LAW, direction, 1e-6)
        np.testing.assert_allclose(float(law.grad @ torch.tensor(direction)), want, rtol=1e-6, atol=1e-7)


def test_the_law_has_the_one_sided_derivative_at_zeros_within() -> None:
    problem = random_problem(19, epsilon=0.1)
    law = torch.tensor(LAW).requires_grad_()
    Horizon("law", law=law).solve(problem.tensors(), rtol=1e-12).value.backward()
    direction = np.array([0.0, 1.0, 0.0, 0.0, -1.0])  # towards time 1, which has no mass
    want = numerical_gradient(
        lambda x: Horizon("law", law=x).solve(problem.tensors(), rtol=1e-12).value.item(),
        LAW, direction, 1e-4, one_sided=True,
    )  # fmt: skip
    np.testing.assert_allclose(float(law.grad @ torch.tensor(direction)), want, rtol=1e-6)


@pytest.mark.parametrize("epsilon", [0.0, 0.2])
def test_the_gradient_in_delta_where_the_walk_stops_at_once(epsilon: float) -> None:
    problem = random_problem(20, delta=1.0, epsilon=epsilon)
    delta = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    Horizon("discounted", 3).solve(problem.tensors() | {"delta": delta}, rtol=1e-12).value.backward()
    want = numerical_gradient(
        lambda x: expected(replace(problem, delta=float(x)), Horizon("discounted", 3))[0],
        np.asarray(1.0), np.asarray(-1.0), 1e-3 if epsilon else 1e-5, one_sided=True,
    )  # fmt: skip
    np.testing.assert_allclose(-delta.grad.item(), want, rtol=1e-6)


@pytest.mark.parametrize("kind", ["depth 3", "tail"])
def test_gradients_of_the_cost_to_go(kind: str) -> None:
    problem, horizon = random_problem(21, 4, 3, degrees=(3, 2), epsilon=0.2), HORIZONS[kind]
    weights, given = np.random.default_rng(2).normal(size=(4, 3)), leaves(problem)
    found = horizon.solve(given, SPARSE, rtol=1e-11)
    (2 * found.value + (torch.tensor(weights) * found.cost_to_go).sum()).backward()
    rng, masks = np.random.default_rng(3), stored(problem, SPARSE)
    for key in ("A", "B", "D", "nu", "epsilon"):
        at = np.asarray(getattr(problem, key))
        direction = rng.normal(size=at.shape)
        if key in LAWS:
            direction = centred(direction, masks.get(key)).numpy()

        def loss(x: Array, key: str = key) -> float:
            value, cost_to_go = expected(replace(problem, **{key: x if x.ndim else float(x)}), horizon)
            return 2 * value + (weights * cost_to_go).sum()

        want = numerical_gradient(loss, at, direction, 5e-4)
        np.testing.assert_allclose(float((given[key].grad.numpy() * direction).sum()), want, rtol=1e-6, err_msg=key)


def test_gradients_of_a_broadcast_batch_are_sums_of_those_alone() -> None:
    problem = random_problem(22, epsilon=0.1)
    given, tensors = leaves(problem), problem.tensors()
    delta = torch.tensor([0.2, 0.7], dtype=torch.float64, requires_grad=True)
    found = Horizon("discounted", 3).solve(given | {"delta": delta}, rtol=1e-11)
    (torch.tensor([1.0, -2.0]).double() * found.value).sum().backward()
    total = {name: torch.zeros_like(tensors[name]) for name in NAMES}
    for item, weight in enumerate((1.0, -2.0)):
        alone = leaves(replace(problem, delta=delta[item].item()))
        (weight * Horizon("discounted", 3).solve(alone, rtol=1e-11).value).backward()
        torch.testing.assert_close(delta.grad[item], alone["delta"].grad, rtol=1e-7, atol=1e-9)
        for name in NAMES:
            total[name] += alone[name].grad
    for name in NAMES:
        assert_same_gradient(given[name].grad, total[name], name, None, 1e-7)


def test_default_tolerance_gives_useful_gradients() -> None:
    problem = random_problem(23, 5, 4, epsilon=0.02)
    rough, fine = leaves(problem), leaves(problem)
    HORIZONS["tail"].solve(rough, rtol=1e-4).value.backward()
    HORIZONS["tail"].solve(fine, rtol=1e-12).value.backward()
    for name in NAMES:
        assert_same_gradient(rough[name].grad, fine[name].grad, name, None, 1e-2)


def test_where_a_gradient_is_wanted_local_problems_are_solved_further() -> None:
    problem = random_problem(23, 5, 4, epsilon=0.02)
    for kind in ("depth 3", "tail"):
        plain = HORIZONS[kind].solve(problem.tensors(), rtol=1e-2).error_bound.item()
        assert HORIZONS[kind].solve(leaves(problem), rtol=1e-2).error_bound.item() < 1e-2 * plain


def test_only_what_needs_a_gradient_gets_one_and_only_once() -> None:
    tensors = random_problem(24).tensors()
    tensors["B"].requires_grad_()
    value = HORIZONS["depth 3"].solve(tensors).value
    with pytest.raises(NotImplementedError, match="second-order gradients"):
        torch.autograd.grad(value, tensors["B"], create_graph=True)
    value.backward()
    assert tensors["B"].grad is not None
    assert all(tensors[name].grad is None for name in NAMES if name != "B")
    assert not HORIZONS["depth 3"].solve(random_problem(24).tensors()).value.requires_grad


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
@pytest.mark.parametrize("tail", [None, 0.5])
def test_deep_recursions_keep_few_costs_and_find_the_rest_again(
    tail: Any, epsilon: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = random_problem(25, 4, 3, degrees=(3, 2), epsilon=epsilon)
    law = np.full(32, 1 / 32)
    found = []
    for limit in (recursion.KEPT_BYTES, 0):
        monkeypatch.setattr(recursion, "KEPT_BYTES", limit)
        given = leaves(problem)
        own = {"law": torch.tensor(law).requires_grad_()}
        if epsilon == 0:
            given["epsilon"] = given["epsilon"].detach()
        solution = Horizon("law", tail=tail, **own).solve(given, SPARSE, rtol=1e-11)
        solution.value.backward()
        found.append((solution, given | own))
    (all_kept, want), (few_kept, given) = found
    assert len(all_kept.details.solved.descent.kept) == 31
    assert sorted(few_kept.details.solved.descent.kept) == [1, 7, 13, 19, 25, 31]
    torch.testing.assert_close(few_kept.value, all_kept.value, rtol=0, atol=1e-14)
    for key in ("A", "B", "D", "nu", "mu", "law"):
        assert_same_gradient(given[key].grad, want[key].grad, key, None, 1e-8)
    for step in (0, 1, 6, 30):
        couplings = [solution.transition_coupling(step=step).toarray() for solution in (all_kept, few_kept)]
        np.testing.assert_allclose(*couplings, atol=1e-7)


def test_dense_chains_in_a_batch_of_two_dimensions_have_gradients() -> None:
    problem = random_problem(40, 3, 3)
    rows = torch.stack([torch.tensor(random_problem(seed, 3, 3).A) for seed in range(4)]).view(2, 2, 3, 3)
    tensors = problem.tensors() | {"A": rows.requires_grad_(), "nu": torch.tensor(problem.nu).expand(2, 2, 3)}
    Horizon("wl", 2).solve(tensors).value.sum().backward()
    alone = leaves(replace(problem, A=rows[1, 0].detach().numpy()))
    Horizon("wl", 2).solve(alone).value.backward()
    assert_same_gradient(rows.grad[1, 0], alone["A"].grad, "A", None, 1e-7)


def test_levels_so_deep_that_nothing_reaches_them_do_no_harm() -> None:
    problem = random_problem(42, 3, 3, delta=0.9, epsilon=0.1)
    given, endless = leaves(problem), leaves(problem)
    found = Horizon("discounted", 400).solve(given)  # 0.1 ** 400 is zero in floating point
    found.value.backward()
    limit = discounted_wl(
        chain(endless["A"], endless["nu"]), chain(endless["B"], endless["mu"]), endless["D"],
        delta=endless["delta"], epsilon=endless["epsilon"], rtol=1e-10,
    )  # fmt: skip
    limit.value.backward()
    torch.testing.assert_close(found.value, limit.value, rtol=0, atol=3e-10)
    for name in (*NAMES, "delta"):
        assert_same_gradient(given[name].grad, endless[name].grad, name, None, 1e-7)
    assert 300 < int(found.num_iter) < 350


# --- the couplings
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
@pytest.mark.parametrize("tail", [None, 0.5])
def test_the_alignment_is_the_law_of_the_coupled_chains_when_they_stop(tail: Any, epsilon: float) -> None:
    problem = random_problem(26, 4, 3, epsilon=epsilon)
    tensors = problem.tensors()
    tensors["D"].requires_grad_()
    found = Horizon("law", law=LAW, tail=tail).solve(tensors, rtol=1e-12)
    found.value.backward()
    torch.testing.assert_close(found.alignment, tensors["D"].grad, rtol=0, atol=1e-9)
    now, total = found.plan.numpy().ravel(), np.zeros(12)
    for t in range(4):
        total += LAW[t] * now
        coupled = found.transition_coupling(step=t)
        np.testing.assert_allclose(coupled.sum(1), 1.0, atol=1e-12)
        plan = found.coupling(2, 1, step=t).numpy()
        np.testing.assert_allclose(plan.ravel(), coupled.toarray()[2 * 3 + 1], atol=1e-12)
        np.testing.assert_allclose(plan.sum(1), problem.A[2], atol=1e-9)
        np.testing.assert_allclose(plan.sum(0), problem.B[1], atol=1e-9)
        now = now @ coupled.toarray()
    if tail is not None:
        coupled = found.transition_coupling(step=4).toarray()
        np.testing.assert_allclose(found.transition_coupling(step=9).toarray(), coupled, atol=0)
        now = np.linalg.solve(np.eye(12) - (1 - tail) * coupled.T, tail * now)
    np.testing.assert_allclose(found.alignment.numpy().ravel(), total + LAW[4] * now, atol=1e-9)
    np.testing.assert_allclose(found.coupling(0, 0), found.coupling(0, 0, step=0))


def test_asking_for_couplings_that_are_not_there() -> None:
    found = Horizon("wl", 2).solve(random_problem(27).tensors())
    for step in (2, -1):
        with pytest.raises(IndexError, match=rf"no step {step} in a walk of at most 2 steps"):
            found.coupling(0, 0, step=step)
        with pytest.raises(IndexError, match=rf"transition_coupling: no step {step}"):
            found.transition_coupling(step=step)
    with pytest.raises(IndexError, match=r"no states \(4, 0\) among 4 x 3"):
        found.coupling(4, 0)
    with pytest.raises(IndexError, match=r"no item 1 in a batch of 1"):
        found.transition_coupling(1)
    tensors = random_problem(27).tensors()
    tensors["epsilon"] = tensors["epsilon"].expand(2)
    batch = Horizon("wl", 2).solve(tensors)
    with pytest.raises(ValueError, match=r"batch of shape \(2,\).*transition_coupling\(item\)"):
        batch.coupling(0, 0)
    np.testing.assert_allclose(batch.transition_coupling(1).toarray(), found.transition_coupling().toarray())


# --- manners
def test_a_solve_is_repeated_to_the_last_bit_and_inputs_stay() -> None:
    problem = random_problem(28, 5, 4, degrees=(3, 2), epsilon=0.05)
    found = []
    for _ in range(2):
        given = leaves(problem)
        before = {name: value.detach().clone() for name, value in given.items()}
        solution = HORIZONS["tail"].solve(given, SPARSE)
        if found:
            _ = solution.alignment, solution.coupling(0, 0, step=3)  # what is asked in between changes nothing
        solution.value.backward()
        found.append([solution.value.detach(), *(given[name].grad for name in NAMES)])
        for name, value in given.items():
            torch.testing.assert_close(value.detach(), before[name], rtol=0, atol=0)
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_a_tail_that_stops_close_to_its_tolerance_leaves_room_for_the_levels() -> None:
    problem = random_problem(29, epsilon=0.1)
    want = HORIZONS["tail"].solve(problem.tensors(), rtol=1e-10)
    with value_iteration():
        slow = HORIZONS["tail"].solve(problem.tensors(), rtol=1e-10, max_iter=1000)
        for rtol in (1e-2, 1e-3, 1e-5, 1e-7):
            Horizon("law", law=np.eye(3)[2], tail=0.2).solve(problem.tensors(), rtol=rtol, max_iter=1000)
    assert abs(want.value.item() - slow.value.item()) <= 2e-10
    assert int(slow.num_iter) > int(want.num_iter) > len(LAW) - 1
    with pytest.raises(SolveError, match=r"did not converge: after 5 iterations .*Raise `max_iter`"):
        HORIZONS["tail"].solve(problem.tensors(), rtol=1e-10, max_iter=1)


def test_what_rounding_forbids_is_told() -> None:
    problem = random_problem(30, epsilon=0.1)
    found = Horizon("wl", 50).solve(problem.tensors(), rtol=1e-15, throw=False)
    assert found.status is Status.STALLED
    assert not bool(found.converged)
    with pytest.raises(SolveError, match="certified error"):
        Horizon("wl", 50).solve(problem.tensors(), rtol=1e-15)
    assert abs(found.value.item() - expected(problem, Horizon("wl", 50))[0]) <= found.error_bound.item() + ORACLE


def test_what_is_not_finite_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(GatherEngine):
        def sweep(self, *arguments: Any) -> Any:
            return tuple(part * torch.nan for part in super().sweep(*arguments))

    monkeypatch.setattr(engines, "engine_classes", lambda *_: [Broken])
    found = Horizon("wl", 1).solve(random_problem(31, epsilon=0.1).tensors(), throw=False)
    assert found.status is Status.NOT_FINITE


GOOD = {
    "x": torch.full((2, 2), 0.5, dtype=torch.float64),
    "y": torch.full((3, 3), 1 / 3, dtype=torch.float64),
    "cost": torch.ones(2, 3, dtype=torch.float64),
}


@pytest.mark.parametrize(
    ("depth", "error", "message"),
    [
        (-1, ValueError, r"depth: -1 is negative.*0 compares"),
        (2.0, TypeError, r"depth: expected an integer, got float"),
        (True, TypeError, r"depth: expected an integer, got bool"),
        ("two", TypeError, r"depth: expected an integer, got str"),
    ],
)
def test_bad_depths(depth: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        wl(**GOOD, depth=depth, epsilon=0.1)
    with pytest.raises(error, match=message):
        discounted_wl(**GOOD, delta=0.2, depth=depth, epsilon=0.1)


BAD_LAWS = {
    "sum": (torch.tensor([0.5, 0.4]), ValueError, r"law: it sums to 0\.9.*Divide it by its sum"),
    "negative": (torch.tensor([1.5, -0.5]), ValueError, r"law: entry 1 is -0\.5.*negative"),
    "nan": (torch.tensor([0.5, float("nan")]), ValueError, r"law: entry 1 is nan"),
    "one of a batch": (torch.tensor([[0.5, 0.5], [0.5, 0.4]]), ValueError, r"law: law 1 sums to 0\.9"),
    "empty": (torch.zeros(0), ValueError, r"law: shape \(0,\) has no times"),
    "a number": (torch.tensor(1.0), ValueError, r"law: shape \(\) has no times"),
    "integers": (torch.tensor([0, 1]), TypeError, r"law: dtype torch.int64"),
    "a list": ([0.5, 0.5], TypeError, r"law: expected a torch tensor or a NumPy array, got list"),
}


@pytest.mark.parametrize("name", BAD_LAWS)
def test_bad_laws(name: str) -> None:
    law, error, message = BAD_LAWS[name]
    with pytest.raises(error, match=message):
        horizon_wl(**GOOD, law=law, epsilon=0.1)


@pytest.mark.parametrize("tail", [0.0, -0.1, 1.5, float("nan")])
def test_tails_outside_their_interval(tail: float) -> None:
    law = torch.ones(1)
    with pytest.raises(ValueError, match=r"tail: .*(\(0, 1\]|between 0 and 1)"):
        horizon_wl(**GOOD, law=law, tail=tail, epsilon=0.1)
    with pytest.raises(ValueError, match=rf"tail: {tail:g} is outside \(0, 1\].*None or 1 stops there"):
        horizon_wl(**GOOD, law=law, tail=torch.tensor([0.5, tail], dtype=torch.float64), epsilon=0.1)


def test_other_bad_input() -> None:
    with pytest.raises(TypeError, match=r"tail: expected a number, got str"):
        horizon_wl(**GOOD, law=torch.ones(1), tail="long", epsilon=0.1)
    with pytest.raises(TypeError, match=r"tail: dtype torch.int64"):
        horizon_wl(**GOOD, law=torch.ones(1), tail=torch.ones(1, dtype=torch.int64), epsilon=0.1)
    with pytest.raises(ValueError, match=r"epsilon: -1 is not a finite number >= 0"):
        wl(**GOOD, depth=1, epsilon=-1.0)
    with pytest.raises(TypeError, match=r"rtol: expected a number, got str"):
        wl(**GOOD, depth=1, epsilon=0.1, rtol="high")
    with pytest.raises(ValueError, match=r"^epsilon: batches of shapes \(2,\) \(epsilon\) and \(3,\) \(chains"):
        wl(**GOOD | {"cost": torch.ones(3, 2, 3).double()}, depth=1, epsilon=torch.ones(2))
    with pytest.raises(ValueError, match=r"^law, tail, epsilon: batches of shapes \(2,\) \(law\), \(3,\) "):
        horizon_wl(**GOOD, law=torch.ones(2, 1), tail=torch.ones(3), epsilon=0.1)
    with pytest.raises(ValueError, match=r"delta, epsilon: batches of shapes \(2,\) \(delta\), \(3,\) \(epsilon\)"):
        discounted_wl(**GOOD, delta=torch.full((2,), 0.5), epsilon=torch.ones(3), depth=2)
    law = torch.tensor([0.5, 0.5, 0.0], requires_grad=True)
    with pytest.raises(ValueError, match=r"law: it requires a gradient and its last probability is 0.*law\.detach\(\)"):
        horizon_wl(**GOOD, law=law, epsilon=0.1)
    with torch.no_grad():
        horizon_wl(**GOOD, law=law, epsilon=0.1)


def test_solutions_of_finite_depth_are_no_start_and_are_not_explained() -> None:
    problem = random_problem(32)
    finite, endless = Horizon("discounted", 2).solve(problem.tensors()), solve(problem)
    with pytest.raises(ValueError, match=r"init: a finite depth is solved level by level.*Leave it out"):
        Horizon("discounted", 2).solve(problem.tensors(), init=endless)
    for refused in (lambda: solve(problem, init=finite), lambda: explain(finite)):
        with pytest.raises(TypeError, match=r"discounted_wl of depth infinity.*got HorizonSolution"):
            refused()


def test_depth_none_is_depth_infinity() -> None:
    problem = random_problem(33)
    found = solve(problem, depth=None)
    assert not isinstance(found, HorizonSolution)
    assert isinstance(found, markovot.ChainSolution)
    assert abs(found.value.item() - entropic(problem).value) <= found.error_bound.item() + ORACLE
