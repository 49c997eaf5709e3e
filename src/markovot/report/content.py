"""The data that the page shows: how certain the distances are, the map, the matrix, the neighbours."""

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

from markovot._arrays import IntArray
from markovot.pairwise import PairwiseSolution
from markovot.pairwise.solution import STATUSES
from markovot.plot import class_order, positions
from markovot.solution import Status

MAX_ROWS = 1000
"""A matrix with more rows is shown as means over blocks."""
_MANY = 300  # a map of more items starts only from classical scaling
_CODE = {status: code for code, status in enumerate(STATUSES)}


def codes_of(found: PairwiseSolution) -> NDArray[np.uint8]:
    """The status of each pair as a small number, the worst last."""
    return np.array([[_CODE[status] for status in row] for row in found.status], dtype=np.uint8)


def measured(values: NDArray[np.float64]) -> IntArray:
    """Items whose distances among each other are all finite: the worst item is removed until that is true."""
    missing = ~np.isfinite(values)
    counts = missing.sum(1)
    kept = np.ones(len(values), dtype=bool)
    while counts.any():
        worst = int(counts.argmax())
        kept[worst] = False
        counts = counts - missing[:, worst]
        missing[worst] = missing[:, worst] = False
        counts[worst] = 0
    return np.flatnonzero(kept)


def certainty(found: PairwiseSolution) -> dict[str, Any]:
    """How far the distances can be trusted: counts, the largest error, and what went wrong."""
    upper = np.triu_indices(len(found.value))
    status = found.status[upper]
    invalid = {number: reason for (_, number), reason in found.invalid.items()}
    named = np.isin(upper[0], list(invalid)) | np.isin(upper[1], list(invalid))
    wrong = (status != Status.CONVERGED) & ~named
    finite = np.isfinite(found.value[upper])
    between = finite & (upper[0] != upper[1])
    shown = between if between.any() else finite
    values = found.value[upper][shown]
    bounds = np.nan_to_num(found.error_bound[upper][shown], nan=np.inf)
    return {
        "graphs": len(found.value),
        "pairs": len(status),
        "wrong": [(int(upper[0][pair]), int(upper[1][pair]), status[pair]) for pair in np.flatnonzero(wrong)],
        "invalid": invalid,
        "largest_bound": float(bounds.max()),
        "smallest": float(values.min()),
        "largest": float(values.max()),
    }


def map_of(values: NDArray[np.float64], kept: IntArray) -> dict[str, Any]:
    """Where the items stand on the map (None: left out), and how far its distances are off."""
    place, stress = positions(values[np.ix_(kept, kept)], starts=4 if len(kept) <= _MANY else 0)
    where: list[list[float] | None] = [None] * len(values)
    for item, (x, y) in zip(kept.tolist(), place.tolist(), strict=True):
        where[item] = [float(f"{x:.5g}"), float(f"{y:.5g}")]
    return {"place": where, "stress": stress}


def order_of(values: NDArray[np.float64], kept: IntArray, classes: list[int]) -> list[int]:
    """The order of the items: classes as they first appear, near items side by side, items without distances last."""
    labels = [classes[item] for item in kept]
    order: list[int] = kept[class_order(values[np.ix_(kept, kept)], labels)].tolist()
    return order + sorted(set(range(len(values))) - set(order))


def matrix_of(found: PairwiseSolution, order: list[int]) -> dict[str, Any]:
    """The matrix in the given order, with its upper half packed row by row; a large matrix is shown in blocks.

    A block has the mean of its distances, the largest of its bounds, and the worst status.
    """
    block = -(-len(order) // MAX_ROWS)
    where = np.ix_(order, order)
    codes = codes_of(found)[where]
    value, bound = found.value[where], found.error_bound[where]
    if block > 1:
        value, bound, codes = _means(value, block), _largest(bound, block), _largest(codes, block)
    upper = np.triu_indices(len(value))
    return {
        "block": block,
        "rows": len(value),
        "value": packed(value[upper], "<f4"),
        "bound": packed(bound[upper], "<f4"),
        "status": packed(codes[upper], "u1") if codes.any() else None,
    }


def packed(values: NDArray[Any], kind: str) -> str:
    """Numbers as base64."""
    return base64.b64encode(values.astype(kind).tobytes()).decode("ascii")


def _means(values: NDArray[np.float64], block: int) -> NDArray[np.float64]:
    """Means of the finite entries over square blocks; NaN where there are none."""
    finite = np.isfinite(values)
    starts = np.arange(0, len(values), block)

    def sums(part: NDArray[Any]) -> NDArray[np.float64]:
        summed: NDArray[np.float64] = np.add.reduceat(np.add.reduceat(part.astype(np.float64), starts), starts, axis=1)
        return summed

    count = sums(finite)
    return np.where(count > 0, sums(np.where(finite, values, 0.0)) / np.maximum(count, 1), np.nan)


def _largest(values: NDArray[Any], block: int) -> NDArray[Any]:
    """The largest entries over square blocks; NaN is ignored unless a block has nothing else."""
    starts = np.arange(0, len(values), block)
    largest: NDArray[Any] = np.fmax.reduceat(np.fmax.reduceat(values, starts), starts, axis=1)
    return largest


def neighbours_of(found: PairwiseSolution, k: int) -> list[list[list[Any]]]:
    """For each item its k nearest others: number, distance, error bound, status, and whether the errors leave it open
    that it is as near as the one before.
    """  # noqa: D205
    codes = codes_of(found)
    lists = []
    for item in range(len(found.value)):
        values = np.where(np.isfinite(found.value[item]), found.value[item], np.inf)
        values[item] = np.inf
        ranked = [j for j in np.argsort(values, kind="stable")[:k].tolist() if np.isfinite(values[j])]
        rows: list[list[Any]] = []
        before = (0.0, 0.0)
        for j in ranked:
            value, bound = float(found.value[item, j]), float(found.error_bound[item, j])
            tied = bool(rows) and not value - before[0] > bound + before[1]
            before = value, bound
            written = float(f"{bound:.3g}") if np.isfinite(bound) else None
            rows.append([j, float(f"{value:.7g}"), written, int(codes[item, j]), int(tied)])
        lists.append(rows)
    return lists
