"""What every engine of local transport problems can do."""

from typing import Protocol

from torch import Tensor

from markovot.transport.linear import Linear
from markovot.transport.rows import Rows


class Engine(Protocol):
    """All local transport problems of P pairs of chains that share, in each pair, one cost (P, n, m).

    `sweep` solves them and freezes their plans; the other methods use these. Items that are not active keep theirs, and
    what is given for them is not read. Before the first sweep `apply`, and `solve` without `transpose`, use the
    independent couplings as plans; the other methods need a sweep. `solves_whole` says whether the engine has the whole
    loop in compiled code.
    """

    solves_whole: bool
    has_threads: bool

    def warm_start(self, other: "Engine") -> None:
        """Start from the results of an engine that solved problems of the same shape."""

    def sweep(self, cost: Tensor, gap: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds of all local values (P, n, m), `gap` (P,) apart, for the active items."""

    def policy_iteration(
        self,
        ground: Tensor,
        discount: Tensor,
        tolerance: Tensor,
        scale: Tensor,
        start: Tensor | None,
        *,
        polish: bool,
        max_iter: int,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Run the whole loop of `fixed_point.iterate`, if `solves_whole`. Returns where it ended, and C."""

    def apply(self, v: Tensor, active: Tensor) -> Tensor:
        """P v, (P, n, m), for the active items."""

    def apply_transpose(self, v: Tensor, active: Tensor) -> Tensor:
        """P^T v, (P, n, m), for the active items."""

    def solve(
        self, rhs: Tensor, discount: Tensor, tolerance: Tensor, active: Tensor, *, transpose: bool, max_iter: int
    ) -> Linear:
        """The x of `(I - (1 - delta) P) x = rhs`, or of its transpose, for the active items."""

    def kl(self) -> Tensor:
        """KL(pi_ij | A_i x B_j) of all plans, (P, n, m)."""

    def gradient_x(self, weights: Tensor, pattern: Rows | None) -> Tensor:
        """`sum_j weights_ij f_ij` for the rows of the chains X, at the pattern's entries (None: all; 0 at padding)."""

    def gradient_y(self, weights: Tensor, pattern: Rows | None) -> Tensor:
        """`sum_i weights_ij g_ij` for the rows of the chains Y, at the pattern's entries (None: all; 0 at padding)."""

    def couplings(self, item: int) -> tuple[Tensor, Tensor, Tensor]:
        """All plans of an item: rows i*m+j, columns k*m+l, and the masses there."""
