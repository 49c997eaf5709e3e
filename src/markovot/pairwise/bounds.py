r"""Lower bounds of distances, with which a search for neighbours solves few pairs.

Both kinds hold for the entropic distance, since KL >= 0.

1. Laws at the horizon. `d` is the least `E D(X_T, Y_T)`, plus entropy, over Markovian couplings, with T geometric. In
   every one of them X_T has the law `nu R`, with `R = delta sum_t (1 - delta)^t A^t`, and Y_T the law `mu S`. So

       d >= W_D(nu R, mu S),    and from fixed states    C*_ij >= W_D(R_i, S_j),

   W_D being the exact transport cost between laws of features. This is the lower bound of Chen et al., except that the
   laws at all depths are averaged before they are compared; on MUTAG that loses nothing. W_D in turn is bounded by the
   distance between means of vectors `phi` of the features, so that each chain needs only one vector.
2. Sweeps from below. The Bellman operator is monotone: if it starts below C*, it stays below, also with lower bounds
   in place of its transport values. `transport.compiled.lower_bounds` computes such bounds by two sparse products for
   all local problems together; they account for the first steps of the walks, and for the entropy. In the end
   `d >= OT_eps(nu, mu; C)`, and the solver of single problems certifies a lower bound of this value.

Measured on MUTAG (delta .2, epsilon .01): of 187 references, 50 have a bound 1 below the distance of the nearest one;
with the laws of all states 23 remain, with sweeps 5. Bound 1 takes less than a microsecond, bound 2 a quarter of the
time of a distance. For small delta, sweeps are slow and leave out more: 21 references remain at delta .1, 100 at .05.

References:
    Chen, Lim, Mémoli, Wan, Wang: Weisfeiler-Lehman meets Gromov-Wasserstein (ICML 2022), section 3.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from markovot._arrays import FloatArray, IntArray
from markovot.costs import AbsoluteDifference, Cost, Euclidean, SquaredEuclidean, ZeroOne
from markovot.pairwise.blocks import PairSetting, ground
from markovot.pairwise.collection import Packed
from markovot.transport.single import solve_problems
from markovot.transport.threads import own_threads, run

# The vector of a feature has at most about so many entries. Rare labels share one, which only lowers the bound.
VECTOR_ENTRIES = 64
# Each component of a numerical feature is cut into so many intervals. A single one would only compare means.
INTERVALS = 8
# The law at the horizon leaves out a tail of this probability, or what comes after so many steps.
TAIL, MOST_STEPS = 1e-3, 1000
# What rounding may add to a distance of means, relative to the largest that features have.
ROUND_OFF = 1e-12
# Sweeps go on while they may still add this share of the range of the cost, but no more often than this.
SWEEP_SHARE, MOST_SWEEPS = 3e-3, 12
# The initial couplings are solved to this share of the range of the bounds.
COUPLING_SHARE = 1e-2
# Costs between so many pairs of states are in memory at a time, in about six arrays.
CHUNK_ENTRIES = 1 << 20


@dataclass(frozen=True, eq=False)
class Embedding:
    """Vectors phi of features whose means bound transport costs: `W_D(p, q) >= gap(E_p phi, E_q phi)`.

    Attributes:
        vectors: a function from features (s, p) to `phi`, (K, s).
        width: entries of phi that belong to one component of the feature; their absolute differences are added up.
        squared: whether the sum of each component is squared before these sums are added up.
        root: whether a square root of the total is taken.
        allowance: the error that rounding may have added.
    """

    vectors: Callable[[NDArray[Any]], FloatArray]
    width: int
    squared: bool
    root: bool
    allowance: float

    def gap(self, p: FloatArray, q: FloatArray) -> FloatArray:
        """Lower bounds of W_D from means (K, ...) that broadcast; valid if both laws lack the same share of mass."""
        total: Any = 0.0
        for first in range(0, len(p), self.width):
            part = sum(np.abs(p[k] - q[k]) for k in range(first, first + self.width))
            total = total + (part * part if self.squared else part)
        return (np.sqrt(total) if self.root else total) - self.allowance


def embedding(cost: Cost, features: NDArray[Any]) -> Embedding | None:
    """The embedding that goes with a cost.

    Args:
        cost: the cost.
        features: those of all states of all chains to be compared, (s,) or (s, p). The vectors are chosen from them.

    Returns:
        The embedding, or None for a cost that we do not know. A subclass of a known cost counts as unknown, since it
        may compute something else.
    """
    vectors = features.reshape(len(features), -1)
    if type(cost) is ZeroOne:
        return _of_labels(vectors)
    if type(cost) in (AbsoluteDifference, Euclidean, SquaredEuclidean):
        return _of_numbers(vectors, squared=type(cost) is not AbsoluteDifference, root=type(cost) is Euclidean)
    return None


def _of_labels(labels: NDArray[Any]) -> Embedding:
    """Halved indicators of labels: the gap is the total variation."""
    known, counts = np.unique(labels, axis=0, return_counts=True)
    column = np.full(len(known), min(len(known), VECTOR_ENTRIES) - 1)
    frequent = np.argsort(-counts, kind="stable")[: VECTOR_ENTRIES - 1]
    column[frequent] = np.arange(len(frequent))

    def vectors(some: NDArray[Any]) -> FloatArray:
        # `known` is sorted, and contains all labels that occur
        _, which = np.unique(np.concatenate([known, some]), axis=0, return_inverse=True)
        found = np.zeros((int(column.max()) + 1, len(some)))
        found[column[which.reshape(-1)[len(known) :]], np.arange(len(some))] = 0.5
        return found

    return Embedding(vectors, int(column.max()) + 1, squared=False, root=False, allowance=ROUND_OFF)


def _of_numbers(numbers: NDArray[Any], *, squared: bool, root: bool) -> Embedding:
    """For each component, the part of each interval that lies below it: differences of these add up to `|x - y|`.

    In each component the gap is thus the Wasserstein distance on the line, of laws blurred within the intervals. And
    `E |X - Y|^2 >= sum_c (E |X_c - Y_c|)^2`; `E |X - Y|` is at least the root of the same sum (Jensen, both).
    """
    components = numbers.shape[1]
    count = max(1, min(INTERVALS, VECTOR_ENTRIES // components))
    edges = np.quantile(numbers.astype(np.float64), np.linspace(0.0, 1.0, count + 1), axis=0)  # (count + 1, p)
    sides = edges[-1] - edges[0]
    reach = float((sides**2).sum() if squared else sides.sum())
    reach = math.sqrt(reach) if root else reach
    # the cost itself is computed in the dtype of the features
    unit = float(np.finfo(numbers.dtype).eps) if numbers.dtype.kind == "f" else 0.0

    def vectors(some: NDArray[Any]) -> FloatArray:
        inside = np.clip(some.astype(np.float64)[:, None, :], edges[:-1], edges[1:]) - edges[:-1]
        return np.ascontiguousarray(inside.transpose(2, 1, 0).reshape(-1, len(some)))

    return Embedding(vectors, count, squared, root, allowance=(ROUND_OFF + 4 * (components + 2) * unit) * reach)


@dataclass(frozen=True, eq=False)
class Signatures:
    """The numbers that the bounds need for each chain of a list.

    Attributes:
        chains: the chains.
        first: where the states of each chain begin in the list of all states, and then the number of all states.
        horizon: the mean of phi at the horizon for a walk from each state, (K, all states).
        mean: the same for a walk from the initial law, (K, chains).
        embedding: phi, or None for a cost that we do not know; then K is zero.
    """

    chains: Sequence[Packed]
    first: IntArray
    horizon: FloatArray
    mean: FloatArray
    embedding: Embedding | None


def signatures(chains: Sequence[Packed], embedding: Embedding | None, delta: float) -> Signatures:
    """Compute the numbers of each chain once.

    Args:
        chains: the chains.
        embedding: made for the features of these chains and of all that will be compared with them.
        delta: the discount.
    """
    first = np.cumsum([0] + [chain.num_states for chain in chains])
    if embedding is None:
        return Signatures(chains, first, np.zeros((0, first[-1])), np.zeros((0, len(chains))), None)
    features = np.concatenate([chain.features for chain in chains if chain.features is not None])
    horizon = _at_horizon(chains, first, embedding.vectors(features.reshape(len(features), -1)), delta)
    law = np.concatenate([chain.law for chain in chains])
    return Signatures(chains, first, horizon, np.add.reduceat(horizon * law, first[:-1], axis=1), embedding)


def _at_horizon(chains: Sequence[Packed], first: IntArray, phi: FloatArray, delta: float) -> FloatArray:
    """`delta sum_t (1 - delta)^t A^t phi`, with equally many terms for all chains: gaps of these are bounds too."""
    from scipy.sparse import csr_array

    indices = np.concatenate([chain.indices + start for chain, start in zip(chains, first[:-1], strict=True)])
    weight = np.concatenate([chain.weight for chain in chains])
    walk = csr_array((weight, indices, _pointers(chains)), shape=(first[-1], first[-1]))
    steps = 1 if delta == 1.0 else math.ceil(math.log(TAIL) / math.log1p(-delta))
    now = delta * np.ascontiguousarray(phi.T)
    total = now.copy()
    for _ in range(1, min(steps, MOST_STEPS)):
        now = (1.0 - delta) * (walk @ now)
        total += now
    return np.ascontiguousarray(total.T)


def _pointers(chains: Sequence[Packed]) -> IntArray:
    """Where the rows begin in the entries of all chains, one after another."""
    return np.concatenate([[0], np.cumsum(np.concatenate([np.diff(chain.indptr) for chain in chains]))])


def lower_bounds(queries: Signatures, query: int, references: Signatures) -> FloatArray:
    """Lower bounds of the distances from a query to all references, in a microsecond or less each.

    Args:
        queries: signatures of the queries.
        query: the number of the query.
        references: signatures of the references, with the same embedding.

    Returns:
        (r,), in units of the cost; minus infinity for a cost that we do not know.
    """
    if queries.embedding is None:
        return np.full(len(references.chains), -np.inf)
    return queries.embedding.gap(queries.mean[:, query, None], references.mean)


def refined_bounds(
    queries: Signatures, query: int, references: Signatures, which: IntArray, setting: PairSetting
) -> FloatArray:
    """Better lower bounds for some of the references, for any cost, in a quarter of the time of the distances.

    Args:
        queries: signatures of the queries.
        query: the number of the query.
        references: signatures of the references, with the same embedding.
        which: the numbers of the references.
        setting: cost, delta and epsilon.

    Returns:
        (len(which),), in units of the cost. They are not always above those of `lower_bounds`: use the larger. Minus
        infinity where a ground cost is not finite.
    """
    found = np.empty(len(which))
    with own_threads(), torch.no_grad():
        for part in chunks(queries.chains[query].num_states * np.diff(references.first)[which]):
            found[part] = _refined(queries, query, references, which[part], setting)
    return np.nan_to_num(found, nan=-np.inf)


def chunks(entries: IntArray) -> Iterator[slice]:
    """Consecutive parts with up to CHUNK_ENTRIES entries in all; an item with more is a part of its own."""
    start = 0
    for stop in range(1, len(entries) + 1):
        if stop == len(entries) or entries[start : stop + 1].sum() > CHUNK_ENTRIES:
            yield slice(start, stop)
            start = stop


def _refined(
    queries: Signatures, query: int, references: Signatures, which: IntArray, setting: PairSetting
) -> FloatArray:
    x, ys = queries.chains[query], [references.chains[r] for r in which]
    first = np.cumsum([0] + [chain.num_states for chain in ys])
    costs = ground(setting.cost, [x], ys)
    bounds = np.full(costs.shape, costs.min())  # OT(C) >= min C, so C* >= min D
    if queries.embedding is not None:
        states = slice(queries.first[query], queries.first[query + 1])
        columns = np.concatenate([np.arange(references.first[r], references.first[r + 1]) for r in which])
        gap = queries.embedding.gap(queries.horizon[:, states, None], references.horizon[:, None, columns])
        np.maximum(bounds, gap, out=bounds)
    _sweep(x, ys, first, costs, setting, bounds)
    return _couple(x, ys, first, bounds, setting.epsilon)


def _sweep(
    x: Packed, ys: list[Packed], first: IntArray, costs: FloatArray, setting: PairSetting, bounds: FloatArray
) -> None:
    """Raise the bounds of C*, in place."""
    # Compiled code takes half a second to load, and only searches need this.
    from markovot.transport.compiled import lower_bounds

    rows = lower_bounds.Chains(x.indptr, x.indices, x.weight)
    indices, weight = (np.concatenate([getattr(y, name) for y in ys]) for name in ("indices", "weight"))
    others = lower_bounds.Chains(_pointers(ys), indices, weight)
    least_rise = SWEEP_SHARE * float(np.ptp(costs))
    sweeps = lower_bounds.Sweeps(setting.delta, setting.epsilon, MOST_SWEEPS, least_rise)
    run(
        lambda tasks: lower_bounds.raise_bounds(tasks, rows, others, first, costs, sweeps, bounds),
        np.arange(len(ys)),
        MOST_SWEEPS * x.num_states * np.diff(first),
    )


def _couple(x: Packed, ys: list[Packed], first: IntArray, bounds: FloatArray, epsilon: float) -> FloatArray:
    """Lower values of the initial couplings."""
    width = int(np.diff(first).max())
    law, cost = np.zeros((len(ys), width)), np.zeros((len(ys), x.num_states, width))
    for place, y in enumerate(ys):
        law[place, : y.num_states] = y.law
        cost[place, :, : y.num_states] = bounds[:, first[place] : first[place + 1]]
    each = torch.ones(len(ys), dtype=torch.float64, device="cpu")
    found = solve_problems(
        torch.from_numpy(x.law).expand(len(ys), -1), torch.from_numpy(law), torch.from_numpy(cost),
        epsilon * each, COUPLING_SHARE * float(np.ptp(bounds)) * each,
    )  # fmt: skip
    return found.lower.numpy()
