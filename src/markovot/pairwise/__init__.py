"""Whole data sets of chains: distance matrices and nearest neighbours."""

from markovot.pairwise.checkpoint import CheckpointWarning
from markovot.pairwise.matrix import distance_matrix
from markovot.pairwise.neighbours import Neighbours, nearest_neighbours
from markovot.pairwise.solution import PairwiseSolution

__all__ = ["CheckpointWarning", "Neighbours", "PairwiseSolution", "distance_matrix", "nearest_neighbours"]
