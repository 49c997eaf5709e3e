"""From chains and costs as they are handed in to what solvers take: items in a row, float64, and what they share."""

from typing import NamedTuple

import torch
from torch import Tensor

from markovot import validate
from markovot.adjoint import Entries
from markovot.chains import MarkovChain
from markovot.transport.rows import Rows


class Pairing(NamedTuple):
    """The chains of a batch of P pairs: the fields of `adjoint.Problem` that are not differentiable."""

    rows: tuple[Rows, Rows]  # of the chains X, and of the chains Y
    pairs: tuple[Tensor, Tensor]  # int64 (P,) each: which chain of X and of Y an item takes
    entries: tuple[Entries, Entries]  # where the rows may vary
    mask: Tensor | None  # bool (P, n, m): pairs of real states; None: all


def pairing(x: MarkovChain, y: MarkovChain, batch: torch.Size) -> Pairing:
    """Lay out the chains for the items of a batch."""
    pair_x, pair_y = _items(x.batch_shape, batch, x.device), _items(y.batch_shape, batch, x.device)
    entries = _entries(x), _entries(y)
    mask = None
    if x.is_padded or y.is_padded:
        mask = entries[0].mask[pair_x][:, :, None] & entries[1].mask[pair_y][:, None, :]
    return Pairing((x.rows(), y.rows()), (pair_x, pair_y), entries, mask)


def _items(own: torch.Size, batch: torch.Size, device: torch.device) -> Tensor:
    """For each item of the result, the chain it takes from a batch of shape `own`."""
    return torch.arange(own.numel(), device=device).view(own).expand(batch).reshape(-1)


def _entries(chain: MarkovChain) -> Entries:
    n = chain.num_states
    mask = chain.mask.reshape(-1, n)
    if not chain.is_sparse:
        return Entries(None, mask)
    ones = torch.ones_like(chain.values, dtype=torch.float64, requires_grad=False)
    return Entries(Rows(chain.sizes.reshape(-1), chain.indptr.reshape(-1, n + 1), chain.indices, ones), mask)


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
    return Common(
        ground.double().expand(*batch, n, m).reshape(-1, n, m),
        _rows_of(x),
        _rows_of(y),
        validate.normalised(x.initial).expand(*batch, n).reshape(-1, n),
        validate.normalised(y.initial).expand(*batch, m).reshape(-1, m),
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
