"""Output: tables for people, JSON for scripts, and files that are written completely or not at all."""

import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from markovot._files import written_whole

if TYPE_CHECKING:
    from rich.table import Table

# The width where there is no terminal: large enough that none of our cells is cut.
PIPED_WIDTH = 160


def _print(table: "Table") -> None:
    from rich.console import Console

    # Rich leaves colours out where the output is no terminal, or NO_COLOR is set.
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPED_WIDTH
    console = Console(width=width, highlight=False)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        click.echo(line.rstrip(), color=True)  # Rich has decided about colours


def show_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table; columns that hold numbers only are set to the right.

    Args:
        columns: their headings.
        rows: the cells, written as they are.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for place, column in enumerate(columns):
        numbers = bool(rows) and all(isinstance(row[place], int | float) for row in rows)
        table.add_column(column, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        # Cells are Text, since names of states and files may contain what Rich would read as markup.
        table.add_row(*(Text(str(cell)) for cell in row))
    _print(table)


def show_facts(facts: Mapping[str, Any]) -> None:
    """Print names and values in two columns."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(Text(name), Text(str(value)))
    _print(table)


def certified(value: float, bound: float) -> str:
    """A distance and its certified error, in words."""
    return f"{value:z.6f}, certified to {bound:.1e}"


def show_json(document: Any) -> None:
    """Print JSON; numbers that are not finite become null."""
    click.echo(json.dumps(plain(document), indent=2, ensure_ascii=False, allow_nan=False))


def plain(value: Any) -> Any:
    """Convert a value to types that JSON can hold."""
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    return value


@contextmanager
def picture(path: Path) -> Iterator[None]:
    """Save the figure that is drawn inside as `path`.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from markovot._optional import require

    require("matplotlib", extra="plot", what="A picture").use("Agg")  # files only: works without a screen
    from matplotlib import pyplot

    try:
        yield
        with written_whole(path) as temporary:
            pyplot.savefig(temporary, dpi=150, bbox_inches="tight")
    finally:
        pyplot.close("all")
