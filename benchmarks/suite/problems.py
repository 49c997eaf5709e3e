"""What is solved: seeded pairs of chains, and data sets. Each is made by one function of this file, named by a case."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

DATA = Path(os.environ.get("MARKOVOT_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")) / "graphs"


@dataclass(frozen=True)
class Task:
    """One pair of chains: dense transition rows (zeros where sparse), uniform initial laws, and a cost."""

    rows_x: Tensor
    rows_y: Tensor
    cost: Tensor
    delta: float = 0.0
    epsilon: float = 0.0
    sparse_x: bool = False
    sparse_y: bool = False

    @property
    def range(self) -> float:
        return float(self.cost.max() - self.cost.min()) or 1.0


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


def sparse_pair(n: int, epsilon: float = 0.01) -> list[Task]:
    """Rows of degree 3 against 4; the cost has a range of about 60."""
    rng = np.random.default_rng(n)
    x, y = sparse_rows(rng, n, 3), sparse_rows(rng, n, 4)
    return [Task(x, y, feature_cost(rng, n, n), 0.1, epsilon, sparse_x=True, sparse_y=True)]


def dense_pair(n: int) -> list[Task]:
    rng = np.random.default_rng(n)
    x, y, cost = dense_rows(rng, n), dense_rows(rng, n), torch.from_numpy(rng.uniform(0.0, 1.0, (n, n)))
    return [Task(x, y, cost, 0.1, 0.05, sparse_x=False, sparse_y=False)]


def mixed_pair(n: int, m: int) -> list[Task]:
    rng = np.random.default_rng(n + m)
    x, y = dense_rows(rng, n), sparse_rows(rng, m, 5)
    return [Task(x, y, feature_cost(rng, n, m), 0.1, 0.01, sparse_x=False, sparse_y=True)]


def unit_pair(n: int, degree: int = 4, delta: float = 0.1, epsilon: float = 0.01) -> list[Task]:
    """Rows of one degree and costs of range one, for the sweeps over degree, delta and epsilon."""
    rng = np.random.default_rng(1000 * n + degree)
    x, y, cost = sparse_rows(rng, n, degree), sparse_rows(rng, n, degree), feature_cost(rng, n, n)
    sparse = degree < n
    return [Task(x, y, cost / (cost.max() - cost.min()), delta, epsilon, sparse_x=sparse, sparse_y=sparse)]


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


def block_model(size: int, seed: int) -> np.ndarray:
    """Adjacency of a connected graph of four equal blocks: edges within with probability .9, between .1."""
    from scipy.sparse.csgraph import connected_components

    rng = np.random.default_rng(seed)
    block = np.arange(size) * 4 // size
    chance = np.where(block[:, None] == block, 0.9, 0.1)
    while True:
        upper = np.triu(rng.random((size, size)) < chance, 1)
        graph = (upper | upper.T).astype(float)
        if connected_components(graph)[0] == 1:
            return graph


def block_models(n: int) -> list[Task]:
    """Two of them, with squared differences of degrees for a cost: like those of pyotc's published times."""
    graphs = block_model(n, 2 * n), block_model(n, 2 * n + 1)
    degrees = [graph.sum(1) for graph in graphs]
    rows = [torch.from_numpy(graph / degree[:, None]) for graph, degree in zip(graphs, degrees, strict=True)]
    return [Task(rows[0], rows[1], torch.from_numpy(np.subtract.outer(*degrees) ** 2))]


def adjacency(rows: Tensor) -> np.ndarray:
    """The graph under a lazy random walk, for rivals that take graphs."""
    edges = (rows > 0).double()
    return edges.fill_diagonal_(0.0).numpy()


# --- data sets: lists of chains


def molecules(count: int) -> list:
    """The first molecules of MUTAG in an order drawn once, so that both classes are among them."""
    from markovot.datasets import load_mutag

    chains = load_mutag(laziness=0.1).chains
    return [chains[i] for i in np.random.default_rng(0).permutation(len(chains))[:count]]


def graphs(name: str) -> list:
    """A whole set, as it is loaded by default."""
    from markovot.datasets import load_mutag, load_tudataset

    return load_mutag().chains if name == "MUTAG" else load_tudataset(DATA / f"{name}.zip").chains
