"""What a training step costs: coarsening by hand and by our loop, from warm and from cold starts, and a whole run.

    python benchmarks/learning.py [--steps 300] [--whole 3000] [-o benchmarks/learning.json]

The step of the paper's coarsening is one distance of 15 states, dense, to 30, sparse, its gradient, and a step of
Adam. A "cold" step starts each solve afresh; a "warm" one where the last step ended. Medians over the steps after the
first twenty; CPU times are of the whole process, and tell a busy machine from a slow step.

Where ot-markov-distances is installed (`make bench` does), it takes the same steps in the same process, in turn with
ours: at its defaults, and with its limits raised to the accuracy that ours certifies. See `suite/training.py`.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from machine import machine
from suite import cases as suite_cases
from suite import packages
from suite import training as beside_the_rival

from markovot import MarkovChain, costs, discounted_wl
from markovot.learning import DiscountedWLLoss, Training, coarsen, several_steps, starts

SKIPPED = 20
COST = costs.Euclidean()


def ring(size: int) -> MarkovChain:
    angle = torch.arange(size, dtype=torch.float64) * (2 * np.pi / size)
    rows = torch.eye(size, dtype=torch.float64).roll(1, 1)
    return MarkovChain.from_transitions(rows, initial="uniform", features=torch.stack([angle.cos(), angle.sin()], 1))


class Case:
    """A coarsening, with the settings of a distance."""

    def __init__(self, small: int, large: int, epsilon: float, rtol: float, restarts: int = 1) -> None:
        self.name = f"{restarts} x {small} dense against {large} sparse, epsilon {epsilon:g}, rtol {rtol:g}"
        self.small, self.restarts = small, restarts
        self.setting: dict[str, Any] = {"delta": 0.5, "epsilon": epsilon, "rtol": rtol}
        self.targets = starts.targets_of([several_steps(ring(large), large / small)], COST)
        self.weights = torch.ones(1, dtype=torch.float64)

    def module(self) -> starts.SideBySide:
        return starts.start(self.targets, self.weights, self.small, restarts=self.restarts, seed=0)

    def by_hand(self, steps: int, *, warm: bool) -> list[float]:
        """Seconds of each step of the shortest loop that trains."""
        module = self.module()
        optimiser = torch.optim.Adam(module.parameters(), lr=5e-3)
        last, seconds = None, []
        for _ in range(steps):
            begin = time.perf_counter()
            optimiser.zero_grad()
            solution = discounted_wl(module(), self.targets.chains, COST, init=last, **self.setting)
            solution.value.sum().backward()
            optimiser.step()
            last = solution if warm else None
            seconds.append(time.perf_counter() - begin)
        return seconds

    def by_ours(self, steps: int, *, warm: bool) -> list[float]:
        """The same by the loop of the package."""
        loss = DiscountedWLLoss(COST, reduction="none", warm_start=warm, **self.setting)
        objective = starts.ToTargets(loss, self.targets, self.weights)
        training = Training(steps=steps, lr=5e-3, progress=False)
        return starts.fit(self.module(), objective, training).seconds.tolist()


def measured(run: Callable[[], list[float]]) -> dict[str, float]:
    begin = time.process_time()
    seconds = run()
    cpu = (time.process_time() - begin) / len(seconds)
    return {"median_ms": 1e3 * statistics.median(seconds[SKIPPED:]), "cpu_ms": 1e3 * cpu, "total_s": sum(seconds)}


def beside(steps: int) -> dict[str, Any]:
    """Ours and the rival, step by step."""
    names = [suite_cases.OURS, suite_cases.OMD, suite_cases.TIGHT]
    for name in names:
        if reason := packages.missing(name):
            print(f"{name}: {reason}")
    found = beside_the_rival.measured([name for name in names if packages.missing(name) is None], steps)
    for name, each in found["trainings"].items():
        print(
            f"{name:28}{each['median_ms']:9.2f} ms a step; first value off by {each['error of the value']:.1e}; "
            f"from {each['starts at']:.4f} to {each['ends at']:.4f}"
        )
    print(f"ot-markov-distances, tight: {beside_the_rival.TIGHT}; the other: its defaults")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--whole", type=int, default=3000, help="steps of the whole coarsening; 0 leaves it out")
    parser.add_argument("-o", "--output", default=None, help="a JSON file")
    options = parser.parse_args()
    cases = [
        Case(15, 30, 0.05, 1e-4),
        Case(15, 30, 0.01, 1e-4),
        Case(15, 30, 0.05, 1e-8),
        Case(15, 30, 0.05, 1e-4, restarts=8),
        Case(60, 120, 0.05, 1e-4),
    ]
    result: dict[str, Any] = {"machine": machine(["markovot", "torch", "numba"]), "threads": torch.get_num_threads()}
    cases[0].by_hand(SKIPPED, warm=True)  # compiles
    print(f"{'':58}{'by hand':>9}{'ours':>10}{'cold':>8}{'cold/warm':>11}{'(CPU ms: warm, cold)':>24}")
    for case in cases:
        steps = options.steps if case.small < 60 else max(SKIPPED + 10, options.steps // 5)
        found = {
            "by_hand": measured(lambda: case.by_hand(steps, warm=True)),  # noqa: B023 (called at once)
            "ours": measured(lambda: case.by_ours(steps, warm=True)),  # noqa: B023
            "cold": measured(lambda: case.by_ours(steps, warm=False)),  # noqa: B023
        }
        result[case.name] = found
        hand, warm, cold = (found[name]["median_ms"] for name in ("by_hand", "ours", "cold"))
        print(
            f"{case.name:58}{hand:7.2f} ms{warm:7.2f} ms{cold:5.1f} ms{cold / warm:11.2f}"
            f"{found['ours']['cpu_ms']:15.2f},{found['cold']['cpu_ms']:6.2f}"
        )
    if options.whole:
        training = Training(steps=options.whole, lr=5e-3, progress=False)
        begin, cpu = time.perf_counter(), time.process_time()
        found = coarsen(ring(30), 15, cost=COST, training=training)
        whole = {"seconds": time.perf_counter() - begin, "cpu_seconds": time.process_time() - cpu, "value": found.value}
        result["whole"] = whole
        print(f"coarsen, {options.whole} steps: {whole['seconds']:.1f} s, CPU {whole['cpu_seconds']:.1f} s; {found}")
    result["beside"] = beside(options.steps)
    if options.output:
        with open(options.output, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
