r"""Bisimilarity: the coarsest partition of the states such that states of a class behave alike.

States s and t are bisimilar when, for every action a, their rewards are equal, and so are their chances to move into
each class:

    r_s^a = r_t^a,        sum over u in c of P_su^a = sum over u in c of P_tu^a      for every class c.

At epsilon = 0 and gamma > 0 these are the pairs at distance zero. All distances can be had from one state of each class
(`Quotient`): the cost of a transport problem then depends on classes alone, and so does its value, entropic or not.

Sums of floating point numbers are compared to within a tolerance. What that may cost is part of the certificate. Let
rewards within a class differ by at most p from those of one of its states, and rows by q in total variation. The
solution F on classes meets `|T(F) - F| <= 4 (1 - gamma) p + 4 gamma q range(F)` on states, and T is a contraction:

    |F - C*| <= 4 p + 4 gamma / (1 - gamma) q range(F).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from markovot._arrays import FloatArray, IntArray
from markovot.mdp.process import DecisionProcess


@dataclass(frozen=True, eq=False)
class Quotient:
    """A model on its classes: each class has the row and the reward of one of its states."""

    classes: IntArray  # (k,), in the numbering of the partition
    class_of: IntArray  # (n,), position in `classes`
    transition: tuple[Any, ...]  # csr_array (k, k) for each action
    reward: FloatArray  # (k, actions)


@dataclass(frozen=True, eq=False)
class Partition:
    """Classes of the states of one or two models."""

    labels: IntArray  # (n + m,)
    reward_error: float  # p, see above
    transition_error: float  # q


def partition(models: Sequence[DecisionProcess], *, tolerance: float, reward_tolerance: float) -> Partition:
    """The coarsest bisimulation on the states of all models together.

    Each round splits the classes by the chances to move into the classes of the round before, which takes one sparse
    product for each action. There are as many rounds as steps are needed to tell the last two states apart.

    Args:
        models: one or two, with the same number of actions.
        tolerance: among sorted probabilities, neighbours that differ by no more than this count as equal.
        reward_tolerance: the same for rewards.
    """
    rows = [_block(models, action) for action in range(models[0].num_actions)]
    reward = np.concatenate([model.reward.detach().double().numpy() for model in models])
    labels = _number([_levels(gain, reward_tolerance) for gain in reward.T])
    while True:
        sums = [matrix @ _membership(labels) for matrix in rows]
        finer = _number([labels, *(_signatures(part, tolerance) for part in sums)])
        if finer.max() == labels.max():
            break
        labels = finer
    first = np.unique(labels, return_index=True)[1][labels]
    apart = max(float(np.abs(part - part[first]).sum(axis=1).max()) for part in sums)
    return Partition(labels, float(np.abs(reward - reward[first]).max()), 0.5 * apart)


def quotient(model: DecisionProcess, labels: IntArray) -> Quotient:
    """A model on its classes, given the label of each state."""
    classes, first, class_of = np.unique(labels, return_index=True, return_inverse=True)
    class_of = class_of.reshape(-1)
    member = _membership(class_of)
    transition = tuple((_matrix(model, action)[first] @ member).tocsr() for action in range(model.num_actions))
    return Quotient(classes, class_of, transition, model.reward.detach().double().numpy()[first])


def _matrix(model: DecisionProcess, action: int) -> Any:
    """The positive entries of an action's rows, which sum to one in float64: csr_array (n, n)."""
    from scipy.sparse import csr_array

    rows = model.chains[action].rows()
    parts = rows.values.numpy(), rows.indices.numpy(), rows.indptr[0].numpy()
    return csr_array(parts, shape=(model.num_states, model.num_states))


def _block(models: Sequence[DecisionProcess], action: int) -> Any:
    from scipy.sparse import block_diag, csr_array

    return csr_array(block_diag([_matrix(model, action) for model in models], format="csr"))


def _membership(labels: IntArray) -> Any:
    """Which state lies in which class: csr_array (states, classes) of zeros and ones."""
    from scipy.sparse import csr_array

    size = labels.size
    return csr_array((np.ones(size), labels, np.arange(size + 1)), shape=(size, int(labels.max()) + 1))


def _levels(values: FloatArray, tolerance: float) -> IntArray:
    """Number the values so that neighbours in their order share a number unless they differ by more."""
    order = np.argsort(values, kind="stable")
    levels = np.empty(values.size, dtype=np.int64)
    levels[order] = np.concatenate([[0], np.cumsum(np.diff(values[order]) > tolerance)])
    return levels


def _signatures(sums: Any, tolerance: float) -> IntArray:
    """A number for each row; equal where rows move into the same classes with the same probabilities."""
    from scipy.sparse import csr_array

    entries = sums.tocoo()
    keep = entries.data > tolerance
    row, column, chance = entries.coords[0][keep], entries.coords[1][keep], entries.data[keep]
    order = np.lexsort((chance, column))
    new = (np.diff(column[order]) != 0) | (np.diff(chance[order]) > tolerance)
    level = np.empty(row.size, dtype=np.int64)
    level[order] = np.concatenate([[1], 1 + np.cumsum(new)])
    kinds = csr_array((level, (row, column)), shape=sums.shape)
    kinds.sort_indices()
    known: dict[bytes, int] = {}
    parts = (kinds.data[low:high].tobytes() for low, high in zip(kinds.indptr[:-1], kinds.indptr[1:], strict=True))
    return np.array([known.setdefault(part, len(known)) for part in parts])


def _number(columns: Sequence[NDArray[Any]]) -> IntArray:
    """Number the different rows of a table, given by its columns."""
    return np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)[1].reshape(-1)
