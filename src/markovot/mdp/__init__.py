"""Bisimulation metrics of Markov decision processes: how differently two states behave."""

from markovot.mdp.metric import BisimulationSolution, bisimulation
from markovot.mdp.process import DecisionProcess

__all__ = ["BisimulationSolution", "DecisionProcess", "bisimulation"]
