"""Cut the pairs of a data set into blocks: the same ones on every machine, so that a run can be resumed."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from markovot._arrays import IntArray
from markovot.pairwise.blocks import Block
from markovot.pairwise.collection import Collection

# Chains form groups of about so many stored entries; a block holds the pairs of two groups. With 1024 a block takes a
# tenth to a quarter of a second, and the calls from Python take one per cent of that.
GROUP_ENTRIES = 1024


class Piece(NamedTuple):
    """A block before its chains are packed in; a million of them must be small."""

    x: IntArray  # which chains of the first collection
    y: IntArray  # and of the second
    listed: IntArray | None  # the pairs (q, 2), positions in x and y; None: all (each once if x is y)
    compiled: bool

    @property
    def num_pairs(self) -> int:
        """How many pairs."""
        if self.listed is not None:
            return len(self.listed)
        return len(self.x) * (len(self.x) + 1) // 2 if self.x is self.y else len(self.x) * len(self.y)

    @property
    def pairs(self) -> IntArray:
        """The pairs (q, 2), positions in x and y."""
        if self.listed is not None:
            return self.listed
        if self.x is self.y:
            return np.stack(np.triu_indices(len(self.x)), axis=1)
        return np.argwhere(np.ones((len(self.x), len(self.y)), dtype=bool))

    @property
    def rows(self) -> IntArray:
        """For each pair, the chain of the first collection."""
        return self.x[self.pairs[:, 0]]

    @property
    def columns(self) -> IntArray:
        """For each pair, the chain of the second collection."""
        return self.y[self.pairs[:, 1]]

    def block(self, xs: Collection, ys: Collection) -> Block:
        """The block with its chains, ready to be sent."""
        first = [xs.chains[i] for i in self.x]
        return Block(first, None if self.x is self.y else [ys.chains[j] for j in self.y], self.pairs, self.compiled)


def tiles(xs: Collection, ys: Collection) -> list[Piece]:
    """All pairs of two collections, or, where they are the same object, all pairs i <= j of it.

    The largest compiled blocks come first, so that the last ones are short and no thread waits long for another; then
    the pairs that the engines solve one by one.
    """
    groups_x = _groups(xs)
    groups_y = groups_x if xs is ys else _groups(ys)
    pieces: list[Piece] = []
    for p, x in enumerate(groups_x):
        for y in groups_x[p:] if xs is ys else groups_y:
            whole = Piece(x, y, None, True)
            # chains of a group are in the order of their sizes: the last ones are the largest
            largest = _fitting(xs, ys, x[-1:], y[-1:], np.zeros((1, 2), dtype=np.int64))
            pieces += [whole] if largest.all() else split(xs, ys, x, y, whole.pairs)
    return sorted(pieces, key=lambda piece: -piece.num_pairs if piece.compiled else 1)


def diagonal(xs: Collection) -> list[Piece]:
    """The pairs of each chain with itself."""
    return [
        piece
        for group in _groups(xs)
        for piece in split(xs, xs, group, group, np.repeat(np.arange(len(group)), 2).reshape(-1, 2))
    ]


def split(xs: Collection, ys: Collection, x: IntArray, y: IntArray, pairs: IntArray) -> list[Piece]:
    """Pairs of two groups as one piece for the compiled kernel, and one for each pair that is too large for it."""
    small = _fitting(xs, ys, x, y, pairs)
    pieces = [Piece(x, y, pairs[small], True)] if small.any() else []
    for i, j in pairs[~small].tolist():
        pieces.append(Piece(x[i : i + 1], y[j : j + 1], np.zeros((1, 2), dtype=np.int64), False))
    return pieces


def _fitting(xs: Collection, ys: Collection, x: IntArray, y: IntArray, pairs: IntArray) -> NDArray[np.bool_]:
    """Which pairs the compiled kernel takes."""
    from markovot.transport.compiled.pairs import fits

    (entries_x, states_x), (entries_y, states_y) = (
        np.array([(chains[i].num_entries, chains[i].num_states) for i in which]).T
        for chains, which in ((xs.chains, x), (ys.chains, y))
    )
    a, b = pairs[:, 0], pairs[:, 1]
    return np.asarray(fits(entries_x[a], entries_y[b], states_x[a], states_y[b]))


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
