"""Files of distances that are damaged, forged or of something else: one line that names them, and never a picture."""

import io
import json
import re
import zipfile

import numpy as np
import pytest

from cli_checks import complaint, good, write_graphs
from markovot.cli.program import Failure
from markovot.cli.stored import read_output


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The content of a file of distances."""
    folder = tmp_path_factory.mktemp("sound")
    write_graphs(folder / "graphs", classes=True)
    good("distances", folder / "graphs", "-o", folder / "a.npz", "--delta", "0.5", "--rtol", "1e-2")
    return (folder / "a.npz").read_bytes()


@pytest.fixture
def arrays(sound):
    with np.load(io.BytesIO(sound)) as file:
        return dict(file)


def refused(path) -> str:
    with pytest.raises(Failure, match=f"^{re.escape(str(path))} is not a file of .* or is damaged: ") as caught:
        read_output(path)
    return str(caught.value)


def test_flipped_bits_and_cuts_are_seen(sound, arrays, tmp_path):
    path, generator = tmp_path / "a.npz", np.random.default_rng(0)
    for content in (b"", sound[:1], sound[: len(sound) // 2], sound[:-1], bytes(len(sound)), b"PK\x03\x04", b"hello"):
        path.write_bytes(content)
        refused(path)
    for place in generator.integers(8 * len(sound), size=100):
        content = bytearray(sound)
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
        try:
            found = read_output(path)  # a bit that means nothing, such as one of a date
        except Failure as failure:
            assert str(path) in failure.message  # noqa: PT017 (not every bit matters)
        else:
            for name in ("value", "error_bound", "status", "targets", "names"):
                np.testing.assert_array_equal(found[name], arrays[name])


def test_an_array_that_claims_to_be_smaller_is_compared_with_its_checksum(sound, tmp_path):
    # NumPy stops reading where the header says, before the end, where the checksum would be seen not to match.
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(io.BytesIO(sound)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    content = buffer.getvalue()
    targets = parts["targets.npy"]
    path.write_bytes(content.replace(targets, targets.replace(b"(6,)", b"(0,)")))
    assert "the checksum of targets.npy does not match" in refused(path)


def settings(arrays, **changes):
    return {"settings": np.array(json.dumps(json.loads(str(arrays["settings"])) | changes))}


FORGED = {
    "value: its shape is (5, 6)": lambda a: {"value": a["value"][:5]},
    "value: there are no graphs": lambda a: {"value": np.zeros(())},
    "error_bound: its shape is (6,)": lambda a: {"error_bound": np.zeros(6)},
    "status: its shape is (2, 2)": lambda a: {"status": a["status"][:2, :2]},
    "targets: its shape is (3,)": lambda a: {"targets": a["targets"][:3]},
    "names: its shape is (7,)": lambda a: {"names": np.array(["a"] * 7)},
    "value: its entries are of type complex128": lambda a: {"value": a["value"] + 0j},
    "value: its entries are of type <U1": lambda a: {"value": np.full((6, 6), "a")},
    "status: its entries are of type int64": lambda a: {"status": np.zeros((6, 6), dtype=np.int64)},
    "status: 'FINE' is none": lambda a: {"status": np.full((6, 6), "FINE")},
    "a pair that converged has none": lambda a: {"value": np.full((6, 6), np.nan)},
    "value, error_bound: a pair": lambda a: {"error_bound": -a["error_bound"] - 1},
    "they are not symmetric": lambda a: {"value": np.arange(36.0).reshape(6, 6)},
    "settings: they are no dictionary": lambda a: {"settings": np.array("[]")},
    "settings: delta is 'small'": lambda a: settings(a, delta="small"),
    "settings: class_names is None": lambda a: settings(a, class_names=None),
    "settings: there is no graph '6'": lambda a: settings(a, invalid={"6": "gone"}),
    "settings: there is no graph '-1'": lambda a: settings(a, invalid={"-1": "gone"}),
    "allow_pickle=False": lambda a: {"names": np.array([print] * 6, dtype=object)},
}


@pytest.mark.parametrize("message", FORGED)
def test_what_a_file_says_is_checked(arrays, tmp_path, message):
    path = tmp_path / "a.npz"
    np.savez(path, **(arrays | FORGED[message](arrays)))
    assert message in refused(path)
    for command in ("plot", "report"):
        assert message in complaint(1, command, path)
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_missing_is_named(arrays, tmp_path):
    path = tmp_path / "a.npz"
    for name in ("value", "error_bound", "status", "targets", "names", "settings"):
        np.savez(path, **{other: array for other, array in arrays.items() if other != name})
        assert f"it has no {name}" in refused(path)


def test_distances_without_classes_are_read(tmp_path):
    write_graphs(tmp_path / "graphs", classes=False)
    good("distances", tmp_path / "graphs", "-o", tmp_path / "a.npz", "--delta", "0.5", "--rtol", "1e-2")
    assert len(read_output(tmp_path / "a.npz")["targets"]) == 0
