"""Distances between Markov chains and graphs by optimal transport, with exact gradients."""

from markovot import costs
from markovot.chains import MarkovChain, as_chain, label_code
from markovot.distances import discounted_wl
from markovot.fixed_point import PolicyIteration, ValueIteration
from markovot.single import transport_cost
from markovot.solution import ChainSolution, Solution, SolveError, Status
from markovot.stationary import stationary_distribution

__version__ = "0.1.0"
__all__ = [
    "ChainSolution",
    "MarkovChain",
    "PolicyIteration",
    "Solution",
    "SolveError",
    "Status",
    "ValueIteration",
    "as_chain",
    "costs",
    "discounted_wl",
    "label_code",
    "stationary_distribution",
    "transport_cost",
]
