"""Compiled kernel for data sets with exact transport: whole pairs of chains, as in `entropic_pairs.py`."""

import numpy as np

from markovot.transport.compiled.compiling import allocating_kernel, helper, jitable
from markovot.transport.compiled.entropic_pairs import Frame, confine, make_fixed_point, meets_itself, read_ground
from markovot.transport.compiled.entropic_problems import support
from markovot.transport.compiled.exact_sweeps import NO_TREE, TREE, Batch, Items, Trees, make_memory, run_item
from markovot.transport.compiled.simplex import make_tree, north_west, solve_tree

_fixed_point = make_fixed_point(run_item)


@helper
def _num_nodes(xs, ys, a, b):
    """The nodes of all trees of a pair."""
    entries_x = xs.side.indptr[a, xs.sizes[a]] - xs.side.indptr[a, 0]
    entries_y = ys.side.indptr[b, ys.sizes[b]] - ys.side.indptr[b, 0]
    return entries_x * ys.sizes[b] + entries_y * xs.sizes[a]


@helper
def _extent(pairs, xs, ys):
    """The largest sizes: costs, nodes, degrees, and states."""
    size, nodes, degree, width, n, m = np.int64(0), np.int64(0), np.int64(1), np.int64(1), np.int64(0), np.int64(0)
    for t in range(pairs.shape[0]):
        a, b = pairs[t, 0], pairs[t, 1]
        size = max(size, xs.sizes[a] * ys.sizes[b])
        nodes = max(nodes, _num_nodes(xs, ys, a, b))
        degree, width = max(degree, xs.degree[a]), max(width, ys.degree[b])
        n, m = max(n, xs.sizes[a]), max(m, ys.sizes[b])
    return size, nodes, degree, width, n, m


@jitable
def _make_frame(size, nodes):
    return Frame(
        np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1, np.int64),
        np.zeros(1, np.int64), np.full(1, TREE), np.zeros(1, np.int64),
        np.zeros(1), np.zeros(1), np.zeros(1), np.zeros(1), np.full(1, np.inf), np.zeros(1, np.int64),
        np.empty(size), (np.empty(size), np.empty(size), np.empty(size), np.empty(size)), (np.zeros(1), np.zeros(1)),
        Trees(np.empty(nodes, np.int64), np.empty(nodes), np.empty(nodes), np.empty(nodes, np.int64)),
    )  # fmt: skip


@helper
def _outer(t, cost, law_x, law_y, lists):
    """The initial coupling, exactly; returns lower and upper values."""
    rows, columns = lists
    m = law_y.size
    dx, dy = support(law_x, rows), support(law_y, columns)
    for k in range(dx):
        t.a[k] = law_x[rows[k]]
        for l in range(dy):
            t.cost[k * dy + l] = cost[rows[k] * m + columns[l]]
    for l in range(dy):
        t.b[l] = law_y[columns[l]]
    north_west(t, dx, dy)
    low, high, _ = solve_tree(t, dx, dy)
    return low, high


@allocating_kernel
def solve_pairs(pairs, xs, ys, table, setting, control, answer):
    """Distances of the pairs (a, b): chain a of `xs` and chain b of `ys`, with ground costs from the table.

    A pair whose ground costs are not all finite gets NaN.
    """
    size, nodes, degree, width, most_n, most_m = _extent(pairs, xs, ys)
    frame = _make_frame(size, nodes)
    frame.discount[0] = setting.delta
    memory = make_memory(degree, width, size)
    cost, centre = np.empty(size), np.empty(size)
    across = np.bool_(True)  # typed: numba compiles callees anew for literals
    tree, lists = make_tree(most_n, most_m), (np.zeros(most_n, np.int64), np.zeros(most_m, np.int64))
    for q in range(pairs.shape[0]):
        a, b = pairs[q, 0], pairs[q, 1]
        n, m = xs.sizes[a], ys.sizes[b]
        frame.x[0], frame.y[0], frame.rows[0], frame.columns[0] = a, b, n, m
        items = Items(frame.x, frame.y, frame.rows, frame.columns, frame.zero, n * m, m, frame.mode, degree, width)
        batch = Batch(items, xs.side, ys.side, frame.state)
        low, high, unit = read_ground(table, (xs.first[a], ys.first[b]), (n, m), across, frame.ground)
        frame.scale[0] = high - low
        if not np.isfinite(unit):
            answer.value[q], answer.bound[q], answer.wanted[q] = np.nan, np.nan, np.nan
            continue
        frame.state.parent[: _num_nodes(xs, ys, a, b)] = NO_TREE
        radius, wanted = _fixed_point(batch, frame, setting, control, memory, cost, centre)
        for e in range(n * m):
            centre[e] = min(max(centre[e], low), high)
        law_x, law_y = xs.law[xs.first[a] : xs.first[a] + n], ys.law[ys.first[b] : ys.first[b] + m]
        lower, upper = _outer(tree, centre, law_x, law_y, lists)
        if meets_itself(xs, ys, a, b, table):
            high = low
        value, bound = confine(0.5 * (lower + upper), 0.5 * (upper - lower) + radius, low, high)
        answer.num_iter[q] = frame.num_iter[0]
        answer.value[q], answer.bound[q], answer.wanted[q] = value * unit, bound * unit, wanted * unit
