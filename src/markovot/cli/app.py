"""All commands, under one name. Heavy libraries are imported by the commands that need them, so that help is quick."""

import click

from markovot.cli.classify import classify
from markovot.cli.compare import compare
from markovot.cli.distances import distances
from markovot.cli.info import info
from markovot.cli.neighbours import neighbours
from markovot.cli.plot import plot
from markovot.cli.program import CONTEXT, Program, example
from markovot.cli.report import report


def _show_version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    from markovot import __version__

    click.echo(f"markovot {__version__}")
    context.exit()


@click.group(
    cls=Program,
    invoke_without_command=True,
    context_settings=CONTEXT,
    epilog=example("markovot distances mutag -o mutag.npz", "markovot plot mutag.npz -o mutag.png"),
)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version, help="Say which version."
)
@click.pass_context
def app(context: click.Context) -> None:
    """Distances between graphs and Markov chains by optimal transport, certified.

    DATA is a TUDataset zip or folder, a folder of graph files (GraphML, GML, edge lists, adjacency CSV), or a set that
    ships with the package: mutag, languages. Results go to the standard output. Exit codes: 0 all went well, 1 a
    failure, 2 wrong usage, 130 interrupted. All cores are used; OMP_NUM_THREADS=1 leaves all but one alone.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(2)


for _command in (info, compare, distances, neighbours, classify, plot, report):
    app.add_command(_command)
