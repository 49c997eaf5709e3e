"""Whole data sets of chains: distance matrices and nearest neighbours."""

from markovot.pairwise.matrix import distance_matrix
from markovot.pairwise.solution import PairwiseSolution

__all__ = ["PairwiseSolution", "distance_matrix"]
