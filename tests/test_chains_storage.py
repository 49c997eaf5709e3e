"""Chains in files: what comes back is what was stored, and what is damaged or forged is refused."""

import errno
import io
import json
import pickle
import re
from pathlib import Path

import networkx
import numpy as np
import pytest
import torch

from markovot import MarkovChain, costs, discounted_wl
from markovot.chains import storage

DOUBLE = torch.float64


def walk(n, **options):
    return MarkovChain.from_networkx(networkx.cycle_graph(n), **options)


def matrix(*batch, n=3, dtype=DOUBLE):
    random = torch.rand(*batch, n, n, generator=torch.Generator().manual_seed(n), dtype=dtype)
    return random / random.sum(-1, keepdim=True)


def law(*shape):
    found = torch.arange(1.0, 1 + torch.Size(shape).numel(), dtype=DOUBLE).view(shape)
    return found / found.sum(-1, keepdim=True)


NAMES = ["a", 1, 1.5, None, (1, ("b", None)), True, "é\udc80", -(10**30), 0.1 + 0.2]
MADE = {
    "dense": lambda: MarkovChain.from_transitions(matrix()),
    "float32": lambda: MarkovChain.from_transitions(matrix(dtype=torch.float32), initial="uniform"),
    "once float32": lambda: MarkovChain.from_transitions(
        matrix(n=50, dtype=torch.float32), initial=law(50).float()
    ).to(DOUBLE),
    "sparse, once float32": lambda: MarkovChain.from_adjacency(
        matrix(n=50, dtype=torch.float32).to_sparse()
    ).to(DOUBLE),
    "sparse": lambda: walk(5, initial="stationary", features={k: f"label {k % 2}" for k in range(5)}),
    "names": lambda: MarkovChain.from_transitions(matrix(n=len(NAMES)), state_names=NAMES),
    "names of nodes": lambda: MarkovChain.from_networkx(networkx.grid_2d_graph(2, 3)),
    "given law": lambda: MarkovChain.from_transitions(matrix(), initial=law(3), features=matrix()[:, :2]),
    "batch": lambda: MarkovChain.from_transitions(
        matrix(2, 4), initial=law(4, 3), features=torch.arange(3), state_names=list("xyz")
    ),
    "sparse batch": lambda: MarkovChain.from_transitions(matrix(2, 4).to_sparse(), initial=law(2, 4, 3)),
    "stack": lambda: MarkovChain.stack([walk(n, features={k: float(k) for k in range(n)}) for n in (3, 6, 4)]),
    "dense stack": lambda: MarkovChain.stack(
        [MarkovChain.from_transitions(matrix(n=n), initial=law(n), features=matrix(n=n)[:, :2]) for n in (3, 5)]
    ),
    "mixed stack": lambda: MarkovChain.stack([MarkovChain.from_transitions(matrix()), walk(4)]),
    "trained": lambda: MarkovChain.from_transitions(matrix().requires_grad_(), features=[True, False, True]),
}


@pytest.mark.parametrize("name", MADE)
def test_a_chain_comes_back_to_the_bit(tmp_path, name):
    chain, path = MADE[name](), tmp_path / "chain"
    chain.save(path)
    again = MarkovChain.load(str(path))
    assert repr(again) == repr(chain)
    assert again.state_names == chain.state_names
    assert str(again.state_names) == str(chain.state_names)  # the types too
    assert again.is_padded == chain.is_padded
    there, before = storage._tensors(again), storage._tensors(chain)
    assert there.keys() == before.keys()
    for part in there:
        torch.testing.assert_close(there[part], before[part].detach(), rtol=0, atol=0)
        assert not there[part].requires_grad
    assert list(tmp_path.iterdir()) == [path]


def test_a_stored_chain_has_the_same_distances(tmp_path):
    stack = MADE["stack"]()
    stack.save(tmp_path / "stack.npz")
    problem = {"cost": costs.ZeroOne(), "delta": 0.3, "epsilon": 0.1}
    found = discounted_wl(MarkovChain.load(tmp_path / "stack.npz"), stack[0], **problem)
    torch.testing.assert_close(found.value, discounted_wl(stack, stack[0], **problem).value, rtol=0, atol=0)


def test_the_file_is_plain_arrays(tmp_path):
    MADE["names"]().save(tmp_path / "chain.npz")
    with np.load(tmp_path / "chain.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["transition"], matrix(n=len(NAMES)))
        assert json.loads(str(file["about"]))["initial"] == "stationary"


class Atom(str):
    """A name of a type of the user's own."""


@pytest.mark.parametrize("name", [Atom("C"), b"bytes", frozenset("a"), object(), 1j, (1, (b"b",))])
def test_names_of_other_types_are_refused_by_name(tmp_path, name):
    chain = MarkovChain.from_transitions(matrix(), state_names=["a", name, "b"])
    culprit = name[1][0] if isinstance(name, tuple) else name
    with pytest.raises(TypeError, match=re.escape(f"{culprit!r} of type {type(culprit).__name__} cannot be stored")):
        chain.save(tmp_path / "chain")
    assert list(tmp_path.iterdir()) == []


def test_numbers_of_numpy_are_stored_as_numbers(tmp_path):
    chain = MarkovChain.from_transitions(matrix(), state_names=[np.int64(3), np.float32(0.1), np.str_("a")])
    chain.save(tmp_path / "chain")
    names = MarkovChain.load(tmp_path / "chain").state_names
    assert names == chain.state_names
    assert [type(name) for name in names] == [int, float, str]


def test_places_and_features_that_cannot_be_are_refused(tmp_path):
    chain = MADE["dense"]()
    with pytest.raises(ValueError, match=r"path: there is no folder .*missing\. Make it first"):
        chain.save(tmp_path / "missing" / "chain")
    with pytest.raises(TypeError, match=r"path: expected a path, a string or a pathlib.Path, got int"):
        chain.save(3)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        MarkovChain.load(tmp_path / "nowhere")
    half = MarkovChain.from_transitions(matrix())
    half.features = torch.ones(3, dtype=torch.bfloat16)  # which the door would have made float32
    with pytest.raises(TypeError, match=r"features: dtype torch.bfloat16 cannot be stored\. Convert it"):
        half.save(tmp_path / "chain")


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "chain"
    MADE["dense"]().save(path)
    before = path.read_bytes()

    def full(stream, **arrays):
        stream.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left on device; an older file is as it was") as caught:
        MADE["stack"]().save(path)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "chain"
    MADE["stack"]().save(path)
    sound, generator = path.read_bytes(), np.random.default_rng(0)
    chain = MarkovChain.load(path)
    damaged = [b"", sound[:1], sound[: len(sound) // 2], sound[:-1], bytes(len(sound)), b"dear diary", pickle.dumps(1)]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"path: {re.escape(str(path))} is "):
            MarkovChain.load(path)
    for place in generator.integers(8 * len(sound), size=100):
        content = bytearray(sound)
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
        try:
            again = MarkovChain.load(path)  # a bit that means nothing, such as one of a date
        except ValueError as error:
            if str(path) not in str(error):
                raise
        else:
            assert storage._same(storage._tensors(again), storage._tensors(chain)), place
            assert again.state_names == chain.state_names


def forged(path, chain, **changes):
    """A file whose digest fits what is in it."""
    chain.save(path)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    about = json.loads(str(arrays.pop("about")))
    del about["digest"]
    for name, value in changes.items():
        if name in ("state_names", "initial_law", "format"):
            about[name.removesuffix("_law")] = value
        elif value is None:
            del arrays[name]
        else:
            arrays[name] = np.asarray(value)
    about["digest"] = storage._digest(about, arrays)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays, about=np.array(json.dumps(about)))
    Path(path).write_bytes(buffer.getvalue())


FORGED = [
    ("dense", {"transition": np.full((3, 3), 0.5)}, "row 0 sums to 1.5"),
    ("dense", {"transition": np.full((3, 3), np.nan)}, "nan, which is not finite"),
    ("dense", {"transition": np.full((3, 2), 0.5)}, r"shape \(3, 2\) is not"),
    ("dense", {"transition": np.ones((0, 0))}, "empty chain"),
    ("dense", {"transition": np.eye(3, dtype=int)}, "dtype torch.int64 is not supported"),
    ("dense", {"transition": np.array([["a"]])}, "expected an array of numbers"),
    ("dense", {"transition": None}, "indptr"),
    ("dense", {"initial_law": "given"}, "initial"),
    ("dense", {"initial_law": "elsewhere"}, "'elsewhere' is not 'stationary'"),
    ("dense", {"state_names": ["a"]}, "1 names for 3 states"),
    ("dense", {"state_names": [{"code": []}, {"pickle": 1}, 3]}, "holds no valid chain"),
    ("dense", {"features": np.ones(2)}, r"features: shape \(2,\) does not fit"),
    ("dense", {"sizes": np.array(3)}, "only batches"),
    ("dense", {"format": "markovot chain 99"}, "in the format 'markovot chain 99'"),
    ("given law", {"initial": np.array([0.5, 0.6, 0.1])}, "sums to 1.2"),
    ("given law", {"features": np.full(3, np.inf)}, "Features must be finite"),
    ("sparse", {"indices": np.full(10, 7)}, "holds no valid chain"),
    ("sparse", {"indices": np.full(10, 1)}, "holds no valid chain"),
    ("sparse", {"indices": np.full(10, -1)}, "holds no valid chain"),
    ("sparse", {"indices": np.zeros(4, dtype=np.int64)}, "do not belong together"),
    ("sparse", {"indptr": np.array([0, 2, 4, 6, 8, 99])}, "does not rise from 0"),
    ("sparse", {"indptr": np.array([0, 4, 2, 6, 8, 10])}, "does not rise from 0"),
    ("sparse", {"indptr": np.array([10])}, "empty chain"),
    ("sparse", {"values": np.full(10, -0.5)}, "-0.5, which is negative"),
    ("sparse batch", {"indptr": np.full((2, 4, 4), 0)}, "does not rise from 0"),
    ("stack", {"sizes": np.array([3, 6, 5])}, "holds no valid chain"),
    ("stack", {"sizes": np.array([3, 6])}, "holds no valid chain"),
    ("stack", {"sizes": np.array([3, 99, 4])}, "holds no valid chain"),
    ("stack", {"sizes": np.array([0, 6, 4])}, "holds no valid chain"),
    ("stack", {"features": np.ones((3, 6))}, "its padding is not empty"),
    ("dense stack", {"transition": np.ones((2, 5, 5)) / 5}, "sums to 0.6"),
    ("dense stack", {"sizes": np.array([-2, 5])}, "holds no valid chain"),
]


@pytest.mark.parametrize(("name", "changes", "message"), FORGED)
def test_what_a_file_says_is_not_trusted(tmp_path, name, changes, message):
    path = tmp_path / "chain"
    forged(path, MADE[name](), **changes)
    with pytest.raises(ValueError, match=message) as caught:
        MarkovChain.load(path)
    assert str(path) in str(caught.value)
    forged(path, MADE[name]())
    MarkovChain.load(path)
