"""The parts of the page on what other packages do when they are tried, and on a step of training beside the rival."""

from typing import Any

from suite import cases
from suite.cases import Group
from suite.claims import CLAIMS, as_said
from suite.figures import duration, share, table
from suite.store import Store, busy

CLAIMED = """## What the others do, tried

Each sentence of our pages about another package that can be run is run here ([comparison](comparison.md), [moving
over](moving.md)). Where what came of it is no longer what the pages say, the line is in bold. A claim that takes longer
than a minute is stopped. Chains of six and ten states, rows full (dense) or of three entries (sparse).
"""

TRAINED = """## A step of training

The paper's coarsening: 15 dense states, with their features, learn to be near to two steps of a directed ring of 30,
which are sparse; delta = .5, epsilon = .05, Adam at 5e-3. A step is the chain from its parameters, the distance, its
gradient in rows and features, and the step of the optimiser. All start from the same parameters and take their steps
in turn in one process, with one torch thread, so that what else the machine does falls on all alike: their ratio means
more than their times. ot-markov-distances is run in single precision, at its defaults; *tight*: `max_iter` and
`sinkhorn_iter` 1000, no relative threshold, and the absolute one that promises 1e-4 of the range of the cost, which
ours certifies. *Error of the first value*: relative. *Ends at*: the certified distance of the chain that it has trained
after all steps, from {start:.4f} before.
"""


def claimed(store: Store, group: Group) -> str:
    lines = []
    for package in group.packages:
        found = store.get(group, group.cases[0], package)
        if not found:
            continue
        if "claims" not in found:
            lines.append([package, found.get("reason", found["outcome"]), ""])
            continue
        version, told = found.get("version", ""), found["claims"]
        for claim in CLAIMS:
            if claim.package == package and claim.words in told:
                came = told[claim.words].replace("|", "/")
                came = came if as_said(claim, told[claim.words]) else f"**{came}** (our pages say: {claim.expected})"
                lines.append([f"{cases.NEEDS[package]} {version}", claim.words, came])
    return "\n".join([CLAIMED, table(["package", "tried", "what came of it"], lines)]) if lines else ""


def trained(store: Store, group: Group) -> str:
    found: dict[str, Any] = store.get(group, group.cases[0], cases.OURS) or {}
    if "trainings" not in found:
        return ""
    every = found["trainings"]
    ours = every[cases.OURS]["median_ms"]
    mark = " †" if busy(found) else ""
    lines = [
        [
            package, f"{duration(each['median_ms'] / 1e3)}{mark}", f"{each['median_ms'] / ours:.1f}",
            share(each["error of the value"]), f"{each['ends at']:.4f}",
        ]
        for package, each in every.items()
    ]  # fmt: skip
    text = TRAINED.format(start=every[cases.OURS]["starts at"])
    header = ["package", f"a step, median of {found['steps']:.0f}", "times ours", "error of the first value", "ends at"]
    return "\n".join([text, table(header, lines)])
