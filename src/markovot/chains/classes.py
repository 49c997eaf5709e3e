"""Closed classes of a chain: sets of states that are never left, and within which every state leads to every other."""

from typing import Any

import numpy as np

_SHOWN = 5


def closed_classes(matrix: Any) -> Any:
    """The closed classes of a chain: a label for each state, -1 where it is transient.

    Classes are counted from 0 in the order of their first states.

    Args:
        matrix: its transition matrix, a SciPy sparse array in CSR; every stored entry is an arc.
    """
    from scipy.sparse.csgraph import connected_components

    count, label = connected_components(matrix, directed=True, connection="strong")
    owner = np.repeat(label, np.diff(matrix.indptr))
    closed = np.ones(count, dtype=bool)
    closed[owner[owner != label[matrix.indices]]] = False
    first = np.full(count, label.size)
    np.minimum.at(first, label, np.arange(label.size))
    ranked = np.flatnonzero(closed)[np.argsort(first[closed])]
    number = np.full(count, -1)
    number[ranked] = np.arange(ranked.size)
    return number[label]


def in_words(label: Any) -> str:
    """The first two closed classes of a chain that has several, by their states, for messages."""
    shown = []
    for each in np.unique(label[label >= 0])[:2]:
        states = np.flatnonzero(label == each)
        shown.append(f"{{{', '.join(map(str, states[:_SHOWN]))}{', ...' if states.size > _SHOWN else ''}}}")
    return " and ".join(shown)
