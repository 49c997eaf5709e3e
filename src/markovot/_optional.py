"""Libraries that only some parts need. They are imported when used; errors name the extra to install."""

from importlib import import_module
from typing import Any


def require(module: str, *, extra: str, what: str) -> Any:
    """Import a library of an extra.

    Args:
        module: what to import.
        extra: the extra of this package that brings it.
        what: the part that needs it, for the message.

    Raises:
        ImportError: it is not installed; the message says what to do.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or module.split(".")[0] != error.name.split(".")[0]:
            raise  # the library is installed, but something that it needs is not
        raise ImportError(
            f"{what} needs {module}, which is not installed. Install it with: pip install 'markovot[{extra}]'"
        ) from error
