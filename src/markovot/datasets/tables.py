"""The files of a set in the TUDataset layout: found in a folder or a zip, read as tables of numbers.

Every error names the file and the line. An empty line is an error too, unless it is the last one: to skip it would
shift the values below it to other nodes.
"""

import os
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_UNPACKED = 2**29
"""Bytes that the files of a packed set may take together: a small zip may unpack to more than memory holds."""
REQUIRED = ("A", "graph_indicator", "graph_labels")
_DEPTH = 3  # NAME_A.txt, NAME/NAME_A.txt and, as PyTorch Geometric leaves it, NAME/raw/NAME_A.txt


class Tables:
    """The files NAME_PART.txt of one set, by part."""

    def __init__(self, name: str, files: dict[str, Traversable]) -> None:
        self.name, self._files = name, files
        self._left = MAX_UNPACKED

    def __contains__(self, part: str) -> bool:
        return part in self._files

    def file(self, part: str) -> str:
        """The name of the file that holds `part`."""
        return f"{self.name}_{part}.txt"

    def read(self, part: str, dtype: Any, *, columns: int | None = None, hint: str = "") -> NDArray[Any]:
        """One part as an array of shape (lines, columns).

        Args:
            part: which one.
            dtype: np.int64 or np.float64.
            columns: how many numbers a line must have; as many as the first line has by default.
            hint: the repair, for a line that cannot be read.

        Raises:
            ValueError: a line that cannot be read.
        """
        data = self._bytes(part)
        lines = data.decode("utf-8-sig", errors="replace").rstrip().splitlines()
        columns = columns or (lines[0].count(",") + 1 if lines else 1)
        table = _parse(lines, dtype, columns)
        if table is None:
            bad = _first_bad(lines, dtype, columns)
            complaint = _complaint(lines[bad], dtype, columns)
            raise ValueError(f"{self.line(part, bad)}: {complaint}{' ' if hint else ''}{hint}")
        return table

    def _bytes(self, part: str) -> bytes:
        """The content of a file. A packed file must not exceed the limit, whatever size the zip states.

        Raises:
            ValueError: it is too large, or cannot be unpacked.
        """
        source = self._files[part]
        if not isinstance(source, zipfile.Path):
            return source.read_bytes()
        data = b""
        try:
            size = source.root.getinfo(source.at).file_size  # the size that the zip states, which may be too small
            if size <= self._left:
                with source.open("rb") as file:
                    data = file.read(self._left + 1)
                size = len(data)
        except Exception as error:  # zipfile lets through what its decompressors raise, and has errors of many kinds
            raise ValueError(f"{self.file(part)}: {_damaged(error)}") from error
        if size > self._left:
            raise ValueError(
                f"{self.file(part)}: unpacked, the files of the set take more than {MAX_UNPACKED:,} bytes. If that is "
                "right, unpack the zip and give the folder, or raise markovot.datasets.tables.MAX_UNPACKED."
            )
        self._left -= size
        return data

    def read_beside(self, other: str, rows: int, part: str, dtype: Any, **options: Any) -> NDArray[Any]:
        """One part that must have as many lines as another one, which has `rows`."""
        table = self.read(part, dtype, **options)
        if len(table) != rows:
            count = f"{len(table)} line{'s' * (len(table) != 1)}"
            raise ValueError(
                f"{self.file(part)}: it has {count}, but {self.file(other)} has {rows}. Line k of both speaks of the "
                "same item; restore both from the original files."
            )
        return table

    def line(self, part: str, row: int) -> str:
        """The name of a line in messages; `row` counts from 0."""
        return f"{self.file(part)}, line {row + 1}"


def _parse(lines: list[str], dtype: Any, columns: int) -> NDArray[Any] | None:
    """The numbers on the lines, or None if some line cannot be read."""
    if not lines:
        return np.zeros((0, columns), dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a file with only empty lines is recognised by the shape
        # Older NumPy reads 1.7 as the integer 1, with no more than this warning.
        warnings.simplefilter("error", DeprecationWarning)
        try:
            table: NDArray[Any] = np.loadtxt(lines, dtype, delimiter=",", comments=None, ndmin=2)
        except (ValueError, OverflowError, DeprecationWarning):
            return None
    return table if table.shape == (len(lines), columns) else None  # empty lines are left out by loadtxt


def _first_bad(lines: list[str], dtype: Any, columns: int) -> int:
    """The index of the first line that cannot be read, of which there is one."""
    low, high = 0, len(lines)
    while high - low > 1:
        middle = (low + high) // 2
        good = _parse(lines[low:middle], dtype, columns) is not None
        low, high = (middle, high) if good else (low, middle)
    return low


def _complaint(line: str, dtype: Any, columns: int) -> str:
    if not line.strip():
        return "it is empty. Delete it, or fill in what is missing."
    number = "integer" if dtype is np.int64 else "number"
    expected = f"one {number}" if columns == 1 else f"{columns} {number}s separated by commas"
    return f"{line if len(line) <= 60 else line[:57] + '...'!r} is not {expected}."


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Tables]:
    """The tables of the one set in a folder or a zip.

    Raises:
        FileNotFoundError: there is nothing at the path, or a file that every set has is missing.
        ValueError: neither a folder nor a zip, or several sets.
    """
    what = os.fspath(path)
    if not Path(path).exists():
        raise FileNotFoundError(f"path: there is no {what}. Give the folder or the zip of a set of graphs.")
    if Path(path).is_dir():
        yield find(Path(path), what)
    elif zipfile.is_zipfile(path):
        try:
            archive = zipfile.ZipFile(path)
        except Exception as error:  # of many kinds, as above
            raise ValueError(f"path: {what}: {_damaged(error)}") from error
        with archive:
            yield find(zipfile.Path(archive), what)
    else:
        raise ValueError(
            f"path: {what} is neither a folder nor a zip file. Give the folder that holds the files of the set "
            "(NAME_A.txt, NAME_graph_indicator.txt, NAME_graph_labels.txt, ...), or a zip of it."
        )


def _damaged(error: Exception) -> str:
    """What is wrong with a zip that cannot be unpacked."""
    reason = str(error) or type(error).__name__
    return f"it cannot be unpacked ({reason}). Fetch the zip again, or unpack it by other means and give the folder."


def find(root: Traversable, what: str) -> Tables:
    """The set whose files lie nearest to the root; deeper files belong to other sets."""
    level = [root]
    for _ in range(_DEPTH):
        found = [tables for folder in level for tables in _sets(folder)]
        if len(found) > 1:
            names = ", ".join(sorted(tables.name for tables in found))
            raise ValueError(f"path: {what} holds several sets: {names}. Give the folder or the zip of one.")
        if found:
            _complete(found[0], what)
            return found[0]
        level = [item for folder in level for item in _items(folder) if item.is_dir()]
    raise FileNotFoundError(
        f"path: {what} holds no set in the TUDataset layout: no file's name ends in _A.txt, _graph_indicator.txt or "
        "_graph_labels.txt."
    )


def _items(folder: Traversable) -> list[Traversable]:
    # Archives made on a Mac hold a hidden ._NAME_A.txt for each file.
    return [item for item in folder.iterdir() if not item.name.startswith(".")]


def _sets(folder: Traversable) -> list[Tables]:
    """The sets for which the folder has at least one of the required files."""
    files = {item.name: item for item in _items(folder) if item.is_file()}
    ends = [f"_{part}.txt" for part in REQUIRED]
    found = []
    for name in {file.removesuffix(end) for file in files for end in ends if file.endswith(end)}:
        own = [file for file in files if file.startswith(f"{name}_") and file.endswith(".txt")]
        found.append(Tables(name, {file[len(name) + 1 : -len(".txt")]: files[file] for file in own}))
    return found


def _complete(tables: Tables, what: str) -> None:
    for part in REQUIRED:
        if part in tables:
            continue
        if part == "graph_labels" and "graph_attributes" in tables:
            raise ValueError(
                f"{tables.file(part)}: {what} does not hold it, but {tables.file('graph_attributes')}: a set for "
                "regression. Only classes are read; write one integer for each graph into the missing file."
            )
        raise FileNotFoundError(
            f"{tables.file(part)}: {what} does not hold it, and every set needs it. Unpack the original zip again."
        )
