"""The disk cache of compiled kernels: where it lies, that it is never stale, and that damage to it is mended."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba.core import config

from markovot import _files
from markovot.transport.compiled import compiling
from markovot.transport.compiled.simd import gather, lane_sum, load, scatter_add, splat, store

CALL = """
import torch, markovot
from numba.core import event
class Count(event.Listener):
    number = 0
    def on_start(self, e): Count.number += 1
    def on_end(self, e): pass
event.register("numba:compile", Count())
a = torch.tensor([0.5, 0.5], dtype=torch.float64)
markovot.transport_cost(a, a, torch.eye(2, dtype=torch.float64), epsilon=0.1)
print(Count.number)
"""
# Kernels whose results tell which code ran, for which signature, in an order of the process's own; once for each folder
# that is read, with all dispatchers new. Prints how many were not in the cache.
MANY = """
import os, sys, numpy as np
from markovot.transport.compiled import compiling
def one(x): return x[0] + 1
def two(x): return x[0] + 2
def three(x): return x[0] + 3
shift = int(sys.argv[1])
print("ready", flush=True)
for folder in sys.stdin:
    os.environ["MARKOVOT_CACHE_DIR"] = folder.strip()
    compiling.cache_directory.cache_clear()
    kernels = {number: compiling.kernel(function) for number, function in enumerate((one, two, three), 1)}
    turns = [(number, kind) for number in kernels for kind in ("f8", "f4", "i8", "i4")]
    for number, kind in turns[shift:] + turns[:shift]:
        found = kernels[number](np.full(3, 7, dtype=kind))
        assert found == 7 + number and (kind[0] == "f") == isinstance(found, float), (number, kind, found)
    print(sum(sum(k.stats.cache_misses.values()) for k in kernels.values()), flush=True)
"""


def compilations(environment: dict[str, str]) -> int:
    run = subprocess.run([sys.executable, "-c", CALL], env=environment, capture_output=True, text=True, check=True)
    return int(run.stdout)


def first(x):
    return x[0]


def last(x):
    return x[len(x) - 1]


def beyond(x):
    return x[len(x)]


def run_anew(function=first) -> int:
    """As the first call of a process; returns how many signatures were not in the cache."""
    made = compiling.kernel(function)
    assert made(np.arange(1.0, 4.0)) == {"first": 1.0, "last": 3.0}[function.__name__]
    return sum(made.stats.cache_misses.values())


def test_a_second_process_compiles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARKOVOT_CACHE_DIR", str(tmp_path))
    assert compilations(dict(os.environ)) > 0
    assert compilations(dict(os.environ)) == 0


def test_without_a_folder_that_can_be_written_kernels_are_compiled_in_memory(tmp_path, kernel_cache, monkeypatch):
    occupied = tmp_path / "file"
    occupied.write_text("not a folder")
    monkeypatch.setenv("MARKOVOT_CACHE_DIR", str(occupied / "cache"))
    assert compiling.cache_directory() is None
    assert run_anew() == run_anew() == 1


def test_a_user_without_a_home_has_no_cache(kernel_cache, monkeypatch) -> None:
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    for name in ("MARKOVOT_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(Path, "home", no_home)
    assert compiling.cache_directory() is None


def test_the_stamp_of_a_kernel_follows_every_source_file(tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text("import callee")
    (tmp_path / "callee.py").write_text("factor = 1")
    before = compiling.sources_digest(tmp_path)
    (tmp_path / "callee.py").write_text("factor = 2")
    compiling.sources_digest.cache_clear()
    assert compiling.sources_digest(tmp_path) != before


def flipped(content: bytes, place: float) -> bytes:
    at = int(place * (len(content) - 1))
    return content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]


DAMAGE = {
    "empty": lambda content: b"",
    "one byte": lambda content: content[:1],
    "half of the head": lambda content: content[:40],
    "the head alone": lambda content: content[: _files._HEAD],
    "half": lambda content: content[: len(content) // 2],
    "all but a byte": lambda content: content[:-1],
    "more": lambda content: content + b"\0",
    "zeros": lambda content: bytes(len(content)),
    "a zero page": lambda content: content[:4096] + bytes(4096) + content[8192:],
    "another format": lambda content: flipped(content, 0.0),
    "another digest": lambda content: content[:50] + flipped(content[50:], 0.0),
    "a bit of the middle": lambda content: flipped(content, 0.5),
    "the last bit": lambda content: flipped(content, 1.0),
    "a pickle": lambda content: content[_files._HEAD :],
    "text": lambda content: b"dear diary " * 100,
}


def test_a_damaged_file_is_a_miss_and_is_written_anew(kernel_cache: Path) -> None:
    assert run_anew() == 1
    (path,) = kernel_cache.iterdir()
    sound = path.read_bytes()
    for what, damage in DAMAGE.items():
        path.write_bytes(damage(sound))
        assert run_anew() == 1, what
        assert run_anew() == 0, what
    assert list(kernel_cache.iterdir()) == [path]


def test_files_swapped_with_one_another_are_misses(kernel_cache: Path) -> None:
    run_anew(first)
    run_anew(last)
    one, other = kernel_cache.iterdir()
    contents = one.read_bytes(), other.read_bytes()
    one.write_bytes(contents[1])
    other.write_bytes(contents[0])
    assert [run_anew(first), run_anew(last)] == [1, 1]
    assert [run_anew(first), run_anew(last)] == [0, 0]


def test_what_cannot_be_kept_runs_all_the_same(kernel_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_anew()
    (path,) = kernel_cache.iterdir()
    path.unlink()
    path.mkdir()  # neither read nor replaced
    assert run_anew() == run_anew() == 1
    assert list(kernel_cache.iterdir()) == [path]
    path.rmdir()

    real = Path.write_bytes

    def full(path, content):
        real(path, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert run_anew() == run_anew() == 1
    assert list(kernel_cache.iterdir()) == []
    shutil.rmtree(kernel_cache)
    assert run_anew() == run_anew() == 1


def test_code_without_checks_of_bounds_is_not_run_where_they_are_asked_for(kernel_cache: Path, monkeypatch) -> None:
    x = np.arange(4.0)[:3]  # what is read beyond it is there
    assert compiling.kernel(beyond)(x) == 3.0
    monkeypatch.setattr(config, "BOUNDSCHECK", 1)
    with pytest.raises(IndexError, match="out of bounds"):
        compiling.kernel(beyond)(x)
    monkeypatch.setattr(config, "BOUNDSCHECK", None)
    again = compiling.kernel(beyond)
    assert again(x) == 3.0
    assert sum(again.stats.cache_misses.values()) == 0


def lanes_loaded(x, where, start):
    return lane_sum(load(x, start))


def lanes_stored(x, where, start):
    store(x, start, splat(1.0))
    return 8.0


def lanes_gathered(x, where, start):
    return lane_sum(gather(x, start, where, 0))


def lanes_added(x, where, start):
    scatter_add(x, start, where, 0, splat(1.0))
    return 8.0


@pytest.mark.parametrize("function", [lanes_loaded, lanes_stored, lanes_gathered, lanes_added])
def test_bounds_of_lanes_are_checked_too(kernel_cache: Path, monkeypatch, function) -> None:
    monkeypatch.setattr(config, "BOUNDSCHECK", 1)
    made, x, where = compiling.kernel(function), np.ones(40)[:20], np.arange(8)
    assert made(x, where, 12) == 8.0
    for start in (13, -1):
        with pytest.raises(IndexError, match="out of bounds"):
            made(x, where, start)


def test_a_recompiled_kernel_is_compiled(kernel_cache: Path) -> None:
    made = compiling.kernel(first)
    made(np.ones(1))
    made.recompile()
    assert sum(made.stats.cache_misses.values()) == 2
    assert run_anew() == 0


@pytest.fixture
def four():
    """Four processes that run the same kernels at the same time, each in an order of its own."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running = [subprocess.Popen([sys.executable, "-c", MANY, str(3 * number)], **pipes) for number in range(4)]
    assert [process.stdout.readline() for process in running] == ["ready\n"] * 4
    yield running
    for process in running:
        process.communicate()


def at_once(running: list[subprocess.Popen], folder: Path) -> list[int]:
    """How many kernels each of the processes compiled, of twelve."""
    for process in running:
        process.stdin.write(f"{folder}\n")
        process.stdin.flush()
    return [int(process.stdout.readline()) for process in running]  # nothing comes from one whose results are wrong


def test_processes_that_start_at_once_on_an_empty_folder_end_right(tmp_path: Path, four) -> None:
    for attempt in range(10):
        folder = tmp_path / str(attempt)
        assert sum(at_once(four, folder)) >= 12
        assert len(list(folder.iterdir())) == 12
        assert at_once(four, folder) == [0] * 4


def test_processes_that_start_at_once_on_damaged_files_end_right(tmp_path: Path, four) -> None:
    at_once(four, tmp_path)
    for what, damage in DAMAGE.items():
        for path in tmp_path.iterdir():
            path.write_bytes(damage(path.read_bytes()))
        assert sum(at_once(four, tmp_path)) >= 12, what
        assert at_once(four, tmp_path) == [0] * 4, what
        assert len(list(tmp_path.iterdir())) == 12
