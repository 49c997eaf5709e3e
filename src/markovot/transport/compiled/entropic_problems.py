"""Compiled kernel for transport problems that share nothing: eight of them side by side."""

import numpy as np

from markovot.transport.compiled.compiling import helper, kernel
from markovot.transport.compiled.dual import make_group, solve_group
from markovot.transport.compiled.simd import LANES, load, splat, store


@helper
def support(weights, out):
    """Positions with mass, and how many."""
    count = 0
    for k in range(weights.size):
        if weights[k] > 0.0:
            out[count] = k
            count += 1
    return count


def make_memory(n, m):
    """Working memory for `solve_problems`, of `n` x `m`: a group, a plan, the states with mass, vectors of lanes."""
    lists = np.zeros((LANES, n), np.int64), np.zeros((LANES, m), np.int64)
    counts = np.zeros(LANES, np.int64), np.zeros(LANES, np.int64)
    return make_group(n, m), np.empty(n * m * LANES), lists, counts, (np.empty(LANES), np.empty(LANES))


@kernel
def solve_problems(tasks, problems, wanted, g, lower, upper, count, memory):
    """Solve problems `first..last` of each task (at most eight); g holds first potentials, and gets the last ones.

    Only states with mass take part, and the potentials of the others are left alone.
    """
    a, b, cost = problems
    epsilon, gap, most = wanted
    w, plan, (rows, columns), (row_count, column_count), (gaps, targets) = memory
    for t in range(tasks.shape[0]):
        first, last = tasks[t, 0], tasks[t, 1]
        height, width = np.int64(0), np.int64(0)  # typed: numba compiles callees anew for literals
        for lane in range(LANES):
            q = min(first + lane, last - 1)
            row_count[lane] = support(a[q], rows[lane])
            column_count[lane] = support(b[q], columns[lane])
            height = max(height, row_count[lane])
            width = max(width, column_count[lane])
        for lane in range(LANES):
            q = min(first + lane, last - 1)
            gaps[lane], targets[lane] = gap[q], epsilon[q]
            for k in range(height):
                inside = k < row_count[lane]
                row = rows[lane, k if inside else 0]
                w.a[k * LANES + lane] = a[q, row] if inside else 0.0
                for l in range(width):
                    column = columns[lane, l if l < column_count[lane] else 0]
                    w.cost[(k * width + l) * LANES + lane] = cost[q, row, column]
            origin = g[q, columns[lane, 0]]
            for l in range(width):
                inside = l < column_count[lane]
                w.b[l * LANES + lane] = b[q, columns[lane, l]] if inside else 0.0
                w.g[l * LANES + lane] = g[q, columns[lane, l]] - origin if inside else 0.0
        low, high, evaluations = solve_group(
            w, height, width, load(targets, 0), load(gaps, 0), splat(np.inf), plan, (np.int64(0), width), most
        )
        store(gaps, 0, low)
        store(targets, 0, high)
        for lane in range(last - first):
            q = first + lane
            lower[q], upper[q] = gaps[lane], targets[lane]
            count[q] = evaluations
            for l in range(column_count[lane]):
                g[q, columns[lane, l]] = w.g[l * LANES + lane]


@helper
def _onto_marginals(plan, a, b, missing):
    """Round a plan whose rows sum to a, so that its columns sum to b too (Altschuler, Weed, Rigollet 2017).

    Columns that have too much are scaled down; what then is missing in rows and columns is added as a product.
    """
    total = 0.0
    for k in range(a.size):
        missing[k] = a[k]
    for l in range(b.size):
        column = 0.0
        for k in range(a.size):
            column += plan[k, l]
        factor = b[l] / column if column > b[l] else 1.0
        for k in range(a.size):
            plan[k, l] *= factor
            missing[k] -= plan[k, l]
        total += max(b[l] - column, 0.0)
    for l in range(b.size):
        column = 0.0
        for k in range(a.size):
            column += plan[k, l]
        share = max(b[l] - column, 0.0) / total if total > 0.0 else 0.0
        for k in range(a.size):
            plan[k, l] += max(missing[k], 0.0) * share


@kernel
def finish(problems, epsilon, g, f, plan, missing):
    """The coupling of potentials g, f to go with it, and g at columns without mass (soft c-transforms)."""
    a, b, cost = problems
    for q in range(a.shape[0]):
        for k in range(a.shape[1]):
            top = -np.inf
            for l in range(b.shape[1]):
                if b[q, l] > 0.0:
                    top = max(top, g[q, l] - cost[q, k, l])
            total = 0.0
            for l in range(b.shape[1]):
                plan[q, k, l] = 0.0
                if b[q, l] > 0.0:
                    plan[q, k, l] = b[q, l] * np.exp((g[q, l] - cost[q, k, l] - top) / epsilon[q])
                total += plan[q, k, l]
            f[q, k] = -top - epsilon[q] * np.log(total)
            for l in range(b.shape[1]):
                plan[q, k, l] *= a[q, k] / total
        _onto_marginals(plan[q], a[q], b[q], missing)
        for l in range(b.shape[1]):
            if b[q, l] > 0.0:
                continue
            top = -np.inf
            for k in range(a.shape[1]):
                if a[q, k] > 0.0:
                    top = max(top, f[q, k] - cost[q, k, l])
            total = 0.0
            for k in range(a.shape[1]):
                if a[q, k] > 0.0:
                    total += a[q, k] * np.exp((f[q, k] - cost[q, k, l] - top) / epsilon[q])
            g[q, l] = -top - epsilon[q] * np.log(total)
