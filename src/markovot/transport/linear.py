"""Solve `K x = b` and `K^T x = b` for `K = I - (1 - delta) P`, using P only in products with vectors.

P is row-stochastic, so K is strictly diagonally dominant: invertible, with `|K^-1| <= 1/delta` in the maximum norm. A
residual r therefore bounds the error of x: `|x - x*|_max <= |r|_max / delta` for K, and the same in the sum of moduli
for its transpose.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from markovot.transport.forcing import BREAKDOWN


class Linear(NamedTuple):
    """A solution and the norm of its residual, for each item."""

    x: Tensor  # (P, n, m)
    residual: Tensor  # (P,)


def _norm(r: Tensor, transpose: bool) -> Tensor:
    moduli = r.abs().flatten(1)
    return moduli.sum(1) if transpose else moduli.amax(1)


def _dot(v: Tensor, w: Tensor) -> Tensor:
    return (v * w).flatten(1).sum(1)


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """The quotient, or 0 where the recurrence has broken down (the caller then restarts it)."""
    return torch.where(below == 0, torch.zeros_like(below), above / torch.where(below == 0, 1.0, below))


def bicgstab(
    product: Callable[[Tensor, Tensor], Tensor],
    rhs: Tensor,
    discount: Tensor,
    tolerance: Tensor,
    active: Tensor,
    *,
    transpose: bool,
    max_iter: int,
) -> Linear:
    """Stabilised biconjugate gradients for a batch of systems; a finished item no longer changes.

    Args:
        product: `product(v, active)` is P v (or P^T v), (P, n, m).
        rhs: right hand sides (P, n, m).
        discount: delta, (P,).
        tolerance: wanted norm of the residual, (P,): maximum norm, or for the transpose the sum of moduli.
        active: which items to solve; the others return zero.
        transpose: whether `product` multiplies by P^T.
        max_iter: the most iterations; each takes two products.

    Returns:
        Solutions, and the norms of their residuals, computed from the solution and not by recurrence.
    """
    keep = (1 - discount)[:, None, None]
    x = torch.zeros_like(rhs)
    r = torch.where(active[:, None, None], rhs, 0.0)
    reached = _norm(r, transpose)
    todo = active & (reached > tolerance)
    left = max_iter
    while left > 0 and bool(todo.any()):
        left -= _run(product, keep, x, r, tolerance, todo, transpose, left)
        fresh = rhs - x + keep * product(x, todo)
        r = torch.where(todo[:, None, None], fresh, r)
        reached = torch.where(todo, _norm(r, transpose), reached)
        todo = todo & (reached > tolerance)
    return Linear(x, reached)


def _run(
    product: Callable[[Tensor, Tensor], Tensor],
    keep: Tensor,
    x: Tensor,
    r: Tensor,
    tolerance: Tensor,
    todo: Tensor,
    transpose: bool,
    left: int,
) -> int:
    """One run of the recurrence from the residual r; adds to x in place. Returns the number of iterations."""
    todo = todo.clone()
    shadow, d = r, r
    rho = _dot(shadow, r)
    size = rho.sqrt()
    for count in range(1, left + 1):
        kd = d - keep * product(d, todo)
        curvature = _dot(shadow, kd)
        todo &= curvature.abs() > BREAKDOWN * size * _dot(kd, kd).sqrt()
        if not bool(todo.any()):
            return count
        alpha = _ratio(rho, curvature)[:, None, None]
        s = r - alpha * kd
        ks = s - keep * product(s, todo)
        omega = _ratio(_dot(ks, s), _dot(ks, ks))[:, None, None]
        step = alpha * d + omega * s
        x += torch.where(todo[:, None, None], step, 0.0)
        r = torch.where(todo[:, None, None], s - omega * ks, r)
        new_rho = _dot(shadow, r)
        broken = ~(new_rho.abs() > BREAKDOWN * size * _dot(r, r).sqrt()) | (omega == 0).flatten()
        todo &= (_norm(r, transpose) > 0.5 * tolerance) & ~broken
        if not bool(todo.any()):
            return count
        beta = _ratio(new_rho * alpha.flatten(), rho * omega.flatten())[:, None, None]
        rho = new_rho
        d = r + beta * (d - omega * kd)
    return left
