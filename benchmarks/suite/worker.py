"""One measurement in a process of its own, so that its peak memory is its own; prints JSON.

    python -m suite.worker GROUP X PACKAGE

Line by line: READY and the number of pairs, when what is not timed is done; then results, each with all that is known
so far, so that a process that is stopped at the time limit leaves what it had.
"""

import json
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from suite import cases, matrices, problems
from suite.cases import Case, Group
from suite.solvers import Answer, Solver, solver

SPENT = 2.0  # seconds after which a call is not repeated
REPEATS = 5
KEPT = 400  # entries of a gradient that are kept, to be compared


def peak() -> float:
    """Largest resident memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def say(found: dict[str, Any]) -> None:
    print(json.dumps(found), flush=True)


def ready(pairs: int = 1) -> None:
    """The clock starts; so many pairs will be solved, and the time is that of one."""
    print(f"READY {pairs}", flush=True)


def repeated(call: Callable[[], object]) -> float:
    """The median time of some calls; of one, where that takes long."""
    times: list[float] = []
    while not times or (len(times) < REPEATS and sum(times) < SPENT):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def made(group: Group, case: Case, package: str, *, warm: bool = False) -> list[problems.Task]:
    """The pairs of a case, or of the small one before it."""
    if warm and group.warm:
        return getattr(problems, group.warm)(**case.warm)
    arguments = dict(case.arguments) | (dict(case.warm) if warm else {})
    return getattr(problems, group.problem)(**arguments)[: group.tasks.get(package)]


# --- pairs of chains


def pairs(group: Group, case: Case, package: str) -> None:
    """Forward, peak memory, gradients; for ours also the truth, which judges all packages."""
    if package == cases.ORACLE:
        from suite.truth import independent

        ready()
        say({"values": [independent(group.kind, task) for task in made(group, case, package)]})
        return
    how = solver(package, group.kind, group.rtol)
    tasks, small = made(group, case, package), made(group, case, package, warm=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        how.solve(how.prepare(small[0]))  # compiles, or reads the compiled code
        if group.gradients:
            attempted(how, small[:1])
        given = [how.prepare(task) for task in tasks]
        caught.clear()
        before = peak()
        ready(len(tasks))
        answers: list[Answer] = []

        def run() -> None:
            answers[:] = map(how.solve, given)

        found: dict[str, Any] = {"seconds": repeated(run) / len(tasks), "pairs": len(tasks)}
        found |= {"memory": peak() - before, "baseline": before, "values": [answer.value for answer in answers]}
        found |= {"warnings": sorted({str(each.message)[:120] for each in caught})}
    if answers[0].error is not None:
        found["certified"] = [answer.error for answer in answers]
    found["status"] = sorted({answer.status for answer in answers})
    if answers[0].num_iter is not None:
        found["num_iter"] = max(answer.num_iter for answer in answers)
    say(found)
    if group.gradients and how.backward:
        found |= attempted(how, tasks[:50])
        found["memory, backward"] = peak() - before
        say(found)
    if package == cases.OURS:
        say(found | truth(group, tasks))


def attempted(how: Solver, tasks: list[problems.Task]) -> dict[str, Any]:
    """The mean time of backward, and the gradient in the first cost; or why there is none."""
    if how.backward is None:
        return {}
    try:
        some = [how.backward(task) for task in tasks]
    except (RuntimeError, AssertionError, TypeError) as error:
        return {"backward failed": f"{type(error).__name__}: {str(error).splitlines()[0][:80]}"}
    gradient = some[0][1]
    found = {"backward": statistics.fmean(seconds for seconds, _ in some), "backward in": how.gradients_in}
    kept = [float(f"{entry:.8g}") for entry in gradient.ravel()] if gradient.size <= KEPT else None
    return found | ({"gradient": kept} if kept else {})


def truth(group: Group, tasks: list[problems.Task]) -> dict[str, Any]:
    """Solved again, to 1e-10 of the range of the cost: values, what is certified of them, the gradient in a cost."""
    how = solver(cases.OURS, group.kind, 1e-10)
    answers = [how.solve(how.prepare(task)) for task in tasks]
    found: dict[str, Any] = {
        "truth": [answer.value for answer in answers],
        "truth certified": [answer.error for answer in answers],
        "range": [task.range for task in tasks],
    }
    if group.gradients:
        gradient = attempted(how, tasks[:1]).get("gradient")
        found |= {"true gradient": gradient} if gradient else {}
    return found


# --- the other kinds


def matrix(case: Case, package: str) -> None:
    chains = problems.molecules(**case.arguments)
    matrices.matrix(package, chains[:2])()
    call, before = matrices.matrix(package, chains), peak()
    ready()
    result: list[tuple[np.ndarray, float | None]] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        seconds = repeated(lambda: result.append(call()))
    found = {
        "seconds": seconds,
        "pairs": len(chains) * (len(chains) + 1) // 2,
        "memory": peak() - before,
        "baseline": before,
    }
    found["warnings"] = sorted({str(each.message)[:120] for each in caught})
    values, bound = result[-1]
    found["largest"] = float(values.max())
    if bound is not None:
        found["certified of the largest"] = bound / found["largest"]
    say(found)
    if package in matrices.SAME:
        gap = np.abs(values - matrices.truth(package, chains)).max()
        say(found | {"error of the largest": float(gap) / found["largest"]})


def measure(group: Group, case: Case, package: str) -> None:
    if group.kind == "matrix":
        matrix(case, package)
    elif group.kind == "set":
        chains = problems.graphs(**case.arguments)
        ready()
        say({key: float(value) for key, value in matrices.whole_set(str(case.x), chains).items()})
    elif group.kind == "startup":
        ready()
        say(matrices.startup())
    elif group.kind == "training":
        from suite import packages, training

        rivals = [name for name in (cases.OMD, cases.TIGHT) if packages.missing(name) is None]
        ready()
        say(training.measured([cases.OURS, *rivals], **case.arguments))
    elif group.kind == "claims":
        from suite import claims

        ready()
        start = time.perf_counter()
        for found in claims.examine(package):
            say(found | {"seconds": time.perf_counter() - start})
    elif group.kind == "safety":
        from suite.safety import examine

        ready()
        for found in examine(package):
            say(found)
    else:
        pairs(group, case, package)


def main(key: str, x: str, package: str) -> None:
    group = next(group for group in cases.GROUPS if group.key == key)
    measure(group, group.case(x), package)


if __name__ == "__main__":
    main(*sys.argv[1:])
