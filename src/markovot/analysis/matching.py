r"""One partner for each state: turn a soft alignment into a matching, judge it, and use it to align better.

The alignment M of two chains says how often their walkers meet in each pair of states. To make it independent of how
often each state is visited, it is divided by these frequencies:

    S_ij = M_ij / sqrt(r_i c_j),    r = M 1,  c = M^T 1,    0 <= S_ij <= 1,

the geometric mean of the share of i's time that goes to j, and of the share of j's time that goes to i: 1 where the two
states have only each other. `match` takes the assignment with the largest product of scores.

Why the product and not the sum: a sum hardly notices the states whose alignment is spread out, whereas each factor of a
product counts, and for square M its maximiser does not depend on the normalisation at all. Where states are told apart
well, both recover the same pairs. Measured over relabelled graphs with up to 20 % of their edges removed, and eight
settings of delta and epsilon: karate club 91.6 % of the pairs with the sum, 90.8 % with the product; "Les Miserables"
89.7 and 89.2; macaque cortex 98.4 and 98.6; with nothing but degrees to go by, macaque cortex 92.1 and 95.8, a
connectome of 100 parcels 67.5 and 76.4.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from markovot import validate
from markovot._arrays import FloatArray, IntArray
from markovot.chains import MarkovChain, single, sparse

__all__ = ["Matching", "accuracy", "descriptors", "disagreement", "match"]


# Longer walks do not tell any nodes apart.
MOST_STEPS = 10_000
# The score of a pair without common mass in the product: less than any mass that a solver can tell from zero.
_FLOOR = 1e-12


@dataclass(frozen=True, eq=False)
class Matching:
    """A one-to-one matching of the states of two chains, made by `match`.

    Attributes:
        rows: the matched states of x, ascending, int64 (k,), with k = min(n, m).
        columns: their partners, states of y, int64 (k,).
        scores: the score of each pair, float64 (k,) in [0, 1]: the geometric mean of the share of the time of the state
            of x that goes to its partner, and of the share of its partner's time that goes to it. 1: the two have only
            each other. 0: they never meet, and are matched because nothing better was left.
        names: for each pair, the names of its states, if a chain has `state_names`; else None.
    """

    rows: IntArray
    columns: IntArray
    scores: FloatArray
    names: list[tuple[Any, Any]] | None = None

    @property
    def score(self) -> float:
        """The mean of `scores`: 1 where the alignment is one-to-one already."""
        return float(self.scores.mean())

    def __len__(self) -> int:
        return len(self.rows)


def match(solution: Any, item: int | None = None) -> Matching:
    r"""The best one-to-one matching of the states of two chains, from their alignment.

    $$\sigma = \arg\max_\sigma \prod_i S_{i \sigma(i)}, \qquad
      S_{ij} = M_{ij} \Big/ \sqrt{\textstyle\sum_l M_{il} \sum_k M_{kj}},$$

    with M the alignment. If the chains are of different sizes, every state of the smaller one is given a partner.

    Args:
        solution: what `discounted_wl` or one of its relatives returned, exact or entropic; or a soft matching from
            elsewhere: a tensor or array (n, m), finite and nonnegative, with some mass.
        item: which item of a batch, counted in row-major order; None (default) for a single pair.

    Returns:
        A `Matching`. Padded states of a stack are left out. States that are never visited have no mass in the
        alignment: they get what is left over, and score 0. `names` are known for `discounted_wl` and finite horizons.

    Raises:
        TypeError: something without an alignment, or an item that is not an integer.
        ValueError: a batch without an item; a matrix that is no soft matching.
        IndexError: no such item.

    Note:
        States that the chains cannot tell apart (automorphic nodes of a graph) may be exchanged: `accuracy` takes their
        classes. Deterministic, not differentiable. One assignment problem, O(n^3): some seconds for 2,000 states.

    References:
        Crouse: On implementing 2D rectangular assignment algorithms (2016), the method behind SciPy's
        `linear_sum_assignment`.

    Example:
        >>> import networkx, markovot
        >>> from markovot.analysis.matching import match
        >>> small, large = networkx.star_graph(["centre", "p", "q"]), networkx.star_graph(["hub", "a", "b", "c"])
        >>> x, y = (markovot.MarkovChain.from_networkx(star, features=dict(star.degree)) for star in (small, large))
        >>> found = match(markovot.discounted_wl(x, y, markovot.costs.Euclidean(), delta=0.2, epsilon=0.01))
        >>> len(found), found.names[0]
        (3, ('centre', 'hub'))
    """
    mass, names = _real_part(solution, item)
    from scipy.optimize import linear_sum_assignment

    visited_x, visited_y = mass.sum(1, keepdims=True), mass.sum(0, keepdims=True)
    size = np.sqrt(visited_x) * np.sqrt(visited_y)
    score = np.minimum(np.divide(mass, size, out=np.zeros_like(mass), where=size > 0), 1.0)
    rows, columns = linear_sum_assignment(-np.log(np.maximum(score, _FLOOR)))
    rows, columns = rows.astype(np.int64), columns.astype(np.int64)
    return Matching(rows, columns, score[rows, columns], _names(names, rows, columns))


def descriptors(*adjacencies: Any, steps: int = 4) -> list[Tensor]:
    r"""Features for nodes without labels: how strong their edges are, and how soon a walk returns.

    $$\big(\log(1 + \textstyle\sum_j w_{ij}),\ \log(1 + \sum_j w_{ji}),\ (P^2)_{ii},\ \ldots,\ (P^{steps})_{ii}\big),
      \qquad P_{ij} = w_{ij} / \textstyle\sum_k w_{ik},$$

    each standardised over the nodes of all graphs together, so that all weigh the same. The second, the weight of
    the incoming edges, is left out where all graphs are symmetric. A node with no way out stays where it is.

    Args:
        adjacencies: the graphs that are to be compared, each as weights >= 0 (n, n) from row to column: a tensor, a
            NumPy array or a SciPy sparse matrix. (Of a networkx graph: `networkx.to_numpy_array(graph)`.)
        steps: the longest walk whose return counts, an integer >= 1. Longer ones say little more.

    Returns:
        For each graph the descriptors of its nodes, (n, p) float64: `features` for chains, to be compared by
        `costs.Euclidean()`.

    Raises:
        TypeError: not a matrix of numbers, or steps that are no integer.
        ValueError: no graphs, wrong shapes, negative or non-finite weights, steps less than 1.

    Note:
        Time O(steps n^3), memory O(n^2). Detached, deterministic.

    Example:
        >>> import networkx
        >>> from markovot.analysis.matching import descriptors
        >>> (path,) = descriptors(networkx.to_numpy_array(networkx.path_graph(4)), steps=1)
        >>> path[:, 0].round(decimals=6).tolist()
        [-1.0, 1.0, 1.0, -1.0]
    """
    if not adjacencies:
        raise ValueError("adjacencies: there are none. Give one matrix for each graph.")
    longest = validate.count("steps", steps, low=1, high=MOST_STEPS)
    weights = [_weights(f"adjacencies: number {k}", given) for k, given in enumerate(adjacencies)]
    directed = any(not torch.equal(w, w.T) for w in weights)
    found = [_described(w, longest, directed) for w in weights]
    nodes = torch.cat(found)
    spread = nodes.std(0, correction=0)
    spread = torch.where(spread > 1e-9, spread, 1.0)  # a descriptor that all nodes share, up to rounding, becomes zero
    return [(one - nodes.mean(0)) / spread for one in found]


def disagreement(x: MarkovChain, y: MarkovChain, matching: Matching) -> Tensor:
    r"""A cost between states from how differently they move, given a matching; it serves to align again, and better.

    $$R_{ij} = \tfrac12 \sum_k |A_{ik} - B_{j \sigma(k)}| + \tfrac12 \big(A_i(\text{alone}) + B_j(\text{alone})\big),$$

    the total variation between row i of x and row j of y, sigma being the matching; the sum runs over the states k of x
    that have a partner; probabilities of moving to states without one (alone) have no counterpart. The cost is 0 where
    both states move alike and 1 where they have no neighbour in common. The matching need not be good: rightly matched
    neighbours agree in one place, wrong ones scatter. In our measurements it was enough that a third was right.

    Args:
        x: a single chain of n states, transition A.
        y: a single chain of m states, transition B.
        matching: of the states of x and y, from `match`.

    Returns:
        (n, m) in the chains' dtype, entries in [0, 1]; a cost for `discounted_wl`. Measured on graphs with up to 30 %
        of their edges removed: two or three rounds with `delta=0.1, epsilon=0.003` are enough.

    Raises:
        TypeError: not chains, not a matching, or chains of different dtypes.
        ValueError: batches, different devices, or a matching of states that are not there.

    Note:
        Detached. Time and memory O(n m k) and O(n m), k the number of pairs. Deterministic.

    Example:
        >>> import networkx, torch, markovot
        >>> from markovot.analysis.matching import disagreement, match
        >>> x = markovot.MarkovChain.from_networkx(networkx.cycle_graph(5), laziness=0.5)
        >>> same = match(torch.eye(5))
        >>> disagreement(x, x, same)[0].tolist()
        [0.0, 0.5, 0.75, 0.75, 0.5]
    """
    _check_chains(x, y, matching)
    rows = torch.from_numpy(matching.rows).to(x.device)
    columns = torch.from_numpy(matching.columns).to(x.device)
    a, b = (chain.detach().to_dense().transition.double() for chain in (x, y))
    left, right = a[:, rows], b[:, columns]
    alone = (a.sum(1) - left.sum(1))[:, None] + (b.sum(1) - right.sum(1))[None, :]
    total = torch.cdist(left, right, p=1.0) + alone
    return (0.5 * total).clamp(0.0, 1.0).to(x.dtype)


def accuracy(
    matching: Matching, truth: ArrayLike | Tensor, *, classes: Sequence[Any] | ArrayLike | None = None
) -> float:
    """The share of the true pairs that a matching found.

    Args:
        matching: from `match`.
        truth: the true partner of each state of x, integers (n,): a state of y, or -1 for a state that has none.
        classes: for each state of y, the class of states that nothing tells apart, (m,). A state counts as found if its
            partner is in the class of the true one. For graphs, the orbits of the automorphism group. Default: every
            state is a class of its own.

    Returns:
        A number in [0, 1].

    Raises:
        TypeError: a truth that is not made of integers.
        ValueError: a state that does not exist, a truth too short for the matching, or one without any pair.

    Example:
        >>> import torch
        >>> from markovot.analysis.matching import accuracy, match
        >>> found = match(torch.tensor([[0.5, 0.0, 0.0], [0.0, 0.1, 0.2], [0.0, 0.2, 0.0]]))
        >>> accuracy(found, [0, 1, 2]), accuracy(found, [0, 1, 2], classes=["hub", "leaf", "leaf"])
        (0.3333333333333333, 1.0)
    """
    validate.instance("matching", matching, Matching, "what match returns")
    true = validate.array("truth", truth)
    if true.ndim != 1 or true.dtype.kind not in "iu":
        raise TypeError(f"truth: expected integers (n,), one for each state of x, got {true.dtype} {true.shape}.")
    true = true.astype(np.int64)
    if len(matching) and int(matching.rows.max()) >= len(true):
        raise ValueError(
            f"truth: it has {len(true)} entries, but state {matching.rows.max()} of x is matched. Give one for each "
            "state of x, -1 for those without a partner."
        )
    if not (true >= 0).any():
        raise ValueError("truth: no state of x has a partner, so there is nothing to find.")
    largest = max(int(true.max()), int(matching.columns.max()))
    if classes is None:
        kind = np.arange(largest + 1)
    else:
        kind = _class_numbers(classes)
        if largest >= len(kind):
            raise ValueError(f"classes: there are {len(kind)}, but there is a state {largest} of y. Give one for each.")
    wanted = true[matching.rows]
    known = wanted >= 0
    found = kind[matching.columns[known]] == kind[wanted[known]]
    return float(found.sum() / (true >= 0).sum())


def _class_numbers(classes: Any) -> IntArray:
    """Replace classes of any sortable type by numbers."""
    given = validate.array("classes", classes)
    try:
        return np.unique(given, return_inverse=True)[1].reshape(-1)
    except TypeError as error:
        raise TypeError(f"classes: {error}. Give one word or number for each state of y.") from error


# --- descriptors


def _weights(name: str, given: Any) -> Tensor:
    if sparse.is_sparse(given):
        read = sparse.read(name, given, integers=True)
        weights = read._replace(values=read.values.detach().double()).to_dense()
    else:
        weights = validate.as_tensor(name, given).detach().double()
    validate.square(name, weights.shape)
    if weights.dim() != 2:
        raise ValueError(f"{name}: shape {tuple(weights.shape)} is that of a batch. Give its graphs one by one.")
    validate.entries(name, weights)
    return weights


def _described(weights: Tensor, steps: int, directed: bool) -> Tensor:
    out = weights.sum(1)
    rows = weights / torch.where(out > 0, out, 1.0)[:, None] + torch.diag((out == 0).double())
    found = [out.log1p()]
    if directed:
        found.append(weights.sum(0).log1p())
    power = rows
    for _ in range(2, steps + 1):
        power = power @ rows
        found.append(power.diagonal())
    return torch.stack(found, dim=1)


# --- checks


def _real_part(solution: Any, item: int | None) -> tuple[FloatArray, tuple[Any, Any]]:
    """The alignment of one pair of chains, without padding, and the names of their states."""
    given = isinstance(solution, Tensor | np.ndarray)
    if not given and not hasattr(solution, "alignment"):
        raise TypeError(
            f"solution: {type(solution).__name__} has no alignment. Give what discounted_wl or one of its relatives "
            "returns, or a soft matching (n, m)."
        )
    aligned = validate.as_tensor("solution", solution) if given else solution.alignment
    if aligned.dim() < 2:
        raise ValueError(f"solution: a soft matching has shape (n, m), got {tuple(aligned.shape)}.")
    if not aligned.numel():
        raise ValueError(f"solution: the alignment has shape {tuple(aligned.shape)}. There is nothing to match.")
    batch = aligned.shape[:-2]
    place = _item(item, batch)
    mass = aligned.detach().reshape(-1, *aligned.shape[-2:])[place].double().cpu().numpy()
    names: tuple[Any, Any] = (None, None)
    if not given:
        mass, names = _without_padding(solution, batch, place, mass)
    wrong = ~(np.isfinite(mass) & (mass >= -1e-9))
    if wrong.any():
        index = tuple(int(k) for k in np.argwhere(wrong)[0])
        raise ValueError(f"solution: entry {index} of the alignment is {mass[index]}. It must be finite and >= 0.")
    if not mass.sum() > 0:
        raise ValueError(f"solution: the alignment has shape {mass.shape} and no mass. There is nothing to match.")
    return np.maximum(mass, 0.0), names


def _item(item: Any, batch: torch.Size) -> int:
    count = batch.numel()
    if item is None:
        if count != 1:
            raise ValueError(
                f"item: the solution is of a batch of shape {tuple(batch)}. Say which item, counted in row-major "
                f"order: [match(solution, k) for k in range({count})]."
            )
        return 0
    place = validate.count("item", item, low=-validate.LARGEST)
    if not 0 <= place < count:
        raise IndexError(f"item: no item {place} in a batch of {count}. They count from 0.")
    return place


def _without_padding(
    solution: Any, batch: torch.Size, place: int, mass: FloatArray
) -> tuple[FloatArray, tuple[Any, Any]]:
    own = [_chain_of(chain, batch, place) for chain in solution.chains]
    return mass[: own[0][0], : own[1][0]], (own[0][1], own[1][1])


def _chain_of(chain: MarkovChain, batch: torch.Size, place: int) -> tuple[int, Any]:
    """How many states the chain of an item has, and their names."""
    own = torch.arange(chain.batch_shape.numel(), device="cpu").view(chain.batch_shape)
    number = int(own.expand(batch).reshape(-1)[place])
    names = chain.state_names
    if names is not None and chain.batch_shape:
        names = names[number]
    return int(chain.sizes.reshape(-1)[number]), names


def _names(names: tuple[Any, Any], rows: IntArray, columns: IntArray) -> list[tuple[Any, Any]] | None:
    if names == (None, None):
        return None
    of_x, of_y = (
        index.tolist() if own is None else [own[k] for k in index.tolist()]
        for own, index in zip(names, (rows, columns), strict=True)
    )
    return list(zip(of_x, of_y, strict=True))


def _check_chains(x: Any, y: Any, matching: Any) -> None:
    for name, chain, index in (("x", x, "rows"), ("y", y, "columns")):
        single(name, chain)
        validate.instance("matching", matching, Matching, "what match returns")
        largest = int(getattr(matching, index).max())
        if largest >= chain.num_states:
            raise ValueError(
                f"matching: it matches state {largest} of {name}, which has {chain.num_states} states. Give the "
                "chains that were matched, in the same order."
            )
    validate.same_kind("x", x.parameter, "y", y.parameter)
