"""Several small chains trained side by side, and where they start: at a clustering of the states of given chains."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from markovot import validate
from markovot._arrays import FloatArray
from markovot.chains import MarkovChain
from markovot.costs import Cost, ZeroOne
from markovot.costs.ground import not_a_cost
from markovot.learning._checks import positive, softmax
from markovot.learning.history import History
from markovot.learning.losses import DiscountedWLLoss
from markovot.learning.training import Training
from markovot.transport.threads import own_threads

# States are clustered by their features, and by the mean features after so many steps.
LOOK_AHEAD = 2
LLOYD_STEPS = 25
# The share of uniform probabilities in the rows at which a training starts. A softmax hardly moves where it is near 0;
# but with 300 steps of 0.01 no logit moves by more than 3, and rows that start near uniform would end blurred.
SMOOTHING = 0.1
# The noise in a start, in units of the spread of the features, and of logits. It makes all states differ.
JITTER, LOGIT_NOISE = 0.02, 0.1
# How far apart the logits of labels are at the start.
LABEL_LOGIT = 2.0


@dataclass(frozen=True, eq=False)
class ExpectedCost(Cost):
    """The cost between a state whose label is random and one whose features are the costs to its own label.

    It is linear in the probabilities of the label, so there is always a minimum at which each state has one label.
    """

    def __call__(self, fx: Tensor, fy: Tensor) -> Tensor:
        """`sum_l q_il D_lj`, from probabilities (*batch, n, l) and costs (*batch, m, l)."""
        return fx @ fy.mT


class Targets(NamedTuple):
    """The target chains of a training.

    Attributes:
        chains: the stack, (k,); for labels its features are the costs to each label, (k, m, l).
        cost: the cost between learned features and these.
        labels: None, or all labels of the targets, (l,) or (l, p).
        initial: the initial law of learned chains: "stationary" or "uniform" if all chains have that, else "learned".
    """

    chains: MarkovChain
    cost: Cost
    labels: Tensor | None
    initial: str


def targets_of(chains: Sequence[MarkovChain], cost: Cost) -> Targets:
    """Check the chains; where features are labels, replace them by the costs to each label."""
    for number, chain in enumerate(chains):
        if isinstance(chain, MarkovChain) and chain.features is None:
            raise ValueError(
                f"chains: number {number} has no features. Give them to MarkovChain.from_...(features=...)."
            )
    stack = MarkovChain.stack([chain.detach() for chain in chains])
    laws = {chain.initial_law for chain in chains}
    initial = laws.pop() if len(laws) == 1 and laws != {"given"} else "learned"
    features = stack.features
    assert features is not None
    if not isinstance(cost, Cost) or not cost.needs_features:
        hint = "The features of the small chain are learned."
        raise not_a_cost("a cost between features, such as costs.Euclidean()", cost, hint)
    if features.is_floating_point():
        if isinstance(cost, ZeroOne):
            raise ValueError(
                "cost: ZeroOne() has no gradient in features that are vectors. Use Euclidean(), or give the chains "
                "labels, which are integers."
            )
        vectors = features.unsqueeze(-1) if features.dim() == 2 else features
        return Targets(_with_features(stack, vectors), cost, None, initial)
    real = features[stack.mask]
    labels, place = torch.unique(real, dim=0, return_inverse=True)
    table = cost(labels, labels).to(stack.dtype)
    costs = torch.zeros(*stack.mask.shape, len(labels), dtype=stack.dtype, device=stack.device)
    costs[stack.mask] = table[:, place].T
    return Targets(_with_features(stack, costs), ExpectedCost(), labels, initial)


def _with_features(chain: MarkovChain, features: Tensor) -> MarkovChain:
    return MarkovChain(
        chain._rows,
        initial=chain._initial,
        features=features,
        state_names=chain.state_names,
        # Chains of equal size need no masks, which would take a tenth of the time of a small step.
        sizes=chain.sizes if bool((chain.sizes < chain.num_states).any()) else None,
    )


class SideBySide(nn.Module):
    """R chains of n states, each with its own features or probabilities of labels; all parameters are free.

    Attributes:
        logits: of the transition rows, (r, n, n).
        features: vectors (r, n, p), or logits of labels (r, n, l).
        law: None, or logits of the initial laws (r, n).
    """

    law: nn.Parameter | None

    def __init__(self, logits: Tensor, features: Tensor, law: Tensor | None, *, labelled: bool, initial: str) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)
        self.features = nn.Parameter(features)
        self.register_parameter("law", None if law is None else nn.Parameter(law))
        self.labelled, self.initial = labelled, initial

    def forward(self) -> MarkovChain:
        """The batch (r, 1), which broadcasts against a stack of targets."""
        shown = softmax(self.features) if self.labelled else self.features
        initial = self.initial if self.law is None else softmax(self.law).unsqueeze(1)
        return MarkovChain(softmax(self.logits).unsqueeze(1), initial=initial, features=shown.unsqueeze(1))

    def label_probabilities(self, item: int) -> Tensor | None:
        """How likely each label is in each state of chain `item` (n, l), detached; None for vectors."""
        return softmax(self.features[item].detach()) if self.labelled else None

    @torch.no_grad()
    def chain(self, item: int, labels: Tensor | None) -> MarkovChain:
        """The chain `item`, detached, with the likeliest label of each state if it has labels."""
        features = self.features[item].clone() if labels is None else labels[self.features[item].argmax(-1)]
        initial = self.initial if self.law is None else softmax(self.law[item])
        return MarkovChain(softmax(self.logits[item]), initial=initial, features=features)


class ToTargets:
    """The objective of `SideBySide`: the weighted mean of the distances to the targets, for each of its chains."""

    def __init__(self, loss: DiscountedWLLoss, targets: Targets, weights: Tensor) -> None:
        self.loss, self.targets, self.weights = loss, targets, weights

    def __call__(self, module: SideBySide) -> tuple[Tensor, Any]:
        """Values (r,), and the solution behind them."""
        return self.loss(module(), self.targets.chains) @ self.weights, self.loss.last

    def reset(self) -> None:
        """Drop warm starts."""
        self.loss.reset()


def fit(module: SideBySide, objective: Callable[[Any], Any], training: Training) -> History:
    """Train a small module.

    torch's threads spin while they wait for the next operation. Tensors are so small here that this costs more than it
    gains: on a busy machine, ten times the whole step. So torch uses one thread; kernels keep their threads.
    """
    with own_threads():
        return training.run(module, objective)


def check_setting(n_states: Any, restarts: Any, seed: Any, training: Any) -> tuple[int, int, int]:
    """Check the settings of a fit, and return the three counts."""
    check_training(training)
    return positive("n_states", n_states), positive("restarts", restarts), validate.count("seed", seed)


def check_training(training: Any) -> None:
    """Refuse what is not a `Training`."""
    if not isinstance(training, Training):
        raise TypeError(f"training: expected a Training, such as Training(steps=300), got {type(training).__name__}.")


def start(targets: Targets, weights: Tensor, n_states: int, *, restarts: int, seed: int) -> SideBySide:
    """The chains at the start: the states of all targets are clustered, and the steps between clusters counted.

    Start r depends only on the seed and r.
    """
    points, share, owner = _states(targets, weights)
    logits, features, laws = [], [], []
    for restart in range(restarts):
        random = np.random.default_rng([seed, restart])
        centres, which = cluster(points + _jitter(points, random), share, n_states, random)
        logits.append(_logits(targets, weights, which, owner, n_states, random))
        features.append(_features(targets, centres, random))
        law = np.bincount(which, weights=share, minlength=n_states)
        laws.append(np.log((1 - SMOOTHING) * law / law.sum() + SMOOTHING / n_states))
    kind = targets.chains.parameter
    return SideBySide(
        torch.from_numpy(np.stack(logits)).to(kind),
        torch.from_numpy(np.stack(features)).to(kind),
        torch.from_numpy(np.stack(laws)).to(kind) if targets.initial == "learned" else None,
        labelled=targets.labels is not None,
        initial=targets.initial,
    )


def _states(targets: Targets, weights: Tensor) -> tuple[FloatArray, FloatArray, Any]:
    """All states of all targets: where each lies (s, q), its share of the weight (s,), and its chain (s,)."""
    stack = targets.chains.to_dense()
    assert stack.features is not None
    ahead = [stack.features.double()]
    for _ in range(LOOK_AHEAD):
        ahead.append(0.7 * (stack.transition.double() @ ahead[-1]))
    mask = stack.mask
    share = (weights[:, None] * stack.initial)[mask] + 1e-12
    points = torch.cat(ahead, -1)[mask]
    return points.cpu().numpy(), share.double().cpu().numpy(), mask.nonzero()[:, 0].cpu().numpy()


def _jitter(points: FloatArray, random: np.random.Generator) -> FloatArray:
    scale = JITTER * max(float(points.std(0).max()), 1e-3)
    return scale * random.standard_normal(points.shape)


def cluster(
    points: FloatArray, share: FloatArray, count: int, random: np.random.Generator
) -> tuple[FloatArray, NDArray[np.int64]]:
    """Cluster weighted points: k-means, from centres drawn far apart (k-means++).

    Args:
        points: (s, q).
        share: their weights (s,), > 0.
        count: the number of clusters.
        random: where random numbers come from.

    Returns:
        The centres (count, q), and the cluster of each point (s,). Clusters may be empty where there are few points.

    References:
        Arthur, Vassilvitskii: k-means++, the advantages of careful seeding (SODA 2007).
    """
    chosen: list[int] = []
    nearest = np.ones(len(points))
    for _ in range(count):
        chances = share * nearest
        chances = chances if chances.sum() > 0 else share
        chosen.append(int(random.choice(len(points), p=chances / chances.sum())))
        apart = np.square(points - points[chosen[-1]]).sum(1)
        nearest = apart if len(chosen) == 1 else np.minimum(nearest, apart)
    centres = points[chosen]
    which = np.full(len(points), -1)
    for _ in range(LLOYD_STEPS):
        moved = np.square(points[:, None] - centres).sum(2).argmin(1)
        if (moved == which).all():
            break
        which = moved
        for k in range(count):
            own = which == k
            if own.any():
                centres[k] = np.average(points[own], axis=0, weights=share[own])
    return centres, which


def _logits(
    targets: Targets, weights: Tensor, which: Any, owner: Any, n_states: int, random: np.random.Generator
) -> FloatArray:
    """The steps from cluster to cluster, made more even, with some noise."""
    stack = targets.chains.to_dense()
    flows = np.zeros((n_states, n_states))
    for k in range(len(stack)):
        law, rows = stack[k].initial, stack[k].transition
        member = np.eye(n_states)[which[owner == k]]
        flows += float(weights[k]) * member.T @ (law[:, None] * rows).double().cpu().numpy() @ member
    sums = flows.sum(1, keepdims=True)
    rows_ = np.where(sums > 0, flows / np.where(sums > 0, sums, 1.0), 1 / n_states)
    even = (1 - SMOOTHING) * rows_ + SMOOTHING / n_states
    return np.log(even) + LOGIT_NOISE * random.standard_normal(even.shape)


def _features(targets: Targets, centres: FloatArray, random: np.random.Generator) -> FloatArray:
    """The mean features of the clusters; or logits of labels, by how near each label is to the cluster's."""
    stack = targets.chains
    assert stack.features is not None
    width = stack.features.shape[-1]
    if targets.labels is None:
        return np.array(centres[:, :width])
    costs = centres[:, :width]
    spread = max(float(np.ptp(costs)), 1e-12)
    return -LABEL_LOGIT * costs / spread + LOGIT_NOISE * random.standard_normal(costs.shape)
