"""Entropic transport between small measures, many problems side by side, on any torch device.

For one problem with marginals a, b, cost C and regularisation eps, the semi-dual in the potential g is

    f_k(g) = -eps log sum_l b_l exp((g_l - C_kl) / eps)      (soft c-transform: exact row marginals)
    S(g)   = <f(g), a> + <g, b>                              (concave; its maximum is OT_eps)

With the plan P_kl = a_k b_l exp((f_k + g_l - C_kl) / eps) = a_k R_kl, R the conditional laws, c = R^T a:

    grad S = b - c,        -eps * hess S = diag(c) - R^T diag(a) R =: H        (a graph Laplacian: H 1 = 0)

Newton's step H d = eps (b - c) is damped until S rises; where it is rejected, a Sinkhorn step follows,
g + eps log(b / c), which always raises S. Sinkhorn steps also come first, for as long as they are about to
suffice. Cold problems anneal: eps falls in levels from a part of the cost range, each level started from the
linear extrapolation of the two before (for a non-degenerate problem g(eps) is linear in eps up to
exponentially small terms).

Evaluations from cold to a gap of 1e-6, costs in [0, 1], 3 x 4 to 64 x 5 states, random, uniform and peaked
weights, on seeds not used to set the constants below (3,920 problems for each eps; all reached the gap):

    eps    1     .1     .01    1e-3   1e-4   1e-5
    mean   4.1   5.4    14.6   21.6   26.7   31.5
    most   7     12     38     65     76     83

Everything is float64, so the TF32 switches of CUDA do not matter.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from markovot.transport.units import ROUND_OFF

MACHINE_EPSILON = 2.0**-52
TINY = 1e-300  # floor of column sums inside logarithms

ANNEALING_FACTOR = 6.0
FIRST_LEVEL = 16.0  # annealing starts at the range of the cost over this
LEVEL_MISMATCH = 0.02  # largest relative error of a column sum with which an annealing level is left
WARM_STEPS = 12  # steps a warm start is given before it is annealed instead
MAX_REJECTIONS = 4  # rejected lengths of one Newton direction before a Sinkhorn step
RADIUS = 8.0  # largest change of g in the first Newton step of a level, in units of eps
RIDGE = 1e-14
PATIENCE = 12  # trials without progress, near rounding, before a problem is left as it is
SINKHORN_STEPS = 3  # Sinkhorn steps are continued if so few are left (and one for every 16 columns)


@dataclass(frozen=True)
class TransportResult:
    """Certified values and potentials of a batch of entropic transport problems.

    `lower <= OT_eps <= upper` per problem, in units of the cost. The plan is `a_k b_l exp((f_k + g_l - C_kl)
    / eps)`; its row sums are exact. `num_iter` counts evaluations of the dual.
    """

    lower: Tensor  # (Q,)
    upper: Tensor  # (Q,)
    f: Tensor  # (Q, dx)
    g: Tensor  # (Q, dy)
    num_iter: Tensor  # int64 (Q,)


def soft_transform(log_b: Tensor, g: Tensor, cost: Tensor, epsilon: Tensor) -> Tensor:
    """The potential `f_k = -eps log sum_l b_l exp((g_l - C_kl) / eps)`, for every row k of the cost.

    Args:
        log_b: logarithms of the weights, -inf at zero mass, (Q, dy).
        g: potential, (Q, dy); what stands at zero mass is ignored, and must be finite.
        cost: (Q, dx, dy).
        epsilon: (Q,).
    """
    scores = (log_b + g / epsilon[:, None]).unsqueeze(1) - cost / epsilon[:, None, None]
    return -epsilon[:, None] * torch.logsumexp(scores, dim=2)


def conditional(log_b: Tensor, g: Tensor, cost: Tensor, epsilon: Tensor) -> tuple[Tensor, Tensor]:
    """The plan's rows as laws, `R_kl = b_l exp((f_k + g_l - C_kl) / eps)`, and f; shapes as above."""
    inverse = epsilon.reciprocal()
    offset = torch.addcmul(log_b, g, inverse[:, None]).unsqueeze(1)
    scores = torch.addcmul(offset, cost, -inverse[:, None, None])
    top = scores.amax(dim=2, keepdim=True)
    rows = scores.sub_(top).exp_()
    mass = rows.sum(dim=2, keepdim=True)
    f = -epsilon[:, None] * (top + mass.log()).squeeze(2)
    return rows.div_(mass), f


def plan(a: Tensor, b: Tensor, g: Tensor, cost: Tensor, epsilon: Tensor) -> Tensor:
    """The coupling of a potential g, (Q, dx, dy); its row sums are a to rounding, its column sums near b."""
    return conditional(b.log(), g, cost, epsilon)[0].mul_(a.unsqueeze(2))


def solve_transport(
    a: Tensor,
    b: Tensor,
    cost: Tensor,
    epsilon: Tensor,
    *,
    gap: Tensor,
    init: Tensor | None = None,
    change: Tensor | None = None,
    max_iter: int = 1000,
) -> TransportResult:
    """Solve entropic transport problems `min <pi, C> + eps KL(pi | a x b)`, each to a certified gap.

    Args:
        a: weights (Q, dx), nonnegative; rows are normalised to sum to one. Zeros (padding) take no part.
        b: weights (Q, dy), as a.
        cost: (Q, dx, dy), finite everywhere.
        epsilon: (Q,), positive.
        gap: (Q,) wanted `upper - lower`. A gap that rounding does not allow (a marginal error below about 1e-13)
            is not tried for.
        init: warm potential g, (Q, dy), finite.
        change: max - min of the change in cost since `init` was optimal, (Q,), if that is known: annealing
            then starts there. Default: it is taken to be small.
        max_iter: evaluations of the dual before a problem is left as it is, with the bounds it has then.

    Returns:
        A `TransportResult`. A problem without any mass has value zero.

    Note:
        float64 throughout; deterministic; inputs are not modified. Not differentiable by autograd.
        Memory: about six tensors of the size of `cost`, and two of (Q, d, d), d = min(dx, dy).
    """
    empty = (a.sum(dim=1) <= 0) | (b.sum(dim=1) <= 0)
    a, b = _as_law(a, empty), _as_law(b, empty)
    log_a, log_b = a.log(), b.log()
    low, high = _local_range(a, b, cost)
    centred = cost - low[:, None, None]  # rounding then follows the range, not the size, of the costs
    rounding = ROUND_OFF * (torch.maximum(low.abs(), high.abs()) + 2 * epsilon)
    goal = (gap - 2 * rounding).clamp_min(0)
    distance = high - low if init is None else torch.zeros_like(low) if change is None else change
    if a.shape[1] < b.shape[1]:
        warm = None if init is None else soft_transform(log_b, init, centred, epsilon)
        run = _start(b, a, centred.mT.contiguous(), high - low, epsilon, goal, warm, distance)
        f, num_iter = _maximise(run, max_iter)
        g = soft_transform(log_a, f, centred.mT, epsilon)
    else:
        g, num_iter = _maximise(_start(a, b, centred, high - low, epsilon, goal, init, distance), max_iter)
    rows, f = conditional(log_b, g, centred, epsilon)
    value = (a * f).sum(dim=1) + (b * g).sum(dim=1) + low
    error = (b - _column_sums(a, rows)).abs().sum(dim=1)
    width = 0.5 * error * (high - low + _osc(g, b > 0))
    g = torch.where(b > 0, g, soft_transform(log_a, f, centred.mT, epsilon))
    f, g = f + low[:, None], g
    return TransportResult(
        lower=torch.where(empty, 0.0, value - rounding),
        upper=torch.where(empty, 0.0, value + width + rounding),
        f=f,
        g=g,
        num_iter=num_iter,
    )


def _as_law(weights: Tensor, empty: Tensor) -> Tensor:
    """Weights that sum to one; problems without mass get a unit mass on their first entry."""
    weights = torch.where(empty[:, None], 0.0, weights)
    weights[:, 0] += empty
    return weights / weights.sum(dim=1, keepdim=True)


def _local_range(a: Tensor, b: Tensor, cost: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest cost where both marginals have mass, (Q,) each."""
    real = (a > 0).unsqueeze(2) & (b > 0).unsqueeze(1)
    low = cost.masked_fill(~real, torch.inf).amin(dim=(1, 2))
    high = cost.masked_fill(~real, -torch.inf).amax(dim=(1, 2))
    return low, high


def _osc(g: Tensor, real: Tensor) -> Tensor:
    """Max - min over the real entries, (Q,)."""
    return g.masked_fill(~real, -torch.inf).amax(dim=1) - g.masked_fill(~real, torch.inf).amin(dim=1)


def _column_sums(a: Tensor, rows: Tensor) -> Tensor:
    return torch.bmm(a.unsqueeze(1), rows).squeeze(1)


@dataclass
class _Run:
    """The unfinished problems, and where each of them stands. First dimension: problems."""

    index: Tensor  # position in the batch
    a: Tensor
    b: Tensor
    log_b: Tensor
    cost: Tensor  # minimum zero
    spread: Tensor  # range of the cost
    epsilon: Tensor  # wanted
    goal: Tensor  # wanted width of the bounds
    g: Tensor  # the last accepted point, and there:
    value: Tensor
    error: Tensor
    mismatch: Tensor  # largest relative error of a column sum
    columns: Tensor
    direction: Tensor  # the next trial is g + step * direction
    step: Tensor
    slope: Tensor  # derivative of the dual along the direction
    radius: Tensor  # trust radius on the largest change in a Newton step
    forced: Tensor  # the trial is accepted even if it is worse
    sinkhorn: Tensor  # the trial is a Sinkhorn step
    rate: Tensor  # factor by which the last step changed the marginal error, if it was a Sinkhorn step; else 1
    rejected: Tensor  # trials rejected in a row
    level: Tensor  # eps of the annealing
    age: Tensor  # trials at this level
    warm: Tensor
    last_g: Tensor  # solution of the level before
    last_level: Tensor  # inf: none
    num_iter: Tensor
    best: Tensor  # smallest marginal error at the wanted epsilon, and the trials since it was reached
    stale: Tensor
    best_g: Tensor  # the point with the closest bounds at the wanted epsilon, and their distance
    best_width: Tensor
    done: Tensor  # finished: it no longer changes, and is removed later

    def select(self, keep: Tensor) -> "_Run":
        return _Run(*(getattr(self, field.name)[keep] for field in fields(self)))


def _start(
    a: Tensor,
    b: Tensor,
    cost: Tensor,
    spread: Tensor,
    epsilon: Tensor,
    goal: Tensor,
    init: Tensor | None,
    distance: Tensor,
) -> _Run:
    zeros, count = torch.zeros_like(epsilon), torch.zeros_like(epsilon, dtype=torch.int64)
    flag = torch.zeros_like(epsilon, dtype=torch.bool)
    g = torch.zeros_like(b) if init is None else torch.where(b > 0, init, 0.0)
    level = torch.maximum(epsilon, torch.minimum(spread, distance) / FIRST_LEVEL)
    return _Run(
        index=torch.arange(len(a), device=a.device),
        a=a, b=b, log_b=b.log(), cost=cost, spread=spread, epsilon=epsilon, goal=goal,
        g=g, value=zeros, error=zeros + 2, mismatch=zeros + 1, columns=b,
        direction=torch.zeros_like(b), step=zeros + 1, slope=zeros, radius=RADIUS * level,
        forced=~flag, sinkhorn=flag, rate=zeros + 1, rejected=count, level=level, age=count,
        warm=flag if init is None else ~flag, last_g=g, last_level=zeros + torch.inf, num_iter=count,
        best=zeros + torch.inf, stale=count, best_g=g, best_width=zeros + torch.inf, done=flag,
    )  # fmt: skip


def _maximise(run: _Run, max_iter: int) -> tuple[Tensor, Tensor]:
    """A potential g at which the bounds are at most `goal` apart, and the number of evaluations."""
    g, num_iter = torch.zeros_like(run.b), torch.zeros_like(run.num_iter)
    for _ in range(max_iter):
        rows = _try(run)
        run.done = run.done | _is_done(run)
        newton = _choose(run)
        # The one synchronisation of an iteration: how many problems are done, how many want Newton's step?
        num_done, num_newton = torch.stack([run.done.sum(), newton.sum()]).tolist()
        if num_done == len(run.done):
            break
        if num_newton:
            _aim_newton(run, rows, newton)
        if num_done > len(run.done) // 4:
            g[run.index], num_iter[run.index] = _best_point(run), run.num_iter
            run = run.select(~run.done)
    g[run.index], num_iter[run.index] = _best_point(run), run.num_iter
    return g, num_iter


def _try(run: _Run) -> Tensor:
    """Evaluate the trial point; accept it, or shorten the step. Returns the conditional rows there."""
    trial = torch.addcmul(run.g, run.step[:, None], run.direction)
    rows, f = conditional(run.log_b, trial, run.cost, run.level)
    columns = _column_sums(run.a, rows)
    value = (run.a * f).sum(dim=1) + (run.b * trial).sum(dim=1)
    error = (run.b - columns).abs()
    # Columns whose whole mass is within the final tolerance do not hold up the annealing.
    negligible = 0.01 * (run.goal / (run.spread + MACHINE_EPSILON)).clamp(1e-9, 1.0)
    mismatch = (error / (torch.maximum(run.b, columns) + negligible[:, None])).amax(dim=1)
    error = error.sum(dim=1)

    # The dual carries rounding noise; where a step promises a smaller gain than that, the marginal error decides.
    noise = 16 * MACHINE_EPSILON * (run.spread + run.level)
    gain, promise = value - run.value, run.step * run.slope
    ascent = (gain >= 1e-4 * promise) & (promise > noise)
    accepted = ~run.done & (run.forced | ascent | ((gain >= -noise) & (error <= 0.5 * run.error)))

    # The trust radius is set by the step lengths that did and did not work.
    length = run.step * run.direction.abs().amax(dim=1)
    longer = torch.minimum(4 * torch.maximum(length, run.level), run.spread + RADIUS * run.level)
    run.radius = torch.where(accepted & ~run.forced & (2 * length > run.radius), longer, run.radius)
    run.radius = torch.where(accepted, run.radius, torch.maximum(0.25 * length, 0.1 * run.level))
    run.rejected = torch.where(accepted, 0, run.rejected + 1)
    run.step = 0.25 * run.step
    coarse = run.level > run.epsilon
    rate = torch.where(coarse, mismatch / run.mismatch, error / run.error)
    run.rate = torch.where(run.sinkhorn, rate, 1.0)
    run.g = torch.where(accepted[:, None], trial, run.g)
    run.columns = torch.where(accepted[:, None], columns, run.columns)
    run.value = torch.where(accepted, value, run.value)
    run.error = torch.where(accepted, error, run.error)
    run.mismatch = torch.where(accepted, mismatch, run.mismatch)
    run.age, run.num_iter = run.age + 1, run.num_iter + ~run.done
    return rows


def _best_point(run: _Run) -> Tensor:
    """The potentials with the closest bounds so far; later steps, which aim at a smaller gap, may be worse."""
    return torch.where(run.best_width.isfinite()[:, None], run.best_g, run.g)


def _width(run: _Run) -> Tensor:
    """The distance between the bounds that the marginal error gives, whether f or g is taken as exact."""
    return 0.5 * run.error * (run.spread + torch.maximum(_osc(run.g, run.b > 0), run.spread))


def _is_done(run: _Run) -> Tensor:
    # Rounding of g/eps moves the plan's entries by machine epsilon times range/eps.
    noise = 1e-13 + 2 * MACHINE_EPSILON * run.spread / run.epsilon
    final = run.level == run.epsilon
    better = run.error < 0.5 * run.best
    run.best = torch.where(final & better, run.error, run.best)
    run.stale = torch.where(final & ~better, run.stale + 1, 0)
    stuck = (run.stale >= PATIENCE) & (run.error <= 100 * noise)
    width = _width(run)
    closer = final & (width < run.best_width)
    run.best_g = torch.where(closer[:, None], run.g, run.best_g)
    run.best_width = torch.where(closer, width, run.best_width)
    return final & ((width <= run.goal) | (run.error <= noise) | stuck)


def _choose(run: _Run) -> Tensor:
    """Prepare the next trial of each problem, except Newton's direction; returns which problems need that."""
    coarse = run.level > run.epsilon
    solved = coarse & (run.mismatch <= LEVEL_MISMATCH)
    failed = run.warm & (run.age >= WARM_STEPS) & ~run.done & ~solved
    fresh = run.rejected == 0

    wanted = (run.goal / (run.spread + MACHINE_EPSILON)).clamp_min(1e-13) / run.error
    left = torch.log(torch.where(coarse, LEVEL_MISMATCH / run.mismatch, wanted)) / torch.log(run.rate)
    cheap = run.sinkhorn & fresh & (run.rate < 1) & (left <= SINKHORN_STEPS + run.b.shape[1] / 16)
    sinkhorn = (run.age == 1) | cheap | (run.rejected >= MAX_REJECTIONS)
    _aim(run, sinkhorn, run.level[:, None] * (run.log_b - run.columns.clamp_min(TINY).log()))
    run.sinkhorn = torch.where(fresh | sinkhorn, sinkhorn, run.sinkhorn)
    run.forced = sinkhorn.clone()
    _descend(run, solved & fresh)
    _restart(run, failed)
    return fresh & ~sinkhorn & ~solved & ~failed & ~run.done


def _aim(run: _Run, which: Tensor, direction: Tensor) -> None:
    """Let the next trial of these problems be a full step along a direction (zero where there is no mass)."""
    direction = torch.where(run.b > 0, direction, 0.0)
    run.direction = torch.where(which[:, None], direction, run.direction)
    run.step = torch.where(which, 1.0, run.step)


def _descend(run: _Run, which: Tensor) -> None:
    """Go to the next level of the annealing, from the linear extrapolation of the two solutions before."""
    level = torch.where(which, torch.maximum(run.level / ANNEALING_FACTOR, run.epsilon), run.level)
    ahead = (run.level - level) / (run.last_level - run.level)  # 0 where there is no level before
    _aim(run, which, ahead.nan_to_num(0.0)[:, None] * (run.g - run.last_g))
    run.last_g = torch.where(which[:, None], run.g, run.last_g)
    run.last_level = torch.where(which, run.level, run.last_level)
    run.radius = torch.where(which, RADIUS * level, run.radius)
    _renew(run, which, level)


def _restart(run: _Run, which: Tensor) -> None:
    """Anneal from scratch where a warm start did not help."""
    _aim(run, which, -run.g)
    level = torch.where(which, torch.maximum(run.epsilon, run.spread / FIRST_LEVEL), run.level)
    run.warm = run.warm & ~which
    run.last_level = torch.where(which, torch.inf, run.last_level)
    _renew(run, which, level)


def _renew(run: _Run, which: Tensor, level: Tensor) -> None:
    run.level = level
    run.radius = torch.where(which, RADIUS * level, run.radius)
    run.forced = run.forced | which
    run.sinkhorn = run.sinkhorn & ~which
    run.age = torch.where(which, 0, run.age)
    run.rejected = torch.where(which, 0, run.rejected)


def _aim_newton(run: _Run, rows: Tensor, which: Tensor) -> None:
    """Newton's direction at the points just accepted, damped to the trust radius."""
    hessian = torch.bmm(rows.mT, run.a.unsqueeze(2) * rows).neg_()
    diagonal = hessian.diagonal(dim1=1, dim2=2)
    diagonal.zero_()
    # The diagonal is the sum of the other entries, without the cancellation in c - diag(R^T a R). H is then
    # an M-matrix with H 1 = 0, so damping by kappa |b - c| confines the step to [-eps/kappa, eps/kappa]
    # (maximum principle) column by column: weakly tied columns are held back, the others keep their Newton
    # step, and near the solution the damping fades. The ridge relative to b hides directions in which
    # rounding of b - c would dominate.
    degree = -hessian.sum(dim=2)
    damping = (run.level / run.radius)[:, None] * (run.b - run.columns).abs()
    diagonal.copy_(degree * (1 + RIDGE) + damping + RIDGE * run.b + (run.b == 0))
    # Constants are in the kernel of H, so the coordinate with the largest mass is held fixed.
    pinned = torch.nn.functional.one_hot(run.b.argmax(dim=1), run.b.shape[1]).bool()
    hessian.masked_fill_(pinned.unsqueeze(1) | pinned.unsqueeze(2), 0.0)
    diagonal.masked_fill_(pinned, 1.0)
    gradient = torch.where(pinned | (run.b == 0), 0.0, run.b - run.columns)
    factor, info = torch.linalg.cholesky_ex(hessian)
    direction = run.level[:, None] * torch.cholesky_solve(gradient.unsqueeze(2), factor).squeeze(2)

    slope = ((run.b - run.columns) * direction).sum(dim=1)
    usable = which & (info == 0) & (slope > 0) & slope.isfinite()
    run.slope = torch.where(usable, slope, run.slope)
    _aim(run, usable, direction)
    # Where there is no usable direction, a Sinkhorn step is taken.
    useless = which & ~usable
    _aim(run, useless, run.level[:, None] * (run.log_b - run.columns.clamp_min(TINY).log()))
    run.sinkhorn, run.forced = run.sinkhorn | useless, run.forced | useless
