"""Every gradient against differences along the simplex, and against autograd through an unrolled loop.

Gradients of laws and of transition rows are defined up to a constant per row, so they are compared centred.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import markovot
from markovot import MarkovChain
from markovot.transport import engines
from markovot.transport.compiled import layout
from markovot.transport.rows import Rows
from oracles import (
    FIELDS,
    Problem,
    centred,
    entropic,
    numerical_gradient,
    random_problem,
    stationary,
    unrolled,
)
from solving import DENSE, MIXED, SPARSE, chain, gradients, solve, solve_tensors, value_iteration

LAWS = ("A", "B", "nu", "mu")  # inputs that live on simplices
CASES = {
    "dense": ({"n": 4, "m": 3}, DENSE),
    "rectangular": ({"n": 2, "m": 5}, DENSE),
    "sparse": ({"n": 5, "m": 4, "degrees": (3, 2)}, SPARSE),
    "mixed": ({"n": 3, "m": 5, "degrees": (None, 3)}, MIXED),
    "mixed the other way": ({"n": 5, "m": 3, "degrees": (2, None)}, ("sparse", "dense")),
    "one state": ({"n": 1, "m": 4}, DENSE),
}
EXACT = {"rtol": 1e-12}


def problem_of(case: str, **options: float) -> Problem:
    return random_problem(1, **CASES[case][0], **({"delta": 0.3, "epsilon": 0.15} | options))


def stored(problem: Problem, layouts: tuple[str, str]) -> dict[str, np.ndarray | None]:
    """The entries in which each law may vary: the stored ones of a sparse chain, all of a dense one."""

    def keep(rows: np.ndarray, layout: str) -> np.ndarray | None:
        return rows > 0 if layout == "sparse" else None

    return {"A": keep(problem.A, layouts[0]), "B": keep(problem.B, layouts[1]), "nu": None, "mu": None}


def assert_same_gradient(
    found: Tensor, expected: Tensor | np.ndarray, name: str, mask: np.ndarray | None, tol: float
) -> None:
    """Equal to `tol` relative to the largest entry; on the tangent space of the simplex for laws."""
    expected = torch.as_tensor(expected, dtype=torch.float64)
    if name in LAWS:
        found, expected = centred(found, mask), centred(expected, mask)
    scale = max(expected.abs().max().item(), 1e-3)
    torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=tol, msg=lambda text: f"{name}: {text}")


# --- through an unrolled loop
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("delta", "epsilon"), [(0.3, 0.15), (0.6, 0.04), (1.0, 0.2), (0.5, 3.0)])
def test_all_gradients_equal_those_of_the_unrolled_loop(case: str, delta: float, epsilon: float) -> None:
    problem = problem_of(case, delta=delta, epsilon=epsilon)
    inputs = {name: value.requires_grad_() for name, value in problem.tensors().items()}
    unrolled(**inputs, inner=40 if epsilon < 0.1 else 12, steps=40 if delta > 0.4 else 80).backward()
    found, masks = gradients(problem, CASES[case][1]), stored(problem, CASES[case][1])
    for name in FIELDS:
        assert_same_gradient(found[name], inputs[name].grad, name, masks.get(name), 1e-6)


@pytest.mark.parametrize("case", CASES)
def test_matrix_products_have_the_same_gradients(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The engine of large dense chains, made to solve small ones.
    problem, layouts = problem_of(case), CASES[case][1]
    expected, masks = gradients(problem, layouts), stored(problem, layouts)
    monkeypatch.setattr(engines, "DENSE_DEGREE", 0)
    found = gradients(problem, layouts)
    for name in FIELDS:
        assert_same_gradient(found[name], expected[name], name, masks.get(name), 1e-8)


def test_gradient_off_the_support_is_the_one_sided_derivative() -> None:
    # Zeros in a dense tensor have a gradient too: that of the mass which may move there.
    problem = random_problem(2, 4, 4, degrees=(2, 3), zeros=1)
    inputs = {name: value.requires_grad_() for name, value in problem.tensors().items()}
    unrolled(**inputs).backward()
    found = gradients(problem)
    for name in FIELDS:
        assert_same_gradient(found[name], inputs[name].grad, name, None, 1e-6)


@pytest.mark.parametrize("layouts", [DENSE, SPARSE])
def test_probabilities_near_the_least_float(layouts: tuple[str, str]) -> None:
    """As good as none, in value and gradients; inverses and logarithms of them would overflow."""
    for tiny in (5e-324, 1e-310, 1e-200):
        problem = random_problem(2, 4, 4, degrees=(2, 3), zeros=1, delta=0.5, epsilon=0.04)
        problem = replace(problem, **{name: np.maximum(getattr(problem, name), tiny) for name in LAWS})
        inputs = {name: value.requires_grad_() for name, value in problem.tensors().items()}
        unrolled(**inputs, inner=25, steps=40).backward()
        found = gradients(problem, layouts)
        for name in FIELDS:
            assert_same_gradient(found[name], inputs[name].grad, name, None, 1e-6)


# --- against differences
def directions(
    problem: Problem, name: str, mask: np.ndarray | None, rng: np.random.Generator, count: int
) -> list[np.ndarray]:
    """Random directions; along the simplex, within the entries that may vary, for laws."""
    shape = np.shape(getattr(problem, name))
    raw = [np.asarray(rng.normal(size=shape)) for _ in range(count)]
    return [centred(each, mask).numpy() for each in raw] if name in LAWS else raw


@pytest.mark.parametrize("case", ["rectangular", "sparse", "mixed"])
def test_all_gradients_equal_differences_of_the_oracle(case: str) -> None:
    problem, layouts = problem_of(case, delta=0.25, epsilon=0.1), CASES[case][1]
    found, masks, rng = gradients(problem, layouts), stored(problem, layouts), np.random.default_rng(3)
    for name in FIELDS:
        for direction in directions(problem, name, masks.get(name), rng, 2):
            expected = numerical_gradient(
                lambda x, name=name: entropic(replace(problem, **{name: x if x.ndim else float(x)})).value,
                np.asarray(getattr(problem, name)), direction, 5e-4,
            )  # fmt: skip
            slope = (found[name].numpy() * direction).sum()
            np.testing.assert_allclose(slope, expected, rtol=1e-6, atol=1e-8, err_msg=name)


@pytest.mark.parametrize(("delta", "epsilon"), [(0.02, 0.05), (0.1, 0.01), (0.2, 0.003), (0.9, 1.0)])
@pytest.mark.parametrize("case", ["dense", "sparse", "mixed"])
def test_gradients_equal_differences_of_the_value_in_hard_corners(case: str, delta: float, epsilon: float) -> None:
    # Small delta and epsilon, where unrolling is hopeless: differences of the package's certified value.
    problem, layouts = problem_of(case, delta=delta, epsilon=epsilon), CASES[case][1]
    found, masks, rng = gradients(problem, layouts), stored(problem, layouts), np.random.default_rng(4)
    for name in FIELDS:
        (direction,) = directions(problem, name, masks.get(name), rng, 1)
        size = min(delta, epsilon, 0.1) if name in ("delta", "epsilon") else min(epsilon, 0.05)
        expected = numerical_gradient(
            lambda x, name=name: _solved_values(problem, layouts, name, x),
            np.asarray(getattr(problem, name)), direction / np.abs(direction).max(), 0.02 * size,
        )  # fmt: skip
        slope = (found[name].numpy() * direction).sum() / np.abs(direction).max()
        scale = (
            float(found[name].abs().max()) if name not in LAWS else float(centred(found[name], masks[name]).abs().max())
        )
        np.testing.assert_allclose(slope, expected, rtol=1e-6, atol=1e-6 * scale, err_msg=name)


def _solved_values(problem: Problem, layouts: tuple[str, str], name: str, x: np.ndarray) -> float:
    return solve(replace(problem, **{name: x if x.ndim else float(x)}), layouts, **EXACT).value.item()


@pytest.mark.parametrize("case", ["rectangular", "sparse"])
def test_gradients_of_the_cost_to_go(case: str) -> None:
    problem, layouts = problem_of(case), CASES[case][1]
    rng = np.random.default_rng(21)
    weights = rng.normal(size=problem.D.shape)
    leaves = {name: value.requires_grad_() for name, value in problem.tensors().items()}
    solution = solve_tensors(leaves, layouts, rtol=1e-11)
    (torch.tensor(weights) * solution.cost_to_go).sum().backward()
    masks = stored(problem, layouts)
    for name in ("A", "B", "D", "delta", "epsilon"):
        (direction,) = directions(problem, name, masks.get(name), rng, 1)
        expected = numerical_gradient(
            lambda x, name=name: (
                weights * entropic(replace(problem, **{name: x if x.ndim else float(x)})).cost_to_go
            ).sum(),
            np.asarray(getattr(problem, name)),
            direction,
            5e-4,
        )
        slope = (leaves[name].grad.numpy() * direction).sum()
        np.testing.assert_allclose(slope, expected, rtol=1e-6, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("layouts", [DENSE, SPARSE, MIXED])
def test_gradient_flows_through_the_stationary_law(layouts: tuple[str, str]) -> None:
    problem = random_problem(5, 4, 3, degrees=(3, 2), delta=0.4, epsilon=0.2)
    found = gradients(problem, layouts, names=("A", "B"), laws="stationary")
    rng = np.random.default_rng(6)

    def value(**change: np.ndarray) -> float:
        moved = replace(problem, **change)
        return entropic(replace(moved, nu=stationary(moved.A), mu=stationary(moved.B))).value

    for name in ("A", "B"):
        rows = getattr(problem, name)
        for _ in range(3):
            direction = centred(rng.normal(size=rows.shape), rows > 0).numpy()
            expected = numerical_gradient(lambda x, name=name: value(**{name: x}), rows, direction, 1e-3)
            np.testing.assert_allclose((found[name].numpy() * direction).sum(), expected, rtol=1e-6, err_msg=name)


def test_gradient_of_a_law_with_zeros_reaches_the_empty_states() -> None:
    problem = random_problem(7, 4, 4, zeros=2)
    found = gradients(problem, names=("nu",))["nu"].numpy()
    empty, full = np.flatnonzero(problem.nu == 0)[0], np.flatnonzero(problem.nu > 0)[0]
    direction = np.zeros(4)
    direction[[empty, full]] = 1.0, -1.0
    expected = numerical_gradient(
        lambda nu: entropic(replace(problem, nu=nu)).value, problem.nu, direction, 1e-3, one_sided=True
    )
    np.testing.assert_allclose(found @ direction, expected, rtol=1e-6)


# --- batches and broadcasting
@pytest.mark.parametrize("layouts", [DENSE, SPARSE, MIXED])
def test_gradients_of_a_broadcast_batch_are_sums_of_those_alone(layouts: tuple[str, str]) -> None:
    problems = [random_problem(seed, 4, 3, degrees=(2, 2), delta=0.3, epsilon=0.1) for seed in (8, 9)]
    weights = torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64)
    leaves = [{name: value.requires_grad_() for name, value in problem.tensors().items()} for problem in problems]
    x = MarkovChain.stack([chain(leaf["A"], leaf["nu"], layouts[0]) for leaf in leaves])
    y = chain(leaves[0]["B"], leaves[0]["mu"], layouts[1])
    cost = torch.stack([leaf["D"] for leaf in leaves])[:, None]
    delta, epsilon = leaves[0]["delta"], leaves[0]["epsilon"]
    found = markovot.discounted_wl(x, y, cost, delta=delta, epsilon=epsilon, rtol=1e-11)
    (weights * found.value).sum().backward()

    expected = {name: [torch.zeros_like(leaf[name]) for leaf in leaves] for name in FIELDS}
    for i in range(2):
        for j in range(2):
            alone = replace(problems[0], A=problems[j].A, nu=problems[j].nu, D=problems[i].D)
            part = gradients(alone, layouts)
            for name, owner in {**dict.fromkeys(FIELDS, 0), "A": j, "nu": j, "D": i}.items():
                expected[name][owner] += weights[i, j] * part[name]
    for name in FIELDS:
        for leaf, want in zip(leaves, expected[name], strict=True):
            if leaf[name].grad is not None:
                assert_same_gradient(leaf[name].grad, want, name, None, 1e-8)


def test_dense_batch_with_broadcast_laws_and_parameters() -> None:
    problem = random_problem(10, 3, 3)
    rows = torch.stack([torch.tensor(random_problem(seed, 3, 3).A) for seed in (11, 12, 13)]).requires_grad_()
    inputs: dict[str, Tensor] = problem.tensors() | {"A": rows}
    inputs["nu"] = inputs["nu"].expand(3, 3)
    inputs["delta"] = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64, requires_grad=True)
    solve_tensors(inputs, rtol=1e-11).value.sum().backward()
    for item in range(3):
        alone = replace(problem, A=rows[item].detach().numpy(), delta=inputs["delta"][item].item())
        expected = gradients(alone, names=("A", "delta"))
        assert_same_gradient(rows.grad[item], expected["A"], "A", None, 1e-8)
        torch.testing.assert_close(inputs["delta"].grad[item], expected["delta"], rtol=1e-8, atol=1e-10)


# --- manners
def test_only_what_needs_a_gradient_gets_one() -> None:
    inputs = random_problem(14).tensors()
    inputs["B"].requires_grad_()
    solve_tensors(inputs).value.backward()
    assert inputs["B"].grad is not None
    assert all(inputs[name].grad is None for name in FIELDS if name != "B")
    assert not solve_tensors(random_problem(14).tensors()).value.requires_grad


@pytest.mark.parametrize("layouts", [DENSE, SPARSE])
def test_gradient_of_a_transition_is_centred_and_zero_where_nothing_is_stored(
    layouts: tuple[str, str],
) -> None:
    problem = random_problem(15, 4, 4, degrees=(2, 2))
    found = gradients(problem, layouts, names=("A", "B"))
    for name in ("A", "B"):
        torch.testing.assert_close(found[name].sum(-1), torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-12)
        if layouts == SPARSE:
            assert (found[name].numpy()[getattr(problem, name) == 0] == 0).all()


def test_gradient_of_features_through_a_cost_object() -> None:
    problem = random_problem(16, 4, 3)
    generator = torch.Generator().manual_seed(0)
    fx, fy = (torch.randn(size, 2, generator=generator, dtype=torch.float64) for size in (4, 3))
    fx.requires_grad_()
    inputs = problem.tensors()
    x = MarkovChain.from_transitions(inputs["A"], initial=inputs["nu"], features=fx)
    y = MarkovChain.from_transitions(inputs["B"], initial=inputs["mu"], features=fy)
    accuracy = {"rtol": 1e-11}
    markovot.discounted_wl(
        x, y, markovot.costs.SquaredEuclidean(), delta=0.3, epsilon=0.1, **accuracy
    ).value.backward()
    cost = (fx.detach()[:, None] - fy[None]).square().sum(-1)
    weights = gradients(replace(problem, D=cost.numpy()), names=("D",))["D"]
    expected = 2 * (weights[:, :, None] * (fx.detach()[:, None] - fy[None])).sum(1)
    torch.testing.assert_close(fx.grad, expected, rtol=1e-8, atol=1e-10)


def test_value_iteration_gives_the_same_gradients() -> None:
    problem = random_problem(17, delta=0.4)
    leaves = {name: value.requires_grad_() for name, value in problem.tensors().items()}
    with value_iteration():
        solve_tensors(leaves, rtol=1e-10, max_iter=500).value.backward()
    expected = gradients(problem)
    for name in FIELDS:
        assert_same_gradient(leaves[name].grad, expected[name], name, None, 1e-7)


def test_default_tolerance_gives_useful_gradients() -> None:
    problem = random_problem(18, 5, 4, delta=0.1, epsilon=0.02)
    found, expected = gradients(problem, rtol=1e-4), gradients(problem)
    for name in FIELDS:
        assert_same_gradient(found[name], expected[name], name, None, 1e-2)


def test_single_precision_gradients_keep_their_type() -> None:
    problem = random_problem(20)
    leaves = {name: value.float().requires_grad_() for name, value in problem.tensors().items()}
    solve_tensors(leaves, rtol=1e-5).value.backward()
    expected = gradients(problem)
    for name in FIELDS:
        assert leaves[name].grad.dtype == torch.float32
        assert_same_gradient(leaves[name].grad.double(), expected[name], name, None, 2e-3)


@pytest.mark.parametrize("layouts", [SPARSE, DENSE])
@pytest.mark.parametrize("side", ["A", "B"])
def test_a_training_loop_lays_each_chain_out_once_a_step(
    side: str, layouts: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    built, original = [], layout.lane_arrays

    def counted(rows: Rows, order: Any, stride: int) -> Any:
        if ("lane_arrays", stride) not in rows.layouts:
            built.append(rows)
        return original(rows, order, stride)

    monkeypatch.setattr(layout, "lane_arrays", counted)
    degrees = (None, None) if layouts is DENSE else (2, 3)
    problem = random_problem(5, 6, 6, degrees=degrees, delta=0.3, epsilon=0.1).tensors()
    fixed = chain(problem["B" if side == "A" else "A"], "uniform", layouts[0])
    leaf = problem[side].requires_grad_()
    for _ in range(3):
        moving = chain(leaf, "uniform", layouts[0])
        pair = (moving, fixed) if side == "A" else (fixed, moving)
        markovot.discounted_wl(*pair, problem["D"], delta=0.3, epsilon=0.1).value.backward()
    x, y = (one.detach().rows().fullness for one in pair)
    learned_in_lanes = (side == "A") == bool(x < y)
    assert len(built) == (3 if learned_in_lanes else 1)
