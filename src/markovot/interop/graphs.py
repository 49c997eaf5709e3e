"""Convert chains to networkx graphs. The reverse is `MarkovChain.from_networkx`."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from markovot import validate
from markovot._optional import require
from markovot.chains import MarkovChain, label_code
from markovot.interop._common import names_of, steps_of

if TYPE_CHECKING:
    from networkx import DiGraph


def to_networkx(
    chain: MarkovChain, *, weight: str = "weight", feature: str = "feature", labels: Iterable[Any] = ()
) -> "DiGraph":
    """A single chain as a directed networkx graph whose edge weights are the transition probabilities.

    `MarkovChain.from_networkx(to_networkx(chain), features="feature")` is the same walk, in float64, with rows divided
    by their sums. The initial law is not kept: pass it as `initial=`. Integer features come back as float64 numbers.
    Codes of labels come back only if `labels` are given, since a graph holds the labels themselves.

    Args:
        chain: a single chain. Its states become the nodes, in order, named by `state_names` or else by their numbers.
            Each step of positive probability becomes an edge; a state that can stay has a self-loop.
        weight: the edge attribute for the probabilities.
        feature: the node attribute for the features, if the chain has any: a number, a list of p numbers, or a label.
        labels: labels such as "C" and "N" whose codes (see `label_code`) the features hold. They stand in the
            graph in place of their codes.

    Returns:
        The graph, without gradients.

    Raises:
        ImportError: networkx is not installed.
        TypeError: not a chain.
        ValueError: a batch, names that occur twice, a feature that is the code of none of the labels.

    Example:
        >>> import torch
        >>> rows = torch.tensor([[0.0, 1.0], [0.5, 0.5]])
        >>> chain = MarkovChain.from_transitions(rows, state_names=["sun", "rain"], features=["dry", "wet"])
        >>> graph = to_networkx(chain, labels=["dry", "wet"])
        >>> graph.nodes["rain"], graph.edges["rain", "sun"]
        ({'feature': 'wet'}, {'weight': 0.5})
    """
    networkx = require("networkx", extra="graphs", what="to_networkx")
    validate.text("weight", weight)
    validate.text("feature", feature)
    known = validate.items("labels", labels, "several labels")
    steps = steps_of(chain, "to_networkx")
    names = names_of(chain, "to_networkx")
    graph = networkx.DiGraph()
    graph.add_nodes_from(names)
    if chain.features is not None:
        values = _values(chain.features, known)
        graph.add_nodes_from((name, {feature: value}) for name, value in zip(names, values, strict=True))
    ends = zip(steps.sources.tolist(), steps.targets.tolist(), steps.probabilities.tolist(), strict=True)
    graph.add_weighted_edges_from(((names[i], names[j], p) for i, j, p in ends), weight=weight)
    return graph


def _values(features: Tensor, labels: list[Any]) -> list[Any]:
    values: list[Any] = features.tolist()
    if not labels:
        return values
    with validate.named("labels"):
        meaning = {label_code(label): label for label in labels}
    for k, value in enumerate(values):
        if isinstance(value, list) or value not in meaning:
            raise ValueError(
                f"labels: the feature of state {k}, {value!r}, is the code of none of the {len(labels)} labels. Give "
                "all labels that the chain was made with, or leave labels out."
            )
    return [meaning[value] for value in values]
