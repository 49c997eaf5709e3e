"""Finished blocks in a file that survives the death of the process: an SQLite database with one row for each.

SQLite notices damage to its own structure, but not to the content of a row. So each row begins with a digest of its
numbers, of the number of its block, and of the task. A row that does not match is ignored, and its block solved again.
"""

import errno
import hashlib
import json
import sqlite3
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from markovot._files import placed
from markovot.pairwise.blocks import Found

_FORMAT = "markovot pairwise 3"
# Rows are committed at least once in so many seconds; a killed process loses no more than that.
_COMMIT_EVERY = 0.5
_ROW = np.dtype([("value", "<f8"), ("error_bound", "<f8"), ("status", "u1"), ("num_iter", "<i4")])
_DIGEST = 16
_TABLES = {"task", "block"}
_REPAIR = "Give another path, or delete the file"
# The reasons for SQLite's errors, by primary code; any other code means damage, or another kind of file.
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_DENIED = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}


class CheckpointWarning(UserWarning):
    """Blocks in a checkpoint were damaged, and are solved again."""


class Checkpoint:
    """The finished blocks of one task.

    Args:
        path: the file; made where it does not exist.
        task: values that identify the task, by name; a file made for another task is refused.

    Raises:
        ValueError: the file belongs to another task, is damaged, or is no checkpoint.
        RuntimeError: another process is writing to it.
        OSError: it cannot be written: the disk is full or broken, or permission is missing.
    """

    def __init__(self, path: Any, task: dict[str, str]) -> None:
        self._path = placed("checkpoint", path)
        self._task = {"format": _FORMAT, **task}
        self._stamp = json.dumps(self._task).encode()
        with self._explained():
            self._connection = sqlite3.connect(self._path, isolation_level=None, timeout=0.0)
        try:
            with self._explained():
                self._open()
        except BaseException:
            self._connection.close()
            raise
        self._committed = time.monotonic()

    def _open(self) -> None:
        run = self._connection.execute
        run("PRAGMA locking_mode = EXCLUSIVE")
        there = {name for (name,) in run("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if there and there != _TABLES:
            raise ValueError(
                f"checkpoint: {self._path} is not a checkpoint (it is a database with the tables {sorted(there)}). "
                f"{_REPAIR}."
            )
        if (report := run("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise self._damaged(report)
        # With a log beside the file, commits need not wait for the disk, and a killed process leaves a sound file.
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = NORMAL")
        run("BEGIN IMMEDIATE")
        run("CREATE TABLE IF NOT EXISTS task (name TEXT PRIMARY KEY, value TEXT)")
        run("CREATE TABLE IF NOT EXISTS block (number INTEGER PRIMARY KEY, found BLOB)")
        before = dict(run("SELECT name, value FROM task"))
        wanted = self._task
        if not before:
            self._connection.executemany("INSERT INTO task VALUES (?, ?)", wanted.items())
        elif different := [name for name in wanted if before.get(name) != wanted[name]]:
            name = different[0]
            raise ValueError(
                f"checkpoint: {self._path} was made with other {' and '.join(different)} ({name} was "
                f"{before.get(name)!r}, now {wanted[name]!r}). {_REPAIR} to begin anew."
            )
        run("COMMIT")
        run("BEGIN IMMEDIATE")

    def finished(self, count: int) -> Iterator[tuple[int, Found]]:
        """The undamaged blocks in the file, for a task of `count` blocks.

        Warns:
            CheckpointWarning: some blocks are damaged.
        """
        with self._explained():
            stored = self._connection.execute("SELECT number, found FROM block ORDER BY number").fetchall()
            damaged = {number for number, content in stored if not self._whole(number, content, count)}
            self._connection.executemany("DELETE FROM block WHERE number IS ?", ((number,) for number in damaged))
        if damaged:
            warnings.warn(
                f"checkpoint: {len(damaged)} of {len(stored)} blocks in {self._path} are damaged, and are solved "
                "again. The disk, or what else wrote to the file, may not be sound.",
                CheckpointWarning,
                stacklevel=4,  # the call of distance_matrix
            )
        for number, content in stored:
            if number not in damaged:
                rows = np.frombuffer(content, dtype=_ROW, offset=_DIGEST)
                yield number, Found(*(rows[name] for name in Found._fields))

    def save(self, number: int, found: Found) -> None:
        """Keep a finished block."""
        rows = np.empty(len(found.value), dtype=_ROW)
        for name, column in zip(Found._fields, found, strict=True):
            rows[name] = column
        content = rows.tobytes()
        with self._explained():
            self._connection.execute(
                "INSERT OR REPLACE INTO block VALUES (?, ?)", (number, self._digest(number, content) + content)
            )
            if time.monotonic() - self._committed > _COMMIT_EVERY:
                self._connection.execute("COMMIT")
                self._connection.execute("BEGIN IMMEDIATE")
                self._committed = time.monotonic()

    def close(self) -> None:
        """Write the remaining blocks, and close the file."""
        try:
            with self._explained():
                if self._connection.in_transaction:  # an interruption may fall between two
                    self._connection.execute("COMMIT")
        finally:
            self._connection.close()

    def _digest(self, number: int, content: bytes) -> bytes:
        return hashlib.blake2b(b"%s %d " % (self._stamp, number) + content, digest_size=_DIGEST).digest()

    def _whole(self, number: Any, content: Any, count: int) -> bool:
        if not isinstance(number, int) or not isinstance(content, bytes) or number >= count:
            return False
        return content[:_DIGEST] == self._digest(number, content[_DIGEST:])

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn errors of SQLite into errors that say what to do."""
        try:
            yield
        except (sqlite3.Error, UnicodeError) as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
            if code in _BUSY:
                raise RuntimeError(
                    f"checkpoint: {self._path} cannot be opened for writing ({error}). Another process may be at work "
                    "on it."
                ) from error
            if code == sqlite3.SQLITE_NOTADB:
                raise ValueError(f"checkpoint: {self._path} is not a checkpoint ({error}). {_REPAIR}.") from error
            if (number := self._fault_of_the_disk(code)) is None:
                raise self._damaged(error) from error
            raise OSError(
                number,
                f"checkpoint: {error}. Blocks that were kept before are safe: mend that, and the same call goes on",
                str(self._path),
            ) from error

    def _fault_of_the_disk(self, code: int) -> int | None:
        """The number of an error of the disk or folder that holds the file; None if the file itself is at fault."""
        if code == sqlite3.SQLITE_FULL:
            return errno.ENOSPC
        if code == sqlite3.SQLITE_IOERR:
            return errno.EIO
        return errno.EACCES if code in _DENIED or (code == sqlite3.SQLITE_READONLY and not self._writable()) else None

    def _writable(self) -> bool:
        """Whether the system lets us write to the file: SQLite calls some damaged files read-only."""
        try:
            with self._path.open("r+b"):
                return True
        except OSError:
            return False

    def _damaged(self, report: object) -> ValueError:
        words = " ".join(str(report).split())
        return ValueError(f"checkpoint: {self._path} is damaged ({words}). {_REPAIR} to begin anew.")

