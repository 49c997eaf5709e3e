"""Bisimulation metrics: by hand, as fixed points of a slow operator, beside partition refinement, on toy-text games."""

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch

from bisimulation_checks import Array, assert_fixed_point, dense, lifted, process, random_process, relation
from markovot import MarkovChain, Status, discounted_wl, interop
from markovot.mdp import DecisionProcess, bisimulation, operator
from oracles import exact_transport, random_rows
from solving import csr
from test_interop_gymnasium import TABLES, stored_table


# --- by hand
def test_two_absorbing_states_differ_by_their_rewards():
    model = process(np.eye(2), [0.0, 3.0])
    for gamma in (0.0, 0.5, 0.99):
        solution = bisimulation(model, gamma=gamma, rtol=1e-11)
        torch.testing.assert_close(solution.value, torch.tensor([[0.0, 3.0], [3.0, 0.0]], dtype=torch.float64))
        assert solution.status is Status.CONVERGED
        assert solution.converged


def test_a_gamble_beside_a_sure_thing():
    # States 0 and 1 absorb, with rewards 0 and 8. From 2 the walk goes to either, from 3 to state 1.
    rows = [[1, 0, 0, 0], [0, 1, 0, 0], [0.5, 0.5, 0, 0], [0, 1, 0, 0]]
    value = bisimulation(process(rows, [0, 8, 0, 0]), gamma=0.75, rtol=1e-12).value
    assert value[0, 1].item() == pytest.approx(8)
    assert value[2, 3].item() == pytest.approx(0.75 * 0.5 * 8)
    assert value[0, 3].item() == pytest.approx(0.75 * 8)
    assert value[1, 3].item() == pytest.approx(0.25 * 8)


def test_the_action_that_tells_most_counts():
    # Action 0 stays, action 1 swaps, action 2 leads both states to state 1 and pays state 0 ten more.
    rows = [np.eye(2), np.eye(2)[::-1], [[0, 1], [0, 1]]]
    solution = bisimulation(process(rows, [[1, 0, 10], [0, 0, 0]]), gamma=0.5, rtol=1e-12)
    # Action 0: 0.5 + 0.5 c = c gives 1. Action 1: 0.5 c. Action 2: 5 = c, and then action 0 gives 3.
    assert solution.value[0, 1].item() == pytest.approx(5)
    assert solution.actions.tolist() == [[0, 2], [2, 0]]


def test_gamma_zero_compares_rewards_alone():
    model = random_process(1)
    difference = (model.reward[:, None] - model.reward).abs().amax(2)
    torch.testing.assert_close(bisimulation(model, gamma=0.0).value, difference)


def test_the_unscaled_metric_is_value_over_one_minus_gamma():
    model, gamma = random_process(2), 0.8
    found = (bisimulation(model, gamma=gamma, rtol=1e-12).value / (1 - gamma)).numpy()
    P, r = dense(model)
    wanted = np.zeros((5, 5))
    for a, i, j in np.ndindex(3, 5, 5):
        here = abs(r[i, a] - r[j, a]) + gamma * exact_transport(P[a, i], P[a, j], found)
        wanted[i, j] = max(wanted[i, j], here)
    np.testing.assert_allclose(found, wanted, atol=1e-9)


def discrete_classes(model: DecisionProcess) -> list[int]:
    """What google-research's `DiscreteBisimulation` checks, as its pull request 1509 describes it: the mistake.

    States are kept together where their rewards agree and where their chances to move into *their own class* do; the
    definition asks for equal chances to move into every class.
    """
    P, r = dense(model)
    labels = [0] * len(r)
    while True:
        keys = [
            (labels[s], *r[s], *(P[a, s, [labels[t] == labels[s] for t in range(len(r))]].sum() for a in range(len(P))))
            for s in range(len(r))
        ]
        finer = [sorted(set(keys)).index(key) for key in keys]
        if max(finer) == max(labels):
            return labels
        labels = finer


def test_states_whose_futures_differ_are_apart_where_the_discrete_metric_says_zero():
    # 0 -> 2 -> 4 and 1 -> 3 -> 4, where 4 absorbs. Rewards: 0.2 from 0 and 1, but 0.5 from 2, and 1 from 3. So 0 and 1
    # pay the same and both leave their class {0, 1} for certain: to different classes, which the faulty check does not
    # look at. They are not bisimilar, since the step after tells them apart.
    to = [2, 3, 4, 4, 4]
    model = process([np.eye(5)[to], np.eye(5)[[4] * 5]], [[0.2, 0], [0.2, 0], [0.5, 0], [1, 0], [0, 0]])
    labels = discrete_classes(model)
    assert labels[0] == labels[1]
    gamma = 0.9
    solution = bisimulation(model, gamma=gamma, rtol=1e-12)
    assert not solution.bisimilar[0, 1]
    assert solution.value[2, 3].item() == pytest.approx((1 - gamma) * 0.5)
    assert solution.value[0, 1].item() == pytest.approx(gamma * (1 - gamma) * 0.5)


# --- fixed points of the slow operator
@pytest.mark.parametrize("gamma", [0.3, 0.9, 0.99])
@pytest.mark.parametrize("degree", [None, 2])
@pytest.mark.parametrize("seed", range(3))
def test_the_metric_is_the_fixed_point(seed: int, degree: int | None, gamma: float):
    model = random_process(seed, degree=degree)
    solution = bisimulation(model, gamma=gamma, rtol=1e-11)
    assert solution.error_bound <= 2e-11
    assert_fixed_point(model, model, solution.value, gamma, 0.0, 1e-9)


@pytest.mark.parametrize("epsilon", [0.0, 0.05])
def test_two_models(epsilon: float):
    x, y = random_process(3, n=4, degree=2), random_process(4, n=6)
    solution = bisimulation(x, y, gamma=0.8, epsilon=epsilon, rtol=1e-9)
    assert solution.value.shape == solution.actions.shape == solution.bisimilar.shape == (4, 6)
    assert_fixed_point(x, y, solution.value, 0.8, epsilon, 1e-7)
    other = bisimulation(y, x, gamma=0.8, epsilon=epsilon, rtol=1e-9).value
    torch.testing.assert_close(solution.value, other.T, rtol=0, atol=1e-8)


@pytest.mark.parametrize("epsilon", [1.0, 0.05])
def test_entropic_transport(epsilon: float):
    model = random_process(5)
    solution = bisimulation(model, gamma=0.8, epsilon=epsilon, rtol=1e-9)
    assert_fixed_point(model, model, solution.value, 0.8, epsilon, 1e-7)
    exact = bisimulation(model, gamma=0.8, rtol=1e-9).value
    assert (solution.value - exact).min() > -1e-8
    assert (solution.value - exact).max() <= 0.8 / 0.2 * epsilon * math.log(5)
    assert solution.value.diagonal().max() > 1e-3


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_one_action_twice_is_the_cost_to_go_of_the_chain(epsilon: float):
    rng = np.random.default_rng(6)
    n = 45 if epsilon else 9  # dense enough for the engine of matrix products
    rows, reward = random_rows(rng, n), rng.uniform(0, 1, n)
    model = process([rows, rows], np.stack([reward, reward], axis=1))
    found = bisimulation(model, gamma=0.6, epsilon=epsilon, rtol=1e-6)
    chain = MarkovChain.from_transitions(rows, initial="uniform")
    ground = torch.from_numpy(np.abs(reward[:, None] - reward))
    wanted = discounted_wl(chain, chain, ground, delta=0.4, epsilon=epsilon, rtol=1e-6)
    torch.testing.assert_close(found.value, wanted.cost_to_go, rtol=0, atol=3e-6)
    assert found.error_bound <= 1e-6


@pytest.mark.parametrize("seed", range(8))
def test_error_bounds_hold_at_every_tolerance(seed: int):
    model = random_process(seed, n=6, degree=3)
    best = bisimulation(model, gamma=0.95, rtol=1e-12).value
    for rtol in (0.3, 1e-2, 1e-4):
        rough = bisimulation(model, gamma=0.95, rtol=rtol)
        assert rough.error_bound <= rtol * 2
        assert (rough.value - best).abs().max() <= rough.error_bound + 1e-11


def test_symmetric_nonnegative_and_triangular():
    model = random_process(7, n=9, degree=3)
    solution = bisimulation(model, gamma=0.9)
    value = solution.value
    assert torch.equal(value, value.T)
    assert torch.equal(solution.actions, solution.actions.T)
    assert not value.diagonal().any()
    assert value.min() >= 0
    assert (value[:, None] - value[:, :, None] - value).max() <= 3 * solution.error_bound  # C_ik <= C_ij + C_jk


def test_relabelling_scaling_and_more_actions():
    model = random_process(8)
    P, r = dense(model)
    value = bisimulation(model, gamma=0.7, rtol=1e-12).value
    order = np.random.default_rng(0).permutation(5)
    moved = bisimulation(process(P[::-1][:, order][:, :, order], 10 * r[order][:, ::-1]), gamma=0.7, rtol=1e-12).value
    torch.testing.assert_close(moved, 10 * value[order][:, order])
    fewer = bisimulation(process(P[:2], r[:, :2]), gamma=0.7, rtol=1e-12).value
    assert (value - fewer).min() > -1e-10
    assert (value - fewer).max() > 1e-2


def test_tiles_and_layouts_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch):
    model = random_process(9, n=11, degree=3)
    P, r = dense(model)
    value = bisimulation(model, gamma=0.9, rtol=1e-12).value
    layouts = [
        torch.from_numpy(P).to_sparse(), list(torch.from_numpy(P)), [scipy.sparse.csr_array(rows) for rows in P],
        [csr(torch.from_numpy(P[0])), P[1], P[2]],
    ]  # fmt: skip
    for layout in layouts:
        found = bisimulation(DecisionProcess(layout, r), gamma=0.9, rtol=1e-12).value
        torch.testing.assert_close(found, value, rtol=0, atol=1e-13)
    monkeypatch.setattr(operator, "TILE", 2)
    tiled = bisimulation(model, gamma=0.9, rtol=1e-12)
    torch.testing.assert_close(tiled.value, value, rtol=0, atol=1e-11)
    assert torch.equal(tiled.value, tiled.value.T)


# --- bisimilar states
@pytest.mark.parametrize("seed", range(12))
def test_distance_zero_exactly_for_bisimilar_states(seed: int):
    P, r = lifted(seed)
    wanted = relation(P, r)
    solution = bisimulation(process(np.array(P, dtype=float), r), gamma=0.9)
    assert wanted.sum() > len(r)
    assert not wanted.all()
    np.testing.assert_array_equal(solution.bisimilar, wanted)
    np.testing.assert_array_equal(solution.value == 0, wanted)
    assert solution.value[~solution.bisimilar].min() > 1e-4
    assert_fixed_point(*[process(np.array(P, dtype=float), r)] * 2, solution.value, 0.9, 0.0, 1e-5)


def test_bisimilar_states_of_two_models_are_at_distance_zero():
    small = process([[[0.5, 0.5], [0.0, 1.0]]], [1, 0])
    # States 0 and 1 share what state 0 of the small process does, state 3 never leaves.
    large = process([[[0.25, 0.25, 0.5, 0.0], [0.5, 0.0, 0.1, 0.4], [0, 0, 0, 1], [0, 0, 0, 1]]], [1, 1, 0, 0])
    solution = bisimulation(small, large, gamma=0.9)
    assert solution.bisimilar.tolist() == [[True, True, False, False], [False, False, True, True]]
    assert ((solution.value == 0) == solution.bisimilar).all()
    assert solution.value[0, 2] > 0.1
    assert_fixed_point(small, large, solution.value, 0.9, 0.0, 1e-5)


def test_entropic_distances_are_those_of_classes_too():
    P, r = lifted(5, states=6, classes=3)
    model = process(np.array(P, dtype=float), r)
    solution = bisimulation(model, gamma=0.7, epsilon=0.1, rtol=1e-9)
    np.testing.assert_array_equal(solution.bisimilar, relation(P, r))
    assert_fixed_point(model, model, solution.value, 0.7, 0.1, 1e-7)


def test_what_differs_by_rounding_is_merged_within_the_bound():
    rows = np.array([[0.3, 0.7, 0, 0], [0.3, 0.7, 0, 0], [0.3 + 1e-13, 0.7 - 1e-13, 0, 0], [0, 0, 0, 1]])
    model = process(rows, [0, 5, 0, 1])
    merged = bisimulation(model, gamma=0.9)
    assert merged.value[0, 2] == 0
    assert merged.bisimilar[0, 2]
    assert 1e-13 < merged.error_bound < 1e-5
    sharp = bisimulation(model, gamma=0.9, rtol=1e-13, throw=False)  # where merging would cost too much
    assert not sharp.bisimilar[0, 2]
    assert sharp.value[0, 2] < 1e-11
    apart = bisimulation(process(rows + 1e-5 * np.array([[-1, 1, 0, 0]] + 3 * [[0] * 4]), [0, 5, 0, 1]), gamma=0.9)
    assert not apart.bisimilar[0, 2]
    assert apart.value[0, 2] > 1e-6


# --- toy-text environments
@pytest.mark.parametrize("name", ["FrozenLake4x4", "FrozenLake4x4_slippery", "CliffWalking_slippery"])
def test_environments_and_stored_tables(shared_data: Path, name: str):
    model = DecisionProcess.from_gymnasium(TABLES[name]())
    stored = bisimulation(DecisionProcess.from_gymnasium(stored_table(shared_data, name)), gamma=0.9)
    solution = bisimulation(model, gamma=0.9)
    torch.testing.assert_close(solution.value, stored.value, rtol=0, atol=1e-5 * float(solution.value.max()))
    torch.testing.assert_close(bisimulation(interop.transition_table(TABLES[name]()), gamma=0.9).value, solution.value)
    if name == "FrozenLake4x4_slippery":
        assert_fixed_point(model, model, solution.value, 0.9, 0.0, 1e-5)


@pytest.mark.parametrize("name", ["FrozenLake4x4_slippery", "FrozenLake8x8_slippery"])
def test_optimal_values_differ_by_no_more(name: str):
    model, gamma = DecisionProcess.from_gymnasium(TABLES[name]()), 0.95
    P, r = dense(model)
    value = np.zeros(len(r))
    for _ in range(800):
        value = (r + gamma * np.einsum("ast,t->sa", P, value)).max(1)
    solution = bisimulation(model, gamma=gamma)
    slack = solution.value.numpy() - (1 - gamma) * np.abs(value[:, None] - value)
    assert slack.min() >= -solution.error_bound - 1e-12
    assert solution.bisimilar[model.num_states - 1].sum() > 4  # the goal, once reached, pays no more than the holes


def deterministic_metric(model: DecisionProcess, gamma: float, steps: int) -> tuple[Array, Array]:
    """Value iteration where every step is certain, and the classes, by names of names of next states."""
    P, r = dense(model)
    following = P.argmax(2)
    value = np.zeros((len(r), len(r)))
    for _ in range(steps):
        actions = [
            (1 - gamma) * np.abs(gain[:, None] - gain) + gamma * value[to][:, to]
            for gain, to in zip(r.T, following, strict=True)
        ]
        value = np.max(actions, axis=0)
    names = np.zeros(len(r), dtype=int)
    while True:
        keys = [(names[s], *r[s], *names[following[:, s]]) for s in range(len(r))]
        index = {key: number for number, key in enumerate(sorted(set(keys)))}
        if len(index) == len(set(names)):
            return value, names[:, None] == names
        names = np.array([index[key] for key in keys])


@pytest.mark.parametrize("name", ["FrozenLake8x8", "CliffWalking", "Taxi"])
def test_deterministic_environments(name: str):
    model = DecisionProcess.from_gymnasium(TABLES[name]())
    value, same = deterministic_metric(model, 0.8, 60)
    solution = bisimulation(model, gamma=0.8)
    np.testing.assert_allclose(solution.value, value, rtol=0, atol=solution.error_bound + 0.8**60 * value.max())
    np.testing.assert_array_equal(solution.bisimilar, same)
    np.testing.assert_array_equal(solution.value == 0, same)


def test_a_slippery_lake_is_near_to_itself_and_far_from_ice_that_holds():
    slippery, firm = (DecisionProcess.from_gymnasium(TABLES[f"FrozenLake4x4{kind}"]()) for kind in ("_slippery", ""))
    between = bisimulation(slippery, firm, gamma=0.9)
    assert between.bisimilar[5].sum() == between.bisimilar[15].sum() == 5  # holes and the goal, in both
    assert between.value[14, 14] > 0.05
