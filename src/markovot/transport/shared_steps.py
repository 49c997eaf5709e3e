"""Sinkhorn and Newton steps for many transport problems that share one Gibbs kernel: matrix products only.

A state holds the problems of k items that are not done, q of each item; the plan of a problem is `diag(U) G
diag(V)` with `U = a / (V G^T)`, so that its row sums are exact and V alone is the unknown.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

SLOW = 30.0  # with more Sinkhorn steps than this to go, Newton's step is cheaper (measured at n = m = 64)
CONJUGATE_STEPS = 40
FORCING = 0.2  # relative residual at which conjugate gradients stop
DAMPING = 0.125  # confines Newton's step in g to 8 eps (see `newton._aim_newton`)
TINY = 1e-290


@dataclass
class State:
    """The unfinished problems of a block, (k, q, ...): k items with the same number q of problems each."""

    index: Tensor  # (k, q) position among the problems of the block
    a: Tensor  # (k, q, n)
    b: Tensor  # (k, q, m)
    v: Tensor  # (k, q, m), the next point
    error: Tensor  # (k, q), marginal error at the last accepted point
    rescue: Tensor  # (k, q, m), Sinkhorn's step from there, taken where Newton's fails
    done: Tensor  # bool (k, q); v no longer changes
    newton: Tensor  # bool (k, q): v comes from a Newton step
    slow: Tensor  # bool (k, q): Sinkhorn's steps take too long

    def select(self, keep: Tensor) -> "State":
        """The problems at these positions (k, fewer)."""
        wide = keep.unsqueeze(2)
        return State(*(
            x.gather(1, keep) if x.dim() == 2 else x.gather(1, wide.expand(-1, -1, x.shape[2]))
            for x in vars(self).values()
        ))  # fmt: skip


@dataclass(frozen=True)
class Point:
    """What the kernel gives at a point v: U, `U G`, `V G^T`, the column sums, and the marginal errors."""

    u: Tensor
    arriving: Tensor
    through: Tensor
    columns: Tensor
    error: Tensor


def begin(a: Tensor, b: Tensor, v: Tensor) -> State:
    """All problems of a block, about to be evaluated at v."""
    shape = v.shape[:2]
    index = torch.arange(shape[1], device=v.device).expand(shape)
    false = torch.zeros(shape, dtype=torch.bool, device=v.device)
    error = torch.full(shape, torch.inf, dtype=torch.float64, device=v.device)
    return State(index, a, b, v, error, v, false, false, false)


def put(store: Tensor, index: Tensor, values: Tensor) -> None:
    """Write (k, q, ...) values to these positions of the block's (k, all, ...)."""
    store.scatter_(1, index.unsqueeze(2).expand_as(values), values)


def evaluate(state: State, gibbs: Tensor) -> Point:
    """Evaluate the kernel at the next point."""
    through = state.v @ gibbs.mT
    u = state.a / through
    arriving = u @ gibbs
    columns = state.v * arriving
    return Point(u, arriving, through, columns, (state.b - columns).abs_().sum(dim=2))


def accept(state: State, point: Point, target: Tensor, had_newton: bool) -> None:
    """Judge the point (a Newton step must lower the marginal error), and let Sinkhorn's step be next."""
    accepted = ~state.newton | (point.error < state.error)
    rate = torch.where(state.newton, 0.0, point.error / state.error)
    state.error = torch.where(accepted, point.error, state.error)
    state.done = accepted & (point.error <= target)
    left = torch.log(target / state.error) / torch.log(rate)
    state.slow = ~state.done & accepted & (state.slow | (left > SLOW) | (rate >= 1))
    sinkhorn = state.b / point.arriving
    state.rescue = torch.where(accepted.unsqueeze(2), sinkhorn, state.rescue) if had_newton else sinkhorn
    state.v = torch.where(state.done.unsqueeze(2), state.v, state.rescue)
    state.newton = torch.zeros_like(state.newton)


def count_left(state: State) -> tuple[int, int, int]:
    """How many problems are left, how many of them are slow, and the most that one item has left."""
    left = (~state.done).sum(dim=1)
    left_all, slow, most = torch.stack([left.sum(), state.slow.sum(), left.amax()]).tolist()
    return left_all, slow, most


def aim_newton(state: State, point: Point, v: Tensor, gibbs: Tensor) -> None:
    """Let the next step of the slow problems be Newton's.

    It solves `(diag(c + kappa |r|) - P^T diag(1/a) P) d = r`, `r = b - c`, for the change d of log V,
    by conjugate gradients preconditioned by the diagonal; `P x = U * ((V x) G^T)` and `a = U * (V G^T)`.
    """
    residual = state.b - point.columns
    diagonal = (point.columns + DAMPING * residual.abs()).clamp_min(TINY)
    solution = torch.zeros_like(residual)
    direction = residual / diagonal
    power = (residual * direction).sum(dim=2, keepdim=True)
    enough = FORCING**2 * power
    for _ in range(CONJUGATE_STEPS):
        image = ((v * direction) @ gibbs.mT) / point.through
        image = diagonal * direction - v * ((point.u * image) @ gibbs)
        curvature = (direction * image).sum(dim=2, keepdim=True)
        moving = (power > enough) & (curvature > 0) & state.slow.unsqueeze(2)
        if not bool(moving.any()):
            break
        length = torch.where(moving, power / curvature, 0.0)
        solution += length * direction
        residual = residual - length * image
        scaled = residual / diagonal
        fresh = (residual * scaled).sum(dim=2, keepdim=True)
        direction = torch.where(moving, scaled + (fresh / power) * direction, direction)
        power = torch.where(moving, fresh, power)
    trial = v * torch.exp(solution.clamp(-1 / DAMPING, 1 / DAMPING))
    state.v = torch.where(state.slow.unsqueeze(2), trial, state.v)
    state.newton = state.slow
