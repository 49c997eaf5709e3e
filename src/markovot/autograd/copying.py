"""Copies of objects whose tensors may belong to an autograd graph."""

from typing import Any, Self

from torch import Tensor


class Copyable:
    """Objects whose copies by `copy.deepcopy` and `pickle` hold the numbers of tensors, without their autograd graph.

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
    """The same value, where tensors that autograd computed are detached, also within containers."""
    if isinstance(value, Tensor):
        return value.detach() if value.grad_fn is not None else value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(off_graph, value))
    if type(value) in (tuple, list):
        return type(value)(map(off_graph, value))
    if type(value) is dict:
        return {key: off_graph(item) for key, item in value.items()}
    return value
