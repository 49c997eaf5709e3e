"""Ground costs: how different a state of one chain is from a state of the other.

A cost is a small callable object, `cost(fx, fy)`, of the features of two chains: (*batch, n, p) and (*batch,
m, p) give (*batch, n, m); a vector (n,) counts as (n, 1). Costs are not normalised: their range sets the
scale of `epsilon` and of the distance.

For labels: `ZeroOne`. For numbers and vectors: `Euclidean`, `SquaredEuclidean`, `AbsoluteDifference`. For what the
states of a hidden Markov model emit: `GaussianWasserstein`, `JensenShannon`. For everything else: `Given`, a matrix.
"""

from markovot.costs.emissions import GaussianWasserstein, JensenShannon
from markovot.costs.ground import (
    AbsoluteDifference,
    Cost,
    Euclidean,
    Given,
    SquaredEuclidean,
    ZeroOne,
    resolve_cost,
)

__all__ = [
    "AbsoluteDifference",
    "Cost",
    "Euclidean",
    "GaussianWasserstein",
    "Given",
    "JensenShannon",
    "SquaredEuclidean",
    "ZeroOne",
    "resolve_cost",
]
