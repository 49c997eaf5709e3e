"""Kernels of distances, in NumPy: checks of distance matrices, similarities, and the repair of indefinite kernels."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from markovot import validate
from markovot._arrays import FloatArray

__all__ = ["Clipped", "clip", "gaussian", "laplacian", "median_distance"]


# d(X, Y) and d(Y, X) that were solved separately differ by their certified errors, 1e-4 of the range of the cost each.
# A matrix that is less symmetric than this, relative to its largest entry, is no matrix of distances.
ASYMMETRY = 1e-3
# Debiased distances may fall below zero by rounding and by their certified errors; we warn if it is more than this
# share of the scale.
NEGATIVE = 1e-2


def check_finite(name: str, distances: FloatArray) -> None:
    """Refuse NaN and infinities, and name the row that holds most of them: an invalid chain fills its row.

    Raises:
        ValueError: an entry is not finite.
    """
    wrong = ~np.isfinite(np.atleast_2d(distances))
    if not wrong.any():
        return
    row = int(wrong.sum(1).argmax())
    column = int(wrong[row].argmax())
    first = np.atleast_2d(distances)[row, column]
    raise ValueError(
        f"{name}: NaN or infinity in row {row}, where {int(wrong[row].sum())} of {len(wrong[row])} distances are not "
        f"finite; the first is {first} in column {column}. NaN marks pairs that could not be solved, and fills the row "
        "and the column of an invalid chain: mend it, or leave it out."
    )


def check_square(name: str, distances: FloatArray) -> None:
    """Refuse a matrix that is not square, as the distances within one set are.

    Raises:
        ValueError: it is not square.
    """
    if distances.ndim != 2 or distances.shape[0] != distances.shape[1]:
        raise ValueError(
            f"{name}: shape {distances.shape} is not that of a square matrix. Entry (i, j) must be the distance "
            "between members i and j of one set."
        )


def check_symmetric(name: str, distances: FloatArray) -> None:
    """Refuse what cannot be the distances between the members of one set: not square, not finite, not symmetric.

    Differences between d(X, Y) and d(Y, X) as small as certified errors are allowed.

    Raises:
        ValueError: one of these.
    """
    check_square(name, distances)
    check_finite(name, distances)
    gap = np.abs(distances - distances.T)
    if gap.size and gap.max() > ASYMMETRY * np.abs(distances).max():
        i, j = (int(k) for k in np.unravel_index(gap.argmax(), gap.shape))
        raise ValueError(
            f"{name}: not symmetric. Entry ({i}, {j}) is {distances[i, j]:.6g}, entry ({j}, {i}) is "
            f"{distances[j, i]:.6g}. Average the two, with (D + D.T) / 2, if that is what you mean."
        )


def warn_of_negatives(name: str, distances: FloatArray, scale: float) -> None:
    """Warn where a distance is below zero by more than a hundredth of the scale."""
    lowest = distances.min(initial=0.0)
    if lowest < -NEGATIVE * scale:
        warnings.warn(
            f"{name}: the smallest distance is {lowest:.3g}, far below zero beside a typical one of {scale:.3g}; it "
            "counts as zero, as do all below zero. Debiased distances may fall slightly below zero; a smaller epsilon "
            "helps. A kernel or a similarity is not a distance.",
            UserWarning,
            stacklevel=3,
        )


def nonnegative(distances: FloatArray, below: float | FloatArray = np.inf) -> FloatArray:
    """Distances with negative ones set to zero.

    This is the one place where that is decided. A distance of zero may come out slightly negative, by rounding or
    within its certified error. A debiased distance may truly be negative, since the self-distances that are subtracted
    can be larger. Neither means that two things are nearer than equal, and SciPy and scikit-learn refuse negatives.

    Args:
        distances: of any shape; NaN stays.
        below: entries that lie further below zero than this are left as they are. Default: all negative entries are set
            to zero.
    """
    return np.where((distances < 0.0) & (distances >= -np.asarray(below)), 0.0, distances)


def dissimilarities(distances: Any) -> FloatArray:
    """All distances within one set as other libraries take them: symmetric, nonnegative, zero on the diagonal.

    SciPy's `squareform` and `linkage` and scikit-learn's `metric="precomputed"` refuse entropic distances, which do not
    vanish on the diagonal, and debiased ones, which may lie below zero. The entries that this function changes carry no
    information on how different two members are.

    Args:
        distances: a `PairwiseSolution` of one set, or a matrix (n, n).

    Returns:
        A new array (n, n).

    Raises:
        ValueError: not square, not finite, or not symmetric within certified errors.
        TypeError: it does not hold real numbers.

    Example:
        >>> dissimilarities([[0.2, -0.1, 0.5], [-0.1, 0.2, 0.7], [0.5, 0.7, 0.1]])
        array([[0. , 0. , 0.5],
               [0. , 0. , 0.7],
               [0.5, 0.7, 0. ]])
    """
    array = as_matrix("distances", getattr(distances, "value", distances))
    check_symmetric("distances", array)
    return symmetrised(array)


def symmetrised(distances: FloatArray) -> FloatArray:
    """The result of `dissimilarities` for a square matrix of distances that was already checked."""
    apart = nonnegative((distances + distances.T) / 2)
    np.fill_diagonal(apart, 0.0)
    return apart


def median_distance(distances: FloatArray) -> float:
    """The median of the positive distances between different members of one set.

    Args:
        distances: a square symmetric matrix. Its diagonal (above zero with entropy) and duplicates (at distance zero)
            are ignored.

    Raises:
        ValueError: there are none.
    """
    distances = as_matrix("distances", distances)
    check_square("distances", distances)
    between = distances[np.triu_indices(len(distances), 1)]
    positive = between[between > 0]
    if not len(positive):
        raise ValueError(
            f"scale: there is no median among {len(between)} distances between {len(distances)} samples, none of which "
            "is positive. Give more samples, or a number for scale."
        )
    return float(np.median(positive))


def laplacian(distances: FloatArray, scale: float) -> FloatArray:
    """`exp(-d / s)`; distances below zero, which debiasing can leave, count as zero."""
    distances, scale = _checked(distances, scale)
    return np.exp(-nonnegative(distances) / scale)


def gaussian(distances: FloatArray, scale: float) -> FloatArray:
    """`exp(-d^2 / (2 s^2))`; distances below zero count as zero."""
    distances, scale = _checked(distances, scale)
    return np.exp(-0.5 * np.square(nonnegative(distances) / scale))


def _checked(distances: Any, scale: Any) -> tuple[FloatArray, float]:
    return as_matrix("distances", distances), validate.number("scale", scale, 0.0, np.inf, open_at_low=True)


KINDS = {"laplacian": laplacian, "gaussian": gaussian}


@dataclass(frozen=True, eq=False)
class Clipped:
    """The result of clipping the kernel of a training set.

    Attributes:
        projection: the matrix P (n, n) with which rows of the kernel are multiplied, or None where there was nothing
            to clip.
        num_clipped: how many eigenvalues were below zero, beyond rounding.
        mass: the sum of their absolute values, as a share of the sum over all eigenvalues; in [0, 1).
    """

    projection: FloatArray | None
    num_clipped: int
    mass: float


# An indefinite kernel on a training set, K = V diag(l) V^T, is an inner product of another kind: the items have the
# coordinates |l|^(1/2) V^T along the eigenvectors, and those with l < 0 count negatively. Clipping drops these.
#   Training items: the inner products that remain are K+ = V+ diag(l+) V+^T = K P with P = V+ V+^T.
#   A new item x, of which we know the row k^T = (K(x, x_1), ..., K(x, x_n)): its coordinates c along the positive axes
# must give back k so far as these axes go, V+ diag(l+)^(1/2) c = P k. Its row of the clipped kernel is thus k^T P. For
# x = x_i that is row i of K+: training and test rows are treated alike, and no test row depends on another.
# (Chen et al. 2009, section 4.)
def clip(kernel: FloatArray) -> Clipped:
    """The projection that makes a symmetric matrix positive semi-definite, for its own rows and those of new items.

    Args:
        kernel: (n, n); its symmetric part is what counts.

    Returns:
        A `Clipped`; eigenvalues within rounding of zero do not count as negative.

    Note:
        One eigendecomposition, O(n^3). P minimises the change of the kernel in the Frobenius norm.

    References:
        Chen, Garcia, Gupta, Rahimi, Cazzanti: Similarity-based Classification: Concepts and Algorithms (JMLR 2009).

    Example:
        >>> import numpy as np
        >>> kernel = np.array([[1.0, 0.9, 0.0], [0.9, 1.0, 0.9], [0.0, 0.9, 1.0]])
        >>> found = clip(kernel)
        >>> found.num_clipped, round(found.mass, 3)
        (1, 0.077)
        >>> np.linalg.eigvalsh(kernel @ found.projection).round(3) + 0.0
        array([0.   , 1.   , 2.273])
    """
    kernel = as_matrix("kernel", kernel)
    check_square("kernel", kernel)
    check_finite("kernel", kernel)
    values, vectors = np.linalg.eigh((kernel + kernel.T) / 2)
    rounding = len(kernel) * np.finfo(np.float64).eps * np.abs(values).max()
    negative = values < -rounding
    if not negative.any():
        return Clipped(None, 0, 0.0)
    kept = vectors[:, values > rounding]
    mass = float(np.abs(values[negative]).sum() / np.abs(values).sum())
    return Clipped(kept @ kept.T, int(negative.sum()), mass)


def as_matrix(name: str, values: Any) -> FloatArray:
    """A float64 array of what the user gave as a matrix of distances.

    Raises:
        TypeError: it does not hold real numbers, or more than these.
        ValueError: some of its entries are masked.
    """
    return validate.reals(name, values)
