"""Distance matrices over data sets: the same as pair by pair, whatever is asked for."""

import re
from dataclasses import dataclass

import numpy as np
import pytest
import scipy.sparse
import torch

from markovot import MarkovChain, SolveError, Status, costs, discounted_wl
from markovot.datasets import load_mutag
from markovot.pairwise import PairwiseSolution, distance_matrix, plan
from solving import blocks_solved

SETTING = {"cost": costs.ZeroOne(), "delta": 0.3, "epsilon": 0.05, "progress": False}


def random_chain(seed: int, num_states: int, *, labels: int = 3, density: float = 0.5, **options) -> MarkovChain:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(num_states, num_states, generator=generator, dtype=torch.float64)
    weights = weights * (torch.rand(num_states, num_states, generator=generator) < density)
    features = torch.randint(labels, (num_states,), generator=generator)
    return MarkovChain.from_adjacency(weights, **{"features": features, "initial": "uniform"} | options)


def several(count: int = 5) -> list[MarkovChain]:
    return [random_chain(seed, 3 + seed) for seed in range(count)]


def one_by_one(chains, others, *, cost, progress=False, **setting):
    found = [[discounted_wl(x, y, cost, **setting) for y in others] for x in chains]
    values, bounds = ([[float(getattr(s, name)) for s in row] for row in found] for name in ("value", "error_bound"))
    return np.array(values), np.array(bounds)


def assert_agrees(solution: PairwiseSolution, value, bound):
    assert (np.abs(solution.value - value) <= solution.error_bound + bound).all()


@pytest.mark.parametrize("rtol", [1e-4, 1e-8])
def test_symmetric_matrix_is_that_of_the_pairs(rtol):
    chains = several()
    solution = distance_matrix(chains, rtol=rtol, **SETTING)
    assert_agrees(solution, *one_by_one(chains, chains, rtol=rtol, **SETTING))
    np.testing.assert_array_equal(solution.value, solution.value.T)
    assert solution.converged.all()
    assert (solution.error_bound <= rtol).all()


def test_rectangular_matrix_is_that_of_the_pairs():
    chains, others = several(4), [random_chain(20 + k, 9 - k) for k in range(3)]
    solution = distance_matrix(chains, others, **SETTING)
    assert solution.value.shape == solution.error_bound.shape == solution.status.shape == (4, 3)
    assert_agrees(solution, *one_by_one(chains, others, **SETTING))


@pytest.mark.parametrize("cost", [costs.Euclidean(), costs.SquaredEuclidean(), costs.AbsoluteDifference()])
def test_costs_of_vectors(cost):
    generator = torch.Generator().manual_seed(3)
    chains = [
        random_chain(seed, 4 + seed, features=torch.rand(4 + seed, 2, generator=generator, dtype=torch.float64))
        for seed in range(3)
    ]
    solution = distance_matrix(chains, **SETTING | {"cost": cost})
    assert_agrees(solution, *one_by_one(chains, chains, **SETTING | {"cost": cost}))


def test_one_given_matrix_serves_chains_on_the_same_states():
    chains = [random_chain(seed, 4, features=None) for seed in range(3)]
    matrix = torch.rand(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    cost = costs.Given(matrix + matrix.T)
    solution = distance_matrix(chains, **SETTING | {"cost": cost})
    assert_agrees(solution, *one_by_one(chains, chains, **SETTING | {"cost": cost}))
    with pytest.raises(SolveError, match=r"chains\[3\] \(cost: the given matrix has shape \(4, 4\), but the chain"):
        distance_matrix([*chains, random_chain(9, 5)], **SETTING | {"cost": cost})


@pytest.mark.parametrize("initial", ["uniform", "stationary", "given"])
def test_initial_laws_count(initial):
    chains = []
    for seed in range(3):
        law = torch.tensor([0.0, 0.25, 0.75, *[0.0] * seed], dtype=torch.float64) if initial == "given" else initial
        chains.append(random_chain(seed, 3 + seed, density=1.0, initial=law))
    assert_agrees(distance_matrix(chains, **SETTING), *one_by_one(chains, chains, **SETTING))


def test_delta_and_epsilon_count():
    chains = several(3)
    for change in ({"delta": 1.0}, {"delta": 0.05}, {"epsilon": 0.5}, {"epsilon": 0.002}):
        solution = distance_matrix(chains, **SETTING | change)
        assert_agrees(solution, *one_by_one(chains, chains, **SETTING | change))


def test_dense_sparse_float32_and_other_forms_of_chains_mix():
    dense = random_chain(0, 5)
    matrix = scipy.sparse.csr_array(dense.transition.numpy())
    sparse = MarkovChain.from_transitions(matrix, features=dense.features, initial="uniform")
    single = MarkovChain.from_transitions(dense.transition.float(), features=dense.features, initial="uniform")
    labelled = (random_chain(1, 4).transition, random_chain(1, 4).features)  # stationary
    solution = distance_matrix([dense, sparse, single, labelled], **SETTING)
    np.testing.assert_array_equal(solution.value[0], solution.value[1])
    assert abs(solution.value[2, 3] - solution.value[0, 3]) < 1e-4
    assert solution.value[0, 3] > solution.value[0, 0]


def test_a_stack_is_a_sequence_of_its_chains():
    chains = several(3)
    stack = MarkovChain.stack(chains)
    np.testing.assert_array_equal(distance_matrix(stack, **SETTING).value, distance_matrix(chains, **SETTING).value)


def test_a_pair_is_the_same_in_any_company_and_on_any_number_of_threads():
    mutag = load_mutag().chains
    chosen = [3, 50, 51, 90, 120]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        few = distance_matrix([mutag[i] for i in chosen], **SETTING)
        torch.set_num_threads(3)
        many = distance_matrix(mutag[:130], **SETTING)
    finally:
        torch.set_num_threads(before)
    for part in ("value", "error_bound"):
        np.testing.assert_array_equal(getattr(few, part), getattr(many, part)[np.ix_(chosen, chosen)])


def test_identical_chains_are_solved_once(monkeypatch):
    chains = several(3)
    seen = blocks_solved(monkeypatch)
    solution = distance_matrix([chains[0], chains[1], chains[0], chains[2], chains[1]], **SETTING)
    assert sum(seen) == 6
    once = distance_matrix(chains, **SETTING)
    which = [0, 1, 0, 2, 1]
    np.testing.assert_array_equal(solution.value, once.value[np.ix_(which, which)])


def test_large_pairs_go_to_the_engines(monkeypatch):
    from markovot.transport.compiled import pairs

    chains = several(4)
    compiled = distance_matrix(chains, **SETTING)
    monkeypatch.setattr(pairs, "PAIR_ENTRIES", 150)
    seen = blocks_solved(monkeypatch)
    mixed = distance_matrix(chains, **SETTING)
    assert max(seen) > 1
    assert seen.count(1) > 1
    assert_agrees(mixed, compiled.value, compiled.error_bound)
    monkeypatch.setattr(pairs, "PAIR_STATES", 0)
    alone = distance_matrix(chains, **SETTING)
    assert_agrees(alone, compiled.value, compiled.error_bound)


def test_every_pair_is_in_one_block(monkeypatch):
    monkeypatch.setattr(plan, "GROUP_ENTRIES", 40)
    chains = several(7)
    seen = blocks_solved(monkeypatch)
    split = distance_matrix(chains, **SETTING)
    assert len(seen) == 10
    assert sum(seen) == 28
    monkeypatch.undo()
    np.testing.assert_array_equal(split.value, distance_matrix(chains, **SETTING).value)


# --- debiased
def test_debiased_takes_half_of_both_self_distances_off():
    chains = several(4)
    biased, debiased = (distance_matrix(chains, debiased=flag, **SETTING) for flag in (False, True))
    own = np.diagonal(biased.value)
    expected = biased.value - 0.5 * (own[:, None] + own)
    np.testing.assert_allclose(debiased.value, expected, atol=1e-15)
    np.testing.assert_array_equal(np.diagonal(debiased.value), 0.0)
    assert (np.diagonal(debiased.error_bound) == 0.0).all()
    assert (debiased.error_bound[0, 1:] > biased.error_bound[0, 1:]).all()


def test_debiased_rectangle_computes_self_distances_once(monkeypatch):
    chains = several(5)
    whole = distance_matrix(chains, debiased=True, **SETTING)
    seen = blocks_solved(monkeypatch)
    part = distance_matrix(chains[:3], chains[2:], debiased=True, **SETTING)
    assert sum(seen) == 9 + 3 + 3
    assert (np.abs(part.value - whole.value[:3, 2:]) <= part.error_bound + whole.error_bound[:3, 2:]).all()
    assert part.value[2, 0] == part.error_bound[2, 0] == 0.0


# --- failures
def test_invalid_chains_are_named_and_the_rest_is_finished():
    good = several(3)
    bad = [torch.eye(3, dtype=torch.float64) * 2, random_chain(5, 3, features=None), "not a chain"]
    with pytest.raises(SolveError) as caught:
        distance_matrix([good[0], *bad, good[1], good[2]], **SETTING)
    for part in (r"3 invalid, whose distances are NaN", r"chains\[1\] \(transition: row 0 sums to 2", r"chains\[3\]"):
        assert re.search(part, str(caught.value))
    solution = caught.value.solution
    assert set(solution.invalid) == {("chains", 1), ("chains", 2), ("chains", 3)}
    fine = [0, 4, 5]
    np.testing.assert_array_equal(solution.value[np.ix_(fine, fine)], distance_matrix(good, **SETTING).value)
    assert np.isnan(solution.value[1:4]).all()
    assert np.isnan(solution.error_bound[:, 1:4]).all()
    assert (solution.status[1] == Status.INVALID).all()


def test_invalid_chains_of_a_rectangle():
    good = several(2)
    solution = distance_matrix(good, [good[0], torch.eye(2)[:1]], throw=False, debiased=True, **SETTING)
    assert set(solution.invalid) == {("others", 1)}
    assert np.isnan(solution.value[:, 1]).all()
    assert np.isfinite(solution.value[:, 0]).all()
    assert solution.value[0, 0] == 0
    with pytest.raises(SolveError, match=r"^1 invalid, whose distances are NaN: others\[1\] \(.*\)\. Everything"):
        solution.raise_unless_converged()
    crossed = distance_matrix([torch.eye(2)[:1], *good], [*good, good[0]], throw=False, **SETTING)
    with pytest.raises(SolveError, match=r"^1 invalid, whose distances are NaN: chains\[0\] \(.*\)\. Everything"):
        crossed.raise_unless_converged()


@dataclass(frozen=True)
class Sometimes(costs.Cost):
    """Infinite between labels 0 and 2."""

    def __call__(self, fx, fy):
        apart = (fx[..., :, None, 0] - fy[..., None, :, 0]).abs()
        return torch.where(apart == 2, torch.inf, 1.0)


def test_a_pair_without_a_finite_cost_is_nan():
    chains = [random_chain(k, 4, features=torch.full((4,), k)) for k in range(3)]
    with pytest.raises(SolveError, match=r"2 of 9 pairs were not solved: \(0, 2\), \(2, 0\)"):
        distance_matrix(chains, **SETTING | {"cost": Sometimes()})
    solution = distance_matrix(chains, throw=False, **SETTING | {"cost": Sometimes()})
    wrong = np.zeros((3, 3), dtype=bool)
    wrong[0, 2] = wrong[2, 0] = True
    np.testing.assert_array_equal(np.isnan(solution.value), wrong)
    np.testing.assert_array_equal(solution.status == Status.INVALID, wrong)


def test_pairs_that_do_not_converge_keep_their_value_and_bound(monkeypatch):
    chains = several(3)
    accuracy = {"rtol": 1e-9, "max_iter": 1}
    with pytest.raises(SolveError, match=r"9 of 9 pairs were not solved.*used all its iterations") as caught:
        distance_matrix(chains, **accuracy, **SETTING)
    solution = caught.value.solution
    assert (solution.status == Status.MAX_ITER_REACHED).all()
    assert_agrees(solution, *one_by_one(chains, chains, **SETTING))
    stalled = distance_matrix(chains, rtol=1e-17, throw=False, **SETTING)
    assert (stalled.status == Status.STALLED).all()
    from markovot.transport.compiled import pairs

    monkeypatch.setattr(pairs, "PAIR_ENTRIES", 0)
    alone = distance_matrix(chains, **accuracy, throw=False, **SETTING)
    assert (alone.status == Status.MAX_ITER_REACHED).all()


def test_costs_beyond_floating_point_are_told():
    chains = [random_chain(k, 3, features=torch.full((3,), 1e200 * k, dtype=torch.float64)) for k in range(2)]
    solution = distance_matrix(chains, throw=False, **SETTING | {"cost": costs.SquaredEuclidean()})
    assert solution.status[0, 1] in (Status.INVALID, Status.NOT_FINITE)
    assert np.isnan(solution.value[0, 1])


def test_features_of_other_kinds_are_named():
    chains = several(2)
    odd = random_chain(7, 3, features=torch.ones(3, 2, dtype=torch.float64))
    with pytest.raises(SolveError, match=r"chains\[2\] \(features: float64 \(3, 2\), but those of the first chain are"):
        distance_matrix([*chains, odd], **SETTING)
    with pytest.raises(ValueError, match=r"others: not one can be used. Number 0: features: float64"):
        distance_matrix(chains, [odd], **SETTING)


@dataclass(frozen=True)
class Lopsided(costs.Cost):
    def __call__(self, fx, fy):
        return (fx[..., :, None, 0] - fy[..., None, :, 0]).double().clamp(min=0)


def test_a_lopsided_cost_needs_both_ways():
    chains = several(3)
    with pytest.raises(ValueError, match=r"cost: it is \S+ one way and \S+ the other.*others=chains"):
        distance_matrix(chains, **SETTING | {"cost": Lopsided()})
    solution = distance_matrix(chains, chains, **SETTING | {"cost": Lopsided()})
    assert (solution.value != solution.value.T).any()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"delta": 0.0}, ValueError, r"delta: 0 is outside"),
        ({"delta": torch.tensor([0.1, 0.2])}, ValueError, r"delta: shape \(2,\). All pairs share one number"),
        ({"epsilon": -1.0}, ValueError, "epsilon: -1 is not"),
        ({"cost": torch.eye(3)}, TypeError, r"cost: expected an object such as costs.ZeroOne\(\), got Tensor"),
        ({"rtol": "fine"}, TypeError, "rtol: expected a number"),
    ],
)
def test_bad_settings_are_refused(change, error, message):
    with pytest.raises(error, match=message):
        distance_matrix(several(2), **SETTING | change)


def test_bad_sets_are_refused():
    with pytest.raises(ValueError, match="chains: there are none"):
        distance_matrix([], **SETTING)
    with pytest.raises(TypeError, match="chains: expected a sequence of chains, got int"):
        distance_matrix(5, **SETTING)
    with pytest.raises(ValueError, match=r"chains: not one can be used. Number 0: cost: it compares features"):
        distance_matrix([random_chain(0, 3, features=None)], **SETTING)
    with pytest.raises(SolveError, match=r"others\[1\] \(chain: it is a batch of shape \(2,\)"):
        distance_matrix(several(1), [random_chain(0, 3), MarkovChain.stack(several(2))], **SETTING)


def test_progress_is_shown_or_not(capsys):
    distance_matrix(several(2), **SETTING)
    assert capsys.readouterr().err == ""
    distance_matrix(several(2), **SETTING | {"progress": True})
    assert "3/3" in capsys.readouterr().err
