"""Gradients in laws and in transition rows, projected on the tangent space of the simplex.

Potentials are defined up to a constant, and a law can only change in ways that keep its sum one. So a gradient in a law
is defined up to a constant too; we choose the constant that makes its mean zero.
"""

import torch
from torch import Tensor


def centred(gradient: Tensor, real: Tensor | None = None) -> Tensor:
    """The gradient less its mean along the last dimension, over the real entries (bool; None: all); zero elsewhere."""
    if real is None:
        return gradient - gradient.mean(-1, keepdim=True)
    mean = (gradient * real).sum(-1, keepdim=True) / real.sum(-1, keepdim=True).clamp(min=1)
    return torch.where(real, gradient - mean, 0.0)


def centred_stored(gradient: Tensor, owner: Tensor, num_rows: int) -> Tensor:
    """The gradient (nnz,) in compressed rows, less the mean over the stored entries of each row (`owner`)."""
    sums = gradient.new_zeros(num_rows).index_add_(0, owner, gradient)
    counts = torch.bincount(owner, minlength=num_rows).clamp_(min=1)
    return gradient - (sums / counts)[owner]
