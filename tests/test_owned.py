"""A chain, a cost and a decision process own their numbers: what is written elsewhere later changes nothing."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor

import markovot
from markovot import DecisionProcess, MarkovChain, costs, discounted_wl
from markovot.learning import DiscountedWLLoss
from markovot.pairwise import distance_matrix

pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse (CSC|BSR|BSC|CSR) tensor support is in beta:UserWarning"),
    pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled:UserWarning"),
]

ROWS = np.array([[0.25, 0.75, 0.0], [0.5, 0.0, 0.5], [0.0, 1.0, 0.0]])
OTHER = np.array([[0.5, 0.5], [0.25, 0.75]])
COST = np.array([[0.0, 1.0], [0.5, 0.25], [1.0, 0.0]])
LAW = np.array([0.5, 0.25, 0.25])


def distance(x: Any, cost: Any = COST) -> Tensor:
    other = MarkovChain.from_transitions(OTHER, initial="uniform")
    return discounted_wl(x, other, cost, delta=0.3, epsilon=0.05).value


def spoil(*parts: Any) -> None:
    """Write what would crash a solve, and change its result."""
    for part in parts:
        part[...] = 10**6


MATRICES: dict[str, Callable[[], tuple[Any, tuple[Any, ...]]]] = {
    "numpy": lambda: (given := ROWS.copy(), (given,)),
    "tensor": lambda: (given := torch.tensor(ROWS), (given,)),
    "numpy through torch": lambda: (torch.from_numpy(given := ROWS.copy()), (given,)),
    "scipy csr": lambda: (given := scipy.sparse.csr_array(ROWS), (given.data, given.indices, given.indptr)),
    "scipy csr 64": lambda: (given := wide(scipy.sparse.csr_array(ROWS)), (given.data, given.indices, given.indptr)),
    "scipy csc": lambda: (given := scipy.sparse.csc_array(ROWS), (given.data, given.indices, given.indptr)),
    "scipy coo": lambda: (given := scipy.sparse.coo_array(ROWS), (given.data, *given.coords)),
    "coo": lambda: (given := torch.tensor(ROWS).to_sparse(), (given._indices(), given._values())),
    "csr": lambda: (
        given := torch.tensor(ROWS).to_sparse_csr(),
        (given.crow_indices(), given.col_indices(), given.values()),
    ),
}


def wide(matrix: Any) -> Any:
    matrix.indices, matrix.indptr = matrix.indices.astype(np.int64), matrix.indptr.astype(np.int64)
    return matrix


@pytest.mark.parametrize("kind", MATRICES)
def test_matrices_are_copied(kind: str) -> None:
    right = distance(MarkovChain.from_transitions(ROWS, initial="uniform"))
    for make in (MarkovChain.from_transitions, MarkovChain.from_adjacency):
        given, parts = MATRICES[kind]()
        chain = make(given, initial="uniform")
        torch.testing.assert_close(distance(chain), right, rtol=0.0, atol=0.0)
        spoil(*parts)
        np.testing.assert_array_equal(chain.to_dense().transition, ROWS)
        torch.testing.assert_close(distance(chain), right, rtol=0.0, atol=0.0)
        torch.testing.assert_close(distance(chain.to(torch.float64).detach()), right, rtol=0.0, atol=0.0)


def test_laws_features_names_and_costs_are_copied() -> None:
    for wrap in (np.copy, torch.tensor):
        rows, law, features, cost = wrap(ROWS), wrap(LAW), wrap(LAW), wrap(COST)
        names = ["a", "b", "c"]
        chain = MarkovChain.from_transitions(rows, initial=law, features=features, state_names=names)
        given, loss = costs.Given(cost), DiscountedWLLoss(cost, delta=0.3, epsilon=0.05)
        solution = discounted_wl(chain, OTHER, cost, delta=0.3, epsilon=0.05)
        value, alignment = distance(chain, given), solution.alignment.clone()
        process = DecisionProcess([rows], law)
        spoil(rows, law, features, cost)
        names[0] = "z"
        assert chain.initial.tolist() == chain.features.tolist() == process.reward[:, 0].tolist() == LAW.tolist()
        assert chain.state_names == ["a", "b", "c"]
        assert process.transition[0].tolist() == ROWS.tolist()
        assert given().tolist() == COST.tolist()
        assert torch.equal(distance(chain, given), value)
        assert torch.equal(solution.alignment, alignment)
        other = MarkovChain.from_transitions(OTHER, initial="uniform")
        torch.testing.assert_close(loss(chain, other), value)


def test_a_backward_pass_uses_what_was_solved() -> None:
    """Gradients after the arrays that were not differentiated in have changed."""
    found = []
    for change in (False, True):
        leaf, rows, cost = torch.tensor(LAW, requires_grad=True), ROWS.copy(), COST.copy()
        a, b = LAW.copy(), np.array([0.5, 0.5])
        value = distance(MarkovChain.from_transitions(rows, initial=leaf), cost)
        weight = torch.tensor(COST, requires_grad=True)
        laws = markovot.transport_cost(a, b, weight, epsilon=0.1).value
        if change:
            spoil(rows, cost, a, b)
        (value + laws).backward()
        found.append(torch.cat([leaf.grad, weight.grad.flatten()]))
    assert torch.equal(*found)


def test_leaves_stay_linked_and_their_steps_are_seen() -> None:
    leaf = torch.tensor(ROWS, requires_grad=True)
    values = torch.tensor(ROWS).to_sparse_csr().requires_grad_()
    law = torch.tensor(LAW, requires_grad=True)
    cost = torch.tensor(COST, requires_grad=True)
    for rows in (leaf, values):
        chain, given = MarkovChain.from_transitions(rows, initial=law), costs.Given(cost)
        before = distance(chain, given)
        before.backward()
        with torch.no_grad():
            law.copy_(torch.tensor([0.0, 0.0, 1.0]))
            cost.mul_(2.0)
        after = distance(chain, given)
        fresh = distance(MarkovChain.from_transitions(ROWS, initial=law.detach()), 2 * COST)
        torch.testing.assert_close(after, fresh, rtol=0.0, atol=1e-4)
        assert abs(after - before) > 0.01
        with torch.no_grad():
            law.copy_(torch.tensor(LAW))
            cost.div_(2.0)
        assert (rows.grad.to_dense() != 0).any()
    with torch.no_grad():
        leaf[0] = torch.tensor([0.75, 0.25, 0.0])
    changed = ROWS.copy()
    changed[0] = [0.75, 0.25, 0.0]
    chain = MarkovChain.from_transitions(leaf, initial="uniform")
    fresh = distance(MarkovChain.from_transitions(changed, initial="uniform"))
    torch.testing.assert_close(distance(chain), fresh, rtol=0.0, atol=1e-4)


def test_the_columns_of_leaves_are_copied() -> None:
    crow, column = torch.tensor([0, 2, 4, 5]), torch.tensor([0, 1, 0, 2, 1])
    places = torch.tensor(ROWS).nonzero().T.contiguous()
    values = torch.tensor([0.25, 0.75, 0.5, 0.5, 1.0], dtype=torch.float64, requires_grad=True)
    given = torch.sparse_csr_tensor(crow, column, values, (3, 3))
    coo = torch.sparse_coo_tensor(places, values, (3, 3), is_coalesced=True)
    chains = [MarkovChain.from_transitions(each, initial="uniform") for each in (given, coo)]
    right = [distance(chain) for chain in chains]
    spoil(crow, column, places)
    for chain, value in zip(chains, right, strict=True):
        assert torch.equal(distance(chain), value)
    with torch.no_grad():
        values[:2] = torch.tensor([0.75, 0.25])
    for chain, value in zip(chains, right, strict=True):
        assert abs(distance(chain) - value) > 0.01


def test_memory_maps_that_are_read_only(tmp_path: Path) -> None:
    """As joblib hands large arrays to its workers; torch warns where such memory is shared."""

    def mapped(array: Any) -> Any:
        file = tmp_path / f"{len(list(tmp_path.iterdir()))}.npy"
        np.save(file, array)
        found = np.load(file, mmap_mode="r")
        assert isinstance(found, np.memmap)
        assert not found.flags.writeable
        return found

    matrix = scipy.sparse.csr_array(ROWS)
    stored = scipy.sparse.csr_array(tuple(map(mapped, (matrix.data, matrix.indices, matrix.indptr))), shape=(3, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        right = distance(MarkovChain.from_transitions(ROWS, initial=LAW))
        for rows in (mapped(ROWS), stored):
            chain = MarkovChain.from_transitions(rows, initial=mapped(LAW), features=mapped(LAW))
            torch.testing.assert_close(distance(chain, mapped(COST)), right)
            torch.testing.assert_close(MarkovChain.from_adjacency(rows).to_dense().transition, torch.tensor(ROWS))
        markovot.transport_cost(mapped(LAW), mapped(LAW), mapped(ROWS), epsilon=0.1)
        DecisionProcess(mapped(ROWS), mapped(LAW))
        given = costs.Given(mapped(1 - np.eye(3)))
        object.__setattr__(given, "matrix", mapped(given.matrix))  # what a worker of joblib has after unpickling
        distance_matrix([chain, chain], cost=given, delta=0.3, epsilon=0.05)
