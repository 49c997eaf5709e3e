"""Slow and obvious answers, written from the definitions: float64, dense, small chains only.

Nothing here is shared with the package. The entropic answers come from log-domain Sinkhorn and dense linear
algebra, the exact ones from a linear programme over occupation measures.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import scipy.optimize
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]


# --- problems
@dataclass(frozen=True)
class Problem:
    """Two chains (A, nu) and (B, mu), a ground cost D, a discount delta, a regularisation epsilon."""

    A: Array
    B: Array
    D: Array
    nu: Array
    mu: Array
    delta: float
    epsilon: float

    def tensors(self) -> dict[str, Tensor]:
        """The five arrays and two numbers as float64 tensors, keyed by their names."""
        return {name: torch.tensor(getattr(self, name), dtype=torch.float64) for name in FIELDS}

    def swapped(self) -> "Problem":
        """The same problem with the two chains exchanged."""
        return replace(self, A=self.B, B=self.A, D=self.D.T.copy(), nu=self.mu, mu=self.nu)


FIELDS = ("A", "B", "D", "nu", "mu", "delta", "epsilon")


def random_law(rng: np.random.Generator, n: int, zeros: int = 0) -> Array:
    """A law on n states, away from zero except at `zeros` random states."""
    law = rng.uniform(0.3, 1.3, n)
    law[rng.choice(n, zeros, replace=False)] = 0.0
    return law / law.sum()


def random_rows(rng: np.random.Generator, n: int, degree: int | None = None) -> Array:
    """Irreducible transition rows (i -> i + 1 is always stored): dense, or of `degree` entries each."""
    rows = np.zeros((n, n))
    for i in range(n):
        others = rng.permutation([k for k in range(n) if k != (i + 1) % n])
        support = [(i + 1) % n, *others[: (degree or n) - 1]]
        rows[i, support] = random_law(rng, len(support))
    return rows


def random_problem(
    seed: int,
    n: int = 4,
    m: int = 3,
    *,
    degrees: tuple[int | None, int | None] = (None, None),
    zeros: int = 0,
    delta: float = 0.3,
    epsilon: float = 0.1,
) -> Problem:
    """A random problem with costs in [0, 1]; `zeros` states of each initial law have no mass."""
    rng = np.random.default_rng(seed)
    return Problem(
        A=random_rows(rng, n, degrees[0]),
        B=random_rows(rng, m, degrees[1]),
        D=rng.uniform(0.0, 1.0, (n, m)),
        nu=random_law(rng, n, zeros),
        mu=random_law(rng, m, zeros),
        delta=delta,
        epsilon=epsilon,
    )


# --- one transport problem
def _log_sum_exp(x: Array, axis: int) -> Array:
    top = x.max(axis=axis, keepdims=True)
    return np.squeeze(top, axis) + np.log(np.exp(x - top).sum(axis=axis))


def _log(x: Array) -> Array:
    with np.errstate(divide="ignore"):
        return np.log(x)


@dataclass(frozen=True)
class Transport:
    """OT_eps, its plan, and its potentials (soft c-transforms of each other, defined off the support too)."""

    value: Array
    f: Array
    g: Array
    plan: Array
    kl: Array


def sinkhorn(a: Array, b: Array, cost: Array, epsilon: float, g: Array | None = None) -> Transport:
    """Log-domain Sinkhorn until the potentials stand still; leading dimensions of a, b and cost broadcast.

    States without mass have log-mass -inf and so take no part.
    """
    log_a, log_b = _log(a)[..., :, None], _log(b)[..., None, :]
    scaled = cost / epsilon
    batch = np.broadcast_shapes(a.shape[:-1], b.shape[:-1], cost.shape[:-2])
    g = np.zeros((*batch, b.shape[-1])) if g is None else g
    # A potential over epsilon is known to round-off times its size.
    tolerance = 1e-13 + 4e-16 * float(np.abs(scaled).max())
    for _ in range(200_000):
        f = -epsilon * _log_sum_exp(g[..., None, :] / epsilon + log_b - scaled, -1)
        new = -epsilon * _log_sum_exp(f[..., :, None] / epsilon + log_a - scaled, -2)
        moved = np.where(b > 0, (new - g) / epsilon, 0.0)
        g = new
        if float(np.abs(moved).max()) <= tolerance:
            break
    else:
        raise AssertionError(f"the oracle's Sinkhorn did not converge at epsilon = {epsilon}")
    f = -epsilon * _log_sum_exp(g[..., None, :] / epsilon + log_b - scaled, -1)
    return _finish(a, b, cost, epsilon, f, g)


def _finish(a: Array, b: Array, cost: Array, epsilon: float, f: Array, g: Array) -> Transport:
    exponent = (f[..., :, None] + g[..., None, :] - cost) / epsilon
    product = a[..., :, None] * b[..., None, :]
    # exp of a state without mass may overflow; it has no weight.
    plan = product * np.exp(np.where(product > 0, exponent, 0.0))
    kl = (plan * np.where(product > 0, exponent, 0.0)).sum((-2, -1))
    return Transport((f * a).sum(-1) + (g * b).sum(-1), f, g, plan, kl)


def dual_transport(a: Array, b: Array, cost: Array, epsilon: float, start: Array | None = None) -> Transport:
    """One problem by maximising the semi-dual in g with a trust region, epsilon halved from the cost's range.

    Independent of Sinkhorn, and fit for tiny epsilon. From `start` a few halvings will do.
    """
    rows, cols = a > 0, b > 0
    local, weight_a, weight_b = cost[np.ix_(rows, cols)], a[rows], b[cols]
    log_b = np.log(weight_b)

    def soft(g: Array, eps: float) -> Array:
        return -eps * _log_sum_exp(g[None, :] / eps + log_b - local / eps, 1)

    def conditional(g: Array, eps: float) -> Array:
        return np.exp((soft(g, eps)[:, None] + g[None, :] - local) / eps + log_b)

    g = np.zeros(len(weight_b)) if start is None else start[cols]
    levels = [epsilon * 2.0**k for k in range(60) if epsilon * 2.0**k < np.ptp(local)][::-1]
    for eps in [*(levels if start is None else levels[-5:]), epsilon]:

        def hessian(free: Array, eps: float = eps) -> Array:
            share = conditional(np.append(free, 0.0), eps)
            return ((np.diag(weight_a @ share) - (share.T * weight_a) @ share) / eps)[:-1, :-1]

        def loss(free: Array, eps: float = eps) -> float:
            g = np.append(free, 0.0)
            return float(-(soft(g, eps) @ weight_a + g @ weight_b))

        def slope(free: Array, eps: float = eps) -> Array:
            return (weight_a @ conditional(np.append(free, 0.0), eps) - weight_b)[:-1]

        if len(g) > 1:
            first = g[:-1] - g[-1]
            result = scipy.optimize.minimize(
                loss,
                first,
                jac=slope,
                hess=hessian,
                method="trust-exact",
                options={"gtol": 1e-13, "maxiter": 300},
            )
            g = np.append(result.x, 0.0)
    # Extend to the states without mass, where the potentials are soft c-transforms.
    f = -epsilon * _log_sum_exp(g[None, :] / epsilon + log_b - cost[:, cols] / epsilon, 1)
    g = -epsilon * _log_sum_exp(f[rows][:, None] / epsilon + np.log(weight_a)[:, None] - cost[rows] / epsilon, 0)
    return _finish(a, b, cost, epsilon, f, g)


def exact_local(a: Array, b: Array, cost: Array) -> Transport:
    """One unregularised problem by linear programming; its potentials are c-transforms off the support too."""
    rows, cols = a > 0, b > 0
    (n, m), local = (rows.sum(), cols.sum()), cost[np.ix_(rows, cols)]
    sums = np.vstack([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])
    result = scipy.optimize.linprog(local.ravel(), A_eq=sums, b_eq=np.concatenate([a[rows], b[cols]]))
    plan = np.zeros(cost.shape)
    plan[np.ix_(rows, cols)] = result.x.reshape(n, m)
    f = (cost[:, cols] - result.eqlin.marginals[n:]).min(1)
    g = (cost[rows] - f[rows, None]).min(0)
    positive = plan > 0
    kl = (plan[positive] * np.log(plan[positive] / np.outer(a, b)[positive])).sum()
    return Transport(np.asarray(result.fun), f, g, plan, kl)


def exact_transport(a: Array, b: Array, cost: Array) -> float:
    """The value of one unregularised problem."""
    return float(exact_local(a, b, cost).value)


# --- the distance
@dataclass(frozen=True)
class Answer:
    """The distance, the cost to go, all local plans (n, m, n, m) and the initial transport."""

    value: float
    cost_to_go: Array
    local: Transport
    outer: Transport


def sweep(problem: Problem, cost_to_go: Array, g: Array | None = None, method: str = "sinkhorn") -> Transport:
    """All n*m local transport problems of one Bellman operator."""
    if method == "sinkhorn":
        return sinkhorn(problem.A[:, None, :], problem.B[None, :, :], cost_to_go, problem.epsilon, g)
    parts = [
        [
            dual_transport(a, b, cost_to_go, problem.epsilon, None if g is None else g[i, j])
            for j, b in enumerate(problem.B)
        ]
        for i, a in enumerate(problem.A)
    ]
    fields = ("value", "f", "g", "plan", "kl")
    return Transport(*(np.array([[getattr(part, name) for part in row] for row in parts]) for name in fields))


def dense_operator(problem: Problem, plan: Array) -> Array:
    """K = I - (1 - delta) P, an (nm, nm) matrix."""
    size = problem.D.size
    return np.eye(size) - (1 - problem.delta) * plan.reshape(size, size)


def entropic(problem: Problem, method: str = "sinkhorn", tolerance: float = 1e-13) -> Answer:
    """The fixed point by Newton steps with a dense K.

    It stops at |T(C) - C| <= delta * tolerance, so that |C - C*| <= tolerance.

    `method` solves the local problems: "sinkhorn", or "dual" for epsilon far below the range of the cost.
    """
    cost_to_go, g = problem.D.copy(), None
    scale = max(1.0, float(np.abs(problem.D).max()))
    for _ in range(60):
        local = sweep(problem, cost_to_go, g, method)
        residual = problem.delta * problem.D + (1 - problem.delta) * local.value - cost_to_go
        if float(np.abs(residual).max()) <= problem.delta * tolerance * scale + 4e-16 * scale:
            break
        step = np.linalg.solve(dense_operator(problem, local.plan), residual.ravel())
        cost_to_go, g = cost_to_go + step.reshape(cost_to_go.shape), local.g
    else:
        raise AssertionError(f"the oracle's fixed point did not converge: residual {np.abs(residual).max():.1e}")
    outer = (sinkhorn if method == "sinkhorn" else dual_transport)(problem.nu, problem.mu, cost_to_go, problem.epsilon)
    return Answer(float(outer.value), cost_to_go, local, outer)


def value_iteration(problem: Problem, tolerance: float = 1e-12) -> Answer:
    """The same fixed point by nothing but C <- T(C)."""
    cost_to_go, g = problem.D.copy(), None
    while True:
        local = sweep(problem, cost_to_go, g)
        new = problem.delta * problem.D + (1 - problem.delta) * local.value
        moved, cost_to_go, g = float(np.abs(new - cost_to_go).max()), new, local.g
        if (1 - problem.delta) * moved <= problem.delta * tolerance:
            break
    outer = sinkhorn(problem.nu, problem.mu, cost_to_go, problem.epsilon)
    return Answer(float(outer.value), cost_to_go, local, outer)


def exact(problem: Problem) -> float:
    """The distance at epsilon = 0: least discounted cost over all Markovian couplings, a linear programme.

    Variables: the initial coupling p (n, m) and the occupation x (n, m, n, m) of a step (i, j) -> (k, l).
    With q_ij = delta * sum_t (1 - delta)^t P(X_t = i, Y_t = j):
        sum_l x_ijkl = q_ij A_ik,   sum_k x_ijkl = q_ij B_jl,   q_kl = delta p_kl + (1 - delta) sum_ij x_ijkl.
    """
    n, m = problem.D.shape
    size, delta = n * m, problem.delta
    eye, zero = np.eye(size), np.zeros
    # Columns: q (nm), p (nm), x (nm * nm).
    to_k = np.kron(np.eye(n), np.ones((1, m)))  # (n, nm): sums over l
    to_l = np.kron(np.ones((1, n)), np.eye(m))  # (m, nm): sums over k
    rows_a = np.vstack([problem.A[i][:, None] * eye[i * m + j] for i in range(n) for j in range(m)])
    rows_b = np.vstack([problem.B[j][:, None] * eye[i * m + j] for i in range(n) for j in range(m)])
    blocks = [
        np.hstack([-rows_a, zero((size * n, size)), np.kron(eye, to_k)]),
        np.hstack([-rows_b, zero((size * m, size)), np.kron(eye, to_l)]),
        np.hstack([-eye, delta * eye, (1 - delta) * np.kron(np.ones((1, size)), eye)]),
        np.hstack([zero((n, size)), to_k, zero((n, size * size))]),
        np.hstack([zero((m, size)), to_l, zero((m, size * size))]),
    ]
    right = np.concatenate([zero(size * n + size * m + size), problem.nu, problem.mu])
    cost = np.concatenate([problem.D.ravel(), zero(size + size * size)])
    tight = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    result = scipy.optimize.linprog(cost, A_eq=np.vstack(blocks), b_eq=right, method="highs", options=tight)
    assert result.success, result.message
    return float(result.fun)


def entropic_bias(problem: Problem) -> float:
    """An upper bound of d_eps - d_0: KL(pi | a x b) is at most the log of the smaller support's size."""
    degree_x, degree_y = (problem.A > 0).sum(1).max(), (problem.B > 0).sum(1).max()
    steps = (1 - problem.delta) / problem.delta * np.log(min(degree_x, degree_y))
    return float(problem.epsilon * (steps + np.log(min((problem.nu > 0).sum(), (problem.mu > 0).sum()))))


# --- closed forms
def forced_coupling(problem: Problem) -> float:
    """X has one state: the coupling is forced, and C* = delta (I - (1 - delta) B)^-1 D."""
    assert problem.A.shape == (1, 1)
    operator = np.eye(len(problem.B)) - (1 - problem.delta) * problem.B
    return float(problem.mu @ np.linalg.solve(operator, problem.delta * problem.D[0]))


def deterministic(problem: Problem) -> Array:
    """Cost to go where every row is a Dirac: sum_t delta (1 - delta)^t D[s^t(i), r^t(j)], a linear system."""
    plan = np.einsum("ik,jl->ijkl", problem.A, problem.B)
    solved = np.linalg.solve(dense_operator(problem, plan), problem.delta * problem.D.ravel())
    return np.asarray(solved.reshape(problem.D.shape))


def stationary(rows: Array) -> Array:
    """The stationary law of an irreducible chain: the null vector of P^T - I, by singular values."""
    null = np.linalg.svd(rows.T - np.eye(len(rows)))[2][-1]
    return np.asarray(null / null.sum())


# --- gradients
def unrolled(
    A: Tensor, B: Tensor, D: Tensor, nu: Tensor, mu: Tensor, delta: Tensor, epsilon: Tensor,
    *, steps: int = 80, inner: int = 12,
) -> Tensor:  # fmt: skip
    """Value iteration over warm Sinkhorn steps in plain torch: autograd differentiates through every step.

    Masses enter as factors rather than logarithms, so that a zero entry has a finite gradient: that of its
    soft c-transform, the one-sided derivative.
    """

    def soft(exponent: Tensor, mass: Tensor, dim: int) -> Tensor:
        top = exponent.amax(dim, keepdim=True).detach()
        total = (mass * torch.exp(exponent - top)).sum(dim)
        return -epsilon * (top.squeeze(dim) + torch.log(total))

    def transport(a: Tensor, b: Tensor, cost: Tensor, g: Tensor, count: int) -> tuple[Tensor, Tensor]:
        for _ in range(count):
            f = soft((g[..., None, :] - cost) / epsilon, b[..., None, :], -1)
            g = soft((f[..., :, None] - cost) / epsilon, a[..., :, None], -2)
        return (f * a).sum(-1) + (g * b).sum(-1), g

    cost_to_go, g = D, D.new_zeros(*D.shape, D.shape[1])
    for _ in range(steps):
        value, g = transport(A[:, None, :], B[None, :, :], cost_to_go, g, inner)
        cost_to_go = delta * D + (1 - delta) * value
    return transport(nu, mu, cost_to_go, D.new_zeros(D.shape[1]), 40 * inner)[0]


def centred(gradient: Tensor | Array, mask: Tensor | Array | None = None) -> Tensor:
    """Rows less their means over the entries of `mask` (elsewhere zero): gradients along the simplex."""
    rows = torch.as_tensor(gradient, dtype=torch.float64)
    keep = torch.ones_like(rows, dtype=torch.bool) if mask is None else torch.as_tensor(mask)
    mean = torch.where(keep, rows, 0.0).sum(-1, keepdim=True) / keep.sum(-1, keepdim=True)
    return torch.where(keep, rows - mean, 0.0)


def numerical_gradient(
    fn: Callable[[Array], float | Array],
    x: Array,
    direction: Array,
    step: float = 1e-3,
    *,
    one_sided: bool = False,
) -> float | Array:
    """The derivative of fn at x along `direction` by differences of order four.

    Central, or from x onwards only (`one_sided`) where x lies on the boundary of the simplex.
    """
    points, weights = ((-2, -1, 1, 2), (1, -8, 8, -1)) if not one_sided else (range(5), (-25, 48, -36, 16, -3))
    values = [weight * fn(x + point * step * direction) for point, weight in zip(points, weights, strict=True)]
    return sum(values) / (12 * step)
