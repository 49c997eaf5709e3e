"""Progress bars, and what is said while kernels are compiled: once for a machine, the first call takes some seconds."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# Called when a kernel is about to be compiled, with its number since a listener came, and with 0 when it is done.
_listeners: list[Callable[[int], None]] = []


@contextmanager
def told(listener: Callable[[int], None]) -> Iterator[None]:
    """Tell a function of kernels that are compiled meanwhile, on any thread: their number, and 0 when one is done."""
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
    """What people read while a kernel is compiled; nothing for 0."""
    return f"compiling, once for this machine: kernel {number}" if number else ""


@contextmanager
def bar(*, total: int, unit: str, show: bool, initial: int = 0) -> Iterator[Any]:
    """A progress bar, which also says when kernels are compiled.

    Args:
        total: how many steps there are.
        unit: what one is called.
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
