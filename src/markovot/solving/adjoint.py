r"""Solve for the distance, and differentiate it: the implicit gradient.

Let v be the gradient of a loss in C*, P the optimal plans at C*, and f_ij, g_ij their potentials. Differentiating
`C* = delta D + (1 - delta) OT(A, B; C*)`, with dOT = <pi, dC> + <f, dA> + <g, dB> + KL deps (envelope theorem), gives

    K dC* = delta dD + (D - OT) ddelta + (1 - delta) (<f, dA> + <g, dB> + KL deps),        K = I - (1 - delta) P

so with the ONE solve `K^T L = v`

    grad D = delta L                                grad delta   = <L, D - OT>
    grad A_ik = (1 - delta) sum_j L_ij f_ij^k       grad epsilon = (1 - delta) <L, KL>
    grad B_jl = (1 - delta) sum_i L_ij g_ij^l

The distance itself, `d = OT(nu, mu; C*)`, contributes `v = pi_0`, grad nu = f_0, grad mu = g_0, and its KL to grad
epsilon. (Brugere, Wan and Wang 2023, and their notes on the gradient, where F^T L is the contraction with the
potentials.)

Off the support of a row its potential is the soft c-transform, the derivative for mass moved there. Potentials are
defined up to a constant, so gradients in laws are defined on the tangent space of the simplex: `centring` makes
their mean zero.
"""

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from markovot.autograd.centring import centred, centred_stored
from markovot.solution import SolveError, Status
from markovot.solving.bellman import Bellman, cost_range, tolerance, within
from markovot.solving.fixed_point import FixedPoint, iterate
from markovot.solving.problem import Entries, Inputs, Outputs, Plans, Problem
from markovot.transport.engine import Engine
from markovot.transport.engines import with_engine
from markovot.transport.forcing import POLISH
from markovot.transport.rows import Rows
from markovot.transport.single import Coupled, solve_problems
from markovot.transport.units import confined, power_of_two

# The adjoint is solved to this share of the solver's rtol, and never asked for more than rounding allows.
ADJOINT_SHARE, ADJOINT_FLOOR = 1e-2, 1e-14
ADJOINT_STEPS = 1000
# A gradient is refused if its residual exceeds both ten times the wanted one and this limit.
ADJOINT_LIMIT = 1e-9
# The fixed point may use this share of the wanted error; the initial coupling may use the rest.
FIXED_POINT_SHARE = 0.9


@dataclass
class SolvedDistance:
    """A solved batch: what the solution shows, and what its gradient needs."""

    bellman: Bellman
    fixed_point: FixedPoint
    outer: Coupled
    problem: Problem[Inputs[Tensor]]
    cost_to_go: Tensor  # (P, n, m), the middle of the enclosure of C*, zero at padding
    wanted: Tensor  # (P,), the error that the solver was to reach
    rtol: float
    last_step: float = math.inf  # the coupled chains go on for ever
    _occupation: Tensor | None = field(default=None, init=False)

    @property
    def inputs(self) -> Inputs[Tensor]:
        """The inputs of the problem."""
        return self.problem.inputs

    @property
    def status(self) -> list[Status]:
        """How each item ended."""
        return self.fixed_point.status

    @property
    def num_iter(self) -> Tensor:
        """Sweeps over all local problems, int64 (P,)."""
        return self.fixed_point.num_iter

    @property
    def cost_error(self) -> Tensor:
        """The certified error of every entry of `cost_to_go`, (P,)."""
        return self.fixed_point.enclosure.radius

    @property
    def value(self) -> Tensor:
        """The middle of the certified interval, (P,)."""
        return self._certified[0]

    @property
    def error_bound(self) -> Tensor:
        """Half the certified interval, (P,)."""
        return self._certified[1]

    @cached_property
    def _certified(self) -> tuple[Tensor, Tensor]:
        return certified(self.problem, self.outer, self.cost_error, self.bellman.limits)

    def outputs(self) -> tuple[Tensor, ...]:
        """See `problem.Outputs`."""
        return Outputs.of(self)

    def alignment(self) -> Tensor:
        """The discounted occupation of the optimally coupled chains, a probability on pairs of states, (P, n, m)."""
        return self.inputs.discount[:, None, None] * self.occupation()

    def couplings(self, item: int, step: int = 0) -> Plans:
        """All local plans of an item, which are the same at every step."""
        return self.bellman.engine.couplings(item)

    def occupation(self) -> Tensor:
        """L for v = pi_0, the unnormalised discounted occupation, (P, n, m)."""
        if self._occupation is None:
            self._occupation = self.linear(self.outer.plan, transpose=True)
        return self._occupation

    def linear(self, rhs: Tensor, *, transpose: bool) -> Tensor:
        """The x of `K x = rhs` or `K^T x = rhs`, (P, n, m), as accurately as derivatives deserve, or SolveError."""
        # The system is linear: it is solved for a right hand side of size one, so that none is too small or too large.
        largest = rhs.abs().flatten(1).amax(1)
        usable = (largest > 0) & largest.isfinite()
        scale = power_of_two(torch.where(usable, largest, 1.0))[:, None, None]
        given = torch.where(usable[:, None, None], rhs / scale, 0.0)
        moduli = given.abs().flatten(1)
        size = moduli.sum(1) if transpose else moduli.amax(1)
        tolerance = max(ADJOINT_FLOOR, ADJOINT_SHARE * self.rtol) * size
        found = self.bellman.engine.solve(
            given, self.inputs.discount, tolerance, usable, transpose=transpose, max_iter=ADJOINT_STEPS
        )
        failed = ~(found.residual <= torch.maximum(10 * tolerance, ADJOINT_LIMIT * size))
        if bool(failed.any()):
            item = int(failed.nonzero()[0])
            raise SolveError(
                f"the {'adjoint' if transpose else 'tangent'} system of item {item} did not converge: its residual is "
                f"{float(found.residual[item]):.3g}, wanted {float(tolerance[item]):.3g}, relative to its right hand "
                "side. Raise delta, or ask for less with a larger rtol.",
                None,
            )
        # Zero stays zero; what is not finite makes the whole item NaN, as a product would.
        other = torch.where(largest == 0, 0.0, torch.nan)[:, None, None]
        return torch.where(usable[:, None, None], found.x * scale, other)

    def pullback(
        self, needed: tuple[bool, ...], grad_value: Tensor | None, grad_cost_to_go: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """The gradients in the order of `Inputs`; only the needed ones are computed."""
        need = Inputs(*needed)
        engine, given = self.bellman.engine, self.inputs
        by_fixed_point = need.ground or need.x or need.y or need.discount or need.epsilon
        adjoint = self.pulled(grad_value, grad_cost_to_go) if by_fixed_point else torch.zeros_like(given.ground)
        seed = torch.zeros_like(given.discount) if grad_value is None else grad_value
        passed_on = (1 - given.discount)[:, None, None] * adjoint
        result: dict[str, Tensor | None] = dict.fromkeys(Inputs._fields)
        if need.ground:
            result["ground"] = given.discount[:, None, None] * adjoint
        entries_x, entries_y = self.problem.pairing.entries
        if need.x:
            result["x"] = centre_rows(engine.gradient_x(passed_on, entries_x.pattern), entries_x)
        if need.y:
            result["y"] = centre_rows(engine.gradient_y(passed_on, entries_y.pattern), entries_y)
        if need.initial_x:
            result["initial_x"] = seed[:, None] * centred(self.outer.f, self.real_states(0))
        if need.initial_y:
            result["initial_y"] = seed[:, None] * centred(self.outer.g, self.real_states(1))
        if need.discount:
            result["discount"] = (adjoint * (given.ground - self.fixed_point.enclosure.local)).flatten(1).sum(1)
        if need.epsilon:
            own = seed * self.outer.kl(self.cost_to_go, given.epsilon)
            result["epsilon"] = (passed_on * engine.kl()).flatten(1).sum(1) + own
        return tuple(result.values())

    def pulled(self, grad_value: Tensor | None, grad_cost_to_go: Tensor | None) -> Tensor:
        """L for the v of a loss. L is linear in v, so the value contributes a multiple of the occupation."""
        total = torch.zeros_like(self.cost_to_go)
        if grad_value is not None:
            total = grad_value[:, None, None] * self.occupation()
        if grad_cost_to_go is not None:
            total = total + self.linear(grad_cost_to_go, transpose=True)
        return total

    def real_states(self, side: int) -> Tensor | None:
        """The real states of the chains X (side 0) or Y (side 1) of all items, bool (P, n) or (P, m); None: all."""
        mask = self.bellman.mask
        return None if mask is None else mask.any(dim=2 - side)


def centre_rows(gradient: Tensor, entries: Entries) -> Tensor:
    """A gradient in transition rows, centred over the entries of a row that may vary."""
    if entries.pattern is None:
        return centred(gradient, entries.mask[:, :, None] & entries.mask[:, None, :])
    chain, row = entries.pattern.owners()
    return centred_stored(gradient, chain * entries.pattern.num_states + row, entries.pattern.degrees.numel())


def certified(
    problem: Problem[Any], outer: Coupled, error: Tensor, limits: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """The distance and its certified error, (P,) each.

    Args:
        problem: one whose inputs have `ground`, `epsilon` and initial laws.
        outer: the initial coupling.
        error: the error of the cost of that coupling, (P,). OT commutes with constants, so the value inherits it.
        limits: the least and the largest ground cost, (P,); every distance lies between them.
    """
    low, high = limits
    high = torch.where(_meet_themselves(problem, low), low, high)
    return confined(outer.value, 0.5 * (outer.upper - outer.lower) + error, (low, high))


def _meet_themselves(problem: Problem[Any], low: Tensor) -> Tensor:
    """Which items are exact, between two copies of one chain, with the least cost from each state to itself, (P,)."""
    given, pairing = problem.inputs, problem.pairing
    (rows_x, rows_y), (x, y), mask = pairing.rows, pairing.pairs, pairing.mask
    none = torch.zeros_like(given.epsilon, dtype=torch.bool)
    if not bool((given.epsilon == 0).all()) or given.ground.shape[1] != given.ground.shape[2]:
        return none
    if not _equal(rows_x, rows_y):
        return none
    same = (x == y) & (given.initial_x == given.initial_y).all(1)
    least = given.ground.diagonal(dim1=1, dim2=2) == low[:, None]
    return same & (least if mask is None else least | ~mask.diagonal(dim1=1, dim2=2)).all(1)


def meets_itself(ground: Tensor, rows: tuple[Rows, Rows]) -> bool:
    """Whether two chains are copies of one, and each state has the least cost (n, n) to itself."""
    square = ground.shape[0] == ground.shape[1]
    return square and bool((ground.diagonal() == ground.amin()).all()) and _equal(*rows)


def _equal(x: Rows, y: Rows) -> bool:
    parts = ("sizes", "indptr", "indices", "values")
    return x is y or all(torch.equal(getattr(x, part), getattr(y, part)) for part in parts)


def solve(
    problem: Problem[Inputs[Tensor]],
    rtol: float,
    max_iter: int,
    *,
    init: SolvedDistance | None = None,
    polish: bool = False,
) -> SolvedDistance:
    """Find C* and the initial coupling to the wanted accuracy.

    Args:
        problem: what to solve.
        rtol: wanted certified error, relative to the range of the cost.
        max_iter: the most sweeps.
        init: a solved problem of the same shape to start from.
        polish: go a step further than the tolerance, for gradients.

    Returns:
        The solved problem. `status` tells which items missed the tolerance; nothing is raised.
    """
    inputs, pairing = problem

    def run(engine: Engine) -> SolvedDistance:
        if init is not None:
            engine.warm_start(init.bellman.engine)
        bellman = Bellman(engine, inputs.ground, inputs.discount, pairing.mask)
        return _solve(bellman, problem, (rtol, max_iter), init, polish)

    return with_engine(
        pairing.rows, pairing.pairs, inputs.epsilon, lambda: cost_range(inputs.ground, pairing.mask), run
    )


def _solve(
    bellman: Bellman,
    problem: Problem[Inputs[Tensor]],
    accuracy: tuple[float, int],
    init: SolvedDistance | None,
    polish: bool,
) -> SolvedDistance:
    inputs, (rtol, max_iter) = problem.inputs, accuracy
    wanted = tolerance(bellman.spread, rtol)
    start = None if init is None else init.cost_to_go
    found = iterate(bellman, FIXED_POINT_SHARE * wanted, max_iter, start, polish=polish)
    centre = within(found.enclosure.centre, bellman.limits, bellman.mask)
    gap = (1 - FIXED_POINT_SHARE) * wanted * (POLISH if polish else 1.0)
    warm = None if init is None else init.outer.g
    outer = solve_problems(inputs.initial_x, inputs.initial_y, centre, inputs.epsilon, gap, init=warm)
    solved = SolvedDistance(bellman, found, outer, problem, cost_to_go=centre, wanted=wanted, rtol=rtol)
    for item, (bound, limit) in enumerate(zip(solved.error_bound.tolist(), wanted.tolist(), strict=True)):
        if found.status[item] is Status.CONVERGED:
            found.status[item] = Status.of(bound, limit)
    return solved
