"""From a `Problem` of the oracles to the package's public function, and back; and what a data set has solved."""

import functools
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

import markovot
from markovot import MarkovChain, Solution
from markovot.pairwise import running
from markovot.solving import adjoint
from markovot.solving.bellman import Bellman, Enclosure
from markovot.solving.fixed_point import iterate
from oracles import FIELDS, Problem

DENSE, SPARSE, MIXED = ("dense", "dense"), ("sparse", "sparse"), ("dense", "sparse")


# torch says once per process that sparse tensors are in beta: hear it here, not in the first test to use one.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch.sparse_coo_tensor([[0], [0]], [1.0], (1, 1)).to_sparse_csr()


def csr(rows: Tensor) -> Tensor:
    """The rows as a compressed sparse tensor."""
    return rows.to_sparse_csr()


def chain(transition: Tensor, initial: Tensor | str, layout: str = "dense") -> MarkovChain:
    """A chain in the wanted layout; in the sparse one, the gradient still reaches the dense `transition`.

    The stored entries are those above zero.
    """
    if layout == "sparse":
        where = transition.detach().nonzero(as_tuple=True)
        rows = torch.sparse_coo_tensor(torch.stack(where), transition[where], transition.shape, is_coalesced=True)
        return MarkovChain.from_transitions(rows, initial=initial)
    return MarkovChain.from_transitions(transition, initial=initial)


def solve_tensors(inputs: dict[str, Any], layouts: Sequence[str] = DENSE, **options: Any) -> Solution:
    """`discounted_wl` of the tensors A, B, D, nu, mu, delta, epsilon; a law may be "stationary"."""
    x = chain(inputs["A"], inputs["nu"], layouts[0])
    y = chain(inputs["B"], inputs["mu"], layouts[1])
    return markovot.discounted_wl(x, y, inputs["D"], delta=inputs["delta"], epsilon=inputs["epsilon"], **options)


def solve(problem: Problem, layouts: Sequence[str] = DENSE, *, rtol: float = 1e-10, **options: Any) -> Solution:
    """`discounted_wl` of a problem."""
    return solve_tensors(problem.tensors(), layouts, rtol=rtol, **options)


def middle_step(bellman: Bellman, enclosure: Enclosure, forcing: Tensor, active: Tensor) -> Tensor:
    """The step of value iteration, for `fixed_point.iterate`: to the middle of the enclosure."""
    middle = (0.5 * (enclosure.low + enclosure.high))[:, None, None]
    return middle.expand_as(enclosure.base) if bellman.mask is None else middle * bellman.mask


@contextmanager
def value_iteration() -> Iterator[None]:
    """Distances are found by repeated sweeps, slower and with less that could be wrong than by Newton's method."""
    with mock.patch.object(adjoint, "iterate", functools.partial(iterate, step=middle_step)):
        yield


def gradients(
    problem: Problem,
    layouts: Sequence[str] = DENSE,
    *,
    names: Sequence[str] = FIELDS,
    laws: str = "given",
    rtol: float = 1e-11,
) -> dict[str, Tensor]:
    """The gradient of the value in the named inputs; `laws` may replace nu and mu by "stationary"."""
    inputs: dict[str, Any] = problem.tensors()
    wanted = {name: inputs[name].requires_grad_() for name in names}
    if laws != "given":
        inputs |= {"nu": laws, "mu": laws}
    solve_tensors(inputs, layouts, rtol=rtol).value.backward()
    return {name: leaf.grad for name, leaf in wanted.items()}


def cost_range(problem: Problem) -> float:
    """What `rtol` is relative to: max D - min D, or one for a constant cost."""
    return float(np.ptp(problem.D)) or 1.0


def blocks_solved(monkeypatch: Any) -> list[int]:
    """A list that grows by the number of pairs of each block that `distance_matrix` solves from now on."""
    seen: list[int] = []
    real = running.solve_block

    def counted(block: Any, setting: Any) -> Any:
        seen.append(len(block.pairs))
        return real(block, setting)

    monkeypatch.setattr(running, "solve_block", counted)
    return seen
