"""Compiled BiCGStab for `K x = b` and `K^T x = b`, `K = I - (1 - delta) P`, one item at a time.

The same method as in `linear.py`, for the many small systems of a batch, where a call from Python for each vector
operation would cost more than the operation.
"""

import math

import numpy as np

from markovot.transport.compiled.compiling import allocating_helper, helper, kernel
from markovot.transport.compiled.simd import LANES
from markovot.transport.compiled.sweeps import apply_column, apply_row
from markovot.transport.forcing import BREAKDOWN


@helper
def _times(batch, p, discount, transpose, cost, v, out, scratch):
    """K v or K^T v for item p; v and out hold this item alone."""
    for i in range(batch.items.rows[p]):
        if transpose:
            apply_column(batch, p, i, cost, v, 0, out, scratch)
        else:
            apply_row(batch, p, i, cost, v, 0, out, scratch)
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


def make_solver(times):
    """BiCGStab for one item, on the product `times` of one kind of batch."""

    @helper
    def solve_item(batch, p, discount, transpose, cost, b, x, tolerance, max_iter, work):
        """Solve K x = b (or the transpose) for item p from the first guess x, in place. Returns the residual's norm.

        The norm is recomputed from x at the end of every run, so that no drift of the recurrence goes unnoticed.
        Products leave padded states alone; what they write to is zeroed first.
        """
        r, shadow, d, kd, s, ks, scratch = work
        for e in range(x.size):
            r[e], kd[e], ks[e] = 0.0, 0.0, 0.0
        left = max_iter
        while True:
            times(batch, p, discount, transpose, cost, x, r, scratch)
            for e in range(x.size):
                r[e] = b[e] - r[e]
                shadow[e] = r[e]
                d[e] = r[e]
            reached = _size(r, transpose)
            if reached <= tolerance or left <= 0 or not np.isfinite(reached):
                return reached
            rho = _dot(shadow, r)
            size = math.sqrt(rho)  # of the shadow
            while left > 0:
                left -= 1
                times(batch, p, discount, transpose, cost, d, kd, scratch)
                curvature = _dot(shadow, kd)
                if abs(curvature) <= BREAKDOWN * size * math.sqrt(_dot(kd, kd)):
                    break
                alpha = rho / curvature
                for e in range(x.size):
                    s[e] = r[e] - alpha * kd[e]
                times(batch, p, discount, transpose, cost, s, ks, scratch)
                ks_ks = _dot(ks, ks)
                omega = _dot(ks, s) / ks_ks if ks_ks > 0.0 else 0.0
                for e in range(x.size):
                    x[e] += alpha * d[e] + omega * s[e]
                    r[e] = s[e] - omega * ks[e]
                if _size(r, transpose) <= 0.5 * tolerance:
                    break
                new_rho = _dot(shadow, r)
                if not abs(new_rho) > BREAKDOWN * size * math.sqrt(_dot(r, r)) or omega == 0.0:
                    break
                beta = (new_rho / rho) * (alpha / omega)
                rho = new_rho
                for e in range(x.size):
                    d[e] = r[e] + beta * (d[e] - omega * kd[e])

    return solve_item


solve_item = make_solver(_times)


@allocating_helper
def make_vectors(size):
    """Working memory for `solve_item`."""
    return (
        np.empty(size), np.empty(size), np.empty(size), np.empty(size), np.empty(size), np.empty(size), np.empty(LANES),
    )  # fmt: skip


@kernel
def bicgstab(tasks, batch, cost, transpose, max_iter, discount, tolerance, rhs, x, residual):
    """Solve the systems of items `tasks[:, 0]`; `x` holds first guesses, and the solutions on return."""
    size = batch.items.size
    work = make_vectors(size)
    for t in range(tasks.shape[0]):
        p = tasks[t, 0]
        b, y = rhs[p * size : (p + 1) * size], x[p * size : (p + 1) * size]
        residual[p] = solve_item(batch, p, discount[p], transpose, cost, b, y, tolerance[p], max_iter, work)
