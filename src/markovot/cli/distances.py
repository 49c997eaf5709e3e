"""`markovot distances`: compute all distances of a data set, and write them to a file."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from markovot.cli.program import (
    Failure,
    Interrupted,
    OutputFile,
    Parameters,
    Reading,
    Showing,
    example,
    problem_options,
    reading_options,
    showing_options,
)
from markovot.cli.stored import DECISIVE, read_output

if TYPE_CHECKING:
    from markovot.cli.data import Data
    from markovot.pairwise import PairwiseSolution


@click.command(
    short_help="Compute all distances of a data set; resumable.",
    epilog=example(
        "markovot distances mutag -o mutag.npz",
        "markovot distances data/PTC_MR.zip -o ptc.npz --delta 0.1 --debiased",
    ),
)
@click.argument("data")
@click.option("--output", "-o", type=OutputFile(".npz"), required=True, help="The file to write (.npz).")
@click.option("--debiased", is_flag=True, help="Store d(X, Y) - d(X, X)/2 - d(Y, Y)/2, zero for equal graphs.")
@click.option("--force", is_flag=True, help="Delete OUTPUT and its checkpoint, and begin anew.")
@reading_options
@problem_options
@showing_options
def distances(
    data: str, output: Path, debiased: bool, force: bool, reading: Reading, problem: Parameters, showing: Showing
) -> None:
    """Compute the distances between all graphs of DATA and store them.

    Finished work is kept in OUTPUT.checkpoint. The same command continues a run that was interrupted, in whatever way,
    and gives the same file as an undisturbed one; it does nothing where the file is complete.

    \b
    OUTPUT holds, for numpy.load:
      value, error_bound  the distances and their certified errors (k, k), in units of the cost
      status              CONVERGED, or how else a pair ended (k, k)
      targets, names      the class and the name of each graph
      settings            JSON: the data, the options, the names of the classes
    """  # noqa: D301
    from markovot.cli.data import choose_cost, load

    loaded = load(data, reading)
    cost, cost_name = choose_cost(problem.cost, loaded.set.feature_kind)
    settings = _settings(loaded, cost, cost_name, problem, debiased) | {"source": data}
    checkpoint = output.with_name(output.name + ".checkpoint")
    if force:
        _discard(checkpoint)
        output.unlink(missing_ok=True)
    if output.exists():
        _check_same(output, settings)
        showing.note(f"{output} is complete: nothing to do (--force begins anew)")
    else:
        if checkpoint.exists():
            showing.note(f"continuing {checkpoint}")
        found = _solve(loaded, cost, problem, debiased, checkpoint, showing)
        _write(output, found, loaded, settings)
        _discard(checkpoint)
    report(output, showing)


def _settings(data: "Data", cost: Any, cost_name: str, problem: Parameters, debiased: bool) -> dict[str, Any]:
    from markovot import __version__
    from markovot.pairwise.collection import collect

    return {
        "markovot": __version__,
        "data": data.set.name,
        "chains": collect("chains", data.set.chains, cost).fingerprint(),
        "reading": data.reading,
        "features": data.set.feature_kind,
        "class_names": {str(target): name for target, name in data.set.target_names.items()},
        "cost": cost_name,
        "delta": problem.delta,
        "epsilon": problem.epsilon,
        "rtol": problem.rtol,
        "debiased": debiased,
    }


def _solve(
    data: "Data", cost: Any, problem: Parameters, debiased: bool, checkpoint: Path, showing: Showing
) -> "PairwiseSolution":
    from markovot.pairwise import distance_matrix

    try:
        return distance_matrix(
            data.set.chains,
            cost=cost,
            delta=problem.delta,
            epsilon=problem.epsilon,
            debiased=debiased,
            rtol=problem.rtol,
            checkpoint=checkpoint,
            progress=showing.bar,
            throw=False,
        )
    except KeyboardInterrupt:
        kept = f"interrupted; finished pairs are in {checkpoint}, and the same command goes on"
        raise Interrupted(kept) from None


def _write(output: Path, found: "PairwiseSolution", data: "Data", settings: dict[str, Any]) -> None:
    import numpy as np

    from markovot._files import written_whole

    invalid = {str(number): reason for (_, number), reason in found.invalid.items()}
    with written_whole(output) as temporary:
        np.savez_compressed(
            temporary,
            value=found.value,
            error_bound=found.error_bound,
            status=np.array([[status.name for status in row] for row in found.status]),
            targets=data.set.targets,
            names=np.array([data.name(k) for k in range(len(data))]),
            settings=np.array(json.dumps(settings | {"named": data.names is not None, "invalid": invalid})),
        )


def _discard(checkpoint: Path) -> None:
    """Delete a checkpoint, and the two files that SQLite keeps beside it."""
    for end in ("", "-wal", "-shm"):
        checkpoint.with_name(checkpoint.name + end).unlink(missing_ok=True)


def _check_same(output: Path, settings: dict[str, Any]) -> None:
    before = read_output(output)["settings"]
    for name in DECISIVE:
        if before.get(name) != settings[name]:
            what = "of other data" if name == "chains" else f"with {name} {before.get(name)}, not {settings[name]}"
            raise Failure(f"{output} holds distances {what}: name another file, or begin anew with --force")


def report(output: Path, showing: Showing) -> None:
    """Say what is in the file; distances that are not to be trusted are a failure.

    Raises:
        Failure: some pair did not converge, or some graph was invalid.
    """
    import numpy as np

    from markovot.cli.output import show_facts, show_json

    stored = read_output(output)
    value, status = stored["value"], stored["status"]
    upper = np.triu_indices(len(value))
    wrong = [pair for pair in zip(*(part.tolist() for part in upper), strict=True) if status[pair] != "CONVERGED"]
    between = np.triu_indices(len(value), k=1)
    between = tuple(part[np.isfinite(value[between])] for part in between)
    there = len(between[0]) > 0
    summary = {
        "output": output,
        "graphs": len(value),
        "pairs": len(upper[0]),
        "not_converged": len(wrong),
        "smallest": float(value[between].min()) if there else None,
        "largest": float(value[between].max()) if there else None,
        "largest_error_bound": float(stored["error_bound"][between].max()) if there else None,
        "invalid": stored["settings"]["invalid"],
        **{name: stored["settings"][name] for name in ("data", "features", *DECISIVE[1:])},
    }
    if showing.as_json:
        show_json(summary)
    else:
        show_facts(_worded(summary))
    if wrong:
        raise Failure(_complaint(wrong, status, summary["invalid"], output))


def _worded(summary: dict[str, Any]) -> dict[str, str]:
    size = f"{summary['graphs']} graphs of {summary['data']}, {summary['pairs']:,} pairs"
    facts = {"file": str(summary["output"]), "distances": size}
    if summary["smallest"] is not None:
        facts["between graphs"] = f"{summary['smallest']:.4g} to {summary['largest']:.4g}"
        facts["certified error"] = f"at most {summary['largest_error_bound']:.1e}"
    facts["cost"] = f"{summary['cost']}, of {summary['features']}"
    facts["delta, epsilon"] = f"{summary['delta']:g}, {summary['epsilon']:g}" + ", debiased" * summary["debiased"]
    return facts


def _complaint(wrong: list[tuple[int, int]], status: Any, invalid: dict[str, str], output: Path) -> str:
    if invalid:
        number, reason = next(iter(invalid.items()))
        return f"{len(invalid)} invalid graphs, with distances NaN in {output}; the first is number {number}: {reason}"
    return (
        f"{len(wrong)} pairs did not converge, the first {wrong[0]}: {status[wrong[0]]}; {output} has them with their "
        "bounds. A larger --rtol or --epsilon may help."
    )
