"""Hidden Markov models of hmmlearn and deeptime: chains whose states are the hidden ones, with what they emit."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from markovot._arrays import FloatArray
from markovot._optional import require
from markovot.chains import MarkovChain
from markovot.costs import GaussianWasserstein
from markovot.interop.msm import from_deeptime

_TOLERANCE = 1e-6  # the error in row sums that a fit may leave; rows are then divided by their sums


def from_hmmlearn(
    model: Any, *, initial: str | Tensor = "start", state_names: Sequence[Any] | None = None
) -> MarkovChain:
    r"""The hidden chain of a fitted hmmlearn model, with the emissions of its states as features.

    | model | features of a state | a cost for them |
    | --- | --- | --- |
    | GaussianHMM | mean and covariance (p + p^2) | `costs.GaussianWasserstein(p)` |
    | CategoricalHMM | probabilities of the letters (p) | `costs.JensenShannon()` |
    | MultinomialHMM | probabilities of one draw (p) | `costs.JensenShannon()` |
    | PoissonHMM | rates (p) | `costs.AbsoluteDifference()` |

    Args:
        model: a fitted model of one of these kinds, or a variational one (VariationalGaussianHMM,
            VariationalCategoricalHMM), of which the mean is taken. Gaussians may have covariances of any
            `covariance_type`; all become full ones.
        initial: "start" (default), the model's own `startprob_`. For a model that was fitted to one long sequence, this
            is the one state in which the sequence began, and "stationary" says more. Or "uniform", or a tensor.
        state_names: names of the hidden states, whose numbers mean nothing.

    Returns:
        A dense float64 chain.

    Raises:
        ImportError: hmmlearn is not installed.
        TypeError: another kind of model. A GMMHMM emits mixtures, between which no cost here is exact.
        ValueError: a model that is not fitted, or one with states that were never left, or never entered.

    Note:
        `AbsoluteDifference` of rates is the sum, over the counts, of the Wasserstein distances (of order 1) of the
        Poisson laws, which are ordered. Draws of a MultinomialHMM are compared one by one, whatever `n_trials`.

    Example:
        >>> import numpy
        >>> from hmmlearn.hmm import CategoricalHMM
        >>> model = CategoricalHMM(2)
        >>> model.startprob_, model.transmat_ = numpy.array([1.0, 0.0]), numpy.array([[0.9, 0.1], [0.5, 0.5]])
        >>> model.emissionprob_ = numpy.array([[0.8, 0.1, 0.1], [0.0, 0.5, 0.5]])
        >>> from_hmmlearn(model)
        MarkovChain(2 states, dense, initial law given, features (2, 3), float64, cpu)
    """
    library = require("hmmlearn.hmm", extra="hmm", what="from_hmmlearn")
    variational = require("hmmlearn.vhmm", extra="hmm", what="from_hmmlearn")
    if isinstance(model, library.GaussianHMM | variational.VariationalGaussianHMM):
        emitted, wanted = _gaussian, ["means_", "covars_"]
    elif isinstance(model, library.CategoricalHMM | library.MultinomialHMM | variational.VariationalCategoricalHMM):
        emitted, wanted = _letters, ["emissionprob_"]
    elif isinstance(model, library.PoissonHMM):
        emitted, wanted = _rates, ["lambdas_"]
    else:
        raise TypeError(
            "model: expected a GaussianHMM, CategoricalHMM, MultinomialHMM or PoissonHMM of hmmlearn, got "
            f"{type(model).__name__}. A mixture (GMMHMM) is best fitted again as a GaussianHMM with more states; of "
            "any other model, hand its matrix to MarkovChain.from_transitions(transition, initial=..., features=...)."
        )
    missing = [name for name in ("startprob_", "transmat_", *wanted) if not hasattr(model, name)]
    if missing:
        raise ValueError(f"model: this {type(model).__name__} has no {missing[0]}. Call its fit(X, lengths) first.")
    rows = _laws("transmat_", model.transmat_, "was never left: fit fewer components, or give a transmat_prior above 1")
    law: str | Tensor = initial
    if isinstance(initial, str) and initial == "start":
        start = np.asarray(model.startprob_, dtype=np.float64)[None]
        law = torch.from_numpy(_laws("startprob_", start, "holds no start: fit again, or use 'stationary'")[0])
    return MarkovChain.from_transitions(rows, initial=law, features=emitted(model), state_names=state_names)


def from_deeptime_hmm(
    model: Any, *, initial: str | Tensor = "start", state_names: Sequence[Any] | None = None
) -> MarkovChain:
    """The hidden chain of a deeptime hidden Markov model, with the emissions of its states as features.

    Args:
        model: a `deeptime.markov.hmm.HiddenMarkovModel`. Discrete outputs become the probabilities (n, p) of the
            observable states, for `costs.JensenShannon()`; Gaussian ones, which are numbers in deeptime, mean and
            variance (n, 2), for `costs.GaussianWasserstein(1)`.
        initial: "start" (default), the model's own `initial_distribution`; "stationary", "uniform" or a tensor.
        state_names: names of the hidden states.

    Returns:
        The chain, float64, sparse if the model's transition matrix is.

    Raises:
        ImportError: deeptime is not installed.
        TypeError: not such a model, or one with outputs of another kind.
        ValueError: what `from_deeptime` raises; "start" where the model has no initial distribution.

    Example:
        >>> import numpy
        >>> from deeptime.markov.hmm import HiddenMarkovModel
        >>> rows, letters = numpy.array([[0.9, 0.1], [0.5, 0.5]]), numpy.array([[0.7, 0.3], [0.2, 0.8]])
        >>> from_deeptime_hmm(HiddenMarkovModel(rows, letters), initial="uniform")
        MarkovChain(2 states, dense, initial law uniform, features (2, 2), float64, cpu)
    """
    library = require("deeptime.markov.hmm", extra="deeptime", what="from_deeptime_hmm")
    if not isinstance(model, library.HiddenMarkovModel):
        raise TypeError(
            f"model: expected a deeptime HiddenMarkovModel, got {type(model).__name__}. From an estimator, take "
            "estimator.fit_fetch(...); Markov state models go to from_deeptime."
        )
    output = model.output_model
    if isinstance(output, library.DiscreteOutputModel):
        features = _laws("output_probabilities", output.output_probabilities, "emits nothing: fit fewer states")
    elif isinstance(output, library.GaussianOutputModel):
        features = np.stack([output.means, np.square(output.sigmas)], axis=1).astype(np.float64)
    else:
        raise TypeError(
            f"model: its outputs are a {type(output).__name__}, neither discrete nor Gaussian. Take the hidden chain "
            "by from_deeptime(model.transition_model, features=...), with features of your own."
        )
    law: str | Tensor = initial
    if isinstance(initial, str) and initial == "start":
        if model.initial_distribution is None:
            raise ValueError("initial: 'start', but the model has no initial_distribution. Use 'stationary'.")
        start = np.asarray(model.initial_distribution, dtype=np.float64)[None]
        law = torch.from_numpy(_laws("initial_distribution", start, "holds no start: use 'stationary'")[0])
    return from_deeptime(model.transition_model, initial=law, features=features, state_names=state_names)


def _gaussian(model: Any) -> Tensor:
    mean = np.array(model.means_, dtype=np.float64)
    n, p = mean.shape
    # hmmlearn 0.3.3 gives a fitted "spherical" model one matrix for each state and dimension, all the same.
    covariance = np.asarray(model.covars_, dtype=np.float64).reshape(n, -1, p, p).mean(1)
    return GaussianWasserstein.features(torch.from_numpy(mean), torch.from_numpy(covariance))


def _letters(model: Any) -> Tensor:
    return torch.from_numpy(_laws("emissionprob_", model.emissionprob_, "emits nothing: fit fewer components"))


def _rates(model: Any) -> Tensor:
    return torch.from_numpy(np.array(model.lambdas_, dtype=np.float64))


def _laws(name: str, given: Any, if_zero: str) -> FloatArray:
    """Rows that sum to one in float64; `if_zero` says what is wrong with a state whose row is zero."""
    rows = np.array(given, dtype=np.float64)
    sums = rows.sum(1, keepdims=True)
    if (sums == 0).any():
        raise ValueError(f"model: in {name}, state {int(np.argmax(sums == 0))} {if_zero}.")
    wrong = ~((np.abs(sums[:, 0] - 1) <= _TOLERANCE) & (rows >= 0).all(1))
    if wrong.any():
        state = int(np.argmax(wrong))
        raise ValueError(
            f"model: row {state} of {name} sums to {sums[state, 0]:.12g}, its least entry is {rows[state].min():.3g}. "
            "Entries are not negative and sum to one; a fit that did not converge is best repeated with another seed."
        )
    return np.asarray(rows / sums, dtype=np.float64)
