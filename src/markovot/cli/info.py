"""`markovot info`: what a data set holds."""

from typing import TYPE_CHECKING, Any, NamedTuple

import click

from markovot.cli.program import Reading, Showing, example, reading_options, showing_options

if TYPE_CHECKING:
    from markovot.chains import MarkovChain
    from markovot.cli.data import Data


@click.command(
    short_help="Say what a data set holds.",
    epilog=example(
        "markovot info mutag",
        "markovot info data/ENZYMES.zip --features labels --json",
    ),
)
@click.argument("data")
@reading_options
@showing_options
def info(data: str, reading: Reading, showing: Showing) -> None:
    """Say what DATA holds: graphs, classes, nodes, edges, features, and what is odd about them."""
    from markovot.cli.data import load
    from markovot.cli.output import show_facts, show_json, show_table

    summary = summarise(load(data, reading))
    if showing.as_json:
        show_json(summary)
        return
    classes = summary.pop("classes")
    show_facts({name.replace("_", " "): _worded(value) for name, value in summary.items() if value is not None})
    if classes:
        click.echo()
        show_table(["class", "graphs", "share"], [[c["name"], c["graphs"], f"{c['share']:.1%}"] for c in classes])


def summarise(data: "Data") -> dict[str, Any]:
    """The facts about a data set."""
    import numpy as np

    from markovot.cli.data import choose_cost

    chains, targets = data.set.chains, data.set.targets
    shapes = [shape(chain) for chain in chains]
    kinds, counts = (part.tolist() for part in np.unique(targets, return_counts=True))
    listed = data.set.edges
    return {
        "name": data.set.name,
        "graphs": len(chains),
        "classes": [
            {"class": kind, "name": data.class_name(kind), "graphs": count, "share": count / len(targets)}
            for kind, count in zip(kinds, counts, strict=True)
        ],
        "nodes": _spread([chain.num_states for chain in chains]),
        "edges": _spread([len(edges) for edges in listed] if listed else [one.edges for one in shapes]),
        "directed_graphs": sum(one.directed for one in shapes),
        "graphs_in_several_parts": sum(one.parts > 1 for one in shapes),
        "isolated_nodes": sum(one.isolated for one in shapes),
        "self_loops": sum(int((edges[:, 0] == edges[:, 1]).sum()) for edges in listed) if listed else None,
        "features": _features(data),
        "cost": choose_cost("auto", data.set.feature_kind)[1],
        "initial_law": chains[0].initial_law,
        "laziness": data.laziness,
        "pairs": len(chains) * (len(chains) + 1) // 2,
    }


class Shape(NamedTuple):
    """Counts for the graph of a chain's possible moves, without moves from a state to itself."""

    edges: int  # a move and its reverse count once, unless some moves have no reverse
    directed: bool
    parts: int  # weakly connected
    isolated: int


def shape(chain: "MarkovChain") -> Shape:
    """Count the edges, parts and isolated nodes of a chain's graph."""
    import numpy as np
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    rows = chain.rows()
    size, indptr, indices = chain.num_states, rows.indptr[0].numpy(), rows.indices.numpy()
    source = np.repeat(np.arange(size), np.diff(indptr))
    moves = np.stack([source, indices])[:, source != indices]
    graph = csr_array((np.ones(moves.shape[1]), tuple(moves)), shape=(size, size))
    directed = bool((graph != graph.T).nnz)
    parts = int(connected_components(graph, directed=False, return_labels=False))
    isolated = size - len(np.unique(moves))
    return Shape(moves.shape[1] if directed else moves.shape[1] // 2, directed, parts, isolated)


def _spread(values: list[int]) -> dict[str, Any]:
    return {"min": min(values), "mean": sum(values) / len(values), "max": max(values), "total": sum(values)}


def _features(data: "Data") -> dict[str, Any]:
    import numpy as np

    parts = [np.asarray(chain.features) for chain in data.set.chains]
    values = np.concatenate(parts)
    found: dict[str, Any] = {"kind": data.set.feature_kind, "components": 1 if values.ndim == 1 else values.shape[1]}
    if data.set.feature_kind == "attributes":
        return found | {"smallest": float(values.min()), "largest": float(values.max())}
    if data.set.feature_kind == "degree":
        return found | {"smallest": int(values.min()), "largest": int(values.max())}
    return found | {"different": len(np.unique(values, axis=0)), "names": list(data.set.label_names) or None}


def _worded(value: Any) -> str:
    """A fact on one line."""
    if not isinstance(value, dict):
        return f"{value:,}" if isinstance(value, int) else str(value)
    if "mean" in value:
        return f"{value['mean']:,.2f} in the mean, {value['min']:,} to {value['max']:,}, {value['total']:,} in all"
    words = [value["kind"]]
    if value["components"] > 1:
        words.append(f"with {value['components']} components")
    if "different" in value:
        words.append(f"({value['different']} different{': ' + ', '.join(value['names']) if value['names'] else ''})")
    else:
        words.append(f"({value['smallest']:.6g} to {value['largest']:.6g})")
    return " ".join(words)
