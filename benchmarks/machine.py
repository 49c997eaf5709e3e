"""On what a benchmark ran."""

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from typing import Any


def machine(packages: Sequence[str]) -> dict[str, Any]:
    versions = {}
    for name in packages:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cores": cores, "python": platform.python_version(), "system": platform.system(), **versions}
