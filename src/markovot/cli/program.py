"""What all commands share: how they fail, with one line of explanation, and the options that several of them take."""

import dataclasses
import functools
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
INTERRUPTED = 130  # what shells give for Ctrl-C


class Failure(click.ClickException):
    """An error that says in one line what could not be done."""

    exit_code = 1


class Interrupted(click.ClickException):
    """The user pressed Ctrl-C."""

    exit_code = INTERRUPTED


class Program(click.Group):
    """A group of commands that fail in one line on the standard error, without a traceback."""

    def main(self, *args: Any, **options: Any) -> NoReturn:
        """Run, and exit with the exit code for the outcome."""
        try:
            code = super().main(*args, **(options | {"standalone_mode": False}))
        except click.UsageError as error:
            _say(f"{error.format_message()} (try: {_help_of(error.ctx)})")
            code = error.exit_code
        except click.ClickException as error:
            _say(error.format_message())
            code = error.exit_code
        except click.Abort:
            _say("interrupted")
            code = INTERRUPTED
        sys.exit(code if isinstance(code, int) else 0)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order in which one needs them."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. An error becomes one line, unless tracebacks are wanted."""
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _warn
                return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Interrupted("interrupted") from None
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if ctx.meta.get("markovot.debug") or os.environ.get("MARKOVOT_DEBUG", "") not in ("", "0"):
                raise
            if isinstance(error, BrokenPipeError):
                raise  # whoever read our output has had enough; click ends the program quietly
            raise Failure(_explained(error)) from error


def _help_of(context: click.Context | None) -> str:
    command = "" if context is None or context.parent is None else f" {context.info_name}"
    return f"markovot{command} --help"


def _say(message: str) -> None:
    click.echo(f"markovot: {' '.join(message.split())}", err=True)


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    _say(f"warning: {message}")


def _explained(error: Exception) -> str:
    """The message of an error. For an unexpected one, also its type, and how to see where it was raised."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, ValueError | TypeError | ImportError | RuntimeError | OSError) and str(error):
        return str(error)
    return f"{type(error).__name__}: {error} (--debug shows where)"


def example(*lines: str) -> str:
    """The epilogue of a command's help: commands to copy."""
    # A line with \b alone keeps click from filling the paragraph.
    return "\n".join(["\b", "Example:", *(f"  {line}" for line in lines)])


class Number(click.FloatRange):
    """A finite number in a range: click lets NaN pass."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class OutputFile(click.ParamType):
    """A file to be written, with one of some suffixes. A bad path is refused before the work, not after it."""

    name = "file"

    def __init__(self, *suffixes: str) -> None:
        self.suffixes = suffixes

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Its path."""
        path = Path(value)
        if path.suffix.lower() not in self.suffixes:
            self.fail(f"{value!r} does not end in {' or '.join(self.suffixes)}.", param, ctx)
        if path.is_dir():
            self.fail(f"{value!r} is a folder. Name a file.", param, ctx)
        if not path.parent.is_dir():
            self.fail(f"there is no folder {str(path.parent)!r}. Make it first.", param, ctx)
        if not os.access(path.parent, os.W_OK):
            self.fail(f"the folder {str(path.parent)!r} is not writable.", param, ctx)
        return path


PICTURE = OutputFile(".png", ".pdf", ".svg")


@dataclasses.dataclass(frozen=True)
class Reading:
    """The options that say how data become chains; None stands for the default of the data."""

    features: str | None
    laziness: float | None
    initial: str | None
    directed: bool | None
    weight: str | None
    empty_graphs: str | None


@dataclasses.dataclass(frozen=True)
class Parameters:
    """Which distance is wanted, and how exactly."""

    cost: str
    delta: float
    epsilon: float
    rtol: float


@dataclasses.dataclass(frozen=True)
class Showing:
    """What is printed, and how."""

    as_json: bool
    quiet: bool
    progress: bool | None

    @property
    def bar(self) -> bool:
        """Whether to show a progress bar: if asked for, or else on a terminal."""
        if self.progress is not None:
            return self.progress
        return not self.quiet and sys.stderr.isatty()

    @contextmanager
    def patience(self) -> Iterator[None]:
        """Say on a terminal, while that lasts, that kernels are being compiled."""
        from markovot._progress import in_words, told

        def say(number: int) -> None:
            click.echo(f"\r\x1b[K{in_words(number)}", err=True, nl=False)

        if not self.bar:
            yield
            return
        with told(say):
            yield

    def note(self, message: str) -> None:
        """Print a remark on the standard error."""
        if not self.quiet:
            click.echo(message, err=True)


Command = Callable[..., Any]


def as_one(name: str, kind: type, *options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Give a command several options, which it receives as one object in the argument `name`."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def collected(**given: Any) -> Any:
            own = {field.name: given.pop(field.name, None) for field in dataclasses.fields(kind)}
            return command(**given, **{name: kind(**own)})

        result: Command = collected
        for option in reversed(options):
            result = option(result)
        return result

    return decorate


_GRAPH_OPTIONS = (
    click.option(
        "--features",
        metavar="NAME",
        help="What the cost compares: labels, attributes or degree; in graph files, degree or the name of a node "
        "attribute.  [default: what there is]",
    ),
    click.option("--laziness", type=Number(0, 1), help="Chance that the walk stays at a node.  [default: 0.1]"),
    click.option(
        "--initial",
        type=click.Choice(["uniform", "stationary"]),
        help="Where walks start.  [default: uniform; languages: stationary]",
    ),
    click.option(
        "--directed/--undirected",
        default=None,
        help="Whether edges are walked one way only.  [default: what the files say]",
    ),
    click.option(
        "--weight", metavar="NAME", help="Edge attribute with the weights, in graph files.  [default: weight]"
    ),
)
_EMPTY_GRAPHS = click.option(
    "--empty-graphs",
    type=click.Choice(["error", "skip"]),
    help="What becomes of graphs without nodes in a TUDataset.  [default: error]",
)
reading_options = as_one("reading", Reading, *_GRAPH_OPTIONS, _EMPTY_GRAPHS)
graph_options = as_one("reading", Reading, *_GRAPH_OPTIONS)  # for graph files only

problem_options = as_one(
    "problem",
    Parameters,
    click.option(
        "--cost",
        type=click.Choice(["auto", "zero-one", "euclidean", "squared-euclidean", "absolute"]),
        default="auto",
        show_default=True,
        help="Cost between the features of two nodes; auto: zero-one for labels and degrees, euclidean for attributes.",
    ),
    click.option(
        "--delta",
        type=Number(0, 1, min_open=True),
        default=0.2,
        show_default=True,
        help="Chance that the walk ends at each step: it looks about 1/delta steps ahead.",
    ),
    click.option(
        "--epsilon",
        type=Number(0),
        default=0.01,
        show_default=True,
        help="How much the matching is smoothed, in units of the cost; 0 for exact transport.",
    ),
    click.option(
        "--rtol",
        type=Number(0, min_open=True),
        default=1e-4,
        show_default=True,
        help="Certified error to reach, relative to the range of the cost.",
    ),
)


def _keep_debug(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    context.meta["markovot.debug"] = wanted  # `meta` is shared with the group, which catches what a command raises


showing_options = as_one(
    "showing",
    Showing,
    click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts."),
    click.option("--quiet", "-q", is_flag=True, help="Print results and errors only."),
    click.option(
        "--progress/--no-progress", default=None, help="Show a progress bar.  [default: on a terminal]"
    ),
    click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_keep_debug,
        help="Show the traceback of an error, as MARKOVOT_DEBUG=1 does.",
    ),
)
