r"""Which states, and which transitions, a distance comes from.

**States.** Scale the cost D and epsilon by one factor t: every transport cost, C*, and the distance d scale with it.
Differentiating `d(tD, t eps) = t d(D, eps)` at t = 1 (Euler's theorem on homogeneous functions) gives

    d = <grad D, D> + eps grad eps = <delta L, D> + eps ((1 - delta) <L, KL> + KL_0)

with the gradients of `solving.adjoint`, where L is the discounted occupation of the optimal coupling, KL the relative
entropies of its transitions, and KL_0 that of its initial law. So the alignment delta L times the ground cost is a sum
over pairs of states that makes up the distance, but for the entropic rest.

**Transitions.** Let x be a walk on a graph with weights `w`, `A_kl = w_kl / sum_h w_kh`. Then

    d value / d log w_kl = A_kl (G_kl - sum_h A_kh G_kh),        G = d value / d A

is the change of the distance for a relative growth of that weight. It does not depend on the constant in each row up to
which G is defined, and its rows sum to zero. Where the initial law is the stationary one of A, G includes what passes
through that law.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from markovot import validate
from markovot.chains import MarkovChain, stationary
from markovot.chains.compressed import Compressed
from markovot.chains.names import full_names
from markovot.solution import ChainSolution, HorizonSolution
from markovot.solving.adjoint import SolvedDistance
from markovot.solving.problem import Inputs
from markovot.transport.units import Unit

__all__ = ["Explanation", "StatePair", "TransitionEffect", "explain"]

# Contributions that differ by less than this share of the largest one tie: the difference is rounding.
_DIGITS = 1e9


class StatePair(NamedTuple):
    """Two states that meet, and how much they add to the distance; `str` gives it in words.

    Attributes:
        state_x: the state of x, counted from 0.
        state_y: the state of y.
        name_x: what the state of x is called.
        name_y: what the state of y is called.
        mass: how much of the alignment the pair carries.
        cost: the ground cost between the two.
        contribution: `mass * cost`.
        share: the share of the distance.
    """

    state_x: int
    state_y: int
    name_x: str
    name_y: str
    mass: float
    cost: float
    contribution: float
    share: float

    def __str__(self) -> str:
        return (
            f"{self.name_x} of x with {self.name_y} of y: {self.contribution:.3g}, {100 * self.share:.2g} % of the "
            f"distance (mass {self.mass:.3g}, cost {self.cost:.3g})"
        )


class TransitionEffect(NamedTuple):
    """A transition, and how the distance changes with its weight; `str` gives it in words.

    Attributes:
        chain: "x" or "y".
        source: the state it leaves, counted from 0.
        target: the state it enters.
        source_name: what the state it leaves is called.
        target_name: what the state it enters is called.
        probability: the probability of the transition.
        effect: the change of the distance for a relative growth of the transition's weight.
    """

    chain: str
    source: int
    target: int
    source_name: str
    target_name: str
    probability: float
    effect: float

    def __str__(self) -> str:
        more = "further apart" if self.effect > 0 else "closer together"
        return (
            f"{self.source_name} to {self.target_name} in {self.chain} (probability {self.probability:.3g}): "
            f"{self.effect:+.3g}, more of it brings the chains {more}"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """What a distance comes from: `explain` returns it, and `plot.explanation` draws it.

    All tensors are float64, detached, and on the chains' device. All are in units of the cost,
    except `alignment`, which is mass.

    Attributes:
        value: the distance.
        error_bound: certified: the true distance lies within it of `value`.
        entropy: the part of the distance that is entropy. `contributions.sum() + entropy` is `value`, up to what the
            solver's `rtol` allows.
        alignment: how much of each state of x goes with each state of y (n, m); sums to one.
        contributions: `alignment` times the ground cost (n, m).
        transition_x: the change of the distance for a relative growth of the weight of each transition of x (n, n):
            positive where more of it sets the chains further apart. Rows sum to zero; zero where x does not move.
        transition_y: the same for y (m, m).
        x: the first chain.
        y: the second chain.
        label_names: the names of the features 0, 1, ..., if given.
    """

    value: Tensor
    error_bound: Tensor
    entropy: Tensor
    alignment: Tensor
    contributions: Tensor
    transition_x: Tensor
    transition_y: Tensor
    x: MarkovChain
    y: MarkovChain
    label_names: tuple[str, ...] | None = None

    @property
    def state_x(self) -> Tensor:
        """What each state of x adds to the distance, (n,): its contributions, summed over the states of y."""
        return self.contributions.sum(1)

    @property
    def state_y(self) -> Tensor:
        """What each state of y adds to the distance, (m,)."""
        return self.contributions.sum(0)

    @property
    def mean_cost_x(self) -> Tensor:
        """The mean cost that the walker on x meets while it stands on each state, (n,).

        `state_x` relative to the state's mass: how badly the state is matched, however often it is visited. NaN where
        the walker never stands.
        """
        return self.state_x / self.alignment.sum(1)

    @property
    def mean_cost_y(self) -> Tensor:
        """The mean cost that the walker on y meets while it stands on each state, (m,); as `mean_cost_x`."""
        return self.state_y / self.alignment.sum(0)

    def top(self, k: int = 5) -> list[StatePair]:
        """The pairs of states that contribute most, largest first.

        Args:
            k: how many, at most; pairs that contribute nothing are left out.

        Returns:
            `StatePair`s, which print in words.

        Raises:
            ValueError: k is not positive.
        """
        names_x, names_y = full_names(self.x, self.label_names), full_names(self.y, self.label_names)
        found = []
        for i, j in _largest(self.contributions, k):
            mass, added = float(self.alignment[i, j]), float(self.contributions[i, j])
            share = added / float(self.value) if float(self.value) else float("nan")
            found.append(StatePair(i, j, names_x[i], names_y[j], mass, added / mass, added, share))
        return found

    def top_transitions(self, k: int = 5) -> list[TransitionEffect]:
        """The transitions of x and y with the largest effects of either sign, largest first.

        Args:
            k: how many, at most; transitions without an effect are left out.

        Returns:
            `TransitionEffect`s, which print in words. The state that a walk stays on is a transition too.

        Raises:
            ValueError: k is not positive.
        """
        found = []
        for letter, chain, effect in (("x", self.x, self.transition_x), ("y", self.y, self.transition_y)):
            names, rows = full_names(chain, self.label_names), _rows(chain)
            found += [
                TransitionEffect(letter, i, j, names[i], names[j], float(rows[i, j]), float(effect[i, j]))
                for i, j in _largest(effect, k)
            ]
        return sorted(found, key=lambda one: -abs(one.effect))[:k]

    def __repr__(self) -> str:
        lines = [
            f"Explanation of the distance {float(self.value):.4g} (certified to {float(self.error_bound):.1g}): "
            f"{float(self.contributions.sum()):.4g} from pairs of states, {float(self.entropy):.4g} from entropy"
        ]
        lines += [f"  {pair}" for pair in self.top(3)]
        lines += [f"  {transition}" for transition in self.top_transitions(3)]
        return "\n".join(lines)


def explain(solution: ChainSolution, *, label_names: Sequence[str] | None = None) -> Explanation:
    r"""Say which states, and which transitions, the distance of two chains comes from.

    $$d = \sum_{ij} \delta L_{ij} D_{ij} + \epsilon\, \partial d / \partial \epsilon, \qquad
      e_{kl} = A_{kl} \Big(\frac{\partial d}{\partial A_{kl}} - \sum_h A_{kh} \frac{\partial d}{\partial A_{kh}}\Big),$$

    the contributions of pairs of states, the entropic rest, and the effects of transitions: e_kl is the change of d per
    relative growth of the weight of the transition from k to l, the other weights being kept.

    Args:
        solution: what `discounted_wl` returned for a single pair of chains.
        label_names: the names of the features 0, 1, ..., such as `GraphDataset.label_names`, for words and pictures.
            Default: states are called by their names or numbers.

    Returns:
        An `Explanation`: tensors in float64, detached.

    Raises:
        TypeError: something else than a solution of `discounted_wl`, or one of a finite depth.
        ValueError: a batch; a distance that is not finite; features that `label_names` does not name.
        RuntimeError: the adjoint system did not converge, where delta is tiny.

    Note:
        Effects are derivatives: they say what a small change of weights does; `-e_kl` is a first guess at what the loss
        of the transition would change, no more. Where the initial law is the stationary one, it is taken to follow the
        weights; other laws stay. Where epsilon is 0, the best coupling need not be unique; this is the explanation by
        one of them. Not differentiable. As accurate as the solver's `rtol`, since no step is taken past it, unless an
        input required a gradient. Time: one linear solve, as for a gradient; memory O(n^2 + m^2 + nm). Deterministic.

    References:
        Brugere, Wan, Wang: Distances for Markov Chains, and Their Differentiation (arXiv 2302.08621), for the gradient.

    Example:
        >>> import networkx, markovot
        >>> from markovot.analysis.explain import explain
        >>> path = networkx.path_graph(3)
        >>> x = markovot.MarkovChain.from_networkx(path, features={0: "C", 1: "C", 2: "O"})
        >>> y = markovot.MarkovChain.from_networkx(path, features={0: "C", 1: "C", 2: "N"})
        >>> solution = markovot.discounted_wl(x, y, markovot.costs.ZeroOne(), delta=0.2, epsilon=0.01)
        >>> print(explain(solution).top(1)[0])
        2 of x with 2 of y: 0.259, 91 % of the distance (mass 0.259, cost 1)
    """
    solved, unit, x, y = _single(solution)
    epsilon = solved.inputs.epsilon[0]
    entropic = bool(epsilon > 0)
    need = Inputs(ground=True, x=True, y=True, initial_x=True, initial_y=True, discount=False, epsilon=entropic)
    with torch.no_grad():
        one = torch.ones_like(solved.inputs.discount)
        pulled: Any = solved.pullback(tuple(need), one, None)
        alignment, by_x, by_y, by_law_x, by_law_y, _, by_epsilon = pulled
    names = None if label_names is None else tuple(validate.texts("label_names", label_names))
    for chain in (x, y):
        full_names(chain, names)  # refuses labels without a name now, and not only when words are wanted
    size = unit.outside(one)[0]
    return Explanation(
        value=size * solved.value[0],
        error_bound=size * solved.error_bound[0],
        entropy=size * epsilon * by_epsilon[0] if entropic else torch.zeros_like(epsilon),
        alignment=alignment[0],
        contributions=size * alignment[0] * solved.inputs.ground[0],
        transition_x=size * _effects(x, by_x, by_law_x[0]),
        transition_y=size * _effects(y, by_y, by_law_y[0]),
        x=x,
        y=y,
        label_names=names,
    )


def _single(solution: Any) -> tuple[SolvedDistance, Unit, MarkovChain, MarkovChain]:
    """What a solution of one pair was solved from, and the unit of its costs."""
    if not isinstance(solution, ChainSolution) or isinstance(solution, HorizonSolution):
        raise TypeError(
            f"solution: expected what discounted_wl of depth infinity returns, got {type(solution).__name__}. Other "
            "distances cannot be explained: solve the pair that matters by discounted_wl."
        )
    x, y = (chain.detach() for chain in solution.chains)
    if solution.value.dim() or x.batch_shape or y.batch_shape:
        raise ValueError(
            f"solution: it is of a batch of shape {tuple(solution.value.shape)}. Solve the one pair alone, which for "
            "chains x, y of a stack are x[i] and y[j]."
        )
    if not bool(solution.value.isfinite()):
        raise ValueError(f"solution: its value is {float(solution.value)}, which nothing explains. See its status.")
    return solution.details.solved, solution.details.unit, x, y


def _effects(chain: MarkovChain, gradient: Tensor, by_law: Tensor) -> Tensor:
    """`A_kl (G_kl - sum_h A_kh G_kh)` as a dense matrix, from the gradients in rows and in the initial law."""
    gradient = gradient.reshape(chain.parameter.shape)
    if chain.initial_law == "stationary":
        gradient = gradient + _through_stationary(chain, by_law)
    rows = _rows(chain)
    full = chain.compressed._replace(values=gradient).to_dense() if chain.is_sparse else gradient
    return rows * (full - (rows * full).sum(1, keepdim=True))


def _through_stationary(chain: MarkovChain, by_law: Tensor) -> Tensor:
    """The gradient in the chain's parameter that passes through its stationary law."""
    with torch.inference_mode(False), torch.enable_grad():
        parameter = chain.parameter.detach().clone().double().requires_grad_()
        if chain.is_sparse:
            law = stationary.of_compressed(Compressed(chain.indptr, chain.indices, parameter))
        else:
            law = stationary.of_dense(parameter)
        law = validate.normalised(law)
    return torch.autograd.grad(law, parameter, by_law)[0]


def _rows(chain: MarkovChain) -> Tensor:
    """The transition matrix, dense, in float64, rows summing to one."""
    rows = chain.to_dense().transition.double()
    return rows / rows.sum(1, keepdim=True)


def _largest(values: Tensor, k: int) -> list[tuple[int, int]]:
    """The places of the k entries of largest size, largest first. Ties (up to rounding) keep their order; no zeros."""
    k = validate.count("k", k, low=1)
    size = values.abs().flatten()
    largest = size.amax()
    rank = (size * (_DIGITS / largest)).round() if largest > 0 else size
    order = torch.argsort(rank, descending=True, stable=True)[:k]
    width = values.shape[1]
    return [divmod(int(place), width) for place in order if size[place] > 0]
