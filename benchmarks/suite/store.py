"""The one JSON of all measurements: written after each, so that a run that was stopped goes on where it was."""

import json
import os
from pathlib import Path
from typing import Any

from suite.cases import Case, Group

BUSY = 0.2  # cores that others may use during a measurement


def name(group: Group, case: Case, package: str) -> str:
    return f"{group.key}/{case.x}/{package}"


class Store:
    """Measurements by name. Each keeps what was asked, and is not used for a case that asks something else."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.about: dict[str, Any] = {}
        self.found: dict[str, dict[str, Any]] = {}
        if path.exists():
            kept = json.loads(path.read_text())
            self.about, self.found = kept["about"], kept["measurements"]

    def get(self, group: Group, case: Case, package: str) -> dict[str, Any] | None:
        """What is known of a case, if it is still the same case."""
        found = self.found.get(name(group, case, package))
        return found if found is not None and found["asked"] == asked(group, case) else None

    def put(self, group: Group, case: Case, package: str, found: dict[str, Any]) -> None:
        self.found[name(group, case, package)] = {"asked": asked(group, case), **found}
        self.save()

    def expire(self, measurements: list[tuple[Group, Case, str]]) -> None:
        """They are to be made again, and serve until then; a run that is interrupted goes on with the others."""
        for each in measurements:
            if name(*each) in self.found:
                self.found[name(*each)]["expired"] = True
        self.save()

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".part")
        temporary.write_text(self.dumps())
        os.replace(temporary, self.path)

    def dumps(self) -> str:
        """One measurement a line."""
        lines = [f" {json.dumps(key)}: {json.dumps(each)}" for key, each in sorted(self.found.items())]
        return '{"about": ' + json.dumps(self.about) + ',\n"measurements": {\n' + ",\n".join(lines) + "\n}}\n"


def asked(group: Group, case: Case) -> dict[str, Any]:
    return {"kind": group.kind, "problem": group.problem, **case.arguments}


def busy(found: dict[str, Any]) -> bool:
    """Whether others had a part of the machine meanwhile."""
    others = found.get("others")
    return (others if others is not None else found.get("load", 0.0) - 1.0) > BUSY
