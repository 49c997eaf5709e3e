"""Optimal transition couplings: against linear programmes, periods and several classes, gradients, and the limit."""

from itertools import pairwise, product

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from markovot import MarkovChain, SolveError, Status, costs, discounted_wl, stationary_distribution
from markovot.average import operators, optimal_transition_coupling, poisson
from markovot.average.recurrence import phases
from markovot.chains.classes import closed_classes
from markovot.datasets import load_mutag
from markovot.transport import engines
from markovot.transport.compiled.entropic import CompiledEngine
from markovot.transport.gather import GatherEngine
from markovot.transport.shared_kernel import SharedKernelEngine
from oracles import centred, exact_transport, numerical_gradient, random_problem, random_rows, sweep
from solving import DENSE, MIXED, SPARSE, chain

CASES = {
    "dense": ({"n": 4, "m": 3}, DENSE),
    "sparse": ({"n": 5, "m": 4, "degrees": (3, 2)}, SPARSE),
    "mixed": ({"n": 3, "m": 5, "degrees": (None, 3)}, MIXED),
    "one state": ({"n": 1, "m": 4}, DENSE),
}


def problem_of(case, seed=7, epsilon=0.0):
    return random_problem(seed, **CASES[case][0], epsilon=epsilon)


def solve(A, B, D, layouts=DENSE, *, epsilon=0.0, rtol=1e-10, **options):
    tensors = [torch.as_tensor(part, dtype=torch.float64) for part in (A, B, D)]
    x, y = (chain(rows, "uniform", layout) for rows, layout in zip(tensors[:2], layouts, strict=True))
    return optimal_transition_coupling(x, y, tensors[2], epsilon=epsilon, rtol=rtol, **options)


def programme(A, B, D, allowed=None):
    """The least mean cost over stationary laws of coupled chains that stay on the `allowed` pairs.

    Variables: the law q (n, m) of a pair, and x (n, m, n, m) of a step from it: sum_l x_ijkl = q_ij A_ik,
    sum_k x_ijkl = q_ij B_jl, q_kl = sum_ij x_ijkl, sum q = 1.
    """
    n, m = D.shape
    size = n * m
    eye, every = scipy.sparse.eye_array(size), np.ones((1, size))
    to_k = scipy.sparse.kron(scipy.sparse.eye_array(n), np.ones((1, m)))
    to_l = scipy.sparse.kron(np.ones((1, n)), scipy.sparse.eye_array(m))
    rows_a = scipy.sparse.csr_array(np.kron(np.eye(size), np.ones((n, 1))) * np.kron(A, np.ones((m, 1))).reshape(-1, 1))
    rows_b = scipy.sparse.csr_array(np.kron(np.eye(size), np.ones((m, 1))) * np.kron(np.ones((n, 1)), B).reshape(-1, 1))
    blocks = [
        [-rows_a, scipy.sparse.kron(eye, to_k)],
        [-rows_b, scipy.sparse.kron(eye, to_l)],
        [-eye, scipy.sparse.kron(every, eye)],
        [every, None],
    ]
    equal = scipy.sparse.block_array(blocks).tocsr()
    right = np.zeros(equal.shape[0])
    right[-1] = 1.0
    most = np.full(size + size * size, np.inf)
    if allowed is not None:
        most[:size] = np.where(allowed.ravel(), np.inf, 0.0)
    found = scipy.optimize.linprog(
        np.concatenate([D.ravel(), np.zeros(size * size)]), A_eq=equal, b_eq=right,
        bounds=np.stack([np.zeros_like(most), most], axis=1), method="highs",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )  # fmt: skip
    assert found.success, found.message
    return float(found.fun)


def cycle(n, laziness=0.0):
    return laziness * np.eye(n) + (1 - laziness) * np.roll(np.eye(n), 1, axis=1)


def walk(seed, n, chance=0.5):
    """The random walk on a connected graph."""
    support = np.random.default_rng(seed).random((n, n)) < chance
    support |= support.T | (np.abs(np.subtract.outer(np.arange(n), np.arange(n))) == 1)
    np.fill_diagonal(support, False)
    return support / support.sum(1, keepdims=True)


def bipartite(seed, a, b):
    """A random walk that changes sides at every step, with weights of its own in either direction."""
    rng = np.random.default_rng(seed)
    support = np.zeros((a + b, a + b), dtype=bool)
    support[:a, a:] = rng.random((a, b)) < 0.5
    support[0, a:] = support[:a, a] = True
    weights = np.where(support | support.T, rng.uniform(0.3, 1.3, support.shape), 0.0)
    return weights / weights.sum(1, keepdims=True)


# --- the exact value
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("case", CASES)
def test_value_is_that_of_the_linear_programme(case, seed):
    problem = problem_of(case, seed)
    solution = solve(problem.A, problem.B, problem.D, CASES[case][1])
    assert solution.error_bound.item() < 1e-9
    assert abs(solution.value.item() - programme(problem.A, problem.B, problem.D)) < 1e-9
    assert (solution.gain - solution.value).abs().max() == 0
    assert (solution.classes == 0).all()
    assert solution.converged.item()


@pytest.mark.parametrize("seed", range(12))
def test_ties_are_no_trouble(seed):
    rng = np.random.default_rng(seed)
    A, B = walk(seed, 3 + seed % 4), walk(seed + 100, 5)
    D = rng.integers(0, 2, (len(A), len(B))).astype(float)
    solution = solve(A, B, D)
    assert solution.error_bound.item() < 1e-9
    assert abs(solution.value.item() - programme(A, B, D)) < 1e-9
    again = solve(A, B, D)
    torch.testing.assert_close(again.alignment, solution.alignment, rtol=0, atol=0)


def test_a_loose_tolerance_is_met_by_a_certified_one():
    problem = problem_of("sparse")
    best = programme(problem.A, problem.B, problem.D)
    steps = []
    for rtol in (1e-1, 1e-3, 1e-10):
        solution = solve(problem.A, problem.B, problem.D, rtol=rtol)
        assert solution.error_bound.item() <= rtol * np.ptp(problem.D)
        assert abs(solution.value.item() - best) <= solution.error_bound.item() + 1e-12
        steps.append(solution.num_iter.item())
    assert steps[0] < steps[-1]


def test_every_sweep_has_a_certificate():
    A, B, D = lazy_cycles(2)
    best = programme(A, B, D)
    bounds = []
    for max_iter in (1, 2, 3):
        solution = solve(A, B, D, max_iter=max_iter, throw=False)
        assert abs(solution.value.item() - best) <= solution.error_bound.item()
        assert solution.num_iter.item() == max_iter
        bounds.append(solution.error_bound.item())
    assert bounds[0] > bounds[1] > bounds[2]


def test_the_certificate_counts_what_local_problems_leave_open(monkeypatch):
    problem = problem_of("sparse")
    expected = entropic_gain(problem.A, problem.B, problem.D, 0.1)[0, 0]
    sweep = CompiledEngine.sweep

    def unsure(self, *given):
        lower, upper = sweep(self, *given)
        return lower - 0.01, upper + 0.05

    monkeypatch.setattr(CompiledEngine, "sweep", unsure)
    solution = solve(problem.A, problem.B, problem.D, epsilon=0.1, throw=False)
    assert solution.status is Status.STALLED
    assert solution.value.item() - solution.error_bound.item() == pytest.approx(expected - 0.01, abs=2e-3)
    assert solution.value.item() + solution.error_bound.item() == pytest.approx(expected + 0.05, abs=2e-3)


def test_a_constant_cost():
    solution = solve(walk(1, 4), walk(2, 5), np.full((4, 5), 3.25))
    assert abs(solution.value.item() - 3.25) < 1e-12
    torch.testing.assert_close(solution.bias, torch.zeros(4, 5).double(), rtol=0, atol=1e-12)


def test_costs_may_be_negative_and_of_any_size():
    problem = problem_of("sparse")
    plain = solve(problem.A, problem.B, problem.D)
    moved = solve(problem.A, problem.B, 1e6 * problem.D - 3e5)
    assert abs(moved.value.item() - (1e6 * plain.value.item() - 3e5)) < 1e-3


# --- the optimality equation, the coupling and its law
def test_gain_and_bias_solve_the_optimality_equation():
    problem = problem_of("sparse")
    solution = solve(problem.A, problem.B, problem.D, SPARSE)
    h = solution.bias.numpy()
    assert h.min() == 0
    for i, j in np.ndindex(h.shape):
        ahead = problem.D[i, j] + exact_transport(problem.A[i], problem.B[j], h)
        assert abs(ahead - h[i, j] - solution.gain[i, j].item()) < 1e-8


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_the_alignment_is_a_stationary_law_of_the_coupling(epsilon):
    problem = problem_of("mixed")
    solution = solve(problem.A, problem.B, problem.D, MIXED, epsilon=epsilon)
    law = solution.alignment
    assert (law >= 0).all()
    for k, rows in enumerate((problem.A, problem.B)):
        torch.testing.assert_close(law.sum(1 - k), stationary_distribution(torch.tensor(rows)), rtol=0, atol=1e-11)
    flat = law.numpy().ravel()
    np.testing.assert_allclose(flat @ solution.transition_coupling(), flat, atol=1e-12)
    cost = solution.expected_cost.item()
    assert abs(cost - (law.numpy() * problem.D).sum()) < 1e-14
    if epsilon:
        assert cost < solution.value.item()
    else:
        assert abs(cost - solution.value.item()) < 1e-9


def test_rows_of_the_coupling_are_couplings_of_rows():
    problem = problem_of("sparse")
    solution = solve(problem.A, problem.B, problem.D, SPARSE)
    coupled = solution.transition_coupling()
    n, m = problem.D.shape
    assert coupled.shape == (n * m, n * m)
    assert (np.diff(coupled.indptr) <= 3 + 2 - 1).all()
    for i, j in np.ndindex(n, m):
        plan = solution.coupling(i, j).numpy()
        np.testing.assert_allclose(plan.sum(1), problem.A[i], atol=1e-14)
        np.testing.assert_allclose(plan.sum(0), problem.B[j], atol=1e-14)
        np.testing.assert_allclose(coupled[[i * m + j]].toarray()[0], plan.ravel(), atol=1e-15)


# --- periods: several joint classes
def test_two_cycles_in_step_have_a_gain_for_each_start():
    D = np.random.default_rng(0).random((4, 4))
    solution = solve(cycle(4), cycle(4), D)
    in_step = [np.roll(D, (-t, -t), axis=(0, 1)) for t in range(4)]
    expected = np.mean(in_step, axis=0)
    torch.testing.assert_close(solution.gain, torch.from_numpy(expected), rtol=0, atol=1e-12)
    assert abs(solution.value.item() - expected.min()) < 1e-12
    assert solution.classes.unique().tolist() == [0, 1, 2, 3]
    for label in range(4):
        assert torch.unique(solution.gain[solution.classes == label].round(decimals=9)).numel() == 1
    best = solution.gain <= solution.value + 1e-9
    torch.testing.assert_close(solution.alignment, best.double() / 4, rtol=0, atol=1e-12)


def test_cycles_of_coprime_lengths_meet_in_every_pair():
    D = np.random.default_rng(1).random((3, 4))
    solution = solve(cycle(3), cycle(4), D)
    assert (solution.classes == 0).all()
    assert abs(solution.value.item() - D.mean()) < 1e-12


@pytest.mark.parametrize("epsilon", [0.0, 0.2])
@pytest.mark.parametrize("seed", range(3))
def test_bipartite_graphs_have_two_classes(seed, epsilon):
    A, B = bipartite(seed, 2, 3), bipartite(seed + 9, 3, 2)
    D = np.random.default_rng(seed).random((5, 5))
    solution = solve(A, B, D, epsilon=epsilon)
    side_x, side_y = np.arange(5) >= 2, np.arange(5) >= 3
    together = side_x[:, None] == side_y[None]
    np.testing.assert_array_equal(solution.classes.numpy() == solution.classes[0, 0].item(), together)
    if epsilon:
        expected = entropic_gain(A, B, D, epsilon)
    else:
        expected = np.where(together, programme(A, B, D, together), programme(A, B, D, ~together))
    np.testing.assert_allclose(solution.gain.numpy(), expected, atol=1e-8)
    assert abs(solution.value.item() - expected.min()) < 1e-8
    h = solution.bias.numpy()
    assert h[together].min() == 0
    assert h[~together].min() == 0
    assert solution.alignment.numpy()[expected > expected.min() + 1e-9].sum() == 0


def test_transient_states_are_left():
    rng = np.random.default_rng(3)
    A = np.zeros((5, 5))
    A[:3, :3] = random_rows(rng, 3)
    A[3], A[4] = [0.2, 0.0, 0.3, 0.0, 0.5], [0.0, 0.5, 0.0, 0.5, 0.0]
    B, D = random_rows(rng, 4), rng.random((5, 4))
    solution = solve(A, B, D)
    assert abs(solution.value.item() - programme(A[:3, :3], B, D[:3])) < 1e-9
    assert solution.alignment[3:].abs().max() < 1e-12
    assert (solution.gain - solution.value).abs().max() == 0


# --- policies of several recurrent classes
def lazy_cycles(seed):
    """Both may stay or move on: coupled in step, every offset is a class of its own."""
    n = 3 + seed % 3
    return cycle(n, 0.5), cycle(n, 0.5), np.random.default_rng(seed).random((n, n))


def test_policies_of_several_classes_are_left_for_the_best_class(monkeypatch):
    lost = []
    outside = poisson.CoupledChain._outside
    monkeypatch.setattr(
        poisson.CoupledChain,
        "_outside",
        lambda self, pairs, astray, *rest: (lost.append(astray is not None), outside(self, pairs, astray, *rest))[1],
    )
    for seed in range(30):
        A, B, D = lazy_cycles(seed)
        solution = solve(A, B, D)
        assert solution.error_bound.item() < 1e-9
        assert abs(solution.value.item() - programme(A, B, D)) < 1e-9
    assert any(lost)


def test_optimal_couplings_of_several_classes_that_tie():
    n = 12  # a ring whose colours repeat: three rotations keep them
    A = 0.1 * np.eye(n) + 0.45 * (np.roll(np.eye(n), 1, 1) + np.roll(np.eye(n), -1, 1))
    D = (np.subtract.outer(np.arange(n), np.arange(n)) % 4 > 0).astype(float)
    solution = solve(A, A, D)
    assert abs(solution.value.item()) < 1e-9
    count = closed_classes(solution.transition_coupling()).max() + 1
    assert count > 1
    law = solution.alignment.numpy()
    flat = law.ravel()
    np.testing.assert_allclose(flat @ solution.transition_coupling(), flat, atol=1e-12)
    assert (law * D).sum() < 1e-9


METHODS = {"factors at once": (512, 300, 4096), "krylov": (0, 300, 0), "factors after krylov": (0, 1, 4096)}


def use(method, monkeypatch):
    for name, value in zip(("SMALL", "KRYLOV_STEPS", "FACTORISED"), METHODS[method], strict=True):
        monkeypatch.setattr(poisson, name, value)


@pytest.mark.parametrize("method", METHODS)
def test_every_way_to_solve_the_poisson_equation(method, monkeypatch):
    use(method, monkeypatch)
    monkeypatch.setattr(poisson.CoupledChain, "resolvent", None)  # no system is given up
    for seed in range(12):
        A, B, D = lazy_cycles(seed)
        solution = solve(A, B, D)
        assert abs(solution.value.item() - programme(A, B, D)) < 1e-9
        law = solution.alignment.numpy()
        np.testing.assert_allclose(law.ravel() @ solution.transition_coupling(), law.ravel(), atol=1e-11)
        assert abs(solution.expected_cost.item() - solution.value.item()) < 1e-9
    A, B, D = bipartite(0, 2, 3), bipartite(9, 3, 2), np.random.default_rng(0).random((5, 5))
    solution = solve(A, B, D, epsilon=0.2)
    np.testing.assert_allclose(solution.gain.numpy(), entropic_gain(A, B, D, 0.2), atol=1e-8)
    assert solution.alignment.sum().item() == pytest.approx(1.0, abs=1e-12)


def test_a_damped_step_where_no_system_can_be_solved(monkeypatch):
    use("krylov", monkeypatch)
    monkeypatch.setattr(poisson, "KRYLOV_STEPS", 3)
    problem = problem_of("sparse")
    solution = solve(problem.A, problem.B, problem.D, rtol=1e-4)
    assert abs(solution.value.item() - programme(problem.A, problem.B, problem.D)) <= solution.error_bound.item()
    with pytest.raises(RuntimeError, match=r"stationary law of the coupled chain was not found: a step changes it by"):
        _ = solution.alignment


@pytest.mark.parametrize("epsilon", [0.0, 0.01])
def test_chains_that_all_but_keep_in_step(epsilon):
    # the coupled chain stays for a thousand steps where it is, and long with small epsilon where that costs more
    n = 12
    A = 0.999 * cycle(n) + 0.001 * walk(0, n, 0.0)
    D = np.random.default_rng(0).random((n, n))
    solution = solve(A, A, D, epsilon=epsilon, rtol=1e-8)
    exact = programme(A, A, D)
    assert abs(solution.value.item() - exact) < (2e-8 if not epsilon else 0.01 * np.log(3))
    assert solution.bias.max() > 100


def test_long_cycles():
    n = 400
    D = np.random.default_rng(0).random((n, n))
    solution = solve(cycle(n), cycle(n), D, SPARSE)
    offset = np.array([np.mean([D[t, (t + k) % n] for t in range(n)]) for k in range(n)])
    assert abs(solution.value.item() - offset.min()) < 1e-10
    assert abs(solution.expected_cost.item() - offset.min()) < 1e-10


# --- entropic
def entropic_gain(A, B, D, epsilon):
    """Lazy value iteration, from the definition."""
    problem = random_problem(0, *D.shape, epsilon=epsilon)
    problem = type(problem)(A, B, D, problem.nu, problem.mu, 1.0, epsilon)
    h, g, previous = D.copy(), None, np.inf
    for _ in range(20_000):
        local = sweep(problem, h, g)
        ahead, g = D + local.value, local.g
        gain = ahead - h
        h = h + 0.5 * gain
        h -= h.mean()
        if np.abs(gain - previous).max() < 1e-12:
            return gain
        previous = gain
    raise AssertionError("the oracle did not converge")


@pytest.mark.parametrize("epsilon", [1.0, 0.05])
@pytest.mark.parametrize("case", CASES)
def test_entropic_gain_is_that_of_value_iteration(case, epsilon, monkeypatch):
    problem = problem_of(case)
    expected = entropic_gain(problem.A, problem.B, problem.D, epsilon)
    law = stationary_distribution(torch.tensor(problem.A))
    for engine, method in product((CompiledEngine, SharedKernelEngine, GatherEngine), ("factors at once", "krylov")):
        use(method, monkeypatch)
        monkeypatch.setattr(engines, "engine_classes", lambda *_, engine=engine: [engine])
        solution = solve(problem.A, problem.B, problem.D, CASES[case][1], epsilon=epsilon)
        assert solution.error_bound.item() < 1e-9, (engine, method)
        np.testing.assert_allclose(solution.gain.numpy(), expected, atol=1e-8, err_msg=f"{engine}, {method}")
        torch.testing.assert_close(solution.alignment.sum(1), law, rtol=0, atol=1e-10)


def test_entropic_gains_lie_above_the_exact_one_by_no_more_than_the_entropy():
    problem = problem_of("sparse")
    exact = solve(problem.A, problem.B, problem.D, SPARSE).value.item()
    entropy = [-(rows * np.log(np.where(rows > 0, rows, 1.0))).sum(1) for rows in (problem.A, problem.B)]
    most = np.minimum.outer(*entropy).max()
    for epsilon in (0.3, 0.03, 0.003, 0.0003):
        solution = solve(problem.A, problem.B, problem.D, SPARSE, epsilon=epsilon)
        assert exact <= solution.expected_cost.item() + 1e-10
        assert solution.expected_cost.item() < solution.value.item()
        assert solution.value.item() <= exact + epsilon * most


def test_epsilon_without_end_is_the_independent_coupling():
    problem = problem_of("dense")
    p, q = (stationary_distribution(torch.tensor(rows)).numpy() for rows in (problem.A, problem.B))
    solution = solve(problem.A, problem.B, problem.D, epsilon=1e4, rtol=1e-6)
    assert abs(solution.value.item() - p @ problem.D @ q) < 1e-3


# --- the limit of the discounted distance
def discounted(problem, delta, epsilon):
    x, y = (chain(torch.tensor(rows), "stationary") for rows in (problem.A, problem.B))
    accuracy = {"rtol": 1e-11}
    return discounted_wl(
        x, y, torch.tensor(problem.D), delta=delta, epsilon=epsilon, **accuracy, throw=False
    ).value.item()


def test_the_exact_discounted_distance_comes_to_it_as_delta_falls():
    problem = problem_of("sparse")
    gain = solve(problem.A, problem.B, problem.D).value.item()
    errors = [abs(discounted(problem, delta, 0.0) - gain) for delta in (1e-1, 1e-2, 1e-3, 1e-4)]
    assert errors[-1] < 1e-4
    for before, after in pairwise(errors):
        assert 0.05 < after / before < 0.2  # in proportion to delta


def test_the_entropic_one_does_so_only_where_epsilon_falls_with_delta():
    problem = problem_of("sparse")
    p, q = (stationary_distribution(torch.tensor(rows)).numpy() for rows in (problem.A, problem.B))
    gain = solve(problem.A, problem.B, problem.D, epsilon=0.1).value.item()
    together = [abs(discounted(problem, delta, 0.1 * delta) - gain) for delta in (1e-1, 1e-2, 1e-3)]
    assert together[2] < 1e-3
    assert together[2] < 0.2 * together[1] < 0.04 * together[0]
    independent = p @ problem.D @ q
    fixed = [abs(discounted(problem, delta, 0.1) - independent) for delta in (1e-1, 1e-2, 1e-3)]
    assert fixed[2] < 0.2 * fixed[1] < 0.04 * fixed[0]
    assert abs(independent - gain) > 0.03


# --- a metric
def labelled(seed):
    generator = torch.Generator().manual_seed(seed)
    n = 2 + seed % 4
    weights = torch.rand(n, n, generator=generator, dtype=torch.float64) ** 3
    return MarkovChain.from_adjacency(weights, features=torch.randint(3, (n,), generator=generator))


def distance(x, y):
    return optimal_transition_coupling(x, y, costs.ZeroOne(), rtol=1e-11).value.item()


@settings(max_examples=20, deadline=None)
@given(*(st.integers(0, 10_000) for _ in range(3)))
def test_identity_symmetry_and_the_triangle_inequality(first, second, third):
    x, y, z = (labelled(seed) for seed in (first, second, third))
    assert abs(distance(x, x)) < 1e-10
    assert abs(distance(x, y) - distance(y, x)) < 1e-10
    assert distance(x, z) <= distance(x, y) + distance(y, z) + 1e-10


def test_relabelled_molecules_are_at_distance_zero():
    molecule = load_mutag().chains[5].to_dense()
    order = torch.randperm(molecule.num_states, generator=torch.Generator().manual_seed(2))
    twin = MarkovChain.from_transitions(
        molecule.transition[order][:, order], features=molecule.features[order], initial="uniform"
    )
    assert abs(distance(molecule, twin)) < 1e-9


# --- gradients
def slope(problem, name, layouts, epsilon, direction, step):
    parts = {"A": problem.A, "B": problem.B, "D": problem.D, "epsilon": np.array(epsilon)}

    def value(new):
        given = parts | {name: new}
        return solve(
            given["A"], given["B"], given["D"], layouts, epsilon=float(given["epsilon"]), rtol=1e-13, throw=False
        ).value.item()

    return numerical_gradient(value, parts[name], direction, step=step)


def gradient(problem, name, layouts, epsilon):
    parts = {"A": problem.A, "B": problem.B, "D": problem.D, "epsilon": np.array(epsilon)}
    leaves = {key: torch.tensor(part) for key, part in parts.items()}
    leaves[name].requires_grad_()
    x, y = chain(leaves["A"], "uniform", layouts[0]), chain(leaves["B"], "uniform", layouts[1])
    solution = optimal_transition_coupling(x, y, leaves["D"], epsilon=leaves["epsilon"], rtol=1e-10)
    solution.value.backward()
    return leaves[name].grad, solution


def direction_of(problem, name, layout, rng):
    x = getattr(problem, name)
    direction = rng.standard_normal(np.shape(x))
    if name in ("A", "B"):
        direction = centred(direction, x > 0 if layout == "sparse" else None).numpy()
    return direction


@pytest.mark.parametrize("name", ["A", "B", "D"])
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
@pytest.mark.parametrize("case", CASES)
def test_gradients_are_central_differences(case, epsilon, name):
    problem, layouts = problem_of(case), CASES[case][1]
    if case == "mixed" and name == "B":
        layouts = MIXED
    direction = direction_of(problem, name, layouts[name == "B"], np.random.default_rng(5))
    found, _ = gradient(problem, name, layouts, epsilon)
    expected = slope(problem, name, layouts, epsilon, direction, 1e-5 if epsilon else 1e-6)
    assert abs(float((found * torch.from_numpy(direction)).sum()) - expected) < 1e-6 * max(1, abs(expected))


@pytest.mark.parametrize("case", ["dense", "sparse"])
def test_gradient_in_epsilon_is_the_mean_divergence(case):
    problem = problem_of(case)
    found, _ = gradient(problem, "epsilon", CASES[case][1], 0.1)
    expected = slope(problem, "epsilon", CASES[case][1], 0.1, np.array(1.0), 1e-4)
    assert abs(found.item() - expected) < 1e-7
    assert found.item() > 0


def test_gradient_in_the_cost_is_the_alignment():
    problem = problem_of("dense")
    found, solution = gradient(problem, "D", DENSE, 0.0)
    torch.testing.assert_close(found, solution.alignment, rtol=0, atol=0)


def test_mass_moved_off_the_support_has_a_one_sided_derivative():
    problem = problem_of("sparse")
    found, _ = gradient(problem, "A", DENSE, 0.1)
    row = problem.A[0]
    empty, full = np.flatnonzero(row == 0)[0], np.flatnonzero(row)[0]
    direction = np.zeros_like(problem.A)
    direction[0, empty], direction[0, full] = 1.0, -1.0

    def value(new):
        return solve(new, problem.B, problem.D, epsilon=0.1, rtol=1e-13, throw=False).value.item()

    expected = numerical_gradient(value, problem.A, direction, step=1e-5, one_sided=True)
    assert abs(float((found * torch.from_numpy(direction)).sum()) - expected) < 1e-6


@pytest.mark.parametrize("epsilon", [0.0, 0.2])
def test_gradients_of_periodic_chains_are_those_of_the_best_class(epsilon):
    A, B, D = bipartite(0, 2, 3), bipartite(9, 3, 2), np.random.default_rng(0).random((5, 5))
    problem = type(problem_of("dense"))(A, B, D, None, None, 1.0, epsilon)
    for name in ("A", "D"):
        direction = direction_of(problem, name, "sparse", np.random.default_rng(5))
        found, _ = gradient(problem, name, SPARSE, epsilon)
        expected = slope(problem, name, SPARSE, epsilon, direction, 1e-6)
        assert abs(float((found * torch.from_numpy(direction)).sum()) - expected) < 1e-7


def test_gradients_of_features_and_only_where_wanted():
    generator = torch.Generator().manual_seed(0)
    problem = problem_of("dense")
    fx, fy = (torch.randn(size, 2, generator=generator, dtype=torch.float64) for size in (4, 3))
    fx.requires_grad_()
    x = MarkovChain.from_transitions(torch.tensor(problem.A), initial="uniform", features=fx)
    y = MarkovChain.from_transitions(torch.tensor(problem.B), initial="uniform", features=fy)
    solution = optimal_transition_coupling(x, y, costs.SquaredEuclidean())
    solution.value.backward()
    expected = 2 * (solution.alignment[:, :, None] * (fx.detach()[:, None] - fy[None])).sum(1)
    torch.testing.assert_close(fx.grad, expected, rtol=1e-9, atol=1e-11)
    assert not solve(problem.A, problem.B, problem.D).value.requires_grad


def test_second_order_request_is_refused():
    problem = problem_of("dense")
    D = torch.tensor(problem.D, requires_grad=True)
    x, y = (chain(torch.tensor(rows), "uniform") for rows in (problem.A, problem.B))
    value = optimal_transition_coupling(x, y, D).value
    with pytest.raises(NotImplementedError, match="second-order gradients"):
        torch.autograd.grad(value, D, create_graph=True)


# --- batches, types, layouts
@pytest.mark.parametrize("layout", ["dense", "sparse"])
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_batches_of_different_sizes_equal_their_items(epsilon, layout):
    chains = [labelled(seed) for seed in (1, 2, 7)]
    if layout == "sparse":
        chains = [
            MarkovChain.from_transitions(each.transition.to_sparse_csr(), initial="uniform", features=each.features)
            for each in chains
        ]
    x, y = MarkovChain.stack(chains), MarkovChain.stack(chains[::-1])
    x.parameter.requires_grad_()
    together = optimal_transition_coupling(x, y, costs.ZeroOne(), epsilon=epsilon, rtol=1e-10)
    (2 * together.value.sum()).backward()
    for k in range(3):
        first, second = chains[k].detach(), chains[2 - k]
        first.parameter.requires_grad_()
        alone = optimal_transition_coupling(first, second, costs.ZeroOne(), epsilon=epsilon, rtol=1e-10)
        (2 * alone.value).backward()
        torch.testing.assert_close(together.value[k], alone.value, rtol=0, atol=1e-12)
        n, m = alone.bias.shape
        for name in ("gain", "bias", "alignment"):
            both = getattr(together, name)[k], getattr(alone, name)
            torch.testing.assert_close(both[0][:n, :m], both[1], rtol=0, atol=1e-11)
            assert both[0][n:].abs().sum() == 0
        assert (together.classes[k, n:] == -1).all()
        assert together.transition_coupling(k).shape == (n * m, n * m)
        where = (k, slice(n), slice(n)) if layout == "dense" else slice(x.indptr[k, 0], x.indptr[k, n])
        torch.testing.assert_close(x.parameter.grad[where], first.parameter.grad, rtol=0, atol=1e-10)
    assert together.status.shape == (3,)
    assert together.converged.all()


@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_a_chain_in_several_items_sums_their_gradients(layout):
    problem = problem_of("dense")
    rows = torch.tensor(problem.A, requires_grad=True)
    others = torch.stack([torch.tensor(random_problem(seed, 4, 3).B) for seed in (1, 2)])
    epsilon = torch.tensor([0.1, 0.3]).double()
    D = torch.tensor(problem.D)
    optimal_transition_coupling(chain(rows, "uniform", layout), others, D, epsilon=epsilon).value.sum().backward()
    parts = []
    for k in range(2):
        alone = torch.tensor(problem.A, requires_grad=True)
        optimal_transition_coupling(alone, others[k], D, epsilon=epsilon[k]).value.backward()
        parts.append(alone.grad)
    torch.testing.assert_close(rows.grad, parts[0] + parts[1], rtol=0, atol=1e-10)
    torch.testing.assert_close(rows.grad.sum(1), torch.zeros(4).double(), rtol=0, atol=1e-12)  # centred


def test_single_precision_is_honest():
    problem = problem_of("dense")
    given = [torch.tensor(part).float() for part in (problem.A, problem.B, problem.D)]
    solution = optimal_transition_coupling(*given)
    double = solve(problem.A, problem.B, problem.D)
    assert solution.value.dtype == solution.bias.dtype == solution.alignment.dtype == torch.float32
    assert solution.expected_cost.dtype == solution.coupling(0, 0).dtype == torch.float32
    assert abs(solution.value.item() - double.value.item()) < solution.error_bound.item() + 1e-6


def test_a_cost_out_of_the_range_of_matrix_products_goes_to_the_next_engine(monkeypatch):
    monkeypatch.setattr(engines, "DENSE_DEGREE", 0)
    problem = problem_of("dense")
    small = solve(problem.A, problem.B, problem.D, epsilon=2e-3, rtol=1e-8)
    assert small.error_bound.item() < 1e-8
    exact = solve(problem.A, problem.B, problem.D).value.item()
    assert exact < small.value.item() < exact + 2e-3 * np.log(3)


def test_sparse_products_of_the_independent_coupling(monkeypatch):
    problem = problem_of("sparse")
    expected = solve(problem.A, problem.B, problem.D, SPARSE)
    monkeypatch.setattr(operators, "DENSE_SHARE", 10.0)
    found = solve(problem.A, problem.B, problem.D, SPARSE)
    torch.testing.assert_close(found.value, expected.value, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.bias, expected.bias, rtol=0, atol=1e-8)


def test_graphs_of_many_states():
    generator = torch.Generator().manual_seed(1)
    x, y = (MarkovChain.from_adjacency(ring_of_chords(60, seed)) for seed in (1, 2))
    D = torch.rand(60, 60, generator=generator, dtype=torch.float64)
    solution = optimal_transition_coupling(x, y, D, rtol=1e-8)
    assert solution.converged.item()
    assert abs(solution.expected_cost.item() - solution.value.item()) < 1e-7


def ring_of_chords(n, seed):
    rng = np.random.default_rng(seed)
    edges = [(i, (i + 1) % n) for i in range(n)] + [tuple(rng.choice(n, 2, replace=False)) for _ in range(n // 2)]
    rows, columns = np.array(edges).T
    graph = scipy.sparse.coo_array((np.ones(len(edges)), (rows, columns)), shape=(n, n)).tocsr()
    graph = graph + graph.T
    graph.data[:] = 1.0
    return graph


# --- failing well
@pytest.mark.parametrize("name", ["x", "y"])
def test_chains_with_several_closed_classes_are_refused(name):
    split = np.kron(np.eye(2), np.full((2, 2), 0.5))
    whole = random_rows(np.random.default_rng(0), 4)
    pair = (split, whole) if name == "x" else (whole, split)
    message = rf"^{name}: the chain has 2 closed classes .* states \{{0, 1\}} and \{{2, 3\}}, and so no single long run"
    with pytest.raises(ValueError, match=message):
        solve(*pair, np.zeros((4, 4)))


@pytest.mark.parametrize("name", ["x", "y"])
def test_transient_states_beside_a_common_period_are_refused(name):
    A = np.zeros((5, 5))
    A[:4, :4], A[4, 0] = cycle(4), 1.0
    pair = (A, cycle(6)) if name == "x" else (cycle(6), A)
    periods = "4 and 6" if name == "x" else "6 and 4"
    message = rf"^{name}: state 4 is left for ever, and the periods of the two chains, {periods}, have the common"
    with pytest.raises(ValueError, match=message):
        solve(*pair, np.zeros((len(pair[0]), len(pair[1]))))


def test_costs_whose_range_is_no_number_are_solved():
    problem = problem_of("dense")
    signs = np.sign(problem.D - np.median(problem.D))
    found, plain = (solve(problem.A, problem.B, scale * signs) for scale in (1.7e308, 1.0))
    assert float(found.value) / 1.7e308 == pytest.approx(float(plain.value), abs=1e-5)


def test_what_is_not_finite_is_reported(monkeypatch):
    problem = problem_of("dense")

    class Broken(GatherEngine):
        def sweep(self, *arguments):
            return tuple(part * torch.nan for part in super().sweep(*arguments))

    monkeypatch.setattr(engines, "engine_classes", lambda *_: [Broken])
    solution = solve(problem.A, problem.B, problem.D, epsilon=0.1, throw=False)
    assert solution.status is Status.NOT_FINITE
    with pytest.raises(SolveError, match="left the range of floating point numbers"):
        solve(problem.A, problem.B, problem.D, epsilon=0.1)


def test_unfinished_business_is_reported():
    problem = problem_of("dense")
    message = r"the problem did not converge: after 1 iterations the certified error is .*, wanted .*Raise `max_iter`"
    with pytest.raises(SolveError, match=message) as caught:
        solve(problem.A, problem.B, problem.D, max_iter=1)
    assert caught.value.solution.status is Status.MAX_ITER_REACHED
    assert not caught.value.solution.converged
    asked_too_much = solve(problem.A, problem.B, problem.D, rtol=1e-15, throw=False)
    assert asked_too_much.status is Status.STALLED
    assert asked_too_much.error_bound.item() < 1e-12


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rtol": 0.0}, ValueError, r"rtol: 0 is not between 0 and 1"),
        ({"rtol": "small"}, TypeError, r"rtol: expected a number, got str"),
        ({"max_iter": 0}, ValueError, "max_iter: 0 is less than 1"),
        ({"max_iter": 2.5}, TypeError, "max_iter: expected an integer, got float"),
        ({"max_iter": True}, TypeError, "max_iter: expected an integer, got bool"),
        ({"epsilon": -1.0}, ValueError, r"epsilon: -1 is not a finite number >= 0"),
        ({"epsilon": torch.tensor([0.0, 0.1])}, ValueError, r"epsilon: some items have 0 and others do not"),
    ],
)
def test_bad_options_are_refused(options, error, message):
    problem = problem_of("dense")
    with pytest.raises(error, match=message):
        solve(problem.A, problem.B, problem.D, **options)


def test_batches_that_do_not_broadcast_are_refused():
    rows = torch.stack([torch.tensor(problem_of("dense").A)] * 3)
    epsilon = torch.tensor([0.1, 0.2]).double()
    with pytest.raises(ValueError, match=r"epsilon: batches of shapes \(2,\) \(epsilon\) and \(3,\) \(chains and cost"):
        optimal_transition_coupling(rows, rows, torch.zeros(4, 4).double(), epsilon=epsilon)


def test_states_and_items_that_do_not_exist():
    problem = problem_of("dense")
    solution = solve(problem.A, problem.B, problem.D)
    with pytest.raises(IndexError, match=r"coupling: no states \(4, 0\) among 4 x 3"):
        solution.coupling(4, 0)
    with pytest.raises(IndexError, match=r"transition_coupling: no item 1 in a batch of 1"):
        solution.transition_coupling(1)
    rows = torch.stack([torch.tensor(problem.A)] * 2)
    batch = optimal_transition_coupling(rows, rows, torch.zeros(4, 4).double())
    with pytest.raises(ValueError, match=r"coupling: the solution is of a batch of shape \(2,\)"):
        batch.coupling(0, 0)


# --- parts
def test_periods_and_phases():
    chains = {
        "cycle": (cycle(6), 6), "lazy": (cycle(6, 0.1), 1), "bipartite": (bipartite(0, 2, 3), 2), "one": (np.eye(1), 1),
        "two loops": (np.array([[0, 0.5, 0, 0.5], [0, 0, 1, 0], [1.0, 0, 0, 0], [0, 0, 1, 0]]), 3),
    }  # fmt: skip
    for rows, period in chains.values():
        found = phases("x", scipy.sparse.csr_array(rows))
        assert found.period == period
        for i, k in zip(*np.nonzero(rows), strict=True):
            assert (found.phase[i] + 1 - found.phase[k]) % period == 0
