"""The units of costs, and the interval that contains every distance.

A distance of costs `s D` with regularisation `s epsilon` is s times that of D with epsilon. Products of residuals would
leave the range of floating point numbers where costs are of the order of 1e-200 or 1e200. So such costs are divided
by a power of two, which does not round them, and the results are multiplied by it.

Where epsilon is far above the range R of the costs, plans are all but independent. The value at an epsilon above
`LARGEST_EPSILON R` lies between the value at this one and the cost of the independent coupling, which are no more than
`R / (8 LARGEST_EPSILON)` apart (Hoeffding's lemma). Logarithms are rounded by a share of epsilon, so a larger epsilon
is replaced by this one. Engines allow for rounding by `ROUND_OFF` of the costs and twice as much of epsilon, which
covers both errors.

A distance lies between the least and the largest ground cost, for every epsilon: KL is not negative, and zero for the
independent coupling. Two copies of one chain can move together: then d is the least cost, where epsilon is 0 and each
state has that cost to itself.
"""

from typing import NamedTuple

import torch
from torch import Tensor

# Costs whose range lies between 2^-256 and 2^256 are left as they are.
SAFE_EXPONENT = 256
# Beyond 2^-1000 and 2^1000, factors would overflow themselves.
MOST_EXPONENT = 1000
LARGEST_EPSILON = 1e7
ROUND_OFF = 8 * 2.0**-52


class Unit(NamedTuple):
    """The unit in which the numbers of each item are measured."""

    size: Tensor | None = None  # (P,), None: all are one

    def outside(self, values: Tensor) -> Tensor:
        """Values of the items (P, *) in the unit of the costs as the user gave them; differentiable."""
        return values if self.size is None else values * self.size.view(-1, *(1,) * (values.dim() - 1))

    @property
    def is_one(self) -> bool:
        """Whether the solver uses the unit of the user's costs."""
        return self.size is None


class Measured(NamedTuple):
    """Costs and epsilon of each item in its own unit, and that unit."""

    ground: Tensor  # (P, n, m)
    epsilon: Tensor  # (P,)
    unit: Unit


def power_of_two(size: Tensor) -> Tensor:
    """The power of two at or below each positive number, float64."""
    exponent = torch.frexp(size).exponent - 1
    return torch.exp2(exponent.clamp(-MOST_EXPONENT, MOST_EXPONENT).double())


def measure(ground: Tensor, epsilon: Tensor, limits: tuple[Tensor, Tensor], *, bounded: bool = True) -> Measured:
    """Choose the unit of each item.

    Args:
        ground: costs (P, n, m), float64.
        epsilon: (P,).
        limits: the least and the largest cost of each item, (P,).
        bounded: whether the costs of all transport problems stay within the limits, so that a large epsilon may be
            replaced.
    """
    low, high = limits
    spread, largest = high - low, LARGEST_EPSILON if bounded else 2.0**MOST_EXPONENT
    ordinary = (spread >= 2.0**-SAFE_EXPONENT) & (spread <= 2.0**SAFE_EXPONENT) & (epsilon.detach() <= largest * spread)
    if bool(ordinary.all()):
        return Measured(ground, epsilon, Unit())
    # Where the range overflows, twice the largest cost bounds it.
    base = torch.where((spread > 0) & spread.isfinite(), spread, torch.maximum(low.abs(), high.abs()))
    base = torch.where((base > 0) & base.isfinite(), base, 1.0)
    extreme = (base < 2.0**-SAFE_EXPONENT) | (base > 2.0**SAFE_EXPONENT)
    unit = torch.where(extreme, power_of_two(base), 1.0) if bool(extreme.any()) else None
    size = 1.0 if unit is None else unit
    # Where the cost is constant, epsilon does not matter, since the independent coupling is optimal.
    own = base / size
    most = torch.where(spread > 0, largest * own, own)
    scaled = ground if unit is None else ground / unit[:, None, None]
    return Measured(scaled, torch.minimum(epsilon / size, most), Unit(unit))


def confined(value: Tensor, bound: Tensor, limits: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Cut the interval `value +- bound` to the limits. Returns its middle, and half its width."""
    low, high = limits
    below, above = value - bound, value + bound
    kept = (below >= low) & (above <= high)
    if bool(kept.all()):
        return value, bound
    kept = kept | ~bound.isfinite()
    below, above = (torch.minimum(torch.maximum(end, low), high) for end in (below, above))
    return torch.where(kept, value, 0.5 * (below + above)), torch.where(kept, bound, 0.5 * (above - below))
