"""Fits to given distances, and flows from chain to chain."""

import numpy as np
import pytest
import torch

from learning_checks import directed_ring, is_clean_cycle
from markovot import MarkovChain, costs, discounted_wl
from markovot.learning import Training, fit_distances, gradient_flow

DOUBLE = torch.float64


def quick(steps=200, lr=4e-2, **options):
    return Training(steps=steps, lr=lr, progress=False, **options)


def shifted(ring, by):
    rows = ring.transition
    return MarkovChain.from_transitions(rows, initial="uniform", features=ring.features + torch.tensor(by).double())


# --- distances
def test_finds_a_chain_at_the_wanted_distances():
    ring = directed_ring(4)
    anchors = [ring, shifted(ring, [2.0, 0.0]), shifted(ring, [0.0, 2.0])]
    wanted = [1.3, 1.8, 1.9]
    found = fit_distances(anchors, wanted, 3, cost=costs.Euclidean(), restarts=2, training=quick())
    np.testing.assert_allclose(found.distances.numpy(), wanted, atol=2e-2)
    again = discounted_wl(found.chain, MarkovChain.stack(anchors), costs.Euclidean(), delta=0.5, epsilon=0.01)
    torch.testing.assert_close(found.distances, again.value)
    off = found.distances - torch.tensor(wanted, dtype=DOUBLE)
    assert found.error == pytest.approx(float(off.square().mean().sqrt()))
    assert found.history.value.shape == (200, 2)
    assert repr(found).startswith("DistanceFit(3 states, 3 distances, error ")


def test_finds_the_distances_of_a_chain_that_exists():
    random = np.random.default_rng(0)
    anchors = [directed_ring(n, noise=0.3, seed=n) for n in (3, 4, 5)]
    rows = torch.from_numpy(random.dirichlet(np.ones(3), 3))
    secret = MarkovChain.from_transitions(
        rows, initial="uniform", features=torch.from_numpy(random.normal(size=(3, 2)))
    )
    wanted = discounted_wl(secret, MarkovChain.stack(anchors), costs.Euclidean(), delta=0.5, epsilon=0.01).value
    found = fit_distances(anchors, wanted, 3, cost=costs.Euclidean(), restarts=2, training=quick())
    torch.testing.assert_close(found.distances, wanted, atol=2e-2, rtol=0)


def test_says_how_far_off_it_is_where_there_is_no_such_chain():
    ring = directed_ring(3)
    found = fit_distances(
        [ring, shifted(ring, [5.0, 0.0])], [0.5, 0.5], 2, cost=costs.Euclidean(), restarts=1, training=quick(150, 0.1)
    )
    assert found.error == pytest.approx(2.0, abs=0.1)  # both are five apart, and so 2.5 away from the middle


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"targets": [1.0]}, ValueError, r"targets: shape \(1,\) for 2 chains"),
        ({"targets": [1.0, -1.0]}, ValueError, "not negative"),
        ({"targets": [1.0, float("nan")]}, ValueError, "Distances are finite"),
        ({"chains": 3}, TypeError, "chains: expected a sequence of chains"),
        ({"n_states": 0}, ValueError, "n_states: 0 is less than 1"),
        ({"training": 3}, TypeError, "training: expected a Training"),
        ({"cost": costs.ZeroOne()}, ValueError, "has no gradient"),
    ],
)
def test_refuses_bad_distances(change, kind, message):
    ring = directed_ring(3)
    call = {"chains": [ring, ring], "targets": [1.0, 1.0], "n_states": 2, "cost": costs.Euclidean()} | change
    with pytest.raises(kind, match=message):
        fit_distances(call.pop("chains"), call.pop("targets"), call.pop("n_states"), **call)


# --- flows
def test_flows_from_one_chain_to_another():
    x = shifted(MarkovChain.from_transitions(torch.eye(4, dtype=DOUBLE), features=torch.randn(4, 2,
        dtype=DOUBLE, generator=torch.Generator().manual_seed(0)), initial="uniform"), [1.0, 0.0])  # fmt: skip
    y = directed_ring(4)
    flow = gradient_flow(x, y, cost=costs.Euclidean(), snapshots=5, training=quick(250, 5e-2))
    assert len(flow.chains) == len(flow.steps) == len(flow.values) == 5
    np.testing.assert_array_equal(flow.steps[:4], [0, 62, 125, 188])
    assert flow.steps[-1] == flow.history.best_step
    assert is_clean_cycle(flow.chains[-1])
    torch.testing.assert_close(flow.chains[0].features, x.features)
    torch.testing.assert_close(flow.chains[0].transition, 0.98 * x.transition + 0.02 / 4)
    assert (np.diff(flow.values) < 0).all()
    for chain, value in zip(flow.chains, flow.values, strict=True):
        distance = discounted_wl(chain, y, costs.Euclidean(), delta=0.5, epsilon=0.01).value
        assert float(distance) == pytest.approx(value, abs=1e-3)
    assert repr(flow).startswith("Flow(5 snapshots in 250 steps, ")


def test_flows_between_labels_of_different_sets():
    def ring(labels):
        rows = torch.eye(len(labels), dtype=DOUBLE).roll(1, 1)
        return MarkovChain.from_transitions(rows, initial="uniform", features=torch.tensor(labels))

    flow = gradient_flow(ring([1, 2]), ring([3, 1]), cost=costs.ZeroOne(), snapshots=2, training=quick(250, 0.1))
    assert flow.chains[0].features.tolist() == [1, 2]
    assert flow.chains[-1].features.tolist() == [1, 3]
    torch.testing.assert_close(flow.chains[-1].transition, torch.eye(2, dtype=DOUBLE).flip(0), atol=0.05, rtol=0)


def test_a_given_initial_law_flows_too():
    rows = torch.full((2, 2), 0.5, dtype=DOUBLE)
    features = torch.tensor([0.0, 1.0], dtype=DOUBLE)
    x, y = (
        MarkovChain.from_transitions(rows, initial=torch.tensor(law, dtype=DOUBLE), features=features)
        for law in ([0.9, 0.1], [0.2, 0.8])
    )
    flow = gradient_flow(x, y, cost=costs.AbsoluteDifference(), delta=0.9, snapshots=2, training=quick())
    assert flow.chains[-1].initial[0] < 0.4 < 0.85 < flow.chains[0].initial[0]


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"snapshots": 1}, ValueError, "snapshots: 1 leaves no way"),
        ({"snapshots": 2.0}, TypeError, "snapshots: expected an integer, got float"),
        ({"x": MarkovChain.stack([directed_ring(3)])}, ValueError, "x: a batch"),
        ({"y": MarkovChain.stack([directed_ring(3)])}, ValueError, "y: a batch"),
        ({"y": torch.eye(3, dtype=DOUBLE)}, ValueError, "y: it has no features"),
        ({"training": Training(checkpoint="x")}, ValueError, "its checkpoint would not keep the snapshots"),
        ({"training": None}, TypeError, "training: expected a Training"),
    ],
)
def test_refuses_bad_flows(change, kind, message):
    call = {"x": directed_ring(3), "y": directed_ring(4), "cost": costs.Euclidean(), "training": quick(2)} | change
    with pytest.raises(kind, match=message):
        gradient_flow(call.pop("x"), call.pop("y"), **call)
