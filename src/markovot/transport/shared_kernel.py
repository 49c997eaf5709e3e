"""Local transport by matrix products: the torch engine for dense rows, on any device.

All problems of an item share one cost C (n, m), hence one Gibbs kernel `G = exp(-(C - rho - sigma) / eps)`,
where rho and sigma are row and column minima that the potentials absorb. With `U_k = a_k exp((f_k - rho_k) /
eps)` and `V_l = b_l exp((g_l - sigma_l) / eps)` for every problem, the plan is `P = diag(U) G diag(V)`, and
for all problems at once

    U = a / (V G^T),    c = V * (U G),    Sinkhorn: V = b / (U G),    P v = rowsum(U * (V (G * v)^T)),

one product (nm x m)(m x n) each. Most problems need a handful of Sinkhorn steps, and drop out when they are
done. Those that remain and are slow take Newton steps, whose systems are solved by conjugate gradients with
the same products; the few that are left then go to `newton.solve_transport`, one by one.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from markovot.transport.newton import MACHINE_EPSILON, solve_transport
from markovot.transport.rows import Rows
from markovot.transport.shared_steps import TINY, State, accept, aim_newton, begin, count_left, evaluate, put
from markovot.transport.torch_common import TorchEngine, ranges
from markovot.transport.units import ROUND_OFF

# The largest exponent: exp(-600) = 1e-261, and sums of products of such weights are still normal numbers.
SAFE_RANGE = 600.0
MAX_STEPS = 300
MAX_NEWTON = 20  # Newton steps of a block, after which the explicit solver takes over
EXPLICIT_TEMPORARIES = 8


class UnsafeRange(Exception):
    """The cost range over epsilon is so large that the Gibbs kernel would underflow: use `GatherEngine`."""


@dataclass(frozen=True)
class _Block:
    """Problems of k items, whose rows of X are `first` to `last`."""

    items: slice | Tensor
    first: int
    last: int

    @property
    def rows(self) -> slice:
        return slice(self.first, self.last)


class SharedKernelEngine(TorchEngine):
    """Solves all problems of an item by Sinkhorn and Newton steps that are products with one shared kernel.

    Note:
        Memory O(nm(n + m)) for U and V, and a fixed budget for temporaries. Time of a Sinkhorn step, of
        `apply`, and of each gradient: O(nm * nm) multiply-adds in matrix products. float64, so that TF32 does
        not enter.
    """

    def __init__(self, rows_x: Rows, rows_y: Rows, pair_x: Tensor, pair_y: Tensor, epsilon: Tensor) -> None:
        super().__init__(rows_x, rows_y, pair_x, pair_y, epsilon)
        self.laws_x, self.laws_y = _laws(rows_x), _laws(rows_y)
        count, n, m = self.shape
        # The plans of every problem, diag(U) G diag(V); independent couplings to begin with.
        self.u = self.laws_x[pair_x].unsqueeze(2).repeat(1, 1, m, 1)  # (P, n, m, n)
        self.v = self.laws_y[pair_y].unsqueeze(1).repeat(1, n, 1, 1)  # (P, n, m, m)
        self.rho = torch.zeros(count, n, dtype=torch.float64, device=self.device)
        self.sigma = torch.zeros(count, m, dtype=torch.float64, device=self.device)
        self.gibbs = torch.ones(self.shape, dtype=torch.float64, device=self.device)

    @staticmethod
    def is_safe(cost_range: Tensor | float, epsilon: Tensor | float) -> bool:
        """Whether the kernel of costs with this range (max - min) neither under- nor overflows in float64.

        Example:
            >>> SharedKernelEngine.is_safe(1.0, 0.01), SharedKernelEngine.is_safe(1.0, 0.001)
            (True, False)
        """
        safe = cost_range <= SAFE_RANGE * epsilon
        return bool(safe.all()) if isinstance(safe, Tensor) else safe

    def _blocks(self, active: Tensor | None) -> Iterator[_Block]:
        """Several whole items, or some rows of one item, within the budget; slices where possible."""
        count = self.shape[0]
        chosen = torch.arange(count, device="cpu") if active is None else active.nonzero().squeeze(1).cpu()
        row = 8 * self.m * max(self.n, self.m)
        if row * self.n > self.chunk_bytes:
            for p in chosen.tolist():
                for first, last in ranges(self.n, self.chunk_bytes // row):
                    yield _Block(slice(p, p + 1), first, last)
            return
        for start, stop in ranges(len(chosen), self.chunk_bytes // (row * self.n)):
            whole = len(chosen) == count
            yield _Block(slice(start, stop) if whole else chosen[start:stop].to(self.device), 0, self.n)

    def _factors(self, block: _Block) -> tuple[Tensor, Tensor]:
        """U and V of a block, (k, q, n) and (k, q, m)."""
        return self.u[block.items, block.rows].flatten(1, 2), self.v[block.items, block.rows].flatten(1, 2)

    def _marginals(self, block: _Block) -> tuple[Tensor, Tensor]:
        """A and b of every problem of a block, (k, q, n) and (k, q, m)."""
        a = self.laws_x[self.pair_x[block.items], block.rows]
        b = self.laws_y[self.pair_y[block.items]]
        shape = (len(a), block.last - block.first, self.m)
        return a.unsqueeze(2).expand(*shape, -1).flatten(1, 2), b.unsqueeze(1).expand(*shape, -1).flatten(1, 2)

    def sweep(self, cost: Tensor, gap: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        """Certified bounds of `OT_eps` for every problem of the active items, (P, n, m) each; 0 elsewhere.

        Args:
            cost: float64 (P, n, m); its entries for items that are not active are ignored.
            gap: (P,) wanted `upper - lower` of each problem.
            active: bool (P,).

        Raises:
            UnsafeRange: where the costs of an active item, less row and column minima, exceed `SAFE_RANGE *
            epsilon`.
                The engine is then as it was before.
        """
        cost = torch.where(active[:, None, None] & self.real, cost, self.cost)
        self._shift(cost, active)
        self.cost = cost
        spread = self._range(cost)
        rounding = ROUND_OFF * (cost.abs().flatten(1).amax(dim=1) + 2 * self.epsilon)
        goal = (gap - 2 * rounding).clamp_min(0)
        # Sinkhorn's potentials obey osc(g) <= osc(C), so that this marginal error gives the wanted gap.
        target = (goal / (spread + MACHINE_EPSILON)).clamp_min(1e-13)
        lower, upper = self._zeros(), self._zeros()
        for block in self._blocks(active):
            error = self._solve(block, target[block.items], goal[block.items])
            value, width = self._bounds(block, error, spread[block.items])
            slack = rounding[block.items][:, None, None]
            lower[block.items, block.rows] = value - slack
            upper[block.items, block.rows] = value + width + slack
        self.swept = True
        return lower.masked_fill_(~self.real, 0.0), upper.masked_fill_(~self.real, 0.0)

    def _shift(self, cost: Tensor, active: Tensor) -> None:
        """Take row and column minima out of the cost, set the kernel, and carry V over to it."""
        infinite = cost.masked_fill(~self.real, torch.inf)
        rho = _finite(infinite.amin(dim=2))
        rest = infinite - rho.unsqueeze(2)
        sigma = _finite(rest.amin(dim=1))
        exponent = (rest - sigma.unsqueeze(1)).masked_fill(~self.real, 0.0) / self.epsilon[:, None, None]
        if not bool((exponent <= SAFE_RANGE).all()):
            raise UnsafeRange
        factor = (self.sigma - sigma) / self.epsilon[:, None]
        factor = torch.exp(factor - factor.amax(dim=1, keepdim=True))
        for block in self._blocks(active):
            empty = (self.laws_y[self.pair_y[block.items]] == 0).unsqueeze(1)
            v = self.v[block.items, block.rows] * factor[block.items][:, None, None]
            v = v.div_(v.amax(dim=3, keepdim=True)).clamp_min_(TINY).masked_fill_(empty, 0.0)
            self.v[block.items, block.rows] = v
        self.rho, self.sigma, self.gibbs = rho, sigma, torch.exp(-exponent)

    def _solve(self, block: _Block, target: Tensor, goal: Tensor) -> Tensor:
        """Bring a block to the target; sets U and V, and returns the marginal errors (k, rows, m)."""
        a, b = self._marginals(block)
        gibbs = self.gibbs[block.items]
        state = begin(a, b, self._factors(block)[1])
        u, v = torch.empty_like(a), torch.empty_like(b)  # filled when the first problems drop out
        errors = torch.zeros_like(state.error)
        num_newton, had_newton = 0, False
        for step in range(MAX_STEPS):
            point = evaluate(state, gibbs)
            here = state.v
            accept(state, point, target.unsqueeze(1), had_newton)
            left, slow, most = count_left(state)
            stop = left == 0 or num_newton >= MAX_NEWTON or step == MAX_STEPS - 1
            shrink = most < 0.75 * state.done.shape[1]
            if stop or shrink:
                put(u, state.index, point.u)
                put(v, state.index, here)
                errors.scatter_(1, state.index, point.error)
            if stop:
                break
            had_newton = 2 * slow >= left
            if had_newton:
                aim_newton(state, point, here, gibbs)
                num_newton += 1
            if shrink:
                state = state.select(state.done.long().argsort(dim=1, stable=True)[:, :most])
        shape = (len(a), -1, self.m)
        if not bool(state.done.all()):
            self._solve_explicitly(block, state, u, v, errors, goal)
        self.u[block.items, block.rows] = u.view(*shape, self.n)
        self.v[block.items, block.rows] = v.view(*shape, self.m)
        return errors.view(shape)

    def _solve_explicitly(
        self, block: _Block, state: State, u: Tensor, v: Tensor, errors: Tensor, goal: Tensor
    ) -> None:
        """Solve the problems that are left one by one, each with its own copy of the costs."""
        item, place = (~state.done).nonzero(as_tuple=True)
        cost, gibbs, sigma, epsilon = (x[block.items] for x in (self.cost, self.gibbs, self.sigma, self.epsilon))
        for start, stop in ranges(len(item), self.chunk_bytes // (8 * EXPLICIT_TEMPORARIES * self.n * self.m)):
            p, q = item[start:stop], place[start:stop]
            a, b, at, eps = state.a[p, q], state.b[p, q], state.index[p, q], epsilon[p].unsqueeze(1)
            init = (eps * torch.log(v[p, at] / b) + sigma[p]).nan_to_num(0.0, 0.0, 0.0)
            g = solve_transport(a, b, cost[p], epsilon[p], gap=goal[p], init=init).g
            exponent = (g - sigma[p]) / eps
            found = (b * torch.exp(exponent - exponent.amax(dim=1, keepdim=True))).clamp_min(TINY) * (b > 0)
            through = torch.einsum("ql,qkl->qk", found, gibbs[p])
            u[p, at] = a / through
            v[p, at] = found
            errors[p, at] = (b - found * torch.einsum("qk,qkl->ql", a / through, gibbs[p])).abs().sum(dim=1)

    def _potentials(self, block: _Block) -> tuple[Tensor, Tensor]:
        """log(U / a) and log(V / b), zero where there is no mass, (k, rows, m, ...)."""
        a = self.laws_x[self.pair_x[block.items], block.rows].unsqueeze(2)
        b = self.laws_y[self.pair_y[block.items]].unsqueeze(1)
        log_u = torch.log(self.u[block.items, block.rows] / a).masked_fill_(a == 0, 0.0)
        log_v = torch.log(self.v[block.items, block.rows] / b).masked_fill_(b == 0, 0.0)
        return log_u, log_v

    def _bounds(self, block: _Block, error: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
        """The dual value, and the width that follows from the marginal error, (k, rows, m) each."""
        a, b = self.laws_x[self.pair_x[block.items], block.rows], self.laws_y[self.pair_y[block.items]]
        epsilon = self.epsilon[block.items][:, None, None]
        log_u, log_v = self._potentials(block)
        value = epsilon * (torch.einsum("kijx,kix->kij", log_u, a) + torch.einsum("kijy,kjy->kij", log_v, b))
        value += torch.einsum("kix,kx->ki", a, self.rho[block.items]).unsqueeze(2)
        value += torch.einsum("kjy,ky->kj", b, self.sigma[block.items]).unsqueeze(1)
        g = log_v.mul_(epsilon.unsqueeze(3)).add_(self.sigma[block.items][:, None, None])
        empty = (b == 0).unsqueeze(1)
        osc = g.masked_fill(empty, -torch.inf).amax(dim=3) - g.masked_fill(empty, torch.inf).amin(dim=3)
        return value, 0.5 * error * (spread[:, None, None] + osc)

    def apply(self, v: Tensor, active: Tensor) -> Tensor:
        """`P v`: see the base class."""
        out = self._zeros()
        weighted = self.gibbs * v
        for block in self._blocks(active):
            u, w = self._factors(block)
            values = (u * (w @ weighted[block.items].mT)).sum(dim=2)
            out[block.items, block.rows] = values.view(len(u), -1, self.m)
        return out.masked_fill_(~self.real, 0.0)

    def apply_transpose(self, v: Tensor, active: Tensor) -> Tensor:
        """`P^T v`: see the base class."""
        out = self._zeros()
        v = v.masked_fill(~self.real, 0.0)
        for block in self._blocks(active):
            u, w = self._factors(block)
            y = v[block.items, block.rows].flatten(1).unsqueeze(2)
            out[block.items] += (u * y).mT @ w
        return out.mul_(self.gibbs).masked_fill_(~self.real, 0.0)

    def kl(self) -> Tensor:
        """`KL(pi_ij | a x b)` of the last plans, (P, n, m); 0 at padding."""
        out = self._zeros()
        entropy = -torch.special.xlogy(self.gibbs, self.gibbs)
        for block in self._blocks(None):
            u, w = self._factors(block)
            log_u, log_v = (x.flatten(1, 2) for x in self._potentials(block))
            a, _ = self._marginals(block)
            columns = w * (u @ self.gibbs[block.items])
            value = (a * log_u).sum(dim=2) + (columns * log_v).sum(dim=2)
            value -= (u * (w @ entropy[block.items].mT)).sum(dim=2)
            out[block.items, block.rows] = value.view(len(u), -1, self.m)
        return out.masked_fill_(~self.real, 0.0)

    def gradient_x(self, weights: Tensor, pattern: Rows | None) -> Tensor:
        """`sum_j weights_pij f_ij^k'`, summed over the items that share a chain of X.

        Args:
            weights: (P, n, m).
            pattern: the entries (row i, state k') that are wanted; None: all.

        Returns:
            (B, n, n), or (nnz,) in the order of the pattern. Not centred.
        """
        total = torch.zeros_like(self.laws_x)
        weights = weights.masked_fill(~self.real, 0.0)
        for block in self._blocks(None):
            _, v = self._factors(block)
            f = torch.log(v @ self.gibbs[block.items].mT).view(-1, block.last - block.first, self.m, self.n)
            f = self.rho[block.items][:, None, None] - self.epsilon[block.items][:, None, None, None] * f
            part = torch.einsum("kijx,kij->kix", f, weights[block.items, block.rows])
            total[:, block.rows].index_add_(0, self.pair_x[block.items], part)
        return _entries(total, pattern, self.rows_x)

    def gradient_y(self, weights: Tensor, pattern: Rows | None) -> Tensor:
        """`sum_i weights_pij g_ij^l'`: as `gradient_x`, with the sides exchanged."""
        total = torch.zeros_like(self.laws_y)
        weights = weights.masked_fill(~self.real, 0.0)
        for block in self._blocks(None):
            u, _ = self._factors(block)
            g = torch.log(u @ self.gibbs[block.items]).view(-1, block.last - block.first, self.m, self.m)
            g = self.sigma[block.items][:, None, None] - self.epsilon[block.items][:, None, None, None] * g
            part = torch.einsum("kijy,kij->kjy", g, weights[block.items, block.rows])
            total.index_add_(0, self.pair_y[block.items], part)
        return _entries(total, pattern, self.rows_y)

    def coupling(self, p: int, i: int, j: int) -> Tensor:
        """The plan of one problem: see the base class."""
        return self.u[p, i, j].unsqueeze(1) * self.gibbs[p] * self.v[p, i, j]


def _laws(rows: Rows) -> Tensor:
    """Dense rows that sum to one; padded rows get a unit mass, so that nothing is divided by zero."""
    laws = rows.to_dense()
    laws[..., 0] += rows.degrees == 0
    return laws / laws.sum(dim=2, keepdim=True)


def _finite(minima: Tensor) -> Tensor:
    return minima.masked_fill(minima.isinf(), 0.0)


def _entries(total: Tensor, pattern: Rows | None, rows: Rows) -> Tensor:
    """The wanted entries of a full gradient; zero at padding."""
    if pattern is not None:
        chain, row = pattern.owners()
        return total[chain, row, pattern.indices]
    real = torch.arange(rows.num_states, device=total.device) < rows.sizes.unsqueeze(1)
    return total.masked_fill(~(real.unsqueeze(2) & real.unsqueeze(1)), 0.0)
