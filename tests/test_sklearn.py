"""MarkovDistance and DistanceKernel: the right numbers, and at home in scikit-learn."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import markovot
from markovot import MarkovChain, SolveError, Status, costs, datasets, pairwise
from markovot.analysis import similarity

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

from markovot.sklearn import DistanceKernel, MarkovDistance

GRID = {"distancekernel__scale": ["0.5*median", "median", 0.1], "svc__C": [1.0, 10.0]}


@pytest.fixture(scope="module")
def mutag():
    """Small molecules, of the two classes by turns."""
    data = datasets.load_mutag()
    small = [i for i, chain in enumerate(data.chains) if chain.num_states <= 17]
    classes = ([i for i in small if data.targets[i] == target] for target in (1, -1))
    chosen = [i for pair in zip(*classes, strict=False) for i in pair][:28]
    return [data.chains[i] for i in chosen], data.targets[chosen]


@pytest.fixture(scope="module")
def distances(mutag):
    return MarkovDistance(costs.ZeroOne()).fit_transform(mutag[0])


@pytest.fixture
def solved(monkeypatch):
    """Counts the pairs that are handed to the solver."""
    count = [0]
    real = pairwise.distance_matrix

    def counting(chains, others=None, **options):
        count[0] += len(chains) * (len(chains) + 1) // 2 if others is None else len(chains) * len(others)
        return real(chains, others, **options)

    monkeypatch.setattr(pairwise, "distance_matrix", counting)
    return count


def machine(**options):
    return make_pipeline(DistanceKernel(**options), SVC(kernel="precomputed"))


def points(n: int, seed: int, dimension: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dimension))


def apart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.sqrt(np.square(x[:, None] - y).sum(-1))


def indefinite(n: int = 12, seed: int = 3) -> np.ndarray:
    """Symmetric numbers that satisfy no triangle inequality, so that their kernels are indefinite."""
    numbers = np.random.default_rng(seed).uniform(0.1, 3.0, size=(n, n))
    numbers = (numbers + numbers.T) / 2
    np.fill_diagonal(numbers, 0.0)
    return numbers


# --- MarkovDistance


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"delta": 0.5},
        {"epsilon": 0.1},
        {"debiased": True, "epsilon": 0.05},
        {"rtol": 1e-8},
        {"cost": costs.AbsoluteDifference(), "delta": 0.9},
    ],
)
def test_entries_are_distances_between_new_and_fitted_chains(mutag, options):
    chains = mutag[0][:5]
    if "cost" in options:
        chains = [
            MarkovChain.from_adjacency(
                torch.ones(n, n, dtype=torch.float64), features=torch.arange(n, dtype=torch.float64)
            )
            for n in (1, 2, 3, 4, 5)
        ]
    problem = {"delta": 0.2, "epsilon": 0.01, "cost": costs.ZeroOne()} | options
    debiased = problem.pop("debiased", False)

    def distance(x, y):
        return float(markovot.discounted_wl(x, y, **problem).value)

    def expected(x, y):
        return max(0.0, distance(x, y) - debiased * (distance(x, x) + distance(y, y)) / 2)

    estimator = MarkovDistance(**({"cost": costs.ZeroOne()} | options)).fit(chains[:3])
    found = estimator.transform(chains[3:])
    assert found.shape == (2, 3)
    assert found.dtype == np.float64
    assert_allclose(found, [[expected(x, y) for y in chains[:3]] for x in chains[3:]], rtol=0, atol=4e-4)
    solution = estimator.solve(chains[3:])
    assert_array_equal(np.maximum(solution.value, 0.0), found)
    assert solution.error_bound.shape == solution.status.shape == (2, 3)
    assert solution.error_bound.max() <= (1e-8 if "rtol" in options else 2e-4 * (4 if "cost" in options else 1))


def test_fit_transform_is_the_symmetric_matrix_and_solves_each_pair_once(mutag, solved):
    chains = mutag[0][:6]
    estimator = MarkovDistance(costs.ZeroOne())
    found = estimator.fit_transform(chains)
    assert solved == [21]
    whole = pairwise.distance_matrix(chains, cost=costs.ZeroOne(), delta=0.2, epsilon=0.01, progress=False)
    assert_array_equal(found, whole.value)
    assert_array_equal(found, found.T)
    assert_array_equal(estimator.error_bound_, whole.error_bound)
    assert (estimator.status_ == Status.CONVERGED).all()


def test_fit_alone_solves_nothing_and_keeps_no_bounds_of_before(mutag, solved):
    estimator = MarkovDistance(costs.ZeroOne())
    estimator.fit_transform(mutag[0][:3])
    solved[0] = 0
    assert estimator.fit(mutag[0][:2]) is estimator
    assert solved == [0]
    assert not hasattr(estimator, "error_bound_")
    assert not hasattr(estimator, "status_")


def test_transform_changes_nothing_whether_it_succeeds_or_fails(mutag):
    estimator = MarkovDistance(costs.ZeroOne())
    for fit in (estimator.fit, estimator.fit_transform):
        fit(mutag[0][:3])
        before = dict(vars(estimator))
        estimator.transform(mutag[0][3:5])
        assert vars(estimator).keys() == before.keys()
        assert all(vars(estimator)[name] is part for name, part in before.items())
    assert estimator.error_bound_.shape == (3, 3)
    estimator.set_params(max_iter=1, rtol=1e-12)
    with pytest.raises(SolveError):
        estimator.transform(mutag[0][3:5])
    assert_array_equal(estimator.error_bound_, before["error_bound_"])
    with pytest.raises(SolveError):
        estimator.fit_transform(mutag[0][:3])
    assert not hasattr(estimator, "error_bound_")  # those of before are not taken for its own


@pytest.mark.parametrize(("debiased", "lowest"), [(True, 0.0), (False, -0.5)])
def test_only_what_debiasing_leaves_below_zero_is_given_as_zero(mutag, monkeypatch, debiased, lowest):
    real = pairwise.distance_matrix

    def lower(*chains, **options):
        found = real(*chains, **options)
        return dataclasses.replace(found, value=np.where(np.eye(len(found.value)), -0.5, found.value))

    monkeypatch.setattr(pairwise, "distance_matrix", lower)
    found = MarkovDistance(costs.ZeroOne(), debiased=debiased).fit_transform(mutag[0][:3])
    assert found.min() == lowest
    assert found[0, 1] > 0.0


def test_rounding_below_zero_is_given_as_zero_without_debiasing_too(mutag, monkeypatch):
    from sklearn.neighbors import KNeighborsClassifier

    real = pairwise.distance_matrix

    def rounded(*chains, **options):
        found = real(*chains, **options)
        bound = np.maximum(found.error_bound, 1e-17)
        value = np.where(np.eye(len(found.value)), -2.2e-18, found.value)
        return dataclasses.replace(found, value=value, error_bound=bound)

    monkeypatch.setattr(pairwise, "distance_matrix", rounded)
    distances = MarkovDistance(costs.ZeroOne(), epsilon=0.0).fit_transform(mutag[0][:3])
    assert distances.min() == 0.0
    KNeighborsClassifier(1, metric="precomputed").fit(distances, [0, 1, 0])  # refuses anything below zero


def test_progress_is_shown_only_when_wanted(mutag, capfd):
    MarkovDistance(costs.ZeroOne()).fit_transform(mutag[0][:2])
    assert capfd.readouterr().err == ""
    MarkovDistance(costs.ZeroOne(), progress=True).fit_transform(mutag[0][:2])
    assert "3/3" in capfd.readouterr().err


def test_chains_come_in_every_form(distances, mutag):
    chains = mutag[0][:3]
    estimator = MarkovDistance(costs.ZeroOne())
    objects = np.empty(3, dtype=object)
    objects[:] = chains
    for form in (tuple(chains), objects, iter(chains), MarkovChain.stack(chains)):
        assert_allclose(estimator.fit_transform(form), distances[:3, :3], rtol=0, atol=1e-12)
    flip, labels = np.array([[0.0, 1.0], [1.0, 0.0]]), ["a", "b"]
    assert estimator.fit_transform([(flip, labels), (flip, labels[::-1])]).shape == (2, 2)


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (lambda chains: chains[0], TypeError, "X: expected a list of chains, got a single chain. Put what you have"),
        (lambda chains: "MUTAG", TypeError, "X: expected a list of chains, got str"),
        (lambda chains: 3, TypeError, "X: expected a list of chains, got int"),
        (lambda chains: datasets.load_mutag(), TypeError, "got a GraphDataset. Give its `.chains`"),
        (lambda chains: [], ValueError, "X: there are no chains. Give at least one"),
        (lambda chains: [chains[0], 3], TypeError, r"X\[1\]: chain: cannot make one from int"),
        (lambda chains: np.eye(3), ValueError, r"X\[0\]: transition: shape \(3,\)"),
        (lambda chains: [np.eye(2) * 2], ValueError, r"X\[0\]: transition: row \(?0\)? sums to 2"),
        (lambda chains: [chains[0], MarkovChain.stack(chains[:2])], ValueError, r"X\[1\]: a batch \(2,\) of chains"),
    ],
)
def test_what_is_no_list_of_chains_is_refused(mutag, bad, error, message):
    with pytest.raises(error, match=message):
        MarkovDistance(costs.ZeroOne()).fit(bad(mutag[0]))
    with pytest.raises(error, match=message):
        MarkovDistance(costs.ZeroOne()).fit(mutag[0][:2]).transform(bad(mutag[0]))


def test_an_unfitted_estimator_says_so(mutag, distances):
    with pytest.raises(NotFittedError, match="MarkovDistance"):
        MarkovDistance(costs.ZeroOne()).transform(mutag[0])
    with pytest.raises(NotFittedError, match="DistanceKernel"):
        DistanceKernel().transform(distances)


def test_pairs_that_do_not_converge_are_an_error_or_a_warning(mutag):
    hasty = {"max_iter": 1, "rtol": 1e-12}
    with pytest.raises(SolveError, match="9 of 9 pairs were not solved"):
        MarkovDistance(costs.ZeroOne(), **hasty).fit_transform(mutag[0][:3])
    tolerant = MarkovDistance(costs.ZeroOne(), **hasty, throw=False)
    message = r"of 9 distances were not solved .* Status.MAX_ITER_REACHED.*`solve` gives the status"
    with pytest.warns(ConvergenceWarning, match=message) as caught:
        found = tolerant.fit_transform(mutag[0][:3])
    assert caught[0].filename == __file__
    assert np.isfinite(found).all()
    assert (tolerant.status_ == Status.MAX_ITER_REACHED).any()
    with pytest.warns(ConvergenceWarning, match="of 6 distances"):
        assert tolerant.transform(mutag[0][3:5]).shape == (2, 3)
    assert (tolerant.solve(mutag[0][3:5]).status == Status.MAX_ITER_REACHED).any()  # and says no more


def test_an_invalid_chain_is_an_error_or_a_row_of_nan(mutag):
    # Two closed parts: no unique stationary law, which shows when it is computed.
    apart = MarkovChain.from_transitions(torch.eye(2, dtype=torch.float64), features=torch.zeros(2, dtype=torch.int64))
    chains = [mutag[0][0], apart, mutag[0][1]]
    with pytest.raises(SolveError, match=r"chains\[1\] .*stationary"):
        MarkovDistance(costs.ZeroOne()).fit_transform(chains)
    with pytest.warns(ConvergenceWarning, match=r"5 of 9 distances .* chains\[1\] is invalid: .*stationary"):
        found = MarkovDistance(costs.ZeroOne(), throw=False).fit_transform(chains)
    assert_array_equal(np.isnan(found), [[False, True, False], [True, True, True], [False, True, False]])
    with pytest.raises(ValueError, match=r"X: NaN or infinity in row 1, where 3 of 3 .* an invalid chain: mend it"):
        DistanceKernel().fit(found)


# --- DistanceKernel


@pytest.mark.parametrize(
    ("kind", "formula"),
    [("laplacian", lambda d, s: np.exp(-d / s)), ("gaussian", lambda d, s: np.exp(-(d**2) / (2 * s**2)))],
)
@pytest.mark.parametrize(("scale", "factor"), [("median", 1.0), ("0.5*median", 0.5), ("2 * median", 2.0), (0.7, None)])
def test_a_kernel_is_its_formula_at_its_scale(kind, formula, scale, factor):
    x, y = points(7, 0), points(4, 1)
    train = apart(x, x)
    pairs = [train[i, j] for i in range(7) for j in range(i)]
    s = scale if factor is None else factor * np.median(pairs)
    estimator = DistanceKernel(kind, scale=scale).fit(train)
    assert_allclose(estimator.scale_, s, rtol=1e-12)
    assert_allclose(estimator.transform(apart(y, x)), formula(apart(y, x), s), rtol=1e-12)
    assert_allclose(DistanceKernel(kind, scale=scale).fit_transform(train), formula(train, s), rtol=1e-12)


def test_the_median_is_of_positive_distances_between_different_samples():
    train = np.array([[0.3, 0.0, 1.0], [0.0, 0.3, 2.0], [1.0, 2.0, 0.3]])
    kernel = DistanceKernel().fit(train)
    assert kernel.scale_ == 1.5
    # The diagonal is used as it stands: a sample's similarity to itself is the same in training and test rows.
    assert_allclose(np.diag(kernel.transform(train)), np.exp(-0.2), rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"kind": "cauchy"}, ValueError, "kind: 'cauchy' is not one of 'laplacian', 'gaussian'"),
        ({"psd": "flip"}, ValueError, "psd: 'flip' is not one of 'none', 'clip'"),
        ({"scale": "mean"}, ValueError, "scale: 'mean' is neither 'median' nor a positive multiple"),
        ({"scale": "x*median"}, ValueError, r"scale: 'x\*median' is neither"),
        ({"scale": "0*median"}, ValueError, r"scale: '0\*median' is neither"),
        ({"scale": "nan*median"}, ValueError, r"scale: 'nan\*median' is neither"),
        ({"scale": 0}, ValueError, "scale: 0 is not positive"),
        ({"scale": -1.0}, ValueError, "scale: -1.0 is out of range"),
        ({"scale": None}, TypeError, "scale: expected a number, got NoneType"),
    ],
)
def test_bad_parameters_are_refused_by_fit(options, error, message):
    with pytest.raises(error, match=message):
        DistanceKernel(**options).fit(apart(points(4, 0), points(4, 0)))


def test_no_median_is_an_error_and_a_given_scale_needs_none():
    for train in (np.zeros((3, 3)), np.array([[0.2]])):
        with pytest.raises(ValueError, match=r"scale: there is no median among .* Give more samples, or a number"):
            DistanceKernel().fit(train)
        assert DistanceKernel(scale=2.0).fit_transform(train).shape == train.shape


def test_training_distances_must_be_square_and_symmetric_up_to_certified_errors():
    train = apart(points(5, 0), points(5, 0))
    with pytest.raises(ValueError, match=r"X: shape \(4, 5\) is not that of a square matrix"):
        DistanceKernel().fit(train[:4])
    skewed = train.copy()
    skewed[1, 3] += 0.1
    with pytest.raises(ValueError, match=r"X: not symmetric. Entry \((1, 3|3, 1)\) is .* Average the two"):
        DistanceKernel().fit(skewed)
    noisy = train + 1e-4 * np.random.default_rng(0).uniform(-1, 1, size=train.shape) * train.max()
    for psd in ("none", "clip"):
        assert_allclose(
            DistanceKernel(psd=psd).fit_transform(noisy), DistanceKernel(psd=psd).fit_transform(train), atol=2e-3
        )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_distances_that_are_not_finite_are_refused_by_row(bad):
    train = apart(points(5, 0), points(5, 0))
    broken = train.copy()
    broken[3], broken[:, 3] = bad, bad
    with pytest.raises(ValueError, match=f"row 3, where 5 of 5 distances are not finite; the first is {bad} in col"):
        DistanceKernel().fit(broken)
    kernel = DistanceKernel().fit(train)
    with pytest.raises(ValueError, match=r"row 0, where 1 of 5 .* column 3"):
        kernel.transform(broken[:2])


def test_rows_of_another_length_are_refused_in_scikit_learns_words():
    train = apart(points(5, 0), points(5, 0))
    with pytest.raises(ValueError, match="X has 3 features, but DistanceKernel is expecting 5 features as input"):
        DistanceKernel().fit(train).transform(train[:, :3])


@pytest.mark.parametrize("kind", ["laplacian", "gaussian"])
def test_distances_below_zero_count_as_zero_and_far_below_they_are_told(kind):
    train = apart(points(5, 0), points(5, 0))
    near, far, zero = train.copy(), train.copy(), train.copy()
    for matrix, value in ((near, -1e-6), (far, -0.5), (zero, 0.0)):
        matrix[0, 1] = matrix[1, 0] = value
    expected = DistanceKernel(kind, scale=1.0).fit_transform(zero)
    assert_array_equal(DistanceKernel(kind, scale=1.0).fit_transform(near), expected)
    with pytest.warns(UserWarning, match="X: the smallest distance is -0.5, far below zero beside a typical one of 1;"):
        assert_array_equal(DistanceKernel(kind, scale=1.0).fit_transform(far), expected)


# --- clipping


@pytest.mark.parametrize("kind", ["laplacian", "gaussian"])
def test_clipping_drops_what_is_negative_and_treats_test_rows_as_training_rows(kind):
    train = indefinite()
    plain = DistanceKernel(kind).fit_transform(train)
    values, vectors = np.linalg.eigh(plain)
    assert values[0] < -1e-3
    clipped = DistanceKernel(kind, psd="clip")
    found = clipped.fit_transform(train)
    assert_allclose(found, vectors @ np.diag(np.maximum(values, 0)) @ vectors.T, rtol=0, atol=1e-12)
    assert_array_equal(found, found.T)
    assert clipped.n_clipped_ == (values < 0).sum()
    assert_allclose(clipped.clipped_mass_, -values[values < 0].sum() / np.abs(values).sum(), rtol=1e-10)
    # A test sample that is a training sample gets its row; each row is by itself.
    assert_allclose(clipped.transform(train[[4, 1]]), found[[4, 1]], rtol=0, atol=1e-12)


def test_a_clipped_test_row_is_what_its_positive_coordinates_give():
    # The training items' coordinates along the positive axes, and the new item's by least squares: the row is the
    # product of the two.
    train = indefinite()
    new = np.random.default_rng(5).uniform(0.1, 3.0, size=(3, 12))
    values, vectors = np.linalg.eigh(DistanceKernel().fit_transform(train))
    coordinates = vectors[:, values > 0] * np.sqrt(values[values > 0])
    rows = DistanceKernel().fit(train).transform(new)
    own = np.linalg.lstsq(coordinates, rows.T, rcond=None)[0]
    assert_allclose(DistanceKernel(psd="clip").fit(train).transform(new), own.T @ coordinates.T, rtol=0, atol=1e-12)


def test_clipping_leaves_a_positive_kernel_as_it_is_to_the_bit():
    x, y = points(9, 0), points(4, 1)
    x[3] = x[2]  # a duplicate: the kernel is singular, which is not indefinite
    plain, clipped = (DistanceKernel("gaussian", psd=psd).fit(apart(x, x)) for psd in ("none", "clip"))
    assert (clipped.n_clipped_, clipped.clipped_mass_, clipped.projection_) == (0, 0.0, None)
    assert_array_equal(clipped.transform(apart(y, x)), plain.transform(apart(y, x)))


def test_a_second_fit_forgets_the_first():
    kernel = DistanceKernel(psd="clip").fit(indefinite())
    assert kernel.projection_ is not None
    kernel.set_params(psd="none").fit(apart(points(4, 0), points(4, 0)))
    assert not hasattr(kernel, "projection_")
    assert kernel.n_features_in_ == 4


def test_clip_takes_the_symmetric_part():
    matrix = indefinite() + np.triu(np.ones((12, 12)), 1)
    assert_array_equal(similarity.clip(matrix).projection, similarity.clip((matrix + matrix.T) / 2).projection)


# --- at home in scikit-learn


@pytest.mark.filterwarnings("ignore:X. the smallest distance is:UserWarning")  # the checks hand in inner products
@parametrize_with_checks([DistanceKernel(), DistanceKernel("gaussian", psd="clip")])
def test_the_kernel_passes_scikit_learns_own_checks(estimator, check):
    check(estimator)


def test_only_what_takes_a_matrix_of_pairs_is_tagged_so():
    distance = MarkovDistance(costs.ZeroOne())
    assert not get_tags(distance).input_tags.pairwise
    assert not get_tags(distance).input_tags.two_d_array
    assert get_tags(DistanceKernel()).input_tags.pairwise
    assert get_tags(machine()).input_tags.pairwise
    assert get_tags(GridSearchCV(machine(), GRID)).input_tags.pairwise
    assert not get_tags(make_pipeline(distance, machine())).input_tags.pairwise


def test_estimators_are_cloned_with_their_parameters_and_without_what_they_learned(mutag):
    given = {
        "cost": costs.Euclidean(),
        "delta": 0.3,
        "epsilon": 0.2,
        "debiased": True,
        "rtol": 1e-3,
        "max_iter": 50,
        "progress": True,
        "throw": False,
    }
    distance = clone(MarkovDistance(**given).fit(mutag[0][:2]))
    assert distance.get_params() == given
    assert not hasattr(distance, "chains_")
    assert "delta=0.3" in repr(distance)
    assert distance.set_params(delta=0.4).delta == 0.4
    kernel = clone(DistanceKernel("gaussian", scale="3*median", psd="clip").fit(indefinite()))
    assert kernel.get_params() == {"kind": "gaussian", "scale": "3*median", "psd": "clip"}
    assert not hasattr(kernel, "scale_")


def test_a_fitted_pipeline_survives_pickling(mutag):
    chains, targets = mutag
    model = make_pipeline(MarkovDistance(costs.ZeroOne()), DistanceKernel(psd="clip"), SVC(kernel="precomputed"))
    model.fit(chains[:20], targets[:20])
    again = pickle.loads(pickle.dumps(model))
    assert_array_equal(again.predict(chains[20:]), model.predict(chains[20:]))
    assert_array_equal(again[:-1].transform(chains[20:]), model[:-1].transform(chains[20:]))
    assert_array_equal(again[0].error_bound_, model[0].error_bound_)


def test_a_fitted_estimator_can_be_copied_though_its_chains_have_gradients():
    weights = torch.rand(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    chains = [MarkovChain.from_adjacency(weights * k, features=torch.arange(3)) for k in (1, 2)]
    estimator = MarkovDistance(costs.ZeroOne()).fit(chains)
    for again in (copy.deepcopy(estimator), pickle.loads(pickle.dumps(estimator))):
        assert_array_equal(again.transform(chains), estimator.transform(chains))


def test_columns_have_names_and_pandas_comes_out_if_wanted(mutag):
    pandas = pytest.importorskip("pandas")
    model = make_pipeline(MarkovDistance(costs.ZeroOne()), DistanceKernel()).set_output(transform="pandas")
    frame = model.fit_transform(mutag[0][:3])
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == ["distancekernel0", "distancekernel1", "distancekernel2"]
    assert list(model[0].get_feature_names_out()) == ["markovdistance0", "markovdistance1", "markovdistance2"]
    assert model.transform(mutag[0][3:5]).shape == (2, 3)


def test_cross_validation_of_the_whole_pipeline_equals_that_of_slices(mutag, distances):
    chains, targets = mutag
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    kernel, svm = DistanceKernel(scale="0.5*median"), SVC(kernel="precomputed")
    whole = make_pipeline(MarkovDistance(costs.ZeroOne()), kernel, svm)
    scores = []
    for train, test in folds.split(np.zeros(len(targets)), targets):
        train_distances = distances[np.ix_(train, train)]
        scale = 0.5 * np.median(train_distances[np.triu_indices(len(train), 1)])
        svm.fit(np.exp(-train_distances / scale), targets[train])
        scores.append(svm.score(np.exp(-distances[np.ix_(test, train)] / scale), targets[test]))
    assert_array_equal(cross_val_score(whole, chains, targets, cv=folds), scores)
    # On the matrix: rows and columns are cut together, because the pipeline says that it takes pairs.
    assert_array_equal(cross_val_score(machine(scale="0.5*median"), distances, targets, cv=folds), scores)
    assert np.mean(scores) > 0.6


def test_a_search_around_the_whole_pipeline_works(mutag):
    chains, targets = mutag
    pipeline = make_pipeline(MarkovDistance(costs.ZeroOne()), DistanceKernel(), SVC(kernel="precomputed"))
    grid = {"markovdistance__delta": [0.2, 1.0], "distancekernel__kind": ["laplacian", "gaussian"]}
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(chains[:16], targets[:16])
    assert len(search.cv_results_["params"]) == 4
    assert search.predict(chains[16:18]).shape == (2,)


def test_a_search_within_the_pipeline_solves_each_pair_once(mutag, solved):
    chains, targets = mutag
    search = GridSearchCV(machine(), GRID, cv=3, error_score="raise")
    model = make_pipeline(MarkovDistance(costs.ZeroOne()), search).fit(chains[:20], targets[:20])
    assert solved == [20 * 21 // 2]
    assert len(model[-1].cv_results_["params"]) == 6
    model.predict(chains[20:])
    assert solved == [20 * 21 // 2 + 8 * 20]


def test_a_search_on_the_matrix_solves_each_pair_once(mutag, solved):
    chains, targets = mutag
    matrix = MarkovDistance(costs.ZeroOne()).fit_transform(chains[:20])
    search = GridSearchCV(machine(), GRID, cv=3, error_score="raise")
    scores = cross_val_score(search, matrix, targets[:20], cv=2)
    assert solved == [20 * 21 // 2]
    assert scores.shape == (2,)
    inside = make_pipeline(MarkovDistance(costs.ZeroOne()), GridSearchCV(machine(), GRID, cv=3))
    inside.fit(chains[:20], targets[:20])
    assert inside[-1].best_params_ == search.fit(matrix, targets[:20]).best_params_


@pytest.mark.parametrize("debiased", [False, True])
def test_nearest_neighbours_take_the_distances_as_they_come(mutag, debiased):
    chains, targets = mutag
    model = make_pipeline(
        MarkovDistance(costs.ZeroOne(), debiased=debiased), KNeighborsClassifier(1, metric="precomputed")
    )
    model.fit(chains[:20], targets[:20])
    rows = model[0].transform(chains[20:])
    assert_array_equal(model.predict(chains[20:]), targets[:20][rows.argmin(1)])
    assert cross_val_score(model, chains, targets, cv=3, error_score="raise").mean() > 0.6
