"""Nested cross-validation against plain loops; what must not leak; its rules; what is refused."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from markovot import datasets
from markovot.analysis import classification
from markovot.analysis.classification import NestedCV, Setting, debias, nested_accuracy

SMALL = NestedCV(folds=4, inner_folds=3, scales=(0.3, 1.0), C=(1.0, 10.0))


def points(seed, count=36, classes=3, spread=1.0):
    """Distances between points in the plane, by classes that overlap, with a diagonal as entropy leaves it."""
    rng = np.random.default_rng(seed)
    targets = np.arange(count) % classes
    place = rng.normal(size=(count, 2)) * spread + 1.5 * targets[:, None]
    distances = np.linalg.norm(place[:, None] - place[None], axis=-1)
    own = rng.uniform(0.0, 0.5, count)
    return distances + own[:, None] / 2 + own / 2 + 0.1 * (1 - np.eye(count)), targets


@pytest.fixture(scope="module")
def molecules():
    mutag = datasets.load_mutag()
    return mutag.subset(np.r_[np.flatnonzero(mutag.targets == 1)[:18], np.flatnonzero(mutag.targets == -1)[:12]])


# --- against plain loops


def slow_predictions(matrix, targets, train, test, method, parameters):
    """What one classifier predicts, with scikit-learn's own nearest neighbours and kernels by hand."""
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC

    if method != "kernel" and parameters["debiased"]:
        matrix = matrix - np.diag(matrix)[:, None] / 2 - np.diag(matrix)[None] / 2
    inside, across = matrix[train][:, train], matrix[test][:, train]
    if method == "knn":
        model = KNeighborsClassifier(1, metric="precomputed", algorithm="brute")
        return model.fit(inside, targets[train]).predict(across)
    if method == "svm":
        off = inside[~np.eye(len(train), dtype=bool)]
        scale = parameters["scale"] * np.median(off[off > 0])
        power = {"laplacian": 1, "gaussian": 2}[parameters["kind"]]
        inside, across = (np.exp(-(np.maximum(part, 0) / scale) ** power / power) for part in (inside, across))
    return SVC(kernel="precomputed", C=parameters["C"]).fit(inside, targets[train]).predict(across)


def slow_nested(matrices, targets, method, protocol):
    """The protocol as it is told: loop over outer folds, candidates, inner folds."""
    from sklearn.model_selection import StratifiedKFold

    candidates = []
    for name in matrices:
        for debiased in protocol.debiased if method != "kernel" else [None]:
            for kind in protocol.kinds if method == "svm" else [None]:
                for scale in protocol.scales if method == "svm" else [None]:
                    for C in protocol.C if method != "knn" else [None]:
                        every = {"setting": name, "debiased": debiased, "kind": kind, "scale": scale, "C": C}
                        candidates.append({key: value for key, value in every.items() if value is not None})
    accuracy, chosen, inner_accuracy = [], [], []
    outer = StratifiedKFold(protocol.folds, shuffle=True, random_state=protocol.seed)
    for train, test in outer.split(targets, targets):
        scores = []
        for parameters in candidates:
            inner = StratifiedKFold(protocol.inner_folds, shuffle=True, random_state=protocol.seed)
            parts = []
            for a, b in inner.split(train, targets[train]):
                found = slow_predictions(
                    matrices[parameters["setting"]], targets, train[a], train[b], method, parameters
                )
                parts.append(np.mean(found == targets[train[b]]))
            scores.append(np.mean(parts))
        best = int(np.argmax(np.round(scores, 9)))
        parameters = candidates[best]
        found = slow_predictions(matrices[parameters["setting"]], targets, train, test, method, parameters)
        accuracy.append(np.mean(found == targets[test]))
        chosen.append(parameters)
        inner_accuracy.append(scores[best])
    return accuracy, chosen, inner_accuracy


@pytest.mark.parametrize("method", ["knn", "svm", "kernel"])
@pytest.mark.parametrize(
    "protocol",
    [
        SMALL,
        replace(SMALL, folds=3, inner_folds=2, seed=7, debiased=(True,), kinds=("gaussian",)),
        replace(SMALL, debiased=(True, False), kinds=("gaussian", "laplacian"), scales=(3.0, 0.1), C=(5.0,)),
    ],
)
def test_nested_accuracy_is_that_of_plain_loops(method, protocol):
    found = {name: points(seed) for name, seed in (("near", 1), ("far", 2))}
    matrices = {name: matrix for name, (matrix, _) in found.items()}
    targets = found["near"][1]
    if method == "kernel":
        matrices = {name: np.exp(-debias(matrix)) for name, matrix in matrices.items()}
    result = nested_accuracy(matrices, targets, method=method, protocol=protocol)
    accuracy, chosen, inner_accuracy = slow_nested(matrices, targets, method, protocol)
    assert list(result.chosen) == chosen
    np.testing.assert_allclose(result.accuracy, accuracy, rtol=1e-12)
    np.testing.assert_allclose(result.inner_accuracy, inner_accuracy, rtol=1e-12)
    assert result.method == method
    assert result.mean == pytest.approx(np.mean(accuracy))
    assert result.std == pytest.approx(np.std(accuracy))
    assert 0.4 < result.mean < 1.0  # neither hopeless nor so easy that mistakes would not show


def test_predictions_are_those_of_the_fold_in_which_a_graph_was_tested():
    from sklearn.model_selection import StratifiedKFold

    matrix, targets = points(3)
    names = np.array(["a", "b", "c"])[targets]
    found = nested_accuracy({"one": matrix}, names, method="knn", protocol=SMALL)
    assert set(found.predictions) <= {"a", "b", "c"}
    for fold, (_, test) in enumerate(StratifiedKFold(4, shuffle=True, random_state=42).split(targets, targets)):
        assert np.mean(found.predictions[test] == names[test]) == pytest.approx(found.accuracy[fold])


# --- what must not leak


@pytest.mark.parametrize("method", ["knn", "svm", "kernel"])
def test_the_choice_does_not_depend_on_distances_of_test_graphs(method):
    from sklearn.model_selection import StratifiedKFold

    matrices = {name: points(seed)[0] for name, seed in (("a", 4), ("b", 5), ("c", 6))}
    targets = points(4)[1]
    protocol = replace(SMALL, folds=3, C=(1.0,))
    before = nested_accuracy(matrices, targets, method=method, protocol=protocol)
    for fold, (_, test) in enumerate(StratifiedKFold(3, shuffle=True, random_state=42).split(targets, targets)):
        spoiled = {name: matrix.copy() for name, matrix in matrices.items()}
        for name, matrix in spoiled.items():
            noise = np.random.default_rng(len(name)).uniform(5.0, 9.0, matrix.shape)
            noise += noise.T
            np.fill_diagonal(noise, 0.3)
            matrix[test] = noise[test]
            matrix[:, test] = noise[:, test]
        after = nested_accuracy(spoiled, targets, method=method, protocol=protocol)
        assert after.chosen[fold] == before.chosen[fold]
        assert after.inner_accuracy[fold] == before.inner_accuracy[fold]


def test_many_meaningless_matrices_do_not_look_good():
    # The best of them on the test folds would: choosing there is what must not happen.
    targets = np.arange(60) % 2
    noise = {f"noise {seed}": points(seed, 60, 1)[0] for seed in range(40)}
    one_by_one = [
        nested_accuracy({name: matrix}, targets, method="knn", protocol=replace(SMALL, debiased=(False,))).mean
        for name, matrix in noise.items()
    ]
    found = nested_accuracy(noise, targets, method="knn", protocol=replace(SMALL, debiased=(False,)))
    assert found.mean < max(one_by_one) - 0.04
    assert found.mean < found.inner_accuracy.mean() - 0.04


# --- rules


def test_the_matrix_that_tells_is_chosen_and_of_equals_the_first():
    good, targets = points(7, spread=0.2)
    bad = points(8, classes=1)[0]
    found = nested_accuracy({"bad": bad, "good": good, "copy": good}, targets, protocol=SMALL)
    assert {each["setting"] for each in found.chosen} == {"good"}
    first = {"debiased": False, "kind": "laplacian", "scale": 0.3, "C": 1.0}
    assert any({**each, "setting": None} == {**first, "setting": None} for each in found.chosen)


def test_debiasing_is_chosen_where_the_diagonal_hides_the_classes():
    matrix, targets = points(9, spread=0.3)
    own = np.random.default_rng(9).permutation(np.linspace(0, 40, len(matrix)))
    biased = debias(matrix) + own[:, None] / 2 + own / 2
    np.fill_diagonal(biased, own)
    found = nested_accuracy({"one": biased}, targets, method="knn", protocol=SMALL)
    assert {each["debiased"] for each in found.chosen} == {True}
    assert found.mean > 0.9
    as_they_are = nested_accuracy({"one": biased}, targets, method="knn", protocol=replace(SMALL, debiased=(False,)))
    assert as_they_are.mean < found.mean


def test_of_equally_near_graphs_the_first_counts():
    from sklearn.model_selection import StratifiedKFold

    targets = np.array([0, 1] * 8)
    found = nested_accuracy({"all equal": np.ones((16, 16))}, targets, method="knn", protocol=NestedCV(2, 2))
    for train, test in StratifiedKFold(2, shuffle=True, random_state=42).split(targets, targets):
        assert (found.predictions[test] == targets[train[0]]).all()


def test_indefinite_kernels_are_told_and_can_be_clipped():
    rng = np.random.default_rng(10)
    noise = rng.uniform(0.2, 2.0, (36, 36))
    np.fill_diagonal(noise, 0.0)
    targets = points(10)[1]
    wide = replace(SMALL, scales=(1.0,))
    plain = nested_accuracy({"noise": noise + noise.T}, targets, protocol=wide)
    clipped = nested_accuracy({"noise": noise + noise.T}, targets, protocol=replace(wide, psd="clip"))
    assert plain.negative.shape == (4,)
    assert (plain.negative > 0.01).all()
    assert (plain.negative < 1.0).all()
    np.testing.assert_allclose(clipped.negative, 0.0, atol=1e-12)
    line = abs(np.subtract.outer(np.arange(36.0), np.arange(36)))  # both of its kernels are positive definite
    assert nested_accuracy({"line": line}, targets, protocol=SMALL).negative.max() < 1e-9
    assert np.isnan(nested_accuracy({"noise": noise + noise.T}, targets, method="knn", protocol=SMALL).negative).all()


def test_clipped_kernels_treat_test_rows_as_training_rows():
    from sklearn.model_selection import StratifiedKFold
    from sklearn.svm import SVC

    from markovot.sklearn import DistanceKernel

    noise = np.random.default_rng(11).uniform(0.2, 2.0, (36, 36))
    matrix, targets = noise + noise.T, points(11)[1]
    only = {"debiased": (False,), "kinds": ("laplacian",), "scales": (0.5,), "C": (10.0,)}
    protocol = NestedCV(folds=2, inner_folds=2, psd="clip", **only)
    found = nested_accuracy({"noise": matrix}, targets, protocol=protocol)
    for fold, (train, test) in enumerate(StratifiedKFold(2, shuffle=True, random_state=42).split(targets, targets)):
        kernel = DistanceKernel("laplacian", scale="0.5*median", psd="clip")
        inside = kernel.fit_transform(matrix[np.ix_(train, train)])
        machine = SVC(kernel="precomputed", C=10.0).fit(inside, targets[train])
        predicted = machine.predict(kernel.transform(matrix[np.ix_(test, train)]))
        assert found.accuracy[fold] == np.mean(predicted == targets[test])


def test_summary_is_json_and_says_everything():
    matrix, targets = points(12)
    for method in ("knn", "svm"):
        found = nested_accuracy({Setting(0.2, 0.01): matrix}, targets, method=method, protocol=SMALL)
        told = json.loads(json.dumps(found.summary(), allow_nan=False))
        assert told["method"] == method
        assert told["mean"] == found.mean
        assert told["std"] == found.std
        assert told["accuracy"] == found.accuracy.tolist()
        assert told["inner_accuracy"] == found.inner_accuracy.tolist()
        assert told["chosen"][0]["setting"] == {"delta": 0.2, "epsilon": 0.01}
        assert (told["negative"] is None) == (method == "knn")


def test_progress_is_shown_if_wanted(capfd):
    matrix, targets = points(13)
    nested_accuracy({"one": matrix}, targets, method="knn", protocol=SMALL)
    assert capfd.readouterr().err == ""
    nested_accuracy({"one": matrix}, targets, method="knn", protocol=SMALL, progress=True)
    assert "4/4" in capfd.readouterr().err


# --- what is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"folds": 1}, "folds: 1 is less than 2"),
        ({"inner_folds": 0}, "inner_folds: 0 is less than 2"),
        ({"scales": ()}, "scales: there is nothing to choose among"),
        ({"C": (1.0, 0.0)}, "C: 0.0 is out of range. It must be above 0"),
        ({"scales": (float("inf"),)}, "scales: inf is out of range. It must be above 0 and finite"),
        ({"kinds": ("cosine",)}, "kinds: 'cosine'"),
        ({"psd": "flip"}, "psd: 'flip'"),
        ({"debiased": ()}, "debiased: there is nothing"),
    ],
)
def test_bad_protocols_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        NestedCV(**arguments)


def test_bad_matrices_and_classes_are_refused():
    matrix, targets = points(14)
    broken = matrix.copy()
    broken[2] = broken[:, 2] = np.nan
    lopsided = matrix.copy()
    lopsided[3, 5] += 1.0
    for matrices, classes, message in [
        ({}, targets, "matrices: there are none"),
        ({"one": broken}, targets, r"matrices\['one'\]: NaN or infinity in row 2"),
        ({"one": lopsided}, targets, r"matrices\['one'\]: not symmetric"),
        ({"one": matrix[:5]}, targets, r"matrices\['one'\]: shape \(5, 36\)"),
        ({"one": matrix}, np.arange(40) % 3, r"matrices\['one'\]: it is of 36 graphs, and targets of 40"),
        ({"one": matrix}, targets[:, None], r"targets: shape \(36, 1\)"),
        ({"one": matrix}, [None, *targets[1:]], "targets: that of graph 0 is None, so it has no class"),
        ({"one": matrix}, np.where(targets == 1, np.nan, targets), "targets: that of graph .* is nan"),
        ({"one": matrix}, np.zeros(36), r"one class, \[0.0\]"),
        ({"one": matrix}, np.r_[np.zeros(33), np.ones(3)], "class 1.0 has 3 graphs, too few for 4 folds with 3 inside"),
    ]:
        with pytest.raises(ValueError, match=message):
            nested_accuracy(matrices, classes, method="knn", protocol=SMALL)
    few = np.r_[np.zeros(32), np.ones(4)]
    nested_accuracy({"one": matrix}, few, method="knn", protocol=SMALL)  # three in each training fold, for three
    with pytest.raises(ValueError, match=r"class 1\.0 has 4 graphs, too few for 2 folds with 3 inside"):
        nested_accuracy({"one": matrix}, few, method="knn", protocol=replace(SMALL, folds=2))
    with pytest.raises(ValueError, match="method: 'tree'"):
        nested_accuracy({"one": matrix}, targets, method="tree")


def test_distances_just_below_zero_count_as_zero():
    matrix, targets = points(15)
    matrix[matrix < 1.0] = 0.0
    below = np.where(matrix > 0, matrix, -1e-3 * np.random.default_rng(15).uniform(size=matrix.shape))
    np.fill_diagonal(below, 0.0)
    for method in ("knn", "svm"):
        wanted = nested_accuracy({"one": matrix}, targets, method=method, protocol=SMALL)
        found = nested_accuracy({"one": np.minimum(below, below.T)}, targets, method=method, protocol=SMALL)
        np.testing.assert_array_equal(found.predictions, wanted.predictions)


def test_distances_far_below_zero_are_told():
    matrix, targets = points(15)
    np.fill_diagonal(matrix, 3.0)
    with pytest.warns(UserWarning, match="far below zero"):
        nested_accuracy({"one": matrix}, targets, method="knn", protocol=replace(SMALL, debiased=(True,)))


@pytest.mark.parametrize("call", ["nested_accuracy", "classify"])
def test_without_scikit_learn_the_extra_is_named(call, monkeypatch, molecules):
    for name in [name for name in sys.modules if name.partition(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    given = (molecules,) if call == "classify" else ({"one": points(16)[0]}, points(16)[1])
    with pytest.raises(ImportError, match=rf"{call} needs sklearn.*pip install 'markovot\[sklearn\]'"):
        getattr(classification, call)(*given)
