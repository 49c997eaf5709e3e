"""`markovot compare`: the distance of two graph files."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from markovot.cli.program import (
    PICTURE,
    Failure,
    Parameters,
    Reading,
    Showing,
    example,
    graph_options,
    problem_options,
    showing_options,
)

if TYPE_CHECKING:
    from markovot.chains import MarkovChain
    from markovot.costs import Cost
    from markovot.solution import ChainSolution

GRAPH = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(
    short_help="Compare two graph files.",
    epilog=example(
        "markovot compare a.graphml b.graphml --features colour --plot alignment.png",
        "markovot compare a.csv b.csv --json",
    ),
)
@click.argument("a", type=GRAPH)
@click.argument("b", type=GRAPH)
@click.option("--debiased", is_flag=True, help="Also print d(A, B) - d(A, A)/2 - d(B, B)/2, zero for equal graphs.")
@click.option("--top", type=click.IntRange(min=0), default=10, show_default=True, help="How many states of A to list.")
@click.option("--plot", "picture", type=PICTURE, help="Draw the alignment into this file (.png, .pdf, .svg).")
@graph_options
@problem_options
@showing_options
def compare(
    a: Path, b: Path, debiased: bool, top: int, picture: Path | None,
    reading: Reading, problem: Parameters, showing: Showing,
) -> None:  # fmt: skip
    """Compare two graph files: the distance, its certified error, and which states correspond.

    A and B are GraphML (.graphml), GML (.gml), edge lists (.edgelist, .edges, .txt, .csv) or adjacency matrices (.csv).
    """
    from markovot.cli.data import choose_cost, file_options, read_files
    from markovot.cli.output import show_facts, show_json, show_table

    (x, y), kind, attribute = read_files([a, b], file_options(reading))
    cost, cost_name = choose_cost(problem.cost, kind)
    with showing.patience():
        solution = _solve(x, y, cost, problem)
        mates = partners(solution, x, y, cost)
    summary = {
        "a": {"file": a, "states": x.num_states},
        "b": {"file": b, "states": y.num_states},
        "distance": float(solution.value),
        "error_bound": float(solution.error_bound),
        **(_debiased(solution, x, y, cost, problem) if debiased else {}),
        "status": solution.status.name,
        "features": attribute,
        "cost": cost_name,
        "delta": problem.delta,
        "epsilon": problem.epsilon,
        "alignment": mates,
    }
    if picture is not None:
        _draw(x, y, solution, (a.stem, b.stem), picture)
        summary["plot"] = picture
    if showing.as_json:
        show_json(summary)
    else:
        show_facts(_worded(summary))
        rows = [_row(pair) for pair in summary["alignment"][:top]]
        if rows:
            click.echo()
            show_table([f"state of {a.stem}", f"state of {b.stem}", "share", "mass", "cost"], rows)
    if picture is not None:
        showing.note(f"wrote {picture}")
    if not bool(solution.converged):
        raise Failure(f"the distance did not converge: {solution.status.value}")


def _solve(x: "MarkovChain", y: "MarkovChain", cost: "Cost", problem: Parameters) -> "ChainSolution":
    from markovot.distances.discounted import discounted_wl

    return discounted_wl(x, y, cost, delta=problem.delta, epsilon=problem.epsilon, rtol=problem.rtol, throw=False)


def _debiased(
    solution: "ChainSolution", x: "MarkovChain", y: "MarkovChain", cost: "Cost", problem: Parameters
) -> dict[str, float]:
    """The debiased distance; its error includes the errors of all three parts."""
    own = [_solve(chain, chain, cost, problem) for chain in (x, y)]
    return {
        "debiased": float(solution.value) - sum(float(part.value) for part in own) / 2,
        "debiased_error_bound": float(solution.error_bound) + sum(float(part.error_bound) for part in own) / 2,
    }


def partners(
    solution: "ChainSolution", x: "MarkovChain", y: "MarkovChain", cost: "Cost"
) -> list[dict[str, Any]]:
    """For each state of x, the state of y that gets most of its mass; heaviest states first.

    `share` is a share of the mass of the state of x; `cost` is the cost of matching the two.
    """
    from markovot.chains.names import full_names
    from markovot.costs import resolve_cost

    mass, costs = solution.alignment, resolve_cost(cost, x, y)
    best, total = mass.argmax(1).tolist(), mass.sum(1).tolist()
    names_x, names_y = full_names(x, None), full_names(y, None)
    found = [
        {
            "a": names_x[i],
            "b": names_y[j],
            "share": float(mass[i, j]) / total[i] if total[i] > 0 else float("nan"),
            "mass": float(mass[i, j]),
            "cost": float(costs[i, j]),
        }
        for i, j in enumerate(best)
    ]
    return sorted(found, key=lambda pair: -float(pair["mass"]))


def _row(pair: dict[str, Any]) -> list[Any]:
    return [pair["a"], pair["b"], f"{pair['share']:.0%}", f"{pair['mass']:.3f}", f"{pair['cost']:.4g}"]


def _worded(summary: dict[str, Any]) -> dict[str, str]:
    from markovot.cli.output import certified

    facts = {side.upper(): f"{summary[side]['file']}, {summary[side]['states']} states" for side in ("a", "b")}
    facts["distance"] = certified(summary["distance"], summary["error_bound"])
    if "debiased" in summary:
        facts["debiased"] = certified(summary["debiased"], summary["debiased_error_bound"])
    facts["cost"] = f"{summary['cost']}, of {summary['features']}"
    return facts | {"delta, epsilon": f"{summary['delta']:g}, {summary['epsilon']:g}"}


def _draw(
    x: "MarkovChain", y: "MarkovChain", solution: "ChainSolution", titles: tuple[str, str], path: Path
) -> None:
    from markovot import plot
    from markovot.cli.output import picture

    with picture(path):
        plot.alignment(x, y, solution.alignment, titles=titles)
