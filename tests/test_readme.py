"""The README can be followed: its Python runs, so do its commands, and its install line brings what they need."""

import os
import re
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ROOT / "tools"
if TOOLS.is_dir():
    sys.path.insert(0, str(TOOLS))
    import readme

    sys.path.remove(str(TOOLS))

pytestmark = pytest.mark.skipif(not TOOLS.is_dir(), reason="the README's tools are not here")


def numbers(text: str) -> np.ndarray:
    return np.array([float(number) for number in re.findall(r"-?\d+\.\d*(?:e[+-]?\d+)?", text)])


def here() -> dict[str, str]:
    """What a process needs to find this package, which need not be installed."""
    places = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(places)}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The README's scheduler and a worker, by its own lines but for the address; "" without dask."""
    lines = [line.split("#")[0].split() for line in readme.commands() if line.startswith("dask ")]
    assert [line[1] for line in lines] == ["scheduler", "worker"]
    pytest.importorskip("distributed")
    address = f"tcp://127.0.0.1:{free_port()}"
    folder = tmp_path_factory.mktemp("dask")
    options = ["--host", "127.0.0.1", "--port", address.rpartition(":")[2], "--dashboard-address", "127.0.0.1:0"]
    dask = [sys.executable, "-m", "dask"]
    started = []
    try:
        for line, more in zip(lines, (options, ["--no-dashboard", "--local-directory", str(folder)]), strict=True):
            words = [address if word == "tcp://HOST:8786" else word for word in line[1:]]
            words = ["1" if before == "--nworkers" else word for before, word in zip(["", *words], words, strict=False)]
            with open(folder / words[0], "w") as log:
                started.append(subprocess.Popen([*dask, *words, *more], stdout=log, stderr=log, cwd=folder, env=here()))
            time.sleep(1.0)
        assert all(process.poll() is None for process in started), [path.read_text() for path in folder.glob("*er")]
        yield address
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(30)


def test_python_runs_from_top_to_bottom_and_prints_what_stands_below(cluster, tmp_path):
    found = readme.snippets()
    assert len(found) == 4
    mark = "-----"
    code = f"\nprint({mark!r})\n".join(snippet.code for snippet in found).replace("tcp://HOST:8786", cluster)
    script = tmp_path / "snippets.py"
    script.write_text(code, encoding="utf-8")
    done = subprocess.run([sys.executable, script], cwd=tmp_path, env=here(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for snippet, printed in zip(found, done.stdout.split(f"{mark}\n"), strict=True):
        np.testing.assert_allclose(numbers(printed), numbers(snippet.output), rtol=0, atol=2e-4)
    assert "0.3402" in found[0].output
    assert sorted(path.name for path in tmp_path.glob("*.checkpoint")) == ["dask.checkpoint", "mutag.checkpoint"]


def test_every_command_is_run_or_left_out_for_a_reason():
    given = readme.commands()
    assert len(given) >= 12
    assert {command.split()[0] for command in readme.session()} == {"markovot", "python"}
    for start in readme.LEFT_OUT:
        assert any(command.startswith(start) for command in given), f"{start!r} is not in the README any more"
    check = (TOOLS / "check_package.py").read_text(encoding="utf-8")
    assert "readme.session()" in check
    assert "readme.extras()" in check
    if (ROOT / ".ci" / "run").exists():
        assert "make package" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_package_brings_every_extra_that_is_named():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    known = set(project["optional-dependencies"])
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    install = re.compile(r"pip install '\.?(?:markovot)?\[([\w,]+)\]'")
    lists = [match for page in pages for match in install.findall(page.read_text(encoding="utf-8"))]
    assert len(lists) >= 4
    for given in lists:
        assert set(given.split(",")) <= known
    # One line for the command line, wherever it stands.
    assert readme.text().count(f"pip install '.{readme.extras()}'") == 2
