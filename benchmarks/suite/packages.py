"""Which rivals there are, in which versions; and their installation, one by one, so that a failure stops nothing.

    python -m suite.packages RIVALS CONSTRAINTS [argument for pip ...]    # installs what RIVALS lists

What could not be installed is kept beside the environment with the reason, and named on the page.
"""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

from suite.cases import NEEDS, OURS

REASONS = Path(sys.prefix) / "not-installed.json"


def version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def missing(package: str) -> str | None:
    """Why a package cannot be run; None if it can."""
    distribution = NEEDS[package]
    if version(distribution) is not None:
        return None
    reasons = json.loads(REASONS.read_text()) if REASONS.exists() else {}
    return f"not installed: {reasons.get(distribution, 'it is not in this environment')}"


def rivals() -> list[str]:
    """All distributions but ours."""
    return sorted({distribution for distribution in NEEDS.values() if distribution != OURS})


def install(rivals: Path, constraints: Path, arguments: list[str]) -> dict[str, str]:
    """Each line of a file by a pip of its own, held to the versions that are there; the reasons of what failed."""
    failed = {}
    for line in rivals.read_text().splitlines():
        wanted = line.split("#")[0].strip()
        if not wanted:
            continue
        pip = [sys.executable, "-m", "pip", "install", "--quiet", *arguments, "-c", str(constraints), wanted]
        done = subprocess.run(pip, capture_output=True, text=True)
        if done.returncode:
            errors = [each for each in done.stderr.splitlines() if "ERROR" in each] or ["pip failed"]
            failed[wanted.split("==")[0]] = errors[-1].strip()[:200]
            print(f"{wanted}: {errors[-1].strip()}; the benchmarks go on without it", file=sys.stderr)
    REASONS.write_text(json.dumps(failed, indent=1) + "\n")
    return failed


if __name__ == "__main__":
    install(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
