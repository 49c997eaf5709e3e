"""Eight entropic transport problems at once: damped Newton on the semi-dual, one problem in each lane.

With row potentials `f_k = -eps log sum_l b_l exp((g_l - C_kl)/eps)`, the soft c-transform of `g`, the rows of the plan
`P_kl = a_k b_l exp((f_k + g_l - C_kl)/eps)` sum to `a` exactly, and the dual value is the concave function

    S(g) = <f, a> + <g, b>,    grad S = b - c,    -Hess S = (diag(c) - P^T diag(1/a) P) / eps,    c = P^T 1.

`S(g)` is a lower bound of the transport value at every g. For an upper bound: S is concave and the optimal g* varies by
at most the range R of the costs, so `S* - S(g) <= <b - c, g* - g> <= |b - c|_1 (R + osc g) / 2`.

Newton steps are taken at a temperature `eps` that falls by factors of four to the wanted one (a lane that starts from
good potentials starts low). A step that does not raise S is shortened, and after three shortenings replaced by a
Sinkhorn step `g + eps log(b/c)`, which always raises it.
"""

from collections import namedtuple

import numpy as np

from markovot.transport.compiled.compiling import helper, jitable
from markovot.transport.compiled.simd import (
    LANES,
    absolute,
    anywhere,
    exp,
    load,
    log,
    maximum,
    minimum,
    select,
    splat,
    square_root,
    store,
)
from markovot.transport.units import ROUND_OFF

MAX_ITER = np.int64(400)  # evaluations; typed, since numba compiles callees anew for literals
# Evaluations after which what is left is annealed anew, and more slowly: about one problem in 3,000 at tiny epsilon,
# one in 100 where most masses are tiny too. Of 576,000 random problems none then remained.
CAUTION = 64
MAX_WARM_ITER = 12  # evaluations after which a warm start is given up for annealing
COOLING = 0.25
STAGE_ERROR = 0.1  # relative error of the worst column at which the temperature falls
ACHIEVABLE = 2.0**-46  # gap, relative to the costs, below which rounding rules
# Wide problems begin with Sinkhorn steps, which need no Hessian, and go over to Newton for good when such a step leaves
# more than this share of the marginal error. Measured on Dirichlet marginals and uniform costs, ranges of 1 to 1000
# epsilon: up to 12 states the two are alike (12: 2.1 to 15 against 1.4 to 16 microseconds a problem), from 32 on
# the mixture is faster (32: 8 to 177 against 18 to 171; 64: 28 to 980 against 113 to 1059); shares of .3 to .7 are
# alike.
NARROW, SINKHORN_GAIN = 12, 0.5
RIDGE = 1e-13
TRUST = 8.0  # largest first step, in temperatures: the potentials move by a few of them as one falls to the next

# Arrays of one group, lanes innermost: cost (rows, width), a and f (rows), the others (width); plan (rows, width).
Group = namedtuple("Group", "cost a b f g trial step columns drift hessian best")


@jitable
def make_group(rows, width):
    """Scratch memory for groups of up to `rows` x `width`."""
    return Group(
        np.empty(rows * width * LANES),
        np.empty(rows * LANES),
        np.empty(width * LANES),
        np.empty(rows * LANES),
        np.empty(width * LANES),
        np.empty(width * LANES),
        np.zeros(width * LANES),
        np.empty(width * LANES),
        np.empty(width * LANES),
        np.empty(width * width * LANES),
        np.empty(width * LANES),
    )


@helper
def _evaluate(w, rows, width, eps, plan, place, newton):
    """S at the trial potentials; writes f, the plan, its column sums and (lower triangle) the Hessian times -eps."""
    inverse = splat(1.0) / eps
    value = splat(0.0)
    zero = splat(0.0)
    for l in range(width):
        store(w.columns, l * LANES, zero)
        store(w.drift, l * LANES, zero)
    if newton:
        for l in range(width):
            for h in range(1, l + 1):
                store(w.hessian, (l * width + h) * LANES, zero)
    for k in range(rows):
        top = splat(-np.inf)
        for l in range(width):
            z = load(w.trial, l * LANES) - load(w.cost, (k * width + l) * LANES)
            top = maximum(top, z)
        total = splat(0.0)
        for l in range(width):
            z = load(w.trial, l * LANES) - load(w.cost, (k * width + l) * LANES)
            e = load(w.b, l * LANES) * exp((z - top) * inverse)
            store(plan, place[0] + (k * place[1] + l) * LANES, e)
            total = total + e
        a = load(w.a, k * LANES)
        f = splat(0.0) - top - eps * log(total)
        store(w.f, k * LANES, f)
        value = value + a * f
        share = splat(1.0) / total
        mean = splat(0.0)
        for l in range(width):
            z = load(w.trial, l * LANES) - load(w.cost, (k * width + l) * LANES) - top
            mean = mean + load(plan, place[0] + (k * place[1] + l) * LANES) * z
        mean = mean * share
        for l in range(width):
            z = load(w.trial, l * LANES) - load(w.cost, (k * width + l) * LANES) - top
            ratio = load(plan, place[0] + (k * place[1] + l) * LANES) * share
            p = ratio * a
            store(w.drift, l * LANES, load(w.drift, l * LANES) + p * (z - mean))
            store(plan, place[0] + (k * place[1] + l) * LANES, p)
            store(w.columns, l * LANES, load(w.columns, l * LANES) + p)
            if newton:
                for h in range(1, l + 1):
                    position = (l * width + h) * LANES
                    p_h = load(plan, place[0] + (k * place[1] + h) * LANES)
                    store(w.hessian, position, load(w.hessian, position) - ratio * p_h)
    for l in range(width):
        value = value + load(w.b, l * LANES) * load(w.trial, l * LANES)
    return value


@helper
def _marginal_error(w, width):
    error = splat(0.0)
    for l in range(width):
        error = error + absolute(load(w.b, l * LANES) - load(w.columns, l * LANES))
    return error


@helper
def _relative_error(w, width):
    """Largest |b - c| / b over the columns that carry mass."""
    error = splat(0.0)
    for l in range(width):
        b = load(w.b, l * LANES)
        ratio = absolute(b - load(w.columns, l * LANES)) / b
        error = maximum(error, select(b > 0.0, ratio, splat(0.0)))
    return error


@helper
def _oscillation(x, width):
    low, high = load(x, 0), load(x, 0)
    for l in range(1, width):
        value = load(x, l * LANES)
        low, high = minimum(low, value), maximum(high, value)
    return high - low


@helper
def _newton_step(w, width, eps, cooling, damping, fresh):
    """Solve Hess step = b - c by Cholesky with g_0 pinned; written to the lanes of `fresh`. Returns <b - c, step>."""
    for l in range(1, width):
        diagonal = load(w.columns, l * LANES)
        b = load(w.b, l * LANES)
        # Padding (b = 0) is decoupled; a column that receives next to nothing is held up by the ridge.
        diagonal = diagonal + select(b > 0.0, b * RIDGE + damping * absolute(b - diagonal), splat(1.0))
        pivot = load(w.hessian, (l * width + l) * LANES) + diagonal
        right = (b - load(w.columns, l * LANES)) * eps + cooling * load(w.drift, l * LANES)
        for h in range(1, l):
            # entries left of the diagonal: L_lh = (H_lh - sum_m L_lm D_m L_hm), kept multiplied by D_h
            position = (l * width + h) * LANES
            entry = load(w.hessian, position)
            for m in range(1, h):
                entry = entry - load(w.hessian, (l * width + m) * LANES) * load(w.hessian, (h * width + m) * LANES)
            scaled = entry * load(w.hessian, (h * width + h) * LANES)
            store(w.hessian, position, scaled)
            pivot = pivot - scaled * scaled
            right = right - scaled * load(w.trial, h * LANES)
        pivot = maximum(pivot, diagonal * RIDGE)
        root = splat(1.0) / square_root(pivot)
        store(w.hessian, (l * width + l) * LANES, root)
        store(w.trial, l * LANES, right * root)
    slope = splat(0.0)
    for back in range(1, width):
        l = width - back
        value = load(w.trial, l * LANES)
        for m in range(l + 1, width):
            value = value - load(w.hessian, (m * width + l) * LANES) * load(w.trial, m * LANES)
        value = value * load(w.hessian, (l * width + l) * LANES)
        store(w.trial, l * LANES, value)
        slope = slope + value * (load(w.b, l * LANES) - load(w.columns, l * LANES))
        store(w.step, l * LANES, select(fresh, value, load(w.step, l * LANES)))
    return slope


@helper
def _sinkhorn_step(w, width, eps, fresh):
    for l in range(1, width):
        b, c = load(w.b, l * LANES), load(w.columns, l * LANES)
        move = eps * log(maximum(b, splat(1e-300)) / maximum(c, splat(1e-300)))
        first = eps * log(load(w.b, 0) / maximum(load(w.columns, 0), splat(1e-300)))
        move = select(b > 0.0, move - first, splat(0.0))
        store(w.step, l * LANES, select(fresh, move, load(w.step, l * LANES)))


@helper
def _limit_step(w, width, limit, fresh):
    """Scale the fresh steps so that no potential moves by more than `limit`; returns the factor."""
    largest = splat(0.0)
    for l in range(1, width):
        largest = maximum(largest, absolute(load(w.step, l * LANES)))
    factor = select(largest > limit, limit / maximum(largest, splat(1e-300)), splat(1.0))
    for l in range(1, width):
        move = load(w.step, l * LANES)
        store(w.step, l * LANES, select(fresh, move * factor, move))
    return factor


@helper
def _start(w, rows, width, target, warmth):
    """Range of the costs, their largest size, and the temperature at which to begin."""
    low, high = load(w.cost, 0), load(w.cost, 0)
    for position in range(1, rows * width):
        value = load(w.cost, position * LANES)
        low, high = minimum(low, value), maximum(high, value)
    spread = high - low
    size = maximum(absolute(low), absolute(high))
    begin = maximum(target, minimum(spread, warmth) * COOLING)
    return spread, size, begin


@helper
def _is_narrow(w, width):
    """1 in lanes with few columns that carry mass, else 0; what other lanes hold plays no part."""
    columns = splat(0.0)
    for l in range(width):
        columns = columns + select(load(w.b, l * LANES) > 0.0, splat(1.0), splat(0.0))
    return select(columns <= 1.0 * NARROW, splat(1.0), splat(0.0))


@helper
def _keep_best(w, width, candidates, bound, best_bound):
    """Keep the potentials of the candidates that have a smaller bound than before; returns the smallest bounds."""
    better = candidates & (bound < best_bound)
    for l in range(width):
        position = l * LANES
        store(w.best, position, select(better, load(w.g, position), load(w.best, position)))
    return select(better, bound, best_bound)


@helper
def solve_group(w, rows, width, target, gap, warmth, plan, place, most):
    """Solve the eight problems of the group `w` to `upper - lower <= gap`.

    `w.g` holds the first potentials; `target` (epsilon), `gap` and `warmth` are vecs, and there are at most `most`
    evaluations. `warmth` says how far the
    potentials may be from good ones, in units of the cost: infinite for a cold start. On return `w.g`, `w.f` and the
    plan belong together, whose entry (k, l) stands `k place[1] + l` lanes after `plan[place[0]]`. Returns lower and
    upper values, and the number of evaluations. All bounds that were met on the way hold, and the best are kept: a
    smaller `gap`, which takes more steps, never widens the interval.
    """
    spread, size, eps = _start(w, rows, width, target, warmth)
    limit = spread + eps
    goal = maximum(gap, (size + target) * ACHIEVABLE)
    fuzz = (size + target) * 2.0**-50
    lower, upper, best_bound = splat(-np.inf), splat(np.inf), splat(np.inf)
    base_value = splat(-np.inf)
    base_error = splat(np.inf)
    length = splat(0.0)
    slope = splat(0.0)
    for l in range(width):
        store(w.trial, l * LANES, load(w.g, l * LANES))
        store(w.step, l * LANES, splat(0.0))
    done = splat(0.0)  # 1 where finished
    shortened = splat(0.0)
    trust = splat(TRUST)
    limited = splat(0.0)
    count = 0
    value = splat(0.0)
    bound = splat(0.0)
    direct = _is_narrow(w, width)  # 1 where Newton steps are taken: each lane goes over to them by itself
    hessian = anywhere(direct > 0.5)
    rate, stage_error, damping = COOLING, STAGE_ERROR, 0.0
    last_error = splat(np.inf)
    while True:
        value = _evaluate(w, rows, width, eps, plan, place, hessian)
        count += 1
        error = _marginal_error(w, width)
        better = value >= base_value + 1e-4 * length * slope - fuzz
        accepted = (better | (error < base_error * 0.5)) & (done < 0.5)
        for l in range(width):
            position = l * LANES
            store(w.g, position, select(accepted, load(w.trial, position), load(w.g, position)))
        base_value = select(accepted, value, base_value)
        base_error = select(accepted, error, base_error)
        bound = select(accepted, 0.5 * error * (spread + _oscillation(w.g, width)), bound)
        last_stage = accepted & (eps <= target)
        lower = select(last_stage, maximum(lower, value), lower)
        upper = select(last_stage, minimum(upper, value + bound), upper)
        best_bound = _keep_best(w, width, last_stage, bound, best_bound)
        finished = last_stage & (bound <= goal)
        done = select(finished, splat(1.0), done)
        active = done < 0.5
        if count >= most or not anywhere(active):
            break
        cooled = accepted & active & (eps > target) & (_relative_error(w, width) <= stage_error)
        newton = accepted & active & ~cooled
        # after three shortenings: back to g, then a Sinkhorn step, marked by shortened = -1
        back = active & ~accepted & (shortened >= 2.0)
        colder = maximum(target, eps * rate)
        sinkhorn = (newton & (shortened < 0.0)) | ((newton | cooled) & (direct < 0.5))
        new_slope = splat(0.0)
        if hessian:
            cooling = select(cooled, colder / eps - splat(1.0), splat(0.0))
            new_slope = _newton_step(w, width, eps, cooling, damping, newton | cooled)
        direct = select(newton & (error > last_error * SINKHORN_GAIN), splat(1.0), direct)
        last_error = select(newton, error, last_error)
        hessian = anywhere((direct > 0.5) & active)
        if anywhere(sinkhorn):
            _sinkhorn_step(w, width, eps, sinkhorn)
            new_slope = select(sinkhorn, splat(0.0), new_slope)
        # a step accepted at its limit may go further next time; a colder temperature begins anew
        widened = newton & (limited > 0.5)
        trust = select(widened, trust * 4.0, select(accepted, splat(TRUST), trust))
        factor = _limit_step(w, width, minimum(limit, eps * trust), newton | cooled)
        limited = select(accepted, select(newton & (factor < 1.0), splat(1.0), splat(0.0)), limited)
        slope = select(newton, new_slope * factor, slope)
        length = select(newton | cooled, splat(1.0), length * 0.25)
        length = select(back | ~active, splat(0.0), length)
        shortened = select(accepted, splat(0.0), select(back, splat(-1.0), shortened + 1.0))
        base_value = select(cooled | back, splat(-np.inf), base_value)
        base_error = select(cooled | back, splat(np.inf), base_error)
        eps = select(cooled, colder, eps)
        if count in (MAX_WARM_ITER, CAUTION):
            stuck = active & (eps <= target) & (spread * COOLING > target) & (base_error > 0.1)
            if count == CAUTION:
                # the few that are left begin anew, and go slowly
                rate, stage_error, damping, hessian = 0.5, 0.02, 0.1, True
                direct = splat(1.0)
                stuck = active
            eps = select(stuck, maximum(target, spread * COOLING), eps)
            length = select(stuck, splat(0.0), length)
            base_value = select(stuck, splat(-np.inf), base_value)
            base_error = select(stuck, splat(np.inf), base_error)
            if count == CAUTION:
                for l in range(width):
                    store(w.g, l * LANES, select(stuck, splat(0.0), load(w.g, l * LANES)))
        for l in range(width):
            position = l * LANES
            store(w.trial, position, load(w.g, position) + length * load(w.step, position))
    if anywhere(done < 0.5):
        for l in range(width):
            position = l * LANES
            g = select((done < 0.5) & (best_bound < np.inf), load(w.best, position), load(w.g, position))
            store(w.g, position, g)
            store(w.trial, position, g)
        value = _evaluate(w, rows, width, target, plan, place, hessian)
        bound = 0.5 * _marginal_error(w, width) * (spread + _oscillation(w.g, width))
        lower, upper = maximum(lower, value), minimum(upper, value + bound)
    allowance = (size + target + target) * ROUND_OFF
    return lower - allowance, upper + allowance, count
