"""Compiled sweeps over all local transport problems of a batch of pairs of chains.

Every kernel works through a list of tasks `(item, first, last)`: rows `first..last` of item's cost matrix. A task writes
only what belongs to its rows, in an order of its own, so results do not depend on how tasks fall on threads.

The rows of the first chain are taken one by one; the states of the second, eight at a time, in lanes. States of the
second chain are sorted by degree into groups of eight, and each group is padded to its largest degree with zero mass.
"""

from collections import namedtuple

import numpy as np

from markovot.transport.compiling import helper, kernel
from markovot.transport.dual import make_group, solve_group
from markovot.transport.simd import LANES, exp, gather, load, scatter_add, splat, store

# Rows of the first chains: for each chain n+1 pointers, then indices (times the row stride of the cost) and weights.
Side = namedtuple("Side", "indptr index weight")
# The same read by columns: entry e of column k stands in row `row[e]`, at position `position[e]` of that row.
Columns = namedtuple("Columns", "indptr row position")
# Groups of eight states of the second chains; see `layout.py`.
Lanes = namedtuple("Lanes", "groups states count mask width start before total index weight")
# Which chains an item couples, where its data begin, and what solves it.
Items = namedtuple("Items", "x y f_start g_start plan_start size stride epsilon mode")
# Potentials and (for items of mode STORED) plans.
State = namedtuple("State", "f g plan")

RECOMPUTED, STORED, INDEPENDENT = 0, 1, 2  # how an item's plans come about


@helper
def blocks(items, side, lanes, p, i, q):
    """Where the data of row i, group q of item p begin: first stored entry, degree, width, f, g and plan."""
    x, y = items.x[p], items.y[p]
    first = side.indptr[x, i]
    degree = side.indptr[x, i + 1] - first
    before_rows = first - side.indptr[x, 0]
    group = lanes.groups[y] + q
    width = lanes.width[group]
    num_groups = lanes.groups[y + 1] - lanes.groups[y]
    f = items.f_start[p] + LANES * (num_groups * before_rows + degree * q)
    g = items.g_start[p] + LANES * (i * lanes.total[y] + lanes.before[group])
    plan = items.plan_start[p] + LANES * (before_rows * lanes.total[y] + degree * lanes.before[group])
    return first, degree, group, width, f, g, plan


@helper
def _largest(items, side, lanes, tasks):
    rows, width = 1, 1
    for t in range(tasks.shape[0]):
        x, y = items.x[tasks[t, 0]], items.y[tasks[t, 0]]
        for i in range(tasks[t, 1], tasks[t, 2]):
            rows = max(rows, side.indptr[x, i + 1] - side.indptr[x, i])
        for group in range(lanes.groups[y], lanes.groups[y + 1]):
            width = max(width, lanes.width[group])
    return rows, width


@kernel
def sweep(tasks, items, side, lanes, state, cost, gap, warmth, lower, upper):
    """Solve every local problem; write its certified bounds. Returns the number of evaluations of groups of eight."""
    rows, width = _largest(items, side, lanes, tasks)
    w = make_group(rows, width)
    scratch = np.empty(rows * width * LANES)
    evaluations = 0
    for t in range(tasks.shape[0]):
        p = tasks[t, 0]
        base = p * items.size
        for i in range(tasks[t, 1], tasks[t, 2]):
            for q in range(lanes.groups[items.y[p] + 1] - lanes.groups[items.y[p]]):
                first, degree, group, width, f, g, plan = blocks(items, side, lanes, p, i, q)
                entry = lanes.start[group]
                for k in range(degree):
                    store(w.a, k * LANES, splat(side.weight[first + k]))
                    row = base + side.index[first + k]
                    for l in range(width):
                        values = gather(cost, row, lanes.index, entry + l * LANES)
                        store(w.cost, (k * width + l) * LANES, values)
                for l in range(width):
                    store(w.b, l * LANES, load(lanes.weight, entry + l * LANES))
                    store(w.g, l * LANES, load(state.g, g + l * LANES))
                target, origin = scratch, 0
                if items.mode[p] == STORED:
                    target, origin = state.plan, plan
                low, high, count = solve_group(
                    w, degree, width, splat(items.epsilon[p]), splat(gap[p]), splat(warmth[p]), target, origin
                )
                evaluations += count
                for k in range(degree):
                    store(state.f, f + k * LANES, load(w.f, k * LANES))
                for l in range(width):
                    store(state.g, g + l * LANES, load(w.g, l * LANES))
                _put(lower, base + i * items.stride, lanes, group, low, w.a)
                _put(upper, base + i * items.stride, lanes, group, high, w.a)
    return evaluations


@helper
def _put(out, base, lanes, group, values, scratch):
    """Write the lanes that stand for states to their places."""
    store(scratch, 0, values)
    for t in range(lanes.count[group]):
        out[base + lanes.states[group * LANES + t]] = scratch[t]


@helper
def _plan_entry(items, side, lanes, state, cost, p, first, k, width, entry, l, f, g, plan):
    """Lanes of the plan at position k of the row and l of the group."""
    if items.mode[p] == STORED:
        return load(state.plan, plan + (k * width + l) * LANES)
    weight = load(lanes.weight, entry + l * LANES) * side.weight[first + k]
    if items.mode[p] == INDEPENDENT:
        return weight
    row = p * items.size + side.index[first + k]
    z = load(state.f, f + k * LANES) + load(state.g, g + l * LANES)
    z = z - gather(cost, row, lanes.index, entry + l * LANES)
    return weight * exp(z / items.epsilon[p])


@helper
def apply_row(items, side, lanes, state, cost, p, i, v, v_base, out, out_base, scratch):
    """Row i of P v, for item p."""
    for q in range(lanes.groups[items.y[p] + 1] - lanes.groups[items.y[p]]):
        first, degree, group, width, f, g, plan = blocks(items, side, lanes, p, i, q)
        entry = lanes.start[group]
        total = splat(0.0)
        for k in range(degree):
            row = v_base + side.index[first + k]
            for l in range(width):
                mass = _plan_entry(items, side, lanes, state, cost, p, first, k, width, entry, l, f, g, plan)
                total = total + mass * gather(v, row, lanes.index, entry + l * LANES)
        _put(out, out_base + i * items.stride, lanes, group, total, scratch)


@helper
def apply_column(items, side, columns, lanes, state, cost, p, k, v, v_base, out, out_base):
    """Row k of P^T v, for item p: every plan row that stands over state k of the first chain."""
    x, y = items.x[p], items.y[p]
    for j in range(lanes.groups[y] * LANES, lanes.groups[y + 1] * LANES):
        out[out_base + k * items.stride + lanes.states[j]] = 0.0
    for e in range(columns.indptr[x, k], columns.indptr[x, k + 1]):
        i, position = columns.row[e], columns.position[e]
        for q in range(lanes.groups[y + 1] - lanes.groups[y]):
            first, _, group, width, f, g, plan = blocks(items, side, lanes, p, i, q)
            entry = lanes.start[group]
            factor = taken(v, v_base + i * items.stride, lanes, group)
            for l in range(width):
                mass = _plan_entry(items, side, lanes, state, cost, p, first, position, width, entry, l, f, g, plan)
                scatter_add(out, out_base + k * items.stride, lanes.index, entry + l * LANES, mass * factor)


@helper
def taken(v, base, lanes, group):
    """The lanes of row `base` of v at the states of a group; zero in lanes that stand for no state."""
    return gather(v, base, lanes.states, group * LANES) * load(lanes.mask, group * LANES)


@kernel
def apply(tasks, items, side, lanes, state, cost, v, out):
    """P v."""
    scratch = np.empty(LANES)
    for t in range(tasks.shape[0]):
        p = tasks[t, 0]
        for i in range(tasks[t, 1], tasks[t, 2]):
            apply_row(items, side, lanes, state, cost, p, i, v, p * items.size, out, p * items.size, scratch)


@kernel
def apply_transpose(tasks, items, side, columns, lanes, state, cost, v, out):
    """P^T v."""
    for t in range(tasks.shape[0]):
        p = tasks[t, 0]
        for k in range(tasks[t, 1], tasks[t, 2]):
            apply_column(items, side, columns, lanes, state, cost, p, k, v, p * items.size, out, p * items.size)


@kernel
def divergence(tasks, items, side, lanes, state, cost, out):
    """KL(pi_ij | A_i x B_j) = <pi, f + g - C> / eps."""
    scratch = np.empty(LANES)
    for t in range(tasks.shape[0]):
        p = tasks[t, 0]
        for i in range(tasks[t, 1], tasks[t, 2]):
            for q in range(lanes.groups[items.y[p] + 1] - lanes.groups[items.y[p]]):
                first, degree, group, width, f, g, plan = blocks(items, side, lanes, p, i, q)
                entry = lanes.start[group]
                total = splat(0.0)
                for k in range(degree):
                    row = p * items.size + side.index[first + k]
                    for l in range(width):
                        mass = _plan_entry(items, side, lanes, state, cost, p, first, k, width, entry, l, f, g, plan)
                        z = load(state.f, f + k * LANES) + load(state.g, g + l * LANES)
                        z = z - gather(cost, row, lanes.index, entry + l * LANES)
                        total = total + mass * z
                _put(out, p * items.size + i * items.stride, lanes, group, total / items.epsilon[p], scratch)


@kernel
def plans(p, items, side, lanes, state, cost, column_stride):
    """Every entry of every plan of item p: i, j, k, l (states) and the mass."""
    x, y = items.x[p], items.y[p]
    entries = 0
    for i in range(side.indptr.shape[1] - 1):
        entries += side.indptr[x, i + 1] - side.indptr[x, i]
    total = entries * lanes.total[y] * LANES
    where = np.empty((4, total), np.int64)
    masses = np.empty(total)
    scratch = np.empty(LANES)
    count = 0
    for i in range(side.indptr.shape[1] - 1):
        for q in range(lanes.groups[y + 1] - lanes.groups[y]):
            first, degree, group, width, f, g, plan = blocks(items, side, lanes, p, i, q)
            entry = lanes.start[group]
            for k in range(degree):
                for l in range(width):
                    mass = _plan_entry(items, side, lanes, state, cost, p, first, k, width, entry, l, f, g, plan)
                    store(scratch, 0, mass)
                    for t in range(lanes.count[group]):
                        slot = entry + l * LANES + t
                        if lanes.weight[slot] > 0.0:
                            where[0, count] = i
                            where[1, count] = lanes.states[group * LANES + t] // column_stride
                            where[2, count] = side.index[first + k] // items.stride
                            where[3, count] = lanes.index[slot] // column_stride
                            masses[count] = scratch[t]
                            count += 1
    return where[0, :count], where[1, :count], where[2, :count], where[3, :count], masses[:count]
