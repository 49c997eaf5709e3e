"""Compile kernels with numba, and keep the machine code on disk without ever running stale code.

Numba's own disk cache looks at the file of a kernel, not at the files of the kernels that it calls. Here the stamp of
a cached kernel is a digest of every source file in this folder. The cache lies in `$MARKOVOT_CACHE_DIR` where that is
set, else beside other caches of the user; where neither can be written, in a temporary folder.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator

_HERE = Path(__file__).parent


@cache
def sources_digest(folder: Path) -> str:
    """A stamp that changes with every source file in the folder, and with numba."""
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sorted(folder.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@cache
def cache_directory() -> Path:
    """The first of the candidate folders that can be written."""
    wanted = os.environ.get("MARKOVOT_CACHE_DIR")
    user = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    candidates = [Path(wanted)] if wanted else [user / "markovot"]
    for folder in candidates:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError:
            continue
    return Path(tempfile.mkdtemp(prefix="markovot-"))


class _Locator(_CacheLocator):
    def __init__(self, py_func: Callable[..., Any]) -> None:
        self._name = py_func.__qualname__

    def get_cache_path(self) -> str:
        return str(cache_directory())

    def get_source_stamp(self) -> str:
        return sources_digest(_HERE)

    def get_disambiguator(self) -> str:
        return sources_digest(_HERE)[:16]

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> "_Locator":
        return cls(py_func)


class _CacheImpl(CompileResultCacheImpl):
    _locator_classes: list[type[object]] = [_Locator]  # noqa: RUF012 (declared so by numba)


class _KernelCache(FunctionCache):
    _impl_class = _CacheImpl


_njit: Any = numba.njit  # its stubs do not know all options
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
# Parts of kernels are called from compiled code alone: without an entry from Python they need no machine code of their
# own, which takes a third off the time that the first call compiles.
_INTERNAL: dict[str, Any] = {"no_cpython_wrapper": True}


def kernel(function: Callable[..., Any]) -> Any:
    """Compile `function` on first use: without the interpreter lock, and cached on disk."""
    dispatcher = _njit(**_OPTIONS)(function)
    dispatcher._cache = _KernelCache(function)
    return dispatcher


def helper(function: Callable[..., Any]) -> Any:
    """Compile a part of kernels, which allocates nothing; it is cached within the kernels that call it.

    Without allocations it can do without numba's reference counts. These are atomic operations, and counting the arrays
    of a batch at every call took ten times as long as the arithmetic.
    """
    return _njit(**_OPTIONS, **_INTERNAL, _nrt=False)(function)


def allocating_helper(function: Callable[..., Any]) -> Any:
    """Compile a part of kernels that makes arrays."""
    return _njit(**_OPTIONS, **_INTERNAL)(function)
