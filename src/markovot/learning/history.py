"""What happened at each step of a training."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from markovot._arrays import FloatArray, IntArray


@dataclass(frozen=True, eq=False, repr=False)
class History:
    """The steps of a training, in their order.

    Where several problems were trained side by side, `value`, `error_bound` and `num_iter` have a second dimension, one
    column for each.

    Attributes:
        value: the objective before the step, in its own units, (steps,) or (steps, problems).
        error_bound: the largest certified error of the distances in the objective, in units of the cost; NaN where the
            objective returns no solution.
        num_iter: the largest number of iterations that a solve took; 0 where there is no solution.
        seconds: how long the step took, (steps,).

    Example:
        >>> history = History(np.array([0.5, 0.3, 0.4]), np.full(3, 1e-5), np.ones(3, np.int64), np.full(3, 0.002))
        >>> history
        History(3 steps, from 0.5 to 0.3 at step 1)
    """

    value: FloatArray
    error_bound: FloatArray
    num_iter: IntArray
    seconds: FloatArray

    def __len__(self) -> int:
        return len(self.value)

    @property
    def best_step(self) -> Any:
        """The step, counted from 0, with the smallest value: a number, or one for each problem, (problems,)."""
        if not len(self):
            raise ValueError("history: it has no steps, and so no best one.")
        found = self.value.argmin(0)
        return found if found.ndim else int(found)

    @property
    def best(self) -> Any:
        """The smallest value: a number, or one for each problem, (problems,)."""
        found = self.value.min(0, initial=np.inf)
        return found if found.ndim else float(found)

    def __repr__(self) -> str:
        if not len(self):
            return "History(0 steps)"
        steps = f"{len(self)} step{'s' * (len(self) != 1)}"
        if self.value.ndim == 1:
            return f"History({steps}, from {self.value[0]:.4g} to {self.best:.4g} at step {self.best_step})"
        return f"History({steps} of {self.value.shape[1]} problems, the best {self.best.min():.4g})"
