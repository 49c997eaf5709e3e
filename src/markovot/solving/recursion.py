r"""Distances of a finite horizon: the recursion, its certificate, and its gradient.

The horizon T has hazards `h_t = P(T = t | T >= t)`, t = 0, ..., k - 1, and ends in the level k:

    C^(t) = h_t D + (1 - h_t) OT(A, B; C^(t+1)),        C^(k) = D,        d = OT(nu, mu; C^(0)),

or, where T - k is geometric(delta) given T >= k, `C^(k) = C*`, the fixed point of the discounted operator.

**Certificate.** OT is monotone and commutes with constants, hence 1-Lipschitz in the maximum norm. Where C^(t+1) is
known within `e_(t+1)` and the local values within `g`, C^(t) is known within `e_t = (1 - h_t) (g + e_(t+1))`. Unrolled,

    e_0 = g (P(T > 0) + P(T > 1) + ... + P(T > k - 1)) + P(T > k - 1) e_k,

which tells how small g must be for the wanted error.

**Gradient.** Let v^(0) be the gradient of a loss in C^(0), P_t the optimal plans at C^(t+1), and f, g their potentials.
By the envelope theorem, `dOT = P_t dC + <f, dA> + <g, dB> + KL deps`, so that with `w = (1 - h_t) v^(t)`

    v^(t+1) = P_t^T w                               grad D       += h_t v^(t)
    grad A_il += sum_j w_ij f_ij^l                  grad h_t      = <v^(t), D - OT(A, B; C^(t+1))>
    grad B_jl += sum_i w_ij g_ij^l                  grad epsilon += <w, KL>

and at the end `grad D += v^(k)`, or what the implicit gradient of `adjoint` makes of v^(k) at C*. With v^(0) = pi_0,
the initial coupling, v^(t) is the law of (X_t, Y_t) on T >= t, and grad D that of (X_T, Y_T).

Plans are not kept: the pass from t = 0 to k solves the local problems again, at the same costs, in an engine of its
own, so that it depends on nothing that was computed in between. The costs C^(1), ..., C^(k) are kept in memory; where
they are too large, only every sqrt(k)-th is kept, and the others are computed again from these.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from markovot.autograd.centring import centred
from markovot.solution import Status
from markovot.solving import adjoint
from markovot.solving.adjoint import SolvedDistance, centre_rows
from markovot.solving.bellman import cost_limits, cost_range, tolerance, within
from markovot.solving.problem import Inputs, Outputs, Plans, Problem
from markovot.transport.engine import Engine
from markovot.transport.engines import with_engine
from markovot.transport.forcing import POLISH
from markovot.transport.single import Coupled, solve_problems
from markovot.transport.threads import own_threads

# The levels and the tail together may use the first share of the wanted error, the initial coupling the second. The
# last tenth is for engines that overshoot the gap.
LEVELS_SHARE, INITIAL_SHARE = 0.8, 0.1
# What rounding adds to a level, relative to the largest cost there.
ROUNDING = 2 * torch.finfo(torch.float64).eps
# If all costs take more bytes than this, only every sqrt(k)-th is kept.
KEPT_BYTES = 1 << 27

Found = TypeVar("Found")
T = TypeVar("T")


class WalkInputs(NamedTuple, Generic[T]):
    """One field for each tensor in which the distance is differentiable, as in `problem.Inputs`."""

    ground: T  # (P, n, m), zero at padding
    x: T  # transitions (B, n, n), or stored values (nnz,)
    y: T
    initial_x: T  # (P, n)
    initial_y: T  # (P, m)
    hazards: T  # (P, k)
    tail: T  # (P,), the delta of the tail; without one, it plays no part
    epsilon: T  # (P,)


Walk = Problem[WalkInputs[Tensor]]
Needed = WalkInputs[bool]
# The alignment is the gradient in the ground cost.
_GROUND = WalkInputs(True, *(False,) * (len(WalkInputs._fields) - 1))


class Levels(NamedTuple):
    """The hazards of the horizon, level by level."""

    hazard: Tensor  # (k, P), one at levels that are not reached
    reached: Tensor  # bool (k, P): P(T >= t) > 0; the other items are not solved there
    survival: Tensor  # (k, P), P(T > t)


def levels_of(hazards: Tensor) -> Levels:
    """The levels of a horizon with these hazards (P, k)."""
    hazard = hazards.mT.contiguous()
    survival = (1 - hazard).cumprod(0)
    reached = torch.cat([torch.ones_like(hazard[:1], dtype=torch.bool), survival[:-1] > 0])
    return Levels(torch.where(reached, hazard, 1.0), reached, survival)


@dataclass
class Descent:
    """Steps from C^(t+1) to C^(t), and the rule by which costs are kept or computed again."""

    problem: Walk
    levels: Levels
    gap: Tensor  # (P,)
    stride: int
    kept: dict[int, Tensor] = field(default_factory=dict)  # C^(t), (P, n, m)

    @property
    def depth(self) -> int:
        """The number of levels k above the last one."""
        return self.problem.inputs.hazards.shape[1]

    def step(self, engine: Engine, t: int, cost: Tensor) -> tuple[Tensor, Tensor]:
        """C^(t) from C^(t+1), and the error that the step adds to the present one, (P,)."""
        hazard = self.levels.hazard[t][:, None, None]
        lower, upper = engine.sweep(cost, self.gap, self.levels.reached[t])
        new = hazard * self.problem.inputs.ground + (1 - hazard) * (0.5 * (lower + upper))
        width = 0.5 * (upper - lower).flatten(1).amax(1)
        return new, (1 - self.levels.hazard[t]) * width + ROUNDING * new.abs().flatten(1).amax(1)

    def keep(self, level: int, cost: Tensor) -> None:
        """Keep C^(level), if it is one of those to be kept."""
        if level > 0 and (self.depth - level) % self.stride == 0:
            self.kept[level] = cost

    def ascending(self, engine: Engine) -> Iterator[Tensor]:
        """C^(1), C^(2), ..., C^(k)."""
        first = 1
        for last in sorted(self.kept):
            yield from reversed(self.between(engine, first, last))
            first = last + 1

    def between(self, engine: Engine, first: int, last: int) -> list[Tensor]:
        """C^(last), C^(last - 1), ..., C^(first), where C^(last) is a kept one."""
        costs = [self.kept[last]]
        for t in range(last - 1, first - 1, -1):
            costs.append(self.step(engine, t, costs[-1])[0])
        return costs

    def cost(self, engine: Engine, level: int) -> Tensor:
        """C^(level), level > 0."""
        return self.between(engine, level, min(kept for kept in self.kept if kept >= level))[-1]


@dataclass
class SolvedWalk:
    """A solved batch: what the solution shows, and what its gradient needs."""

    problem: Walk
    descent: Descent
    tail: SolvedDistance | None
    outer: Coupled
    cost_to_go: Tensor  # C^(0) (P, n, m), zero at padding
    cost_error: Tensor  # (P,), the certified error of every entry of it
    value: Tensor  # (P,), the middle of the certified interval
    error_bound: Tensor  # (P,), half its width
    wanted: Tensor  # (P,), the error that the solver was to reach
    num_iter: Tensor  # (P,), sweeps
    status: list[Status]
    _alignment: Tensor | None = field(default=None, init=False)

    @property
    def last_step(self) -> float:
        """The number of the last step that the chains take; infinite with a tail."""
        return math.inf if self.tail is not None else self.descent.depth - 1

    def outputs(self) -> tuple[Tensor, ...]:
        """See `problem.Outputs`."""
        return Outputs.of(self)

    def alignment(self) -> Tensor:
        """The law of (X_T, Y_T) for the optimally coupled chains, (P, n, m)."""
        if self._alignment is None:
            self._alignment = self._pull(self.outer.plan, _GROUND)["ground"]
        return self._alignment

    def couplings(self, item: int, step: int) -> Plans:
        """All local plans of an item from time `step` to the next."""
        if self.tail is not None and step >= self.descent.depth:
            return self.tail.couplings(item)

        def find(engine: Engine) -> Plans:
            cost = self.descent.cost(engine, step + 1)
            engine.sweep(cost, self.descent.gap, torch.arange(len(cost), device=cost.device) == item)
            return engine.couplings(item)

        return _with_engine(self.problem, find)

    def pullback(
        self, needed: tuple[bool, ...], grad_value: Tensor | None, grad_cost_to_go: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """The gradients in the order of `WalkInputs`; only the needed ones are computed."""
        need, given = WalkInputs(*needed), self.problem.inputs
        seed = torch.zeros_like(given.epsilon) if grad_value is None else grad_value
        result: dict[str, Tensor | None] = dict.fromkeys(WalkInputs._fields)
        if need.ground or need.x or need.y or need.hazards or need.tail or need.epsilon:
            v = seed[:, None, None] * self.outer.plan
            if grad_cost_to_go is not None:
                v = v + grad_cost_to_go
            result |= self._pull(v, need)
        if need.initial_x:
            result["initial_x"] = seed[:, None] * centred(self.outer.f, self._states(2))
        if need.initial_y:
            result["initial_y"] = seed[:, None] * centred(self.outer.g, self._states(1))
        if need.epsilon:
            assert result["epsilon"] is not None
            result["epsilon"] = result["epsilon"] + seed * self.outer.kl(self.cost_to_go, given.epsilon)
        return tuple(result.values())

    def _states(self, axis: int) -> Tensor | None:
        mask = self.problem.pairing.mask
        return None if mask is None else mask.any(dim=axis)

    def _pull(self, v: Tensor, need: Needed) -> dict[str, Tensor]:
        """The gradients in the other inputs, from the gradient v in C^(0)."""
        if not self.descent.depth:
            return self._pull_last(v, need, _zeros(self.problem.inputs, need))
        return _with_engine(self.problem, lambda engine: self._pull_levels(engine, v, need))

    def _pull_levels(self, engine: Engine, v: Tensor, need: Needed) -> dict[str, Tensor]:
        given, levels = self.problem.inputs, self.descent.levels
        pattern_x, pattern_y = (entries.pattern for entries in self.problem.pairing.entries)
        total = _zeros(given, need)
        for t, cost in enumerate(self.descent.ascending(engine)):
            lower, upper = engine.sweep(cost, self.descent.gap, levels.reached[t])
            hazard = levels.hazard[t][:, None, None]
            passed_on = (1 - hazard) * v
            if need.ground:
                total["ground"] += hazard * v
            if need.x:
                total["x"] += engine.gradient_x(passed_on, pattern_x)
            if need.y:
                total["y"] += engine.gradient_y(passed_on, pattern_y)
            if need.hazards:
                total["hazards"][:, t] = (v * (given.ground - 0.5 * (lower + upper))).flatten(1).sum(1)
            if need.epsilon:
                total["epsilon"] += (passed_on * engine.kl()).flatten(1).sum(1)
            v = engine.apply_transpose(passed_on, levels.reached[t])
        return self._pull_last(v, need, total)

    def _pull_last(self, v: Tensor, need: Needed, total: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add what the gradient v in C^(k) contributes, and project the gradients in transitions."""
        for name, entries in zip(("x", "y"), self.problem.pairing.entries, strict=True):
            if name in total:
                total[name] = centre_rows(total[name], entries)
        if self.tail is None:
            if need.ground:
                total["ground"] = total["ground"] + v
            return total
        below = Inputs(need.ground, need.x, need.y, False, False, need.tail, need.epsilon)
        found = zip(Inputs._fields, self.tail.pullback(below, None, v), strict=True)
        for name, part in found:
            own = "tail" if name == "discount" else name
            if part is not None:
                total[own] = total[own] + part.view_as(total[own])
        return total


def _zeros(given: WalkInputs[Tensor], need: Needed) -> dict[str, Tensor]:
    """Zero gradients in the needed inputs of the levels."""
    names = [name for name, wanted in need._asdict().items() if wanted and not name.startswith("initial")]
    return {name: torch.zeros_like(getattr(given, name)) for name in names}


def _with_engine(problem: Walk, call: Callable[[Engine], Found]) -> Found:
    """What `call(engine)` returns, with a new engine."""
    given, pairing = problem

    def run(engine: Engine) -> Found:
        with own_threads() if engine.has_threads else nullcontext():
            return call(engine)

    return with_engine(
        pairing.rows, pairing.pairs, given.epsilon, lambda: cost_range(given.ground, pairing.mask), run
    )


def solve(problem: Walk, rtol: float, max_iter: int, *, has_tail: bool, polish: bool = False) -> SolvedWalk:
    """Find C^(0) and the initial coupling to the wanted accuracy.

    Args:
        problem: what to solve.
        rtol: wanted certified error, relative to the range of the cost.
        max_iter: the most sweeps for the fixed point of a tail.
        has_tail: whether the walk goes on below the last level.
        polish: solve the local problems further than the tolerance asks, for gradients.

    Returns:
        The solved problem. `status` tells which items missed the tolerance; nothing is raised.
    """
    given, mask = problem.inputs, problem.pairing.mask
    limits = cost_limits(given.ground, mask)
    wanted = tolerance(limits[1] - limits[0], rtol)
    share = LEVELS_SHARE / 2 if has_tail else LEVELS_SHARE
    levels = levels_of(given.hazards)
    gap = (POLISH if polish else 1.0) * 2 * share * wanted / levels.survival.sum(0).clamp(min=1.0)
    depth = given.hazards.shape[1]
    stride = 1 if depth * given.ground.nbytes <= KEPT_BYTES else math.ceil(math.sqrt(depth))
    descent = Descent(problem, levels, gap, stride)
    tail = _solve_tail(problem, share * rtol, max_iter, polish) if has_tail else None
    cost, error = _last(problem, tail)
    if depth:
        cost, error = _with_engine(problem, lambda engine: _descend(engine, descent, tail, cost, error))
    cost = within(cost, limits, mask)
    outer_gap = 2 * INITIAL_SHARE * (POLISH if polish else 1.0) * wanted
    outer = solve_problems(given.initial_x, given.initial_y, cost, given.epsilon, outer_gap)
    value, bound = adjoint.certified(problem, outer, error, limits)
    num_iter = levels.reached.sum(0) + (0 if tail is None else tail.num_iter)
    status = _statuses(bound, wanted, tail)
    return SolvedWalk(problem, descent, tail, outer, cost, error, value, bound, wanted, num_iter, status)


def _last(problem: Walk, tail: SolvedDistance | None) -> tuple[Tensor, Tensor]:
    """C^(k) and its error (P,)."""
    if tail is None:
        return problem.inputs.ground, torch.zeros_like(problem.inputs.epsilon)
    return tail.cost_to_go, tail.cost_error


def _solve_tail(problem: Walk, rtol: float, max_iter: int, polish: bool) -> SolvedDistance:
    """The fixed point below the last level."""
    given = problem.inputs
    # The initial laws do not matter here, so each puts all its mass on one real state.
    first_x, first_y = (torch.zeros_like(law) for law in (given.initial_x, given.initial_y))
    first_x[:, 0] = first_y[:, 0] = 1.0
    inputs = Inputs(given.ground, given.x, given.y, first_x, first_y, given.tail, given.epsilon)
    return adjoint.solve(Problem(inputs, problem.pairing), rtol, max_iter, polish=polish)


def _descend(
    engine: Engine, descent: Descent, tail: SolvedDistance | None, cost: Tensor, error: Tensor
) -> tuple[Tensor, Tensor]:
    """C^(0) and its error (P,), from C^(k) and the error of C^(k)."""
    descent.kept.clear()
    if tail is not None:
        engine.warm_start(tail.bellman.engine)
    for t in range(descent.depth - 1, -1, -1):
        descent.keep(t + 1, cost)
        cost, added = descent.step(engine, t, cost)
        error = (1 - descent.levels.hazard[t]) * error + added
    return cost, error


def _statuses(bound: Tensor, wanted: Tensor, tail: SolvedDistance | None) -> list[Status]:
    """How each item ended; where only the error is too large, the status of the tail may be the reason."""
    found = Status.each(bound, wanted)
    if tail is None:
        return found
    pairs = zip(found, tail.status, strict=True)
    return [below if own is below.STALLED and below is not below.CONVERGED else own for own, below in pairs]
