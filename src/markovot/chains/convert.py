"""as_chain: convert the objects of users to a MarkovChain."""

import numbers
import sys
from os import PathLike
from typing import Any

import numpy as np
from torch import Tensor

from markovot import validate
from markovot.chains.chain import MarkovChain
from markovot.validate import containers

# Objects that need a choice, and so are not converted by as_chain, by the library that their class comes from.
_ELSEWHERE = {
    "torch_geometric": "markovot.interop.from_pyg(data), or from_pyg_dataset(dataset) for many graphs",
    "deeptime": "markovot.interop.from_deeptime(model), or from_deeptime_hmm(model) for a hidden Markov model",
    "hmmlearn": "markovot.interop.from_hmmlearn(model)",
    "gymnasium": "markovot.interop.from_gymnasium(environment, policy)",
    "pandas": "markovot.interop.from_frame(edges, nodes, directed=...) for a table of edges, and for a square of "
    "probabilities MarkovChain.from_transitions(frame.to_numpy(), state_names=list(frame))",
}


def as_chain(obj: Any) -> MarkovChain:
    """Convert to a MarkovChain.

    - A MarkovChain stays as it is.
    - A square tensor or array, dense or sparse (torch or SciPy), with any leading batch dimensions,
      is a transition matrix with a stationary initial law. An adjacency matrix goes through
      `MarkovChain.from_adjacency`.
    - A networkx graph is its random walk with a uniform initial law, without features
      (`MarkovChain.from_networkx`).
    - A tuple `(transition, labels)` is a transition matrix with one feature for each state: a list, a vector,
      or an n × p matrix with p other than n.
    - A list, or any other tuple, is stacked, each item by these rules.

    Args:
        obj: any of these.

    Returns:
        A single chain or a batch.

    Raises:
        TypeError: anything else. Files and objects of other libraries have choices to make (which attribute, which
            direction, which policy): `markovot.interop` takes them, and the message names the function.
        ValueError: what `from_transitions`, `from_networkx` and `stack` raise.

    Note:
        Gradients flow to dense and to sparse torch tensors.

    Example:
        >>> import torch
        >>> flip = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        >>> as_chain([flip, (flip, ["C", "N"])[0]])
        MarkovChain(batch (2,) of up to 2 states, dense, initial law stationary, float32, cpu)
    """
    return chain_of("obj", obj)


def chain_of(name: str, obj: Any) -> MarkovChain:
    """`as_chain` of an argument; errors begin with the name of the argument."""
    with validate.named(name):
        return converted(obj)


def single(name: str, chain: Any) -> MarkovChain:
    """Check an argument that must be a single MarkovChain."""
    if not isinstance(chain, MarkovChain):
        raise TypeError(f"{name}: expected a MarkovChain, got {validate.kind(chain)}. as_chain converts.")
    if chain.batch_shape:
        raise ValueError(
            f"{name}: expected a single chain, got a batch of shape {tuple(chain.batch_shape)}. Give its chains one by "
            "one."
        )
    return chain


def converted(obj: Any) -> MarkovChain:
    """`as_chain` for callers that name the object in errors themselves."""
    if isinstance(obj, MarkovChain):
        return obj.outside_inference()
    if _is_matrix(obj):
        return MarkovChain.from_transitions(obj)
    # An instance of networkx.Graph cannot exist before networkx has been imported.
    networkx = sys.modules.get("networkx")
    if networkx is not None and isinstance(obj, networkx.Graph):
        return MarkovChain.from_networkx(obj)
    if isinstance(obj, tuple) and len(obj) == 2 and _is_matrix(obj[0]) and _is_labels(obj[1]):
        return MarkovChain.from_transitions(obj[0], features=obj[1])
    if isinstance(obj, list | tuple):
        if not obj:
            raise ValueError("chain: an empty list holds no chains. Give at least one.")
        return MarkovChain.stack([converted(item) for item in obj])
    for kind in type(obj).__mro__:
        if (instead := _ELSEWHERE.get(kind.__module__.partition(".")[0])) is not None:
            raise TypeError(f"chain: as_chain does not convert {type(obj).__name__}. Use {instead}.")
    hint = ""
    if isinstance(obj, str | PathLike):
        hint = " A graph file is read by markovot.interop.read_graph."
    elif isinstance(obj, numbers.Number):
        hint = " A matrix in lists becomes one by numpy.array(rows, dtype=float)."
    raise TypeError(
        f"chain: cannot make one from {validate.kind(obj)}. Give a MarkovChain, a square transition matrix "
        "(torch tensor, NumPy array or SciPy sparse matrix; rows sum to one), a networkx graph, a tuple "
        f"(transition, labels), or a list of these.{hint}"
    )


def _is_matrix(obj: Any) -> bool:
    return isinstance(obj, Tensor | np.ndarray) or containers.is_scipy(obj)


def _is_labels(obj: Any) -> bool:
    """Whether an object is a set of labels. A square matrix never is: it counts as a transition matrix."""
    if isinstance(obj, list | tuple):
        return not any(isinstance(item, MarkovChain) or (_is_matrix(item) and item.ndim > 1) for item in obj)
    return isinstance(obj, Tensor | np.ndarray) and (obj.ndim == 1 or (obj.ndim == 2 and obj.shape[0] != obj.shape[1]))
