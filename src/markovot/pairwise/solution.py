"""The solution for the distances of a whole data set."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from markovot.solution import Certified, SolveError, Status

# Statuses as small numbers, the worst last. A distance made of several solves has the worst of their statuses.
STATUSES = tuple(Status)
INVALID = STATUSES.index(Status.INVALID)
_SHOWN = 5


class Table:
    """Collects the results of pairs. Entries without a result yet are NaN, with the status invalid.

    Args:
        shape: of the arrays.
    """

    def __init__(self, *shape: int) -> None:
        self.value = np.full(shape, np.nan)
        self.error_bound = np.full(shape, np.nan)
        self.status = np.full(shape, INVALID, dtype=np.uint8)
        self.num_iter = np.zeros(shape, dtype=np.int32)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return iter((self.value, self.error_bound, self.status, self.num_iter))

    def put(self, where: tuple[NDArray[np.int64], ...], found: Iterable[NDArray[Any]]) -> None:
        """Write results to places."""
        for part, values in zip(self, found, strict=True):
            part[where] = values


@dataclass(frozen=True, eq=False, repr=False)
class PairwiseSolution(Certified):
    """A distance matrix with its certificates, in NumPy; not differentiable.

    Attributes:
        value: distances (k, l), in units of the cost; NaN where a chain or a cost was invalid.
        error_bound: certified error of each distance (k, l): the true one lies within it of `value`.
        status: a `Status` for each pair, an object array (k, l).
        num_iter: sweeps that each pair took (k, l); of a debiased distance, those for the pair itself.
        symmetric: whether rows and columns are the same chains.
        invalid: why chains could not be used: "chains" or "others" and the number of the chain, and the reason.
    """

    value: NDArray[np.float64]
    error_bound: NDArray[np.float64]
    status: NDArray[Any]
    num_iter: NDArray[np.int32]
    symmetric: bool = True
    invalid: dict[tuple[str, int], str] = field(default_factory=dict)

    _several: ClassVar[str] = "pairs"

    @property
    def converged(self) -> NDArray[np.bool_]:
        """Whether each pair met its tolerance, bool (k, l)."""
        return np.asarray(self.status == Status.CONVERGED)

    def raise_unless_converged(self, wanted: Any = None) -> None:
        """Raise one error for all chains that were invalid and all pairs that did not converge.

        Args:
            wanted: ignored.

        Raises:
            SolveError: there are such chains or pairs; its `solution` is this one.
        """
        problems = []
        if self.invalid:
            problems.append(named(self.invalid))
        wrong = ~self.converged
        wrong[[number for name, number in self.invalid if name == "chains"]] = False
        columns = "chains" if self.symmetric else "others"
        wrong[:, [number for name, number in self.invalid if name == columns]] = False
        if wrong.any():
            pairs = [(int(i), int(j)) for i, j in np.argwhere(wrong)[: _SHOWN + 1]]
            problems.append(
                f"{int(wrong.sum())} of {wrong.size} pairs were not solved: {_some([str(pair) for pair in pairs])}. "
                f"The first has a value of {self.value[pairs[0]]:.3g} and a certified error of "
                f"{self.error_bound[pairs[0]]:.3g}. {self.status[pairs[0]].value}"
            )
        raise_for(problems, self)


def raise_for(problems: list[str], solution: Certified) -> None:
    """Raise a `SolveError` for what went wrong with a part of a data set, if anything did."""
    if problems:
        raise SolveError(
            f"{' '.join(problems)} Everything else is finished, and in this error's `solution`; with throw=False it is "
            "returned.",
            solution,
        )


def named(invalid: dict[tuple[str, int], str]) -> str:
    """The invalid chains and their reasons, in words."""
    reasons = [f"{name}[{number}] ({reason})" for (name, number), reason in invalid.items()]
    return f"{len(reasons)} invalid, whose distances are NaN: {_some(reasons)}."


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
