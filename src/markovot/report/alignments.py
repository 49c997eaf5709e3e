"""The drawings of the page: each graph, laid out once, and the alignments with its neighbours."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from markovot._arrays import FloatArray
from markovot._progress import bar
from markovot.chains import MarkovChain
from markovot.chains.names import labels_of, short_names
from markovot.pairwise.solution import STATUSES
from markovot.plot.common import ELEMENT_COLORS, PALETTE
from markovot.plot.placing import bonds_of, layout, turn, upright

MAX_STATES = 100
"""Graphs with more states are not drawn: it would be slow, and nothing could be seen."""
_DENSE = 4.0  # with more edges a state than this, states stand in a column, and no edges are drawn
_SPACE = 0.8  # distance between two states of a column, in lengths of an edge
_THRESHOLD = 0.15  # as in `plot.alignment`: the share of the mass of a state that a line must carry

Solve = Callable[[MarkovChain, MarkovChain], Any]


class Drawings:
    """The graphs that are drawn, and the alignments between them, as plain data.

    Args:
        chains: the graphs.
        label_names: names of their labels.
    """

    def __init__(self, chains: Sequence[MarkovChain], label_names: Sequence[str] | None) -> None:
        self.chains = chains
        self.label_names = label_names
        self.place: dict[int, FloatArray] = {}
        self.texts: dict[str, int] = {}
        self.graphs: dict[str, dict[str, Any]] = {}
        self.columns: set[int] = set()

    def drawable(self, number: int) -> bool:
        """Whether a graph is small enough to be drawn."""
        return self.chains[number].num_states <= MAX_STATES

    def add(self, number: int) -> None:
        """Lay a graph out, if that was not done before."""
        if number in self.place:
            return
        chain = self.chains[number]
        bonds = bonds_of(chain)
        if len(bonds) > _DENSE * chain.num_states:
            self.columns.add(number)
            bonds = bonds[:0]
            place = np.stack([np.zeros(chain.num_states), -_SPACE * np.arange(chain.num_states)], axis=1)
        else:
            place = upright(layout(chain.num_states, bonds))
        names = short_names(chain, self.label_names)
        self.place[number] = place
        self.graphs[str(number)] = {
            "place": np.round(place, 2).tolist(),
            "bonds": bonds.tolist(),
            "states": [self.texts.setdefault(name, len(self.texts)) for name in names],
        }

    def pair(self, first: int, second: int, solve: Solve) -> dict[str, Any]:
        """The alignment of two graphs.

        Returns:
            `turn`: the matrix by which the second is turned, so that lines run level; `lines`: state of the first, of
            the second, share of all mass in per mille, below zero between different labels; `status`: its code.
        """
        self.add(first)
        self.add(second)
        solution = solve(self.chains[first], self.chains[second])
        mass = solution.alignment.detach().cpu().numpy().astype(np.float64)
        status = STATUSES.index(solution.status)
        if not np.isfinite(mass).all() or mass.sum() <= 0:
            return {"turn": [1, 0, 0, 1], "lines": [], "status": status}
        labels = labels_of(self.chains[first]), labels_of(self.chains[second])
        lighter = np.minimum(mass.sum(1)[:, None], mass.sum(0)[None, :])
        lines = []
        for i, j in np.argwhere((mass >= _THRESHOLD * lighter) & (mass > 0)).tolist():
            same = labels[0] is None or labels[1] is None or labels[0][i] == labels[1][j]
            share = float(f"{1000 * mass[i, j] / mass.sum():.3g}")
            lines.append([i, j, share if same else -share])
        turned = np.eye(2)
        if not {first, second} & self.columns:
            turned = turn(self.place[first], self.place[second], mass)
        return {"turn": np.round(turned, 3).ravel().tolist(), "lines": lines, "status": status}

    def states(self) -> list[list[str]]:
        """The names written on states, and their colours."""
        names = list(self.texts)
        if names and set(names) <= set(ELEMENT_COLORS):
            return [[name, ELEMENT_COLORS[name]] for name in names]
        ranked = {name: place for place, name in enumerate(sorted(names))}
        return [[name, PALETTE[ranked[name] % len(PALETTE)]] for name in names]


def align(
    chains: Sequence[MarkovChain],
    neighbours: list[list[list[Any]]],
    solve: Solve,
    *,
    label_names: Sequence[str] | None,
    progress: bool,
) -> dict[str, Any]:
    """Align each graph with its neighbours, each pair once. Keys of `pairs` are "first-second", the smaller first."""
    drawings = Drawings(chains, label_names)
    wanted = sorted({(min(i, row[0]), max(i, row[0])) for i, rows in enumerate(neighbours) for row in rows})
    drawn = [pair for pair in wanted if all(map(drawings.drawable, pair))]
    pairs = {}
    with bar(total=len(drawn), unit="alignment", show=progress) as shown:
        for first, second in drawn:
            pairs[f"{first}-{second}"] = drawings.pair(first, second, solve)
            shown.update()
    return {
        "graphs": drawings.graphs,
        "states": drawings.states(),
        "pairs": pairs,
        "sizes": [chain.num_states for chain in chains],
        "max_states": MAX_STATES,
        "columns": len(drawings.columns),
        "not_drawn": len(wanted) - len(drawn),
    }
