"""Optimal transition couplings: the least long-run mean cost of two coupled chains."""

from markovot.average.coupling import TransitionCouplingSolution, optimal_transition_coupling

__all__ = ["TransitionCouplingSolution", "optimal_transition_coupling"]
