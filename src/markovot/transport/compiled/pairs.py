"""Whole pairs of chains in compiled code: what data sets are solved with."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from markovot.transport.compiled import entropic_pairs, exact_pairs, layout
from markovot.transport.compiled.entropic_pairs import Answer, Members, Task
from markovot.transport.compiled.policy import Control
from markovot.transport.compiled.sweeps import Lanes, Side
from markovot.transport.forcing import LINEAR_STEPS, START_STEPS
from markovot.transport.rows import Rows, array

# A pair with more plan entries than this (8 MiB of plans) is left to the engines, which share it among threads.
PAIR_ENTRIES = 1 << 20
# Wider initial couplings likewise: their Newton systems grow with the cube of the smaller chain.
PAIR_STATES = 384


class PairResults(NamedTuple):
    """Distances of pairs, with certificates; NaN where a ground cost is not finite."""

    value: NDArray[np.float64]
    error_bound: NDArray[np.float64]
    wanted: NDArray[np.float64]  # the error that was asked for
    num_iter: NDArray[np.int64]


def members(rows: Rows, law: NDArray[np.float64]) -> Members:
    """Lay out chains for the kernel.

    Args:
        rows: their transition rows.
        law: their initial laws, one after another without padding.
    """
    sizes = array(rows.sizes)
    fields, _ = layout.lane_arrays(rows, layout.state_order(rows), 1)
    degrees = rows.degrees.numpy()
    first = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    return Members(
        Side(*layout.side_arrays(rows)), Lanes(*fields), sizes, array(rows.fullness), degrees.max(axis=1), first, law
    )


def fits(entries_x: Any, entries_y: Any, states_x: Any, states_y: Any) -> Any:
    """Whether pairs are small enough for `solve_pairs`, by their chains' stored entries and numbers of states."""
    return (entries_x * entries_y <= PAIR_ENTRIES) & (np.minimum(states_x, states_y) <= PAIR_STATES)


def solve_pairs(
    pairs: NDArray[np.int64],
    xs: Members,
    ys: Members,
    table: NDArray[np.float64],
    setting: Task,
    max_iter: int,
) -> PairResults:
    """Solve pairs (a, b) of chain a of `xs` and chain b of `ys`, on the calling thread, without the interpreter lock.

    Args:
        pairs: (q, 2).
        xs: the first chains.
        ys: the second.
        table: ground costs between all their states (those of `xs`, those of `ys`).
        setting: what to solve, and how accurately.
        max_iter: most sweeps a pair may take.
    """
    num = len(pairs)
    found = PairResults(np.empty(num), np.empty(num), np.empty(num), np.zeros(num, dtype=np.int64))
    control = Control(True, False, max_iter, START_STEPS, LINEAR_STEPS)
    kernel = exact_pairs.solve_pairs if setting.epsilon == 0 else entropic_pairs.solve_pairs
    kernel(
        np.ascontiguousarray(pairs), xs, ys, np.ascontiguousarray(table), setting, control, Answer(*found)
    )
    return found
