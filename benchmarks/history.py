"""Append our own timings at this commit to history.json: `make bench-history`. A commit is kept once, its last run."""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from machine import machine
from suite.runner import others

HERE = Path(__file__).resolve().parent
OPTIONS = ("-q", "-p", "no:cacheprovider", "-o", "addopts=", "-o", "filterwarnings=default", "-o", "python_files=*.py")


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=HERE, capture_output=True, text=True, check=True).stdout.strip()


def measured(folder: Path) -> dict[str, Any]:
    """Least and median seconds and interquartile ranges by name, and how busy others were meanwhile."""
    path = folder / "timings.json"
    with others() as about:
        command = [sys.executable, "-m", "pytest", str(HERE / "timings.py"), f"--benchmark-json={path}", *OPTIONS]
        subprocess.run(command, cwd=HERE, check=True)
    found = json.loads(path.read_text())["benchmarks"]
    names = [each["name"].removeprefix("test_").replace("[", " ").rstrip("]") for each in found]
    stats = dict(zip(names, (each["stats"] for each in found), strict=True))
    return {
        "least": {name: float(f"{each['min']:.4g}") for name, each in stats.items()},
        "median": {name: float(f"{each['median']:.4g}") for name, each in stats.items()},
        "iqr": {name: float(f"{each['iqr']:.2g}") for name, each in stats.items()},
        "load": about["load"],
        "others": about["others"] if about["others"] is not None else max(0.0, about["load"] - 1.0),
    }


def appended(entries: list[dict[str, Any]], new: dict[str, Any]) -> list[dict[str, Any]]:
    """A commit measured again takes its old place."""
    kept = [new if entry["commit"] == new["commit"] else entry for entry in entries]
    return kept if new in kept else [*kept, new]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=HERE / "history.json")
    options = parser.parse_args()
    entries = json.loads(options.json.read_text()) if options.json.exists() else []
    with tempfile.TemporaryDirectory() as folder:
        found = measured(Path(folder))
    changed = "+" if git("status", "--porcelain", "--untracked-files=no", "--", "../src") else ""
    about = {"commit": git("rev-parse", "--short=10", "HEAD") + changed, "date": git("log", "-1", "--format=%cs")}
    entries = appended(entries, {**about, **found, "machine": machine(("torch", "numpy", "numba"))})
    lines = ",\n".join(json.dumps(entry) for entry in entries)
    options.json.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
