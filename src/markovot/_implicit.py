"""Attach a gradient that is known in closed form to the result of a solver.

This is the package's only `torch.autograd.Function`. A solver computes its outputs outside autograd, and hands over a
`pullback`: the function that takes the gradients of a loss in the outputs to the gradients in the inputs.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Pullback = Callable[..., tuple[Tensor | None, ...]]
Solver = Callable[..., tuple[tuple[Tensor, ...], Pullback]]


class _Implicit(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, solve: Solver, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs)
        outputs, ctx.pullback = solve(*(tensor.detach() for tensor in inputs))
        return outputs

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        # Under create_graph=True autograd runs this with gradients enabled, and would take the numbers below for
        # constants: a wrong second derivative, silently. (`once_differentiable` was seen to let that through.)
        if torch.is_grad_enabled():
            raise NotImplementedError(
                "second-order gradients (create_graph=True) are not available for this function: its backward pass is "
                "one linear solve that autograd cannot see. Call backward() or torch.autograd.grad() without "
                "create_graph."
            )
        _ = ctx.saved_tensors  # raises where an input was written to since the forward pass
        return None, *ctx.pullback(tuple(ctx.needs_input_grad[1:]), *grad_outputs)


def implicit(solve: Solver, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Run `solve` outside autograd and differentiate it by the pullback it returns.

    Args:
        solve: takes the detached inputs, returns `(outputs, pullback)`; `pullback(needed, *grad_outputs)` returns one
            gradient, or None, for each input. `needed` says which inputs want one; the gradient in an output that the
            loss does not use is None.
        inputs: the tensors in which `solve` is differentiable.

    Returns:
        The outputs of `solve`, connected to the inputs.
    """
    return _Implicit.apply(solve, *inputs)
