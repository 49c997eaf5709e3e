"""What every engine must do, whichever way it solves: tests to inherit, against loops and dense matrices."""

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch.testing import assert_close

from local_problems import Case, all_entries, wider
from markovot.transport import threads, torch_common
from markovot.transport.compiled import kernel_engine
from oracles import centred

# Rows of either kind on either side; the chains of the last have states for more than one vector of the CPU.
CASES: dict[str, dict[str, Any]] = {
    "dense": {"seed": 1},
    "sparse": {"degree_x": 2, "degree_y": 3, "seed": 2},
    "wide": {"degree_y": 3, "seed": 3, "sizes": ((4, 11), (3, 17, 9))},
    "tall": {"degree_x": 3, "seed": 4, "sizes": ((17, 4), (3, 5, 9))},
}
PLAN = 1e-10  # how well plans and potentials are known where the gap is 0


@functools.cache
def case_of(name: str, exact: bool) -> Case:
    """A case, with its oracle, for all tests: none changes it."""
    return Case(**CASES[name], exact=exact)


def every_case(test: Callable[[Any, Case], None]) -> Callable[[Any], None]:
    """The test, run on each case in turn; what fails says on which."""

    def run(self: Any) -> None:
        for name in CASES:
            try:
                test(self, case_of(name, self.exact))
            except Exception as error:
                error.add_note(f"in the case {name!r}")
                raise

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def elsewhere() -> Iterator[None]:
    """Where a tensor that does not name its device has no values, and one that does not name its type no precision."""
    with ExitStack() as stack:
        stack.enter_context(torch.device("meta"))
        stack.enter_context(default_dtype(torch.float16))
        stack.enter_context(torch.autocast("cpu", dtype=torch.bfloat16))
        yield


class Elsewhere:
    """An engine all of whose methods run `elsewhere`: what goes wrong in it goes wrong on other devices."""

    def __init__(self, kind: Any, *arguments: Any) -> None:
        with elsewhere():
            self.engine = kind(*arguments)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.engine, name)

        def call(*arguments: Any, **options: Any) -> Any:
            with elsewhere():
                return found(*arguments, **options)

        return call if callable(found) else found


class EngineContract:
    """Inherit, name the engine, and say whether it solves exactly (epsilon = 0)."""

    engine: Callable[..., Any]
    exact = False

    def made(self, case: Case) -> Any:
        return case.engine(type(self).engine)

    def swept(self, case: Case) -> Any:
        return case.swept(type(self).engine)

    @every_case
    def test_sweep_encloses_the_true_values(self, case):
        true, real = case.padded("value"), case.real()
        for gap in (1e-2, 1e-6, 0.0):
            lower, upper = self.made(case).sweep(case.cost, case.gap(gap), case.active)
            assert (lower <= true + 1e-13).all()
            assert (upper >= true - 1e-13).all()
            assert (upper - lower <= 1.05 * gap + 1e-12).all()
            assert not lower[~real].any()
            assert not upper[~real].any()

    @every_case
    def test_sweeps_follow_one_another(self, case):
        engine = self.made(case)
        for moved in (case.cost, case.cost + 1e-3 * case.v, 1 - case.cost):
            lower, upper = engine.sweep(moved, case.gap(1e-6), case.active)
            true = case.padded("value", moved)
            assert (lower <= true + 1e-13).all()
            assert (upper >= true - 1e-13).all()
            assert (upper - lower <= 1.05e-6).all()

    @every_case
    def test_plans_are_the_true_ones_and_have_their_marginals(self, case):
        engine, full = self.swept(case), case.transition_couplings()
        _, n, m = case.shape
        for p, (size_x, size_y) in enumerate(case.sizes):
            rows, columns, masses = engine.couplings(p)
            assert (masses > 0).all()
            plans = torch.zeros_like(full[p])
            plans[rows, columns] = masses
            assert_close(plans.sum(), masses.sum())  # each entry once
            assert_close(plans, full[p], rtol=0, atol=PLAN)
            plans = plans.view(n, m, n, m)
            want_x, want_y = case.dense_x[case.pair_x[p]], case.dense_y[case.pair_y[p]]
            for i, j in torch.cartesian_prod(torch.arange(size_x), torch.arange(size_y)).tolist():
                assert_close(plans[i, j].sum(1), want_x[i], rtol=0, atol=1e-12)
                assert_close(plans[i, j].sum(0), want_y[j], rtol=0, atol=1e-12)

    @every_case
    def test_products_are_those_with_the_plans(self, case):
        engine, real = self.swept(case), case.real()
        v = case.v * real
        forward, back = engine.apply(v, case.active), engine.apply_transpose(v, case.active)
        for p in range(3):
            rows, columns, masses = engine.couplings(p)
            flat, size = v[p].flatten(), v[p].numel()
            moved = torch.zeros(size, dtype=torch.float64).index_add_(0, rows, masses * flat[columns])
            assert_close(forward[p].flatten(), moved, rtol=1e-12, atol=1e-13)
            moved = torch.zeros(size, dtype=torch.float64).index_add_(0, columns, masses * flat[rows])
            assert_close(back[p].flatten(), moved, rtol=1e-12, atol=1e-13)
        w = real * case.v.flip(0)
        assert_close((w * forward).sum((1, 2)), (engine.apply_transpose(w, case.active) * v).sum((1, 2)))
        assert_close(engine.apply(real.double(), case.active), real.double(), rtol=0, atol=1e-12)

    @every_case
    def test_plans_are_independent_before_the_first_sweep(self, case):
        engine, full = self.made(case), case.independent_couplings()
        v = (case.v * case.real()).view(3, -1, 1)
        assert_close(engine.apply(v.view(case.shape), case.active).view(v.shape), full @ v, rtol=0, atol=1e-13)
        self.check_solve(case, engine, full, transpose=False)

    @every_case
    def test_linear_systems_are_solved_both_ways(self, case):
        engine, plans = self.swept(case), case.transition_couplings()
        self.check_solve(case, engine, plans, transpose=False)
        self.check_solve(case, engine, plans.mT, transpose=True)

    def check_solve(self, case, engine, plans, *, transpose):
        discount = torch.tensor([0.2, 0.5, 0.05], dtype=torch.float64)
        tolerance = torch.tensor([1e-10, 1e-3, 1e-12], dtype=torch.float64)
        rhs = (case.v * case.real()).view(3, -1, 1)
        for active in (case.active, torch.tensor([True, False, True])):
            given = torch.where(active[:, None, None], rhs.view(case.shape), torch.nan)
            found = engine.solve(given, discount, tolerance, active, transpose=transpose, max_iter=300)
            x = found.x.view(rhs.shape)
            residual = rhs - x + (1 - discount)[:, None, None] * (plans @ x)
            norm = residual.abs().sum((1, 2)) if transpose else residual.abs().amax((1, 2))
            assert (found.residual[active] <= tolerance[active]).all()
            assert (norm[active] <= found.residual[active] + 1e-8).all()
            assert not x[~active].any()

    @every_case
    def test_divergences_are_those_of_the_plans(self, case):
        assert_close(self.swept(case).kl(), case.padded("kl"), rtol=0, atol=PLAN)

    @every_case
    def test_gradients_are_potentials_on_and_off_the_support(self, case):
        engine = self.swept(case)
        sides = (engine.gradient_x, case.x), (engine.gradient_y, case.y)
        for (gradient, rows), want in zip(sides, case.gradients(case.v), strict=True):
            full, real = gradient(case.v, None), all_entries(rows)
            assert_close(centred(full, real), centred(want, real), rtol=0, atol=PLAN)
            assert not full[~real].any()
            # Some entries of it, by a pattern: those that are stored, or those and some zeros.
            for pattern in (rows, wider(rows)):
                chain, row = pattern.owners()
                assert_close(gradient(case.v, pattern), full[chain, row, pattern.indices], rtol=1e-12, atol=1e-12)

    @every_case
    def test_inactive_items_are_left_alone(self, case):
        engine, active = self.swept(case), torch.tensor([False, True, False])
        weights = case.v * torch.tensor([1.0, 0.0, 1.0]).double()[:, None, None]

        def seen():
            others = torch.tensor([0, 2])
            gradients = engine.gradient_x(weights, None), engine.gradient_y(weights, None)
            products = engine.apply(case.v, case.active), engine.apply_transpose(case.v * case.real(), case.active)
            return [*gradients, *(found[others] for found in (*products, engine.kl())), *engine.couplings(0)]

        before, own = seen(), engine.apply(case.v, case.active)[1]
        cost = torch.full_like(case.cost, torch.nan)
        cost[1] = 1 - case.cost[1]
        lower, upper = engine.sweep(cost, case.gap(), active)
        assert_close(lower[1], case.padded("value", 1 - case.cost)[1], rtol=0, atol=1e-12)
        for bound in (lower, upper, engine.apply(case.v, active), engine.apply_transpose(case.v, active)):
            assert not bound[[0, 2]].any()
            assert bound[1].any()
        for found, want in zip(seen(), before, strict=True):
            assert_close(found, want, rtol=1e-13, atol=1e-13)
        assert (engine.apply(case.v, case.active)[1] - own).abs().max() > 1e-3

    @every_case
    def test_items_may_join_later(self, case):
        engine, first = self.made(case), torch.tensor([True, False, True])
        cost = case.cost.clone()
        cost[1] = torch.nan
        engine.sweep(cost, case.gap(), first)
        lower, upper = engine.sweep(case.cost, case.gap(), case.active)
        assert_close(lower, case.padded("value"), rtol=0, atol=1e-12)
        assert_close(upper, lower, rtol=0, atol=1e-12)

    @every_case
    def test_what_stands_at_padding_does_not_matter(self, case):
        clean, dirty = self.made(case), self.made(case)
        real = case.real()
        for cost in (case.cost, case.cost + 1e-3 * case.v):
            want = clean.sweep(cost, case.gap(1e-9), case.active)
            found = dirty.sweep(cost.masked_fill(~real, 77.0), case.gap(1e-9), case.active)
            assert_close(found, want, rtol=0, atol=0)
        v = case.v.masked_fill(~real, 77.0)
        assert_close(dirty.apply(v, case.active), clean.apply(case.v, case.active), rtol=0, atol=0)

    @every_case
    def test_an_item_is_the_same_alone(self, case):
        together = self.made(case)
        lower, _ = together.sweep(case.cost, case.gap(1e-9), case.active)
        moved = together.apply(case.v, case.active)
        one, zero = torch.ones(1, dtype=torch.bool), torch.zeros(1, dtype=torch.int64)
        for p, (n, m) in enumerate(case.sizes):
            x, y = case.x.alone(int(case.pair_x[p])), case.y.alone(int(case.pair_y[p]))
            alone = type(self).engine(x, y, zero, zero, case.epsilon[p : p + 1])
            cost, v = (part[p : p + 1, :n, :m].contiguous() for part in (case.cost, case.v))
            single, _ = alone.sweep(cost, case.gap(1e-9)[:1], one)
            assert_close(single[0], lower[p, :n, :m], rtol=0, atol=1e-9)
            assert_close(alone.apply(v, one)[0], moved[p, :n, :m], rtol=0, atol=1e-4)

    @every_case
    def test_a_warm_start_changes_nothing_but_work(self, case):
        old, warm, other = self.swept(case), self.made(case), self.made(case_of("dense", self.exact))
        warm.warm_start(old)
        other.warm_start(old)
        other.sweep(case_of("dense", self.exact).cost, case.gap(1e-7), case.active)
        moved = case.cost + 1e-3 * case.v
        lower, upper = warm.sweep(moved, case.gap(1e-7), case.active)
        true = case.padded("value", moved)
        assert (lower <= true + 1e-13).all()
        assert (upper >= true - 1e-13).all()
        assert (upper - lower <= 1.05e-7).all()

    @every_case
    def test_deterministic_and_without_side_effects(self, case):
        copies = case.cost.clone(), case.v.clone(), case.x.values.clone()
        first, second = self.swept(case), self.swept(case)
        for name in ("apply", "apply_transpose"):
            assert torch.equal(*(getattr(engine, name)(case.v, case.active) for engine in (first, second)))
        assert torch.equal(first.gradient_x(case.v, None), second.gradient_x(case.v, None))
        assert torch.equal(first.gradient_y(case.v, case.y), second.gradient_y(case.v, case.y))
        for value, copy in zip((case.cost, case.v, case.x.values), copies, strict=True):
            assert torch.equal(value, copy)


class CompiledContract(EngineContract):
    """What engines of compiled kernels have besides: the whole loop of policy iteration, and tasks for threads."""

    @every_case
    def test_policy_iteration_ends_at_the_fixed_point(self, case):
        discount = torch.tensor([0.2, 0.5, 0.05], dtype=torch.float64)[:, None, None]
        tolerance, scale = case.gap(1e-9), case.gap(1.0)
        near = case.cost + 0.1 * case.v
        for start, polish, max_iter in ((None, False, 100), (near, True, 100), (None, False, 1)):
            engine = self.made(case)
            assert engine.solves_whole
            found, cost = engine.policy_iteration(
                case.cost, discount.flatten(), tolerance, scale, start, polish=polish, max_iter=max_iter
            )
            assert (found["num_iter"] <= max_iter).all()
            moved = discount * case.cost + (1 - discount) * case.padded("value", cost)
            # What one more step would move says how far the fixed point may be.
            step = torch.where(case.real(), (moved - cost).abs(), 0.0).amax((1, 2), keepdim=True)
            away = (1 - discount) / discount * step + 1e-12
            low, high = (found["base"] + found[name][:, None, None] for name in ("low", "high"))
            assert (low - away <= moved)[case.real()].all()
            assert (moved <= high + away)[case.real()].all()
            if max_iter > 1:
                assert step.max() < 1e-8
                assert (found["high"] - found["low"] <= 2e-9).all()

    @every_case
    def test_a_warm_start_saves_work(self, case):
        warm, cold = self.made(case), self.made(case)
        warm.warm_start(self.swept(case))
        for engine in (warm, cold):
            engine.sweep(case.cost + 1e-4 * case.v, case.gap(1e-5), case.active)
        assert warm.evaluations < 0.8 * cold.evaluations

    def test_small_tasks_change_nothing(self, monkeypatch):
        case, found = case_of("wide", self.exact), []
        before = torch.get_num_threads()
        for entries in (1 << 14, 10):
            monkeypatch.setattr(kernel_engine, "TASK_ENTRIES", entries)
            monkeypatch.setattr(threads, "WORTH_A_THREAD", 1)
            torch.set_num_threads(3)
            try:
                engine = self.made(case)
                bounds = engine.sweep(case.cost, case.gap(1e-6), case.active)
                products = engine.apply(case.v, case.active), engine.apply_transpose(case.v, case.active)
                gradients = engine.gradient_x(case.v, None), engine.gradient_y(case.v, None)
                found.append([*bounds, *products, *gradients, engine.kl()])
            finally:
                torch.set_num_threads(before)
        assert all(map(torch.equal, *found))


class TorchContract(EngineContract):
    """What the torch engines have besides: chunks of bounded memory, and a width that their marginal error explains."""

    def test_the_loop_is_pythons(self):
        assert not self.made(case_of("dense", self.exact)).solves_whole

    def test_small_chunks_change_nothing(self, monkeypatch):
        case = case_of("wide", self.exact)
        whole = self.swept(case)
        monkeypatch.setattr(torch_common, "CHUNK_BYTES", 2000)
        pieces = self.swept(case)
        for name in ("apply", "apply_transpose"):
            left, right = (getattr(engine, name)(case.v, case.active) for engine in (whole, pieces))
            assert_close(left, right, rtol=1e-12, atol=1e-12)
        assert_close(whole.kl(), pieces.kl(), rtol=1e-12, atol=1e-12)
        for name, rows in (("gradient_x", case.x), ("gradient_y", case.y)):
            left, right = (getattr(engine, name)(case.v, None) for engine in (whole, pieces))
            real = all_entries(rows)
            assert_close(centred(left, real), centred(right, real), rtol=1e-12, atol=1e-12)

    @every_case
    def test_the_width_is_that_of_the_marginal_error(self, case):
        engine = self.made(case)
        lower, upper = engine.sweep(case.cost, case.gap(0.05), case.active)
        for p in range(3):
            (rows_x, rows_y), (n, m) = case.rows(p), case.sizes[p]
            for i, j in np.ndindex(n, m):
                error = np.abs(rows_y[j] - engine.coupling(p, i, j).sum(0)[:m].numpy()).sum()
                spread = np.ptp(case.cost[p, :n, :m].numpy()[rows_x[i] > 0][:, rows_y[j] > 0])
                assert upper[p, i, j] - lower[p, i, j] >= 0.5 * error * spread
        assert (upper - lower).max() > 1e-4
