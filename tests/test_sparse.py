"""Sparse matrices of every format: their indices are checked before anything compiled sees them."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor

from markovot import MarkovChain, as_chain, discounted_wl, stationary_distribution
from markovot.chains.compressed import Compressed, check
from markovot.learning import TransitionMatrix

pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse (CSC|BSR|BSC|CSR) tensor support is in beta:UserWarning"),
    pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled:UserWarning"),
]

ROWS = np.array([[0.25, 0.75, 0, 0], [0.5, 0, 0.5, 0], [0, 0, 0, 1.0], [0.125, 0.5, 0.125, 0.25]])
FORMATS = ("csr", "csc", "coo", "bsr", "dia", "lil", "dok")
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "coo": Tensor.to_sparse,
    "csr": Tensor.to_sparse_csr,
    "csc": Tensor.to_sparse_csc,
    "bsr": lambda rows: rows.to_sparse_bsr((2, 4)),
    "bsc": lambda rows: rows.to_sparse_bsc((1, 2)),
}


def dense(chain: MarkovChain) -> Tensor:
    return chain.to_dense().transition


# --- what is read
@pytest.mark.parametrize("kind", ["array", "matrix"])
@pytest.mark.parametrize("form", FORMATS)
def test_every_format_of_scipy_is_read(form: str, kind: str) -> None:
    matrix = getattr(scipy.sparse, f"{form}_{kind}")(ROWS)
    chain = as_chain(matrix)
    assert chain.is_sparse
    assert len(chain.values) == np.count_nonzero(ROWS)
    np.testing.assert_array_equal(dense(chain), ROWS)
    walk = (ROWS > 0) / (ROWS > 0).sum(1)[:, None]
    np.testing.assert_array_equal(dense(MarkovChain.from_adjacency(matrix.astype(bool))), walk)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_torch_is_read_with_its_gradient(layout: str) -> None:
    rows = torch.tensor(ROWS, requires_grad=True)
    for batch in (rows, rows.expand(3, 4, 4)):
        chain = MarkovChain.from_transitions(LAYOUTS[layout](batch), initial="uniform")
        assert torch.equal(dense(chain), batch)
        by = torch.arange(16.0, dtype=torch.float64).view(4, 4)
        rows.grad = None
        (dense(chain) * by).sum().backward()
        stored = rows.detach() > 0
        torch.testing.assert_close(rows.grad[stored], len(batch.view(-1, 16)) * by[stored])


def test_leaves_that_torch_gives_no_gradient() -> None:
    for layout in ("csc", "bsr", "bsc"):
        leaf = LAYOUTS[layout](torch.tensor(ROWS)).requires_grad_()
        with pytest.raises(TypeError, match=rf"transition: .*{layout}.*to_dense\(\)\.to_sparse_csr\(\)"):
            as_chain(leaf)
        as_chain(leaf.detach().to_dense().to_sparse_csr().requires_grad_())


def test_more_dimensions_and_subclasses_of_scipy() -> None:
    index = np.argwhere(np.stack([ROWS, ROWS[::-1]])).T
    batch = scipy.sparse.coo_array((np.stack([ROWS, ROWS[::-1]])[tuple(index)], tuple(index)), shape=(2, 4, 4))
    chain = MarkovChain.from_transitions(batch, initial="uniform")
    np.testing.assert_array_equal(dense(chain), np.stack([ROWS, ROWS[::-1]]))

    class Own(scipy.sparse.csr_array):
        """As other libraries have them."""

    np.testing.assert_array_equal(dense(as_chain(Own(ROWS))), ROWS)


# --- indices that lie
def broken(form: str, bad: int) -> Any:
    """A SciPy matrix with an index out of range, that says of itself that all is well."""
    matrix = getattr(scipy.sparse, f"{form}_array")(ROWS)
    if form == "coo":
        matrix.coords[1][0] = bad
    elif form == "lil":
        matrix.rows[0][0] = bad
    elif form == "dok":
        matrix._dict[(bad, 0)] = 0.5
    else:
        matrix.indices[0] = bad
        if form != "bsr":
            matrix.has_canonical_format = True
        matrix.has_sorted_indices = True
    return matrix


@pytest.mark.parametrize("form", [form for form in FORMATS if form != "dia"])
def test_indices_out_of_range_in_scipy(form: str) -> None:
    for bad in (7, 10**6, -1):
        for read in (as_chain, MarkovChain.from_adjacency, stationary_distribution):
            with pytest.raises(ValueError, match=r"(transition|adjacency): stored entry \d+ is at .*outside the shape"):
                read(broken(form, bad))


@pytest.mark.parametrize("form", ["csr", "csc", "bsr"])
def test_pointers_that_fall_or_lead_beyond(form: str) -> None:
    for place, bad in ((1, 9), (-1, 10**6), (0, 1), (1, -3)):
        matrix = getattr(scipy.sparse, f"{form}_array")(ROWS)
        matrix.indptr[place] = bad
        with pytest.raises(ValueError, match="transition: indptr must hold"):
            as_chain(matrix)
    matrix = getattr(scipy.sparse, f"{form}_array")(ROWS)
    matrix.data = matrix.data[:-1]
    with pytest.raises(ValueError, match="transition: indptr must hold"):
        as_chain(matrix)


def test_other_parts_of_scipy_that_do_not_fit() -> None:
    coo, dia, lil = (getattr(scipy.sparse, f"{form}_array")(ROWS) for form in ("coo", "dia", "lil"))
    coo.data, dia.offsets = coo.data[:-1], dia.offsets[:-1]
    lil.data[0] = lil.data[0][:-1]
    floats = scipy.sparse.csr_array(ROWS)
    floats.indices = floats.indices.astype(float)
    for matrix, error, message in (
        (coo, ValueError, "indices for 8 values"),
        (dia, ValueError, r"offsets for \d diagonals"),
        (lil, ValueError, "not so many values"),
        (floats, TypeError, "not integers"),
    ):
        with pytest.raises(error, match=f"transition: .*{message}"):
            as_chain(matrix)


def test_flags_are_not_believed() -> None:
    """Unsorted and repeated entries are sorted and summed, whatever SciPy's flags say."""
    parts = np.array([0.5, 0.25, 0.25, 1.0]), np.array([1, 0, 1, 0]), np.array([0, 3, 4])
    matrix = scipy.sparse.csr_array(parts, shape=(2, 2))
    matrix.has_canonical_format = True
    chain = as_chain(matrix)
    assert (chain.indices.tolist(), chain.values.tolist()) == ([0, 1, 0], [0.25, 0.75, 1.0])


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("bad", [7, 10**6, -1])
def test_indices_out_of_range_in_torch(bad: int, grad: bool) -> None:
    crow, ones = torch.tensor([0, 1, 2]), torch.ones(2, dtype=torch.float64)
    make: Any = {"dtype": torch.float64, "size": (2, 2), "check_invariants": False, "requires_grad": grad}
    tensors = [
        torch.sparse_coo_tensor(torch.tensor([[0, 1], [bad, 0]]), ones, **make),
        torch.sparse_coo_tensor(torch.tensor([[0, bad], [1, 0]]), ones, is_coalesced=True, **make),
        torch.sparse_csr_tensor(crow, torch.tensor([bad, 0]), ones, **make),
        torch.sparse_csr_tensor(torch.tensor([0, 1, bad]), torch.tensor([1, 0]), ones, **make),
        torch.sparse_csr_tensor(torch.tensor([0, 1, 2, 2]), torch.tensor([1, 0]), ones, **make),
    ]
    if not grad:
        tensors += [
            torch.sparse_csc_tensor(crow, torch.tensor([bad, 0]), ones, **make),
            torch.sparse_bsr_tensor(crow, torch.tensor([bad, 0]), ones[:, None, None], **make),
            torch.sparse_bsc_tensor(crow, torch.tensor([bad, 0]), ones[:, None, None], **make),
            torch.sparse_bsc_tensor(torch.tensor([0, bad, 2]), torch.tensor([1, 0]), ones[:, None, None], **make),
        ]
    said = "(outside the shape|must lie in|must rise|do not fit the shape)"
    for tensor in tensors:
        for read in (as_chain, MarkovChain.from_adjacency, stationary_distribution):
            with pytest.raises(ValueError, match=f"(transition|adjacency): .*{said}"):
                read(tensor)
        with pytest.raises(ValueError, match=f"support: .*{said}"):
            TransitionMatrix(2, support=tensor.detach())


def test_rows_made_by_hand() -> None:
    def rows(indptr: Any, indices: Any, count: int = 2) -> Compressed:
        return Compressed(torch.tensor(indptr), torch.tensor(indices), torch.ones(count, dtype=torch.float64))

    good = MarkovChain(rows([0, 1, 2], [1, 0]), initial="uniform")
    for bad, error, message in (
        (rows([0, 1, 2], [7, 0]), ValueError, r"column 7 of stored entry 0 does not lie in \[0, 2\)"),
        (rows([0, 1, 2], [1, -1]), ValueError, "column -1 of stored entry 1"),
        (rows([0, 3, 2], [1, 0]), ValueError, "indptr must rise from 0"),
        (rows([0, 1, 10**6], [1, 0]), ValueError, "indptr must rise from 0"),
        (rows([1, 1, 2], [1, 0]), ValueError, "indptr must rise from 0"),
        (rows([[0, 1, 2], [1, 2, 2]], [1, 0]), ValueError, "indptr must rise from 0"),
        (rows([0, 2, 2], [1, 0]), ValueError, "columns must rise within each row"),
        (rows([0, 2, 2], [1, 1]), ValueError, "columns must rise within each row"),
        (rows([0, 1, 2], [1, 0], count=3), ValueError, "do not fit together"),
        (rows(0, [1, 0]), ValueError, "do not fit together"),
        (rows([0, 1, 2], [1.0, 0.0]), TypeError, "indices has dtype torch.float32"),
    ):
        with pytest.raises(error, match=f"rows: .*{message}"):
            MarkovChain(bad, initial="uniform")
    check("rows", rows([0, 0, 0], [], count=0)._replace(indices=torch.zeros(0, dtype=torch.int64)))
    # Whoever writes into a chain's own columns is found out before the next solve.
    discounted_wl(good, good, torch.eye(2, dtype=torch.float64), delta=0.5, epsilon=0.1)
    for part in (good.indices, good.indptr):
        worse = copy.copy(good)
        before = part.clone()
        part[-1] = 10**6
        with pytest.raises(ValueError, match="rows: "):
            discounted_wl(worse, worse, torch.eye(2, dtype=torch.float64), delta=0.5, epsilon=0.1)
        part.copy_(before)
