"""Progress bars, and what people read while kernels are compiled."""

import io

import numpy as np
import pytest

from markovot import _progress
from markovot.transport.compiled import compiling


def compile_two() -> None:
    """Two kernels, as a first call compiles them, or reads them from the cache."""

    def first(x):
        return x[0]

    def last(x):
        return x[len(x) - 1]

    for function in (first, last):
        compiling.kernel(function)(np.ones(2))


def test_listeners_hear_of_each_kernel_that_is_compiled_and_of_none_that_is_read(kernel_cache):
    heard: list[int] = []
    with _progress.told(heard.append):
        compile_two()
    assert heard == [1, 0, 2, 0]
    with _progress.told(heard.append):
        compile_two()
    assert heard == [1, 0, 2, 0]


def test_nobody_is_told_after_the_end(kernel_cache):
    heard: list[int] = []
    with pytest.raises(RuntimeError), _progress.told(heard.append):
        raise RuntimeError
    compile_two()
    assert heard == []


def test_the_bar_says_what_takes_long(kernel_cache, capsys: pytest.CaptureFixture[str]):
    with _progress.bar(total=2, unit="pair", show=True) as bar:
        compile_two()
        bar.update(2)
    shown = capsys.readouterr().err
    assert "compiling, once for this machine: kernel 1" in shown
    assert "compiling, once for this machine: kernel 2" in shown
    assert "compiling" not in shown.rsplit("\r", 1)[-1]
    assert "2/2" in shown


def test_a_bar_that_is_not_shown_is_silent(kernel_cache, capsys: pytest.CaptureFixture[str]):
    with _progress.bar(total=2, unit="pair", show=False) as bar:
        compile_two()
        bar.update(2)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("progress", [True, False, None])
def test_commands_say_it_on_terminals(kernel_cache, progress: bool | None, monkeypatch: pytest.MonkeyPatch):
    program = pytest.importorskip("markovot.cli.program", reason="needs the extra cli", exc_type=ImportError)
    written = io.StringIO()  # which is no terminal
    monkeypatch.setattr("sys.stderr", written)
    with program.Showing(as_json=False, quiet=False, progress=progress).patience():
        compile_two()
    assert ("compiling, once for this machine: kernel 2" in written.getvalue()) == bool(progress)
    assert not progress or written.getvalue().endswith("\r")  # a terminal's line is empty again
