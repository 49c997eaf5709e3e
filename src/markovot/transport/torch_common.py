"""What the two torch engines share: the pairs they serve, padded rows, and how plans are returned."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from markovot.transport.linear import Linear, bicgstab
from markovot.transport.rows import Rows

# Temporary memory: about ten tensors of at most this many bytes live at once, whatever the size of the
# problem. Accelerators need larger pieces to be kept busy.
CHUNK_BYTES = 2**25
ACCELERATOR_CHUNK_BYTES = 2**28


@dataclass(frozen=True)
class PaddedRows:
    """Supports and weights of all rows, padded to one width; the weights of a row sum to one exactly."""

    indices: Tensor  # int64 (B, n, d), 0 where padded
    weights: Tensor  # float64 (B, n, d), 0 where padded
    stored: Tensor  # bool (B, n, d)
    degrees: Tensor  # int64 (B, n)


def pad_rows(rows: Rows) -> PaddedRows:
    """Pad all rows to the largest degree."""
    degrees = rows.degrees
    batch, n = degrees.shape
    width = max(int(degrees.max()) if degrees.numel() else 0, 1)
    chain, row = rows.owners()
    place = torch.arange(len(rows.indices), device=degrees.device) - rows.indptr[chain, row]
    indices = torch.zeros(batch, n, width, dtype=torch.int64, device=degrees.device)
    weights = torch.zeros(batch, n, width, dtype=torch.float64, device=degrees.device)
    indices[chain, row, place] = rows.indices
    weights[chain, row, place] = rows.values
    weights /= weights.sum(dim=2, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    stored = torch.arange(width, device=degrees.device) < degrees.unsqueeze(2)
    return PaddedRows(indices, weights, stored, degrees)


def ranges(count: int, size: int) -> Iterator[tuple[int, int]]:
    """Consecutive ranges of at most `size` that cover `count` things."""
    for start in range(0, count, max(size, 1)):
        yield start, min(start + max(size, 1), count)


class TorchEngine:
    """All local transport problems of a Bellman operator, on one torch device, in float64.

    Item p couples chain `pair_x[p]` of `rows_x` with chain `pair_y[p]` of `rows_y`; its problem (i, j) has
    row i of the one and row j of the other as marginals, and the item's cost on their supports.
    """

    solves_whole = False
    has_threads = False

    def warm_start(self, other: object) -> None:
        """Do nothing: a good first cost saves sweeps, but old potentials save little in each sweep of these engines."""

    def __init__(self, rows_x: Rows, rows_y: Rows, pair_x: Tensor, pair_y: Tensor, epsilon: Tensor) -> None:
        self.rows_x, self.rows_y = rows_x, rows_y
        self.pair_x, self.pair_y = pair_x, pair_y
        self.epsilon = epsilon.to(torch.float64)
        self.swept = False
        self.n, self.m = rows_x.num_states, rows_y.num_states
        self.shape = (len(pair_x), self.n, self.m)
        self.device = epsilon.device
        self.chunk_bytes = CHUNK_BYTES if self.device.type == "cpu" else ACCELERATOR_CHUNK_BYTES
        real_x = torch.arange(self.n, device=self.device) < rows_x.sizes[pair_x].unsqueeze(1)
        real_y = torch.arange(self.m, device=self.device) < rows_y.sizes[pair_y].unsqueeze(1)
        self.real = real_x.unsqueeze(2) & real_y.unsqueeze(1)  # (P, n, m)
        self.cost = torch.zeros(self.shape, dtype=torch.float64, device=self.device)  # from each item's last sweep

    def _adopt(self, cost: Tensor, active: Tensor) -> Tensor:
        """Keep the cost of the items that are swept now, without padding. Returns the range of the change."""
        old = self.cost
        self.cost = torch.where(active[:, None, None] & self.real, cost, old)
        return self._range(self.cost - old)

    def _range(self, values: Tensor) -> Tensor:
        """Max - min over the real entries, (P,)."""
        high = values.masked_fill(~self.real, -torch.inf).flatten(1).amax(dim=1)
        return high - values.masked_fill(~self.real, torch.inf).flatten(1).amin(dim=1)

    def _zeros(self) -> Tensor:
        return torch.zeros(self.shape, dtype=torch.float64, device=self.device)

    def _apply_independent(self, v: Tensor, active: Tensor) -> Tensor:
        """`P v` for the independent couplings, `A v B^T`: the plans before the first sweep."""
        return self.rows_x.to_dense()[self.pair_x] @ v @ self.rows_y.to_dense()[self.pair_y].mT

    def apply(self, v: Tensor, active: Tensor) -> Tensor:
        """`(P v)_ij = sum_kl pi_ij^kl v_kl` with the plans of the last sweep for the active items; 0 elsewhere."""
        raise NotImplementedError

    def apply_transpose(self, v: Tensor, active: Tensor) -> Tensor:
        """`(P^T v)_kl = sum_ij pi_ij^kl v_ij` for the active items; 0 elsewhere."""
        raise NotImplementedError

    def solve(
        self,
        rhs: Tensor,
        discount: Tensor,
        tolerance: Tensor,
        active: Tensor,
        *,
        transpose: bool,
        max_iter: int,
    ) -> Linear:
        """Solve `(I - (1 - delta) P) x = rhs`, or its transpose, to a residual of at most `tolerance`."""
        product = self.apply_transpose if transpose else self.apply
        if not self.swept and not transpose:
            product = self._apply_independent
        return bicgstab(product, rhs, discount, tolerance, active, transpose=transpose, max_iter=max_iter)

    def coupling(self, p: int, i: int, j: int) -> Tensor:
        """The coupling of problem (p, i, j) as a dense (n, m) matrix; its row sums are exact."""
        raise NotImplementedError

    def couplings(self, item: int) -> tuple[Tensor, Tensor, Tensor]:
        """The transition coupling of an item: row `i*m+j`, column `k*m+l`, value of each positive entry."""
        size_x = int(self.rows_x.sizes[self.pair_x[item]])
        size_y = int(self.rows_y.sizes[self.pair_y[item]])
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        for i in range(size_x):
            for j in range(size_y):
                plan = self.coupling(item, i, j).reshape(-1)
                columns = plan.nonzero().squeeze(1)
                parts.append((torch.full_like(columns, i * self.m + j), columns, plan[columns]))
        rows, columns, values = (torch.cat(part) for part in zip(*parts, strict=True))
        return rows, columns, values
