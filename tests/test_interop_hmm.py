"""Hidden Markov models become chains with their emissions as features, on the real libraries."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from deeptime.markov.hmm import GaussianOutputModel, HiddenMarkovModel
from deeptime.markov.msm import MarkovStateModel
from hmmlearn import hmm, vhmm

from markovot import MarkovChain, as_chain, costs, discounted_wl, interop
from markovot.analysis.matching import match
from markovot.pairwise import distance_matrix

ROWS = np.array([[0.9, 0.1], [0.3, 0.7]])
START = np.array([0.25, 0.75])
MEAN = np.array([[0.0, 1.0, 2.0], [5.0, -1.0, 0.5]])


def gaussian(kind: str, given: Any) -> hmm.GaussianHMM:
    model = hmm.GaussianHMM(2, covariance_type=kind)
    model.startprob_, model.transmat_, model.means_ = START, ROWS, MEAN
    model.n_features = 3
    model.covars_ = given
    return model


def letters(kind: type, probabilities: Any = ((0.5, 0.5, 0.0), (0.1, 0.2, 0.7)), **options: Any) -> Any:
    model = kind(2, **options)
    model.startprob_, model.transmat_, model.emissionprob_ = START, ROWS, np.array(probabilities)
    return model


@pytest.fixture(autouse=True)
def _without_the_library_s_notice() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="hmmlearn")
        yield


# --- every kind of emission


FULL = np.array([[[2.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 3.0]], np.eye(3)])


@pytest.mark.parametrize(
    ("kind", "given", "wanted"),
    [
        ("full", FULL, FULL),
        ("tied", FULL[0], np.stack([FULL[0], FULL[0]])),
        ("diag", np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), np.stack([np.diag([1, 2, 3]), np.diag([4, 5, 6])])),
        ("spherical", np.array([2.0, 3.0]), np.stack([2 * np.eye(3), 3 * np.eye(3)])),
    ],
)
def test_gaussians_of_every_covariance_type(kind: str, given: np.ndarray, wanted: np.ndarray) -> None:
    chain = interop.from_hmmlearn(gaussian(kind, given), state_names=["calm", "wild"])
    assert (chain.num_states, chain.dtype, chain.state_names) == (2, torch.float64, ["calm", "wild"])
    np.testing.assert_allclose(chain.transition, ROWS, rtol=1e-15)
    np.testing.assert_allclose(chain.initial, START, rtol=1e-15)
    np.testing.assert_allclose(chain.features[:, :3], MEAN)
    np.testing.assert_allclose(chain.features[:, 3:].reshape(2, 3, 3), wanted)
    apart = costs.GaussianWasserstein(3)(chain.features, chain.features)
    assert apart[0, 1] >= np.linalg.norm(MEAN[0] - MEAN[1]) * (1 - 1e-12)


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_fitted_gaussians(kind: str) -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 1, (150, 2)), rng.normal(6, 2, (150, 2))])
    model = hmm.GaussianHMM(2, covariance_type=kind, random_state=0).fit(values)
    chain = interop.from_hmmlearn(model)
    found = chain.features[:, 2:].reshape(2, 2, 2)
    inner = np.asarray([np.cov(values[:150].T), np.cov(values[150:].T)])
    order = np.argsort(chain.features[:, 0].numpy())
    if kind == "tied":
        inner = np.stack([inner.mean(0)] * 2)
    np.testing.assert_allclose(
        np.trace(found[order].numpy(), axis1=1, axis2=2), np.trace(inner, axis1=1, axis2=2), rtol=0.2
    )


def test_letters_draws_and_counts() -> None:
    for model in (letters(hmm.CategoricalHMM), letters(hmm.MultinomialHMM, n_trials=5)):
        chain = interop.from_hmmlearn(model)
        np.testing.assert_allclose(chain.features, model.emissionprob_)
        assert costs.JensenShannon()(chain.features, chain.features)[0, 1] > 0.5
    counts = hmm.PoissonHMM(2)
    counts.startprob_, counts.transmat_, counts.lambdas_ = START, ROWS, np.array([[1.0, 4.0], [2.5, 4.0]])
    chain = interop.from_hmmlearn(counts)
    assert costs.AbsoluteDifference()(chain.features, chain.features)[0, 1] == 1.5


def test_variational_models_stand_for_their_means() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 1, (100, 2)), rng.normal(6, 1, (100, 2))])
    model = vhmm.VariationalGaussianHMM(2, random_state=0).fit(values)
    chain = interop.from_hmmlearn(model)
    np.testing.assert_allclose(chain.features[:, :2], model.means_posterior_)
    assert costs.GaussianWasserstein(2)(chain.features, chain.features)[0, 1] > 5
    drawn = vhmm.VariationalCategoricalHMM(2, random_state=0).fit(rng.integers(0, 3, (100, 1)))
    np.testing.assert_allclose(interop.from_hmmlearn(drawn).features.sum(1), 1.0)


def test_initial_laws() -> None:
    model = letters(hmm.CategoricalHMM)
    assert interop.from_hmmlearn(model).initial.tolist() == START.tolist()
    np.testing.assert_allclose(interop.from_hmmlearn(model, initial="stationary").initial, [0.75, 0.25])
    assert interop.from_hmmlearn(model, initial="uniform").initial_law == "uniform"
    law = torch.tensor([1.0, 0.0]).double()
    assert interop.from_hmmlearn(model, initial=law).initial.tolist() == [1, 0]


def test_rows_are_made_to_sum_to_one_and_the_model_is_left_alone() -> None:
    model = letters(hmm.CategoricalHMM)
    model.transmat_ = ROWS * (1 + 3e-7)
    chain = interop.from_hmmlearn(model)
    np.testing.assert_allclose(chain.transition, ROWS, rtol=1e-15)
    np.testing.assert_array_equal(model.transmat_, ROWS * (1 + 3e-7))


# --- what it is for


def test_sequences_of_two_processes_fall_into_two_groups_by_their_models() -> None:
    rng = np.random.default_rng(3)
    sources = [letters(hmm.CategoricalHMM), letters(hmm.CategoricalHMM, ((0.0, 0.4, 0.6), (0.9, 0.1, 0.0)))]
    chains, kinds = [], []
    for kind, source in enumerate(sources):
        for _ in range(3):
            values = source.sample(500, random_state=int(rng.integers(1000)))[0]
            fitted = hmm.CategoricalHMM(2, n_features=3, random_state=0, n_iter=30).fit(values)
            chains.append(interop.from_hmmlearn(fitted, initial="stationary"))
            kinds.append(kind)
    apart = distance_matrix(chains, cost=costs.JensenShannon(), delta=0.2, epsilon=0.01, progress=False).value
    same = np.equal.outer(kinds, kinds) & ~np.eye(6, dtype=bool)
    other = ~np.equal.outer(kinds, kinds)
    assert apart[same].max() < apart[other].min()


def test_hidden_states_are_matched_whatever_their_order() -> None:
    model, turned = letters(hmm.CategoricalHMM), letters(hmm.CategoricalHMM, ((0.1, 0.2, 0.7), (0.5, 0.5, 0.0)))
    turned.transmat_, turned.startprob_ = ROWS[::-1, ::-1], START[::-1]
    x, y = interop.from_hmmlearn(model), interop.from_hmmlearn(turned)
    solution = discounted_wl(x, y, costs.JensenShannon(), delta=0.2, epsilon=0.0)
    assert solution.value.item() == pytest.approx(0.0, abs=1e-9)
    assert match(solution).columns.tolist() == [1, 0]


# --- deeptime


def test_deeptime_s_hidden_models() -> None:
    output = np.array([[0.5, 0.5, 0.0], [0.1, 0.2, 0.7]])
    chain = interop.from_deeptime_hmm(HiddenMarkovModel(ROWS, output, initial_distribution=START))
    np.testing.assert_allclose(chain.transition, ROWS, rtol=1e-15)
    np.testing.assert_allclose(chain.features, output, rtol=1e-15)
    assert chain.initial.tolist() == START.tolist()
    numbers = GaussianOutputModel(2, means=np.array([0.0, 3.0]), sigmas=np.array([1.0, 2.0]))
    model = HiddenMarkovModel(ROWS, numbers)
    if model.initial_distribution is None:
        with pytest.raises(ValueError, match=r"initial: 'start', but the model has no initial_distribution"):
            interop.from_deeptime_hmm(model)
    chain = interop.from_deeptime_hmm(model, initial="stationary", state_names=["low", "high"])
    assert chain.features.tolist() == [[0.0, 1.0], [3.0, 4.0]]
    assert chain.state_names == ["low", "high"]
    np.testing.assert_allclose(chain.initial, [0.75, 0.25])
    between = costs.GaussianWasserstein(1)(chain.features, chain.features)[0, 1]
    assert between.item() == pytest.approx(np.hypot(3, 1))


def test_the_two_libraries_agree() -> None:
    output = np.array([[0.5, 0.5, 0.0], [0.1, 0.2, 0.7]])
    one = interop.from_deeptime_hmm(HiddenMarkovModel(ROWS, output), initial="stationary")
    other = interop.from_hmmlearn(letters(hmm.CategoricalHMM), initial="stationary")
    value = discounted_wl(one, other, costs.JensenShannon(), delta=0.2, epsilon=0.0).value
    assert value.item() == pytest.approx(0.0, abs=1e-9)


# --- bad input


def test_what_is_no_model() -> None:
    with pytest.raises(TypeError, match=r"model: expected a GaussianHMM.*got GMMHMM\. A mixture .* with more states"):
        interop.from_hmmlearn(hmm.GMMHMM(2))
    with pytest.raises(TypeError, match="got ndarray"):
        interop.from_hmmlearn(ROWS)
    for model, name in (
        (hmm.GaussianHMM(2), "startprob_"),
        (hmm.CategoricalHMM(2), "startprob_"),
        (hmm.PoissonHMM(2), "startprob_"),
    ):
        with pytest.raises(ValueError, match=rf"model: this {type(model).__name__} has no {name}\. Call its fit"):
            interop.from_hmmlearn(model)
    with pytest.raises(TypeError, match=r"expected a deeptime HiddenMarkovModel, got MarkovStateModel"):
        interop.from_deeptime_hmm(MarkovStateModel(ROWS))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("transmat_", [[0.0, 0.0], [0.3, 0.7]], r"in transmat_, state 0 was never left: fit fewer components"),
        ("transmat_", [[0.5, 0.6], [0.3, 0.7]], r"row 0 of transmat_ sums to 1\.1, its least entry is 0\.5"),
        ("transmat_", [[0.5, 0.5], [-0.3, 1.3]], r"row 1 of transmat_ sums to 1, its least entry is -0\.3"),
        ("startprob_", [0.0, 0.0], "in startprob_, state 0 holds no start"),
        ("emissionprob_", [[0.5, 0.5], [0.0, 0.0]], "in emissionprob_, state 1 emits nothing: fit fewer components"),
        ("emissionprob_", [[0.5, np.nan], [0.5, 0.5]], "row 0 of emissionprob_ sums to nan"),
    ],
)
def test_broken_models(name: str, value: Any, message: str) -> None:
    model = letters(hmm.CategoricalHMM)
    setattr(model, name, np.array(value))
    with pytest.raises(ValueError, match=message):
        interop.from_hmmlearn(model)


def test_as_chain_names_the_function() -> None:
    with pytest.raises(TypeError, match=r"as_chain does not convert CategoricalHMM\. Use markovot\.interop\.from_hmml"):
        as_chain(letters(hmm.CategoricalHMM))
    with pytest.raises(TypeError, match=r"HiddenMarkovModel\. Use .* or from_deeptime_hmm\(model\)"):
        as_chain(HiddenMarkovModel(ROWS, np.eye(2)))
    assert isinstance(as_chain(interop.from_hmmlearn(letters(hmm.CategoricalHMM))), MarkovChain)
