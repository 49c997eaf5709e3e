"""Independent slow answers for small cases: those of the tests, and a linear programme for the average cost."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import scipy.optimize
from scipy.sparse import block_array, csr_array, eye_array, kron

from suite.problems import Task

TESTS = Path(__file__).resolve().parents[2] / "tests"


def oracles() -> Any:
    """The module of the tests."""
    if str(TESTS) not in sys.path:
        sys.path.insert(0, str(TESTS))
    return import_module("oracles")


def independent(kind: str, task: Task) -> float:
    """The value, by nothing that the package has a part in."""
    rows, cost = (task.rows_x.numpy(), task.rows_y.numpy()), task.cost.numpy()
    if kind == "average":
        return least_mean_cost(*rows, cost)
    laws = tuple(np.full(size, 1.0 / size) for size in cost.shape)
    if kind == "exact":
        return oracles().exact(oracles().Problem(*rows, cost, *laws, task.delta, 0.0))
    return entropic(*rows, cost, laws, task.delta, task.epsilon)


def entropic(
    A: np.ndarray, B: np.ndarray, D: np.ndarray, laws: tuple[np.ndarray, ...], delta: float, epsilon: float
) -> float:
    problem = oracles().Problem(A, B, D, *laws, delta, epsilon)
    return oracles().entropic(problem, "sinkhorn" if np.ptp(D) < 100 * epsilon else "dual", 1e-11).value


def exact(
    A: np.ndarray, B: np.ndarray, D: np.ndarray, laws: tuple[np.ndarray, ...], delta: float, epsilon: float
) -> tuple[float, float]:
    """The value at epsilon = 0 by a linear programme, and how far above it that at `epsilon` can be."""
    problem = oracles().Problem(A, B, D, *laws, delta, epsilon)
    return oracles().exact(problem), oracles().entropic_bias(problem)


def transport(a: np.ndarray, b: np.ndarray, cost: np.ndarray, epsilon: float) -> float:
    """The cost of the entropic plan."""
    found = (oracles().sinkhorn if np.ptp(cost) < 20 * epsilon else oracles().dual_transport)(a, b, cost, epsilon)
    return float((found.plan * cost).sum())


def least_mean_cost(A: np.ndarray, B: np.ndarray, D: np.ndarray) -> float:
    """Over stationary laws q of pairs and steps x from them, with rows that couple those of A and B.

    sum_l x_ijkl = q_ij A_ik, sum_k x_ijkl = q_ij B_jl, q_kl = sum_ij x_ijkl, sum q = 1: a linear programme.
    """
    n, m = D.shape
    size = n * m
    pairs, every = eye_array(size), np.ones((1, size))
    left = kron(pairs, kron(eye_array(n), np.ones((1, m))))  # rows (ij, k): sums over l
    right = kron(pairs, kron(np.ones((1, n)), eye_array(m)))  # rows (ij, l): sums over k
    from_a = csr_array((np.repeat(A, m, axis=0).ravel(), (np.arange(size * n), np.repeat(np.arange(size), n))))
    from_b = csr_array((np.tile(B, (n, 1)).ravel(), (np.arange(size * m), np.repeat(np.arange(size), m))))
    equal = block_array([[-from_a, left], [-from_b, right], [-pairs, kron(every, pairs)], [csr_array(every), None]])
    found = scipy.optimize.linprog(
        np.concatenate([D.ravel(), np.zeros(size * size)]),
        A_eq=equal.tocsr(),
        b_eq=np.append(np.zeros(equal.shape[0] - 1), 1.0),
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    assert found.success, found.message
    return float(found.fun)
