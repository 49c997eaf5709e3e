"""What happens where a linear system is not solved, and that torch's thread setting is put back."""

import pytest
import torch

from markovot import SolveError, Status
from markovot.solving import adjoint, fixed_point
from markovot.transport import threads
from markovot.transport.compiled import kernel_engine
from oracles import Problem, entropic, random_problem
from solving import SPARSE, solve


def a_problem() -> Problem:
    return random_problem(3, n=4, m=5, delta=0.4, epsilon=0.1)


def test_an_unsolved_adjoint_is_not_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adjoint, "ADJOINT_STEPS", 0)
    solution = solve(a_problem())
    with pytest.raises(SolveError, match=r"adjoint system of item 0 .*residual is .*wanted .*larger rtol"):
        _ = solution.alignment


@pytest.mark.parametrize("whole", [True, False])
def test_unsolved_steps_fall_back_on_value_iteration(whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not whole:
        monkeypatch.setattr(kernel_engine, "WHOLE_ENTRIES", 0)
    problem = a_problem()
    newton = solve(problem, SPARSE, rtol=1e-9)
    monkeypatch.setattr(kernel_engine, "LINEAR_STEPS", 0)
    monkeypatch.setattr(fixed_point, "LINEAR_STEPS", 0)
    found = solve(problem, SPARSE, rtol=1e-9)
    assert found.status is Status.CONVERGED
    assert int(found.num_iter) > int(newton.num_iter)
    assert abs(found.value.item() - float(entropic(problem).value)) <= found.error_bound.item() + 1e-12


def test_own_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with threads.own_threads():
            assert torch.get_num_threads() == 1
            with threads.own_threads():
                assert threads._workers.get() == 3
        assert torch.get_num_threads() == 3
        assert threads._workers.get() is None
    finally:
        torch.set_num_threads(before)
