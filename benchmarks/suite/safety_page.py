"""The part of the page on wrong answers that are said to be right."""

from typing import Any

from suite.cases import Group
from suite.figures import table
from suite.store import Store

TEXT = """## Does it fail safely?

**Hard settings.** Six problems for each setting and epsilon; the truth as above. An answer is *right* if it is within
the tolerance that the package states by default, or 1e-4 of the range of the cost, whichever is more (for markovot: and
within its own certified bound). A wrong answer is *said to be right* if there was no exception, no warning, and no
status that says otherwise. The problems: chains of 5 full and 6 sparse rows, delta = .1; laws on 20 and 25 points of
the plane; a molecule against itself renumbered, at distance zero; two block models of 8 nodes, at average cost. POT's
functions of laws are judged by the cost of the plan, which is what they return. *Few steps*: two outer steps (chains,
graphs, average), ten Sinkhorn steps or simplex pivots (laws); `markovot.transport_cost` had no such limit then.
*Few inner steps*: ten Sinkhorn steps within each outer one; markovot has none, and its numbers are of value
iteration, 20 sweeps, which it had when this was measured.
"""

ENDS = """
**Where markovot ends.** `discounted_wl` asked for 1e-10 of the range on the same six pairs of chains, at epsilons (the
range is about one) where rounding takes over. Judged by the linear programme at epsilon = 0, below which the value
cannot be, nor above it by more than the entropic bias.
"""

BAD = """
**Bad input.** What each function does with it: the exception it raises, the warning it gives with the value it
returns, or (bold) the value it returns without a word. *Sums to two*: a transition row, or a law. *Two closed classes*:
no initial laws are given, so that there is no single stationary law; an average cost depends on where one starts.
"""

NOTE = """
ot-markov-distances stops where a step of its iteration is below .5 % of the value; since the map shrinks errors by 1 -
delta only, nine times as much can be left at delta = .1. It warns where it met its limit of outer steps.

Fused Gromov-Wasserstein is not convex, and POT says that it finds local minima: that is what its line counts. pyotc's
sparse form stops when two policies are equal to the last bit, which they need not become where policies tie; it then
returns None, which counts as said. No answer: none within ten seconds a call.
"""

SHORT = {
    "right, said to be right": "right",
    "right, said so": "right, but objects",
    "wrong, said so": "wrong, says so",
    "wrong, said to be right": "**wrong, says right**",
    "refused": "refuses",
    "no answer": "no answer",
}


def safety(store: Store, group: Group) -> str:
    rows = {package: store.get(group, group.cases[0], package) for package in group.packages}
    found = {package: each for package, each in rows.items() if each}
    if not found:
        return "## Does it fail safely?\n\nNot run yet.\n"
    return "\n".join([TEXT, hard(found), NOTE, ends(found), BAD, bad_input(found)])


def ends(found: dict[str, dict[str, Any]]) -> str:
    """Of ours, at tiny epsilon."""
    given = [line for each in found.values() for line in each.get("ends", [])]
    header = ["epsilon", "reached 1e-10", "did not, and says so", "widest certified error", "outside of it"]
    lines = []
    for line in given:
        numbers = [str(line["reached"]), str(line["says not"]), f"{line['widest']:.0e}", str(line["outside"])]
        lines.append([f"{line['epsilon']:g}", *numbers])
    return "\n".join([ENDS, table(header, lines)]) if lines else ""


def hard(found: dict[str, dict[str, Any]]) -> str:
    epsilons = (0.1, 0.01, 0.001, 0.0001, 0.0)
    header = ["function", "settings", *(f"epsilon {epsilon:g}" if epsilon else "exact" for epsilon in epsilons)]
    lines = []
    for package, each in found.items():
        if "hard" not in each:
            lines.append([f"`{package}`", each.get("reason", each["outcome"]), *[""] * (len(epsilons) + 1)])
            continue
        for setting in dict.fromkeys(line["setting"] for line in each["hard"]):
            some = {line["epsilon"]: line for line in each["hard"] if line["setting"] == setting}
            cells = [cell(some[epsilon]) if epsilon in some else "" for epsilon in epsilons]
            lines.append([f"`{package}`", setting, *cells, total(list(some.values()))])
    return table([*header, "wrong, says right"], lines)


def cell(line: dict[str, Any]) -> str:
    words = [f"{count} {SHORT[verdict]}" for verdict, count in sorted(line["counts"].items())]
    worst = line["worst"]
    off = " (not finite)" if worst is None else f" (up to {100 * worst:.2g} %)" if worst else ""
    return ", ".join(words) + off


def total(lines: list[dict[str, Any]]) -> str:
    asked = sum(count for line in lines for count in line["counts"].values())
    return f"{sum(line['counts'].get('wrong, said to be right', 0) for line in lines)} of {asked}"


def bad_input(found: dict[str, dict[str, Any]]) -> str:
    questions = list(dict.fromkeys(name for each in found.values() for name in each.get("bad input", {})))
    lines = []
    for package, each in found.items():
        given = each.get("bad input", {})
        lines.append([f"`{package}`", *(outcome(given.get(question, "")) for question in questions)])
    return table(["function", *questions], lines)


def outcome(text: str) -> str:
    """The kind of exception or warning, the value after a warning; what came quietly in bold."""
    if text.startswith("quietly"):
        return f"**{text}**"
    kind = text.split(":")[0]
    if kind == "status":
        return text.split(";")[0].removeprefix("status: ")
    returned = text.rsplit("; ", 1)[1] if "; " in text and "Warning" in kind else ""
    return kind + (f", {returned}" if returned else "")
