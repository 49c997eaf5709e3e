"""The stationary law and its gradient, against closed forms, exact fractions and central differences."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor

from markovot.chains import MarkovChain, stationary
from markovot.chains.compressed import Compressed, pointers
from markovot.chains.stationary import stationary_distribution

# torch says this once, whoever makes a CSR tensor first.
pytestmark = pytest.mark.filterwarnings("ignore:Sparse CS. tensor support is in beta:UserWarning")

LAYOUTS = ["dense", "csr", "coo"]


def random_rows(n: int, seed: int, *, degree: int | None = None, dtype: torch.dtype = torch.float64) -> Tensor:
    """A random chain; with `degree`, on a cycle and about as many random steps from each state."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(n, n, generator=generator, dtype=torch.float64) ** 3
    if degree is not None:
        keep = torch.rand(n, n, generator=generator).argsort(-1) < degree
        weights = weights * (keep | torch.eye(n, dtype=torch.bool).roll(1, 1))
    return (weights / weights.sum(-1, keepdim=True)).to(dtype)


def in_layout(rows: Tensor, layout: str) -> Tensor:
    return {"dense": lambda: rows, "csr": rows.to_sparse_csr, "coo": rows.to_sparse}[layout]()


def exact_law(rows: list[list[Fraction]]) -> list[Fraction]:
    """By Gauss-Jordan elimination on fractions: pi (P - I) = 0, its last equation replaced by sum pi = 1."""
    n = len(rows)
    system = [[rows[j][i] - (i == j) for j in range(n)] + [Fraction(0)] for i in range(n - 1)]
    system.append([Fraction(1)] * (n + 1))
    for k in range(n):
        pivot = next(i for i in range(k, n) if system[i][k] != 0)
        system[k], system[pivot] = system[pivot], system[k]
        system[k] = [entry / system[k][k] for entry in system[k]]
        for i in range(n):
            if i != k:
                system[i] = [a - system[i][k] * b for a, b in zip(system[i], system[k], strict=True)]
    return [row[n] for row in system]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_states(layout: str) -> None:
    rows = torch.tensor([[0.9, 0.1], [0.5, 0.5]], dtype=torch.float64)
    law = stationary_distribution(in_layout(rows, layout))
    torch.testing.assert_close(law, torch.tensor([5 / 6, 1 / 6], dtype=torch.float64), rtol=1e-15, atol=0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_walk_on_an_undirected_graph_is_by_weight(layout: str) -> None:
    weights = random_rows(30, 0) + random_rows(30, 0).T
    totals = weights.sum(-1)
    law = stationary_distribution(in_layout(weights / totals[:, None], layout))
    torch.testing.assert_close(law, totals / totals.sum(), rtol=1e-13, atol=0)


def test_one_state_and_arrays() -> None:
    torch.testing.assert_close(stationary_distribution(torch.ones(1, 1)), torch.ones(1))
    rows = random_rows(5, 1).numpy()
    expected = stationary_distribution(torch.tensor(rows))
    torch.testing.assert_close(stationary_distribution(rows), expected)
    torch.testing.assert_close(stationary_distribution(scipy.sparse.csc_array(rows)), expected)


def test_every_entry_is_accurate_where_the_chain_nearly_falls_apart() -> None:
    """Jumps of probability 1e-13 or so between two halves; 1 - p would lose all but three digits of it."""
    off = [[0, 0.3, 1e-13, 0], [0.7, 0, 0, 0], [3e-14, 0, 0, 0.45], [0, 2e-14, 0.6, 0]]
    exact = [[Fraction(p) for p in row] for row in off]
    for i, row in enumerate(exact):
        row[i] = 1 - sum(row)
    rows = torch.tensor([[float(p) for p in row] for row in exact], dtype=torch.float64)
    expected = torch.tensor([float(p) for p in exact_law(exact)], dtype=torch.float64)
    for layout in LAYOUTS:
        law = stationary_distribution(in_layout(rows, layout))
        torch.testing.assert_close(law, expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_transient_states_have_no_mass(layout: str) -> None:
    rows = torch.tensor(
        [[0.5, 0.25, 0.25, 0.0], [0.0, 0.9, 0.0, 0.1], [0.3, 0.0, 0.6, 0.1], [0.0, 0.5, 0.0, 0.5]],
        dtype=torch.float64,
    )
    law = stationary_distribution(in_layout(rows, layout))
    torch.testing.assert_close(law, torch.tensor([0, 5 / 6, 0, 1 / 6], dtype=torch.float64), rtol=1e-15, atol=0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_periodic_and_absorbing_chains(layout: str) -> None:
    cycle = torch.eye(4, dtype=torch.float64).roll(1, 1)
    torch.testing.assert_close(
        stationary_distribution(in_layout(cycle, layout)), torch.full((4,), 0.25, dtype=torch.float64)
    )
    absorbing = torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5], [0.0, 0.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(
        stationary_distribution(in_layout(absorbing, layout)), torch.tensor([0.0, 0, 1]).double()
    )


@pytest.mark.parametrize("layout", ["dense", "csr"])
def test_large_chains_by_factorisation(layout: str) -> None:
    n = stationary.REDUCED + 20
    rows = random_rows(n, 2, degree=4)
    rows[1:, 0] = 0.0  # state 0 is never entered
    rows /= rows.sum(-1, keepdim=True)
    law = stationary_distribution(in_layout(rows, layout))
    reduced = torch.from_numpy(stationary._reduce(rows[None].numpy(), torch.tensor([5])))[0]
    assert law[0] == 0
    torch.testing.assert_close(law, reduced, rtol=1e-11, atol=0)


@pytest.mark.parametrize("layout", ["dense", "csr"])
def test_both_algorithms_have_one_gradient(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, v = random_rows(12, 3, degree=3), torch.arange(12).double()
    gradients = []
    for reduced in (400, 4):
        monkeypatch.setattr(stationary, "REDUCED", reduced)
        leaf = in_layout(rows, layout).requires_grad_()
        (stationary_distribution(leaf) @ v).backward()
        gradients.append(leaf.grad.to_dense())
    assert gradients[0].abs().max() > 0.01
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("layout", ["dense", "csr"])
def test_stacks_of_large_chains(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stationary, "REDUCED", 4)
    parts = [random_rows(n, n, degree=2) for n in (7, 2, 12)]
    batch = MarkovChain.stack([MarkovChain.from_transitions(in_layout(rows, layout)) for rows in parts])
    laws = batch.initial
    monkeypatch.undo()
    for law, rows in zip(laws, parts, strict=True):
        torch.testing.assert_close(law[: len(rows)], stationary_distribution(rows), rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batches_are_items(dtype: torch.dtype) -> None:
    rows = torch.stack([random_rows(7, seed, dtype=dtype) for seed in range(6)])
    laws = stationary_distribution(rows.view(2, 3, 7, 7))
    assert laws.dtype == dtype
    assert laws.shape == (2, 3, 7)
    for law, matrix in zip(laws.view(6, 7), rows, strict=True):
        assert torch.equal(law, stationary_distribution(matrix))
    compressed = stationary_distribution(rows.to_sparse_csr())
    assert torch.equal(compressed, laws.view(6, 7))
    torch.testing.assert_close(laws, (laws[..., None, :] @ rows.view(2, 3, 7, 7))[..., 0, :])


def test_parts_of_a_batch_that_exceeds_the_working_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.stack([random_rows(5, seed, degree=2) for seed in range(5)]).to_sparse().requires_grad_()
    v = torch.arange(25).double().view(5, 5)
    whole = stationary_distribution(rows)
    (expected,) = torch.autograd.grad((whole * v).sum(), rows)
    monkeypatch.setattr(stationary, "_CHUNK", 50)
    parts = stationary_distribution(rows)
    assert torch.equal(parts, whole)
    (found,) = torch.autograd.grad((parts * v).sum(), rows)
    torch.testing.assert_close(found.to_dense(), expected.to_dense(), rtol=1e-14, atol=1e-16)


def test_single_precision_is_rounded_double_precision() -> None:
    rows = random_rows(20, 4, dtype=torch.float32) / 2 + torch.eye(20) / 2
    law = stationary_distribution(rows)
    double = rows.double()
    double.diagonal().add_(1 - double.sum(-1))
    assert law.dtype == torch.float32
    assert torch.equal(law, stationary_distribution(double).float())


# --- gradients
def along_the_simplex(rows: Tensor, v: Tensor, k: int, to: int, source: int, step: float = 1e-5) -> float:
    """Central difference of v . pi where mass moves in row k from one state to another."""

    def value(size: float) -> float:
        moved = rows.clone()
        moved[k, to] += size
        moved[k, source] -= size
        return float(stationary_distribution(moved) @ v)

    return (8 * (value(step) - value(-step)) - (value(2 * step) - value(-2 * step))) / (12 * step)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("n", [2, 5])
def test_gradient_by_central_differences(layout: str, n: int) -> None:
    rows = random_rows(n, 5)
    v = torch.linspace(-1, 2, n).double() ** 3
    leaf = in_layout(rows.clone(), layout).requires_grad_()
    (stationary_distribution(leaf) @ v).backward()
    found = leaf.grad.to_dense()
    for k, to, source in product(range(n), repeat=3):
        if to != source:
            expected = along_the_simplex(rows, v, k, to, source)
            assert float(found[k, to] - found[k, source]) == pytest.approx(expected, rel=1e-6, abs=1e-11)


def test_gradient_off_the_support_and_at_transient_states() -> None:
    """A dense tensor has a gradient where mass might move to; a row that is never visited has none."""
    rows = torch.tensor(
        [[0.5, 0.5, 0.0], [0.25, 0.75, 0.0], [0.5, 0.25, 0.25]], dtype=torch.float64, requires_grad=True
    )
    v = torch.tensor([1.0, -2.0, 5.0], dtype=torch.float64)
    (stationary_distribution(rows) @ v).backward()
    moved, step = rows.detach().clone(), 1e-7
    moved[0] += step * torch.tensor([0.0, -1.0, 1.0]).double()
    expected = float((stationary_distribution(moved) - stationary_distribution(rows)).detach() @ v) / step
    assert float(rows.grad[0, 2] - rows.grad[0, 1]) == pytest.approx(expected, rel=1e-5)
    assert torch.equal(rows.grad[2], torch.zeros(3).double())


def test_gradient_rows_are_centred_over_the_entries_that_may_vary() -> None:
    dense = random_rows(6, 6, degree=2).requires_grad_()
    sparse = dense.detach().to_sparse_csr().requires_grad_()
    v = torch.arange(6).double()
    for leaf in (dense, sparse):
        (stationary_distribution(leaf) @ v).backward()
        assert leaf.grad.to_dense().abs().max() > 0.01
        torch.testing.assert_close(leaf.grad.to_dense().sum(-1), torch.zeros(6).double(), rtol=0, atol=1e-14)


def test_gradient_through_a_softmax_by_gradcheck() -> None:
    logits = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(7), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: stationary_distribution(torch.softmax(t, -1)), logits, rtol=1e-6)


def test_a_padded_stack_has_the_laws_and_gradients_of_its_parts() -> None:
    sizes = (3, 6, 1)
    for layout in ("dense", "csr"):
        together = [in_layout(random_rows(n, n), layout).requires_grad_() for n in sizes]
        alone = [leaf.detach().clone().requires_grad_() for leaf in together]
        laws = MarkovChain.stack([MarkovChain.from_transitions(leaf) for leaf in together]).initial
        v = torch.arange(18).double().view(3, 6)
        (laws * v).sum().backward()
        for k, (n, leaf, twin) in enumerate(zip(sizes, together, alone, strict=True)):
            law = stationary_distribution(twin)
            torch.testing.assert_close(laws[k, :n], law, rtol=1e-14, atol=0)
            assert torch.equal(laws[k, n:], torch.zeros(6 - n).double())
            (law @ v[k, :n]).backward()
            torch.testing.assert_close(leaf.grad.to_dense(), twin.grad.to_dense(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_second_order_forward_mode_and_vmap(layout: str) -> None:
    support = random_rows(4, 8) > 0.2
    support |= torch.eye(4, dtype=torch.bool).roll(1, 1)
    owner, column = support.nonzero(as_tuple=True)

    def law(logits: Tensor) -> Tensor:
        rows = logits.masked_fill(~support, -torch.inf).softmax(-1)
        if layout == "dense":
            return MarkovChain.from_transitions(rows).initial
        return MarkovChain(Compressed(pointers(owner, (4,)), column, rows[support]), initial="stationary").initial

    logits = random_rows(4, 9).log().requires_grad_()
    assert torch.autograd.gradcheck(law, logits, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(law, logits, check_fwd_over_rev=True)
    pair = torch.stack([logits.detach(), 2 * logits.detach()])
    torch.testing.assert_close(torch.func.vmap(law)(pair)[1], law(pair[1]), rtol=1e-12, atol=1e-14)


# --- errors
@pytest.mark.parametrize("layout", LAYOUTS)
def test_several_closed_classes(layout: str) -> None:
    rows = torch.block_diag(random_rows(2, 0), random_rows(3, 0), torch.ones(1, 1).double())
    rows[5], rows[5, [0, 3]] = 0.0, torch.tensor([0.5, 0.5]).double()
    with pytest.raises(ValueError, match=r"2 closed classes.*\{0, 1\} and \{2, 3, 4\}.*initial='uniform'"):
        stationary_distribution(in_layout(rows, layout))


@pytest.mark.parametrize("layout", ["dense", "csr"])
def test_several_closed_classes_somewhere_in_a_batch(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stationary, "_CHUNK", 12)  # several parts
    rows = torch.stack([torch.full((2, 2), 0.5), torch.full((2, 2), 0.5), torch.full((2, 2), 0.5), torch.eye(2)])
    with pytest.raises(ValueError, match=r"chain 3 has 2 closed classes.*\{0\} and \{1\}"):
        stationary_distribution(rows if layout == "dense" else rows.to_sparse())


def test_large_sparse_chains_with_several_closed_classes() -> None:
    n = stationary.REDUCED + 2
    with pytest.raises(ValueError, match=r"402 closed classes.*\{0\} and \{1\}"):
        stationary_distribution(scipy.sparse.eye_array(n, format="csr"))
    with pytest.raises(ValueError, match=r"2 closed classes.*\{0, 1, 2, 3, 4, \.\.\.\}"):
        stationary_distribution(torch.block_diag(random_rows(n, 0), torch.ones(1, 1).double()))


@pytest.mark.parametrize(
    ("transition", "error", "message"),
    [
        (
            torch.tensor([[0.5, 0.5], [0.5, 0.75]]),
            ValueError,
            r"transition: row 1 sums to 1\.25.*Divide each row",
        ),
        (
            torch.tensor([[1.5, -0.5], [0.5, 0.5]]),
            ValueError,
            r"transition: entry \(0, 1\) is -0\.5.*negative",
        ),
        (torch.tensor([[float("nan"), 1.0], [0.5, 0.5]]), ValueError, r"entry \(0, 0\) is nan.*finite"),
        (torch.ones(2, 3), ValueError, r"shape \(2, 3\)"),
        (torch.empty(0, 0), ValueError, r"empty chain.*at least one state"),
        (torch.eye(2, dtype=torch.int64), TypeError, r"int64.*\.double\(\)"),
        (np.eye(2, dtype=np.int32), TypeError, r"int32.*\.astype\(float\)"),
        ([[1.0]], TypeError, r"got list"),
        (torch.eye(2, device="meta"), ValueError, "meta"),
    ],
)
def test_bad_input(transition: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        stationary_distribution(transition)


def test_other_sparse_layouts_are_read() -> None:
    rows = torch.tensor([[0.9, 0.1], [0.5, 0.5]], dtype=torch.float64)
    for sparse in (rows.to_sparse_csc(), rows.to_sparse_bsr((1, 2))):
        torch.testing.assert_close(stationary_distribution(sparse), stationary_distribution(rows))
