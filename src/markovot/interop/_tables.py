"""Graphs written as lines of text: edge lists and adjacency matrices, separated by commas or by blanks.

Every error names the file and the line.
"""

import ast
import csv
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from markovot._arrays import FloatArray, IntArray

_COMMENTS = ("#", "%")
_SOURCE, _TARGET = ("source", "from", "src"), ("target", "to", "dst")


class Table(NamedTuple):
    """The lines of a file, cut into fields."""

    path: Path
    lines: list[int]  # the number of each row's line, from 1
    rows: list[list[str]]

    def trouble(self, k: int, what: str) -> ValueError:
        """An error about row k."""
        return ValueError(f"{self.path}, line {self.lines[k]}: {what}")


class EdgeTable(NamedTuple):
    """A graph as lists of numbered edges."""

    sources: IntArray
    targets: IntArray
    weights: FloatArray
    num_nodes: int
    names: list[Any] | None  # None where the file has none


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        ValueError: it is not UTF-8.
    """
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
        wrong = data.find(b"\0")  # finds other encodings and binary files, even where decoding would succeed
    except UnicodeDecodeError as error:
        wrong = error.start
    if wrong >= 0:
        raise ValueError(
            f"{path}: byte {wrong} is not UTF-8 text. Save the file as UTF-8; unpack compressed files first."
        )
    return text


def read_table(path: Path) -> Table:
    """Cut a file into fields: at commas if its first line has one, at tabs if all lines have one, else at blanks.

    Comments and empty lines are skipped.

    Raises:
        ValueError: nothing is left, or the file is not UTF-8.
    """
    numbered = [(number, line) for number, line in enumerate(read_text(path).splitlines(), start=1) if line.strip()]
    numbered = [(number, line) for number, line in numbered if not line.lstrip().startswith(_COMMENTS)]
    if not numbered:
        raise ValueError(f"{path}: it has no lines with edges. Give at least one: source, target and perhaps a weight.")
    lines, texts = zip(*numbered, strict=True)
    separator = "," if "," in texts[0].partition("{")[0] else None  # networkx writes attributes in braces
    if separator is None and all("\t" in text for text in texts):
        separator = "\t"
    table = Table(path, list(lines), [])
    options: dict[str, Any] = {"delimiter": separator, "skipinitialspace": True}
    for k, text in enumerate(texts):
        try:
            row = text.split() if separator is None else next(csv.reader([text], **options))
        except csv.Error as error:
            raise table.trouble(k, f"it cannot be cut into fields: {error}. Shorten or correct it.") from None
        table.rows.append([field.strip() for field in row])
    return table


def is_adjacency(table: Table) -> bool:
    """Whether a CSV file holds a square of weights, perhaps with names above or before it, and not a list of edges."""
    rows = table.rows
    width = len(rows[0])
    if _is_header(rows[0]):
        return False
    if max(width, len(rows[-1])) > 3 or rows[0][0] == "" or _has_bare_corner(rows):
        return True
    if len(rows) == width and all(map(_is_number, rows[0])):
        return all(len(row) == width and all(map(_is_number, row)) for row in rows)
    # A row of names above a square of numbers; with numbers as names it would be a list of edges.
    below = [field for row in rows[1:] for field in row]
    return len(rows) == width + 1 and not any(map(_is_number, rows[0])) and all(map(_is_number, below))


def edges_of_list(table: Table, weight: str | None) -> EdgeTable:
    """Edges from lines `source target [weight]`; the nodes in the order in which they are met.

    Raises:
        ValueError: too few or too many fields, a weight that is not a finite number >= 0.
    """
    first = 1 if _is_header(table.rows[0]) else 0
    if first == len(table.rows):
        raise table.trouble(0, "there are no edges below the header. Give at least one.")
    braced = [k for k in range(first, len(table.rows)) if _in_braces(table.rows[k])]
    if braced and weight not in (None, "weight") and not any(weight in _attributes(table, k) for k in braced):
        raise table.trouble(
            braced[0], f"neither this edge nor any other has an attribute {weight!r}. Name another, or use weight=None."
        )
    number: dict[str, int] = {}
    edges = []
    for k in range(first, len(table.rows)):
        source, target, value = _edge(table, k, weight)
        edges.append((number.setdefault(source, len(number)), number.setdefault(target, len(number)), value))
    sources, targets, weights = (np.array(part) for part in zip(*edges, strict=True))
    return EdgeTable(sources, targets, weights.astype(np.float64), len(number), _names(list(number)))


def _edge(table: Table, k: int, weight: str | None) -> tuple[str, str, float]:
    row = table.rows[k]
    if _in_braces(row):
        value = _attributes(table, k).get(weight, 1)
        return row[0], row[1], 1.0 if weight is None else _weight(table, k, value, "")
    if len(row) not in (2, 3) or "" in row[:2]:
        hint = (
            "Quote names that hold commas."
            if len(row) > 1
            else "Nodes without edges need GraphML, GML or an adjacency matrix."
        )
        raise table.trouble(k, f"expected source, target and perhaps a weight, got {_shown(row)}. {hint}")
    if len(row) == 2 or weight is None:
        return row[0], row[1], 1.0
    hint = "If this line is a header, call its columns source,target,weight." if k == 0 else ""
    return row[0], row[1], _weight(table, k, row[2], hint)


def _in_braces(row: list[str]) -> bool:
    return len(row) > 2 and row[2].startswith("{")


def _attributes(table: Table, k: int) -> dict[Any, Any]:
    """The attributes in a line such as `0 1 {'weight': 2.5}`, as networkx writes it."""
    text = " ".join(table.rows[k][2:])
    try:
        attributes = ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):  # the last two where it is nested deeply
        attributes = None
    if not isinstance(attributes, dict):
        shown = text if len(text) <= 60 else text[:57] + "..."
        raise table.trouble(
            k, f"{shown!r} is not a dictionary of plain values. Write the weight as a number in its place."
        )
    return attributes


def _weight(table: Table, k: int, field: Any, hint: str) -> float:
    try:
        value = float(field)
    except OverflowError:  # an integer beyond all floats
        value = math.inf if field > 0 else -math.inf
    except (TypeError, ValueError):
        raise table.trouble(k, f"weight {field!r} is not a number. {hint or 'Write it like 2.5.'}") from None
    if not 0 <= value < math.inf:
        shown = value if math.isinf(value) else field
        raise table.trouble(k, f"weight {shown} is {'negative' if value < 0 else 'not finite'}. Weights must be >= 0.")
    return value


def edges_of_matrix(table: Table, weight: str | None) -> EdgeTable:
    """Edges from a square of weights, row to column, with names above it, before it, both or neither.

    Raises:
        ValueError: not square, names that differ between rows and columns, an entry that is not a finite number >= 0.
    """
    above, before, corner = _margins(table)
    body = table.rows[above:]
    n = len(body)
    columns = table.rows[0][corner:] if above else None
    rows = [row[0] for row in body] if before else None
    for k, row in enumerate(body):
        if len(row) != n + before:
            raise table.trouble(
                k + above, f"it has {len(row) - before} weights, but there are {n} rows. A matrix of weights is square."
            )
        if columns and rows and columns[k] != rows[k]:
            raise table.trouble(
                k + above, f"the row is named {rows[k]!r}, but column {k + 1} is {columns[k]!r}. Give both one order."
            )
    matrix = np.array([[_weight(table, k + above, x, "") for x in row[before:]] for k, row in enumerate(body)])
    sources, targets = np.nonzero(matrix)
    weights = matrix[sources, targets] if weight is not None else np.ones(len(sources))
    names = columns or rows
    return EdgeTable(sources, targets, weights, n, None if names is None else _names(names))


def _margins(table: Table) -> tuple[int, int, int]:
    """How many rows and columns hold names (0 or 1 each), and how many fields the first row has above those columns."""
    rows = table.rows
    height, width = len(rows), len(rows[0])
    if _has_bare_corner(rows):
        return 1, 1, 0
    if height == width and height > 1 and not all(map(_is_number, rows[0])):
        return 1, 1, 1
    # Numbers could be names, or weights of a matrix with a row too few or too many. They only count as names if they
    # are different whole numbers above the square, as pandas writes them.
    if height == width + 1 and (not all(map(_is_number, rows[0])) or _are_numerals(rows[0])):
        return 1, 0, 0
    if width == height + 1 and not all(_is_number(row[0]) for row in rows):
        return 0, 1, 0
    if height == width:
        return 0, 0, 0
    raise ValueError(
        f"{table.path}: {height} rows of {width} fields are not a square of weights, with or without names above and "
        "before it. Complete it; if the rows are edges, use format='edges'."
    )


def _has_bare_corner(rows: list[list[str]]) -> bool:
    """Names above and before the weights as R writes them: no field above the column of names."""
    return len(rows) == len(rows[0]) + 1 and [row[0] for row in rows[1:]] == rows[0]


def _is_header(row: list[str]) -> bool:
    return len(row) in (2, 3) and row[0].lower() in _SOURCE and row[1].lower() in _TARGET


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _are_numerals(names: list[str]) -> bool:
    """Whether names are different whole numbers, each written as Python writes it."""
    # Python reads no more than some thousands of digits.
    whole = all(name.isascii() and name.removeprefix("-").isdigit() and len(name) < 100 for name in names)
    return whole and len(set(names)) == len(names) and all(str(int(name)) == name for name in names)


def _names(names: list[str]) -> list[Any]:
    """Names as integers if all are written like integers, as in GML; else as they are."""
    return [int(name) for name in names] if _are_numerals(names) else list(names)


def _shown(row: list[str]) -> str:
    text = repr(" ".join(row))
    fields = f"{len(row)} field{'s' * (len(row) != 1)}"
    return f"{fields}: {text if len(text) <= 60 else text[:57] + '...'}"
