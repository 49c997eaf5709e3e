"""The Bellman operator of a pair of chains, and the certificate for its fixed point.

    T(C)_ij = delta D_ij + (1 - delta) OT_eps(A_i, B_j; C),        C* = T(C*)

T is monotone and `T(C + s) = T(C) + (1 - delta) s` for constants s. Hence (MacQueen), with `w = (1 - delta) / delta`,

    a <= T(C) - C <= b    implies    T(C) + w a <= C* <= T(C) + w b.

If T(C) itself is only known to lie in [lower, upper], the same holds with `a = min(lower - C)`, `b = max(upper - C)`.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from markovot.transport.engine import Engine


class Enclosure(NamedTuple):
    """The bounds `base + low <= C* <= base + high` of each item, and the residual `T(C) - C`."""

    base: Tensor  # (P, n, m), a lower value of T(C)
    low: Tensor  # (P,)
    high: Tensor  # (P,)
    residual: Tensor  # (P, n, m)
    local: Tensor  # (P, n, m), lower values of the local problems

    @property
    def radius(self) -> Tensor:
        """Half the width: the certified error of `centre` in the maximum norm, (P,)."""
        return 0.5 * (self.high - self.low)

    @property
    def centre(self) -> Tensor:
        """The middle of the enclosure (P, n, m)."""
        return self.base + (0.5 * (self.high + self.low))[:, None, None]


@dataclass(frozen=True)
class Bellman:
    """The operator T for P pairs: engine, ground cost, discount, and a mask of the pairs of real states."""

    engine: Engine
    ground: Tensor  # (P, n, m)
    discount: Tensor  # (P,)
    mask: Tensor | None  # bool (P, n, m); None: all

    @cached_property
    def limits(self) -> tuple[Tensor, Tensor]:
        """The least and the largest cost of each item, (P,); every distance lies between them."""
        return cost_limits(self.ground, self.mask)

    @cached_property
    def spread(self) -> Tensor:
        """The range of the cost, (P,)."""
        low, high = self.limits
        return high - low

    def enclose(self, cost: Tensor, gap: Tensor, active: Tensor) -> Enclosure:
        """Apply T to `cost`, with bounds of the local values `gap` apart, and enclose the fixed point."""
        lower, upper = self.engine.sweep(cost, gap, active)
        delta = self.discount[:, None, None]
        base = delta * self.ground + (1 - delta) * lower
        spread = (1 - self.discount) * (upper - lower).flatten(1).amax(1)
        residual = base - cost
        if self.mask is not None:
            residual = residual * self.mask
        weight = (1 - self.discount) / self.discount
        low = weight * _smallest(residual, self.mask)
        high = weight * (_largest(residual, self.mask) + spread) + spread
        return Enclosure(base, low, high, residual, lower)


def _largest(values: Tensor, mask: Tensor | None) -> Tensor:
    """The maximum over the real entries, (P,)."""
    if mask is not None:
        values = values.masked_fill(~mask, -torch.inf)
    return values.flatten(1).amax(1)


def _smallest(values: Tensor, mask: Tensor | None) -> Tensor:
    return -_largest(-values, mask)


def cost_limits(ground: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """The least and the largest of a cost's real entries, (P,) each."""
    if mask is None:
        return torch.aminmax(ground.flatten(1), dim=1)
    return _smallest(ground, mask), _largest(ground, mask)


def within(cost: Tensor, limits: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
    """Costs to go (P, n, m), clipped to the limits (P,) of the true ones, and set to zero at padding."""
    low, high = (limit[:, None, None] for limit in limits)
    inside = cost.clamp(low, high)
    return inside if mask is None else inside * mask


def cost_range(ground: Tensor, mask: Tensor | None) -> Tensor:
    """The range of a cost over its real entries, (P,)."""
    low, high = cost_limits(ground, mask)
    return high - low


def tolerance(spread: Tensor, rtol: float) -> Tensor:
    """What `rtol` means in units of the cost, (P,): relative to its range, or to one where that is zero."""
    return rtol * torch.where(spread > 0, spread, 1.0)
