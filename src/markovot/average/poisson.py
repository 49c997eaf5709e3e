r"""The Poisson equation of a coupled chain: its long-run mean cost, and what each first pair adds to the total cost.

Let P be the chain on pairs of states whose rows are an engine's plans, and r a cost of each pair. We want g and x with

    (I - P) x = r - g,          g constant on each joint class (see `recurrence`),

the gain and the bias of P. With w the uniform law on a recurrent class R of P, and lambda its stationary law,

    (I - P + 1 w^T) z = r  on R      has one solution, and      x = z - g,   g = w^T z,      since lambda (I - P) = 0:

which is well conditioned where P mixes within R, whatever the period of P. On transient pairs
`x - P x = r - g`, with x given on R, has one solution too. The stationary law solves `(I - P + 1 w^T)^T lambda = w`.

**Several recurrent classes.** At epsilon = 0 a plan has few entries, and P may well have several recurrent classes in a
joint class, with different gains. Still, the least gain is within reach of every pair of a joint class, since the
independent coupling leads everywhere. So the classes of least gain are kept. Pairs from which P may reach another class
are coupled independently instead, until they surely end in a kept class. This is the policy iteration of Puterman
(1994, section 9.5) for communicating decision processes, which always ends, since the gain then falls. Where all
classes have the same gain, x has mean zero on each: their biases stay as far apart as they were, and the bias falls.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from markovot.average.operators import Factors, Independent, Sets
from markovot.average.recurrence import ancestors
from markovot.chains.classes import closed_classes
from markovot.solution import SolveError
from markovot.transport.engine import Engine
from markovot.transport.linear import Linear, bicgstab

# Masses below this are rounding of the simplex method, and do not count as arcs of the coupled chain.
ROUNDING = 1e-13
# A Krylov method that needs more steps than this is stopped: a factorisation may be faster.
KRYLOV_STEPS = 300
# Then systems are factorised, if they have at most so many pairs; or, with any number of pairs, if P has so few entries
# in each row that it almost permutes the pairs, which leaves the factors sparse.
FACTORISED, FEW_ENTRIES = 4096, 1.5
# Systems of so few pairs are factorised at once: steps of a Krylov method cost more in Python than in arithmetic.
SMALL = 512
# The stationary law is solved to the first residual (a sum of moduli), and refused if it exceeds the second.
LAW_TOLERANCE, LAW_LIMIT = 1e-13, 1e-8
Product = Callable[[Tensor], Tensor]


def krylov(product: Product, rhs: Tensor, tolerance: Tensor, max_iter: int, *, transpose: bool = False) -> Linear:
    """The x of `x - product(x) = rhs`, (1, n, m), as accurate as a Krylov method gets it."""
    active = torch.ones_like(tolerance, dtype=torch.bool)
    return bicgstab(
        lambda v, _: product(v), rhs, torch.zeros_like(tolerance), tolerance, active, transpose=transpose,
        max_iter=max_iter,
    )  # fmt: skip


def independent_bias(independent: Independent, joint: Sets, cost: Tensor, tolerance: Tensor, max_iter: int) -> Tensor:
    """The bias of the independent coupling for a cost (1, n, m), roughly solved; the cost itself where that fails."""
    found = krylov(lambda v: independent(v) - joint.spread(joint.mean(v)), cost, tolerance, max_iter)
    if not bool(found.residual[0] <= cost.abs().amax()):
        return cost
    return found.x - joint.spread(joint.mean(found.x))


class CoupledChain:
    """The chain on pairs of states whose rows are the plans of an engine with one item.

    Args:
        engine: holds the plans, of its last sweep.
        independent: the independent coupling of the same chains.
        joint: the joint classes.
        exact: whether transport is exact. Then plans have many zeros, and a joint class may have several recurrent
            classes.
    """

    def __init__(self, engine: Engine, independent: Independent, joint: Sets, *, exact: bool) -> None:
        self.joint = joint
        self.engine = engine
        self._independent = independent
        self.exact = exact
        self._active = torch.ones(1, dtype=torch.bool, device=joint.labels.device)
        self._matrix: Any = None
        self._recurrent: Sets | None = None

    def forget(self) -> None:
        """Forget what was computed from the plans: call this after each sweep, which changes them."""
        self._matrix = self._recurrent = None

    @property
    def matrix(self) -> Any:
        """P as a SciPy sparse array (nm, nm), without masses that are only rounding."""
        if self._matrix is None:
            from scipy.sparse import csr_array

            row, column, mass = (part.cpu().numpy() for part in self.engine.couplings(0))
            kept = mass > ROUNDING
            if not kept.all():
                row, column, mass = row[kept], column[kept], mass[kept]
            if (row[1:] < row[:-1]).any():
                order = np.argsort(row, kind="stable")
                row, column, mass = row[order], column[order], mass[order]
            size = self.joint.labels.numel()
            indptr = np.append(0, np.cumsum(np.bincount(row, minlength=size)))
            found = csr_array((mass, column.astype(np.int32), indptr.astype(np.int32)), shape=(size, size))
            if size > FACTORISED:
                return found  # it may take gigabytes, and is seldom asked for again
            self._matrix = found
        return self._matrix

    @property
    def recurrent(self) -> Sets:
        """The recurrent classes of P. Entropic plans have no zeros, so for them these are the joint classes."""
        if not self.exact:
            return self.joint
        if self._recurrent is None:
            labels = closed_classes(self.matrix)
            self._recurrent = Sets(torch.from_numpy(labels).view_as(self.joint.labels))
        return self._recurrent

    def _owner(self, recurrent: Sets) -> Tensor:
        """The joint class in which each recurrent class lies, (count,)."""
        return recurrent.mean(self.joint.labels[None].double()).round().long()

    # --- gain and bias
    def evaluate(self, cost: Tensor, tolerance: Tensor, tie: Tensor) -> tuple[Tensor, bool]:
        """The bias x, and whether it was found.

        Args:
            cost: r, (1, n, m).
            tolerance: wanted residual in the maximum norm, (1,).
            tie: gains that differ by no more than this count as equal, (1,).
        """
        recurrent = self.recurrent
        z, solved = self._within(recurrent, cost, tolerance)
        gains = recurrent.mean(z)
        owner = self._owner(recurrent)
        least = gains.new_full((self.joint.count,), torch.inf).scatter_reduce_(0, owner, gains, "amin")
        x = z - recurrent.spread(gains)
        worse = gains > least[owner] + tie
        outside = ~recurrent.inside
        astray: Tensor | None = None
        if bool(worse.any()):
            dropped = recurrent.spread(worse.double())[0] > 0
            astray = torch.from_numpy(ancestors(self.matrix, dropped.reshape(-1).numpy())).view_as(dropped)
            outside = outside | dropped
        if bool(outside.any()):
            boundary = torch.where(outside, cost - self.joint.spread(least), x)
            x, reached = self._outside(outside, astray, boundary, tolerance)
            solved = solved and reached
        return x, solved and bool(x.isfinite().all())

    def resolvent(self, cost: Tensor, stop: float, tolerance: Tensor) -> Tensor:
        """The total cost until P stops, which it does with probability `stop` at every step, (1, n, m)."""

        def product(v: Tensor) -> Tensor:
            return (1 - stop) * self.engine.apply(v, self._active)

        return self._solve(product, cost, tolerance, lambda: self._factors(self.joint.inside, None, keep=1 - stop))[0]

    def _within(self, recurrent: Sets, cost: Tensor, tolerance: Tensor) -> tuple[Tensor, bool]:
        """Solve for z on the recurrent pairs; z is zero elsewhere. Returns z, and whether it was found."""

        def product(v: Tensor) -> Tensor:
            return self.engine.apply(v, self._active) * recurrent.inside - recurrent.spread(recurrent.mean(v))

        rhs = torch.where(recurrent.inside, cost, 0.0)
        return self._solve(product, rhs, tolerance, lambda: self._factors(recurrent.inside, recurrent))

    def _outside(
        self, outside: Tensor, astray: Tensor | None, boundary: Tensor, tolerance: Tensor
    ) -> tuple[Tensor, bool]:
        """Solve for x on the pairs `outside`; elsewhere x is `boundary`. Pairs `astray` are coupled independently."""

        def product(v: Tensor) -> Tensor:
            ahead = self.engine.apply(v, self._active)
            if astray is not None:
                ahead = torch.where(astray, self._independent(v), ahead)
            return torch.where(outside, ahead, 0.0)

        return self._solve(product, boundary, tolerance, lambda: self._factors(outside, None, astray))

    # --- the stationary law
    def stationary_law(self, joint_class: int) -> Tensor:
        """The stationary law of P on one recurrent class of a joint class, the largest (the first of these), (1, n, m).

        Raises:
            RuntimeError: it was not found.
        """
        recurrent = self.recurrent
        owner = self._owner(recurrent)
        chosen = recurrent.only(int(torch.where(owner == joint_class, recurrent.sizes, -1).argmax()))
        uniform = chosen.inside[None].double() / chosen.sizes

        def product(v: Tensor) -> Tensor:
            return self.engine.apply_transpose(v, self._active) * chosen.inside - uniform * v.sum()

        tolerance = uniform.new_full((1,), LAW_TOLERANCE)
        law, _ = self._solve(product, uniform, tolerance, lambda: self._factors(chosen.inside, chosen), transpose=True)
        law = law.clamp(min=0.0) * chosen.inside
        law = law / law.sum()
        left = float((self.engine.apply_transpose(law, self._active) - law).abs().sum())
        if not left <= LAW_LIMIT:
            raise SolveError(
                f"the stationary law of the coupled chain was not found: a step changes it by {left:.3g}. The coupled "
                "chain mixes very slowly; a larger epsilon, or laziness in the chains, makes it mix faster.",
                None,
            )
        return law

    # --- linear systems
    def _solve(
        self, product: Product, rhs: Tensor, tolerance: Tensor, factors: Callable[[], Factors | None],
        *, transpose: bool = False,
    ) -> tuple[Tensor, bool]:  # fmt: skip
        """The x of `x - product(x) = rhs`, and whether it was found; residuals are measured as in `linear`."""
        direct = factors() if rhs.numel() <= SMALL else None
        if direct is None:
            found = krylov(product, rhs, tolerance, KRYLOV_STEPS, transpose=transpose)
            if bool(found.residual[0] <= tolerance[0]):
                return found.x, True
            direct = factors() if rhs.numel() > SMALL else None
            if direct is None:
                return found.x, False
        x = direct.solve(rhs, transpose=transpose)
        return x, bool(x.isfinite().all())

    def _factors(
        self, chosen: Tensor, sets: Sets | None, astray: Tensor | None = None, keep: float = 1.0
    ) -> Factors | None:
        """Factors of the system with the chosen rows of P; pairs `astray` have rows of the independent coupling."""
        from scipy.sparse import diags_array

        size = chosen.numel()
        if size > FACTORISED and not (self.exact and self.matrix.nnz <= FEW_ENTRIES * size):
            return None
        rows = keep * chosen.reshape(-1).cpu().numpy()
        chain = self.matrix if (rows == 1).all() else diags_array(rows) @ self.matrix
        if astray is not None:
            lost, independent = astray.reshape(-1).numpy(), self._independent.matrix()
            if independent is None:
                return None
            chain = diags_array(rows * ~lost) @ self.matrix + diags_array(rows * lost) @ independent
        try:
            return Factors(chain, sets)
        except RuntimeError:  # singular in floating point: some sets are almost never left
            return None
