"""The optimal transition coupling of two chains: the public function, and what it returns."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from markovot import validate
from markovot.autograd.eager import eagerly
from markovot.autograd.implicit import Once
from markovot.average import gain
from markovot.average.gain import SolvedGain
from markovot.average.iteration import GainInputs
from markovot.average.operators import Sets
from markovot.average.recurrence import Phases, joint_classes, phases, support
from markovot.chains import chain_of
from markovot.costs import resolve_cost
from markovot.distances import couplings
from markovot.distances.answer import Answer, Details, solved_in_parts
from markovot.solution import Certified, OfChains, rounded, statuses
from markovot.solving.inputs import prepared
from markovot.solving.parts import Part, alone, located
from markovot.solving.problem import Pairing, Problem


@dataclass(frozen=True, eq=False, repr=False)
class TransitionCouplingSolution(OfChains, Certified):
    """The least long-run mean cost of two coupled chains, with its certificate and the coupling behind it.

    Attributes:
        value: the gain: the least mean cost per step in the long run (*batch), in units of the cost; differentiable.
        error_bound: certified: the true gain lies within it of `value` (*batch).
        status: a `Status`, or for a batch an array of them.
        num_iter: sweeps over all local problems, a tensor (*batch).
        gain: the least long-run mean cost from every pair of first states (*batch, n, m). It is `value` everywhere,
            unless the periods of both chains have a common divisor: then pairs fall into `classes` that are never left,
            each with a gain of its own, and `value` is the least. Each is as accurate as `value` was asked to be.
        classes: which pairs of states can meet in one run of the two chains: labels from 0 on, int64 (*batch, n, m); -1
            at padded states.
        bias: the relative cost to go h (*batch, n, m), `gain + h = D + OT(A, B; h)`: how much more it costs in total to
            start from a pair rather than from the best one of its class, where h is zero. No certificate.
        details: the data of the solve, and results that are computed on demand; for use within the package.
    """

    value: Tensor
    error_bound: Tensor
    num_iter: Tensor
    gain: Tensor
    classes: Tensor
    bias: Tensor
    details: Any

    @property
    def alignment(self) -> Tensor:
        """The stationary law of the optimally coupled chain, a probability on pairs of states (*batch, n, m).

        It couples the stationary laws of the two chains, and is the gradient of the gain in the cost. It says which
        states go together, and how often. Where the coupled chain has several recurrent classes that cost the same, it
        is the law of the largest one (of the first of these). Computed on first use by one linear solve.

        Raises:
            RuntimeError: it was not found, since the coupled chain mixes too slowly.
        """
        return self.details.alignment()

    @property
    def expected_cost(self) -> Tensor:
        """The mean ground cost under `alignment` (*batch): `value` without its entropic term.

        It is the cost of a transition coupling, so no less than the gain at epsilon = 0.
        """
        return self.details.expected_cost


@eagerly
def optimal_transition_coupling(
    x: Any,
    y: Any,
    cost: Any,
    *,
    epsilon: float | Tensor = 0.0,
    rtol: float = 1e-6,
    max_iter: int = 100,
    throw: bool = True,
) -> TransitionCouplingSolution:
    r"""The optimal transition coupling of two Markov chains: their distance in the long run.

    $$g = \min_P \min_{\lambda P = \lambda} \langle \lambda, D + \epsilon\, KL(P | A \otimes B) \rangle,
      \qquad g + h = D + OT_\epsilon(A, B; h),$$

    the least mean cost per step of the pair of states, over all chains P on pairs whose rows couple those of A and B,
    and their stationary laws. It is the limit of `discounted_wl(..., epsilon=0)` as delta goes to 0, and has no delta
    to choose. The initial laws of the chains play no part.

    Args:
        x: a chain with n states, or whatever `as_chain` accepts, or a batch of them; transition A, with one closed
            class of states. Periodic ones are welcome (see `gain` of the solution).
        y: the same with m states; transition B. Batch dimensions are broadcast.
        cost: ground cost D between states: a tensor (*batch, n, m), or an object of `markovot.costs`.
        epsilon: in units of the cost; a number or a tensor (*batch). 0 (default), for every item: exact transport, on
            the CPU only. Above it, each row pays for its distance from the independent coupling: then g lies above the
            exact gain, by at most epsilon times the mean entropy of the rows, `epsilon * log(degree)`.
        rtol: wanted certified error, relative to the range of the cost (to one where that is zero). Exact policy
            iteration ends after finitely many sweeps, so 1e-10 costs little more than the default.
        max_iter: sweeps over all local problems. 3 to 10 are usual.
        throw: raise a `SolveError` if some item did not converge, rather than return it with its status.

    Returns:
        A `TransitionCouplingSolution`, values in units of the cost.

    Raises:
        TypeError: integer or mixed dtypes, or something that is neither a chain nor a cost.
        ValueError: bad probabilities, costs, shapes or epsilon; a chain with several closed classes; states that are
            left for ever, in chains whose periods have a common divisor.
        SolveError: not converged (see `throw`).

    Note:
        Differentiable in the cost (and the features behind it), both transitions (dense: all entries, sparse: the
        stored ones), and epsilon; first order. Gradients in rows are centred. At epsilon = 0, or where classes tie,
        they are elements of the superdifferential: the gradient wherever the optimal coupling is unique. Where an input
        requires a gradient, one more step is taken past the tolerance.
        The items of a batch are solved one after another. Time: policy iteration, a sweep over all n m transport
        problems each step, of which the first is by far the longest at epsilon = 0, and one Poisson equation of
        matrix-free products. Memory O(n m (dx + dy)), dx and dy the largest degrees. Float64 whatever the dtype;
        deterministic.

    References:
        O'Connor, McGoff, Nobel: Optimal transport for stationary Markov chains via policy iteration (JMLR 2022).
        Puterman: Markov Decision Processes (1994), chapters 8 and 9.

    Example:
        >>> import torch, markovot
        >>> x = torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float64)
        >>> y = torch.tensor([[0.5, 0.5], [0.5, 0.5]], dtype=torch.float64)
        >>> cost = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
        >>> solution = optimal_transition_coupling(x, y, cost)
        >>> print(f"{solution.value.item():.4f}")
        0.4000
        >>> solution.alignment
        tensor([[0.3000, 0.2000],
                [0.2000, 0.3000]], dtype=torch.float64)
    """
    throw, (rtol, max_iter) = validate.flag("throw", throw), validate.accuracy(rtol, max_iter)
    x, y = chain_of("x", x), chain_of("y", y)
    ground = resolve_cost(cost, x, y)
    epsilon = validate.regularisation(epsilon, dtype=torch.float64, device=x.device)
    given = prepared((x, y), ground, epsilon, bounded=False)
    if not given.batch.numel():
        raise ValueError(
            f"x, y, cost, epsilon: a batch of shape {tuple(given.batch)} holds no problem. Give at least one."
        )
    classes = _JointClasses(given.pairing)

    def call(part: Part, derivatives: bool) -> Once[SolvedGain]:
        def solve(*tensors: Tensor) -> SolvedGain:
            problem = Problem(GainInputs(*(tensor.contiguous() for tensor in tensors)), part.pairing)
            return gain.solve(problem, classes.of(part), rtol, max_iter, polish=derivatives)

        return Once(solve)

    inputs = GainInputs(given.ground, given.x, given.y, given.epsilon)
    hidden = given.pairing.known is None  # inside a transform; the call refuses these
    parts = None if hidden else [alone(item, given.pairing) for item in range(given.batch.numel())]
    answer, found = solved_in_parts(given, inputs, call, parts=parts)
    solution = _package(answer, [value for (value,) in found])
    if throw:
        solution.raise_unless_converged(answer.wanted)
    return solution


class _JointClasses:
    """The joint classes of the pairs of a batch; each chain is analysed once."""

    def __init__(self, pairing: Pairing) -> None:
        self._pairing = pairing
        self._known: dict[tuple[str, int], Phases] = {}

    def of(self, part: Part) -> Sets:
        """The joint classes of the pair in a part."""
        assert part.items is not None, "every pair is a part of its own"
        item, found = int(part.items), []
        for name, chains, rows in zip("xy", self._pairing.pairs, part.pairing.rows, strict=True):
            key = name, int(chains[item])
            if key not in self._known:
                self._known[key] = phases(name, support(rows))
            found.append(self._known[key])
        return Sets(torch.from_numpy(joint_classes(*found)).to(part.items.device))


def _package(answer: Answer[SolvedGain], values: list[Tensor]) -> TransitionCouplingSolution:
    details, solved, shape = _Details(answer), answer.solved, answer.shape
    bounds = answer.costs([one.error_bound for one in solved])
    value, bound = rounded(answer.costs(values), bounds, details.dtype)
    labels = answer.joined([one.classes + 1 for one in solved], *shape) - 1
    return TransitionCouplingSolution(
        value=value.view(answer.batch),
        error_bound=bound.view(answer.batch),
        status=statuses(answer.status, answer.batch),
        num_iter=answer.joined([one.num_iter for one in solved]).view(answer.batch),
        gain=details.shaped(answer.costs([one.gain for one in solved], *shape)),
        classes=labels.view(*answer.batch, *shape),
        bias=details.shaped(answer.costs([one.bias for one in solved], *shape)),
        details=details,
    )


class _Details(Details[SolvedGain]):
    @cached_property
    def expected_cost(self) -> Tensor:
        """The mean ground cost under the alignment, (*batch)."""
        found = [(one.alignment() * one.problem.inputs.ground).flatten(1).sum(1) for one in self.answer.solved]
        return self.shaped(self.answer.costs(found))

    def _couplings(self, item: int, step: int) -> tuple[couplings.Entries, tuple[int, int], couplings.Chains]:
        """The plans of a pair, in the numbering of its own states; how many states it has; and its chains."""
        number, place = located(self.answer.parts, item)
        part, solved = self.answer.parts[number], self.answer.solved[number]
        return solved.couplings(place, step), part.shape, solved.problem.pairing.chains(place)
