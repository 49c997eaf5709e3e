"""`markovot plot`: pictures of a file of distances."""

from pathlib import Path
from typing import Any

import click

from markovot.cli.program import PICTURE, Showing, example, showing_options

# Beyond this many, names beside points cover each other.
_NAMES_ON_MAP = 60
_NAMES_ON_TREE = 150


@click.command(
    short_help="Draw distances: matrix, map or tree.",
    epilog=example(
        "markovot plot mutag.npz",
        "markovot plot languages.npz --kind dendrogram -o tree.pdf",
    ),
)
@click.argument("distances", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--kind",
    type=click.Choice(["matrix", "map", "dendrogram"]),
    default="matrix",
    show_default=True,
    help="All distances ordered by class, a map in two dimensions, or a tree of clusters.",
)
@click.option(
    "--output", "-o", type=PICTURE, help="The picture to write (.png, .pdf, .svg).  [default: DISTANCES-KIND.png]"
)
@click.option("--title", help="What to write above.  [default: the data, delta and epsilon]")
@showing_options
def plot(distances: Path, kind: str, output: Path | None, title: str | None, showing: Showing) -> None:
    """Draw DISTANCES, a file that `markovot distances` wrote."""
    from markovot.cli.output import picture, show_json
    from markovot.cli.stored import read_output

    stored = read_output(distances)
    path = output or distances.with_name(f"{distances.stem}-{kind}.png")
    with picture(path):
        draw(kind, stored, _title(stored["settings"]) if title is None else title)
    if showing.as_json:
        show_json({"plot": path, "kind": kind})
    else:
        click.echo(f"wrote {path}")


def draw(kind: str, stored: dict[str, Any], title: str) -> None:
    """Draw the distances of a file."""
    from markovot import plot as pictures

    value, settings = stored["value"], stored["settings"]
    targets = stored["targets"].tolist() or None
    classes = {int(target): name for target, name in settings["class_names"].items()} if targets else None
    names = stored["names"].tolist() if settings["named"] else None
    if kind == "matrix":
        labels = targets or ["graphs"] * len(value)
        pictures.distance_matrix(value, labels, class_names=classes, title=title)
    elif kind == "map":
        few = names is not None and len(names) <= _NAMES_ON_MAP
        pictures.embedding(value, targets, names=names if few else None, class_names=classes, title=title)
    else:
        few = names is not None and len(names) <= _NAMES_ON_TREE
        pictures.dendrogram(value, names if few else None, labels=targets, class_names=classes, title=title)


def _title(settings: dict[str, Any]) -> str:
    debiased = ", debiased" if settings["debiased"] else ""
    return f"{settings['data']}: delta {settings['delta']:g}, epsilon {settings['epsilon']:g}{debiased}"
