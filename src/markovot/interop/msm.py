"""deeptime's Markov state models of molecular dynamics."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from markovot._optional import require
from markovot.chains import MarkovChain
from markovot.interop._common import check_single
from markovot.interop.matrices import to_scipy


def from_deeptime(
    msm: Any,
    *,
    initial: str | Tensor = "stationary",
    features: Any = None,
    state_names: Sequence[Any] | None = None,
) -> MarkovChain:
    """The chain of a deeptime Markov state model.

    deeptime takes rows that sum to one within 1e-8, so each row is divided by its sum here.

    Args:
        msm: a `deeptime.markov.msm.MarkovStateModel` (a collection stands for the model that is selected in it).
        initial: "stationary", the law that the model calls its `stationary_distribution`, computed anew from the
            probabilities; "uniform"; or a tensor.
        features: as in `MarkovChain.from_transitions`, for instance the mean coordinates of each state.
        state_names: names of the states. Default: the numbers that the states had in the discrete trajectories
            (`state_symbols` of the model's count model), so that states which the estimator left out leave a gap; none
            without a count model.

    Returns:
        The chain, float64, sparse if the model is.

    Raises:
        ImportError: deeptime is not installed.
        TypeError: not such a model; a Bayesian posterior holds many.
        ValueError: what `MarkovChain.from_transitions` raises; a stationary law that is not unique, when it is used.

    Example:
        >>> from deeptime.markov.msm import MarkovStateModel
        >>> from_deeptime(MarkovStateModel([[0.9, 0.1], [0.5, 0.5]]))
        MarkovChain(2 states, dense, initial law stationary, float64, cpu)
    """
    library = require("deeptime.markov.msm", extra="deeptime", what="from_deeptime")
    if isinstance(msm, library.BayesianMSMPosterior):
        raise TypeError(
            "msm: a Bayesian posterior holds many models. Give msm.prior, or make one chain of each of msm.samples."
        )
    if not isinstance(msm, library.MarkovStateModel):
        raise TypeError(
            f"msm: expected a deeptime MarkovStateModel, got {type(msm).__name__}. From an estimator, take "
            "estimator.fit_fetch(...)."
        )
    matrix = msm.transition_matrix
    if not isinstance(matrix, np.ndarray):
        matrix = matrix.tocsr().astype(np.float64)
        matrix.data /= np.repeat(np.asarray(matrix.sum(1)).ravel(), np.diff(matrix.indptr))
    else:
        matrix = matrix.astype(np.float64)
        matrix /= matrix.sum(1, keepdims=True)
    if state_names is None and msm.has_count_model:
        state_names = np.asarray(msm.count_model.state_symbols).tolist()
    return MarkovChain.from_transitions(matrix, initial=initial, features=features, state_names=state_names)


def to_deeptime(chain: MarkovChain, *, lagtime: int | None = None) -> Any:
    """A single chain as a deeptime Markov state model.

    `from_deeptime(to_deeptime(chain))` has the same probabilities. Features and names are not part of a model.

    Args:
        chain: a single chain. A sparse one makes a sparse model.
        lagtime: how many time steps of the trajectories one step of the chain takes; deeptime's time scales are
            multiples of it. None: deeptime's own default, 1.

    Returns:
        A `deeptime.markov.msm.MarkovStateModel`, without gradients. If the chain's initial law is its stationary one,
        the model is given it; otherwise deeptime computes one when it is asked for.

    Raises:
        ImportError: deeptime is not installed.
        TypeError: not a chain.
        ValueError: a batch; a stationary law that is not unique.

    Example:
        >>> import torch
        >>> chain = MarkovChain.from_transitions(torch.tensor([[0.9, 0.1], [0.5, 0.5]], dtype=torch.float64))
        >>> to_deeptime(chain).stationary_distribution.round(4).tolist()
        [0.8333, 0.1667]
    """
    library = require("deeptime.markov.msm", extra="deeptime", what="to_deeptime")
    check_single(chain, "to_deeptime")
    from scipy.sparse import csr_matrix

    chain = chain.detach()
    matrix = to_scipy(chain).astype(np.float64)
    # float32 rows sum to one within 1e-6, which deeptime refuses.
    matrix.data /= np.repeat(matrix.sum(1), np.diff(matrix.indptr))
    law = chain.initial.cpu().numpy().astype(np.float64) if chain.initial_law == "stationary" else None
    return library.MarkovStateModel(
        csr_matrix(matrix) if chain.is_sparse else matrix.toarray(), stationary_distribution=law, lagtime=lagtime
    )
