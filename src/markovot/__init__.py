"""Distances between Markov chains and graphs by optimal transport, with exact gradients."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from markovot import costs
    from markovot.average import TransitionCouplingSolution, optimal_transition_coupling
    from markovot.chains import MarkovChain, as_chain, label_code
    from markovot.chains.stationary import stationary_distribution
    from markovot.distances.debiasing import debiased
    from markovot.distances.discounted import discounted_wl
    from markovot.distances.horizons import horizon_wl, wl
    from markovot.distances.transport import transport_cost
    from markovot.mdp import BisimulationSolution, DecisionProcess, bisimulation
    from markovot.solution import Certified, ChainSolution, HorizonSolution, Solution, SolveError, Status

__version__ = "0.1.0"
__all__ = [
    "BisimulationSolution",
    "Certified",
    "ChainSolution",
    "DecisionProcess",
    "HorizonSolution",
    "MarkovChain",
    "Solution",
    "SolveError",
    "Status",
    "TransitionCouplingSolution",
    "as_chain",
    "bisimulation",
    "costs",
    "debiased",
    "discounted_wl",
    "horizon_wl",
    "label_code",
    "optimal_transition_coupling",
    "stationary_distribution",
    "transport_cost",
    "wl",
]

# Where each name lives. It is imported when it is first used, so that `markovot --help` need not wait for torch.
_HOMES = {
    "MarkovChain": "chains",
    "as_chain": "chains",
    "label_code": "chains",
    "debiased": "distances",
    "discounted_wl": "distances",
    "HorizonSolution": "solution",
    "horizon_wl": "distances",
    "wl": "distances",
    "TransitionCouplingSolution": "average",
    "optimal_transition_coupling": "average",
    "BisimulationSolution": "mdp",
    "DecisionProcess": "mdp",
    "bisimulation": "mdp",
    "transport_cost": "distances",
    "Certified": "solution",
    "ChainSolution": "solution",
    "Solution": "solution",
    "SolveError": "solution",
    "Status": "solution",
    "stationary_distribution": "chains.stationary",
}


def __getattr__(name: str) -> Any:
    if name == "costs":
        return import_module("markovot.costs")  # which makes it an attribute, so that this is called once
    if name not in _HOMES:
        raise AttributeError(f"module 'markovot' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"markovot.{_HOMES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
