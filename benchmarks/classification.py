"""Accuracies of classification, ours beside the rivals': the same graphs, the same folds, the same rule of choice.

    .venv-bench/bin/python benchmarks/classification.py                     all sets, resumable; hours
    .venv-bench/bin/python benchmarks/classification.py --data MUTAG        one set
    .venv-bench/bin/python benchmarks/classification.py --data NCI1 --limit 1000
    .venv-bench/bin/python benchmarks/classification.py --report            docs/classification.md from what is there

Finished distances are kept in out/classification, finished parts in benchmarks/classification.json.
"""

import argparse
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from classification_report import report
from fused_gw import ALPHAS, fused_distances
from machine import machine
from wl_kernel import DEPTHS, kernel_distance, wl_kernels

from markovot.analysis.classification import (
    DELTAS,
    EPSILONS,
    NestedCV,
    Setting,
    distance_matrices,
    ground,
    nested_accuracy,
)
from markovot.datasets import GraphDataset, load_tudataset

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
DATA = ("MUTAG", "PTC_MR", "ENZYMES", "ENZYMES:attributes", "PROTEINS", "COX2", "IMDB-BINARY", "NCI1")
PARTS = ("markovot", "wl", "fgw")
PACKAGES = ("torch", "numpy", "numba", "scikit-learn", "pot")


def load(name: str, limit: int | None) -> tuple[GraphDataset, int]:
    """A set, given as NAME or NAME:FEATURES; or a part of it, stratified by class; and the number of all its graphs."""
    from sklearn.model_selection import train_test_split

    folder = Path(os.environ.get("MARKOVOT_DATA", ROOT.parent / "shared" / "data"))
    name, _, features = name.partition(":")
    dataset = load_tudataset(folder / "graphs" / f"{name}.zip", features=features or "auto")
    count = len(dataset)
    if limit is not None and limit < count:
        some, _ = train_test_split(np.arange(count), train_size=limit, stratify=dataset.targets, random_state=42)
        dataset = dataset.subset(np.sort(some))
    return dataset, count


# --- parts: each gives what goes into the JSON file


def markovot_part(dataset: GraphDataset, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Our distances. A matrix that was interrupted takes longer than the seconds of its last run, and is marked."""
    matrices, about = {}, {}
    folder = folder / f"rtol-{options.rtol!r}"  # a checkpoint made with another one would be refused
    folder.mkdir(exist_ok=True)
    for delta in options.deltas:
        for epsilon in options.epsilons:
            name = f"delta {delta}, epsilon {epsilon}"
            kept, begun = folder / f"{name}.json", folder / f"{name}.begun"
            resumed = begun.exists()
            begun.touch()
            start = time.perf_counter()
            found = distance_matrices(
                dataset, deltas=[delta], epsilons=[epsilon], rtol=options.rtol, checkpoint=folder, throw=False
            )[Setting(delta, epsilon)]
            if not kept.exists():
                write(kept, {"seconds": time.perf_counter() - start, "resumed": resumed})
            matrices[Setting(delta, epsilon)] = found
            about[name] = {
                **json.loads(kept.read_text()),
                "unsolved": int((~found.converged).sum()),
                "error_bound": float(found.error_bound.max()),
                "median": float(np.median(found.value)),
            }
    unit = ground(dataset).unit
    return {"matrices": about, "epsilon_unit": unit} | choose(dataset, matrices, options.protocol)


def wl_part(dataset: GraphDataset, _folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The subtree kernel; for nearest neighbours its distance."""
    if dataset.feature_kind == "attributes":
        return {"not_run": "needs discrete labels"}
    start = time.perf_counter()
    kernels = wl_kernels(dataset, options.depths)
    about = {"all depths": {"seconds": time.perf_counter() - start}}
    distances = {name: kernel_distance(kernel) for name, kernel in kernels.items()}
    plain = narrowed(options.protocol)
    return (
        {"matrices": about}
        | choose(dataset, distances, plain, methods=("knn",))
        | {"svm": choose(dataset, kernels, plain, methods=("kernel",))["kernel"]}
    )


def fgw_part(dataset: GraphDataset, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Fused Gromov-Wasserstein by POT."""
    matrices, about = fused_distances(dataset, folder, alphas=options.alphas, workers=options.workers)
    return {"matrices": about} | choose(dataset, matrices, narrowed(options.protocol))


def narrowed(protocol: NestedCV) -> NestedCV:
    """Without debiasing: distances that are zero from a graph to itself have no bias."""
    return replace(protocol, debiased=(False,))


def choose(
    dataset: GraphDataset, matrices: Any, protocol: NestedCV, methods: tuple[str, ...] = ("knn", "svm")
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for method in methods:
        start = time.perf_counter()
        accuracy = nested_accuracy(matrices, dataset.targets, method=method, protocol=protocol, progress=True)
        found[method] = accuracy.summary() | {"seconds": time.perf_counter() - start}
        print(f"{dataset.name} {method}: {100 * accuracy.mean:.1f} +- {100 * accuracy.std:.1f} %", flush=True)
    return found


RUN: dict[str, Callable[..., dict[str, Any]]] = {"markovot": markovot_part, "wl": wl_part, "fgw": fgw_part}


# --- files


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(temporary, path)


def run(name: str, options: argparse.Namespace) -> None:
    """All parts of one set, each written down as soon as it is finished, beside those of other runs."""
    dataset, count = load(name, options.limit)
    key = name if len(dataset) == count else f"{name}, {len(dataset)} of {count} graphs"
    folder = options.folder / key.replace(", ", "-").replace(" ", "-").replace(":", "-")
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{key}: {dataset!r}", flush=True)
    for part in options.parts:
        if part == "fgw" and importlib.util.find_spec("ot") is None:
            print("fgw: skipped, since POT is not installed here (make .venv-bench/.setup-stamp)", file=sys.stderr)
            continue
        everything = json.loads(options.json.read_text()) if options.json.exists() else {"rows": {}}
        row = everything["rows"].setdefault(key, about(name, dataset, count) | {"parts": {}})
        wanted = arguments_of(part, options)
        if row["parts"].get(part, {}).get("arguments") == wanted and not options.again:
            print(f"{part}: finished before", flush=True)
            continue
        found = RUN[part](dataset, folder, options)
        row["parts"][part] = found | {"arguments": wanted, "machine": machine(PACKAGES)}
        write(options.json, everything)


def about(name: str, dataset: GraphDataset, count: int) -> dict[str, Any]:
    classes, members = np.unique(dataset.targets, return_counts=True)
    return {
        "name": name.partition(":")[0],
        "features": dataset.feature_kind,
        "graphs": len(dataset),
        "all_graphs": count,
        "nodes": float(np.mean([chain.num_states for chain in dataset.chains])),
        "classes": len(classes),
        "largest_class": float(members.max() / len(dataset)),
    }


def arguments_of(part: str, options: argparse.Namespace) -> Any:
    """What the results of a part depend on, as it comes back from JSON."""
    own = {"markovot": ("deltas", "epsilons", "rtol"), "wl": ("depths",), "fgw": ("alphas",)}[part]
    found = {name: getattr(options, name) for name in own} | {"protocol": vars(options.protocol)}
    return json.loads(json.dumps(found))


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=DATA, help="names in the data folder, NAME or NAME:FEATURES")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--limit", type=int, help="so many graphs of larger sets, stratified by class, seed 42")
    parser.add_argument("--deltas", nargs="+", type=float, default=DELTAS)
    parser.add_argument("--epsilons", nargs="+", type=float, default=EPSILONS)
    parser.add_argument("--rtol", type=float, default=1e-3, help="certified error, relative to the range of the cost")
    parser.add_argument("--alphas", nargs="+", type=float, default=ALPHAS, help="of fused Gromov-Wasserstein")
    parser.add_argument("--depths", nargs="+", type=int, default=DEPTHS, help="of the subtree kernel")
    parser.add_argument("--folds", type=int, default=10)
    parser.add_argument("--inner-folds", type=int, default=5)
    parser.add_argument("--scales", nargs="+", type=float, default=NestedCV.scales)
    parser.add_argument("--C", nargs="+", type=float, default=NestedCV.C)
    parser.add_argument("--workers", type=int, default=2, help="processes for POT")
    parser.add_argument("--folder", type=Path, default=ROOT / "out" / "classification", help="of finished distances")
    parser.add_argument("--json", type=Path, default=HERE / "classification.json")
    parser.add_argument("--markdown", type=Path, default=ROOT / "docs" / "classification.md")
    parser.add_argument("--again", action="store_true", help="repeat finished parts, from the distances that are there")
    parser.add_argument("--report", action="store_true", help="write the page only, from the JSON file")
    options = parser.parse_args(arguments)
    options.protocol = NestedCV(
        folds=options.folds, inner_folds=options.inner_folds, scales=tuple(options.scales), C=tuple(options.C)
    )
    return options


def main() -> None:
    options = parse()
    for name in () if options.report else options.data:
        run(name, options)
    options.markdown.parent.mkdir(parents=True, exist_ok=True)
    options.markdown.write_text(report(json.loads(options.json.read_text())), encoding="utf-8")
    print(f"wrote {options.markdown}")


if __name__ == "__main__":
    main()
