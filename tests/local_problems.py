"""Batches of local transport problems for the engines, and their solutions by loops over the definition."""

import numpy as np
import torch
from scipy.special import logsumexp

from markovot.transport.rows import Rows


def random_rows(sizes, degree, seed):
    """A batch of chains of these sizes, padded; each row has up to `degree` entries (None: all)."""
    rng = np.random.default_rng(seed)
    n = max(sizes)
    indptr, indices, values = np.zeros((len(sizes), n + 1), dtype=np.int64), [], []
    for chain, size in enumerate(sizes):
        for i in range(n):
            indptr[chain, i] = sum(map(len, indices))
            if i < size:
                count = size if degree is None else rng.integers(1, min(degree, size) + 1)
                indices.append(np.sort(rng.choice(size, count, replace=False)))
                values.append(rng.dirichlet(np.ones(count)))
        indptr[chain, n] = sum(map(len, indices))
    return Rows(
        torch.tensor(sizes), torch.from_numpy(indptr), torch.from_numpy(np.concatenate(indices)),
        torch.from_numpy(np.concatenate(values)),
    )  # fmt: skip


class Case:
    """Three items over two chains of X and three of Y, of different sizes, each with its epsilon and cost."""

    def __init__(self, degree_x=None, degree_y=None, seed=0, scale=1.0):
        self.x = random_rows([5, 3], degree_x, seed)
        self.y = random_rows([2, 6, 4], degree_y, seed + 1)
        self.pair_x, self.pair_y = torch.tensor([0, 1, 1]), torch.tensor([1, 2, 1])
        self.epsilon = torch.tensor([0.3, 0.1, 0.05], dtype=torch.float64)
        generator = torch.Generator().manual_seed(seed)
        self.cost = scale * torch.rand(3, 5, 6, generator=generator, dtype=torch.float64)
        self.v = torch.randn(3, 5, 6, generator=generator, dtype=torch.float64)
        self.active = torch.ones(3, dtype=torch.bool)
        self.dense_x, self.dense_y = self.x.to_dense(), self.y.to_dense()

    def engine(self, kind):
        return kind(self.x, self.y, self.pair_x, self.pair_y, self.epsilon)

    def swept(self, kind):
        engine = self.engine(kind)
        engine.sweep(self.cost, self.gap(), self.active)
        return engine

    def gap(self, gap=0.0):
        return torch.full((3,), gap, dtype=torch.float64)

    def problems(self):
        """Item, i, j, the two rows, and the real part of the cost, for every real problem."""
        for p in range(3):
            n, m = int(self.x.sizes[self.pair_x[p]]), int(self.y.sizes[self.pair_y[p]])
            a, b = self.dense_x[self.pair_x[p], :n, :n].numpy(), self.dense_y[self.pair_y[p], :m, :m].numpy()
            for i in range(n):
                for j in range(m):
                    yield p, i, j, a[i], b[j], self.cost[p, :n, :m].numpy()

    def solutions(self):
        """Item, i, j, value, plan, potentials continued to all states, and KL."""
        for p, i, j, a, b, cost in self.problems():
            yield p, i, j, *sinkhorn(a, b, cost, float(self.epsilon[p]))

    def real(self):
        mask = torch.zeros(3, 5, 6, dtype=torch.bool)
        for p, i, j, *_ in self.problems():
            mask[p, i, j] = True
        return mask

    def transition_couplings(self):
        """The true plans as one (3, nm, nm) array."""
        full = torch.zeros(3, 5, 6, 5, 6, dtype=torch.float64)
        for p, i, j, _, plan, *_ in self.solutions():
            full[p, i, j, : plan.shape[0], : plan.shape[1]] = torch.from_numpy(plan)
        return full.view(3, 30, 30)


def sinkhorn(a, b, cost, epsilon):
    """Value, plan, potentials and KL of one problem, by log-domain Sinkhorn steps to 1e-14."""
    with np.errstate(divide="ignore"):
        log_a, log_b = np.log(a), np.log(b)
    g = np.zeros(len(b))
    for _ in range(100_000):
        f = -epsilon * logsumexp(log_b + (g - cost) / epsilon, axis=1)
        new = -epsilon * logsumexp(log_a[:, None] + (f[:, None] - cost) / epsilon, axis=0)
        done = np.abs(new - g).max() < 1e-15
        g = new
        if done:
            break
    plan = a[:, None] * b * np.exp((f[:, None] + g - cost) / epsilon)
    kl = (plan * (f[:, None] + g - cost)).sum() / epsilon
    return a @ f + b @ g, plan, f, g, kl
