"""The distances between chains (of infinite depth, of finite depth, at a random time), and between two laws."""

from markovot.distances.debiasing import debiased
from markovot.distances.discounted import discounted_wl
from markovot.distances.horizons import horizon_wl, wl
from markovot.distances.transport import transport_cost

__all__ = ["debiased", "discounted_wl", "horizon_wl", "transport_cost", "wl"]
