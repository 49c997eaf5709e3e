"""Solve for the distance at a random time, in parts, and package what comes out."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from markovot import validate
from markovot.autograd.implicit import implicit
from markovot.autograd.transforms import is_wrapped, recording
from markovot.chains import MarkovChain
from markovot.distances import couplings
from markovot.solution import ChainSolution, rounded, statuses
from markovot.solving import recursion
from markovot.solving.fixed_point import Solver
from markovot.solving.inputs import common_inputs, layout, measured
from markovot.solving.parts import Part, divide, joined, listed, located
from markovot.solving.recursion import Inputs, Problem, Solved
from markovot.transport.units import Unit


@dataclass(frozen=True, eq=False, repr=False)
class HorizonSolution(ChainSolution):
    """The distance of two Markov chains at a random time T, with the optimal couplings behind it.

    Attributes:
        cost_to_go: C^(0), the distance from every pair of first states (*batch, n, m); differentiable.
    """

    @property
    def alignment(self) -> Tensor:
        """The law of (X_T, Y_T) for the optimally coupled chains, a probability on pairs of states (*batch, n, m).

        It says how the states of X and Y correspond, and it is the gradient of the distance in the cost. Computed on
        first use by one pass over the levels.
        """
        return self._details.alignment()

    def coupling(self, i: int, j: int, step: int = 0) -> Tensor:
        """The optimal coupling of the rows `x[i]` and `y[j]` at a step: it changes with the time that is left.

        Args:
            i: a state of x, counted from 0.
            j: a state of y.
            step: from time `step` to `step + 1`.

        Returns:
            A dense tensor (n, m) with marginals `x[i]` and `y[j]`.

        Raises:
            ValueError: the solution is of a batch; `transition_coupling(item)` serves these.
            IndexError: no such states; no such step.
        """
        return self._details.coupling(i, j, step)

    def transition_coupling(self, item: int = 0, step: int = 0) -> Any:
        """The optimal coupled chain on pairs of states at a step: a SciPy sparse array (nm, nm), rows summing to one.

        Args:
            item: which item of a batch, counted in row-major order.
            step: from time `step` to `step + 1`. From the last level of a law with a tail on, it stays the same.

        Returns:
            A `scipy.sparse.csr_array`. Row `i * m + j` holds the coupling of `x[i]` and `y[j]`, column `k * m + l` the
            next pair. Computed at each call, by one sweep over the local problems.

        Raises:
            IndexError: no such item; no such step.
        """
        return self._details.transition_coupling(item, step)


def distance(
    chains: tuple[MarkovChain, MarkovChain],
    ground: Tensor,
    horizon: tuple[Tensor, Tensor | None, Tensor],
    batch: torch.Size,
    solver: Solver,
    *,
    throw: bool,
) -> HorizonSolution:
    """Solve, attach the gradient, and package; `horizon` are the hazards, the tail and epsilon."""
    hazards, tail, epsilon = horizon
    common, place = common_inputs(*chains, ground, batch), layout(*chains, batch)
    scale = measured(common.ground, epsilon.expand(batch).reshape(-1), place.mask)
    inputs = Inputs(
        scale.ground,
        *common[1:],
        hazards.expand(*batch, hazards.shape[-1]).reshape(batch.numel(), hazards.shape[-1]),
        (torch.ones_like(epsilon) if tail is None else tail).expand(batch).reshape(-1),
        scale.epsilon,
    )
    polish = recording(*inputs)
    parts = divide(place, None if is_wrapped(scale.ground) else (chains[0].rows(), chains[1].rows()), inputs)
    found = [_solve(part, part.take(inputs), solver, has_tail=tail is not None, polish=polish) for part in parts]
    solution = _package(parts, found, scale.unit, batch, chains)
    if throw:
        wanted = scale.unit.outside(joined(parts, [one.solved.wanted for one in found]))
        solution.raise_unless_converged(wanted.view(batch))
    return solution


class _Found(NamedTuple):
    """What one part gives."""

    solved: Solved
    value: Tensor  # differentiable, (k,)
    cost_to_go: Tensor  # differentiable, (k, n, m)


def _solve(part: Part, inputs: Inputs, solver: Solver, *, has_tail: bool, polish: bool) -> _Found:
    """Solve a part of the batch, and attach the gradient."""
    solved: Solved | None = None

    def run(*tensors: Tensor) -> tuple[tuple[Tensor, Tensor], Any]:
        nonlocal solved
        assert part.rows is not None, "transforms are refused before"
        given = Inputs(*(tensor.contiguous() for tensor in tensors))
        solved = recursion.solve(Problem(given, part.rows, *part.layout, has_tail=has_tail), solver, polish=polish)
        return (solved.value, solved.cost_to_go), solved.pullback

    if polish:
        value, cost_to_go = implicit(run, *inputs)
    else:
        (value, cost_to_go), _ = run(*(tensor.detach() for tensor in inputs))
    assert solved is not None
    return _Found(solved, value, cost_to_go)


def _package(
    parts: list[Part],
    found: list[_Found],
    unit: Unit,
    batch: torch.Size,
    chains: tuple[MarkovChain, MarkovChain],
) -> HorizonSolution:
    """The solution of a batch from those of its parts."""
    (n, m), dtype = (chain.num_states for chain in chains), chains[0].dtype
    solved, values, costs = zip(*found, strict=True)
    details = _Details(parts, list(solved), unit, batch, chains)
    value, bound = (unit.outside(joined(parts, each)) for each in (values, [one.error_bound for one in solved]))
    value, bound = rounded(value, bound, dtype)
    f, g = joined(parts, [one.outer.f for one in solved], n), joined(parts, [one.outer.g for one in solved], m)
    return HorizonSolution(
        value=value.view(batch),
        error_bound=bound.view(batch),
        status=statuses(listed(parts, lambda number: solved[number].status), batch),
        num_iter=joined(parts, [one.num_iter for one in solved]).view(batch),
        plan=details.shaped(joined(parts, [one.outer.plan for one in solved], n, m)),
        potentials=(details.shaped(unit.outside(f)), details.shaped(unit.outside(g))),
        cost_to_go=details.shaped(unit.outside(joined(parts, costs, n, m))),
        _details=details,
    )


class _Details:
    """What a solution computes only when asked."""

    def __init__(
        self,
        parts: list[Part],
        solved: list[Solved],
        unit: Unit,
        batch: torch.Size,
        chains: tuple[MarkovChain, MarkovChain],
    ) -> None:
        self.chains = chains
        self._parts = parts
        self._solved = solved
        self._unit = unit
        self._batch = batch
        self._dtype = chains[0].dtype
        self._shape = chains[0].num_states, chains[1].num_states

    @property
    def answer(self) -> Any:
        return self.solved

    @property
    def solved(self) -> Any:
        raise TypeError(
            "solution: it is of a finite horizon or of one with a law of its own, and here only a solution of "
            "discounted_wl of depth infinity will do."
        )

    @property
    def cost_to_go_error(self) -> Tensor:
        cost = joined(self._parts, [solved.cost_to_go for solved in self._solved], *self._shape)
        error = joined(self._parts, [solved.cost_error for solved in self._solved])
        return rounded(self._unit.outside(cost), self._unit.outside(error), self._dtype)[1].view(self._batch)

    def shaped(self, values: Tensor) -> Tensor:
        return values.to(self._dtype).view(*self._batch, *values.shape[1:])

    def alignment(self) -> Tensor:
        return self.shaped(joined(self._parts, [solved.occupation() for solved in self._solved], *self._shape))

    def _couplings(self, item: int, step: int) -> tuple[couplings.Entries, couplings.Chains]:
        number, place = located(self._parts, item)
        part, solved = self._parts[number], self._solved[number]
        return part.entries(solved.couplings(place, step), self._shape[1]), solved.problem.chains(place)

    def coupling(self, i: int, j: int, step: int) -> Tensor:
        couplings.check_pair(self._batch, self._shape, (i, j), instead="transition_coupling(item, step)")
        self._check_step("coupling", step)
        entries, chains = self._couplings(0, step)
        return couplings.of_states(entries, self._shape, chains, (i, j), self._dtype)

    def transition_coupling(self, item: int, step: int) -> Any:
        couplings.check_item(item, self._batch.numel())
        self._check_step("transition_coupling", step)
        entries, chains = self._couplings(item, step)
        return couplings.of_chains(entries, self._shape, chains)

    def _check_step(self, name: str, step: int) -> None:
        problem = self._solved[0].problem
        validate.count("step", step, low=-validate.LARGEST)
        if step < 0 or (step >= problem.depth and not problem.has_tail):
            raise IndexError(f"{name}: no step {step} in a walk of at most {problem.depth} steps. They count from 0.")
