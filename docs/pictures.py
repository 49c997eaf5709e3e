"""Draw the pictures of pictures.md:  python docs/pictures.py  (about two minutes on two cores)."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from markovot import discounted_wl, plot
from markovot.costs import ZeroOne
from markovot.datasets import load_languages, load_mutag
from markovot.explain import explain
from markovot.pairwise import distance_matrix

DOCS = Path(__file__).resolve().parent


def _save(name: str) -> None:
    pyplot.savefig(DOCS / name, dpi=150)
    pyplot.close("all")


def main() -> None:
    """Write every picture beside this file."""
    languages = load_languages()
    found = distance_matrix(languages.chains, cost=ZeroOne(), delta=0.3, epsilon=0.05, debiased=True)
    plot.dendrogram(found, languages.names, labels=languages.families, title="31 languages as chains of letters")
    _save("languages_dendrogram.png")

    mutag = load_mutag()
    setting = {"delta": 0.2, "epsilon": 0.01}
    found = distance_matrix(mutag.chains, cost=ZeroOne(), **setting)
    plot.embedding(found, mutag.targets, class_names=mutag.target_names, title="188 molecules")
    _save("mutag_map.png")

    x, y = mutag.chains[36], mutag.chains[77]
    solution = discounted_wl(x, y, ZeroOne(), **setting)
    plot.explanation(
        explain(solution, label_names=mutag.label_names), titles=("molecule 36", "molecule 77")
    )
    _save("mutag_explanation.png")
    plot.convergence(x, y, ZeroOne(), **setting, title="two molecules")
    _save("mutag_convergence.png")


if __name__ == "__main__":
    main()
