"""Progress bars, and messages while kernels are compiled, which takes some seconds, once for each machine."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# Listeners are called with 1 when the compilation of a kernel begins, and with 0 when it ends.
_listeners: list[Callable[[int], None]] = []


@contextmanager
def told(listener: Callable[[int], None]) -> Iterator[None]:
    """Call `listener` for each kernel compiled meanwhile, on any thread: with its number, and with 0 when done."""
    count = 0

    def counted(begins: int) -> None:
        nonlocal count
        count += begins
        listener(count if begins else 0)

    _listeners.append(counted)
    try:
        yield
    finally:
        _listeners.remove(counted)


def tell(*, begins: bool) -> None:
    """Tell all listeners that the compilation of a kernel begins or ends."""
    for listener in tuple(_listeners):
        listener(int(begins))


def in_words(number: int) -> str:
    """The message while a kernel is compiled; empty for 0."""
    return f"compiling, once for this machine: kernel {number}" if number else ""


@contextmanager
def bar(*, total: int, unit: str, show: bool, initial: int = 0) -> Iterator[Any]:
    """A progress bar, which also says when kernels are compiled.

    Args:
        total: how many steps there are.
        unit: the name of a step.
        show: whether to show it.
        initial: how many were done before.
    """
    from tqdm.auto import tqdm

    with tqdm(total=total, initial=initial, unit=unit, disable=not show) as found:
        if not show:
            yield found
            return
        with told(lambda number: found.set_description_str(in_words(number))):
            yield found
