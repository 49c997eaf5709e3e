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
own, so that it depends on nothing that was computed in between. Memory is that of the costs C^(1), ..., C^(k), or where
these are too large, of every sqrt(k)-th, from which those between are found again.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from markovot.solution import Status
from markovot.solving import adjoint
from markovot.solving.adjoint import Entries, centre_law, centre_rows
from markovot.solving.bellman import cost_limits, tolerance, within
from markovot.solving.fixed_point import PolicyIteration, Solver, ValueIteration
from markovot.transport.engine import Engine
from markovot.transport.engines import engine_classes
from markovot.transport.forcing import POLISH
from markovot.transport.rows import Rows
from markovot.transport.shared_kernel import UnsafeRange
from markovot.transport.single import Coupled, solve_problems
from markovot.transport.threads import own_threads

# Of the wanted error, the share of the levels together with the tail; the initial coupling takes half of the rest, and
# the other half is for engines that overshoot the gap.
LEVELS_SHARE, INITIAL_SHARE = 0.8, 0.1
# What rounding adds to a level, relative to the largest cost there.
ROUNDING = 2 * torch.finfo(torch.float64).eps
# All costs are kept up to so many bytes; beyond, every sqrt(k)-th.
KEPT_BYTES = 1 << 27

Found = TypeVar("Found")


class Inputs(NamedTuple):
    """The tensors in which the distance is differentiable; float64, one item of the batch after another."""

    ground: Tensor  # (P, n, m), zero at padding
    x: Tensor  # transition (B, n, n), or stored values (nnz,)
    y: Tensor
    initial_x: Tensor  # (P, n)
    initial_y: Tensor  # (P, m)
    hazards: Tensor  # (P, k)
    tail: Tensor  # (P,), the delta of the tail; without one, it plays no part
    epsilon: Tensor  # (P,)


class Needed(NamedTuple):
    """Which of the `Inputs` want a gradient."""

    ground: bool = False
    x: bool = False
    y: bool = False
    initial_x: bool = False
    initial_y: bool = False
    hazards: bool = False
    tail: bool = False
    epsilon: bool = False

    @property
    def levels(self) -> bool:
        """Whether some of them take part in the recursion."""
        return self.ground or self.x or self.y or self.hazards or self.tail or self.epsilon


class Problem(NamedTuple):
    """A batch of P pairs of chains; the fields from `rows` to `mask` are those of `adjoint.Problem`."""

    inputs: Inputs
    rows: tuple[Rows, Rows]
    pairs: tuple[Tensor, Tensor]
    entries: tuple[Entries, Entries]
    mask: Tensor | None
    has_tail: bool

    @property
    def depth(self) -> int:
        """The number of levels k above the last one."""
        return self.inputs.hazards.shape[1]

    def chains(self, item: int) -> tuple[Rows, Rows]:
        """The two chains of an item, without padding."""
        return adjoint.chains_of(self.rows, self.pairs, item)


class Levels(NamedTuple):
    """The horizon, level by level."""

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
    """Steps from C^(t+1) to C^(t), and in which order costs are kept and found again."""

    problem: Problem
    levels: Levels
    gap: Tensor  # (P,)
    stride: int
    kept: dict[int, Tensor] = field(default_factory=dict)  # C^(t), (P, n, m)

    def step(self, engine: Engine, t: int, cost: Tensor) -> tuple[Tensor, Tensor]:
        """C^(t) from C^(t+1), and the error that the step adds to the present one, (P,)."""
        hazard = self.levels.hazard[t][:, None, None]
        lower, upper = engine.sweep(cost, self.gap, self.levels.reached[t])
        new = hazard * self.problem.inputs.ground + (1 - hazard) * (0.5 * (lower + upper))
        width = 0.5 * (upper - lower).flatten(1).amax(1)
        return new, (1 - self.levels.hazard[t]) * width + ROUNDING * new.abs().flatten(1).amax(1)

    def keep(self, level: int, cost: Tensor) -> None:
        """Keep C^(level), if it is one of those to be kept."""
        if level > 0 and (self.problem.depth - level) % self.stride == 0:
            self.kept[level] = cost

    def ascending(self, engine: Engine) -> Iterator[Tensor]:
        """C^(1), C^(2), ..., C^(k)."""
        first = 1
        for last in sorted(self.kept):
            yield from reversed(self.between(engine, first, last))
            first = last + 1

    def between(self, engine: Engine, first: int, last: int) -> list[Tensor]:
        """C^(last), a kept one, C^(last - 1), ..., C^(first)."""
        costs = [self.kept[last]]
        for t in range(last - 1, first - 1, -1):
            costs.append(self.step(engine, t, costs[-1])[0])
        return costs

    def cost(self, engine: Engine, level: int) -> Tensor:
        """C^(level), level > 0."""
        return self.between(engine, level, min(kept for kept in self.kept if kept >= level))[-1]


@dataclass
class Solved:
    """A solved batch: what the solution shows, and what its gradient needs."""

    problem: Problem
    classes: list[Any]  # the engines that may serve
    descent: Descent
    tail: adjoint.Solved | None
    outer: Coupled
    cost_to_go: Tensor  # C^(0) (P, n, m), zero at padding
    cost_error: Tensor  # (P,), the certified error of every entry of it
    value: Tensor  # (P,), the middle of the certified interval
    error_bound: Tensor  # (P,), half its width
    wanted: Tensor  # (P,), the error that the solver was to reach
    num_iter: Tensor  # (P,), sweeps
    status: list[Status]
    _occupation: Tensor | None = field(default=None, init=False)

    def occupation(self) -> Tensor:
        """The law of (X_T, Y_T) for the optimally coupled chains, (P, n, m)."""
        if self._occupation is None:
            self._occupation = self._pull(self.outer.plan, Needed(ground=True))["ground"]
        return self._occupation

    def couplings(self, item: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """The plans of an item from time `step` to the next: rows i*m+j, columns k*m+l, masses."""
        if step >= self.problem.depth:
            assert self.tail is not None
            return self.tail.bellman.engine.couplings(item)

        def find(engine: Engine) -> tuple[Tensor, Tensor, Tensor]:
            cost = self.descent.cost(engine, step + 1)
            engine.sweep(cost, self.descent.gap, torch.arange(len(cost), device=cost.device) == item)
            return engine.couplings(item)

        return _with_engine(self.classes, self.problem, find)

    def pullback(
        self, needed: tuple[bool, ...], grad_value: Tensor | None, grad_cost_to_go: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """Gradients in `Inputs`, in their order, of which only the needed ones are computed."""
        need, given = Needed(*needed), self.problem.inputs
        seed = torch.zeros_like(given.epsilon) if grad_value is None else grad_value
        result: dict[str, Tensor | None] = dict.fromkeys(Inputs._fields)
        if need.levels:
            v = seed[:, None, None] * self.outer.plan
            if grad_cost_to_go is not None:
                v = v + grad_cost_to_go
            result |= self._pull(v, need)
        if need.initial_x:
            result["initial_x"] = seed[:, None] * centre_law(self.outer.f, self._states(2))
        if need.initial_y:
            result["initial_y"] = seed[:, None] * centre_law(self.outer.g, self._states(1))
        if need.epsilon:
            assert result["epsilon"] is not None
            result["epsilon"] = result["epsilon"] + seed * self.outer.kl(self.cost_to_go, given.epsilon)
        return tuple(result.values())

    def _states(self, axis: int) -> Tensor | None:
        return None if self.problem.mask is None else self.problem.mask.any(dim=axis)

    def _pull(self, v: Tensor, need: Needed) -> dict[str, Tensor]:
        """What the gradient v in C^(0) means for the other inputs."""
        if not self.problem.depth:
            return self._pull_last(v, need, _zeros(self.problem.inputs, need))
        return _with_engine(self.classes, self.problem, lambda engine: self._pull_levels(engine, v, need))

    def _pull_levels(self, engine: Engine, v: Tensor, need: Needed) -> dict[str, Tensor]:
        given, levels = self.problem.inputs, self.descent.levels
        pattern_x, pattern_y = (entries.pattern for entries in self.problem.entries)
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
        """Add what the gradient v in C^(k) means, and project the gradients of transitions."""
        for name, entries in zip(("x", "y"), self.problem.entries, strict=True):
            if name in total:
                total[name] = centre_rows(total[name], entries)
        if self.tail is None:
            if need.ground:
                total["ground"] = total["ground"] + v
            return total
        below = adjoint.Needed(need.ground, need.x, need.y, False, False, need.tail, need.epsilon)
        found = zip(adjoint.Inputs._fields, self.tail.pullback(tuple(below), None, v), strict=True)
        for name, part in found:
            own = "tail" if name == "discount" else name
            if part is not None:
                total[own] = total[own] + part.view_as(total[own])
        return total


def _zeros(given: Inputs, need: Needed) -> dict[str, Tensor]:
    """Zero gradients in the needed inputs of the levels."""
    names = [name for name, wanted in need._asdict().items() if wanted and not name.startswith("initial")]
    return {name: torch.zeros_like(getattr(given, name)) for name in names}


def _with_engine(classes: list[Any], problem: Problem, call: Callable[[Engine], Found]) -> Found:
    """Call with a new engine, of the first class in whose range the costs stay."""
    for engine_class in classes:
        engine = engine_class(*problem.rows, *problem.pairs, problem.inputs.epsilon)
        try:
            with own_threads() if engine.has_threads else nullcontext():
                return call(engine)
        except UnsafeRange:
            continue
    raise AssertionError("the last engine is safe at any range")


def solve(problem: Problem, solver: Solver, *, polish: bool = False) -> Solved:
    """Find C^(0) and the initial coupling to the solver's tolerance.

    Args:
        problem: what to solve.
        solver: its tolerance, and how to find the fixed point of a tail.
        polish: solve the local problems further than the tolerance asks, for gradients.

    Returns:
        The solved problem. Items that miss the tolerance are told by `status`; nothing is raised.
    """
    given = problem.inputs
    limits = cost_limits(given.ground, problem.mask)
    spread = limits[1] - limits[0]
    wanted = tolerance(spread, solver.rtol)
    share = LEVELS_SHARE / 2 if problem.has_tail else LEVELS_SHARE
    levels = levels_of(given.hazards)
    gap = (POLISH if polish else 1.0) * 2 * share * wanted / levels.survival.sum(0).clamp(min=1.0)
    stride = 1 if problem.depth * given.ground.nbytes <= KEPT_BYTES else math.ceil(math.sqrt(problem.depth))
    descent = Descent(problem, levels, gap, stride)
    tail = _solve_tail(problem, _tighter(solver, share), polish) if problem.has_tail else None
    classes = engine_classes(problem.rows, problem.pairs, given.epsilon, lambda: spread)
    cost, error = _last(problem, tail)
    if problem.depth:
        cost, error = _with_engine(classes, problem, lambda engine: _descend(engine, descent, tail, cost, error))
    cost = within(cost, limits, problem.mask)
    outer_gap = 2 * INITIAL_SHARE * (POLISH if polish else 1.0) * wanted
    outer = solve_problems(given.initial_x, given.initial_y, cost, given.epsilon, outer_gap)
    value, bound = adjoint.certified(problem, outer, error, limits)
    num_iter = levels.reached.sum(0) + (0 if tail is None else tail.fixed_point.num_iter)
    status = _statuses(bound, wanted, tail)
    return Solved(problem, classes, descent, tail, outer, cost, error, value, bound, wanted, num_iter, status)


def _last(problem: Problem, tail: adjoint.Solved | None) -> tuple[Tensor, Tensor]:
    """C^(k) and its error (P,)."""
    if tail is None:
        return problem.inputs.ground, torch.zeros_like(problem.inputs.epsilon)
    return tail.cost_to_go, tail.fixed_point.enclosure.radius


def _tighter(solver: Solver, share: float) -> Solver:
    assert isinstance(solver, PolicyIteration | ValueIteration)
    return replace(solver, rtol=share * solver.rtol)


def _solve_tail(problem: Problem, solver: Solver, polish: bool) -> adjoint.Solved:
    """The fixed point below the last level."""
    given = problem.inputs
    # its own initial laws play no part: one real state each
    first_x, first_y = (torch.zeros_like(law) for law in (given.initial_x, given.initial_y))
    first_x[:, 0] = first_y[:, 0] = 1.0
    inputs = adjoint.Inputs(given.ground, given.x, given.y, first_x, first_y, given.tail, given.epsilon)
    whole = adjoint.Problem(inputs, problem.rows, problem.pairs, problem.entries, problem.mask)
    return adjoint.solve(whole, solver, polish=polish)


def _descend(
    engine: Engine, descent: Descent, tail: adjoint.Solved | None, cost: Tensor, error: Tensor
) -> tuple[Tensor, Tensor]:
    """C^(0) and its error (P,), from C^(k) and its own."""
    descent.kept.clear()
    if tail is not None:
        engine.warm_start(tail.bellman.engine)
    for t in range(descent.problem.depth - 1, -1, -1):
        descent.keep(t + 1, cost)
        cost, added = descent.step(engine, t, cost)
        error = (1 - descent.levels.hazard[t]) * error + added
    return cost, error


def _statuses(bound: Tensor, wanted: Tensor, tail: adjoint.Solved | None) -> list[Status]:
    below = [Status.CONVERGED] * len(bound) if tail is None else tail.fixed_point.status
    result = []
    for reached, limit, status in zip(bound.tolist(), wanted.tolist(), below, strict=True):
        if not math.isfinite(reached - limit):
            result.append(Status.NOT_FINITE)
        elif reached <= limit:
            result.append(Status.CONVERGED)
        else:
            result.append(Status.STALLED if status is Status.CONVERGED else status)
    return result
