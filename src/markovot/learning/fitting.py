"""Chains fitted to given distances, and chains that flow to another one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from markovot import validate
from markovot.chains import MarkovChain, chain_of
from markovot.costs import Cost
from markovot.distances.discounted import discounted_wl
from markovot.learning import starts
from markovot.learning._checks import positive
from markovot.learning.barycentres import chains_of
from markovot.learning.history import History
from markovot.learning.losses import DiscountedWLLoss
from markovot.learning.starts import SideBySide, Targets
from markovot.learning.training import Training
from markovot.solution import ChainSolution

# A flow starts at the chain's own probabilities, mixed with this share of uniform ones: a softmax hardly moves near 0.
FLOW_SMOOTHING = 0.02
FIT_TRAINING = Training(steps=500, lr=2e-2)
FLOW_TRAINING = Training(steps=300, lr=2e-2)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class DistanceFit:
    """A chain at given distances to others.

    Attributes:
        chain: the chain, detached, with its features: vectors, or the likeliest label of each state.
        distances: its distances to the given chains (k,), in units of the cost.
        targets: the wanted distances (k,).
        error: the root mean square of `distances - targets`, in units of the cost.
        solution: the distances as they were solved, a batch (k,).
        history: the training, one column for each restart; its values are mean squares.
        restart_values: the smallest objective of each restart (restarts,); for labels, that of their probabilities.
    """

    chain: MarkovChain
    distances: Tensor
    targets: Tensor
    error: float
    solution: ChainSolution
    history: History
    restart_values: NDArray[np.float64]

    def __repr__(self) -> str:
        return f"DistanceFit({self.chain.num_states} states, {len(self.targets)} distances, error {self.error:.2g})"


def fit_distances(
    chains: Sequence[Any],
    targets: Any,
    n_states: int,
    *,
    cost: Cost,
    delta: float = 0.5,
    epsilon: float = 0.01,
    restarts: int = 4,
    seed: int = 0,
    rtol: float = 1e-4,
    max_iter: int = 100,
    training: Training = FIT_TRAINING,
) -> DistanceFit:
    r"""Find a chain with n states whose distances to the given chains are given numbers.

    $$\min_{A,\, F}\; \tfrac{1}{K} \textstyle\sum_k \big(d(X, X_k) - t_k\big)^2, \qquad
      X = (\operatorname{softmax} A, F).$$

    Args:
        chains: as in `barycentre`.
        targets: the wanted distances t (k,), in units of the cost, >= 0. With epsilon > 0 even equal chains are some
            way apart; smaller targets are out of reach.
        n_states: the number of states n of the chain.
        cost: as in `barycentre`.
        delta: as in `discounted_wl`.
        epsilon: as in `discounted_wl`.
        restarts: how many starts are trained, side by side in one batch; the best is returned.
        seed: the seed of the starts. Start r depends only on the seed and r.
        rtol: wanted certified error, as in `discounted_wl`.
        max_iter: the most sweeps of a solve, likewise.
        training: how to train.

    Returns:
        A `DistanceFit`. There may be many such chains, or none: `error` tells.

    Raises:
        TypeError: not a sequence of chains, not a cost between features, wrong dtypes.
        ValueError: chains without features, targets of the wrong number or negative, settings out of range.
        TrainingError: a step failed.

    Note:
        Starts, restarts and determinism as in `barycentre`.

    Example:
        >>> import torch
        >>> from markovot import MarkovChain, costs
        >>> flip = torch.eye(2, dtype=torch.float64).flip(0)
        >>> ends = [MarkovChain.from_transitions(flip, features=torch.full((2,), x).double()) for x in (0.0, 1.0)]
        >>> found = fit_distances(ends, [0.3, 0.7], 2, cost=costs.AbsoluteDifference(), epsilon=0.0,
        ...                       training=Training(steps=200, progress=False))
        >>> [round(x, 2) for x in found.distances.tolist()]
        [0.3, 0.7]
    """
    n_states, restarts, seed = starts.check_setting(n_states, restarts, seed, training)
    delta, epsilon = validate.single_numbers(delta, epsilon)
    given = chains_of(chains)
    stack = starts.targets_of(given, cost)
    wanted = _checked_targets(targets, len(given)).to(stack.chains.parameter)
    weights = torch.full_like(wanted, 1 / len(given))
    module = starts.start(stack, weights, n_states, restarts=restarts, seed=seed)
    loss = DiscountedWLLoss(stack.cost, delta=delta, epsilon=epsilon, rtol=rtol, max_iter=max_iter, reduction="none")
    history = starts.fit(module, _Misfit(loss, stack, wanted), training)
    chain = module.chain(int(history.best.argmin()), stack.labels)
    with torch.no_grad():
        setting: Any = {"delta": delta, "epsilon": epsilon, "rtol": rtol, "max_iter": max_iter}
        solution = discounted_wl(chain, MarkovChain.stack(given), cost, **setting)
    return DistanceFit(
        chain=chain,
        distances=solution.value,
        targets=wanted,
        error=float((solution.value - wanted).square().mean().sqrt()),
        solution=solution,
        history=history,
        restart_values=history.best,
    )


class _Misfit:
    """The mean square error of the distances, for each of the chains that are trained side by side."""

    def __init__(self, loss: DiscountedWLLoss, stack: Targets, wanted: Tensor) -> None:
        self._loss, self._stack, self._wanted = loss, stack, wanted
        self.reset = loss.reset

    def __call__(self, module: SideBySide) -> tuple[Tensor, Any]:
        off = self._loss(module(), self._stack.chains) - self._wanted
        return off.square().mean(1), self._loss.last


def _checked_targets(targets: Any, count: int) -> Tensor:
    found = torch.from_numpy(validate.reals("targets", targets))
    if found.shape != (count,):
        raise ValueError(f"targets: shape {tuple(found.shape)} for {count} chains. Give one distance for each.")
    if not bool(((found >= 0) & found.isfinite()).all()):
        raise ValueError(f"targets: {found.tolist()}. Distances are finite and not negative.")
    return found


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Flow:
    """A chain on its way to another.

    Attributes:
        chains: the chain at each snapshot, detached, first to last.
        steps: the number of steps before each snapshot, int64 (snapshots,).
        values: the distance of each to the goal (snapshots,), in units of the cost.
        history: the training.
    """

    chains: list[MarkovChain]
    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    history: History

    def __repr__(self) -> str:
        values = f"{self.values[0]:.4g} to {self.values[-1]:.4g}"
        return f"Flow({len(self.chains)} snapshots in {len(self.history)} steps, {values})"


def gradient_flow(
    x: Any,
    y: Any,
    *,
    cost: Cost,
    delta: float = 0.5,
    epsilon: float = 0.01,
    snapshots: int = 6,
    rtol: float = 1e-4,
    max_iter: int = 100,
    training: Training = FLOW_TRAINING,
) -> Flow:
    r"""Let a chain move downhill to another, in its transition probabilities and features.

    $$\theta_{t+1} = \theta_t - \text{step along}\ \nabla_\theta\, d(X_\theta, Y),$$

    from the parameters theta of x: the logits of its rows (mixed with 2 % of uniform probabilities, so that every
    transition can grow), its features (or logits of its labels), and the logits of its initial law if it was given.

    Args:
        x: the chain to start from, or what `as_chain` accepts, with features: vectors (n, p), or labels in integers.
        y: the chain to go to, of any size, with features of the same kind.
        cost: as in `barycentre`.
        delta: as in `discounted_wl`.
        epsilon: as in `discounted_wl`.
        snapshots: how many chains to return, at least 2: the first, the last, and those evenly between.
        rtol: wanted certified error, as in `discounted_wl`.
        max_iter: the most sweeps of a solve, likewise.
        training: how to train; not with a checkpoint, which would keep no snapshots.

    Returns:
        A `Flow`. `markovot.plot.strip(flow.chains)` draws it.

    Raises:
        TypeError: not a chain, not a cost between features, wrong dtypes.
        ValueError: a batch, chains without features or with ones that do not fit each other, settings out of range.
        TrainingError: a step failed.

    Note:
        With Adam, the default, each parameter moves at most about `lr` a step, so that the path is not the steepest
        one; for that, take `optimiser=lambda parameters: torch.optim.SGD(parameters, lr=...)`. With epsilon > 0 the
        end is the nearest chain in the entropic distance, a little more concentrated than y. Deterministic.

    Example:
        >>> import torch
        >>> from markovot import MarkovChain, costs
        >>> stay, flip = torch.eye(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64).flip(0)
        >>> x, y = (MarkovChain.from_transitions(rows, initial="uniform", features=torch.tensor([0.0, 1.0]).double())
        ...         for rows in (stay, flip))
        >>> flow = gradient_flow(x, y, cost=costs.AbsoluteDifference(), snapshots=3,
        ...                      training=Training(steps=200, lr=0.1, progress=False))
        >>> [round(chain.transition[0, 1].item(), 1) for chain in flow.chains][::2]
        [0.0, 1.0]
    """
    if positive("snapshots", snapshots) < 2:
        raise ValueError("snapshots: 1 leaves no way to see. Take at least 2, the first and the last.")
    starts.check_training(training)
    delta, epsilon = validate.single_numbers(delta, epsilon)
    if training.checkpoint is not None:
        raise ValueError("training: its checkpoint would not keep the snapshots. Leave it out.")
    both = [chain_of("x", x).detach(), chain_of("y", y).detach()]
    for name, chain in zip("xy", both, strict=True):
        if chain.batch_shape:
            raise ValueError(f"{name}: a batch of shape {tuple(chain.batch_shape)}. Give a single chain.")
        if chain.features is None:
            raise ValueError(f"{name}: it has no features. Give them to MarkovChain.from_...(features=...).")
    targets = starts.targets_of(both, cost)
    law = both[0].initial_law
    module = _module_at(both[0], targets, initial="learned" if law == "given" else law)
    goal = targets._replace(chains=MarkovChain.stack([targets.chains[1]]))
    loss = DiscountedWLLoss(targets.cost, delta=delta, epsilon=epsilon, rtol=rtol, max_iter=max_iter, reduction="none")
    at = np.unique(np.linspace(0, training.steps, snapshots).round().astype(np.int64))
    film = _Film(starts.ToTargets(loss, goal, both[0].parameter.new_ones(1)), targets.labels, set(at.tolist()))
    history = starts.fit(module, film, training)
    history = replace(
        history, value=history.value[:, 0], error_bound=history.error_bound[:, 0], num_iter=history.num_iter[:, 0]
    )
    chains = [*film.chains, module.chain(0, targets.labels)]
    taken = np.array([*film.steps, history.best_step], dtype=np.int64)
    values = history.value[np.minimum(taken, len(history) - 1)]
    return Flow(chains=chains, steps=taken, values=values, history=history)


class _Film:
    """An objective that keeps the chain at some of its evaluations."""

    def __init__(self, objective: starts.ToTargets, labels: Tensor | None, at: set[int]) -> None:
        self._objective, self._labels, self._at = objective, labels, at
        self._count = 0
        self.chains: list[MarkovChain] = []
        self.steps: list[int] = []
        self.reset = objective.reset

    def __call__(self, module: SideBySide) -> tuple[Tensor, Any]:
        if self._count in self._at:
            self.chains.append(module.chain(0, self._labels))
            self.steps.append(self._count)
        self._count += 1
        return self._objective(module)


def _module_at(chain: MarkovChain, targets: Targets, *, initial: str) -> SideBySide:
    """A module with a single chain, the given one, which is also the first of the targets."""
    n = chain.num_states
    rows = (1 - FLOW_SMOOTHING) * chain.to_dense().transition + FLOW_SMOOTHING / n
    features = targets.chains[0].features
    assert features is not None
    if targets.labels is not None:
        spread = (features.max() - features.min()).clamp(min=1e-12)
        features = -math.log(n / FLOW_SMOOTHING) * features / spread
    law = ((1 - FLOW_SMOOTHING) * chain.initial + FLOW_SMOOTHING / n).log()[None] if initial == "learned" else None
    return SideBySide(
        rows.log()[None].contiguous(),
        features[None].clone(),
        law,
        labelled=targets.labels is not None,
        initial=initial,
    )
