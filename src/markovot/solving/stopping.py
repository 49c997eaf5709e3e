"""When an iteration ends: one rule for every loop in Python. `compiled.policy` has the same rule in compiled code."""

import torch
from torch import Tensor

from markovot.solution import Status
from markovot.transport.forcing import PATIENCE, PROGRESS


class Stopping:
    """Counts the sweeps of each item of a batch, and tells which items go on.

    An item ends when its certified error meets the tolerance, when it has used all its sweeps, when the error has
    stopped falling, which is where rounding takes over, or when it is not finite.

    Args:
        tolerance: wanted certified error, (P,).
        max_iter: the most sweeps.
        polish: take one more step past the tolerance: derivatives are only as accurate as the solution.
        spare: leave that step out where the error is within this share of the tolerance; None: never.
    """

    def __init__(self, tolerance: Tensor, max_iter: int, *, polish: bool = False, spare: float | None = None) -> None:
        self.tolerance, self.max_iter = tolerance, max_iter
        self.num_iter = torch.zeros(len(tolerance), dtype=torch.int64, device=tolerance.device)
        self.met = torch.zeros_like(self.num_iter, dtype=torch.bool)
        self.active = torch.ones_like(self.met)
        self._polished = torch.zeros_like(self.met) if polish else torch.ones_like(self.met)
        self._spare = spare
        self._best = torch.full_like(tolerance, torch.inf)
        self._stale = torch.zeros_like(self.num_iter)

    def update(self, radius: Tensor) -> bool:
        """Record a sweep of the active items, and all certified errors (P,). Returns whether some items go on."""
        self.num_iter = self.num_iter + self.active
        self._stale = torch.where(radius < PROGRESS * self._best, 0, self._stale + 1)
        self._best = torch.minimum(self._best, radius)
        self._polished = self._polished | (self.met & self.active)
        if self._spare is not None:
            self._polished = self._polished | (radius <= self._spare * self.tolerance)
        self.met = self.met | (radius <= self.tolerance)
        within = (self.num_iter < self.max_iter) & (self._stale < PATIENCE) & radius.isfinite()
        self.active = self.active & ~(self.met & self._polished) & within
        return bool(self.active.any())

    def excuse(self, items: Tensor) -> None:
        """For these items, bool (P,), count sweeps without progress from zero again: they improve in another way."""
        self._stale = torch.where(items, 0, self._stale)

    def status(self, radius: Tensor) -> list[Status]:
        """How each item ended, given its certified error `radius`, (P,)."""
        return Status.each(radius, self.tolerance, self.num_iter >= self.max_iter)
