"""Exact transport by the transportation simplex, one problem at a time, from the basis of an earlier one.

    min <pi, C>,  pi >= 0, rows summing to a, columns to b       (a, b > 0)

A basis is a spanning tree of the bipartite graph of rows (nodes 0..dx-1, node 0 the root) and columns (dx..dx+dy-1):
`flow[v]` is the mass on the arc between v and `parent[v]`, `potential[v]` makes `C_kl = u_k + v_l` on all arcs of the
tree. The tree stays feasible when only C changes, so that the next problem starts from it.

Arcs lead from rows to columns. The tree is kept strongly feasible (Cunningham 1976): an arc without flow leads towards
the root. Then leaving by the last blocking arc of the cycle, met from its apex along the entering arc, rules out cycles
of degenerate pivots, whatever the ties. A cell enters only where its reduced cost is truly negative, so a basis that is
still optimal is kept.

At the end, with `s` the least reduced cost (zero but for rounding), `(u + s, v)` is dual feasible, so that the value of
the plan less |s| is a certified lower bound: a and b sum to one.
"""

from collections import namedtuple

import numpy as np

from markovot.transport.compiled.compiling import helper, jitable

# The tree of one problem, and its costs (rows times columns).
Tree = namedtuple("Tree", "parent flow potential depth child after before cost a b")
# Pricing looks at all cells of problems this small, else at rows in turn until it has seen so many and has a candidate.
PRICED = 2048
# A reduced cost above minus this, relative to the largest cost, is rounding; potentials are sums along the tree.
ROUND_OFF, ROUND_OFF_PER_NODE = 8 * 2.0**-52, 2.0**-52
# Pivots of a problem, for each node and again; more were never seen, and the certificate would show it.
MOST_PIVOTS = 200


@jitable
def make_tree(rows, columns):
    """Memory for problems of up to `rows` x `columns`."""
    nodes = rows + columns
    return Tree(
        np.empty(nodes, np.int64), np.empty(nodes), np.empty(nodes), np.empty(nodes, np.int64),
        np.empty(nodes, np.int64), np.empty(nodes, np.int64), np.empty(nodes, np.int64),
        np.empty(rows * columns), np.empty(rows), np.empty(columns),
    )  # fmt: skip


@helper
def north_west(t, dx, dy):
    """A first basis: cells along a staircase.

    Where a row and a column end together the row goes first: its arc, without flow, leads towards the root.
    """
    k, l = 0, 0
    left_a, left_b = t.a[0], t.b[0]
    t.parent[0], t.flow[0] = -1, 0.0
    node, parent = dx, 0
    while True:
        # the last column takes what rounding leaves of the rows, and the last row that of the columns
        mass = left_a if l == dy - 1 else (left_b if k == dx - 1 else min(left_a, left_b))
        t.parent[node], t.flow[node] = parent, mass
        if k == dx - 1 and l == dy - 1:
            return
        left_a -= mass
        left_b -= mass
        if l == dy - 1 or (k < dx - 1 and left_a <= left_b):
            k += 1
            left_a = t.a[k]
            node, parent = k, dx + l
        else:
            l += 1
            left_b = t.b[l]
            node, parent = dx + l, k


@helper
def _attach(t, v, parent):
    first = t.child[parent]
    t.parent[v], t.after[v], t.before[v] = parent, first, -1
    if first >= 0:
        t.before[first] = v
    t.child[parent] = v


@helper
def _detach(t, v):
    before, after = t.before[v], t.after[v]
    if before >= 0:
        t.after[before] = after
    else:
        t.child[t.parent[v]] = after
    if after >= 0:
        t.before[after] = before


@helper
def _arc_cost(t, v, dx, dy):
    parent = t.parent[v]
    return t.cost[v * dy + parent - dx] if v < dx else t.cost[parent * dy + v - dx]


@helper
def _next(t, v, top):
    """The node after v in a walk over the subtree of `top`, or -1."""
    if t.child[v] >= 0:
        return t.child[v]
    while v != top:
        if t.after[v] >= 0:
            return t.after[v]
        v = t.parent[v]
    return -1


@helper
def _plant(t, dx, dy):
    """Children from parents."""
    for v in range(dx + dy):
        t.child[v] = -1
    for v in range(1, dx + dy):
        _attach(t, v, t.parent[v])


@helper
def _measure(t, dx, dy):
    """Depths and potentials from the root on."""
    t.depth[0], t.potential[0] = 0, 0.0
    root = np.int64(0)  # typed: numba compiles callees anew for literals
    v = _next(t, root, root)
    while v >= 0:
        parent = t.parent[v]
        t.depth[v] = t.depth[parent] + 1
        t.potential[v] = _arc_cost(t, v, dx, dy) - t.potential[parent]
        v = _next(t, v, root)


@helper
def _price(t, dx, dy, first, limit):
    """The cell of least reduced cost below minus `limit`, from row `first` on: that cost, the cell, the next row."""
    best, cell = -limit, -1
    seen, row = 0, first
    for step in range(dx):
        row = first + step
        if row >= dx:
            row -= dx
        u = t.potential[row]
        for l in range(dy):
            reduced = t.cost[row * dy + l] - u - t.potential[dx + l]
            if reduced < best:
                best, cell = reduced, row * dy + l
        seen += dy
        if cell >= 0 and seen >= PRICED:
            break
    return best, cell, row + 1 if row + 1 < dx else 0


@helper
def _leaving(t, p, q, dx):
    """Where the cycle of the entering arc (p, q) is cut: the node below the leaving arc, whether q's side, the flow."""
    theta, out, on_q = np.inf, -1, False
    v, w = p, q
    # up to the apex, the deeper side first; see the head of this file for < and <=
    best_p, best_q = np.inf, np.inf
    out_p, out_q = -1, -1
    while v != w:
        if t.depth[v] >= t.depth[w]:
            if v < dx and t.flow[v] < best_p:
                best_p, out_p = t.flow[v], v
            v = t.parent[v]
        else:
            if w >= dx and t.flow[w] <= best_q:
                best_q, out_q = t.flow[w], w
            w = t.parent[w]
    if best_q <= best_p:
        theta, out, on_q = best_q, out_q, True
    else:
        theta, out = best_p, out_p
    return theta, out, on_q, v


@helper
def _pivot(t, cell, reduced, dx, dy):
    p, q = cell // dy, dx + cell % dy
    theta, out, on_q, apex = _leaving(t, p, q, dx)
    if theta > 0.0:
        v = p
        while v != apex:
            t.flow[v] += -theta if v < dx else theta
            v = t.parent[v]
        v = q
        while v != apex:
            t.flow[v] += theta if v < dx else -theta
            v = t.parent[v]
    # hang the part that is cut off under the other end of the entering arc: reverse its path
    top = q if on_q else p
    v, parent, mass = top, p if on_q else q, theta
    while True:
        old_parent, old_mass = t.parent[v], t.flow[v]
        _detach(t, v)
        _attach(t, v, parent)
        t.flow[v] = mass
        if v == out:
            break
        parent, mass = v, old_mass
        v = old_parent
    # its potentials move by the reduced cost, those on the other side of the graph by minus that
    move = reduced if (top < dx) else -reduced
    v = top
    while v >= 0:
        t.potential[v] += move if v < dx else -move
        t.depth[v] = t.depth[t.parent[v]] + 1
        v = _next(t, v, top)


@helper
def solve_tree(t, dx, dy):
    """Make the basis in the tree optimal; returns lower and upper values and the number of pivots."""
    _plant(t, dx, dy)
    _measure(t, dx, dy)
    size = 0.0
    for e in range(dx * dy):
        size = max(size, abs(t.cost[e]))
    limit = size * (ROUND_OFF + (dx + dy) * ROUND_OFF_PER_NODE)
    pivots, row = 0, np.int64(0)
    while pivots < MOST_PIVOTS * (dx + dy):
        reduced, cell, row = _price(t, dx, dy, row, limit)
        if cell < 0:
            break
        _pivot(t, cell, reduced, dx, dy)
        pivots += 1
    worst = -limit
    if pivots > 0:
        _measure(t, dx, dy)  # afresh: no error of the moves is left
        for k in range(dx):
            for l in range(dy):
                worst = min(worst, t.cost[k * dy + l] - t.potential[k] - t.potential[dx + l])
    value = 0.0
    for v in range(1, dx + dy):
        value += t.flow[v] * _arc_cost(t, v, dx, dy)
    allowance = 2.0 * limit
    return value + min(worst + limit, 0.0) - allowance, value + allowance, pivots
