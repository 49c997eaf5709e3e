"""Chains coupled for the long run: least mean costs, and optimal transition couplings."""

from markovot.average.coupling import TransitionCouplingSolution, optimal_transition_coupling

__all__ = ["TransitionCouplingSolution", "optimal_transition_coupling"]
