"""One row of the table in a process of its own, so that its peak memory is its own; prints JSON."""

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable

import torch
from rivals import fused_gromov_wasserstein, markov_distances
from rows import ROWS, Row, Task

import markovot
from markovot import MarkovChain


def peak() -> float:
    """Largest resident memory of this process so far, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def chains(task: Task, *, grad: bool = False) -> tuple[MarkovChain, MarkovChain]:
    pair = []
    for rows, sparse in ((task.rows_x, task.sparse_x), (task.rows_y, task.sparse_y)):
        transition = rows.to_sparse_csr() if sparse else rows.clone()
        law = torch.full((len(rows),), 1 / len(rows), dtype=rows.dtype, requires_grad=grad)
        pair.append(MarkovChain.from_transitions(transition.requires_grad_(grad), initial=law))
    return pair[0], pair[1]


def forward(task: Task, pair: tuple[MarkovChain, MarkovChain], cost: torch.Tensor) -> markovot.Solution:
    return markovot.discounted_wl(*pair, cost, delta=task.delta, epsilon=task.epsilon)


def ours(row: Row, tasks: list[Task]) -> dict[str, object]:
    """Forward alone; then forward with every gradient wanted (cost, transitions, laws), and its backward."""
    pairs = [chains(task) for task in tasks]
    before = peak()
    found = forward(tasks[0], pairs[0], tasks[0].cost)  # compiles, or reads the compiled code
    status = {str(found.status.name)}
    del found  # so that memory is that of one solution
    solutions: list[markovot.Solution] = []
    rounds = []
    for _ in range(row.repeats):
        solutions.clear()
        rounds.append(timed(lambda: solutions.extend(map(forward, tasks, pairs, (task.cost for task in tasks)))))
    forward_peak = peak()
    values = [solution.value.item() for solution in solutions]
    error = max(s.error_bound.item() / task.range for s, task in zip(solutions, tasks, strict=True))
    num_iter = max(int(solution.num_iter) for solution in solutions)
    status |= {str(solution.status.name) for solution in solutions}
    solutions.clear()
    backward, with_grad = gradients(tasks[:50], max(1, row.repeats - 2))
    count = len(tasks)
    return {
        "forward": statistics.median(rounds) / count,
        "forward_with_gradient": with_grad,
        "backward": backward,
        "values": values,
        "error": error,
        "num_iter": num_iter,
        "status": sorted(status),
        "memory_before": before,
        "memory_forward": forward_peak,
        "memory": peak(),
    }


def gradients(tasks: list[Task], repeats: int) -> tuple[float, float]:
    """Mean seconds of backward, and of the forward pass before it."""
    backward, with_grad = [], []
    for _ in range(repeats):
        spent = [0.0, 0.0]
        for task in tasks:
            pair, cost = chains(task, grad=True), task.cost.clone().requires_grad_()
            start = time.perf_counter()
            value = forward(task, pair, cost).value
            middle = time.perf_counter()
            value.backward()
            spent[0] += time.perf_counter() - middle
            spent[1] += middle - start
        backward.append(spent[0] / len(tasks))
        with_grad.append(spent[1] / len(tasks))
    return statistics.median(backward), statistics.median(with_grad)


def batched(tasks: list[Task]) -> float:
    """Seconds a pair where all pairs are one stacked batch."""
    pairs = [chains(task) for task in tasks]
    x, y = (MarkovChain.stack([pair[k] for pair in pairs]) for k in (0, 1))
    cost = torch.zeros(len(tasks), x.num_states, y.num_states, dtype=torch.float64)
    for item, task in enumerate(tasks):
        cost[item, : task.cost.shape[0], : task.cost.shape[1]] = task.cost

    def run() -> None:
        markovot.discounted_wl(x, y, cost, delta=tasks[0].delta, epsilon=tasks[0].epsilon)

    run()
    return statistics.median(timed(run) for _ in range(3)) / len(tasks)


def main(key: str, limit: float) -> None:
    row = ROWS[key]
    tasks = row.tasks()
    result: dict[str, object] = {"ours": ours(row, tasks)}
    if key == "mutag":
        result["batched"] = batched(tasks)
        result["fused_gromov_wasserstein"] = fused_gromov_wasserstein(tasks)
    if row.rival is not None and row.rival * row.rival_tasks <= limit:
        result["rival"] = markov_distances(tasks[: row.rival_tasks], backward=key == "sparse-64")
        result["rival_memory"] = peak()
        if key == "mutag" and limit == float("inf"):
            result["rival_tight"] = markov_distances(tasks[:2], tight=True)
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
