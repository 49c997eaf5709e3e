"""Compiled kernel for exact transport problems that share nothing."""

import numpy as np

from markovot.transport.compiled.compiling import kernel
from markovot.transport.compiled.entropic_problems import support
from markovot.transport.compiled.simplex import make_tree, north_west, solve_tree


def make_memory(n, m):
    """Working memory for `solve_problems`, of `n` x `m`."""
    return make_tree(n, m), np.zeros(n, np.int64), np.zeros(m, np.int64)


@kernel
def solve_problems(tasks, problems, found, memory):
    """Solve problems `first..last` of each task; only states with mass take part.

    The potentials of the others are the c-transforms of those that do, derivatives for mass that is moved there.
    """
    a, b, cost = problems
    lower, upper, f, g, plan, count = found
    n, m = a.shape[1], b.shape[1]
    t, rows, columns = memory
    for task in range(tasks.shape[0]):
        for q in range(tasks[task, 0], tasks[task, 1]):
            dx, dy = support(a[q], rows), support(b[q], columns)
            for k in range(dx):
                t.a[k] = a[q, rows[k]]
                for l in range(dy):
                    t.cost[k * dy + l] = cost[q, rows[k], columns[l]]
            for l in range(dy):
                t.b[l] = b[q, columns[l]]
            north_west(t, dx, dy)
            lower[q], upper[q], count[q] = solve_tree(t, dx, dy)
            for node in range(1, dx + dy):
                k, l = (node, t.parent[node] - dx) if node < dx else (t.parent[node], node - dx)
                plan[q, rows[k], columns[l]] = t.flow[node]
            for k in range(n):
                f[q, k] = np.inf
                for l in range(dy):
                    f[q, k] = min(f[q, k], cost[q, k, columns[l]] - t.potential[dx + l])
            for l in range(m):
                g[q, l] = np.inf
                for k in range(dx):
                    g[q, l] = min(g[q, l], cost[q, rows[k], l] - t.potential[k])
