"""Compiled policy iteration, one item from start to end: the loop of `fixed_point.py` for small chains.

For a pair of molecules the calls from Python that the loop makes would take longer than all its arithmetic.
"""

from collections import namedtuple

import numpy as np

from markovot.transport.compiled.compiling import helper, jitable, kernel
from markovot.transport.compiled.krylov import make_vectors, solve_item
from markovot.transport.compiled.simd import LANES
from markovot.transport.compiled.sweeps import INDEPENDENT, make_scratch, sweep_rows
from markovot.transport.forcing import (
    FINAL_SHARE,
    FORCING,
    LOCAL_FORCING,
    LOCAL_SHARE,
    PATIENCE,
    POLISH,
    PROGRESS,
    START_SHARE,
)

# What an item is, and how accurately it is wanted (arrays over the items; ground is flat).
Goals = namedtuple("Goals", "ground discount tolerance scale mode warmth")
# What comes out: C, T(C), T(C) - C and the local bounds (flat), the enclosure, sweeps, the norm of the last residual.
Result = namedtuple("Result", "cost base residual lower upper low high num_iter")
# How: from the independent coupling (or from given costs), a step past the tolerance, the most sweeps, and the most
# steps of the first and of the other linear systems.
Control = namedtuple("Control", "cold polish max_iter start_steps linear_steps")


@helper
def look(e, delta, problem, result, seen):
    """Write T(C) and T(C) - C at an entry. Returns what was `seen`, and it: limits and size of residuals, widths."""
    low, high, largest, width = seen
    result.base[e] = delta * problem.ground[e] + (1.0 - delta) * result.lower[e]
    r = result.base[e] - result.cost[e]
    result.residual[e] = r
    return min(low, r), max(high, r), max(largest, abs(r)), max(width, result.upper[e] - result.lower[e])


@helper
def closed(delta, seen):
    """The enclosure's low and high, and the largest residual, from what was seen at all entries."""
    low, high, largest, width = seen
    spread, weight = (1.0 - delta) * width, (1.0 - delta) / delta
    return weight * low, weight * (high + spread) + spread, largest


@helper
def _enclose(batch, p, problem, result):
    """Write T(C) and T(C) - C; returns the enclosure's low and high, and the largest residual."""
    items, lanes = batch.items, batch.lanes
    delta, y = problem.discount[p], items.y[p]
    seen = (np.inf, -np.inf, 0.0, 0.0)
    for i in range(items.rows[p]):
        base = p * items.size + i * items.stride
        for group in range(lanes.groups[y], lanes.groups[y + 1]):
            for t in range(lanes.count[group]):
                seen = look(base + lanes.states[group * LANES + t], delta, problem, result, seen)
    return closed(delta, seen)


@helper
def _span(x, size):
    """Range of the first entries, zero included: padding counts, and can only widen it."""
    low, high = 0.0, 0.0
    for e in range(size):
        low, high = min(low, x[e]), max(high, x[e])
    return high - low


@jitable
def make_memory(rows, width, size):
    """Working memory for `run_item`: local problems of up to `rows` x `width`, and `size` pairs of states."""
    return make_scratch(rows, width), make_vectors(size), np.empty(size), np.empty(size)


def make_loop(sweep_rows, enclose, solve_item):
    """Policy iteration for one item, on the sweeps, enclosures and linear systems of one kind of batch."""

    @helper
    def run_item(batch, p, rows, problem, result, control, memory):
        """Run item p, of `rows[0]..rows[1]`, to its tolerance, from its costs in `result.cost` unless `control.cold`.

        The steps of the linear systems are arguments, since numba would compile their solver anew for each constant.
        """
        size = batch.items.size
        scratch, work, step, kept = memory
        bounds = (result.lower, result.upper)
        part = slice(p * size, (p + 1) * size)
        delta, scale, tolerance = problem.discount[p], problem.scale[p], problem.tolerance[p]
        cost = result.cost[part]
        warmth = problem.warmth[p]
        if control.cold:
            batch.items.mode[p] = INDEPENDENT
            for e in range(size):
                step[e] = delta * problem.ground[p * size + e]
            limit = START_SHARE * delta * scale
            solve_item(batch, p, size, delta, result.cost, step, cost, limit, control.start_steps, work)
        batch.items.mode[p] = problem.mode[p]
        goal = delta * tolerance
        gap = max(LOCAL_SHARE * goal, LOCAL_FORCING * scale)
        met, polished, stale, best = False, not control.polish, 0, np.inf
        best_low, best_high = -np.inf, np.inf
        while True:
            sweep_rows(batch, p, rows, result.cost, gap, warmth, bounds, scratch)
            low, high, largest = enclose(batch, p, problem, result)
            result.low[p], result.high[p] = low, high
            result.num_iter[p] += 1
            radius = 0.5 * (high - low)
            stale = 0 if radius < PROGRESS * best else stale + 1
            if radius < best:
                best, best_low, best_high = radius, low, high
                for e in range(size):
                    kept[e] = result.base[p * size + e]
            polished = polished or met
            met = met or radius <= tolerance
            stuck = result.num_iter[p] >= control.max_iter or stale >= PATIENCE or not np.isfinite(radius)
            if (met and polished) or stuck:
                if not radius <= best:  # every enclosure holds; the last one need not be the closest
                    result.low[p], result.high[p] = best_low, best_high
                    for e in range(size):
                        result.base[p * size + e] = kept[e]
                break
            share = POLISH if met else 1.0
            forcing = max((POLISH if met else FINAL_SHARE) * goal, FORCING * largest)
            for e in range(size):
                step[e] = 0.0
            residual = result.residual[part]
            reached = solve_item(
                batch, p, size, delta, result.cost, residual, step, forcing, control.linear_steps, work
            )
            solved = reached < largest  # if not: a step of value iteration, which always contracts
            for e in range(size):
                step[e] = step[e] if solved else residual[e]
                cost[e] += step[e]
            warmth = _span(step, size)
            gap = max(share * LOCAL_SHARE * goal, LOCAL_FORCING * largest * delta)

    return run_item


run_item = make_loop(sweep_rows, _enclose, solve_item)


def make_policy_iteration(module, run_item):
    """The kernel that runs many items by `run_item`."""

    def policy_iteration(tasks, batch, problem, result, control, memory):
        """Run every item of `tasks[:, 0]` to its tolerance."""
        for t in range(tasks.shape[0]):
            run_item(batch, tasks[t, 0], (tasks[t, 1], tasks[t, 2]), problem, result, control, memory)

    policy_iteration.__module__, policy_iteration.__qualname__ = module, "policy_iteration"
    return kernel(policy_iteration)


policy_iteration = make_policy_iteration(__name__, run_item)
