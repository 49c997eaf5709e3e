"""The README's commands and snippets, as they stand there: `tools/check_package.py` and the tests run them."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
# Commands that are run nowhere as they stand, by how they begin, and why.
LEFT_OUT = {
    "make demo     #": "tests/test_demo.py runs it, and so does `make package`, in an empty environment",
    "make test     #": "it is what runs this",
    "make demo PIP_ARGS=": "the address is one that the reader looks up",
    "pip install": "`make package` installs the wheel in an empty environment, with the extras that stand here",
    "dask scheduler": "tests/test_readme.py starts it on this machine, at a port that is free",
    "dask worker": "the same",
}


class Snippet(NamedTuple):
    """Python, and what stands below it as its output ("" where nothing does)."""

    code: str
    output: str


def text() -> str:
    """All of it."""
    return (ROOT / "README.md").read_text(encoding="utf-8")


def snippets() -> list[Snippet]:
    """In their order; each may use the names of those before it."""
    blocks = re.findall(r"```(\w*)\n(.*?)```\n", text(), re.DOTALL)
    after = [*blocks[1:], ("", "")]
    # What prints nothing has no output below it: the next block is another snippet, or prints of something else.
    return [
        Snippet(code, output if kind == "" and "print(" in code else "")
        for (language, code), (kind, output) in zip(blocks, after, strict=True)
        if language == "python"
    ]


def commands() -> list[str]:
    """The indented lines outside of fences: those of a shell, without their comments."""
    outside = re.sub(r"```.*?```", "", text(), flags=re.DOTALL)
    lines = [line[4:] for line in re.findall(r"(?m)^    \S.*$", outside)]
    return [line for line in lines if not line.startswith("#")]


def left_out(command: str) -> str | None:
    """Why a command is not run as it stands; None for one that is."""
    return next((reason for start, reason in LEFT_OUT.items() if command.startswith(start)), None)


def session() -> list[str]:
    """The commands that `make package` runs, in their order, in one folder."""
    return [command for command in commands() if left_out(command) is None]


def extras() -> str:
    """The extras that the README has a reader of the command line install, as in "[cli,plot]"."""
    (named,) = re.findall(r"From the command line \(`pip install '\.(\[[\w,]+\])'`", text())
    return str(named)
