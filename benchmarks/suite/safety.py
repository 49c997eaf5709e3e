"""Does it fail safely? How often a wrong answer is said to be right, and what bad input leads to."""

import math
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from suite.examinees import EXAMINEES, Examinee, Question, Said
from suite.problems import block_model, dense_rows, mutag_pairs, sparse_rows

EPSILONS = (0.1, 0.01, 0.001, 0.0001)
COUNT = 6  # problems of each kind
PATIENCE = 10  # seconds a call
NO_ANSWER = f"no answer in {PATIENCE} s"
STRICT = 1e-4  # nothing is judged more strictly than this share of the range of the cost


# --- questions with an answer


def _uniform(*sizes: int) -> tuple[np.ndarray, ...]:
    return tuple(np.full(size, 1.0 / size) for size in sizes)


def chains(seed: int, epsilon: float) -> Question:
    """5 states of full rows against 6 of degree 3, costs in [0, 1]."""
    rng = np.random.default_rng(seed)
    rows = dense_rows(rng, 5).numpy(), sparse_rows(rng, 6, 3).numpy()
    return Question(rng.uniform(size=(5, 6)), _uniform(5, 6), rows, epsilon=epsilon)


def laws(seed: int, epsilon: float) -> Question:
    """Random laws on 20 and 25 points of the unit square; squared distances, scaled to a range of one."""
    rng = np.random.default_rng(seed)
    x, y = rng.random((20, 1, 2)), rng.random((1, 25, 2))
    cost, pair = ((x - y) ** 2).sum(-1), (rng.uniform(0.1, 1.0, 20), rng.uniform(0.1, 1.0, 25))
    return Question(cost / np.ptp(cost), tuple(law / law.sum() for law in pair), epsilon=epsilon)


def graphs(seed: int, _epsilon: float) -> Question:
    """A molecule against itself with its atoms renumbered: at distance zero."""
    task = mutag_pairs(20)[seed]
    order, rows = np.random.default_rng(seed).permutation(len(task.rows_x)), task.rows_x.numpy()
    # The labels of its atoms are not known here, but how they differ from those of another molecule is.
    profile = task.cost.numpy()
    cost = (profile[:, None] != profile[order][None]).any(-1).astype(float)
    return Question(cost, _uniform(len(rows), len(rows)), (rows, rows[np.ix_(order, order)]), 0.2, 0.0)


def average(seed: int, _epsilon: float) -> Question:
    """Two block models of 8 nodes, squared differences of degrees."""
    pair = block_model(8, 2 * seed), block_model(8, 2 * seed + 1)
    degrees = [graph.sum(1) for graph in pair]
    rows = tuple(graph / degree[:, None] for graph, degree in zip(pair, degrees, strict=True))
    return Question(np.subtract.outer(*degrees) ** 2, None, rows)


FAMILIES: dict[str, Callable[[int, float], Question]] = {
    "chains": chains, "laws": laws, "graphs": graphs, "average": average,
}  # fmt: skip


def truth(family: str, question: Question) -> tuple[float, float]:
    """The value by our solver at 1e-10 of the range, and how far off that can be; zero for renumbered graphs."""
    if family == "graphs":
        return 0.0, 0.0
    name = {"chains": "discounted_wl", "laws": "transport_cost", "average": "optimal_transition_coupling"}[family]
    found = EXAMINEES[f"markovot.{name}"].call(question, rtol=1e-10)
    return found.value, found.bound or 0.0


def cross_checked(family: str, question: Question) -> float | None:
    """The same, independently and slowly."""
    from suite import truth as slow

    if family == "chains":
        return slow.entropic(*question.rows, question.cost, question.laws, question.delta, question.epsilon)
    if family == "laws":
        return slow.transport(*question.laws, question.cost, question.epsilon)
    return slow.least_mean_cost(*question.rows, question.cost) if family == "average" else None


# --- asking


class Late(BaseException):
    """No answer in time; none of the exceptions that a package may catch on its way."""


@contextmanager
def patience(seconds: float = PATIENCE) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise Late

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.5)  # and again, should a bare `except` swallow it
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def ask(examinee: Examinee, question: Question, **options: Any) -> tuple[Said | None, str]:
    """What it said, and its objection: an exception, a warning, or a status; empty if there was none."""
    try:
        with warnings.catch_warnings(record=True) as caught, patience():
            warnings.simplefilter("always")
            said = examinee.call(question, **options)
    except Late:
        return None, NO_ANSWER
    except Exception as error:  # whatever it raises is an objection
        text = str(error).strip().splitlines()
        return None, f"{type(error).__name__}: {text[0] if text else ''}"[:160]
    told = [each for each in caught if not issubclass(each.category, DeprecationWarning | FutureWarning)]
    if told:
        return said, f"{told[0].category.__name__}: {str(told[0].message).strip().splitlines()[0]}"[:160]
    return said, "" if said.fine else "status: not converged"


def judged(examinee: Examinee, question: Question, options: dict[str, Any]) -> tuple[str, float]:
    """The verdict, and the error as a share of the range of the cost."""
    right, slack = truth(examinee.family, question)
    said, objection = ask(examinee, question, **options)
    if said is None:
        return ("no answer" if objection == NO_ANSWER else "refused"), math.nan
    spread = float(np.ptp(question.cost)) or 1.0
    error = abs(said.value - right)
    allowed = max(examinee.tolerance * abs(right), STRICT * spread)
    good = error <= allowed  # NaN is not
    if said.bound is not None and not objection:
        # Ours must also keep what it certifies, but for what the truth leaves open and rounding.
        good = good and error <= said.bound + slack + 1e-12 * spread
    verdict = "right" if good else "wrong"
    return f"{verdict}, {'said so' if objection else 'said to be right'}", error / spread


def hard(examinee: Examinee) -> Iterator[dict[str, Any]]:
    """A line for each setting and epsilon: how many answers of each kind."""
    for setting, options in examinee.settings.items():
        for epsilon in EPSILONS if examinee.entropic else (0.0,):
            counts: dict[str, int] = {}
            worst = 0.0
            for seed in range(COUNT):
                verdict, error = judged(examinee, FAMILIES[examinee.family](seed, epsilon), dict(options))
                counts[verdict] = counts.get(verdict, 0) + 1
                if verdict == "wrong, said to be right":
                    worst = max(worst, error if math.isfinite(error) else math.inf)
            # JSON has no infinity
            shown = None if math.isinf(worst) else worst
            yield {"setting": setting, "epsilon": epsilon, "counts": counts, "worst": shown}


TINY = (1e-4, 1e-6, 1e-8, 1e-10)


def ends(examinee: Examinee) -> list[dict[str, Any]]:
    """Where ours ends: asked for 1e-10 at a tiny epsilon, beside the linear programme of epsilon = 0.

    The entropic value lies above the exact one, by at most the entropic bias. `outside`: further off than certified.
    """
    from suite import truth as slow

    lines = []
    for epsilon in TINY:
        line: dict[str, Any] = {"epsilon": epsilon, "reached": 0, "says not": 0, "outside": 0, "widest": 0.0}
        for seed in range(COUNT):
            question = chains(seed, epsilon)
            said = examinee.call(question, rtol=1e-10)
            exact, bias = slow.exact(*question.rows, question.cost, question.laws, question.delta, epsilon)
            line["reached" if said.fine else "says not"] += 1
            slack = said.bound + 1e-10
            line["outside"] += not exact - slack <= said.value <= exact + bias + slack
            line["widest"] = max(line["widest"], said.bound / float(np.ptp(question.cost)))
        lines.append(line)
    return lines


# --- bad input


def spoiled(question: Question) -> dict[str, Question | None]:
    """One thing wrong at a time; None where it does not apply."""
    cost, rows, given = question.cost, question.rows, question.laws

    def first(array: np.ndarray, entry: float) -> np.ndarray:
        changed = array.copy()
        changed[(0,) * array.ndim] = entry
        return changed

    def other(**changed: Any) -> Question:
        everything = {"cost": cost, "laws": given, "rows": rows, "delta": question.delta, "epsilon": question.epsilon}
        return Question(**everything | changed)

    found: dict[str, Question | None] = {
        "NaN in the cost": other(cost=first(cost, np.nan)),
        "infinite cost": other(cost=first(cost, np.inf)),
        "cost of a wrong shape": other(cost=cost[:, :-1]),
    }
    if rows is not None:
        double, minus = rows[0].copy(), rows[0].copy()
        double[0] *= 2
        minus[0] = 0.0
        minus[0, :2] = 1.5, -0.5
        classes = np.kron(np.eye(2), np.full((2, 2), 0.5))
        found |= {
            "sums to two": other(rows=(double, rows[1])),
            "negative entry": other(rows=(minus, rows[1])),
            "two closed classes": other(rows=(classes, classes), laws=None, cost=1.0 - np.eye(4)),
        }
        none = np.zeros((0, 0))
        empty_laws = None if given is None else (np.zeros(0), given[1])
        found["empty"] = other(rows=(none, rows[1]), laws=empty_laws, cost=cost[:0])
    else:
        a, b = given
        found |= {
            "sums to two": other(laws=(2 * a, b)),
            "negative entry": other(laws=(first(a, a[0] + 2 * a[1]) - 2 * a[1] * (np.arange(len(a)) == 1), b)),
            "two closed classes": None,
            "empty": other(laws=(np.zeros(0), b), cost=cost[:0]),
        }
    return found


def bad_input(examinee: Examinee) -> dict[str, str]:
    """What each leads to."""
    question = FAMILIES[examinee.family](0, 0.1 if examinee.entropic else 0.0)
    found = {}
    for name, bad in spoiled(question).items():
        if bad is None or (examinee.family == "graphs" and "fused" in examinee.call.__name__ and name in NOT_GRAPHS):
            found[name] = "-"
            continue
        said, objection = ask(examinee, bad)
        if said is None:
            found[name] = objection
        else:
            value = "NaN" if math.isnan(said.value) else f"{said.value:.4g}"
            found[name] = f"{objection}; {value}" if objection else f"quietly {value}"
    return found


# Fused Gromov-Wasserstein takes graphs: rows and their classes are no concern of it.
NOT_GRAPHS = ("sums to two", "negative entry", "two closed classes")


def examine(name: str) -> Iterator[dict[str, Any]]:
    """All about one function, growing."""
    examinee, start = EXAMINEES[name], time.perf_counter()
    found: dict[str, Any] = {"hard": []}
    for line in hard(examinee):
        found["hard"].append(line)
        yield found
    found["bad input"] = bad_input(examinee)
    yield found
    if name in ("markovot.discounted_wl", "markovot.transport_cost", "markovot.optimal_transition_coupling"):
        gaps = []
        for epsilon in EPSILONS if examinee.entropic else (0.0,):
            question = FAMILIES[examinee.family](0, epsilon)
            slow = cross_checked(examinee.family, question)
            gaps.append(abs(slow - truth(examinee.family, question)[0]) / (float(np.ptp(question.cost)) or 1.0))
        found["truth against an oracle"] = max(gaps)
    if name == "markovot.discounted_wl":
        found["ends"] = ends(examinee)
    found["seconds"] = time.perf_counter() - start
    yield found
