"""Functions that all converters share: the matrix of an edge list, and the steps and names of a single chain."""

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from markovot._arrays import IntArray
from markovot.chains import MarkovChain

if TYPE_CHECKING:
    from scipy.sparse import csr_array



def adjacency_of(sources: Any, targets: Any, weights: Any, num_nodes: int, *, directed: bool) -> "csr_array":
    """Weights of an edge list, under the rules of chains/build.py.

    Parallel edges are summed; an undirected edge can be walked both ways; a self-loop counts once; edges of weight zero
    are left out.
    """
    from scipy.sparse import coo_array

    if not directed:
        other = sources != targets
        sources, targets = np.concatenate([sources, targets[other]]), np.concatenate([targets, sources[other]])
        weights = np.concatenate([weights, weights[other]])
    adjacency = coo_array((weights, (sources, targets)), shape=(num_nodes, num_nodes)).tocsr()  # sums parallel edges
    adjacency.eliminate_zeros()
    return adjacency


def stands_both_ways(sources: IntArray, targets: IntArray) -> tuple[int, int] | None:
    """The places of two edges that lead from one node to another and back; None if there are none.

    Such a list is never accepted as an undirected graph: an edge that is listed both ways would be walked both ways
    twice, and so count double compared with a self-loop.
    """
    n = int(max(sources.max(initial=0), targets.max(initial=0))) + 1
    there, back = sources * n + targets, targets * n + sources
    both = (sources != targets) & np.isin(there, back)
    if not both.any():
        return None
    first = int(both.argmax())
    return first, int((there == back[first]).argmax())


def sparse_tensor(index: Tensor, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A sparse COO tensor whose indices are known to be in range; differentiable in the values."""
    # torch's own check wakes all threads, for any size: up to 30 ms on a busy machine.
    return torch.sparse_coo_tensor(index, values, shape, device=values.device, check_invariants=False)


class Steps(NamedTuple):
    """The possible steps of a single chain, those of positive probability."""

    sources: Tensor
    targets: Tensor
    probabilities: Tensor  # still part of the chain's graph


def steps_of(chain: MarkovChain, what: str) -> Steps:
    """The steps of a single chain, ordered by source, then target."""
    check_single(chain, what)
    if chain.is_sparse:
        keep = (chain.values.detach() > 0).nonzero()[:, 0]
        return Steps(chain.compressed.owner()[keep], chain.indices[keep], chain.values[keep])
    sources, targets = (chain.transition.detach() > 0).nonzero(as_tuple=True)
    return Steps(sources, targets, chain.transition[sources, targets])


def check_single(chain: Any, what: str) -> None:
    """Refuse batches, and objects that are no chain."""
    if not isinstance(chain, MarkovChain):
        raise TypeError(f"chain: {what} takes a MarkovChain, got {type(chain).__name__}. as_chain converts.")
    if chain.batch_shape:
        raise ValueError(
            f"chain: {what} takes a single chain, got a batch of shape {tuple(chain.batch_shape)}. Take its items, "
            f"one by one: [{what}(chain[k]) for k in range(len(chain))]."
        )


def names_of(chain: MarkovChain, what: str) -> list[Any]:
    """The names of a single chain's states, which must differ; the numbers of the states if it has no names."""
    if chain.state_names is None:
        return list(range(chain.num_states))
    twice = [name for name, count in Counter(chain.state_names).items() if count > 1]
    if twice:
        raise ValueError(
            f"chain: {what} names nodes after states, but {twice[0]!r} is the name of "
            f"{chain.state_names.count(twice[0])} states. Give the chain state_names that differ."
        )
    return list(chain.state_names)
