"""Turn a prepared batch into a solution: solve it in parts, join these, and compute the rest only when asked."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, Self, TypeVar

import torch
from torch import Tensor

from markovot import validate
from markovot.autograd.transforms import recording
from markovot.distances import couplings
from markovot.solution import ChainSolution, HorizonSolution, Status, rounded, statuses
from markovot.solving.inputs import Chains, Prepared
from markovot.solving.parts import Part, divide, joined, listed, located
from markovot.solving.problem import Outputs, Solved, Walked
from markovot.transport.units import Unit

S = TypeVar("S", bound=Solved)
W = TypeVar("W", bound=Walked)
Kind = TypeVar("Kind", ChainSolution, HorizonSolution)
_HIDDEN = (
    "alignment, coupling: inside a transform such as torch.func.vmap they have no shape of their own. Give "
    "discounted_wl a batch; or take the gradient of the value in the cost, which is the alignment."
)


class Answer(NamedTuple, Generic[S]):
    """A solved batch, in parts."""

    parts: list[Part]
    solved: list[S]  # one for each part
    unit: Unit
    chains: Chains
    batch: torch.Size
    whole: torch.Size  # the shape of all solved items, of which vmap may hide a part

    @property
    def status(self) -> list[Status]:
        """The status of every item."""
        return listed(self.parts, lambda number: self.solved[number].status)

    @property
    def wanted(self) -> Tensor:
        """The error that every item was to meet, in units of the cost."""
        return self.costs([solved.wanted for solved in self.solved]).view(self.whole)

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of states n and m, padding included."""
        return self.chains[0].num_states, self.chains[1].num_states

    def joined(self, values: Sequence[Tensor], *sizes: int) -> Tensor:
        """The values of all items from those of each part, padded to the sizes; differentiable."""
        return joined(self.parts, values, *sizes)

    def costs(self, values: Sequence[Tensor], *sizes: int) -> Tensor:
        """The values as `joined` gives them, in units of the cost."""
        return self.unit.outside(self.joined(values, *sizes))


def solved_in_parts(
    given: Prepared, inputs: Any, make_call: Callable[[Part, bool], Any], *, parts: list[Part] | None = None
) -> tuple[Answer[Any], list[Any]]:
    """Solve a batch, and attach the gradient.

    Args:
        given: the batch.
        inputs: the tensors in which the outputs are differentiable, a named tuple.
        make_call: takes a part, and whether derivatives may be wanted, and returns the call that solves the part: an
            `Implicit` that keeps what it found as `solved`.
        parts: how the batch is cut. Default: items that are solved in the same way share a part.

    Returns:
        What was found, and the outputs of each call.
    """
    derivatives = recording(*inputs)
    parts = divide(given.pairing, inputs) if parts is None else parts
    calls = [make_call(part, derivatives) for part in parts]
    found = []
    for part, call in zip(parts, calls, strict=True):
        own = part.take(inputs)
        found.append(call(*own) if derivatives else call.solve(*(tensor.detach() for tensor in own)))
    solved, whole = [call.solved for call in calls], given.batch
    if calls[0].fold is not None:  # vmap hides its axes in the outputs; other values have them in front
        count = sum(len(one.wanted) for one in solved)
        whole = torch.Size((count // max(1, whole.numel()), *whole))
    return Answer(parts, solved, given.unit, given.chains, given.batch, whole), found


def packaged(answer: Answer[W], found: Sequence[Any], kind: type[Kind], *, throw: bool) -> Kind:
    """The solution of a distance from the outputs of its parts.

    Args:
        answer: what was solved.
        found: the `Outputs` of each part.
        kind: the class of the solution.
        throw: raise a `SolveError` if some item did not converge.
    """
    if throw and not all(status is Status.CONVERGED for status in answer.status):
        plain = answer._replace(batch=answer.whole)
        _package(plain, [Outputs.of(solved) for solved in answer.solved], kind).raise_unless_converged(answer.wanted)
    return _package(answer, found, kind)


def _package(answer: Answer[W], found: Sequence[Any], kind: type[Kind]) -> Kind:
    (n, m), details = answer.shape, Details(answer)
    value, cost_to_go, bound, num_iter, plan, f, g = zip(*found, strict=True)
    shown, error = rounded(answer.costs(value), answer.costs(bound), details.dtype)
    return kind(
        value=shown.view(answer.batch),
        error_bound=error.view(answer.batch),
        status=statuses(answer.status, answer.whole),
        num_iter=answer.joined(num_iter).view(answer.batch),
        plan=details.shaped(answer.joined(plan, n, m)),
        potentials=(details.shaped(answer.costs(f, n)), details.shaped(answer.costs(g, m))),
        cost_to_go=details.shaped(answer.costs(cost_to_go, n, m)),
        details=details,
    )


class Details(Generic[S]):
    """What a solution of chains was solved from, and what it computes only when asked."""

    def __init__(self, answer: Answer[S]) -> None:
        self.answer = answer
        self.dtype = answer.chains[0].dtype

    @property
    def chains(self) -> Chains:
        """The chains that were compared."""
        return self.answer.chains

    @property
    def unit(self) -> Unit:
        """What costs were measured in."""
        return self.answer.unit

    @property
    def solved(self) -> S:
        """What the solver found for a single pair."""
        return self.answer.solved[0]

    def detached(self) -> Self:
        """The same without any autograd graph."""
        x, y = self.chains
        return type(self)(self.answer._replace(chains=(x.detach(), y.detach())))

    def shaped(self, values: Tensor) -> Tensor:
        """Values of the items, as the solution shows them."""
        return values.to(self.dtype).view((*self.answer.batch, *values.shape[1:]))

    @property
    def cost_to_go_error(self) -> Tensor:
        """The certified error of every entry of the costs to go, (*batch)."""
        self._refuse_hidden()
        solved: list[Any] = self.answer.solved
        cost = self.answer.costs([one.cost_to_go for one in solved], *self.answer.shape)
        error = self.answer.costs([one.cost_error for one in solved])
        return rounded(cost, error, self.dtype)[1].view(self.answer.batch)

    def alignment(self) -> Tensor:
        """The law of the optimally coupled states, (*batch, n, m)."""
        self._refuse_hidden()
        return self.shaped(self.answer.joined([one.alignment() for one in self.answer.solved], *self.answer.shape))

    def coupling(self, i: int, j: int, step: int = 0) -> Tensor:
        """The optimal coupling of two rows at a step, (n, m)."""
        self._refuse_hidden()
        couplings.check_pair(self.answer.batch, self.answer.shape, (i, j))
        self._check_step("coupling", step)
        entries, shape, chains = self._couplings(0, step)
        return couplings.of_states(entries, shape, chains, (i, j), self.dtype)

    def transition_coupling(self, item: int, step: int = 0) -> Any:
        """The coupled chain of an item at a step, (nm, nm)."""
        self._refuse_hidden()
        couplings.check_item(item, self.answer.batch.numel())
        self._check_step("transition_coupling", step)
        return couplings.of_chains(*self._couplings(item, step))

    def _couplings(self, item: int, step: int) -> tuple[couplings.Entries, tuple[int, int], couplings.Chains]:
        """The plans of an item, numbered as in the batch; the numbers of states in the batch; and the item's chains."""
        number, place = located(self.answer.parts, item)
        part, solved = self.answer.parts[number], self.answer.solved[number]
        found = part.entries(solved.couplings(place, step), self.answer.shape[1])
        return found, self.answer.shape, solved.problem.pairing.chains(place)

    def _check_step(self, name: str, step: int) -> None:
        validate.count("step", step, low=-validate.LARGEST)
        if not 0 <= step <= self.solved.last_step:
            raise IndexError(
                f"{name}: no step {step} in a walk of at most {self.solved.last_step + 1} steps. They count from 0."
            )

    def _refuse_hidden(self) -> None:
        if self.answer.whole != self.answer.batch:
            raise NotImplementedError(_HIDDEN)
