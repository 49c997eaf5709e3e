"""The pictures of the page: time, memory and error along an axis, on logarithmic scales; and our own history."""

from pathlib import Path
from typing import Any

from suite import cases
from suite.cases import Group
from suite.figures import Point, at_least
from suite.store import Store

COLOURS = {
    cases.OURS: "#0b6e4f",
    cases.OMD: "#d1495b",
    cases.TIGHT: "#edae49",
    cases.POT_LOOP: "#30638e",
    cases.FGW: "#8d6a9f",
    cases.PYOTC: "#d1495b",
    cases.WWL: "#8c8c8c",
    cases.GRAKEL: "#5c4d3c",
}


def pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


TITLES = {
    "time": "seconds (dotted: backward; x: over the limit)",
    "memory": "peak memory, MiB",
    "error": "relative error (dashed: certified)",
}


def along(store: Store, group: Group, path: Path) -> bool:
    """Write the picture of a group with an axis; False if there is nothing to draw."""
    points = {package: [Point(store, group, case, package) for case in group.cases] for package in group.packages}
    measured = [point for some in points.values() for point in some if point.ok]
    if not measured:
        return False
    shown = ["time"]
    shown += ["memory"] if max(point.found["memory"] for point in measured) > 1.0 else []
    shown += ["error"] if any(point.error is not None for point in measured) else []
    figure, row = pyplot().subplots(1, len(shown), figsize=(3.7 * len(shown), 3.8), layout="constrained", squeeze=False)
    axes = dict(zip(shown, row[0], strict=True))
    for package, some in points.items():
        _draw(axes, some, {"color": COLOURS[package], "marker": "o", "ms": 4, "lw": 1.5, "label": package})
    for name, ax in axes.items():
        ax.set(xscale="log", yscale="log", xlabel=group.axis)
        ax.set_title(TITLES[name], fontsize=9)
        ax.grid(alpha=0.3, which="both", lw=0.5)
        _ticks(ax, [float(case.x) for case in group.cases])
        if group.axis in ("delta", "epsilon"):
            ax.invert_xaxis()
    handles, labels = axes["time"].get_legend_handles_labels()
    columns = min(len(labels), 2 * len(shown))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)
    figure.suptitle(group.title, fontsize=11)
    _save(figure, path)
    return True


def _draw(axes: dict[str, Any], some: list[Point], style: dict[str, Any]) -> None:
    """One package."""
    dotted = {key: each for key, each in style.items() if key != "label"} | {"mfc": "white"}
    good = [(float(point.case.x), point) for point in some if point.ok]
    drawn = _line(axes["time"], [(x, point.found["seconds"]) for x, point in good], **style)
    _line(axes["time"], [(x, point.found.get("backward")) for x, point in good], ls=":", **dotted)
    crosses = [(float(point.case.x), at_least(point.found)) for point in some if point.found]
    cross = dotted | {"marker": "x", "ms": 8, "mew": 2, "ls": ""}
    _line(axes["time"], crosses, **cross | ({} if drawn else {"label": style["label"]}))
    if "memory" in axes:
        _line(axes["memory"], [(x, max(point.found["memory"], 1.0)) for x, point in good], **style)
    if "error" in axes:
        _line(axes["error"], [(x, point.error) for x, point in good], **style)
        _line(axes["error"], [(x, point.certified) for x, point in good], ls="--", **dotted)


def _line(ax: Any, points: list[tuple[float, float | None]], **style: Any) -> bool:
    """Draw the points that have a value; whether there are any. Zero has no logarithm and is shown at 1e-16."""
    some = [(x, max(y, 1e-16)) for x, y in points if y is not None]
    if some:
        ax.plot(*zip(*some, strict=True), **style)
    return bool(some)


def _ticks(ax: Any, values: list[float]) -> None:
    from matplotlib.ticker import NullLocator

    ax.set_xticks(values, [f"{value:g}" for value in values], fontsize=8, rotation=30 if len(values) > 6 else 0)
    ax.set_xlim(min(values) / 1.25, max(values) * 1.25)
    ax.xaxis.set_minor_locator(NullLocator())


def history(entries: list[dict[str, Any]], path: Path) -> bool:
    """Our own timings by commit, in the order in which they were made, each relative to its first."""
    if not entries:
        return False
    figure, ax = pyplot().subplots(figsize=(9, 3.8), layout="constrained")
    names = sorted({name for entry in entries for name in entry["least"]})
    colours = pyplot().get_cmap("tab10")
    for number, name in enumerate(names):
        line = [(i, entry["least"][name]) for i, entry in enumerate(entries) if name in entry["least"]]
        first = line[0][1]
        label = f"{name}: {1e3 * first:.3g} to {1e3 * line[-1][1]:.3g} ms"
        places, ratios = [i for i, _ in line], [each / first for _, each in line]
        ax.plot(places, ratios, "o-", ms=4, color=colours(number % 10), label=label)
    ax.set(yscale="log", ylabel="time, relative to the first", title="Our own timings, by commit")
    ax.set_xticks(range(len(entries)), [entry["commit"] for entry in entries], rotation=60, fontsize=7)
    ax.grid(alpha=0.3, which="both", lw=0.5)
    ax.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    _save(figure, path)
    return True


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot().close(figure)
