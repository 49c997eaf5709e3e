"""Blocks of pairs: what one worker, a thread or a machine far away, solves at a time."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from markovot import validate
from markovot._arrays import FloatArray, IntArray
from markovot.costs import Cost, Given
from markovot.costs.ground import not_a_cost
from markovot.pairwise.collection import Packed
from markovot.pairwise.solution import INVALID, STATUSES
from markovot.solution import Status
from markovot.solving import adjoint
from markovot.solving.inputs import measured
from markovot.solving.problem import Entries, Inputs, Pairing, Problem
from markovot.transport.rows import Rows
from markovot.transport.threads import own_threads

_CODE = {status: number for number, status in enumerate(STATUSES)}


class PairSetting(NamedTuple):
    """The settings that all pairs share."""

    cost: Cost
    delta: float
    epsilon: float
    rtol: float
    max_iter: int


class Block(NamedTuple):
    """Pairs (q, 2) of chains: number `pairs[:, 0]` of `xs` and `pairs[:, 1]` of `ys` (None: of `xs` too)."""

    xs: list[Packed]
    ys: list[Packed] | None
    pairs: IntArray
    compiled: bool  # whether the pairs are small enough for the kernel that solves them whole


class Found(NamedTuple):
    """The pairs of a block: distance, certified error, the number of a status in `STATUSES`, and sweeps."""

    value: FloatArray
    error_bound: FloatArray
    status: NDArray[np.uint8]
    num_iter: IntArray


def solve_block(block: Block, setting: PairSetting) -> Found:
    """Solve a block. Deterministic: the result of a pair does not depend on the other pairs."""
    if block.compiled:
        with own_threads(), torch.no_grad():
            return _solve_compiled(block, setting)
    with torch.no_grad():
        ys = block.xs if block.ys is None else block.ys
        parts = [_solve_alone(block.xs[a], ys[b], setting) for a, b in block.pairs.tolist()]
    value, bound, status, num_iter = (np.array(column) for column in zip(*parts, strict=True))
    return Found(value, bound, status.astype(np.uint8), num_iter)


def _solve_compiled(block: Block, setting: PairSetting) -> Found:
    # Compiled code takes half a second to load, and is not needed to make a block.
    from markovot.transport.compiled import pairs

    xs = pairs.members(*_rows(block.xs))
    ys = xs if block.ys is None else pairs.members(*_rows(block.ys))
    table = ground(setting.cost, block.xs, block.xs if block.ys is None else block.ys)
    task = pairs.Task(
        setting.delta, setting.epsilon, setting.rtol, adjoint.FIXED_POINT_SHARE, 1 - adjoint.FIXED_POINT_SHARE
    )
    found = pairs.solve_pairs(block.pairs, xs, ys, table, task, setting.max_iter)
    reached, wanted = torch.from_numpy(found.error_bound + 0.0 * found.value), torch.from_numpy(found.wanted)
    ended = Status.each(reached, wanted, torch.from_numpy(found.num_iter >= setting.max_iter))
    status = np.array([_CODE[each] for each in ended], dtype=np.uint8)
    status[np.isnan(found.wanted)] = INVALID
    return Found(found.value, found.error_bound, status, found.num_iter)


def _rows(chains: list[Packed]) -> tuple[Rows, FloatArray]:
    """Transition rows of several chains in one padded store, and their laws one after another."""
    sizes = np.array([chain.num_states for chain in chains])
    first = np.cumsum([0] + [chain.num_entries for chain in chains])
    indptr = np.empty((len(chains), int(sizes.max()) + 1), dtype=np.int64)
    for row, chain, start in zip(indptr, chains, first[:-1], strict=True):
        row[: chain.num_states + 1] = chain.indptr + start
        row[chain.num_states + 1 :] = start + chain.num_entries
    indices, weight, law = (
        np.concatenate([getattr(chain, name) for chain in chains]) for name in ("indices", "weight", "law")
    )
    sizes_, indptr_, indices_, weight_ = (torch.from_numpy(part) for part in (sizes, indptr, indices, weight))
    return Rows(sizes_, indptr_, indices_, weight_), law


def ground(cost: Cost, xs: list[Packed], ys: list[Packed]) -> FloatArray:
    """Ground costs between all states of `xs` and all of `ys`."""
    if isinstance(cost, Given):
        return np.tile(cost().detach().double().numpy(), (len(xs), len(ys)))
    features = [
        torch.from_numpy(np.concatenate([chain.features for chain in chains if chain.features is not None]))
        for chains in (xs, ys)
    ]
    vectors = (f if f.ndim > 1 else f[:, None] for f in features)
    return np.ascontiguousarray(cost(*vectors).double().numpy())


def _solve_alone(x: Packed, y: Packed, setting: PairSetting) -> tuple[float, float, int, int]:
    """Solve one large pair by the engines, which use several threads for it."""
    costs = torch.from_numpy(ground(setting.cost, [x], [y]))[None]
    if not bool(torch.isfinite(costs).all()):
        return np.nan, np.nan, INVALID, 0
    (rows_x, law_x), (rows_y, law_y) = _rows([x]), _rows([y])
    parameters = torch.tensor([[setting.delta], [setting.epsilon]], dtype=torch.float64, device="cpu")
    scale = measured(costs, parameters[1], None)
    laws = torch.from_numpy(law_x)[None], torch.from_numpy(law_y)[None]
    inputs = Inputs(scale.ground, rows_x.values, rows_y.values, *laws, parameters[0], scale.epsilon)
    item = torch.zeros(1, dtype=torch.int64, device="cpu")
    pairing = Pairing((item, item), (_whole(x), _whole(y)), None, (rows_x, rows_y))
    solved = adjoint.solve(Problem(inputs, pairing), setting.rtol, setting.max_iter)
    value, bound = scale.unit.outside(solved.value), scale.unit.outside(solved.error_bound)
    return float(value), float(bound), _CODE[solved.status[0]], int(solved.num_iter)


def _whole(chain: Packed) -> Entries:
    mask: Tensor = torch.ones(1, chain.num_states, dtype=torch.bool, device="cpu")
    return Entries(None, mask)


def checked(cost: object, delta: float, epsilon: float, rtol: float, max_iter: int) -> PairSetting:
    """Check cost, discount, regularisation and accuracy, and return them as a `Setting`."""
    if not isinstance(cost, Cost):
        hint = "A matrix between states that all chains share is costs.Given(matrix)."
        raise not_a_cost("an object such as costs.ZeroOne()", cost, hint)
    return PairSetting(cost, *validate.single_numbers(delta, epsilon), *validate.accuracy(rtol, max_iter))
