"""What a `Solution` offers besides its value: status, errors, plans, couplings, potentials, the alignment."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import markovot
from markovot import ChainSolution, MarkovChain, SolveError, Status
from markovot.pairwise import distance_matrix, nearest_neighbours
from markovot.transport import engines
from markovot.transport.gather import GatherEngine
from oracles import Problem, centred, entropic, random_problem
from solving import DENSE, MIXED, SPARSE, chain, gradients, solve, value_iteration

EVERY_LAYOUT = pytest.mark.parametrize("layouts", [DENSE, SPARSE, MIXED])


def a_problem(**options: float) -> Problem:
    return random_problem(1, 4, 3, degrees=(3, 2), **({"delta": 0.2, "epsilon": 0.1} | options))


# --- status and errors


def test_converged() -> None:
    found = solve(a_problem())
    assert found.status is Status.CONVERGED
    assert int(found.num_iter) >= 1


def test_max_iter_reached_is_said_and_the_bound_stays_honest() -> None:
    problem = a_problem(delta=0.02, epsilon=0.01)
    found = solve(problem, rtol=1e-10, max_iter=1, throw=False)
    assert found.status is Status.MAX_ITER_REACHED
    assert int(found.num_iter) == 1
    assert found.error_bound.item() > 1e-10
    assert abs(found.value.item() - entropic(problem).value) <= found.error_bound.item()


def test_value_iteration_that_stops_early_is_honest_too() -> None:
    problem = a_problem(delta=0.02, epsilon=0.05)
    for steps in (1, 3, 10):
        with value_iteration():
            found = solve(problem, rtol=1e-9, max_iter=steps, throw=False)
        assert found.status is Status.MAX_ITER_REACHED
        assert abs(found.value.item() - entropic(problem).value) <= found.error_bound.item()


def test_stalled_where_rounding_forbids_the_request() -> None:
    problem = a_problem(delta=0.05)
    found = solve(problem, rtol=1e-17, throw=False)
    assert found.status is Status.STALLED
    assert abs(found.value.item() - entropic(problem).value) <= found.error_bound.item() + 1e-12
    assert found.error_bound.item() <= 1e-11


class Broken(GatherEngine):
    """An engine whose sweeps give no numbers."""

    def sweep(self, *arguments):
        return tuple(part * torch.nan for part in super().sweep(*arguments))


def test_not_finite_where_a_sweep_gives_no_numbers(monkeypatch) -> None:
    monkeypatch.setattr(engines, "engine_classes", lambda *_: [Broken])
    found = solve(a_problem(), throw=False)
    assert found.status is Status.NOT_FINITE
    assert not np.isfinite(found.error_bound.item())
    with pytest.raises(SolveError, match=Status.NOT_FINITE.value[:20]):
        solve(a_problem())


def test_costs_whose_range_is_no_number_are_solved() -> None:
    problem = replace(a_problem(), epsilon=0.0)
    signs = np.where(problem.D > 0.5, 1.0, -1.0)
    huge, plain = (solve(replace(problem, D=scale * signs), rtol=1e-4) for scale in (1.7e308, 1.0))
    assert huge.value.item() / 1.7e308 == pytest.approx(plain.value.item(), abs=4e-4)


@pytest.mark.parametrize("status", Status)
def test_messages_of_a_status_say_what_to_do(status: Status) -> None:
    assert len(status.value) > 20 or status is Status.CONVERGED


def test_solve_error_names_items_residual_and_repair() -> None:
    parts = [a_problem(delta=delta) for delta in (1.0, 0.02, 1.0, 0.02)]
    x, y = chain(torch.tensor(parts[0].A), "uniform"), chain(torch.tensor(parts[0].B), "uniform")
    delta = torch.tensor([part.delta for part in parts]).double()
    cost, accuracy = torch.tensor(parts[0].D), {"rtol": 1e-9, "max_iter": 2}

    def call(**options: bool) -> ChainSolution:
        return markovot.discounted_wl(x, y, cost, delta=delta, epsilon=0.05, **accuracy, **options)

    message = r"2 items \(1, 3\) did not converge: after 2 iterations .*\d.*wanted 9\.\d+e-10.*Raise `max_iter`"
    with pytest.raises(SolveError, match=message) as caught:
        call()
    assert caught.value.solution.value.shape == (4,)
    found = call(throw=False)
    assert list(found.status) == [Status.CONVERGED, Status.MAX_ITER_REACHED] * 2
    assert found.status.dtype == object
    assert (found.error_bound[[0, 2]] < 1e-9).all()


# --- couplings


@EVERY_LAYOUT
def test_transition_coupling_couples_the_rows(layouts: tuple[str, str]) -> None:
    problem = a_problem(epsilon=0.02)
    found, truth = solve(problem, layouts), entropic(problem)
    coupling = found.transition_coupling()
    assert coupling.shape == (12, 12)
    dense = coupling.toarray().reshape(4, 3, 4, 3)
    assert (dense >= 0).all()
    for i in range(4):
        for j in range(3):
            np.testing.assert_allclose(dense[i, j].sum(1), problem.A[i], atol=1e-8)
            np.testing.assert_allclose(dense[i, j].sum(0), problem.B[j], atol=1e-8)
            np.testing.assert_allclose(found.coupling(i, j), dense[i, j], atol=1e-12)
    np.testing.assert_allclose(dense, truth.local.plan, atol=1e-6)


@EVERY_LAYOUT
def test_transition_coupling_of_a_batch_item(layouts: tuple[str, str]) -> None:
    problems = [random_problem(seed, size, 3, degrees=(2, 2)) for seed, size in ((2, 4), (3, 2))]
    x = MarkovChain.stack([chain(torch.tensor(p.A), torch.tensor(p.nu), layouts[0]) for p in problems])
    y = chain(torch.tensor(problems[0].B), torch.tensor(problems[0].mu), layouts[1])
    cost = torch.zeros(2, 4, 3, dtype=torch.float64)
    for k, problem in enumerate(problems):
        cost[k, : len(problem.nu)] = torch.tensor(problem.D)
    found = markovot.discounted_wl(x, y, cost, delta=0.3, epsilon=0.1, rtol=1e-9)
    alone = solve(replace(problems[1], B=problems[0].B, mu=problems[0].mu), layouts, rtol=1e-9)
    np.testing.assert_allclose(
        found.transition_coupling(1).toarray().reshape(4, 3, 4, 3)[:2, :, :2],
        alone.transition_coupling().toarray().reshape(2, 3, 2, 3),
        atol=1e-7,
    )


def test_plan_and_potentials_belong_to_the_initial_laws() -> None:
    problem = a_problem()
    found, truth = solve(problem), entropic(problem)
    np.testing.assert_allclose(found.plan.sum(1), problem.nu, atol=1e-10)
    np.testing.assert_allclose(found.plan.sum(0), problem.mu, atol=1e-7)
    np.testing.assert_allclose(found.plan, truth.outer.plan, atol=1e-6)
    for got, expected in zip(found.potentials, (truth.outer.f, truth.outer.g), strict=True):
        torch.testing.assert_close(centred(got), centred(expected), rtol=0, atol=1e-7)


# --- alignment


@EVERY_LAYOUT
def test_alignment_is_a_probability_and_the_gradient_in_the_cost(layouts: tuple[str, str]) -> None:
    problem = a_problem()
    alignment = solve(problem, layouts).alignment
    assert alignment.shape == (4, 3)
    assert (alignment >= 0).all()
    np.testing.assert_allclose(alignment.sum(), 1.0, rtol=1e-9)
    np.testing.assert_allclose(alignment, gradients(problem, layouts, names=("D",))["D"], atol=1e-8)


def test_alignment_is_the_discounted_occupation_of_the_coupled_pair() -> None:
    # Run the coupled pair forward: delta sum_t (1 - delta)^t P(X_t = i, Y_t = j).
    problem = a_problem()
    found = solve(problem)
    pair, step = found.plan.numpy().ravel(), found.transition_coupling().toarray()
    occupation = np.zeros(12)
    for t in range(200):
        occupation += problem.delta * (1 - problem.delta) ** t * pair
        pair = pair @ step
    np.testing.assert_allclose(found.alignment.numpy().ravel(), occupation, atol=1e-8)


def test_alignment_times_cost_is_the_distance_less_its_entropy() -> None:
    # d = <alignment, D> + epsilon (KL of the initial plan + sum of discounted KL of the steps), and d is
    # homogeneous of degree one in (D, epsilon): d = <alignment, D> + epsilon dd/depsilon.
    problem = a_problem(epsilon=0.05)
    found, slopes = solve(problem), gradients(problem, names=("epsilon",))
    transported = (found.alignment.numpy() * problem.D).sum()
    np.testing.assert_allclose(found.value.item(), transported + problem.epsilon * slopes["epsilon"].item(), rtol=1e-8)
    tiny = solve(replace(problem, epsilon=1e-4), rtol=1e-7)
    assert 0 <= tiny.value.item() - (tiny.alignment.numpy() * problem.D).sum() <= 1e-3


def test_alignment_is_available_after_a_gradient_and_for_a_batch() -> None:
    problem = a_problem()
    inputs = problem.tensors()
    inputs["A"].requires_grad_()
    x = chain(torch.stack([inputs["A"], inputs["A"].detach()]), inputs["nu"].expand(2, 4))
    y = chain(inputs["B"], inputs["mu"])
    found = markovot.discounted_wl(x, y, inputs["D"], delta=0.2, epsilon=0.1)
    found.value.sum().backward()
    assert found.alignment.shape == (2, 4, 3)
    assert not found.alignment.requires_grad
    np.testing.assert_allclose(found.alignment.sum((-2, -1)), [1.0, 1.0], rtol=1e-6)


def test_repr_shows_value_bound_and_status() -> None:
    text = repr(solve(a_problem()))
    for part in ("value", "error_bound", "converged"):
        assert part in text.lower()


# --- as text and as a number


def test_a_solution_prints_in_a_line_and_is_a_number() -> None:
    found = solve(a_problem())
    assert float(found) == found.value.item()
    text = repr(found)
    assert text.startswith(f"ChainSolution(value {found.value.item():.6g}; error_bound ")
    assert "; CONVERGED; " in text
    assert "iteration" in text
    chains = found.chains
    many = [
        markovot.wl(*chains, found.cost_to_go, depth=1, epsilon=0.1),
        markovot.optimal_transition_coupling(*chains, found.cost_to_go),
        markovot.transport_cost(chains[0].initial, chains[1].initial, found.cost_to_go, epsilon=0.1),
    ]
    for one in many:
        assert float(one) == one.value.item()
        assert str(one).startswith(f"{type(one).__name__}(value ")
        assert len(str(one)) < 200


def test_a_batch_prints_what_it_is_and_is_no_number() -> None:
    chains = solve(a_problem()).chains
    cost = torch.ones(*(chain.num_states for chain in chains), dtype=torch.float64)
    texts = {(2,): "(batch (2,): values 1, 1; error_bound at most ", (40, 5): "(batch (40, 5): 200 values from 1 to 1"}
    for shape, text in texts.items():
        found = markovot.discounted_wl(*chains, cost, delta=torch.full(shape, 0.5), epsilon=0.1)
        assert text in repr(found)
        assert f"{len(found.value.flatten())} CONVERGED" in repr(found)
        assert len(repr(found)) < 200
        with pytest.raises(TypeError, match=rf"batch of shape \({shape[0]},"):
            float(found)


def test_matrices_of_distances_print_what_failed() -> None:
    x = MarkovChain.from_transitions(torch.full((2, 2), 0.5).double(), features=[0, 1])
    setting = {"cost": markovot.costs.ZeroOne(), "delta": 0.5, "epsilon": 0.1, "progress": False, "throw": False}
    found = distance_matrix([x, x, "nothing"], **setting)
    assert "PairwiseSolution(pairs (3, 3): 9 values from " in repr(found)
    assert "5 not finite" in repr(found)
    assert "4 CONVERGED, 5 INVALID" in repr(found)
    assert "nan" not in repr(found)
    assert repr(nearest_neighbours([x, x], **setting)).startswith("Neighbours(queries and neighbours (2, 1): values ")
    process = markovot.DecisionProcess([torch.eye(2)], torch.tensor([[0.0], [1.0]]))
    assert repr(markovot.bisimulation(process, gamma=0.5)).startswith("BisimulationSolution(states (2, 2): values 0, ")
