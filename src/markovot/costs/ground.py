"""Costs between states by their labels, numbers and vectors; and how a cost is applied to two chains."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from markovot import validate
from markovot.autograd.copying import Copyable
from markovot.chains import MarkovChain, labels
from markovot.validate.arguments import kind
from markovot.validate.containers import repair

_EXACT = 2**53


class Cost(Copyable, ABC):
    """A ground cost between states, a function of their features."""

    needs_features = True

    @abstractmethod
    def __call__(self, fx: Tensor, fy: Tensor) -> Tensor:
        """Cost (*batch, n, m) of each pair of states, from features (*batch, n, p) and (*batch, m, p)."""


def pair_features(fx: Tensor, fy: Tensor, *, floating: bool) -> tuple[Tensor, Tensor]:
    """Check two sets of features and give both their last dimension."""
    fx, fy = (labels.exact(f[:, None] if f.dim() == 1 else f) for f in (fx, fy))
    if fx.dim() < 2 or fy.dim() < 2 or fx.shape[-1] != fy.shape[-1]:
        raise ValueError(
            f"features: those of x have shape {tuple(fx.shape)}, those of y {tuple(fy.shape)}; vectors must "
            "have the same number of components, the last dimension."
        )
    if fx.device != fy.device:
        raise ValueError(
            f"features: those of x are on {fx.device}, those of y on {fy.device}. Move one chain with .to(...)."
        )
    if floating:
        for name, f in (("x", fx), ("y", fy)):
            if not f.is_floating_point():
                raise TypeError(
                    f"features: those of {name} are {f.dtype} labels, between which there is no difference "
                    "to measure. Use ZeroOne(), or give numbers as floats, for instance features.double()."
                )
        # Half precision only serves for storage: already the squares of its numbers exceed its range.
        kind = torch.promote_types(torch.promote_types(fx.dtype, fy.dtype), torch.float32)
        return fx.to(kind), fy.to(kind)
    return fx, fy


@dataclass(frozen=True)
class ZeroOne(Cost):
    """0 between equal features, 1 between different ones; vectors are equal where all components are.

    Example:
        >>> import torch
        >>> ZeroOne()(torch.tensor([1, 2]), torch.tensor([2, 2, 5]))
        tensor([[1., 1., 1.],
                [0., 0., 1.]])
    """

    def __call__(self, fx: Tensor, fy: Tensor) -> Tensor:
        """The cost, in the features' dtype if they are floats, else the default one. Its gradient is zero."""
        fx, fy = pair_features(fx, fy, floating=False)
        kind = torch.promote_types(fx.dtype, fy.dtype)
        if fx.is_floating_point() != fy.is_floating_point():
            codes = (fy if fx.is_floating_point() else fx).long()
            if codes.numel() and not -_EXACT <= int(codes.min()) <= int(codes.max()) <= _EXACT:
                raise TypeError(
                    f"features: those of x are {fx.dtype}, those of y {fy.dtype}: codes of labels (strings), and other "
                    "integers beyond 2^53, cannot be equal to numbers. Give both chains labels of one kind."
                )
            fx, fy = fx.double(), fy.double()  # exact up to here; torch would round the integers to float32
        different = (fx.unsqueeze(-2) != fy.unsqueeze(-3)).any(-1)
        return different.to(kind if kind.is_floating_point else torch.get_default_dtype())


# Up to so many differences are formed explicitly, by operations that have every derivative. Beyond, torch.cdist is
# used, which needs no memory for them. It has no forward mode and no second order, and says so in an error.
_DIFFERENCES = 1 << 20


def _fits(fx: Tensor, fy: Tensor) -> bool:
    return fx[..., 0].numel() * fy.shape[-2] * fx.shape[-1] <= _DIFFERENCES


def _differences(fx: Tensor, fy: Tensor) -> Tensor:
    """`(*batch, n, m, p)`."""
    return fx.unsqueeze(-2) - fy.unsqueeze(-3)


@dataclass(frozen=True)
class Euclidean(Cost):
    """The Euclidean distance between features; its gradient at coinciding features is taken to be 0.

    Example:
        >>> import torch
        >>> Euclidean()(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
        tensor([[5.]])
    """

    def __call__(self, fx: Tensor, fy: Tensor) -> Tensor:
        """The cost; differentiable in the features."""
        fx, fy = pair_features(fx, fy, floating=True)
        if not _fits(fx, fy):
            # We avoid matrix products, which lose half the digits between near features. The gradient at 0 is 0.
            return torch.cdist(fx, fy, compute_mode="donot_use_mm_for_euclid_dist")
        square = _differences(fx, fy).square().sum(-1)
        equal = square == 0
        return square.masked_fill(equal, 1.0).sqrt().masked_fill(equal, 0.0)


@dataclass(frozen=True)
class SquaredEuclidean(Cost):
    """The squared Euclidean distance between features.

    Example:
        >>> import torch
        >>> SquaredEuclidean()(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
        tensor([[25.]])
    """

    def __call__(self, fx: Tensor, fy: Tensor) -> Tensor:
        """The cost; differentiable in the features."""
        fx, fy = pair_features(fx, fy, floating=True)
        return _differences(fx, fy).square().sum(-1) if _fits(fx, fy) else Euclidean()(fx, fy).square()


@dataclass(frozen=True)
class AbsoluteDifference(Cost):
    """The absolute difference of features, summed over components; the gradient is 0 where they are equal.

    Example:
        >>> import torch
        >>> AbsoluteDifference()(torch.tensor([1.0, 2.0]), torch.tensor([5.0]))
        tensor([[4.],
                [3.]])
    """

    def __call__(self, fx: Tensor, fy: Tensor) -> Tensor:
        """The cost; differentiable in the features."""
        fx, fy = pair_features(fx, fy, floating=True)
        return _differences(fx, fy).abs().sum(-1) if _fits(fx, fy) else torch.cdist(fx, fy, p=1.0)


@dataclass(frozen=True, eq=False)
class Given(Cost):
    """A given matrix (*batch, n, m), whatever the features.

    Args:
        matrix: the costs, finite, of any sign: a tensor (differentiable), or an array, which is converted to the dtype
            and device of the chains. It is copied, but for a tensor that requires a gradient.

    Raises:
        TypeError: something else, or another dtype than float32 and float64.
        ValueError: no matrix.

    Example:
        >>> import torch
        >>> Given(torch.ones(1, 2))()
        tensor([[1., 1.]])
    """

    matrix: Any
    needs_features = False

    def __post_init__(self) -> None:
        tensor = _matrix(self.matrix, "matrix")
        if tensor.dim() < 2:
            raise ValueError(f"matrix: shape {tuple(tensor.shape)} is not (*batch, n, m). Give one cost for each pair.")
        object.__setattr__(self, "matrix", tensor if isinstance(self.matrix, Tensor) else tensor.numpy())

    def __call__(self, fx: Tensor | None = None, fy: Tensor | None = None) -> Tensor:
        """The matrix."""
        if isinstance(self.matrix, Tensor):
            return self.matrix
        # In another process the array may be read-only memory, which torch does not share.
        return torch.from_numpy(self.matrix if self.matrix.flags.writeable else self.matrix.copy())


def resolve_cost(cost: Any, x: MarkovChain, y: MarkovChain) -> Tensor:
    """The ground cost between the states of two chains as a tensor.

    Args:
        cost: a Cost, applied to the chains' features, or a tensor or array (*batch, n, m).
        x: the first chain or batch of chains, n states.
        y: the second, m states; batch dimensions are broadcast.

    Returns:
        (*batch, n, m) in the chains' dtype, zero wherever a state is padding; differentiable.

    Raises:
        TypeError: not a cost, integers, or a dtype other than the chains'.
        ValueError: wrong shapes, non-finite costs, missing features, different devices, batches that do not
            broadcast.
    """
    for name, chain in (("x", x), ("y", y)):
        validate.instance(name, chain, MarkovChain, "a MarkovChain (as_chain converts)")
    validate.same_kind("x", x.parameter, "y", y.parameter)
    if isinstance(cost, Cost) and cost.needs_features:
        matrix = cost(_features("x", x), _features("y", y)).to(x.dtype)
    else:
        matrix = given_cost(cost, x.parameter, "the chains")
    shape = (*_broadcast(matrix, x, y), x.num_states, y.num_states)
    if not (x.is_padded or y.is_padded):
        validate.finite("cost", matrix)
        return matrix.expand(shape)
    real = x.mask.unsqueeze(-1) & y.mask.unsqueeze(-2)
    # We select, and do not multiply by the mask, since values at padded states may be anything, even NaN.
    masked = torch.where(real, matrix, torch.zeros((), dtype=matrix.dtype, device=matrix.device))
    validate.finite("cost", masked)
    return masked.expand(shape)


def _features(name: str, chain: MarkovChain) -> Tensor:
    if chain.features is None:
        raise ValueError(
            f"cost: it compares features, but chain {name} has no features. Give them to "
            "MarkovChain.from_...(features=...), or a cost matrix."
        )
    vectors = chain.features.dim() > len(chain.batch_shape) + 1
    return chain.features if vectors else chain.features.unsqueeze(-1)


def not_a_cost(expected: str, cost: Any, hint: str | None = None, *, name: str = "cost") -> TypeError:
    """The error to raise for an object that is not the expected kind of cost."""
    hint = repair(name, cost) if hint is None else f" {hint}"
    if isinstance(cost, type) and issubclass(cost, Cost):
        hint = f" Give an instance: costs.{cost.__name__}({'matrix' if cost is Given else ''})."
    return TypeError(f"{name}: expected {expected}, got {kind(cost)}.{hint}")


def given_cost(cost: Any, like: Tensor, whose: str) -> Tensor:
    """Costs given as numbers, in the dtype and on the device of `like`, a tensor that `whose` names in errors.

    Raises:
        TypeError: no tensor, array or `Given`, or another dtype; an array's is converted.
        ValueError: another device.
    """
    matrix = cost.matrix if isinstance(cost, Given) else cost
    tensor = _matrix(matrix)
    if not isinstance(matrix, Tensor):
        return tensor.to(like)  # an array has no device, and its dtype is rarely chosen on purpose
    validate.same_kind("cost", tensor, whose, like)
    return tensor


def _matrix(cost: Any, name: str = "cost") -> Tensor:
    if not isinstance(cost, Tensor | np.ndarray):
        raise not_a_cost("a tensor (n × m), an array, or a cost such as costs.Euclidean()", cost, name=name)
    tensor = validate.as_tensor(name, cost)
    validate.floating(name, tensor)
    return tensor


def _broadcast(matrix: Tensor, x: MarkovChain, y: MarkovChain) -> torch.Size:
    wanted = (x.num_states, y.num_states)
    if matrix.dim() < 2 or tuple(matrix.shape[-2:]) != wanted:
        raise ValueError(
            f"cost: shape {tuple(matrix.shape)} does not end in {wanted}, the numbers of states of x and y. "
            "Entry (i, j) is the cost of matching state i of x with state j of y."
        )
    batches = (tuple(x.batch_shape), tuple(y.batch_shape), tuple(matrix.shape[:-2]))
    try:
        return validate.broadcast(*batches)
    except ValueError:
        raise ValueError(
            f"batches of shapes {batches[0]} (x), {batches[1]} (y) and {batches[2]} (cost) do not broadcast. "
            "Trailing dimensions must be equal or one."
        ) from None
