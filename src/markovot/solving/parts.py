"""Batches cut into parts, so that each item is solved as it would be alone.

The other items of a batch could change how an item is solved: by which engine, which of its two chains goes into the
lanes, whether the loop runs in compiled code. So small items that agree in all three are solved side by side, where
neither the others nor the padding matter to an item; all other items are solved alone, without padding. A batch stays
whole on devices other than the CPU, which are fast only side by side, and inside transforms, which hide the numbers.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from markovot.autograd.transforms import is_wrapped
from markovot.solving.problem import Entries, Given, Pairing, Plans
from markovot.transport.engines import DENSE_DEGREE
from markovot.transport.rows import Rows
from markovot.transport.single import COMPILED_STATES
from markovot.transport.threads import WHOLE_ENTRIES

Cut = tuple[slice, ...]


class Part(NamedTuple):
    """Some items of a batch, as a batch of their own."""

    items: Tensor | None  # places of the items in the batch, int64; None: the whole batch
    shape: tuple[int, int]  # n and m
    pairing: Pairing
    cuts: tuple[Cut, Cut]  # which of the parameters of the chains X and Y belong to the part

    def take(self, given: Given) -> Given:
        """The inputs of the part, from those of the batch (a named tuple of tensors)."""
        if self.items is None:
            return given
        (n, m), items = self.shape, self.items
        own = {
            "ground": lambda costs: costs[items][:, :n, :m],
            "x": lambda rows: rows[self.cuts[0]],
            "y": lambda rows: rows[self.cuts[1]],
            "initial_x": lambda law: law[items, :n],
            "initial_y": lambda law: law[items, :m],
        }
        names: tuple[str, ...] = given._fields  # type: ignore[attr-defined]
        cut = (own[name](part) if name in own else part[items] for name, part in zip(names, given, strict=True))
        return type(given)(*cut)

    def entries(self, found: Plans, m: int) -> Plans:
        """Couplings of an item, numbered as in the batch, whose chains Y have m states."""
        row, column, mass = found
        own = self.shape[1]
        return row // own * m + row % own, column // own * m + column % own, mass


def divide(pairing: Pairing, inputs: Any) -> list[Part]:
    """Cut a batch into parts.

    Args:
        pairing: the pairing of the batch.
        inputs: the inputs of the batch, with fields `ground` and `epsilon`.
    """
    whole = Part(None, inputs.ground.shape[-2:], pairing, ((), ()))
    rows = pairing.known
    if rows is None or len(pairing.pairs[0]) < 2 or rows[0].values.device.type != "cpu" or is_wrapped(inputs.ground):
        return [whole]
    exact = bool((inputs.epsilon.detach() == 0).all())
    kind = _kinds(pairing.pairs, rows, exact)
    if (kind >= 0).all() and (kind == kind[0]).all():
        return [whole]
    each = [alone(item, pairing) for item in np.flatnonzero(kind < 0).tolist()]
    groups = [np.flatnonzero(kind == k) for k in range(2)]
    return [_together(items, whole) for items in groups if len(items)] + each


def _kinds(pairs: tuple[Tensor, Tensor], rows: tuple[Rows, Rows], exact: bool) -> Any:
    """For each item: -1 if it is to be solved alone; otherwise 1 if its two chains change sides, 0 if not."""
    x, y = (pair.numpy() for pair in pairs)
    entries, fullness, size, largest = (
        [values(side).numpy()[pair] for side, pair in zip(rows, (x, y), strict=True)]
        for values in (_num_entries, lambda side: side.fullness, lambda side: side.sizes, _most)
    )
    if exact:
        return np.where(entries[0] * entries[1] <= WHOLE_ENTRIES, 0, -1)
    swapped = fullness[0] < fullness[1]
    lanes = np.where(swapped, entries[0] + 8 * largest[0], entries[1] + 8 * largest[1])
    work = np.where(swapped, entries[1], entries[0]) * lanes  # no less than the entries of its plans, in lanes
    small = (work <= WHOLE_ENTRIES) & (np.maximum(*size) <= COMPILED_STATES)
    sparse = np.minimum(*fullness) < DENSE_DEGREE
    return np.where(small & sparse, swapped.astype(np.int64), -1)


def _num_entries(rows: Rows) -> Tensor:
    return rows.indptr[:, -1] - rows.indptr[:, 0]


def _most(rows: Rows) -> Tensor:
    return rows.degrees.amax(1)


def _together(items: Any, whole: Part) -> Part:
    places, pairing = torch.from_numpy(items), whole.pairing
    pairs = pairing.pairs[0][places], pairing.pairs[1][places]
    mask = None if pairing.mask is None else pairing.mask[places]
    return whole._replace(items=places, pairing=pairing._replace(pairs=pairs, mask=mask))


def alone(item: int, pairing: Pairing) -> Part:
    """One item of a batch, without its padding."""
    chains = tuple(int(pair[item]) for pair in pairing.pairs)
    own = pairing.chains(item)
    shape = own[0].num_states, own[1].num_states
    entries, cuts = zip(*map(_entries_alone, pairing.entries, chains, shape), strict=True)
    first = torch.zeros(1, dtype=torch.int64, device=own[0].values.device)
    return Part(first + item, shape, Pairing((first, first), entries, None, own), cuts)


def _entries_alone(entries: Entries, chain: int, n: int) -> tuple[Entries, Cut]:
    mask, pattern = torch.ones(1, n, dtype=torch.bool, device=entries.mask.device), entries.pattern
    if pattern is None:
        return Entries(None, mask), (slice(chain, chain + 1), slice(n), slice(n))
    first, last = int(pattern.indptr[chain, 0]), int(pattern.indptr[chain, -1])
    return Entries(pattern.alone(chain), mask), (slice(first, last),)


def joined(parts: Sequence[Part], values: Sequence[Tensor], *sizes: int) -> Tensor:
    """Values of the items of the parts (k, *) as those of the batch, padded with zeros to the sizes; differentiable."""
    if parts[0].items is None:
        return values[0]
    places = torch.cat([part.items for part in parts if part.items is not None])
    return torch.cat([_padded(value, sizes) for value in values])[torch.argsort(places)]


def _padded(value: Tensor, sizes: tuple[int, ...]) -> Tensor:
    missing = [size - own for size, own in zip(sizes, value.shape[1:], strict=True)]
    return pad(value, [width for size in reversed(missing) for width in (0, size)]) if any(missing) else value


def located(parts: Sequence[Part], item: int) -> tuple[int, int]:
    """The part that holds an item, and the place of the item in it."""
    for number, part in enumerate(parts):
        if part.items is None:
            return number, item
        place = (part.items == item).nonzero()
        if len(place):
            return number, int(place)
    raise AssertionError("every item is in a part")


def listed(parts: Sequence[Part], values: Callable[[int], Sequence[Any]]) -> list[Any]:
    """A list with one value for each item of the batch, where `values(k)` lists those of part k."""
    if parts[0].items is None:
        return list(values(0))
    pairs = [
        (int(place), value)
        for number, part in enumerate(parts)
        if part.items is not None
        for place, value in zip(part.items, values(number), strict=True)
    ]
    return [value for _, value in sorted(pairs, key=lambda pair: pair[0])]
