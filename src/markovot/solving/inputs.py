"""Turn chains and costs from the user into what solvers take: one list of items, in float64, each in its own unit."""

from typing import NamedTuple

import torch
from torch import Tensor

from markovot import validate
from markovot.autograd.transforms import is_wrapped, outside, plain
from markovot.chains import MarkovChain
from markovot.solving.bellman import cost_limits
from markovot.solving.problem import Entries, Pairing
from markovot.transport.rows import Rows
from markovot.transport.units import Measured, Unit, measure

Chains = tuple[MarkovChain, MarkovChain]


class Prepared(NamedTuple):
    """A batch, ready to be solved."""

    chains: Chains
    batch: torch.Size
    ground: Tensor  # (P, n, m), in its unit
    x: Tensor  # transitions (B, n, n), or stored values (nnz,)
    y: Tensor
    epsilon: Tensor  # (P,), in the unit
    unit: Unit
    pairing: Pairing

    def laws(self) -> tuple[Tensor, Tensor]:
        """The initial laws, (P, n) and (P, m)."""
        x, y = (_law_of(name, chain) for name, chain in zip("xy", self.chains, strict=True))
        return self.items(x, x.shape[-1]), self.items(y, y.shape[-1])

    def items(self, parameter: Tensor, *sizes: int) -> Tensor:
        """A parameter (*batch, *sizes) by broadcasting, as one for each item."""
        return parameter.expand((*self.batch, *sizes)).reshape(self.batch.numel(), *sizes)


def prepared(
    chains: Chains,
    ground: Tensor,
    epsilon: Tensor,
    parameters: dict[str, torch.Size] | None = None,
    *,
    bounded: bool = True,
) -> Prepared:
    """Lay a batch out; autograd undoes the broadcasting.

    Args:
        chains: checked.
        ground: costs (*batch, n, m), checked.
        epsilon: (*batch).
        parameters: the batch shapes of other parameters by name.
        bounded: whether the costs of all transport problems stay within the limits of the ground costs.

    Raises:
        ValueError: batches that do not broadcast.
    """
    x, y = chains
    batch = _batch_shape(ground.shape[:-2], (parameters or {}) | {"epsilon": epsilon.shape})
    n, m = x.num_states, y.num_states
    place = _pairing(x, y, batch)
    costs = ground.double().expand(*batch, n, m).reshape(-1, n, m)
    scale = measured(costs, epsilon.expand(batch).reshape(-1), place.mask, bounded=bounded)
    hidden = is_wrapped(x.parameter) or is_wrapped(y.parameter)
    pairing = place._replace(known=None if hidden else (x.rows(), y.rows()))
    return Prepared(chains, batch, scale.ground, _rows_of(x), _rows_of(y), scale.epsilon, scale.unit, pairing)


def measured(ground: Tensor, epsilon: Tensor, mask: Tensor | None, *, bounded: bool = True) -> Measured:
    """Costs (P, n, m) and epsilon in the unit of each item; unchanged inside a transform, which hides the numbers."""
    if is_wrapped(ground) or is_wrapped(epsilon):
        return Measured(ground, epsilon, Unit())
    return measure(ground, epsilon, cost_limits(ground.detach(), mask), bounded=bounded)


def _batch_shape(chains_and_cost: torch.Size, parameters: dict[str, torch.Size]) -> torch.Size:
    """The common batch shape of the chains with their cost, and of the parameters by name, or `ValueError`."""
    try:
        return validate.broadcast(chains_and_cost, *parameters.values())
    except ValueError:
        shapes = ", ".join(f"{tuple(shape)} ({name})" for name, shape in parameters.items())
        raise ValueError(
            f"{', '.join(parameters)}: batches of shapes {shapes} and {tuple(chains_and_cost)} (chains and cost) do "
            "not broadcast. Give numbers, or one value for each item."
        ) from None


def _pairing(x: MarkovChain, y: MarkovChain, batch: torch.Size) -> Pairing:
    """Which chains each item of a batch pairs; plain numbers, also inside a transform."""
    with outside():
        pairs = _items(x.batch_shape, batch, x.device), _items(y.batch_shape, batch, x.device)
        entries = _entries(x), _entries(y)
        mask = None
        if x.is_padded or y.is_padded:
            mask = entries[0].mask[pairs[0]][:, :, None] & entries[1].mask[pairs[1]][:, None, :]
        return Pairing(pairs, entries, mask, None)


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


def _rows_of(chain: MarkovChain) -> Tensor:
    rows = chain.parameter.double()
    return rows if chain.is_sparse else rows.reshape(-1, *rows.shape[-2:])


def _law_of(name: str, chain: MarkovChain) -> Tensor:
    with validate.named(name):
        return validate.normalised(chain.initial)
