"""The explanation adds up to the distance, and its effects are the derivatives they claim to be."""

from dataclasses import replace

import networkx
import numpy as np
import pytest
import torch
from torch import Tensor

import markovot
from markovot import MarkovChain, costs, discounted_wl
from markovot.analysis.explain import Explanation, StatePair, TransitionEffect, explain
from markovot.datasets import load_mutag
from solving import DENSE, MIXED, SPARSE, chain

ACCURACY = {"rtol": 1e-11}


def weights(n: int, seed: int) -> Tensor:
    """A connected weighted graph with loops and some missing arcs."""
    generator = torch.Generator().manual_seed(seed)
    found = torch.rand(n, n, generator=generator, dtype=torch.float64) + 0.1
    missing = torch.rand(n, n, generator=generator) < 0.3
    missing &= ~torch.diag(torch.ones(n - 1), 1).bool() & ~torch.diag(torch.ones(n - 1), -1).bool()
    return torch.where(missing, 0.0, found)


def cost_matrix(n: int, m: int, seed: int = 5) -> Tensor:
    return torch.rand(n, m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def walk(w: Tensor, law: str | Tensor = "uniform", layout: str = "dense") -> MarkovChain:
    return chain(w / w.sum(1, keepdim=True), law, layout)


def solved(delta=0.3, epsilon=0.05, *, layouts=DENSE, law: str = "uniform", cost: Tensor | None = None):
    x, y = walk(weights(4, 0), law, layouts[0]), walk(weights(5, 1), law, layouts[1])
    cost = cost_matrix(4, 5) if cost is None else cost
    return discounted_wl(x, y, cost, delta=delta, epsilon=epsilon, **ACCURACY)


@pytest.mark.parametrize("layouts", [DENSE, SPARSE, MIXED])
@pytest.mark.parametrize(("delta", "epsilon"), [(0.1, 0.5), (0.3, 0.05), (0.9, 0.003), (1.0, 0.1)])
def test_contributions_and_entropy_make_the_distance(layouts, delta, epsilon):
    solution = solved(delta, epsilon, layouts=layouts)
    found = explain(solution)
    assert found.entropy > 0
    torch.testing.assert_close(found.contributions.sum() + found.entropy, solution.value, rtol=1e-9, atol=0)
    torch.testing.assert_close(found.value, solution.value, rtol=0, atol=0)
    torch.testing.assert_close(found.error_bound, solution.error_bound, rtol=0, atol=0)


@pytest.mark.parametrize("layouts", [DENSE, SPARSE])
def test_exact_distances_are_made_by_their_states_alone(layouts):
    solution = solved(epsilon=0.0, layouts=layouts)
    found = explain(solution)
    assert found.entropy == 0
    torch.testing.assert_close(found.contributions.sum(), solution.value, rtol=1e-9, atol=0)


@pytest.mark.parametrize(("delta", "epsilon"), [(0.1, 0.5), (0.3, 0.05), (0.9, 0.02)])
def test_the_entropic_rest_is_the_derivative_in_epsilon(delta, epsilon):
    step = 1e-4 * epsilon
    above, below = (solved(delta, epsilon + change).value for change in (step, -step))
    expected = epsilon * (above - below) / (2 * step)
    torch.testing.assert_close(explain(solved(delta, epsilon)).entropy, expected, rtol=1e-6, atol=0)


def test_contributions_are_alignment_times_cost():
    cost = cost_matrix(4, 5)
    solution = solved(cost=cost)
    found = explain(solution)
    torch.testing.assert_close(found.alignment, solution.alignment, rtol=0, atol=0)
    torch.testing.assert_close(found.contributions, solution.alignment * cost, rtol=1e-14, atol=0)
    torch.testing.assert_close(found.state_x, (solution.alignment * cost).sum(1), rtol=1e-14, atol=0)
    torch.testing.assert_close(found.state_y, (solution.alignment * cost).sum(0), rtol=1e-14, atol=0)
    torch.testing.assert_close(found.mean_cost_x * solution.alignment.sum(1), found.state_x, rtol=1e-14, atol=0)
    torch.testing.assert_close(found.mean_cost_y * solution.alignment.sum(0), found.state_y, rtol=1e-14, atol=0)
    assert found.mean_cost_x.shape == (4,)
    assert found.mean_cost_y.shape == (5,)


def test_where_the_walk_stops_at_once_only_initial_laws_matter():
    solution = solved(delta=1.0)
    found = explain(solution)
    torch.testing.assert_close(found.contributions, solution.plan * cost_matrix(4, 5), rtol=1e-12, atol=0)
    assert not found.transition_x.any()
    assert not found.transition_y.any()
    assert found.top_transitions() == []


def test_a_state_that_is_never_visited_has_no_mean_cost():
    x = MarkovChain.from_transitions(torch.eye(2, dtype=torch.float64), initial=torch.tensor([1.0, 0.0]).double())
    found = explain(discounted_wl(x, x, 1 - torch.eye(2, dtype=torch.float64), delta=0.5, epsilon=0.1))
    assert found.mean_cost_x.isnan().tolist() == [False, True]
    assert found.mean_cost_y.isnan().tolist() == [False, True]
    assert found.top() == []


@pytest.mark.parametrize("layouts", [DENSE, SPARSE])
@pytest.mark.parametrize("law", ["uniform", "stationary"])
def test_effects_are_derivatives_in_the_logarithms_of_weights(layouts, law):
    w = {"x": weights(4, 0), "y": weights(5, 1)}
    cost = cost_matrix(4, 5)

    def value(which: str, i: int, j: int, factor: float) -> float:
        changed = {name: each.clone() for name, each in w.items()}
        changed[which][i, j] *= factor
        x, y = (walk(changed[name], law, layout) for name, layout in zip("xy", layouts, strict=True))
        return float(discounted_wl(x, y, cost, delta=0.3, epsilon=0.05, **ACCURACY).value)

    found = explain(solved(layouts=layouts, law=law))
    h = 1e-4
    for which, effect in (("x", found.transition_x), ("y", found.transition_y)):
        n = len(w[which])
        expected = torch.zeros(n, n, dtype=torch.float64)
        for i, j in np.ndindex(n, n):
            expected[i, j] = (value(which, i, j, 1 + h) - value(which, i, j, 1 - h)) / (2 * h)
        torch.testing.assert_close(effect, expected, rtol=1e-5, atol=1e-8)
        assert effect.abs().max() > 1e-3
        torch.testing.assert_close(effect.sum(1), torch.zeros(n, dtype=torch.float64), rtol=0, atol=1e-12)
        assert not effect[w[which] == 0].any()


def test_a_stationary_law_follows_the_weights():
    law = walk(weights(4, 0), "stationary").initial
    given = discounted_wl(
        walk(weights(4, 0), law), walk(weights(5, 1), "stationary"), cost_matrix(4, 5),
        delta=0.3, epsilon=0.05, **ACCURACY,
    )  # fmt: skip
    still, following = explain(given), explain(solved(law="stationary"))
    torch.testing.assert_close(still.value, following.value, rtol=1e-9, atol=0)
    torch.testing.assert_close(still.transition_y, following.transition_y, rtol=1e-6, atol=1e-9)
    assert (still.transition_x - following.transition_x).abs().max() > 1e-3


def test_layouts_make_no_difference():
    dense, sparse = explain(solved(law="stationary")), explain(solved(law="stationary", layouts=SPARSE))
    for name in ("contributions", "transition_x", "transition_y", "entropy"):
        torch.testing.assert_close(getattr(dense, name), getattr(sparse, name), rtol=1e-6, atol=1e-9)


def test_default_accuracy_is_within_the_solver_s_tolerance():
    mutag = load_mutag()
    x, y = mutag.chains[36], mutag.chains[77]
    for rtol in (1e-3, 1e-4, 1e-6):
        solution = discounted_wl(
            x, y, costs.ZeroOne(), delta=0.2, epsilon=0.01, rtol=rtol
        )
        found = explain(solution)
        assert abs(found.contributions.sum() + found.entropy - found.value) <= rtol


def test_float32_is_explained_in_float64():
    x, y = (MarkovChain.from_transitions((w / w.sum(1, keepdim=True)).float()) for w in (weights(4, 0), weights(5, 1)))
    solution = discounted_wl(x, y, cost_matrix(4, 5).float(), delta=0.3, epsilon=0.05, **ACCURACY)
    found = explain(solution)
    for name in ("value", "entropy", "contributions", "alignment", "transition_x", "transition_y"):
        assert getattr(found, name).dtype == torch.float64
    torch.testing.assert_close(found.contributions.sum() + found.entropy, found.value, rtol=1e-9, atol=0)
    torch.testing.assert_close(found.value.float(), solution.value)
    torch.testing.assert_close(
        found.transition_x, explain(solved(law="stationary")).transition_x, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("law", ["uniform", "stationary"])
def test_nothing_is_attached_and_nothing_is_changed(law):
    leaf = (weights(4, 0) / weights(4, 0).sum(1, keepdim=True)).requires_grad_()
    x, y = MarkovChain.from_transitions(leaf, initial=law), walk(weights(5, 1), law)
    cost = cost_matrix(4, 5).requires_grad_()
    solution = discounted_wl(x, y, cost, delta=0.3, epsilon=0.05)
    found = explain(solution)
    tensors = [value for value in vars(found).values() if isinstance(value, Tensor)]
    assert len(tensors) == 7
    assert not any(tensor.requires_grad for tensor in tensors)
    assert not found.x.parameter.requires_grad
    assert not y.parameter.requires_grad
    assert leaf.grad is None
    solution.value.backward()
    rows = leaf.detach()
    expected = rows * (leaf.grad - (rows * leaf.grad).sum(1, keepdim=True))
    torch.testing.assert_close(found.transition_x, expected, rtol=1e-9, atol=1e-12)


def test_a_molecule_is_apart_from_itself_by_entropy():
    mutag = load_mutag()
    found = explain(discounted_wl(mutag.chains[0], mutag.chains[0], costs.ZeroOne(), delta=0.2, epsilon=1e-3))
    assert found.contributions.sum() < 0.2 * found.entropy


@pytest.fixture(scope="module")
def molecules() -> Explanation:
    x, y = (
        MarkovChain.from_networkx(
            networkx.path_graph(names), features=dict(zip(names, labels, strict=True)), laziness=0.2
        )
        for names, labels in ((["a", "b", "c"], [0, 1, 0]), (["p", "q", "r"], [0, 1, 2]))
    )
    assert x.features.dtype == torch.float64  # numbers; labels must be integers
    x.features, y.features = x.features.long(), y.features.long()
    return explain(discounted_wl(x, y, costs.ZeroOne(), delta=0.2, epsilon=0.01), label_names=["H", "O", "F"])


def test_top_names_the_pairs_that_contribute_most(molecules):
    pairs = molecules.top(4)
    assert all(isinstance(pair, StatePair) for pair in pairs)
    sizes = torch.sort(molecules.contributions.flatten(), descending=True).values[:4]
    assert [pair.contribution for pair in pairs] == pytest.approx(sizes.tolist(), rel=1e-9)
    first = pairs[0]
    assert first[:4] == (0, 2, "a (H)", "r (F)")  # of two that tie, since x is the same from both ends
    assert first.contribution == pytest.approx(first.mass * first.cost)
    assert first.cost == pytest.approx(1.0)
    assert first.mass == float(molecules.alignment[0, 2])
    assert first.share == pytest.approx(first.contribution / float(molecules.value))
    assert str(first) == (
        f"a (H) of x with r (F) of y: {first.contribution:.3g}, {100 * first.share:.2g} % of the distance "
        f"(mass {first.mass:.3g}, cost 1)"
    )
    assert len(molecules.top()) == 5
    assert len(molecules.top(100)) == int((molecules.contributions > 0).sum())


def test_top_transitions_are_named_from_the_largest_effect_of_either_sign(molecules):
    every = molecules.top_transitions(100)
    assert all(isinstance(one, TransitionEffect) for one in every)
    sizes = [abs(one.effect) for one in every]
    assert sizes == sorted(sizes, reverse=True)
    assert len(every) == int((molecules.transition_x != 0).sum() + (molecules.transition_y != 0).sum())
    assert {one.effect > 0 for one in every} == {True, False}
    assert any(one.source == one.target for one in every)  # staying is a transition
    rows = molecules.y.to_dense().transition
    for one in every:
        if one.chain == "y":
            assert one.effect == float(molecules.transition_y[one.source, one.target])
            assert one.probability == pytest.approx(float(rows[one.source, one.target]))
    into = next(one for one in every if (one.chain, one.source, one.target) == ("y", 1, 2))
    out = next(one for one in every if (one.chain, one.source, one.target) == ("y", 1, 0))
    assert str(into) == f"q (O) to r (F) in y (probability 0.4): {into.effect:+.3g}, more of it brings the chains " + (
        "further apart"
    )
    assert str(out).endswith("closer together")
    assert len(molecules.top_transitions()) == 5
    assert molecules.top_transitions(2) == every[:2]


def test_states_are_called_by_name_number_and_label():
    found = explain(solved())
    assert (found.top(1)[0].name_x, found.top(1)[0].name_y) == tuple(map(str, found.top(1)[0][:2]))
    named = walk(weights(4, 0))
    named.state_names = ["rain", "sun", "snow", "fog"]
    solution = discounted_wl(named, walk(weights(5, 1)), cost_matrix(4, 5), delta=0.3, epsilon=0.05)
    pair = explain(solution).top(1)[0]
    assert pair.name_x == named.state_names[pair.state_x]


def test_negative_contributions_count_by_size():
    cost = cost_matrix(4, 5) - 3.0
    found = explain(solved(cost=cost))
    assert found.top(1)[0].contribution == float(found.contributions.min()) < 0
    assert found.top(1)[0].share > 0  # of a distance below zero


def test_a_distance_of_zero_has_no_shares():
    x = MarkovChain.from_transitions(torch.ones(1, 1, dtype=torch.float64))
    nought = explain(discounted_wl(x, x, torch.zeros(1, 1, dtype=torch.float64), delta=0.5, epsilon=0.1))
    assert nought.top() == []
    both = MarkovChain.from_transitions(torch.eye(2, dtype=torch.float64), initial="uniform")
    cost = torch.tensor([[1.0, 9.0], [9.0, -1.0]], dtype=torch.float64)
    balanced = explain(discounted_wl(both, both, cost, delta=1.0, epsilon=1e-3))
    shares = [pair.share for pair in balanced.top()]
    assert len(shares) == 2
    assert balanced.value == 0 or all(abs(share) > 10 for share in shares)


def test_repr_says_what_the_distance_is_made_of(molecules):
    lines = repr(molecules).splitlines()
    assert lines[0].startswith(f"Explanation of the distance {float(molecules.value):.4g} (certified to ")
    assert f"{float(molecules.contributions.sum()):.4g} from pairs of states" in lines[0]
    assert f"{float(molecules.entropy):.4g} from entropy" in lines[0]
    assert lines[1:4] == [f"  {pair}" for pair in molecules.top(3)]
    assert lines[4:] == [f"  {one}" for one in molecules.top_transitions(3)]


@pytest.mark.parametrize("k", [0, -1, 2.0, True])
def test_k_must_be_a_positive_integer(molecules, k):
    for method in (molecules.top, molecules.top_transitions):
        with pytest.raises((TypeError, ValueError), match=r"k: (-?\d is less than 1|expected an integer, got )"):
            method(k)


def test_what_cannot_be_explained_is_refused():
    x, y, cost = walk(weights(4, 0)), walk(weights(5, 1)), cost_matrix(4, 5)
    with pytest.raises(TypeError, match=r"solution: expected what discounted_wl of depth infinity returns, got float"):
        explain(0.3)
    plain = markovot.transport_cost(x.initial, y.initial, cost, epsilon=0.1)
    with pytest.raises(TypeError, match=r"got Solution\. Other distances cannot be explained"):
        explain(plain)
    with pytest.raises(TypeError, match=r"solution: .* depth infinity returns, got HorizonSolution"):
        explain(discounted_wl(x, y, cost, delta=0.3, epsilon=0.05, depth=3))
    batch = MarkovChain.stack([x, x])
    with pytest.raises(ValueError, match=r"batch of shape \(2,\)\. Solve the one pair alone, .* x\[i\] and y\[j\]"):
        explain(discounted_wl(batch, y, cost, delta=0.3, epsilon=0.05))
    with pytest.raises(ValueError, match=r"batch of shape \(2,\)"):
        explain(discounted_wl(x, y, cost, delta=torch.tensor([0.3, 0.4], dtype=torch.float64), epsilon=0.05))
    with pytest.raises(ValueError, match=r"batch of shape \(1,\)"):
        explain(discounted_wl(MarkovChain.stack([x]), y, cost, delta=0.3, epsilon=0.05))
    solution = discounted_wl(x, y, cost, delta=0.3, epsilon=0.05)
    with pytest.raises(ValueError, match=r"label_names needs chains whose features are integer labels"):
        explain(solution, label_names=["C"])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_distance_that_is_no_number_is_refused(value):
    broken = replace(solved(), value=torch.tensor(value, dtype=torch.float64))
    with pytest.raises(ValueError, match=rf"solution: its value is {value}, which nothing explains\. See its status"):
        explain(broken)


def test_an_unfinished_solution_is_explained_as_it_stands():
    x, y = walk(weights(4, 0)), walk(weights(5, 1))
    solution = discounted_wl(
        x, y, cost_matrix(4, 5), delta=0.3, epsilon=0.05, rtol=1e-12, max_iter=2, throw=False
    )
    found = explain(solution)
    gap = abs(found.contributions.sum() + found.entropy - found.value)
    assert gap <= found.error_bound + 1e-9


def test_explaining_scales_with_the_cost():
    small, large = explain(solved(epsilon=0.05)), explain(solved(epsilon=0.5, cost=10 * cost_matrix(4, 5)))
    torch.testing.assert_close(large.contributions, 10 * small.contributions, rtol=1e-7, atol=1e-12)
    torch.testing.assert_close(large.transition_x, 10 * small.transition_x, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(large.entropy, 10 * small.entropy, rtol=1e-7, atol=0)
