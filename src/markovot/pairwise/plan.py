"""Cut the pairs of a data set into blocks: the same ones on every machine, so that a run can be resumed."""

from typing import NamedTuple

import numpy as np

from markovot.fixed_point import PolicyIteration, Solver
from markovot.pairwise.blocks import Block
from markovot.pairwise.collection import Collection, IntArray

# Chains are taken in groups of about so many stored entries; a block is the pairs of two groups. With 1024 it takes a
# tenth to a quarter of a second, of which the calls from Python are one per cent.
GROUP_ENTRIES = 1024


class Piece(NamedTuple):
    """A block before its chains are packed in: which chains of the first and the second collection, and the pairs."""

    x: IntArray
    y: IntArray
    pairs: IntArray  # (q, 2), positions in x and y
    compiled: bool

    @property
    def rows(self) -> IntArray:
        """For each pair, the chain of the first collection."""
        return self.x[self.pairs[:, 0]]

    @property
    def columns(self) -> IntArray:
        """For each pair, the chain of the second collection."""
        return self.y[self.pairs[:, 1]]

    def block(self, xs: Collection, ys: Collection) -> Block:
        """With its chains, ready to be sent."""
        first = [xs.chains[i] for i in self.x]
        return Block(first, None if self.x is self.y else [ys.chains[j] for j in self.y], self.pairs, self.compiled)


def tiles(xs: Collection, ys: Collection, solver: Solver) -> list[Piece]:
    """All pairs of two collections, or, where they are the same object, all pairs i <= j of it.

    The largest compiled blocks come first, so that the last ones are short and no thread waits long for another; then
    the pairs that the engines solve one by one.
    """
    groups_x = _groups(xs)
    groups_y = groups_x if xs is ys else _groups(ys)
    pieces: list[Piece] = []
    for p, x in enumerate(groups_x):
        for y in groups_x[p:] if xs is ys else groups_y:
            pairs = np.argwhere(np.triu(np.ones((len(x), len(y)), dtype=bool)) if x is y else np.ones((len(x), len(y))))
            pieces.extend(split(xs, ys, x, y, pairs, solver))
    return sorted(pieces, key=lambda piece: -len(piece.pairs) if piece.compiled else 1)


def diagonal(xs: Collection, solver: Solver) -> list[Piece]:
    """The pairs of each chain with itself."""
    return [
        piece
        for group in _groups(xs)
        for piece in split(xs, xs, group, group, np.repeat(np.arange(len(group)), 2).reshape(-1, 2), solver)
    ]


def split(
    xs: Collection, ys: Collection, x: IntArray, y: IntArray, pairs: IntArray, solver: Solver
) -> list[Piece]:
    """Pairs of two groups as one piece for the compiled kernel, and one for each pair that is too large for it."""
    from markovot.transport.pairs import fits

    (entries_x, states_x), (entries_y, states_y) = _measures(xs, x), _measures(ys, y)
    a, b = pairs[:, 0], pairs[:, 1]
    small = fits(entries_x[a], entries_y[b], states_x[a], states_y[b]) & isinstance(solver, PolicyIteration)
    pieces = [Piece(x, y, pairs[small], True)] if small.any() else []
    for i, j in pairs[~small].tolist():
        pieces.append(Piece(x[i : i + 1], y[j : j + 1], np.zeros((1, 2), dtype=np.int64), False))
    return pieces


def _measures(xs: Collection, which: IntArray) -> tuple[IntArray, IntArray]:
    return (
        np.array([xs.chains[i].num_entries for i in which]),
        np.array([xs.chains[i].num_states for i in which]),
    )


def _groups(xs: Collection) -> list[IntArray]:
    """Consecutive chains, which are of like size, up to GROUP_ENTRIES entries together."""
    groups: list[list[int]] = []
    room = 0
    for number, chain in enumerate(xs.chains):
        if not groups or chain.num_entries > room:
            groups.append([])
            room = GROUP_ENTRIES
        groups[-1].append(number)
        room -= chain.num_entries
    return [np.array(group) for group in groups]


