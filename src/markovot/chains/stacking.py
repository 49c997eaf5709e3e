"""Several chains as one padded batch: the tensors of the batch, from those of its parts."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from markovot import validate
from markovot.chains.compressed import Compressed


def stacked(chains: list[Any]) -> dict[str, Any]:
    """Check the parts, and return what MarkovChain's constructor takes for the batch."""
    if not chains:
        raise ValueError("chains: there are none. Stack at least one chain.")
    for k, chain in enumerate(chains):
        if chain.batch_shape:
            raise ValueError(f"chains: number {k} is a batch of shape {tuple(chain.batch_shape)}. Stack single chains.")
        validate.same_kind(f"chains: number {k}", chain.parameter, "number 0", chains[0].parameter)
    n = max(chain.num_states for chain in chains)
    every_sparse = all(chain.is_sparse for chain in chains)
    return {
        "rows": _stack_compressed(chains, n) if every_sparse else _stack_dense(chains, n),
        "initial": _stack_laws(chains, n),
        "features": _stack_features(chains, n),
        "state_names": _stack_names(chains),
        "sizes": torch.tensor([chain.num_states for chain in chains], device=chains[0].device),
    }


def _pad_first(tensor: Tensor, n: int) -> Tensor:
    """Zeros added to the end of the first dimension."""
    return pad(tensor, (0, 0) * (tensor.dim() - 1) + (0, n - len(tensor)))


def _stack_dense(chains: list[Any], n: int) -> Tensor:
    matrices = [chain.to_dense().transition for chain in chains]
    return torch.stack([pad(matrix, (0, n - len(matrix), 0, n - len(matrix))) for matrix in matrices])


def _stack_compressed(chains: list[Any], n: int) -> Compressed:
    pointers, start = [], 0
    for chain in chains:
        own = chain.indptr + start
        start += len(chain.values)
        pointers.append(torch.cat([own, own[-1:].expand(n - chain.num_states)]))
    indices = torch.cat([chain.indices for chain in chains])
    return Compressed(torch.stack(pointers), indices, torch.cat([chain.values for chain in chains]))


def _stack_laws(chains: list[Any], n: int) -> str | Tensor:
    laws = {chain.initial_law for chain in chains}
    if len(laws) == 1 and laws != {"given"}:
        return str(laws.pop())
    return torch.stack([_pad_first(chain.initial, n) for chain in chains])


def _stack_features(chains: list[Any], n: int) -> Tensor | None:
    features = [chain.features for chain in chains]
    if all(f is None for f in features):
        return None
    for k, f in enumerate(features):
        if f is None or features[0] is None:
            without = features.index(None)
            with_ = next(j for j, other in enumerate(features) if other is not None)
            raise ValueError(
                f"chains: number {with_} has features and number {without} has none. Give all of them "
                "features, or none."
            )
        if f.shape[1:] != features[0].shape[1:] or f.dtype != features[0].dtype:
            raise ValueError(
                f"chains: features of number {k} are {f.dtype} {tuple(f.shape)}, but those of number 0 are "
                f"{features[0].dtype} {tuple(features[0].shape)}. All must be labels, or vectors of one "
                "length, of one dtype."
            )
    return torch.stack([_pad_first(f, n) for f in features])


def _stack_names(chains: list[Any]) -> list[Any] | None:
    """The names of each chain; if only some chains have names, the others get the numbers of their states."""
    if all(chain.state_names is None for chain in chains):
        return None
    return [list(range(chain.num_states)) if chain.state_names is None else list(chain.state_names) for chain in chains]
