"""Write the page: check the input, and fill the template. All text from users is escaped."""

import base64
import hashlib
import json
import math
import os
from collections.abc import Hashable, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from markovot import _optional, validate
from markovot._files import written_whole
from markovot.chains import MarkovChain
from markovot.pairwise import PairwiseSolution
from markovot.pairwise.solution import STATUSES
from markovot.plot.common import Labels, classes, styles
from markovot.report import content
from markovot.report.alignments import MAX_STATES, Solve, align

_SHOWN = 50  # up to so many problems are listed one by one
_SYMBOLS = {
    "o": "circle", "s": "square", "^": "triangle-up", "D": "diamond", "v": "triangle-down", "P": "cross", "X": "x",
}  # fmt: skip


def write_report(
    found: PairwiseSolution,
    path: str | os.PathLike[str],
    *,
    chains: Sequence[MarkovChain] | None = None,
    solve: Solve | None = None,
    targets: Labels | None = None,
    names: Sequence[Any] | None = None,
    label_names: Sequence[str] | None = None,
    k: int = 5,
    title: str = "Distances",
    progress: bool = True,
) -> None:
    """Write one page that shows a data set: a map, the matrix ordered by class, neighbours and their alignments.

    The page is one file, which needs no network and no server: open it in a browser. A click on a point, or on a cell
    of the matrix, shows that graph's nearest neighbours with their certified errors and, with `chains`, which of their
    states correspond. What did not converge, or has no distance, is counted at the top and hatched in the matrix.

    Args:
        found: all distances of the set, from `distance_matrix` without a second set.
        path: the file to write (.html). It is written whole or not at all.
        chains: the graphs, in the order of `found`, to draw the alignments of neighbours. Default: none are drawn.
        solve: what aligns two chains; `functools.partial(discounted_wl, cost=..., delta=..., epsilon=..., throw=False)`
            with the settings of `found`. Goes with `chains`.
        targets: the class of each graph, as it is to be written. Default: one class.
        names: what each graph is called. Default: its number.
        label_names: the name of label 0, 1, ..., to be written on states. Default: as in `plot.alignment`.
        k: how many neighbours of each graph to list and align, at least 1.
        title: what to write above.
        progress: show a progress bar over the alignments.

    Raises:
        ValueError: the distances are not all those of one set, or none is finite; `chains`, `targets` or `names` of
            another length; `chains` without `solve`, or the reverse; k below 1.
        TypeError: `found` is no PairwiseSolution.
        ImportError: plotly or scikit-learn is not installed.

    Note:
        Deterministic. The page takes 5 MB and 16 bytes a pair and about 1 kB an alignment. Time: that of
        `plot.positions` for the map, and for each alignment that of `solve`; 50 ms a graph of 20 states to lay it out.
        More than 1000 graphs: the matrix is shown as means of blocks, and the page says so. Graphs of more than 100
        states are not drawn; those with more than four edges a state are drawn without them.

    Example:
        >>> import functools, pathlib, tempfile
        >>> from markovot import costs, discounted_wl
        >>> from markovot.datasets import load_mutag
        >>> from markovot.pairwise import distance_matrix
        >>> mutag = load_mutag().subset(range(6))
        >>> setting = {"cost": costs.ZeroOne(), "delta": 0.2, "epsilon": 0.01}
        >>> found = distance_matrix(mutag.chains, **setting, progress=False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     page = pathlib.Path(folder) / "six.html"
        ...     write_report(found, page, chains=mutag.chains, solve=functools.partial(discounted_wl, **setting),
        ...                  targets=[mutag.target_names[target] for target in mutag.targets.tolist()],
        ...                  label_names=mutag.label_names, title="Six molecules", progress=False)
        ...     print("Six molecules" in page.read_text(encoding="utf-8"))
        True
    """
    validate.path("path", path)
    validate.text("title", title)
    if label_names is not None:
        validate.texts("label_names", label_names)
    progress = validate.flag("progress", progress)
    count = _checked(found, chains, solve, targets, names, k)
    kinds: list[Hashable] = ["graphs"] * count if targets is None else classes(targets, count, "targets")
    written = [str(name) for name in (range(count) if names is None else names)]
    library = _optional.require("plotly.offline", extra="report", what="The report").get_plotlyjs()
    _optional.require("sklearn.manifold", extra="sklearn", what="The map of the report")
    data = _data(found, kinds, written, k)
    if chains is not None and solve is not None:
        data["drawings"] = align(chains, data["neighbours"], solve, label_names=label_names, progress=progress)
    banner = _banner(content.certainty(found), written)
    page = _filled(title, banner, _notes(data), data, library)
    with written_whole(Path(path)) as temporary:
        # Names of files may contain bytes that are no text; these become question marks.
        temporary.write_text(page, encoding="utf-8", errors="replace", newline="\n")


def _data(found: PairwiseSolution, kinds: list[Hashable], names: list[str], k: int) -> dict[str, Any]:
    """Everything that the script of the page draws, except the alignments."""
    looks = styles(kinds, None)
    number_of = {kind: number for number, kind in enumerate(looks)}
    which = [number_of[kind] for kind in kinds]
    kept = content.measured(found.value)
    if not len(kept):
        raise ValueError("found: it has no finite distance, so there is nothing to show.")
    order = content.order_of(found.value, kept, which)
    return {
        "names": names,
        "classes": [[look.name, look.color, _SYMBOLS[look.marker]] for look in looks.values()],
        "class": which,
        "order": order,
        "k": k,
        "statuses": [[status.name, status.value] for status in STATUSES],
        "map": content.map_of(found.value, kept),
        "matrix": content.matrix_of(found, order),
        "neighbours": content.neighbours_of(found, k),
        "drawings": None,
    }


def _checked(
    found: Any,
    chains: Sequence[Any] | None,
    solve: Solve | None,
    targets: Any,
    names: Sequence[Any] | None,
    k: int,
) -> int:
    """The number of graphs."""
    if not isinstance(found, PairwiseSolution):
        raise TypeError(f"found: {type(found).__name__} is no PairwiseSolution. distance_matrix returns one.")
    count = len(found.value)
    if found.value.ndim != 2 or found.value.shape[1] != count or not found.symmetric:
        raise ValueError(
            f"found: distances of shape {found.value.shape} between two sets. The report shows one set: call "
            "distance_matrix without others."
        )
    if (chains is None) != (solve is None):
        given, missing = ("chains", "solve") if solve is None else ("solve", "chains")
        raise ValueError(f"{missing}: it goes with {given}, to align neighbours. Give both, or neither.")
    for name, items in (("chains", chains), ("names", names), ("targets", targets)):
        if items is not None:
            validate.sequence(name, items, name)
    if solve is not None:
        validate.function("solve", solve)
    if chains is not None and len(chains) != count:
        raise ValueError(f"chains: {len(chains)} chains for distances of {count} graphs. Give those of `found`.")
    for name, items in (("targets", targets), ("names", names)):
        if items is not None and len(items) != count:
            raise ValueError(f"{name}: {len(items)} for {count} graphs. Give one for each.")
    validate.count("k", k, low=1)
    return count


def _banner(sure: Mapping[str, Any], names: list[str]) -> str:
    """How far the distances can be trusted, as HTML."""
    wrong, invalid, largest = sure["wrong"], sure["invalid"], sure["largest"]
    bound, share = sure["largest_bound"], ""
    if largest > 0 and math.isfinite(bound):
        share = f" ({100 * bound / largest:.2g} % of the largest distance)"
    facts = (
        f"{_counted(sure['graphs'], 'graph')}, {_counted(sure['pairs'], 'pair')}; distances {sure['smallest']:.4g} to "
        f"{largest:.4g}. Each is certified to within its error bound, the largest of which is {bound:.2g}{share}."
    )
    lines = [f"<p>{facts}{'' if wrong or invalid else ' All pairs converged.'}</p>"]
    if wrong:
        lines.append(
            f"<p><strong>{_counted(len(wrong), 'pair')} did not converge</strong>: hatched in the matrix and marked in "
            "the lists. Their distances stand with the bounds that were reached.</p>"
        )
        listed = [f"{names[i]} and {names[j]}: {status.name}. {status.value}" for i, j, status in wrong]
        lines.append(_listed("Which pairs, and why", listed))
    if invalid:
        lines.append(
            f"<p><strong>{_counted(len(invalid), 'graph')} without distances</strong>: grey in the matrix, and not on "
            "the map.</p>"
        )
        lines.append(_listed("Which graphs, and why", [f"{names[k]}: {why}" for k, why in invalid.items()]))
    kind = "warning" if wrong or invalid else "good"
    return f'<section id="certainty" class="{kind}" aria-label="How certain">{"".join(lines)}</section>'


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _listed(summary: str, lines: list[str]) -> str:
    shown = "".join(f"<li>{escape(line)}</li>" for line in lines[:_SHOWN])
    more = f"<p>and {len(lines) - _SHOWN:,} more.</p>" if len(lines) > _SHOWN else ""
    return f"<details><summary>{summary}</summary><ul>{shown}</ul>{more}</details>"


def _notes(data: Mapping[str, Any]) -> str:
    """What the page leaves out, as HTML."""
    notes = []
    left_out = data["map"]["place"].count(None)
    if left_out:
        notes.append(f"Not on the map, for want of finite distances to others: {_counted(left_out, 'graph')}.")
    block = data["matrix"]["block"]
    if block > 1:
        notes.append(
            f"The matrix is too large to show every pair: each of its cells is the mean of {block} × {block} pairs, "
            "with the largest of their error bounds and the worst of their statuses."
        )
    drawings = data["drawings"]
    if drawings is None:
        notes.append("The alignments of neighbours were not asked for.")
    else:
        if drawings["not_drawn"]:
            few = _counted(drawings["not_drawn"], "alignment")
            notes.append(f"Not drawn: {few} of graphs with more than {MAX_STATES} states.")
        if drawings["columns"]:
            few = _counted(drawings["columns"], "graph")
            notes.append(f"Too full of edges to be drawn with them: {few}, whose states stand in a column instead.")
    return "".join(f"<p>{note}</p>" for note in notes)


def _filled(title: str, banner: str, notes: str, data: Mapping[str, Any], library: str) -> str:
    """The filled template, with a policy that forbids other scripts and all downloads."""
    source = resources.files("markovot.report")
    own = (source / "report.js").read_text(encoding="utf-8")
    scripts = [_as_parsed(script) for script in (library, own)]
    allowed = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    # A "</script>" in some name would end the element that holds the data.
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return Template((source / "template.html").read_text(encoding="utf-8")).substitute(
        title=escape(title),
        policy=(
            f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
            "form-action 'none'; base-uri 'none'"
        ),
        style=(source / "report.css").read_text(encoding="utf-8"),
        banner=banner,
        notes=notes,
        data=text,
        library=scripts[0],
        script=scripts[1],
    )


def _as_parsed(script: str) -> str:
    """A script exactly as the browser sees it between its tags, since it is compared with its digest."""
    # "</script" only occurs within strings, where "<\\/script" means the same.
    return script.replace("</script", "<\\/script").replace("\r\n", "\n").replace("\r", "\n")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
