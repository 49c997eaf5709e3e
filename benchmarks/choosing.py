"""How far entropy moves the distance: the table and the picture of docs/how-to-choose.md.

For MUTAG and for random chains, delta by epsilon: the entropic distance above the exact one (epsilon = 0), the debiased
distance beside it, how often both name the same nearest neighbour, and the time of a pair.

    python benchmarks/choosing.py        # a minute on two cores; prints the tables and writes docs/choosing.png
"""

import time
from pathlib import Path

import numpy as np
import torch

from markovot import MarkovChain
from markovot.costs import Cost, Euclidean, ZeroOne
from markovot.datasets import load_mutag
from markovot.pairwise import distance_matrix

DELTAS = (0.5, 0.2, 0.1, 0.05)
EPSILONS = (0.1, 0.03, 0.01, 0.003, 0.001)
ACCURACY = {"rtol": 1e-5}
DOCS = Path(__file__).resolve().parents[1] / "docs"


def random_chains(count: int = 40, seed: int = 0) -> list[MarkovChain]:
    """Sparse random walks of 10 to 20 states with three to five neighbours each, and points of the unit square."""
    generator = torch.Generator().manual_seed(seed)
    chains = []
    for number in range(count):
        n = 10 + number % 11
        weights = torch.rand(n, n, generator=generator, dtype=torch.float64)
        order = torch.rand(n, n, generator=generator).argsort(1)
        features = torch.rand(n, 2, generator=generator, dtype=torch.float64)
        chains.append(MarkovChain.from_adjacency(weights * (order < 3 + number % 3), features=features))
    return chains


def measure(chains: list[MarkovChain], cost: Cost) -> dict[str, np.ndarray]:
    """Relative bias, the same debiased, shared nearest neighbours, milliseconds a pair; the last column is exact."""
    shape = (len(DELTAS), len(EPSILONS) + 1)
    found = {name: np.zeros(shape) for name in ("bias", "debiased", "neighbours", "milliseconds")}
    pairs = ~np.eye(len(chains), dtype=bool)
    for row, delta in enumerate(DELTAS):
        values = {}
        for column, epsilon in enumerate((*EPSILONS, 0.0)):
            start = time.perf_counter()
            values[epsilon] = distance_matrix(
                chains, cost=cost, delta=delta, epsilon=epsilon, **ACCURACY, progress=False
            ).value
            found["milliseconds"][row, column] = 1e3 * (time.perf_counter() - start) / (pairs.sum() / 2 + len(chains))
        exact = values[0.0]
        for column, epsilon in enumerate((*EPSILONS, 0.0)):
            value, own = values[epsilon], np.diagonal(values[epsilon])
            mean = exact[pairs].mean()
            found["bias"][row, column] = (value - exact)[pairs].mean() / mean
            debiased = value - 0.5 * (own[:, None] + own)
            found["debiased"][row, column] = (debiased - exact)[pairs].mean() / mean
            found["neighbours"][row, column] = (nearest(value) == nearest(exact)).mean()
    return found


def nearest(value: np.ndarray) -> np.ndarray:
    others = value + np.where(np.eye(len(value), dtype=bool), np.inf, 0.0)
    return others.argmin(axis=1)


def table(found: dict[str, np.ndarray]) -> str:
    lines = ["| delta | " + " | ".join(f"epsilon {epsilon:g}" for epsilon in EPSILONS) + " | exact |"]
    lines.append("| --- |" + " --- |" * (len(EPSILONS) + 1))
    for row, delta in enumerate(DELTAS):
        cells = [
            f"{found['bias'][row, c]:+.0%} / {found['debiased'][row, c]:+.0%} / {found['neighbours'][row, c]:.0%}, "
            f"{found['milliseconds'][row, c]:.2g} ms"
            for c in range(len(EPSILONS))
        ]
        lines.append(f"| {delta:g} | " + " | ".join(cells) + f" | {found['milliseconds'][row, -1]:.2g} ms |")
    return "\n".join(lines)


def draw(results: dict[str, dict[str, np.ndarray]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(results), figsize=(9, 3.6), sharey=True, layout="constrained")
    colours = pyplot.get_cmap("viridis")(np.linspace(0.0, 0.85, len(DELTAS)))
    for ax, (name, found) in zip(axes, results.items(), strict=True):
        for row, delta in enumerate(DELTAS):
            ax.loglog(EPSILONS, found["bias"][row, :-1], "o-", color=colours[row], label=f"delta = {delta:g}")
            ax.loglog(EPSILONS, np.abs(found["debiased"][row, :-1]), "o:", color=colours[row], mfc="white")
        ax.set(title=name, xlabel="epsilon")
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("bias, relative to the exact distance")
    axes[0].legend(fontsize=8, title="solid: as it is; dotted: debiased", title_fontsize=8)
    figure.savefig(path, dpi=150)


def main() -> None:
    results = {
        "MUTAG, atoms equal or not": measure(load_mutag().chains[:40], ZeroOne()),
        "random chains in the square": measure(random_chains(), Euclidean()),
    }
    for name, found in results.items():
        print(f"\n{name}\n\n{table(found)}")
    draw(results, DOCS / "choosing.png")


if __name__ == "__main__":
    main()
