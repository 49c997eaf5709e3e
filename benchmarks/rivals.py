"""The other packages, given the same problem and, where they have a tolerance, the same accuracy."""

import time
import warnings

import numpy as np
import torch
from rows import Task, adjacency


def markov_distances(tasks: list[Task], *, tight: bool = False, backward: bool = False) -> dict[str, object]:
    """`ot-markov-distances`, in its own single precision, with its default settings or with ours.

    The defaults are looser: at most 50 outer steps of at most 100 Sinkhorn steps, and a step of .5 % of
    the value stops it. `tight` asks for what we certify. It stops by the step between iterates of a map that
    contracts by 1 - delta: an error of 1e-4 of the range needs one of 1e-4 * range * delta / (1 - delta).
    """
    from ot_markov_distances import discounted_wl_infty

    def run(task: Task, cost: torch.Tensor) -> torch.Tensor:
        uniform = [torch.full((1, size), 1.0 / size) for size in cost.shape[1:]]
        rows = (task.rows_x.float()[None], task.rows_y.float()[None])
        step = 1e-4 * task.range * task.delta / (1 - task.delta)
        limits = {"max_iter": 1000, "sinkhorn_iter": 1000} if tight else {}
        stop = {"convergence_threshold_rtol": 0.0, "convergence_threshold_atol": step} if tight else {}
        options = {"delta": task.delta, "sinkhorn_reg": task.epsilon} | limits | stop
        return discounted_wl_infty(*rows, cost, *uniform, **options)

    torch.manual_seed(0)  # it starts from random potentials
    values, seconds, warned = [], [], set()
    for task in tasks:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            start = time.perf_counter()
            values.append(run(task, task.cost.float()[None]).item())
            seconds.append(time.perf_counter() - start)
        warned |= {str(each.message) for each in caught}
    found: dict[str, object] = {
        "seconds": float(np.mean(seconds)),
        "values": values,
        "warnings": sorted(warned),
    }
    if backward:
        found["backward"] = _backward(run, tasks[0])
    return found


def _backward(run: object, task: Task) -> float | str:
    """Its gradient in the cost; the transitions of sparse chains it refuses."""
    cost = task.cost.float()[None].requires_grad_()
    try:
        value = run(task, cost).sum()
        start = time.perf_counter()
        value.backward()
        return time.perf_counter() - start
    except (RuntimeError, AssertionError, TypeError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:80]}"


def fused_gromov_wasserstein(tasks: list[Task]) -> float:
    """POT's fused Gromov-Wasserstein of the two graphs with the same label cost: another distance."""
    import ot

    seconds = []
    for task in tasks:
        graphs, cost = (adjacency(task.rows_x), adjacency(task.rows_y)), task.cost.numpy()
        start = time.perf_counter()
        ot.gromov.fused_gromov_wasserstein2(cost, *graphs, loss_fun="square_loss", alpha=0.5)
        seconds.append(time.perf_counter() - start)
    return float(np.mean(seconds))
