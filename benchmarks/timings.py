"""Our own timings, a handful: run by pytest-benchmark, which warms up, repeats and takes medians."""

import pytest
from suite import matrices, problems
from suite.solvers import solver

PAIRS = {
    "molecules": ("discounted", lambda: problems.mutag_pairs(20)),
    "sparse 64": ("discounted", lambda: problems.sparse_pair(64)),
    "dense 32": ("discounted", lambda: problems.dense_pair(32)),
    "exact 32": ("exact", lambda: problems.sparse_pair(32, epsilon=0.0)),
    "average 20": ("average", lambda: problems.block_models(20)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_forward(benchmark, name):
    kind, make = PAIRS[name]
    how = solver("markovot", kind)
    given = [how.prepare(task) for task in make()]
    benchmark.pedantic(lambda: [how.solve(each) for each in given], rounds=7, warmup_rounds=2)


@pytest.mark.parametrize("name", ["molecules", "sparse 64", "dense 32"])
def test_backward(benchmark, name):
    """With the forward pass before it."""
    kind, make = PAIRS[name]
    how, tasks = solver("markovot", kind), make()
    benchmark.pedantic(lambda: [how.backward(task) for task in tasks], rounds=7, warmup_rounds=2)


def test_matrix(benchmark):
    chains = problems.molecules(60)
    benchmark.pedantic(lambda: matrices.ours(chains), rounds=5, warmup_rounds=1)
