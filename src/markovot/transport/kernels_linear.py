"""Compiled BiCGStab for `K x = b` and `K^T x = b`, `K = I - (1 - delta) P`, one item at a time.

The same method as in `linear.py`, for the many small systems of a batch, where a call from Python for each vector
operation would cost more than the operation.
"""

import numpy as np

from markovot.transport.compiling import helper, kernel
from markovot.transport.kernels import apply_column, apply_row


@helper
def _times(p, n, discount, transpose, items, side, columns, lanes, state, cost, v, out, scratch):
    """K v or K^T v for item p; v and out hold this item alone."""
    for i in range(n):
        if transpose:
            apply_column(items, side, columns, lanes, state, cost, p, i, v, 0, out, 0)
        else:
            apply_row(items, side, lanes, state, cost, p, i, v, 0, out, 0, scratch)
    for e in range(v.size):
        out[e] = v[e] - (1.0 - discount) * out[e]


@helper
def _size(v, transpose):
    """The norm in which the operator is contractive: the maximum norm for K, the sum of moduli for its transpose."""
    largest, total = 0.0, 0.0
    for e in range(v.size):
        largest = max(largest, abs(v[e]))
        total += abs(v[e])
    return total if transpose else largest


@helper
def _dot(v, w):
    total = 0.0
    for e in range(v.size):
        total += v[e] * w[e]
    return total


@kernel
def bicgstab(tasks, transpose, max_iter, items, side, columns, lanes, state, cost, discount, tolerance, rhs, x, residual):
    """Solve each item of `tasks` (item, 0, number of rows) until the residual's norm is at most `tolerance[item]`.

    `x` holds the first guess, and the solution on return; `residual[item]` the norm reached (recomputed at the end of
    every run, so that no drift of the recurrence goes unnoticed).
    """
    scratch = np.empty(8)
    size = items.size
    work = np.zeros((6, size))
    r, shadow, d, kd, s, ks = work[0], work[1], work[2], work[3], work[4], work[5]
    for t in range(tasks.shape[0]):
        p, n = tasks[t, 0], tasks[t, 2]
        work[:] = 0.0  # the products leave padded states alone, and they must stay zero
        delta = discount[p]
        y = x[p * size : (p + 1) * size]
        b = rhs[p * size : (p + 1) * size]
        left = max_iter
        while True:
            _times(p, n, delta, transpose, items, side, columns, lanes, state, cost, y, r, scratch)
            for e in range(size):
                r[e] = b[e] - r[e]
                shadow[e] = r[e]
                d[e] = r[e]
            residual[p] = _size(r, transpose)
            if residual[p] <= tolerance[p] or left <= 0:
                break
            rho = _dot(shadow, r)
            while left > 0:
                left -= 1
                _times(p, n, delta, transpose, items, side, columns, lanes, state, cost, d, kd, scratch)
                curvature = _dot(shadow, kd)
                if curvature == 0.0:
                    break
                alpha = rho / curvature
                for e in range(size):
                    s[e] = r[e] - alpha * kd[e]
                _times(p, n, delta, transpose, items, side, columns, lanes, state, cost, s, ks, scratch)
                ks_ks = _dot(ks, ks)
                omega = _dot(ks, s) / ks_ks if ks_ks > 0.0 else 0.0
                for e in range(size):
                    y[e] += alpha * d[e] + omega * s[e]
                    r[e] = s[e] - omega * ks[e]
                if _size(r, transpose) <= 0.5 * tolerance[p]:
                    break
                new_rho = _dot(shadow, r)
                if new_rho == 0.0 or omega == 0.0 or not np.isfinite(new_rho):
                    break
                beta = (new_rho / rho) * (alpha / omega)
                rho = new_rho
                for e in range(size):
                    d[e] = r[e] + beta * (d[e] - omega * kd[e])
