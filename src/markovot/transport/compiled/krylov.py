"""Compiled BiCGStab for `K x = b` and `K^T x = b`, `K = I - (1 - delta) P`, one item at a time.

The same method as in `transport.linear`, for the many small systems of a batch, where a call from Python for each
vector operation would cost more than the operation.
"""

import math

import numpy as np

from markovot.transport.compiled.compiling import helper, jitable, kernel
from markovot.transport.compiled.simd import LANES
from markovot.transport.compiled.sweeps import apply_column, apply_row
from markovot.transport.forcing import BREAKDOWN


@helper
def _times(batch, p, discount, cost, v, out, scratch):
    """K v for item p; v and out begin with this item."""
    for i in range(batch.items.rows[p]):
        apply_row(batch, p, i, cost, v, 0, out, scratch)
    for e in range(batch.items.size):
        out[e] = v[e] - (1.0 - discount) * out[e]


@helper
def _times_transpose(given, p, discount, cost, v, out, scratch):
    """K^T v, likewise, for a `Transposable` batch."""
    items = given.batch.items
    for k in range(items.rows[p]):
        apply_column(given, p, k, cost, v, 0, out, scratch)
    for e in range(items.size):
        out[e] = v[e] - (1.0 - discount) * out[e]


@helper
def largest_modulus(v, size):
    """The norm in which K is contractive."""
    largest = 0.0
    for e in range(size):
        largest = max(largest, abs(v[e]))
    return largest


@helper
def sum_of_moduli(v, size):
    """The norm in which the transpose of K is."""
    total = 0.0
    for e in range(size):
        total += abs(v[e])
    return total


@helper
def _dot(v, w, size):
    total = 0.0
    for e in range(size):
        total += v[e] * w[e]
    return total


def make_solver(times, size_of):
    """BiCGStab for one item, on the product `times` of one kind of batch, in the norm `size_of`."""

    @helper
    def solve_item(batch, p, size, discount, cost, b, x, tolerance, max_iter, work):
        """Solve K x = b for item p, of `size` entries, from the first guess x, in place. Returns the residual's norm.

        The norm is recomputed from x at the end of every run, so that no drift of the recurrence goes unnoticed.
        Products leave padded states alone; what they write to is zeroed first.
        """
        r, shadow, d, kd, s, ks, scratch = work
        for e in range(size):
            r[e], kd[e], ks[e] = 0.0, 0.0, 0.0
        left = max_iter
        while True:
            times(batch, p, discount, cost, x, r, scratch)
            for e in range(size):
                r[e] = b[e] - r[e]
                shadow[e] = r[e]
                d[e] = r[e]
            reached = size_of(r, size)
            if reached <= tolerance or left <= 0 or not np.isfinite(reached):
                return reached
            rho = _dot(shadow, r, size)
            length = math.sqrt(rho)  # of the shadow
            while left > 0:
                left -= 1
                times(batch, p, discount, cost, d, kd, scratch)
                curvature = _dot(shadow, kd, size)
                if abs(curvature) <= BREAKDOWN * length * math.sqrt(_dot(kd, kd, size)):
                    break
                alpha = rho / curvature
                for e in range(size):
                    s[e] = r[e] - alpha * kd[e]
                times(batch, p, discount, cost, s, ks, scratch)
                ks_ks = _dot(ks, ks, size)
                omega = _dot(ks, s, size) / ks_ks if ks_ks > 0.0 else 0.0
                for e in range(size):
                    x[e] += alpha * d[e] + omega * s[e]
                    r[e] = s[e] - omega * ks[e]
                if size_of(r, size) <= 0.5 * tolerance:
                    break
                new_rho = _dot(shadow, r, size)
                if not abs(new_rho) > BREAKDOWN * length * math.sqrt(_dot(r, r, size)) or omega == 0.0:
                    break
                beta = (new_rho / rho) * (alpha / omega)
                rho = new_rho
                for e in range(size):
                    d[e] = r[e] + beta * (d[e] - omega * kd[e])

    return solve_item


solve_item = make_solver(_times, largest_modulus)
_solve_transpose = make_solver(_times_transpose, sum_of_moduli)


@jitable
def make_vectors(size):
    """Working memory for `solve_item`."""
    return (
        np.empty(size), np.empty(size), np.empty(size), np.empty(size), np.empty(size), np.empty(size), np.empty(LANES),
    )  # fmt: skip


def make_bicgstab(module, name, solve_item):
    """The kernel for many systems, each solved by `solve_item`, under a name of its own in the cache of kernels."""

    def bicgstab(tasks, batch, size, cost, max_iter, discount, tolerance, rhs, x, residual, work):
        """Solve the systems of items `tasks[:, 0]`; `x` holds first guesses, and the solutions on return."""
        for t in range(tasks.shape[0]):
            p = tasks[t, 0]
            b, y = rhs[p * size : (p + 1) * size], x[p * size : (p + 1) * size]
            residual[p] = solve_item(batch, p, size, discount[p], cost, b, y, tolerance[p], max_iter, work)

    bicgstab.__module__, bicgstab.__qualname__ = module, name
    return kernel(bicgstab)


bicgstab = make_bicgstab(__name__, "bicgstab", solve_item)
bicgstab_transpose = make_bicgstab(__name__, "bicgstab_transpose", _solve_transpose)
