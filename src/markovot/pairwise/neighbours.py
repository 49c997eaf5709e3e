"""Exact nearest neighbours: bounds first, so that most pairs are never solved."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from markovot import validate
from markovot._arrays import IntArray
from markovot._progress import bar
from markovot.costs import Cost, Given
from markovot.pairwise.blocks import PairSetting, checked, ground, solve_block
from markovot.pairwise.bounds import Signatures, chunks, embedding, lower_bounds, refined_bounds, signatures
from markovot.pairwise.collection import Collection, collect
from markovot.pairwise.plan import split
from markovot.pairwise.solution import INVALID, STATUSES, named, raise_for
from markovot.solution import Certified, Status
from markovot.transport.threads import own_threads

# How many references get better bounds before any pair is solved, and how many pairs are then solved at a time.
FIRST_REFINED, TOGETHER = 16, 2


@dataclass(frozen=True, eq=False, repr=False)
class Neighbours(Certified):
    """The nearest references of each query, in NumPy; not differentiable.

    Attributes:
        value: the distances of the k nearest references (q, k), the nearest first, in units of the cost.
        error_bound: certified error of each distance (q, k).
        status: a `Status` for each (q, k).
        num_iter: sweeps that each distance took (q, k).
        index: numbers of these references (q, k); -1 where there is none.
        num_solved: how many distances were solved for each query (q,); the others were ruled out by their bounds.
        invalid: why chains could not be used, as in `PairwiseSolution`.
    """

    value: NDArray[np.float64]
    error_bound: NDArray[np.float64]
    status: NDArray[Any]
    num_iter: IntArray
    index: IntArray
    num_solved: IntArray
    invalid: dict[tuple[str, int], str] = field(default_factory=dict)

    _several: ClassVar[str] = "queries and neighbours"

    def raise_unless_converged(self, wanted: Any = None) -> None:
        """Raise one error for all chains that were invalid and all distances that did not converge.

        Args:
            wanted: ignored.

        Raises:
            SolveError: there are such chains or distances; its `solution` is this one.
        """
        problems = []
        if self.invalid:
            problems.append(named(self.invalid))
        wrong = np.argwhere((self.index >= 0) & (self.status != Status.CONVERGED))
        if len(wrong):
            query, place = (int(number) for number in wrong[0])
            problems.append(
                f"{len(wrong)} distances did not converge; the first, of query {query} and reference "
                f"{self.index[query, place]}, has a certified error of {self.error_bound[query, place]:.3g}. "
                f"{self.status[query, place].value}"
            )
        raise_for(problems, self)


# Distance, certified error, the number of a status, and sweeps.
Result = tuple[float, float, int, int]


def nearest_neighbours(
    queries: Sequence[Any],
    references: Sequence[Any] | None = None,
    k: int = 1,
    *,
    cost: Cost,
    delta: float,
    epsilon: float,
    debiased: bool = False,
    rtol: float = 1e-4,
    max_iter: int = 100,
    progress: bool = True,
    throw: bool = True,
) -> Neighbours:
    r"""The k reference chains nearest to each query: the same ones as in the whole distance matrix.

    A distance is solved only where a lower bound of it does not exceed the k-th best distance found, less the error
    that distances may have: first the distance between the mean features at the horizon, then sweeps from below
    (`markovot.pairwise.bounds`).

    Args:
        queries: chains of any sizes, or what `as_chain` accepts, with features for the cost.
        references: chains among which to look. Default: the other queries.
        k: how many.
        cost: an object of `markovot.costs`. The first bound is known only for these; for a cost of your own, most of
            the time goes into better bounds, and more pairs are solved.
        delta: as in `discounted_wl`, a number.
        epsilon: as in `discounted_wl`, a number.
        debiased: must be False: lower bounds of d(X, Y) do not bound `d(X, Y) - d(X, X) / 2 - d(Y, Y) / 2`.
        rtol: wanted certified error, as in `discounted_wl`: relative to the range of the cost of each pair.
        max_iter: the most sweeps for a pair, as in `discounted_wl`.
        progress: show a progress bar.
        throw: after all queries are finished, raise a `SolveError` for chains that were invalid and distances that did
            not converge.

    Returns:
        A `Neighbours`. Of references at equal distance the first counts; two whose certified intervals overlap may
        stand in either order, as they may in the matrix.

    Raises:
        TypeError: not a sequence, not a cost.
        ValueError: debiased, k out of range, or what `distance_matrix` raises.
        SolveError: see `throw`; the error's `solution` holds everything.

    Note:
        Not differentiable; deterministic. On MUTAG (delta .2, epsilon .01) 4 of 187 distances are solved for a query. A
        bound of the first kind takes less than a microsecond, one of the second a quarter of the time of a distance.

    References:
        Chen, Lim, Mémoli, Wan, Wang: Weisfeiler-Lehman meets Gromov-Wasserstein (ICML 2022), for the lower bound.

    Example:
        >>> import markovot, networkx
        >>> from markovot.pairwise import nearest_neighbours
        >>> rings = [markovot.MarkovChain.from_networkx(networkx.cycle_graph(n), features={k: k % 2 for k in range(n)})
        ...          for n in (3, 4, 5, 6)]
        >>> found = nearest_neighbours(rings, cost=markovot.costs.ZeroOne(), delta=0.2, epsilon=0.01, progress=False)
        >>> found.index[:, 0]
        array([2, 3, 0, 1])
    """
    setting = checked(cost, delta, epsilon, rtol, max_iter)
    progress, throw = validate.flag("progress", progress), validate.flag("throw", throw)
    if validate.flag("debiased", debiased):
        raise ValueError(
            "debiased: True, but lower bounds of the distance do not bound the debiased one. Take "
            "distance_matrix(..., debiased=True), and sort its rows."
        )
    xs = collect("queries", queries, cost)
    ys = xs if references is None else collect("references", references, cost, like=xs)
    most = len(ys.which) - (ys is xs)
    k = validate.count("k", k, low=-validate.LARGEST)
    if not 1 <= k <= most:
        raise ValueError(f"k: {k} is not a number between 1 and {most}, the number of references of a query.")
    found = _Search(xs, ys, setting, k).run(progress)
    if throw:
        found.raise_unless_converged()
    return found


class _Search:
    """The search over distinct chains. A pair of two queries is solved once, not once for each of them."""

    def __init__(self, xs: Collection, ys: Collection, setting: PairSetting, k: int) -> None:
        self.xs, self.ys, self.setting, self.k = xs, ys, setting, k
        self.items = [np.flatnonzero(ys.which == r) for r in range(len(ys.chains))]
        self.queries, self.references = self._signatures()
        self.known: dict[tuple[int, int], Result] = {}

    def _signatures(self) -> tuple[Signatures, Signatures]:
        cost, delta = self.setting.cost, self.setting.delta
        chains = self.xs.chains if self.xs is self.ys else self.xs.chains + self.ys.chains
        phi = None
        if not isinstance(cost, Given):
            phi = embedding(cost, np.concatenate([c.features for c in chains if c.features is not None]))
        queries = signatures(self.xs.chains, phi, delta)
        return queries, queries if self.xs is self.ys else signatures(self.ys.chains, phi, delta)

    def run(self, progress: bool) -> Neighbours:
        """All queries, identical ones too."""
        num = len(self.xs.which)
        index = np.full((num, self.k), -1)
        value, bound = np.full((2, num, self.k), np.nan)
        status, num_iter = np.full((num, self.k), INVALID), np.zeros((num, self.k), dtype=np.int64)
        solved = np.zeros(num, dtype=np.int64)
        with bar(total=num, unit="query", show=progress) as shown:
            for item, query in enumerate(self.xs.which.tolist()):
                if query >= 0:
                    with own_threads(), torch.no_grad():
                        items, found, solved[item] = self._query(query, item if self.xs is self.ys else None)
                    index[item, : len(items)] = items
                    for part, column in zip((value, bound, status, num_iter), zip(*found, strict=True), strict=True):
                        part[item, : len(items)] = column
                shown.update()
        invalid = {("queries", number): reason for number, reason in self.xs.reasons.items()}
        if self.ys is not self.xs:
            invalid |= {("references", number): reason for number, reason in self.ys.reasons.items()}
        statuses = np.array(STATUSES, dtype=object)[status]
        return Neighbours(value, bound, statuses, num_iter, index, solved, invalid)

    def _query(self, query: int, without: int | None) -> tuple[list[int], list[Result], int]:
        """The numbers of the nearest references, their results, and how many pairs were solved for them."""
        bounds = lower_bounds(self.queries, query, self.references)
        items = [own[own != without] if without is not None else own for own in self.items]
        unsolved = np.array([len(own) > 0 for own in items])
        slack = self._slack(query)
        refined = np.zeros(len(bounds), dtype=bool)
        best: list[tuple[float, int, int]] = []  # distance, number of the reference, its distinct chain
        found: dict[int, Result] = {}
        before, limit = len(self.known), np.inf
        while True:
            # references that may still be among the nearest, the most promising first
            left = np.flatnonzero(unsolved & (bounds <= limit))
            left = left[np.argsort(bounds[left], kind="stable")]
            ahead = left[:FIRST_REFINED] if limit == np.inf else left
            rough = ahead[~refined[ahead]]
            if len(rough):
                better = refined_bounds(self.queries, query, self.references, rough, self.setting)
                bounds[rough] = np.maximum(bounds[rough], better)
                refined[rough] = True
                continue
            chosen = ahead[: self.k if limit == np.inf else TOGETHER].tolist()
            if not chosen:
                break
            unsolved[chosen] = False
            for r, result in zip(chosen, self._solve(query, chosen), strict=True):
                found[r] = result
                if not np.isnan(result[0]):
                    best += [(result[0], int(number), r) for number in items[r]]
            best.sort()
            if len(best) >= self.k:
                limit = best[self.k - 1][0] + slack
        nearest = best[: self.k]
        return [number for _, number, _ in nearest], [found[r] for _, _, r in nearest], len(self.known) - before

    def _slack(self, query: int) -> float:
        """How far a solved distance may lie below the true one: `rtol` times the range of the cost."""
        x, low, high = self.xs.chains[query], np.inf, -np.inf
        for part in chunks(x.num_states * np.diff(self.references.first)):
            costs = ground(self.setting.cost, [x], self.ys.chains[part])
            low, high = min(low, costs.min()), max(high, costs.max())
        spread = float(high - low)
        return self.setting.rtol * (spread if spread > 0 else 1.0)

    def _solve(self, query: int, references: list[int]) -> list[Result]:
        """Distances to references, each pair in the order in which the matrix has it."""
        swap = self.xs is self.ys
        keys = [(min(query, r), max(query, r)) if swap else (query, r) for r in references]
        new = np.array([key for key in keys if key not in self.known], dtype=np.int64).reshape(-1, 2)
        if len(new):
            x, y = np.unique(new[:, 0]), np.unique(new[:, 1])
            pairs = np.stack([np.searchsorted(x, new[:, 0]), np.searchsorted(y, new[:, 1])], axis=1)
            for piece in split(self.xs, self.ys, x, y, pairs):
                found = solve_block(piece.block(self.xs, self.ys), self.setting)
                for a, b, *result in zip(piece.rows.tolist(), piece.columns.tolist(), *found, strict=True):
                    self.known[a, b] = (float(result[0]), float(result[1]), int(result[2]), int(result[3]))
        return [self.known[key] for key in keys]
