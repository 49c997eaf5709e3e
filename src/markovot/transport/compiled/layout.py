"""Lay out transition rows for the compiled kernels."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
import torch

from markovot.transport.compiled.simd import LANES
from markovot.transport.rows import Rows, array


def _once(build: Callable[..., Any]) -> Callable[..., Any]:
    """Keep what `build(rows, *settings)` makes with the rows, which outlive engines."""

    @wraps(build)
    def kept(rows: Rows, *settings: Any) -> Any:
        key = (build.__name__, *(setting for setting in settings if isinstance(setting, int)))
        if key not in rows.layouts:
            rows.layouts[key] = build(rows, *settings)
        return rows.layouts[key]

    return kept


def side_arrays(rows: Rows) -> tuple[Any, Any, Any]:
    """Pointers, indices and weights."""
    return array(rows.indptr), array(rows.indices), array(rows.values)


@_once
def full(rows: Rows) -> Rows:
    """All entries of all rows, for chains of these sizes."""
    batch, n = rows.degrees.shape
    indptr = (torch.arange(batch, device="cpu")[:, None] * n + torch.arange(n + 1, device="cpu")) * n
    indices = torch.arange(n, device="cpu").repeat(batch * n)
    return Rows(rows.sizes, indptr, indices, torch.ones(indices.numel(), dtype=torch.float64, device="cpu"))


@_once
def column_arrays(rows: Rows) -> tuple[Any, Any, Any]:
    """For every state k of every chain: the rows in which it stands, and at which position of the row."""
    batch, n = rows.degrees.shape
    chain, row = (owner.numpy() for owner in rows.owners())
    indptr = rows.indptr.numpy()
    position = np.arange(chain.size) - indptr[chain, row]
    column = chain * n + rows.indices.numpy()
    order = np.argsort(column, kind="stable")
    counts = np.bincount(column, minlength=batch * n).reshape(batch, n)
    pointers = np.zeros((batch, n + 1), dtype=np.int64)
    pointers[:, 1:] = np.cumsum(counts, axis=1)
    pointers += np.concatenate(([0], np.cumsum(counts.sum(axis=1))))[:-1, None]
    return pointers, row[order], position[order]


@_once
def state_order(rows: Rows) -> tuple[Any, Any]:
    """States of each chain sorted by falling degree, cut in groups of eight: (group pointers, states or -1)."""
    degrees = rows.degrees.numpy()
    sizes = rows.sizes.numpy()
    num_groups = -(-sizes // LANES)
    groups = np.concatenate(([0], np.cumsum(num_groups)))
    states = np.full(groups[-1] * LANES, -1, dtype=np.int64)
    for chain, size in enumerate(sizes):
        start = groups[chain] * LANES
        states[start : start + size] = np.argsort(-degrees[chain, :size], kind="stable")
    return groups, states


@_once
def lane_arrays(rows: Rows, order: tuple[Any, Any], column_stride: int) -> tuple[tuple[Any, ...], Any]:
    """The fields of `sweeps.Lanes`, and for each slot its entry in the store of `rows` (-1 for padding).

    Padding repeats the first entry of its state, with zero weight: it reads a real cost, and adds nothing. Lanes that
    stand for no state repeat the first state of their group.
    """
    groups, states = order
    padded = np.where(states >= 0, states, np.repeat(states.reshape(-1, LANES)[:, 0], LANES))
    chain = np.repeat(np.arange(groups.size - 1), np.diff(groups) * LANES)
    indptr = rows.indptr.numpy()
    first = indptr[chain, padded]
    degree = indptr[chain, padded + 1] - first
    width = degree.reshape(-1, LANES).max(axis=1)
    start = np.concatenate(([0], np.cumsum(width * LANES)))
    total_before = np.concatenate(([0], np.cumsum(width)))
    before = total_before[:-1] - np.repeat(total_before[groups[:-1]], np.diff(groups))
    total = total_before[groups[1:]] - total_before[groups[:-1]]

    slot = np.arange(start[-1])
    group = np.repeat(np.arange(width.size), width * LANES)
    lane = slot % LANES
    position = (slot - start[group]) // LANES
    owner = group * LANES + lane
    inside = position < degree[owner]
    entry = first[owner] + np.where(inside, position, 0)
    entry = np.minimum(entry, max(rows.indices.numel() - 1, 0))  # a row without entries in a gradient's pattern
    real = inside & (states[owner] >= 0)
    fields = (
        groups,
        padded * column_stride,
        (states.reshape(-1, LANES) >= 0).sum(axis=1),
        (states >= 0).astype(np.float64),
        width,
        start[:-1],
        before,
        total,
        rows.indices.numpy()[entry] * column_stride,
        np.where(inside, rows.values.numpy()[entry], 0.0),
    )
    return fields, np.where(real, entry, -1)


@_once
def target_arrays(rows: Rows, order: tuple[Any, Any], column_stride: int) -> tuple[Any, ...]:
    """Rows read by columns, in lanes: the fields of `sweeps.Columns` from `states` on.

    States of each chain are sorted by falling number of entries that arrive, in groups of eight that are padded to the
    largest. An arrival says where its entry stands in the lanes of `lane_arrays` (`slot`, from where a chain's begin),
    from which state it comes, and whether it is one (`mask`).
    """
    groups, _ = order
    (_, _, _, _, width, start, before, _, _, _), entries = lane_arrays(rows, order, column_stride)
    n = rows.num_states
    chain, row = (owner.numpy() for owner in rows.owners())
    slots = np.flatnonzero(entries >= 0)
    group = np.repeat(np.arange(width.size), width * LANES)[slots]
    slot = np.empty(chain.size, dtype=np.int64)
    slot[entries[slots]] = LANES * before[group] + slots - start[group]

    target = chain * n + rows.indices.numpy()
    counts = np.bincount(target, minlength=len(rows.sizes) * n).reshape(-1, n)
    arriving = np.argsort(target, kind="stable")
    pointers = np.concatenate(([0], np.cumsum(counts)))
    states = np.zeros(groups[-1] * LANES, dtype=np.int64)
    degree = np.zeros(groups[-1] * LANES, dtype=np.int64)
    first = np.zeros(groups[-1] * LANES, dtype=np.int64)
    for b, size in enumerate(rows.sizes.tolist()):
        part = slice(groups[b] * LANES, groups[b] * LANES + size)
        states[part] = np.argsort(-counts[b, :size], kind="stable")
        degree[part] = counts[b, states[part]]
        first[part] = pointers[b * n + states[part]]
    wide = degree.reshape(-1, LANES).max(axis=1)
    begin = np.concatenate(([0], np.cumsum(wide * LANES)))
    place = np.arange(begin[-1])
    group = np.repeat(np.arange(wide.size), wide * LANES)
    owner = group * LANES + place % LANES
    position = (place - begin[group]) // LANES
    inside = position < degree[owner]
    entry = arriving[np.where(inside, first[owner] + position, 0)]
    return (
        states * column_stride,
        wide,
        begin[:-1],
        np.where(inside, slot[entry], 0),
        np.where(inside, row[entry], 0) * column_stride,
        inside.astype(np.float64),
        counts.sum(axis=1) == rows.sizes.numpy() ** 2,
    )
