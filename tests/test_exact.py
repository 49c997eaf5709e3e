"""Exact transport, epsilon = 0: against linear programmes, on ties and degenerate marginals, and its gradients."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from markovot import MarkovChain, costs, discounted_wl, transport_cost, validate
from markovot.datasets import load_mutag
from markovot.pairwise import distance_matrix
from markovot.transport.compiled import kernel_engine, pairs
from oracles import (
    Problem,
    centred,
    deterministic,
    exact,
    exact_transport,
    forced_coupling,
    numerical_gradient,
    random_law,
    random_problem,
)
from solving import DENSE, MIXED, SPARSE, chain, gradients, solve, value_iteration

CASES = {
    "dense": ({"n": 4, "m": 3}, DENSE),
    "sparse": ({"n": 5, "m": 4, "degrees": (3, 2)}, SPARSE),
    "mixed": ({"n": 3, "m": 5, "degrees": (None, 3)}, MIXED),
    "one state": ({"n": 1, "m": 4}, DENSE),
    "laws with zeros": ({"n": 5, "m": 4, "zeros": 2}, DENSE),
}


def problem_of(case: str, **options: float) -> Problem:
    return random_problem(7, **CASES[case][0], epsilon=0.0, **options)


def tied(seed: int, n: int = 4, m: int = 4) -> Problem:
    """Costs 0 and 1, uniform rows on random supports, uniform laws: ties everywhere."""
    rng = np.random.default_rng(seed)
    supports = [rng.random((k, k)) < 0.6 for k in (n, m)]
    for support in supports:
        np.fill_diagonal(support, True)
    A, B = (support / support.sum(1, keepdims=True) for support in supports)
    D = rng.integers(0, 2, (n, m)).astype(float)
    return Problem(A, B, D, np.full(n, 1 / n), np.full(m, 1 / m), 0.3, 0.0)


# --- the value
@pytest.mark.parametrize("delta", [0.9, 0.3, 0.05])
@pytest.mark.parametrize("case", CASES)
def test_value_is_that_of_the_linear_programme(case, delta):
    problem = problem_of(case, delta=delta)
    solution = solve(problem, CASES[case][1], rtol=1e-10)
    assert solution.error_bound.item() < 1e-9
    assert abs(solution.value.item() - exact(problem)) < 1e-9


@pytest.mark.parametrize("seed", range(20))
def test_ties_are_no_trouble(seed):
    problem = tied(seed, 3 + seed % 3, 4)
    solution = solve(problem, rtol=1e-11)
    assert solution.error_bound.item() < 1e-9
    assert abs(solution.value.item() - exact(problem)) < 1e-9
    again = solve(problem, rtol=1e-11)
    torch.testing.assert_close(again.alignment, solution.alignment, rtol=0, atol=0)


def test_permutations_are_followed_exactly():
    rng = np.random.default_rng(1)
    A, B = np.eye(6)[rng.permutation(6)], np.eye(5)[rng.permutation(5)]
    problem = Problem(A, B, rng.random((6, 5)), random_law(rng, 6), random_law(rng, 5), 0.2, 0.0)
    torch.testing.assert_close(
        solve(problem, rtol=1e-13).cost_to_go, torch.from_numpy(deterministic(problem)), rtol=0, atol=1e-12
    )


def test_a_forced_coupling():
    problem = problem_of("one state")
    assert abs(solve(problem, rtol=1e-12).value.item() - forced_coupling(problem)) < 1e-12


@pytest.mark.parametrize("size", [2, 7, 40])
@pytest.mark.parametrize("kind", ["random", "assignment", "ties", "unequal"])
def test_simplex_solves_single_problems(kind, size):
    rng = np.random.default_rng(size)
    m = size + 3 if kind == "unequal" else size
    a, b = random_law(rng, size), random_law(rng, m)
    cost = rng.random((size, m))
    if kind in ("assignment", "ties"):
        a, b = np.full(size, 1 / size), np.full(m, 1 / m)
    if kind == "ties":
        cost = rng.integers(0, 3, (size, m)).astype(float)
    solution = transport_cost(*(torch.from_numpy(part) for part in (a, b, cost)), epsilon=0.0, rtol=1e-12)
    assert abs(solution.value.item() - exact_transport(a, b, cost)) < 1e-12
    plan, (f, g) = solution.plan.numpy(), (potential.numpy() for potential in solution.potentials)
    assert (plan >= 0).all()
    assert (plan > 0).sum() <= size + m - 1
    np.testing.assert_allclose(plan.sum(1), a, atol=1e-14)
    np.testing.assert_allclose(plan.sum(0), b, atol=1e-14)
    slack = cost - f[:, None] - g
    assert slack.min() > -1e-12
    assert np.abs(slack[plan > 0]).max() < 1e-12
    assert abs(f @ a + g @ b - solution.value.item()) < 1e-12


def test_states_without_mass_have_potentials():
    a, b = torch.tensor([0.5, 0.0, 0.5]).double(), torch.tensor([0.0, 1.0]).double()
    cost = torch.tensor([[3.0, 1.0], [5.0, 0.5], [2.0, 2.0]]).double()
    solution = transport_cost(a, b, cost, epsilon=0.0)
    f, g = solution.potentials
    torch.testing.assert_close(f + g[1], cost[:, 1])  # what mass moved to any state would cost
    assert (f[[0, 2], None] + g <= cost[[0, 2]] + 1e-12).all()
    assert abs(solution.value.item() - 1.5) < 1e-14


def test_plans_are_couplings_of_few_entries():
    problem = problem_of("sparse")
    solution = solve(problem, SPARSE)
    coupled = solution.transition_coupling()
    n, m = problem.D.shape
    np.testing.assert_allclose(coupled.sum(1), 1.0, atol=1e-14)
    assert (np.diff(coupled.indptr) <= 3 + 2 - 1).all()
    for i, j in np.ndindex(n, m):
        plan = solution.coupling(i, j).numpy()
        np.testing.assert_allclose(plan.sum(1), problem.A[i], atol=1e-14)
        np.testing.assert_allclose(plan.sum(0), problem.B[j], atol=1e-14)


def test_the_distance_is_the_cost_of_the_alignment():
    problem = problem_of("dense")
    solution = solve(problem, rtol=1e-12)
    assert abs((solution.alignment.numpy() * problem.D).sum() - solution.value.item()) < 1e-11


def test_entropic_distances_come_down_to_it():
    problem = problem_of("dense")
    found = [solve(replace(problem, epsilon=epsilon)).value.item() for epsilon in (0.1, 0.01, 0.001)]
    bottom = solve(problem).value.item()
    assert found[0] > found[1] > found[2] > bottom
    assert found[2] - bottom < 0.02


# --- a metric
def labelled(seed: int) -> MarkovChain:
    generator = torch.Generator().manual_seed(seed)
    n = 2 + seed % 4
    weights = torch.rand(n, n, generator=generator, dtype=torch.float64) ** 3
    return MarkovChain.from_adjacency(
        weights, features=torch.randint(3, (n,), generator=generator), initial="uniform"
    )


def distance(x: MarkovChain, y: MarkovChain, delta: float = 0.4) -> float:
    accuracy = {"rtol": 1e-12}
    return discounted_wl(x, y, costs.ZeroOne(), delta=delta, epsilon=0.0, **accuracy).value.item()


@settings(max_examples=25, deadline=None)
@given(*(st.integers(0, 10_000) for _ in range(3)), st.sampled_from([0.9, 0.4, 0.1]))
def test_identity_symmetry_and_the_triangle_inequality(first, second, third, delta):
    x, y, z = (labelled(seed) for seed in (first, second, third))
    assert abs(distance(x, x, delta)) < 1e-11
    assert abs(distance(x, y, delta) - distance(y, x, delta)) < 1e-10
    assert distance(x, z, delta) <= distance(x, y, delta) + distance(y, z, delta) + 1e-10


def test_relabelled_chains_are_at_distance_zero():
    molecule = load_mutag().chains[5].to_dense()
    order = torch.randperm(molecule.num_states, generator=torch.Generator().manual_seed(2))
    twin = MarkovChain.from_transitions(
        molecule.transition[order][:, order], features=molecule.features[order], initial="uniform"
    )
    assert abs(distance(molecule, twin)) < 1e-11


# --- gradients
def value_of(problem: Problem) -> float:
    return solve(problem, rtol=1e-13).value.item()


@pytest.mark.parametrize("name", ["A", "B", "D", "nu", "mu", "delta"])
@pytest.mark.parametrize("case", ["dense", "sparse", "mixed", "one state"])
def test_gradients_where_the_optimum_is_unique(case, name):
    problem = problem_of(case)
    found = gradients(problem, CASES[case][1], names=(name,))[name]
    rng = np.random.default_rng(3)
    x = getattr(problem, name)
    direction = rng.standard_normal(np.shape(x))
    if name in ("A", "B", "nu", "mu"):
        direction = np.where(x > 0, direction, 0.0)
        direction -= np.where(x > 0, direction.sum(-1, keepdims=True) / (x > 0).sum(-1, keepdims=True), 0.0)
    expected = numerical_gradient(lambda new: value_of(replace(problem, **{name: new})), x, direction, step=1e-6)
    assert abs(float((found * torch.as_tensor(direction)).sum()) - expected) < 1e-7 * max(1, abs(expected))


def test_mass_moved_off_the_support_has_a_one_sided_derivative():
    problem = problem_of("sparse")
    found = gradients(problem, DENSE, names=("A",))["A"]
    row = problem.A[0]
    empty, full = np.flatnonzero(row == 0)[0], np.flatnonzero(row)[0]
    direction = np.zeros_like(problem.A)
    direction[0, empty], direction[0, full] = 1.0, -1.0
    expected = numerical_gradient(
        lambda new: value_of(replace(problem, A=new)), problem.A, direction, step=1e-6, one_sided=True
    )
    assert abs(float((found * torch.from_numpy(direction)).sum()) - expected) < 1e-6


def test_at_ties_the_gradient_is_one_of_the_slopes():
    problem = tied(3)
    found = gradients(problem, names=("D",))["D"].numpy()
    direction = np.random.default_rng(0).standard_normal(problem.D.shape)
    slopes = [
        sign * (value_of(replace(problem, D=problem.D + sign * 1e-6 * direction)) - value_of(problem)) / 1e-6
        for sign in (1, -1)
    ]
    # the value is concave in D: the right slope is the smaller one, and a supergradient lies between
    assert slopes[0] - 1e-6 <= (found * direction).sum() <= slopes[1] + 1e-6


def test_stationary_laws_pass_their_gradients():
    problem = problem_of("dense")
    found = gradients(problem, names=("A",), laws="stationary")["A"]
    direction = centred(torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).numpy()

    def value(rows):
        x, y = (chain(torch.from_numpy(part), "stationary") for part in (rows, problem.B))
        return discounted_wl(
            x, y, torch.from_numpy(problem.D), delta=problem.delta, epsilon=0.0, rtol=1e-13
        ).value.item()

    expected = numerical_gradient(value, problem.A, direction, step=1e-6)
    assert abs(float((found * torch.from_numpy(direction)).sum()) - expected) < 1e-7


def test_the_gradient_in_epsilon_is_the_divergence_of_the_plans_found():
    problem = problem_of("dense")
    found = gradients(problem, names=("epsilon",))["epsilon"].item()
    slope = (solve(replace(problem, epsilon=1e-4)).value.item() - value_of(problem)) / 1e-4
    assert abs(found - slope) < 1e-3


def test_transport_cost_has_gradients():
    rng = np.random.default_rng(4)
    parts = [random_law(rng, 4), random_law(rng, 5), rng.random((4, 5))]
    leaves = [torch.tensor(part, requires_grad=True) for part in parts]
    transport_cost(*leaves, epsilon=0.0).value.backward()
    for k, leaf in enumerate(leaves):
        direction = rng.standard_normal(parts[k].shape)
        direction -= direction.mean() if k < 2 else 0.0

        def value(new, k=k):
            changed = [torch.from_numpy(new if q == k else part) for q, part in enumerate(parts)]
            return exact_transport(*(part.numpy() for part in changed))

        expected = numerical_gradient(value, parts[k], direction, step=1e-5)
        assert abs(float((leaf.grad * torch.from_numpy(direction)).sum()) - expected) < 1e-8


# --- the same engine as ever
def test_batches_of_different_sizes_and_warm_starts():
    chains = [labelled(seed) for seed in (1, 2, 7)]
    x, y = MarkovChain.stack(chains), MarkovChain.stack(chains[::-1])
    accuracy = {"rtol": 1e-11}
    together = discounted_wl(x, y, costs.ZeroOne(), delta=0.3, epsilon=0.0, **accuracy)
    for k in range(3):
        alone = discounted_wl(chains[k], chains[2 - k], costs.ZeroOne(), delta=0.3, epsilon=0.0, **accuracy)
        torch.testing.assert_close(together.value[k], alone.value, rtol=0, atol=1e-12)
        n, m = alone.cost_to_go.shape
        torch.testing.assert_close(together.alignment[k, :n, :m], alone.alignment, rtol=0, atol=1e-11)
    warm = discounted_wl(x, y, costs.ZeroOne(), delta=0.3, epsilon=0.0, **accuracy, init=together)
    assert (warm.num_iter == 1).all()
    torch.testing.assert_close(warm.value, together.value, rtol=0, atol=1e-11)


def test_large_items_are_shared_among_threads(monkeypatch):
    problem = random_problem(5, 9, 8, degrees=(4, 3), epsilon=0.0)
    whole, gradient = solve(problem, SPARSE), gradients(problem, SPARSE, names=("A", "B"))
    for name in ("TASK_ENTRIES", "WHOLE_ENTRIES", "COMPILED_ENTRIES"):
        monkeypatch.setattr(kernel_engine, name, 10)
    shared = solve(problem, SPARSE)
    torch.testing.assert_close(shared.value, whole.value, rtol=0, atol=1e-10)
    torch.testing.assert_close(shared.alignment, whole.alignment, rtol=0, atol=1e-9)
    torch.testing.assert_close(gradients(problem, SPARSE, names=("A", "B")), gradient, rtol=0, atol=1e-9)


def test_value_iteration_takes_the_same_road():
    problem = problem_of("dense", delta=0.5)
    with value_iteration():
        slow = solve(problem, rtol=1e-9, max_iter=200)
    assert abs(slow.value.item() - exact(problem)) < 1e-8


def test_single_precision_is_honest():
    problem = problem_of("dense")
    x = MarkovChain.from_transitions(torch.tensor(problem.A).float(), initial="uniform")
    y = MarkovChain.from_transitions(torch.tensor(problem.B).float(), initial="uniform")
    solution = discounted_wl(x, y, torch.tensor(problem.D).float(), delta=0.3, epsilon=0.0)
    uniform = replace(problem, nu=np.full(4, 0.25), mu=np.full(3, 1 / 3))
    assert solution.value.dtype == torch.float32
    assert abs(solution.value.item() - exact(uniform)) < solution.error_bound.item() + 1e-6


def test_data_sets():
    chains = load_mutag().chains[:6]
    setting = {"delta": 0.2, "epsilon": 0.0, "rtol": 1e-10}
    solution = distance_matrix(chains, cost=costs.ZeroOne(), progress=False, **setting)
    for i in range(6):
        for j in range(i, 6):
            alone = discounted_wl(chains[i], chains[j], costs.ZeroOne(), **setting)
            assert abs(alone.value.item() - solution.value[i, j]) < 1e-9
    assert np.abs(np.diagonal(solution.value)).max() < 1e-9
    assert solution.error_bound.max() < 1e-9


def test_data_sets_with_large_pairs(monkeypatch):
    chains = load_mutag().chains[:3]
    setting = {"cost": costs.ZeroOne(), "delta": 0.2, "epsilon": 0.0, "progress": False}
    compiled = distance_matrix(chains, **setting)
    monkeypatch.setattr(pairs, "PAIR_ENTRIES", 0)
    alone = distance_matrix(chains, **setting)
    assert (np.abs(compiled.value - alone.value) <= compiled.error_bound + alone.error_bound).all()


# --- what it cannot do
def test_exact_and_entropic_items_do_not_mix():
    problem = problem_of("dense").tensors()
    x, y = chain(problem["A"], problem["nu"]), chain(problem["B"], problem["mu"])
    with pytest.raises(ValueError, match=r"epsilon: some items have 0 and others do not"):
        discounted_wl(x, y, problem["D"], delta=0.3, epsilon=torch.tensor([0.0, 0.1]).double())


def test_it_says_that_it_works_on_the_cpu_only(monkeypatch):
    monkeypatch.setattr(validate.tensors, "_parameter", lambda *_: torch.zeros((), dtype=torch.float64))
    with pytest.raises(ValueError, match=r"epsilon: 0 asks for exact transport, which runs on the CPU.*on cuda"):
        validate.regularisation(0.0, dtype=torch.float64, device=torch.device("cuda"))


