"""The functions that the safety table examines: how each is called, with what settings, and what it states."""

import contextlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

Numbers = np.ndarray


@dataclass(frozen=True)
class Question:
    """Two chains with laws and a cost, or two laws and a cost (then the rows are left out)."""

    cost: Numbers
    laws: tuple[Numbers, Numbers] | None
    rows: tuple[Numbers, Numbers] | None = None
    delta: float = 0.1
    epsilon: float = 0.01


@dataclass(frozen=True)
class Said:
    """What came back: a value; whether the package said that it is right; for ours how wrong it can be."""

    value: float
    fine: bool = True
    bound: float | None = None


@dataclass(frozen=True)
class Examinee:
    """`family` decides the questions; `settings` are options by name, the first its defaults.

    `tolerance` is what it states, a share of the value; nothing is judged more strictly than 1e-4 of the range.
    """

    call: Callable[..., Said]
    family: str  # chains, laws, graphs, average
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"defaults": {}})
    entropic: bool = True
    tolerance: float = 0.0


# --- ours


def _said(solution: Any) -> Said:
    return Said(solution.value.item(), bool(solution.converged), solution.error_bound.item())


def _chains(question: Question) -> list[Any]:
    from markovot import MarkovChain

    laws = question.laws or ("stationary", "stationary")
    tensors = [torch.tensor(rows) for rows in question.rows]
    laws = [law if isinstance(law, str) else torch.tensor(law) for law in laws]
    return [MarkovChain.from_transitions(rows, initial=law) for rows, law in zip(tensors, laws, strict=True)]


def _discounted(question: Question, **options: Any) -> Said:
    import markovot

    cost, parameters = torch.tensor(question.cost), {"delta": question.delta, "epsilon": question.epsilon}
    return _said(markovot.discounted_wl(*_chains(question), cost, **parameters, **options, throw=False))


def _transport(question: Question, *, linear: bool = True, **options: Any) -> Said:
    """The cost of the plan, as POT gives it; its error bound is one of the regularised value, and is left out."""
    import markovot

    laws, cost = (torch.tensor(law) for law in question.laws), torch.tensor(question.cost)
    found = markovot.transport_cost(*laws, cost, epsilon=question.epsilon, throw=False, **options)
    if question.epsilon == 0.0 or not linear:
        return _said(found)
    return Said(float((found.plan * cost).sum()), bool(found.converged))


def _average(question: Question, **options: Any) -> Said:
    import markovot

    rows, cost = (torch.tensor(each) for each in question.rows), torch.tensor(question.cost)
    return _said(markovot.optimal_transition_coupling(*rows, cost, throw=False, **options))


# --- the rivals


def _omd(question: Question, **options: Any) -> Said:
    from ot_markov_distances import discounted_wl_infty

    torch.manual_seed(0)
    rows, cost = [torch.tensor(each).float()[None] for each in question.rows], torch.tensor(question.cost).float()
    laws = [torch.tensor(law).float()[None] for law in question.laws] if question.laws else []
    parameters = {"delta": question.delta, "sinkhorn_reg": question.epsilon} | options
    return Said(discounted_wl_infty(*rows, cost[None], *laws, **parameters).item())


def _sinkhorn(question: Question, **options: Any) -> Said:
    import ot

    return Said(float(ot.sinkhorn2(*question.laws, question.cost, question.epsilon, **options)))


def _solve(question: Question, **options: Any) -> Said:
    import ot

    return Said(float(ot.solve(question.cost, *question.laws, reg=question.epsilon, **options).value_linear))


def _emd(question: Question, **options: Any) -> Said:
    import ot

    return Said(float(ot.emd2(*question.laws, question.cost, **options)))


def _fused(question: Question, **options: Any) -> Said:
    """The graphs are the supports of the rows."""
    import ot

    graphs = [(rows > 0).astype(float) * (1 - np.eye(*rows.shape)) for rows in question.rows]
    laws = {} if question.laws is None else dict(zip("pq", question.laws, strict=True))
    value = ot.gromov.fused_gromov_wasserstein2(question.cost, *graphs, alpha=0.5, **laws, **options)
    return Said(float(value))


def _pyotc(question: Question, *, entropic: bool = False, **options: Any) -> Said:
    import pyotc

    with contextlib.redirect_stdout(io.StringIO()):
        if entropic:
            found = pyotc.entropic_otc(*question.rows, question.cost, **options)
        else:
            found = pyotc.exact_otc(*question.rows, question.cost, **options)
    return Said(float("nan"), fine=False) if found[0] is None else Said(float(found[0]))  # None: not converged


EXAMINEES = {
    "markovot.discounted_wl": Examinee(
        _discounted,
        "chains",
        {
            "defaults": {},
            "few steps": {"max_iter": 2},
        },
    ),
    "ot_markov_distances.discounted_wl_infty": Examinee(
        _omd,
        "chains",
        {
            "defaults": {},
            "few steps": {"max_iter": 2},
            "few inner steps, or value iteration": {"sinkhorn_iter": 10},
        },
        tolerance=0.005,
    ),
    "markovot.transport_cost": Examinee(_transport, "laws", {"defaults": {}}),
    "ot.sinkhorn2": Examinee(_sinkhorn, "laws", {"defaults": {}, "few steps": {"numItermax": 10}}),
    "ot.sinkhorn2, warn=True": Examinee(
        lambda question, **options: _sinkhorn(question, warn=True, **options),
        "laws",
        {"defaults": {}, "few steps": {"numItermax": 10}},
    ),
    "ot.sinkhorn2, log domain, warn=True": Examinee(
        lambda question, **options: _sinkhorn(question, warn=True, method="sinkhorn_log", **options),
        "laws",
        {"defaults": {}, "few steps": {"numItermax": 10}},
    ),
    "ot.solve": Examinee(_solve, "laws", {"defaults": {}, "few steps": {"max_iter": 10}}),
    "markovot.transport_cost, exact": Examinee(_transport, "laws", entropic=False),
    "ot.emd2": Examinee(_emd, "laws", {"defaults": {}, "few steps": {"numItermax": 10}}, entropic=False),
    "markovot.discounted_wl, exact": Examinee(
        _discounted, "graphs", {"defaults": {}, "few steps": {"max_iter": 2}}, entropic=False
    ),
    "ot.gromov.fused_gromov_wasserstein2": Examinee(
        _fused, "graphs", {"defaults": {}, "few steps": {"max_iter": 2}}, entropic=False
    ),
    "markovot.optimal_transition_coupling": Examinee(
        _average, "average", {"defaults": {}, "few steps": {"max_iter": 2}}, entropic=False
    ),
    "pyotc.exact_otc": Examinee(_pyotc, "average", entropic=False),
    "pyotc.exact_otc, sparse": Examinee(
        lambda question, **options: _pyotc(question, backend="sparse", **options),
        "average",
        {"defaults": {}, "few steps": {"max_iter": 2}},
        entropic=False,
    ),
}
