"""`markovot classify`: how well distances tell the classes of a data set apart."""

import dataclasses
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from markovot.cli.program import (
    Failure,
    Number,
    Reading,
    Showing,
    as_one,
    example,
    reading_options,
    showing_options,
)

if TYPE_CHECKING:
    from markovot.analysis.classification import NestedAccuracy

_NAMES = {"knn": "nearest neighbour", "svm": "support vector machine"}


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How accuracy is measured."""

    methods: tuple[str, ...]
    folds: int
    inner_folds: int
    seed: int
    psd: str


_protocol_options = as_one(
    "protocol",
    Protocol,
    click.option(
        "--method", "methods", type=click.Choice(["knn", "svm"]), multiple=True, default=("knn", "svm"),
        help="The nearest neighbour, or a support vector machine; may be repeated.  [default: both]",
    ),
    click.option("--folds", type=click.IntRange(min=2), default=10, show_default=True, help="Test folds."),
    click.option(
        "--inner-folds", type=click.IntRange(min=2), default=5, show_default=True,
        help="Folds of each training fold, for the choice of parameters.",
    ),
    click.option("--seed", type=click.IntRange(min=0), default=42, show_default=True, help="Of the folds."),
    click.option(
        "--psd", type=click.Choice(["none", "clip"]), default="none", show_default=True,
        help="Whether kernels are made positive semi-definite (slow).",
    ),
)  # fmt: skip


@click.command(
    short_help="Tell classes apart by distances, cross-validated.",
    epilog=example(
        "markovot classify mutag",
        "markovot classify data/PTC_MR.zip --delta 0.2 --checkpoint runs/ptc --json",
    ),
)
@click.argument("data")
@click.option(
    "--delta", "deltas", type=Number(0, 1, min_open=True), multiple=True,
    help="A chance to stop to choose from; may be repeated.  [default: 0.1, 0.2, 0.5]",
)  # fmt: skip
@click.option(
    "--epsilon", "epsilons", type=Number(0), multiple=True,
    help="A smoothing to choose from; may be repeated. For attributes, in units of the mean cost.  [default: 0.01]",
)  # fmt: skip
@click.option(
    "--rtol", type=Number(0, min_open=True), default=1e-4, show_default=True,
    help="Certified error to reach, relative to the range of the cost.",
)  # fmt: skip
@click.option(
    "--checkpoint", type=click.Path(file_okay=False, path_type=Path),
    help="A folder to keep finished distances in; the same command goes on from there.",
)  # fmt: skip
@_protocol_options
@reading_options
@showing_options
def classify(
    data: str, deltas: tuple[float, ...], epsilons: tuple[float, ...], rtol: float, checkpoint: Path | None,
    protocol: Protocol, reading: Reading, showing: Showing,
) -> None:  # fmt: skip
    """Measure how well the distances tell the classes of DATA apart, by nested cross-validation.

    The protocol is that of Brugere, Wan and Wang: 10 stratified folds, seed 42. Costs are 0 or 1 for labels and
    degrees, Euclidean for standardised attributes. Delta, epsilon, whether distances are debiased, kernel, scale and C
    are chosen inside each training fold; no test fold is looked at.
    """
    from markovot.cli.data import load
    from markovot.cli.output import show_facts, show_json, show_table

    loaded = load(data, reading)
    if not len(loaded.set.targets):
        raise Failure(f"{data} has no classes. Put the files of each class into a folder of its own.")
    found = _run(loaded.set, deltas, epsilons, rtol, checkpoint, protocol, showing)
    facts = {
        "data": loaded.set.name,
        "graphs": len(loaded),
        "classes": len(set(loaded.set.targets.tolist())),
        "features": loaded.set.feature_kind,
        "folds": protocol.folds,
        "inner_folds": protocol.inner_folds,
        "seed": protocol.seed,
    }
    if showing.as_json:
        show_json(facts | {"accuracy": {method: one.summary() for method, one in found.items()}})
        return
    show_facts({name.replace("_", " "): value for name, value in facts.items()})
    click.echo()
    rows = [
        [_NAMES[method], f"{one.mean:.1%}", f"{one.std:.1%}", favourite(one)] for method, one in found.items()
    ]
    show_table(["method", "accuracy", "deviation", "chosen most often"], rows)


def _run(
    dataset: Any, deltas: tuple[float, ...], epsilons: tuple[float, ...], rtol: float, checkpoint: Path | None,
    protocol: Protocol, showing: Showing,
) -> "dict[str, NestedAccuracy]":  # fmt: skip
    from markovot.analysis import classification

    return classification.classify(
        dataset,
        methods=list(dict.fromkeys(protocol.methods)),
        deltas=deltas or classification.DELTAS,
        epsilons=epsilons or classification.EPSILONS,
        protocol=classification.NestedCV(
            folds=protocol.folds, inner_folds=protocol.inner_folds, seed=protocol.seed, psd=protocol.psd
        ),
        rtol=rtol,
        checkpoint=checkpoint,
        progress=showing.bar,
    )


def favourite(accuracy: "NestedAccuracy") -> str:
    """The choice of most folds, in words."""
    words = Counter(_words(chosen) for chosen in accuracy.chosen)
    (often, count), = words.most_common(1)
    return f"{often} ({count} of {len(accuracy.chosen)} folds)"


def _words(chosen: dict[str, Any]) -> str:
    flat = {**chosen["setting"], **{name: value for name, value in chosen.items() if name != "setting"}}
    debiased = flat.pop("debiased")
    words = [str(flat.pop("kind"))] if "kind" in flat else []
    words += [f"{name} {value:g}" for name, value in flat.items()]
    return ", ".join(words + ["debiased"] * debiased)
