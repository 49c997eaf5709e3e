"""networkx and SciPy, both ways; what as_chain says of other libraries' objects; light imports."""

import subprocess
import sys
from pathlib import Path

import networkx as nx
import numpy as np
import pandas
import pytest
import scipy.sparse
import torch

from interop_checks import assert_same_chain, dense, sample
from markovot import interop
from markovot.chains import MarkovChain, as_chain, label_code
from markovot.datasets import load_mutag


# --- networkx
@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_a_chain_comes_back_from_networkx(layout: str) -> None:
    for features in (
        None,
        torch.tensor([1.0, 2.5, -3.0, 0.1]).double(),
        torch.randn(4, 2).double(),
        torch.eye(4)[:, :1],
    ):
        wanted = features if features is None else features.double()
        chain = sample(layout, features=wanted, state_names=["a", ("b", 1), 3, None.__class__])
        graph = interop.to_networkx(chain)
        assert isinstance(graph, nx.DiGraph)
        back = MarkovChain.from_networkx(graph, features=None if wanted is None else "feature")
        assert_same_chain(back, chain)


def test_every_kind_of_networkx_graph_comes_back() -> None:
    for kind in (nx.Graph, nx.DiGraph, nx.MultiGraph, nx.MultiDiGraph):
        graph = kind([("a", "b"), ("b", "c"), ("b", "c"), ("c", "c")])
        graph.add_node("isolated")
        chain = MarkovChain.from_networkx(graph, laziness=0.1)
        assert_same_chain(MarkovChain.from_networkx(interop.to_networkx(chain)), chain)


def test_what_a_networkx_graph_holds() -> None:
    graph = interop.to_networkx(sample(features=[[1, 2]] * 4), weight="p", feature="f")
    assert list(graph) == [0, 1, 2, 3]
    assert graph.nodes[1] == {"f": [1.0, 2.0]}
    assert dict(graph.edges) == {
        (0, 1): {"p": 0.7},
        (0, 2): {"p": 0.3},
        (1, 0): {"p": 0.1},
        (1, 1): {"p": 0.2},
        (1, 2): {"p": 0.7},
        (2, 0): {"p": 1.0},
        (3, 3): {"p": 1.0},
    }
    assert type(graph.edges[0, 1]["p"]) is float


def test_stored_zeros_are_no_steps() -> None:
    values = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    rows = torch.sparse_coo_tensor(torch.tensor([[0, 0, 1], [0, 1, 1]]), values, (2, 2), check_invariants=True)
    chain = MarkovChain.from_transitions(rows, initial="uniform")
    assert len(chain.values) == 3
    assert list(interop.to_networkx(chain).edges) == [(0, 0), (1, 1)]
    assert len(interop.to_frame(chain).edges) == 2


def test_labels_come_back_from_networkx_by_their_names() -> None:
    chain = sample(features=["C", "N", "C", ("O", 1)])
    graph = interop.to_networkx(chain, labels=["C", ("O", 1), "N", "unused"])
    assert [graph.nodes[k]["feature"] for k in range(4)] == ["C", "N", "C", ("O", 1)]
    assert_same_chain(MarkovChain.from_networkx(graph, features="feature"), chain, names=False)
    with pytest.raises(ValueError, match=r"labels: the feature of state 1, -?\d+, is the code of none of the 1 labels"):
        interop.to_networkx(chain, labels=["C"])
    with pytest.raises(ValueError, match=r"the feature of state 0, \[0\.0\], is the code of none"):
        interop.to_networkx(sample(features=torch.zeros(4, 1)), labels=["C"])


def test_small_integer_labels_come_back_from_networkx_as_numbers() -> None:
    chain = load_mutag().chains[0]
    back = MarkovChain.from_networkx(interop.to_networkx(chain), features="feature")
    torch.testing.assert_close(dense(back), dense(chain))
    assert torch.equal(back.features, chain.features.double())


def test_what_cannot_become_a_networkx_graph() -> None:
    with pytest.raises(ValueError, match=r"'b' is the name of 2 states.*state_names that differ"):
        interop.to_networkx(sample(state_names=["a", "b", "c", "b"]))
    batch = MarkovChain.stack([sample(), sample()])
    with pytest.raises(ValueError, match=r"a batch of shape \(2,\).*to_networkx\(chain\[k\]\)"):
        interop.to_networkx(batch)
    with pytest.raises(TypeError, match=r"takes a MarkovChain, got Graph\. as_chain converts"):
        interop.to_networkx(nx.path_graph(2))


# --- SciPy
@pytest.mark.parametrize("layout", ["dense", "sparse"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_chain_comes_back_from_scipy_bit_by_bit(layout: str, dtype: torch.dtype) -> None:
    chain = sample(layout).to(dtype)
    matrix = interop.to_scipy(chain)
    assert isinstance(matrix, scipy.sparse.csr_array)
    assert matrix.has_canonical_format
    back = MarkovChain.from_transitions(matrix, initial="uniform")
    assert (back.dtype, back.is_sparse) == (dtype, True)
    assert torch.equal(dense(back), dense(chain))
    assert_same_chain(MarkovChain.from_adjacency(matrix), chain.to(dtype))


@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_changing_the_scipy_matrix_leaves_the_chain_alone(layout: str) -> None:
    chain = sample(layout)
    matrix = interop.to_scipy(chain)
    before = dense(chain).clone()
    matrix.data[:] = 9.0
    matrix.indices[:] = 0
    matrix.indptr[:] = 0
    assert torch.equal(dense(chain), before)


def test_scipy_keeps_stored_zeros_and_drops_gradients() -> None:
    values = torch.tensor([1.0, 0.0, 1.0], requires_grad=True)
    rows = torch.sparse_coo_tensor(torch.tensor([[0, 0, 1], [0, 1, 1]]), values, (2, 2), check_invariants=True)
    matrix = interop.to_scipy(MarkovChain.from_transitions(rows, initial="uniform"))
    assert matrix.nnz == 3
    np.testing.assert_array_equal(matrix.toarray(), np.eye(2))
    with pytest.raises(ValueError, match=r"to_scipy takes a single chain, got a batch of shape \(1,\)"):
        interop.to_scipy(MarkovChain.stack([sample()]))
    with pytest.raises(TypeError, match="to_scipy takes a MarkovChain, got csr_array"):
        interop.to_scipy(matrix)


# --- as_chain
def test_as_chain_names_the_function_for_tables_and_files(tmp_path: Path) -> None:
    with pytest.raises(
        TypeError, match=r"does not convert DataFrame\. Use markovot\.interop\.from_frame\(edges, nodes"
    ):
        as_chain(pandas.DataFrame({"source": [0], "target": [1]}))
    for path in (tmp_path, str(tmp_path)):
        with pytest.raises(TypeError, match=r"cannot make one from \w+.*read by markovot\.interop\.read_graph"):
            as_chain(path)
    with pytest.raises(TypeError, match=r"list of these\.$"):
        as_chain(None)


# --- imports
def test_importing_interop_is_light() -> None:
    code = (
        "import torch, sys; before = set(sys.modules); import markovot.interop; "
        "print(*sorted({m.partition('.')[0] for m in set(sys.modules) - before}))"
    )
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    heavy = {
        "scipy",
        "networkx",
        "pandas",
        "torch_geometric",
        "deeptime",
        "gymnasium",
        "sklearn",
        "matplotlib",
        "numba",
    }
    assert "markovot" in loaded
    assert not loaded & heavy


def test_public_names_exist_and_are_documented() -> None:
    for name in interop.__all__:
        assert (getattr(interop, name).__doc__ or "").strip(), name


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("networkx", "pandas", "torch_geometric.data", "deeptime.markov.msm"):
        monkeypatch.setitem(sys.modules, library, None)
    for call, library, extra in (
        (lambda: interop.to_networkx(sample()), "networkx", "graphs"),
        (lambda: interop.read_graph("x.gml"), "networkx", "graphs"),
        (lambda: interop.read_graph("x.graphml"), "networkx", "graphs"),
        (lambda: interop.to_frame(sample()), "pandas", "frames"),
        (lambda: interop.from_frame(None, directed=True), "pandas", "frames"),  # type: ignore[arg-type]
        (lambda: interop.to_pyg(sample()), r"torch_geometric\.data", "pyg"),
        (lambda: interop.from_pyg(None), r"torch_geometric\.data", "pyg"),
        (lambda: interop.from_pyg_dataset([]), r"torch_geometric\.data", "pyg"),
        (lambda: interop.to_deeptime(sample()), r"deeptime\.markov\.msm", "deeptime"),
        (lambda: interop.from_deeptime(None), r"deeptime\.markov\.msm", "deeptime"),
    ):
        with pytest.raises(ImportError, match=rf"needs {library}, which is not.*pip install 'markovot\[{extra}\]'"):
            call()


def test_label_codes_are_what_the_graph_is_made_of() -> None:
    graph = interop.to_networkx(sample(features=["C"] * 4))
    assert graph.nodes[0]["feature"] == label_code("C")
