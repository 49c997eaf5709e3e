"""Names of the states of a chain, for people to read."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from markovot import validate
from markovot.chains import MarkovChain


def labels_of(chain: MarkovChain) -> NDArray[np.int64] | None:
    """The features of a single chain if they are integer labels; else None."""
    features = chain.features
    if features is None or features.ndim != 1 or features.is_floating_point():
        return None
    return features.cpu().numpy().astype(np.int64)


def label_texts(chain: MarkovChain, label_names: Sequence[str]) -> list[str]:
    """The name of each state's label.

    Raises:
        ValueError: the features are not integer labels, or some label has no name.
    """
    validate.texts("label_names", label_names)
    labels = labels_of(chain)
    if labels is None:
        raise ValueError("label_names needs chains whose features are integer labels, one per state.")
    if labels.max() >= len(label_names) or labels.min() < 0:
        raise ValueError(
            f"label_names has {len(label_names)} names, but the labels go from {labels.min()} to "
            f"{labels.max()}. Give one name for each label from 0 up."
        )
    return [label_names[label] for label in labels]


def short_names(chain: MarkovChain, label_names: Sequence[str] | None) -> list[str]:
    """The texts on the states of a drawing: names of labels; or else of states; or else labels, or numbers."""
    if label_names is not None:
        return label_texts(chain, label_names)
    if chain.state_names is not None:
        return [str(name) for name in chain.state_names]
    labels = labels_of(chain)
    return [str(label) for label in (range(chain.num_states) if labels is None else labels)]


def full_names(chain: MarkovChain, label_names: Sequence[str] | None) -> list[str]:
    """Names that tell states apart: their own names, or else their numbers, with the name of the label if known."""
    own = range(chain.num_states) if chain.state_names is None else chain.state_names
    if label_names is None:
        return [str(name) for name in own]
    return [f"{name} ({label})" for name, label in zip(own, label_texts(chain, label_names), strict=True)]
