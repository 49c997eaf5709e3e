"""Build the package and use it the way a stranger would: `python tools/check_package.py` (needs `build`; 5 minutes).

Builds the sdist and the wheel, looks at what is in them, installs the wheel into an empty environment outside the
checkout with the core dependencies alone, computes there, and goes on with the extras for pictures and, as the README
has it, the command line, whose commands it runs as they stand there. Arguments for pip come from the environment
variable PIP_ARGS.
"""

import os
import shlex
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
import zipfile
from pathlib import Path

import readme

ROOT = Path(__file__).resolve().parents[1]
PIP_ARGS = shlex.split(os.environ.get("PIP_ARGS", ""))
# What the package is, besides its modules.
DATA = (
    *("py.typed", "data/MUTAG.zip", "data/languages.json", "data/README.md"),
    *("report/template.html", "report/report.js", "report/report.css"),
)

# With the core dependencies only: everything that needs no extra works, and what needs one names it.
CORE = r"""
import importlib.util, sys
from pathlib import Path

import numpy as np
import markovot
from markovot import costs, datasets, discounted_wl, pairwise, plot, report

checkout, expected = Path(sys.argv[1]), sys.argv[2]
assert checkout not in Path(markovot.__file__).resolve().parents, markovot.__file__
assert markovot.__version__ == expected, markovot.__version__
for absent in ("matplotlib", "sklearn", "click", "rich", "plotly", "pandas", "distributed", "pytest"):
    assert importlib.util.find_spec(absent) is None, f"{absent} came with the core dependencies"

mutag = datasets.load_mutag().subset(range(8))
setting = {"cost": costs.ZeroOne(), "delta": 0.2, "epsilon": 0.01}
found = pairwise.distance_matrix(mutag.chains, **setting, progress=False)
solution = discounted_wl(mutag.chains[0], mutag.chains[1], **setting)
bound = found.error_bound[0, 1] + float(solution.error_bound)
assert bound < 1e-3 and abs(found.value[0, 1] - float(solution.value)) <= bound
assert len(datasets.load_languages().chains) == 31

def named(extra, use):
    try:
        use()
    except ImportError as error:
        assert f"pip install 'markovot[{extra}]'" in str(error), error
    else:
        raise AssertionError(f"nothing said that the extra {extra} is missing")

named("plot", lambda: plot.distance_matrix(found, mutag.targets))
named("report", lambda: report.write_report(found, "page.html"))
named("sklearn", lambda: plot.positions(found))
named("sklearn", lambda: __import__("markovot.sklearn"))
print(f"core: {Path(markovot.__file__).parent}, distance {float(solution.value):.4f}, certified to {bound:.1e}")
"""


def main() -> None:
    """Run all checks; the first that fails ends them with what it saw."""
    with tempfile.TemporaryDirectory(prefix="markovot-package-") as folder:
        place = Path(folder)
        sdist, wheel = built(place)
        check_contents(sdist, wheel)
        python = environment(place / "empty")
        torch = next(line for line in constraints() if line.startswith("torch=="))
        install(python, torch)
        install(python, str(wheel))
        work = place / "elsewhere"
        work.mkdir()
        version = wheel.name.split("-")[1]
        say("the core alone", run(python, "-c", CORE, str(ROOT), version, cwd=work))
        said = run(python, "-m", "markovot", "info", "mutag", cwd=work, fails=True)
        require("pip install 'markovot[cli]'" in said, f"the command line does not name its extra: {said}")
        install(python, f"{wheel}[plot]")
        said = run(python, "-m", "markovot.demo", "--limit", "12", "--out", "pictures", cwd=work)
        require("wrote" in said and len(list((work / "pictures").glob("*.png"))) == 2, f"no pictures: {said}")
        say("the demonstration", said)
        follow_readme(python, wheel, work)
    print("package: passed")


def follow_readme(python: Path, wheel: Path, work: Path) -> None:
    """Install the extras that the README names, and run its commands one after another."""
    install(python, f"{wheel}{readme.extras()}")
    others = [f"markovot plot mutag.npz --kind {kind} -o {kind}.png" for kind in ("matrix", "dendrogram")]
    for command in [*readme.session(), *others]:
        run("bash", "-c", f'export PATH="{python.parent}:$PATH"; {command}', cwd=work)
    wanted = {"mutag.npz", "map.png", "one.graphml", "two.graphml", "aligned.png", "report.html"}
    there = {path.name for path in work.iterdir()}
    require(wanted <= there, f"the README's commands did not write {sorted(wanted - there)}")
    size = (work / "report.html").stat().st_size
    require(4e6 < size < 12e6, f"a page of {size} bytes")
    say("the command line, by the README", "\n".join([readme.extras(), *readme.session()]))


def built(place: Path) -> tuple[Path, Path]:
    """The sdist, and the wheel that is built from it, which must be the one that is built from the checkout."""
    run(sys.executable, "-m", "build", "--outdir", place / "dist", ROOT)
    run(sys.executable, "-m", "build", "--wheel", "--outdir", place / "direct", ROOT)
    (sdist,), (wheel,) = (place / "dist").glob("*.tar.gz"), (place / "dist").glob("*.whl")
    (direct,) = (place / "direct").glob("*.whl")
    mine, other = contents(wheel), contents(direct)
    differ = sorted(name for name in mine.keys() | other.keys() if mine.get(name) != other.get(name))
    require(not differ, f"the wheel made from the sdist differs from that of the checkout in {differ[:5]}")
    return sdist, wheel


def contents(wheel: Path) -> dict[str, int]:
    """The files of a wheel and their checksums."""
    with zipfile.ZipFile(wheel) as archive:
        return {entry.filename: entry.CRC for entry in archive.infolist()}


def check_contents(sdist: Path, wheel: Path) -> None:
    """Everything that belongs into them is there, and nothing else."""
    there = set(contents(wheel))
    inside = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src" / "markovot").rglob("*.py")}
    missing = sorted((inside | {f"markovot/{name}" for name in DATA}) - there)
    require(not missing, f"the wheel lacks {missing}")
    info = next(name.split("/")[0] for name in there if name.endswith("/METADATA"))
    stray = sorted(name for name in there if name.split("/")[0] not in ("markovot", info) or "__pycache__" in name)
    require(not stray, f"the wheel has {stray}")
    licences = {Path(name).name for name in there if "/licenses/" in name}
    require({"LICENSE", "LICENSE-Apache-2.0.txt"} <= licences, f"the wheel has the licences {sorted(licences)} only")
    with zipfile.ZipFile(wheel) as archive:
        require("markovot = markovot.cli:main" in archive.read(f"{info}/entry_points.txt").decode(), "no command")
    with tarfile.open(sdist) as archive:
        kept = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "constraints.txt", "tests/conftest.py"}
    require(wanted <= kept, f"the sdist lacks {sorted(wanted - kept)}")
    say("contents", f"{len(there)} files in the wheel, {wheel.stat().st_size / 1e6:.2f} MB; {len(kept)} in the sdist")


def constraints() -> list[str]:
    """The pinned versions."""
    return (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()


def environment(place: Path) -> Path:
    """An empty environment, without even pip: ours installs into it; the path of its interpreter."""
    venv.create(place, with_pip=False, symlinks=os.name != "nt")
    return place / ("Scripts" if os.name == "nt" else "bin") / "python"


def install(python: Path, what: str) -> None:
    """Install something into an environment, at the pinned versions."""
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", *PIP_ARGS]
    run(*pip, "-c", ROOT / "constraints.txt", what)


def run(*command: object, cwd: Path | None = None, fails: bool = False) -> str:
    """What a command says, none of whose surroundings point to the checkout."""
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MARKOVOT"))}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=surroundings | {"MPLBACKEND": "Agg"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    require((done.returncode != 0) == fails, f"{' '.join(map(str, command))[:200]}\n{done.stdout}")
    return done.stdout


def require(fulfilled: bool, otherwise: str) -> None:
    """End, saying what is wrong."""
    if not fulfilled:
        sys.exit(f"package: FAILED: {otherwise}")


_START = time.monotonic()


def say(what: str, said: str) -> None:
    """Report one step."""
    print(f"--- {what} ({time.monotonic() - _START:.0f} s)\n{said.strip()}", flush=True)


if __name__ == "__main__":
    main()
