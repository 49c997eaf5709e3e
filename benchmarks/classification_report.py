"""docs/classification.md, from benchmarks/classification.json."""

from collections import Counter
from typing import Any

# Test accuracies in per cent, published 2026 for a convex relative of fused Gromov-Wasserstein.
PUBLISHED = {"MUTAG": 86.17, "PROTEINS": 75.47, "ENZYMES": 51.33, "NCI1": 74.77, "IMDB-BINARY": 64.2}
TITLES = {"markovot": "markovot", "fgw": "fused GW", "wl": "WL subtree"}

TEXT = """# Classification

How well do the distances tell the classes of graphs apart, beside two rivals on the same graphs and folds? This page is
written by `benchmarks/classification.py`; no number in it was typed by hand.

    make .venv-bench/.setup-stamp
    .venv-bench/bin/python benchmarks/classification.py --data NAME ...    # resumable; NAME:attributes, --limit
    markovot classify DATA                                                 # ours alone, on any data

## How

The outer folds are those of Brugère, Wan and Wang (2024): stratified by class, shuffled with seed 42. *All* else is
chosen inside the training folds, by the mean accuracy in a stratified cross-validation within them, and then judged
once on the fold that was left out. What was to be tried was fixed beforehand; no test fold was looked at to choose
anything.

- **markovot**: lazy random walk (.1), uniform initial laws. Labels and degrees (of graphs without labels) cost 0 where
  they are equal, else 1; attributes are standardised over the set and cost their Euclidean distance, and epsilon is in
  units of its mean over the set. (The published experiments take attributes as they stand.) Chosen: delta; debiased or
  not.
- **fused GW**: fused Gromov-Wasserstein by POT, square root of its value. Structure: numbers of steps between nodes
  over their mean; the same 0/1 cost, or squared Euclidean cost over its mean. Chosen: alpha.
- **WL subtree**: the normalised Weisfeiler-Lehman subtree kernel on labels or degrees. Chosen: the depth.

1-NN takes the class of the nearest training graph (for the kernel, by its distance). SVM takes exp(-d / s) or
exp(-d^2 / (2 s^2)), with s a multiple of the training median; the kind, the multiple and C are chosen too; the WL
kernel is used as it is, C chosen. `benchmarks/classification.json` has every fold and choice.
"""

NOTES = """
Mean test accuracy in per cent over the outer folds ± the standard deviation between them (the error of the mean is
smaller, about a third). *Largest class* is what always guessing it would reach. *Published* is the accuracy reported in
2026 for a convex relative of fused Gromov-Wasserstein, under its own protocol, which we did not repeat.
"""

TIMES = """
Wall clock for one distance matrix, the mean over the settings tried, and per pair; for the WL kernel, the matrices of
all depths together. ≥: at least so long, since the run was interrupted and resumed. Both distances run on all cores.
These times are those of an experiment, on a machine that may have had other work; `make bench` measures.
The choice is that of markovot's settings, for all folds together.
"""

CHOICES = """
By the SVM on our distances, most often first, in how many of the outer folds; the largest certified error of a
distance, and the median distance; pairs that did not reach the tolerance; and the largest share of negative eigenvalues
in a training kernel that was chosen.
"""


def report(everything: dict[str, Any]) -> str:
    """The page."""
    rows = everything.get("rows", {})
    parts = [TEXT, tried(rows), "## Accuracy\n", accuracies(rows), NOTES, "## Time\n", times(rows), TIMES]
    return "\n".join([*parts, "## What was chosen, and how sound it is", CHOICES, choices(rows), versions(rows)])


def tried(rows: dict[str, Any]) -> str:
    """The grids, from the arguments of the runs; where they differ, each with the sets it was used for."""
    used: dict[str, list[str]] = {}
    for key, row in rows.items():
        for part, found in row["parts"].items():
            given = {name: value for name, value in found["arguments"].items() if name != "protocol"}
            plan = found["arguments"]["protocol"]
            words = ", ".join(f"{name} {numbers(value)}" for name, value in given.items())
            words = (
                f"**{TITLES[part]}**: {words}; {plan['folds']} outer and {plan['inner_folds']} inner folds; "
                f"scales {numbers(plan['scales'])}; C {numbers(plan['C'])}"
            )
            used.setdefault(words, []).append(key)
    lines = []
    for words, keys in used.items():
        of_all = sum(words.split(":")[0] == other.split(":")[0] for other in used) == 1
        lines.append(f"- {words}" + ("." if of_all else f" ({'; '.join(keys)})."))
    return "What was tried:\n\n" + "\n".join(sorted(lines)) + "\n"


def numbers(value: Any) -> str:
    return " ".join(f"{each:g}" for each in value) if isinstance(value, list) else f"{value:g}"


def table(header: list[str], lines: list[list[str]]) -> str:
    cells = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in cells) + "\n"


def accuracies(rows: dict[str, Any]) -> str:
    header = ["data", "features", "classes", "largest class"]
    header += [f"{title}, {method}" for title in TITLES.values() for method in ("1-NN", "SVM")] + ["published"]
    lines = []
    for key, row in rows.items():
        line = [key, row["features"], str(row["classes"]), f"{100 * row['largest_class']:.1f}"]
        for part in TITLES:
            line += [accuracy(row["parts"].get(part, {}).get(method)) for method in ("knn", "svm")]
        lines.append([*line, str(PUBLISHED.get(row["name"], "-"))])
    return table(header, lines)


def accuracy(found: dict[str, Any] | None) -> str:
    return "-" if found is None else f"{100 * found['mean']:.1f} ± {100 * found['std']:.1f}"


def times(rows: dict[str, Any]) -> str:
    header = ["data", "graphs", "mean nodes", "pairs", *(f"{title}, a matrix" for title in TITLES.values())]
    header += ["choice for 1-NN", "choice for SVM"]
    lines = []
    for key, row in rows.items():
        graphs = row["graphs"]
        pairs = graphs * (graphs + 1) // 2
        line = [key, str(graphs), f"{row['nodes']:.1f}", f"{pairs:,}"]
        line += [matrix_time(row["parts"].get(part, {}), pairs, part) for part in TITLES]
        ours = row["parts"].get("markovot", {})
        line += [f"{ours[method]['seconds']:.3g} s" if method in ours else "-" for method in ("knn", "svm")]
        lines.append(line)
    return table(header, lines)


def matrix_time(part: dict[str, Any], pairs: int, name: str) -> str:
    if "matrices" not in part:
        return part.get("not_run", "-")
    each = part["matrices"].values()
    seconds = sum(one["seconds"] for one in each) / len(each)
    least = "≥ " if any(one.get("resumed") for one in each) else ""
    return f"{least}{seconds:.3g} s" + ("" if name == "wl" else f" ({1e3 * seconds / pairs:.3g} ms)")


def choices(rows: dict[str, Any]) -> str:
    header = ["data", "delta", "debiased", "kernel", "scale", "C", "error", "median", "unsolved", "negative"]
    lines = []
    for key, row in rows.items():
        part = row["parts"].get("markovot", {})
        if "svm" not in part:
            continue
        chosen, matrices = part["svm"]["chosen"], part["matrices"].values()
        line = [key, counted([each["setting"]["delta"] for each in chosen])]
        line += [counted([each[name] for each in chosen]) for name in ("debiased", "kind", "scale", "C")]
        line += [f"{max(each['error_bound'] for each in matrices):.1e}"]
        line += [f"{min(each['median'] for each in matrices):.3g}", str(sum(each["unsolved"] for each in matrices))]
        lines.append([*line, f"{100 * max(part['svm']['negative']):.2g} %"])
    return table(header, lines)


def counted(values: list[Any]) -> str:
    return ", ".join(f"{word(value)} ({count})" for value, count in Counter(values).most_common())


def word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def versions(rows: dict[str, Any]) -> str:
    """Where it was run; more than one line where parts were run with different versions."""
    about = {
        ", ".join(f"{name} {value}" for name, value in part["machine"].items())
        for row in rows.values()
        for part in row["parts"].values()
    }
    return "".join(f"\nRun with {each}.\n" for each in sorted(about))
