"""Which engine solves the local problems."""

from typing import Any

import torch
from torch import Tensor

from markovot.transport.rows import Rows
from markovot.transport.shared_kernel import SharedKernelEngine

# On the CPU, matrix products overtake the compiled kernels where rows are this full (root mean square degrees).
DENSE_DEGREE = 40


def choose_engine(
    rows_x: Rows, rows_y: Rows, pair_x: Tensor, pair_y: Tensor, epsilon: Tensor, cost_range: Tensor
) -> Any:
    """The fastest engine that is safe for these chains, this epsilon and this range of ground costs.

    Compiled kernels on the CPU; matrix products for large dense chains, and on other devices, as long as
    `exp(-C / epsilon)` stays within floating point; padded gathers on other devices otherwise.
    """
    dense = min(_degree(rows_x), _degree(rows_y)) >= DENSE_DEGREE
    safe = SharedKernelEngine.is_safe(cost_range, epsilon)
    if rows_x.values.device.type == "cpu":
        if dense and safe:
            return SharedKernelEngine(rows_x, rows_y, pair_x, pair_y, epsilon)
        from markovot.transport.cpu import CompiledEngine

        return CompiledEngine(rows_x, rows_y, pair_x, pair_y, epsilon)
    from markovot.transport.gather import GatherEngine

    half_full = 2 * _degree(rows_x) >= rows_x.num_states and 2 * _degree(rows_y) >= rows_y.num_states
    engine = SharedKernelEngine if half_full and safe else GatherEngine
    return engine(rows_x, rows_y, pair_x, pair_y, epsilon)


def _degree(rows: Rows) -> float:
    return float((rows.degrees.double().square().sum() / rows.sizes.sum()).sqrt())
