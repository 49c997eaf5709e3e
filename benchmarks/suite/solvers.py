"""Each package, given the same problem and, where it has a tolerance, the same accuracy.

A solver prepares a task (not timed), solves it (timed), and may give its gradients (timed).
"""

import contextlib
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from suite import cases
from suite.problems import Task, adjacency

RTOL = 1e-4  # wanted of every solver that has a tolerance, relative to the range of the cost


@dataclass
class Answer:
    """A value, and what the package says about it."""

    value: float
    error: float | None = None  # certified
    status: str = ""
    num_iter: int | None = None


@dataclass
class Solver:
    """`backward` gives (seconds of backward, gradient in the cost, what it is in); it may raise."""

    prepare: Callable[[Task], Any]
    solve: Callable[[Any], Answer]
    backward: Callable[[Task], tuple[float, np.ndarray]] | None = None
    gradients_in: str = ""


# --- ours


def _pair(task: Task, *, grad: bool = False) -> tuple[Any, Any, torch.Tensor]:
    from markovot import MarkovChain

    pair = []
    for rows, sparse in ((task.rows_x, task.sparse_x), (task.rows_y, task.sparse_y)):
        transition = rows.to_sparse_csr() if sparse else rows.clone()
        law = torch.full((len(rows),), 1 / len(rows), dtype=rows.dtype, requires_grad=grad)
        pair.append(MarkovChain.from_transitions(transition.requires_grad_(grad), initial=law))
    return pair[0], pair[1], task.cost.clone().requires_grad_(grad)


def _ours(kind: str, rtol: float) -> Solver:
    def run(task: Task, x: Any, y: Any, cost: torch.Tensor) -> Any:
        import markovot

        if kind == "average":
            return markovot.optimal_transition_coupling(x, y, cost, rtol=rtol, throw=False)
        return markovot.discounted_wl(
            x, y, cost, delta=task.delta, epsilon=task.epsilon,
            rtol=rtol, throw=False,
        )  # fmt: skip

    def solve(given: tuple[Task, tuple[Any, Any, torch.Tensor]]) -> Answer:
        found = run(given[0], *given[1])
        return Answer(found.value.item(), found.error_bound.item(), found.status.name, int(found.num_iter))

    def backward(task: Task) -> tuple[float, np.ndarray]:
        x, y, cost = _pair(task, grad=True)
        value = run(task, x, y, cost).value
        start = time.perf_counter()
        value.backward()
        return time.perf_counter() - start, cost.grad.numpy()

    inputs = "cost, both transitions" + ("" if kind == "average" else ", both laws")
    return Solver(lambda task: (task, _pair(task)), solve, backward, inputs)


# --- ot-markov-distances


def _markov_distances(tight: bool) -> Solver:
    """In its own single precision, with its default settings or with ours.

    The defaults are looser: at most 50 outer steps of at most 100 Sinkhorn steps, and a step of .5 % of
    the value stops it. `tight` asks for what we certify. It stops by the step between iterates of a map that
    contracts by 1 - delta, and returns the one before: an error of 1e-4 of the range needs a step of that times delta.
    """

    def prepare(task: Task) -> tuple[Any, ...]:
        laws = [torch.full((1, size), 1.0 / size) for size in task.cost.shape]
        step = RTOL * task.range * task.delta
        options: dict[str, Any] = {"delta": task.delta, "sinkhorn_reg": task.epsilon}
        if tight:
            options |= {"max_iter": 1000, "sinkhorn_iter": 1000}
            options |= {"convergence_threshold_rtol": 0.0, "convergence_threshold_atol": step}
        return (task.rows_x.float()[None], task.rows_y.float()[None], task.cost.float()[None], laws, options)

    def run(given: tuple[Any, ...]) -> torch.Tensor:
        from ot_markov_distances import discounted_wl_infty

        torch.manual_seed(0)  # it starts from random potentials
        x, y, cost, laws, options = given
        return discounted_wl_infty(x, y, cost, *laws, **options)

    def backward(task: Task) -> tuple[float, np.ndarray]:
        """All that it gives: the rows of a dense chain, if the other is sparse, or said to be (see suite.claims)."""
        x, y, cost, laws, options = prepare(task)
        dense_x, dense_y = not _takes_for_sparse(task.rows_x), not _takes_for_sparse(task.rows_y)
        if dense_x and dense_y:
            options, dense_y = options | {"y_is_sparse": True}, False
        for each in (cost, *laws, *([x] if dense_x else []), *([y] if dense_y else [])):
            each.requires_grad_()
        value = run((x, y, cost, laws, options)).sum()
        start = time.perf_counter()
        value.backward()
        return time.perf_counter() - start, cost.grad[0].numpy()

    return Solver(prepare, lambda given: Answer(run(given).item()), backward, "cost, both laws, rows of a dense chain")


def _takes_for_sparse(rows: torch.Tensor) -> bool:
    """Its rule for `x_is_sparse=None`: no row has two thirds of its entries above zero."""
    return int((rows > 0).sum(1).max()) < 2 / 3 * len(rows)


# --- POT


def _supports(rows: torch.Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
    array = rows.numpy()
    return [(np.flatnonzero(row), row[row > 0]) for row in array]


def emd_loop(task: Task) -> Answer:
    """Value iteration, each local problem by `emd2` on the supports of the two rows."""
    import ot

    x, y, cost, delta = _supports(task.rows_x), _supports(task.rows_y), task.cost.numpy(), task.delta
    step, found, count = RTOL * task.range * delta / (1 - delta), cost, 0
    while True:
        local = [[ot.emd2(a, b, found[np.ix_(k, el)]) for el, b in y] for k, a in x]
        old, found, count = found, delta * cost + (1 - delta) * np.array(local), count + 1
        if np.abs(found - old).max() <= step:
            break
    laws = (np.full(size, 1.0 / size) for size in cost.shape)
    return Answer(float(ot.emd2(*laws, found)), num_iter=count)


def _fused(task: Task) -> Answer:
    import ot

    graphs = adjacency(task.rows_x), adjacency(task.rows_y)
    value = ot.gromov.fused_gromov_wasserstein2(task.cost.numpy(), *graphs, loss_fun="square_loss", alpha=0.5)
    return Answer(float(value))


# --- pyotc


def _pyotc(task: Task) -> Answer:
    from pyotc import exact_otc

    arrays = (task.rows_x.numpy(), task.rows_y.numpy(), task.cost.numpy())
    with contextlib.redirect_stdout(io.StringIO()):
        value, _, _ = exact_otc(*arrays, stat_dist=None)  # its own law of the coupling, a linear programme, left out
    if value is None:
        raise ArithmeticError("it returned None: not converged")
    return Answer(float(value))


def _same(task: Task) -> Task:
    return task


def solver(package: str, kind: str, rtol: float = RTOL) -> Solver:
    """How a package solves one kind of problem."""
    if package == cases.OURS:
        return _ours(kind, rtol)
    if package in (cases.OMD, cases.TIGHT):
        return _markov_distances(package == cases.TIGHT)
    return Solver(_same, {cases.POT_LOOP: emd_loop, cases.FGW: _fused, cases.PYOTC: _pyotc}[package])
