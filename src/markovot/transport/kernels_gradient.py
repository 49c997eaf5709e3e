"""Compiled contractions of the potentials, on and off the support: the gradients in the transition matrices.

Off the support of a row, the potential is its soft c-transform: the derivative of the transport value for mass that is
moved there. On the support the two agree (exactly for f, to the marginal error for g), so one formula serves all entries.
"""

import numpy as np

from markovot.transport.compiling import kernel
from markovot.transport.kernels import blocks, taken
from markovot.transport.simd import LANES, exp, gather, lane_sum, load, log, maximum, splat, store


@kernel
def row_potentials(tasks, items, side, lanes, state, cost, weights, pattern, out_start, out):
    """out[entry of row i, state k] = sum_j weights_ij f_ij^k, f the soft c-transform of g, on the pattern's entries."""
    for t in range(tasks.shape[0]):
        p = tasks[t, 0]
        x = items.x[p]
        eps = items.epsilon[p]
        base = p * items.size
        for i in range(tasks[t, 1], tasks[t, 2]):
            for e in range(pattern.indptr[x, i], pattern.indptr[x, i + 1]):
                total = splat(0.0)
                row = base + pattern.index[e]
                for q in range(lanes.groups[items.y[p] + 1] - lanes.groups[items.y[p]]):
                    _, _, group, width, _, g, _ = blocks(items, side, lanes, p, i, q)
                    entry = lanes.start[group]
                    top = splat(-np.inf)
                    for l in range(width):
                        z = load(state.g, g + l * LANES) - gather(cost, row, lanes.index, entry + l * LANES)
                        top = maximum(top, z)
                    mass = splat(0.0)
                    for l in range(width):
                        z = load(state.g, g + l * LANES) - gather(cost, row, lanes.index, entry + l * LANES)
                        mass = mass + load(lanes.weight, entry + l * LANES) * exp((z - top) / eps)
                    potential = splat(0.0) - top - eps * log(mass)
                    total = total + potential * taken(weights, base + i * items.stride, lanes, group)
                out[out_start[p] + e - pattern.indptr[x, 0]] = lane_sum(total)


@kernel
def lane_potentials(tasks, items, side, lanes, state, cost, weights, pattern, out_start, out):
    """out[lane entry of state j, state l] = sum_i weights_ij g_ij^l, g the soft c-transform of f, on the pattern's entries.

    The tasks are ranges of groups here, and `pattern` is laid out in the same groups as `lanes`.
    """
    for t in range(tasks.shape[0]):
        p = tasks[t, 0]
        x, y = items.x[p], items.y[p]
        eps = items.epsilon[p]
        base = p * items.size
        for q in range(tasks[t, 1], tasks[t, 2]):
            group = lanes.groups[y] + q
            target = out_start[p] + LANES * pattern.before[group]
            for l in range(pattern.width[group]):
                store(out, target + l * LANES, splat(0.0))
            for i in range(side.indptr.shape[1] - 1):
                first, degree, _, _, f, _, _ = blocks(items, side, lanes, p, i, q)
                if degree == 0:
                    continue
                factor = taken(weights, base + i * items.stride, lanes, group)
                for l in range(pattern.width[group]):
                    entry = pattern.start[group] + l * LANES
                    top = splat(-np.inf)
                    for k in range(degree):
                        z = load(state.f, f + k * LANES)
                        z = z - gather(cost, base + side.index[first + k], pattern.index, entry)
                        top = maximum(top, z)
                    mass = splat(0.0)
                    for k in range(degree):
                        z = load(state.f, f + k * LANES)
                        z = z - gather(cost, base + side.index[first + k], pattern.index, entry)
                        mass = mass + side.weight[first + k] * exp((z - top) / eps)
                    potential = splat(0.0) - top - eps * log(mass)
                    store(out, target + l * LANES, load(out, target + l * LANES) + potential * factor)
