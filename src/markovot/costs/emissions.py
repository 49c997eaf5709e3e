r"""Costs between laws: what the states of a hidden Markov model emit.

**Gaussians.** With A = S^(1/2), B = T^(1/2) the symmetric roots of two covariances,

    W2^2 = |m - n|^2 + tr S + tr T - 2 tr R,      R = (A T A)^(1/2)                                                  (1)
         = |m - n|^2 + min over orthogonal U of |A - B U|_F^2.                                                       (2)

(1) is smooth where the covariances are regular, but loses half the digits between near Gaussians; (2) keeps them, but
its minimiser must not be differentiated. So the value is that of (2), and the derivatives are those of (1).

**Roots.** The derivative of an eigenvalue decomposition does not exist where eigenvalues coincide, although that of the
root does. So the decomposition is taken of the detached matrix, and autograd sees two steps of the chord method for
X^2 = S from that root X_0 on, `X <- X + L^-1 (S - X^2)` with L the derivative of X -> X^2 at X_0: they change nothing
in the value, and each step makes one more order of derivatives right.

**Why these two.** Relative entropy between letters, or its symmetric mean, is infinite as soon as a letter that one
state emits is impossible in the other, as it often is in fitted models. The divergence of Jensen and Shannon takes the
relative entropies of both laws to their mean. It is finite and symmetric, and its root is a metric, so that the
distance between chains is a metric as well.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from markovot import validate
from markovot.costs.ground import Cost, pair_features

_ASYMMETRY = 1e-4  # asymmetry of a covariance, relative to its largest entry, that a step of an optimiser may leave
_NEGATIVE = 1e-6  # size of a negative eigenvalue, relative to the largest, that rounding in float32 may leave
_SUM = 1e-5  # how far from one the sum of a row may be, after rounding or a step of an optimiser


@dataclass(frozen=True)
class GaussianWasserstein(Cost):
    r"""The Wasserstein distance (of order 2) between Gaussian laws; not squared, a metric.

    $$W_2\big(N(m, S), N(n, T)\big)^2 = |m - n|^2 + \mathrm{tr}\big(S + T - 2\,(S^{1/2} T S^{1/2})^{1/2}\big).$$

    In units of what is emitted: 1 between two laws that are shifted by 1. With covariances zero it is `Euclidean`. For
    other laws with these means and covariances it is a lower bound (Gelbrich).

    Args:
        dimension: the dimension p of the space of emissions. Features are (n, p + p^2): the mean, then the covariance,
            row by row; `GaussianWasserstein.features` puts them together.

    Raises:
        TypeError: a dimension that is not an integer; from a call, features that are not floats.
        ValueError: a dimension below 1; from a call, features of another length, covariances that are not symmetric or
            have negative eigenvalues.

    Note:
        Differentiable in means and covariances, to second order, wherever both covariances are regular and the laws
        differ. The gradient is taken to be 0 between equal laws, where there is none, and in directions in which a
        covariance is singular. Computed in float64 whatever the dtype. Time O(n m p^3), memory O(n m p^2).

    References:
        Gelbrich: On a formula for the L2 Wasserstein metric between measures on Euclidean and Hilbert spaces (1990).

    Example:
        >>> import torch
        >>> f = GaussianWasserstein.features(torch.tensor([[0.0], [3.0]]), torch.tensor([[[1.0]], [[25.0]]]))
        >>> GaussianWasserstein(1)(f, f)
        tensor([[0., 5.],
                [5., 0.]])
    """

    dimension: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "dimension", validate.count("dimension", self.dimension, low=1))

    @staticmethod
    def features(mean: Tensor, covariance: Tensor) -> Tensor:
        """Means (*batch, n, p) and covariances (*batch, n, p, p) as features (*batch, n, p + p^2); differentiable."""
        mean, covariance = validate.as_tensor("mean", mean), validate.as_tensor("covariance", covariance)
        for name, part in (("mean", mean), ("covariance", covariance)):
            validate.floating(name, part)
        validate.same_kind("covariance", covariance, "mean", mean)
        wanted = (*mean.shape, mean.shape[-1]) if mean.dim() else ()
        if mean.dim() < 2 or tuple(covariance.shape) != wanted:
            raise ValueError(
                f"covariance: shape {tuple(covariance.shape)} does not go with a mean of shape {tuple(mean.shape)}. "
                "Give means (*batch, n, p) and covariances (*batch, n, p, p)."
            )
        return torch.cat([mean, covariance.flatten(-2)], dim=-1)

    def __call__(self, fx: Tensor, fy: Tensor) -> Tensor:
        """The cost; differentiable in the features."""
        fx, fy = pair_features(fx, fy, floating=True)
        (mean_x, root_x), (mean_y, root_y) = (self._read(name, f) for name, f in (("x", fx), ("y", fy)))
        apart = (mean_x.unsqueeze(-2) - mean_y.unsqueeze(-3)).square().sum(-1)
        return _root(apart + _bures(root_x, root_y)).to(fx.dtype)

    def _read(self, name: str, features: Tensor) -> tuple[Tensor, Tensor]:
        """Means, and symmetric roots of the covariances, float64."""
        p = self.dimension
        if features.shape[-1] != p + p * p:
            raise ValueError(
                f"features: those of {name} have {features.shape[-1]} components, not {p + p * p}: a mean of {p} and a "
                f"covariance of {p} x {p}. Put them together by GaussianWasserstein.features, or correct dimension={p}."
            )
        features = features.double()
        covariance = features[..., p:].unflatten(-1, (p, p))
        size = covariance.detach().abs().amax((-2, -1), keepdim=True)
        crooked = (covariance - covariance.mT).detach().abs() > _ASYMMETRY * size
        if bool(crooked.any()):
            at = validate.first(crooked.flatten(-2).any(-1))
            raise ValueError(f"features: the covariance of state {validate.place(at)} of {name} is not symmetric.")
        covariance = 0.5 * (covariance + covariance.mT)
        values, vectors = torch.linalg.eigh(covariance.detach())
        negative = values[..., 0] < -_NEGATIVE * values[..., -1].clamp(min=0.0)
        if bool(negative.any()):
            at = validate.first(negative)
            raise ValueError(
                f"features: the covariance of state {validate.place(at)} of {name} has the eigenvalue "
                f"{values[at][0].item():.3g}. Covariances have none below zero; learn a factor F of F F^T instead."
            )
        return features[..., :p], _matrix_root(covariance, values, vectors)


@dataclass(frozen=True)
class JensenShannon(Cost):
    r"""The Jensen-Shannon distance between laws on letters: the root of the divergence, in bits; a metric.

    $$J(p, q)^2 = \tfrac12 KL_2(p \,|\, m) + \tfrac12 KL_2(q \,|\, m), \qquad m = \tfrac12 (p + q),$$

    with KL_2 the relative entropy to base 2. Between 0 and 1: 1 for laws without a common letter, so that it
    has the scale of `ZeroOne`.

    Features are (n, p): in each row the probabilities of the p letters. A row of zeros counts as a padded state.

    Raises:
        TypeError: from a call, features that are not floats.
        ValueError: from a call, different numbers of letters, negative entries, rows that do not sum to one.

    Note:
        Differentiable wherever the laws differ, to second order. The gradient is taken to be 0 between equal laws,
        where there is none. The gradient in a probability of exactly zero would be minus infinity; its infinite term is
        left out. Computed in float64 whatever the dtype. Time and memory O(n m p).

    References:
        Endres, Schindelin: A new metric for probability distributions (IEEE Trans. Inf. Theory, 2003).

    Example:
        >>> import torch
        >>> JensenShannon()(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]))
        tensor([[0.0000, 0.5579, 1.0000]])
    """

    def __call__(self, fx: Tensor, fy: Tensor) -> Tensor:
        """The cost; differentiable in the features."""
        fx, fy = pair_features(fx, fy, floating=True)
        for name, f in (("x", fx), ("y", fy)):
            _check_laws(name, f.detach().double())
        p, q = fx.double().unsqueeze(-2), fy.double().unsqueeze(-3)
        total = p + q
        some = total > 0
        # With d = (p - q) / (p + q), 2 p / (p + q) = 1 + d: no digits are lost between near laws.
        d = (p - q) / torch.where(some, total, 1.0)
        parts = torch.where(some, total * (_entropic(d) + _entropic(-d)), 0.0)
        return _root((parts.sum(-1) / (4 * math.log(2))).clamp(min=0.0)).to(fx.dtype)


def _entropic(d: Tensor) -> Tensor:
    """`(1 + d) log(1 + d)`, 0 at d = -1."""
    some = d > -1
    inside = torch.where(some, d, 0.0)
    return torch.where(some, (1 + inside) * inside.log1p(), 0.0)


def _check_laws(name: str, rows: Tensor) -> None:
    sums = rows.sum(-1)
    wrong = ~((rows >= 0).all(-1) & (((sums - 1).abs() <= _SUM) | (rows == 0).all(-1)))
    if bool(wrong.any()):
        at = validate.first(wrong)
        raise ValueError(
            f"features: row {validate.place(at)} of {name} is no law: its least entry is {rows[at].min().item():.3g}, "
            f"its sum {sums[at].item():.6g}. Give the probabilities of the letters in each state; they are not "
            "negative, and sum to one."
        )


# --- roots


def _root(squared: Tensor) -> Tensor:
    """The square root of nonnegative numbers; its gradient at 0 is taken to be 0."""
    some = squared > 0
    return torch.where(some, torch.where(some, squared, 1.0).sqrt(), 0.0)


def _matrix_root(matrix: Tensor, values: Tensor, vectors: Tensor) -> Tensor:
    """The symmetric root of symmetric matrices, from their eigenvalues and eigenvectors, which carry no gradient."""
    roots = values.clamp(min=0.0).sqrt()
    found = (vectors * roots.unsqueeze(-2)) @ vectors.mT
    if not matrix.requires_grad:
        return found
    scale = roots.unsqueeze(-1) + roots.unsqueeze(-2)
    regular = scale > 1e-12 * roots.amax(-1)[..., None, None]
    inverse = torch.where(regular, 1.0 / torch.where(regular, scale, 1.0), 0.0)
    start = found
    for _ in range(2):
        step = vectors @ (inverse * (vectors.mT @ (matrix - found @ found) @ vectors)) @ vectors.mT
        found = found + step
    return start + (found - found.detach())


def _bures(root_x: Tensor, root_y: Tensor) -> Tensor:
    """The part of W2^2 that comes from the covariances, for each pair, from their symmetric roots."""
    a, b = root_x.unsqueeze(-3), root_y.unsqueeze(-4)
    with torch.no_grad():
        left, _, right = torch.linalg.svd(b @ a)
        value = (a - b @ (left @ right)).square().sum((-2, -1))
        size = torch.maximum(a.square().sum((-2, -1)), b.square().sum((-2, -1)))
        # A value below this is only rounding, and has no direction for a gradient.
        some = value > (64 * torch.finfo(value.dtype).eps) ** 2 * size
    if not (root_x.requires_grad or root_y.requires_grad):
        return torch.where(some, value, 0.0)
    inner = a @ (b @ b) @ a
    values, vectors = torch.linalg.eigh(inner.detach())
    middle = _matrix_root(0.5 * (inner + inner.mT), values, vectors)
    trace = a.square().sum((-2, -1)) + b.square().sum((-2, -1)) - 2 * middle.diagonal(dim1=-2, dim2=-1).sum(-1)
    return torch.where(some, value + (trace - trace.detach()), 0.0)
