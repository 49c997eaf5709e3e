"""What must hold for every problem: symmetries, scaling, order, padding, and independence of the company."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import markovot
from markovot import MarkovChain, Solution
from oracles import FIELDS, Problem, centred, random_problem
from solving import DENSE, MIXED, SPARSE, chain, gradients, solve

RTOL = 1e-8
ACCURACY = {"rtol": RTOL}
quick = settings(max_examples=20, deadline=None, derandomize=True)
seeds, layouts = st.integers(0, 2**20), st.sampled_from([DENSE, SPARSE, MIXED])


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    n, m = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    degree = st.sampled_from([None, 1, 2, 3])
    return random_problem(
        draw(seeds),
        n,
        m,
        degrees=(draw(degree), draw(degree)),
        zeros=draw(st.integers(0, min(n, m) - 1)),
        delta=draw(st.sampled_from([0.02, 0.1, 0.5, 1.0])),
        epsilon=draw(st.sampled_from([1e-3, 0.01, 0.1, 2.0])),
    )


def assert_same_value(one: Solution, two: Solution, scale: float = 1.0, shift: float = 0.0) -> None:
    """Equal within the two stated bounds: `two` is `one` times `scale` plus `shift`."""
    gap = abs(two.value.item() - scale * one.value.item() - shift)
    assert gap <= two.error_bound.item() + scale * one.error_bound.item() + 1e-14 * (1 + abs(two.value.item()))


# --- symmetries and order


@quick
@given(problems(), layouts)
def test_swapping_the_chains_changes_nothing(problem: Problem, layouts: tuple[str, str]) -> None:
    one, two = solve(problem, layouts, rtol=RTOL), solve(problem.swapped(), layouts[::-1], rtol=RTOL)
    assert_same_value(one, two)
    torch.testing.assert_close(two.cost_to_go, one.cost_to_go.T, rtol=0, atol=1e-6)


@quick
@given(problems(), layouts, seeds)
def test_names_of_the_states_do_not_matter(problem: Problem, layouts: tuple[str, str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    s, r = rng.permutation(len(problem.nu)), rng.permutation(len(problem.mu))
    renamed = replace(
        problem,
        A=problem.A[s][:, s],
        B=problem.B[r][:, r],
        D=problem.D[s][:, r],
        nu=problem.nu[s],
        mu=problem.mu[r],
    )
    assert_same_value(solve(problem, layouts, rtol=RTOL), solve(renamed, layouts, rtol=RTOL))


@quick
@given(problems(), layouts, st.sampled_from([1e-3, 0.5, 7.0, 1e4]))
def test_cost_and_epsilon_scale_the_distance(problem: Problem, layouts: tuple[str, str], scale: float) -> None:
    scaled = replace(problem, D=scale * problem.D, epsilon=scale * problem.epsilon)
    one, two = solve(problem, layouts, rtol=RTOL), solve(scaled, layouts, rtol=RTOL)
    # For one state each the range is zero, and the tolerance is then absolute.
    assert_same_value(one, two, scale)


@quick
@given(problems(), layouts, seeds)
def test_distance_grows_with_the_cost(problem: Problem, layouts: tuple[str, str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    dearer = replace(problem, D=problem.D + rng.uniform(0, 0.3, problem.D.shape) * rng.integers(0, 2, problem.D.shape))
    one, two = solve(problem, layouts, rtol=RTOL), solve(dearer, layouts, rtol=RTOL)
    assert two.value.item() >= one.value.item() - one.error_bound.item() - two.error_bound.item()


@quick
@given(problems(), layouts)
def test_distance_lies_within_the_range_of_the_cost_and_grows_with_epsilon(
    problem: Problem, layouts: tuple[str, str]
) -> None:
    one, two = (solve(replace(problem, epsilon=k * problem.epsilon), layouts, rtol=RTOL) for k in (1.0, 3.0))
    assert problem.D.min() - one.error_bound.item() <= one.value.item()
    assert one.value.item() <= problem.D.max() + one.error_bound.item() + 1e-14
    assert two.value.item() >= one.value.item() - one.error_bound.item() - two.error_bound.item()


# --- padding and company


def differentiable(problem: Problem) -> dict[str, Tensor]:
    return {name: value.requires_grad_() for name, value in problem.tensors().items()}


@settings(quick, max_examples=12)
@given(seeds, layouts)
def test_padded_equals_alone_with_gradients(seed: int, layouts: tuple[str, str]) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 6, (3, 2))
    parts = [
        random_problem(seed + k, *map(int, size), degrees=(2, 3), delta=0.2, epsilon=0.05)
        for k, size in enumerate(sizes)
    ]
    leaves = [differentiable(part) for part in parts]
    x = MarkovChain.stack([chain(leaf["A"], leaf["nu"], layouts[0]) for leaf in leaves])
    y = MarkovChain.stack([chain(leaf["B"], leaf["mu"], layouts[1]) for leaf in leaves])
    # Whatever stands in the padded part of the cost has no say.
    cost = torch.full((3, *sizes.max(0).tolist()), 77.0, dtype=torch.float64)
    for k, (leaf, (n, m)) in enumerate(zip(leaves, sizes, strict=True)):
        cost[k, :n, :m] = leaf["D"]
    accuracy = {"rtol": 1e-11}
    found = markovot.discounted_wl(x, y, cost, delta=0.2, epsilon=0.05, **accuracy)
    found.value.sum().backward()
    for k, (part, leaf) in enumerate(zip(parts, leaves, strict=True)):
        alone = solve(part, layouts, rtol=1e-11)
        gap = abs(found.value[k].item() - alone.value.item())
        assert gap <= found.error_bound[k].item() + alone.error_bound.item() + 1e-14
        assert found.error_bound[k].item() <= 1e-11 * (np.ptp(part.D) or 1.0)
        for name, expected in gradients(part, layouts, names=("A", "B", "D", "nu", "mu")).items():
            got = leaf[name].grad
            if name != "D":
                got, expected = centred(got), centred(expected)
            torch.testing.assert_close(
                got, expected, rtol=1e-7, atol=1e-8, msg=lambda text, name=name: f"{name}: {text}"
            )


@settings(quick, max_examples=12)
@given(seeds, layouts)
def test_company_in_the_batch_does_not_matter(seed: int, layouts: tuple[str, str]) -> None:
    # An easy item among hard ones, at the default tolerance: its result is the same to the last bit.
    parts = [
        random_problem(seed + k, 5, 4, degrees=(2, 3), delta=delta, epsilon=epsilon)
        for k, (delta, epsilon) in enumerate([(0.9, 1.0), (0.02, 0.003), (0.3, 0.05)])
    ]
    x = MarkovChain.stack([chain(torch.tensor(part.A), torch.tensor(part.nu), layouts[0]) for part in parts])
    y = MarkovChain.stack([chain(torch.tensor(part.B), torch.tensor(part.mu), layouts[1]) for part in parts])
    found = markovot.discounted_wl(
        x,
        y,
        torch.stack([torch.tensor(part.D) for part in parts]),
        delta=torch.tensor([part.delta for part in parts], dtype=torch.float64),
        epsilon=torch.tensor([part.epsilon for part in parts], dtype=torch.float64),
    )
    for k, part in enumerate(parts):
        alone = solve(part, layouts, rtol=1e-4)
        assert abs(found.value[k].item() - alone.value.item()) <= found.error_bound[k].item() + alone.error_bound.item()


# --- the same bits


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def bits(problem: Problem, layouts: tuple[str, str]) -> list[Tensor]:
    leaves = differentiable(problem)
    x, y = chain(leaves["A"], leaves["nu"], layouts[0]), chain(leaves["B"], leaves["mu"], layouts[1])
    found = markovot.discounted_wl(x, y, leaves["D"], delta=leaves["delta"], epsilon=leaves["epsilon"], **ACCURACY)
    found.value.backward()
    return [
        found.value.detach(),
        found.error_bound,
        found.cost_to_go.detach(),
        *(leaves[name].grad for name in FIELDS),
    ]


# The larger ones are cut into several tasks.
@pytest.mark.parametrize(
    ("size", "layouts"),
    [((5, 4), DENSE), ((5, 4), SPARSE), ((24, 20), DENSE), ((100, 90), SPARSE), ((24, 80), MIXED)],
)
def test_same_bits_again_and_with_any_number_of_threads(size: tuple[int, int], layouts: tuple[str, str]) -> None:
    degrees = tuple(None if layout == "dense" else 3 for layout in layouts)
    problem = random_problem(1, *size, degrees=degrees, delta=0.1, epsilon=0.05)
    with threads(1):
        first, second = bits(problem, layouts), bits(problem, layouts)
    with threads(2):
        third = bits(problem, layouts)
    for name, one, two, three in zip(("value", "bound", "cost to go", *FIELDS), first, second, third, strict=True):
        assert torch.equal(one, two), f"{name}: two runs differ"
        assert torch.equal(one, three), f"{name}: one thread and two differ"


def test_a_previous_call_leaves_no_trace() -> None:
    problem, other = random_problem(2, 6, 5, degrees=(2, 3)), random_problem(3, 7, 6, epsilon=0.01)
    first = bits(problem, SPARSE)
    bits(other, DENSE)
    for one, two in zip(first, bits(problem, SPARSE), strict=True):
        assert torch.equal(one, two)
