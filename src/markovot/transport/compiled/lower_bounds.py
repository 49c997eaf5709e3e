"""Compiled lower bounds of the cost to go: sweeps whose transport problems keep one marginal of the two.

Without its second marginal a transport problem is solved at sight: every state k of the first row goes where it is best
received,

    OT_eps(a, b; C) >= sum_k a_k (-eps log sum_l b_l exp(-C_kl / eps)),

which is the dual value at g = 0; likewise with the sides exchanged. For all pairs of rows (A_i, B_j) at once that is
two sparse products around a logarithm, and all share the exponentials. The Bellman operator is monotone: with such
bounds for transport values, sweeps from below C* stay below it.
"""

from collections import namedtuple

import numpy as np

from markovot.transport.compiled.compiling import allocating_kernel, helper, jitable
from markovot.transport.compiled.simd import LANES, exp, load, log, maximum, minimum, splat, store

# Costs that lie this many epsilon apart, or more, have no common exponentials; the least cost, which is lower than
# the soft minimum, then serves.
SOFT_RANGE = 600.0
TINY = 1e-300
# What rounding may add in a sweep, for each state, relative to the largest cost.
ROUND_OFF = 2.0**-50

# Transition rows in compressed form; of several chains one after another, each with states of its own from 0.
Chains = namedtuple("Chains", "indptr indices weight")
# delta, epsilon; the most sweeps, and the rise that is not worth another one.
Sweeps = namedtuple("Sweeps", "delta epsilon most least_rise")


@jitable
def _make_scratch(n, width):
    size = n * width
    return np.empty(size), np.empty(size), np.empty(size)


@helper
def _whole_vectors(m):
    return (m + LANES - 1) // LANES * LANES


@helper
def _from_left(rows, source, target, n, width, least):
    """`target_i = sum_k A_ik source_k`, or the least of these rows of the source, eight entries at a time."""
    for i in range(n):
        for l in range(0, width, LANES):
            total = splat(np.inf) if least else splat(0.0)
            for e in range(rows.indptr[i], rows.indptr[i + 1]):
                values = load(source, rows.indices[e] * width + l)
                total = minimum(total, values) if least else total + values * rows.weight[e]
            store(target, i * width + l, total)


@helper
def _from_right(rows, first, source, target, n, m, width, least):
    """`target_kj = sum_l B_jl source_kl`, or the least of these entries, for the m rows from `first`."""
    for j in range(m):
        start, stop = rows.indptr[first + j], rows.indptr[first + j + 1]
        for k in range(n):
            total = np.inf if least else 0.0
            for e in range(start, stop):
                value = source[k * width + rows.indices[e]]
                total = min(total, value) if least else total + value * rows.weight[e]
            target[k * width + j] = total


@helper
def _exponentials(cost, n, width, epsilon, low, soft):
    """`exp((low - C) / eps)` in place, where C may be that far from the lowest one."""
    if soft:
        for position in range(0, n * width, LANES):
            store(cost, position, exp((splat(low) - load(cost, position)) / splat(epsilon)))


@helper
def _logarithms(values, n, width, epsilon, low, soft):
    """Back, in place: `low - eps log x`; what has vanished is held where it is too low."""
    if soft:
        for position in range(0, n * width, LANES):
            x = maximum(load(values, position), splat(TINY))
            store(values, position, splat(low) - splat(epsilon) * log(x))


@helper
def _copy(cost, first, n, m, width, target):
    """The pair's costs in rows of whole vectors; returns their range. Padding repeats a cost."""
    low, high = cost[0, first], cost[0, first]
    for i in range(n):
        for j in range(m):
            value = cost[i, first + j]
            target[i * width + j] = value
            low, high = min(low, value), max(high, value)
        for j in range(m, width):
            target[i * width + j] = cost[i, first]
    return low, high


@helper
def _raise(cost, ground, first, n, m, width, delta, allowance, values):
    """`C <- max(C, delta D + (1 - delta) values)`; returns the largest rise."""
    rise = 0.0
    for i in range(n):
        for j in range(m):
            new = delta * ground[i, first + j] + (1.0 - delta) * values[i * width + j] - allowance
            rise = max(rise, new - cost[i, first + j])
            cost[i, first + j] = max(cost[i, first + j], new)
    return rise


@allocating_kernel
def raise_bounds(tasks, x, ys, first, ground, sweeps, cost):
    """Raise lower bounds of the costs to go between one chain and several.

    Args:
        tasks: which chains of `ys`.
        x: the rows of the one chain, n states.
        ys: the rows of the others, m states together.
        first: where the states of each of these begin, and m.
        ground: ground costs (n, m).
        sweeps: what to do.
        cost: lower bounds (n, m), raised in place.
    """
    n = cost.shape[0]
    widest = np.int64(0)
    for t in range(tasks.size):
        widest = max(widest, first[tasks[t] + 1] - first[tasks[t]])
    gibbs, inner, outer = _make_scratch(n, _whole_vectors(widest))
    delta, epsilon = sweeps.delta, sweeps.epsilon
    least = np.bool_(False)  # typed: numba compiles callees anew for literals
    for t in range(tasks.size):
        start = first[tasks[t]]
        m = first[tasks[t] + 1] - start
        width = _whole_vectors(m)
        rise = np.inf
        for half in range(2 * sweeps.most):
            low, high = _copy(cost, start, n, m, width, gibbs)
            soft = high - low < SOFT_RANGE * epsilon
            _exponentials(gibbs, n, width, epsilon, low, soft)
            # the marginal that is kept: of the first chain, and then of the second
            if half % 2 == 0:
                _from_right(ys, start, gibbs, inner, n, m, width, not soft)
                _logarithms(inner, n, width, epsilon, low, soft)
                _from_left(x, inner, outer, n, width, least)
            else:
                _from_left(x, gibbs, inner, n, width, not soft)
                _logarithms(inner, n, width, epsilon, low, soft)
                _from_right(ys, start, inner, outer, n, m, width, least)
            allowance = ROUND_OFF * (n + m) * (max(abs(low), abs(high)) + epsilon)
            before = rise
            rise = _raise(cost, ground, start, n, m, width, delta, allowance, outer)
            # Sweeps contract: all that follow can add this much times (1 - delta) / delta.
            if (1.0 - delta) * max(rise, before) <= delta * sweeps.least_rise:
                break
