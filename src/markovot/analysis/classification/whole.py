"""From a data set to accuracies, in one call."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markovot import validate
from markovot._optional import require
from markovot.analysis.classification.matrices import DELTAS, EPSILONS, check_dataset, distance_matrices
from markovot.analysis.classification.nested import (
    METHODS,
    PROTOCOL,
    NestedAccuracy,
    NestedCV,
    check_classes,
    nested_accuracy,
)

if TYPE_CHECKING:
    from markovot.datasets import GraphDataset


def classify(
    dataset: "GraphDataset",
    *,
    methods: Sequence[str] = ("knn", "svm"),
    deltas: Sequence[float] = DELTAS,
    epsilons: Sequence[float] = EPSILONS,
    protocol: NestedCV = PROTOCOL,
    rtol: float = 1e-4,
    max_iter: int = 100,
    executor: Any = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> dict[str, NestedAccuracy]:
    """Compute the distances within a data set, and how well they tell its classes apart.

    It calls `distance_matrices`, and then `nested_accuracy` for each method.

    Args:
        dataset: graphs with features and classes, as from `markovot.datasets.load_tudataset`.
        methods: "knn", "svm", or both.
        deltas: as in `distance_matrices`; the choice among them is made inside each training fold.
        epsilons: as in `distance_matrices`; chosen in the same way.
        protocol: as in `nested_accuracy`.
        rtol: wanted certified error, as in `distance_matrix`.
        max_iter: the most sweeps of a solve, as in `distance_matrix`.
        executor: as in `distance_matrix`.
        checkpoint: a folder, as in `distance_matrices`.
        progress: show progress bars.

    Returns:
        For each method, its accuracy.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: what the two steps raise. Unknown methods, and classes with too few graphs for the folds, are found
            before any distance is solved.
        SolveError: a distance was not solved to its tolerance.

    Note:
        Nearly all time goes into the distances. To try other protocols, keep those of `distance_matrices`.

    Example:
        >>> from markovot.datasets import load_mutag
        >>> some = load_mutag().subset(range(0, 188, 6))
        >>> few = NestedCV(folds=3, inner_folds=2)
        >>> found = classify(some, methods=["knn"], deltas=[0.2], protocol=few, progress=False)
        >>> found["knn"].accuracy.shape, found["knn"].chosen[0]["setting"]
        ((3,), {'delta': 0.2, 'epsilon': 0.01})
    """
    progress = validate.flag("progress", progress)
    check_dataset(dataset)
    for method in validate.sequence("methods", methods, "methods", least=1):
        validate.choice("methods", method, METHODS[:2])
    require("sklearn", extra="sklearn", what="classify")
    check_classes(dataset.targets, protocol)
    matrices = distance_matrices(
        dataset,
        deltas=deltas,
        epsilons=epsilons,
        rtol=rtol, max_iter=max_iter,
        executor=executor,
        checkpoint=checkpoint,
        progress=progress,
    )
    return {
        method: nested_accuracy(matrices, dataset.targets, method=method, protocol=protocol, progress=progress)
        for method in methods
    }
