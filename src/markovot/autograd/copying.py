"""Copies of what may hang on an autograd graph."""

from typing import Any, Self

from torch import Tensor


class Copyable:
    """Copies by `copy.deepcopy` and `pickle` hold the numbers of what hangs on a graph, without the graph.

    torch refuses to copy tensors that were computed from others that require a gradient. Leaves stay as they are, and
    `copy.copy` shares everything.
    """

    def __getstate__(self) -> dict[str, Any]:
        return {name: off_graph(value) for name, value in self.__dict__.items()}

    def __copy__(self) -> Self:
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        return new


def off_graph(value: Any) -> Any:
    """The same, with detached tensors in place of those that were computed by autograd, also within containers."""
    if isinstance(value, Tensor):
        return value.detach() if value.grad_fn is not None else value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(off_graph, value))
    if type(value) in (tuple, list):
        return type(value)(map(off_graph, value))
    if type(value) is dict:
        return {key: off_graph(item) for key, item in value.items()}
    return value
