"""Do groups of graphs or chains differ? Permutation tests on their distances."""

import inspect
import math
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from markovot import validate
from markovot._arrays import FloatArray
from markovot.analysis import similarity
from markovot.chains.labels import is_missing
from markovot.pairwise import PairwiseSolution

__all__ = ["GroupComparison", "compare_groups"]


# The power of the distances that is summed: squares give PERMANOVA, plain distances the energy statistic.
POWERS = {"permanova": 2, "energy": 1}
# Permutations are counted in batches of so many entries: one index and one product for each member of a group.
BATCH_ENTRIES = 1 << 20
# We warn of a test that cannot give a p-value below this, whatever the data.
USUAL_LEVEL = 0.05


@dataclass(frozen=True, repr=False)
class GroupComparison:
    """How much groups differ, and how often chance alone would make them differ as much.

    Attributes:
        p_value: the share of relabellings that separate the groups at least as well as the given labels; in (0, 1].
        effect_size: the share of the total variation that lies between the groups, R^2, in [0, 1]; by chance alone its
            mean is (groups - 1) / (members - 1).
        pseudo_f: the variation between groups over that within groups, each divided by its degrees of freedom.
        statistic: "permanova" or "energy".
        permutations: how many relabellings were counted.
        exact: whether these were all possible relabellings; otherwise they were drawn at random.
        seed: the seed of the random relabellings.
        group_sizes: the number of members of each group, in order of first appearance.
    """

    p_value: float
    effect_size: float
    pseudo_f: float
    statistic: str
    permutations: int
    exact: bool
    seed: int
    group_sizes: dict[Any, int]

    def __repr__(self) -> str:
        sizes = ", ".join(f"{size} of {group!r}" for group, size in self.group_sizes.items())
        ways = f"all {self.permutations}" if self.exact else f"{self.permutations} random"
        seed = "" if self.exact else f", seed {self.seed}"
        return (
            f"GroupComparison(p = {self.p_value:.4g}, R^2 = {self.effect_size:.3g}, pseudo-F = {self.pseudo_f:.4g}; "
            f"{sizes}; {self.statistic}, {ways} permutations{seed})"
        )


def compare_groups(
    distances: Any,
    labels: Iterable[Any],
    *,
    statistic: str = "permanova",
    permutations: int = 9999,
    seed: int = 0,
) -> GroupComparison:
    """Test whether groups of chains differ more than by chance, from the distances between all chains.

    With N members in a groups, of n_g each, and p = 2 (permanova) or 1 (energy):

        total  = sum_{i<j} d_ij^p / N        within = sum_g sum_{i<j in g} d_ij^p / n_g
        F = ((total - within) / (a - 1)) / (within / (N - a))        R^2 = (total - within) / total

    The p-value is the share of relabellings, with groups of the same sizes, whose F is at least as large. Where they
    are drawn at random it is (1 + their number) / (1 + permutations), which is never zero and makes the test valid.

    Args:
        distances: a `PairwiseSolution` of one set, or a symmetric matrix (N, N). Its diagonal plays no part, so
            distances of chains to themselves, above zero with entropy, do no harm; where (i, j) and (j, i) differ by
            certified errors, their mean counts; distances below zero, which debiasing can leave, count as zero.
        labels: the group of each member: anything hashable, at least two of each.
        statistic: "permanova" is Anderson's analysis of variance for distances, sensitive to large ones. "energy",
            that of Rizzo and Szekely, does not square the distances: for many of them, such as the Euclidean one, it
            tells large groups apart that differ in any way, not only in their centres.
        permutations: how many random relabellings. If no more than that exist, all are counted, which is exact. With
            9999, a p-value of 0.05 is found to within 0.005 (two standard errors).
        seed: of the random relabellings, at least 0.

    Returns:
        A `GroupComparison`.

    Raises:
        TypeError: distances that are not real numbers, labels that are not hashable, counts that are not integers.
        ValueError: distances that are not square, symmetric and finite, or all zero; labels of the wrong number,
            missing, all the same, or given to one member only; numbers out of range.

    Warns:
        UserWarning: pairs that were not solved to their tolerance, distances far below zero, groups so small, or
            permutations so few, that no p-value of 0.05 is within reach.

    Note:
        Members must be exchangeable if the groups do not differ: repeated measurements of one subject are not. Like
        every such test it also responds to groups of different spread, the more so if their sizes differ; look at an
        embedding before you speak of different centres. Deterministic for a seed; renaming the groups changes nothing.
        Time O(permutations N^2 a); memory 50 MB beside a few copies of the matrix.

    References:
        Anderson: A new method for non-parametric multivariate analysis of variance (Austral Ecology 2001). Rizzo,
        Szekely: DISCO analysis (Annals of Applied Statistics 2010). Phipson, Smyth: Permutation P-values should never
        be zero (Statistical Applications in Genetics and Molecular Biology 2010).

    Example:
        >>> import numpy as np
        >>> places = np.array([0.0, 0.1, 0.2, 0.3, 1.0, 1.1, 1.2, 1.3])
        >>> compare_groups(np.abs(places[:, None] - places), 4 * ["before"] + 4 * ["after"])
        GroupComparison(p = 0.02857, R^2 = 0.952, pseudo-F = 120; 4 of 'before', 4 of 'after'; permanova, all 70
        permutations)
    """
    from scipy.stats import permutation_test

    validate.choice("statistic", statistic, tuple(POWERS))
    permutations, seed = validate.count("permutations", permutations, low=1), validate.count("seed", seed)
    powers = _powers(distances, POWERS[statistic])
    members = _members(labels, len(powers))
    sizes = [len(group) for group in members.values()]
    partitions = math.factorial(len(powers)) // math.prod(math.factorial(size) for size in sizes)
    exact = partitions <= permutations
    _warn_if_hopeless(sizes, partitions, permutations)
    # The total is the same for all relabellings, so F falls as `within` rises. F is a difference and would lose digits.
    within = partial(_within, powers=powers)
    found = permutation_test(
        list(members.values()),
        within,
        permutation_type="independent",
        vectorized=True,
        n_resamples=permutations,
        batch=max(1, BATCH_ENTRIES // len(powers)),
        alternative="less",
        axis=-1,
        **_generator(seed),
    )
    total, inside = powers.sum() / (2 * len(powers)), float(found.statistic)
    freedom = (len(powers) - len(sizes)) / (len(sizes) - 1)
    return GroupComparison(
        p_value=float(found.pvalue),
        effect_size=(total - inside) / total,
        pseudo_f=freedom * (total - inside) / inside if inside > 0 else math.inf,
        statistic=statistic,
        permutations=partitions if exact else permutations,
        exact=exact,
        seed=seed,
        group_sizes=dict(zip(members, sizes, strict=True)),
    )


def _powers(distances: Any, power: int) -> FloatArray:
    """The powers of the distances that are summed, symmetric, with a diagonal of zeros."""
    array = similarity.as_matrix("distances", distances.value if isinstance(distances, PairwiseSolution) else distances)
    similarity.check_symmetric("distances", array)
    if isinstance(distances, PairwiseSolution) and not distances.converged.all():
        unsolved = np.argwhere(~distances.converged).tolist()
        i, j = unsolved[0]
        warnings.warn(
            f"distances: {len(unsolved)} of {array.size} were not solved to their tolerance, the first at ({i}, {j}): "
            f"{distances.status[i, j].value} The p-value is that of the distances as they are.",
            UserWarning,
            stacklevel=3,
        )
    between = array[~np.eye(len(array), dtype=bool)]
    similarity.warn_of_negatives("distances", between, float(np.abs(between).max(initial=0.0)))
    apart = similarity.symmetrised(array)
    if not apart.any():
        raise ValueError("distances: all are zero, so there is no variation to share out. Check delta and the cost.")
    return apart**power


def _members(labels: Iterable[Any], wanted: int) -> dict[Any, NDArray[np.intp]]:
    """The members of each group, in order of first appearance, so that random draws do not depend on the names."""
    given = validate.labels("labels", list(labels) if isinstance(labels, str) else labels, "a group for each member")
    if len(given) != wanted:
        raise ValueError(f"labels: there are {len(given)} of them for {wanted} members. Give one for each row.")
    for index, label in enumerate(given):
        if is_missing(label):
            raise ValueError(f"labels: that of member {index} is {label}, so it has no group. Leave it out.")
    count = Counter(given)
    if len(count) < 2:
        raise ValueError(f"labels: all {wanted} members are in one group, {given[0]!r}. A comparison needs two.")
    for label, size in count.items():
        if size < 2:
            raise ValueError(
                f"labels: group {label!r} has one member, which says nothing of how its members vary. Leave it out, or "
                "join it to another."
            )
    return {label: np.flatnonzero([other == label for other in given]) for label in count}


def _warn_if_hopeless(sizes: list[int], partitions: int, permutations: int) -> None:
    # Groups of equal size can exchange their names without any change of F.
    same = math.prod(math.factorial(number) for number in Counter(sizes).values())
    smallest = same / partitions if partitions <= permutations else 1 / (permutations + 1)
    if smallest > USUAL_LEVEL:
        repair = "more members" if partitions <= permutations else "more permutations"
        warnings.warn(
            f"the p-value cannot fall below {smallest:.3g} with groups of {', '.join(map(str, sizes))} members and "
            f"{min(partitions, permutations)} permutations, however much they differ. Use {repair}.",
            UserWarning,
            stacklevel=3,
        )


def _within(*groups: NDArray[np.intp], powers: FloatArray, axis: int) -> Any:
    """The variation within groups, given the members (*batch, n_g) of each."""
    total: Any = 0.0
    for members in groups:
        inside = np.zeros((*members.shape[:-1], len(powers)))
        np.put_along_axis(inside, members, 1.0, axis=-1)
        total = total + ((inside @ powers) * inside).sum(axis) / (2 * members.shape[-1])
    return total


def _generator(seed: int) -> dict[str, Any]:
    """The seed under the name that this SciPy gives it: `random_state` before 1.15, and to be deprecated after."""
    from scipy.stats import permutation_test

    name = "rng" if "rng" in inspect.signature(permutation_test).parameters else "random_state"
    return {name: np.random.default_rng(seed)}
