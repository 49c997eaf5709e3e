"""All distances between the chains of one or two data sets."""

import hashlib
import pickle
from collections.abc import Sequence
from contextlib import closing, nullcontext
from typing import Any, NamedTuple

import numpy as np

from markovot import validate
from markovot._progress import bar
from markovot.costs import Cost
from markovot.pairwise.blocks import Found, PairSetting, checked, ground
from markovot.pairwise.checkpoint import Checkpoint
from markovot.pairwise.collection import Collection, collect
from markovot.pairwise.plan import Piece, diagonal, tiles
from markovot.pairwise.running import run_here, run_there
from markovot.pairwise.solution import INVALID, STATUSES, PairwiseSolution, Table

# A cost is tried for symmetry on at most so many chains.
_TRIED = 32


def distance_matrix(  # noqa: PLR0913 (what to solve, how, where, and what to do about failures)
    chains: Sequence[Any],
    others: Sequence[Any] | None = None,
    *,
    cost: Cost,
    delta: float,
    epsilon: float,
    debiased: bool = False,
    rtol: float = 1e-4,
    max_iter: int = 100,
    executor: Any = None,
    checkpoint: Any = None,
    progress: bool = True,
    throw: bool = True,
) -> PairwiseSolution:
    r"""The distances between all chains of a data set, or between those of two: `discounted_wl` of each pair.

    Args:
        chains: chains of any sizes, or what `as_chain` accepts, with features for the cost.
        others: a second data set. Default: the first, and then each pair is solved once, d(X, Y) = d(Y, X).
        cost: an object of `markovot.costs`; symmetric in its two arguments where `others` is left out.
        delta: as in `discounted_wl`, a number.
        epsilon: as in `discounted_wl`, a number. With entropy the distance of a chain to itself is above zero; the
            diagonal shows it.
        debiased: return `d(X, Y) - d(X, X) / 2 - d(Y, Y) / 2` instead, where d(X, X) = 0; self-distances are computed
            once. It may be negative, and need not obey the triangle inequality.
        rtol: wanted certified error, as in `discounted_wl`: relative to the range of the cost of each pair.
        max_iter: the most sweeps for a pair, as in `discounted_wl`.
        executor: where to solve: anything with `submit` as in `concurrent.futures`, such as a `ProcessPoolExecutor`, or
            `client.get_executor()` of Dask. Default: here, on as many threads as torch may use
            (`torch.set_num_threads`).
        checkpoint: a file that keeps finished blocks of pairs, so that the same call, made again after an interruption,
            goes on where it stopped, and gives the same bits. Blocks in it that are damaged are solved again, with a
            `CheckpointWarning`. Default: none.
        progress: show a progress bar.
        throw: after all pairs are finished, raise a `SolveError` for chains that were invalid and pairs that did not
            converge; with False they are told by `invalid` and `status` alone.

    Returns:
        A `PairwiseSolution`: distances (k, l) in units of the cost with their certified errors. A chain that is invalid
        has NaN; a pair that did not converge keeps its value, bound and status.

    Raises:
        TypeError: not a sequence, not a cost.
        ValueError: no chains, none that can be used, delta or epsilon out of range, a cost that is not symmetric; a
            checkpoint made with other data or settings, or a damaged one.
        SolveError: see `throw`; the error's `solution` holds everything.
        RuntimeError: a checkpoint in use, an executor whose workers keep dying.
        OSError: a checkpoint that cannot be written, as on a full disk; what was finished before is kept.

    Note:
        Not differentiable: for gradients, call `discounted_wl` on the pairs that matter. Identical chains are solved
        once. In float64; deterministic: a pair's result depends neither on the rest of the data set nor on threads or
        executors. Time: one core solves about 2,500 pairs of molecules (18 atoms) a second. Memory: the results and
        about 20 MB a thread; pairs of more than a million plan entries take what `discounted_wl` takes.

    References:
        As `discounted_wl`.

    Example:
        >>> import markovot, networkx
        >>> from markovot.pairwise import distance_matrix
        >>> rings = [markovot.MarkovChain.from_networkx(networkx.cycle_graph(n), features={k: k % 2 for k in range(n)})
        ...          for n in (3, 4, 5)]
        >>> found = distance_matrix(rings, cost=markovot.costs.ZeroOne(), delta=0.2, epsilon=0.01, progress=False)
        >>> found.value.round(2)
        array([[0.02, 0.39, 0.17],
               [0.39, 0.01, 0.29],
               [0.17, 0.29, 0.03]])
    """
    setting = checked(cost, delta, epsilon, rtol, max_iter)
    debiased, progress, throw = (
        validate.flag(name, value) for name, value in (("debiased", debiased), ("progress", progress), ("throw", throw))
    )
    if executor is not None:
        validate.executor("executor", executor)
    if checkpoint is not None:
        validate.path("checkpoint", checkpoint)
    xs = collect("chains", chains, cost)
    ys = xs if others is None else collect("others", others, cost, like=xs)
    if ys is xs:
        _check_symmetry(setting.cost, xs)
    work = _Work(xs, ys, setting, debiased)
    work.run(executor, checkpoint, progress)
    solution = work.solution()
    if throw:
        solution.raise_unless_converged()
    return solution


class _Job(NamedTuple):
    """A part of the work: the chains of its pairs, and the table for their results."""

    piece: Piece
    xs: Collection
    ys: Collection
    table: Table


class _Work:
    """The pairs of distinct chains, cut into blocks, and what has been found of them."""

    def __init__(self, xs: Collection, ys: Collection, setting: PairSetting, debiased: bool) -> None:
        self.xs, self.ys, self.setting = xs, ys, setting
        self.symmetric = xs is ys
        self.table = Table(len(xs.which), len(ys.which))
        self.first_x, self.first_y = xs.first(), ys.first()
        self.jobs = [_Job(piece, xs, ys, self.table) for piece in tiles(xs, ys)]
        self.own: list[Table] = []
        if debiased and not self.symmetric:
            for one in (xs, ys):
                table = Table(len(one.chains))
                self.own.append(table)
                self.jobs += [_Job(piece, one, one, table) for piece in diagonal(one)]
        self.debiased = debiased

    def run(self, executor: Any, checkpoint: Any, progress: bool) -> None:
        """Solve the blocks that are not in the checkpoint yet."""
        file: Any = nullcontext() if checkpoint is None else closing(Checkpoint(checkpoint, self._task()))
        with file as kept:
            finished: set[int] = set()
            for number, found in () if kept is None else kept.finished(len(self.jobs)):
                self._put(number, found)
                finished.add(number)
            sizes = [job.piece.num_pairs for job in self.jobs]
            there = sum(sizes[number] for number in finished)
            blocks = (
                (number, job.piece.block(job.xs, job.ys))
                for number, job in enumerate(self.jobs)
                if number not in finished
            )
            with bar(total=sum(sizes), initial=there, unit="pair", show=progress) as shown:

                def done(number: int, found: Found) -> None:
                    self._put(number, found)
                    if kept is not None:
                        kept.save(number, found)
                    shown.update(sizes[number])

                if executor is None:
                    run_here(blocks, self.setting, done)
                else:
                    run_there(blocks, self.setting, done, executor)

    def _put(self, number: int, found: Found) -> None:
        piece, _, _, table = self.jobs[number]
        if table is not self.table:
            table.put((piece.rows,), found)
            return
        where = self.first_x[piece.rows], self.first_y[piece.columns]
        table.put(where, found)
        if self.symmetric:
            table.put(where[::-1], found)

    def _task(self) -> dict[str, str]:
        """The values that must be the same in an earlier run for its blocks to be used."""
        cost, *numbers = self.setting
        return {
            "chains": self.xs.fingerprint(),
            "others": "none" if self.symmetric else self.ys.fingerprint(),
            "cost": f"{type(cost).__name__} {hashlib.sha256(pickle.dumps(cost)).hexdigest()[:16]}",
            **{name: repr(number) for name, number in zip(PairSetting._fields[1:], numbers, strict=True)},
            "self-distances": "with" if self.own else "without",
            "blocks": self._plan(),
        }

    def _plan(self) -> str:
        """Which pairs are in which block."""
        digest = hashlib.sha256()
        for piece, _, _, table in self.jobs:
            parts = [np.asarray([] if part is None else part, "<i8") for part in (piece.x, piece.y, piece.listed)]
            digest.update(repr([table is self.table, piece.x is piece.y, [len(part) for part in parts]]).encode())
            for part in parts:
                digest.update(part.tobytes())
        return digest.hexdigest()

    def solution(self) -> PairwiseSolution:
        """All distances, those of identical chains too."""
        table, x, y = self.table, self.xs.which, self.ys.which
        rows, columns = self.first_x[x], self.first_y[y]
        twin_rows, twin_columns = (np.flatnonzero(first != np.arange(len(first))) for first in (rows, columns))
        for part in table:  # identical chains have the results of the first of them
            part[twin_rows] = part[rows[twin_rows]]
            part[:, twin_columns] = part[:, columns[twin_columns]]
        if self.debiased:
            diagonals = [[part[which] for part in own] for own, which in zip(self.own, (x, y), strict=False)]
            self._debias(*(diagonals or [[np.diagonal(part).copy() for part in table]] * 2))
        for part, nothing in zip(table, (np.nan, np.nan, INVALID, 0), strict=True):
            part[x < 0] = nothing
            part[:, y < 0] = nothing
        invalid = {("chains", number): reason for number, reason in self.xs.reasons.items()}
        if not self.symmetric:
            invalid |= {("others", number): reason for number, reason in self.ys.reasons.items()}
        status = np.array(STATUSES, dtype=object)[table.status]
        return PairwiseSolution(table.value, table.error_bound, status, table.num_iter, self.symmetric, invalid)

    def _debias(self, rows: Sequence[Any], columns: Sequence[Any]) -> None:
        table = self.table
        table.value -= 0.5 * (rows[0][:, None] + columns[0])
        table.error_bound += 0.5 * (rows[1][:, None] + columns[1])
        np.maximum(table.status, np.maximum(rows[2][:, None], columns[2]), out=table.status)
        # exactly zero for identical chains
        place = {digest: number for number, digest in enumerate(self.xs.digests)}
        twin = np.array([place.get(digest, -2) for digest in self.ys.digests])
        same = self.xs.which[:, None] == twin[self.ys.which]
        table.value[same] = 0.0
        table.error_bound[same] = 0.0


def _check_symmetry(cost: Cost, xs: Collection) -> None:
    """Refuse a cost that is not symmetric on these chains: it would make half of the matrix wrong."""
    some = [xs.chains[i] for i in np.unique(np.linspace(0, len(xs.chains) - 1, _TRIED).astype(int))]
    costs = ground(cost, some, some)
    wrong = np.argwhere(~np.isclose(costs, costs.T, rtol=1e-9, atol=0.0, equal_nan=True))
    if len(wrong):
        i, j = wrong[0]
        raise ValueError(
            f"cost: it is {costs[i, j]:.6g} one way and {costs[j, i]:.6g} the other, between states of these chains. "
            "Make it symmetric, or ask for both ways with others=chains."
        )
