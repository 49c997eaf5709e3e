"""The command line as a whole: help, exit codes, one-line errors, output that scripts can read, quick start."""

import os
import subprocess
import sys

import click
import pytest

import markovot
from cli_checks import complaint, good, loaded, run, write_graphs
from markovot.cli import app as app_module
from markovot.cli import program
from markovot.cli.app import app

COMMANDS = ["info", "compare", "distances", "neighbours", "classify", "plot"]


def in_process(*arguments, **options):
    command = [sys.executable, "-m", "markovot", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


@pytest.fixture
def failing(monkeypatch):
    """Makes a command `fail` that raises what it is given."""

    def make(error):
        @click.command()
        @program.showing_options
        def fail(showing):
            raise error

        monkeypatch.setitem(app.commands, "fail", fail)

    return make


# --- help
def test_the_commands_are_listed_in_the_order_in_which_one_needs_them():
    text = good("--help").partition("Commands:\n")[2]
    assert [line.split()[0] for line in text.splitlines()[:6]] == COMMANDS


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example_of_the_command(command, flag):
    text = good(command, flag)
    assert "Example:" in text
    assert f"\n    markovot {command} " in text
    assert "\\b" not in text


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_name_options_that_exist(command):
    words = [word for line in good(command, "-h").partition("Example:")[2].splitlines() for word in line.split()]
    known = {name for parameter in app.commands[command].params for name in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= known


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_says_what_it_does(command):
    for parameter in app.commands[command].params:
        assert isinstance(parameter, click.Argument) or parameter.help, parameter.name


def test_defaults_are_the_packages():
    text = " ".join(good("distances", "-h").split())
    for part in ("[default: 0.2; 0<x<=1]", "[default: 0.01; x>=0]", "[default: auto]"):
        assert part in text


def test_without_a_command_there_is_help_and_code_2():
    result = run()
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Commands:" in result.stderr


def test_version():
    assert good("--version") == f"markovot {markovot.__version__}\n"


# --- failures
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fly"], "No such command 'fly'. (try: markovot --help)"),
        (["info"], "Missing argument 'DATA'. (try: markovot info --help)"),
        (["info", "nothing-here"], "no file or folder 'nothing-here', and it is no built-in set (mutag or languages)"),
        (["info", "mutag", "--laziness", "nan"], "nan is not a finite number"),
        (["info", "mutag", "--laziness", "1.5"], "1.5 is not in the range"),
        (["info", "mutag", "--initial", "here"], "'here' is not one of 'uniform', 'stationary'"),
        (["info", "languages", "--laziness", "0.3"], "--laziness does not apply to languages"),
        (["info", "languages", "--directed"], "--directed does not apply to languages"),
        (["info", "mutag", "--weight", "w"], "--weight does not apply to sets in the TUDataset layout"),
        (["distances", "mutag"], "Missing option '--output'"),
        (["distances", "mutag", "-o", "a.txt"], "'a.txt' does not end in .npz"),
        (["distances", "mutag", "-o", "no/such/a.npz"], "there is no folder 'no/such'. Make it first."),
        (["distances", "mutag", "-o", "a.npz", "--delta", "0"], "0.0 is not in the range 0<x<=1"),
        (["distances", "mutag", "-o", "a.npz", "--epsilon", "-1"], "-1.0 is not in the range x>=0"),
        (["distances", "mutag", "-o", "a.npz", "--rtol", "inf"], "inf is not a finite number"),
        (["distances", "mutag", "-o", "a.npz", "--cost", "dear"], "'dear' is not one of 'auto', 'zero-one', "),
        (["neighbours", "mutag", "188"], "there is no graph 188: they are numbered from 0 to 187"),
        (["neighbours", "mutag", "x.graphml"], "'x.graphml' is neither a number or name of a graph nor a file"),
        (["neighbours", "mutag", "3", "-k", "188"], "188 neighbours among 187 graphs"),
        (["neighbours", "mutag", "3", "-k", "0"], "0 is not in the range x>=1"),
        (["compare", "a.csv", "b.csv"], "'a.csv' does not exist"),
        (["classify", "mutag", "--folds", "1"], "1 is not in the range x>=2"),
        (["classify", "mutag", "--method", "guess"], "'guess' is not one of 'knn', 'svm'"),
        (["plot", "a.npz"], "'a.npz' does not exist"),
    ],
)  # fmt: skip
def test_wrong_usage_is_one_line_and_code_2(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in complaint(2, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_output_file(tmp_path):
    (tmp_path / "a.npz").mkdir()
    assert "is a folder. Name a file." in complaint(2, "distances", "mutag", "-o", tmp_path / "a.npz")


def test_a_folder_that_cannot_be_written_to_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(program.os, "access", lambda path, mode: False)
    assert "is not writable" in complaint(2, "distances", "mutag", "-o", tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("bad\nnumber"), "bad number"),
        (markovot.SolveError("no luck", None), "no luck"),
        (ImportError("pip install 'markovot[plot]'"), "pip install 'markovot[plot]'"),
        (FileNotFoundError(2, "No such file or directory", "x.txt"), "x.txt: No such file or directory"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (KeyError("k"), "KeyError: 'k' (--debug shows where)"),
        (ValueError(), "ValueError: (--debug shows where)"),
    ],
)  # fmt: skip
def test_an_error_is_one_line_and_code_1(failing, error, message):
    failing(error)
    assert complaint(1, "fail") == f"markovot: {message}\n"


def test_debug_shows_the_traceback(failing, monkeypatch):
    failing(ValueError("bad number"))
    assert isinstance(run("fail", "--debug").exception, ValueError)
    monkeypatch.setenv("MARKOVOT_DEBUG", "1")
    assert isinstance(run("fail").exception, ValueError)
    monkeypatch.setenv("MARKOVOT_DEBUG", "0")
    assert isinstance(run("fail").exception, SystemExit)


def test_interruption_is_one_line_and_code_130(failing):
    failing(KeyboardInterrupt())
    assert complaint(130, "fail") == "markovot: interrupted\n"


def test_warnings_are_one_line_on_the_standard_error(monkeypatch):
    import warnings

    @click.command()
    def warn():
        warnings.simplefilter("always")
        warnings.warn("mind\nthe gap", stacklevel=1)
        click.echo("done")

    monkeypatch.setitem(app.commands, "warn", warn)
    result = run("warn")
    assert result.stdout == "done\n"
    assert result.stderr == "markovot: warning: mind the gap\n"


def test_unreadable_data_is_code_1(tmp_path):
    (tmp_path / "broken.zip").write_bytes(b"no zip")
    assert "neither a folder nor a zip" in complaint(1, "info", tmp_path / "broken.zip")
    assert "neither a set in the TUDataset layout nor graph files" in complaint(1, "info", tmp_path)
    (tmp_path / "broken.graphml").write_text("<graphml>")
    assert "not readable as GraphML" in complaint(1, "info", tmp_path / "broken.graphml")


@pytest.mark.parametrize("library", ["click", "rich"])
def test_without_its_libraries_it_says_what_to_install(library):
    code = f"import sys; sys.modules[{library!r}] = None; from markovot.cli import main; main()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert f"needs {library}" in result.stderr
    assert "pip install 'markovot[cli]'" in result.stderr


# --- output
def test_piped_output_is_plain_and_whole(tmp_path):
    graphs = write_graphs(tmp_path / ("graphs-" * 12), classes=True)
    result = in_process("info", graphs, env={name: value for name, value in os.environ.items() if name != "COLUMNS"})
    assert result.returncode == 0
    assert result.stderr == ""
    assert "\x1b" not in result.stdout
    assert graphs.name in result.stdout
    assert all(line == line.rstrip() for line in result.stdout.splitlines())


def test_a_narrow_terminal_breaks_lines_but_loses_nothing(monkeypatch, tmp_path):
    graphs = write_graphs(tmp_path / ("graphs-" * 12), classes=True)
    monkeypatch.setenv("COLUMNS", "160")
    wide = good("info", graphs)
    monkeypatch.setenv("COLUMNS", "40")
    narrow = good("info", graphs)
    assert max(map(len, narrow.splitlines())) <= 40 < max(map(len, wide.splitlines()))
    assert sorted("".join(narrow.split())) == sorted("".join(wide.split()))


def test_output_without_unicode_is_plain_too(tmp_path):
    result = in_process("info", write_graphs(tmp_path, classes=True), env={"PYTHONIOENCODING": "ascii", "PATH": ""})
    assert result.returncode == 0, result.stderr
    assert result.stdout.isascii()


def test_colours_follow_the_usual_variables(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[" in good("info", "mutag")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[3" not in good("info", "mutag")


def test_markup_in_names_is_not_interpreted(tmp_path):
    write_graphs(tmp_path / "[bold]x")
    assert "[bold]x" in good("info", tmp_path)


def test_json_knows_no_nan():
    from markovot.cli.output import plain

    assert plain({1: (float("nan"), float("inf"), 2.5)}) == {"1": [None, None, 2.5]}


def test_a_file_is_whole_or_not_there(tmp_path):
    from markovot.cli.output import written_whole

    path = tmp_path / "a.npz"
    path.write_text("old")

    def write(fail):
        with written_whole(path) as temporary:
            assert temporary.suffix == ".npz"
            temporary.write_text("new")
            if fail:
                raise RuntimeError("no space")

    with pytest.raises(RuntimeError, match="no space"):
        write(fail=True)
    assert path.read_text() == "old"
    write(fail=False)
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_who_leaves_early_is_no_error():
    process = subprocess.Popen(
        [sys.executable, "-m", "markovot", "info", "mutag"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=60) == 1


def test_a_bar_is_shown_on_terminals_unless_unwanted(monkeypatch):
    def bar(*, terminal, quiet=False, progress=None):
        monkeypatch.setattr(program.sys.stderr, "isatty", lambda: terminal, raising=False)
        return program.Showing(as_json=False, quiet=quiet, progress=progress).bar

    assert bar(terminal=True)
    assert not bar(terminal=False)
    assert not bar(terminal=True, quiet=True)
    assert not bar(terminal=True, progress=False)
    assert bar(terminal=False, quiet=True, progress=True)


# --- start
def loaded_by(*arguments):
    code = (
        "import sys\nfrom markovot.cli import main\n"
        f"sys.argv[1:] = {list(arguments)!r}\n"
        "try:\n    main()\nexcept SystemExit:\n    print(*sys.modules)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return {name.partition(".")[0] for name in printed.splitlines()[-1].split()}


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("distances", "--help"), ("plot",)])
def test_help_loads_no_heavy_library(arguments):
    names = loaded_by(*arguments)
    assert "click" in names
    assert not {"torch", "numpy", "scipy", "numba", "matplotlib", "networkx", "tqdm", "sklearn"} & names


def test_both_ways_to_start_are_the_same():
    assert in_process("--version").stdout == good("--version")
    assert app_module.app is app


def test_info_of_mutag_as_a_process():
    assert in_process("info", "mutag", "--json").stdout == good("info", "mutag", "--json")
    assert loaded("info", "mutag")["graphs"] == 188
