"""Functions that torch.compile is to leave alone."""

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


def eagerly(function: Callable[P, T]) -> Callable[P, T]:
    """Run a function as it is written also within a compiled model, as one break in its graph.

    torch.compile would trace the solvers' loops and NumPy calls in hundreds of pieces, and take them for operations of
    tensors. `torch.compiler.disable` keeps it out, but imports the compiler, which takes seconds: it is only asked for
    once something else has imported that, and before, nothing can be compiling.
    """
    disabled: Callable[P, T] | None = None

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        nonlocal disabled
        if disabled is None:
            if "torch._dynamo" not in sys.modules:
                return function(*args, **kwargs)
            disabled = torch.compiler.disable(function)
        return disabled(*args, **kwargs)

    return run
