"""Copies of chains, costs, solutions and losses: what they are asked for afterwards is what the originals say."""

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import markovot
from markovot import MarkovChain, SolveError, costs
from markovot.learning import DiscountedWLLoss, LabelledChain

COPIES: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda thing: pickle.loads(pickle.dumps(thing)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
}


def rows(n: int, seed: int) -> Tensor:
    weights = torch.rand(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return weights / weights.sum(1, keepdim=True)


X, Y = rows(4, 0), rows(3, 1)
COST = torch.rand(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
SOLVES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "exact": lambda x, y, cost: markovot.discounted_wl(x, y, cost, delta=0.2, epsilon=0.0),
    "entropic": lambda x, y, cost: markovot.discounted_wl(x, y, cost, delta=0.2, epsilon=0.02),
    "large epsilon": lambda x, y, cost: markovot.discounted_wl(x, y, cost, delta=0.2, epsilon=1e9),
    "depth": lambda x, y, cost: markovot.wl(x, y, cost, depth=3, epsilon=0.02),
    "average": lambda x, y, cost: markovot.optimal_transition_coupling(x, y, cost, epsilon=0.02),
    "average exact": lambda x, y, cost: markovot.optimal_transition_coupling(x, y, cost),
    "transport": lambda x, y, cost: markovot.transport_cost(x[0], y[0], cost, epsilon=0.02),
}
ASKED = ("value", "error_bound", "plan", "cost_to_go", "cost_to_go_error", "alignment", "gain", "bias", "expected_cost")


def asked(solution: Any) -> dict[str, Tensor]:
    """All that a solution says."""
    found = {name: getattr(solution, name).detach() for name in ASKED if hasattr(solution, name)}
    if hasattr(solution, "coupling"):
        found["coupling"] = solution.coupling(1, 2)
        found["transition coupling"] = torch.from_numpy(solution.transition_coupling().toarray())
    return found


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("name", SOLVES)
def test_copies_of_solutions_say_the_same(name, way):
    for before in (False, True):  # asked of the original first, or not
        solution = SOLVES[name](X, Y, COST)
        if before:
            asked(solution)
        torch.testing.assert_close(asked(COPIES[way](solution)), asked(solution), rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", SOLVES)
def test_copies_of_what_hangs_on_a_graph_are_detached(name):
    x, cost = X.clone().requires_grad_(), COST.clone().requires_grad_()
    solution = SOLVES[name](x, Y, cost)
    for way in ("pickle", "deepcopy"):
        copied = COPIES[way](solution)
        assert not copied.value.requires_grad
        torch.testing.assert_close(asked(copied), asked(solution), rtol=0, atol=1e-15)
    assert copy.copy(solution).value.requires_grad
    solution.value.backward()  # the original still hangs on it
    assert cost.grad.abs().sum() > 0


def test_a_solution_serves_in_another_process(tmp_path):
    solution = SOLVES["entropic"](X, Y, COST)
    file = tmp_path / "solution"
    file.write_bytes(pickle.dumps(solution))
    code = f"import pickle; s = pickle.load(open({str(file)!r}, 'rb')).alignment; print(s.sum().item(), s[1, 2].item())"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert abs(float(printed[0]) - 1.0) < 1e-6
    assert abs(float(printed[1]) - float(solution.alignment[1, 2])) < 1e-12


def test_copies_of_solutions_are_starts_and_are_explained():
    x = MarkovChain.from_transitions(X, features=[0, 1, 1, 2])
    y = MarkovChain.from_transitions(Y, features=[0, 2, 1])
    solution = markovot.discounted_wl(x, y, costs.ZeroOne(), delta=0.2, epsilon=0.02)
    from markovot.analysis.explain import explain

    for way in COPIES.values():
        again = markovot.discounted_wl(x, y, costs.ZeroOne(), delta=0.2, epsilon=0.02, init=way(solution))
        assert abs(again.value - solution.value) <= again.error_bound + solution.error_bound
        torch.testing.assert_close(explain(way(solution)).contributions, explain(solution).contributions)


@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_copies_of_chains_are_chains_of_their_own(layout):
    leaf = X.clone().requires_grad_()
    matrix = leaf.to_sparse_csr() if layout == "sparse" else leaf.softmax(1)
    chain = MarkovChain.from_transitions(matrix, features=[0, 1, 2, 3], state_names=list("abcd"))
    law = chain.initial.detach()
    for way in ("pickle", "deepcopy"):
        copied = COPIES[way](chain)
        assert not copied.parameter.requires_grad
        assert copied.state_names == chain.state_names
        torch.testing.assert_close(copied.initial, law)
        torch.testing.assert_close(copied.to_dense().transition, chain.to_dense().transition.detach())


def test_a_copied_chain_does_not_trust_what_the_original_kept():
    chain = MarkovChain.from_transitions(X.clone())
    for _ in range(5):  # several versions, which the copy counts anew
        chain.transition.mul_(1.0)
    assert chain.rows().values.sum() > 0
    assert chain.initial.sum() > 0
    copied = pickle.loads(pickle.dumps(chain))
    for _ in range(max(1, chain.transition._version - copied.transition._version)):
        copied.transition.copy_(X.flip(0))
    assert torch.equal(copied.rows().to_dense()[0], X.flip(0) / X.flip(0).cumsum(1)[:, -1:])
    torch.testing.assert_close(copied.initial, markovot.stationary_distribution(X.flip(0)))


def test_copies_of_losses_and_learned_chains_go_on():
    target = MarkovChain.from_transitions(Y, features=torch.rand(3, 2, dtype=torch.float64))
    model = LabelledChain(4, num_features=2, dtype=torch.float64)
    loss = DiscountedWLLoss(costs.Euclidean(), delta=0.5, epsilon=0.05)
    value = loss(model(), target)
    for way in ("pickle", "deepcopy"):
        model_, loss_ = COPIES[way]((model, loss))
        again = loss_(model_(), target)
        again.backward()
        torch.testing.assert_close(again, value, rtol=0, atol=2e-4)
        assert all(parameter.grad is not None for parameter in model_.parameters())


def test_costs_and_errors_are_copied():
    given = costs.Given(2 * COST.clone().requires_grad_())
    for way in ("pickle", "deepcopy"):
        torch.testing.assert_close(COPIES[way](given)(), 2 * COST)
        assert COPIES[way](costs.ZeroOne()) == costs.ZeroOne()
    with pytest.raises(SolveError) as caught:
        markovot.discounted_wl(X, Y, COST, delta=0.01, epsilon=0.001, rtol=1e-12, max_iter=1)
    for way in ("pickle", "deepcopy"):
        copied = COPIES[way](caught.value)
        assert str(copied) == str(caught.value)
        assert copied.solution.value == caught.value.solution.value
