"""The training loop: what it minimises, what it records, how it stops, fails, and goes on."""

import errno
import math
import os
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from markovot import (
    DecisionProcess,
    MarkovChain,
    SolveError,
    bisimulation,
    costs,
    discounted_wl,
    optimal_transition_coupling,
)
from markovot.learning.history import History
from markovot.learning.parameters import LabelledChain
from markovot.learning.training import EVERY, Training, TrainingError, minimise

DOUBLE = torch.float64


class Bowl(nn.Module):
    """A point whose squared distance from a target is the objective."""

    def __init__(self, start, target=0.0):
        super().__init__()
        self.point = nn.Parameter(torch.as_tensor(start, dtype=DOUBLE))
        self.target = torch.as_tensor(target, dtype=DOUBLE)

    def forward(self):
        return (self.point - self.target).square()


def total(module):
    return module().sum()


def ring(n):
    angle = torch.arange(n, dtype=DOUBLE) * (2 * math.pi / n)
    transition = torch.eye(n, dtype=DOUBLE).roll(1, 1)
    features = torch.stack([angle.cos(), angle.sin()], 1)
    return MarkovChain.from_transitions(transition, initial="uniform", features=features)


class Distance:
    """An objective as users write it: the distance to a chain, with warm starts."""

    def __init__(self, target, **accuracy):
        self.target, self.accuracy, self.last, self.cold = target, accuracy, None, 0

    def reset(self):
        self.last = None

    def __call__(self, module):
        self.cold += self.last is None
        solution = discounted_wl(
            module(), self.target, costs.Euclidean(), delta=0.5, epsilon=0.05, init=self.last, **self.accuracy
        )
        self.last = solution
        return solution.value, solution


def learner(n=4, seed=0):
    return LabelledChain(n, num_features=2, generator=torch.Generator().manual_seed(seed))


quiet = partial(minimise, progress=False)


# --- it minimises
@pytest.mark.parametrize(
    "optimiser",
    [None, partial(torch.optim.SGD, lr=0.1), partial(torch.optim.LBFGS, line_search_fn="strong_wolfe")],
    ids=["Adam", "SGD", "L-BFGS"],
)
def test_finds_the_minimum_with_any_optimiser(optimiser):
    bowl = Bowl([3.0, -2.0], [1.0, 5.0])
    history = quiet(bowl, total, steps=300, lr=0.1, optimiser=optimiser)
    torch.testing.assert_close(bowl.point.detach(), bowl.target, atol=1e-3, rtol=0)
    assert history.best < 1e-5 < history.value[0]


def test_takes_the_steps_of_the_optimiser_as_a_loop_by_hand_does():
    bowl, hand = Bowl([3.0, -2.0]), Bowl([3.0, -2.0])
    history = quiet(bowl, total, steps=7, lr=0.3)
    adam = torch.optim.Adam(hand.parameters(), lr=0.3)
    values = []
    for _ in range(7):
        adam.zero_grad()
        value = total(hand)
        value.backward()
        values.append(value.item())
        before = hand.point.detach().clone()
        adam.step()
    np.testing.assert_array_equal(history.value, values)
    torch.testing.assert_close(bowl.point.detach(), before, atol=0, rtol=0)  # of the smallest value that was seen


def test_keeps_the_best_parameters_where_later_ones_are_worse():
    bowl = Bowl([1.0])
    history = quiet(bowl, total, steps=20, optimiser=partial(torch.optim.SGD, lr=1.4))  # overshoots, and diverges
    assert history.value[-1] > history.value[0]
    assert history.best_step == 0
    torch.testing.assert_close(bowl.point.detach(), torch.ones(1, dtype=DOUBLE), atol=0, rtol=0)


def test_lowers_the_distance_of_chains_and_records_its_certificate():
    history = quiet(learner(), Distance(ring(6)), steps=60, lr=0.05)
    assert len(history) == 60
    assert history.best < 0.5 * history.value[0]
    assert (history.error_bound > 0).all()
    assert (history.error_bound < 1e-3).all()
    assert (history.num_iter >= 1).all()
    assert (history.seconds > 0).all()


def test_works_with_l_bfgs_on_chains():
    history = quiet(learner(), Distance(ring(6)), steps=5, optimiser=partial(torch.optim.LBFGS, max_iter=10))
    assert history.best < 0.7 * history.value[0]


def test_records_nan_bounds_where_there_is_no_solution():
    history = quiet(Bowl([1.0]), total, steps=3)
    assert np.isnan(history.error_bound).all()
    assert (history.num_iter == 0).all()


def test_leaves_frozen_parameters_alone():
    bowl = Bowl([1.0])
    bowl.frozen = nn.Parameter(torch.ones(1, dtype=DOUBLE), requires_grad=False)
    quiet(bowl, lambda module: module().sum() + module.frozen.sum(), steps=3)
    assert bowl.frozen.item() == 1


# --- problems side by side
def test_problems_side_by_side_go_as_each_would_alone():
    starts = [[3.0, 0.5], [-2.0, 9.0], [0.1, 0.1]]
    history = quiet(bowl := Bowl(starts), lambda module: module().sum(1), steps=30, lr=0.2)
    assert history.value.shape == (30, 3)
    for r, start in enumerate(starts):
        alone = quiet(one := Bowl(start), total, steps=30, lr=0.2)
        np.testing.assert_allclose(history.value[:, r], alone.value, rtol=1e-14)
        torch.testing.assert_close(bowl.point[r].detach(), one.point.detach())
    np.testing.assert_array_equal(history.best, history.value.min(0))


def test_each_problem_keeps_its_own_best():
    # One overshoots and is best at once; the other converges.
    bowl = Bowl([[1.0], [1.0]])
    rates = torch.tensor([1.4, 0.1], dtype=DOUBLE)
    quiet(bowl, lambda module: module().sum(1) * rates, steps=9, optimiser=partial(torch.optim.SGD, lr=1.0))
    assert bowl.point[0].item() == 1
    assert abs(bowl.point[1].item()) < 0.3


def test_gives_each_problem_the_certificate_of_its_own_distances():
    target = ring(5)

    def objective(module):
        x = MarkovChain(module.point.softmax(-1), initial="uniform", features=target.features.expand(2, 5, 2))
        solution = discounted_wl(x, target, costs.Euclidean(), delta=0.5, epsilon=0.05)
        return solution.value, solution

    logits = torch.stack([torch.zeros(5, 5, dtype=DOUBLE), 9 * torch.eye(5, dtype=DOUBLE)])
    history = quiet(Bowl(logits), objective, steps=1)
    assert history.error_bound.shape == (1, 2)
    assert history.error_bound[0, 0] != history.error_bound[0, 1]


# --- stopping
def test_stops_when_out_of_patience():
    history = quiet(Bowl([0.0]), lambda module: module().sum() + 1, steps=500, patience=7)
    assert len(history) == 8  # the first step is a gain


def test_small_gains_do_not_count():
    bowl = partial(Bowl, [100.0])
    slow = partial(torch.optim.SGD, lr=1e-5)  # gains 4e-5 of the value a step
    assert len(quiet(bowl(), total, steps=40, optimiser=slow, patience=4, tolerance=1e-3)) == 5
    assert len(quiet(bowl(), total, steps=40, optimiser=slow, patience=4, tolerance=1e-6)) == 40


def test_stops_only_when_all_problems_are_out_of_patience():
    def objective(module):
        return module().sum(1)

    history = quiet(Bowl([[0.0], [2.0]]), objective, steps=500, lr=0.1, patience=5)
    assert 20 < len(history) < 500


# --- warm starts
def test_drops_warm_starts_at_fixed_steps():
    objective = Distance(ring(5))
    quiet(learner(3), objective, steps=EVERY + 1)
    assert objective.cold == 2


# --- checkpoints
class Stop(Exception):
    pass


def stopping(objective, after):
    """The objective, whose evaluation number `after` is an interruption."""
    count = 0

    def run(module):
        nonlocal count
        count += 1
        if count > after:
            raise Stop
        return objective(module)

    run.reset = getattr(objective, "reset", lambda: None)
    return run


def test_goes_on_after_an_interruption_with_the_same_bits(tmp_path):
    setting = {"steps": 2 * EVERY + 20, "lr": 0.02, "patience": 100}
    whole = quiet(one := learner(), Distance(ring(6)), **setting)
    path = tmp_path / "run.checkpoint"
    with pytest.raises(Stop):
        quiet(learner(), stopping(Distance(ring(6)), EVERY + 13), checkpoint=path, **setting)
    history = quiet(two := learner(seed=1), Distance(ring(6)), checkpoint=path, **setting)
    np.testing.assert_array_equal(history.value, whole.value)
    np.testing.assert_array_equal(history.error_bound, whole.error_bound)
    for mine, theirs in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=0, rtol=0)
    assert os.listdir(tmp_path) == ["run.checkpoint"]


def test_goes_on_with_the_same_random_numbers(tmp_path):
    def noisy(module):
        return (module().sum() + 0.1 * torch.randn((), dtype=DOUBLE)).abs()

    setting = {"steps": EVERY + 10, "lr": 0.1}
    with torch.random.fork_rng():
        torch.manual_seed(5)
        whole = quiet(Bowl([3.0]), noisy, **setting)
        torch.manual_seed(5)
        with pytest.raises(Stop):
            quiet(Bowl([3.0]), stopping(noisy, EVERY + 5), checkpoint=tmp_path / "c", **setting)
        torch.manual_seed(99)
        history = quiet(Bowl([3.0]), noisy, checkpoint=tmp_path / "c", **setting)
    np.testing.assert_array_equal(history.value, whole.value)


def test_patience_goes_on_where_it_was(tmp_path):
    def flat(module):
        return module().sum() + 1

    setting = {"steps": 500, "patience": EVERY + 10}
    whole = quiet(Bowl([0.0]), flat, **setting)
    with pytest.raises(Stop):
        quiet(Bowl([0.0]), stopping(flat, EVERY + 2), checkpoint=tmp_path / "c", **setting)
    history = quiet(Bowl([0.0]), flat, checkpoint=tmp_path / "c", **setting)
    assert len(history) == len(whole) == EVERY + 11


def test_keeps_the_best_of_problems_side_by_side_in_the_checkpoint(tmp_path):
    def objective(module):
        return module().sum(1)

    start = [[3.0], [-2.0]]
    whole = quiet(one := Bowl(start), objective, steps=EVERY + 9, lr=0.3)
    with pytest.raises(Stop):
        quiet(Bowl(start), stopping(objective, EVERY + 2), steps=EVERY + 9, lr=0.3, checkpoint=tmp_path / "c")
    history = quiet(two := Bowl(start), objective, steps=EVERY + 9, lr=0.3, checkpoint=tmp_path / "c")
    np.testing.assert_array_equal(history.value, whole.value)
    torch.testing.assert_close(one.point, two.point, atol=0, rtol=0)


def test_a_finished_run_is_read_from_its_checkpoint_and_can_be_made_longer(tmp_path):
    setting = {"lr": 0.1, "checkpoint": tmp_path / "c"}
    first = quiet(Bowl([3.0]), total, steps=EVERY, **setting)
    with_no_step = quiet(bowl := Bowl([7.0]), stopping(total, 0), steps=EVERY, **setting)
    np.testing.assert_array_equal(with_no_step.value, first.value)
    assert abs(bowl.point.item()) < 1
    longer = quiet(Bowl([7.0]), total, steps=EVERY + 5, **setting)
    np.testing.assert_array_equal(longer.value, quiet(Bowl([3.0]), total, steps=EVERY + 5, lr=0.1).value)


def test_an_interrupted_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "c"
    quiet(Bowl([3.0]), total, steps=EVERY, checkpoint=path)
    before = path.read_bytes()

    real = Path.write_bytes

    def half(file, content):
        real(file, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError, match="checkpoint: No space left on device; an older file is as it was") as caught:
        quiet(Bowl([3.0]), total, steps=EVERY + 1, checkpoint=path)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["c"]


def test_refuses_a_damaged_checkpoint(tmp_path):
    path = tmp_path / "c"
    quiet(Bowl([3.0]), total, steps=2, checkpoint=path)
    sound, generator = path.read_bytes(), np.random.default_rng(0)
    damaged = [sound[: len(sound) // 2], sound[:-1], sound + b"x", bytes(len(sound))]
    for place in generator.integers(8 * len(sound), size=20):
        content = bytearray(sound)
        content[place // 8] ^= 1 << place % 8
        damaged.append(bytes(content))
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"checkpoint: {re.escape(str(path))} is not .* or is damaged"):
            quiet(Bowl([3.0]), total, steps=4, checkpoint=path)


class Buffered(Bowl):
    """Has the parameter of a bowl, and more to keep."""

    def __init__(self):
        super().__init__([3.0])
        self.register_buffer("seen", torch.zeros(3))


def test_refuses_checkpoints_of_something_else(tmp_path):
    path = tmp_path / "c"
    quiet(Bowl([3.0]), total, steps=2, checkpoint=path)
    with pytest.raises(ValueError, match="other parameters or with another optimiser"):
        quiet(Bowl([3.0, 1.0]), total, steps=2, checkpoint=path)
    with pytest.raises(ValueError, match="other parameters or with another optimiser"):
        quiet(Bowl([3.0]), total, steps=2, checkpoint=path, optimiser=partial(torch.optim.SGD, lr=0.1))
    with pytest.raises(ValueError, match="other parameters or with another optimiser"):
        quiet(Buffered(), total, steps=2, checkpoint=path)
    for content in (b"", b"no checkpoint"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{re.escape(str(path))} is not a checkpoint of a training"):
            quiet(Bowl([3.0]), total, steps=2, checkpoint=path)
    with pytest.raises(TypeError, match=r"checkpoint: expected a path, a string or a pathlib.Path, got int"):
        quiet(Bowl([3.0]), total, steps=2, checkpoint=3)
    with pytest.raises(ValueError, match="there is no folder"):
        quiet(Bowl([3.0]), total, steps=2, checkpoint=tmp_path / "no" / "c")


# --- failures
def at_step(k, wrong):
    """An objective that goes wrong at step k."""
    count = 0

    def objective(module):
        nonlocal count
        count += 1
        return wrong(module) if count == k + 1 else module().sum()

    return objective


def test_names_the_step_of_a_value_that_is_not_a_number():
    bowl = Bowl([1.0])
    with pytest.raises(TrainingError, match=r"step 3 of the training failed: the value is nan") as caught:
        quiet(bowl, at_step(3, lambda module: module().sum() * math.nan), steps=9)
    error = caught.value
    assert error.step == len(error.history) == 3
    assert isinstance(error, SolveError)
    assert list(error.best) == ["point"]
    torch.testing.assert_close(error.best["point"].square().sum().item(), error.history.best, atol=0, rtol=0)
    torch.testing.assert_close(bowl.point.detach(), error.best["point"], atol=0, rtol=0)


def test_names_the_item_of_a_value_that_is_not_a_number():
    factor = torch.tensor([1.0, math.inf, 1.0], dtype=DOUBLE)
    with pytest.raises(TrainingError, match="step 0 of the training failed: the value of item 1 is inf"):
        quiet(Bowl([1.0, 1.0, 1.0]), lambda module: module() * factor, steps=9)


def test_names_the_parameter_whose_gradient_is_not_a_number():
    def wrong(module):  # the square root has no derivative at 0
        return module().sum() + (module.point[1] * 0).sqrt()

    with pytest.raises(TrainingError, match=r"step 2 of the training failed: the gradient in point is nan at item 1"):
        quiet(Bowl([1.0, 2.0]), at_step(2, wrong), steps=9)


def test_names_the_parameter_that_has_run_away():
    module = learner()
    with torch.no_grad():
        module.features[1, 0] = math.nan
    with pytest.raises(TrainingError, match=r"step 0 .* the parameter features is nan at item \(1, 0\)"):
        quiet(module, Distance(ring(5)), steps=3)


def test_a_failed_solve_is_told_with_its_step_and_its_solution():
    def wrong(module):
        x = MarkovChain(module.point.expand(2, 3, 3).softmax(-1), initial="uniform")
        accuracy = {"rtol": 1e-12, "max_iter": 1}
        cost = torch.arange(9, dtype=DOUBLE).view(3, 3)
        return discounted_wl(x, x, cost, delta=0.01, epsilon=0.01, **accuracy).value.sum()

    start = torch.eye(3, dtype=DOUBLE)
    with pytest.raises(TrainingError, match=r"step 1 of the training failed: 2 items \(0, 1\) did not") as caught:
        quiet(Bowl(start), at_step(1, wrong), steps=9)
    assert caught.value.solution.value.shape == (2,)
    assert isinstance(caught.value.__cause__, SolveError)


def test_a_failed_adjoint_is_told_with_its_step():
    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.sum()

        @staticmethod
        def backward(ctx, gradient):
            raise SolveError("the adjoint system of item 4 did not converge: ...", None)

    with pytest.raises(TrainingError, match=r"step 1 of the training failed: the adjoint system of item 4"):
        quiet(Bowl([1.0]), at_step(1, lambda module: Fails.apply(module.point)), steps=9)


def test_other_errors_pass_as_they_are():
    def wrong(module):
        raise RuntimeError("a mistake in the objective")

    with pytest.raises(RuntimeError, match=r"^a mistake in the objective$"):
        quiet(Bowl([1.0]), at_step(1, wrong), steps=9)


# --- bad input
@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"steps": 0}, ValueError, "steps: 0 is less than 1"),
        ({"steps": 2.0}, TypeError, "steps: expected an integer, got float"),
        ({"patience": 0}, ValueError, "patience: 0 is less than 1"),
        ({"lr": 0.0}, ValueError, "lr: 0.0 is not above 0"),
        ({"tolerance": -1.0}, ValueError, "tolerance"),
        ({"optimiser": lambda parameters: None}, TypeError, "optimiser: it returned NoneType"),
        ({"module": 3}, TypeError, "module: expected a torch.nn.Module, got int"),
        ({"module": nn.ReLU()}, ValueError, "nothing to train"),
        ({"objective": 3}, TypeError, "objective: expected a function of the module, got int"),
        ({"objective": lambda module: 3.0}, TypeError, "it must return a tensor, or a pair .* got float"),
        ({"objective": lambda module: (total(module), 3)}, TypeError, "got Tensor and int"),
        ({"objective": lambda module: module.point[None]}, ValueError, r"it returned shape \(1, 2\)"),
        ({"objective": lambda module: torch.ones(())}, ValueError, "does not depend on the module"),
        ({"objective": lambda module: module.point.expand(3, 2).sum(1)}, ValueError, "it returned 3 values"),
    ],
)
def test_refuses_bad_input(change, kind, message):
    call = {"module": Bowl([1.0, 2.0]), "objective": total, "steps": 3} | change
    with pytest.raises(kind, match=message):
        quiet(call.pop("module"), call.pop("objective"), **call)


# --- progress, settings, history
def test_shows_progress_when_asked(capsys):
    minimise(Bowl([1.0]), total, steps=4)
    assert "4/4" in capsys.readouterr().err
    minimise(Bowl([1.0]), total, steps=4, progress=False)
    assert capsys.readouterr().err == ""


def test_settings_are_those_of_minimise():
    setting = Training(steps=9, lr=0.2, progress=False)
    np.testing.assert_array_equal(
        setting.run(Bowl([3.0]), total).value, quiet(Bowl([3.0]), total, steps=9, lr=0.2).value
    )


def test_a_history_says_what_it_holds():
    def history(value):
        value = np.array(value, dtype=float)
        return History(value, np.zeros_like(value), np.zeros(value.shape, int), np.zeros(len(value)))

    assert repr(history([3.0, 1.0])) == "History(2 steps, from 3 to 1 at step 1)"
    assert repr(history([3.0])) == "History(1 step, from 3 to 3 at step 0)"
    assert repr(history([])) == "History(0 steps)"
    assert repr(history([[3.0, 2.0]])) == "History(1 step of 2 problems, the best 2)"
    with pytest.raises(ValueError, match="no steps"):
        _ = history([]).best_step
    assert history([[3.0, 2.0], [1.0, 4.0]]).best_step.tolist() == [1, 0]


@pytest.mark.parametrize("kind", ["coupling", "bisimulation"])
def test_every_certified_result_may_stand_behind_a_value(kind):
    target = ring(3)

    def objective(module):
        chain = module()
        if kind == "coupling":
            found = optimal_transition_coupling(chain, target, costs.Euclidean(), epsilon=0.1)
            return found.value, found
        reward = torch.tensor([[0.0], [1.0], [2.0]], dtype=DOUBLE)
        found = bisimulation(DecisionProcess([chain.transition], reward), gamma=0.5, epsilon=0.1)
        return found.value.sum(), found

    history = quiet(learner(3), objective, steps=2)
    assert (history.error_bound > 0).all()
    assert (history.num_iter > 0).all()
