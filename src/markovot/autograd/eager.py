"""A decorator for functions that torch.compile must not trace."""

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


def eagerly(function: Callable[P, T]) -> Callable[P, T]:
    """Run a function as it is written, also within a compiled model, where it is one break in the graph.

    torch.compile would trace the solvers' loops and NumPy calls in hundreds of pieces, as if they worked on tensors.
    `torch.compiler.disable` prevents that, but it imports the compiler, which takes seconds. So it is only called once
    something else has imported the compiler; before that, nothing can be compiling.
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
