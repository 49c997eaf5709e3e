"""The stationary law of a Markov chain, and its gradient by one linear solve.

With `P` row-stochastic and one closed class, `pi P = pi` and `sum pi = 1` have one solution. Along the
simplex, `d pi . v = pi dP z`, where `z` is any solution of `(I - P) z = v - (pi . v) 1` (they differ by a
constant). So the gradient in `P_kl` is `pi_k z_l`, up to a constant in each row. Fixing `z = 0` at one
recurrent state, the ground, leaves a nonsingular M-matrix, which serves the law (by its transpose) and the
gradient.

Laws of up to `REDUCED` states come from state reduction (Grassmann, Taksar, Heyman 1985), which subtracts
nothing and so gives every single probability to about 1e-15 relative, however small and however nearly
decomposable the chain.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from markovot import validate
from markovot.autograd.centring import centred, centred_stored
from markovot.autograd.eager import eagerly
from markovot.autograd.implicit import Once
from markovot.autograd.transforms import outside, plain
from markovot.chains import sparse
from markovot.chains.classes import closed_classes, in_words
from markovot.chains.compressed import Compressed

REDUCED = 400  # states; measured: up to here the n**3 / 3 of state reduction in NumPy cost at most 0.1 s
_CHUNK = 2**22  # entries of dense working memory at a time, 32 MiB


@eagerly
def stationary_distribution(transition: Any) -> Tensor:
    r"""The stationary law of a chain, which a step of the chain does not change.

    $$\pi P = \pi, \qquad \sum_i \pi_i = 1.$$

    Args:
        transition: (*batch, n, n) row-stochastic matrices: a dense or sparse tensor, a NumPy
            array or a SciPy sparse matrix, float32 or float64.

    Returns:
        The laws, (*batch, n), in the dtype and on the device of `transition`. States that are left for ever
        have mass zero.

    Raises:
        TypeError: integers, half precision, or something that is not a matrix.
        ValueError: rows that are not probability distributions, or several closed classes (sets of states that are
            never left), since then the stationary law is not unique.

    Note:
        Differentiable in `transition`, any number of times and under `torch.func` (by an n x n system instead); a
        sparse tensor receives the gradient on its stored entries. The gradient is defined up to a constant in each
        row (rows sum to one); it is centred, so each row of it
        sums to zero. Computed in float64 whatever the dtype. Up to 400 states: O(n^3) and relative error
        about 1e-14 in every entry. Beyond: one LU factorisation (sparse for sparse input, on the CPU), whose
        error grows with the time the chain takes to mix.

    References:
        Grassmann, Taksar, Heyman (1985), Regenerative analysis and steady state distributions for Markov
        chains.

    Example:
        >>> import torch
        >>> weather = torch.tensor([[0.9, 0.1], [0.5, 0.5]], dtype=torch.float64)
        >>> stationary_distribution(weather)
        tensor([0.8333, 0.1667], dtype=torch.float64)
    """
    if sparse.is_sparse(transition):
        rows = sparse.read("transition", transition)
        owner = rows.owner()
        validate.stored_rows("transition", owner, rows.indices, rows.values, rows.row_sums(owner))
        return of_compressed(rows)
    dense = validate.matrices("transition", transition)
    validate.distributions("transition", dense)
    return of_dense(dense)


def of_dense(transition: Tensor, mask: Tensor | None = None) -> Tensor:
    """Stationary laws of valid (*batch, n, n) matrices; states where `mask` is False are padding."""
    n = transition.shape[-1]
    real = torch.ones(transition.shape[:-1], dtype=torch.bool, device=transition.device) if mask is None else mask
    real = real.reshape(-1, n)

    def solve(matrices: Tensor) -> _DenseLaws:
        flat = matrices.reshape(-1, n, n).double()
        ground, closed = _examine(flat, real, transition.shape[:-2])
        return _DenseLaws(matrices, real, flat, ground, _dense_laws(flat, real, ground, closed))

    def native(matrices: Tensor) -> Tensor:
        _examine_all(matrices, real)
        pairs = real[:, :, None] & real[:, None, :]
        moved = matrices.detach() + centred(matrices - matrices.detach(), pairs.view(transition.shape))
        return _native_laws(moved, real.view(transition.shape[:-1]))

    return Once(solve, native=native)(transition)[0]


def of_compressed(rows: Compressed, mask: Tensor | None = None) -> Tensor:
    """Stationary laws, (*batch, n), of valid matrices in compressed rows; `mask` as in `of_dense`."""
    n = rows.rows_shape[-1]
    owner = rows.owner()
    real = torch.ones(rows.rows_shape, dtype=torch.bool, device=rows.values.device) if mask is None else mask
    real = real.reshape(-1, n)

    def solve(values: Tensor) -> _StoredLaws:
        store = Compressed(rows.indptr.reshape(-1, n + 1).cpu(), rows.indices.cpu(), values.double().cpu())
        step = max(1, _CHUNK // (n * n)) if n <= REDUCED else 1
        solvers: list[Any] = []
        for part, keep, start in _chunks(store, real.cpu(), step):
            solver = _Reduced if int(keep.sum(1).amax()) <= REDUCED else _Factorised
            solvers.append(solver(part, keep, rows.rows_shape[:-1], start))
        return _StoredLaws(rows._replace(values=values), owner, solvers)

    def native(values: Tensor) -> Tensor:
        moved = values.detach() + centred_stored(values - values.detach(), owner, len(real) * n)
        dense = Compressed(rows.indptr, rows.indices, moved).to_dense()
        _examine_all(dense, real)
        return _native_laws(dense, real.view(rows.rows_shape))

    return Once(solve, native=native)(rows.values)[0]


@dataclass
class _DenseLaws:
    """Stationary laws of dense matrices, and their gradient."""

    matrices: Tensor  # (*batch, n, n)
    real: Tensor  # bool (B, n)
    flat: Tensor  # (B, n, n), float64
    ground: Any
    laws: Tensor  # (B, n)

    def outputs(self) -> tuple[Tensor, ...]:
        return (self.laws.view(self.matrices.shape[:-1]).to(self.matrices.dtype),)

    def pullback(self, needed: tuple[bool, ...], grad: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,)
        given, real = self.matrices, self.real
        z = _hitting_values(self.flat, self.laws, self.ground, grad.reshape(-1, given.shape[-1]).double())
        return ((self.laws[:, :, None] * centred(z, real)[:, None, :]).view(given.shape).to(given.dtype),)


class _StoredLaws:
    """Stationary laws of matrices in compressed rows, solved in parts, and their gradient."""

    def __init__(self, rows: Compressed, owner: Tensor, solvers: list[Any]) -> None:
        self.rows, self.owner, self.solvers = rows, owner, solvers
        self.laws = torch.cat([part.laws for part in solvers]).to(rows.values.device)

    def outputs(self) -> tuple[Tensor, ...]:
        return (self.laws.view(self.rows.rows_shape).to(self.rows.values.dtype),)

    def pullback(self, needed: tuple[bool, ...], grad: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,)
        n, values, owner = self.rows.rows_shape[-1], self.rows.values, self.owner
        parts = grad.reshape(-1, n).double().cpu().split([len(part.laws) for part in self.solvers])
        found = [part.hitting_values(g) for part, g in zip(self.solvers, parts, strict=True)]
        along = torch.cat(found).to(values.device).reshape(-1)[owner // n * n + self.rows.indices]
        moved = self.laws.reshape(-1)[owner] * centred_stored(along, owner, self.laws.numel())
        return (moved.to(values.dtype),)


def _examine_all(matrices: Tensor, real: Tensor) -> None:
    """Call `_examine` for its errors, also on matrices that a transform hides."""
    given = plain(matrices)
    with outside():
        flat = given.reshape(-1, *given.shape[-2:]).double()
        _examine(flat, plain(real).repeat(len(flat) // len(real), 1), given.shape[:-2])


def _native_laws(transition: Tensor, real: Tensor) -> Tensor:
    """Stationary laws by operations that torch differentiates in every mode: `pi (I - P + 1 u) = u`, u uniform.

    If pi is unique the matrix is regular, and multiplying by the vector of ones gives `pi 1 = 1`, hence `pi P = pi`.
    """
    uniform = real.double() / real.sum(-1, keepdim=True)
    identity = torch.eye(real.shape[-1], dtype=torch.float64, device=real.device)
    matrix = identity - transition.double() + real[..., :, None] * uniform[..., None, :]
    return torch.linalg.solve(matrix.mT, uniform).to(transition.dtype)


def _chunks(store: Compressed, real: Tensor, step: int) -> list[tuple[Compressed, Tensor, int]]:
    """Cut a batch into parts of `step` chains: (part, its mask, number of its first chain)."""
    parts = []
    for start in range(0, len(real), step):
        indptr = store.indptr[start : start + step]
        low, high = int(indptr[0, 0]), int(indptr[-1, -1])
        part = Compressed(indptr - low, store.indices[low:high], store.values[low:high])
        parts.append((part, real[start : start + step], start))
    return parts


class _Reduced:
    """Small sparse chains, solved as dense ones; only the compressed rows are kept for the backward pass."""

    def __init__(self, rows: Compressed, real: Tensor, batch: torch.Size, start: int) -> None:
        self.rows = rows
        dense = rows.to_dense()
        self.ground, _ = _examine(dense, real, batch, start)
        self.laws = torch.from_numpy(_reduce(dense.numpy(), self.ground))

    def hitting_values(self, v: Tensor) -> Tensor:
        return _hitting_values(self.rows.to_dense(), self.laws, self.ground, v)


class _Factorised:
    """One large sparse chain: a sparse LU factorisation, kept for the backward pass."""

    def __init__(self, rows: Compressed, real: Tensor, batch: torch.Size, start: int) -> None:
        from scipy.sparse import coo_array
        from scipy.sparse.linalg import splu

        n = real.shape[-1]
        owner, target, values = (part.numpy() for part in (rows.owner(), rows.indices, rows.values))
        positive = values > 0
        closed = _closed_states(owner[positive], target[positive], real.numpy(), batch, start)[0]
        arrivals = np.bincount(target, weights=values, minlength=n)
        ground = int(np.argmax(np.where(closed, arrivals, -1.0)))
        self.rest = np.flatnonzero(np.arange(n) != ground)
        off = owner != target
        leaving = np.bincount(owner[off], weights=values[off], minlength=n)
        leaving[~real[0].numpy()] = 1.0  # padding: any nonzero diagonal
        every = np.arange(n)
        where = (np.r_[target[off], every], np.r_[owner[off], every])
        matrix = coo_array((np.r_[-values[off], leaving], where), shape=(n, n)).tocsr()  # the transpose of I - P
        grounded = matrix[self.rest][:, self.rest].tocsc()
        # Columns are diagonally dominant, so the diagonal is a safe pivot, and the fill-in stays that of the
        # symmetric order.
        self.lu = splu(grounded, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
        arriving = -matrix[self.rest][:, [ground]].toarray()[:, 0]
        x = self.lu.solve(arriving)
        x = x + self.lu.solve(arriving - grounded @ x)
        law = np.zeros(n)
        law[ground] = 1.0
        law[self.rest] = np.where(closed[self.rest], np.maximum(x, 0.0), 0.0)
        self.laws = torch.from_numpy(law / law.sum())[None]

    def hitting_values(self, v: Tensor) -> Tensor:
        rhs = (v - (self.laws * v).sum()).numpy()[0]
        z = np.zeros_like(rhs)
        z[self.rest] = self.lu.solve(rhs[self.rest], trans="T")
        return torch.from_numpy(z)[None]


def _examine(matrices: Tensor, real: Tensor, batch: torch.Size, start: int = 0) -> tuple[Tensor, Tensor]:
    """A frequently visited recurrent state of each chain, (B,), and which states are recurrent, (B, n)."""
    n = real.shape[1]
    support = matrices > 0
    closed = real
    if not bool(support.all()):
        chain, row, target = torch.nonzero(support.cpu(), as_tuple=True)
        found = _closed_states(
            (chain * n + row).numpy(), (chain * n + target).numpy(), real.cpu().numpy(), batch, start
        )
        closed = torch.from_numpy(found).to(real.device)
    arrivals = matrices.sum(-2)
    return torch.where(closed, arrivals, -1.0).argmax(-1), closed


def _closed_states(owner: Any, target: Any, real: Any, batch: torch.Size, start: int) -> Any:
    """Which states are in their chain's closed class, bool (B, n), from the positive entries of all chains.

    Raises:
        ValueError: a chain has several closed classes.
    """
    from scipy.sparse import csr_array

    count, n = real.shape
    graph = csr_array((np.ones(len(owner), dtype=np.int8), (owner, target)), shape=(count * n, count * n))
    label = np.where(real, closed_classes(graph).reshape(count, n), -1)
    closed = label >= 0
    several = closed & (label != np.where(closed, label, graph.shape[0]).min(1)[:, None])
    if several.any():
        chain = int(np.flatnonzero(several.any(1))[0])
        _raise_several(label[chain], np.unravel_index(chain + start, batch) if batch else ())
    return closed


def _raise_several(label: Any, index: tuple[Any, ...]) -> None:
    whose = f"chain {validate.place(tuple(map(int, index)))} has" if index else "there are"
    count = np.unique(label[label >= 0]).size
    raise ValueError(
        f"transition: the stationary law is not unique, since {whose} {count} closed classes (sets of states that are "
        f"never left), among them the states {in_words(label)}. Choose the initial law: "
        "initial='uniform' or a tensor of probabilities; or connect the classes, for instance with a small probability "
        "of a jump."
    )


def _dense_laws(matrices: Tensor, real: Tensor, ground: Tensor, closed: Tensor) -> Tensor:
    """Stationary laws (B, n). The method depends on the size of each chain, without its padding."""
    if matrices.shape[1] <= REDUCED:
        return torch.from_numpy(_reduce(matrices.cpu().numpy(), ground)).to(matrices.device)
    laws = torch.zeros_like(matrices[:, 0])
    for chain, size in enumerate(real.sum(1).tolist()):
        own, first = matrices[chain : chain + 1, :size, :size], ground[chain : chain + 1]
        if size <= REDUCED:
            laws[chain, :size] = torch.from_numpy(_reduce(own.cpu().numpy(), first)[0]).to(laws.device)
        else:
            laws[chain, :size] = _grounded_laws(own, first, closed[chain : chain + 1, :size])[0]
    return laws


def _reduce(matrices: Any, ground: Tensor) -> Any:
    """Stationary laws (B, n) by state reduction: remove one state after another, and keep the chain on the others."""
    count, n = matrices.shape[:2]
    # The recurrent ground is first in the order and is removed last. So from every removed state, the chain reaches a
    # state that remains.
    order = np.tile(np.arange(n), (count, 1))
    chains = np.arange(count)
    order[:, 0], order[chains, ground.cpu().numpy()] = ground.cpu().numpy(), 0
    p = matrices[chains[:, None, None], order[:, :, None], order[:, None, :]]
    for k in range(n - 1, 0, -1):
        leaving = p[:, k, :k].sum(1)
        leaving[leaving == 0] = 1.0  # padding
        p[:, :k, k] /= leaving[:, None]
        p[:, :k, :k] += p[:, :k, k, None] * p[:, k, None, :k]
    visits = np.zeros((count, n))
    visits[:, 0] = 1.0
    for k in range(1, n):
        visits[:, k] = (visits[:, :k] * p[:, :k, k]).sum(1)
    laws = np.empty((count, n))
    laws[chains[:, None], order] = visits / visits.cumsum(1)[:, -1:]  # zeros at padding leave the very same bits
    return laws


def _grounded(matrices: Tensor, ground: Tensor) -> tuple[Tensor, Tensor]:
    """I - P without the row and column of the ground, (B, n-1, n-1), and the states that remain, (B, n-1)."""
    count, n = matrices.shape[:2]
    every = torch.arange(n, device=matrices.device).expand(count, n)
    rest = every[every != ground[:, None]].view(count, n - 1)
    off = matrices.clone()
    off.diagonal(dim1=1, dim2=2).zero_()
    leaving = off.sum(-1)
    leaving = torch.where(leaving == 0, 1.0, leaving)  # padding
    laplacian = torch.diag_embed(leaving) - off
    chains = torch.arange(count, device=matrices.device)[:, None, None]
    return laplacian[chains, rest[:, :, None], rest[:, None, :]], rest


def _grounded_laws(matrices: Tensor, ground: Tensor, closed: Tensor) -> Tensor:
    """Stationary laws (B, n) of large dense matrices, by one LU factorisation each."""
    matrix, rest = _grounded(matrices, ground)
    arriving = matrices[torch.arange(len(ground), device=ground.device), ground].gather(1, rest)
    x = torch.linalg.solve(matrix.mT, arriving)
    laws = torch.ones_like(matrices[:, 0]).scatter_(1, rest, x.clamp(min=0.0)) * closed
    return laws / laws.sum(-1, keepdim=True)


def _hitting_values(matrices: Tensor, laws: Tensor, ground: Tensor, v: Tensor) -> Tensor:
    """Expected centred `v` collected before the ground is hit: (I - P) z = v - (laws . v) 1, (B, n)."""
    matrix, rest = _grounded(matrices, ground)
    rhs = v - (laws * v).sum(-1, keepdim=True)
    return torch.zeros_like(v).scatter_(1, rest, torch.linalg.solve(matrix, rhs.gather(1, rest)))
