"""An item's result is the one that it has alone, to the bit: whatever its mates, and however much it is padded."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import markovot
from markovot import MarkovChain, costs
from markovot.solving import parts
from markovot.transport import threads

SIZES = [(3, 9), (11, 2), (5, 5), (7, 12), (2, 3), (12, 10)]
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "exact": lambda x, y: markovot.discounted_wl(x, y, costs.Euclidean(), delta=0.2, epsilon=0.0),
    "entropic": lambda x, y: markovot.discounted_wl(x, y, costs.Euclidean(), delta=0.2, epsilon=0.02),
    "depth": lambda x, y: markovot.wl(x, y, costs.Euclidean(), depth=3, epsilon=0.05),
    "tail": lambda x, y: markovot.horizon_wl(x, y, costs.Euclidean(), law=LAW, tail=0.4, epsilon=0.05),
    "average": lambda x, y: markovot.optimal_transition_coupling(x, y, costs.Euclidean(), epsilon=0.05),
}
LAW = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)


def rows(n: int, random: torch.Generator, share: float) -> Tensor:
    """Random rows of which about this share is positive."""
    weights = torch.rand(n, n, dtype=torch.float64, generator=random)
    weights = weights * (torch.rand(n, n, generator=random) < share) + 0.1 * torch.eye(n).roll(1, 0)
    return weights / weights.sum(1, keepdim=True)


def chains(side: int, layout: str, initial: str, sizes: list[tuple[int, int]] = SIZES) -> list[MarkovChain]:
    """One chain for each item: rows of different fullness, so that items want the two chains in different roles."""
    random = torch.Generator().manual_seed(side)
    found = []
    for item, pair in enumerate(sizes):
        n = pair[side]
        dense = rows(n, random, (1.0, 0.3)[(item + side) % 2])
        features = torch.rand(n, 2, dtype=torch.float64, generator=random)
        matrix = dense.to_sparse_coo() if layout == "sparse" else dense
        found.append(MarkovChain.from_transitions(matrix, initial=initial, features=features))
    return found


def assert_equal_to_alone(solve: Callable[..., Any], xs: list[MarkovChain], ys: list[MarkovChain]) -> None:
    together = solve(MarkovChain.stack(xs), MarkovChain.stack(ys))
    for item, (x, y) in enumerate(zip(xs, ys, strict=True)):
        alone = solve(x, y)
        n, m = x.num_states, y.num_states
        for name in ("value", "error_bound", "num_iter", "status"):
            assert getattr(together, name)[item] == getattr(alone, name), (item, name)
        for name in ("cost_to_go", "plan", "gain", "bias", "alignment"):
            if hasattr(alone, name):
                assert torch.equal(getattr(together, name)[item, :n, :m], getattr(alone, name)), (item, name)
        if hasattr(alone, "potentials"):
            for whole, own in zip(together.potentials, alone.potentials, strict=True):
                assert torch.equal(whole[item, : len(own)], own), (item, "potentials")


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_an_item_does_not_see_its_mates(name, layout):
    if name == "average":  # which wants one closed class
        xs, ys = (chains(side, layout, "uniform", [(2, 3), (5, 4), (3, 7)]) for side in range(2))
    else:
        xs, ys = (chains(side, layout, "stationary" if layout == "dense" else "uniform") for side in range(2))
    assert_equal_to_alone(FUNCTIONS[name], xs, ys)


def test_large_dense_and_small_items_are_solved_as_alone_side_by_side():
    """Some in matrix products, some by threads, some whole in compiled code."""
    sizes = [(45, 42), (3, 4), (30, 24), (6, 5)]
    xs, ys = (chains(side, "dense", "uniform", sizes) for side in range(2))
    assert_equal_to_alone(FUNCTIONS["entropic"], xs, ys)


def test_stationary_laws_do_not_see_their_mates():
    random = torch.Generator().manual_seed(7)
    for layout in ("dense", "sparse"):
        parts = [rows(n, random, 0.5) for n in (3, 410, 12)]
        made = [MarkovChain.from_transitions(r.to_sparse_coo() if layout == "sparse" else r) for r in parts]
        together = MarkovChain.stack(made).initial
        for item, chain in enumerate(made):
            assert torch.equal(together[item, : chain.num_states], chain.initial), (layout, item)


def test_an_item_is_the_same_on_any_number_of_threads(monkeypatch):
    xs, ys = (chains(side, "sparse", "uniform") for side in range(2))
    x, y = MarkovChain.stack(xs), MarkovChain.stack(ys)
    monkeypatch.setattr(threads, "WORTH_A_THREAD", 1)
    before, found = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(FUNCTIONS["entropic"](x, y))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0].value, found[1].value)
    assert torch.equal(found[0].alignment, found[1].alignment)


@pytest.mark.parametrize("layout", ["dense", "sparse"])
@pytest.mark.parametrize("epsilon", [0.0, 0.05])
def test_gradients_of_padded_items_are_those_alone(layout, epsilon):
    def solve(x: MarkovChain, y: MarkovChain) -> Tensor:
        found = markovot.discounted_wl(x, y, costs.Euclidean(), delta=0.3, epsilon=epsilon)
        return (found.value + found.cost_to_go.square().sum((-2, -1))).sum()

    def gradients(stacked: bool) -> list[Tensor]:
        leaves, made = [], []
        for side in range(2):
            own = []
            for chain in chains(side, layout, "uniform"):
                leaf = (chain.values if chain.is_sparse else chain.transition).detach().clone().requires_grad_()
                features = chain.features.clone().requires_grad_()
                stored = chain._rows._replace(values=leaf) if chain.is_sparse else leaf
                own.append(MarkovChain(stored, initial="uniform", features=features))
                leaves += [leaf, features]
            made.append(own)
        if stacked:
            solve(*map(MarkovChain.stack, made)).backward()
        else:
            sum(solve(x, y) for x, y in zip(*made, strict=True)).backward()
        return [leaf.grad for leaf in leaves]

    for together, alone in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-12)


def test_a_start_from_chains_of_other_sizes_serves_the_items_whose_sizes_are_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parts, "WHOLE_ENTRIES", 0)  # every item is solved alone, without its padding
    random = torch.Generator().manual_seed(3)
    places = torch.arange(5.0).double()[:, None]
    small, large, other = (
        MarkovChain.from_transitions(rows(n, random, 1.0), initial="uniform", features=places[:n]) for n in (3, 5, 5)
    )
    setting = {"delta": 0.3, "epsilon": 0.1}
    init = markovot.discounted_wl(MarkovChain.stack([small, large]), other, costs.Euclidean(), **setting)
    swapped = MarkovChain.stack([large, small])
    found = markovot.discounted_wl(swapped, other, costs.Euclidean(), init=init, **setting)
    cold = markovot.discounted_wl(swapped, other, costs.Euclidean(), **setting)
    torch.testing.assert_close(found.value, cold.value, rtol=0, atol=1e-3)
    assert list(found.status) == list(cold.status)
