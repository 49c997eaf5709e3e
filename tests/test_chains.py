"""MarkovChain and as_chain: what comes in, what comes out, and that gradients reach what the user holds."""

import subprocess
import sys
from typing import Any

import networkx as nx
import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor

from markovot.chains import MarkovChain, as_chain

# torch says these once, whoever makes a sparse tensor first.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse CS. tensor support is in beta:UserWarning"),
    pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled:UserWarning"),
]

ROWS = torch.tensor([[0.0, 0.5, 0.5], [0.25, 0.75, 0.0], [1.0, 0.0, 0.0]], dtype=torch.float64)


def dense(chain: MarkovChain) -> Tensor:
    return chain.to_dense().transition


def uniform(n: int) -> MarkovChain:
    return MarkovChain.from_transitions(torch.full((n, n), 1 / n, dtype=torch.float64))


# --- from_transitions
@pytest.mark.parametrize(
    ("given", "is_sparse"),
    [
        (lambda: ROWS, False),
        (lambda: ROWS.numpy(), False),
        (lambda: ROWS.to_sparse_csr(), True),
        (lambda: ROWS.to_sparse(), True),
        (lambda: scipy.sparse.csr_array(ROWS.numpy()), True),
        (lambda: scipy.sparse.coo_matrix(ROWS.numpy()), True),
    ],
)
def test_every_matrix_is_read(given: Any, is_sparse: bool) -> None:
    for chain in (MarkovChain.from_transitions(given()), as_chain(given())):
        assert chain.is_sparse is is_sparse
        assert (chain.num_states, chain.batch_shape, chain.dtype) == (3, (), torch.float64)
        assert (chain.initial_law, chain.features, chain.state_names) == ("stationary", None, None)
        assert torch.equal(dense(chain), ROWS)
        assert chain.sizes.item() == 3
        assert chain.mask.tolist() == [True] * 3
        torch.testing.assert_close(chain.initial @ ROWS, chain.initial)


def test_sparse_store() -> None:
    chain = as_chain(ROWS.to_sparse_csr())
    assert chain.indptr.tolist() == [0, 2, 4, 5]
    assert chain.indices.tolist() == [1, 2, 0, 1, 0]
    assert chain.values.tolist() == [0.5, 0.5, 0.25, 0.75, 1.0]
    assert chain.indptr.dtype == chain.indices.dtype == torch.int64
    with pytest.raises(AttributeError, match=r"to_dense\(\)"):
        _ = chain.transition
    with pytest.raises(AttributeError, match="dense layout"):
        _ = chain.to_dense().indptr


@pytest.mark.parametrize("layout", ["to_sparse_csr", "to_sparse"])
def test_sparse_batches(layout: str) -> None:
    """Equal counts of entries, as torch's CSR batches need."""
    batch = torch.stack([ROWS, ROWS.flip(0, 1), ROWS[[0, 1, 1]].flip(1)]).view(3, 3, 3)
    batch[2] = torch.tensor([[0.5, 0.5, 0], [0.1, 0.8, 0.1], [0, 0, 0]])
    batch[2, 2], batch[2, 1] = torch.tensor([0.0, 0, 1]), torch.tensor([0.5, 0, 0.5])
    sparse = getattr(batch, layout)().requires_grad_()
    chain = MarkovChain.from_transitions(sparse, initial="uniform")
    assert chain.batch_shape == (3,)
    assert torch.equal(dense(chain), batch)
    for k in range(3):
        assert torch.equal(dense(chain[k]), batch[k])
    weights = torch.arange(27).double().view(3, 3, 3)
    (dense(chain) * weights).sum().backward()
    assert torch.equal(sparse.grad.to_dense(), weights * (batch > 0))


def test_batches_of_coo_with_two_dimensions_and_unequal_counts() -> None:
    batch = torch.stack([torch.eye(2), torch.full((2, 2), 0.5)] * 3).view(3, 2, 2, 2)
    chain = as_chain(batch.to_sparse())
    assert chain.batch_shape == (3, 2)
    assert chain.indptr.shape == (3, 2, 3)
    assert torch.equal(dense(chain), batch)
    assert torch.equal(chain.rows().to_dense(), batch.view(6, 2, 2).double())


@pytest.mark.parametrize("layout", ["dense", "csr", "coo", "coo from values"])
def test_gradients_reach_the_users_tensor(layout: str) -> None:
    values = torch.tensor([0.5, 0.5, 0.25, 0.75, 1.0], dtype=torch.float64)
    places = ROWS.nonzero().T
    if layout == "coo from values":  # unsorted and uncoalesced, with the second entry in two halves
        order = torch.tensor([4, 3, 2, 1, 0, 1])
        leaf = (values * torch.tensor([1, 0.5, 1, 1, 1]))[order].requires_grad_()
        chain = as_chain(torch.sparse_coo_tensor(places[:, order], leaf, (3, 3)))
    else:
        leaf = {"dense": ROWS.clone, "csr": ROWS.to_sparse_csr, "coo": ROWS.to_sparse}[layout]().requires_grad_()
        chain = as_chain(leaf)
    weights = torch.arange(9).double().view(3, 3) + 1
    (dense(chain) * weights).sum().backward()
    found = leaf.grad if layout in ("dense", "coo from values") else leaf.grad.to_dense()
    if layout == "coo from values":
        assert torch.equal(found, weights[tuple(places)][order])
    else:
        assert torch.equal(found, weights if layout == "dense" else weights * (ROWS > 0))


def test_stored_zeros_have_gradients_but_no_rows() -> None:
    places = torch.tensor([[0, 0, 1, 1], [0, 1, 0, 1]])
    leaf = torch.tensor([1.0, 0.0, 0.5, 0.5], requires_grad=True)
    chain = as_chain(torch.sparse_coo_tensor(places, leaf, (2, 2), is_coalesced=True))
    assert len(chain.values) == 4
    rows = chain.rows()
    assert (rows.indptr.tolist(), rows.indices.tolist(), rows.values.tolist()) == (
        [[0, 1, 3]],
        [0, 0, 1],
        [1, 0.5, 0.5],
    )
    assert (rows.values.dtype, rows.values.requires_grad) == (torch.float64, False)
    chain.initial[1].backward()  # moving mass towards state 1 raises its probability
    assert leaf.grad[1] > leaf.grad[0]


def test_rows_of_a_dense_batch() -> None:
    batch = torch.stack([ROWS, ROWS.flip(0, 1)]).float().requires_grad_()
    rows = MarkovChain.from_transitions(batch).rows()
    assert rows.sizes.tolist() == [3, 3]
    assert (rows.values > 0).all()
    assert len(rows.values) == 10
    assert torch.equal(rows.to_dense(), batch.detach().double())


def test_inputs_are_not_changed_and_leaves_are_kept() -> None:
    rows = ROWS.clone().requires_grad_()
    assert MarkovChain.from_transitions(rows).transition is rows
    matrix = scipy.sparse.csr_array((np.array([0.5, 0.5, 1.0]), np.array([1, 1, 0]), np.array([0, 2, 3])), shape=(2, 2))
    assert dense(as_chain(matrix)).tolist() == [[0, 1], [1, 0]]  # repeated entries are summed
    assert matrix.nnz == 3
    frozen = ROWS.numpy().copy()
    frozen.setflags(write=False)
    assert torch.equal(dense(as_chain(frozen)), ROWS)


# --- initial laws
def test_initial_laws() -> None:
    given = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64, requires_grad=True)
    chain = MarkovChain.from_transitions(ROWS, initial=given)
    assert chain.initial_law == "given"
    chain.initial[1].backward()
    assert given.grad.tolist() == [0, 1, 0]
    assert MarkovChain.from_transitions(ROWS, initial="uniform").initial.tolist() == [1 / 3] * 3
    batch = MarkovChain.from_transitions(ROWS.expand(4, 3, 3), initial=given)
    assert batch.initial.shape == (4, 3)
    assert MarkovChain.from_transitions(ROWS, initial=np.array([1.0, 0, 0])).initial.tolist() == [1, 0, 0]


def test_stationary_law_is_kept_without_gradients_and_fresh_otherwise() -> None:
    plain = MarkovChain.from_transitions(ROWS.clone())
    assert plain.initial is plain.initial
    before = plain.initial
    plain.transition[0] = torch.tensor([0.5, 0.25, 0.25])
    assert not torch.equal(plain.initial, before)
    leaf = ROWS.clone().requires_grad_()
    chain = MarkovChain.from_transitions(leaf)
    with torch.no_grad():
        assert not chain.initial.requires_grad
    for _ in range(2):  # one graph each: a second backward works
        chain.initial[0].backward()
    assert leaf.grad.abs().max() > 0
    with torch.inference_mode():
        assert MarkovChain.from_transitions(ROWS * 1.0).initial.shape == (3,)


# --- stack
@pytest.mark.parametrize("layouts", [("dense", "dense", "dense"), ("csr", "csr", "csr"), ("csr", "dense", "csr")])
def test_stack_pads_and_unstacks(layouts: tuple[str, ...]) -> None:
    leaves, chains = [], []
    for n, layout in zip((2, 4, 1), layouts, strict=True):
        rows = torch.rand(n, n, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
        rows /= rows.sum(-1, keepdim=True)
        leaf = (rows if layout == "dense" else rows.to_sparse_csr()).requires_grad_()
        leaves.append(leaf)
        chains.append(
            MarkovChain.from_transitions(leaf, initial="uniform", features=torch.arange(n), state_names=range(n))
        )
    batch = MarkovChain.stack(chains)
    assert batch.is_sparse is all(layout == "csr" for layout in layouts)
    assert (batch.batch_shape, batch.num_states, batch.sizes.tolist(), len(batch)) == ((3,), 4, [2, 4, 1], 3)
    assert batch.mask.tolist() == [[True, True, False, False], [True] * 4, [True, False, False, False]]
    assert batch.initial_law == "uniform"
    assert batch.initial.tolist() == [[0.5, 0.5, 0, 0], [0.25] * 4, [1, 0, 0, 0]]
    assert batch.features.tolist() == [[0, 1, 0, 0], [0, 1, 2, 3], [0, 0, 0, 0]]
    assert batch.state_names == [[0, 1], [0, 1, 2, 3], [0]]
    assert batch.rows().sizes.tolist() == [2, 4, 1]
    for k, chain in enumerate(chains):
        item, n = batch[k - 3], chain.num_states
        assert torch.equal(dense(item), dense(chain))
        assert torch.equal(dense(batch)[k, :n, :n], dense(chain))
        assert torch.equal(item.initial, chain.initial)
        assert torch.equal(item.features, chain.features)
        assert item.state_names == chain.state_names
        assert batch.rows().to_dense()[k].sum() == pytest.approx(n)
    assert dense(batch).sum().item() == pytest.approx(7)
    weights = torch.arange(48).double().view(3, 4, 4) + 1
    (dense(batch) * weights).sum().backward()
    for k, leaf in enumerate(leaves):
        n = leaf.shape[0]
        assert torch.equal(leaf.grad.to_dense(), weights[k, :n, :n])


def test_stack_of_several_kinds_of_initial_law() -> None:
    law = torch.tensor([0.25, 0.75], dtype=torch.float64, requires_grad=True)
    leaf = ROWS.clone().requires_grad_()
    two = torch.full((2, 2), 0.5, dtype=torch.float64)
    batch = MarkovChain.stack([as_chain(leaf), MarkovChain.from_transitions(two, initial=law)])
    assert batch.initial_law == "given"
    torch.testing.assert_close(batch.initial[0], as_chain(ROWS).initial)
    assert batch.initial[1].tolist() == [0.25, 0.75, 0]
    (batch.initial * torch.tensor([[1.0, 2, 3], [4, 5, 6]])).sum().backward()
    assert law.grad.tolist() == [4, 5]
    assert leaf.grad.abs().max() > 0.01
    assert MarkovChain.stack([as_chain(two), as_chain(leaf)]).initial_law == "stationary"


def test_bad_stacks() -> None:
    two, batch = uniform(2), MarkovChain.stack([uniform(2), uniform(3)])
    with_labels = MarkovChain.from_transitions(ROWS, features=torch.arange(3))
    with_vectors = MarkovChain.from_transitions(ROWS, features=torch.ones(3, 2))
    for parts, error, message in (
        ([], ValueError, "chains: there are none"),
        ([two, batch], ValueError, r"number 1 is a batch of shape \(2,\)"),
        ([two, ROWS], TypeError, "number 1 is Tensor, not a MarkovChain.*as_chain"),
        (
            [two, two.to(torch.float32)],
            TypeError,
            r"number 1: dtype torch\.float32 is not that of number 0, torch\.float64",
        ),
        ([two, with_labels], ValueError, "number 1 has features and number 0 has none"),
        ([with_labels, two], ValueError, "number 0 has features and number 1 has none"),
        ([with_labels, with_vectors], ValueError, r"features of number 1 are torch\.float32 \(3, 2\)"),
    ):
        with pytest.raises(error, match=message):
            MarkovChain.stack(parts)


# --- conversions
@pytest.mark.parametrize("layout", ["dense", "csr"])
def test_to_and_detach(layout: str) -> None:
    leaf = (ROWS.clone() if layout == "dense" else ROWS.to_sparse_csr()).requires_grad_()
    chain = MarkovChain.from_transitions(leaf, initial=torch.tensor([1.0, 0, 0]).double(), features=torch.arange(3))
    single = chain.to(torch.float32)
    assert (single.dtype, single.initial.dtype, single.features.dtype) == (
        torch.float32,
        torch.float32,
        torch.int64,
    )
    assert single.is_sparse is chain.is_sparse
    dense(single).sum().backward()
    assert leaf.grad.to_dense().sum() > 0
    assert chain.to("cpu").parameter is chain.parameter
    assert not chain.detach().parameter.requires_grad
    assert torch.equal(dense(chain.detach()), ROWS)
    with pytest.raises(TypeError, match="float16"):
        chain.to(torch.float16)
    stacked = MarkovChain.stack([chain, MarkovChain.from_transitions(leaf, features=torch.arange(3))])
    assert stacked.to(torch.float32).detach().to_dense().sizes.tolist() == [3, 3]


def test_what_a_chain_says_of_itself() -> None:
    assert repr(uniform(1)) == "MarkovChain(1 state, dense, initial law stationary, float64, cpu)"
    chain = MarkovChain.from_networkx(nx.path_graph(2), features={0: "a", 1: "b"})
    assert (
        repr(chain) == "MarkovChain(2 states, sparse with 2 entries, initial law uniform, features (2,), float64, cpu)"
    )
    assert "batch (2,) of up to 2 states" in repr(MarkovChain.stack([chain, chain]))
    assert "batch (4,) of 3 states" in repr(as_chain(ROWS.expand(4, 3, 3)))


def test_items_exist_in_batches_only() -> None:
    with pytest.raises(TypeError, match="single chain"):
        len(uniform(2))
    with pytest.raises(TypeError, match="only batches with one dimension"):
        uniform(2)[0]
    batch = MarkovChain.stack([uniform(2), uniform(3)])
    assert [item.num_states for item in batch] == [2, 3]
    with pytest.raises(IndexError, match="the batch has 2 chains"):
        batch[2]


# --- as_chain
def test_as_chain_of_pairs_and_lists() -> None:
    chain = uniform(3)
    assert as_chain(chain) is chain
    for labels in (["a", "b", "c"], ("a", "b", "c"), torch.arange(3), np.ones((3, 2)), [[1.0], [2.0], [3.0]]):
        pair = as_chain((ROWS, labels))
        assert pair.batch_shape == ()
        assert len(pair.features) == 3
    pair_of_matrices = as_chain((ROWS, torch.eye(3).double()))
    assert (pair_of_matrices.batch_shape, pair_of_matrices.features) == ((2,), None)
    mixed = as_chain([ROWS, np.full((2, 2), 0.5), nx.path_graph(4), ROWS.to_sparse()])
    assert mixed.sizes.tolist() == [3, 2, 4, 3]
    assert as_chain([(ROWS, torch.arange(3)), (ROWS, torch.arange(3))]).features.shape == (2, 3)
    assert as_chain((ROWS, [ROWS, ROWS])[1]).batch_shape == (2,)


@pytest.mark.parametrize(
    ("thing", "error", "message"),
    [
        ("ring", TypeError, "cannot make one from str.*square transition matrix"),
        (None, TypeError, "NoneType"),
        ([[0.5, 0.5], [0.5, 0.5]], TypeError, r"cannot make one from float.*numpy\.array\(rows"),
        ([], ValueError, "empty list"),
        (torch.ones(2, 2).double(), ValueError, r"row 0 sums to 2, not 1.*MarkovChain\.from_adjacency"),
        (
            torch.ones(2, 2).double().to_sparse(),
            ValueError,
            r"row 0 sums to 2, not 1.*MarkovChain\.from_adjacency",
        ),
        (torch.tensor([[0.0, 1.0], [0.0, 0.0]]).to_sparse(), ValueError, "row 1 sums to 0"),
        (torch.zeros(2, 2).to_sparse(), ValueError, "row 0 sums to 0"),
        (scipy.sparse.eye_array(2, 3), ValueError, r"shape \(2, 3\)"),
        (scipy.sparse.eye_array(2, dtype=int), TypeError, r"int64.*astype"),
        (scipy.sparse.eye_array(2, dtype=complex), TypeError, r"complex128.*astype"),
        (np.array([["a"]]), TypeError, "array of numbers"),
        (torch.eye(2).half(), TypeError, "float16 is not supported, only float32 and float64"),
        (torch.eye(2).expand(0, 2, 2), ValueError, r"shape \(0, 2, 2\) is an empty chain"),
    ],
)
def test_what_is_no_chain(thing: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        as_chain(thing)


def test_hybrid_sparse_tensors_are_no_chains() -> None:
    hybrid = torch.ones(2, 2).to_sparse(1)
    with pytest.raises(ValueError, match=r"hybrid sparse tensors \(dense_dim\(\) = 1\)"):
        as_chain(hybrid)


@pytest.mark.parametrize(
    ("crow", "col", "message"),
    [
        ([0, 2, 4], [1, 0, 0, 1], "col_indices.*rise within each row"),
        ([0, 2, 4], [0, 0, 0, 1], "col_indices.*rise within each row"),
        ([0, 2, 4], [0, 2, 0, 1], r"col_indices\(\) must lie in \[0, 2\)"),
        ([0, 5, 4], [0, 1, 0, 1], "crow_indices.*number of stored entries, 4"),
    ],
)
def test_malformed_csr(crow: list[int], col: list[int], message: str) -> None:
    tensor = torch.sparse_csr_tensor(
        torch.tensor(crow), torch.tensor(col), torch.full((4,), 0.5), (2, 2), check_invariants=False
    )
    with pytest.raises(ValueError, match=message):
        as_chain(tensor)


def test_coo_that_is_wrongly_marked_as_coalesced() -> None:
    places = torch.tensor([[1, 0], [0, 1]])
    with pytest.raises(ValueError, match="marked as coalesced"):
        as_chain(torch.sparse_coo_tensor(places, torch.ones(2), (2, 2), is_coalesced=True))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-9)])
def test_rows_sum_to_one_within_the_tolerance(dtype: torch.dtype, tolerance: float) -> None:
    for layout in (lambda rows: rows, lambda rows: rows.to_sparse()):
        as_chain(layout(torch.tensor([[0.5, 0.5 + 0.8 * tolerance], [0.5, 0.5]], dtype=dtype)))
        with pytest.raises(ValueError, match="row 0 sums to 1"):
            as_chain(layout(torch.tensor([[0.5, 0.5 + 1.5 * tolerance], [0.5, 0.5]], dtype=dtype)))


def test_plain_chains_need_neither_scipy_nor_networkx() -> None:
    code = (
        "import sys, torch; from markovot.chains import as_chain; before = set(sys.modules);"
        "as_chain(torch.eye(2)); as_chain(torch.eye(2).to_sparse()).rows();"
        "print([m for m in ('scipy', 'networkx', 'numba') if m in set(sys.modules) - before])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"
