"""Coarsening: a small chain that moves like a large one that is observed every few steps."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from markovot import validate
from markovot.chains import MarkovChain, chain_of, single
from markovot.costs import Cost
from markovot.distances.discounted import discounted_wl
from markovot.learning import starts
from markovot.learning.history import History
from markovot.learning.losses import DiscountedWLLoss
from markovot.learning.training import Training
from markovot.solution import ChainSolution

# A chain is kept sparse if at most this share of its entries is positive.
SPARSE_SHARE = 0.5
# Powers of a matrix are taken by squaring. After so many steps, a chain that forgets its start has forgotten it.
MOST_STEPS = 1e15
# The values of Brugere, Wan and Wang, appendix.
TRAINING = Training(steps=3000, lr=5e-3)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Coarsening:
    """A small chain in place of a large one.

    Attributes:
        chain: the small chain, detached, with its features: vectors, or the likeliest label of each state.
        assignment: how much of each state of the large chain each small one stands for (n, k): rows sum to one.
        groups: the small state that stands for most of each large one, int64 (n,).
        value: the distance of `chain` to `target`, in units of the cost.
        error_bound: the certified error of `value`.
        target: the large chain, run `steps_per_move` steps at a time.
        solution: the distance of `chain` to `target`, with its `alignment` and everything else.
        history: the training, one column for each restart.
        restart_values: the smallest objective of each restart (restarts,); for labels, that of their probabilities.
        label_probabilities: None, or how likely each label is in each state of the small chain (k, l).
        labels: None, or the labels that the columns of `label_probabilities` stand for, (l,) or (l, p).
    """

    chain: MarkovChain
    assignment: Tensor
    groups: Tensor
    value: float
    error_bound: float
    target: MarkovChain
    solution: ChainSolution
    history: History
    restart_values: NDArray[np.float64]
    label_probabilities: Tensor | None = None
    labels: Tensor | None = None

    def __repr__(self) -> str:
        sizes = f"{self.target.num_states} states to {self.chain.num_states}"
        return f"Coarsening({sizes}, value {self.value:.4g} ± {self.error_bound:.1g})"


def coarsen(
    chain: Any,
    n_states: int,
    *,
    cost: Cost,
    delta: float = 0.5,
    epsilon: float = 0.05,
    steps_per_move: float | None = None,
    restarts: int = 1,
    seed: int = 0,
    rtol: float = 1e-4,
    max_iter: int = 100,
    training: Training = TRAINING,
) -> Coarsening:
    r"""Fit a chain with k states to a chain with n states that is run several steps at a time.

    $$\min_{A,\, F}\; d\big((\operatorname{softmax} A, F),\ P^{(s)}\big), \qquad
      P^{(s)} = (1 - s + \lfloor s \rfloor)\, P^{\lfloor s \rfloor} + (s - \lfloor s \rfloor)\, P^{\lceil s \rceil},$$

    with s = n / k: a state of the small chain stands for about n / k states of the large one, so one of its moves takes
    as many steps there. If s is not an integer, the large chain takes the next smaller or larger number of steps at
    random, s in the mean (see `several_steps`). With s = 1 this fits a small chain to any other, such as one from
    `MarkovChain.from_trajectories`; labels then come out as `label_probabilities`, as in a hidden Markov model.

    Args:
        chain: a single chain, or what `as_chain` accepts, with features: vectors (n, p), or labels in integers.
        n_states: the number of states k of the small chain.
        cost: an object of `markovot.costs`; for vectors one that has a gradient, such as `Euclidean()`.
        delta: as in `discounted_wl`.
        epsilon: as in `discounted_wl`.
        steps_per_move: s >= 0. Default: n / k. With 1, the small chain moves from group to group as often as the large.
        restarts: how many starts are trained, side by side in one batch; the best is returned.
        seed: the seed of the starts. Start r depends only on the seed and r.
        rtol: wanted certified error, as in `discounted_wl`.
        max_iter: the most sweeps of a solve, as in `discounted_wl`.
        training: how to train. The defaults are those of Brugere, Wan and Wang: Adam, 3,000 steps, learning rate 0.005;
            delta and epsilon too are theirs.

    Returns:
        A `Coarsening`. The small chain's initial law is stationary or uniform where the large one's is, else learned.

    Raises:
        TypeError: not a chain, not a cost between features, wrong dtypes.
        ValueError: a batch, a chain without features, more states than the chain has, settings out of range.
        TrainingError: a step failed.

    Note:
        Starts, restarts and determinism as in `barycentre`. The assignment is read off the alignment, the occupation of
        the optimally coupled chains: large state i belongs to small state a as often as the small chain is at a when
        the large one is at i. A large state where the chain never is goes to the small state that is nearest to it.

    References:
        Brugere, Wan, Wang: Distances for Markov Chains, and Their Differentiation (arXiv 2302.08621), appendix.

    Example:
        >>> import math, torch
        >>> from markovot import MarkovChain, costs
        >>> angle = torch.arange(8).double() * (2 * math.pi / 8)
        >>> ring = MarkovChain.from_transitions(torch.eye(8).double().roll(1, 1), initial="uniform",
        ...                                     features=torch.stack([angle.cos(), angle.sin()], 1))
        >>> found = coarsen(ring, 4, cost=costs.Euclidean(), training=Training(steps=300, lr=0.03, progress=False))
        >>> sorted(found.groups.bincount().tolist())
        [2, 2, 2, 2]
    """
    n_states, restarts, seed = starts.check_setting(n_states, restarts, seed, training)
    delta, epsilon = validate.single_numbers(delta, epsilon)
    given = chain_of("chain", chain).detach()
    if given.batch_shape:
        raise ValueError(f"chain: a batch of shape {tuple(given.batch_shape)}. Coarsen its chains one by one.")
    if n_states > given.num_states:
        raise ValueError(f"n_states: {n_states} is more than the chain has, {given.num_states}.")
    if steps_per_move is None:
        steps_per_move = given.num_states / n_states
    validate.number("steps_per_move", steps_per_move, 0.0, MOST_STEPS)
    with validate.named("chain"):
        target = several_steps(given, steps_per_move)
    targets = starts.targets_of([target], cost)
    if given.initial_law == "stationary":
        targets = targets._replace(initial="stationary")
    weights = torch.ones(1, dtype=target.dtype, device=target.device)
    module = starts.start(targets, weights, n_states, restarts=restarts, seed=seed)
    loss = DiscountedWLLoss(targets.cost, delta=delta, epsilon=epsilon, rtol=rtol, max_iter=max_iter, reduction="none")
    history = starts.fit(module, starts.ToTargets(loss, targets, weights), training)
    item = int(history.best.argmin())
    small = module.chain(item, targets.labels)
    with torch.no_grad():
        solution = discounted_wl(small, target, cost, delta=delta, epsilon=epsilon, rtol=rtol, max_iter=max_iter)
    assignment = assignment_of(solution)
    return Coarsening(
        chain=small,
        assignment=assignment,
        groups=assignment.argmax(1),
        value=float(solution.value),
        error_bound=float(solution.error_bound),
        target=target,
        solution=solution,
        history=history,
        restart_values=history.best,
        label_probabilities=module.label_probabilities(item),
        labels=targets.labels,
    )


def several_steps(chain: MarkovChain, steps: float) -> MarkovChain:
    r"""The chain that takes s steps of another at a time, `P^s`; between integers, one of the two nearest at random.

    $$P^{(s)} = (1 - s + \lfloor s \rfloor)\, P^{\lfloor s \rfloor} + (s - \lfloor s \rfloor)\, P^{\lceil s \rceil}.$$

    Args:
        chain: a single chain.
        steps: s >= 0, the mean number of steps.

    Returns:
        The chain, detached, with the same features and initial law (one that was stationary is given as the numbers it
        has: it stays stationary, but need not be the only such law). Sparse where at most half of its entries are
        positive.

    Raises:
        ValueError: a negative number of steps, a batch.

    Example:
        >>> import torch
        >>> ring = MarkovChain.from_transitions(torch.eye(3).double().roll(1, 1), initial="uniform")
        >>> several_steps(ring, 1.25).transition
        tensor([[0.0000, 0.7500, 0.2500],
                [0.2500, 0.0000, 0.7500],
                [0.7500, 0.2500, 0.0000]], dtype=torch.float64)
    """
    from scipy.sparse import csr_array

    single("chain", chain)
    steps = validate.number("steps", steps, 0.0, MOST_STEPS)
    dense = chain.detach().to_dense().transition.double()
    whole = math.floor(steps)
    rest = steps - whole
    power = torch.linalg.matrix_power(dense, whole)
    if rest > 0:
        power = (1 - rest) * power + rest * (power @ dense)
    power = (power / power.sum(1, keepdim=True)).to(chain.dtype)  # large powers collect rounding
    initial = chain.initial.detach() if chain.initial_law == "stationary" else chain.detach()._initial
    rows: Any = power
    if int(power.count_nonzero()) <= SPARSE_SHARE * power.numel() and power.device.type == "cpu":
        rows = csr_array(power.numpy())
    return MarkovChain.from_transitions(
        rows, initial=initial, features=chain.detach().features, state_names=chain.state_names
    )


def assignment_of(solution: ChainSolution) -> Tensor:
    """How much of each state of y each state of x stands for, (m, n): the alignment, its columns made to sum to one.

    For a state that y never visits, the state of x with the least cost to go stands for it.
    """
    mass = solution.alignment.detach().clamp(min=0)
    total = mass.sum(0)
    nearest = torch.nn.functional.one_hot(solution.cost_to_go.detach().argmin(0), len(mass)).to(mass)
    return torch.where((total > 0)[:, None], mass.T / total[:, None].clamp(min=torch.finfo(mass.dtype).tiny), nearest)
