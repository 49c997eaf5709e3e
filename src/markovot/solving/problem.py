"""The types that solvers take (a batch of pairs of chains, as one list of items) and return."""

from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from markovot.chains import base
from markovot.chains.compressed import Compressed
from markovot.solution import Status
from markovot.transport.rows import Rows
from markovot.transport.single import Coupled

T = TypeVar("T")
Given = TypeVar("Given", bound=tuple[Any, ...])
Plans = tuple[Tensor, Tensor, Tensor]  # rows i*m+j, columns k*m+l, and the masses there


class Entries(NamedTuple):
    """Where the rows of a chain may vary: at stored entries (pattern), or everywhere (None); and the real states."""

    pattern: Rows | None
    mask: Tensor  # bool (B, n)

    def rows(self, parameter: Tensor) -> Rows:
        """The positive probabilities among the values of the entries, as `MarkovChain.rows` gives them."""
        if self.pattern is None:
            return base.dense_rows(parameter, self.mask.sum(1))
        stored = Compressed(self.pattern.indptr, self.pattern.indices, parameter)
        return base.stored_rows(stored, self.pattern.sizes)

    def repeated(self, size: int) -> "Entries":
        """The entries of `size` copies of the chains, one after another."""
        mask, pattern = self.mask.repeat(size, 1), self.pattern
        if pattern is None:
            return Entries(None, mask)
        count, (batch, width) = len(pattern.indices), pattern.indptr.shape
        start = count * torch.arange(size, device=mask.device)[:, None, None]
        indptr = (start + pattern.indptr).view(size * batch, width)
        return Entries(
            Rows(pattern.sizes.repeat(size), indptr, pattern.indices.repeat(size), pattern.values.repeat(size)), mask
        )


class Pairing(NamedTuple):
    """Which chains of a batch of P pairs meet, and their rows: all that is not differentiable."""

    pairs: tuple[Tensor, Tensor]  # int64 (P,) each: which chain of X and of Y an item takes
    entries: tuple[Entries, Entries]  # where the rows may vary
    mask: Tensor | None  # bool (P, n, m): pairs of real states; None: all
    known: tuple[Rows, Rows] | None  # the rows; None inside a transform, where they are made from the inputs

    @property
    def rows(self) -> tuple[Rows, Rows]:
        """The rows of the chains X, and of the chains Y."""
        assert self.known is not None, "made from the inputs by `filled`"
        return self.known

    def filled(self, x: Tensor, y: Tensor) -> "Pairing":
        """The same pairing with its rows; where these are not known, they are made from the chains' parameters."""
        if self.known is not None:
            return self
        return self._replace(known=(self.entries[0].rows(x), self.entries[1].rows(y)))

    def chains(self, item: int) -> tuple[Rows, Rows]:
        """The two chains of an item, without padding."""
        return self.rows[0].alone(int(self.pairs[0][item])), self.rows[1].alone(int(self.pairs[1][item]))

    def repeated(self, size: int) -> "Pairing":
        """The pairing of `size` copies of the batch, one after another; each copy has its own chains."""
        pairs = tuple(
            (len(entries.mask) * torch.arange(size, device=pair.device)[:, None] + pair).flatten()
            for pair, entries in zip(self.pairs, self.entries, strict=True)
        )
        mask = None if self.mask is None else self.mask.repeat(size, 1, 1)
        entries = self.entries[0].repeated(size), self.entries[1].repeated(size)
        return Pairing((pairs[0], pairs[1]), entries, mask, None)


class Inputs(NamedTuple, Generic[T]):
    """One field for each tensor in which the distance of depth infinity is differentiable.

    A field holds the tensor (float64, one item of the batch after another), or whether it wants a gradient, or that
    gradient.
    """

    ground: T  # (P, n, m)
    x: T  # transitions (B, n, n), or stored values (nnz,)
    y: T
    initial_x: T  # (P, n)
    initial_y: T  # (P, m)
    discount: T  # (P,)
    epsilon: T  # (P,)


class Problem(NamedTuple, Generic[Given]):
    """What to solve: the inputs, and which chains meet."""

    inputs: Given
    pairing: Pairing


class Solved(Protocol):
    """What every solver of chains returns for the P items of a problem, with all that derivatives need."""

    problem: Problem[Any]
    wanted: Tensor  # (P,), the error that was to be reached

    @property
    def value(self) -> Tensor:
        """The middles of the certified intervals, (P,)."""

    @property
    def error_bound(self) -> Tensor:
        """Half the widths of the certified intervals, (P,)."""

    @property
    def status(self) -> list[Status]:
        """How each item ended."""

    @property
    def num_iter(self) -> Tensor:
        """Sweeps over all local problems, int64 (P,)."""

    @property
    def last_step(self) -> float:
        """The number of the last step of the coupled chains: infinite where there is no limit."""

    def alignment(self) -> Tensor:
        """The law of the optimally coupled states, a probability on pairs of them, (P, n, m)."""

    def couplings(self, item: int, step: int) -> Plans:
        """All local plans of an item at a step."""

    def outputs(self) -> tuple[Tensor, ...]:
        """The tensors that autograd sees as the result."""

    def pullback(self, *needed_and_grads: Any) -> tuple[Tensor | None, ...]:
        """The gradients in the inputs, from those in the outputs; only the needed ones are computed."""


class Walked(Solved, Protocol):
    """What solvers of distances return: there, chains begin in their initial laws and stop at some time."""

    cost_to_go: Tensor  # (P, n, m), zero at padding
    outer: Coupled

    @property
    def cost_error(self) -> Tensor:
        """The certified error of every entry of `cost_to_go`, (P,)."""


class Outputs(NamedTuple):
    """The results of a distance for P items; the first two are differentiable."""

    value: Tensor  # (P,)
    cost_to_go: Tensor  # (P, n, m)
    error_bound: Tensor  # (P,)
    num_iter: Tensor  # int64 (P,)
    plan: Tensor  # (P, n, m)
    f: Tensor  # (P, n)
    g: Tensor  # (P, m)

    @classmethod
    def of(cls, solved: Walked) -> "Outputs":
        """The outputs of a solved batch."""
        outer = solved.outer
        return cls(
            solved.value, solved.cost_to_go, solved.error_bound, solved.num_iter, outer.plan, outer.f, outer.g
        )
