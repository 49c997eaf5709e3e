"""All distances within a data set, for several settings, with the cost that suits its nodes."""

import copy
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike

from markovot import validate
from markovot._arrays import FloatArray
from markovot.analysis.similarity import as_matrix, check_square
from markovot.chains import MarkovChain
from markovot.costs import Cost, Euclidean, ZeroOne

if TYPE_CHECKING:
    from markovot.datasets import GraphDataset
    from markovot.pairwise import PairwiseSolution

DELTAS = (0.1, 0.2, 0.5)
EPSILONS = (0.01,)

# The mean distance between nodes is taken over so many nodes: a matrix of 32 MB, and a mean exact to about 1 %.
_SAMPLE = 2000


class Setting(NamedTuple):
    """The settings of a distance matrix; `epsilon` is in the unit that `ground` states."""

    delta: float
    epsilon: float


class Ground(NamedTuple):
    """What is compared: chains, the cost between their states, and the unit of epsilon."""

    chains: list[MarkovChain]
    cost: Cost
    unit: float


def ground(dataset: "GraphDataset", *, standardise: bool = True) -> Ground:
    """The ground cost between the nodes of a data set, chosen by the kind of their features; classes are not used.

    Labels and degrees: 0 where they are equal, else 1, and epsilon is in this unit. Attributes: the Euclidean distance
    after each component was given mean 0 and variance 1 over all nodes of the set, since components differ in units;
    epsilon is in units of the mean cost between two nodes of the set, of whatever graphs.

    Args:
        dataset: graphs with features, as from `markovot.datasets.load_tudataset`.
        standardise: whether attributes are standardised. False leaves them as they are, as Brugère, Wan and Wang do.

    Returns:
        The chains (with new features where they are standardised), the cost, and the unit of epsilon.

    Raises:
        ValueError: a `feature_kind` that is not known.

    Example:
        >>> from markovot.datasets import load_mutag
        >>> ground(load_mutag())[1:]
        (ZeroOne(), 1.0)
    """
    standardise = validate.flag("standardise", standardise)
    check_dataset(dataset)
    validate.choice("feature_kind", dataset.feature_kind, ("labels", "attributes", "degree"))
    if dataset.feature_kind != "attributes":
        return Ground(list(dataset.chains), ZeroOne(), 1.0)
    parts = [_vectors(chain).double() for chain in dataset.chains]
    nodes = torch.cat(parts)
    if standardise:
        centre, spread = nodes.mean(0), nodes.std(0, correction=0)
        spread = torch.where(spread > 0, spread, 1.0)  # a constant component makes no difference, whatever its unit
        parts = [(part - centre) / spread for part in parts]
        nodes = torch.cat(parts)
    chains = [_with_features(chain, part) for chain, part in zip(dataset.chains, parts, strict=True)]
    return Ground(chains, Euclidean(), _mean_cost(nodes))


def check_dataset(dataset: Any) -> None:
    """Refuse objects that are no data set; an object of any class with the same attributes is accepted."""
    missing = [name for name in ("chains", "targets", "feature_kind", "name") if not hasattr(dataset, name)]
    if missing:
        raise TypeError(
            f"dataset: expected a GraphDataset, as from datasets.load_tudataset, got {validate.kind(dataset)}, which "
            f"has no {missing[0]}."
        )


def _vectors(chain: MarkovChain) -> torch.Tensor:
    assert chain.features is not None
    return chain.features if chain.features.dim() > 1 else chain.features[:, None]


def _with_features(chain: MarkovChain, features: torch.Tensor) -> MarkovChain:
    other = copy.copy(chain)
    other.features = features
    return other


def _mean_cost(nodes: torch.Tensor) -> float:
    if len(nodes) > _SAMPLE:
        nodes = nodes[np.random.default_rng(0).choice(len(nodes), _SAMPLE, replace=False)]
    return float(Euclidean()(nodes, nodes).mean()) or 1.0


def distance_matrices(
    dataset: "GraphDataset",
    *,
    deltas: Sequence[float] = DELTAS,
    epsilons: Sequence[float] = EPSILONS,
    standardise: bool = True,
    rtol: float = 1e-4,
    max_iter: int = 100,
    executor: Any = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
    throw: bool = True,
) -> "dict[Setting, PairwiseSolution]":
    """All distances within a data set, for every delta with every epsilon.

    Args:
        dataset: graphs with features, as from `markovot.datasets.load_tudataset`.
        deltas: in (0, 1]. The defaults look about 10, 5 and 2 steps far.
        epsilons: >= 0, in the units that `ground` states: those of the cost for labels and degrees, the mean cost for
            attributes.
        standardise: as in `ground`.
        rtol: wanted certified error, as in `distance_matrix`.
        max_iter: the most sweeps of a solve, as in `distance_matrix`.
        executor: as in `distance_matrix`.
        checkpoint: a folder, made if need be, for a checkpoint of `distance_matrix` for each setting. Default: none.
        progress: show a progress bar for each setting.
        throw: as in `distance_matrix`.

    Returns:
        The solutions by setting, deltas first. Their diagonals are the distances d(X, X) > 0 that entropy leaves.

    Raises:
        ValueError: no deltas or no epsilons, or what `distance_matrix` raises.

    Example:
        >>> from markovot.datasets import load_mutag
        >>> found = distance_matrices(load_mutag().subset(range(3)), deltas=[0.2], progress=False)
        >>> found[0.2, 0.01].value.round(2)
        array([[0.04, 0.15, 0.15],
               [0.15, 0.06, 0.09],
               [0.15, 0.09, 0.06]])
    """
    from markovot.pairwise import distance_matrix

    for name, given, high in (("deltas", deltas, 1.0), ("epsilons", epsilons, np.inf)):
        if not len(validate.sequence(name, given, "numbers")):
            raise ValueError(f"{name}: there is nothing to try. Give at least one.")
        for value in given:
            validate.number(name, value, 0.0, high, open_at_low=name == "deltas")
    if checkpoint is not None:
        validate.path("checkpoint", checkpoint)
    chains, cost, unit = ground(dataset, standardise=standardise)
    found = {}
    for delta, epsilon in product(deltas, epsilons):
        path = None
        if checkpoint is not None:
            Path(checkpoint).mkdir(parents=True, exist_ok=True)
            path = Path(checkpoint) / f"{dataset.name}-delta-{float(delta)!r}-epsilon-{float(epsilon)!r}.checkpoint"
        found[Setting(delta, epsilon)] = distance_matrix(
            chains, cost=cost, delta=delta, epsilon=epsilon * unit, rtol=rtol, max_iter=max_iter,
            executor=executor, checkpoint=path, progress=progress, throw=throw,
        )  # fmt: skip
    return found


def debias(distances: ArrayLike) -> FloatArray:
    """The debiased distances d(X, Y) - d(X, X)/2 - d(Y, Y)/2, from the matrix of all distances.

    Args:
        distances: (k, k), with the diagonal that entropy leaves.

    Returns:
        (k, k), with a diagonal of zeros. Other entries may fall below zero, by no more than the certified errors as a
        rule.

    Example:
        >>> debias([[0.2, 0.5], [0.5, 0.4]])
        array([[0. , 0.2],
               [0.2, 0. ]])
    """
    values = as_matrix("distances", distances)
    check_square("distances", values)
    own = np.diag(values) / 2
    return values - own[:, None] - own[None, :]
