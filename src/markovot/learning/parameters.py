"""Chains made from parameters: any values of the parameters give a valid chain."""

from typing import Any, Self

import torch
from torch import Tensor, nn

from markovot import validate
from markovot.chains import MarkovChain, compressed, stationary
from markovot.chains.compressed import Compressed
from markovot.learning import _checks as check

# The standard deviation of random logits: probabilities start within some tens of percent of uniform ones, which is
# enough to tell the states apart (at exactly uniform rows all states look alike, and all gradients agree).
INITIAL_SCALE = 0.1


class TransitionMatrix(nn.Module):
    r"""A transition matrix made of free parameters.

    $$P_{ij} = \ell\,[i = j] + (1 - \ell)\, e^{\theta_{ij}} / \textstyle\sum_{k \in S_i} e^{\theta_{ik}},$$

    with theta the `logits`, S the support and l the laziness. In the reversible variant theta is symmetric, one logit
    for each pair of states {i, j}: the walk along the edges of an undirected graph of weights `exp(theta)`.

    Args:
        n_states: the number of states n.
        support: None for a dense matrix; or a mask (n, n) whose nonzero entries are the possible steps: a tensor or
            array, dense or sparse, or a SciPy sparse matrix. Each row needs a nonzero entry.
        reversible: whether the chain is to be reversible; its support must be symmetric.
        laziness: l in [0, 1), the least probability of staying.
        generator: where random numbers come from. Default: torch's global generator. The logits are normal with
            standard deviation 0.1 (`INITIAL_SCALE`): rows start near uniform, but no two states are alike.
        dtype: torch.float32 or float64. The default is float64: the distances are computed in it anyway.

    Attributes:
        logits: the parameter: (n, n) if dense, one for each entry of the support if sparse, row by row; if reversible,
            one for each pair i <= j of states in it.

    Raises:
        TypeError: a dtype other than float32 and float64, sizes that are not integers.
        ValueError: no states, a row without support, a support that is not symmetric for a reversible chain, a laziness
            out of range.

    Note:
        Differentiable any number of times. Dense: O(n^2) time and memory; sparse: O(entries).

    Example:
        >>> import torch
        >>> ring = torch.tensor([[0, 1, 0], [0, 0, 1], [1, 0, 0]])
        >>> TransitionMatrix(3, support=ring, laziness=0.25)().to_dense().tolist()
        [[0.25, 0.75, 0.0], [0.0, 0.25, 0.75], [0.75, 0.0, 0.25]]
    """

    # If reversible: which logit each entry has. If sparse: the row of each entry of the support, its place among the
    # stored entries (with the diagonal, if lazy), and the row pointers and columns of the stored entries.
    edge: Tensor | None
    owner: Tensor | None
    slot: Tensor | None
    indptr: Tensor
    indices: Tensor

    def __init__(
        self,
        n_states: int,
        *,
        support: Any = None,
        reversible: bool = False,
        laziness: float = 0.0,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        self.n_states = check.positive("n_states", n_states)
        self.reversible = validate.flag("reversible", reversible)
        self.laziness = validate.number("laziness", laziness, 0.0, 1.0)
        if self.laziness == 1:
            raise ValueError("laziness: 1 leaves nothing to learn, since the chain never moves. Use less than 1.")
        check.floating(dtype)
        check.generator(generator)
        self._connected = False
        if support is None:
            shape = self._lay_out_dense()
        else:
            shape = self._lay_out_sparse(*check.support_entries(support, self.n_states))
        self.logits = nn.Parameter(INITIAL_SCALE * check.normal(shape, generator, dtype))

    @classmethod
    def from_transition(
        cls,
        transition: Any,
        *,
        support: Any = None,
        pseudo_count: float = 0.0,
        reversible: bool = False,
        laziness: float = 0.0,
    ) -> Self:
        r"""A parametrised transition matrix that starts at a given one.

        Args:
            transition: (n, n), rows sum to one: a dense tensor or array without zeros (unless `support` or
                `pseudo_count` is given), or a sparse tensor or SciPy matrix, whose positive entries are the support.
            support: the steps that are possible, as in the class; it holds all positive entries.
            pseudo_count: c >= 0, added to each entry of the support before rows are divided by their sums, since a
                softmax never is zero. Where `reversible`, `c n pi_j` is added, which keeps the chain reversible.
            reversible: as in the class; the given matrix must be so.
            laziness: as in the class; at most the smallest probability of staying.

        Returns:
            The module, in the dtype and on the device of `transition`.

        Raises:
            TypeError: what is not a matrix, or not of float32 or float64.
            ValueError: rows that are not probabilities, zeros in the support, probabilities beyond it, a chain that is
                not reversible though it is to be, less laziness than asked for.

        Example:
            >>> import torch
            >>> TransitionMatrix.from_transition(torch.tensor([[0.75, 0.25], [0.5, 0.5]]))()
            tensor([[0.7500, 0.2500],
                    [0.5000, 0.5000]], grad_fn=<DivBackward0>)
        """
        chain = MarkovChain.from_transitions(transition).detach()
        if chain.batch_shape:
            raise ValueError(f"transition: a batch of shape {tuple(chain.batch_shape)}. Give a single matrix (n, n).")
        pseudo_count = validate.number("pseudo_count", pseudo_count, 0.0, float("inf"))
        laziness = validate.number("laziness", laziness, 0.0, 1.0)
        moves = check.without_laziness(chain.to_dense().transition, laziness)
        if support is None and chain.is_sparse:
            support = moves > 0
        module = cls(chain.num_states, support=support, reversible=reversible, laziness=laziness, dtype=chain.dtype)
        module.to(chain.device)
        module._start_at(moves, pseudo_count)
        return module

    def forward(self) -> Tensor:
        """The matrix (n, n): dense, or a sparse COO tensor of the support (and the diagonal, if lazy)."""
        rows = self.rows()
        if isinstance(rows, Tensor):
            return rows
        places = torch.stack([rows.owner(), rows.indices])
        return torch.sparse_coo_tensor(
            places, rows.values, (self.n_states,) * 2, device=places.device, is_coalesced=True, check_invariants=False
        )

    def rows(self) -> Tensor | Compressed:
        """The matrix as chains store it: dense, or in compressed rows.

        Raises:
            ValueError: logits that are not finite.
        """
        theta = self.logits if self.edge is None else self.logits[self.edge]
        probabilities = (
            check.softmax(theta) if self.owner is None else check.softmax_of_rows(theta, self.owner, self.n_states)
        )
        if not bool(probabilities.detach().sum().isfinite()):
            check.raise_not_finite("logits", self.logits)
        if self.laziness > 0:
            probabilities = (1 - self.laziness) * probabilities
        if self.owner is None:
            return probabilities + self._stay() if self.laziness > 0 else probabilities
        if self.slot is not None:
            probabilities = self._stay().index_add(0, self.slot, probabilities)
        return Compressed(self.indptr, self.indices, probabilities)

    def stationary(self) -> Tensor:
        r"""The stationary law (n,) of a reversible chain, `pi_i` in proportion to `sum_j exp(theta_ij)`.

        Raises:
            ValueError: the chain is not of the reversible variant, or its support falls apart, so that the law is not
                unique.
        """
        if not self.reversible or self.edge is None:
            raise ValueError(
                "stationary(): only a reversible chain has its stationary law at hand. Use reversible=True, or "
                "markovot.stationary_distribution(module())."
            )
        theta = self.logits[self.edge]
        if self.owner is None:
            return check.softmax(theta.logsumexp(-1))
        self._check_connected()
        highest = theta.detach().max()
        sums = theta.new_zeros(self.n_states).index_add(0, self.owner, (theta - highest).exp())
        return sums / sums.sum()

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        entries = "dense" if self.owner is None else f"{len(self.owner)} entries"
        parts = [str(self.n_states), entries, *(["reversible"] if self.reversible else [])]
        return ", ".join([*parts, f"laziness={self.laziness:g}", str(self.logits.dtype).removeprefix("torch.")])

    # --- layout
    def _lay_out_dense(self) -> tuple[int, ...]:
        """Set the buffers of a dense matrix, and return the shape of the logits."""
        n = self.n_states
        self.register_buffer("owner", None)
        self.register_buffer("slot", None)
        if not self.reversible:
            self.register_buffer("edge", None)
            return n, n
        edge = torch.zeros(n, n, dtype=torch.int64, device="cpu")
        low, high = torch.triu_indices(n, n, device="cpu")
        edge[low, high] = edge[high, low] = torch.arange(len(low), device="cpu")
        self.register_buffer("edge", edge, persistent=False)
        return (len(low),)

    def _lay_out_sparse(self, owner: Tensor, columns: Tensor) -> tuple[int, ...]:
        """Set the buffers of a matrix with these entries, row by row, and return the shape of the logits."""
        n = self.n_states
        check.supported(owner, columns, n, symmetric=self.reversible)
        keys = owner * n + columns
        stored = keys
        if self.laziness > 0:
            stored = torch.unique(torch.cat([keys, torch.arange(n, device=keys.device) * (n + 1)]))
        # Saved with the logits, whose meaning depends on the support.
        self.register_buffer("owner", owner)
        self.register_buffer("slot", torch.searchsorted(stored, keys) if self.laziness > 0 else None)
        self.register_buffer("indptr", compressed.pointers(stored // n, (n,)))
        self.register_buffer("indices", stored % n)
        if not self.reversible:
            self.register_buffer("edge", None)
            return (len(keys),)
        pairs, edge = torch.unique(torch.minimum(keys, columns * n + owner), return_inverse=True)
        self.register_buffer("edge", edge)
        return (len(pairs),)

    def _stay(self) -> Tensor:
        """Laziness on the diagonal, (n, n), or at the stored entries."""
        n = self.n_states
        if self.owner is None:
            return self.laziness * torch.eye(n, dtype=self.logits.dtype, device=self.logits.device)
        every = torch.arange(n, device=self.indices.device)
        on_diagonal = self.indices == every.repeat_interleave(self.indptr.diff(), output_size=len(self.indices))
        return self.laziness * on_diagonal.to(self.logits.dtype)

    def _check_connected(self) -> None:
        if not self._connected:
            counts = self.indptr.diff()
            shares = (1.0 / counts)[Compressed(self.indptr, self.indices, self.indices).owner()]
            stationary.of_compressed(Compressed(self.indptr, self.indices, shares))
            self._connected = True

    # --- a given start
    def _start_at(self, moves: Tensor, pseudo_count: float) -> None:
        """Set the logits so that the steps (n, n), without laziness, are these."""
        weights = moves
        if self.reversible:
            law = stationary.of_dense(moves)
            weights = law[:, None] * moves
            check.reversible(weights)
            weights = 0.5 * (weights + weights.T) + pseudo_count * self.n_states * law[:, None] * law
        else:
            weights = weights + pseudo_count
        if self.owner is None:
            chosen = weights
        else:
            columns = self.indices if self.slot is None else self.indices[self.slot]
            inside = torch.zeros_like(moves, dtype=torch.bool)
            inside[self.owner, columns] = True
            check.inside_support(moves, inside)
            chosen = weights[self.owner, columns]
        check.no_zeros(chosen, dense=self.owner is None)
        with torch.no_grad():
            logits = chosen.log()
            if self.edge is None:
                self.logits.copy_(logits)
            else:
                self.logits[self.edge] = logits


class LabelledChain(nn.Module):
    r"""A Markov chain with state features, made of parameters.

    Args:
        n_states: the number of states n.
        features: initial (n, p) vectors or (n,) numbers; or labels (integers or strings), which cannot be learned.
        num_features: p, to start with standard normal features instead.
        transition: a `TransitionMatrix` with n states. Default: a dense one.
        initial: "uniform" (default), "stationary" (with its gradient), a tensor (n,), or "learned": the softmax of a
            parameter `initial_logits`, which starts at the uniform law.
        learn_features: whether the features are a parameter.
        generator: where random numbers come from. Default: torch's global generator.
        dtype: the dtype of the parameters, float32 or float64.

    Attributes:
        transition: the `TransitionMatrix`.
        features: None, a parameter, or a buffer.

    Raises:
        TypeError: labels that are to be learned, wrong dtypes.
        ValueError: sizes that do not fit each other, features given twice, an unknown initial law.

    Note:
        Calling the module costs about 50 microseconds for a small chain: a softmax needs none of the checks that
        `MarkovChain.from_transitions` makes.

    Example:
        >>> import torch
        >>> module = LabelledChain(3, num_features=2, generator=torch.Generator().manual_seed(0))
        >>> module()
        MarkovChain(3 states, dense, initial law uniform, features (3, 2), float64, cpu)
    """

    features: Tensor | None
    initial_logits: nn.Parameter | None
    initial_law: Tensor | None

    def __init__(
        self,
        n_states: int,
        *,
        features: Any = None,
        num_features: int | None = None,
        transition: TransitionMatrix | None = None,
        initial: str | Tensor = "uniform",
        learn_features: bool = True,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        n = check.positive("n_states", n_states)
        check.floating(dtype)
        check.generator(generator)
        learn_features = validate.flag("learn_features", learn_features)
        if transition is None:
            transition = TransitionMatrix(n, generator=generator, dtype=dtype)
        _check_transition(transition, n, dtype)
        self.transition = transition
        start = check.initial_features(n, features, num_features, generator, dtype)
        if start is not None and learn_features:
            if not start.is_floating_point():
                raise TypeError("features: labels cannot be learned. Use learn_features=False, or give numbers.")
            self.features = nn.Parameter(start)
        else:
            self.register_buffer("features", start)
        self._set_initial(initial, n, dtype)

    def _set_initial(self, initial: Any, n: int, dtype: torch.dtype) -> None:
        self.register_buffer("initial_law", None)
        self.register_parameter("initial_logits", None)
        if not isinstance(initial, str):
            law = validate.law("initial", initial, torch.empty(0, dtype=dtype, device="cpu"), (n,))
            self.initial_law = law.detach().clone()
            initial = "given"
        elif initial == "learned":
            self.initial_logits = nn.Parameter(torch.zeros(n, dtype=dtype, device="cpu"))
        elif initial not in ("uniform", "stationary"):
            raise ValueError(
                f"initial: {initial!r} is not 'uniform', 'stationary', 'learned' or a tensor of {n} probabilities."
            )
        self.initial = initial

    @property
    def n_states(self) -> int:
        """The number of states."""
        return self.transition.n_states

    def forward(self) -> MarkovChain:
        """The chain of the present parameters.

        Raises:
            TypeError: the parameters were converted to half precision.
            ValueError: parameters that are not finite.
        """
        logits = self.transition.logits
        if logits.dtype not in validate.FLOATING:
            validate.floating("logits", logits)
        return MarkovChain(self.transition.rows(), initial=self._law(), features=self.features)

    def _law(self) -> str | Tensor:
        if self.initial_logits is not None:
            law = check.softmax(self.initial_logits)
            if not bool(law.detach().sum().isfinite()):
                check.raise_not_finite("initial_logits", self.initial_logits)
            return law
        if self.initial_law is not None:
            return self.initial_law
        if self.initial == "stationary" and self.transition.reversible:
            return self.transition.stationary()
        return self.initial

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        shape = None if self.features is None else tuple(self.features.shape)
        learned = " (learned)" if isinstance(self.features, nn.Parameter) else ""
        return f"{self.n_states}, features={shape}{learned}, initial={self.initial!r}"


def _check_transition(transition: Any, n: int, dtype: torch.dtype) -> None:
    if not isinstance(transition, TransitionMatrix):
        raise TypeError(
            f"transition: expected a TransitionMatrix, got {type(transition).__name__}. A given matrix becomes one by "
            "TransitionMatrix.from_transition(matrix); for one that is not to be learned, call .requires_grad_(False)."
        )
    if transition.n_states != n:
        raise ValueError(f"transition: it has {transition.n_states} states, not n_states = {n}.")
    if transition.logits.dtype != dtype:
        raise TypeError(
            f"transition: dtype {transition.logits.dtype} is not dtype = {dtype}. Convert with .to({dtype})."
        )
