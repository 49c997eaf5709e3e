"""What bisimulation takes: processes, fixed policies and their gradients; what it refuses, and how it fails."""

import math
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor

from bisimulation_checks import Array, assert_fixed_point, dense, process, random_process
from markovot import SolveError, Status, interop
from markovot.mdp import DecisionProcess, bisimulation, iteration, operator
from markovot.transport import engines
from markovot.transport.linear import Linear
from markovot.transport.shared_kernel import UnsafeRange
from oracles import numerical_gradient, random_law
from test_interop_gymnasium import TABLES


# --- fixed policies
def policy_of(seed: int, n: int, actions: int) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(np.stack([random_law(rng, actions) for _ in range(n)]))


@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_a_policy_averages_rewards_and_transitions(layout: str):
    P, r = dense(random_process(10, degree=3))
    model = DecisionProcess(torch.from_numpy(P) if layout == "dense" else torch.from_numpy(P).to_sparse(), r)
    policy = policy_of(0, 5, 3)
    under = model.under(policy)
    weights = policy.numpy()
    assert under.chains[0].is_sparse == (layout == "sparse")
    np.testing.assert_allclose(under.chains[0].to_dense().transition, np.einsum("sa,ast->st", weights, P), atol=1e-15)
    np.testing.assert_allclose(under.reward[:, 0], (weights * r).sum(1), atol=1e-15)
    solution = bisimulation(model, gamma=0.8, policy=policy, rtol=1e-11)
    assert_fixed_point(under, under, solution.value, 0.8, 0.0, 1e-9)
    torch.testing.assert_close(bisimulation(under, gamma=0.8, rtol=1e-11).value, solution.value)


def test_a_policy_of_actions_takes_their_rows():
    model = random_process(11)
    actions = torch.tensor([2, 0, 1, 1, 0])
    P, r = dense(model.under(actions))
    rows, rewards = dense(model)
    np.testing.assert_array_equal(P[0], rows[actions, np.arange(5)])
    np.testing.assert_array_equal(r[:, 0], rewards[np.arange(5), actions])
    np.testing.assert_array_equal(dense(model.under(actions.numpy()))[0], P)


def stored(pattern: Array, rows: Tensor) -> Tensor:
    """A sparse tensor of the entries where the pattern is positive."""
    where = pattern.nonzero()
    return torch.sparse_coo_tensor(np.stack(where), rows[where], rows.shape, check_invariants=False)


@pytest.mark.parametrize("epsilon", [0.0, 0.05])
@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_gradients_in_policy_transitions_and_rewards(layout: str, epsilon: float):
    P, r = dense(random_process(12, n=4, actions=2, degree=3))
    rng = np.random.default_rng(0)
    weights = rng.uniform(0, 1, (4, 4))
    inputs = {"policy": policy_of(1, 4, 2).numpy(), "rows": P, "reward": r}

    def loss(policy: Tensor, rows: Tensor, reward: Tensor) -> Tensor:
        given = rows if layout == "dense" else [stored(*pair) for pair in zip(P, rows, strict=True)]
        model = DecisionProcess(given, reward)
        solution = bisimulation(model, gamma=0.7, epsilon=epsilon, policy=policy, rtol=1e-12, throw=False)
        return (torch.from_numpy(weights) * solution.value).sum()

    leaves = {name: torch.tensor(array, requires_grad=True) for name, array in inputs.items()}
    loss(**leaves).backward()
    for name, array in inputs.items():
        direction = rng.uniform(-1, 1, array.shape)
        if name != "reward":  # along the simplex, on the support
            support = array > 0
            mean = (direction * support).sum(-1, keepdims=True) / support.sum(-1, keepdims=True)
            direction = (direction - mean) * support

        def along(changed: Array, name: str = name) -> float:
            given = inputs | {name: changed}
            return float(loss(**{key: torch.tensor(value) for key, value in given.items()}))

        slope = numerical_gradient(along, array, direction, 1e-4)
        assert (leaves[name].grad.numpy() * direction).sum() == pytest.approx(slope, abs=1e-7)
        assert abs(slope) > 1e-2


def test_two_models_under_two_policies_have_gradients():
    model, gamma = random_process(13, n=4, actions=2), 0.6
    first, second = policy_of(2, 4, 2).requires_grad_(), policy_of(3, 4, 2).requires_grad_()
    solution = bisimulation(model.under(first), model.under(second), gamma=gamma, rtol=1e-10)
    solution.value[1, 2].backward()
    direction = torch.tensor([[0.0, 0.0], [1.0, -1.0], [0.0, 0.0], [-1.0, 1.0]], dtype=torch.float64)
    for leaf, moved in ((first, 0), (second, 1)):

        def along(change: Array, moved: int = moved) -> float:
            policies = [first.detach(), second.detach()]
            policies[moved] = policies[moved] + torch.from_numpy(change)
            x, y = (model.under(policy) for policy in policies)
            return float(bisimulation(x, y, gamma=gamma, rtol=1e-12).value[1, 2])

        slope = numerical_gradient(along, np.zeros((4, 2)), direction.numpy(), 1e-4)
        assert (leaf.grad * direction).sum().item() == pytest.approx(slope, abs=1e-7)
        assert leaf.grad.abs().max() > 1e-3


def test_with_a_gradient_bisimilar_states_stay_at_zero_and_add_none():
    # States 0 and 1 behave alike; 2 absorbs, without reward.
    rows = torch.tensor([[0.2, 0.3, 0.5], [0.5, 0.0, 0.5], [0, 0, 1]], dtype=torch.float64, requires_grad=True)
    reward = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64, requires_grad=True)
    solution = bisimulation(DecisionProcess(rows, reward), gamma=0.9)
    assert solution.value[0, 1].item() == 0
    assert solution.bisimilar[0, 1]
    assert solution.value[0, 2] > 0.1
    assert solution.actions.tolist() == [[0] * 3] * 3
    plain = bisimulation(DecisionProcess(rows.detach(), reward.detach()), gamma=0.9)
    torch.testing.assert_close(solution.value.detach(), plain.value, rtol=0, atol=2e-6)
    assert torch.equal(solution.bisimilar, plain.bisimilar)
    (solution.value[0, 1] + solution.value[2, 2]).backward()
    assert not rows.grad.any()
    assert not reward.grad.any()


def test_no_gradient_through_the_maximum():
    P, r = dense(random_process(14))
    model = DecisionProcess(P, torch.tensor(r, requires_grad=True))
    with pytest.raises(ValueError, match=r"the maximum over actions has none where actions tie. Fix a policy"):
        bisimulation(model, gamma=0.9)
    assert model.requires_grad
    wanted = bisimulation(process(P, r), gamma=0.9).value
    with torch.no_grad():
        assert torch.equal(bisimulation(model, gamma=0.9).value, wanted)
    assert not model.detach().requires_grad
    assert torch.equal(bisimulation(model.detach(), gamma=0.9).value, wanted)
    sparse = DecisionProcess(torch.from_numpy(P).to_sparse().requires_grad_(), r)
    assert sparse.requires_grad
    assert sparse.detach().chains[0].is_sparse
    torch.testing.assert_close(bisimulation(sparse.detach(), gamma=0.9).value, wanted, rtol=0, atol=1e-13)


# --- precision, and how it fails
def test_float32_in_float32_out_with_an_honest_bound():
    P, r = dense(random_process(15))
    rows, reward = torch.from_numpy(P).float(), torch.from_numpy(r).float()
    single = bisimulation(DecisionProcess(rows, reward), gamma=0.9, rtol=1e-10)
    rows = rows.double()
    double = bisimulation(DecisionProcess(rows / rows.sum(2, keepdim=True), reward.double()), gamma=0.9, rtol=1e-12)
    assert single.value.dtype == torch.float32
    assert (single.value.double() - double.value).abs().max() <= single.error_bound + double.error_bound
    assert single.error_bound > 1e-7 * single.value.max()
    reward.requires_grad_()
    slow = bisimulation(DecisionProcess(rows.float()[0], reward[:, 0]), gamma=0.9, rtol=1e-10)
    slow.value.sum().backward()
    assert reward.grad.dtype == slow.value.dtype == torch.float32
    assert slow.error_bound > 1e-7 * slow.value.max()


def test_equal_chances_in_float32_are_equal():
    third = torch.tensor([1 / 3, 1 / 3, 1 / 3])
    rows = torch.stack([third, torch.tensor([2 / 3, 0.0, 1 / 3]), torch.tensor([0.0, 0.0, 1.0])])
    model = DecisionProcess(rows, torch.tensor([1.0, 1.0, 0.0]))
    assert bisimulation(model, gamma=0.5, rtol=1e-3).bisimilar[0, 1]


def test_too_few_iterations_are_told():
    model = random_process(16, degree=3)
    message = r"the metric did not converge: after 1 iterations the certified error is .*, wanted .*max_iter"
    with pytest.raises(SolveError, match=message) as error:
        bisimulation(model, gamma=0.9, max_iter=1)
    solution = error.value.solution
    assert solution.status is Status.MAX_ITER_REACHED
    assert not solution.converged
    best = bisimulation(model, gamma=0.9, rtol=1e-10).value
    assert (solution.value - best).abs().max() <= solution.error_bound
    assert bisimulation(model, gamma=0.9, max_iter=1, throw=False).status is Status.MAX_ITER_REACHED


def test_more_accuracy_than_there_is_stalls():
    solution = bisimulation(random_process(17, degree=3), gamma=0.999, rtol=1e-15, throw=False)
    assert solution.status is Status.STALLED
    assert solution.error_bound < 1e-9


def test_rewards_beyond_floating_point_are_told():
    with np.errstate(over="ignore", invalid="ignore"):
        solution = bisimulation(process(np.eye(2), [1e308, -1e308]), gamma=0.9, throw=False)
    assert solution.status is Status.NOT_FINITE


def test_a_linear_system_that_is_not_solved_leaves_value_iteration(monkeypatch: pytest.MonkeyPatch):
    model = random_process(18, degree=3)
    wanted = bisimulation(model, gamma=0.5, rtol=1e-9).value
    unsolved = lambda self, best, rhs, tolerance: Linear(0 * rhs, torch.tensor(math.inf))  # noqa: E731
    monkeypatch.setattr(operator.Operator, "solve", unsolved)
    found = bisimulation(model, gamma=0.5, rtol=1e-9)
    torch.testing.assert_close(found.value, wanted, rtol=0, atol=1e-8)
    monkeypatch.setattr(iteration, "RESPONSE_STEPS", 1)
    slow = bisimulation(model, gamma=0.5, rtol=1e-9)
    torch.testing.assert_close(slow.value, wanted, rtol=0, atol=1e-8)
    assert slow.num_iter > found.num_iter


def test_an_engine_out_of_its_range_is_replaced(monkeypatch: pytest.MonkeyPatch):
    class Unsafe:
        def __init__(self, *parts: Any) -> None:
            pass

        def sweep(self, *parts: Any) -> None:
            raise UnsafeRange

    model = random_process(19)
    wanted = bisimulation(model, gamma=0.8, epsilon=0.1).value
    classes = engines.engine_classes
    monkeypatch.setattr(engines, "engine_classes", lambda *parts: [Unsafe, *classes(*parts)])
    assert torch.equal(bisimulation(model, gamma=0.8, epsilon=0.1).value, wanted)


# --- what is taken, and what is refused
def test_shapes_of_a_process():
    eye = np.eye(3)
    single = DecisionProcess(eye, np.zeros(3))
    assert (single.num_states, single.num_actions, single.reward.shape, single.dtype) == (3, 1, (3, 1), torch.float64)
    assert DecisionProcess([eye], np.zeros((3, 1))).num_actions == 1
    assert DecisionProcess([eye, scipy.sparse.csr_array(eye)], np.zeros((3, 2))).chains[1].is_sparse is False
    table = interop.transition_table(TABLES["CliffWalking"]())
    ends = DecisionProcess.from_gymnasium(TABLES["CliffWalking"](), absorbing=False)
    assert ends.chains[0].is_sparse
    assert (ends.num_states, ends.num_actions) == (48, 4)
    assert ends.reward[47].any()
    assert not DecisionProcess.from_gymnasium(TABLES["CliffWalking"]()).reward[47].any()
    assert torch.equal(DecisionProcess(table.transition, table.reward).reward, table.reward)


EYE = np.eye(2)
ZEROS = np.zeros((2, 2))


@pytest.mark.parametrize(
    ("transition", "reward", "error", "message"),
    [
        ("rows", ZEROS, TypeError, "transition: expected a torch tensor or a NumPy array, got str"),
        ([], ZEROS, ValueError, r"transition: an empty list. Give one matrix"),
        (torch.zeros(0, 2, 2).double(), ZEROS, ValueError, r"transition: shape \(0, 2, 2\) is an empty chain"),
        ([EYE, np.eye(2, dtype=int)], ZEROS, TypeError, r"transition\[1\]: dtype torch.int64 is not supported"),
        ([EYE, 2 * EYE], ZEROS, ValueError, r"transition\[1\]: row 0 sums to 2"),
        ([EYE, np.stack([EYE])], ZEROS, ValueError, r"transition\[1\]: a batch of shape \(1,\), not one matrix"),
        ([EYE, np.eye(3)], ZEROS, ValueError, r"transition\[1\]: 3 states, but transition\[0\] has 2"),
        ([EYE, EYE.astype(np.float32)], ZEROS, TypeError, r"transition\[1\]: dtype torch.float32 is not that of tran"),
        (np.stack([[EYE]]), ZEROS, ValueError, r"transition: shape \(1, 1, 2, 2\) is not \(actions, n, n\)"),
        ([EYE, EYE], np.zeros((2, 3)), ValueError, r"reward: shape \(2, 3\) is not \(2, 2\), one expected reward"),
        ([EYE, EYE], np.zeros(2), ValueError, r"reward: shape \(2,\) is not \(2, 2\)"),
        ([EYE, EYE], ZEROS.astype(int), TypeError, "reward: dtype torch.int64 is not supported"),
        ([EYE, EYE], ZEROS.astype(np.float32), TypeError, "reward: dtype torch.float32 is not that of transition"),
        ([EYE, EYE], [[0.0, 0.0]] * 2, TypeError, "reward: expected a torch tensor or a NumPy array, got list"),
        ([EYE, EYE], np.full((2, 2), np.nan), ValueError, r"reward: entry \(0, 0\) is nan"),
    ],
)
def test_bad_processes(transition: Any, reward: Any, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        DecisionProcess(transition, reward)


@pytest.mark.parametrize(
    ("policy", "error", "message"),
    [
        (np.ones((3, 2)), ValueError, r"policy: shape \(3, 2\) is not \(2, 3\), one probability for each action"),
        (np.ones((2, 3)), ValueError, "policy: row 0 sums to 3, not 1.*Divide each row by its sum.$"),
        (np.full((2, 3), 1 / 3, dtype=np.float32), TypeError, "policy: dtype torch.float32 is not that of the process"),
        (np.full((2, 3), 1 / 3, dtype=np.float16), TypeError, "policy: dtype torch.float16 is not supported"),
        (np.ones(2, dtype=bool), TypeError, "policy: dtype torch.bool. Give integers"),
        (np.zeros(3, dtype=int), ValueError, r"policy: shape \(3,\) is not \(2,\), one action for each state"),
        (np.array([0, 3]), ValueError, "policy: 3 in state 1 is no action. Actions go from 0 to 2"),
        (np.array([0, -1]), ValueError, "policy: -1 in state 1 is no action"),
        ([0, 1], TypeError, "policy: expected a torch tensor or a NumPy array, got list"),
    ],
)
def test_bad_policies(policy: Any, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        bisimulation(process([EYE] * 3, np.zeros((2, 3))), gamma=0.9, policy=policy)


MODEL = random_process(0, n=2, actions=2)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"mdp": EYE}, TypeError, r"mdp: expected a DecisionProcess, got ndarray. Make one of arrays with"),
        ({"other": EYE}, TypeError, "other: expected a DecisionProcess, got ndarray"),
        ({"other": random_process(0, n=2)}, ValueError, "other: 3 actions, but mdp has 2. States are compared action"),
        ({"other": MODEL, "policy": np.zeros(2, dtype=int)}, ValueError, r"policy: there are two processes.*mdp.under"),
        (
            {"other": DecisionProcess(torch.eye(2).expand(2, 2, 2), torch.zeros(2, 2))},
            TypeError, "other: dtype torch.float32 is not that of mdp",
        ),
        ({"gamma": 1.0}, ValueError, "gamma: 1.0 is out of range. It must be below 1"),
        ({"gamma": -0.1}, ValueError, "gamma: -0.1 is out of range"),
        ({"gamma": "0.9"}, TypeError, "gamma: expected a number, got str"),
        ({"epsilon": -1.0}, ValueError, "epsilon: -1.0 is out of range. It must be at least 0"),
        ({"epsilon": math.nan}, ValueError, "epsilon: nan is out of range"),
        ({"rtol": 0.0}, ValueError, "rtol: 0 is not between 0 and 1"),
        ({"max_iter": 0}, ValueError, "max_iter: 0 is less than 1"),
        ({"max_iter": True}, TypeError, "max_iter: expected an integer, got bool"),
    ],
)  # fmt: skip
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        bisimulation(**{"mdp": MODEL, "gamma": 0.9, **arguments})


def test_an_environment_is_asked_for_its_table():
    with pytest.raises(TypeError, match=r"got .*Make one .* of an environment with DecisionProcess.from_gymnasium"):
        bisimulation(TABLES["FrozenLake4x4"](), gamma=0.9)


def test_other_devices_are_refused():
    class Elsewhere(torch.Tensor):
        @property
        def device(self) -> torch.device:
            return torch.device("cuda")

    rows = torch.eye(2, dtype=torch.float64).as_subclass(Elsewhere)
    with pytest.raises(ValueError, match=r"transition: on cuda, but decision processes are compared on the CPU. Mo"):
        DecisionProcess([rows], torch.zeros(2, 1, dtype=torch.float64))
