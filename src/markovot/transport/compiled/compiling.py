"""Compile kernels with numba, and keep the machine code on disk without ever running stale or damaged code.

Numba's own disk cache looks at the file of a kernel, not at the files of the kernels that it calls; it trusts what it
reads, and shares an index between processes that write it without a lock. Here each compiled kernel has one file. Its
name holds a digest of all that the code depends on: the sources of this room, the signature, the processor, versions
and switches of numba. Its head holds a digest of the whole. A file that is damaged, or is another's, is a miss, and is
written anew. Files appear whole, by renaming, so any number of processes may start on an empty folder.

The folder is `$MARKOVOT_CACHE_DIR` where that is set, else beside other caches of the user; where it cannot be written,
kernels are compiled in memory.

Numba has no public interface for a cache of one's own, nor for parts of kernels that are not compiled by themselves.
What is used of its inside, and what breaks without it, is said where it is used; `pyproject.toml` allows the versions
that have been tested.
"""

import gc
import hashlib
import os
import pickle
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numba
from numba.core import config
from numba.core.caching import _Cache
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, CompileResult, DefaultPassBuilder
from numba.core.compiler_machinery import PassManager, register_pass
from numba.core.serialize import dumps
from numba.core.typed_passes import NativeLowering
from numba.extending import register_jitable

from markovot._files import seal, unseal, written_whole
from markovot._progress import tell

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
    """Keeps the machine code of one kernel, by numba's protocol for such an object.

    `_Cache` is private: it says which methods a dispatcher calls. Should it change, no kernel can be made.
    """

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
        with _no_collections():
            target_context.refresh()
        path, key = self._place(sig, target_context.codegen())
        # A file may be damaged, or may hold code of another build of the same version: then it is as if there was none.
        with suppress(Exception):
            arguments, reduced = pickle.loads(unseal(path.read_bytes() if path else b"", key))
            if arguments == _arguments(sig):
                # Private, the inverse of `_reduce` below. Should it change, each process compiles all it runs.
                return CompileResult._rebuild(target_context, *reduced)
        tell(begins=True)  # numba compiles it next
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a compiled kernel. Where that fails, as on a full disk, it runs all the same."""
        tell(begins=False)
        path, key = self._place(sig, data.codegen)
        if path is None or data.lifted or data.library.has_dynamic_globals:
            return
        # Both private: `_reduce` takes a compiled kernel apart, and `dumps` pickles the functions and modules among its
        # parts, which `pickle` refuses. Should they change, what is compiled cannot be kept, and the call raises.
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


class _Whole(JITCodeLibrary):
    """The LLVM code of a kernel: its own, and that of all parts it is made of, near and far.

    Numba's libraries are private, and so are the attributes that are read and set here and below. Without the order in
    `_linking_libraries`, numba says of a part that it is not linked; without the rest no kernel can be compiled.
    """

    def add_linking_library(self, library: Any) -> None:
        """Take in a part, with the parts that it calls in turn, callees first."""
        for each in (*getattr(library, "parts", ()), library):
            if each not in self._linking_libraries:
                super().add_linking_library(each)

    def finalize(self) -> None:
        """Link, optimise, and make machine code."""
        self._linking_libraries.reverse()  # callers first: LLVM leaves out what nothing has called yet
        super().finalize()


class _Part(_Whole):
    """The LLVM code of a part of kernels.

    Numba would optimise every part, and make machine code of it, with copies of all that it calls, though only the code
    of the kernels is ever run. Parts are linked as they were written; each kernel is optimised once, as a whole. That
    more than halves the time of a first call.
    """

    @property
    def parts(self) -> list[Any]:
        """What this part calls, callees first."""
        return self._linking_libraries

    def finalize(self) -> None:
        """Be ready to be linked. Numba's engine gets no code, only the variable that numba sets for each function."""
        self._raise_if_finalized()
        variables = []
        for function in self._final_module.functions:
            if not function.is_declaration:
                function.linkage = "linkonce_odr"  # may stand in several kernels, and goes where it is not called
        for variable in self._final_module.global_variables:
            if variable.name.startswith("_ZN08NumbaEnv"):
                variables.append(str(variable))
        self._shared_module = self._final_module  # what numba links into those that call this part
        self._codegen._add_module(llvm.parse_assembly("\n".join(variables)))
        self._finalized = True


@register_pass(mutates_CFG=True, analysis_only=False)
class _Lowering(NativeLowering):
    """Numba's pass from typed code to LLVM code, into a library of ours.

    That it fills the library that `state` holds already is not documented. If it did not, the first call would be slow.
    """

    _name = "markovot_lowering"

    def run_pass(self, state: Any) -> bool:
        kind = _Part if state.flags.no_cpython_wrapper else _Whole
        state.library = kind(state.targetctx.codegen(), state.func_id.func_qualname)
        state.library.enable_object_caching()
        return super().run_pass(state)


# Passes of numba over what no kernel holds: comprehensions, closures, expressions of whole arrays, functions that are
# inlined, branches for some types alone. Looking for it takes a tenth of the time.
_NEEDLESS = {"InlineClosureLikes", "InlineInlinables", "InlineOverloads", "NopythonRewrites", "DeadBranchPrune"}


class _Compiler(CompilerBase):
    """Numba's compiler with that pass in the place of its own, and without some others."""

    def compile_extra(self, func: Callable[..., Any]) -> Any:
        """Compile a function."""
        with _no_collections():
            return super().compile_extra(func)

    def define_pipelines(self) -> list[Any]:
        """The passes."""
        usual, found = DefaultPassBuilder.define_nopython_pipeline(self.state), PassManager("markovot")
        for each, description in usual.passes:
            if each.__name__ not in _NEEDLESS:
                found.add_pass(_Lowering if each is NativeLowering else each, description)
        found.finalize()
        return [found]


@contextmanager
def _no_collections() -> Iterator[None]:
    """Keep the garbage collector asleep: the many objects of a compilation wake it often, a tenth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


_njit: Any = numba.njit  # its stubs do not know all options
_OPTIONS: dict[str, Any] = {
    "nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True, "pipeline_class": _Compiler,
}  # fmt: skip
# Parts of kernels are called from compiled code alone, and have no entry from Python.
_INTERNAL: dict[str, Any] = {"no_cpython_wrapper": True}


def kernel(function: Callable[..., Any]) -> Any:
    """Compile `function`, which allocates nothing, on first use: without the interpreter lock, and cached on disk."""
    return _cached(function, _nrt=False)


def allocating_kernel(function: Callable[..., Any]) -> Any:
    """The same for a function that makes arrays."""
    return _cached(function)


def _cached(function: Callable[..., Any], **options: Any) -> Any:
    dispatcher = _njit(**_OPTIONS, **options)(function)
    # Private: a dispatcher looks here before it compiles. Should it look elsewhere, nothing is kept between processes.
    dispatcher._cache = _KernelCache(function)
    return dispatcher


def helper(function: Callable[..., Any]) -> Any:
    """Compile a part of kernels, which allocates nothing; it is cached within the kernels that call it.

    Without allocations it can do without numba's reference counts. These are atomic operations, and counting the arrays
    of a batch at every call took ten times as long as the arithmetic.

    The option `_nrt` is private. Should numba drop it, it is refused; should it mean nothing, kernels are slow.
    It is safe only as long as a part returns no array, nor a tuple that holds one: `tests/test_kernel_arrays.py`.
    """
    return _njit(**_OPTIONS, **_INTERNAL, _nrt=False)(function)


def jitable(function: Callable[..., Any]) -> Any:
    """Compile a function that makes arrays where kernels call it; Python can call it too."""
    return register_jitable(**_OPTIONS, **_INTERNAL)(function)
