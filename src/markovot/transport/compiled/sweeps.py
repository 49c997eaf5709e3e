"""Compiled sweeps over all local transport problems of a batch of pairs of chains.

Every kernel works through a list of tasks `(item, first, last)`: rows `first..last` of the item's cost matrix. A task
writes only what belongs to its rows, in an order of its own, so results do not depend on how tasks fall on threads.

The rows of the first chain are taken one by one; the states of the second, eight at a time, in lanes. States of the
second chain are sorted by degree into groups of eight, and each group is padded to its largest degree with zero mass.
"""

from collections import namedtuple

import numpy as np

from markovot.transport.compiled.compiling import allocating_kernel, helper, jitable, kernel
from markovot.transport.compiled.dual import MAX_ITER, make_group, solve_group
from markovot.transport.compiled.simd import LANES, exp, gather, lane_sum, load, scatter_add, splat, store

# Rows of the first chains: for each chain n+1 pointers, then indices and weights.
Side = namedtuple("Side", "indptr index weight")
# The same read by columns: entry e of column k stands in row `row[e]`, at position `position[e]` of that row. And the
# rows of the second chains read by columns, in groups of eight states, see `layout.target_arrays`, and whether they
# are full: then all lanes of a slot stand for one state.
Columns = namedtuple("Columns", "indptr row position states width start slot source mask full")
# Groups of eight states of the second chains; see `layout.py`.
Lanes = namedtuple("Lanes", "groups states count mask width start before total index weight")
# For each item: the chains it couples and how many states the first has, where its data begin, epsilon, and how its
# plans come about. `size` and `stride` are those of all items' cost matrices, `max_degree` and `max_width` bound all
# local problems.
Items = namedtuple("Items", "x y rows f_start g_start plan_start size stride epsilon mode max_degree max_width")
# Potentials and (for items of mode STORED) plans.
State = namedtuple("State", "f g plan")
Batch = namedtuple("Batch", "items side lanes state")
# What products with P^T need; all else does without the columns, since numba takes time for every array it hands on.
Transposable = namedtuple("Transposable", "batch columns")
# Where the data of one row and group begin: first stored entry, degree, group, width, first lane entry, f, g, plan.
# The plans of a row stand together, over all groups: entry (k, l) is `k stride + l` lanes after `plan`, so its place is
# the sum of what (row, k) and what (group, l) say.
Block = namedtuple("Block", "first degree group width entry f g plan stride")

RECOMPUTED, STORED, INDEPENDENT = 0, 1, 2  # how an item's plans come about


@helper
def num_groups(batch, p):
    """Number of groups of item p."""
    y = batch.items.y[p]
    return batch.lanes.groups[y + 1] - batch.lanes.groups[y]


@helper
def block_of(batch, p, i, q):
    """Where the data of row i, group q of item p begin."""
    items, side, lanes = batch.items, batch.side, batch.lanes
    x, y = items.x[p], items.y[p]
    first = side.indptr[x, i]
    degree = side.indptr[x, i + 1] - first
    before_rows = first - side.indptr[x, 0]
    group = lanes.groups[y] + q
    f = items.f_start[p] + LANES * (num_groups(batch, p) * before_rows + degree * q)
    g = items.g_start[p] + LANES * (i * lanes.total[y] + lanes.before[group])
    plan = items.plan_start[p] + LANES * (before_rows * lanes.total[y] + lanes.before[group])
    return Block(first, degree, group, lanes.width[group], lanes.start[group], f, g, plan, lanes.total[y])


@jitable
def make_scratch(rows, width):
    """Memory for local problems of up to `rows` x `width`: a group, and a plan."""
    return make_group(rows, width), np.empty(rows * width * LANES)


@helper
def sweep_rows(batch, p, rows, cost, gap, warmth, bounds, scratch):
    """Solve the local problems of rows `rows[0]..rows[1]` of item p; returns the number of evaluations of groups."""
    items, lanes, state = batch.items, batch.lanes, batch.state
    w, spare = scratch
    lower, upper = bounds
    base = p * items.size
    evaluations = 0
    for i in range(rows[0], rows[1]):
        for q in range(num_groups(batch, p)):
            block = block_of(batch, p, i, q)
            _collect(batch, block, cost, base, w)
            plan, place = spare, (np.int64(0), block.width)
            if items.mode[p] == STORED:
                plan, place = state.plan, (block.plan, block.stride)
            low, high, count = solve_group(
                w, block.degree, block.width, splat(items.epsilon[p]), splat(gap), splat(warmth), plan, place, MAX_ITER
            )
            evaluations += count
            for k in range(block.degree):
                store(state.f, block.f + k * LANES, load(w.f, k * LANES))
            for l in range(block.width):
                store(state.g, block.g + l * LANES, load(w.g, l * LANES))
            put(lower, base + i * items.stride, lanes, block.group, low, w.a)
            put(upper, base + i * items.stride, lanes, block.group, high, w.a)
    return evaluations


@helper
def _collect(batch, block, cost, base, w):
    """Gather costs, marginals and warm potentials of eight problems."""
    side, lanes = batch.side, batch.lanes
    for k in range(block.degree):
        store(w.a, k * LANES, splat(side.weight[block.first + k]))
        row = base + side.index[block.first + k] * batch.items.stride
        for l in range(block.width):
            values = gather(cost, row, lanes.index, block.entry + l * LANES)
            store(w.cost, (k * block.width + l) * LANES, values)
    for l in range(block.width):
        store(w.b, l * LANES, load(lanes.weight, block.entry + l * LANES))
        store(w.g, l * LANES, load(batch.state.g, block.g + l * LANES))


@helper
def put(out, base, lanes, group, values, scratch):
    """Write the lanes that stand for states to their places."""
    store(scratch, 0, values)
    for t in range(lanes.count[group]):
        out[base + lanes.states[group * LANES + t]] = scratch[t]


@helper
def taken(v, base, lanes, group):
    """The lanes of row `base` of v at the states of a group; zero in lanes that stand for no state."""
    return gather(v, base, lanes.states, group * LANES) * load(lanes.mask, group * LANES)


@helper
def _score(batch, block, cost, p, k, l):
    """F + g - C."""
    row = p * batch.items.size + batch.side.index[block.first + k] * batch.items.stride
    potentials = load(batch.state.f, block.f + k * LANES) + load(batch.state.g, block.g + l * LANES)
    return potentials - gather(cost, row, batch.lanes.index, block.entry + l * LANES)


@helper
def plan_entry(batch, block, cost, p, k, l):
    """Lanes of the plan at position k of the row and l of the group."""
    mode = batch.items.mode[p]
    if mode == STORED:
        return load(batch.state.plan, block.plan + (k * block.stride + l) * LANES)
    weight = load(batch.lanes.weight, block.entry + l * LANES) * batch.side.weight[block.first + k]
    if mode == RECOMPUTED:
        weight = weight * exp(_score(batch, block, cost, p, k, l) / batch.items.epsilon[p])
    return weight


@helper
def apply_row(batch, p, i, cost, v, base, out, scratch):
    """Row i of P v for item p, whose v and out begin at `base`."""
    for q in range(num_groups(batch, p)):
        block = block_of(batch, p, i, q)
        total = splat(0.0)
        for k in range(block.degree):
            row = base + batch.side.index[block.first + k] * batch.items.stride
            for l in range(block.width):
                mass = plan_entry(batch, block, cost, p, k, l)
                total = total + mass * gather(v, row, batch.lanes.index, block.entry + l * LANES)
        put(out, base + i * batch.items.stride, batch.lanes, block.group, total, scratch)


@helper
def apply_column(given, p, k, cost, v, base, out, scratch):
    """Row k of P^T v for item p: it collects from every plan that has a row over state k of the first chain."""
    batch, columns = given
    if batch.items.mode[p] == STORED and not columns.full[batch.items.y[p]]:
        _collect_column(batch, columns, p, k, v, base, out, scratch)
    else:
        _scatter_column(batch, columns, p, k, cost, v, base, out)


@helper
def _collect_column(batch, columns, p, k, v, base, out, scratch):
    """From stored plans, eight states at a time: adding to them one by one would take several times as long."""
    items, lanes = batch.items, batch.lanes
    x, y = items.x[p], items.y[p]
    origin = batch.side.indptr[x, 0]
    for group in range(lanes.groups[y], lanes.groups[y + 1]):
        first, width = columns.start[group], columns.width[group]
        total = splat(0.0)
        for e in range(columns.indptr[x, k], columns.indptr[x, k + 1]):
            i = columns.row[e]
            entry = batch.side.indptr[x, i] - origin + columns.position[e]
            plan = items.plan_start[p] + LANES * entry * lanes.total[y]
            row = base + i * items.stride
            for l in range(width):
                here = first + l * LANES
                mass = gather(batch.state.plan, plan, columns.slot, here) * load(columns.mask, here)
                total = total + mass * gather(v, row, columns.source, here)
        store(scratch, 0, total)
        for t in range(lanes.count[group]):
            out[base + k * items.stride + columns.states[group * LANES + t]] = scratch[t]


@helper
def _scatter_column(batch, columns, p, k, cost, v, base, out):
    """From plans that are made on the way, or whose lanes all arrive at one state, since rows are full."""
    items, lanes = batch.items, batch.lanes
    x, y = items.x[p], items.y[p]
    row = base + k * items.stride
    for j in range(lanes.groups[y] * LANES, lanes.groups[y + 1] * LANES):
        out[row + lanes.states[j]] = 0.0
    for e in range(columns.indptr[x, k], columns.indptr[x, k + 1]):
        i, position = columns.row[e], columns.position[e]
        for q in range(num_groups(batch, p)):
            block = block_of(batch, p, i, q)
            factor = taken(v, base + i * items.stride, lanes, block.group)
            for l in range(block.width):
                mass = plan_entry(batch, block, cost, p, position, l) * factor
                if columns.full[y]:
                    out[row + lanes.index[block.entry + l * LANES]] += lane_sum(mass)
                else:
                    scatter_add(out, row, lanes.index, block.entry + l * LANES, mass)


@kernel
def sweep(tasks, batch, cost, gap, warmth, lower, upper, scratch):
    """Solve every local problem; write its certified bounds. Returns the number of evaluations of groups of eight."""
    evaluations = 0
    for t in range(tasks.shape[0]):
        p = tasks[t, 0]
        rows = (tasks[t, 1], tasks[t, 2])
        evaluations += sweep_rows(batch, p, rows, cost, gap[p], warmth[p], (lower, upper), scratch)
    return evaluations


@allocating_kernel
def apply(tasks, batch, cost, v, out):
    """P v."""
    scratch = np.empty(LANES)
    for t in range(tasks.shape[0]):
        p = tasks[t, 0]
        for i in range(tasks[t, 1], tasks[t, 2]):
            apply_row(batch, p, i, cost, v, p * batch.items.size, out, scratch)


@allocating_kernel
def apply_transpose(tasks, given, cost, v, out):
    """P^T v, for a `Transposable` batch."""
    size = given.batch.items.size
    scratch = np.empty(LANES)
    for t in range(tasks.shape[0]):
        p = tasks[t, 0]
        for k in range(tasks[t, 1], tasks[t, 2]):
            apply_column(given, p, k, cost, v, p * size, out, scratch)


@allocating_kernel
def divergence(tasks, batch, cost, out):
    """KL(pi_ij | A_i x B_j) = <pi, f + g - C> / eps."""
    scratch = np.empty(LANES)
    for t in range(tasks.shape[0]):
        p = tasks[t, 0]
        base = p * batch.items.size
        for i in range(tasks[t, 1], tasks[t, 2]):
            for q in range(num_groups(batch, p)):
                block = block_of(batch, p, i, q)
                total = splat(0.0)
                for k in range(block.degree):
                    for l in range(block.width):
                        mass = plan_entry(batch, block, cost, p, k, l)
                        total = total + mass * _score(batch, block, cost, p, k, l)
                total = total / batch.items.epsilon[p]
                put(out, base + i * batch.items.stride, batch.lanes, block.group, total, scratch)


@allocating_kernel
def plans(p, batch, cost, column_stride):
    """Every entry of every plan of item p: i, j, k, l (states), and the mass."""
    items, side, lanes = batch.items, batch.side, batch.lanes
    x, y = items.x[p], items.y[p]
    total = (side.indptr[x, items.rows[p]] - side.indptr[x, 0]) * lanes.total[y] * LANES
    where, masses = np.empty((4, total), np.int64), np.empty(total)
    scratch = np.empty(LANES)
    count = 0
    for i in range(items.rows[p]):
        for q in range(num_groups(batch, p)):
            block = block_of(batch, p, i, q)
            for k in range(block.degree):
                for l in range(block.width):
                    store(scratch, 0, plan_entry(batch, block, cost, p, k, l))
                    for t in range(lanes.count[block.group]):
                        slot = block.entry + l * LANES + t
                        if lanes.weight[slot] > 0.0:
                            where[0, count] = i
                            where[1, count] = lanes.states[block.group * LANES + t] // column_stride
                            where[2, count] = side.index[block.first + k]
                            where[3, count] = lanes.index[slot] // column_stride
                            masses[count] = scratch[t]
                            count += 1
    return where[0, :count], where[1, :count], where[2, :count], where[3, :count], masses[:count]
