"""The speed table: ours beside the rivals, in one run. `make bench`, or `run.py --quick`."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from machine import machine
from rows import ROWS, Row

HERE = Path(__file__).parent
PACKAGES = ("torch", "numpy", "numba", "ot-markov-distances", "pot")

# What a user meets first: the import, and one call of each kind of chain with its backward pass.
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
    return {"import": imported, "cold": cold[1], "cold_all": cold[2], "warm": first, "warm_all": every}


def measure(key: str, limit: float) -> dict[str, Any]:
    """Run one row in a process of its own."""
    command = [sys.executable, str(HERE / "measure.py"), key, str(limit)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]}
    return dict(json.loads(done.stdout.splitlines()[-1]))


# --- the table


def duration(seconds: float | None) -> str:
    if seconds is None or seconds == float("inf"):
        return "completes" if seconds else "-"
    return f"{1e3 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def rival_error(found: dict[str, Any]) -> str:
    """Largest difference of the rival's values from ours, in per cent of the value."""
    rival, ours = found["rival"]["values"], found["ours"]["values"]
    gaps = [abs(a - b) / abs(b) for a, b in zip(rival, ours, strict=False)]
    return f"{100 * max(gaps):.2g} %"


def line(row: Row, found: dict[str, Any]) -> list[str]:
    """The cells of one row."""
    if "failed" in found:
        return [row.title, f"failed: {found['failed'][0]}", *[""] * 8]
    ours, rival = found["ours"], found.get("rival")
    forward, backward = ours["forward"], ours["backward"]
    memory = ours["memory_forward"]
    verdict = "aim" if row.aim and forward <= row.aim else "reach" if forward <= row.reach else "missed"
    goal = f"{duration(row.reach)} / {duration(row.aim)}" + (f", {row.memory:g} GiB" if row.memory else "")
    return [
        row.title,
        duration(forward),
        duration(backward) + f" ({backward / forward:.2f} of forward)",
        duration(rival["seconds"]) if rival else row.rival_note or "skipped",
        f"{rival['seconds'] / forward:,.0f}" if rival else "-",
        rival_error(found) if rival else "-",
        goal,
        verdict,
        f"{ours['error']:.1e}",
        f"{memory:.2f} GiB",
    ]


HEADER = (
    "work", "ours", "ours, backward", "rival", "ratio", "rival's error", "reach / aim", "met",
    "certified relative error", "peak memory",
)  # fmt: skip


def table(results: dict[str, dict[str, Any]], start: dict[str, float], about: dict[str, Any]) -> str:
    cells = [list(HEADER), ["---"] * len(HEADER)] + [line(ROWS[key], found) for key, found in results.items()]
    text = ["| " + " | ".join(row) + " |" for row in cells]
    if "batched" in (mutag := results.get("mutag", {})):
        batched, fused = (duration(mutag[name]) for name in ("batched", "fused_gromov_wasserstein"))
        text += [
            "",
            f"MUTAG as one stacked batch: {batched} a pair; "
            f"POT's fused Gromov-Wasserstein, another distance: {fused} a pair.",
        ]
    if "rival_tight" in mutag:
        slow = mutag["rival_tight"]["seconds"]
        text += [
            "",
            f"On MUTAG the rival, with its limits raised to reach 1e-4, takes {duration(slow)} a pair.",
        ]
    took = {name: duration(seconds) for name, seconds in start.items()}
    text += [
        "",
        f"`import markovot` adds {took['import']} to `import torch`. The first call and its backward take "
        f"{took['cold']} with a cold compile cache (one call of each kind: {took['cold_all']}), "
        f"and {took['warm']} ({took['warm_all']}) in later processes.",
        "",
        "The rival runs once, with its default settings, which leave it the error shown. Ours is the median of "
        "repeats; backward gives the gradients in the cost, both transitions and both laws. "
        + ", ".join(f"{name} {value}" for name, value in about.items())
        + ".",
    ]
    return "\n".join(text) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="skip rivals that take more than 10 seconds, and long rows"
    )
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS), help="only these rows")
    parser.add_argument("--no-rivals", action="store_true", help="measure ours alone")
    parser.add_argument("--output", type=Path, default=HERE, help="folder of results.json and results.md")
    options = parser.parse_args()
    limit = 0.0 if options.no_rivals else 10.0 if options.quick else float("inf")

    start, results = startup(), {}
    for key in options.rows:
        print(f"{key} ...", file=sys.stderr, flush=True)
        results[key] = measure(key, limit)
    about = machine(PACKAGES)
    text = table(results, start, about)
    options.output.mkdir(parents=True, exist_ok=True)
    saved = {"machine": about, "startup": start, "rows": results}
    (options.output / "results.json").write_text(json.dumps(saved, indent=1) + "\n")
    (options.output / "results.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
