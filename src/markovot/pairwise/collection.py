"""A set of chains, checked once, as plain arrays: each distinct chain is kept once, and invalid ones are named."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from markovot import validate
from markovot._arrays import FloatArray, IntArray
from markovot.chains import converted
from markovot.costs import Cost, Given


class Packed(NamedTuple):
    """One chain: rows in compressed form that sum to one in float64, initial law, features (n,) or (n, p) if any."""

    indptr: IntArray
    indices: IntArray
    weight: FloatArray
    law: FloatArray
    features: NDArray[Any] | None

    @property
    def num_states(self) -> int:
        """The number of states."""
        return len(self.law)

    @property
    def num_entries(self) -> int:
        """The number of positive transition probabilities."""
        return len(self.weight)

    def digest(self) -> bytes:
        """A fingerprint: equal for identical chains only."""
        digest = hashlib.sha256()
        for part in self:
            if part is not None:
                digest.update(f"{part.dtype.str}{part.shape}".encode())
                digest.update(np.ascontiguousarray(part).tobytes())
        return digest.digest()


@dataclass(frozen=True, eq=False)
class Collection:
    """The chains that the user gave: chain i is `chains[which[i]]`; `which[i]` is -1 if it is invalid."""

    chains: list[Packed]
    digests: list[bytes]
    which: IntArray
    reasons: dict[int, str]

    def first(self) -> IntArray:
        """For each distinct chain, the number of the first given chain that is equal to it."""
        found = np.zeros(len(self.chains) + 1, dtype=np.int64)  # the last place takes the invalid ones
        found[self.which[::-1]] = np.arange(len(self.which))[::-1]
        return found

    def fingerprint(self) -> str:
        """A fingerprint of all chains, in their order."""
        digest = hashlib.sha256(self.which.tobytes())
        for one in self.digests:
            digest.update(one)
        return digest.hexdigest()


def collect(name: str, chains: Sequence[Any], cost: Cost, like: Collection | None = None) -> Collection:
    """Check and pack chains.

    Distinct chains are sorted by size and content. The order of two chains decides how their pair is solved; sorted
    like this, it does not depend on the rest of the set.

    Args:
        name: of the argument, for messages.
        chains: what the user gave.
        cost: the cost that will compare their features.
        like: a collection whose features these must match.

    Raises:
        TypeError: not a sequence.
        ValueError: no chains, or none that can be used.
    """
    packed, reasons = _pack_all(name, chains, cost)
    first = next((chain for chain in packed if chain is not None), None) if like is None else like.chains[0]
    for number, chain in enumerate(packed):
        if chain is not None and first is not None and (reason := _mismatch(chain, first)):
            reasons[number], packed[number] = reason, None
    if len(reasons) == len(packed):
        raise ValueError(f"{name}: not one can be used. Number 0: {reasons[0]}")
    distinct: dict[bytes, Packed] = {}
    digests = [b"" if chain is None else chain.digest() for chain in packed]
    for digest, chain in zip(digests, packed, strict=True):
        if chain is not None:
            distinct.setdefault(digest, chain)
    order = sorted(distinct, key=lambda digest: (distinct[digest].num_entries, distinct[digest].num_states, digest))
    place = {digest: number for number, digest in enumerate(order)} | {b"": -1}
    which = np.array([place[digest] for digest in digests], dtype=np.int64)
    return Collection([distinct[digest] for digest in order], order, which, dict(sorted(reasons.items())))


def _pack_all(name: str, chains: Sequence[Any], cost: Cost) -> tuple[list[Packed | None], dict[int, str]]:
    try:
        given = list(chains)
    except TypeError:
        raise TypeError(
            f"{name}: expected a sequence of chains, got {type(chains).__name__}. Give a list, even of one chain."
        ) from None
    if not given:
        raise ValueError(f"{name}: there are none. Give at least one chain.")
    packed: list[Packed | None] = []
    reasons: dict[int, str] = {}
    for number, one in enumerate(given):
        try:
            packed.append(pack(one, cost))
        except (TypeError, ValueError) as error:
            reasons[number] = str(error)
            packed.append(None)
    return packed, reasons


def pack(obj: Any, cost: Cost) -> Packed:
    """One chain as arrays.

    Raises:
        TypeError: not a chain.
        ValueError: bad probabilities, a batch, no features, an initial law that is not unique.
    """
    chain = converted(obj)
    if chain.batch_shape:
        raise ValueError(f"chain: it is a batch of shape {tuple(chain.batch_shape)}. Give single chains.")
    chain = chain.detach().to("cpu") if chain.device.type != "cpu" else chain
    rows = chain.rows()
    features = None
    if isinstance(cost, Given):
        shape = tuple(cost().shape)
        if shape != (chain.num_states, chain.num_states):
            raise ValueError(
                f"cost: the given matrix has shape {shape}, but the chain {chain.num_states} states. A matrix serves "
                "chains on one and the same set of states; else use a cost that compares features."
            )
    elif chain.features is None:
        raise ValueError(
            "cost: it compares features, but the chain has none. Give them to MarkovChain.from_...(features=...)."
        )
    else:
        features = chain.features.detach().numpy()
    with torch.no_grad():
        law = validate.normalised(chain.initial)
    return Packed(rows.indptr[0].numpy(), rows.indices.numpy(), rows.values.numpy(), law.numpy(), features)


def _mismatch(chain: Packed, first: Packed) -> str | None:
    """Why the features of a chain cannot be compared with those of another; None if they can."""
    if chain.features is None or first.features is None:
        return None
    if chain.features.shape[1:] == first.features.shape[1:] and chain.features.dtype == first.features.dtype:
        return None
    return (
        f"features: {chain.features.dtype} {chain.features.shape}, but those of the first chain are "
        f"{first.features.dtype} {first.features.shape}. All must be labels, or vectors of one length, of one dtype"
    )
