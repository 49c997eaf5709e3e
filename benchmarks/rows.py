"""The problems of the speed table, each made by one small seeded function."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Task:
    """One pair of chains: dense transition rows (zeros where sparse), uniform initial laws, and a cost."""

    rows_x: Tensor
    rows_y: Tensor
    cost: Tensor
    delta: float
    epsilon: float
    sparse_x: bool
    sparse_y: bool

    @property
    def range(self) -> float:
        return float(self.cost.max() - self.cost.min()) or 1.0


@dataclass(frozen=True)
class Row:
    """One line of the table: seconds and GiB. `rival` is about what the rival takes, None where it cannot."""

    title: str
    tasks: Callable[[], list[Task]]
    reach: float
    aim: float | None
    repeats: int
    rival: float | None
    rival_tasks: int = 1
    rival_note: str = ""
    memory: float | None = None


def sparse_rows(rng: np.random.Generator, n: int, degree: int) -> Tensor:
    rows = np.zeros((n, n))
    for i in range(n):
        rows[i, rng.choice(n, degree, replace=False)] = rng.uniform(0.1, 1.0, degree)
    return torch.from_numpy(rows / rows.sum(1, keepdims=True))


def dense_rows(rng: np.random.Generator, n: int) -> Tensor:
    rows = rng.uniform(0.0, 1.0, (n, n))
    return torch.from_numpy(rows / rows.sum(1, keepdims=True))


def feature_cost(rng: np.random.Generator, n: int, m: int) -> Tensor:
    """Squared Euclidean distances of ten normal features."""
    x, y = rng.normal(size=(n, 1, 10)), rng.normal(size=(1, m, 10))
    return torch.from_numpy(((x - y) ** 2).sum(-1))


def sparse_pair(n: int) -> list[Task]:
    rng = np.random.default_rng(n)
    x, y = sparse_rows(rng, n, 3), sparse_rows(rng, n, 4)
    return [Task(x, y, feature_cost(rng, n, n), 0.1, 0.01, sparse_x=True, sparse_y=True)]


def dense_pair(n: int) -> list[Task]:
    rng = np.random.default_rng(n)
    x, y, cost = dense_rows(rng, n), dense_rows(rng, n), torch.from_numpy(rng.uniform(0.0, 1.0, (n, n)))
    return [Task(x, y, cost, 0.1, 0.05, sparse_x=False, sparse_y=False)]


def mixed_pair(n: int, m: int) -> list[Task]:
    rng = np.random.default_rng(n + m)
    x, y = dense_rows(rng, n), sparse_rows(rng, m, 5)
    return [Task(x, y, feature_cost(rng, n, m), 0.1, 0.01, sparse_x=False, sparse_y=True)]


def mutag_pairs(count: int = 200) -> list[Task]:
    """Random pairs of molecules: laziness .1, uniform initial laws, cost 1 between different atoms."""
    from markovot.datasets import load_mutag

    chains = load_mutag(laziness=0.1).chains
    pairs = np.random.default_rng(0).integers(0, len(chains), (count, 2))
    tasks = []
    for x, y in ((chains[i], chains[j]) for i, j in pairs):
        cost = (x.features[:, None] != y.features[None, :]).double()
        rows = (x.to_dense().transition, y.to_dense().transition)
        tasks.append(Task(*rows, cost, 0.2, 0.01, sparse_x=True, sparse_y=True))
    return tasks


def adjacency(rows: Tensor) -> np.ndarray:
    """The graph under a lazy random walk, for rivals that take graphs."""
    edges = (rows > 0).double()
    return edges.fill_diagonal_(0.0).numpy()


DENSE_ARRAY = "not run: one array of n m n m floats is 17 GB"

ROWS = {
    "mutag": Row("MUTAG, mean of 200 random pairs", mutag_pairs, 2e-3, 1e-3, 3, 2.0, rival_tasks=8),
    "sparse-64": Row("sparse 3 against 4, n = m = 64", lambda: sparse_pair(64), 0.08, 0.035, 5, 2.7),
    "sparse-256": Row("sparse 3 against 4, n = m = 256", lambda: sparse_pair(256), 1.0, 0.4, 3, 42.0),
    "sparse-1024": Row(
        "sparse 3 against 4, n = m = 1024",
        lambda: sparse_pair(1024), 16.0, 6.0, 1, None, rival_note="not tried", memory=1.0,
    ),
    "dense-64": Row("dense, n = m = 64", lambda: dense_pair(64), 0.3, 0.15, 3, 64.0),
    "dense-256": Row(
        "dense, n = m = 256",
        lambda: dense_pair(256), float("inf"), 60.0, 1, None, rival_note=DENSE_ARRAY, memory=4.0,
    ),
    "mixed": Row("dense n = 20 against sparse m = 64", lambda: mixed_pair(20, 64), 0.1, 0.05, 5, 45.0),
}  # fmt: skip
