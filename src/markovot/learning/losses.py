"""Losses to train chains with."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from markovot import validate
from markovot.autograd.eager import eagerly
from markovot.chains import MarkovChain, chain_of
from markovot.costs import Cost
from markovot.costs.ground import not_a_cost
from markovot.distances.discounted import discounted_wl
from markovot.solution import ChainSolution
from markovot.validate.containers import own

REDUCTIONS = ("mean", "sum", "none")


class DiscountedWLLoss(nn.Module):
    r"""The discounted Weisfeiler-Lehman distance as a loss, which starts each solve where the last one ended.

    $$\sum_k w_k\, d(X_k, Y_k) / \textstyle\sum_k w_k$$

    over the items of a batch, with d as in `markovot.discounted_wl`.

    Args:
        cost: the ground cost D: an object of `markovot.costs`, which compares the chains' features, or a tensor
            (*batch, n, m), which is learned if it is a parameter.
        delta: in (0, 1]; a number, a tensor (*batch), or a parameter.
        epsilon: >= 0, in units of the cost; given in the same ways as delta.
        rtol: wanted certified error of each distance, relative to the range of its cost.
        max_iter: the most sweeps of a solve.
        reduction: "mean" (default), "sum", or "none" for the (weighted) distances of all items.
        weights: w >= 0, which broadcasts to the batch. Default: ones.
        warm_start: whether, in training mode, to start from the solution of the step before. It changes values and
            gradients by no more than the tolerance, and helps if every step has the same items, slightly changed. Turn
            it off if every batch has other items.

    Raises:
        TypeError: what is not a cost, or not a number.
        ValueError: an unknown reduction; delta, epsilon or weights out of range.

    Note:
        `loss(x, y)` takes chains, batches of chains, or whatever `as_chain` accepts, such as a list of chains of
        different sizes. It is differentiable like `discounted_wl`. Only numbers are kept from step to step, no autograd
        graph; they are given up where sizes, batch, dtype or device change, after a failed solve, by `reset()`, and in
        copies, pickles and state dicts. In evaluation mode each solve starts afresh and leaves the kept start alone.
        Autocast is turned off inside: chains in half precision are refused, those in float32 solved in float64.

    Example:
        >>> import torch, markovot
        >>> from markovot.learning import LabelledChain
        >>> target = markovot.MarkovChain.from_transitions(torch.tensor([[0.1, 0.9], [0.9, 0.1]], dtype=torch.float64))
        >>> chain = LabelledChain(2, generator=torch.Generator().manual_seed(0))
        >>> loss = DiscountedWLLoss(1 - torch.eye(2, dtype=torch.float64), delta=0.2, epsilon=0.0)
        >>> optimiser = torch.optim.Adam(chain.parameters(), lr=0.03)
        >>> for _ in range(100):
        ...     optimiser.zero_grad()
        ...     loss(chain(), target).backward()
        ...     optimiser.step()
        >>> print(chain().transition.detach().numpy().round(1))
        [[0.1 0.9]
         [0.9 0.1]]
    """

    delta: float | Tensor
    epsilon: float | Tensor
    weights: Tensor | None
    _last: ChainSolution | None
    _start: ChainSolution | None
    _key: tuple[Any, ...] | None

    def __init__(
        self,
        cost: Any,
        *,
        delta: float | Tensor,
        epsilon: float | Tensor,
        rtol: float = 1e-4,
        max_iter: int = 100,
        reduction: str = "mean",
        weights: Tensor | None = None,
        warm_start: bool = True,
    ) -> None:
        super().__init__()
        if not isinstance(cost, Cost | Tensor | np.ndarray):
            raise not_a_cost("a cost such as costs.Euclidean(), a tensor or an array (n, m)", cost)
        self.rtol, self.max_iter = validate.accuracy(rtol, max_iter)
        cpu = torch.device("cpu")
        validate.discount(delta, dtype=torch.float64, device=cpu)
        validate.regularisation(epsilon, dtype=torch.float64, device=cpu)
        self._hold("cost", cost)
        self._hold("delta", delta)
        self._hold("epsilon", epsilon)
        self._hold("weights", _checked_weights(weights))
        self.reduction = validate.choice("reduction", reduction, REDUCTIONS)
        self.warm_start = validate.flag("warm_start", warm_start)
        self.reset()

    def _hold(self, name: str, value: Any) -> None:
        """Store a setting in the module: a tensor moves with it, and a parameter is learned."""
        if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
            self.register_buffer(name, own(value), persistent=False)
        else:
            setattr(self, name, value.copy() if isinstance(value, np.ndarray) else value)

    @eagerly
    def forward(self, x: Any, y: Any) -> Tensor:
        """The loss of predicted chains x and their targets y, in units of the cost.

        Args:
            x: a chain or a batch, or what `as_chain` accepts.
            y: the same; batch dimensions are broadcast.

        Returns:
            A scalar, or for the reduction "none" a tensor (*batch).

        Raises:
            TypeError: half precision, mixed dtypes, or something that is not a chain.
            ValueError: a chain, a cost or features that are not finite, wrong shapes.
            SolveError: some item did not converge; the message names it, and `error.solution` is what was found.
        """
        x, y = chain_of("x", x), chain_of("y", y)
        _check_finite("x", x)
        _check_finite("y", y)
        use = self.warm_start and self.training
        settings = (self.cost, self.delta, self.epsilon)
        key = (_shape_of(x), _shape_of(y), *(tuple(getattr(part, "shape", ())) for part in settings))
        init = self._start if use and key == self._key else None
        if use:
            self._start = None  # a solve that fails leaves nothing to start from
        with torch.autocast(x.device.type, enabled=False):
            setting: Any = {"delta": self.delta, "epsilon": self.epsilon, "rtol": self.rtol, "max_iter": self.max_iter}
            solution = discounted_wl(x, y, self.cost, **setting, init=init)
            self._last = detached(solution)
            if use:
                self._start, self._key = self._last, key
            return self._reduced(solution.value)

    def _reduced(self, values: Tensor) -> Tensor:
        weights = self.weights
        if weights is not None:
            try:
                weights = weights.to(values).expand(values.shape)
            except RuntimeError:
                raise ValueError(
                    f"weights: shape {tuple(weights.shape)} does not fit the batch, {tuple(values.shape)}. Give one "
                    "weight for each item."
                ) from None
            values = weights * values
        if self.reduction == "none":
            return values
        if self.reduction == "sum":
            return values.sum()
        return values.mean() if weights is None else values.sum() / weights.sum()

    @property
    def last(self) -> ChainSolution | None:
        """The solution of the last call, detached; None before the first one."""
        return self._last

    def reset(self) -> None:
        """Forget the last solution, so that the next solve starts afresh."""
        self._last = self._start = self._key = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_last": None, "_start": None, "_key": None}

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        shown = {name: getattr(self, name) for name in ("delta", "epsilon", "reduction", "warm_start")}
        return ", ".join(f"{name}={value!r}" for name, value in shown.items())


def detached(solution: ChainSolution) -> ChainSolution:
    """The same solution without any autograd graph."""
    return replace(
        solution, value=solution.value.detach(), cost_to_go=solution.cost_to_go.detach(),
        details=solution.details.detached(),
    )  # fmt: skip


def _checked_weights(weights: Any) -> Tensor | None:
    if weights is None:
        return None
    tensor = validate.as_tensor("weights", weights)
    validate.floating("weights", tensor)
    validate.entries("weights", tensor)
    if not bool((tensor > 0).any()):
        raise ValueError("weights: they are all 0. Some item needs a positive weight.")
    return tensor


def _check_finite(name: str, chain: MarkovChain) -> None:
    """Refuse NaN and infinities in a chain whose constructor checked nothing, and name them."""
    validate.floating(name, chain.parameter)
    parts = {"transition": chain.parameter, "initial law": chain._initial, "features": chain.features}
    for part, values in parts.items():
        # The sum shows whether an entry is not finite; only then is that entry looked for.
        if isinstance(values, Tensor) and values.is_floating_point() and not bool(values.detach().sum().isfinite()):
            validate.finite(f"{name}, {part}", values.detach())


def _shape_of(chain: MarkovChain) -> tuple[Any, ...]:
    """The sizes and types that must stay the same for an old solution to be used."""
    sizes = tuple(chain.sizes.flatten().tolist()) if chain.is_padded else ()
    return (chain.batch_shape, chain.num_states, sizes, chain.dtype, chain.device)
