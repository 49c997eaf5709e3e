"""Files that are damaged, hostile or no text: each is refused by a ValueError that names it."""

import gzip
import random
import struct
import zipfile
from pathlib import Path
from typing import Any

import networkx as nx
import pytest

from markovot import interop
from markovot.datasets import load_tudataset, tables

SET = {"A": "1, 2\n2, 1\n3, 4\n", "graph_indicator": "1\n1\n2\n2\n", "graph_labels": "7\n-1\n"}


def packed(path: Path, files: dict[str, str] = SET, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for part, text in files.items():
            archive.writestr(f"S_{part}.txt", text)
    return path


def changed(path: Path, at: int, new: bytes) -> Path:
    data = bytearray(path.read_bytes())
    data[at : at + len(new)] = new
    path.write_bytes(data)
    return path


# --- zips
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_a_zip_whose_contents_are_damaged(tmp_path: Path, method: int) -> None:
    path = packed(tmp_path / "set.zip", method=method)
    first = path.read_bytes().index(b"S_A.txt") + len("S_A.txt")
    with pytest.raises(ValueError, match=r"S_A\.txt: it cannot be unpacked \(.*\)\. Fetch the zip again"):
        load_tudataset(changed(path, first, b"\xff\xff\xff\xff"))


def test_a_zip_that_is_encrypted_or_packed_in_an_unknown_way(tmp_path: Path) -> None:
    for offset, new, message in ((8, b"\x01\x00", "encrypted"), (10, b"\x63\x00", "compression")):
        path = packed(tmp_path / "set.zip")
        entry = path.read_bytes().index(b"PK\x01\x02")
        changed(path, entry + offset, new)
        with pytest.raises(ValueError, match=rf"S_A\.txt: it cannot be unpacked \(.*{message}"):
            load_tudataset(path)


def test_a_zip_damaged_anywhere_is_refused_or_read_but_never_crashes(tmp_path: Path) -> None:
    path, chance = packed(tmp_path / "set.zip"), random.Random(0)
    good, told = path.read_bytes(), []
    for k in range(400):
        data = bytearray(good[: len(good) - k] if k < 40 else good)
        for _ in range(chance.choice([1, 2, 5])):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data)
        try:
            load_tudataset(path)
        except (ValueError, FileNotFoundError) as error:
            told.append(str(error))
    assert len(told) > 200
    assert [text for text in told if "set.zip" not in text and "S_" not in text] == []


def test_a_zip_that_unpacks_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_UNPACKED", 10_000)
    large = SET | {"A": "1, 2\n" * 4000}
    message = r"S_A\.txt: unpacked, the files .* more than 10,000 bytes.*give the folder.*tables\.MAX_UNPACKED"
    with pytest.raises(ValueError, match=message):
        load_tudataset(packed(tmp_path / "set.zip", large))
    # The zip may state less than there is: the reading stops at the limit all the same, or at what was stated.
    path = packed(tmp_path / "lies.zip", large)
    entry = path.read_bytes().index(b"PK\x01\x02")
    with pytest.raises(ValueError, match=r"S_A\.txt: (unpacked|it cannot be unpacked)"):
        load_tudataset(changed(path, entry + 24, struct.pack("<I", 5)))
    together = SET | {"node_attributes": "1.5\n" * 4 + " " * 9980}
    with pytest.raises(ValueError, match="unpacked, the files of the set take more than 10,000 bytes"):
        load_tudataset(packed(tmp_path / "set.zip", together))
    folder = tmp_path / "set"
    with zipfile.ZipFile(tmp_path / "set.zip") as archive:
        archive.extractall(folder)
    assert len(load_tudataset(folder)) == 2


@pytest.mark.parametrize("line", ["1" + "0" * 400, "9223372036854775808", "\0", "\udcff", "1e999", "nan", "1\u20282"])
def test_lines_that_are_no_numbers(tmp_path: Path, line: str) -> None:
    for part, text in SET.items():
        (tmp_path / f"S_{part}.txt").write_text(text, encoding="utf-8")
    (tmp_path / "S_graph_labels.txt").write_bytes(f"7\n{line}\n".encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=r"S_graph_labels\.txt, line 2:|S_graph_indicator\.txt: graph 3 has"):
        load_tudataset(tmp_path)


# --- graph files
def entities(declared: str, used: str) -> str:
    graph = f'<graph edgedefault="directed"><node id="{used}"/></graph>'
    return f'<?xml version="1.0"?><!DOCTYPE g [{declared}]><graphml>{graph}</graphml>'


def graphml(inside: str, keys: str = "") -> str:
    start = '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">'
    return f'{start}{keys}<graph edgedefault="directed">{inside}</graph></graphml>'


LAUGHS = '<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
DEEP = 5000
HUGE = "1" + "0" * 400
WEIGHT = '<key id="w" for="edge" attr.name="weight" attr.type="int"/>'


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.graphml", entities(LAUGHS, "&i;"), "declares the entity 'a'"),
        ("a.graphml", entities('<!ENTITY a "x">', "&a;"), "declares the entity 'a'"),
        ("a.graphml", entities('<!ENTITY a SYSTEM "file:///etc/hostname">', "&a;"), "declares the entity 'a'"),
        ("a.graphml", entities('<!ENTITY % a "x">', "y"), "declares the entity 'a'"),
        ("a.graphml", "<?xml version='1.0' encoding='nonsense'?><graphml/>", "unknown encoding"),
        ("a.graphml", "", "no element found"),
        ("a.graphml", "\0\0", "not well-formed"),
        ("a.graphml", b"\xff\xfe\x00", "not readable as GraphML"),
        ("a.graphml", graphml('<node id="1"/><edge/>'), "joins a node that does not exist"),
        ("a.graphml", graphml(f'<node id="1"/><edge source="1" target="1"><data key="w">{HUGE}</data></edge>', WEIGHT),
         "'weight' = inf, which is not finite"),
        ("a.gml", "graph [ node [ id 1 " + "x [ " * DEEP + "y 1" + " ]" * DEEP + " ] ]", "nested too deeply"),
        ("a.gml", "graph [ node [ id 1 label [ a 1 ] ] ]", "not readable as GML"),
        ("a.gml", "graph [ node [ id [ a 1 ] ] ]", "not readable as GML"),
        ("a.gml", "graph [ node 3 ]", "not readable as GML"),
        ("a.gml", "graph 3", "not readable as GML"),
        ("a.gml", "", "input contains no graph"),
        ("a.gml", "graph [ node [ id 1 label \"\u00e9\" ] ]", "not ASCII"),
        ("a.gml", f"graph [ node [ id 1 ] edge [ source 1 target 1 weight -{HUGE} ] ]", "'weight' = -inf"),
        ("a.edges", f"a b {{'weight': {HUGE}}}", "line 1: weight inf is not finite"),
        ("a.edges", f"a b {{'weight': -{HUGE}}}", "line 1: weight -inf is negative"),
        ("a.edges", f"a b {{'weight': {'(' * DEEP}1{')' * DEEP}}}", r"line 1: .*\.\.\.. is not a dictionary"),
        ("a.edges", f"a b {{'weight': 1{'+1' * DEEP * 4}}}", "line 1: .* is not a dictionary"),
        ("a.edges", "a b {[]: 1}", "line 1: .* is not a dictionary"),
        ("a.edges", "a\0 b", "byte 1 is not UTF-8 text"),
        ("a.edges", "a b".encode("utf-16-le"), "byte 1 is not UTF-8 text"),
        ("a.edges", "a b".encode("utf-16"), "byte 0 is not UTF-8 text"),
        ("a.edges", gzip.compress(b"a b", mtime=0), "byte 1 is not UTF-8 text.*unpack compressed files first"),
        ("a.edges", "", "no lines with edges"),
        ("a.csv", 'a,b,1\nb,"' + "x" * 200_000 + '"', r"line 2: it cannot be cut into fields.*limit"),
    ],
)  # fmt: skip
def test_damaged_graph_files(tmp_path: Path, name: str, text: Any, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=rf"{name}.*{message}"):
        interop.read_graph(path)


def test_what_is_packed_is_not_unpacked_unasked(tmp_path: Path) -> None:
    path = tmp_path / "a.gml.gz"
    nx.write_gml(nx.path_graph(2), path)
    with pytest.raises(ValueError, match=r"a\.gml\.gz: not readable as GML"):
        interop.read_graph(path, format="gml")


def test_names_of_many_digits_stay_text(tmp_path: Path) -> None:
    path = tmp_path / "a.edges"
    path.write_text(f"{'9' * 5000} 2")
    assert interop.read_graph(path).state_names == ["9" * 5000, "2"]


def test_a_weight_that_no_line_has_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.edges"
    path.write_text("# a comment\na b {'w': 2}\nb c {}\n")
    assert interop.read_graph(path, weight="w").num_states == 3
    with pytest.raises(ValueError, match="line 2: neither this edge nor any other has an attribute 'wieght'"):
        interop.read_graph(path, weight="wieght")


def test_one_path_is_no_list_of_paths(tmp_path: Path) -> None:
    for paths in ("a.gml", tmp_path / "a.gml"):
        for read in (interop.read_graphs, interop.auto_features):
            with pytest.raises(TypeError, match="paths: expected a list of paths, got the single one"):
                read(paths)
