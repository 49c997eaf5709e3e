"""MarkovChain: the ways to make one."""

from collections.abc import Iterable, Sequence, Set
from typing import Any

import numpy as np
from torch import Tensor

from markovot import validate
from markovot.chains import build, counting, labels, sparse, stacking, storage
from markovot.chains.base import ChainBase
from markovot.chains.compressed import Compressed
from markovot.validate.arguments import kind

LAWS = ("stationary", "uniform")


class MarkovChain(ChainBase):
    """A finite Markov chain, or a batch of them.

    Make one with `from_transitions`, `from_adjacency`, `from_networkx`, `from_trajectories`, `stack` or
    `as_chain`, which check what they are given; the constructor checks only that no index is out of range.
    Treat chains as immutable.

    A chain owns its numbers. Arrays, SciPy matrices, lists and tensors are copied when it is made, and later writes
    into them change nothing. The exception is a tensor that requires a gradient when the chain is made: it is kept
    as it is, so that gradients reach it, and so that the steps of an optimiser take effect from the next solve on.
    For a sparse tensor, this holds for the tensor that its values were made from; the places of its entries are
    copied. If the sparse tensor is itself a leaf, make a new chain after each step.

    Chains have one of two layouts. Dense: `transition`, all of whose entries receive a gradient. Sparse:
    `indptr`, `indices`, `values`, of which the stored values do.

    Attributes:
        batch_shape: leading batch dimensions, empty for a single chain.
        num_states: n, the number of states, of the largest chain for a stack.
        features: None, or labels (*batch, n), or vectors (*batch, n, p); zero at padded states.
        state_names: None, or the names of the states; for a batch, one list for each chain.
    """

    @classmethod
    def from_transitions(
        cls,
        transition: Any,
        *,
        initial: str | Tensor = "stationary",
        features: Any = None,
        state_names: Sequence[Any] | None = None,
    ) -> "MarkovChain":
        """A chain with given transition probabilities.

        Args:
            transition: (*batch, n, n), rows sum to one: a dense or sparse tensor of any layout (these keep
                their gradients), a NumPy array, or a SciPy sparse matrix; float32 or float64. Sparse stays
                sparse, and repeated entries are summed.
            initial: "stationary" (computed when needed, with its gradient; must be unique), "uniform", or a
                tensor or array (n,) or (*batch, n) that sums to one.
            features: None, or a tensor or array of labels (*batch, n) or vectors (*batch, n, p), or a list of
                numbers, vectors or strings (see `label_code`), one for each state. Half precision becomes
                float32, and unsigned integers int64, so that any two features are compared exactly.
            state_names: names of the n states, for results.

        Returns:
            The chain, in the layout, dtype and on the device of `transition`.

        Raises:
            TypeError: integers, half precision, mixed dtypes, or something that is not a matrix.
            ValueError: negative or non-finite entries, rows that do not sum to one (within 1e-6 in float32, 1e-9 in
                float64), wrong shapes, no states.

        Example:
            >>> import torch
            >>> MarkovChain.from_transitions(torch.tensor([[0.9, 0.1], [0.5, 0.5]]))
            MarkovChain(2 states, dense, initial law stationary, float32, cpu)
        """
        rows: Tensor | Compressed
        if sparse.is_sparse(transition):
            rows = sparse.read("transition", transition)
            owner = rows.owner()
            validate.stored_rows("transition", owner, rows.indices, rows.values, rows.row_sums(owner))
        else:
            rows = validate.matrices("transition", transition)
            validate.distributions("transition", rows)
        return cls._finish(rows, initial, features, state_names)

    @classmethod
    def from_adjacency(
        cls,
        adjacency: Any,
        *,
        laziness: float = 0.0,
        initial: str | Tensor = "uniform",
        features: Any = None,
        dead_ends: str = "stay",
        state_names: Sequence[Any] | None = None,
    ) -> "MarkovChain":
        r"""The random walk on a weighted directed graph.

        $$P_{ij} = \ell\,[i = j] + (1 - \ell)\, w_{ij} / \textstyle\sum_k w_{ik}.$$

        Args:
            adjacency: (*batch, n, n), weights >= 0 from row to column: a dense or sparse tensor
                (differentiable in the weights), a NumPy array or a SciPy sparse matrix (of which integers are
                also taken, as float64). Sparse stays sparse. Repeated entries are summed. A self-loop counts
                once, as it stands on the diagonal.
            laziness: the probability of staying, in [0, 1], on top of self-loops.
            initial: "uniform" (a graph's stationary law need not be unique), "stationary", or a tensor.
            features: as in `from_transitions`.
            dead_ends: what a state with no way out does: "stay" where it is, jump to any state ("uniform"),
                or raise ("error").
            state_names: names of the n states, for results.

        Returns:
            The chain, in the layout of `adjacency`.

        Raises:
            TypeError: tensors of integers or half precision, or something that is not a matrix.
            ValueError: negative or non-finite weights, wrong shapes, no states, and dead ends if so wanted.

        Example:
            >>> import torch
            >>> MarkovChain.from_adjacency(torch.tensor([[0.0, 1.0], [3.0, 1.0]]), laziness=0.2).transition
            tensor([[0.2000, 0.8000],
                    [0.6000, 0.4000]])
        """
        laziness = validate.number("laziness", laziness, 0.0, 1.0)
        validate.choice("dead_ends", dead_ends, build.DEAD_ENDS)
        rows: Tensor | Compressed
        if sparse.is_sparse(adjacency):
            weights = sparse.read("adjacency", adjacency, integers=not isinstance(adjacency, Tensor))
            rows = build.walk_compressed(weights, laziness, dead_ends)
        else:
            if not isinstance(adjacency, Tensor):
                adjacency = validate.as_tensor("adjacency", adjacency)
                counts = not (adjacency.is_floating_point() or adjacency.is_complex())
                adjacency = adjacency.double() if counts else adjacency
            rows = build.walk_dense(validate.matrices("adjacency", adjacency), laziness, dead_ends)
        return cls._finish(rows, initial, features, state_names)

    @classmethod
    def from_networkx(
        cls,
        graph: Any,
        *,
        features: Any = None,
        weight: str | None = "weight",
        laziness: float = 0.0,
        initial: str | Tensor = "uniform",
        dead_ends: str = "stay",
    ) -> "MarkovChain":
        """The random walk on a networkx graph of any kind, as a sparse float64 chain named after the nodes.

        Parallel edges are summed; an undirected edge is walked both ways; a self-loop counts once; edges of
        weight zero are left out; a node with no way out, such as an isolated one, stays where it is, unless
        `dead_ends` says otherwise.

        Args:
            graph: a Graph, DiGraph, MultiGraph or MultiDiGraph with at least one node.
            features: None, the name of a node attribute, or a mapping from node to feature (or `G.degree`, or a
                pandas Series indexed by node). Numbers become float64 (n,), vectors of numbers (n, p), strings and
                other labels the integers of `label_code`, which are the same for every graph. Or a tensor, an array or
                a list in the graph's order, as in `from_transitions`. Missing values are refused.
            weight: the edge attribute that holds the weights; edges without it count as 1, as in networkx. Another
                name than "weight" must be that of some edge's attribute. None: all count as 1.
            laziness: the probability of staying, in [0, 1].
            initial: "uniform", "stationary", or a tensor with one probability for each node, in the graph's
                order.
            dead_ends: "stay", "uniform" or "error", as in `from_adjacency`.

        Returns:
            The chain; its states are the nodes in the graph's order, and `state_names` their names.

        Raises:
            TypeError: not a networkx graph, or a weight or a feature of the wrong type.
            ValueError: no nodes, a negative or non-finite weight, a weight that no edge has, a node without a feature.

        Example:
            >>> import networkx
            >>> chain = MarkovChain.from_networkx(networkx.path_graph(["a", "b", "c"]))
            >>> chain.state_names
            ['a', 'b', 'c']
            >>> chain.to_dense().transition[1]
            tensor([0.5000, 0.0000, 0.5000], dtype=torch.float64)
        """
        laziness = validate.number("laziness", laziness, 0.0, 1.0)
        validate.choice("dead_ends", dead_ends, build.DEAD_ENDS)
        weights, nodes = build.graph_weights(graph, weight)
        rows = build.walk_compressed(weights, laziness, dead_ends)
        found = None if features is None else labels.of_nodes(graph, features, nodes)
        return cls._finish(rows, initial, found, nodes)

    @classmethod
    def from_trajectories(
        cls,
        trajectories: Any,
        *,
        num_states: int | None = None,
        pseudo_count: float = 0.0,
        initial: str | Tensor = "stationary",
        features: Any = None,
        dead_ends: str = "stay",
        state_names: Sequence[Any] | None = None,
    ) -> "MarkovChain":
        r"""The chain estimated from observed sequences of states.

        $$P_{ij} = (N_{ij} + c) / \textstyle\sum_k (N_{ik} + c),$$

        with N_ij the number of steps from i to j, and c the pseudo-count. A float64 chain: sparse if c = 0,
        else dense.

        Args:
            trajectories: sequences of states, or a single one: lists, arrays, tensors, or columns of a table. States
                are integers from 0, or names, which are strings; never both. Missing values are no states. A flat list
                of strings is one trajectory of names; `[list(text) for text in texts]` is many, of letters. A list of
                words without repetition is refused, since either could be meant. Rows of a matrix are trajectories.
            num_states: n, where more states exist than occur. Default: the largest that occurs plus one.
            pseudo_count: c >= 0, added to all n^2 counts.
            initial: "stationary", "uniform" or a tensor.
            features: as in `from_transitions`.
            dead_ends: "stay", "uniform" or "error" for states that no step was seen to leave, as in
                `from_adjacency`.
            state_names: the n names, in order. Default: integers have none, names are sorted.

        Returns:
            The chain.

        Raises:
            TypeError: states that are neither integers nor names, or some of each; what has no order, or other things
                in it than states, such as a data frame, a set or a mapping.
            ValueError: no trajectories, negative states, states beyond `num_states` or outside `state_names`, missing
                values, words that could be states or trajectories of letters.

        Example:
            >>> chain = MarkovChain.from_trajectories(["sun", "sun", "rain", "sun"])
            >>> chain.state_names, chain.to_dense().transition.tolist()
            (['rain', 'sun'], [[0.0, 1.0], [0.5, 0.5]])
        """
        pseudo_count = validate.number("pseudo_count", pseudo_count, 0.0, float("inf"))
        validate.choice("dead_ends", dead_ends, build.DEAD_ENDS)
        given = None if state_names is None else _listed(state_names)
        counts, names = counting.count_steps(trajectories, num_states, given)
        rows: Tensor | Compressed
        if pseudo_count > 0:
            rows = build.walk_dense(counts.to_dense() + pseudo_count, 0.0, dead_ends)
        else:
            rows = build.walk_compressed(counts, 0.0, dead_ends)
        return cls._finish(rows, initial, features, names)

    @classmethod
    def _finish(cls, rows: Tensor | Compressed, initial: Any, features: Any, names: Any) -> "MarkovChain":
        """Check the parts that all chains have."""
        chain = cls(rows, initial="uniform")
        shape = (*chain.batch_shape, chain.num_states)
        if not isinstance(initial, str):
            chain._initial = validate.law("initial", initial, chain.parameter, shape)
        elif initial in LAWS:
            chain._initial = initial
        else:
            raise ValueError(
                f"initial: {initial!r} is not 'stationary', 'uniform' or a tensor of {chain.num_states} probabilities."
            )
        if features is not None:
            given = _numbers_of(features)
            chain.features = labels.of_states(given, chain.batch_shape, chain.num_states, chain.device)
        if names is not None:
            names = _listed(names)
            if len(names) != chain.num_states:
                raise ValueError(f"state_names: there are {len(names)} names for {chain.num_states} states.")
            chain.state_names = (
                [list(names) for _ in range(chain.batch_shape.numel())] if chain.batch_shape else list(names)
            )
        return chain

    @classmethod
    def stack(cls, chains: Iterable["MarkovChain"]) -> "MarkovChain":
        """Several chains, of different sizes, as one batch.

        Smaller chains are padded with empty rows, which `mask` and `sizes` tell apart; each item behaves as
        it would alone. The batch is sparse if all chains are, else dense, and differentiable in all of them.
        Initial laws that are all stationary or all uniform stay so; others become given ones.

        Args:
            chains: single chains, of one dtype and on one device, all with features (of one kind) or all
                without.

        Returns:
            A batch with one dimension; `num_states` is the size of the largest chain.

        Raises:
            TypeError: something else than chains, different dtypes.
            ValueError: no chains, batches, different devices, features that do not fit together.

        Example:
            >>> import torch
            >>> parts = [MarkovChain.from_transitions(torch.full((n, n), 1 / n)) for n in (2, 4)]
            >>> MarkovChain.stack(parts)
            MarkovChain(batch (2,) of up to 4 states, dense, initial law stationary, float32, cpu)
        """
        parts = validate.items("chains", chains, "several chains")
        for k, part in enumerate(parts):
            if not isinstance(part, MarkovChain):
                raise TypeError(f"chains: number {k} is {type(part).__name__}, not a MarkovChain. as_chain converts.")
        return cls(**stacking.stacked(parts))

    def save(self, path: Any) -> None:
        """Store the chain or batch in a file, for `load`.

        The format is NumPy's .npz, of plain arrays and JSON: it needs no pickle, nor anything of this package to be
        read. Layout, dtype, initial law, features, names and padding are kept; gradients and the device are not.

        Args:
            path: the file; the folder must exist, and an older file is replaced as a whole.

        Raises:
            TypeError: names of states other than strings, numbers, truth values, None, and tuples of these; features
                of a dtype that NumPy lacks.
            ValueError: there is no such folder.
            OSError: the file cannot be written; an older one is as it was.

        Example:
            >>> import tempfile, torch
            >>> matrix = torch.tensor([[0.9, 0.1], [0.5, 0.5]])
            >>> chain = MarkovChain.from_transitions(matrix, state_names=["sun", "rain"])
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     chain.save(f"{folder}/weather.npz")
            ...     MarkovChain.load(f"{folder}/weather.npz").state_names
            ['sun', 'rain']
        """
        storage.write(path, self)

    @classmethod
    def load(cls, path: Any) -> "MarkovChain":
        """The chain or batch that `save` stored, on the CPU.

        No code in the file is run. All of it is checked, by its digest and as `from_transitions` checks what it is
        given.

        Args:
            path: the file.

        Returns:
            The chain, equal to the stored one to the bit.

        Raises:
            ValueError: the file is damaged, or no stored chain.
            OSError: it cannot be read.
        """
        return storage.read(path, cls)

def _numbers_of(features: Any) -> Any:
    """Numerical features as a tensor with its own memory; labels as they are."""
    if not isinstance(features, Tensor | np.ndarray) or (isinstance(features, np.ndarray) and _is_text(features)):
        return features
    return validate.as_tensor("features", features)


def _is_text(array: Any) -> bool:
    return array.dtype.kind in "OUS" and not isinstance(array, np.ma.MaskedArray)


def _listed(names: Any) -> list[Any]:
    """Names of states as a new list; a set is refused, since it has no order."""
    if isinstance(names, Set):
        raise TypeError(f"state_names: expected a sequence, got {kind(names)}, which has no order. Give a list.")
    return [validate.key("state_names", name) for name in validate.items("state_names", names, "a list of names")]
