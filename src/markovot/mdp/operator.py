r"""The Bellman operator of two decision processes, and the certificate for its fixed point.

    T(C)_ij = max over a of  (1 - gamma) |r_i^a - r_j^a| + gamma OT_eps(P_i^a, P_j^a; C)

A maximum over actions keeps what the enclosure of `bellman.py` rests on: T is monotone, and `T(C + s) = T(C) + gamma s`
for constants s. At epsilon = 0, pairs of bisimilar states are pinned: T is set to 0 there, their distance. Then
`T(C + s) <= T(C) + gamma s` for s >= 0, and `>=` for s <= 0, so that with `w = gamma / (1 - gamma)`

    a <= T(C) - C <= b,   a <= 0 <= b     imply     T(C) + w a <= C* <= T(C) + w b     at the other pairs.

Most of the work can be saved. Where one of two rows leads to a single state (a deterministic step), there is only one
coupling, and the value is `(P^a C Q^a^T)_ij`: two sparse products serve all such pairs. The distances of a model to
itself are symmetric: only one half of the other problems is solved, tile by tile, and mirrored.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from markovot._arrays import IntArray
from markovot.mdp.refinement import Quotient
from markovot.transport.engines import Serving
from markovot.transport.forcing import LINEAR_STEPS
from markovot.transport.linear import Linear, bicgstab
from markovot.transport.rows import Rows

# States on one side of a tile. On Taxi in the rain (500 states) 128 and 512 took as long, to a tenth.
TILE = 256
# Values that differ by less than this share of the largest cost do not make an action better than another.
TIE = 32 * 2.0**-52
_FIRST = torch.zeros(1, dtype=torch.int64, device="cpu")
_ALL = torch.ones(1, dtype=torch.bool, device="cpu")  # engines take batches; ours have one item, always active


def one(value: float) -> Tensor:
    """A number as a batch of one item."""
    return torch.tensor([value], dtype=torch.float64, device="cpu")


class Tile:
    """The transport problems of some rows of X with some rows of Y, and the engine that keeps their plans."""

    def __init__(self, sides: tuple[Any, Any], parts: tuple[IntArray, IntArray], epsilon: float, spread: float) -> None:
        self._place = np.ix_(*parts)
        rows = _rows(sides[0], parts[0]), _rows(sides[1], parts[1])
        self._serving = Serving(rows, (_FIRST, _FIRST), one(epsilon), lambda: one(spread))

    def sweep(self, cost: Tensor, gap: Tensor, lower: Tensor, upper: Tensor) -> None:
        """Write certified bounds of the problems into `lower` and `upper`."""
        found = self._serving.run(lambda engine: engine.sweep(cost[None], gap, _ALL))
        self._write(found[0], lower)
        self._write(found[1], upper)

    def apply(self, v: Tensor, out: Tensor) -> None:
        """Write P v into `out`, with the plans of the last sweep."""
        self._write(self._serving.engine.apply(v[None], _ALL), out)

    def _write(self, values: Tensor, out: Tensor) -> None:
        rows, columns = self._place
        out.numpy()[self._place] = values[0, : rows.size, : columns.size].numpy()


class Action:
    """All transport problems of one action."""

    def __init__(self, x: Any, y: Any, epsilon: float, spread: float, symmetric: bool) -> None:
        self._x, self._y = x, y
        self._tiles = [Tile((x, y), parts, epsilon, spread) for parts in _parts(x, y, epsilon, symmetric)]
        # The rounding error of the two products, relative to the largest cost.
        self._rounding = 4 * 2.0**-52 * float(np.diff(x.indptr).max() + np.diff(y.indptr).max())

    def sweep(self, cost: Tensor, gap: Tensor) -> tuple[Tensor, Tensor]:
        """Lower and upper values of all problems (n, m), `gap` (1,) apart; valid at the same entries as `apply`."""
        value, slack = self._independent(cost), self._rounding * cost.abs().max()
        lower, upper = value - slack, value + slack
        for tile in self._tiles:
            tile.sweep(cost, gap, lower, upper)
        return lower, upper

    def apply(self, v: Tensor) -> Tensor:
        """P v, with the plans of the last sweep; for a model with itself, valid only on and above the diagonal."""
        out = self._independent(v)
        for tile in self._tiles:
            tile.apply(v, out)
        return out

    def _independent(self, v: Tensor) -> Tensor:
        """The expected v of the independent coupling, which is the only coupling where a row has one entry."""
        return torch.from_numpy(np.ascontiguousarray((self._y @ (self._x @ v.numpy()).T).T))


def _parts(x: Any, y: Any, epsilon: float, symmetric: bool) -> list[tuple[IntArray, IntArray]]:
    """Which rows of X are coupled with which rows of Y by a tile.

    Exact transport leaves out rows of one entry, and, for a model with itself, tiles below the diagonal. The engines of
    entropic transport are fastest on whole dense chains, so they get all rows.
    """
    if epsilon > 0:
        return [(np.arange(x.shape[0]), np.arange(y.shape[0]))]
    cuts = []
    for side in (x, y):
        several = np.flatnonzero(np.diff(side.indptr) > 1)
        cuts.append([several[k : k + TILE] for k in range(0, several.size, TILE)])
    return [(a, b) for p, a in enumerate(cuts[0]) for q, b in enumerate(cuts[1]) if q >= p or not symmetric]


def _rows(side: Any, part: IntArray) -> Rows:
    """Some rows of a matrix as the first rows of a chain of its size, whose other rows are empty."""
    chosen = side[part]
    pointers = np.full(side.shape[0] + 1, chosen.nnz, dtype=np.int64)
    pointers[: part.size + 1] = chosen.indptr
    return Rows(
        torch.tensor([part.size], device="cpu"),
        torch.from_numpy(pointers)[None],
        torch.from_numpy(chosen.indices.astype(np.int64)),
        torch.from_numpy(chosen.data),
    )


class Enclosure(NamedTuple):
    """The bounds `base + low <= C* <= base + high` at pairs that are not pinned, and the residual at C."""

    base: Tensor  # (n, m), a lower value of T(C)
    low: float
    high: float
    residual: Tensor  # (n, m), base - C
    values: list[Tensor]  # (n, m) each: lower values of the actions; base is their maximum

    @property
    def radius(self) -> float:
        """Half the width: the certified error of `centre`."""
        return 0.5 * (self.high - self.low)


@dataclass
class Operator:
    """The operator T for the classes of two models, or of one model with itself."""

    x: Quotient
    y: Quotient
    gamma: float
    epsilon: float

    @cached_property
    def pinned(self) -> Tensor:
        """Pairs whose distance is known to be zero, bool (n, m)."""
        same = torch.from_numpy(self.x.classes[:, None] == self.y.classes)
        return same if self.epsilon == 0 else torch.zeros_like(same)

    @cached_property
    def differences(self) -> list[Tensor]:
        """The differences of rewards for each action, (n, m)."""
        return [torch.from_numpy(np.abs(r[:, None] - s)) for r, s in zip(self.x.reward.T, self.y.reward.T, strict=True)]

    @cached_property
    def ground(self) -> Tensor:
        """The difference of rewards by the action in which it is largest, (n, m): the metric for gamma = 0."""
        return torch.stack(self.differences).amax(0)

    @cached_property
    def actions(self) -> list[Action]:
        """The transport problems of each action."""
        spread = float(self.ground.max() - self.ground.min())
        pairs = zip(self.x.transition, self.y.transition, strict=True)
        return [Action(p, q, self.epsilon, spread, symmetric=self.x is self.y) for p, q in pairs]

    def enclose(self, cost: Tensor, gap: float) -> Enclosure:
        """Apply T to `cost`, with bounds of the local values `gap` apart, and enclose the fixed point."""
        gamma, limit = self.gamma, one(gap)
        values, highest = [], torch.full_like(cost, -torch.inf)
        for action, difference in zip(self.actions, self.differences, strict=True):
            lower, upper = (self.mirror(bound) for bound in action.sweep(cost, limit))
            values.append((1 - gamma) * difference + gamma * lower)
            highest = torch.maximum(highest, (1 - gamma) * difference + gamma * upper)
        base = self.pin(torch.stack(values).amax(0))
        residual, weight = base - cost, gamma / (1 - gamma)
        width = float(self.pin(highest - base).max())
        low, high = weight * float(residual.min()), weight * (float(residual.max()) + width) + width
        return Enclosure(base, low, high, residual, values)

    def moves(self, v: Tensor) -> Iterator[Tensor]:
        """P^a v for each action, with the plans of the last sweep."""
        return (self.mirror(action.apply(v)) for action in self.actions)

    def mirror(self, values: Tensor) -> Tensor:
        """For a model with itself, copy the entries above the diagonal to those below."""
        return values.triu() + values.triu(1).T if self.x is self.y else values

    def pin(self, values: Tensor) -> Tensor:
        """The values, 0 at pairs whose distance is known to be zero."""
        return values.masked_fill(self.pinned, 0.0)

    def centre(self, found: Enclosure) -> Tensor:
        """The middle of the enclosure; no distance is negative."""
        return self.pin(found.base + 0.5 * (found.low + found.high)).clamp(min=0.0)

    def best(self, values: list[Tensor], size: float) -> Tensor:
        """The maximising action of each pair, int64 (n, m): the first of those that tie in costs up to `size`."""
        leader, best = values[0], torch.zeros_like(values[0], dtype=torch.int64)
        for number, value in enumerate(values[1:], start=1):
            better = value > leader + TIE * size
            leader, best = torch.where(better, value, leader), best.masked_fill(better, number)
        return best

    def solve(self, best: Tensor, rhs: Tensor, tolerance: float) -> Linear:
        """The x of `(I - gamma P) x = rhs`, where P has the plans of the actions `best`, and 0 at pinned pairs."""
        chosen = [(action, (best == number) & ~self.pinned) for number, action in enumerate(self.actions)]
        chosen = [(action, mine) for action, mine in chosen if bool(mine.any())]

        def product(v: Tensor, active: Tensor) -> Tensor:
            out = torch.zeros_like(rhs)
            for action, mine in chosen:
                out = torch.where(mine, action.apply(v[0]), out)
            return self.mirror(out)[None]

        wanted, discount = one(tolerance), one(1 - self.gamma)
        found = bicgstab(product, rhs[None], discount, wanted, _ALL, transpose=False, max_iter=LINEAR_STEPS)
        return Linear(found.x[0], found.residual[0])
