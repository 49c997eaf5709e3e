"""The command line, `markovot` or `python -m markovot`. Needs the extra `cli` (click, rich).

Results go to the standard output, progress and errors to the standard error; the exit code is 0, 1 for a failure, 2 for
wrong usage, 130 for Ctrl-C.
"""

import sys

from markovot._optional import require


def main() -> None:
    """Run the command line of this process, and exit.

    Raises:
        SystemExit: always, with the exit code.
    """
    try:
        for library in ("click", "rich"):
            require(library, extra="cli", what="The command line")
    except ImportError as error:
        sys.exit(f"markovot: {error}")
    from markovot.cli.app import app

    app(prog_name="markovot")
