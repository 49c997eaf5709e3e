"""The tensors of a chain (transition rows in one of two layouts, initial law, features), and their conversions."""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor

from markovot import validate
from markovot.autograd.copying import Copyable
from markovot.autograd.transforms import is_wrapped
from markovot.chains import compressed, stationary
from markovot.chains.compressed import Compressed
from markovot.transport.rows import Rows

# Probabilities below this count as zero where rows are solved: their effect, at most this share of the cost's range at
# each step, is far below rounding (2^-52), while their logarithms and inverses would overflow on the way.
NEGLIGIBLE = 1e-300


class ChainBase(Copyable):
    """The tensors of a chain or a batch. Only the places of stored entries are checked here: see MarkovChain."""

    def __init__(
        self,
        rows: Tensor | Compressed,
        *,
        initial: str | Tensor,
        features: Tensor | None = None,
        state_names: list[Any] | None = None,
        sizes: Tensor | None = None,
    ) -> None:
        self._rows = rows
        self._initial = initial
        self._sizes = sizes
        self._padded = sizes is not None
        self._mask: Tensor | None = None
        self._stationary: tuple[int, Tensor] | None = None
        self._kept_rows: tuple[int, Rows] | None = None
        self._checked: int | None = None
        self.features = features
        self.state_names = state_names
        shape = rows.shape[:-1] if isinstance(rows, Tensor) else self.compressed.rows_shape
        self.batch_shape: torch.Size = shape[:-1]
        self.num_states: int = shape[-1]

    def __getstate__(self) -> dict[str, Any]:
        # Cached rows belong to a version of the chain's tensor, but the versions of a copy are counted from zero.
        return super().__getstate__() | {"_stationary": None, "_kept_rows": None, "_checked": None}

    # --- what it is
    @property
    def is_sparse(self) -> bool:
        """Whether only some entries of the transition rows are stored."""
        return not isinstance(self._rows, Tensor)

    @property
    def parameter(self) -> Tensor:
        """The tensor through which gradients flow: `transition` if dense, `values` if sparse."""
        return self._rows if isinstance(self._rows, Tensor) else self._rows.values

    @property
    def dtype(self) -> torch.dtype:
        """float32 or float64."""
        return self.parameter.dtype

    @property
    def device(self) -> torch.device:
        """Where the chain lives."""
        return self.parameter.device

    @property
    def transition(self) -> Tensor:
        """Transition matrices (*batch, n, n) of a dense chain; zero rows at padded states."""
        if isinstance(self._rows, Tensor):
            return self._rows
        raise AttributeError("transition: this chain has the sparse layout. Use chain.to_dense().transition.")

    @property
    def compressed(self) -> Compressed:
        """Row pointers, column indices and values of a sparse chain."""
        if isinstance(self._rows, Tensor):
            raise AttributeError("indptr, indices, values: this chain has the dense layout. Use chain.transition.")
        # They are checked once, and again if somebody wrote into them, since compiled loops follow them blindly.
        written = _writes(self._rows.indptr) + _writes(self._rows.indices)
        if self._checked != written:
            compressed.check("rows", self._rows)
            self._checked = written
        return self._rows

    @property
    def indptr(self) -> Tensor:
        """Row pointers (*batch, n+1) of a sparse chain; row i: `values[indptr[..., i]:indptr[..., i+1]]`."""
        return self.compressed.indptr

    @property
    def indices(self) -> Tensor:
        """The target states of the stored entries of a sparse chain, (nnz,)."""
        return self.compressed.indices

    @property
    def values(self) -> Tensor:
        """The stored probabilities of a sparse chain, (nnz,)."""
        return self.compressed.values

    @property
    def sizes(self) -> Tensor:
        """Numbers of real states, int64 (*batch,)."""
        if self._sizes is None:
            self._sizes = torch.full(self.batch_shape, self.num_states, device=self.device)
        return self._sizes

    @property
    def is_padded(self) -> bool:
        """Whether this is a stack, so that some states may be padding."""
        return self._padded

    @property
    def mask(self) -> Tensor:
        """True at real states, bool (*batch, n)."""
        if self._mask is None:
            self._mask = torch.arange(self.num_states, device=self.device) < self.sizes[..., None]
        return self._mask

    @property
    def initial_law(self) -> str:
        """Where the initial law comes from: "stationary", "uniform" or "given"."""
        return self._initial if isinstance(self._initial, str) else "given"

    @property
    def initial(self) -> Tensor:
        """The initial law (*batch, n), zero at padded states.

        A stationary law is computed at the first use, with its gradient in the transition probabilities.

        Raises:
            ValueError: the law is the stationary one, which is not unique.
        """
        if isinstance(self._initial, Tensor):
            return self._initial
        if self._initial == "uniform":
            return self.mask.to(self.dtype) / self.sizes[..., None]
        version = self._version
        if self._stationary is None or self._stationary[0] != version or version < 0:
            mask = self.mask if self._padded else None
            if isinstance(self._rows, Tensor):
                self._stationary = version, stationary.of_dense(self._rows, mask)
            else:
                self._stationary = version, stationary.of_compressed(self.compressed, mask)
        law = self._stationary[1]
        if version < 0:
            self._stationary = None
        return law

    def rows(self) -> Rows:
        """The positive probabilities for transport engines: float64, detached, the batch flattened.

        Rows are divided by their sums, so that these are one in float64. The result is kept, with the layouts that
        engines add, as long as the chain's tensor carries no gradient and nobody writes into it.
        """
        version = self._version
        if self._kept_rows is not None and version >= 0 and self._kept_rows[0] == version:
            return self._kept_rows[1]
        rows = self._make_rows()
        self._kept_rows = (version, rows) if version >= 0 else None
        return rows

    @property
    def _version(self) -> int:
        """Counts the writes into the chain's tensor; -1 where nothing may be kept."""
        parameter = self._rows if isinstance(self._rows, Tensor) else self.compressed.values
        if is_wrapped(parameter) or parameter.requires_grad or parameter.is_inference():
            return -1
        return _writes(parameter) + (self._checked or 0)

    def _make_rows(self) -> Rows:
        sizes, values = self.sizes.reshape(-1), self.parameter.detach().double()
        if isinstance(self._rows, Tensor):
            return dense_rows(values, sizes)
        return stored_rows(self.compressed._replace(values=values), sizes)

    def outside_inference(self) -> Self:
        """This chain; outside inference mode, tensors made inside are copied, since autograd cannot keep them."""
        if torch.is_inference_mode_enabled() or not any(_of_inference(part) for part in vars(self).values()):
            return self
        rows = self._rows if isinstance(self._rows, Tensor) else Compressed(*map(_copied, self._rows))
        return self._replace(_copied(rows) if isinstance(rows, Tensor) else rows, _copied)

    # --- conversions
    def _replace(self, rows: Tensor | Compressed, change: Callable[[Tensor], Tensor]) -> Self:
        """The same chain with other rows, all other tensors changed by `change`."""
        return type(self)(
            rows,
            initial=self._initial if isinstance(self._initial, str) else change(self._initial),
            features=None if self.features is None else change(self.features),
            state_names=self.state_names,
            sizes=change(self.sizes) if self._padded else None,
        )

    def to_dense(self) -> Self:
        """The same chain in the dense layout, differentiable in the stored values of this one."""
        if isinstance(self._rows, Tensor):
            return self
        return self._replace(self.compressed.to_dense(), lambda tensor: tensor)

    def detach(self) -> Self:
        """The same chain, cut off from the tensors it was made from."""
        if isinstance(self._rows, Tensor):
            return self._replace(self._rows.detach(), Tensor.detach)
        return self._replace(self.compressed._replace(values=self.values.detach()), Tensor.detach)

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """The same chain on another device, or in float32 or float64; arguments as for `torch.Tensor.to`.

        Integer features stay integers. Differentiable.

        Raises:
            TypeError: a dtype other than float32 and float64.
        """
        probe = self.parameter.detach().new_empty(0).to(*args, **kwargs)
        validate.floating("to", validate.usable("to", probe))

        def change(tensor: Tensor) -> Tensor:
            return tensor.to(probe.device, probe.dtype if tensor.is_floating_point() else tensor.dtype)

        if isinstance(self._rows, Tensor):
            return self._replace(change(self._rows), change)
        return self._replace(Compressed(*map(change, self.compressed)), change)

    def __len__(self) -> int:
        if not self.batch_shape:
            raise TypeError("len(): this is a single chain, not a batch. Its size is num_states.")
        return self.batch_shape[0]

    def __getitem__(self, index: int) -> Self:
        """Item `index` of a one-dimensional batch, without its padding; differentiable."""
        if len(self.batch_shape) != 1:
            raise TypeError(
                f"chain[{index}]: only batches with one dimension have items; this one has {tuple(self.batch_shape)}."
            )
        if not -len(self) <= index < len(self):
            raise IndexError(f"chain[{index}]: the batch has {len(self)} chains.")
        index %= len(self)
        n = int(self.sizes[index])
        rows: Tensor | Compressed
        if isinstance(self._rows, Tensor):
            rows = self._rows[index, :n, :n]
        else:
            indptr = self.indptr[index, : n + 1]
            low, high = int(indptr[0]), int(indptr[-1])
            rows = Compressed(indptr - low, self.indices[low:high], self.values[low:high])
        return type(self)(
            rows,
            initial=self._initial if isinstance(self._initial, str) else self._initial[index, :n],
            features=None if self.features is None else self.features[index, :n],
            state_names=None if self.state_names is None else self.state_names[index],
        )

    def __repr__(self) -> str:
        size = f"{self.num_states} state{'s' * (self.num_states != 1)}"
        if self.batch_shape:
            size = f"batch {tuple(self.batch_shape)} of {'up to ' if self._padded else ''}{size}"
        layout = f"sparse with {len(self.values)} entries" if self.is_sparse else "dense"
        parts = [size, layout, f"initial law {self.initial_law}"]
        if self.features is not None:
            parts.append(f"features {tuple(self.features.shape)}")
        return f"MarkovChain({', '.join([*parts, str(self.dtype).removeprefix('torch.'), str(self.device)])})"


def _writes(tensor: Tensor) -> int:
    """How often somebody wrote into a tensor, as far as torch knows."""
    return 0 if tensor.is_inference() or is_wrapped(tensor) else tensor._version


def _of_inference(part: Any) -> bool:
    """Whether a part of a chain (tensors, or a tuple with some) is from inference mode: autograd cannot keep it."""
    if isinstance(part, tuple):
        return any(_of_inference(one) for one in part)
    return isinstance(part, Tensor) and part.is_inference() and not is_wrapped(part)


def _copied(tensor: Tensor) -> Tensor:
    return tensor.clone() if _of_inference(tensor) else tensor


def dense_rows(transition: Tensor, sizes: Tensor) -> Rows:
    """The probabilities of float64 matrices (*batch, n, n) that are not negligible; each row is made to sum to one."""
    n = transition.shape[-1]
    flat = transition.reshape(-1, n)
    owner, indices = torch.nonzero(~(flat.abs() <= NEGLIGIBLE), as_tuple=True)  # NaN is kept, and found
    values = (flat / validate.sums(flat)[:, None])[owner, indices]
    return Rows(sizes, compressed.pointers(owner, (len(sizes), n)), indices, values)


def stored_rows(stored: Compressed, sizes: Tensor) -> Rows:
    """The same as `dense_rows`, for float64 matrices in compressed rows."""
    shape = (len(sizes), stored.rows_shape[-1])
    owner = stored.owner()
    values = stored.values / stored.row_sums(owner).reshape(-1)[owner]
    if bool((values > NEGLIGIBLE).all()):
        return Rows(sizes, stored.indptr.reshape(-1, shape[1] + 1), stored.indices, values)
    keep = ~(values <= NEGLIGIBLE)
    return Rows(sizes, compressed.pointers(owner[keep], shape), stored.indices[keep], values[keep])
