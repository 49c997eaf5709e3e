"""Time and memory by the size of two chains and the degree of their rows: the tables of docs/size.md.

    python docs/measure_size.py          # some minutes; writes the tables into the page

Each cell is a process of its own, on one core. Times are processor seconds, which other work on the machine disturbs
least, the best of a few repeats. Memory is what a solve and its gradients in the cost and both transitions take beyond
the same process before it.
"""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

PAGE = Path(__file__).resolve().parent / "size.md"
SIZES = (16, 64, 256, 1024)
DEGREES = (3, 8, 0)  # 0: full rows
LARGEST_FULL = 64
DELTA, EPSILON = 0.2, 0.01


def measure(n: int, degree: int, epsilon: float) -> dict[str, float]:
    """Seconds of forward and backward, and MiB, of one pair of random chains in the unit square."""
    import torch

    from markovot import MarkovChain, costs, discounted_wl

    def chain(n: int, seed: int) -> MarkovChain:
        generator = torch.Generator().manual_seed(seed)
        places = torch.rand(n, 2, generator=generator, dtype=torch.float64)
        weights = torch.rand(n, n, generator=generator, dtype=torch.float64)
        if degree:
            weights = weights * (torch.rand(n, n, generator=generator).argsort(1) < degree)
            return MarkovChain.from_adjacency(weights.to_sparse_csr(), features=places)
        return MarkovChain.from_adjacency(weights, features=places)

    def once(n: int) -> tuple[float, float]:
        x, y = chain(n, 1), chain(n, 2)
        cost = costs.Euclidean()(x.features, y.features)
        leaves = [cost, x.parameter, y.parameter]
        for leaf in leaves:
            leaf.requires_grad_()
        start = time.process_time()
        solution = discounted_wl(x, y, cost, delta=DELTA, epsilon=epsilon)
        middle = time.process_time()
        torch.autograd.grad(solution.value, leaves)
        return middle - start, time.process_time() - middle

    once(8)  # compiles
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    first = once(n)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    repeats = [first] + [once(n) for _ in range(4 if sum(first) < 1 else 1 if sum(first) < 20 else 0)]
    return {
        "forward": min(one[0] for one in repeats),
        "backward": min(one[1] for one in repeats),
        "memory": (peak - before) / 1024,
    }


def table(epsilon: float, sizes: list[int], largest_full: int) -> str:
    """Rows by size, columns by degree; forward / backward, memory."""
    names = [f"degree {degree}" if degree else "full rows" for degree in DEGREES]
    lines = ["| n = m | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(names)]
    for n in sizes:
        cells = []
        for degree in DEGREES:
            if not degree and n > largest_full:
                cells.append("not measured")
                continue
            arguments = [sys.executable, __file__, "--one", str(n), str(degree), str(epsilon)]
            alone = os.environ | {"OMP_NUM_THREADS": "1"}
            found = json.loads(subprocess.run(arguments, capture_output=True, text=True, check=True, env=alone).stdout)
            cells.append(f"{_time(found['forward'])} / {_time(found['backward'])}, {_memory(found['memory'])}")
            print(n, degree, epsilon, found, file=sys.stderr, flush=True)
        lines.append(f"| {n:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _time(seconds: float) -> str:
    number, unit = (seconds, "s") if seconds >= 1 else (1000 * seconds, "ms")
    return f"{number:.0f} {unit}" if number >= 10 else f"{number:.1f} {unit}"


def _memory(mib: float) -> str:
    return f"{mib / 1024:.1f} GiB" if mib >= 1024 else f"{mib:.0f} MiB" if mib >= 1 else "< 1 MiB"


def main() -> None:
    """Write both tables between their markers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--full", type=int, default=LARGEST_FULL, help="the largest size with full rows")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(int(given.one[0]), int(given.one[1]), float(given.one[2]))))
        return
    text = PAGE.read_text(encoding="utf-8")
    for name, epsilon in (("entropic", EPSILON), ("exact", 0.0)):
        marked = re.compile(f"(<!-- {name} -->\n).*?(\n<!-- end -->)", re.DOTALL)
        made = table(epsilon, given.sizes, given.full)
        text = marked.sub(lambda found, made=made: found[1] + made + found[2], text)
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
