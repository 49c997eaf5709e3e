"""Graphs that ship with the package, as Markov chains ready to be compared."""

import io
import zipfile
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from markovot.chains import MarkovChain

if TYPE_CHECKING:
    from scipy.sparse import csr_array

IntArray = NDArray[np.int64]

_CITATION = (
    "A. K. Debnath, R. L. Lopez de Compadre, G. Debnath, A. J. Shusterman, C. Hansch. Structure-activity "
    "relationship of mutagenic aromatic and heteroaromatic nitro compounds. J. Med. Chem. 34(2), 1991. "
    "C. Morris, N. M. Kriege, F. Bause, K. Kersting, P. Mutzel, M. Neumann. TUDataset: A collection of "
    "benchmark datasets for learning with graphs. ICML 2020 workshop GRL+, arXiv 2007.08663."
)


@dataclass(frozen=True, eq=False)
class GraphDataset:
    """Labelled graphs, each as the Markov chain of its random walk, with a class for each.

    Attributes:
        name: The name of the set.
        chains: One chain per graph; `features` holds the integer label of each node.
        targets: The class of each graph.
        target_names: What each class means.
        label_names: The name of node label 0, 1, ...
        edges: For each graph, its undirected edges (i, j) with i <= j, once each; shape (number of edges, 2).
        edge_labels: For each graph, the label of each row of `edges`.
        edge_label_names: The name of edge label 0, 1, ...
        citation: What to cite when you use the set.
    """

    name: str
    chains: list[MarkovChain]
    targets: IntArray
    target_names: dict[int, str]
    label_names: tuple[str, ...]
    edges: list[IntArray]
    edge_labels: list[IntArray]
    edge_label_names: tuple[str, ...]
    citation: str

    def __len__(self) -> int:
        return len(self.chains)


@dataclass(frozen=True, eq=False)
class _RawGraph:
    """One graph of a TUDataset file; `arcs` are its directed edges, nodes numbered within the graph."""

    arcs: IntArray
    arc_labels: IntArray
    node_labels: IntArray

    def undirected(self) -> tuple[IntArray, IntArray]:
        keep = self.arcs[:, 0] <= self.arcs[:, 1]
        return self.arcs[keep], self.arc_labels[keep]

    def adjacency(self) -> "csr_array":
        from scipy.sparse import csr_array

        num_nodes = len(self.node_labels)
        entries = (np.ones(len(self.arcs)), (self.arcs[:, 0], self.arcs[:, 1]))
        return csr_array(entries, shape=(num_nodes, num_nodes))


def load_mutag(*, laziness: float = 0.1) -> GraphDataset:
    """Load MUTAG: 188 molecules, 125 of them mutagenic.

    A walker on the molecule stays on its atom with probability `laziness`, and otherwise moves along a bond
    chosen uniformly. The walk starts at an atom chosen uniformly. Bond types play no part in the chain; they
    are kept in `edge_labels`. The data ship with the package: nothing is downloaded.

    Args:
        laziness: The probability of staying, in [0, 1). Some is wise: without it, a walk on a molecule with
            rings of even size never forgets whether the number of its steps is even.

    Returns:
        The set: sparse float64 chains with a uniform initial law, whose features are the atoms as integers (0
        to 6 for C, N, O, F, I, Cl, Br), and targets 1 (mutagenic) and -1.

    Raises:
        ValueError: If `laziness` is not in [0, 1).

    References:
        Debnath et al., Journal of Medicinal Chemistry 34(2), 1991; Morris et al., arXiv 2007.08663.

    Example:
        >>> mutag = load_mutag()
        >>> len(mutag), mutag.chains[0].num_states, mutag.target_names[int(mutag.targets[0])]
        (188, 17, 'mutagenic')
        >>> [mutag.label_names[label] for label in mutag.chains[0].features.unique()]
        ['C', 'N', 'O']
    """
    graphs, targets = _read_packaged("MUTAG")
    chains = [
        MarkovChain.from_adjacency(
            graph.adjacency(),
            laziness=laziness,
            initial="uniform",
            features=torch.from_numpy(graph.node_labels),
        )
        for graph in graphs
    ]
    undirected = [graph.undirected() for graph in graphs]
    return GraphDataset(
        name="MUTAG",
        chains=chains,
        targets=targets,
        target_names={1: "mutagenic", -1: "not mutagenic"},
        label_names=("C", "N", "O", "F", "I", "Cl", "Br"),
        edges=[edges for edges, _ in undirected],
        edge_labels=[labels for _, labels in undirected],
        edge_label_names=("aromatic", "single", "double", "triple"),
        citation=_CITATION,
    )


def _read_packaged(name: str) -> tuple[list[_RawGraph], IntArray]:
    """Read a set in the TUDataset text layout from the package's data folder: graphs, and their classes."""
    packed = (resources.files("markovot") / "data" / f"{name}.zip").read_bytes()
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:

        def table(part: str) -> IntArray:
            text = archive.read(f"{name}/{name}_{part}.txt").decode()
            return np.array(text.replace(",", " ").split(), dtype=np.int64)

        arcs = table("A").reshape(-1, 2) - 1  # the files count from one
        arc_labels = table("edge_labels")
        graph_of_node = table("graph_indicator") - 1
        node_labels = table("node_labels")
        targets = table("graph_labels")

    graph_of_arc = graph_of_node[arcs[:, 0]]
    # Nodes are numbered through all graphs, graph by graph.
    first_node = np.searchsorted(graph_of_node, np.arange(len(targets)))
    graphs = []
    for index, first in enumerate(first_node):
        inside = graph_of_arc == index
        graphs.append(_RawGraph(arcs[inside] - first, arc_labels[inside], node_labels[graph_of_node == index]))
    return graphs, targets
