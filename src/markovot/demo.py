"""A demonstration on real graphs: `python -m markovot.demo`.

Computes all distances between the 188 molecules of MUTAG, says how exact they are and how well they tell
mutagenic molecules from others, and draws the distance matrix and one alignment.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import markovot
from markovot import pairwise, plot
from markovot.costs import ZeroOne
from markovot.datasets import GraphDataset, load_mutag

DELTA, EPSILON, LAZINESS = 0.2, 0.01, 0.1


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the demonstration.

    Args:
        arguments: The command line's arguments; those of the process by default.
    """
    parser = argparse.ArgumentParser(prog="python -m markovot.demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the pictures (default: out)")
    parser.add_argument(
        "--limit", type=int, default=None, help="use only this many molecules, evenly spaced in the set"
    )
    options = parser.parse_args(arguments)
    if options.limit is not None and options.limit < 3:
        parser.error(f"--limit must be at least 3, to have neighbours to compare; got {options.limit}")

    mutag = load_mutag(laziness=LAZINESS)
    chosen = choose(len(mutag), options.limit)
    targets = mutag.targets[chosen]
    count = {name: int((targets == target).sum()) for target, name in mutag.target_names.items()}
    classes = ", ".join(f"{number} {name}" for name, number in count.items())
    print(f"MUTAG: {len(chosen)} molecules, {classes}")
    print(f"delta = {DELTA}, epsilon = {EPSILON}, laziness = {LAZINESS}; cost 0 for equal atoms, else 1")

    start = time.perf_counter()
    distances = pairwise.distance_matrix(
        [mutag.chains[i] for i in chosen], cost=ZeroOne(), delta=DELTA, epsilon=EPSILON, progress=True
    )
    seconds = time.perf_counter() - start
    num_pairs = len(chosen) * (len(chosen) + 1) // 2
    each = 1000 * seconds / num_pairs
    print(f"time: {seconds:.1f} s for {num_pairs} pairs, {each:.2f} ms a pair, compilation included")
    largest = np.max(distances.value)
    print(f"largest certified error: {np.max(distances.error_bound):.1e}, for distances up to {largest:.3f}")
    accuracy = nearest_neighbour_accuracy(distances.value, targets)
    print(f"leave-one-out 1-nearest-neighbour accuracy: {100 * accuracy:.1f} %")
    draw(mutag, chosen, distances.value, options.out)


def choose(num_graphs: int, limit: int | None) -> NDArray[np.int64]:
    """The indices of `limit` graphs, evenly spaced, or of all."""
    if limit is None or limit >= num_graphs:
        return np.arange(num_graphs)
    return np.arange(limit) * num_graphs // limit


def nearest_neighbour_accuracy(distances: NDArray[np.float64], targets: NDArray[np.int64]) -> float:
    """The share of items whose nearest other item has their class; of equally near ones, the first counts."""
    others = distances.copy()
    np.fill_diagonal(others, np.inf)
    return float((targets[others.argmin(axis=1)] == targets).mean())


def lookalikes(
    distances: NDArray[np.float64], sizes: NDArray[np.int64], targets: NDArray[np.int64]
) -> tuple[int, int, str]:
    """The closest pair of different class and size (of equally close ones, the first), and that rule in words.

    If there is no such pair: the closest pair of different size, or else simply the closest pair.
    """
    pairs = np.triu(np.ones(distances.shape, dtype=bool), k=1)
    resized = pairs & (sizes[:, None] != sizes[None])
    rivals = resized & (targets[:, None] != targets[None])
    rules = {"the closest of different class and size": rivals, "the closest of different size": resized}
    rule, allowed = next(((rule, some) for rule, some in rules.items() if some.any()), ("the closest", pairs))
    first, second = np.unravel_index(np.where(allowed, distances, np.inf).argmin(), distances.shape)
    return int(first), int(second), rule


def draw(mutag: GraphDataset, chosen: NDArray[np.int64], distances: NDArray[np.float64], folder: Path) -> None:
    """Write the two pictures into `folder`, which is made if need be, and print their paths."""
    import matplotlib

    matplotlib.use("Agg")  # files only: works without a screen
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    targets = mutag.targets[chosen]
    plot.distance_matrix(distances, targets, class_names=mutag.target_names)
    pyplot.savefig(folder / "mutag_distances.png", dpi=150)

    sizes = np.array([mutag.chains[i].num_states for i in chosen])
    *pair, rule = lookalikes(distances, sizes, targets)
    pair = [int(chosen[i]) for i in pair]
    x, y = (mutag.chains[i] for i in pair)
    solution = markovot.discounted_wl(x, y, ZeroOne(), delta=DELTA, epsilon=EPSILON)
    left, right = (f"molecule {i} ({mutag.target_names[int(mutag.targets[i])]})" for i in pair)
    plot.alignment(
        x,
        y,
        solution.alignment,
        label_names=mutag.label_names,
        label_colors=plot.ELEMENT_COLORS,
        titles=(left, right),
    )
    pyplot.savefig(folder / "mutag_alignment.png", dpi=150)
    pyplot.close("all")
    print(f"aligned: {left} and {right}, {rule}, at distance {float(solution.value):.4f}")
    for name in ("mutag_distances.png", "mutag_alignment.png"):
        print(f"wrote {folder / name}")


if __name__ == "__main__":
    main()
