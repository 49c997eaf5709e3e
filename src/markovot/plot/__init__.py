"""Pictures of distances, chains and solves. Needs the extra `plot` (matplotlib); `embedding` also `sklearn`.

Every function takes `ax`, where to draw (a new figure by default), and returns the axes; none shows or saves anything.
"""

from markovot.plot.alignment import alignment
from markovot.plot.common import ELEMENT_COLORS
from markovot.plot.convergence import ErrorHistory, convergence, error_history
from markovot.plot.dendrogram import dendrogram
from markovot.plot.embedding import Positions, embedding, positions
from markovot.plot.explanation import explanation
from markovot.plot.flow import chain, strip
from markovot.plot.history import history
from markovot.plot.matrix import class_order, distance_matrix

__all__ = [
    "ELEMENT_COLORS",
    "ErrorHistory",
    "Positions",
    "alignment",
    "chain",
    "class_order",
    "convergence",
    "dendrogram",
    "distance_matrix",
    "embedding",
    "error_history",
    "explanation",
    "history",
    "positions",
    "strip",
]
