"""The two torch engines: against loops over the definition, and against each other."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from local_problems import Case
from markovot.transport import gather, shared_kernel, torch_common
from markovot.transport.gather import GatherEngine
from markovot.transport.rows import Rows
from markovot.transport.shared_kernel import SharedKernelEngine

ENGINES = [GatherEngine, SharedKernelEngine]
TIGHT = 1e-11


def centred(gradient, mask):
    """Potentials are unique up to a constant, and so is each row of a gradient."""
    return mask * (gradient - (gradient * mask).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp_min(1))


CASES = {"dense": (None, None), "sparse": (2, 3), "mixed": (None, 2)}


@pytest.fixture(params=list(CASES))
def case(request):
    return Case(*CASES[request.param], seed=len(request.param))


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("gap", [1e-2, 1e-6, 0.0])
def test_sweep_encloses_the_true_values(case, kind, gap):
    lower, upper = case.engine(kind).sweep(case.cost, case.gap(gap), case.active)
    true = torch.zeros_like(lower)
    for p, i, j, value, *_ in case.solutions():
        true[p, i, j] = value
    assert (lower <= true + 1e-13).all()
    assert (upper >= true - 1e-13).all()
    assert (upper - lower <= 1.05 * gap + 1e-12).all()
    assert (lower[~case.real()] == 0).all()
    assert (upper[~case.real()] == 0).all()


@pytest.mark.parametrize("kind", ENGINES)
def test_the_width_is_that_of_the_marginal_error(case, kind):
    engine = case.engine(kind)
    lower, upper = engine.sweep(case.cost, case.gap(0.05), case.active)
    for p, i, j, a, b, cost in case.problems():
        error = np.abs(b - engine.coupling(p, i, j).sum(dim=0)[: len(b)].numpy()).sum()
        spread = np.ptp(cost[a > 0][:, b > 0])
        assert upper[p, i, j] - lower[p, i, j] >= 0.5 * error * spread
    assert (upper - lower).max() > 1e-4


@pytest.mark.parametrize("kind", ENGINES)
def test_products_with_the_plans(case, kind):
    engine, full = case.swept(kind), case.transition_couplings()
    v = case.v.reshape(3, 30, 1)
    real = case.v * case.real()
    assert_close(engine.apply(case.v, case.active).view(3, 30), (full @ v)[..., 0], rtol=0, atol=TIGHT)
    assert_close(engine.apply_transpose(case.v, case.active).view(3, 30), (full.mT @ v)[..., 0], rtol=0, atol=TIGHT)
    left = (real * engine.apply(case.v, case.active)).sum()
    right = (engine.apply_transpose(real, case.active) * case.v).sum()
    assert_close(left, right, rtol=1e-13, atol=1e-13)
    ones = torch.ones_like(case.v)
    assert_close(engine.apply(ones, case.active), case.real().double(), rtol=0, atol=1e-14)
    total = engine.apply(2 * case.v - 3 * ones, case.active)
    parts = 2 * engine.apply(case.v, case.active) - 3 * engine.apply(ones, case.active)
    assert_close(total, parts, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("kind", ENGINES)
def test_couplings(case, kind):
    engine, full = case.swept(kind), case.transition_couplings()
    for p, i, j, a, b, _ in case.problems():
        coupling = engine.coupling(p, i, j)
        assert_close(coupling, full[p, i * 6 + j].view(5, 6), rtol=0, atol=TIGHT)
        assert_close(coupling.sum(dim=1)[: len(a)], torch.from_numpy(a), rtol=0, atol=1e-15)
        assert_close(coupling.sum(dim=0)[: len(b)], torch.from_numpy(b), rtol=0, atol=1e-12)
    for p in range(3):
        rows, columns, values = engine.couplings(p)
        dense = torch.zeros(30, 30, dtype=torch.float64)
        dense[rows, columns] = values
        assert_close(dense, full[p], rtol=0, atol=TIGHT)
        assert (values > 0).all()


@pytest.mark.parametrize("kind", ENGINES)
def test_kl(case, kind):
    engine = case.swept(kind)
    true = torch.zeros_like(case.cost)
    for p, i, j, _, _, _, _, kl in case.solutions():
        true[p, i, j] = kl
    assert_close(engine.kl(), true, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ENGINES)
def test_gradients_on_and_off_the_support(case, kind):
    engine = case.swept(kind)
    true_x, true_y = torch.zeros_like(case.dense_x), torch.zeros_like(case.dense_y)
    shift_x, shift_y = torch.zeros_like(case.dense_x), torch.zeros_like(case.dense_y)
    for p, i, j, _, _, f, g, _ in case.solutions():
        weight = case.v[p, i, j]
        true_x[case.pair_x[p], i, : len(f)] += weight * torch.from_numpy(f)
        true_y[case.pair_y[p], j, : len(g)] += weight * torch.from_numpy(g)
        shift_x[case.pair_x[p], i, : len(f)] = 1
        shift_y[case.pair_y[p], j, : len(g)] = 1

    full_x, full_y = engine.gradient_x(case.v, None), engine.gradient_y(case.v, None)
    assert_close(centred(full_x, shift_x), centred(true_x, shift_x), rtol=0, atol=1e-10)
    assert_close(centred(full_y, shift_y), centred(true_y, shift_y), rtol=0, atol=1e-10)
    outside = torch.arange(5) >= case.x.sizes[:, None]
    assert (full_x[outside.unsqueeze(1).expand_as(full_x)] == 0).all()
    for rows, full, gradient in ((case.x, full_x, engine.gradient_x), (case.y, full_y, engine.gradient_y)):
        chain, row = rows.owners()
        assert_close(gradient(case.v, rows), full[chain, row, rows.indices], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("kind", ENGINES)
def test_inactive_items_are_left_alone(case, kind):
    engine = case.swept(kind)
    before = engine.apply(case.v, case.active)
    active = torch.tensor([False, True, False])
    cost = torch.full_like(case.cost, torch.nan)
    cost[1] = 1 - case.cost[1]
    lower, upper = engine.sweep(cost, case.gap(), active)
    assert (lower[[0, 2]] == 0).all()
    assert (upper[[0, 2]] == 0).all()
    assert torch.isfinite(lower).all()
    after = engine.apply(case.v, case.active)
    assert_close(after[[0, 2]], before[[0, 2]], rtol=1e-13, atol=1e-13)
    assert (after[1] - before[1]).abs().max() > 1e-3
    only = engine.apply_transpose(case.v, active)
    assert (only[[0, 2]] == 0).all()
    assert (only[1] != 0).any()


@pytest.mark.parametrize("kind", ENGINES)
def test_what_stands_at_padding_does_not_matter(case, kind):
    clean = case.engine(kind).sweep(case.cost, case.gap(1e-9), case.active)
    dirty = case.cost.masked_fill(~case.real(), torch.nan)
    for left, right in zip(clean, case.engine(kind).sweep(dirty, case.gap(1e-9), case.active), strict=True):
        assert torch.equal(left, right)


def unstack(rows, chain):
    size = int(rows.sizes[chain])
    start, stop = rows.indptr[chain, 0], rows.indptr[chain, size]
    indptr = rows.indptr[chain : chain + 1, : size + 1] - start
    return Rows(rows.sizes[chain : chain + 1], indptr, rows.indices[start:stop], rows.values[start:stop])


@pytest.mark.parametrize("kind", ENGINES)
def test_a_stacked_item_equals_it_alone(case, kind):
    together = case.engine(kind)
    lower, _ = together.sweep(case.cost, case.gap(1e-9), case.active)
    v = together.apply(case.v, case.active)
    alone = kind(
        unstack(case.x, 1), unstack(case.y, 2),
        torch.tensor([0]), torch.tensor([0]), case.epsilon[1:2],
    )  # fmt: skip
    one = torch.ones(1, dtype=torch.bool)
    single, _ = alone.sweep(case.cost[1:2, :3, :4].contiguous(), case.gap(1e-9)[:1], one)
    assert_close(lower[1, :3, :4], single[0], rtol=0, atol=1e-12)
    assert_close(v[1, :3, :4], alone.apply(case.v[1:2, :3, :4].contiguous(), one)[0], rtol=0, atol=1e-8)


@pytest.mark.parametrize("kind", ENGINES)
def test_plans_are_independent_couplings_before_the_first_sweep(case, kind):
    engine = case.engine(kind)
    for p, i, j, a, b, _ in case.problems():
        coupling = engine.coupling(p, i, j)[: len(a), : len(b)]
        assert_close(coupling, torch.from_numpy(np.outer(a, b)), rtol=1e-14, atol=1e-15)
    assert_close(engine.kl(), torch.zeros_like(case.cost), rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", ENGINES)
def test_small_chunks_change_nothing(case, kind, monkeypatch):
    whole = case.swept(kind)
    monkeypatch.setattr(torch_common, "CHUNK_BYTES", 2000)
    pieces = case.swept(kind)
    for name in ("apply", "apply_transpose"):
        left, right = (getattr(engine, name)(case.v, case.active) for engine in (whole, pieces))
        assert_close(left, right, rtol=1e-13, atol=1e-13)
    assert_close(whole.kl(), pieces.kl(), rtol=1e-12, atol=1e-12)
    for name in ("gradient_x", "gradient_y"):
        left, right = (getattr(engine, name)(case.v, None) for engine in (whole, pieces))
        mask = (left != 0).double()  # padding is zero
        assert_close(centred(left, mask), centred(right, mask), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ENGINES)
def test_deterministic_and_without_side_effects(case, kind):
    copies = case.cost.clone(), case.v.clone(), case.x.values.clone()
    first, second = case.swept(kind), case.swept(kind)
    assert torch.equal(first.apply_transpose(case.v, case.active), second.apply_transpose(case.v, case.active))
    assert torch.equal(first.gradient_x(case.v, None), second.gradient_x(case.v, None))
    for value, copy in zip((case.cost, case.v, case.x.values), copies, strict=True):
        assert torch.equal(value, copy)


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("transpose", [False, True])
def test_linear_systems(case, kind, transpose):
    engine = case.swept(kind)
    discount = torch.tensor([0.2, 0.5, 0.05], dtype=torch.float64)
    rhs = case.v * case.real()
    tolerance = torch.full((3,), 1e-10, dtype=torch.float64)
    x = engine.solve(rhs, discount, tolerance, case.active, transpose=transpose, max_iter=200).x
    product = engine.apply_transpose if transpose else engine.apply
    residual = x - (1 - discount)[:, None, None] * product(x, case.active) - rhs
    assert_close(residual, torch.zeros_like(residual), rtol=0, atol=1e-9)


def test_warm_start_saves_work(monkeypatch):
    case = Case(3, 3, seed=5)
    work = []
    original_solve, original_evaluate = gather.solve_transport, shared_kernel.evaluate

    def solve(*args, **kwargs):
        result = original_solve(*args, **kwargs)
        work.append(int(result.num_iter.sum()))
        return result

    def evaluate(state, kernel):
        work.append(state.done.numel())
        return original_evaluate(state, kernel)

    monkeypatch.setattr(gather, "solve_transport", solve)
    monkeypatch.setattr(shared_kernel, "evaluate", evaluate)
    moved = case.cost + 1e-4 * case.v
    for kind in ENGINES:
        warm, cold = case.engine(kind), case.engine(kind)
        warm.sweep(case.cost, case.gap(1e-5), case.active)
        work.clear()
        first = warm.sweep(moved, case.gap(1e-5), case.active)
        warm_work = sum(work)
        work.clear()
        second = cold.sweep(moved, case.gap(1e-5), case.active)
        assert warm_work < 0.8 * sum(work)
        assert_close(first[0], second[0], rtol=0, atol=1e-5)


def test_rows_of_very_different_degrees():
    """One hub among states of low degree: several buckets, and the same values as with dense rows."""
    hub = torch.full((1, 12, 12), 0.0, dtype=torch.float64)
    hub[0, 0] = 1 / 12
    hub[0, 1:, 0] = 0.5
    hub[0, torch.arange(1, 12), torch.arange(1, 12)] = 0.5
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), (hub[0] > 0).sum(1).cumsum(0)])[None]
    rows = Rows(torch.tensor([12]), indptr, hub[0].nonzero()[:, 1], hub[hub > 0])
    zero, one = torch.zeros(1, dtype=torch.int64), torch.ones(1, dtype=torch.bool)
    cost = torch.rand(1, 12, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    epsilon, gap = torch.tensor([0.1], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    sparse, dense = (kind(rows, rows, zero, zero, epsilon) for kind in ENGINES)
    assert len(sparse.buckets) == 4
    assert_close(sparse.sweep(cost, gap, one)[0], dense.sweep(cost, gap, one)[0], rtol=0, atol=1e-12)
    assert_close(sparse.apply(cost, one), dense.apply(cost, one), rtol=0, atol=TIGHT)


@pytest.mark.parametrize("kind", ENGINES)
def test_value_iteration_finds_the_fixed_point(case, kind):
    """C* by sweeps of the engine, against C* by the oracle."""
    delta = 0.5
    engine, ground, real = case.engine(kind), case.cost, case.real()
    cost = ground * real
    for _ in range(40):
        lower, upper = engine.sweep(cost, case.gap(1e-12), case.active)
        cost = real * (delta * ground + (1 - delta) * 0.5 * (lower + upper))
    slow = Case.__new__(Case)
    slow.__dict__.update(case.__dict__)
    slow.cost = cost
    for p, i, j, value, *_ in slow.solutions():
        right = delta * ground[p, i, j] + (1 - delta) * value
        assert_close(cost[p, i, j], right, rtol=0, atol=1e-11)
