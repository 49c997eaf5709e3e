"""Finished blocks in a file that survives the death of the process: an SQLite database with one row for each."""

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from markovot.pairwise.blocks import Found

_FORMAT = "markovot pairwise 1"
# Rows are committed at least so often, in seconds: what a killed process can lose.
_COMMIT_EVERY = 0.5


class Checkpoint:
    """The finished blocks of one task.

    Args:
        path: the file; made where it does not exist.
        task: what identifies the task, name by name; a file made for another is refused.

    Raises:
        ValueError: the file belongs to another task, or is no checkpoint.
        RuntimeError: another process is writing to it.
    """

    def __init__(self, path: Any, task: dict[str, str]) -> None:
        self._path = Path(path)
        if not self._path.parent.is_dir():
            raise ValueError(f"checkpoint: there is no folder {self._path.parent}. Make it first.")
        try:
            self._connection = sqlite3.connect(self._path, isolation_level=None, timeout=0.0)
            self._open(task)
        except sqlite3.OperationalError as error:
            raise RuntimeError(
                f"checkpoint: {self._path} cannot be opened for writing ({error}). Another process may be at work "
                "on it."
            ) from error
        except sqlite3.DatabaseError as error:
            raise ValueError(
                f"checkpoint: {self._path} is not a checkpoint ({error}). Give another path, or delete the file."
            ) from error
        self._committed = time.monotonic()

    def _open(self, task: dict[str, str]) -> None:
        run = self._connection.execute
        # A log beside the file: commits cost no wait for the disk, and a killed process leaves a sound file.
        run("PRAGMA locking_mode = EXCLUSIVE")
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = NORMAL")
        run("BEGIN IMMEDIATE")
        run("CREATE TABLE IF NOT EXISTS task (name TEXT PRIMARY KEY, value TEXT)")
        run("CREATE TABLE IF NOT EXISTS block (number INTEGER PRIMARY KEY, found BLOB)")
        there = dict(run("SELECT name, value FROM task"))
        wanted = {"format": _FORMAT, **task}
        if not there:
            self._connection.executemany("INSERT INTO task VALUES (?, ?)", wanted.items())
        elif different := [name for name in wanted if there.get(name) != wanted[name]]:
            self._connection.close()
            name = different[0]
            raise ValueError(
                f"checkpoint: {self._path} was made with other {' and '.join(different)} ({name} was "
                f"{there.get(name)!r}, now {wanted[name]!r}). Give another path, or delete the file to begin anew."
            )
        run("COMMIT")
        run("BEGIN IMMEDIATE")

    def finished(self) -> Iterator[tuple[int, Found]]:
        """The blocks in the file."""
        for number, blob in self._connection.execute("SELECT number, found FROM block ORDER BY number").fetchall():
            count = len(blob) // _ROW.itemsize
            rows = np.frombuffer(blob, dtype=_ROW, count=count)
            yield number, Found(*(rows[name] for name in Found._fields))

    def save(self, number: int, found: Found) -> None:
        """Keep a finished block."""
        rows = np.empty(len(found.value), dtype=_ROW)
        for name, column in zip(Found._fields, found, strict=True):
            rows[name] = column
        self._connection.execute("INSERT OR REPLACE INTO block VALUES (?, ?)", (number, rows.tobytes()))
        if time.monotonic() - self._committed > _COMMIT_EVERY:
            self._connection.execute("COMMIT")
            self._connection.execute("BEGIN IMMEDIATE")
            self._committed = time.monotonic()

    def close(self) -> None:
        """Write what is left, and let go of the file."""
        if self._connection.in_transaction:  # an interruption may fall between two
            self._connection.execute("COMMIT")
        self._connection.close()


_ROW = np.dtype([("value", "<f8"), ("error_bound", "<f8"), ("status", "u1")])
