"""Which pairs of states two chains can visit together in the long run.

A chain with one closed class of period p runs through p phases in turn. Two such chains keep the difference of their
phases modulo the common divisor d of their periods, under every coupling: the pairs of recurrent states fall into d
closed sets, the joint classes. Within one of them the independent coupling takes every pair to every other.
"""

from typing import Any, NamedTuple

import numpy as np

from markovot.chains.classes import closed_classes, in_words
from markovot.transport.rows import Rows


class Phases(NamedTuple):
    """The closed class of a chain, and the phase of each of its states."""

    closed: Any  # bool (n,)
    period: int
    phase: Any  # int64 (n,), in 0..period-1; meaningless outside the closed class


def phases(name: str, matrix: Any) -> Phases:
    """The one closed class of a chain, and its period.

    Args:
        name: the argument, for the message.
        matrix: its transition matrix, a SciPy sparse array.

    Raises:
        ValueError: several closed classes.
    """
    from scipy.sparse.csgraph import shortest_path

    label = closed_classes(matrix)
    if label.max() > 0:
        raise ValueError(
            f"{name}: the chain has {label.max() + 1} closed classes (sets of states that are never left), among them "
            f"the states {in_words(label)}, and so no single long run. Take one class at a time, or connect them, for "
            "instance with a small probability of a jump."
        )
    closed = label == 0
    steps = shortest_path(matrix, method="D", unweighted=True, indices=int(np.flatnonzero(closed)[0]))
    level = np.where(closed, steps, 0).astype(np.int64)
    owner = np.repeat(np.arange(closed.size), np.diff(matrix.indptr))
    inside = closed[owner]
    period = int(np.gcd.reduce(level[owner[inside]] + 1 - level[matrix.indices[inside]]))
    return Phases(closed, period, level % period)


def support(rows: Rows) -> Any:
    """The transition matrix of one chain as a SciPy sparse array (n, n)."""
    from scipy.sparse import csr_array

    n = rows.num_states
    parts = (rows.values, rows.indices, rows.indptr[0])
    return csr_array(tuple(part.cpu().numpy() for part in parts), shape=(n, n))


def joint_classes(x: Phases, y: Phases) -> Any:
    """The joint class of each pair of states, int64 (n, m), counted from 0.

    Raises:
        ValueError: there are several joint classes and transient states, whose pairs may end in different classes.
    """
    common = int(np.gcd(x.period, y.period))
    for name, each in (("x", x), ("y", y)):
        if common > 1 and not each.closed.all():
            raise ValueError(
                f"{name}: state {int(np.flatnonzero(~each.closed)[0])} is left for ever, and the periods of the two "
                f"chains, {x.period} and {y.period}, have the common divisor {common}: pairs with that state may end "
                "in classes of different cost. Leave such states out, or make one chain aperiodic, for instance with "
                "laziness=0.1."
            )
    return (x.phase[:, None] - y.phase[None, :]) % common


def ancestors(matrix: Any, targets: Any) -> Any:
    """The states from which some of the `targets` (bool) can be reached, including the targets: bool."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import breadth_first_order

    size = matrix.shape[0]
    back = matrix.T.tocsr()
    wanted = np.flatnonzero(targets)
    # one more state, with an arc to every target, is the start of the search
    indptr = np.append(back.indptr, back.indptr[-1] + wanted.size)
    indices = np.append(back.indices, wanted)
    graph = csr_array((np.ones(indices.size, dtype=np.int8), indices, indptr), shape=(size + 1, size + 1))
    found = np.zeros(size + 1, dtype=bool)
    found[breadth_first_order(graph, size, directed=True, return_predecessors=False)] = True
    return found[:size]
