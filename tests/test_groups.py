"""compare_groups against numbers by hand, analysis of variance, plain loops, and chance."""

from itertools import permutations as orders

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from markovot import Status, costs, datasets
from markovot.analysis.groups import GroupComparison, compare_groups
from markovot.pairwise import PairwiseSolution, distance_matrix

# Distances 1 within {0, 1}, 2 within {2, 3}, 3 between: squares 1, 4 and four times 9.
BY_HAND = np.array([[0.0, 1.0, 3.0, 3.0], [1.0, 0.0, 3.0, 3.0], [3.0, 3.0, 0.0, 2.0], [3.0, 3.0, 2.0, 0.0]])
FEW = pytest.mark.filterwarnings("ignore:the p-value cannot fall:UserWarning")


def line(places) -> np.ndarray:
    places = np.asarray(places, dtype=float)
    return np.abs(places[:, None] - places)


def cloud(n: int, seed: int, shift: float = 0.0) -> np.ndarray:
    """Distances between n points, of which the second half is shifted."""
    points = np.random.default_rng(seed).normal(size=(n, 3))
    points[n // 2 :] += shift
    return np.sqrt(np.square(points[:, None] - points).sum(-1))


def halves(n: int) -> list[str]:
    return ["a"] * (n // 2) + ["b"] * (n - n // 2)


def pseudo_f(distances: np.ndarray, labels: list, power: int) -> float:
    """The formula, in loops."""
    n, names = len(labels), sorted(set(labels))
    total = sum(distances[i, j] ** power for i in range(n) for j in range(i)) / n
    within = 0.0
    for name in names:
        own = [i for i in range(n) if labels[i] == name]
        within += sum(distances[i, j] ** power for i in own for j in own if j < i) / len(own)
    return ((total - within) / (len(names) - 1)) / (within / (n - len(names)))


@FEW
@pytest.mark.parametrize(
    # total = (1 + 4 + 36) / 4 and within = 1/2 + 4/2; unsquared: (1 + 2 + 12) / 4 and 1/2 + 2/2.
    ("statistic", "total", "within"),
    [("permanova", 41 / 4, 5 / 2), ("energy", 15 / 4, 3 / 2)],
)
def test_the_statistic_is_the_one_by_hand(statistic, total, within):
    found = compare_groups(BY_HAND, ["x", "x", "y", "y"], statistic=statistic)
    assert_allclose(found.pseudo_f, (total - within) / (within / 2), rtol=1e-14)
    assert_allclose(found.effect_size, (total - within) / total, rtol=1e-14)
    # Of the six ways to choose two of four, this one and its mirror separate best.
    assert (found.p_value, found.permutations, found.exact) == (pytest.approx(1 / 3), 6, True)
    assert (found.statistic, found.seed, found.group_sizes) == (statistic, 0, {"x": 2, "y": 2})


def test_squared_distances_on_a_line_give_the_analysis_of_variance():
    generator = np.random.default_rng(1)
    samples = [generator.normal(size=n) + shift for n, shift in ((5, 0.0), (7, 0.5), (4, 1.0))]
    labels = np.repeat([2, 0, 1], [5, 7, 4])
    found = compare_groups(line(np.concatenate(samples)), labels)
    expected = stats.f_oneway(*samples)
    assert_allclose(found.pseudo_f, expected.statistic, rtol=1e-12)
    # Normal samples: the permutation test and the F test nearly agree.
    assert_allclose(found.p_value, expected.pvalue, atol=0.02)


@FEW
@pytest.mark.parametrize("statistic", ["permanova", "energy"])
def test_few_members_are_relabelled_in_every_way(statistic):
    distances = cloud(6, 2, 0.7)
    labels = ["a", "a", "b", "b", "c", "c"]
    power = {"permanova": 2, "energy": 1}[statistic]
    observed = pseudo_f(distances, labels, power)
    every = [pseudo_f(distances, list(order), power) for order in set(orders(labels))]
    found = compare_groups(distances, labels, statistic=statistic)
    assert (found.permutations, found.exact) == (90, True)
    assert_allclose(found.pseudo_f, observed, rtol=1e-12)
    assert_allclose(found.p_value, np.mean(np.array(every) >= observed * (1 - 1e-12)), rtol=1e-12)


def test_random_relabellings_come_close_to_all_of_them():
    distances = cloud(10, 4, 0.5)
    exact = compare_groups(distances, halves(10), permutations=252)
    assert (exact.permutations, exact.exact) == (252, True)
    assert exact == compare_groups(distances, halves(10))
    drawn = compare_groups(distances, halves(10), permutations=251, seed=3)
    assert (drawn.permutations, drawn.exact, drawn.seed) == (251, False, 3)
    assert_allclose(drawn.p_value, exact.p_value, atol=0.08)


def test_a_clear_difference_gives_the_smallest_p_value():
    found = compare_groups(cloud(40, 0, 5.0), halves(40), permutations=199)
    assert found.p_value == 1 / 200
    assert found.effect_size > 0.8


def test_p_values_of_equal_groups_are_uniform():
    p_values = [compare_groups(cloud(20, seed), halves(20), permutations=99).p_value for seed in range(200)]
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    assert 0.02 < np.mean(np.array(p_values) <= 0.05) < 0.09


def test_the_mean_effect_of_chance_is_the_one_stated():
    generator = np.random.default_rng(0)
    distances, labels = cloud(12, 0), np.repeat([0, 1, 2], 4)
    drawn = [compare_groups(distances, generator.permutation(labels), permutations=30) for _ in range(400)]
    assert_allclose(np.mean([found.effect_size for found in drawn]), 2 / 11, atol=0.01)


def test_names_of_groups_play_no_part():
    distances = cloud(20, 1)
    first = compare_groups(distances, ["a"] * 8 + ["b"] * 12, permutations=999)
    for one, other in (("b", "a"), (1, 0), ((1, 2), frozenset({3}))):
        again = compare_groups(distances, [one] * 8 + [other] * 12, permutations=999)
        assert (again.p_value, again.pseudo_f) == (first.p_value, first.pseudo_f)


def test_order_of_members_and_scale_of_distances_change_no_more_than_rounding():
    distances, labels = cloud(9, 1, 0.4), np.array(halves(9))
    first = compare_groups(distances, labels)
    order = np.random.default_rng(0).permutation(9)
    for changed, names in ((distances[np.ix_(order, order)], labels[order]), (1e3 * distances, labels)):
        again = compare_groups(changed, names)
        assert again.exact
        assert_allclose([again.p_value, again.pseudo_f], [first.p_value, first.pseudo_f], rtol=1e-10)


def test_the_seed_decides_what_is_drawn():
    distances = cloud(30, 1, 0.3)
    p_values = [compare_groups(distances, halves(30), permutations=500, seed=seed).p_value for seed in (0, 0, 1, 2)]
    assert p_values[0] == p_values[1]
    assert len(set(p_values)) > 1


def test_batches_change_nothing(monkeypatch):
    distances = cloud(30, 1, 0.3)
    whole = compare_groups(distances, halves(30), permutations=200)
    monkeypatch.setattr("markovot.analysis.groups.BATCH_ENTRIES", 100)
    assert compare_groups(distances, halves(30), permutations=200) == whole


def test_energy_sees_what_squares_do_not():
    # Equal centres, and every point at the same distance from its own; the spread along the line differs.
    generator = np.random.default_rng(0)
    places = np.concatenate([generator.choice([-1.0, 1.0], size=60), generator.normal(size=60)])
    places[:60] -= places[:60].mean()
    places[60:] -= places[60:].mean()
    places[60:] /= places[60:].std()
    places[:60] /= places[:60].std()
    assert compare_groups(line(places), halves(120), permutations=999).p_value > 0.9
    assert compare_groups(line(places), halves(120), permutations=999, statistic="energy").p_value < 0.05


def test_the_diagonal_plays_no_part_and_small_asymmetry_is_averaged():
    distances = cloud(10, 4, 0.5)
    plain = compare_groups(distances, halves(10))
    assert compare_groups(distances + 0.3 * np.eye(10), halves(10)) == plain
    noise = 1e-4 * np.random.default_rng(0).uniform(-1, 1, size=(10, 10))
    assert_allclose(compare_groups(distances + noise - noise.T, halves(10)).pseudo_f, plain.pseudo_f, rtol=1e-13)


@FEW
def test_distances_below_zero_count_as_zero_and_far_below_they_are_told():
    near, far, zero = BY_HAND.copy(), BY_HAND.copy(), BY_HAND.copy()
    for matrix, value in ((near, -1e-3), (far, -1.0), (zero, 0.0)):
        matrix[0, 1] = matrix[1, 0] = value
    expected = compare_groups(zero, ["x", "x", "y", "y"])
    assert compare_groups(near, ["x", "x", "y", "y"]) == expected
    with pytest.warns(UserWarning, match="distances: the smallest distance is -1, far below zero"):
        assert compare_groups(far, ["x", "x", "y", "y"]) == expected


def test_no_variation_within_groups_is_an_infinite_statistic():
    found = compare_groups(line([0, 0, 0, 0, 1, 1, 1, 1]), halves(8))
    assert (found.pseudo_f, found.effect_size, found.p_value) == (np.inf, 1.0, 2 / 70)


def test_inputs_are_left_as_they_were():
    distances = BY_HAND + np.eye(4)
    before = distances.copy()
    with pytest.warns(UserWarning, match="cannot fall"):
        compare_groups(distances, ["x", "x", "y", "y"])
    assert_array_equal(distances, before)


@FEW
@pytest.mark.parametrize(
    "labels", [("x", "x", "y", "y"), np.array([7, 7, 3, 3]), torch.tensor([7, 7, 3, 3]), iter("xxyy")]
)
def test_labels_come_in_every_form(labels):
    assert list(compare_groups(BY_HAND, labels).group_sizes.values()) == [2, 2]


def test_a_comparison_reads_well():
    drawn = compare_groups(cloud(40, 0, 5.0), halves(40), permutations=99, seed=7)
    assert repr(drawn) == (
        f"GroupComparison(p = 0.01, R^2 = {drawn.effect_size:.3g}, pseudo-F = {drawn.pseudo_f:.4g}; "
        "20 of 'a', 20 of 'b'; permanova, 99 random permutations, seed 7)"
    )
    exact = compare_groups(cloud(8, 0, 9.0), halves(8), statistic="energy")
    assert repr(exact).endswith("4 of 'a', 4 of 'b'; energy, all 70 permutations)")
    assert isinstance(exact, GroupComparison)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"distances": BY_HAND[:3]}, ValueError, r"distances: shape \(3, 4\) is not that of a square matrix"),
        ({"distances": BY_HAND[0]}, ValueError, r"distances: shape \(4,\) is not that of a square matrix"),
        ({"distances": np.triu(BY_HAND)}, ValueError, r"distances: not symmetric. Entry \((0, 2|2, 0)\) is "),
        ({"distances": np.where(BY_HAND == 2, np.nan, BY_HAND)}, ValueError, "distances: NaN or infinity in row 2"),
        ({"distances": np.zeros((4, 4))}, ValueError, "distances: all are zero"),
        ({"distances": [["a"]]}, TypeError, "distances: expected real numbers, got an array of <U1"),
        ({"distances": 1j * BY_HAND}, TypeError, "distances: expected real numbers, got an array of complex128"),
        ({"labels": "xxy"}, ValueError, "labels: there are 3 of them for 4 members"),
        ({"labels": "xxxx"}, ValueError, "labels: all 4 members are in one group, 'x'. A comparison needs two"),
        ({"labels": "xxxy"}, ValueError, "labels: group 'y' has one member"),
        ({"labels": ["x", "x", None, "y"]}, ValueError, "labels: that of member 2 is None, so it has no group"),
        ({"labels": ["x", np.datetime64("NaT"), "y", "y"]}, ValueError, "labels: that of member 1 is (NaT|None)"),
        ({"labels": [1.0, np.nan, 2.0, 2.0]}, ValueError, "labels: that of member 1 is nan"),
        ({"labels": [[1], [1], [2], [2]]}, TypeError, "labels: unhashable type: 'list'. Give one word or number"),
        ({"statistic": "anosim"}, ValueError, "statistic: 'anosim' is not one of 'permanova', 'energy'"),
        ({"permutations": 0}, ValueError, "permutations: 0 is less than 1"),
        ({"permutations": 99.0}, TypeError, "permutations: expected an integer, got float"),
        ({"seed": -1}, ValueError, "seed: -1 is less than 0"),
        ({"seed": None}, TypeError, "seed: expected an integer, got NoneType"),
        ({"seed": True}, TypeError, "seed: expected an integer, got bool"),
    ],
)
def test_bad_input_is_refused(change, error, message):
    arguments = {"distances": BY_HAND, "labels": "xxyy"} | change
    with pytest.raises(error, match=message):
        compare_groups(arguments.pop("distances"), arguments.pop("labels"), **arguments)


@pytest.mark.parametrize(
    ("members", "permutations", "message"),
    [
        (4, 9999, "cannot fall below 0.333 with groups of 2, 2 members and 6 permutations, .* Use more members"),
        (6, 9999, "cannot fall below 0.1 with groups of 3, 3 members and 20 permutations"),
        (20, 9, "cannot fall below 0.1 with groups of 10, 10 members and 9 permutations, .* Use more permutations"),
    ],
)
def test_tests_that_cannot_reach_a_usual_level_say_so(members, permutations, message):
    with pytest.warns(UserWarning, match=message):
        found = compare_groups(cloud(members, 0, 20.0), halves(members), permutations=permutations)
    assert f"{found.p_value:.3g}" in message
    # Groups of 4 and 4 can: no warning, which would be an error here.
    compare_groups(cloud(8, 0), halves(8))


def test_distances_of_chains_are_taken_with_their_status():
    mutag = datasets.load_mutag()
    small = [i for i, chain in enumerate(mutag.chains) if chain.num_states <= 13][:16]
    chains, targets = [mutag.chains[i] for i in small], mutag.targets[small]
    problem = {"cost": costs.ZeroOne(), "delta": 0.2, "epsilon": 0.01, "progress": False}
    solution = distance_matrix(chains, **problem)
    found = compare_groups(solution, targets, permutations=99)
    assert found == compare_groups(solution.value, targets, permutations=99)
    assert_allclose(found.pseudo_f, pseudo_f(solution.value, targets.tolist(), 2), rtol=1e-10)

    hasty = distance_matrix(chains, **problem, max_iter=3, rtol=1e-14, throw=False)
    assert isinstance(hasty, PairwiseSolution)
    number = int((hasty.status != Status.CONVERGED).sum())
    assert number > 0
    with pytest.warns(UserWarning, match=f"distances: {number} of 256 were not solved to their tolerance"):
        compare_groups(hasty, targets, permutations=99)
