"""Compiled kernel for data sets: whole pairs of chains, from the features of their states to the distance.

Policy iteration runs one pair after another; the initial couplings of eight pairs are then solved side by side. A pair
is laid out by itself, without padding, and its result does not depend on the others.
"""

import math
from collections import namedtuple

import numpy as np

from markovot.transport.compiled.compiling import allocating_kernel, helper, jitable
from markovot.transport.compiled.dual import MAX_ITER, make_group, solve_group
from markovot.transport.compiled.entropic_problems import support
from markovot.transport.compiled.policy import Goals, Result, make_memory, run_item
from markovot.transport.compiled.simd import LANES, load, splat, store
from markovot.transport.compiled.sweeps import STORED, Batch, Items, State
from markovot.transport.units import LARGEST_EPSILON, MOST_EXPONENT, SAFE_EXPONENT

# A set of chains, each laid out both ways: as a first chain (`side`) and, in `lanes`, as a second one. `sizes` are the
# numbers of states, `fullness` decides which chain goes into the lanes, `degree` is the largest number of entries of a
# row. Row `first[c] + i` of the table of ground costs (or its column) is state i of chain c, and so in `law`.
Members = namedtuple("Members", "side lanes sizes fullness degree first law")
# delta, epsilon, and the wanted error relative to the range of the cost; of that the shares of the fixed point and of
# the initial coupling.
Task = namedtuple("Task", "delta epsilon rtol share rest")
# For each pair: value, certified error, what it was to be, and sweeps.
Answer = namedtuple("Answer", "value bound wanted num_iter")
# The largest sizes among the pairs of a call: cost, f, g, plan, degrees, and states of either chain.
Extent = namedtuple("Extent", "size f g plan degree width long short")
# One pair at a time: what its batch of one item is made of (arrays of one entry), and memory for it.
Frame = namedtuple(
    "Frame",
    "x y rows zero mode stored num_iter epsilon discount tolerance scale warmth columns ground wide narrow state",
)


@helper
def _in_lanes(xs, ys, a, b):
    """Whether y goes into the lanes: the chain with the smaller rows does, so that the Newton systems are small."""
    return xs.fullness[a] >= ys.fullness[b]


@helper
def _grow(extent, rows, lanes, r, l):
    """The extent that also holds the pair of row chain r and lane chain l."""
    entries = rows.side.indptr[r, rows.sizes[r]] - rows.side.indptr[r, 0]
    groups = lanes.lanes.groups[l + 1] - lanes.lanes.groups[l]
    total = lanes.lanes.total[l]
    n, m = rows.sizes[r], lanes.sizes[l]
    return Extent(
        max(extent.size, n * m),
        max(extent.f, LANES * groups * entries),
        max(extent.g, LANES * n * total),
        max(extent.plan, LANES * entries * total),
        max(extent.degree, rows.degree[r]),
        max(extent.width, lanes.degree[l]),
        max(extent.long, max(n, m)),
        max(extent.short, min(n, m)),
    )


@helper
def _extent(pairs, xs, ys):
    zero = np.int64(0)
    extent = Extent(zero, zero, zero, zero, zero, zero, zero, zero)
    for t in range(pairs.shape[0]):
        a, b = pairs[t, 0], pairs[t, 1]
        extent = _grow(extent, xs, ys, a, b) if _in_lanes(xs, ys, a, b) else _grow(extent, ys, xs, b, a)
    return extent


@jitable
def _make_frame(extent):
    size = extent.size
    return Frame(
        np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1, np.int64),
        np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1, np.int64),
        np.zeros(1), np.zeros(1), np.zeros(1), np.zeros(1), np.zeros(1), np.zeros(1, np.int64),
        np.empty(size), (np.empty(size), np.empty(size), np.empty(size), np.empty(size)), (np.zeros(1), np.zeros(1)),
        State(np.empty(extent.f), np.empty(extent.g), np.empty(extent.plan)),
    )  # fmt: skip


@helper
def unit_of(low, high):
    """The unit of costs between `low` and `high`: see `units.measure`."""
    base = high - low if 0.0 < high - low < np.inf else max(abs(low), abs(high))
    if base == 0.0 or not base < np.inf or 2.0**-SAFE_EXPONENT <= base <= 2.0**SAFE_EXPONENT:
        return 1.0
    _, exponent = math.frexp(base)
    return math.ldexp(1.0, min(max(exponent - 1, -MOST_EXPONENT), MOST_EXPONENT))


@helper
def epsilon_of(epsilon, low, high):
    """Epsilon for costs between `low` and `high`, in their unit."""
    base = high - low if high > low else max(abs(low), abs(high))
    return min(epsilon, (LARGEST_EPSILON if high > low else 1.0) * (base if base > 0.0 else 1.0))


@helper
def confine(value, bound, low, high):
    """See `units.confined`."""
    below, above = value - bound, value + bound
    if (below >= low and above <= high) or not bound < np.inf:
        return value, bound
    below, above = min(max(below, low), high), min(max(above, low), high)
    return 0.5 * (below + above), 0.5 * (above - below)


@helper
def read_ground(table, corner, sizes, across, out):
    """Write the ground costs of a pair in their unit, row chain first; returns the least, the largest, and the unit.

    The unit is NaN where some costs are not finite.
    """
    n, m = sizes
    low, high, total = np.inf, -np.inf, 0.0
    for i in range(n):
        for j in range(m):
            value = table[corner[0] + i, corner[1] + j]
            low, high = min(low, value), max(high, value)
            total += value - value  # stays zero only while all are finite
    unit = unit_of(low, high)
    for i in range(n):
        for j in range(m):
            out[i * m + j if across else j * n + i] = table[corner[0] + i, corner[1] + j] / unit
    return low / unit, high / unit, unit + total


@helper
def meets_itself(xs, ys, a, b, table):
    """Whether the two chains are equal, and every state has the least cost to itself."""
    n = xs.sizes[a]
    first_x, first_y = xs.side.indptr[a, 0], ys.side.indptr[b, 0]
    if ys.sizes[b] != n or xs.side.indptr[a, n] - first_x != ys.side.indptr[b, n] - first_y:
        return False
    for i in range(n):
        same_law = xs.law[xs.first[a] + i] == ys.law[ys.first[b] + i]
        if not same_law or xs.side.indptr[a, i] - first_x != ys.side.indptr[b, i] - first_y:
            return False
    for e in range(xs.side.indptr[a, n] - first_x):
        same_index = xs.side.index[first_x + e] == ys.side.index[first_y + e]
        if not same_index or xs.side.weight[first_x + e] != ys.side.weight[first_y + e]:
            return False
    low = np.inf
    for i in range(n):
        for j in range(n):
            low = min(low, table[xs.first[a] + i, ys.first[b] + j])
    same = True
    for i in range(n):
        same &= table[xs.first[a] + i, ys.first[b] + i] == low
    return same


def make_fixed_point(run_item):
    """The fixed point of the pair in a frame, by the loop `run_item` of its kind of batch."""

    @helper
    def fixed_point(batch, frame, setting, control, memory, cost, centre):
        """Writes the middle of the enclosure of C*; returns its radius, and the error wanted of the distance."""
        size = batch.items.size
        base, residual, lower, upper = frame.wide
        low, high = frame.narrow
        wanted = setting.rtol * (frame.scale[0] if frame.scale[0] > 0.0 else 1.0)
        frame.tolerance[0] = setting.share * wanted
        frame.num_iter[0] = 0
        result = Result(cost, base, residual, lower, upper, low, high, frame.num_iter)
        problem = Goals(frame.ground, frame.discount, frame.tolerance, frame.scale, frame.stored, frame.warmth)
        for e in range(size):
            cost[e] = 0.0
        run_item(batch, np.int64(0), (np.int64(0), frame.rows[0]), problem, result, control, memory)
        middle = 0.5 * (low[0] + high[0])
        for e in range(size):
            centre[e] = base[e] + middle
        return 0.5 * (high[0] - low[0]), wanted

    return fixed_point


_fixed_point = make_fixed_point(run_item)


@helper
def _put_outer(w, lane, cost, law, strides, height, width, lists):
    """Write an initial coupling to a lane of the group: only states with mass take part, the rest is padding."""
    a, b = law
    rows, columns = lists
    num_rows, num_columns = support(a, rows), support(b, columns)
    for k in range(height):
        row = rows[k if k < num_rows else 0]
        w.a[k * LANES + lane] = a[row] if k < num_rows else 0.0
        for l in range(width):
            column = columns[l if l < num_columns else 0]
            w.cost[(k * width + l) * LANES + lane] = cost[row * strides[0] + column * strides[1]]
    for l in range(width):
        w.b[l * LANES + lane] = b[columns[l]] if l < num_columns else 0.0
        w.g[l * LANES + lane] = 0.0


@allocating_kernel
def solve_pairs(pairs, xs, ys, table, setting, control, answer):
    """Distances of the pairs (a, b): chain a of `xs` and chain b of `ys`, with ground costs from the table.

    A pair whose ground costs are not all finite gets NaN.
    """
    extent = _extent(pairs, xs, ys)
    frame = _make_frame(extent)
    frame.discount[0] = setting.delta
    frame.stored[0], frame.warmth[0] = STORED, np.inf
    memory = make_memory(extent.degree, extent.width, extent.size)
    cost, centres = np.empty(extent.size), np.zeros((LANES, extent.size))
    radius, unit, limits = np.zeros(LANES), np.ones(LANES), np.zeros((2, LANES))
    group, plan = make_group(extent.long, extent.short), np.empty(extent.long * extent.short * LANES)
    lists = (np.zeros(extent.long, np.int64), np.zeros(extent.long, np.int64))
    lows, highs, gaps, epsilons = np.empty(LANES), np.empty(LANES), np.ones(LANES), np.ones(LANES)
    for start in range(0, pairs.shape[0], LANES):
        count = min(LANES, pairs.shape[0] - start)
        height, width = np.int64(0), np.int64(0)  # typed: numba compiles callees anew for literals
        for lane in range(count):
            a, b = pairs[start + lane, 0], pairs[start + lane, 1]
            n, m = xs.sizes[a], ys.sizes[b]
            height, width = max(height, max(n, m)), max(width, min(n, m))
            across = _in_lanes(xs, ys, a, b)
            frame.x[0], frame.y[0], frame.rows[0] = (a, b, n) if across else (b, a, m)
            side, lanes = (xs.side, ys.lanes) if across else (ys.side, xs.lanes)
            items = Items(
                frame.x, frame.y, frame.rows, frame.zero, frame.zero, frame.zero, n * m, m if across else n,
                frame.epsilon, frame.mode, extent.degree, extent.width,
            )  # fmt: skip
            batch = Batch(items, side, lanes, frame.state)
            low, high, unit[lane] = read_ground(table, (xs.first[a], ys.first[b]), (n, m), across, frame.ground)
            limits[0, lane], limits[1, lane] = low, high
            frame.scale[0] = high - low
            q = start + lane
            centres[lane] = 0.0
            radius[lane], answer.wanted[q], epsilons[lane] = np.nan, np.nan, 1.0
            if np.isfinite(unit[lane]):
                frame.epsilon[0] = epsilons[lane] = epsilon_of(setting.epsilon / unit[lane], low, high)
                frame.state.g[: LANES * frame.rows[0] * lanes.total[frame.y[0]]] = 0.0
                radius[lane], answer.wanted[q] = _fixed_point(
                    batch, frame, setting, control, memory, cost, centres[lane]
                )
                answer.num_iter[q] = frame.num_iter[0]
                for e in range(n * m):
                    centres[lane, e] = min(max(centres[lane, e], low), high)
        for lane in range(LANES):
            q = start + min(lane, count - 1)
            a, b = pairs[q, 0], pairs[q, 1]
            n, m = xs.sizes[a], ys.sizes[b]
            law_x, law_y = xs.law[xs.first[a] : xs.first[a] + n], ys.law[ys.first[b] : ys.first[b] + m]
            step_x, step_y = (m, np.int64(1)) if _in_lanes(xs, ys, a, b) else (np.int64(1), n)
            law, strides = ((law_x, law_y), (step_x, step_y)) if n >= m else ((law_y, law_x), (step_y, step_x))
            _put_outer(group, lane, centres[min(lane, count - 1)], law, strides, height, width, lists)
            gaps[lane] = setting.rest * answer.wanted[q] if np.isfinite(answer.wanted[q]) else 1.0
            epsilons[lane] = epsilons[min(lane, count - 1)]
        lower, upper, _ = solve_group(
            group, height, width, load(epsilons, 0), load(gaps, 0), splat(np.inf), plan, (np.int64(0), width), MAX_ITER
        )
        store(lows, 0, lower)
        store(highs, 0, upper)
        for lane in range(count):
            value, bound = 0.5 * (lows[lane] + highs[lane]), 0.5 * (highs[lane] - lows[lane]) + radius[lane]
            value, bound = confine(value, bound, limits[0, lane], limits[1, lane])
            q = start + lane
            answer.value[q] = value * unit[lane] + 0.0 * radius[lane]
            answer.bound[q], answer.wanted[q] = bound * unit[lane], answer.wanted[q] * unit[lane]
