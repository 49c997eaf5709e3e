"""From data sets to distances and accuracies; the experiment of the benchmarks as a whole, and its rivals."""

import importlib
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from conftest import ROOT
from markovot import costs, datasets, pairwise
from markovot.analysis import classification
from markovot.analysis.classification import NestedCV, classify, debias, distance_matrices, ground, nested_accuracy
from markovot.chains import MarkovChain

SMALL = NestedCV(folds=4, inner_folds=3, scales=(0.3, 1.0), C=(1.0, 10.0))


@pytest.fixture(scope="module")
def molecules():
    mutag = datasets.load_mutag()
    return mutag.subset(np.r_[np.flatnonzero(mutag.targets == 1)[:18], np.flatnonzero(mutag.targets == -1)[:12]])


# --- distances


def test_debiased_distances_are_those_of_the_engine(molecules):
    chains = molecules.chains[:6]
    given = {"cost": costs.ZeroOne(), "delta": 0.2, "epsilon": 0.05, "progress": False}
    plain = pairwise.distance_matrix(chains, **given)
    wanted = pairwise.distance_matrix(chains, **given, debiased=True)
    np.testing.assert_allclose(debias(plain.value), wanted.value, atol=1e-12)
    assert (np.diag(debias(plain.value)) == 0).all()


def test_matrices_are_those_of_every_delta_with_every_epsilon(molecules):
    some = molecules.subset(range(5))
    found = distance_matrices(some, deltas=[0.2, 0.5], epsilons=[0.01, 0.1], progress=False)
    assert list(found) == [(0.2, 0.01), (0.2, 0.1), (0.5, 0.01), (0.5, 0.1)]
    for (delta, epsilon), each in found.items():
        wanted = pairwise.distance_matrix(
            some.chains, cost=costs.ZeroOne(), delta=delta, epsilon=epsilon, progress=False
        )
        np.testing.assert_array_equal(each.value, wanted.value)
    assert list(distance_matrices(some, progress=False)) == [(0.1, 0.01), (0.2, 0.01), (0.5, 0.01)]


def attributed(features):
    """Complete graphs whose nodes have given attributes."""
    walks = [torch.ones(len(part), len(part), dtype=torch.float64) for part in features]
    chains = [MarkovChain.from_adjacency(walk, features=part) for walk, part in zip(walks, features, strict=True)]
    return datasets.GraphDataset(
        name="SMALL", chains=chains, targets=np.arange(len(chains)), target_names={}, feature_kind="attributes",
        numbers=np.arange(len(chains)),
    )  # fmt: skip


def test_labels_and_degrees_cost_zero_or_one(molecules):
    for kind in ("labels", "degree"):
        chains, cost, unit = ground(replace(molecules, feature_kind=kind))
        assert chains == molecules.chains
        assert (cost, unit) == (costs.ZeroOne(), 1.0)


def test_attributes_are_standardised_over_all_nodes():
    rng = np.random.default_rng(17)
    parts = [torch.from_numpy(rng.normal([5.0, -2.0, 5.7], [100.0, 0.01, 0.0], (size, 3))) for size in (4, 7, 3)]
    dataset = attributed(parts)
    chains, cost, unit = ground(dataset)
    nodes = torch.cat([chain.features for chain in chains])
    torch.testing.assert_close(nodes.mean(0), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(nodes.std(0, correction=0)[:2], torch.ones(2, dtype=torch.float64))
    assert nodes[:, 2].abs().max() < 1e-12  # constant
    assert cost == costs.Euclidean()
    gaps = (nodes[:, None] - nodes[None]).square().sum(-1).sqrt()
    assert unit == pytest.approx(float(gaps.mean()))
    assert torch.equal(dataset.chains[0].features, parts[0])  # the caller's chains stay as they are
    assert [chain.num_states for chain in chains] == [4, 7, 3]
    plain = ground(dataset, standardise=False)
    torch.testing.assert_close(plain.chains[1].features, parts[1])
    raw = torch.cat(parts)
    assert plain.unit == pytest.approx(float((raw[:, None] - raw[None]).square().sum(-1).sqrt().mean()))


def test_one_attribute_a_node_may_be_a_plain_vector():
    dataset = attributed([torch.tensor([0.0, 4.0], dtype=torch.float64), torch.tensor([2.0], dtype=torch.float64)])
    chains, _, unit = ground(dataset, standardise=False)
    assert chains[0].features.shape == (2, 1)
    assert unit == pytest.approx(2 * (4 + 2 + 2) / 9)
    assert ground(attributed([torch.ones(2, 1, dtype=torch.float64)])).unit == 1.0  # nothing to measure by


def test_the_unit_of_large_sets_is_taken_from_a_sample():
    nodes = torch.from_numpy(np.random.default_rng(18).normal(size=(5000, 2))).sort(0).values[:, :1]
    unit = classification.matrices._mean_cost(nodes)
    assert unit == pytest.approx(2 / np.sqrt(np.pi), rel=0.03)  # the mean distance of two normal numbers
    assert unit == classification.matrices._mean_cost(nodes)


def test_epsilon_is_in_units_of_the_mean_cost():
    rng = np.random.default_rng(19)
    parts = [torch.from_numpy(rng.normal(size=(size, 2))) for size in (3, 4, 5)]
    for standardise in (True, False):
        chains, cost, unit = ground(attributed(parts), standardise=standardise)
        assert unit != pytest.approx(1.0, rel=0.1)
        found = distance_matrices(
            attributed(parts), deltas=[0.3], epsilons=[0.05], standardise=standardise, progress=False
        )
        wanted = pairwise.distance_matrix(chains, cost=cost, delta=0.3, epsilon=0.05 * unit, progress=False)
        np.testing.assert_array_equal(found[0.3, 0.05].value, wanted.value)
    # Attributes in other units: the same distances, once standardised.
    given = {"deltas": [0.3], "epsilons": [0.05], "progress": False, "rtol": 1e-8}
    scaled = [part * torch.tensor([1e3, 1e-3], dtype=torch.float64) for part in parts]
    one, other = (distance_matrices(attributed(each), **given) for each in (parts, scaled))
    np.testing.assert_allclose(one[0.3, 0.05].value, other[0.3, 0.05].value, rtol=1e-6)


def test_how_it_is_solved_is_passed_on(molecules, tmp_path, capfd):
    some = molecules.subset(range(4))
    folder = tmp_path / "not" / "there"
    loose = distance_matrices(
        some, deltas=[0.2, 0.5], rtol=1e-2, checkpoint=folder, progress=False
    )
    assert capfd.readouterr().err == ""
    names = {path.name for path in folder.glob("*.checkpoint")}
    assert names == {f"MUTAG-delta-{delta}-epsilon-0.01.checkpoint" for delta in (0.2, 0.5)}
    tight = distance_matrices(some, deltas=[0.2], rtol=1e-7, progress=True)
    assert "pair/s" in capfd.readouterr().err
    assert 1e-6 < np.abs(loose[0.2, 0.01].value - tight[0.2, 0.01].value).max() < 1e-2
    with pytest.raises(ValueError, match="checkpoint"):  # it was made with another solver
        distance_matrices(some, deltas=[0.2], checkpoint=str(folder), progress=False)
    calls = []
    with ThreadPoolExecutor(1) as pool:
        counting = SimpleNamespace(submit=lambda *given: (calls.append(1), pool.submit(*given))[1])
        distance_matrices(some, deltas=[0.2], executor=counting, progress=False)
    assert calls


def test_failures_are_raised_or_left_in_the_status(molecules):
    hasty = {"deltas": [0.02], "rtol": 1e-9, "max_iter": 1, "progress": False}
    some = molecules.subset(range(4))
    with pytest.raises(RuntimeError, match="pairs were not solved"):
        distance_matrices(some, **hasty)
    found = distance_matrices(some, **hasty, throw=False)[0.02, 0.01]
    assert not found.converged.all()
    assert np.isfinite(found.value).all()


def test_no_settings_and_unknown_features_are_refused(molecules):
    with pytest.raises(ValueError, match="deltas: there is nothing to try"):
        distance_matrices(molecules, deltas=[])
    with pytest.raises(ValueError, match="epsilons: there is nothing to try"):
        distance_matrices(molecules, epsilons=[])
    with pytest.raises(ValueError, match="feature_kind: 'colour'"):
        ground(replace(molecules, feature_kind="colour"))


# --- the whole


def test_classify_is_both_steps(molecules, tmp_path):
    given = {"deltas": [0.2, 0.5], "epsilons": [0.02], "rtol": 1e-3, "progress": False}
    found = classify(molecules, methods=("svm", "knn"), protocol=SMALL, checkpoint=tmp_path, **given)
    assert list(found) == ["svm", "knn"]
    matrices = distance_matrices(molecules, **given)
    for method, each in found.items():
        wanted = nested_accuracy(matrices, molecules.targets, method=method, protocol=SMALL)
        np.testing.assert_array_equal(each.accuracy, wanted.accuracy)
        assert each.chosen == wanted.chosen
        assert each.chosen[0]["setting"] in ({"delta": 0.2, "epsilon": 0.02}, {"delta": 0.5, "epsilon": 0.02})
    assert len(list(tmp_path.glob("*.checkpoint"))) == 2
    distance_matrices(molecules, **given, checkpoint=tmp_path)  # refused, had another solver been used


def test_classify_refuses_before_it_solves(molecules, monkeypatch):
    monkeypatch.setattr(pairwise, "distance_matrix", lambda *_, **__: pytest.fail("solved"))
    with pytest.raises(ValueError, match="too few for 10 folds"):
        classify(molecules.subset(range(14, 26)))
    for method in ("kernel", "forest"):
        with pytest.raises(ValueError, match=f"methods: '{method}'"):
            classify(molecules, methods=[method])


def test_classify_passes_on_executor_and_progress(molecules, capfd):
    calls = []
    with ThreadPoolExecutor(1) as pool:
        counting = SimpleNamespace(submit=lambda *given: (calls.append(1), pool.submit(*given))[1])
        classify(molecules, methods=["knn"], deltas=[0.5], protocol=SMALL, executor=counting)
    assert calls
    shown = capfd.readouterr().err
    assert "pair/s" in shown
    assert "4/4" in shown


# --- the experiment


@pytest.fixture
def benchmark(monkeypatch):
    """Imports a module of the benchmarks folder."""
    folder = ROOT / "benchmarks"
    if not folder.is_dir():
        pytest.skip("no benchmarks here")
    monkeypatch.syspath_prepend(str(folder))
    return importlib.import_module


def patterns(dataset, graph, depth):
    """The subtree pattern of each node, unfolded."""
    chain, edges = dataset.chains[graph], dataset.edges[graph].tolist()
    around = [{j for i, j in edges if i == k} | {i for i, j in edges if j == k} for k in range(chain.num_states)]
    found = chain.features.tolist()
    for _ in range(depth):
        found = [(own, *sorted((found[j] for j in near), key=repr)) for own, near in zip(found, around, strict=True)]
    return found


def test_wl_kernel_counts_common_subtree_patterns(benchmark, molecules):
    wl = benchmark("wl_kernel")
    some = molecules.subset([0, 3, 20, 29])
    kernels = wl.wl_kernels(some, depths=(1, 3))
    assert list(kernels) == ["depth 1", "depth 3"]
    for depth, kernel in zip((1, 3), kernels.values(), strict=True):
        counts = np.zeros((4, 4))
        for i, j, k in product(range(4), range(4), range(depth + 1)):
            counts[i, j] += sum(one == other for one in patterns(some, i, k) for other in patterns(some, j, k))
        size = np.sqrt(np.diag(counts))
        np.testing.assert_allclose(kernel, counts / np.outer(size, size), rtol=1e-12)
    distance = wl.kernel_distance(kernels["depth 1"])
    np.testing.assert_allclose(distance**2, 2 - 2 * kernels["depth 1"], atol=1e-12)
    with pytest.raises(ValueError, match="discrete labels"):
        wl.wl_kernels(replace(some, feature_kind="attributes"))


def test_fused_distances_resume_and_are_symmetric(benchmark, molecules, monkeypatch, tmp_path):
    fused_gw = benchmark("fused_gw")
    calls = []

    def stand_in(cost, x, y, *, alpha, **_):
        calls.append(alpha)
        return alpha * abs(x.mean() - y.mean()) + (1 - alpha) * cost.mean()

    rival = SimpleNamespace(gromov=SimpleNamespace(fused_gromov_wasserstein2=stand_in))
    monkeypatch.setitem(sys.modules, "ot", rival)
    some = molecules.subset([0, 3, 20, 29])
    matrices, about = fused_gw.fused_distances(some, tmp_path, alphas=[0.25, 0.5], workers=1, progress=False)
    assert list(matrices) == list(about) == ["alpha 0.25", "alpha 0.5"]
    assert len(calls) == 2 * 6
    for values in matrices.values():
        np.testing.assert_array_equal(values, values.T)
        assert (np.diag(values) == 0).all()
    x, y = (chain.features.numpy() for chain in (some.chains[0], some.chains[2]))
    steps = [fused_gw.steps(chain.num_states, edges) for chain, edges in zip(some.chains, some.edges, strict=True)]
    unit = np.concatenate([each.ravel() for each in steps]).mean()
    wanted = stand_in((x[:, None] != y).astype(float), steps[0] / unit, steps[2] / unit, alpha=0.25)
    assert matrices["alpha 0.25"][0, 2] == pytest.approx(wanted**0.5)

    with np.load(tmp_path / "fused-gw-alpha-0.25.npz") as kept:  # as if it had been stopped after three rows
        values = kept["values"].copy()
    values[1, 1:] = values[1:, 1] = np.nan
    fused_gw.save(tmp_path / "fused-gw-alpha-0.25.npz", some, values, 7.0, 0)
    calls.clear()
    again, about = fused_gw.fused_distances(some, tmp_path, alphas=[0.25], workers=1, progress=False)
    assert len(calls) == 2
    assert 7.0 < about["alpha 0.25"]["seconds"] < 17.0
    np.testing.assert_array_equal(again["alpha 0.25"], matrices["alpha 0.25"])
    with pytest.raises(ValueError, match="made of other graphs"):
        fused_gw.fused_distances(molecules.subset([1, 3, 20, 29]), tmp_path, alphas=[0.25], workers=1, progress=False)


def test_steps_count_edges_and_go_one_beyond_where_there_is_no_path(benchmark):
    steps = benchmark("fused_gw").steps
    wanted = [[0, 1, 2, 3], [1, 0, 1, 3], [2, 1, 0, 3], [3, 3, 3, 0]]
    np.testing.assert_array_equal(steps(4, np.array([[0, 1], [1, 2]])), wanted)


def test_parts_of_large_sets_are_stratified_and_keep_their_order(benchmark, shared_data, monkeypatch):
    monkeypatch.setenv("MARKOVOT_DATA", str(shared_data))
    load = benchmark("classification").load
    some, count = load("ENZYMES:attributes", 60)
    assert count == 600
    assert some.feature_kind == "attributes"
    assert np.unique(some.targets, return_counts=True)[1].tolist() == [10] * 6
    assert (np.diff(some.numbers) > 0).all()
    np.testing.assert_array_equal(load("ENZYMES", 60)[0].numbers, some.numbers)
    assert len(load("MUTAG", 500)[0]) == len(load("MUTAG", None)[0]) == 188


def test_the_experiment_runs_on_a_few_molecules(benchmark, shared_data, tmp_path, monkeypatch, capsys):
    experiment = benchmark("classification")
    monkeypatch.setenv("MARKOVOT_DATA", str(shared_data))
    arguments = (
        "--data MUTAG --limit 30 --parts markovot wl --deltas 0.2 --folds 3 --inner-folds 2 --scales 1 --C 1 10 "
        f"--depths 1 2 --folder {tmp_path}/out --json {tmp_path}/found.json --markdown {tmp_path}/page.md"
    )
    monkeypatch.setattr(sys, "argv", ["classification.py", *arguments.split()])
    experiment.main()
    found = json.loads((tmp_path / "found.json").read_text())
    row = found["rows"]["MUTAG, 30 of 188 graphs"]
    assert row["graphs"] == 30
    assert row["largest_class"] == pytest.approx(20 / 30)  # stratified: 125 of 188
    for part in ("markovot", "wl"):
        assert 0.4 < row["parts"][part]["knn"]["mean"] <= 1.0
        assert len(row["parts"][part]["svm"]["accuracy"]) == 3
    page = (tmp_path / "page.md").read_text()
    assert f"{100 * row['parts']['markovot']['svm']['mean']:.1f} ±" in page
    assert "deltas 0.2, epsilons 0.01, rtol 0.001; 3 outer and 2 inner folds; scales 1; C 1 10." in page
    assert "| 86.17 |" in page
    # Again: nothing is repeated, and the page is the same.
    capsys.readouterr()
    experiment.main()
    assert "markovot: finished before" in capsys.readouterr().out
    assert (tmp_path / "page.md").read_text() == page
