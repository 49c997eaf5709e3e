"""`markovot neighbours`: the nearest graphs of a data set."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from markovot.cli.program import (
    Failure,
    Parameters,
    Reading,
    Showing,
    example,
    problem_options,
    reading_options,
    showing_options,
)

if TYPE_CHECKING:
    from markovot.chains import MarkovChain
    from markovot.cli.data import Data


@click.command(
    short_help="Find the graphs nearest to one.",
    epilog=example(
        "markovot neighbours mutag 17 -k 3",
        "markovot neighbours molecules/ new.graphml --features atom --json",
    ),
)
@click.argument("data")
@click.argument("query")
@click.option("-k", type=click.IntRange(min=1), default=5, show_default=True, help="How many neighbours.")
@click.option(
    "--query-features",
    metavar="NAME",
    help="The node attribute to compare in the file QUERY.  [default: as for DATA; label for labels of a TUDataset]",
)
@reading_options
@problem_options
@showing_options
def neighbours(
    data: str, query: str, k: int, query_features: str | None, reading: Reading, problem: Parameters, showing: Showing
) -> None:
    """Find the graphs of DATA that are nearest to QUERY.

    QUERY is a graph file, or a graph of DATA: its name, or its number, counted from 0. The neighbours are exact; cheap
    lower bounds spare most of the work.
    """
    from markovot.cli.data import load
    from markovot.cli.output import show_facts, show_json, show_table

    loaded = load(data, reading)
    chain, own = find_query(loaded, query, query_features)
    others = [number for number in range(len(loaded)) if number != own]
    if k > len(others):
        raise click.BadParameter(f"{k} neighbours among {len(others)} graphs. Ask for fewer.", param_hint="-k")
    summary: dict[str, Any] = {"query": query if own is None else loaded.name(own), "number": own}
    summary |= _search(loaded, chain, others, k, problem, showing)
    ranked = summary["neighbours"]
    if showing.as_json:
        show_json(summary)
    else:
        show_facts(_worded(summary, None if own is None else loaded.class_of(own)))
        click.echo()
        columns = ["graph", "name", "class", "distance", "certified error"]
        keep = [k for k, column in enumerate(columns) if k != 1 or loaded.names is not None]
        keep = [k for k in keep if k != 2 or len(loaded.set.targets)]
        rows = [[one["number"], one["name"], one["class"], *_numbers(one)] for one in ranked]
        show_table([columns[k] for k in keep], [[row[k] for k in keep] for row in rows])
    if summary["invalid"]:
        number, reason = next(iter(summary["invalid"].items()))
        raise Failure(f"{len(summary['invalid'])} invalid graphs, left out; the first is number {number}: {reason}")
    if any(one["status"] != "CONVERGED" for one in ranked):
        raise Failure("some distances did not converge, so the neighbours are not certain. Try a larger --rtol.")


def find_query(data: "Data", query: str, features: str | None) -> "tuple[MarkovChain, int | None]":
    """The graph that the user means, and its number if it is in the set.

    Raises:
        BadParameter: no graph is meant.
    """
    from markovot.cli.data import read_like

    if data.names is not None and query in data.names:
        number = data.names.index(query)
        return data.set.chains[number], number
    if query.isdecimal():
        if int(query) >= len(data):
            raise click.BadParameter(
                f"there is no graph {query}: they are numbered from 0 to {len(data) - 1}.", param_hint="QUERY"
            )
        return data.set.chains[int(query)], int(query)
    if not Path(query).is_file():
        raise click.BadParameter(f"{query!r} is neither a number or name of a graph nor a file.", param_hint="QUERY")
    return read_like(data, Path(query), features), None


def _search(
    data: "Data", chain: "MarkovChain", others: list[int], k: int, problem: Parameters, showing: Showing
) -> dict[str, Any]:
    """The k nearest among some graphs, and how many pairs were solved."""
    from markovot.cli.data import choose_cost
    from markovot.pairwise import nearest_neighbours

    cost, cost_name = choose_cost(problem.cost, data.set.feature_kind)
    found = nearest_neighbours(
        [chain],
        [data.set.chains[number] for number in others],
        k,
        cost=cost,
        delta=problem.delta,
        epsilon=problem.epsilon,
        rtol=problem.rtol,
        progress=showing.bar,
        throw=False,
    )
    columns = (found.index[0].tolist(), found.value[0].tolist(), found.error_bound[0].tolist(), found.status[0])
    return {
        "neighbours": [
            {
                "number": others[place],
                "name": data.name(others[place]),
                "class": data.class_of(others[place]),
                "distance": value,
                "error_bound": bound,
                "status": status.name,
            }
            for place, value, bound, status in zip(*columns, strict=True)
            if place >= 0
        ],
        # These are references: if the only query were invalid, the search would have failed.
        "invalid": {str(others[number]): reason for (_, number), reason in found.invalid.items()},
        "pairs_solved": int(found.num_solved[0]),
        "pairs": len(others),
        "cost": cost_name,
        "features": data.set.feature_kind,
        "delta": problem.delta,
        "epsilon": problem.epsilon,
    }


def _numbers(one: dict[str, Any]) -> list[str]:
    return [f"{one['distance']:z.6f}", f"{one['error_bound']:.1e}"]


def _worded(summary: dict[str, Any], query_class: str | None) -> dict[str, str]:
    return {
        "query": summary["query"] + ("" if query_class is None else f" ({query_class})"),
        "cost": f"{summary['cost']}, of {summary['features']}",
        "delta, epsilon": f"{summary['delta']:g}, {summary['epsilon']:g}",
        "pairs solved": f"{summary['pairs_solved']} of {summary['pairs']}",
    }
