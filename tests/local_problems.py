"""Batches of local transport problems for the engines, and their solutions by loops over the definition."""

from functools import cached_property

import numpy as np
import torch

from markovot.transport.rows import Rows
from oracles import Transport, exact_local, sinkhorn


def random_rows(sizes, degree, seed):
    """A batch of chains of these sizes, padded; each row has up to `degree` entries (None: all), the last one all."""
    rng = np.random.default_rng(seed)
    n = max(sizes)
    indptr, indices, values = np.zeros((len(sizes), n + 1), dtype=np.int64), [], []
    for chain, size in enumerate(sizes):
        for i in range(n):
            indptr[chain, i] = sum(map(len, indices))
            if i < size:
                full = degree is None or i == size - 1
                count = size if full else rng.integers(1, min(degree, size) + 1)
                indices.append(np.sort(rng.choice(size, count, replace=False)))
                values.append(rng.dirichlet(np.ones(count)))
        indptr[chain, n] = sum(map(len, indices))
    return Rows(
        torch.tensor(sizes), torch.from_numpy(indptr), torch.from_numpy(np.concatenate(indices)),
        torch.from_numpy(np.concatenate(values)),
    )  # fmt: skip


class Case:
    """Three items over two chains of X and three of Y, of different sizes, each with its cost, and epsilon (or 0)."""

    def __init__(self, degree_x=None, degree_y=None, seed=0, scale=1.0, sizes=((5, 3), (2, 6, 4)), exact=False):
        self.x = random_rows(sizes[0], degree_x, seed)
        self.y = random_rows(sizes[1], degree_y, seed + 1)
        self.pair_x, self.pair_y = torch.tensor([0, 1, 1]), torch.tensor([1, 2, 1])
        self.epsilon = torch.tensor([0.3, 0.1, 0.05], dtype=torch.float64) * (not exact)
        generator = torch.Generator().manual_seed(seed)
        self.shape = (3, max(sizes[0]), max(sizes[1]))
        self.cost = scale * torch.rand(self.shape, generator=generator, dtype=torch.float64)
        self.v = torch.randn(self.shape, generator=generator, dtype=torch.float64)
        self.active = torch.ones(3, dtype=torch.bool)
        self.dense_x, self.dense_y = self.x.to_dense(), self.y.to_dense()
        self.sizes = [(sizes[0][x], sizes[1][y]) for x, y in zip(self.pair_x, self.pair_y, strict=True)]

    def engine(self, kind):
        return kind(self.x, self.y, self.pair_x, self.pair_y, self.epsilon)

    def swept(self, kind):
        engine = self.engine(kind)
        engine.sweep(self.cost, self.gap(), self.active)
        return engine

    def gap(self, gap=0.0):
        return torch.full((3,), gap, dtype=torch.float64)

    def rows(self, p):
        """The two transition matrices of an item, without padding."""
        n, m = self.sizes[p]
        return self.dense_x[self.pair_x[p], :n, :n].numpy(), self.dense_y[self.pair_y[p], :m, :m].numpy()

    def real(self):
        mask = torch.zeros(self.shape, dtype=torch.bool)
        for p, (n, m) in enumerate(self.sizes):
            mask[p, :n, :m] = True
        return mask

    def local(self, cost=None):
        """The true local problems of each item, all (n, m) at once."""
        return self._solutions if cost is None else [self._solve(p, cost[p]) for p in range(3)]

    @cached_property
    def _solutions(self):
        return self.local(self.cost)

    def _solve(self, p, cost):
        (rows_x, rows_y), (n, m) = self.rows(p), self.sizes[p]
        cost, epsilon = cost[:n, :m].numpy(), float(self.epsilon[p])
        if epsilon:
            return sinkhorn(rows_x[:, None], rows_y[None], cost, epsilon)
        parts = [[exact_local(a, b, cost) for b in rows_y] for a in rows_x]
        fields = ("value", "f", "g", "plan", "kl")
        return Transport(*(np.array([[getattr(part, name) for part in row] for row in parts]) for name in fields))

    def padded(self, name, cost=None):
        """The values ("value") or divergences ("kl") of all local problems, 0 at padding."""
        result = torch.zeros(self.shape, dtype=torch.float64)
        for p, found in enumerate(self.local(cost)):
            n, m = self.sizes[p]
            result[p, :n, :m] = torch.from_numpy(getattr(found, name))
        return result

    def transition_couplings(self):
        """The true plans as one (3, nm, nm) array."""
        _, n, m = self.shape
        full = torch.zeros(3, n, m, n, m, dtype=torch.float64)
        for p, found in enumerate(self.local()):
            (size_x, size_y), plan = self.sizes[p], torch.from_numpy(found.plan)
            full[p, :size_x, :size_y, :size_x, :size_y] = plan
        return full.view(3, n * m, n * m)

    def independent_couplings(self):
        """The same of the independent couplings."""
        parts = torch.einsum("pik,pjl->pijkl", self.dense_x[self.pair_x], self.dense_y[self.pair_y])
        return parts.reshape(3, self.cost[0].numel(), -1)

    def gradients(self, weights):
        """The true `gradient_x` and `gradient_y`, summed over the items of a chain."""
        total_x, total_y = torch.zeros_like(self.dense_x), torch.zeros_like(self.dense_y)
        for p, found in enumerate(self.local()):
            n, m = self.sizes[p]
            weight = weights[p, :n, :m, None]
            total_x[self.pair_x[p], :n, :n] += (weight * torch.from_numpy(found.f)).sum(1)
            total_y[self.pair_y[p], :m, :m] += (weight * torch.from_numpy(found.g)).sum(0)
        return total_x, total_y


def all_entries(rows):
    """Where a gradient of these rows may be other than zero: all real states, (B, n, n)."""
    real = torch.arange(rows.num_states) < rows.sizes[:, None]
    return real[:, :, None] & real[:, None]


def wider(rows):
    """The pattern of the rows, and in each also the first state and the last one."""
    wanted = rows.to_dense() > 0
    wanted[..., 0] = True
    wanted[torch.arange(len(rows.sizes)), :, rows.sizes - 1] = True
    wanted &= all_entries(rows)
    ends = wanted.sum(2).flatten().cumsum(0).view(wanted.shape[:2])
    begin = torch.cat([torch.zeros(1, dtype=torch.int64), ends[:-1, -1]])
    chain, row, state = wanted.nonzero(as_tuple=True)
    return Rows(rows.sizes, torch.cat([begin[:, None], ends], 1), state, rows.to_dense()[chain, row, state])
