"""Lower bounds of distances: never above them, tight where they can be, and good enough to search with."""

from dataclasses import dataclass

import numpy as np
import pytest
import scipy.sparse
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import Tensor

from markovot import MarkovChain, datasets
from markovot.costs import AbsoluteDifference, Cost, Euclidean, Given, SquaredEuclidean, ZeroOne
from markovot.pairwise import bounds, distance_matrix
from markovot.pairwise.blocks import PairSetting
from markovot.pairwise.collection import pack
from markovot.transport.compiled import lower_bounds
from oracles import random_law, random_rows, sinkhorn

NUMERICAL = (AbsoluteDifference(), Euclidean(), SquaredEuclidean())


@dataclass(frozen=True)
class Shifted(Cost):
    """A cost of a user's own, of which nothing is known; it may be negative."""

    def __call__(self, fx: Tensor, fy: Tensor) -> Tensor:
        return -torch.cos(fx.reshape(-1, 1) - fy.reshape(1, -1))


@dataclass(frozen=True)
class Halved(ZeroOne):
    """A subclass that computes something smaller."""

    def __call__(self, fx: Tensor, fy: Tensor) -> Tensor:
        return super().__call__(fx, fy) / 2


def make(transition, features, initial="uniform"):
    law = initial if isinstance(initial, str) else torch.as_tensor(initial)
    return MarkovChain.from_transitions(transition, initial=law, features=torch.as_tensor(features))


def random_chains(seed, features, *, num=6, degrees=(2, 3, None)):
    """Chains of three to eleven states, whose features are `features(rng, n)`."""
    rng = np.random.default_rng(seed)
    chains = []
    for k in range(num):
        n = int(rng.integers(3, 12))
        rows = random_rows(rng, n, degrees[k % len(degrees)])
        rows = scipy.sparse.csr_array(rows) if k % 2 else rows
        chains.append(make(rows, features(rng, n), random_law(rng, n, zeros=k % 2)))
    return chains


def labels(rng, n):
    return rng.integers(0, 4, n)


def numbers(rng, n):
    return rng.normal(size=n)


def vectors(rng, n):
    return rng.normal(size=(n, 3)) + rng.normal(size=3)


def both(chains, cost, *, delta=0.2, epsilon=0.01):
    """The cheap and the refined bounds between all chains, (k, k) each."""
    packed = [pack(chain, cost) for chain in chains]
    features = [chain.features for chain in packed]
    known = None if features[0] is None else bounds.embedding(cost, np.concatenate(features))
    own = bounds.signatures(packed, known, delta)
    every, setting = np.arange(len(packed)), PairSetting(cost, delta, epsilon, 1e-4, 100)
    cheap = [bounds.lower_bounds(own, query, own) for query in every]
    refined = [bounds.refined_bounds(own, query, own, every, setting) for query in every]
    return np.array(cheap), np.array(refined)


def exact(chains, cost, *, delta=0.2, epsilon=0.01, rtol=1e-7):
    return distance_matrix(
        chains, chains, cost=cost, delta=delta, epsilon=epsilon, rtol=rtol, progress=False
    )


CASES = [
    (ZeroOne(), labels),
    (Halved(), labels),
    (Shifted(), numbers),
    *[(cost, features) for cost in NUMERICAL for features in (numbers, vectors)],
]


# --- never above the distance
@pytest.mark.parametrize(
    ("delta", "epsilon"), [(0.05, 0.01), (0.2, 1e-4), (0.2, 0.05), (0.3, 0.0), (0.7, 1.0), (1.0, 0.1)]
)
@pytest.mark.parametrize(("cost", "features"), CASES)
def test_bounds_are_below_the_distances(cost, features, delta, epsilon):
    chains = random_chains(1, features)
    found = exact(chains, cost, delta=delta, epsilon=epsilon)
    for bound in both(chains, cost, delta=delta, epsilon=epsilon):
        assert (bound <= found.value + found.error_bound).all()


@pytest.mark.parametrize(("cost", "features"), CASES)
def test_refined_bounds_are_worth_their_time(cost, features):
    chains = random_chains(2, features)
    truth = exact(chains, cost).value
    cheap, refined = both(chains, cost)
    low = -1.0 if isinstance(cost, Shifted) else 0.0
    apart = ~np.eye(len(chains), dtype=bool)
    assert ((np.maximum(cheap, refined) - low) / (truth - low))[apart].mean() > 0.7
    if type(cost) is ZeroOne or cost in NUMERICAL:
        # squares of mean distances say less of mean squares
        assert (cheap / truth)[apart].mean() > (0.2 if cost == SquaredEuclidean() else 0.4)


@pytest.mark.parametrize("cost", NUMERICAL)
def test_bounds_hold_for_features_in_single_precision(cost):
    rng = np.random.default_rng(3)
    # single states without a future: nothing but rounding parts the bound from the distance
    chains = [make(np.eye(1), rng.normal(size=(1, 3)).astype(np.float32)) for _ in range(12)]
    found = exact(chains, cost, delta=1.0)
    for bound in both(chains, cost, delta=1.0):
        assert (bound <= found.value + found.error_bound).all()
        assert_allclose(bound, found.value, rtol=1e-4, atol=1e-3)


def test_a_hundred_labels_share_the_columns_of_an_embedding():
    rng = np.random.default_rng(4)
    chains = [make(random_rows(rng, 40, 3), rng.integers(0, 100, 40)) for _ in range(4)]
    found = exact(chains, ZeroOne())
    cheap, refined = both(chains, ZeroOne())
    assert (cheap <= found.value + found.error_bound).all()
    assert (refined <= found.value + found.error_bound).all()
    some = np.concatenate([chain.features.numpy() for chain in chains])
    assert len(bounds.embedding(ZeroOne(), some).vectors(some[:5, None])) == bounds.VECTOR_ENTRIES


# --- tight where they can be
@pytest.mark.parametrize(("cost", "distance"), list(zip(NUMERICAL, (7.0, 5.0, 25.0), strict=True)))
def test_bounds_are_tight_between_single_states(cost, distance):
    one, other = (make(np.eye(1), [feature]) for feature in ([0.0, 1.0], [3.0, 5.0]))
    cheap, refined = both([one, other], cost)
    assert_allclose(cheap[0, 1], distance, rtol=3e-3)  # the squared one feels the tail that is left out twice
    assert_allclose(refined[0, 1], distance, rtol=3e-3)


def test_bounds_are_tight_between_sequences_of_independent_draws():
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.3, 0.6])
    chains = [make(np.tile(law, (3, 1)), [5, 6, 7], law) for law in (p, q)]
    cheap, _ = both(chains, ZeroOne())
    assert_allclose(cheap, 0.4 * (1 - np.eye(2)), atol=1e-3)
    cheap, _ = both([make(np.tile(law, (3, 1)), [0.0, 1.0, 5.0], law) for law in (p, q)], AbsoluteDifference())
    assert_allclose(cheap[0, 1], 0.4 * 1 + 0.4 * 4, rtol=2e-3)  # the area between the distribution functions


def test_one_dimensional_laws_are_compared_beyond_their_means():
    one, other = (make(np.full((2, 2), 0.5), features) for features in ([0.0, 3.0], [1.0, 2.0]))
    for cost in NUMERICAL:
        assert_allclose(both([one, other], cost)[0][0, 1], 1.0, rtol=3e-3)


def test_sweeps_are_exact_where_nothing_is_left_to_chance():
    ring = np.roll(np.eye(6), 1, axis=1)
    point = np.eye(6)[0]
    chains = [make(ring, [0, 0, 1, 1, 2, k], point) for k in (0, 1)]
    truth = exact(chains, ZeroOne(), delta=0.4).value
    cheap, refined = both(chains, ZeroOne(), delta=0.4)
    assert_allclose(refined, truth, atol=bounds.SWEEP_SHARE)
    assert cheap[0, 1] < truth[0, 1] + 1e-12


def test_sweeps_see_the_entropy():
    rng = np.random.default_rng(5)
    chain = make(random_rows(rng, 6, 3), np.arange(6))
    truth = exact([chain], ZeroOne()).value
    cheap, refined = both([chain], ZeroOne())
    assert abs(cheap[0, 0]) < 1e-9
    assert refined[0, 0] > 0.8 * truth[0, 0] > 0.02


@pytest.mark.parametrize("epsilon", [0.0, 0.01])
def test_states_that_are_all_alike_are_at_distance_zero(epsilon):
    chains = random_chains(16, lambda rng, n: np.zeros(n), num=3)
    for cost in (ZeroOne(), *NUMERICAL):
        for bound in both(chains, cost, epsilon=epsilon):
            assert_allclose(bound, 0.0, atol=1e-9)
            assert (bound <= 1e-12).all()


def test_without_a_future_the_refined_bound_is_the_transport_of_the_initial_laws():
    chains = random_chains(6, labels, num=3)
    truth = exact(chains, ZeroOne(), delta=1.0, epsilon=0.1).value
    assert_allclose(both(chains, ZeroOne(), delta=1.0, epsilon=0.1)[1], truth, atol=bounds.COUPLING_SHARE)


# --- what must not matter
@pytest.mark.parametrize(
    "rename",
    [
        lambda f: f * 10**15 - 3,
        lambda f: torch.where(f == 0, -0.0, -f.double()),
        lambda f: torch.stack([f // 2, f % 2], dim=1),
    ],
)
def test_bounds_do_not_depend_on_the_names_of_labels(rename):
    chains = random_chains(7, labels, num=4)
    renamed = [make(chain.to_dense().transition, rename(chain.features), chain.initial) for chain in chains]
    for one, other in zip(both(chains, ZeroOne()), both(renamed, ZeroOne()), strict=True):
        assert_allclose(one, other, atol=1e-9)


def test_zeros_of_either_sign_are_one_label():
    chains = [make(np.eye(2), features) for features in ([0.0, -0.0], [-0.0, -0.0])]
    cheap, refined = both(chains, ZeroOne())
    assert (cheap <= 0).all()
    assert (refined <= 1e-9).all()


@pytest.mark.parametrize(("cost", "features"), [(ZeroOne(), labels), (Euclidean(), vectors)])
def test_bounds_do_not_depend_on_the_order_of_the_states(cost, features):
    rng = np.random.default_rng(8)
    chains = random_chains(8, features, num=4)
    permuted = []
    for chain in chains:
        order = torch.from_numpy(rng.permutation(chain.num_states))
        rows = chain.to_dense().transition[order][:, order]
        permuted.append(make(rows, chain.features[order], chain.initial[order]))
    (cheap, refined), (cheap_too, refined_too) = both(chains, cost), both(permuted, cost)
    assert_allclose(cheap, cheap_too, atol=1e-11)
    assert_allclose(refined, refined_too, atol=2 * bounds.COUPLING_SHARE * refined.max())


def test_bounds_do_not_depend_on_how_the_references_are_cut(monkeypatch):
    chains = random_chains(9, labels, num=8)
    _, whole = both(chains, ZeroOne())
    monkeypatch.setattr(bounds, "CHUNK_ENTRIES", 150)
    assert len(list(bounds.chunks(np.array([100, 100, 50, 200, 10])))) == 4
    _, cut = both(chains, ZeroOne())
    assert_allclose(cut, whole, atol=2 * bounds.COUPLING_SHARE)
    assert (cut != whole).any()


def test_no_references_give_no_bounds():
    packed = [pack(chain, ZeroOne()) for chain in random_chains(9, labels, num=2)]
    own = bounds.signatures(packed, None, 0.2)
    setting = PairSetting(ZeroOne(), 0.2, 0.01, 1e-4, 100)
    assert len(bounds.refined_bounds(own, 0, own, np.zeros(0, dtype=np.int64), setting)) == 0


# --- costs of which nothing is known
def test_nothing_is_claimed_for_a_cost_of_which_nothing_is_known():
    chains = random_chains(10, labels, num=3)
    for cost in (Halved(), Shifted()):
        assert bounds.embedding(cost, np.arange(3)) is None
        assert_array_equal(both(chains, cost)[0], -np.inf)


def test_a_given_matrix_needs_no_features():
    rng = np.random.default_rng(11)
    cost = Given(torch.from_numpy(rng.uniform(-1.0, 1.0, (5, 5))))
    chains = [MarkovChain.from_transitions(torch.from_numpy(random_rows(rng, 5, 2))) for _ in range(3)]
    found = exact(chains, cost)
    cheap, refined = both(chains, cost)
    assert_array_equal(cheap, -np.inf)
    assert (refined <= found.value + found.error_bound).all()
    assert (refined > float(cost().min()) + 0.1).all()


def test_costs_that_are_not_finite_are_left_to_the_solver():
    @dataclass(frozen=True)
    class Broken(Cost):
        def __call__(self, fx, fy):
            return torch.where(fx.reshape(-1, 1) == fy.reshape(1, -1), torch.nan, 1.0)

    _, refined = both(random_chains(12, labels, num=2), Broken())
    assert_array_equal(refined, -np.inf)


# --- the sweeps themselves
def one_sided(problem, cost, kept, epsilon):
    """`delta D + (1 - delta)` times the transport values with one marginal, state by state."""
    a, b, ground, delta = problem
    values = np.zeros_like(cost)
    for i, j in np.ndindex(cost.shape):
        k, l = np.flatnonzero(a[i]), np.flatnonzero(b[j])
        local = cost[np.ix_(k, l)]
        if epsilon is None:
            values[i, j] = a[i, k] @ local.min(1) if kept == 0 else b[j, l] @ local.min(0)
        elif kept == 0:
            values[i, j] = a[i, k] @ (-epsilon * np.log(np.exp(-local / epsilon) @ b[j, l]))
        else:
            values[i, j] = b[j, l] @ (-epsilon * np.log(a[i, k] @ np.exp(-local / epsilon)))
    return delta * ground + (1 - delta) * values


def compressed(matrices):
    """Rows of several chains, as the kernel takes them."""
    rows = np.concatenate([[np.count_nonzero(row) for row in matrix] for matrix in matrices])
    index = np.concatenate([np.nonzero(matrix)[1] for matrix in matrices])
    weight = np.concatenate([matrix[np.nonzero(matrix)] for matrix in matrices])
    return lower_bounds.Chains(np.concatenate([[0], np.cumsum(rows)]), index, weight)


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_a_sweep_is_what_its_formula_says(scale):
    rng = np.random.default_rng(13)
    delta, epsilon = 0.3, 0.05
    a, others = random_rows(rng, 5, 3), [random_rows(rng, 4, 2), random_rows(rng, 9, 4)]
    ground = rng.uniform(0, scale, (5, 13))
    start = 0.1 * rng.uniform(0, scale, (5, 13))
    found = start.copy()
    lower_bounds.raise_bounds(
        np.array([0, 1]), compressed([a]), compressed(others), np.array([0, 4, 13]), ground,
        lower_bounds.Sweeps(delta, epsilon, 1, 0.0), found,
    )  # fmt: skip
    # costs a thousand times epsilon apart have no common exponentials: then the least of them counts
    soft = epsilon if scale == 1.0 else None
    for b, part in zip(others, (slice(0, 4), slice(4, 13)), strict=True):
        problem = a, b, ground[:, part], delta
        once = np.maximum(start[:, part], one_sided(problem, start[:, part], 0, soft))
        assert_allclose(found[:, part], np.maximum(once, one_sided(problem, once, 1, soft)), rtol=1e-12)


def test_a_transport_value_with_one_marginal_is_below_the_one_with_both():
    rng = np.random.default_rng(14)
    a, b, cost = random_law(rng, 4), random_law(rng, 5), rng.uniform(size=(4, 5))
    truth = sinkhorn(a, b, cost, 0.1).value
    for kept in (0, 1):
        rows = np.tile(a, (4, 1)), np.tile(b, (5, 1)), np.zeros((4, 5)), 0.0
        assert 0 < one_sided(rows, cost, kept, 0.1)[0, 0] < truth


def test_sweeps_end_where_they_add_next_to_nothing():
    rng = np.random.default_rng(15)
    a, b, ground = random_rows(rng, 5, 2), random_rows(rng, 6, 2), rng.uniform(size=(5, 6))
    found = []
    for most, least_rise in ((1, 0.0), (1000, 1e-3), (1000, 1e-12)):
        cost = np.zeros((5, 6))
        lower_bounds.raise_bounds(
            np.array([0]), compressed([a]), compressed([b]), np.array([0, 6]), ground,
            lower_bounds.Sweeps(0.2, 0.01, most, least_rise), cost,
        )  # fmt: skip
        found.append(cost)
    once, roughly, fully = found
    assert (roughly > once).any()
    assert_allclose(roughly, fully, atol=1e-3)
    assert (fully > roughly).any()


# --- what they are for
def test_few_pairs_of_molecules_are_left_to_solve():
    chains = datasets.load_mutag().chains
    cost, delta, epsilon = ZeroOne(), 0.2, 0.01
    packed = [pack(chain, cost) for chain in chains]
    own = bounds.signatures(packed, bounds.embedding(cost, np.concatenate([c.features for c in packed])), delta)
    setting = PairSetting(cost, delta, epsilon, 1e-4, 100)
    first, second = [], []
    for query in range(5, 188, 30):
        truth = distance_matrix([chains[query]], chains, cost=cost, delta=delta, epsilon=epsilon, progress=False)
        others = np.delete(np.arange(188), query)
        nearest = truth.value[0, others].min()
        cheap = bounds.lower_bounds(own, query, own)[others]
        left = others[cheap <= nearest]
        refined = bounds.refined_bounds(own, query, own, left, setting)
        assert (refined <= truth.value[0, left] + truth.error_bound[0, left]).all()
        first.append(len(left))
        second.append((refined <= nearest).sum())
    assert np.mean(first) < 60
    assert np.mean(second) < 10
