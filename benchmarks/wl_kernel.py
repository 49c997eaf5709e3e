"""The Weisfeiler-Lehman subtree kernel (Shervashidze et al., JMLR 2011), written anew: a rival of the distances."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from markovot.datasets import GraphDataset

DEPTHS = (1, 2, 3, 4, 5)


def wl_kernels(dataset: GraphDataset, depths: Sequence[int] = DEPTHS) -> dict[str, np.ndarray]:
    """The normalised kernel at each depth: common subtree patterns, counted in rounds 0 to depth; 1 on the diagonal.

    Nodes start with their labels, or with their degrees where the set has none; edge labels play no part.
    """
    if dataset.feature_kind == "attributes":
        raise ValueError("the subtree kernel needs discrete labels; load the set with features='labels' or 'degree'")
    owner = np.repeat(np.arange(len(dataset)), [chain.num_states for chain in dataset.chains])
    _, labels = np.unique(np.concatenate([vectors(chain) for chain in dataset.chains]), axis=0, return_inverse=True)
    around = neighbours(dataset)
    kernel, found = histogram_kernel(labels, owner), {}
    for depth in range(1, max(depths) + 1):
        labels = refined(labels, around)
        kernel = kernel + histogram_kernel(labels, owner)
        if depth in depths:
            size = np.sqrt(np.diag(kernel))
            found[f"depth {depth}"] = kernel / size[:, None] / size[None]
    return found


def kernel_distance(kernel: np.ndarray) -> np.ndarray:
    """The distance in the kernel's feature space, for nearest neighbours."""
    own = np.diag(kernel)
    return np.sqrt(np.maximum(own[:, None] + own[None] - 2 * kernel, 0.0))


def vectors(chain) -> np.ndarray:
    return chain.features.numpy().reshape(chain.num_states, -1)


def neighbours(dataset: GraphDataset) -> list[list[int]]:
    """The neighbours of each node, all graphs numbered through; a self-loop makes a node its own neighbour."""
    starts = np.cumsum([0, *(chain.num_states for chain in dataset.chains)])
    around: list[list[int]] = [[] for _ in range(starts[-1])]
    for start, edges in zip(starts, dataset.edges, strict=False):
        for i, j in (edges + start).tolist():
            around[i].append(j)
            if i != j:
                around[j].append(i)
    return around


def refined(labels: np.ndarray, around: list[list[int]]) -> np.ndarray:
    """One round: equal new labels where the old label and the multiset of the neighbours' labels are equal."""
    old, codes = labels.tolist(), {}
    return np.array(
        [codes.setdefault((old[i], *sorted(old[j] for j in near)), len(codes)) for i, near in enumerate(around)]
    )


def histogram_kernel(labels: np.ndarray, owner: np.ndarray) -> np.ndarray:
    counts = csr_array((np.ones(len(labels)), (owner, labels)))  # repeated entries add up
    return (counts @ counts.T).toarray()
