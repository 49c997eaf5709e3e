r"""Forward-mode and second derivatives of the distance.

Write u for a direction in the inputs (dD, dA, ..., deps), Phi = <s, d> + <v, C*> for the function whose gradient
`adjoint.py` gives, and primes for derivatives along u. Differentiating the fixed point once (derived there),

    K C' = delta dD + (D - OT) ddelta + (1 - delta) (<f, dA> + <g, dB> + KL deps),     d' = <pi_0, C'> + ...

one more solve with K. Differentiating the gradient, whose parts are L, the plans and the potentials,

    K^T L' = s pi_0' + ((1 - delta) P)'^T L
    (grad D)'  = ddelta L + delta L'
    (grad A)'  = sum_j ((1 - delta) L_ij)' f_ij + (1 - delta) L_ij f_ij'                    (grad B likewise)
    (grad delta)' = <L', D - OT> + <L, dD - OT'>,        (grad epsilon)' = <((1 - delta) L)', KL> + (1 - delta) <L, KL'>

It remains to differentiate plans and potentials of single problems. Let `E = exp((f + g - C) / eps)`, so that
`pi = a E b`. The marginals are `E b = 1` and `E^T a = 1`, also at states without mass, where f and g are soft
c-transforms. Hence

    f' + (E b) g' = (a row of pi over its mass)    . (dC + S deps) - eps E db,            S = log E
    (E^T a) f' + g' = (a column of pi over its mass) . (dC + S deps) - eps E^T da

whose matrix is singular, since potentials are defined up to a constant. Eliminating f' leaves `I - E^T a E b`, to which
`1 b^T` is added: b is the stationary law of `E^T a E b`, so the sum is regular, and right hand sides that conserve mass
have their solution unchanged up to that constant.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from markovot.autograd.centring import centred
from markovot.solving.adjoint import SolvedDistance, centre_rows
from markovot.solving.problem import Entries, Inputs
from markovot.transport.rows import Rows
from markovot.transport.single import solve_problems

# How many entries of local problems are worked on at a time; a dozen temporary tensors have this size.
CHUNK_ENTRIES = 1 << 20
# The wanted gap of local values, relative to the range of the cost to go. It gives potentials ten digits or more.
LOCAL_GAP = 1e-13
LARGEST_EXPONENT = 700.0


class _Side(NamedTuple):
    """The rows of one side's chains, at the entries that may vary, padded to one length d."""

    state: Tensor  # (B, n, d)
    law: Tensor  # (B, n, d); empty rows are given one entry
    place: Tensor  # (B, n, d), position of the entry in the flat parameter
    valid: Tensor  # bool (B, n, d)

    def gather(self, parameter: Tensor | None) -> Tensor | None:
        """A tangent of the parameter at these places, (B, n, d)."""
        return None if parameter is None else torch.where(self.valid, parameter.reshape(-1)[self.place], 0.0)


def _side(parameter: Tensor, entries: Entries, rows: Rows, *, full: bool) -> _Side:
    """The rows of one side; with `full`, the zeros of a dense chain may vary too."""
    batch, n = entries.mask.shape
    if entries.pattern is None and full:
        shape = (batch, n, n)
        place = torch.arange(batch * n * n, device=parameter.device).view(shape)
        valid = (entries.mask[:, :, None] & entries.mask[:, None, :]).expand(shape)
        index = torch.arange(n, device=parameter.device).expand(shape)
    else:
        pattern = rows if entries.pattern is None else entries.pattern
        degrees = pattern.degrees
        slots = torch.arange(pattern.max_degree, device=parameter.device)
        valid = slots < degrees[:, :, None]
        entry = torch.where(valid, pattern.indptr[:, :-1, None] + slots, 0)
        index = torch.where(valid, pattern.indices[entry], 0)
        first = n * torch.arange(batch * n, device=parameter.device).view(batch, n, 1)
        place = entry if entries.pattern is not None else torch.where(valid, first + index, 0)
    law = torch.where(valid, parameter.reshape(-1)[place], 0.0)
    total = law.sum(2, keepdim=True)
    law = law / torch.where(total > 0, total, 1.0)
    law[..., 0] += (total == 0).squeeze(2)
    return _Side(index, law, place, valid)


@dataclass
class _Chunk:
    """Local problems of the rows i of items p, (c,) each, with all rows of Y."""

    p: Tensor
    i: Tensor
    a: Tensor  # (c, 1, dx)
    b: Tensor  # (c, m, dy)
    where: tuple[Tensor, Tensor, Tensor]  # positions of the costs, (c, m, dx, dy) by broadcasting
    f: Tensor  # (c, m, dx)
    g: Tensor  # (c, m, dy)


class _Variation(NamedTuple):
    """Tangents of potentials, plans and divergences of problems (*, dx, dy)."""

    f: Tensor
    g: Tensor
    plan: Tensor
    kl: Tensor


class Tangents:
    """Derivatives along one direction of a solved batch.

    Args:
        solved: the batch.
        direction: tangents of `Inputs`, None for zero. Tangents are centred, as gradients are.
        needed: the inputs whose gradients `curvature` is to differentiate.
    """

    def __init__(
        self, solved: SolvedDistance, direction: Sequence[Tensor | None], needed: tuple[bool, ...] | None
    ) -> None:
        self.solved = solved
        move = dict(zip(Inputs._fields, direction, strict=True))
        for_x, for_y = solved.problem.pairing.entries
        self.ground, self.discount, self.epsilon = move["ground"], move["discount"], move["epsilon"]
        x, y, law_x, law_y = (move[name] for name in ("x", "y", "initial_x", "initial_y"))
        self.x = None if x is None else centre_rows(x, for_x)
        self.y = None if y is None else centre_rows(y, for_y)
        self.law_x = None if law_x is None else centred(law_x, solved.real_states(0))
        self.law_y = None if law_y is None else centred(law_y, solved.real_states(1))
        need = Inputs(*(needed or (False,) * len(Inputs._fields)))
        self.needed = need
        self._chunks: list[_Chunk] | None = None

    @cached_property
    def _sides(self) -> tuple[_Side, _Side]:
        given, pairing, need = self.solved.inputs, self.solved.problem.pairing, self.needed
        return (
            _side(given.x, pairing.entries[0], pairing.rows[0], full=need.x or self.x is not None),
            _side(given.y, pairing.entries[1], pairing.rows[1], full=need.y or self.y is not None),
        )

    @cached_property
    def _moved_rows(self) -> tuple[Tensor | None, Tensor | None]:
        """The tangents of all rows of both sides, at the places of `_sides`."""
        return self._sides[0].gather(self.x), self._sides[1].gather(self.y)

    # --- first order
    def outputs(self) -> tuple[Tensor, Tensor]:
        """The tangents of the distances (P,) and of the costs to go (P, n, m)."""
        solved, given, outer = self.solved, self.solved.inputs, self.solved.outer
        delta = given.discount[:, None, None]
        rhs = (1 - delta) * self._local_values
        if self.ground is not None:
            rhs = rhs + delta * self.ground
        if self.discount is not None:
            rhs = rhs + self.discount[:, None, None] * (given.ground - solved.fixed_point.enclosure.local)
        if solved.bellman.mask is not None:
            rhs = rhs * solved.bellman.mask
        cost = solved.linear(rhs, transpose=False)
        value = (outer.plan * cost).flatten(1).sum(1)
        if self.law_x is not None:
            value = value + (outer.f * self.law_x).sum(1)
        if self.law_y is not None:
            value = value + (outer.g * self.law_y).sum(1)
        if self.epsilon is not None:
            value = value + outer.kl(solved.cost_to_go, given.epsilon) * self.epsilon
        return value, cost

    @cached_property
    def _local_values(self) -> Tensor:
        """`<f, dA> + <g, dB> + KL deps` of all local problems, (P, n, m)."""
        total = torch.zeros_like(self.solved.cost_to_go)
        if self.epsilon is not None:
            total += self.solved.bellman.engine.kl() * self.epsilon[:, None, None]
        if self.x is None and self.y is None:
            return total
        for chunk in self.chunks():
            da, db = self._moves(chunk)
            if da is not None:
                total[chunk.p, chunk.i] += (chunk.f * da).sum(2)
            if db is not None:
                total[chunk.p, chunk.i] += (chunk.g * db).sum(2)
        return total

    # --- second order
    def curvature(self, grad_value: Tensor | None, grad_cost_to_go: Tensor | None) -> tuple[Tensor | None, ...]:
        """The derivative of the gradient, in the order of `Inputs`; None where it is not needed."""
        solved, given, need = self.solved, self.solved.inputs, self.needed
        if bool((given.epsilon == 0).any()):
            raise NotImplementedError(
                "second-order derivatives do not exist at epsilon = 0, where plans jump from one vertex to another. "
                "Use a small positive epsilon."
            )
        engine, adjoint = solved.bellman.engine, solved.pulled(grad_value, grad_cost_to_go)
        _, cost = self.outputs()
        active = torch.ones(len(adjoint), dtype=torch.bool, device=adjoint.device)
        keep = (1 - given.discount)[:, None, None]
        discount = torch.zeros_like(given.discount) if self.discount is None else self.discount
        result: dict[str, Tensor | None] = dict.fromkeys(Inputs._fields)
        found, rhs = self._local_curvature(keep * adjoint, cost)
        if self.discount is not None:
            rhs = rhs - discount[:, None, None] * engine.apply_transpose(adjoint, active)
        if grad_value is not None:
            rhs = rhs + self._outer_curvature(grad_value, cost, result)
        if solved.bellman.mask is not None:
            rhs = rhs * solved.bellman.mask
        moved = solved.linear(rhs, transpose=True)
        passed_on = keep * moved - discount[:, None, None] * adjoint
        if need.ground:
            result["ground"] = discount[:, None, None] * adjoint + given.discount[:, None, None] * moved
        if need.x:
            entries = solved.problem.pairing.entries[0]
            result["x"] = centre_rows(engine.gradient_x(passed_on, entries.pattern) + found["x"], entries)
        if need.y:
            entries = solved.problem.pairing.entries[1]
            result["y"] = centre_rows(engine.gradient_y(passed_on, entries.pattern) + found["y"], entries)
        if need.discount:
            local = self._local_values + engine.apply(cost, active)
            ground = 0.0 if self.ground is None else self.ground
            part = moved * (given.ground - solved.fixed_point.enclosure.local) + adjoint * (ground - local)
            result["discount"] = part.flatten(1).sum(1)
        if need.epsilon:
            own = 0.0 if result["epsilon"] is None else result["epsilon"]
            result["epsilon"] = (passed_on * engine.kl()).flatten(1).sum(1) + found["epsilon"] + own
        return tuple(result.values())

    def _local_curvature(self, weights: Tensor, cost: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """`sum_j weights f'`, `sum_i weights g'` and `<weights, KL'>`, and `P'^T weights`."""
        given, need = self.solved.inputs, self.needed
        found = {name: torch.zeros_like(getattr(given, name)) for name in ("x", "y", "epsilon")}
        pulled = torch.zeros_like(weights)
        for chunk in self.chunks():
            epsilon = given.epsilon[chunk.p][:, None, None, None]
            move = None if self.epsilon is None else self.epsilon[chunk.p][:, None, None, None]
            problem = (chunk.a, chunk.b, self.solved.cost_to_go[chunk.where], chunk.f, chunk.g, epsilon)
            varied = _vary(problem, (*self._moves(chunk), cost[chunk.where], move))
            weight = weights[chunk.p, chunk.i]
            pulled.index_put_(chunk.where, weight[:, :, None, None] * varied.plan, accumulate=True)
            if need.x:
                self._add(found["x"], 0, chunk, (weight[:, :, None] * varied.f).sum(1))
            if need.y:
                self._add(found["y"], 1, chunk, weight[:, :, None] * varied.g)
            if need.epsilon:
                found["epsilon"].index_add_(0, chunk.p, (weight * varied.kl).sum(1))
        return found, pulled

    def _add(self, total: Tensor, side: int, chunk: _Chunk, values: Tensor) -> None:
        """Add values at the entries of the chunk's rows, (c, dx) of X or (c, m, dy) of Y, to a flat total."""
        own, rows = self._sides[side], self._rows(side, chunk)
        masked = torch.where(own.valid[rows], values, 0.0)
        total.view(-1).index_add_(0, own.place[rows].reshape(-1), masked.reshape(-1))

    def _outer_curvature(self, grad: Tensor, cost: Tensor, result: dict[str, Tensor | None]) -> Tensor:
        """`s pi_0'`; the parts of the initial problem go to `result`."""
        solved, given, need = self.solved, self.solved.inputs, self.needed
        epsilon = given.epsilon[:, None, None]
        a, b, g = given.initial_x, given.initial_y, solved.outer.g
        f, g = _extended(a, b, solved.cost_to_go, epsilon, g)
        move = None if self.epsilon is None else self.epsilon[:, None, None]
        varied = _vary((a, b, solved.cost_to_go, f, g, epsilon), (self.law_x, self.law_y, cost, move))
        if need.initial_x:
            result["initial_x"] = grad[:, None] * centred(varied.f, solved.real_states(0))
        if need.initial_y:
            result["initial_y"] = grad[:, None] * centred(varied.g, solved.real_states(1))
        if need.epsilon:
            result["epsilon"] = grad * varied.kl
        return grad[:, None, None] * varied.plan

    # --- local problems, some rows of X at a time
    def chunks(self) -> Iterator[_Chunk]:
        """All local problems with their potentials. Potentials are kept; tensors as large as the plans are not."""
        if self._chunks is None:
            self._chunks = [self._chunk(*part) for part in self._parts()]
        return iter(self._chunks)

    def _parts(self) -> Iterator[tuple[Tensor, Tensor]]:
        x, y = self._sides
        pair_x = self.solved.problem.pairing.pairs[0]
        item, row = (self.solved.problem.pairing.entries[0].mask[pair_x]).nonzero(as_tuple=True)
        step = max(1, CHUNK_ENTRIES // (y.state[0].numel() * x.state.shape[2]))
        return zip(item.split(step), row.split(step), strict=True)

    def _rows(self, side: int, chunk: _Chunk) -> tuple[Tensor, ...]:
        """The index of the chunk's rows: (c,) rows of X, or all rows (c, m) of Y."""
        chain = self.solved.problem.pairing.pairs[side][chunk.p]
        return (chain, chunk.i) if side == 0 else (chain,)

    def _moves(self, chunk: _Chunk) -> tuple[Tensor | None, Tensor | None]:
        """Tangents of the chunk's rows, (c, 1, dx) and (c, m, dy)."""
        da, db = self._moved_rows
        return (
            None if da is None else da[self._rows(0, chunk)][:, None],
            None if db is None else db[self._rows(1, chunk)],
        )

    def _chunk(self, p: Tensor, i: Tensor) -> _Chunk:
        x, y = self._sides
        chain_x, chain_y = (pair[p] for pair in self.solved.problem.pairing.pairs)
        a, b = x.law[chain_x, i][:, None], y.law[chain_y]
        where = (p[:, None, None, None], x.state[chain_x, i][:, None, :, None], y.state[chain_y][:, :, None, :])
        cost = self.solved.cost_to_go[where]
        epsilon = self.solved.inputs.epsilon[p][:, None, None, None]
        shape = cost.shape[:2]
        gap = LOCAL_GAP * torch.where(self.solved.bellman.spread > 0, self.solved.bellman.spread, 1.0)
        found = solve_problems(
            a.expand(*shape, -1).flatten(0, 1), b.flatten(0, 1), cost.flatten(0, 1),
            epsilon.expand(*shape, 1, 1).flatten(), gap[p][:, None].expand(shape).flatten(),
        )  # fmt: skip
        f, g = _extended(a, b, cost, epsilon, found.g.view(*shape, -1))
        return _Chunk(p, i, a, b, where, f, g)


def _extended(a: Tensor, b: Tensor, cost: Tensor, epsilon: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Potentials at all states, those without mass included: one c-transform each way (soft where epsilon > 0)."""
    g = torch.where(b > 0, g, 0.0)
    if bool((epsilon == 0).all()):
        f = (cost - g.unsqueeze(-2)).masked_fill((b == 0).unsqueeze(-2), torch.inf).amin(-1)
        return f, (cost - f.unsqueeze(-1)).masked_fill((a == 0).unsqueeze(-1), torch.inf).amin(-2)
    f = -epsilon.squeeze(-1) * torch.logsumexp(b.log().unsqueeze(-2) + (g.unsqueeze(-2) - cost) / epsilon, -1)
    g = -epsilon.squeeze(-1) * torch.logsumexp(a.log().unsqueeze(-1) + (f.unsqueeze(-1) - cost) / epsilon, -2)
    return f, g


def _vary(problem: tuple[Tensor, ...], moves: tuple[Tensor | None, ...]) -> _Variation:
    """The tangents of problems `(a, b, C, f, g, epsilon)` for `(da, db, dC, deps)`; None is zero."""
    a, b, cost, f, g, epsilon = problem
    da, db, dcost, depsilon = moves
    assert dcost is not None
    exponent = (f.unsqueeze(-1) + g.unsqueeze(-2) - cost) / epsilon
    gibbs = exponent.clamp(max=LARGEST_EXPONENT).exp()
    by_row, by_column = gibbs * b.unsqueeze(-2), gibbs * a.unsqueeze(-1)
    lift = dcost if depsilon is None else dcost + exponent * depsilon
    row, column = (by_row * lift).sum(-1), (by_column * lift).sum(-2)
    plan = by_row * a.unsqueeze(-1)
    change = torch.zeros_like(plan)
    if db is not None:
        row = row - epsilon.squeeze(-1) * (gibbs * db.unsqueeze(-2)).sum(-1)
        change = change + by_column * db.unsqueeze(-2)
    if da is not None:
        column = column - epsilon.squeeze(-1) * (gibbs * da.unsqueeze(-1)).sum(-2)
        change = change + by_row * da.unsqueeze(-1)
    df, dg = _potentials(by_row, by_column, b if by_row.shape[-1] <= by_row.shape[-2] else a, row, column)
    score = (df.unsqueeze(-1) + dg.unsqueeze(-2) - lift) / epsilon
    change = change + plan * score
    return _Variation(df, dg, change, (change * exponent).sum((-2, -1)))  # <pi, S'> is 0, since mass is conserved


def _potentials(by_row: Tensor, by_column: Tensor, law: Tensor, row: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
    """Solve `f + by_row g = row`, `by_column^T f + g = column` for the smaller side; `law` is the law of that side."""
    if by_row.shape[-1] > by_row.shape[-2]:
        return _potentials(by_column.mT, by_row.mT, law, column, row)[::-1]
    size = by_row.shape[-1]
    identity = torch.eye(size, dtype=by_row.dtype, device=by_row.device)
    matrix = identity - by_column.mT @ by_row + law.unsqueeze(-2)
    rhs = column - (by_column * row.unsqueeze(-1)).sum(-2)
    g = torch.linalg.solve(matrix, rhs)
    return row - (by_row * g.unsqueeze(-2)).sum(-1), g
