"""Whole data sets: the times of all pairs, scaling, memory, and how few pairs a search for neighbours solves.

    python benchmarks/datasets.py        # some minutes; needs MUTAG, PTC_MR and PROTEINS in $MARKOVOT_DATA/graphs

Each row runs in a process of its own, on a warm compile cache. Certified error at most 1e-3 of the range of the cost.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROWS = ("MUTAG", "MUTAG, one core", "MUTAG, exact", "PTC_MR", "PROTEINS, 2000 random pairs", "1-NN in MUTAG")
DATA = Path(os.environ.get("MARKOVOT_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")) / "graphs"


def run(row: str) -> dict[str, Any]:
    """Measure one row in this process."""
    import numpy as np
    import torch

    from markovot import PolicyIteration
    from markovot.costs import ZeroOne
    from markovot.datasets import load_mutag, load_tudataset
    from markovot.pairwise import distance_matrix, nearest_neighbours

    setting = {"cost": ZeroOne(), "delta": 0.2, "epsilon": 0.0 if "exact" in row else 0.01, "progress": False}
    setting["solver"] = PolicyIteration(rtol=1e-3)
    torch.set_num_threads(1 if "one core" in row else os.cpu_count() or 1)
    name = row.split(",")[0]
    data = load_mutag() if "MUTAG" in row else load_tudataset(DATA / f"{name}.zip")
    chains = data.chains
    distance_matrix(chains[:3], **setting)  # loads compiled code
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.perf_counter()
    if row.startswith("1-NN"):
        found = [
            nearest_neighbours([chain], chains[:i] + chains[i + 1 :], 1, **setting)
            for i, chain in enumerate(chains)
        ]
        seconds = time.perf_counter() - start
        solved = np.array([one.num_solved[0] for one in found])
        return {"solved, mean": solved.mean(), "solved, most": int(solved.max()), "seconds": seconds}
    if "random" in row:
        rng = np.random.default_rng(0)
        # 2,000 pairs as 50 rectangles of 5 x 8 random graphs
        parts = [(rng.choice(len(chains), 5), rng.choice(len(chains), 8)) for _ in range(50)]
        bound, num = 0.0, 0
        for x, y in parts:
            solution = distance_matrix([chains[i] for i in x], [chains[j] for j in y], **setting)
            bound, num = max(bound, solution.error_bound.max()), num + solution.value.size
        seconds = time.perf_counter() - start
        extrapolated = seconds / num * len(chains) * (len(chains) + 1) / 2
        return {"seconds": seconds, "all pairs, hours": extrapolated / 3600, "error": bound}
    solution = distance_matrix(chains, **setting)
    seconds = time.perf_counter() - start
    added = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
    results = sum(part.nbytes for part in (solution.value, solution.error_bound, solution.status)) / 2**20
    return {"seconds": seconds, "error": solution.error_bound.max(), "MiB added": added, "MiB of results": results}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--row", choices=ROWS)
    options = parser.parse_args()
    if options.row:
        print(json.dumps({key: float(value) for key, value in run(options.row).items()}))
        return
    for row in ROWS:
        done = subprocess.run([sys.executable, __file__, "--row", row], capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{row}: failed: {done.stderr.strip().splitlines()[-1]}", flush=True)
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        print(f"{row}: " + ", ".join(f"{key} {value:.4g}" for key, value in found.items()), flush=True)


if __name__ == "__main__":
    main()
