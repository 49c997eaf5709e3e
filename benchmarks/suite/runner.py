"""Runs each measurement in a process of its own, under a time limit, and keeps it."""

import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from suite import cases, packages
from suite.cases import Case, Group
from suite.store import Store, busy

ROOT = Path(__file__).resolve().parents[1]
PREPARING = 120.0  # seconds a process may take before it is ready: imports, compilation, making of the problem
ALLOWANCE = 3.0  # of the limit: for repeats, gradients and the truth, once the first answer is there


@dataclass(frozen=True)
class Plan:
    """What to measure, and when what is there is not enough."""

    limit: float = 45.0
    quick: bool = False
    fresh: bool = False
    again_if_busy: bool = False
    only: Sequence[str] = ()

    def measurements(self) -> list[tuple[Group, Case, str]]:
        """In the order in which they are made."""
        found = []
        for group in cases.GROUPS:
            for case in group.cases:
                if self.quick and case.x not in group.quick:
                    continue
                names = [*group.packages, *([cases.ORACLE] if case.oracle else [])]
                found += [(group, case, package) for package in names]
        return [each for each in found if self.wanted(*each)]

    def wanted(self, group: Group, case: Case, package: str) -> bool:
        label = f"{group.key}/{case.x}/{package}"
        return not self.only or any(part in label for part in self.only)

    def done(self, found: dict[str, Any] | None) -> bool:
        """Whether a measurement need not be made (again); what was skipped or stopped by a smaller limit is."""
        if found is None or "expired" in found:
            return False
        if found["outcome"] in ("skipped", "failed"):
            return False
        if found["outcome"] == "limit" and found["limit"] < self.limit:
            return False
        return not (self.again_if_busy and busy(found))


def run(plan: Plan, store: Store) -> None:
    """Make all measurements of the plan that are not there."""
    from tqdm.auto import tqdm

    if plan.fresh:
        store.expire(plan.measurements())
    todo = [each for each in plan.measurements() if not plan.done(store.get(*each))]
    bar = tqdm(todo, unit="measurement", dynamic_ncols=True)
    for group, case, package in bar:
        bar.set_postfix_str(f"{group.key} {case.x} {package}")
        store.put(group, case, package, one(plan, store, group, case, package))


def one(plan: Plan, store: Store, group: Group, case: Case, package: str) -> dict[str, Any]:
    reason = case.excused.get(package) or packages.missing(package) or hopeless(store, group, case, package)
    if reason:
        return {"outcome": "skipped", "reason": reason}
    limit = group.limit or plan.limit
    with others() as about:
        found = measured([group.key, str(case.x), package], limit)
    return found | about | {"version": packages.version(packages.NEEDS[package])}


def hopeless(store: Store, group: Group, case: Case, package: str) -> str | None:
    """A larger case of a package that met the limit in a smaller one is not tried."""
    if not group.growing:
        return None
    for smaller in group.cases[: group.cases.index(case)]:
        found = store.get(group, smaller, package)
        if found and found["outcome"] == "limit":
            return f"not tried: > {found['limit']:g} s at {smaller.x}"
    return None


def command(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "suite.worker", *arguments]


def measured(arguments: Sequence[str], limit: float) -> dict[str, Any]:
    """What the process said last; the limit counts from when it was ready, and longer once it has an answer."""
    pipe, errors, stopped = subprocess.PIPE, [], []
    with subprocess.Popen(command(arguments), cwd=ROOT, stdout=pipe, stderr=pipe, text=True) as process:
        reader = threading.Thread(target=lambda: errors.extend(process.stderr or []), daemon=True)
        reader.start()
        try:
            found, pairs = _heard(process, limit, stopped)
        except BaseException:  # an interruption: nothing is left behind
            process.kill()
            raise
        status = process.wait()
        reader.join()
    last = ([line.strip() for line in errors if line.strip()][-1:] or [f"exit status {status}"])[0][:300]
    if not found:
        outcome = {"outcome": "limit", "limit": limit, "pairs": pairs} if stopped else None
        return outcome or {"outcome": "failed", "reason": last}
    return {"outcome": "ok", **found} | ({"stopped": limit} if stopped else {"crashed": last} if status > 0 else {})


def _heard(process: subprocess.Popen, limit: float, stopped: list[bool]) -> tuple[dict[str, Any], int]:
    """The last result, and the number of pairs, 0 if it was not ready in time."""
    found: dict[str, Any] = {}
    pairs, allowed = 0, PREPARING
    assert process.stdout is not None
    while True:
        timer = threading.Timer(allowed, lambda: (stopped.append(True), process.kill()))
        timer.start()
        line = process.stdout.readline()
        timer.cancel()
        if not line:
            return found, pairs
        if line.startswith("READY"):
            pairs, allowed = int(line.split()[1]), limit
        elif line.startswith("{"):
            found, allowed = json.loads(line), ALLOWANCE * limit


@contextmanager
def others() -> Iterator[dict[str, Any]]:
    """The load average before, and how many cores others kept busy meanwhile (None where that is not known)."""
    about: dict[str, Any] = {"load": round(os.getloadavg()[0], 2), "when": time.strftime("%Y-%m-%d %H:%M")}
    start, before, own = time.perf_counter(), _busy_seconds(), _own_seconds()
    yield about
    wall, after = time.perf_counter() - start, _busy_seconds()
    about |= {"others": None, "wall": round(wall, 1)}
    if before is not None and after is not None:
        about["others"] = round(max(0.0, after - before - (_own_seconds() - own)) / wall, 2)


def _own_seconds() -> float:
    """CPU time of this process and of those it waited for."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def _busy_seconds() -> float | None:
    """CPU time that all cores spent since the start of the machine: user, nice, system, interrupts, steal."""
    try:
        fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    except (OSError, ValueError, IndexError):
        return None
    return (sum(fields[:3]) + sum(fields[5:8])) / os.sysconf("SC_CLK_TCK")
