"""GraphDataset: chains, classes, and what is known about them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from markovot import validate
from markovot._arrays import IntArray
from markovot.chains import MarkovChain


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class GraphDataset:
    """Labelled graphs, each as the Markov chain of its random walk, with a class for each.

    Attributes that a set does not have are empty: `()`, `[]` or `""`.

    Attributes:
        name: the name of the set.
        chains: one chain per graph; `features` holds what is known of each node, see `feature_kind`.
        targets: the class of each graph.
        target_names: what each class means; the class itself as a string where the set does not say.
        feature_kind: what the chains' features are: "labels", integer codes, (n,) or, where a node has several, (n, p),
            to be compared with `costs.ZeroOne()`; "attributes", real vectors (n, p), with `costs.Euclidean()`; or
            "degree", the number of each node's neighbours, (n,), float64, with either.
        numbers: the number of each graph in the file, from 0; `subset` and skipped graphs leave gaps in it.
        label_names: the name of node label 0, 1, ...
        edges: for each graph, its edges (i, j), once each, in ascending order, shape (number of edges, 2); of an
            undirected set, i <= j.
        edge_labels: for each graph, the label (or, where an edge has several, labels) of each row of `edges`.
        edge_label_names: the name of edge label 0, 1, ...
        citation: what to cite when you use the set.
    """

    name: str
    chains: list[MarkovChain]
    targets: IntArray
    target_names: dict[int, str]
    feature_kind: str
    numbers: IntArray
    label_names: tuple[str, ...] = ()
    edges: list[IntArray] = field(default_factory=list)
    edge_labels: list[IntArray] = field(default_factory=list)
    edge_label_names: tuple[str, ...] = ()
    citation: str = ""

    def __len__(self) -> int:
        return len(self.chains)

    def __repr__(self) -> str:
        count, classes = len(self), len(np.unique(self.targets))
        nodes = sum(chain.num_states for chain in self.chains) / max(count, 1)
        graphs = f"{count} graph{'s' * (count != 1)} in {classes} class{'es' * (classes != 1)}"
        return f"GraphDataset({self.name}: {graphs}, {nodes:.1f} nodes each in the mean, features: {self.feature_kind})"

    def subset(self, indices: Sequence[int] | NDArray[Any]) -> "GraphDataset":
        """Some of the graphs, as a new set that shares their chains.

        Args:
            indices: which ones, in which order: positions from 0 (negative ones count from the end, and a position may
                occur twice), or an array of as many bools as there are graphs.

        Returns:
            The smaller set; its `numbers` say where each graph stands in the file.

        Raises:
            TypeError: positions that are not integers.
            ValueError: positions outside the set, bools of another number, or something not one-dimensional.

        Example:
            >>> from markovot.datasets import load_mutag
            >>> mutag = load_mutag()
            >>> mutag.subset(mutag.targets == 1)
            GraphDataset(MUTAG: 125 graphs in 1 class, 19.9 nodes each in the mean, features: labels)
            >>> mutag.subset([7, -1]).numbers.tolist()
            [7, 187]
        """
        chosen = _positions(indices, len(self))

        def of(items: list[Any]) -> list[Any]:
            return [items[i] for i in chosen] if items else []

        return replace(
            self,
            chains=of(self.chains),
            targets=self.targets[chosen],
            numbers=self.numbers[chosen],
            edges=of(self.edges),
            edge_labels=of(self.edge_labels),
        )


def _positions(indices: Any, count: int) -> IntArray:
    """Check positions or bools, and return them as positions within `count` graphs."""
    array = validate.array("indices", indices)
    if array.ndim != 1:
        raise ValueError(f"indices: shape {array.shape}. Give a sequence of positions, or one bool for each graph.")
    if array.dtype.kind == "b":
        if len(array) != count:
            raise ValueError(f"indices: {len(array)} bools for {count} graphs. Give one for each, or positions.")
        return np.flatnonzero(array)
    if len(array) and array.dtype.kind not in "iu":
        raise TypeError(f"indices: dtype {array.dtype}. Positions are integers; a choice is an array of bools.")
    array = array.astype(np.int64)
    outside = (array < -count) | (array >= count)
    if outside.any():
        raise ValueError(f"indices: {array[outside][0]}, but the set has {count} graphs, from 0 to {count - 1}.")
    return array
