"""All pairs of a data set: our function, the rivals' own functions, and loops over pairs where they have none."""

import contextlib
import io
import itertools
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from suite import cases
from suite.problems import Task
from suite.solvers import solver

DELTA, EPSILON = 0.2, 0.01


def matrix(package: str, chains: list) -> Callable[[], tuple[np.ndarray, float | None]]:
    """A call that gives the matrix, and its certified error if it has one; what is prepared before it is not timed."""
    if package == cases.OURS:
        return lambda: ours(chains)
    if package == cases.WWL:
        graphs = [_igraph(chain) for chain in chains]
        return lambda: (_wwl(graphs), None)
    if package == cases.GRAKEL:
        graphs = [_grakel(chain) for chain in chains]
        return lambda: (_subtree(graphs), None)
    kind = "exact" if package == cases.POT_LOOP else "discounted"
    how, epsilon = solver(package, kind), 0.0 if kind == "exact" else EPSILON
    dense = [chain.to_dense().transition for chain in chains]
    pairs = list(itertools.combinations_with_replacement(range(len(chains)), 2))
    given = [how.prepare(_task(chains, dense, pair, epsilon)) for pair in pairs]

    def loop() -> tuple[np.ndarray, None]:
        found = np.zeros((len(chains), len(chains)))
        for (i, j), each in zip(pairs, given, strict=True):
            found[i, j] = found[j, i] = how.solve(each).value
        return found, None

    return loop


def ours(chains: list, *, rtol: float = 1e-4, epsilon: float = EPSILON) -> tuple[np.ndarray, float]:
    from markovot.costs import ZeroOne
    from markovot.pairwise import distance_matrix

    found = distance_matrix(
        chains, cost=ZeroOne(), delta=DELTA, epsilon=epsilon, rtol=rtol, progress=False
    )
    return found.value, float(found.error_bound.max())


SAME = (cases.OURS, cases.OMD, cases.POT_LOOP)  # the packages that compute our distance


def truth(package: str, chains: list) -> np.ndarray:
    """What they should have found."""
    return ours(chains, rtol=1e-10, epsilon=0.0 if package == cases.POT_LOOP else EPSILON)[0]


def _task(chains: list, dense: list[torch.Tensor], pair: tuple[int, int], epsilon: float) -> Task:
    x, y = (chains[i].features for i in pair)
    cost = (x[:, None] != y[None]).double()
    return Task(dense[pair[0]], dense[pair[1]], cost, DELTA, epsilon, sparse_x=True, sparse_y=True)


def _edges(chain: Any) -> list[tuple[int, int]]:
    rows = chain.to_dense().transition
    return [(int(i), int(j)) for i, j in zip(*np.nonzero(np.triu(rows.numpy(), 1)), strict=True)]


def _igraph(chain: Any) -> Any:
    import igraph

    graph = igraph.Graph(n=chain.num_states, edges=_edges(chain))
    graph.vs["label"] = [int(label) for label in chain.features]
    return graph


def _wwl(graphs: list) -> np.ndarray:
    from wwl import pairwise_wasserstein_distance

    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(pairwise_wasserstein_distance(graphs))


def _grakel(chain: Any) -> Any:
    from grakel import Graph

    neighbours: dict[int, list[int]] = {i: [] for i in range(chain.num_states)}
    for i, j in _edges(chain):
        neighbours[i].append(j)
        neighbours[j].append(i)
    return Graph(neighbours, node_labels={i: int(label) for i, label in enumerate(chain.features)})


def _subtree(graphs: list) -> np.ndarray:
    from grakel.kernels import WeisfeilerLehman

    return np.asarray(WeisfeilerLehman(n_iter=3, normalize=True).fit_transform(graphs))


# --- whole sets, ours alone


def whole_set(row: str, chains: list) -> dict[str, float]:
    """One line of the table of whole sets; `chains` were loaded beforehand."""
    from markovot.costs import ZeroOne
    from markovot.pairwise import distance_matrix, nearest_neighbours

    setting: dict[str, Any] = {"cost": ZeroOne(), "delta": DELTA, "epsilon": 0.0 if "exact" in row else EPSILON}
    setting |= {"progress": False, "rtol": 1e-3}
    torch.set_num_threads(1 if "one core" in row else len(os.sched_getaffinity(0)))
    distance_matrix(chains[:3], **setting)  # loads compiled code
    before = _peak()
    start = time.perf_counter()
    if row.startswith("nearest"):
        found = [
            nearest_neighbours([chain], chains[:i] + chains[i + 1 :], 1, **setting) for i, chain in enumerate(chains)
        ]
        solved = np.array([one.num_solved[0] for one in found])
        return {"seconds": time.perf_counter() - start, "solved, mean": solved.mean(), "solved, most": solved.max()}
    if "random" in row:
        return _random_pairs(chains, setting)
    solution = distance_matrix(chains, **setting)
    seconds = time.perf_counter() - start
    results = sum(part.nbytes for part in (solution.value, solution.error_bound, solution.status)) / 2**20
    pairs = len(chains) * (len(chains) + 1) // 2
    return {
        "seconds": seconds,
        "pairs": pairs,
        "error": solution.error_bound.max(),
        "memory": (_peak() - before) / 2**10,
        "MiB of results": results,
    }


def _random_pairs(chains: list, setting: dict[str, Any]) -> dict[str, float]:
    """2,000 pairs as 50 rectangles of 5 x 8 random graphs."""
    from markovot.pairwise import distance_matrix

    rng, bound = np.random.default_rng(0), 0.0
    parts = [(rng.choice(len(chains), 5), rng.choice(len(chains), 8)) for _ in range(50)]
    start = time.perf_counter()
    for x, y in parts:
        solution = distance_matrix([chains[i] for i in x], [chains[j] for j in y], **setting)
        bound = max(bound, float(solution.error_bound.max()))
    seconds = time.perf_counter() - start
    all_pairs = len(chains) * (len(chains) + 1) / 2
    return {"seconds": seconds, "pairs": 2000, "error": bound, "all pairs, minutes": seconds / 2000 * all_pairs / 60}


def _peak() -> float:
    """MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# --- what a user meets first: the import, and one call of each kind of chain with its backward pass

FIRST_CALLS = """
import time
start = time.perf_counter(); import torch; after_torch = time.perf_counter()
import markovot; after_import = time.perf_counter()
from markovot import MarkovChain
dense = torch.full((4, 4), .25, dtype=torch.float64); sparse = torch.eye(4, dtype=torch.float64).roll(1, 0)
sparse = (.5 * torch.eye(4) + .5 * sparse).to_sparse_csr()
times = []
for x, y in ((sparse, sparse), (dense, dense), (dense, sparse)):
    cost = torch.rand(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    markovot.discounted_wl(x, y, cost, delta=.2, epsilon=.01).value.backward()
    times.append(time.perf_counter() - after_import)
print(after_import - after_torch, times[0], times[-1])
"""


def first_calls(cache: str) -> tuple[float, float, float]:
    """Seconds in a fresh process: `import markovot` after torch, the first call, one call of each kind."""
    environment = os.environ | {"MARKOVOT_CACHE_DIR": cache}
    command = [sys.executable, "-W", "ignore", "-c", FIRST_CALLS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    imported, first, every = map(float, done.stdout.split())
    return imported, first, every


def startup() -> dict[str, float]:
    """Seconds: the import, and the first calls with a cold and with a warm compile cache."""
    with tempfile.TemporaryDirectory() as cache:
        cold = first_calls(cache)
        warm = [first_calls(cache) for _ in range(3)]
    imported, first, every = (statistics.median(each) for each in zip(*warm, strict=True))
    return {"seconds": first, "import": imported, "cold": cold[1], "cold, each kind": cold[2], "each kind": every}
