"""Compiled contractions of the potentials, on and off the support: the gradients in the transition matrices.

Off the support of a row, the potential is its soft c-transform: the derivative of the transport value for mass that
is moved there. On the support the two agree (exactly for f, to the marginal error for g), so one formula serves all
entries.
"""

import numpy as np

from markovot.transport.compiled.compiling import kernel
from markovot.transport.compiled.simd import LANES, exp, gather, lane_sum, load, log, maximum, splat, store
from markovot.transport.compiled.sweeps import block_of, num_groups, taken


@kernel
def row_potentials(tasks, batch, cost, weights, pattern, out_start, out):
    """out[entry of row i, state k] = sum_j weights_ij f_ij^k, f the soft c-transform of g, on the pattern's entries."""
    items, lanes = batch.items, batch.lanes
    for t in range(tasks.shape[0]):
        p = tasks[t, 0]
        x, eps, base = items.x[p], items.epsilon[p], p * items.size
        for i in range(tasks[t, 1], tasks[t, 2]):
            for e in range(pattern.indptr[x, i], pattern.indptr[x, i + 1]):
                total = splat(0.0)
                row = base + pattern.index[e] * items.stride
                for q in range(num_groups(batch, p)):
                    block = block_of(batch, p, i, q)
                    top = splat(-np.inf)
                    for l in range(block.width):
                        z = load(batch.state.g, block.g + l * LANES)
                        z = z - gather(cost, row, lanes.index, block.entry + l * LANES)
                        top = maximum(top, z)
                    mass = splat(0.0)
                    for l in range(block.width):
                        z = load(batch.state.g, block.g + l * LANES)
                        z = z - gather(cost, row, lanes.index, block.entry + l * LANES)
                        mass = mass + load(lanes.weight, block.entry + l * LANES) * exp((z - top) / eps)
                    potential = splat(0.0) - top - eps * log(mass)
                    total = total + potential * taken(weights, base + i * items.stride, lanes, block.group)
                out[out_start[p] + e - pattern.indptr[x, 0]] = lane_sum(total)


@kernel
def lane_potentials(tasks, batch, cost, weights, pattern, out_start, out):
    """out[lane entry of state j, state l] = sum_i weights_ij g_ij^l, g the soft c-transform of f.

    Only the pattern's entries are wanted. The tasks are ranges of groups here, and `pattern` is laid out in the same
    groups as the lanes.
    """
    items, side = batch.items, batch.side
    for t in range(tasks.shape[0]):
        p = tasks[t, 0]
        eps, base = items.epsilon[p], p * items.size
        for q in range(tasks[t, 1], tasks[t, 2]):
            group = batch.lanes.groups[items.y[p]] + q
            target = out_start[p] + LANES * pattern.before[group]
            for l in range(pattern.width[group]):
                store(out, target + l * LANES, splat(0.0))
            for i in range(items.rows[p]):
                block = block_of(batch, p, i, q)
                factor = taken(weights, base + i * items.stride, batch.lanes, group)
                for l in range(pattern.width[group]):
                    entry = pattern.start[group] + l * LANES
                    top = splat(-np.inf)
                    for k in range(block.degree):
                        z = load(batch.state.f, block.f + k * LANES)
                        row = base + side.index[block.first + k] * items.stride
                        z = z - gather(cost, row, pattern.index, entry)
                        top = maximum(top, z)
                    mass = splat(0.0)
                    for k in range(block.degree):
                        z = load(batch.state.f, block.f + k * LANES)
                        row = base + side.index[block.first + k] * items.stride
                        z = z - gather(cost, row, pattern.index, entry)
                        mass = mass + side.weight[block.first + k] * exp((z - top) / eps)
                    potential = splat(0.0) - top - eps * log(mass)
                    store(out, target + l * LANES, load(out, target + l * LANES) + potential * factor)
