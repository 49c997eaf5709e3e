"""From chains and costs as they are handed in to what solvers take: items in a row, float64, and what they share."""

from typing import NamedTuple

import torch
from torch import Tensor

from markovot import validate
from markovot.autograd.transforms import is_wrapped, outside, plain
from markovot.chains import MarkovChain, base
from markovot.chains.compressed import Compressed
from markovot.solving.adjoint import Entries
from markovot.solving.bellman import cost_limits
from markovot.transport.rows import Rows
from markovot.transport.units import Measured, Unit, measure


class Layout(NamedTuple):
    """Which chains of a batch of P pairs meet, and where their rows may vary."""

    pairs: tuple[Tensor, Tensor]  # int64 (P,) each: which chain of X and of Y an item takes
    entries: tuple[Entries, Entries]  # where the rows may vary
    mask: Tensor | None  # bool (P, n, m): pairs of real states; None: all

    def repeated(self, size: int) -> "Layout":
        """Of `size` copies of the batch one after another, each with chains of its own."""
        pairs = tuple(
            (len(entries.mask) * torch.arange(size, device=pair.device)[:, None] + pair).flatten()
            for pair, entries in zip(self.pairs, self.entries, strict=True)
        )
        entries = tuple(_repeated_entries(each, size) for each in self.entries)
        mask = None if self.mask is None else self.mask.repeat(size, 1, 1)
        return Layout((pairs[0], pairs[1]), (entries[0], entries[1]), mask)


class Pairing(NamedTuple):
    """The chains of a batch of P pairs: the fields of `adjoint.Problem` that are not differentiable."""

    rows: tuple[Rows, Rows]  # of the chains X, and of the chains Y
    pairs: tuple[Tensor, Tensor]
    entries: tuple[Entries, Entries]
    mask: Tensor | None


def layout(x: MarkovChain, y: MarkovChain, batch: torch.Size) -> Layout:
    """Lay out the chains for the items of a batch; numbers alone, also inside a transform."""
    with outside():
        pairs = _items(x.batch_shape, batch, x.device), _items(y.batch_shape, batch, x.device)
        entries = _entries(x), _entries(y)
        mask = None
        if x.is_padded or y.is_padded:
            mask = entries[0].mask[pairs[0]][:, :, None] & entries[1].mask[pairs[1]][:, None, :]
        return Layout(pairs, entries, mask)


def _repeated_entries(entries: Entries, size: int) -> Entries:
    mask, pattern = entries.mask.repeat(size, 1), entries.pattern
    if pattern is None:
        return Entries(None, mask)
    count, (batch, width) = len(pattern.indices), pattern.indptr.shape
    start = count * torch.arange(size, device=mask.device)[:, None, None]
    indptr = (start + pattern.indptr).view(size * batch, width)
    return Entries(
        Rows(pattern.sizes.repeat(size), indptr, pattern.indices.repeat(size), pattern.values.repeat(size)), mask
    )


def rows_of(parameter: Tensor, entries: Entries) -> Rows:
    """The positive probabilities among the values of the entries, as `MarkovChain.rows` gives them."""
    if entries.pattern is None:
        return base.dense_rows(parameter, entries.mask.sum(1))
    pattern = entries.pattern
    return base.stored_rows(Compressed(pattern.indptr, pattern.indices, parameter), pattern.sizes)


def _items(own: torch.Size, batch: torch.Size, device: torch.device) -> Tensor:
    """For each item of the result, the chain it takes from a batch of shape `own`."""
    return torch.arange(own.numel(), device=device).view(own).expand(batch).reshape(-1).contiguous()


def _entries(chain: MarkovChain) -> Entries:
    n = chain.num_states
    mask = plain(chain.mask).reshape(-1, n)
    if not chain.is_sparse:
        return Entries(None, mask)
    sizes, indptr, indices = (plain(part) for part in (chain.sizes, chain.indptr, chain.indices))
    ones = torch.ones(len(indices), dtype=torch.float64, device=chain.device)
    return Entries(Rows(sizes.reshape(-1), indptr.reshape(-1, n + 1), indices, ones), mask)


def measured(ground: Tensor, epsilon: Tensor, mask: Tensor | None, *, bounded: bool = True) -> Measured:
    """Costs (P, n, m) and epsilon in units of their own; inside a transform, which hides the numbers, as they are."""
    if is_wrapped(ground) or is_wrapped(epsilon):
        return Measured(ground, epsilon, Unit())
    return measure(ground, epsilon, cost_limits(ground.detach(), mask), bounded=bounded)


class Common(NamedTuple):
    """What every distance of chains is differentiable in: the first fields of its `Inputs`."""

    ground: Tensor  # (P, n, m)
    x: Tensor  # transitions (B, n, n), or stored values (nnz,)
    y: Tensor
    initial_x: Tensor  # (P, n)
    initial_y: Tensor  # (P, m)


def common_inputs(x: MarkovChain, y: MarkovChain, ground: Tensor, batch: torch.Size) -> Common:
    """The cost, the transitions and the initial laws as float64 items in a row; autograd undoes the broadcasting."""
    n, m = x.num_states, y.num_states
    with validate.named("x"):
        law_x = validate.normalised(x.initial)
    with validate.named("y"):
        law_y = validate.normalised(y.initial)
    return Common(
        ground.double().expand(*batch, n, m).reshape(-1, n, m),
        _rows_of(x),
        _rows_of(y),
        law_x.expand(*batch, n).reshape(-1, n),
        law_y.expand(*batch, m).reshape(-1, m),
    )


def _rows_of(chain: MarkovChain) -> Tensor:
    rows = chain.parameter.double()
    return rows if chain.is_sparse else rows.reshape(-1, *rows.shape[-2:])


def batch_shape(chains_and_cost: torch.Size, **parameters: torch.Size) -> torch.Size:
    """The common batch shape of the chains with their cost, and of the parameters by name, or `ValueError`."""
    try:
        return validate.broadcast(chains_and_cost, *parameters.values())
    except ValueError:
        shapes = ", ".join(f"{tuple(shape)} ({name})" for name, shape in parameters.items())
        raise ValueError(
            f"{', '.join(parameters)}: batches of shapes {shapes} and {tuple(chains_and_cost)} (chains and cost) do "
            "not broadcast. Give numbers, or one value for each item."
        ) from None
