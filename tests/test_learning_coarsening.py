"""Coarsening: rings to smaller rings, blocks to states, several steps at a time, and what is refused."""

import numpy as np
import pytest
import torch

from learning_checks import block_chain, directed_ring, is_clean_cycle, most_agreeing
from markovot import MarkovChain, costs, discounted_wl
from markovot.learning import Training, coarsen, several_steps
from markovot.learning.starts import cluster

DOUBLE = torch.float64
RING = directed_ring(30)


def quick(steps=250, lr=5e-2, **options):
    return Training(steps=steps, lr=lr, progress=False, **options)


@pytest.mark.parametrize("n_states", [5, 10, 15])
def test_a_ring_becomes_a_smaller_ring(n_states):
    found = coarsen(RING, n_states, cost=costs.Euclidean(), training=quick())
    assert is_clean_cycle(found.chain)
    assert found.chain.transition.max(1).values.min() > 0.98
    # Each small state stands for neighbours, and nearly as many as any other.
    counts = found.groups.bincount(minlength=n_states)
    assert counts.min() >= 30 // n_states - 1
    assert counts.max() <= 30 // n_states + 1
    changes = (found.groups != found.groups.roll(1)).sum()
    assert changes == n_states


def test_the_start_alone_is_worse():
    short, long = (
        coarsen(RING, 6, cost=costs.Euclidean(), training=quick(steps)).history.value[-1, 0] for steps in (1, 250)
    )
    assert long < 0.9 * short


def test_a_ratio_that_is_not_whole_still_gives_a_ring():
    found = coarsen(RING, 20, cost=costs.Euclidean(), training=quick(200, 3e-2))
    assert found.target.num_states == 30
    torch.testing.assert_close(found.target.to_dense().transition[0, [1, 2]], torch.tensor([0.5, 0.5], dtype=DOUBLE))
    assert is_clean_cycle(found.chain)


def test_blocks_are_recovered_where_features_alone_do_not_tell_them_apart():
    chain, truth = block_chain(noise=0.5, seed=0)
    by_features = max(
        most_agreeing(cluster(chain.features.numpy(), np.ones(25), 5, np.random.default_rng(k))[1], truth, 5)
        for k in range(10)
    )
    assert by_features <= 22
    found = coarsen(
        chain, 5, cost=costs.Euclidean(), delta=0.2, steps_per_move=1, restarts=2, training=quick(150, 4e-2)
    )
    assert most_agreeing(found.groups, truth, 5) == 25


def test_what_it_returns_fits_together():
    found = coarsen(directed_ring(6), 3, cost=costs.Euclidean(), training=quick(60))
    distance = discounted_wl(found.chain, found.target, costs.Euclidean(), delta=0.5, epsilon=0.05)
    assert found.value == pytest.approx(distance.value.item(), abs=2 * found.error_bound)
    assert found.value == pytest.approx(found.restart_values.min(), abs=1e-3)
    assert found.assignment.shape == (6, 3)
    torch.testing.assert_close(found.assignment.sum(1), torch.ones(6, dtype=DOUBLE))
    torch.testing.assert_close(found.assignment.argmax(1), found.groups)
    alignment = distance.alignment
    torch.testing.assert_close(found.assignment, (alignment / alignment.sum(0)).T, atol=1e-3, rtol=0)
    assert repr(found).startswith("Coarsening(6 states to 3, value ")


def test_states_where_the_chain_never_is_go_to_the_nearest():
    rows = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], dtype=DOUBLE)  # nothing leads to the third
    law = torch.tensor([0.5, 0.5, 0.0], dtype=DOUBLE)
    chain = MarkovChain.from_transitions(rows, initial=law, features=torch.tensor([0.0, 1.0, 0.1], dtype=DOUBLE))
    found = coarsen(chain, 2, cost=costs.AbsoluteDifference(), steps_per_move=1, training=quick(100, 5e-2))
    assert found.groups[2] == found.groups[0] != found.groups[1]
    assert found.assignment[2].max() == 1
    torch.testing.assert_close(found.assignment.sum(1), torch.ones(3, dtype=DOUBLE))


def test_fits_a_hidden_chain_to_the_chain_of_observed_steps():
    # Letters a and b are alike (both lead to c and d), and so are c and d.
    random = np.random.default_rng(0)
    observed = "".join(pair[random.integers(2)] for _ in range(2000) for pair in ("ab", "cd"))
    chain = MarkovChain.from_trajectories(
        list(observed), features=torch.arange(4), initial="uniform"
    )  # the states are sorted: a, b, c, d
    found = coarsen(chain, 2, cost=costs.ZeroOne(), steps_per_move=1, restarts=4, training=quick(150, 5e-2))
    groups = found.groups.tolist()
    assert groups[0] == groups[1] != groups[2] == groups[3]
    assert found.labels.tolist() == [0, 1, 2, 3]
    assert found.label_probabilities.shape == (2, 4)


def test_stationary_chains_stay_so():
    chain, _ = block_chain(noise=0.2, seed=1)
    found = coarsen(chain, 5, cost=costs.Euclidean(), training=quick(3))
    assert found.chain.initial_law == "stationary"
    torch.testing.assert_close(found.target.initial, chain.initial)


# --- several steps
@pytest.mark.parametrize("steps", [0, 1, 3, 2.25])
def test_several_steps_are_a_mixture_of_powers(steps):
    chain, _ = block_chain(noise=0.2, seed=1)
    rows, low = chain.transition, int(steps)
    expected = (1 - steps + low) * torch.linalg.matrix_power(rows, low)
    expected = expected + (steps - low) * torch.linalg.matrix_power(rows, low + 1)
    found = several_steps(chain, steps)
    torch.testing.assert_close(found.to_dense().transition, expected)
    torch.testing.assert_close(found.features, chain.features)


def test_several_steps_of_a_sparse_chain_stay_sparse():
    found = several_steps(RING, 2.5)
    assert found.is_sparse
    assert len(found.values) == 60
    assert found.initial_law == "uniform"


# --- bad input
BARE = MarkovChain.from_transitions(torch.eye(3, dtype=DOUBLE).roll(1, 1), initial="uniform")


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"chain": 3}, TypeError, "cannot make one from int"),
        ({"chain": MarkovChain.stack([RING])}, ValueError, r"chain: a batch of shape \(1,\)"),
        ({"chain": BARE}, ValueError, "has no features"),
        ({"n_states": 31}, ValueError, "n_states: 31 is more than the chain has, 30"),
        ({"n_states": 0}, ValueError, "n_states: 0 is less than 1"),
        ({"restarts": 0}, ValueError, "restarts: 0 is less than 1"),
        ({"seed": 1.5}, TypeError, "seed: expected an integer, got float"),
        ({"steps_per_move": -1.0}, ValueError, "steps_per_move"),
        ({"training": {}}, TypeError, "training: expected a Training"),
        ({"cost": torch.ones(3, 3, dtype=DOUBLE)}, TypeError, "cost: expected a cost between features"),
    ],
)
def test_refuses_bad_input(change, kind, message):
    call = {"chain": RING, "n_states": 3, "cost": costs.Euclidean(), "training": quick(2)} | change
    with pytest.raises(kind, match=message):
        coarsen(call.pop("chain"), call.pop("n_states"), **call)


def test_several_steps_refuses_batches():
    with pytest.raises(ValueError, match="chain: expected a single chain, got a batch"):
        several_steps(MarkovChain.stack([RING]), 2)
