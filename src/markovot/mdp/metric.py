"""Bisimulation metrics: how differently two states behave."""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from markovot import validate
from markovot.autograd.eager import eagerly
from markovot.chains import MarkovChain
from markovot.distances.discounted import discounted_wl
from markovot.mdp.iteration import FixedPoint, iterate
from markovot.mdp.operator import Operator
from markovot.mdp.process import DecisionProcess, as_process
from markovot.mdp.refinement import Partition, Quotient, partition, quotient
from markovot.solution import Certified, Status
from markovot.solving.bellman import cost_limits, cost_range
from markovot.solving.bellman import tolerance as tolerance_of
from markovot.transport.units import measure

# Probabilities, and rewards relative to the largest, count as equal if they differ by no more than `SAME`. Where that
# might cost more than a share of the wanted error, `ROUND_OFF` takes its place, and if that costs too much, zero.
SAME = {torch.float32: 1e-6, torch.float64: 1e-12}
ROUND_OFF = 1e-14
SAME_SHARE = 0.1


@dataclass(frozen=True, eq=False, repr=False)
class BisimulationSolution(Certified):
    """Distances between states, with their certificate.

    Attributes:
        value: distance of every pair of states (n, m), in units of the reward; differentiable for a fixed policy.
        error_bound: certified: every true distance lies within it of `value`.
        status: how the solve ended.
        num_iter: sweeps over all transport problems.
        actions: the action in which a pair differs most, int64 (n, m); the first of those that tie, as all actions do
            for bisimilar states.
        bisimilar: which pairs behave alike for ever, bool (n, m), by partition refinement; their distance is 0 at
            epsilon = 0.
    """

    value: Tensor
    error_bound: float
    status: Status
    num_iter: int
    actions: Tensor
    bisimilar: Tensor

    _several: ClassVar[str] = "states"
    _one: ClassVar[str] = "the metric"


@eagerly
def bisimulation(
    mdp: Any,
    other: Any = None,
    *,
    gamma: float,
    epsilon: float = 0.0,
    policy: Any = None,
    rtol: float = 1e-6,
    max_iter: int = 100,
    throw: bool = True,
) -> BisimulationSolution:
    r"""The bisimulation metric between the states of one or two Markov decision processes.

    $$C_{ij} = \max_a\; (1 - \gamma)\, |r_i^a - r_j^a| + \gamma\, OT_\epsilon(P_i^a, P_j^a; C)$$

    It bounds how far apart the optimal values of two states lie: `|V_i - V_j| <= C_ij / (1 - gamma)`. Often the metric
    is written without the factor `1 - gamma`, as the fixed point of `max |r_i - r_j| + gamma OT`: that one is
    `solution.value / (1 - gamma)`, and its error `solution.error_bound / (1 - gamma)`.

    Args:
        mdp: a `DecisionProcess` with n states, or an `interop.TransitionTable`. With one action it is a Markov reward
            process.
        other: the same with m states and the same actions; None: pairs of states of `mdp`.
        gamma: discount of the rewards, in [0, 1): 0 compares rewards alone, 0.99 looks about 100 steps ahead. It is
            1 - delta of `discounted_wl`.
        epsilon: 0 (default) is the metric. Above it, entropic transport, in units of the reward: smoother, larger by at
            most gamma / (1 - gamma) * epsilon * log(degree), and no longer zero between bisimilar states.
        policy: None: the largest difference over all actions. Else a fixed policy for `mdp`, as in
            `DecisionProcess.under`: rewards and transitions are averaged, and the metric is that of the process which
            remains. For two models hand in `x.under(policy)` and `y.under(policy)`.
        rtol: wanted certified error, relative to the range of the differences of rewards (to one where that is zero).
        max_iter: sweeps over all transport problems. 2 to 15 are usual.
        throw: raise a `SolveError` if the error is not met, rather than return the result with its status.

    Returns:
        A `BisimulationSolution`, values in units of the reward. The metric of one model with itself is symmetric (with
        a gradient, to within `error_bound`).

    Raises:
        TypeError: something that is no decision process; different dtypes; gamma that is not a number.
        ValueError: different numbers of actions, gamma or epsilon out of range, a bad policy; a gradient is wanted
            through the maximum over actions.
        SolveError: not converged (see `throw`).

    Note:
        Differentiable (first order) in a fixed policy, in the transitions and in the rewards of processes with one
        action, and of all processes under a policy; gradients in rows are centred, so that those in a row of the policy
        are defined up to a constant. At epsilon = 0 they are elements of the sub- or superdifferential; for
        bisimilar states, whose distance has its least value, the gradient is 0. Not differentiable through the maximum
        over actions, which has no gradient where actions tie: inputs that require one are refused.

        At epsilon = 0 the distance is 0 exactly for bisimilar states, which are found by partition refinement, and the
        states of a class are solved as one (each by itself where a gradient is wanted). Probabilities that differ by
        1e-12 (float32: 1e-6) count as equal as long as what this can cost is small beside `rtol`; it is part of
        `error_bound`. On the CPU, in float64, deterministic.

        Time: in each sweep one exact transport problem for each action and pair of states in which both lead to several
        states, half of them for one model; deterministic steps cost next to nothing. Memory: 32 (dx + dy) bytes for
        each of these problems, dx and dy the numbers of next states, and some 50 bytes for each action and pair of
        states. Taxi (500 states, 6 actions, gamma = 0.9) took 2 s and 100 MB on two busy cores, in the rain 6 s and
        200 MB; at gamma = 0.99, 2 s and 17 s.

    References:
        Ferns, Panangaden, Precup: Metrics for Finite Markov Decision Processes (UAI 2004). Castro: Scalable Methods for
        Computing State Similarity in Deterministic Markov Decision Processes (AAAI 2020), for fixed policies. Calo et
        al.: Bisimulation Metrics are Optimal Transport Distances (NeurIPS 2024).

    Example:
        >>> import torch
        >>> from markovot.mdp import DecisionProcess, bisimulation
        >>> stay, swap = torch.eye(2), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        >>> process = DecisionProcess([stay, swap], torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
        >>> bisimulation(process, gamma=0.9).value  # rewards differ by one for ever if both stay
        tensor([[0., 1.],
                [1., 0.]])
    """
    throw = validate.flag("throw", throw)
    models = _models(mdp, other, policy)
    gamma, epsilon = _numbers(gamma, epsilon)
    rtol, max_iter = validate.accuracy(rtol, max_iter)
    if torch.is_grad_enabled() and any(model.requires_grad for model in models):
        solution, wanted = _differentiable(models, gamma, epsilon, rtol, max_iter)
    else:
        solution, wanted = _solve(models, gamma, epsilon, rtol, max_iter)
    if throw:
        solution.raise_unless_converged(wanted)
    return solution


def _models(mdp: Any, other: Any, policy: Any) -> list[DecisionProcess]:
    """One model, or two that fit each other."""
    models = [as_process("mdp", mdp)]
    if other is not None:
        models.append(as_process("other", other))
        if policy is not None:
            raise ValueError(
                "policy: there are two processes. Give each its own: bisimulation(mdp.under(p), other.under(q), ...)."
            )
        if models[0].num_actions != models[1].num_actions:
            raise ValueError(
                f"other: {models[1].num_actions} actions, but mdp has {models[0].num_actions}. States are compared "
                "action by action, so both need the same ones, in the same order."
            )
        validate.same_kind("other", models[1].reward, "mdp", models[0].reward)
    if policy is not None:
        models = [models[0].under(policy)]
    if torch.is_grad_enabled() and models[0].num_actions > 1 and any(model.requires_grad for model in models):
        raise ValueError(
            "mdp: its transitions or rewards require a gradient, but the maximum over actions has none where actions "
            "tie. Fix a policy with policy=..., or take mdp.detach()."
        )
    return models


def _numbers(gamma: Any, epsilon: Any) -> tuple[float, float]:
    gamma = validate.number("gamma", gamma, 0.0, 1.0)
    if gamma == 1:
        raise ValueError(
            "gamma: 1.0 is out of range. It must be below 1: undiscounted differences of rewards add up without end."
        )
    return gamma, validate.number("epsilon", epsilon, 0.0, math.inf)


def _solve(
    models: list[DecisionProcess], gamma: float, epsilon: float, rtol: float, max_iter: int
) -> tuple[BisimulationSolution, float]:
    """The metric, computed outside autograd from one state of each class; and the error that was wanted."""
    x, y = models[0], models[-1]
    rewards = [model.reward.detach().double() for model in models]
    ground = (rewards[0][:, None] - rewards[-1]).abs().amax(2)[None]
    scale = measure(ground, ground.new_tensor([epsilon]), cost_limits(ground, None))
    if not scale.unit.is_one:
        size = float(scale.unit.outside(ground.new_ones(1)))
        models = [replace(model.detach(), reward=model.reward.detach() / size) for model in models]
        inside, wanted = _solve(models, gamma, float(scale.epsilon), rtol, max_iter)
        return replace(inside, value=size * inside.value, error_bound=size * inside.error_bound), size * wanted
    epsilon, wanted = float(scale.epsilon), float(tolerance_of(cost_range(ground, None), rtol))
    entropy = epsilon * math.log(max(model.num_states for model in models))
    largest = float(ground.max()) + gamma / (1 - gamma) * entropy  # no distance is larger
    found = _partition(models, gamma, largest, SAME_SHARE * wanted)
    n = x.num_states
    quotients = [quotient(x, found.labels[:n])]
    quotients.append(quotients[0] if len(models) == 1 else quotient(y, found.labels[n:]))
    point = iterate(Operator(quotients[0], quotients[-1], gamma, epsilon), (1 - SAME_SHARE) * wanted, max_iter)
    error = point.radius + _cost_of_merging(found, gamma, largest)
    return _package(point, found, quotients, models, error), wanted


def _partition(models: list[DecisionProcess], gamma: float, largest: float, limit: float) -> Partition:
    """The partition for the largest tolerance whose cost is within the limit."""
    scale = max(float(model.reward.detach().abs().max()) for model in models)
    for same in (SAME[models[0].dtype], ROUND_OFF):
        found = partition(models, tolerance=same, reward_tolerance=same * scale)
        if _cost_of_merging(found, gamma, largest) <= limit:
            return found
    return partition(models, tolerance=0.0, reward_tolerance=0.0)


def _cost_of_merging(found: Partition, gamma: float, largest: float) -> float:
    """How far the metric on classes can be from the metric on states: see refinement.py."""
    return 4 * found.reward_error + 4 * gamma / (1 - gamma) * found.transition_error * largest


def _package(
    point: FixedPoint, found: Partition, sides: list[Quotient], models: list[DecisionProcess], error: float
) -> BisimulationSolution:
    """The solution for states, from that for classes."""
    rows, columns = (torch.from_numpy(side.class_of) for side in (sides[0], sides[-1]))
    n = models[0].num_states
    labels = torch.from_numpy(found.labels)
    dtype = models[0].dtype
    return BisimulationSolution(
        value=point.value[rows][:, columns].to(dtype),
        error_bound=error + _rounding(point.value, dtype),
        status=point.status,
        num_iter=point.num_iter,
        actions=point.actions[rows][:, columns],
        bisimilar=labels[:n, None] == labels[-models[-1].num_states :],
    )


def _rounding(value: Tensor, dtype: torch.dtype) -> float:
    """The largest error that converting the values can make."""
    return 0.0 if dtype == torch.float64 else torch.finfo(dtype).eps * float(value.detach().max())


def _differentiable(
    models: list[DecisionProcess], gamma: float, epsilon: float, rtol: float, max_iter: int
) -> tuple[BisimulationSolution, float]:
    """The metric of processes with one action, as the cost to go of two chains, with its gradient."""
    x, y = _chain(models[0]), _chain(models[-1])
    ground = (models[0].reward - models[-1].reward.mT).abs()
    solved = discounted_wl(
        x, y, ground, delta=1 - gamma, epsilon=epsilon, rtol=rtol, max_iter=max_iter, throw=False
    )
    wanted = float(tolerance_of(cost_range(ground.detach().double()[None], None), rtol))
    detached = [model.detach() for model in models]
    largest = float(ground.detach().max()) + gamma / (1 - gamma) * epsilon * math.log(max(x.num_states, y.num_states))
    found = _partition(detached, gamma, largest, SAME_SHARE * wanted)
    labels = torch.from_numpy(found.labels)
    bisimilar = labels[: x.num_states, None] == labels[-y.num_states :]
    # Bisimilar states have distance 0. That is its least value, so the gradient is 0 too.
    value = solved.cost_to_go if epsilon > 0 else solved.cost_to_go.masked_fill(bisimilar, 0.0)
    error = float(solved.cost_to_go_error)
    if epsilon == 0 and bool(bisimilar.any()):
        error = max(error, _cost_of_merging(found, gamma, largest))
    return BisimulationSolution(
        value, error, solved.status, int(solved.num_iter), torch.zeros_like(bisimilar, dtype=torch.int64), bisimilar
    ), wanted


def _chain(model: DecisionProcess) -> MarkovChain:
    """The chain of the only action; it starts in one state, so that its initial coupling costs nothing."""
    chain = model.chains[0]
    start = torch.zeros(chain.num_states, dtype=chain.dtype, device=chain.device)
    start[0] = 1.0
    return MarkovChain(chain.compressed if chain.is_sparse else chain.transition, initial=start)
