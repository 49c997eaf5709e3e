"""A step of training, by ours and by the rival: the same chain made of the same parameters, and the same optimiser.

The paper's coarsening: 15 dense states with features learn to be near to a directed ring of 30 sparse ones. A step is
the chain from its parameters, one distance, its gradient in the rows and the features (through the cost), and a step
of Adam. Each package solves in the precision it works in: ours in double, ot-markov-distances in single.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from suite import cases

DELTA, EPSILON, RATE = 0.5, 0.05, 5e-3
RTOL = 1e-4  # asked of ours, and of the rival's tight settings: an error of this share of the range of the cost
RANGE = 3.0  # about the largest cost: features lie on the unit circle, or near it
DEFAULTS: dict[str, Any] = {}
# A step between iterates of RTOL RANGE delta promises that error; see suite.solvers.
TIGHT = {
    "max_iter": 1000,
    "sinkhorn_iter": 1000,
    "convergence_threshold_rtol": 0.0,
    "convergence_threshold_atol": RTOL * RANGE * DELTA,
}


def ring(size: int) -> tuple[Tensor, Tensor]:
    """The rows of a directed ring, and its places on the circle."""
    angle = torch.arange(size, dtype=torch.float64) * (2 * np.pi / size)
    return torch.eye(size, dtype=torch.float64).roll(1, 1), torch.stack([angle.cos(), angle.sin()], 1)


@dataclass
class Task:
    """The target makes `large / small` steps of the ring at a time, as many as the small chain's one stands for."""

    small: int = 15
    large: int = 30
    seed: int = 0
    target: Tensor = field(init=False)
    places: Tensor = field(init=False)

    def __post_init__(self) -> None:
        rows, self.places = ring(self.large)
        self.target = torch.linalg.matrix_power(rows, self.large // self.small)

    def parameters(self, dtype: torch.dtype) -> tuple[nn.Parameter, nn.Parameter]:
        """Logits of the rows near one move, so that the training has something to mend, and places near the ring's."""
        rng = np.random.default_rng(self.seed)
        rows, places = ring(self.small)
        logits = (rows + 0.1).log() + torch.from_numpy(rng.normal(size=rows.shape)) * 0.3
        places = places + torch.from_numpy(rng.normal(size=places.shape)) * 0.1
        return nn.Parameter(logits.to(dtype)), nn.Parameter(places.to(dtype))


Value = Callable[[Tensor, Tensor], Tensor]


def ours(task: Task, rtol: float = RTOL) -> Value:
    from scipy.sparse import csr_array

    from markovot import MarkovChain, costs, discounted_wl

    target = MarkovChain.from_transitions(csr_array(task.target.numpy()), initial="uniform", features=task.places)
    accuracy = {"rtol": rtol}

    def value(rows: Tensor, places: Tensor) -> Tensor:
        chain = MarkovChain(rows, initial="uniform", features=places)
        return discounted_wl(chain, target, costs.Euclidean(), delta=DELTA, epsilon=EPSILON, **accuracy).value

    return value


def rivals(task: Task, options: dict[str, Any]) -> Value:
    from ot_markov_distances import discounted_wl_infty

    target, places_y = task.target.float()[None], task.places.float()
    laws = [torch.full((1, size), 1.0 / size) for size in (task.small, task.large)]

    def value(rows: Tensor, places: Tensor) -> Tensor:
        cost = torch.linalg.vector_norm(places[:, None] - places_y[None], dim=-1)
        return discounted_wl_infty(
            rows[None], target, cost[None], *laws, delta=DELTA, sinkhorn_reg=EPSILON, **options
        ).sum()

    return value


class Training:
    """One package at the task."""

    def __init__(self, package: str, task: Task) -> None:
        mine = package == cases.OURS
        self.value = ours(task) if mine else rivals(task, TIGHT if package == cases.TIGHT else DEFAULTS)
        self.logits, self.places = task.parameters(torch.float64 if mine else torch.float32)
        self.optimiser = torch.optim.Adam([self.logits, self.places], lr=RATE)
        self.values: list[float] = []
        self.seconds: list[float] = []

    def step(self) -> None:
        start = time.perf_counter()
        self.optimiser.zero_grad()
        value = self.value(self.logits.softmax(-1), self.places)
        value.backward()
        self.optimiser.step()
        self.seconds.append(time.perf_counter() - start)
        self.values.append(float(value.detach()))

    def state(self) -> tuple[Tensor, Tensor]:
        """Rows and places, in double precision, rows that sum to one in it."""
        return self.logits.detach().double().softmax(-1), self.places.detach().double()


def measured(packages: list[str], steps: int) -> dict[str, Any]:
    """What `side_by_side` finds after a short run that compiles; `seconds` is the time of a step of ours."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two cost more than they bring in matrices as small as these, and on a busy machine a lot
    try:
        side_by_side(packages, 2, Task())
        found = side_by_side(packages, steps, Task())
    finally:
        torch.set_num_threads(threads)
    return {"trainings": found, "steps": float(steps), "seconds": found[cases.OURS]["median_ms"] / 1e3}


def side_by_side(packages: list[str], steps: int, task: Task) -> dict[str, dict[str, float]]:
    """All of them in one process, step by step in turn, so that what else the machine does falls on all alike.

    `error of the value`: of the first one, where all have the same parameters, relative; `ends at` is the value that
    ours certifies of the trained chain, whoever trained it.
    """
    torch.manual_seed(0)  # the rival starts each solve from random potentials
    certain = ours(task, 1e-10)
    trainings = {package: Training(package, task) for package in packages}
    first = float(certain(*next(iter(trainings.values())).state()))
    for _ in range(steps):
        for training in trainings.values():
            training.step()
    return {
        package: {
            "median_ms": 1e3 * float(np.median(training.seconds)),
            "total_s": sum(training.seconds),
            "error of the value": abs(training.values[0] - first) / first,
            "starts at": first,
            "ends at": float(certain(*training.state())),
        }
        for package, training in trainings.items()
    }
