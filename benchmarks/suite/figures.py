"""Numbers as they are shown, and what is reckoned from measurements."""

from typing import Any

from suite import cases
from suite.cases import Case, Group
from suite.store import Store, busy

SOLVED = 1e-4  # of the range of the cost: what every solver is asked for
TRUTH = 1e-10  # of the range: what the truth is solved to
OTHER_DISTANCES = (cases.FGW, cases.WWL, cases.GRAKEL)
Found = dict[str, Any]


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 1e-3:
        return f"{1e6 * seconds:.3g} µs"
    if seconds < 1:
        return f"{1e3 * seconds:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 600 else f"{seconds / 60:.3g} min"


def memory(mebibytes: float | None) -> str:
    if mebibytes is None:
        return "-"
    if mebibytes < 1:
        return "< 1 MiB"
    return f"{mebibytes:.0f} MiB" if mebibytes < 1000 else f"{mebibytes / 1024:.2f} GiB"


def share(number: float | None) -> str:
    """A relative error: in per cent, or as a power of ten where it is small."""
    if number is None:
        return "-"
    if number == 0:
        return "0"
    return f"{100 * number:.2g} %" if number >= 1e-3 else f"{number:.0e}"


def table(header: list[str], lines: list[list[str]]) -> str:
    cells = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in cells) + "\n"


def time_of(found: Found | None) -> str:
    """The time, with a mark where others used the machine; or why there is none."""
    if found is None:
        return "not run yet"
    if found["outcome"] == "ok":
        return duration(found["seconds"]) + (" †" if busy(found) else "")
    if found["outcome"] == "limit":
        least = at_least(found)
        return f"> {duration(least)}" if least else f"> {found['limit']:g} s in a small problem"
    tried = found["outcome"] == "failed" or not found["reason"].startswith("not ")
    return (f"{found['outcome']}: " if tried else "") + found["reason"].replace("|", "/")


def seconds(found: Found | None) -> float | None:
    return found["seconds"] if found and found["outcome"] == "ok" else None


def at_least(found: Found) -> float | None:
    """Seconds a pair that a measurement took at least, which met the limit."""
    if found["outcome"] != "limit" or not found["pairs"]:
        return None
    return found["limit"] / found["pairs"]


def ratio(found: Found | None, ours: Found | None) -> str:
    theirs, mine = seconds(found), seconds(ours)
    if found and (least := at_least(found)) and mine:
        return f"> {times(least / mine)}"
    return times(theirs / mine) if theirs and mine else "-"


def times(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


class Point:
    """All about one package in one case, with the truth that ours gave."""

    def __init__(self, store: Store, group: Group, case: Case, package: str) -> None:
        self.group, self.case, self.package = group, case, package
        self.found = store.get(group, case, package)
        self.ours = store.get(group, case, cases.OURS)

    @property
    def ok(self) -> bool:
        return self.found is not None and self.found["outcome"] == "ok"

    def gaps(self) -> list[tuple[float, float, float]] | None:
        """Distance from the truth, the truth, and the range of the cost, for each pair that was solved."""
        if not self.ok or self.package in OTHER_DISTANCES or not self.ours or "truth" not in self.ours:
            return None
        if "values" not in self.found:
            return None
        # A package may have solved the first pairs only.
        known = zip(self.found["values"], self.ours["truth"], self.ours["range"], strict=False)
        return [(abs(value - truth), abs(truth), spread) for value, truth, spread in known]

    @property
    def is_truth(self) -> bool:
        """Whether it was asked for what the truth is: then it has no error to show, only what it certifies."""
        return self.package == cases.OURS and self.group.rtol <= TRUTH

    @property
    def error(self) -> float | None:
        """The largest, relative to the value."""
        if self.ok and "error of the largest" in self.found:
            return self.found["error of the largest"]
        gaps = None if self.is_truth else self.gaps()
        return max(gap / (truth or 1.0) for gap, truth, _ in gaps) if gaps else None

    @property
    def certified(self) -> float | None:
        """The largest certified error, relative to the value."""
        if self.ok and "certified of the largest" in self.found:
            return self.found["certified of the largest"]
        if not self.ok or "certified" not in self.found or "truth" not in self.found:
            return None
        pairs = zip(self.found["certified"], self.found["truth"], strict=True)
        return max(bound / (abs(truth) or 1.0) for bound, truth in pairs)

    @property
    def solved(self) -> str:
        """Whether it met 1e-4 of the range; and where it missed, whether it said so."""
        if self.package in OTHER_DISTANCES:
            return "another distance"
        if not self.ok:
            return "no" if self.found else "-"
        if "error of the largest" in self.found:  # costs are 0 or 1, a range of one
            return "yes" if self.error * self.found.get("largest", 1.0) <= SOLVED else "no"
        gaps = self.gaps()
        if gaps is None:
            return "-"
        good = all(gap <= SOLVED * spread for gap, _, spread in gaps)
        said = bool(self.found.get("warnings")) or set(self.found.get("status", [])) - {"", "CONVERGED"}
        return "yes" if good else "no, and says so" if said else "no"

    @property
    def gradient_error(self) -> float | None:
        """Of the gradient in the cost, in the max norm, relative to its largest entry."""
        if not self.ok or self.is_truth or not self.ours or not (wanted := self.ours.get("true gradient")):
            return None
        if not (given := self.found.get("gradient")):
            return None
        gap = max(abs(a - b) for a, b in zip(given, wanted, strict=True))
        return gap / (max(map(abs, wanted)) or 1.0)

    @property
    def backward(self) -> str:
        if not self.ok or not self.group.gradients:
            return "-"
        if "backward failed" in self.found:
            return "fails"
        if "backward" not in self.found:
            return f"> {self.found['stopped']:g} s" if "stopped" in self.found else "has none"
        return duration(self.found["backward"])
