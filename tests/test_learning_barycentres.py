"""Barycentres: their value, the shapes they recover, weights, labels, restarts, and what is refused."""

import numpy as np
import pytest
import torch

from learning_checks import directed_ring, is_clean_cycle, points_on_circle
from markovot import MarkovChain, costs, discounted_wl
from markovot.datasets import load_mutag
from markovot.learning import Training, TrainingError, barycentre
from markovot.learning.starts import ExpectedCost, cluster, start, targets_of

DOUBLE = torch.float64
SETTING = {"delta": 0.5, "epsilon": 0.01}


def quick(steps=150, lr=2e-2, **options):
    return Training(steps=steps, lr=lr, progress=False, **options)


@pytest.fixture(scope="module")
def of_rings():
    rings = [directed_ring(n, noise=0.1, seed=n) for n in (6, 8, 9, 11)]
    return rings, barycentre(rings, 8, cost=costs.Euclidean(), restarts=2, training=quick(lr=4e-2))


def test_of_noisy_directed_rings_is_a_clean_cycle(of_rings):
    _, found = of_rings
    assert is_clean_cycle(found.chain)
    assert found.chain.transition.max(1).values.min() > 0.5


def test_value_is_the_mean_of_the_distances_of_the_chain_that_is_returned(of_rings):
    rings, found = of_rings
    distances = [discounted_wl(found.chain, ring, costs.Euclidean(), **SETTING).value for ring in rings]
    assert found.value == pytest.approx(float(sum(distances) / 4), abs=2 * found.error_bound)
    torch.testing.assert_close(found.solution.value, torch.stack(distances), atol=1e-3, rtol=0)
    assert found.value == pytest.approx(found.restart_values.min(), abs=1e-3)
    assert found.history.value.shape == (150, 2)
    assert 0 < found.error_bound < 1e-3
    assert repr(found).startswith("Barycentre(8 states, value 0.")


def test_is_nearer_than_each_of_the_chains(of_rings):
    rings, found = of_rings
    stack = MarkovChain.stack(rings)
    for ring in rings:
        own = discounted_wl(ring, stack, costs.Euclidean(), **SETTING).value.mean()
        assert found.value < float(own)


def test_of_one_chain_is_that_chain():
    ring = directed_ring(4)
    found = barycentre([ring], 4, cost=costs.Euclidean(), restarts=1, training=quick(200, 5e-2))
    assert is_clean_cycle(found.chain)
    nearest = torch.cdist(found.chain.features, points_on_circle(4)).min(1)
    assert sorted(nearest.indices.tolist()) == [0, 1, 2, 3]
    assert nearest.values.max() < 0.02


def test_weights_pull_it():
    ends = [MarkovChain.from_transitions(torch.ones(1, 1, dtype=DOUBLE), features=[x]) for x in (0.0, 1.0)]
    for weights, where in (([9.0, 1.0], 0.1), ([0.0, 2.0], 1.0)):
        found = barycentre(
            ends, 1, cost=costs.SquaredEuclidean(), weights=weights, restarts=1, training=quick(200, 5e-2)
        )
        assert found.chain.features.item() == pytest.approx(where, abs=0.02)
        torch.testing.assert_close(found.weights, torch.tensor(weights, dtype=DOUBLE) / sum(weights))


def test_restarts_are_what_they_would_be_alone_and_seeds_matter():
    rings = [directed_ring(n, noise=0.2, seed=n) for n in (4, 5)]
    both = barycentre(rings, 4, cost=costs.Euclidean(), restarts=2, training=quick(20))
    one = barycentre(rings, 4, cost=costs.Euclidean(), restarts=1, training=quick(20))
    np.testing.assert_allclose(both.history.value[:, 0], one.history.value[:, 0], rtol=1e-5)
    again = barycentre(rings, 4, cost=costs.Euclidean(), restarts=2, training=quick(20))
    np.testing.assert_array_equal(both.history.value, again.history.value)
    other = barycentre(rings, 4, cost=costs.Euclidean(), restarts=2, seed=1, training=quick(20))
    assert (both.history.value[0] != other.history.value[0]).all()


def test_goes_on_from_a_checkpoint_with_the_same_bits(tmp_path):
    rings = [directed_ring(n, noise=0.2, seed=n) for n in (3, 4)]
    whole = barycentre(rings, 3, cost=costs.Euclidean(), restarts=2, training=quick(60))
    path = tmp_path / "barycentre"
    barycentre(rings, 3, cost=costs.Euclidean(), restarts=2, training=quick(50, checkpoint=path))
    found = barycentre(rings, 3, cost=costs.Euclidean(), restarts=2, training=quick(60, checkpoint=path))
    np.testing.assert_array_equal(found.history.value, whole.history.value)
    torch.testing.assert_close(found.chain.transition, whole.chain.transition, atol=0, rtol=0)


def test_torch_has_one_thread_in_training_and_its_own_number_afterwards():
    before, seen = torch.get_num_threads(), []

    def factory(parameters):
        seen.append(torch.get_num_threads())
        return torch.optim.Adam(parameters)

    torch.set_num_threads(2)
    try:
        setting = quick(2, optimiser=factory)
        barycentre([directed_ring(3)], 3, cost=costs.Euclidean(), restarts=1, training=setting)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [1]


def test_chains_in_single_precision_have_a_barycentre_in_it():
    rings = [directed_ring(n, noise=0.1, seed=n).to(torch.float32) for n in (4, 5)]
    found = barycentre(rings, 4, cost=costs.Euclidean(), restarts=1, training=quick(60, 5e-2))
    assert found.chain.dtype == found.chain.features.dtype == torch.float32
    assert is_clean_cycle(found.chain)


# --- labels
def labelled_ring(labels):
    rows = torch.eye(len(labels), dtype=DOUBLE).roll(1, 1)
    return MarkovChain.from_transitions(rows, initial="uniform", features=torch.tensor(labels))


def test_labels_are_recovered():
    found = barycentre([labelled_ring([5, 2, 7])] * 2, 3, cost=costs.ZeroOne(), restarts=2, training=quick(250, 5e-2))
    labels = found.chain.features
    assert sorted(labels.tolist()) == [2, 5, 7]
    assert found.labels.tolist() == [2, 5, 7]
    following = {int(labels[i]): int(labels[found.chain.transition[i].argmax()]) for i in range(3)}
    assert following == {5: 2, 2: 7, 7: 5}
    torch.testing.assert_close(found.label_probabilities.sum(1), torch.ones(3, dtype=DOUBLE))
    assert found.value < 0.05


def test_the_cost_of_a_random_label_is_its_mean():
    chain = labelled_ring([5, 2, 7, 2])
    targets = targets_of([chain, labelled_ring([2, 9])], costs.ZeroOne())
    chances = torch.tensor([[0.5, 0.2, 0.1, 0.2]], dtype=DOUBLE)  # of 2, 5, 7, 9
    cost = targets.cost(chances, targets.chains[0].features)
    torch.testing.assert_close(cost, torch.tensor([[0.8, 0.5, 0.9, 0.5]], dtype=DOUBLE))
    assert isinstance(targets.cost, ExpectedCost)


def test_of_molecules_has_the_atoms_that_they_have():
    mutag = load_mutag()
    some = [mutag.chains[k] for k in (0, 2, 4, 7)]
    found = barycentre(some, 8, cost=costs.ZeroOne(), restarts=2, training=quick(60, 5e-2))
    assert found.chain.features.dtype == torch.int64
    assert set(found.chain.features.tolist()) <= {0, 1, 2}
    assert (found.chain.features == 0).sum() >= 4  # most atoms are carbon
    # Nearer than a single carbon that stays.
    carbon = MarkovChain.from_transitions(torch.ones(1, 1, dtype=DOUBLE), features=torch.tensor([0]))
    alone = discounted_wl(carbon, MarkovChain.stack(some), costs.ZeroOne(), **SETTING).value.mean()
    assert found.value < 0.6 * float(alone)


# --- initial laws
@pytest.mark.parametrize(("laws", "kind"), [("uniform", "uniform"), ("stationary", "stationary"), ("mixed", "given")])
def test_initial_law_is_of_the_kind_of_the_chains(laws, kind):
    rows = torch.tensor([[0.2, 0.8], [0.5, 0.5]], dtype=DOUBLE)
    features = torch.tensor([0.0, 1.0], dtype=DOUBLE)
    chosen = ("uniform", "stationary") if laws == "mixed" else (laws, laws)
    chains = [MarkovChain.from_transitions(rows, initial=law, features=features) for law in chosen]
    found = barycentre(chains, 2, cost=costs.AbsoluteDifference(), restarts=1, training=quick(5))
    assert found.chain.initial_law == kind
    torch.testing.assert_close(found.chain.initial.sum(), torch.ones((), dtype=DOUBLE))


def test_a_given_initial_law_is_learned():
    rows = torch.tensor([[0.2, 0.8], [0.5, 0.5]], dtype=DOUBLE)
    features = torch.tensor([0.0, 1.0], dtype=DOUBLE)
    law = torch.tensor([0.05, 0.95], dtype=DOUBLE)
    chain = MarkovChain.from_transitions(rows, initial=law, features=features)
    found = barycentre([chain], 2, cost=costs.AbsoluteDifference(), delta=0.9, restarts=1, training=quick(250, 5e-2))
    order = found.chain.features[:, 0].argsort()
    torch.testing.assert_close(found.chain.initial[order], law, atol=0.03, rtol=0)


# --- starts
def test_clusters_of_separate_clouds_are_the_clouds():
    random = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])
    truth = np.repeat(np.arange(3), 20)
    points = centres[truth] + 0.1 * random.standard_normal((60, 2))
    found, which = cluster(points, np.ones(60), 3, np.random.default_rng(1))
    assert len({(a, b) for a, b in zip(truth, which, strict=True)}) == 3
    for k in range(3):
        np.testing.assert_allclose(found[k], points[which == k].mean(0), rtol=1e-12)


def test_more_clusters_than_points_leave_some_empty():
    centres, which = cluster(np.zeros((2, 1)), np.ones(2), 5, np.random.default_rng(0))
    assert centres.shape == (5, 1)
    assert np.isfinite(centres).all()
    assert len(which) == 2


def test_starts_are_near_the_counted_steps():
    ring = directed_ring(4)
    targets = targets_of([ring], costs.Euclidean())
    module = start(targets, torch.ones(1, dtype=DOUBLE), 4, restarts=1, seed=0)
    assert is_clean_cycle(module.chain(0, None))
    assert module().transition.shape == (1, 1, 4, 4)


# --- failures
def test_names_the_step_that_failed():

    with pytest.raises(TrainingError, match="step 0 of the training failed"):
        barycentre(
            [directed_ring(4)],
            3,
            cost=costs.Euclidean(),
            delta=0.01,
            rtol=1e-12, max_iter=1,
            training=quick(3),
        )


RING = directed_ring(3)
BARE = MarkovChain.from_transitions(torch.eye(3, dtype=DOUBLE).roll(1, 1), initial="uniform")


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"chains": []}, ValueError, "chains: there are none"),
        ({"chains": 3}, TypeError, "chains: expected a sequence of chains, got int"),
        ({"chains": [BARE]}, ValueError, "chains: number 0 has no features"),
        ({"chains": [RING, labelled_ring([1, 2, 3])]}, ValueError, "features of number 1"),
        ({"n_states": 0}, ValueError, "n_states: 0 is less than 1"),
        ({"n_states": 2.5}, TypeError, "n_states: expected an integer, got float"),
        ({"restarts": 0}, ValueError, "restarts: 0 is less than 1"),
        ({"weights": [1.0, 2.0, 3.0]}, ValueError, r"weights: shape \(3,\) for 2 chains"),
        ({"weights": [1.0, -2.0]}, ValueError, "weights: entry 1 is -2.0, which is negative"),
        ({"weights": [0.0, 0.0]}, ValueError, "weights: they are all 0"),
        ({"cost": torch.ones(3, 3, dtype=DOUBLE)}, TypeError, "cost: expected a cost between features"),
        ({"cost": costs.Given(torch.ones(3, 3))}, TypeError, "cost: expected a cost between features"),
        ({"cost": costs.ZeroOne()}, ValueError, "has no gradient in features that are vectors"),
        ({"delta": 0.0}, ValueError, "delta"),
        ({"epsilon": -1.0}, ValueError, "epsilon"),
        ({"seed": -1}, ValueError, "seed: -1"),
        ({"training": None}, TypeError, "training: expected a Training"),
    ],
)
def test_refuses_bad_input(change, kind, message):
    call = {"chains": [RING, RING], "n_states": 3, "cost": costs.Euclidean(), "training": quick(2)} | change
    with pytest.raises(kind, match=message):
        barycentre(call.pop("chains"), call.pop("n_states"), **call)
