"""docs/benchmarks.md and its pictures, from the JSON alone; no number in it is typed by hand."""

from pathlib import Path
from typing import Any

from suite import cases, plots
from suite.cases import GROUPS, Group
from suite.claims_page import claimed, trained
from suite.figures import Point, duration, memory, ratio, share, table, time_of
from suite.safety_page import safety
from suite.store import BUSY, Store, busy

PICTURES = "benchmarks"

HEAD = """# Benchmarks

Time, memory and error of markovot beside the packages that compute the same or something like it. This page is written
by `make bench`, from `benchmarks/benchmarks.json`; no number in it was typed by hand.

    make bench                              # all; goes on where it stopped
    make bench BENCH_ARGS=--quick           # some minutes
    make bench BENCH_ARGS="--only dense/ --fresh"    # one group again; names are GROUP/CASE/PACKAGE
    make bench BENCH_ARGS=--busy            # again what was measured while the machine had other work
    make bench BENCH_ARGS=--page            # this page alone
    make bench-history                      # our own timings at this commit

## How it is measured

- Every measurement has a process of its own. It solves a small problem first, so that nothing is compiled or imported
  while the clock runs; then the time is the median of up to five calls, of one where that takes long.
- *Memory* is the peak resident memory above that of the same process just before the first timed call, where Python
  with all that was imported held {baseline}.
- Every solver that has a tolerance is asked for an error of at most 1e-4 of the range of the cost; *solved* says
  whether it met that. *Error* is the largest error, and *certified* the largest error bound, relative to the value.
- The truth is markovot's value at a tolerance of 1e-10; the smallest cases are solved once more by independent oracles:
  linear programmes, and Sinkhorn or trust-region steps in the log domain. The largest relative difference was
  {gap}.
- *Backward* is the time of gradients, in:{backward}. *Gradient error*: of that in the cost.
- What gradients ot-markov-distances gives, and what it refuses, is tried [below](#what-the-others-do-tried). Dense
  against dense its backward fails at its defaults, and works with `y_is_sparse=True`.
- A package that takes more than {limit:g} s is stopped, and not tried on larger cases.
- ot-markov-distances is run in single precision; in double it needs the laws to be given. At its defaults it makes at
  most 50 outer steps of at most 100 Sinkhorn steps and stops at a step of .5 % of the value; *tight* is the same with
  its limits raised and its step tolerance set for what we certify.
"""


def page(store: Store, history: list[dict[str, Any]], folder: Path) -> str:
    """The text; the pictures go into `folder`/benchmarks."""
    head = HEAD.format(gap=oracles(store), limit=limit(store), baseline=baseline(store), backward=backward(store))
    parts = [head, about(store), goals(store)]
    for group in GROUPS:
        parts.append(WHOLE[group.kind](store, group) if group.kind in WHOLE else section(store, group, folder))
    parts.append(own_history(history, folder))
    return "\n".join(part for part in parts if part)


# Kinds of measurements with a part of the page of their own.
WHOLE = {"safety": safety, "claims": claimed, "training": trained}


def limit(store: Store) -> float:
    return store.about.get("limit", 45.0)


def backward(store: Store) -> str:
    """In what, for each package, as it was measured."""
    told: dict[str, dict[str, None]] = {}
    for group in GROUPS:
        for case in group.cases:
            for package in group.packages:
                found = store.get(group, case, package) or {}
                if "backward in" in found:
                    told.setdefault(package, {})[found["backward in"]] = None
    words = [f"\n  {package}: {' (or: '.join(given)}{')' * (len(given) - 1)}" for package, given in told.items()]
    return ";".join(words) or "not measured yet"


def baseline(store: Store) -> str:
    every = [found["baseline"] for found in store.found.values() if "baseline" in found]
    return f"{memory(min(every))} to {memory(max(every))}" if every else "what was not measured yet"


def oracles(store: Store) -> str:
    """How far the truth is from the oracles where there are any."""
    gaps = []
    for group in GROUPS:
        for case in group.cases if group.kind not in WHOLE else ():
            slow, ours = store.get(group, case, cases.ORACLE), store.get(group, case, cases.OURS)
            if slow and ours and "values" in slow and "truth" in ours:
                gaps += [abs(a - b) / abs(b) for a, b in zip(slow["values"], ours["truth"], strict=True)]
        if group.kind == "safety":
            every = (store.get(group, group.cases[0], package) or {} for package in group.packages)
            gaps += [found["truth against an oracle"] for found in every if "truth against an oracle" in found]
    return f"{max(gaps):.0e} (of {len(gaps)} comparisons)" if gaps else "not measured yet"


def about(store: Store) -> str:
    """Machine and versions; which rivals are missing, and why; how quiet it was."""
    versions = ", ".join(f"{name} {value}" for name, value in store.about.get("machine", {}).items())
    lines = ["## On what\n", f"{versions}."]
    for package, reason in store.about.get("missing", {}).items():
        lines.append(f"\n**{package}** was not run: {reason}.")
    timed = [found for found in store.found.values() if "when" in found]
    if timed:
        disturbed, loads = sum(map(busy, timed)), [found["load"] for found in timed if "load" in found]
        lines.append(
            f"\nMeasured {min(found['when'] for found in timed)} to {max(found['when'] for found in timed)}. † marks a "
            f"time measured while other work kept more than {BUSY:g} cores busy: {disturbed} of {len(timed)} "
            f"measurements. Load average before a measurement: {min(loads):.1f} to {max(loads):.1f}, our own work "
            f"included. All of them took {sum(found.get('wall', 0.0) for found in timed) / 60:.0f} minutes."
        )
        if disturbed:
            lines.append("\n**These times are provisional**: the machine was not idle. `--busy` measures them again.")
    return "\n".join(lines) + "\n"


def goals(store: Store) -> str:
    lines = []
    for group in GROUPS:
        for case in group.cases:
            found = store.get(group, case, cases.OURS)
            if case.goal is None or not found or found["outcome"] != "ok":
                continue
            within, aim = case.goal
            seconds = found["seconds"]
            verdict = "as aimed" if seconds <= aim else "within reach" if seconds <= within else "missed"
            words = f"{duration(within) if within < 1e9 else 'completes'} / {duration(aim)}"
            name = case.label or f"{group.title}: {group.axis} = {case.x}" if group.axis else group.title
            lines.append([name, time_of(found), words, verdict])
    text = "What we had set ourselves before the code was written, and what came of it.\n"
    if not lines:
        return ""
    return "\n".join(["## Our goals\n", text, table(["work", "time", "within reach / aimed at", "met"], lines)])


def section(store: Store, group: Group, folder: Path) -> str:
    """Text, picture and table of a group."""
    parts = [f"## {group.title}\n", group.text + "\n"]
    if group.axis and plots.along(store, group, folder / PICTURES / f"{group.key}.png"):
        alt = f"Time, peak memory and error against {group.axis}, for each package"
        parts.append(f"![{alt}]({PICTURES}/{group.key}.png)\n")
    parts.append(extras(store, group) if group.kind in ("set", "startup") else comparison(store, group))
    return "\n".join(parts)


def comparison(store: Store, group: Group) -> str:
    header = [group.axis or "pairs", "package", "time", "times ours"]
    header += ["backward", "gradient error"] if group.gradients else []
    header += ["peak memory", "certified", "error", "solved"]
    lines, told = [], set()
    for case in group.cases:
        for package in group.packages:
            point = Point(store, group, case, package)
            reason = (point.found or {}).get("reason", "")
            if point.found is None or (reason.startswith("not tried") and package in told):
                continue
            if reason.startswith("not tried"):
                told.add(package)  # once for all larger cases
            line = [str(case.x), package, time_of(point.found)]
            line += [ratio(point.found, point.ours) if package != cases.OURS else "1"]
            line += [point.backward, share(point.gradient_error)] if group.gradients else []
            line += [memory(point.found.get("memory")), share(point.certified), share(point.error), point.solved]
            lines.append(line)
    return table(header, lines) + failures(store, group)


def failures(store: Store, group: Group) -> str:
    """What backward failed with, and what was warned of: once for each package."""
    told: dict[str, set[str]] = {}
    for case in group.cases:
        for package in group.packages:
            found = store.get(group, case, package) or {}
            said = told.setdefault(package, set())
            said |= {f"its gradients fail with `{found['backward failed']}`"} if "backward failed" in found else set()
            said |= {f"warns: `{text}`" for text in found.get("warnings", [])}
    lines = [f"- {package}: {'; '.join(sorted(said))}." for package, said in told.items() if said]
    return "\n" + "\n".join(lines) + "\n" if lines else ""


UNITS = {"seconds": duration, "memory": memory, "error": lambda number: f"{number:.0e}"}
SECONDS = ("import", "cold", "cold, each kind", "each kind")


def extras(store: Store, group: Group) -> str:
    """A table of whatever was found, ours alone."""
    rows = [(case, store.get(group, case, cases.OURS)) for case in group.cases]
    known = [name for _, found in rows for name in shown(found)]
    names = list(dict.fromkeys(known))
    lines = []
    for case, found in rows:
        if found is None:
            continue
        cells = [value(name, shown(found).get(name)) for name in names] if shown(found) else [""] * len(names)
        lines.append([str(case.x), time_of(found), *cells])
    titles = ["memory added" if name == "memory" else "certified" if name == "error" else name for name in names]
    first = "time" if group.kind == "set" else "first call"
    return table(["work", first, *titles], lines) if lines else "Not run yet.\n"


def shown(found: dict[str, Any] | None) -> dict[str, float]:
    hidden = {"seconds", "load", "others", "wall", "limit"}
    given = found if found and found["outcome"] == "ok" else {}
    return {key: each for key, each in given.items() if isinstance(each, float) and key not in hidden}


def value(name: str, number: float | None) -> str:
    if number is None:
        return ""
    return (
        duration(number)
        if name in SECONDS
        else UNITS[name](number)
        if name in UNITS
        else f"{number:,.0f}"
        if number >= 1000
        else f"{number:.4g}"
    )


def own_history(entries: list[dict[str, Any]], folder: Path) -> str:
    if not plots.history(entries, folder / PICTURES / "history.png"):
        return ""
    names = sorted({name for entry in entries for name in entry["least"]})
    lines = []
    for entry in entries[-10:]:
        cells = [duration(entry["least"].get(name)) for name in names]
        lines.append([entry["commit"], entry["date"], *cells, f"{entry['others']:.1f}"])
    text = (
        "Our own timings by pytest-benchmark, the least of some rounds each, kept in `benchmarks/history.json` by "
        "`make bench-history`.\n"
    )
    picture = f"![Our own timings by commit]({PICTURES}/history.png)\n"
    shown = table(["commit", "date", *names, "cores used by others"], lines)
    return "\n".join(["## Our own history\n", text, picture, shown])
