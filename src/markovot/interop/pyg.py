"""PyTorch Geometric: `Data` objects and data sets of them."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from markovot import validate
from markovot._optional import require
from markovot.chains import MarkovChain
from markovot.interop._common import check_single, sparse_tensor, stands_both_ways, steps_of


class ChainsAndTargets(NamedTuple):
    """The graphs of a data set as chains, and what is to be predicted of each."""

    chains: list[MarkovChain]
    targets: NDArray[Any] | None  # (N,) or (N, t); None where the graphs have none


def from_pyg(
    data: Any,
    *,
    features: str | None = "x",
    weight: str | None = "edge_weight",
    directed: bool = True,
    laziness: float = 0.0,
    initial: str | Tensor = "uniform",
    dead_ends: str = "stay",
) -> MarkovChain:
    """The random walk on a PyTorch Geometric graph, as a sparse chain, differentiable in the edge weights.

    As in `MarkovChain.from_adjacency`: repeated edges are summed, a self-loop counts once, and a node with no way out,
    such as an isolated one, stays where it is.

    Args:
        data: a `torch_geometric.data.Data` with `edge_index`. Without `x`, set `num_nodes`: isolated nodes at the end
            are seen no other way, and PyTorch Geometric warns that it guesses.
        features: the node attribute to compare, one number, vector or string for each node, taken as it is. None: no
            features. The default, "x", is None where `data.x` is.
        weight: the edge attribute that holds one weight >= 0 for each edge. None: all count as 1. The default,
            "edge_weight", is None where `data.edge_weight` is. `edge_attr` is never taken unasked, since it often
            holds kinds of edges.
        directed: True: each column of `edge_index` is walked one way, and an undirected graph stands in it both
            ways, which is PyTorch Geometric's custom. False: each edge stands there once and is walked both ways.
        laziness: the probability of staying, in [0, 1].
        initial: "uniform", "stationary", or a tensor with one probability for each node.
        dead_ends: "stay", "uniform" or "error", as in `MarkovChain.from_adjacency`.

    Returns:
        The chain, on the device of `edge_index`, in the dtype of the weights; float64 where they are integers or all
        count as 1. Named by `data.state_names`, if `to_pyg` left them there.

    Raises:
        ImportError: torch_geometric is not installed.
        TypeError: not a Data object, or attributes of the wrong type.
        ValueError: no `edge_index`, an unknown attribute, one that does not fit the nodes or edges, a negative or
            non-finite weight, edges that stand both ways although `directed` is False.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> edges = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> from_pyg(Data(x=torch.eye(3), edge_index=edges))
        MarkovChain(3 states, sparse with 4 entries, initial law uniform, features (3, 3), float64, cpu)
    """
    validate.flag("directed", directed)
    num_nodes = _num_nodes(data)
    index = _edge_index(data, num_nodes)
    weights = _weights(data, weight, index)
    if not directed:
        _check_one_way(index)
        other = index[0] != index[1]
        index, weights = torch.cat([index, index[:, other].flip(0)], 1), torch.cat([weights, weights[other]])
    return MarkovChain.from_adjacency(
        sparse_tensor(index, weights, (num_nodes, num_nodes)),
        laziness=laziness,
        initial=initial,
        features=_attribute(data, "features", features, default="x"),
        dead_ends=dead_ends,
        state_names=_get(data, "state_names"),
    )


def from_pyg_dataset(
    dataset: Iterable[Any],
    *,
    target: str | None = "y",
    features: str | None = "x",
    weight: str | None = "edge_weight",
    directed: bool = True,
    laziness: float = 0.0,
    initial: str | Tensor = "uniform",
    dead_ends: str = "stay",
) -> ChainsAndTargets:
    """Every graph of a PyTorch Geometric data set as a chain, and the targets.

    Args:
        dataset: a data set, a list of Data objects, or a `Batch`.
        target: the attribute to predict, one number, or one row of numbers, for each graph. None: no targets. The
            default, "y", is None where no graph has a `y`.
        features: as in `from_pyg`, and so are all that follow.
        weight: the edge attribute with the weights.
        directed: whether each column of `edge_index` is walked one way.
        laziness: the probability of staying, in [0, 1].
        initial: "uniform" or "stationary"; a tensor fits only graphs of one size.
        dead_ends: "stay", "uniform" or "error".

    Returns:
        The chains, and the targets as an array (N,), or (N, t) where each is a row of t > 1 numbers.

    Raises:
        ImportError, TypeError, ValueError: as in `from_pyg`, with the number of the graph; no graphs; targets that
            are missing in some graphs, or that belong to nodes.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> edges = torch.tensor([[0, 1], [1, 0]])
        >>> graphs = [Data(edge_index=edges, num_nodes=n, y=torch.tensor([n % 2])) for n in (2, 3)]
        >>> chains, targets = from_pyg_dataset(graphs)
        >>> [chain.num_states for chain in chains], targets
        ([2, 3], array([0, 1]))
    """
    library = require("torch_geometric.data", extra="pyg", what="from_pyg_dataset")
    if isinstance(dataset, library.Batch):
        dataset = dataset.to_data_list()
    elif isinstance(dataset, library.Data):
        raise TypeError("dataset: this is a single graph. Use from_pyg(data), or put it into a list.")
    graphs = validate.items("dataset", dataset, "several graphs")
    if target is not None:
        validate.text("target", target)
    if not graphs:
        raise ValueError("dataset: it holds no graphs. Give at least one.")
    options: dict[str, Any] = {"features": features, "weight": weight, "directed": directed}
    options |= {"laziness": laziness, "initial": initial, "dead_ends": dead_ends}
    chains = []
    for k, data in enumerate(graphs):
        try:
            chains.append(from_pyg(data, **options))
        except (TypeError, ValueError) as error:
            raise type(error)(f"dataset: graph {k}: {error}") from error
    return ChainsAndTargets(chains, _targets(graphs, target))


def to_pyg(chain: MarkovChain) -> Any:
    """A single chain as a PyTorch Geometric graph whose edge weights are the transition probabilities.

    `from_pyg(to_pyg(chain))` is the same chain, but for the initial law, which is to be handed over as `initial=`.

    Args:
        chain: a single chain of either layout.

    Returns:
        A `torch_geometric.data.Data` with `num_nodes`; `edge_index`, the steps of positive probability; `edge_weight`,
        their probabilities, differentiable; `x`, the features as they are (most layers want them (n, p): call
        `.unsqueeze(-1)` on (n,)); and `state_names`, if the chain has them.

    Raises:
        ImportError: torch_geometric is not installed.
        TypeError: not a chain.
        ValueError: a batch.

    Example:
        >>> import torch
        >>> data = to_pyg(MarkovChain.from_transitions(torch.tensor([[0.0, 1.0], [0.5, 0.5]])))
        >>> data.edge_index.tolist(), data.edge_weight.tolist()
        ([[0, 1, 1], [1, 0, 1]], [1.0, 0.5, 0.5])
    """
    library = require("torch_geometric.data", extra="pyg", what="to_pyg")
    check_single(chain, "to_pyg")
    steps = steps_of(chain, "to_pyg")
    named = {} if chain.state_names is None else {"state_names": list(chain.state_names)}
    return library.Data(
        x=chain.features,
        edge_index=torch.stack([steps.sources, steps.targets]),
        edge_weight=steps.probabilities,
        num_nodes=chain.num_states,
        **named,
    )


def _num_nodes(data: Any) -> int:
    """How many nodes the graph has, if it is one."""
    library = require("torch_geometric.data", extra="pyg", what="from_pyg")
    if isinstance(data, library.Batch):
        raise TypeError("data: a Batch holds several graphs. Use from_pyg_dataset(batch).")
    if isinstance(data, library.HeteroData):
        raise TypeError("data: a HeteroData has nodes of several kinds. Convert it first: data.to_homogeneous().")
    if not isinstance(data, library.Data):
        raise TypeError(
            f"data: expected a torch_geometric Data object, got {type(data).__name__}. For a data set, use "
            "from_pyg_dataset."
        )
    count = data.num_nodes
    if not count:
        raise ValueError("data: it has no nodes. A chain needs at least one; set data.num_nodes.")
    return int(count)


def _get(data: Any, name: str) -> Any:
    return data[name] if name in data else None  # noqa: SIM401  (not every version has get)


def _edge_index(data: Any, n: int) -> Tensor:
    index = _get(data, "edge_index")
    if index is None:
        raise ValueError(
            "data: it has no edge_index. Set one, (2, number of edges); if it has adj_t, leave the transform "
            "ToSparseTensor out."
        )
    if not isinstance(index, Tensor) or index.dtype != torch.int64:
        kind = index.dtype if isinstance(index, Tensor) else type(index).__name__
        raise TypeError(f"data: edge_index is {kind}. It must be a tensor of torch.int64; use edge_index.long().")
    if hasattr(index, "as_tensor"):  # the library's own class, which older versions do not turn into arrays
        index = index.as_tensor()
    if index.dim() != 2 or len(index) != 2:
        raise ValueError(f"data: edge_index has shape {tuple(index.shape)}, not (2, number of edges).")
    outside = ((index < 0) | (index >= n)).any(0)
    if bool(outside.any()):
        k = int(outside.nonzero()[0, 0])
        edge = tuple(index[:, k].tolist())
        raise ValueError(f"data: edge {k}, {edge}, leads outside the {n} nodes. Set data.num_nodes.")
    return index


def _attribute(data: Any, argument: str, name: str | None, *, default: str) -> Any:
    """The attribute of that name; None if it is the default and missing."""
    if name is None:
        return None
    value = _get(data, validate.text(argument, name))
    if value is None and name != default:
        known = ", ".join(map(repr, sorted(data.keys())))
        raise ValueError(
            f"{argument}: the graph has no attribute {name!r}, only {known}. Name one of them, or use {argument}=None."
        )
    return value


def _weights(data: Any, weight: str | None, index: Tensor) -> Tensor:
    count = index.shape[1]
    values = _attribute(data, "weight", weight, default="edge_weight")
    if values is None:
        return torch.ones(count, dtype=torch.float64, device=index.device)
    if not isinstance(values, Tensor) or values.is_complex():
        kind = values.dtype if isinstance(values, Tensor) else type(values).__name__
        raise TypeError(f"weight: attribute {weight!r} is {kind}, not a tensor of real numbers.")
    if tuple(values.shape) not in ((count,), (count, 1)):
        raise ValueError(
            f"weight: attribute {weight!r} has shape {tuple(values.shape)}, not ({count},), one weight for each edge. "
            "Choose a column: data.edge_weight = data.edge_attr[:, 0]."
        )
    values = values.reshape(count) if values.is_floating_point() else values.reshape(count).double()
    # Checked here, edge by edge: once parallel edges are summed, a negative one may no longer show.
    wrong = ~((values.detach() >= 0) & (values.detach() < torch.inf))
    if bool(wrong.any()):
        k = int(wrong.nonzero()[0, 0])
        raise ValueError(
            f"weight: edge {k}, {tuple(index[:, k].tolist())}, has {weight!r} = {values[k].item()}. Weights must be "
            "finite and >= 0."
        )
    return values


def _check_one_way(index: Tensor) -> None:
    """Refuse edges that are listed both ways."""
    sources, targets = index.cpu().numpy()
    if (found := stands_both_ways(sources, targets)) is not None:
        i, j = index[:, found[0]].tolist()
        raise ValueError(
            f"directed: False, but edge_index holds both ({i}, {j}) and ({j}, {i}). It already has its edges both "
            "ways: leave directed=True."
        )


def _targets(graphs: list[Any], target: str | None) -> NDArray[Any] | None:
    if target is None or (target == "y" and all(_get(data, "y") is None for data in graphs)):
        return None
    rows = []
    for k, data in enumerate(graphs):
        value = _get(data, target)
        if value is None:
            raise ValueError(f"target: graph {k} has no attribute {target!r}. Give all graphs one, or use target=None.")
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        if array.ndim > 0 and len(array) != 1:
            raise ValueError(
                f"target: {target!r} of graph {k} has shape {array.shape}, not one number or (1, t). Targets of nodes "
                "are not targets of graphs: use target=None."
            )
        rows.append(array.reshape(-1))
        if rows[k].shape != rows[0].shape:
            raise ValueError(
                f"target: graph {k} has {rows[k].size} numbers in {target!r}, graph 0 has {rows[0].size}. Give all as "
                "many."
            )
    table = np.stack(rows)
    return table[:, 0] if table.shape[1] == 1 else table
