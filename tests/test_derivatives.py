"""Second derivatives, forward mode and torch.func transforms, against torch's own numerical checks and loops.

Chains are softmaxes of logits, so that every perturbation stays on the simplex.
"""

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap

import markovot
from markovot import MarkovChain, SolveError
from markovot.chains.compressed import Compressed, pointers
from markovot.solving.adjoint import SolvedDistance
from oracles import FIELDS, random_problem

ACCURATE = {"rtol": 1e-12}
CASES = {
    "dense": ((3, 4), (None, None), ("dense", "dense"), "given"),
    "dense with zeros": ((4, 3), (2, 2), ("dense", "dense"), "given"),
    "sparse": ((4, 5), (2, 3), ("sparse", "sparse"), "given"),
    "mixed": ((3, 4), (None, 2), ("dense", "sparse"), "given"),
    "stationary": ((3, 3), (None, 2), ("dense", "sparse"), "stationary"),
}


def build(logits: Tensor, support: Tensor, layout: str, initial: Any) -> MarkovChain:
    """The chain of a softmax over the support."""
    rows = logits.masked_fill(~support, -torch.inf).softmax(-1)
    if layout == "dense":
        return MarkovChain.from_transitions(rows, initial=initial)
    owner, column = support.nonzero(as_tuple=True)
    return MarkovChain(Compressed(pointers(owner, (len(support),)), column, rows[support]), initial=initial)


def outputs_of(case: str, seed: int = 0, **options: float) -> tuple[Callable[..., Any], list[Tensor]]:
    """The distance and the cost to go as a function of free parameters, and a point."""
    (n, m), degrees, layouts, laws = CASES[case]
    problem = random_problem(seed, n, m, degrees=degrees, **options).tensors()
    supports = problem["A"] > 0, problem["B"] > 0

    def outputs(x: Tensor, y: Tensor, cost: Tensor, delta: Tensor, epsilon: Tensor, *laws: Tensor) -> Any:
        initial = [law.softmax(0) for law in laws] or ["stationary", "stationary"]
        chains = map(build, (x, y), supports, layouts, initial)
        found = markovot.discounted_wl(*chains, cost, delta=delta, epsilon=epsilon, **ACCURATE)
        return found.value, found.cost_to_go

    logs = {name: problem[name].clamp(min=1e-9).log() for name in ("A", "B", "nu", "mu")}
    point = [logs["A"], logs["B"], problem["D"], problem["delta"], problem["epsilon"]]
    return outputs, point + ([logs["nu"], logs["mu"]] if laws == "given" else [])


# --- against torch's numerical checks: both outputs, all inputs, all modes
@pytest.mark.parametrize("case", CASES)
def test_forward_mode_and_second_order(case: str) -> None:
    outputs, point = outputs_of(case, delta=0.3, epsilon=0.1)
    leaves = [tensor.requires_grad_() for tensor in point]
    assert torch.autograd.gradcheck(outputs, leaves, check_forward_ad=True, atol=1e-6)
    # Along random directions, since every entry by itself takes eight times as long.
    assert torch.autograd.gradgradcheck(outputs, leaves, atol=1e-5, check_fwd_over_rev=True, fast_mode=True)


@pytest.mark.parametrize(("delta", "epsilon"), [(0.05, 0.1), (0.3, 0.01), (1.0, 0.2), (0.5, 3.0)])
def test_second_order_in_hard_corners(delta: float, epsilon: float) -> None:
    # Differences of the gradient, which is itself checked elsewhere, with a step below epsilon.
    outputs, point = outputs_of("mixed", delta=delta, epsilon=epsilon)
    generator = torch.Generator().manual_seed(1)
    directions = [torch.randn(t.shape, dtype=t.dtype, generator=generator) for t in point]
    directions[3:5] = [0 * directions[3], epsilon * directions[4]]

    def gradient(step: float) -> tuple[Tensor, ...]:
        leaves = [(tensor + step * move).requires_grad_() for tensor, move in zip(point, directions, strict=True)]
        return torch.autograd.grad(outputs(*leaves)[0], leaves)

    _, found = jvp(grad(lambda *a: outputs(*a)[0], argnums=tuple(range(7))), tuple(point), tuple(directions))
    size = 1e-4 * min(epsilon, 1.0)
    ahead, behind = gradient(size), gradient(-size)
    for name, a, b, slope in zip(FIELDS, ahead, behind, found, strict=True):
        scale = slope.abs().max().item()
        torch.testing.assert_close((a - b) / (2 * size), slope, rtol=0, atol=3e-5 * scale + 1e-7, msg=name)


def test_padding_does_not_change_second_derivatives() -> None:
    sizes = (3, 2), (2, 4)
    problems = [random_problem(seed, n, m, epsilon=0.1).tensors() for seed, (n, m) in enumerate(sizes)]

    def chains(*tensors: Tensor) -> list[MarkovChain]:
        return [
            MarkovChain.from_transitions(rows.softmax(-1), initial=law)
            for rows, law in zip(tensors, [p[k] for k in ("nu", "mu") for p in problems], strict=True)
        ]

    def alone(*tensors: Tensor) -> Tensor:
        x0, x1, y0, y1 = chains(*tensors)
        cost = [torch.arange(12.0, dtype=torch.float64).view(3, 4).sin() for _ in range(2)]
        return sum(
            markovot.discounted_wl(
                x, y, c[: x.num_states, : y.num_states], delta=0.4, epsilon=0.1, **ACCURATE
            ).value
            for x, y, c in ((x0, y0, cost[0]), (x1, y1, cost[1]))
        )

    def stacked(*tensors: Tensor) -> Tensor:
        x0, x1, y0, y1 = chains(*tensors)
        cost = torch.arange(12.0, dtype=torch.float64).view(3, 4).sin()
        x, y = MarkovChain.stack([x0, x1]), MarkovChain.stack([y0, y1])
        return markovot.discounted_wl(x, y, cost, delta=0.4, epsilon=0.1, **ACCURATE).value.sum()

    point = tuple(p[k].log() for k in ("A", "B") for p in problems)
    moves = tuple(torch.ones_like(tensor).cumsum(-1) for tensor in point)
    _, expected = torch.autograd.functional.vhp(alone, point, moves)
    _, found = torch.autograd.functional.vhp(stacked, point, moves)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_single_precision_keeps_its_type_in_every_mode() -> None:
    _, point = outputs_of("dense")
    cost = point[2].float()

    def value(cost: Tensor) -> Tensor:
        chains = (MarkovChain.from_transitions(point[k].float().softmax(-1)) for k in (0, 1))
        return markovot.discounted_wl(*chains, cost, delta=0.3, epsilon=0.1).value

    found = hessian(value)(cost)
    assert found.dtype == torch.float32
    assert jvp(value, (cost,), (cost,))[1].dtype == torch.float32


# --- torch.func
def value_of_cost(case: str = "dense") -> tuple[Callable[[Tensor], Tensor], Tensor]:
    outputs, point = outputs_of(case)
    return (lambda cost: outputs(*point[:2], cost, *point[3:])[0]), point[2]


def test_vmap_over_costs_chains_and_parameters_equals_a_loop() -> None:
    outputs, point = outputs_of("dense")
    batch = [torch.stack([tensor + 0.1 * k for k in range(3)], dim=min(1, tensor.dim())) for tensor in point]
    dims = tuple(min(1, tensor.dim()) for tensor in point)
    found = vmap(outputs, dims)(*batch)
    for k in range(3):
        alone = outputs(*(tensor.select(dim, k) for tensor, dim in zip(batch, dims, strict=True)))
        torch.testing.assert_close((found[0][k], found[1][k]), alone, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("case", ["dense", "sparse", "stationary"])
def test_gradients_of_each_sample(case: str) -> None:
    # What the batch shares has a gradient of its own for each sample.
    outputs, point = outputs_of(case)
    costs = torch.stack([point[2] + 0.2 * k for k in range(3)])

    def value(x: Tensor, cost: Tensor) -> Tensor:
        return outputs(x, point[1], cost, *point[3:])[0]

    both = grad(value, argnums=(0, 1))
    found = vmap(both, (None, 0))(point[0], costs)
    for k in range(3):
        torch.testing.assert_close((found[0][k], found[1][k]), both(point[0], costs[k]), rtol=1e-7, atol=1e-9)
    whole = grad(lambda x: vmap(value, (None, 0))(x, costs).sum())(point[0])
    torch.testing.assert_close(whole, found[0].sum(0), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("case", ["dense", "sparse"])
def test_hessians_by_every_combination_of_modes_agree(case: str) -> None:
    value, cost = value_of_cost(case)
    expected = torch.autograd.functional.hessian(value, cost)
    for found in (hessian(value), jacrev(jacrev(value)), jacrev(jacfwd(value))):
        torch.testing.assert_close(found(cost), expected, rtol=1e-6, atol=1e-9)
    pair = torch.stack([cost, 1.1 * cost])
    torch.testing.assert_close(vmap(hessian(value))(pair)[0], expected, rtol=1e-6, atol=1e-9)


def test_nested_vmap_and_what_a_solution_shows_inside() -> None:
    _, point = outputs_of("dense")
    costs = torch.stack([point[2] + 0.1 * k for k in range(2)])
    chains = [MarkovChain.from_transitions(tensor.softmax(-1)) for tensor in point[:2]]

    def shown(cost: Tensor, delta: Tensor) -> tuple[Tensor, ...]:
        found = markovot.discounted_wl(*chains, cost, delta=delta, epsilon=0.1)
        assert found.status.shape == (6,)  # of all problems
        with pytest.raises(NotImplementedError, match="inside a transform"):
            _ = found.alignment
        return found.value, found.error_bound, found.plan, found.num_iter

    deltas = torch.tensor([0.3, 0.5, 0.9], dtype=torch.float64)
    value, bound, plan, steps = vmap(vmap(shown, (None, 0)), (0, None))(costs, deltas)
    assert value.shape == steps.shape == (2, 3)
    assert plan.shape == (2, 3, 3, 4)
    alone = markovot.discounted_wl(*chains, costs[1], delta=0.9, epsilon=0.1)
    assert (value[1, 2] - alone.value).abs() <= bound[1, 2] + alone.error_bound
    torch.testing.assert_close(plan.sum((2, 3)), torch.ones(2, 3, dtype=torch.float64))


def test_exact_transport_has_forward_mode() -> None:
    # One optimum: the slope is the gradient's.
    _, point = outputs_of("dense")
    chains = [MarkovChain.from_transitions(tensor.softmax(-1), initial="uniform") for tensor in point[:2]]

    def value(cost: Tensor) -> Tensor:
        return markovot.discounted_wl(*chains, cost, delta=0.3, epsilon=0, **ACCURATE).value

    move = torch.arange(12.0, dtype=torch.float64).view(3, 4)
    _, slope = jvp(value, (point[2],), (move,))
    torch.testing.assert_close(slope, (grad(value)(point[2]) * move).sum(), rtol=1e-9, atol=1e-12)


def test_forward_mode_in_transitions_at_epsilon_zero() -> None:
    problem = random_problem(3, 3, 4).tensors()

    def value(x: Tensor, epsilon: float) -> Tensor:
        chains = (MarkovChain.from_transitions(rows, initial="uniform") for rows in (x.softmax(-1), problem["B"]))
        return markovot.discounted_wl(*chains, problem["D"], delta=0.3, epsilon=epsilon, **ACCURATE).value

    logits, move = problem["A"].log(), torch.arange(9.0, dtype=torch.float64).view(3, 3)
    _, slope = jvp(lambda x: value(x, 0.0), (logits,), (move,))
    expected = (value(logits + 1e-5 * move, 0.0) - value(logits - 1e-5 * move, 0.0)) / 2e-5
    torch.testing.assert_close(slope, expected, rtol=1e-5, atol=1e-8)


# --- what is refused
def test_second_order_is_refused_at_epsilon_zero() -> None:
    problem = random_problem(4).tensors()
    cost = problem["D"].requires_grad_()
    value = markovot.discounted_wl(problem["A"], problem["B"], cost, delta=0.3, epsilon=0).value
    (first,) = torch.autograd.grad(value, cost, create_graph=True)
    with pytest.raises(NotImplementedError, match="do not exist at epsilon = 0"):
        first.sum().backward()


def test_third_order_and_forward_over_forward_are_refused() -> None:
    value, cost = value_of_cost()
    with pytest.raises(NotImplementedError, match="third-order derivatives"):
        jacrev(jacrev(jacrev(value)))(cost)
    with pytest.raises(NotImplementedError, match="forward mode over forward mode"):
        jacfwd(jacfwd(value))(cost)


def test_functions_without_these_modes_say_so() -> None:
    problem = random_problem(5).tensors()
    chains = [MarkovChain.from_transitions(problem[k], initial="uniform") for k in ("A", "B")]

    def value(cost: Tensor) -> Tensor:
        return markovot.wl(*chains, cost, depth=2, epsilon=0.1).value

    with pytest.raises(NotImplementedError, match=r"torch\.func transforms"):
        grad(value)(problem["D"])
    with (
        torch.autograd.forward_ad.dual_level(),
        pytest.raises(NotImplementedError, match="forward-mode derivatives"),
    ):
        value(torch.autograd.forward_ad.make_dual(problem["D"], problem["D"]))
    with pytest.raises(NotImplementedError, match="second-order gradients"):
        torch.autograd.grad(value(problem["D"].requires_grad_()), problem["D"], create_graph=True)


def test_bad_input_inside_vmap_is_named() -> None:
    problem = random_problem(6).tensors()
    rows = torch.stack([problem["A"], 2 * problem["A"]])
    with pytest.raises(ValueError, match=r"transition: row \(1, 0\) sums to 2"):
        vmap(lambda a: markovot.discounted_wl(a, problem["B"], problem["D"], delta=0.3, epsilon=0.1).value)(rows)
    with pytest.raises(ValueError, match=r"delta: 1\.5 is outside"):
        vmap(lambda d: markovot.discounted_wl(problem["A"], problem["B"], problem["D"], delta=d, epsilon=0.1).value)(
            torch.tensor([0.5, 1.5], dtype=torch.float64)
        )
    split = torch.stack([problem["A"], torch.eye(4, dtype=torch.float64)])
    with pytest.raises(ValueError, match="stationary law is not unique, since chain 1 has 4 closed classes"):
        vmap(lambda a: markovot.discounted_wl(a, problem["B"], problem["D"], delta=0.3, epsilon=0.1).value)(split)


def test_items_that_fail_inside_vmap_are_named() -> None:
    problem = random_problem(7).tensors()
    deltas = torch.tensor([1.0, 0.01], dtype=torch.float64)

    def value(delta: Tensor) -> Tensor:
        return markovot.discounted_wl(
            problem["A"], problem["B"], problem["D"], delta=delta, epsilon=0.1, rtol=1e-10, max_iter=2
        ).value

    with pytest.raises(SolveError, match="item 1 did not converge"):
        vmap(value)(deltas)


def test_chained_starts_keep_nothing_alive() -> None:
    problem = random_problem(8).tensors()
    cost = problem["D"].requires_grad_()
    found = None
    for _ in range(6):  # no backward pass, which would free what hangs on the graph
        found = markovot.discounted_wl(problem["A"], problem["B"], cost, delta=0.3, epsilon=0.1, init=found)
    gc.collect()
    assert sum(type(thing) is SolvedDistance for thing in gc.get_objects()) == 1


@pytest.mark.parametrize("cost", [markovot.costs.Euclidean(), markovot.costs.SquaredEuclidean()])
def test_second_order_in_features(cost: markovot.costs.Cost) -> None:
    generator = torch.Generator().manual_seed(9)
    fx, fy = (torch.randn(size, 2, dtype=torch.float64, generator=generator) for size in (3, 4))
    problem = random_problem(9, 3, 4).tensors()

    def value(fx: Tensor, fy: Tensor) -> Tensor:
        x = MarkovChain.from_transitions(problem["A"], features=fx)
        y = MarkovChain.from_transitions(problem["B"], features=fy)
        return markovot.discounted_wl(x, y, cost, delta=0.3, epsilon=0.2, **ACCURATE).value

    leaves = [f.requires_grad_() for f in (fx, fy)]
    assert torch.autograd.gradcheck(value, leaves, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(value, leaves, check_fwd_over_rev=True, atol=1e-5)
