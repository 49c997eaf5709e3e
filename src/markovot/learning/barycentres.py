"""Barycentres: the small chain that is nearest to several given ones."""

from collections.abc import Sequence
from dataclasses import dataclass
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
from markovot.learning.history import History
from markovot.learning.losses import DiscountedWLLoss
from markovot.learning.training import Training
from markovot.solution import ChainSolution

# The values of Brugere, Wan and Wang.
TRAINING = Training(steps=300, lr=1e-2)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Barycentre:
    """A chain that is near to several given ones.

    Attributes:
        chain: the barycentre, detached, with its features: vectors, or the likeliest label of each state.
        value: the weighted mean of its distances to the given chains, in units of the cost.
        error_bound: the certified error of `value`.
        solution: the distances of `chain` to each given one, a batch (k,), with `alignment` and everything else.
        weights: the weights of the chains (k,), which sum to one.
        history: the training, one column for each restart.
        restart_values: the smallest objective of each restart (restarts,); for labels, that of their probabilities.
        label_probabilities: None, or how likely each label is in each state (n, l).
        labels: None, or the labels that the columns of `label_probabilities` stand for, (l,) or (l, p).
    """

    chain: MarkovChain
    value: float
    error_bound: float
    solution: ChainSolution
    weights: Tensor
    history: History
    restart_values: NDArray[np.float64]
    label_probabilities: Tensor | None = None
    labels: Tensor | None = None

    def __repr__(self) -> str:
        return f"Barycentre({self.chain.num_states} states, value {self.value:.4g} ± {self.error_bound:.1g})"


def barycentre(
    chains: Sequence[Any],
    n_states: int,
    *,
    cost: Cost,
    delta: float = 0.5,
    epsilon: float = 0.01,
    weights: Any = None,
    restarts: int = 4,
    seed: int = 0,
    rtol: float = 1e-4,
    max_iter: int = 100,
    training: Training = TRAINING,
) -> Barycentre:
    r"""The chain with n states that has the least mean distance to the given ones, and its features.

    $$\min_{A,\, F}\; \textstyle\sum_k w_k\, d(X, X_k), \qquad X = (\operatorname{softmax} A, F),$$

    with d the discounted Weisfeiler-Lehman distance. Vectors are optimised as they are. For labels (integers), the
    probabilities q of the labels in each state are optimised. The cost of a random label is its mean cost,
    `sum_l q_il D(l, l_j)`. This is linear in q, so nothing is lost by single labels where the best one of each state is
    unique; the result has the likeliest label of each state.

    Args:
        chains: chains of any sizes, or what `as_chain` accepts, all with features: vectors (m, p), or labels (m,) or
            (m, p) in integers.
        n_states: the number of states n of the barycentre.
        cost: an object of `markovot.costs`; for vectors one that has a gradient, such as `Euclidean()`.
        delta: as in `discounted_wl`.
        epsilon: as in `discounted_wl`. Of the order of a hundredth of the range of the cost.
        weights: w >= 0, one for each chain, divided by their sum. Default: equal ones.
        restarts: how many starts are trained, side by side in one batch; the best is returned.
        seed: the seed of the starts. Start r depends only on the seed and r.
        rtol: wanted certified error, as in `discounted_wl`.
        max_iter: the most sweeps of a solve, as in `discounted_wl`.
        training: how to train. The defaults are those of Brugere, Wan and Wang: Adam, 300 steps, learning rate 0.01;
            delta and epsilon too are theirs. They stop short of the minimum: on rings and molecules, a learning rate of
            0.03 ended 2 to 12 % lower in as many steps.

    Returns:
        A `Barycentre`. Its initial law is stationary if those of all chains are, else uniform.

    Raises:
        TypeError: not a sequence of chains, not a cost between features, wrong dtypes.
        ValueError: chains without features or that do not fit each other, sizes or weights out of range, no gradient.
        TrainingError: a step failed.

    Note:
        A start clusters the states of all chains by their features and by those that lie two steps ahead (k-means, from
        seeded centres), and counts the steps from cluster to cluster; these probabilities are mixed with a tenth of
        uniform ones, and given some noise. The objective is not convex: restarts differ, and none need be the best
        there is. Deterministic. A step solves `restarts * len(chains)` distances: 20 to 40 ms of one core for eight
        graphs of 20 states and four restarts.

    References:
        Brugere, Wan, Wang: Distances for Markov Chains, and Their Differentiation (arXiv 2302.08621).

    Example:
        >>> import torch
        >>> from markovot import MarkovChain, costs
        >>> ring = torch.eye(3, dtype=torch.float64).roll(1, 1)
        >>> chains = [MarkovChain.from_transitions(ring, features=torch.tensor([0.0, 1.0, 2.0 + x]).double())
        ...           for x in (-0.1, 0.1)]
        >>> training = Training(steps=200, lr=0.05, progress=False)
        >>> found = barycentre(chains, 3, cost=costs.AbsoluteDifference(), restarts=2, training=training)
        >>> order = found.chain.features[:, 0].argsort()
        >>> found.chain.transition[order][:, order].round(decimals=1).tolist()
        [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    n_states, restarts, seed = starts.check_setting(n_states, restarts, seed, training)
    delta, epsilon = validate.single_numbers(delta, epsilon)
    given = chains_of(chains)
    targets = starts.targets_of(given, cost)
    shares = _shares(weights, len(given)).to(targets.chains.parameter)
    module = starts.start(targets, shares, n_states, restarts=restarts, seed=seed)
    loss = DiscountedWLLoss(targets.cost, delta=delta, epsilon=epsilon, rtol=rtol, max_iter=max_iter, reduction="none")
    history = starts.fit(module, starts.ToTargets(loss, targets, shares), training)
    item = int(history.best.argmin())
    chain = module.chain(item, targets.labels)
    with torch.no_grad():
        setting: Any = {"delta": delta, "epsilon": epsilon, "rtol": rtol, "max_iter": max_iter}
        solution = discounted_wl(chain, MarkovChain.stack(given), cost, **setting)
    return Barycentre(
        chain=chain,
        value=float(shares @ solution.value),
        error_bound=float(shares @ solution.error_bound),
        solution=solution,
        weights=shares,
        history=history,
        restart_values=history.best,
        label_probabilities=module.label_probabilities(item),
        labels=targets.labels,
    )


def chains_of(chains: Any) -> list[MarkovChain]:
    """The given chains, one by one, detached."""
    if isinstance(chains, MarkovChain) and len(chains.batch_shape) == 1:
        chains = [chains[k] for k in range(len(chains))]
    if not isinstance(chains, Sequence) or isinstance(chains, str):
        raise TypeError(f"chains: expected a sequence of chains, got {type(chains).__name__}.")
    if not chains:
        raise ValueError("chains: there are none. Give at least one.")
    return [chain_of(f"chains[{k}]", chain).detach() for k, chain in enumerate(chains)]


def _shares(weights: Any, count: int) -> Tensor:
    if weights is None:
        return torch.full((count,), 1 / count, dtype=torch.float64, device="cpu")
    found = torch.from_numpy(validate.reals("weights", weights))
    if found.shape != (count,):
        raise ValueError(f"weights: shape {tuple(found.shape)} for {count} chains. Give one number for each.")
    validate.entries("weights", found)
    if not float(found.sum()) > 0:
        raise ValueError("weights: they are all 0. Some chain needs a positive weight.")
    return found / found.sum()
