"""Fused Gromov-Wasserstein distances of a whole data set, by POT, on several processes and resumable: a rival."""

import multiprocessing
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import shortest_path
from scipy.spatial.distance import cdist

from markovot.analysis.classification import ground
from markovot.datasets import GraphDataset

ALPHAS = (0.25, 0.5, 0.75)  # the weight of structure against features
SAVE_EVERY = 30.0  # seconds
Graph = tuple[np.ndarray, np.ndarray]  # structure (n, n), features (n, p)
Kept = tuple[np.ndarray, float, int]  # distances, NaN where there are none yet; seconds; warnings
Spread = Callable[[Callable, list], Iterator]  # calls a function with each of a list, in any order


def fused_distances(
    dataset: GraphDataset, folder: Path, *, alphas: Sequence[float] = ALPHAS, workers: int = 2, progress: bool = True
) -> tuple[dict[str, np.ndarray], dict[str, dict[str, float]]]:
    """The square root of the fused Gromov-Wasserstein value of each pair, for each alpha; and what that took.

    Structure: numbers of steps between nodes, divided by their mean over the data set; nodes that no path joins are one
    step further than the furthest of their graph. Features: 0 or 1 for labels and degrees; for attributes, the squared
    Euclidean distance of the standardised ones, divided by its mean. So both have size one. Uniform weights; POT's
    defaults. What is done is kept in `folder`.
    """

    graphs, discrete = prepared(dataset)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {alpha: folder / f"fused-gw-alpha-{alpha!r}.npz" for alpha in alphas}
    kept = {alpha: loaded(path, dataset) for alpha, path in paths.items()}
    if any(np.isnan(np.diag(values)).any() for values, *_ in kept.values()):
        with started(graphs, discrete, workers) as spread:
            for alpha, path in paths.items():
                kept[alpha] = one_alpha(dataset, alpha, path, spread, progress)
    about = {
        f"alpha {alpha}": {"seconds": seconds, "warnings": warned, "processes": workers}
        for alpha, (_, seconds, warned) in kept.items()
    }
    return {f"alpha {alpha}": values for alpha, (values, *_) in kept.items()}, about


def one_alpha(dataset: GraphDataset, alpha: float, path: Path, spread: Spread, progress: bool) -> Kept:
    """What is not in the file yet, row by row."""
    from tqdm.auto import tqdm

    values, seconds, warned = loaded(path, dataset)
    todo = [(alpha, int(row)) for row in np.flatnonzero(np.isnan(np.diag(values)))]  # filled with its row
    saved = time.perf_counter()
    for row, found, complaints in tqdm(spread(one_row, todo), total=len(todo), unit="row", disable=not progress):
        values[row, row:] = values[row:, row] = found
        warned += complaints
        if (now := time.perf_counter()) > saved + SAVE_EVERY:
            seconds, saved = seconds + now - saved, now
            save(path, dataset, values, seconds, warned)
    if todo:
        seconds += time.perf_counter() - saved
        save(path, dataset, values, seconds, warned)
    return values, seconds, warned


def prepared(dataset: GraphDataset) -> tuple[list[Graph], bool]:
    chains = ground(dataset).chains
    structures = [steps(chain.num_states, edges) for chain, edges in zip(chains, dataset.edges, strict=True)]
    unit = sum(each.sum() for each in structures) / sum(each.size for each in structures) or 1.0
    features = [chain.features.numpy().reshape(chain.num_states, -1) for chain in chains]
    discrete = dataset.feature_kind != "attributes"
    if not discrete:
        nodes = np.concatenate(features)
        mean = 2 * nodes.var(axis=0).sum()  # of the squared distance between two nodes drawn at random
        features = [each / np.sqrt(mean or 1.0) for each in features]
    return [(each / unit, some) for each, some in zip(structures, features, strict=True)], discrete


def steps(num_nodes: int, edges: np.ndarray) -> np.ndarray:
    """How many steps apart nodes are."""
    graph = csr_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(num_nodes, num_nodes))
    found = shortest_path(graph, directed=False, unweighted=True)
    found[np.isinf(found)] = found[np.isfinite(found)].max() + 1
    return found


def fused(x: Graph, y: Graph, discrete: bool, alpha: float) -> float:
    import ot

    cost = cdist(x[1], y[1], "sqeuclidean")
    if discrete:
        cost = (cost > 0).astype(float)
    value = ot.gromov.fused_gromov_wasserstein2(
        cost, x[0], y[0], loss_fun="square_loss", symmetric=True, alpha=alpha
    )
    return max(float(value), 0.0) ** 0.5


# --- processes: started afresh, never forked, since the parent may have threads

_given: dict[str, Any] = {}


@contextmanager
def started(graphs: list[Graph], discrete: bool, workers: int) -> Iterator[Spread]:
    """How to spread calls over processes, which know the graphs and are ready: their start is not timed."""
    if workers == 1:
        start_worker(graphs, discrete)
        yield map
        return
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # inherited: one core a process
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, start_worker, (graphs, discrete)) as pool:
        pool.map(time.sleep, [1.0] * workers, chunksize=1)
        yield pool.imap_unordered


def start_worker(graphs: list[Graph], discrete: bool) -> None:
    import ot  # noqa: F401 (now, so that the first pair does not wait for it)

    _given.update(graphs=graphs, discrete=discrete)


def one_row(task: tuple[float, int]) -> tuple[int, np.ndarray, int]:
    """A row's number, its distances to itself and all later graphs, and how often POT warned."""
    alpha, row = task
    graphs, discrete = _given["graphs"], _given["discrete"]
    values = np.zeros(len(graphs) - row)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for column in range(row + 1, len(graphs)):  # a graph is at distance zero from itself
            values[column - row] = fused(graphs[row], graphs[column], discrete, alpha)
    return row, values, len(caught)


# --- files


def loaded(path: Path, dataset: GraphDataset) -> Kept:
    count = len(dataset)
    if not path.exists():
        return np.full((count, count), np.nan), 0.0, 0
    with np.load(path) as kept:
        if not np.array_equal(kept["numbers"], dataset.numbers):
            raise ValueError(f"{path} was made of other graphs; delete it, or name another folder")
        return kept["values"], float(kept["seconds"]), int(kept["warned"])


def save(path: Path, dataset: GraphDataset, values: np.ndarray, seconds: float, warned: int) -> None:
    temporary = path.with_suffix(".part.npz")
    np.savez(temporary, values=values, seconds=seconds, warned=warned, numbers=dataset.numbers)
    os.replace(temporary, path)
