"""What the tests of the command line share."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import networkx
from click.testing import CliRunner, Result

from markovot.cli.app import app

# A shell may start us with SIGINT ignored, and children would inherit that.
_START = """
import signal
from markovot.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""


def run(*arguments: Any) -> Result:
    """The command line, within this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="markovot")


def good(*arguments: Any) -> str:
    """What a command that succeeds prints."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def loaded(*arguments: Any) -> Any:
    """What a command that succeeds prints with --json."""
    return json.loads(good(*arguments, "--json"))


def complaint(code: int, *arguments: Any) -> str:
    """The one line that a command that fails says."""
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("markovot: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def started(*arguments: Any, **options: Any) -> subprocess.Popen[str]:
    """The command line as a process of its own, which answers to Ctrl-C."""
    command = [sys.executable, "-c", _START, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def write_graphs(folder: Path, *, classes: bool = False) -> Path:
    """Rings and paths of 4 to 6 coloured nodes as GraphML, in a folder for each class if wanted."""
    for kind, make in (("path", networkx.path_graph), ("ring", networkx.cycle_graph)):
        for size in (4, 5, 6):
            graph = make(size)
            networkx.set_node_attributes(graph, {k: "red" if k % 2 else "blue" for k in graph}, "label")
            networkx.set_node_attributes(graph, {k: float(k) for k in graph}, "height")
            place = folder / kind if classes else folder
            place.mkdir(parents=True, exist_ok=True)
            networkx.write_graphml(graph, place / f"{kind}{size}.graphml")
    return folder
