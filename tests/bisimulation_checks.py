"""Decision processes to compare, and slow answers from the definitions."""

from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from markovot.mdp import DecisionProcess
from oracles import dual_transport, exact_transport, random_rows

Array = np.ndarray


def process(transition: Any, reward: Any) -> DecisionProcess:
    """From nested lists or arrays, in float64."""
    rows, gains = (torch.as_tensor(np.asarray(part, dtype=np.float64)) for part in (transition, reward))
    return DecisionProcess(rows, gains)


def random_process(seed: int, n: int = 5, actions: int = 3, degree: int | None = None) -> DecisionProcess:
    """Random rows, of which every third is a deterministic step."""
    rng = np.random.default_rng(seed)
    rows = np.stack([random_rows(rng, n, degree) for _ in range(actions)])
    flat = rows.reshape(-1, n)
    flat[::3] = np.eye(n)[rng.integers(0, n, len(flat[::3]))]
    return process(rows, rng.uniform(-1, 1, (n, actions)))


def dense(model: DecisionProcess) -> tuple[Array, Array]:
    rows = torch.stack([chain.to_dense().transition for chain in model.chains])
    return rows.double().numpy(), model.reward.double().numpy()


def once(x: DecisionProcess, y: DecisionProcess, cost: Array, gamma: float, epsilon: float = 0.0) -> Array:
    """T(C), from the definition, one linear programme after another."""
    (P, r), (Q, s) = dense(x), dense(y)
    result = np.full(cost.shape, -np.inf)
    for a in range(len(P)):
        for i, j in np.ndindex(*cost.shape):
            p, q = P[a, i], Q[a, j]
            ot = exact_transport(p, q, cost) if epsilon == 0 else dual_transport(p, q, cost, epsilon).value
            result[i, j] = max(result[i, j], (1 - gamma) * abs(r[i, a] - s[j, a]) + gamma * float(ot))
    return result


def assert_fixed_point(
    x: DecisionProcess, y: DecisionProcess, value: Tensor, gamma: float, epsilon: float, error: float
) -> None:
    """T contracts with gamma, so |C - C*| <= |T(C) - C| / (1 - gamma)."""
    moved = once(x, y, value.numpy(), gamma, epsilon) - value.numpy()
    assert np.abs(moved).max() / (1 - gamma) <= error


def relation(P: list[list[list[Fraction]]], r: list[tuple[int, ...]]) -> Array:
    """The largest bisimulation, from the definition, in rational numbers."""
    n = len(r)
    related = np.array([[r[i] == r[j] for j in range(n)] for i in range(n)])
    while True:
        classes = {tuple(np.flatnonzero(row)) for row in related}
        finer = related.copy()
        for i, j in np.argwhere(related):
            for rows in P:
                finer[i, j] &= all(sum(rows[i][k] for k in c) == sum(rows[j][k] for k in c) for c in classes)
        if (finer == related).all():
            return related
        related = finer


def lifted(seed: int, states: int = 9, classes: int = 4, actions: int = 2) -> tuple[list[Any], list[tuple[int, ...]]]:
    """A random process on classes whose states share out their classes' chances in ways of their own."""
    rng = np.random.default_rng(seed)
    class_of = np.concatenate([np.arange(classes), rng.integers(0, classes, states - classes)])
    gains = [(c % 2, *(int(g) for g in rng.integers(0, 2, actions - 1))) for c in range(classes)]
    P = []
    for _ in range(actions):
        weights = rng.integers(0, 3, (classes, classes)) + np.eye(classes, dtype=int)
        rows = []
        for s in range(states):
            row = [Fraction(0)] * states
            for c in range(classes):
                members = np.flatnonzero(class_of == c)
                parts = rng.integers(0, 4, members.size) + (np.arange(members.size) == 0)
                for k, part in zip(members, parts, strict=True):
                    chance = Fraction(int(weights[class_of[s], c]), int(weights[class_of[s]].sum()))
                    row[k] += chance * Fraction(int(part), int(parts.sum()))
            rows.append(row)
        P.append(rows)
    return P, [gains[c] for c in class_of]
