"""Files that are written completely or not at all, and whose damage is noticed when they are read."""

import errno
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from markovot.validate import arguments

_FORMAT = b"markovot sealed 1\n"
_HEAD = len(_FORMAT) + hashlib.blake2b().digest_size


def placed(name: str, path: Any) -> Path:
    """The path of a file to be written; its folder must exist."""
    found = Path(arguments.path(name, path))
    if not found.parent.is_dir():
        raise ValueError(f"{name}: there is no folder {found.parent}. Make it first.")
    return found


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary path to write to. At the end its file becomes `path`; if something fails, `path` stays as it was."""
    # The suffix is kept, since some writers choose the format by it, or add it.
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:  # its message names another file, or none
        what = error.strerror or str(error)
        raise OSError(error.errno or errno.EIO, f"{what}; an older file is as it was", str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def seal(content: bytes, what: str) -> bytes:
    """The bytes of a file: a digest of the content and of its kind, and then the content."""
    return _FORMAT + hashlib.blake2b(what.encode() + b"\0" + content).digest() + content


def unseal(data: bytes, what: str) -> bytes:
    """The content of a file that `seal` made.

    Raises:
        ValueError: it is damaged, or something else.
    """
    content = data[_HEAD:]
    if not data.startswith(_FORMAT):
        raise ValueError("it does not begin as such a file does")
    if data != seal(content, what):
        raise ValueError("its digest does not match what it holds")
    return content
