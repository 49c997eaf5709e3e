"""deeptime's Markov state models, both ways, on the real library."""

from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from deeptime.data import double_well_discrete
from deeptime.markov import TransitionCountEstimator
from deeptime.markov.msm import BayesianMSM, MarkovStateModel, MarkovStateModelCollection, MaximumLikelihoodMSM

from interop_checks import assert_same_chain, dense, sample
from markovot import costs, discounted_wl, interop
from markovot.chains import MarkovChain, as_chain

ROWS = np.array([[0.9, 0.1, 0.0], [0.5, 0.25, 0.25], [0.0, 0.3, 0.7]])


@pytest.mark.parametrize("make", [np.array, scipy.sparse.csr_matrix, scipy.sparse.csr_array, scipy.sparse.coo_matrix])
def test_a_model_becomes_a_chain(make: Any) -> None:
    msm = MarkovStateModel(make(ROWS))
    chain = interop.from_deeptime(msm)
    assert chain.is_sparse is (make is not np.array)
    assert (chain.dtype, chain.initial_law, chain.state_names, chain.features) == (
        torch.float64,
        "stationary",
        None,
        None,
    )
    np.testing.assert_allclose(dense(chain), ROWS, rtol=1e-15)
    np.testing.assert_allclose(chain.initial, msm.stationary_distribution, rtol=1e-12)


def test_options_reach_the_chain() -> None:
    law = torch.tensor([1.0, 0, 0]).double()
    chain = interop.from_deeptime(
        MarkovStateModel(ROWS), initial=law, features=torch.arange(3), state_names=list("abc")
    )
    assert (chain.initial.tolist(), chain.features.tolist(), chain.state_names) == (
        [1, 0, 0],
        [0, 1, 2],
        ["a", "b", "c"],
    )
    assert interop.from_deeptime(MarkovStateModel(ROWS), initial="uniform").initial_law == "uniform"


def test_an_estimated_model_keeps_the_numbers_of_its_states() -> None:
    trajectory = double_well_discrete().dtraj_n6good
    trajectory = np.where(trajectory == 0, 0, trajectory + 3)  # states 1 to 3 never occur
    counts = TransitionCountEstimator(lagtime=1, count_mode="sliding").fit_fetch(trajectory).submodel_largest()
    msm = MaximumLikelihoodMSM(reversible=True).fit_fetch(counts)
    chain = interop.from_deeptime(msm)
    assert chain.state_names == counts.state_symbols.tolist() == [0, 4, 5, 6, 7, 8]
    np.testing.assert_allclose(dense(chain), msm.transition_matrix, rtol=1e-12)
    np.testing.assert_allclose(chain.initial, msm.stationary_distribution, rtol=1e-7)  # the estimator's accuracy
    cost = torch.from_numpy((np.arange(6)[:, None] != np.arange(6)).astype(float))
    far = discounted_wl(chain, sample_of(ROWS), cost[:, :3], delta=0.2, epsilon=0.01)
    assert 0 < far.value < 1


def sample_of(rows: np.ndarray) -> MarkovChain:
    return interop.from_deeptime(MarkovStateModel(rows))


def test_rows_within_the_library_s_tolerance_are_made_to_sum_to_one() -> None:
    off = ROWS * (1 + 5e-9)
    with pytest.raises(ValueError, match="row 0 sums to"):
        MarkovChain.from_transitions(off)
    for make in (np.array, scipy.sparse.csr_matrix):
        model = MarkovStateModel(make(off))
        np.testing.assert_allclose(dense(interop.from_deeptime(model)), ROWS, rtol=1e-15)
        np.testing.assert_array_equal(scipy.sparse.csr_matrix(model.transition_matrix).toarray(), off)  # left as it was


@pytest.mark.parametrize("layout", ["dense", "sparse"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_chain_comes_back(layout: str, dtype: torch.dtype) -> None:
    weights = torch.rand(9, 9, generator=torch.Generator().manual_seed(0), dtype=dtype)
    rows = weights / weights.sum(1, keepdim=True)  # in float32, too far from one for deeptime
    chain = MarkovChain.from_transitions(rows if layout == "dense" else rows.to_sparse(), initial="uniform")
    msm = interop.to_deeptime(chain, lagtime=7)
    assert (msm.lagtime, msm.sparse) == (7, layout == "sparse")
    assert interop.to_deeptime(chain).lagtime == 1
    back = interop.from_deeptime(msm, initial="uniform")
    assert back.is_sparse is chain.is_sparse
    rtol = 1e-15 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close(dense(back), dense(chain).double(), rtol=rtol, atol=0)
    law = msm.stationary_distribution  # not the uniform law of the chain
    np.testing.assert_allclose(law @ dense(back).numpy(), law, rtol=1e-12)


@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_the_stationary_law_goes_along(layout: str) -> None:
    given = torch.from_numpy(ROWS).requires_grad_()
    chain = MarkovChain.from_transitions(given if layout == "dense" else given.to_sparse())
    msm = interop.to_deeptime(chain)
    np.testing.assert_allclose(msm.stationary_distribution, chain.initial.detach(), rtol=1e-14)
    np.testing.assert_allclose(msm.stationary_distribution @ ROWS, msm.stationary_distribution, rtol=1e-12)
    assert_same_chain(interop.from_deeptime(msm), chain.detach())
    assert msm.mfpt([0], [2]) > 1  # the library works with it


def test_a_collection_stands_for_its_selected_model() -> None:
    collection = MarkovStateModelCollection([np.eye(2), ROWS], [None, None], [None, None], [None, None], 1e-8)
    collection.select(1)
    np.testing.assert_allclose(dense(interop.from_deeptime(collection, initial="uniform")), ROWS)


def test_what_is_no_model() -> None:
    counts = TransitionCountEstimator(lagtime=1, count_mode="effective").fit_fetch(double_well_discrete().dtraj_n6good)
    posterior = BayesianMSM(n_samples=2).fit_fetch(counts)
    with pytest.raises(TypeError, match=r"posterior holds many models. Give msm\.prior, or make one chain of each"):
        interop.from_deeptime(posterior)
    assert len([interop.from_deeptime(model) for model in posterior.samples]) == 2
    with pytest.raises(TypeError, match=r"expected a deeptime MarkovStateModel, got MaximumLikelihoodMSM.*fit_fetch"):
        interop.from_deeptime(MaximumLikelihoodMSM())
    with pytest.raises(ValueError, match="to_deeptime takes a single chain"):
        interop.to_deeptime(MarkovChain.stack([sample()]))
    with pytest.raises(TypeError, match="to_deeptime takes a MarkovChain, got ndarray"):
        interop.to_deeptime(ROWS)  # type: ignore[arg-type]
    with pytest.raises(
        TypeError, match=r"as_chain does not convert MarkovStateModel\. Use markovot\.interop\.from_deeptime"
    ):
        as_chain(MarkovStateModel(ROWS))


def test_two_models_of_one_process_are_close() -> None:
    coarse, fine = (interop.from_deeptime(MarkovStateModel(ROWS), features=torch.arange(3).double()) for _ in range(2))
    value = discounted_wl(coarse, fine, costs.Euclidean(), delta=0.2, epsilon=1e-3).value
    assert value < 0.02
