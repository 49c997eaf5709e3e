"""All distances between the chains of a data set."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from markovot import adjoint, validate
from markovot.adjoint import Entries, Inputs
from markovot.chains import MarkovChain, as_chain
from markovot.costs import Cost
from markovot.fixed_point import PolicyIteration, Solver

# Pairs are solved in batches of about so many entries of cost: enough that calls from Python cost little, and not so
# many that torch would wake its own threads for elementwise operations, which then compete with ours.
BATCH_ENTRIES = 1 << 15


@dataclass(frozen=True, eq=False)
class PairwiseSolution:
    """A distance matrix with its certificates.

    Attributes:
        value: distances (k, k), in units of the cost; not differentiable.
        error_bound: certified error of each distance.
        status: a `Status` for each pair.
    """

    value: NDArray[np.float64]
    error_bound: NDArray[np.float64]
    status: NDArray[Any]


def distance_matrix(
    chains: Sequence[Any],
    *,
    cost: Cost,
    delta: float,
    epsilon: float,
    solver: Solver = PolicyIteration(),
    progress: bool = True,
) -> PairwiseSolution:
    """The distances between all pairs of chains, `discounted_wl` of each.

    Args:
        chains: chains of any sizes, or what `as_chain` accepts, with features for the cost; on the CPU.
        cost: an object of `markovot.costs`, symmetric in its two arguments.
        delta: as in `discounted_wl`.
        epsilon: as in `discounted_wl`. With entropy the distance of a chain to itself is above zero; the diagonal shows
            it.
        solver: as in `discounted_wl`.
        progress: show a progress bar.

    Returns:
        A `PairwiseSolution`; pairs that did not converge keep their value, bound and status.

    Raises:
        TypeError: something that is not a chain, chains of different dtypes.
        ValueError: no chains, chains without features or on another device, or what `discounted_wl` raises for bad
            input.

    Note:
        Not differentiable: for gradients, call `discounted_wl` on the pairs that matter. Each pair is solved once, in
        batches of pairs of like size, in float64; deterministic. Memory: one batch at a time, of about 30000 entries
        of cost, and its plans.

    References:
        As `discounted_wl`.

    Example:
        >>> import markovot, networkx
        >>> from markovot.pairwise import distance_matrix
        >>> rings = [markovot.MarkovChain.from_networkx(networkx.cycle_graph(n), features={k: k % 2 for k in range(n)})
        ...          for n in (3, 4, 5)]
        >>> found = distance_matrix(rings, cost=markovot.costs.ZeroOne(), delta=0.2, epsilon=0.01, progress=False)
        >>> found.value.round(2)
        array([[0.02, 0.39, 0.17],
               [0.39, 0.01, 0.29],
               [0.17, 0.29, 0.03]])
    """
    stack = MarkovChain.stack([as_chain(chain) for chain in chains])
    if stack.device.type != "cpu":
        raise ValueError(
            f"chains: they are on {stack.device}; distance_matrix works on the CPU. Move them with .to('cpu')."
        )
    deltas = validate.discount(delta, dtype=torch.float64, device=stack.device)
    epsilons = validate.regularisation(epsilon, dtype=torch.float64, device=stack.device)
    first, second = _ordered_pairs(stack.sizes.numpy())
    num = len(stack.sizes)
    value, bound = np.zeros((num, num)), np.zeros((num, num))
    status = np.empty((num, num), dtype=object)
    with torch.no_grad():
        for part in _batches(first, second, stack, progress):
            i, j = first[part], second[part]
            solved = _solve(stack, i, j, cost, deltas, epsilons, solver)
            for array, found in (
                (value, solved.outer.value.numpy()),
                (bound, solved.error_bound.numpy()),
                (status, np.array(solved.fixed_point.status, dtype=object)),
            ):
                array[i, j] = found
                array[j, i] = found
    return PairwiseSolution(value, bound, status)


def _ordered_pairs(sizes: Any) -> tuple[Any, Any]:
    """Pairs i <= j, those of like size together, so that batches need little padding."""
    first, second = np.triu_indices(len(sizes))
    large, small = np.maximum(sizes[first], sizes[second]), np.minimum(sizes[first], sizes[second])
    order = np.lexsort((small, large))
    return first[order], second[order]


def _batches(first: Any, second: Any, stack: MarkovChain, progress: bool) -> Iterator[slice]:
    from tqdm.auto import tqdm

    length = max(1, BATCH_ENTRIES // stack.num_states**2)
    with tqdm(total=len(first), unit="pair", disable=not progress) as bar:
        for start in range(0, len(first), length):
            part = slice(start, min(start + length, len(first)))
            yield part
            bar.update(part.stop - start)


def _solve(
    stack: MarkovChain, i: Any, j: Any, cost: Cost, delta: Tensor, epsilon: Tensor, solver: Solver
) -> adjoint.Solved:
    """The pairs (i, j) of the stack's chains, as one batch."""
    pair_x, pair_y = torch.from_numpy(i), torch.from_numpy(j)
    mask = stack.mask[pair_x, :, None] & stack.mask[pair_y, None, :]
    ground = torch.where(mask, cost(_vectors(stack, pair_x), _vectors(stack, pair_y)).double(), 0.0)
    laws = validate.normalised(stack.initial)
    inputs = Inputs(
        ground, stack.parameter, stack.parameter, laws[pair_x], laws[pair_y],
        delta.expand(len(i)).contiguous(), epsilon.expand(len(i)).contiguous(),
    )  # fmt: skip
    entries = Entries(None, stack.mask)
    problem = adjoint.Problem(inputs, (stack.rows(), stack.rows()), (pair_x, pair_y), (entries, entries), mask)
    return adjoint.solve(problem, solver)


def _vectors(stack: MarkovChain, which: Tensor) -> Tensor:
    """Features of the chains of a batch, as vectors."""
    if stack.features is None:
        raise ValueError(
            "cost: it compares features, but the chains have none. Give them to MarkovChain.from_...(features=...)."
        )
    features = stack.features[which]
    return features if features.ndim == 3 else features.unsqueeze(-1)
