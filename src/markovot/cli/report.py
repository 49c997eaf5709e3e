"""`markovot report`: one page that shows a file of distances."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from markovot.cli.program import Failure, OutputFile, Reading, Showing, example, showing_options

if TYPE_CHECKING:
    from markovot.cli.data import Data
    from markovot.pairwise import PairwiseSolution
    from markovot.report.alignments import Solve


@click.command(
    short_help="Write a page to look into distances with.",
    epilog=example(
        "markovot report mutag.npz",
        "markovot report ptc.npz --data data/PTC_MR.zip -k 10 -o ptc.html",
    ),
)
@click.argument("distances", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--output", "-o", type=OutputFile(".html"), help="The page to write (.html).  [default: DISTANCES.html]")
@click.option(
    "--data", help="Where the data are now.  [default: where they were for `markovot distances`, from this folder]"
)
@click.option("--no-alignments", is_flag=True, help="Draw no alignments; the data are not needed then.")
@click.option(
    "-k", type=click.IntRange(min=1), default=5, show_default=True, help="How many neighbours of each graph to show."
)
@click.option("--title", help="What to write above.  [default: the data, delta, epsilon and cost]")
@showing_options
def report(
    distances: Path, output: Path | None, data: str | None, no_alignments: bool, k: int, title: str | None,
    showing: Showing,
) -> None:  # fmt: skip
    """Write a page that shows DISTANCES, a file that `markovot distances` wrote: one file, for any browser, offline.

    It has a map of the data set, the matrix ordered by class, and for each graph its nearest neighbours, with the
    certified errors and with the alignments drawn. What did not converge is counted and marked.
    """
    from markovot.cli.output import show_json
    from markovot.cli.stored import read_output
    from markovot.report import write_report

    if no_alignments and data is not None:
        raise click.UsageError("--data is of no use with --no-alignments. Leave one of them out.")
    stored = read_output(distances)
    settings, targets = stored["settings"], stored["targets"].tolist()
    found = _solution(stored)
    loaded = None if no_alignments else _load(distances, settings, len(found.value), data)
    path = output or distances.with_suffix(".html")
    write_report(
        found,
        path,
        chains=None if loaded is None else loaded.set.chains,
        solve=None if loaded is None else _solver(settings),
        targets=[settings["class_names"].get(str(target), str(target)) for target in targets] or None,
        names=stored["names"].tolist(),
        label_names=None if loaded is None else loaded.set.label_names or None,
        k=k,
        title=_title(settings) if title is None else title,
        progress=showing.bar,
    )
    if showing.as_json:
        wrong = sum(not found.converged[i, j] for i in range(len(found.value)) for j in range(i + 1))
        show_json({"report": path, "graphs": len(found.value), "not_converged": wrong})
    else:
        click.echo(f"wrote {path}")


def _solution(stored: dict[str, Any]) -> "PairwiseSolution":
    """The distances of a file as a `PairwiseSolution`."""
    import numpy as np

    from markovot.pairwise import PairwiseSolution
    from markovot.solution import Status

    status = np.empty(stored["status"].shape, dtype=object)
    status[...] = [[Status[name] for name in row] for row in stored["status"].tolist()]
    invalid = {("chains", int(number)): reason for number, reason in stored["settings"]["invalid"].items()}
    uncounted = np.zeros(status.shape, dtype=np.int32)  # files keep no numbers of sweeps
    return PairwiseSolution(stored["value"], stored["error_bound"], status, uncounted, invalid=invalid)


def _load(distances: Path, settings: dict[str, Any], graphs: int, data: str | None) -> "Data":
    """The data that the distances belong to, read with the same options as then.

    Raises:
        Failure: the data are missing, or have changed.
    """
    from markovot.cli.data import choose_cost, load
    from markovot.pairwise.collection import collect

    way_out = "name the data with --data, or do without the drawings with --no-alignments"
    source = settings.get("source") if data is None else data
    if source is None:
        raise Failure(f"{distances} does not say where its data are: {way_out}.")
    reading = Reading(**(dict.fromkeys(Reading.__dataclass_fields__) | settings["reading"]))
    try:
        loaded = load(source, reading)
    except click.BadParameter as error:
        if data is not None:
            raise click.BadParameter(error.message, param_hint="--data") from error
        raise Failure(f"the data of {distances} are not at {source!r} any more, seen from here: {way_out}.") from error
    cost, _ = choose_cost(settings["cost"], loaded.set.feature_kind)
    if len(loaded) != graphs:
        raise Failure(f"{distances} has distances of {graphs} graphs, but {source!r} holds {len(loaded)}: {way_out}.")
    if collect("chains", loaded.set.chains, cost).fingerprint() != settings["chains"]:
        raise Failure(f"{source!r} has changed since {distances} was written, or is other data: {way_out}.")
    return loaded


def _solver(settings: dict[str, Any]) -> "Solve":
    """The function that aligns two graphs, with the settings of the distances. Debiasing does not change alignments."""
    from functools import partial

    from markovot.cli.data import choose_cost
    from markovot.distances.discounted import discounted_wl

    cost, _ = choose_cost(settings["cost"], settings["features"])
    return partial(
        discounted_wl,
        cost=cost,
        delta=settings["delta"],
        epsilon=settings["epsilon"],
        rtol=settings["rtol"],
        throw=False,
    )


def _title(settings: dict[str, Any]) -> str:
    debiased = ", debiased" if settings["debiased"] else ""
    problem = f"delta {settings['delta']:g}, epsilon {settings['epsilon']:g}{debiased}"
    return f"{settings['data']}: {problem}, {settings['cost']} cost of {settings['features']}"
