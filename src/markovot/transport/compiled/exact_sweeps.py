"""Compiled sweeps of exact local transport problems (epsilon = 0), which keep their bases from one sweep to the next.

Tasks are as in `sweeps.py`. A plan is the flow on a tree: of a problem of dx rows and dy columns it has at most
dx + dy - 1 entries, so products with P cost less than a look at its cost matrices.
"""

from collections import namedtuple

import numpy as np

from markovot.transport.compiled.compiling import allocating_kernel, helper, jitable, kernel
from markovot.transport.compiled.krylov import (
    largest_modulus,
    make_bicgstab,
    make_solver,
    make_vectors,
    sum_of_moduli,
)
from markovot.transport.compiled.policy import closed, look, make_loop, make_policy_iteration
from markovot.transport.compiled.simplex import make_tree, north_west, solve_tree
from markovot.transport.compiled.sweeps import INDEPENDENT

# For each item: the chains it couples, their numbers of states, where its trees begin, and how its plans come about;
# `size` and `stride` are those of all items' cost matrices, `max_degree` and `max_width` bound all local problems.
Items = namedtuple("Items", "x y rows columns start size stride mode max_degree max_width")
# Trees of all local problems, one after another, and for the arc of each node where its pair of states stands in the
# cost of the item. A problem without a tree yet has NO_TREE for its root's parent.
Trees = namedtuple("Trees", "parent flow potential target")
# Both chains are read by rows (see `sweeps.Side`).
Batch = namedtuple("Batch", "items x y trees")

TREE, NO_TREE = 3, -2


@helper
def _place(batch, p, i, j):
    """Where the rows i and j begin, their degrees, and where their tree does."""
    items = batch.items
    x, y = items.x[p], items.y[p]
    first_x, first_y = batch.x.indptr[x, i], batch.y.indptr[y, j]
    dx, dy = batch.x.indptr[x, i + 1] - first_x, batch.y.indptr[y, j + 1] - first_y
    before_x, before_y = first_x - batch.x.indptr[x, 0], first_y - batch.y.indptr[y, 0]
    total_y = batch.y.indptr[y, items.columns[p]] - batch.y.indptr[y, 0]
    tree = items.start[p] + items.columns[p] * before_x + i * total_y + j * dx + before_y
    return first_x, first_y, dx, dy, tree


@helper
def sweep_rows(batch, p, rows, cost, gap, warmth, bounds, scratch):
    """Solve the local problems of rows `rows[0]..rows[1]` of item p exactly; returns the number of pivots."""
    items, trees = batch.items, batch.trees
    lower, upper = bounds
    t = scratch
    base = p * items.size
    pivots = 0
    for i in range(rows[0], rows[1]):
        for j in range(items.columns[p]):
            first_x, first_y, dx, dy, tree = _place(batch, p, i, j)
            for k in range(dx):
                row = base + batch.x.index[first_x + k] * items.stride
                for l in range(dy):
                    t.cost[k * dy + l] = cost[row + batch.y.index[first_y + l]]
            if trees.parent[tree] == NO_TREE:
                for k in range(dx):
                    t.a[k] = batch.x.weight[first_x + k]
                for l in range(dy):
                    t.b[l] = batch.y.weight[first_y + l]
                north_west(t, dx, dy)
            else:
                for v in range(dx + dy):
                    t.parent[v], t.flow[v] = trees.parent[tree + v], trees.flow[tree + v]
            e = base + i * items.stride + j
            lower[e], upper[e], count = solve_tree(t, dx, dy)
            pivots += count
            for v in range(dx + dy):
                trees.parent[tree + v], trees.flow[tree + v] = t.parent[v], t.flow[v]
                trees.potential[tree + v] = t.potential[v]
                k, l = (v, t.parent[v] - dx) if v < dx else (t.parent[v], v - dx)
                if v > 0:
                    trees.target[tree + v] = batch.x.index[first_x + k] * items.stride + batch.y.index[first_y + l]
    return pivots


@helper
def _apply_row(batch, p, i, v, base, out):
    """Row i of P v for item p, whose v and out begin at `base`."""
    items, trees = batch.items, batch.trees
    for j in range(items.columns[p]):
        first_x, first_y, dx, dy, tree = _place(batch, p, i, j)
        total = 0.0
        if items.mode[p] == INDEPENDENT:
            for k in range(dx):
                row = base + batch.x.index[first_x + k] * items.stride
                part = 0.0
                for l in range(dy):
                    part += batch.y.weight[first_y + l] * v[row + batch.y.index[first_y + l]]
                total += batch.x.weight[first_x + k] * part
        else:
            for node in range(tree + 1, tree + dx + dy):
                total += trees.flow[node] * v[base + trees.target[node]]
        out[base + i * items.stride + j] = total


@helper
def _apply_transpose(batch, p, v, base, out):
    """P^T v for item p; its plans are those of a sweep."""
    items, trees = batch.items, batch.trees
    for i in range(items.rows[p]):
        for j in range(items.columns[p]):
            out[base + i * items.stride + j] = 0.0
    for i in range(items.rows[p]):
        for j in range(items.columns[p]):
            _, _, dx, dy, tree = _place(batch, p, i, j)
            factor = v[base + i * items.stride + j]
            for node in range(tree + 1, tree + dx + dy):
                out[base + trees.target[node]] += trees.flow[node] * factor


@helper
def _times(batch, p, discount, cost, v, out, scratch):
    """K v for item p; v and out begin with this item."""
    for i in range(batch.items.rows[p]):
        _apply_row(batch, p, i, v, 0, out)
    for e in range(batch.items.size):
        out[e] = v[e] - (1.0 - discount) * out[e]


@helper
def _times_transpose(batch, p, discount, cost, v, out, scratch):
    """K^T v, likewise."""
    _apply_transpose(batch, p, v, 0, out)
    for e in range(batch.items.size):
        out[e] = v[e] - (1.0 - discount) * out[e]


@helper
def _enclose(batch, p, problem, result):
    """Write T(C) and T(C) - C; returns the enclosure's low and high, and the largest residual."""
    items, delta = batch.items, problem.discount[p]
    seen = (np.inf, -np.inf, 0.0, 0.0)
    for i in range(items.rows[p]):
        for j in range(items.columns[p]):
            seen = look(p * items.size + i * items.stride + j, delta, problem, result, seen)
    return closed(delta, seen)


solve_item = make_solver(_times, largest_modulus)
_solve_transpose = make_solver(_times_transpose, sum_of_moduli)
run_item = make_loop(sweep_rows, _enclose, solve_item)

bicgstab = make_bicgstab(__name__, "bicgstab", solve_item)
bicgstab_transpose = make_bicgstab(__name__, "bicgstab_transpose", _solve_transpose)
policy_iteration = make_policy_iteration(__name__, run_item)


@jitable
def make_memory(rows, width, size):
    """Working memory for `run_item`: local problems of up to `rows` x `width`, and `size` pairs of states."""
    return make_tree(rows, width), make_vectors(size), np.empty(size), np.empty(size)


@kernel
def sweep(tasks, batch, cost, gap, warmth, lower, upper, scratch):
    """Solve every local problem; write its certified bounds. Returns the number of pivots."""
    pivots = 0
    for t in range(tasks.shape[0]):
        p = tasks[t, 0]
        rows = (tasks[t, 1], tasks[t, 2])
        pivots += sweep_rows(batch, p, rows, cost, gap[p], warmth[p], (lower, upper), scratch)
    return pivots


@kernel
def apply(tasks, batch, cost, v, out):
    """P v."""
    for t in range(tasks.shape[0]):
        p = tasks[t, 0]
        for i in range(tasks[t, 1], tasks[t, 2]):
            _apply_row(batch, p, i, v, p * batch.items.size, out)


@kernel
def apply_transpose(tasks, batch, cost, v, out):
    """P^T v; tasks are whole items."""
    for t in range(tasks.shape[0]):
        p = tasks[t, 0]
        _apply_transpose(batch, p, v, p * batch.items.size, out)


@kernel
def divergence(tasks, batch, out):
    """KL(pi_ij | A_i x B_j) of the plans found."""
    items, trees = batch.items, batch.trees
    for t in range(tasks.shape[0]):
        p = tasks[t, 0]
        for i in range(tasks[t, 1], tasks[t, 2]):
            for j in range(items.columns[p]):
                first_x, first_y, dx, dy, tree = _place(batch, p, i, j)
                total = 0.0
                for node in range(1, dx + dy):
                    mass, parent = trees.flow[tree + node], trees.parent[tree + node]
                    k, l = (node, parent - dx) if node < dx else (parent, node - dx)
                    if mass > 0.0:
                        weight = batch.x.weight[first_x + k] * batch.y.weight[first_y + l]
                        total += mass * np.log(mass / weight)
                out[p * items.size + i * items.stride + j] = total


@allocating_kernel
def plans(p, batch):
    """Every entry of every plan of item p: i, j, k, l (states), and the mass."""
    items, trees = batch.items, batch.trees
    x, y = items.x[p], items.y[p]
    n, m = items.rows[p], items.columns[p]
    total = (batch.x.indptr[x, n] - batch.x.indptr[x, 0]) * m + (batch.y.indptr[y, m] - batch.y.indptr[y, 0]) * n
    where, masses = np.empty((4, total), np.int64), np.empty(total)
    count = 0
    for i in range(n):
        for j in range(m):
            _, _, dx, dy, tree = _place(batch, p, i, j)
            for node in range(tree + 1, tree + dx + dy):
                if trees.flow[node] > 0.0:
                    where[0, count], where[1, count] = i, j
                    where[2, count] = trees.target[node] // items.stride
                    where[3, count] = trees.target[node] % items.stride
                    masses[count] = trees.flow[node]
                    count += 1
    return where[0, :count], where[1, :count], where[2, :count], where[3, :count], masses[:count]


@kernel
def row_potentials(tasks, batch, cost, weights, pattern, out_start, out):
    """out[entry of row i, state k] = sum_j weights_ij f_ij^k on the pattern's entries, f the c-transform of g.

    On the support it is the potential itself, elsewhere the derivative for mass that is moved there.
    """
    items, trees = batch.items, batch.trees
    for t in range(tasks.shape[0]):
        p = tasks[t, 0]
        x, base = items.x[p], p * items.size
        for i in range(tasks[t, 1], tasks[t, 2]):
            for e in range(pattern.indptr[x, i], pattern.indptr[x, i + 1]):
                row = base + pattern.index[e] * items.stride
                total = 0.0
                for j in range(items.columns[p]):
                    _, first_y, dx, dy, tree = _place(batch, p, i, j)
                    best = np.inf
                    for l in range(dy):
                        slack = cost[row + batch.y.index[first_y + l]] - trees.potential[tree + dx + l]
                        best = min(best, slack)
                    total += weights[base + i * items.stride + j] * best
                out[out_start[p] + e - pattern.indptr[x, 0]] = total


@kernel
def column_potentials(tasks, batch, cost, weights, pattern, out_start, out):
    """out[entry of row j, state l] = sum_i weights_ij g_ij^l likewise; tasks are ranges of rows of the second chain."""
    items, trees = batch.items, batch.trees
    for t in range(tasks.shape[0]):
        p = tasks[t, 0]
        y, base = items.y[p], p * items.size
        for j in range(tasks[t, 1], tasks[t, 2]):
            for e in range(pattern.indptr[y, j], pattern.indptr[y, j + 1]):
                column = base + pattern.index[e]
                total = 0.0
                for i in range(items.rows[p]):
                    first_x, _, dx, _, tree = _place(batch, p, i, j)
                    best = np.inf
                    for k in range(dx):
                        slack = cost[column + batch.x.index[first_x + k] * items.stride] - trees.potential[tree + k]
                        best = min(best, slack)
                    total += weights[base + i * items.stride + j] * best
                out[out_start[p] + e - pattern.indptr[y, 0]] = total
