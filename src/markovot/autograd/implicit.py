r"""Attach derivatives that are known in closed form to the result of a solver.

This file holds the package's only `torch.autograd.Function`s. A solver computes its outputs y(x) outside autograd, and
gives up to four linear maps, which are all that any mode of differentiation needs. With J the Jacobian at the solution,
v a cotangent of the outputs, u a tangent of the inputs:

    solve        y(x)            backward: pullback           jvp: pushforward
    pullback     J^T v           linear in v; its derivative in x along u is `curvature`, and so, since second
                                 derivatives are symmetric, is the gradient of <u, J^T v> in x
    pushforward  J u             linear in u; the gradient of <v, J u> in x is the same `curvature`
    curvature    d/dx <v, J u>   symmetric; third derivatives are refused

Each is a Function whose derivative is made of the others, so that reverse over reverse, forward over reverse and
reverse over forward all end in the same numbers. `vmap` folds its axis into the items that a solver takes in a row.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch
from torch import Tensor
from torch.autograd import Function

from markovot.autograd.transforms import has_forward_mode, is_wrapped, transforming

T = TypeVar("T")
Grads = Sequence[Tensor | None]
Native = Callable[..., Tensor]

_ONCE = (
    "{} are not available for this function: its backward pass is one linear solve that autograd cannot see. {} "
    "`discounted_wl` with epsilon > 0 and without depth has them."
)
_SECOND = _ONCE.format(
    "second-order gradients (create_graph=True)", "Call backward() or torch.autograd.grad() without create_graph."
)
_FORWARD = _ONCE.format("forward-mode derivatives", "Use backward().")
_VMAP = _ONCE.format("torch.func transforms (vmap, grad, jvp)", "Use backward(); leading dimensions are batched.")
_THIRD = (
    "third-order derivatives are not available: differentiate at most twice, at most once of it in forward mode. "
    "(torch.autograd.functional.hvp takes three passes; its vhp, or torch.func.jvp of torch.func.grad, take two.)"
)


class Implicit:
    """A solver with derivatives in closed form, for one call.

    Inputs and outputs have a leading axis of items, or of parts of items, so that `folded` can join several calls.
    """

    num_differentiable = 1  # so many of the outputs, the first ones, have a gradient
    twice = False  # whether `curvature` and `pushforward` are implemented
    native: Native | None = None  # the one output, by operations of torch, which has all derivatives of these
    fold: "Implicit | None" = None  # the call that replaced this one under vmap

    def solve(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs for detached inputs, and keep what the other methods need."""
        raise NotImplementedError

    def pullback(self, needed: tuple[bool, ...], *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """The needed gradients in the inputs, from those in the outputs (None: the loss does not use the output)."""
        raise NotImplementedError

    def pushforward(self, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        """Tangents of the differentiable outputs."""
        raise NotImplementedError(_FORWARD)

    def curvature(self, needed: tuple[bool, ...], grads: Grads, tangents: Grads) -> tuple[Tensor | None, ...]:
        """The derivative of `pullback(needed, *grads)` along the tangents of the inputs."""
        raise NotImplementedError(_SECOND)

    def folded(self, size: int) -> "Implicit":
        """The call that solves `size` problems like this one at once, their items one after another."""
        raise NotImplementedError(_VMAP)

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs, connected to the inputs."""
        return _Solve.apply(self, *inputs)


class Differentiable(Protocol):
    """The result of a solver, and its gradient."""

    def outputs(self) -> tuple[Tensor, ...]:
        """The outputs, the differentiable ones first."""

    def pullback(self, *needed_and_grads: Any) -> tuple[Tensor | None, ...]:
        """The same as `Implicit.pullback`."""


F = TypeVar("F", bound=Differentiable)


class Once(Implicit, Generic[F]):
    """A call with first derivatives in reverse mode only, by the pullback of what its solver finds.

    Args:
        solver: takes the detached inputs, and returns what it finds.
        num_differentiable: how many of its outputs, the first ones, have a gradient.
        native: computes the one output by torch's own operations. This is slower or less accurate, but torch has every
            derivative and transform of it, so it is used for these.
    """

    def __init__(self, solver: Callable[..., F], *, num_differentiable: int = 1, native: Native | None = None) -> None:
        self._solver = solver
        self.num_differentiable = num_differentiable
        self.native = native
        self._solved: F | None = None

    @property
    def solved(self) -> F:
        """What the solver found."""
        assert self._solved is not None, "asked before the call"
        return self._solved

    def solve(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs for detached inputs."""
        self._solved = self._solver(*inputs)
        return self._solved.outputs()

    def pullback(self, needed: tuple[bool, ...], *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients in the inputs."""
        return self.solved.pullback(needed, *grads)

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs, connected to the inputs.

        Raises:
            NotImplementedError: inside a transform of `torch.func`, without `native`.
        """
        if any(is_wrapped(tensor) for tensor in inputs):
            if self.native is None:
                raise NotImplementedError(_VMAP)
            return (self.native(*inputs),)
        if self.native is not None and has_forward_mode():
            return (self.native(*inputs),)
        return super().__call__(*inputs)


# --- the four functions
# Arguments: the call, which gradients are needed (of `_Pullback` and `_Curvature`), cotangents of the outputs, tangents
# of the inputs, and the inputs. The numbers come from the call; the inputs are there to be connected to.
class _Linked(Function):
    """What the derivative functions share: how they keep their arguments, and vmap."""

    parts: ClassVar[str]  # what the tensors among the arguments are: v cotangents, u tangents, x inputs

    @classmethod
    def split(cls, call: Implicit, tensors: Sequence[T]) -> dict[str, Sequence[T]]:
        """Split the tensors among the arguments (or one value for each) by their part."""
        num_outputs = call.num_differentiable
        num_inputs = (len(tensors) - num_outputs * cls.parts.count("v")) // (len(cls.parts) - cls.parts.count("v"))
        found: dict[str, Sequence[T]] = {}
        start = 0
        for part in cls.parts:
            size = num_outputs if part == "v" else num_inputs
            found[part] = tensors[start : start + size]
            start += size
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.call, ctx.needed, *tensors = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[Any, ...], call: Implicit, needed: Any, *tensors: Tensor | None) -> Any:
        """Fold the vmapped axis into the items if the inputs have it; else go one by one, since only v or u differ."""
        size, dims = info.batch_size, in_dims[2:]
        if any(dim is not None for dim in cls.split(call, dims)["x"]):
            assert call.fold is not None, "the derivative is vmapped over inputs, so the call was"
            folded = [_fold(tensor, dim, size) for tensor, dim in zip(tensors, dims, strict=True)]
            return _unfolded(cls.apply(call.fold, needed, *folded), size)
        each = [
            cls.apply(call, needed, *(_slice(tensor, dim, k) for tensor, dim in zip(tensors, dims, strict=True)))
            for k in range(size)
        ]
        return tuple(torch.stack(parts) for parts in zip(*each, strict=True)), (0,) * len(each[0])


class _Solve(Function):
    @staticmethod
    def forward(call: Implicit, *inputs: Tensor) -> tuple[Tensor, ...]:
        # Views are returned: autograd makes nodes of its graph of returned tensors, and the call keeps the originals.
        return tuple(output.view_as(output) for output in call.solve(*(tensor.detach() for tensor in inputs)))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.call, *tensors = inputs
        ctx.num_outputs = len(output)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*output[ctx.call.num_differentiable :])
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        call, needed = ctx.call, tuple(ctx.needs_input_grad[1:])
        inputs = ctx.saved_tensors  # raises where an input was written to since the forward pass
        grads = grads[: call.num_differentiable]
        if not torch.is_grad_enabled() and not transforming():
            return None, *call.pullback(needed, *grads)
        # Under create_graph=True autograd runs this with gradients enabled. It would treat plain numbers as constants,
        # and so return a wrong second derivative, silently. (`once_differentiable` was seen not to prevent that.)
        if call.native is not None:
            return None, *torch.autograd.grad(call.native(*inputs), inputs, grads, create_graph=True)
        if not call.twice and not transforming():
            raise NotImplementedError(_SECOND)
        return None, *_spread(_Pullback.apply(call, needed, *grads, *inputs), needed)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        pushed = _Pushforward.apply(ctx.call, None, *tangents, *ctx.saved_tensors)
        return *pushed, *(None,) * (ctx.num_outputs - len(pushed))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], call: Implicit, *inputs: Tensor) -> Any:
        call.fold = call.folded(info.batch_size)
        folded = (_fold(tensor, dim, info.batch_size) for tensor, dim in zip(inputs, in_dims[1:], strict=True))
        return _unfolded(_Solve.apply(call.fold, *folded), info.batch_size)


class _Pullback(_Linked):
    parts = "vx"

    @staticmethod
    def forward(call: Implicit, needed: tuple[bool, ...], *tensors: Tensor | None) -> tuple[Tensor, ...]:
        grads = _detached(_Pullback.split(call, tensors)["v"])
        return _present(call.pullback(needed, *grads))

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        call, (v, x) = ctx.call, _Pullback.split(ctx.call, ctx.saved_tensors).values()
        u = _spread(cotangents, ctx.needed)
        wanted = _Pullback.split(call, tuple(ctx.needs_input_grad[2:]))
        pushed: Grads = [None] * len(v)
        if any(wanted["v"]) and _any(u):
            found = _Pushforward.apply(call, None, *u, *x)
            pushed = [each if flag else None for each, flag in zip(found, wanted["v"], strict=True)]
        return None, None, *pushed, *_curved(call, wanted["x"], v, u, x)

    @staticmethod
    def jvp(ctx: Any, _call: None, _needed: None, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        call, (v, x) = ctx.call, _Pullback.split(ctx.call, ctx.saved_tensors).values()
        dv, dx = _Pullback.split(call, tangents).values()
        parts = [_Pullback.apply(call, ctx.needed, *dv, *x)] if _any(dv) else []
        if _any(dx):
            parts.append(_Curvature.apply(call, ctx.needed, *v, *dx, *x))
        return tuple(sum(terms) for terms in zip(*parts, strict=True))


class _Pushforward(_Linked):
    parts = "ux"

    @staticmethod
    def forward(call: Implicit, needed: None, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        return call.pushforward(*_detached(_Pushforward.split(call, tensors)["u"]))

    @staticmethod
    def backward(ctx: Any, *v: Tensor | None) -> tuple[Tensor | None, ...]:
        call, (u, x) = ctx.call, _Pushforward.split(ctx.call, ctx.saved_tensors).values()
        wanted = _Pushforward.split(call, tuple(ctx.needs_input_grad[2:]))
        pulled: Grads = [None] * len(u)
        if any(wanted["u"]) and _any(v):
            pulled = _spread(_Pullback.apply(call, tuple(wanted["u"]), *v, *x), wanted["u"])
        return None, None, *pulled, *_curved(call, wanted["x"], v, u, x)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Any:
        raise NotImplementedError(
            "forward mode over forward mode is not available. Take forward over reverse, jacfwd(jacrev(f)), which "
            "torch.func.hessian does."
        )


class _Curvature(_Linked):
    parts = "vux"

    @staticmethod
    def forward(call: Implicit, needed: tuple[bool, ...], *tensors: Tensor | None) -> tuple[Tensor, ...]:
        v, u, _ = _Curvature.split(call, tensors).values()
        return _present(call.curvature(needed, _detached(v), _detached(u)))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        raise NotImplementedError(_THIRD)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Any:
        raise NotImplementedError(_THIRD)


def _curved(call: Implicit, needed: Sequence[bool], v: Grads, u: Grads, x: Grads) -> Grads:
    """The curvature, for the inputs that need it."""
    needed = tuple(needed)
    if not any(needed) or not _any(v) or not _any(u):
        return [None] * len(needed)
    return _spread(_Curvature.apply(call, needed, *v, *u, *x), needed)


def _any(tensors: Grads) -> bool:
    return any(tensor is not None for tensor in tensors)


def _detached(tensors: Grads) -> list[Tensor | None]:
    return [None if tensor is None else tensor.detach() for tensor in tensors]


def _present(tensors: Grads) -> tuple[Tensor, ...]:
    """The gradients that are not None: the outputs of a Function must be tensors."""
    return tuple(tensor for tensor in tensors if tensor is not None)


def _spread(found: Grads, needed: Sequence[bool]) -> list[Tensor | None]:
    """The reverse of `_present`."""
    rest = iter(found)
    return [next(rest) if flag else None for flag in needed]


def _slice(tensor: Tensor | None, dim: int | None, k: int) -> Tensor | None:
    return tensor if tensor is None or dim is None else tensor.select(dim, k)


def _fold(tensor: Tensor | None, dim: int | None, size: int) -> Tensor | None:
    """Join the hidden axis with the leading one; tensors without a hidden axis are repeated."""
    if tensor is None:
        return None
    wide = tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
    return wide.reshape(-1, *wide.shape[2:])


def _unfolded(tensors: tuple[Tensor, ...], size: int) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    return tuple(tensor.view(size, -1, *tensor.shape[1:]) for tensor in tensors), (0,) * len(tensors)
