"""Distances and kernels of chains for scikit-learn: `pip install 'markovot[sklearn]'`."""

import warnings
from collections.abc import Iterable
from typing import Any, Self

import numpy as np

from markovot import pairwise, validate
from markovot._arrays import FloatArray
from markovot._optional import require
from markovot.analysis import similarity
from markovot.chains import MarkovChain, chain_of
from markovot.costs import Cost
from markovot.pairwise import PairwiseSolution

require("sklearn", extra="sklearn", what="markovot.sklearn")  # its error says how to install scikit-learn

from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin  # noqa: E402
from sklearn.exceptions import ConvergenceWarning  # noqa: E402
from sklearn.utils.validation import check_array, check_is_fitted, validate_data  # noqa: E402

__all__ = ["DistanceKernel", "MarkovDistance"]



class MarkovDistance(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Distances from chains to the fitted chains: the first step of a pipeline over graphs.

    Entry (i, j) of the result is `discounted_wl` of chain i and the fitted chain j. `fit_transform` solves each pair of
    the training set once; `transform` solves each new chain against each fitted one. The next step of the pipeline must
    take a matrix of distances: `DistanceKernel`, or an estimator with `metric="precomputed"`.

    Args:
        cost: an object of `markovot.costs`, symmetric in its two arguments.
        delta: as in `discounted_wl`, in (0, 1]. The default looks about five steps ahead.
        epsilon: as in `discounted_wl`, in units of the cost. The default suits costs of range one.
        debiased: subtract half of each chain's distance to itself, so that d(X, X) = 0 with entropy too; each call
            solves these as well. Negative results are returned as zero, since scikit-learn refuses negative distances.
            (Without debiasing, only those that lie below zero within their certified error are.)
        rtol: wanted certified error, as in `discounted_wl`.
        max_iter: the most sweeps of a solve, as in `discounted_wl`.
        progress: show a progress bar; off, since a search fits many times.
        throw: raise an error if some pair was not solved to its tolerance, or was invalid. With False such pairs keep
            what was found (NaN for invalid ones), and a `ConvergenceWarning` of scikit-learn counts them.

    Attributes:
        chains_: the fitted chains.
        error_bound_: certified error of each distance between these; only after `fit_transform`, since `fit` solves
            nothing. For new chains, `solve` returns the errors.
        status_: a `Status` for each of these distances; only after `fit_transform`.

    Raises:
        TypeError: (by the methods) `X` is not a collection of chains.
        ValueError: (by the methods) no chains, or what `discounted_wl` raises for bad input.
        SolveError: (by the methods) not converged (see `throw`).

    Note:
        `fit` alone solves nothing. A search over later steps should not run this one again for each candidate. Two ways
        solve each pair once:

        - Search inside: `make_pipeline(MarkovDistance(cost), GridSearchCV(make_pipeline(DistanceKernel(), SVC(...)),
          grid))`. Fit on chains, predict chains.
        - Compute the whole matrix first, then search or cross-validate on it: `GridSearchCV(make_pipeline(
          DistanceKernel(), SVC(...)), grid).fit(distances, y)`. Rows and columns are split together, as
          `input_tags.pairwise` tells scikit-learn.

        A search over delta or the cost must go around the whole pipeline, and solves anew for each fold and candidate.
        `Pipeline(memory=...)` does not avoid that: it keeps results of `fit_transform`, never the rows of test folds.
        For checkpoints and many machines, call `markovot.pairwise.distance_matrix`, and go the second way.

    References:
        As `discounted_wl`.

    Example:
        >>> from sklearn.model_selection import GridSearchCV
        >>> from sklearn.pipeline import make_pipeline
        >>> from sklearn.svm import SVC
        >>> from markovot import costs, datasets
        >>> mutag = datasets.load_mutag()
        >>> chains, targets = mutag.chains[:40], mutag.targets[:40]
        >>> kernel_machine = make_pipeline(DistanceKernel(), SVC(kernel="precomputed"))
        >>> grid = {"distancekernel__scale": ["0.5*median", "median"], "svc__C": [1, 10]}
        >>> model = make_pipeline(MarkovDistance(costs.ZeroOne()), GridSearchCV(kernel_machine, grid, cv=4))
        >>> model.fit(chains, targets).predict(mutag.chains[40:44])
        array([ 1, -1,  1,  1])
        >>> model[-1].best_params_, bool(model[0].error_bound_.max() < 2e-4)
        ({'distancekernel__scale': '0.5*median', 'svc__C': 10}, True)
    """

    def __init__(
        self,
        cost: Cost,
        *,
        delta: float = 0.2,
        epsilon: float = 0.01,
        debiased: bool = False,
        rtol: float = 1e-4,
        max_iter: int = 100,
        progress: bool = False,
        throw: bool = True,
    ) -> None:
        self.cost = cost
        self.delta = delta
        self.epsilon = epsilon
        self.debiased = debiased
        self.rtol = rtol
        self.max_iter = max_iter
        self.progress = progress
        self.throw = throw

    def fit(self, X: Iterable[Any], y: Any = None) -> Self:
        """Keep the chains to which distances are wanted; nothing is solved.

        Args:
            X: chains of any sizes, or what `as_chain` accepts.
            y: ignored.
        """
        self.chains_ = _read(X)
        for name in ("error_bound_", "status_"):  # those of an earlier fit
            self.__dict__.pop(name, None)
        return self

    def fit_transform(self, X: Iterable[Any], y: Any = None) -> FloatArray:
        """Keep the chains and give the distances between them (k, k), symmetric, each pair solved once.

        Args:
            X: as in `fit`.
            y: ignored.
        """
        found = self.fit(X, y)._solve(self.chains_, None)
        self.error_bound_, self.status_ = found.error_bound, found.status
        return self._distances(found)

    def transform(self, X: Iterable[Any]) -> FloatArray:
        """The distances from each of `X` to each fitted chain (len(X), k), in units of the cost.

        Args:
            X: as in `fit`.
        """
        return self._distances(self.solve(X))

    def solve(self, X: Iterable[Any]) -> PairwiseSolution:
        """The distances of `transform`, with certified errors and statuses; debiased ones may be negative here.

        Args:
            X: as in `fit`.
        """
        check_is_fitted(self)
        return self._solve(_read(X), self.chains_)

    def _solve(self, chains: list[MarkovChain], others: list[MarkovChain] | None) -> PairwiseSolution:
        return pairwise.distance_matrix(
            chains,
            others,
            cost=self.cost,
            delta=self.delta,
            epsilon=self.epsilon,
            debiased=self.debiased,
            rtol=self.rtol,
            max_iter=self.max_iter,
            progress=self.progress,
            throw=self.throw,
        )

    def _distances(self, found: PairwiseSolution) -> FloatArray:
        """The matrix for scikit-learn. Pairs that were not solved can only be reported by a warning."""
        if not found.converged.all():
            failed = np.argwhere(~found.converged).tolist()
            i, j = failed[0]
            reasons = [f"; {name}[{number}] is invalid: {reason}" for (name, number), reason in found.invalid.items()]
            warnings.warn(
                f"{len(failed)} of {found.value.size} distances were not solved to their tolerance, the first at "
                f"({i}, {j}): {found.status[i, j]}{''.join(reasons)}. `solve` gives the status and the certified error "
                "of each; with throw=True this is an error.",
                ConvergenceWarning,
                stacklevel=4,  # beyond scikit-learn's wrapper
            )
        # The bounds hold for this too. Without debiasing, distances further below zero come from negative costs.
        return similarity.nonnegative(found.value, np.inf if self.debiased else found.error_bound)

    @property
    def _n_features_out(self) -> int:
        return len(self.chains_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False  # the input is chains, not rows of numbers; only the output is pairwise
        return tags


def _read(X: Iterable[Any]) -> list[MarkovChain]:
    """A list of single chains, converted once, so that no later call does it again."""
    if hasattr(X, "chains"):
        raise TypeError(f"X: expected a list of chains, got a {type(X).__name__}. Give its `.chains`.")
    if isinstance(X, str) or not isinstance(X, Iterable | MarkovChain) or _is_single(X):
        kind = "a single chain" if isinstance(X, MarkovChain) else type(X).__name__
        raise TypeError(f"X: expected a list of chains, got {kind}. Put what you have into a list, as in [chain].")
    chains = []
    for index, item in enumerate(validate.items("X", X, "a list of chains")):
        chain = chain_of(f"X[{index}]", item)
        if chain.batch_shape:
            raise ValueError(
                f"X[{index}]: a batch {tuple(chain.batch_shape)} of chains where one is expected. Give its chains one "
                "by one, as in list(batch)."
            )
        chains.append(chain.detach())  # so that the estimator can be copied, and holds no graph of gradients
    if not chains:
        raise ValueError("X: there are no chains. Give at least one.")
    return chains


def _is_single(X: Any) -> bool:
    return isinstance(X, MarkovChain) and not X.batch_shape


class DistanceKernel(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """A kernel of distances, for `SVC(kernel="precomputed")` and the like.

    `exp(-d / s)` (laplacian) or `exp(-d^2 / (2 s^2))` (gaussian; d is squared here, not before).

    Args:
        kind: "laplacian" or "gaussian".
        scale: s. "median" is the median of the positive distances between different training samples; "0.5*median", or
            any other factor, is a multiple of it. Search over such factors, since they adapt to the distances. A number
            is s itself, in units of the distances.
        psd: "none" leaves the kernel as it is. "clip" makes it positive semi-definite: eigenvalues of the training
            kernel below zero are set to zero, and the rows of new samples go through the same projection.

    Attributes:
        scale_: s, a number.
        n_clipped_: how many eigenvalues of the training kernel were below zero, beyond rounding; with `psd="clip"`.
        clipped_mass_: the sum of their absolute values as a share of the sum over all eigenvalues: how much the kernel
            was changed; with `psd="clip"`. As little as the certified errors of the distances (a share of 1e-4 and
            less) is noise.
        projection_: the matrix P that multiplies rows of the kernel, None if there was nothing to clip; with
            `psd="clip"`.
        n_features_in_: the number of training samples.

    Raises:
        ValueError: (by the methods) unknown words, a scale that is not positive, distances that are not finite, a
            training matrix that is not square and symmetric, rows with another number of columns.

    Note:
        The kernels of a distance are positive semi-definite if it (or its square, for gaussian) is of negative type,
        which distances by optimal transport need not be; support vector machines run on indefinite kernels too, but no
        longer solve a convex problem. The diagonal of the distances is used as it stands: with entropy, a chain's
        similarity to itself is a little below one, in training and test rows alike. Distances below zero, which
        debiasing can leave, count as zero, with a warning where that is more than rounding. Time O(n^2), with "clip"
        O(n^3) at fit. Its input is a matrix of distances, as `input_tags.pairwise` tells scikit-learn.

    References:
        Chen, Garcia, Gupta, Rahimi, Cazzanti: Similarity-based Classification: Concepts and Algorithms (JMLR 2009).

    Example:
        >>> import numpy as np
        >>> distances = np.array([[0.0, 1.0, 2.0], [1.0, 0.0, 3.0], [2.0, 3.0, 0.0]])
        >>> kernel = DistanceKernel(scale="0.5*median").fit(distances)
        >>> kernel.scale_, kernel.transform(np.array([[1.0, 0.0, 4.0]])).round(3)
        (1.0, array([[0.368, 1.   , 0.018]]))
    """

    def __init__(self, kind: str = "laplacian", *, scale: str | float = "median", psd: str = "none") -> None:
        self.kind = kind
        self.scale = scale
        self.psd = psd

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn the scale and, with `psd="clip"`, the projection.

        Args:
            X: the distances between the training samples (n, n), symmetric.
            y: ignored.
        """
        validate.choice("kind", self.kind, tuple(similarity.KINDS))
        validate.choice("psd", self.psd, ("none", "clip"))
        distances = self._distances(X, reset=True)
        similarity.check_symmetric("X", distances)
        self.scale_ = _scale(self.scale, distances)
        for name in ("n_clipped_", "clipped_mass_", "projection_"):
            self.__dict__.pop(name, None)
        if self.psd == "clip":
            found = similarity.clip(self._similarity(distances))
            self.n_clipped_, self.clipped_mass_, self.projection_ = found.num_clipped, found.mass, found.projection
        return self

    def fit_transform(self, X: Any, y: Any = None) -> FloatArray:
        """The kernel (n, n) of the training samples; with `psd="clip"` exactly symmetric.

        Args:
            X: as in `fit`.
            y: ignored.
        """
        kernel = self.fit(X, y)._kernel(X)
        return (kernel + kernel.T) / 2 if self.psd == "clip" else kernel

    def transform(self, X: Any) -> FloatArray:
        """The kernel between new samples and the training samples, (m, n).

        Args:
            X: the distances from each new sample to each training sample (m, n), in the same order.
        """
        check_is_fitted(self)
        return self._kernel(X)

    def _distances(self, X: Any, *, reset: bool) -> FloatArray:
        """Finite numbers, with the number (and, for data frames, the names) of the columns learned or compared."""
        try:
            distances = check_array(X, dtype=np.float64, ensure_all_finite=False)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:  # which do not say of what
            raise (ValueError if isinstance(error, ValueError) else TypeError)(f"X: {error}") from error
        similarity.check_finite("X", distances)  # names the row, which scikit-learn's own check does not
        validate_data(self, X, reset=reset, skip_check_array=True)
        return distances

    def _kernel(self, X: Any) -> FloatArray:
        distances = self._distances(X, reset=False)
        similarity.warn_of_negatives("X", distances, self.scale_)
        kernel = self._similarity(distances)
        projection = getattr(self, "projection_", None)
        return kernel if projection is None else kernel @ projection

    def _similarity(self, distances: FloatArray) -> FloatArray:
        return similarity.KINDS[self.kind](distances, self.scale_)

    @property
    def _n_features_out(self) -> int:
        return int(self.n_features_in_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = True
        return tags


def _scale(scale: Any, distances: FloatArray) -> float:
    """The scale in units of the distances, from "median", "factor*median" or a number."""
    if not isinstance(scale, str):
        number = validate.number("scale", scale, 0.0, np.inf)
        if number == 0:
            raise ValueError("scale: 0 is not positive. Give a positive number, 'median', or a multiple '0.5*median'.")
        return number
    left, star, word = scale.rpartition("*")
    try:
        factor = float(left) if star else 1.0
    except ValueError:
        factor = np.nan
    if word.strip() != "median" or not 0 < factor < np.inf:
        raise ValueError(f"scale: {scale!r} is neither 'median' nor a positive multiple of it, such as '0.5*median'.")
    return factor * similarity.median_distance(distances)
