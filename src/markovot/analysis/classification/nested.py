"""Nested cross-validation: nothing is chosen by looking at a test fold."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, product
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from markovot import validate
from markovot._arrays import FloatArray
from markovot._optional import require
from markovot._progress import bar
from markovot.analysis import similarity
from markovot.analysis.classification.matrices import Setting, debias
from markovot.chains.labels import is_missing

METHODS = ("knn", "svm", "kernel")
Folds = list[tuple[NDArray[Any], NDArray[Any]]]


@dataclass(frozen=True)
class NestedCV:
    """The protocol: how graphs are classified, and the choices that are tried inside each training fold.

    Attributes:
        folds: outer folds, stratified by class and shuffled; each is the test fold once.
        inner_folds: folds of each training fold, for the choice; also stratified and shuffled.
        seed: the seed of both shuffles. The published experiments use 42.
        debiased: whether d(X, Y) itself is used (False), or `debias` of it (True); both are tried by default.
        kinds: kernels of the distance d with scale s: "laplacian", exp(-d / s); "gaussian", exp(-d^2 / (2 s^2)).
        scales: s, as multiples of the median of the positive distances within the training part.
        C: the weight of errors of the support vector machine.
        psd: "none", or "clip": training kernels are made positive semi-definite, and test rows follow them, as in
            `markovot.sklearn.DistanceKernel`. Much slower.

    Raises:
        ValueError: fewer than two folds, nothing to choose among, values out of range.
    """

    folds: int = 10
    inner_folds: int = 5
    seed: int = 42
    debiased: tuple[bool, ...] = (False, True)
    kinds: tuple[str, ...] = ("laplacian", "gaussian")
    scales: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0)
    C: tuple[float, ...] = (1.0, 10.0, 100.0, 1000.0)
    psd: str = "none"

    def __post_init__(self) -> None:
        for name in ("folds", "inner_folds"):
            validate.count(name, getattr(self, name), low=2)
        validate.count("seed", self.seed, high=2**32 - 1)  # scikit-learn takes no larger one
        for name in ("debiased", "kinds", "scales", "C"):
            if not len(validate.sequence(name, getattr(self, name), "candidates")):
                raise ValueError(f"{name}: there is nothing to choose among. Give at least one.")
        for flag in self.debiased:
            validate.flag("debiased", flag)
        for kind in self.kinds:
            validate.choice("kinds", kind, tuple(similarity.KINDS))
        for name in ("scales", "C"):
            for number in getattr(self, name):
                validate.number(name, number, 0.0, np.inf, open_at_low=True)
        validate.choice("psd", self.psd, ("none", "clip"))


PROTOCOL = NestedCV()


@dataclass(frozen=True, eq=False)
class NestedAccuracy:
    """How well unseen graphs were classified.

    Attributes:
        method: "knn", "svm" or "kernel".
        accuracy: the share of each outer fold that was classified correctly (folds,).
        chosen: for each outer fold, what was chosen in its training fold.
        inner_accuracy: the accuracy inside the training fold that decided the choice (folds,); biased upwards.
        negative: how far the training kernel of each fold is from positive semi-definite (folds,): the sum of the
            absolute values of its negative eigenvalues as a share of that of all. NaN for "knn".
        predictions: the class that each graph was given when it was in the test fold (k,).
    """

    method: str
    accuracy: FloatArray
    chosen: tuple[dict[str, Any], ...]
    inner_accuracy: FloatArray
    negative: FloatArray
    predictions: NDArray[Any]

    @property
    def mean(self) -> float:
        """Mean accuracy over the folds."""
        return float(self.accuracy.mean())

    @property
    def std(self) -> float:
        """Standard deviation between the folds (not the error of their mean, which is smaller)."""
        return float(self.accuracy.std())

    def summary(self) -> dict[str, Any]:
        """Everything but the predictions, as types that JSON can hold."""
        return {
            "method": self.method,
            "mean": self.mean,
            "std": self.std,
            "accuracy": self.accuracy.tolist(),
            "chosen": [dict(each) for each in self.chosen],
            "inner_accuracy": self.inner_accuracy.tolist(),
            "negative": None if self.method == "knn" else self.negative.tolist(),
        }


def nested_accuracy(
    matrices: Mapping[Any, Any],
    targets: ArrayLike,
    *,
    method: str = "svm",
    protocol: NestedCV = PROTOCOL,
    progress: bool = False,
) -> NestedAccuracy:
    """The test accuracy when all choices are made inside the training folds.

    Each outer fold is predicted by a classifier fitted to the others. Which matrix and which parameters it uses is
    decided by the mean accuracy in a cross-validation among these others alone; of equally good ones the first counts,
    in the order of `matrices`, then of the protocol's fields and of their values.

    Args:
        matrices: by `Setting`, or by any other name: distances (k, k) or `PairwiseSolution`s, of which those below
            zero count as zero, with a warning where one is far below; for "kernel", kernels.
        targets: the class of each graph (k,).
        method: "svm", a support vector machine on a kernel of the distance; "knn", the class of the nearest graph (of
            equally near ones, the first in the data set), with the matrix chosen, debiased or not; "kernel", a support
            vector machine on kernels as they are, with the kernel and C chosen.
        protocol: folds, and what to choose among.
        progress: show a progress bar over the outer folds.

    Returns:
        A `NestedAccuracy`.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: no matrices; wrong shapes, matrices that are not finite or not symmetric; a single class, or one
            with too few graphs for the folds.

    Note:
        Time: inner fits for each fold, matrix, kernel, scale and C; for 600 graphs of 6 classes, 3 matrices and the
        default protocol 9,600 fits. They run on as many threads as torch has; deterministic. A kernel of these
        distances need not be positive semi-definite; the machine is then trained all the same, as is usual, and
        `negative` says how far off the kernel was.

    References:
        The folds are those of Brugère, Wan, Wang, *Distances for Markov Chains, and Their Differentiation* (2024).

    Example:
        >>> import numpy as np
        >>> place = np.r_[np.linspace(0, 1, 12), np.linspace(3, 4, 12)]
        >>> found = nested_accuracy({"line": abs(place[:, None] - place)}, np.arange(24) // 12, method="knn")
        >>> found.mean, found.chosen[0]
        (1.0, {'setting': 'line', 'debiased': False})
    """
    validate.choice("method", method, METHODS)
    require("sklearn", extra="sklearn", what="nested_accuracy")
    progress = validate.flag("progress", progress)
    classes = check_classes(targets, protocol)
    families = _families(_checked(matrices, len(classes)), method, protocol)

    def one_fold(parts: tuple[Any, Any]) -> tuple[Any, ...]:
        train, test = parts
        inner = [(train[a], train[b]) for a, b in _split(classes[train], protocol.inner_folds, protocol.seed)]
        family, chosen, score = _best(families, classes, inner)
        return next(family.predict(classes, train, test, [chosen])), chosen, score, family.negative(train, chosen)

    outer = _split(classes, protocol.folds, protocol.seed)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        found = []
        with bar(total=len(outer), unit="fold", show=progress) as shown:
            for result in pool.map(one_fold, outer):
                found.append(result)
                shown.update()
    predicted, chosen, scores, negative = zip(*found, strict=True)
    predictions = np.empty_like(classes)
    for (_, test), part in zip(outer, predicted, strict=True):
        predictions[test] = part
    accuracy = np.array([(predictions[test] == classes[test]).mean() for _, test in outer])
    return NestedAccuracy(method, accuracy, chosen, np.array(scores), np.array(negative), predictions)


class _Family(NamedTuple):
    """Classifiers that share a matrix; one for each of `candidates`, its parameters."""

    method: str
    matrix: FloatArray
    candidates: list[dict[str, Any]]
    psd: str

    def predict(self, classes: Any, train: Any, test: Any, candidates: list[dict[str, Any]]) -> Iterator[Any]:
        """For each candidate, the classes that it predicts for the test part."""
        inside, across = self.matrix[np.ix_(train, train)], self.matrix[np.ix_(test, train)]
        if self.method == "knn":
            yield classes[train][across.argmin(axis=1)]  # the first of equals
            return
        from sklearn.svm import SVC

        median = self.median(inside)
        for _, group in groupby(candidates, key=_kernel_of):
            some = list(group)
            within, between = self.kernels(inside, across, some[0], median)
            for parameters in some:
                machine = SVC(kernel="precomputed", C=parameters["C"])
                yield machine.fit(within, classes[train]).predict(between)

    def median(self, inside: FloatArray) -> float:
        """The median distance, which is the unit of kernel scales; given kernels have none."""
        return similarity.median_distance(inside) if self.method == "svm" else float("nan")

    def kernels(self, inside: FloatArray, across: FloatArray, parameters: Any, median: float) -> tuple[Any, Any]:
        """The kernel within the training part, and the kernel between the test part and the training part."""
        if self.method == "svm":
            kernel, scale = similarity.KINDS[parameters["kind"]], parameters["scale"] * median
            inside, across = kernel(inside, scale), kernel(across, scale)
        if self.psd == "clip":
            projection = similarity.clip(inside).projection
            if projection is not None:
                inside, across = inside @ projection, across @ projection
        return inside, across

    def negative(self, train: Any, parameters: dict[str, Any]) -> float:
        """See `NestedAccuracy.negative`."""
        if self.method == "knn":
            return float("nan")
        inside = self.matrix[np.ix_(train, train)]
        return similarity.clip(self.kernels(inside, inside[:0], parameters, self.median(inside))[0]).mass


def _kernel_of(parameters: dict[str, Any]) -> tuple[Any, Any]:
    return parameters.get("kind"), parameters.get("scale")


def _families(matrices: dict[Any, FloatArray], method: str, protocol: NestedCV) -> list[_Family]:
    """All classifiers that are tried, in order of preference."""
    grid: list[dict[str, Any]] = [{}]
    if method == "svm":
        triples = product(protocol.kinds, protocol.scales, protocol.C)
        grid = [{"kind": kind, "scale": scale, "C": C} for kind, scale, C in triples]
    elif method == "kernel":
        grid = [{"C": C} for C in protocol.C]
    families = []
    for name, matrix in matrices.items():
        shared = {"setting": name._asdict() if isinstance(name, Setting) else name}
        if method == "kernel":
            families.append(_Family(method, matrix, [shared | each for each in grid], protocol.psd))
            continue
        for debiased in protocol.debiased:
            values = debias(matrix) if debiased else matrix
            similarity.warn_of_negatives(f"matrices[{name!r}]", values, float(np.median(matrix)))
            candidates = [shared | {"debiased": debiased} | each for each in grid]
            families.append(_Family(method, similarity.nonnegative(values), candidates, protocol.psd))
    return families


def _best(families: Sequence[_Family], classes: Any, inner: Folds) -> tuple[_Family, dict[str, Any], float]:
    """The family and the parameters with the best mean accuracy over the inner folds, and that accuracy."""
    best: tuple[_Family, dict[str, Any], float] = (families[0], families[0].candidates[0], -1.0)
    for family in families:
        scores = np.zeros(len(family.candidates))
        for train, test in inner:
            predicted = family.predict(classes, train, test, family.candidates)
            scores += [(part == classes[test]).mean() / len(inner) for part in predicted]
        place = int(scores.argmax())
        # A later one is preferred only if it is better by more than rounding.
        if scores[place] > best[2] + 1e-9:
            best = (family, family.candidates[place], float(scores[place]))
    return best


def _split(classes: Any, folds: int, seed: int) -> Folds:
    from sklearn.model_selection import StratifiedKFold

    return list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(classes, classes))


def _checked(matrices: Mapping[Any, Any], count: int) -> dict[Any, FloatArray]:
    if not validate.mapping("matrices", matrices, "from settings to distances"):
        raise ValueError("matrices: there are none. Give at least one, for instance those of distance_matrices.")
    found = {}
    for name, given in matrices.items():
        matrix = similarity.as_matrix(f"matrices[{name!r}]", getattr(given, "value", given))
        similarity.check_symmetric(f"matrices[{name!r}]", matrix)
        if len(matrix) != count:
            raise ValueError(
                f"matrices[{name!r}]: it is of {len(matrix)} graphs, and targets of {count}. Give distances and "
                "classes of the same graphs, in the same order."
            )
        found[name] = matrix
    return found


def _as_classes(targets: Any) -> NDArray[Any]:
    """The class of each graph as an array; mixed types are refused, since NumPy would turn numbers into strings."""
    given = validate.labels("targets", targets, "one class for each graph")
    missing = [k for k, target in enumerate(given) if is_missing(target)]
    if missing:
        raise ValueError(
            f"targets: that of graph {missing[0]} is {given[missing[0]]!r}, so it has no class. Leave the graph out."
        )
    if len({isinstance(target, str) for target in given}) == 2:
        raise TypeError("targets: some are strings and some are not. Write all classes in one way, such as strings.")
    return np.asarray(given)


def check_classes(targets: Any, protocol: Any) -> NDArray[Any]:
    """Refuse classes that the folds of the protocol cannot tell apart; the classes as an array.

    Raises:
        TypeError: no protocol, or classes that cannot be sorted.
        ValueError: not one class for each graph, a single class, or one with too few graphs.
    """
    validate.instance("protocol", protocol, NestedCV, "a NestedCV")
    if getattr(targets, "ndim", 1) > 1:
        raise ValueError(f"targets: shape {tuple(targets.shape)}. Give one class for each graph, (k,).")
    classes = _as_classes(targets)
    if classes.ndim != 1 or not len(classes):
        raise ValueError(f"targets: shape {classes.shape}. Give one class for each graph, (k,).")
    try:
        names, counts = np.unique(classes, return_counts=True)
    except TypeError as error:
        raise TypeError(f"targets: {error}. Give one word or number for each graph.") from error
    if len(names) < 2:
        raise ValueError(f"targets: all graphs are of one class, {names.tolist()}. There is nothing to tell apart.")
    rarest, count = names[counts.argmin()], int(counts.min())
    left = count - -(-count // protocol.folds)  # when the fold with the most of them is left out
    if count < protocol.folds or left < protocol.inner_folds:
        raise ValueError(
            f"targets: class {rarest} has {count} graphs, too few for {protocol.folds} folds with "
            f"{protocol.inner_folds} inside. Leave the class out, or take fewer folds, as in NestedCV(folds=5)."
        )
    return classes
