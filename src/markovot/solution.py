"""What every solver returns, and how it fails."""

import enum
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from markovot.autograd.copying import Copyable
from markovot.autograd.transforms import plain

_SHOWN = 4  # up to so many values are written out


class Status(enum.Enum):
    """How the solve of an item ended. The worst status is the last; the value of each is its message."""

    CONVERGED = "The certified error meets the tolerance."
    MAX_ITER_REACHED = (
        "The solver used all its iterations before the certified error met the tolerance. Raise `max_iter`, or ask for "
        "less with a larger `rtol`."
    )
    STALLED = (
        "The certified error stopped falling before it met the tolerance, which happens where rounding takes over. Ask "
        "for less with a larger `rtol`, or raise `epsilon`; float32 inputs are solved in float64 already."
    )
    NOT_FINITE = (
        "The computation left the range of floating point numbers. Check the size of the costs, and scale cost and "
        "epsilon by the same factor (the value scales with it)."
    )
    INVALID = (
        "One of the chains, or a cost between their states, is not valid, and there is no distance. The result names "
        "the chains and the reasons; costs must be finite."
    )

    @classmethod
    def of(cls, reached: float, wanted: float, *, exhausted: bool = False) -> "Status":
        """The status of a solve, from its certified error and the wanted one; `exhausted`: it used all its steps."""
        if not math.isfinite(reached - wanted):
            return cls.NOT_FINITE
        if reached <= wanted:
            return cls.CONVERGED
        return cls.MAX_ITER_REACHED if exhausted else cls.STALLED

    @classmethod
    def each(cls, reached: Tensor, wanted: Tensor, exhausted: Tensor | None = None) -> list["Status"]:
        """The same for each item of a batch, (P,)."""
        used = [False] * len(reached) if exhausted is None else exhausted.tolist()
        return [
            cls.of(error, goal, exhausted=all_used)
            for error, goal, all_used in zip(reached.tolist(), wanted.tolist(), used, strict=True)
        ]


class SolveError(RuntimeError):
    """Some item was not solved to its tolerance; `solution` holds what was computed (None: in a backward pass)."""

    def __init__(self, message: str, solution: Any) -> None:
        super().__init__(message)
        self.solution = solution

    def __reduce__(self) -> tuple[Any, ...]:
        return SolveError, (self.args[0], self.solution)


@dataclass(frozen=True, eq=False, repr=False)
class Certified(Copyable):
    """What every solver returns: values, each with a certified error and a status.

    Copies by `copy.deepcopy` and `pickle` hold the same numbers, detached from what they were computed from.

    Attributes:
        value: the results, in units of the cost.
        error_bound: certified: the true value lies within it of `value`.
        status: how each solve ended, a `Status` or an array of them.
        num_iter: how many iterations each took.
    """

    value: Any
    error_bound: Any
    status: Any
    num_iter: Any

    _several: ClassVar[str] = "batch"  # the word for many values in `print`
    _one: ClassVar[str] = "the problem"  # the words for a single one in errors

    def __repr__(self) -> str:
        return _in_short(self, self._several)

    def __float__(self) -> float:
        if self.value.ndim:
            raise TypeError(
                f"float(): the solution is of a batch of shape {tuple(self.value.shape)}, whose values are in `value`."
            )
        return float(self.value.detach())

    @property
    def converged(self) -> Any:
        """Whether each solve met its tolerance, bool, of the shape of `status`."""
        flags = np.vectorize(lambda status: status is Status.CONVERGED, otypes=[bool])(self.status)
        return torch.as_tensor(np.asarray(flags), device="cpu")

    def raise_unless_converged(self, wanted: Any = None) -> None:
        """Raise a `SolveError` that names the items that did not converge, their bounds, and the repair.

        Args:
            wanted: the error bound that each item was to meet, of the shape of `status`, in units of the cost.

        Raises:
            SolveError: some item did not converge.
        """
        shape = np.shape(self.status)
        failed = [index for index in np.ndindex(shape) if _at(self.status, index) is not Status.CONVERGED]
        if not failed:
            return
        first = failed[0]
        shown = ", ".join(str(index if len(index) != 1 else index[0]) for index in failed[:5])
        which = (
            f"item {shown}"
            if len(failed) == 1
            else f"{len(failed)} items ({shown}{', ...' if len(failed) > 5 else ''})"
        )
        goal = "" if wanted is None else f", wanted {float(_at(wanted, first)):.3g}"
        raise SolveError(
            f"{which if shape else self._one} did not converge: after {int(_at(self.num_iter, first))} iterations the "
            f"certified error is {float(_at(self.error_bound, first)):.3g}{goal}. "
            f"{_at(self.status, first).value} With throw=False the result is returned as it is.",
            self,
        )


def _at(values: Any, index: tuple[int, ...]) -> Any:
    return values[index] if index else values


def _in_short(solution: Any, what: str) -> str:
    """The text that `print` shows for a solution with `value`, `error_bound` and `status`, of any number of values."""
    values, bounds = (_array(part) for part in (solution.value, solution.error_bound))
    worst = bounds[~np.isnan(bounds)].max(initial=0.0) if bounds.ndim else bounds  # NaN: no value, so no error
    parts = [f"{_numbers(values)}; error_bound {'at most ' if bounds.ndim else ''}{worst:.2g}"]
    found = np.asarray(solution.status, dtype=object)
    counts = {status.name: int((found == status).sum()) for status in Status}
    parts.append(", ".join(name if not found.ndim else f"{count} {name}" for name, count in counts.items() if count))
    steps = _array(solution.num_iter)
    low, high = (int(steps.min()), int(steps.max())) if steps.size else (0, 0)
    parts.append(f"{low if low == high else f'{low} to {high}'} iteration{'s' * (high != 1)}")
    shape = f" {what} {values.shape}" if values.ndim else ""
    return f"{type(solution).__name__}({shape.lstrip()}{': ' * bool(shape)}{'; '.join(filter(None, parts))})"


def _array(part: Any) -> NDArray[np.float64]:
    return np.asarray(plain(part).double().cpu() if isinstance(part, Tensor) else part, dtype=np.float64)


def _numbers(values: NDArray[np.float64]) -> str:
    """A few values as they are; for many values, their range and mean."""
    known = values[np.isfinite(values)]
    missing = f", {values.size - known.size} not finite" if known.size < values.size else ""
    if values.size <= _SHOWN:
        return f"value{'s' * (values.size != 1)} {', '.join(f'{value:.6g}' for value in values.flat) or 'none'}"
    if not known.size:
        return f"{values.size} values, none of them finite"
    return f"{values.size} values from {known.min():.6g} to {known.max():.6g}, mean {known.mean():.6g}{missing}"


@dataclass(frozen=True, eq=False, repr=False)
class Solution(Certified):
    """A transport value with its certificate. Leading dimensions are those of the batch.

    Attributes:
        value: the optimal value, in units of the cost (*batch); differentiable.
        error_bound: certified: the true value lies within it of `value` (*batch).
        status: a `Status`, or for a batch an array of them.
        num_iter: iterations of the solver, a tensor (*batch).
        plan: the optimal coupling of the two laws (*batch, n, m): its rows sum to the one and its columns to the other,
            to within rounding. It is as near to the optimal one as `error_bound` says: its cost is.
        potentials: the dual potentials f (*batch, n) and g (*batch, m) of `plan`, defined up to a constant that is
            added to one and taken from the other.
    """

    value: Tensor
    error_bound: Tensor
    num_iter: Tensor
    plan: Tensor
    potentials: tuple[Tensor, Tensor]


class OfChains:
    """What all solutions share that couple two Markov chains step by step."""

    details: Any

    @property
    def chains(self) -> tuple[Any, Any]:
        """The two chains, or batches of chains, that were compared."""
        return self.details.chains

    def coupling(self, i: int, j: int) -> Tensor:
        """The optimal coupling of the rows `x[i]` and `y[j]`.

        Args:
            i: a state of x, counted from 0.
            j: a state of y.

        Returns:
            A dense tensor (n, m) with marginals `x[i]` and `y[j]`.

        Raises:
            ValueError: the solution is of a batch; `transition_coupling(item)` serves these.
            IndexError: no such states.
        """
        return self.details.coupling(i, j)

    def transition_coupling(self, item: int = 0) -> Any:
        """The optimal coupled chain on pairs of states: a SciPy sparse array (nm, nm) whose rows sum to one.

        Args:
            item: which item of a batch, counted in row-major order.

        Returns:
            A `scipy.sparse.csr_array`. Row `i * m + j` holds the coupling of `x[i]` and `y[j]`, column `k * m + l` the
            next pair. `.toarray()` makes it dense, with (nm)^2 entries.

        Raises:
            IndexError: no such item.
        """
        return self.details.transition_coupling(item)


@dataclass(frozen=True, eq=False, repr=False)
class ChainSolution(OfChains, Solution):
    """The distance of two Markov chains, with the optimal coupling behind it.

    Attributes:
        cost_to_go: C*, the distance from every pair of first states (*batch, n, m); differentiable.
        details: the data of the solve, and results that are computed on demand; for use within the package.
    """

    cost_to_go: Tensor
    details: Any

    @property
    def cost_to_go_error(self) -> Tensor:
        """Certified: every entry of `cost_to_go` lies within this of the true one (*batch), in units of the cost."""
        return self.details.cost_to_go_error

    @property
    def alignment(self) -> Tensor:
        """The discounted occupation of the optimally coupled chains, a probability on pairs of states (*batch, n, m).

        `delta K^-T pi_0` with `K = I - (1 - delta) P`: the law of (X_T, Y_T) at the random time T. It says how the
        states of X and Y correspond, and it is the gradient of the distance in the cost. Computed on first use by one
        linear solve.
        """
        return self.details.alignment()


@dataclass(frozen=True, eq=False, repr=False)
class HorizonSolution(ChainSolution):
    """The distance of two Markov chains at a random time T, with the optimal couplings behind it.

    Attributes:
        cost_to_go: C^(0), the distance from every pair of first states (*batch, n, m); differentiable.
    """

    @property
    def alignment(self) -> Tensor:
        """The law of (X_T, Y_T) for the optimally coupled chains, a probability on pairs of states (*batch, n, m).

        It says how the states of X and Y correspond, and it is the gradient of the distance in the cost. Computed on
        first use by one pass over the levels.
        """
        return self.details.alignment()

    def coupling(self, i: int, j: int, step: int = 0) -> Tensor:
        """The optimal coupling of the rows `x[i]` and `y[j]` at a step: it changes with the time that is left.

        Args:
            i: a state of x, counted from 0.
            j: a state of y.
            step: from time `step` to `step + 1`.

        Returns:
            A dense tensor (n, m) with marginals `x[i]` and `y[j]`.

        Raises:
            ValueError: the solution is of a batch; `transition_coupling(item)` serves these.
            IndexError: no such states; no such step.
        """
        return self.details.coupling(i, j, step)

    def transition_coupling(self, item: int = 0, step: int = 0) -> Any:
        """The optimal coupled chain on pairs of states at a step: a SciPy sparse array (nm, nm), rows summing to one.

        Args:
            item: which item of a batch, counted in row-major order.
            step: from time `step` to `step + 1`. From the last level of a law with a tail on, it stays the same.

        Returns:
            A `scipy.sparse.csr_array`. Row `i * m + j` holds the coupling of `x[i]` and `y[j]`, column `k * m + l` the
            next pair. Computed at each call, by one sweep over the local problems.

        Raises:
            IndexError: no such item; no such step.
        """
        return self.details.transition_coupling(item, step)


def rounded(value: Tensor, bound: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A value and its error bound, converted to a dtype; the error of the conversion is added to the bound.

    Args:
        value: (P,), or (P, *) with one bound for all that follows.
        bound: (P,).
        dtype: float32 or float64.
    """
    if dtype == torch.float64:
        return value, bound
    epsilon = torch.finfo(dtype).eps
    largest = value.detach().abs().reshape(len(bound), -1).amax(1)
    return value.to(dtype), ((1 + epsilon) * (bound + epsilon * largest)).to(dtype)


def statuses(found: list[Status], shape: torch.Size) -> Any:
    """A `Status` for a single problem, an object array for a batch."""
    if not len(shape):
        return found[0]
    array = np.empty(len(found), dtype=object)
    array[:] = found
    return array.reshape(shape)
