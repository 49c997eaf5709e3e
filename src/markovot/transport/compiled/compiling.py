"""Compile kernels with numba, and keep the machine code on disk without ever running stale or damaged code.

Numba's own disk cache looks at the file of a kernel, not at the files of the kernels that it calls; it trusts what it
reads, and shares an index between processes that write it without a lock. Here each compiled kernel has one file. Its
name holds a digest of all that the code depends on: the sources of this room, the signature, the processor, versions
and switches of numba. Its head holds a digest of the whole. A file that is damaged, or is another's, is a miss, and is
written anew. Files appear whole, by renaming, so any number of processes may start on an empty folder.

The folder is `$MARKOVOT_CACHE_DIR` where that is set, else beside other caches of the user; where it cannot be written,
kernels are compiled in memory.
"""

import hashlib
import os
import pickle
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core import config
from numba.core.caching import _Cache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from markovot._files import seal, unseal, written_whole

# Kernels are made of the sources of this room, and of constants in the one above.
_SOURCES = Path(__file__).parents[1]
# Switches of numba, from its environment variables, that change the code it makes. Unchecked code must not be run where
# checks of bounds are asked for, nor the other way round.
_SWITCHES = (
    "BOUNDSCHECK", "DEBUGINFO_DEFAULT", "OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "ENABLE_AVX", "USING_SVML",
    "LLVM_REFPRUNE_PASS", "LLVM_REFPRUNE_FLAGS", "NRT_STATS", "DEBUG_NRT", "DEBUG_ARRAY_OPT", "DEBUG_ARRAY_OPT_RUNTIME",
    "ENABLE_PROFILING", "EXTEND_VARIABLE_LIFETIMES", "JIT_COVERAGE",
)  # fmt: skip


@cache
def sources_digest(folder: Path) -> str:
    """A stamp that changes with every source file in the folder, and with numba."""
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@cache
def cache_directory() -> Path | None:
    """The folder of compiled kernels, made if need be; None if it cannot be written."""
    try:
        wanted = os.environ.get("MARKOVOT_CACHE_DIR") or _user_caches() / "markovot"
        folder = Path(wanted).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return None


def _user_caches() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


class _KernelCache(_Cache):
    """Keeps the machine code of one kernel, by numba's protocol for such an object."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._name = f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"
        self._sources = sources_digest(_SOURCES)  # now, as the function was read from them
        self._enabled = True

    @property
    def cache_path(self) -> str | None:
        """The folder, if there is one."""
        folder = cache_directory()
        return None if folder is None else str(folder)

    def enable(self) -> None:
        """Read and write files from now on."""
        self._enabled = True

    def disable(self) -> None:
        """Neither read nor write files from now on."""
        self._enabled = False

    def flush(self) -> None:
        """Delete the files of this kernel."""
        folder = cache_directory()
        for path in folder.glob(f"{self._name}-*.kernel") if folder else ():
            with suppress(OSError):
                path.unlink()

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compiled kernel for a signature, or None if there is none that is whole."""
        target_context.refresh()
        path, key = self._place(sig, target_context.codegen())
        if path is None:
            return None
        try:
            arguments, reduced = pickle.loads(unseal(path.read_bytes(), key))
            if arguments != _arguments(sig):
                return None
            return CompileResult._rebuild(target_context, *reduced)
        except Exception:  # a file that is damaged or cannot be read; or code of another build of the same version
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a compiled kernel. Where that fails, as on a full disk, it runs all the same."""
        path, key = self._place(sig, data.codegen)
        if path is None or data.lifted or data.library.has_dynamic_globals:
            return
        content = seal(dumps((_arguments(sig), data._reduce())), key)
        with suppress(OSError), written_whole(path) as temporary:
            temporary.write_bytes(content)

    def _place(self, sig: Any, codegen: Any) -> tuple[Path | None, str]:
        """The file for a signature, and all that its code depends on."""
        folder = cache_directory() if self._enabled else None
        switches = [(name, repr(getattr(config, name, None))) for name in _SWITCHES]
        versions = (sys.implementation.cache_tag, sys.flags.optimize, numba.__version__, llvmlite.__version__)
        key = repr((self._name, _arguments(sig), codegen.magic_tuple(), switches, versions, self._sources))
        name = f"{self._name}-{hashlib.sha256(key.encode()).hexdigest()[:32]}.kernel"
        return None if folder is None else folder / name, key


def _arguments(sig: Any) -> tuple[Any, ...]:
    """The types of the arguments of a signature, which numba gives with or without the type of the result."""
    return tuple(getattr(sig, "args", sig))


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
