"""Optimal transition couplings of block models, beside `pyotc`; opt-in, one size in a process of its own.

    python benchmarks/otc.py --sizes 20 40 60 100 --rival 20 40

The graphs are like those of the rival's published times: four blocks of equal size, edges within a block with
probability .9 and between blocks .1, squared differences of degrees for a cost. `pyotc==0.4.0` is needed only where
--rival asks for it.
"""

import argparse
import contextlib
import io
import json
import resource
import subprocess
import sys
import time

import numpy as np
import torch

PUBLISHED = {20: 0.6, 40: 9.6, 60: 54.7, 100: 1340.0}  # seconds of its authors' machine


def block_model(size: int, seed: int) -> np.ndarray:
    """Adjacency of a connected graph."""
    from scipy.sparse.csgraph import connected_components

    rng = np.random.default_rng(seed)
    block = np.arange(size) * 4 // size
    chance = np.where(block[:, None] == block, 0.9, 0.1)
    while True:
        upper = np.triu(rng.random((size, size)) < chance, 1)
        graph = (upper | upper.T).astype(float)
        if connected_components(graph)[0] == 1:
            return graph


def task(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two transition matrices and a cost."""
    graphs = block_model(size, 2 * size), block_model(size, 2 * size + 1)
    degrees = [graph.sum(1) for graph in graphs]
    rows = [graph / degree[:, None] for graph, degree in zip(graphs, degrees, strict=True)]
    return rows[0], rows[1], np.subtract.outer(*degrees) ** 2


def ours(size: int, *, epsilon: float, backward: bool) -> dict[str, object]:
    from markovot.average import optimal_transition_coupling

    def run(size: int) -> tuple[float, float, object]:
        leaves = [torch.tensor(part, requires_grad=backward) for part in task(size)]
        start = time.perf_counter()
        solution = optimal_transition_coupling(*leaves, epsilon=epsilon, rtol=1e-10, throw=False)
        middle = time.perf_counter()
        if backward:
            solution.value.backward()
        return middle - start, time.perf_counter() - middle, solution

    run(8)  # compiles, or reads the compiled code
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    seconds, back, solution = run(size)
    return {
        "seconds": seconds,
        "backward": back if backward else None,
        "value": solution.value.item(),
        "error": solution.error_bound.item(),
        "status": solution.status.name,
        "num_iter": int(solution.num_iter),
        "memory_before": before,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def rival(size: int) -> dict[str, object]:
    from pyotc import exact_otc

    a, b, cost = task(size)
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        value, _, _ = exact_otc(a, b, cost, stat_dist=None)  # its own law of the coupling, a linear programme, left out
    return {"seconds": time.perf_counter() - start, "value": float(value)}


def alone(arguments: list[str]) -> dict[str, object]:
    """What this script prints for one size, in a new process."""
    found = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=True)
    return json.loads(found.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[20, 40, 60, 100])
    parser.add_argument("--rival", type=int, nargs="*", default=[], help="sizes at which to run pyotc too")
    parser.add_argument("--epsilon", type=float, default=0.0, help="of ours")
    parser.add_argument("--backward", action="store_true", help="gradients in the cost and both transitions as well")
    parser.add_argument("--one", choices=("ours", "rival"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        size = given.sizes[0]
        found = rival(size) if given.one == "rival" else ours(size, epsilon=given.epsilon, backward=given.backward)
        print(json.dumps(found))
        return
    options = ["--epsilon", str(given.epsilon), *(["--backward"] if given.backward else [])]
    for size in sorted({*given.sizes, *given.rival}):
        mine = alone(["--one", "ours", "--sizes", str(size), *options])
        line = (
            f"{size} states: {mine['seconds']:.3g} s, gain {mine['value']:.12g} to {mine['error']:.0e} "
            f"({mine['status']}, {mine['num_iter']} sweeps), {mine['memory']:.2f} GiB"
        )
        if given.backward:
            line += f", backward {mine['backward']:.3g} s"
        if size in given.rival:
            other = alone(["--one", "rival", "--sizes", str(size)])
            ratio, above = other["seconds"] / mine["seconds"], other["value"] - mine["value"]
            line += f"; pyotc {other['seconds']:.3g} s, {ratio:.0f} times as long, {above:.1e} above"
        elif size in PUBLISHED:
            line += f"; pyotc published {PUBLISHED[size]:g} s"
        print(line, flush=True)


if __name__ == "__main__":
    main()
