"""Run blocks: on threads of this process, or on any executor with `submit`."""

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any

import torch

from markovot.pairwise.blocks import Block, Found, PairSetting, solve_block

# How many blocks an executor has at any time: two for each of 256 cores, with about 50 kB each.
IN_FLIGHT = 512
# How often a block is given to an executor before we give up: its workers may die.
ATTEMPTS = 3

Blocks = Iterator[tuple[int, Block]]


def run_here(blocks: Blocks, setting: PairSetting, done: Callable[[int, Found], None]) -> None:
    """Solve compiled blocks side by side on as many threads as torch may use, and then the others one by one.

    Compiled blocks hold no interpreter lock. Large pairs take all threads for themselves. `done` is called in this
    thread, with the number of a block and what was found.
    """
    alone: list[tuple[int, Block]] = []

    def compiled() -> Blocks:
        for number, block in blocks:
            if block.compiled:
                yield number, block
            else:
                alone.append((number, block))

    workers = torch.get_num_threads()
    if workers == 1:
        for number, block in compiled():
            done(number, solve_block(block, setting))
    else:
        with ThreadPoolExecutor(workers, thread_name_prefix="markovot-pairs") as pool:
            _run(compiled(), setting, done, pool, window=2 * workers, attempts=1)
    for number, block in alone:
        done(number, solve_block(block, setting))


def run_there(blocks: Blocks, setting: PairSetting, done: Callable[[int, Found], None], executor: Any) -> None:
    """Solve blocks on an executor: `submit(function, *arguments)` gives futures as in `concurrent.futures`.

    Raises:
        RuntimeError: a block failed several times; the death of its worker counts as a failure.
    """
    _run(blocks, setting, done, executor, window=IN_FLIGHT, attempts=ATTEMPTS)


def _run(
    blocks: Blocks,
    setting: PairSetting,
    done: Callable[[int, Found], None],
    executor: Any,
    *,
    window: int,
    attempts: int,
) -> None:
    waiting: dict[Future[Found], tuple[int, Block, int]] = {}

    def submit(number: int, block: Block, attempt: int) -> None:
        waiting[executor.submit(solve_block, block, setting)] = (number, block, attempt)

    try:
        for number, block in islice(blocks, window):
            submit(number, block, 1)
        while waiting:
            finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in finished:
                number, block, attempt = waiting.pop(future)
                error = future.exception()
                if error is None:
                    done(number, future.result())
                    for following in islice(blocks, 1):
                        submit(*following, 1)
                elif attempt < attempts:
                    submit(number, block, attempt + 1)
                elif attempts == 1:
                    raise error
                else:
                    raise RuntimeError(
                        f"executor: a block of {len(block.pairs)} pairs failed {attempts} times, the last time with "
                        f"{type(error).__name__}: {error}. Finished blocks are in the checkpoint, if one was given."
                    ) from error
    finally:
        for future in waiting:
            future.cancel()
