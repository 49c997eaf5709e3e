"""Tell whether `torch.func` transforms or forward-mode differentiation are active, and which tensors they wrap.

torch has no public names for these questions; every use of its private ones is in this file.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.autograd import forward_ad

_functorch = torch._C._functorch


def transforming() -> bool:
    """Whether this runs inside `torch.func.grad`, `vmap`, `jvp`, or a transform that uses these."""
    return torch._C._are_functorch_transforms_active()


def has_forward_mode() -> bool:
    """Whether this runs where tensors may be dual numbers."""
    return forward_ad._current_level >= 0


def recording(*tensors: Tensor) -> bool:
    """Whether a derivative in some of these tensors may be asked for, in any mode."""
    if transforming() or has_forward_mode():
        return True
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def is_wrapped(tensor: Tensor) -> bool:
    """Whether a transform wraps this tensor, so that its numbers are not at hand."""
    return _functorch.is_functorch_wrapped_tensor(tensor)


@contextmanager
def outside() -> Iterator[None]:
    """Compute outside all transforms: inside one, even a new tensor would be wrapped."""
    if not transforming():
        yield
        return
    from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

    with temporarily_clear_interpreter_stack():
        yield


def plain(tensor: Tensor) -> Tensor:
    """The numbers behind a tensor, detached: axes that `vmap` hides come first."""
    if not is_wrapped(tensor):
        return tensor.detach()
    with outside():
        while is_wrapped(tensor):
            hidden = _functorch.maybe_get_bdim(tensor) if _functorch.is_batchedtensor(tensor) else None
            tensor = _functorch.get_unwrapped(tensor)
            if hidden is not None:
                tensor = tensor.movedim(hidden, 0)
        return tensor.detach()
