"""MUTAG, which ships with the package."""

import zipfile
from dataclasses import replace
from importlib import resources

from markovot.datasets.dataset import GraphDataset
from markovot.datasets.tables import find
from markovot.datasets.tudataset import COLLECTION, assemble

_CITATION = (
    "A. K. Debnath, R. L. Lopez de Compadre, G. Debnath, A. J. Shusterman, C. Hansch. Structure-activity "
    "relationship of mutagenic aromatic and heteroaromatic nitro compounds. J. Med. Chem. 34(2), 1991. "
)


def load_mutag(*, laziness: float = 0.1) -> GraphDataset:
    """Load MUTAG: 188 molecules, 125 of them mutagenic.

    A walker on the molecule stays on its atom with probability `laziness`, and otherwise moves along a bond
    chosen uniformly. The walk starts at an atom chosen uniformly. Bond types play no part in the chain; they
    are kept in `edge_labels`. The data ship with the package: nothing is downloaded.

    Args:
        laziness: the probability of staying, in [0, 1]. Some is wise: without it, a walk on a molecule with
            rings of even size never forgets whether the number of its steps is even.

    Returns:
        The set: sparse float64 chains with a uniform initial law, whose features are the atoms as integers (0
        to 6 for C, N, O, F, I, Cl, Br), and targets 1 (mutagenic) and -1.

    Raises:
        ValueError: `laziness` is not in [0, 1].

    References:
        Debnath et al., Journal of Medicinal Chemistry 34(2), 1991; Morris et al., arXiv 2007.08663.

    Example:
        >>> mutag = load_mutag()
        >>> len(mutag), mutag.chains[0].num_states, mutag.target_names[int(mutag.targets[0])]
        (188, 17, 'mutagenic')
        >>> [mutag.label_names[label] for label in mutag.chains[0].features.unique()]
        ['C', 'N', 'O']
    """
    packed = resources.files("markovot") / "data" / "MUTAG.zip"
    with packed.open("rb") as file, zipfile.ZipFile(file) as archive:
        mutag = assemble(
            find(zipfile.Path(archive), "MUTAG.zip"),
            features="labels",
            laziness=laziness,
            initial="uniform",
            directed=False,
            empty_graphs="error",
        )
    return replace(
        mutag,
        target_names={1: "mutagenic", -1: "not mutagenic"},
        label_names=("C", "N", "O", "F", "I", "Cl", "Br"),
        edge_label_names=("aromatic", "single", "double", "triple"),
        citation=_CITATION + COLLECTION,
    )
