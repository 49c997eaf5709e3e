"""Run compiled kernels, which hold no interpreter lock, on a few threads.

The number of threads is torch's (`torch.set_num_threads`). Tasks are cut the same way whatever that number is, so it
does not change a result. A forked child makes a pool of its own.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import numpy as np
import torch

# A kernel call on another thread costs about 30 microseconds; below this many plan entries it is not worth it.
WORTH_A_THREAD = 1 << 15
# Items of up to this many entries are solved whole in compiled code, each on one thread.
WHOLE_ENTRIES = 1 << 17


@cache
def _pool(process: int, workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="markovot")


_workers: ContextVar[int | None] = ContextVar("markovot_workers", default=None)


@contextmanager
def own_threads() -> Iterator[None]:
    """Keep torch's threads asleep, so that kernels have the cores.

    torch spreads every operation on more than 32,768 numbers over threads, which then spin while they wait for the next
    one. Beside kernels on our own threads, on a machine with other work too, this cost ten times what it gained. The
    setting is that of the calling thread, and is restored at the end.
    """
    workers = _workers.get() or torch.get_num_threads()
    token = _workers.set(workers)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        _workers.reset(token)


def run(call: Callable[[Any], Any], tasks: Any, work: Any) -> list[Any]:
    """Call `call(part)` for contiguous parts of `tasks`, side by side where the `work` (an array) pays for it."""
    workers = _workers.get() or torch.get_num_threads()
    total = work.sum()
    if workers == 1 or len(tasks) < 2 or total < 2 * WORTH_A_THREAD:
        return [call(tasks)]
    num_parts = int(min(4 * workers, len(tasks), total // WORTH_A_THREAD))
    middle = np.cumsum(work) - work / 2
    cuts = np.searchsorted(middle, total * np.arange(1, num_parts) / num_parts)
    parts = [part for part in np.split(tasks, cuts) if len(part)]
    return list(_pool(os.getpid(), workers).map(call, parts))
