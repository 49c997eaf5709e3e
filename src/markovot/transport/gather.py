"""Local transport on gathered supports: the torch engine for sparse rows, on any device."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from markovot.transport.newton import conditional, soft_transform, solve_transport
from markovot.transport.rows import Rows
from markovot.transport.torch_common import PaddedRows, TorchEngine, pad_rows, ranges

TEMPORARIES = 8  # tensors of the size of the local costs that the solver holds at once


@dataclass
class _Bucket:
    """Problems whose supports have similar sizes, with their potentials.

    Degrees are sorted into classes (1, 2, 3-4, 5-8, ...), so that one state of high degree does not pad all
    the others.
    """

    problems: Tensor  # flat indices (p * n + i) * m + j
    dx: int
    dy: int
    g: Tensor  # (len(problems), dy)


@dataclass(frozen=True)
class _Chunk:
    """Some problems of a bucket, with their marginals and supports."""

    place: Tensor  # position in the bucket
    problem: Tensor  # flat index (p, i, j)
    pair: Tensor
    row_x: Tensor  # flat index (chain, i)
    row_y: Tensor
    a: Tensor  # (q, dx)
    b: Tensor  # (q, dy)
    states_x: Tensor  # (q, dx)
    states_y: Tensor  # (q, dy)
    epsilon: Tensor  # (q,)


class GatherEngine(TorchEngine):
    """Solves each problem on its supports by `newton.solve_transport`, in chunks of fixed memory.

    Note:
        Experimental: it serves devices other than the CPU, and has run on none of them yet (`make cuda` tries it).
        Only the potentials g are stored, O(nm dy); plans are recomputed from them, chunk by chunk. Time of a
        sweep O(nm dx dy) for each Newton step, and of `apply` one exponential for each entry of each plan.
        Deterministic on the CPU; on CUDA `apply_transpose` and the gradients add in the order in which
        threads arrive (`index_add_` is atomic there), so their last bits can differ between two runs.
    """

    def __init__(self, rows_x: Rows, rows_y: Rows, pair_x: Tensor, pair_y: Tensor, epsilon: Tensor) -> None:
        super().__init__(rows_x, rows_y, pair_x, pair_y, epsilon)
        self.padded_x, self.padded_y = pad_rows(rows_x), pad_rows(rows_y)
        self.buckets = self._make_buckets()

    def _make_buckets(self) -> list[_Bucket]:
        class_x, class_y = _size_class(self.padded_x)[self.pair_x], _size_class(self.padded_y)[self.pair_y]
        degree_x, degree_y = self.padded_x.degrees[self.pair_x], self.padded_y.degrees[self.pair_y]
        buckets = []
        for kind_x in torch.unique(class_x).tolist():
            for kind_y in torch.unique(class_y).tolist():
                chosen_x, chosen_y = class_x == kind_x, class_y == kind_y
                chosen = self.real & chosen_x.unsqueeze(2) & chosen_y.unsqueeze(1)
                problems = chosen.reshape(-1).nonzero().squeeze(1)
                if len(problems):
                    dx, dy = int(degree_x[chosen_x].max()), int(degree_y[chosen_y].max())
                    g = torch.zeros(len(problems), dy, dtype=torch.float64, device=self.device)
                    buckets.append(_Bucket(problems, dx, dy, g))
        self.warm = torch.zeros_like(self.pair_x, dtype=torch.bool)
        return buckets

    def _chunks(self, bucket: _Bucket, active: Tensor | None, width: int) -> Iterator[_Chunk]:
        """The problems of the active items, in chunks within the budget of `width` numbers a problem."""
        places = torch.arange(len(bucket.problems), device=self.device)
        if active is not None:
            places = places[active[bucket.problems // (self.n * self.m)]]
        for start, stop in ranges(len(places), self.chunk_bytes // (8 * width)):
            yield self._chunk(bucket, places[start:stop])

    def _chunk(self, bucket: _Bucket, place: Tensor) -> _Chunk:
        problem = bucket.problems[place]
        pair, i, j = problem // (self.n * self.m), problem // self.m % self.n, problem % self.m
        row_x, row_y = self.pair_x[pair] * self.n + i, self.pair_y[pair] * self.m + j
        x, y, dx, dy = self.padded_x, self.padded_y, bucket.dx, bucket.dy
        return _Chunk(
            place, problem, pair, row_x, row_y,
            a=x.weights.flatten(0, 1)[row_x, :dx], b=y.weights.flatten(0, 1)[row_y, :dy],
            states_x=x.indices.flatten(0, 1)[row_x, :dx], states_y=y.indices.flatten(0, 1)[row_y, :dy],
            epsilon=self.epsilon[pair],
        )  # fmt: skip

    def _entries(self, chunk: _Chunk, states_x: Tensor, states_y: Tensor) -> Tensor:
        """Flat positions (p, k, l) of all pairs of the given states, (q, len x, len y)."""
        rows = (chunk.pair.unsqueeze(1) * self.n + states_x) * self.m
        return rows.unsqueeze(2) + states_y.unsqueeze(1)

    def _plan(self, bucket: _Bucket, chunk: _Chunk) -> tuple[Tensor, Tensor, Tensor]:
        """Positions (p, k, l), the plans there, and the potentials f."""
        entries = self._entries(chunk, chunk.states_x, chunk.states_y)
        local = self.cost.reshape(-1)[entries]
        rows, f = conditional(chunk.b.log(), bucket.g[chunk.place], local, chunk.epsilon)
        return entries, rows.mul_(chunk.a.unsqueeze(2)), f

    def sweep(self, cost: Tensor, gap: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        """Certified bounds of `OT_eps` for every problem of the active items, (P, n, m) each; 0 elsewhere.

        Args:
            cost: float64 (P, n, m); its entries for items that are not active are ignored.
            gap: (P,) wanted `upper - lower` of each problem.
            active: bool (P,).
        """
        change = self._adopt(cost, active)
        lower, upper = self._zeros().reshape(-1), self._zeros().reshape(-1)
        flat = self.cost.reshape(-1)
        for warm in (False, True):
            chosen = active & (self.warm == warm)
            if not bool(chosen.any()):
                continue
            for bucket in self.buckets:
                for chunk in self._chunks(bucket, chosen, TEMPORARIES * bucket.dx * bucket.dy):
                    local = flat[self._entries(chunk, chunk.states_x, chunk.states_y)]
                    init = bucket.g[chunk.place] if warm else None
                    result = solve_transport(
                        chunk.a, chunk.b, local, chunk.epsilon,
                        gap=gap[chunk.pair], init=init, change=change[chunk.pair],
                    )  # fmt: skip
                    bucket.g[chunk.place] = result.g
                    lower[chunk.problem], upper[chunk.problem] = result.lower, result.upper
        self.warm = self.warm | active
        self.swept = True
        return lower.view(self.shape), upper.view(self.shape)

    def apply(self, v: Tensor, active: Tensor) -> Tensor:
        """`(P v)_ij = sum_kl pi_ij^kl v_kl` with the plans of the last sweep for the active items; 0 elsewhere."""
        out = self._zeros().reshape(-1)
        v = v.reshape(-1)
        for bucket in self.buckets:
            for chunk in self._chunks(bucket, active, TEMPORARIES * bucket.dx * bucket.dy):
                entries, plan, _ = self._plan(bucket, chunk)
                out[chunk.problem] = plan.mul_(v[entries]).sum(dim=(1, 2))
        return out.view(self.shape)

    def apply_transpose(self, v: Tensor, active: Tensor) -> Tensor:
        """`(P^T v)_kl = sum_ij pi_ij^kl v_ij` for the active items; 0 elsewhere."""
        out = self._zeros().reshape(-1)
        v = v.reshape(-1)
        for bucket in self.buckets:
            for chunk in self._chunks(bucket, active, TEMPORARIES * bucket.dx * bucket.dy):
                entries, plan, _ = self._plan(bucket, chunk)
                plan *= v[chunk.problem][:, None, None]
                out.index_add_(0, entries.reshape(-1), plan.reshape(-1))
        return out.view(self.shape)

    def kl(self) -> Tensor:
        """`KL(pi_ij | a x b)` of the last plans, (P, n, m); 0 at padding."""
        out = self._zeros().reshape(-1)
        for bucket in self.buckets:
            for chunk in self._chunks(bucket, None, TEMPORARIES * bucket.dx * bucket.dy):
                entries, plan, f = self._plan(bucket, chunk)
                density = f.unsqueeze(2) + bucket.g[chunk.place].unsqueeze(1) - self.cost.reshape(-1)[entries]
                out[chunk.problem] = plan.mul_(density).sum(dim=(1, 2)) / chunk.epsilon
        return out.view(self.shape)

    def gradient_x(self, weights: Tensor, pattern: Rows | None) -> Tensor:
        """`sum_j weights_pij f_ij^k'`, f continued off the support, summed over items that share a chain.

        Args:
            weights: (P, n, m).
            pattern: the entries (row i, state k') that are wanted; None: all.

        Returns:
            (B, n, n), or (nnz,) in the order of the pattern. Not centred.
        """
        columns, stored = _pattern(pattern, self.rows_x)
        total = torch.zeros(columns.shape, dtype=torch.float64, device=self.device).flatten(0, 1)
        flat, weights = self.cost.reshape(-1), weights.reshape(-1)
        for bucket in self.buckets:
            for chunk in self._chunks(bucket, None, 3 * columns.shape[2] * bucket.dy):
                states = columns.flatten(0, 1)[chunk.row_x]
                local = flat[self._entries(chunk, states, chunk.states_y)]
                f = soft_transform(chunk.b.log(), bucket.g[chunk.place], local, chunk.epsilon)
                total.index_add_(0, chunk.row_x, f * weights[chunk.problem].unsqueeze(1))
        total = total.view(columns.shape)
        return total[stored] if pattern is not None else total.masked_fill(~stored, 0.0)

    def gradient_y(self, weights: Tensor, pattern: Rows | None) -> Tensor:
        """`sum_i weights_pij g_ij^l'`, g the continuation of f: as `gradient_x`, with the sides exchanged."""
        columns, stored = _pattern(pattern, self.rows_y)
        total = torch.zeros(columns.shape, dtype=torch.float64, device=self.device).flatten(0, 1)
        flat, weights = self.cost.reshape(-1), weights.reshape(-1)
        for bucket in self.buckets:
            width = bucket.dx * (3 * columns.shape[2] + TEMPORARIES * bucket.dy)
            for chunk in self._chunks(bucket, None, width):
                f = self._plan(bucket, chunk)[2]
                states = columns.flatten(0, 1)[chunk.row_y]
                local = flat[self._entries(chunk, chunk.states_x, states)].mT
                g = soft_transform(chunk.a.log(), f, local, chunk.epsilon)
                total.index_add_(0, chunk.row_y, g * weights[chunk.problem].unsqueeze(1))
        total = total.view(columns.shape)
        return total[stored] if pattern is not None else total.masked_fill(~stored, 0.0)

    def coupling(self, p: int, i: int, j: int) -> Tensor:
        """The plan of one problem: see the base class."""
        dense = torch.zeros(self.n * self.m, dtype=torch.float64, device=self.device)
        problem = (p * self.n + i) * self.m + j
        for bucket in self.buckets:
            # Problems are sorted within a bucket.
            place = int(torch.searchsorted(bucket.problems, problem))
            if place < len(bucket.problems) and int(bucket.problems[place]) == problem:
                chunk = self._chunk(bucket, torch.tensor([place], device=self.device))
                entries, plan, _ = self._plan(bucket, chunk)
                dense.index_add_(0, entries.reshape(-1) - p * self.n * self.m, plan.reshape(-1))
        return dense.view(self.n, self.m)

    def couplings(self, item: int) -> tuple[Tensor, Tensor, Tensor]:
        """All plans of an item: see the base class."""
        only = torch.arange(self.shape[0], device=self.device) == item
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        base = item * self.n * self.m
        for bucket in self.buckets:
            for chunk in self._chunks(bucket, only, TEMPORARIES * bucket.dx * bucket.dy):
                entries, plan, _ = self._plan(bucket, chunk)
                kept = plan > 0
                rows = (chunk.problem - base)[:, None, None].expand_as(plan)
                parts.append((rows[kept], entries[kept] - base, plan[kept]))
        rows, columns, values = (torch.cat(part) for part in zip(*parts, strict=True))
        return rows, columns, values


def _size_class(rows: PaddedRows) -> Tensor:
    """0 for degrees 0 and 1, then 1, 2, 3, ... for 2, 3-4, 5-8, ..."""
    return torch.ceil(torch.log2(rows.degrees.clamp_min(1).double())).long()


def _pattern(pattern: Rows | None, rows: Rows) -> tuple[Tensor, Tensor]:
    """The wanted states of each row, padded with state 0, and a mask of the real ones; (B, n, width) each."""
    if pattern is not None:
        padded = pad_rows(pattern)
        return padded.indices, padded.stored
    batch, n = rows.degrees.shape
    states = torch.arange(n, device=rows.sizes.device)
    real = states < rows.sizes.unsqueeze(1)
    return states.expand(batch, n, n), real.unsqueeze(2) & real.unsqueeze(1)
