"""What only the engine with one shared kernel has: ranges it can hold, and what it does beyond them."""

import pytest
import torch
from torch.testing import assert_close

from local_problems import Case
from markovot.transport import shared_kernel
from markovot.transport.gather import GatherEngine
from markovot.transport.shared_kernel import SharedKernelEngine, UnsafeRange


@pytest.mark.parametrize("factor", [1e3, 1e-4])
def test_engines_agree_far_from_the_origin(factor):
    """Costs that are far from zero, by more than the kernel could hold without its shifts."""
    case = Case(seed=7)
    moved = case.cost + factor * torch.arange(5)[:, None] + 1e3
    gap = case.gap(1e-9)
    lower, upper = case.engine(SharedKernelEngine).sweep(moved, gap, case.active)
    low, high = case.engine(GatherEngine).sweep(moved, gap, case.active)
    assert (lower <= high).all()
    assert (low <= upper).all()
    assert (upper - lower < 1e-6).all()


@pytest.mark.parametrize("scale", [3.0, 10.0, 25.0])
def test_shared_kernel_at_small_epsilon(scale):
    """Ranges of up to 500 epsilon, where Sinkhorn's steps alone would take for ever."""
    case = Case(seed=8, scale=scale)
    lower, upper = case.engine(SharedKernelEngine).sweep(case.cost, case.gap(1e-8), case.active)
    low, high = case.engine(GatherEngine).sweep(case.cost, case.gap(1e-8), case.active)
    assert (upper - lower <= 1.05e-8 + 1e-11).all()
    assert (lower <= high).all()
    assert (low <= upper).all()


def test_shared_kernel_hands_what_is_left_to_the_explicit_solver(monkeypatch):
    monkeypatch.setattr(shared_kernel, "MAX_NEWTON", 1)
    case, calls = Case(seed=9, scale=25.0), []
    original = shared_kernel.solve_transport
    monkeypatch.setattr(
        shared_kernel, "solve_transport", lambda *args, **kwargs: calls.append(1) or original(*args, **kwargs)
    )
    engine = case.engine(SharedKernelEngine)
    lower, upper = engine.sweep(case.cost, case.gap(1e-8), case.active)
    assert calls
    assert (upper - lower <= 1.05e-8 + 1e-11).all()
    full = case.transition_couplings()
    assert_close(
        engine.apply(case.v, case.active).view(3, 30),
        (full @ case.v.view(3, 30, 1))[..., 0],
        rtol=0,
        atol=1e-5,
    )


def test_unsafe_ranges_are_refused_and_leave_the_engine_as_it_was():
    case = Case(seed=10)
    engine = case.swept(SharedKernelEngine)
    before = engine.apply(case.v, case.active)
    with pytest.raises(UnsafeRange):
        engine.sweep(1e3 * case.cost, case.gap(), case.active)
    assert torch.equal(engine.apply(case.v, case.active), before)
    # One item is enough, but only if it is active.
    cost = case.cost.clone()
    cost[2] *= 1e3
    with pytest.raises(UnsafeRange):
        engine.sweep(cost, case.gap(), case.active)
    engine.sweep(cost, case.gap(), torch.tensor([True, True, False]))
    assert SharedKernelEngine.is_safe(torch.tensor([1.0, 5.0]), torch.tensor([0.01, 0.01]))
    assert not SharedKernelEngine.is_safe(torch.tensor([1.0, 7.0]), torch.tensor([0.01, 0.01]))
