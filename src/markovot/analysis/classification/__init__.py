"""Classify graphs by their distances, in a cross-validation that never uses a test fold to choose anything.

Two steps, since distances cost far more than what follows: `distance_matrices`, one for each delta and epsilon, and
`nested_accuracy`, which chooses among them inside each training fold. `classify` does both.
"""

from markovot.analysis.classification.matrices import (
    DELTAS,
    EPSILONS,
    Ground,
    Setting,
    debias,
    distance_matrices,
    ground,
)
from markovot.analysis.classification.nested import METHODS, PROTOCOL, NestedAccuracy, NestedCV, nested_accuracy
from markovot.analysis.classification.whole import classify

__all__ = [
    "DELTAS",
    "EPSILONS",
    "METHODS",
    "PROTOCOL",
    "Ground",
    "NestedAccuracy",
    "NestedCV",
    "Setting",
    "classify",
    "debias",
    "distance_matrices",
    "ground",
    "nested_accuracy",
]
