"""A checkpoint that is damaged, full or foreign: a clear error or blocks solved again, and never a wrong number."""

import errno
import re
import shutil
import sqlite3
import warnings

import numpy as np
import pytest

from markovot import costs
from markovot.datasets import load_mutag
from markovot.pairwise import CheckpointWarning, checkpoint, distance_matrix, plan
from solving import blocks_solved

SETTING = {"cost": costs.ZeroOne(), "delta": 0.2, "epsilon": 0.01, "progress": False}
COUNT = 12


@pytest.fixture(scope="module")
def chains():
    return load_mutag().chains[:COUNT]


@pytest.fixture(scope="module")
def right(chains):
    return distance_matrix(chains, **SETTING).value


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(plan, "GROUP_ENTRIES", 100)


@pytest.fixture
def path(tmp_path, chains, right):
    """A finished checkpoint."""
    found = tmp_path / "work"
    distance_matrix(chains, checkpoint=found, **SETTING)
    return found


def change(path, statement, *arguments):
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        return connection.execute(statement, arguments).fetchall()
    finally:
        connection.close()


@pytest.fixture
def solved(monkeypatch):
    """The numbers of pairs of the blocks that were solved."""
    return blocks_solved(monkeypatch)


def damaged_rows(path):
    contents = change(path, "SELECT number, found FROM block ORDER BY number")
    (one, first), (other, second), *_ = contents
    return {
        "a bit of a value": [(one, first[:20] + bytes([first[20] ^ 1]) + first[21:])],
        "a bit of the last status": [(one, first[:-1] + bytes([first[-1] ^ 1]))],
        "a bit of the digest": [(one, bytes([first[0] ^ 128]) + first[1:])],
        "shorter": [(one, first[:-17])],
        "cut within a number": [(one, first[:-1])],
        "digest alone": [(one, first[:16])],
        "empty": [(one, b"")],
        "nothing": [(one, None)],
        "text": [(one, "dear diary")],
        "swapped with one another": [(one, second), (other, first)],
        "a number too many": [(len(contents), first)],
        "a number below zero": [(-1, first)],
    }


def test_blocks_that_do_not_match_their_digests_are_solved_again(path, chains, right, solved):
    for what, rows in damaged_rows(path).items():
        for row in rows:
            change(path, "INSERT OR REPLACE INTO block VALUES (?, ?)", *row)
        solved.clear()
        message = f"checkpoint: {len(rows)} of [0-9]+ blocks in {re.escape(str(path))} are damaged"
        with pytest.warns(CheckpointWarning, match=message) as caught:
            found = distance_matrix(chains, checkpoint=path, **SETTING)
        assert [warning.filename for warning in caught] == [__file__]
        assert len(solved) == (0 if "number" in what and "within" not in what else len(rows)), what
        np.testing.assert_array_equal(found.value, right, err_msg=what)
        distance_matrix(chains, checkpoint=path, **SETTING)  # and now the file is sound


def test_blocks_of_another_task_are_not_taken_for_those_of_this_one(path, chains):
    change(path, "UPDATE task SET value = '0.3' WHERE name = 'delta'")
    setting = SETTING | {"delta": 0.3}
    with pytest.warns(CheckpointWarning, match="blocks in .* are damaged"):
        found = distance_matrix(chains, checkpoint=path, **setting)
    np.testing.assert_array_equal(found.value, distance_matrix(chains, **setting).value)


def test_a_file_whose_blocks_are_cut_in_another_way_is_refused(path, chains, monkeypatch):
    monkeypatch.setattr(plan, "GROUP_ENTRIES", 200)
    with pytest.raises(ValueError, match=r"was made with other blocks \(blocks was '"):
        distance_matrix(chains, checkpoint=path, **SETTING)


def outcome(path, chains, right) -> str:
    """What a run does with a file; a wrong number fails the test."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = distance_matrix(chains, checkpoint=path, **SETTING)
        except ValueError as error:
            if not re.match(f"checkpoint: {re.escape(str(path))} .* Give another path, or delete the file", str(error)):
                raise
            return "refused"
    np.testing.assert_array_equal(found.value, right)
    assert {warning.category for warning in caught} <= {CheckpointWarning}
    return "solved again" if caught else "right"


def test_flipped_bits_anywhere_give_no_wrong_number(path, chains, right):
    sound, generator = path.read_bytes(), np.random.default_rng(0)
    for place in generator.integers(8 * len(sound), size=10):
        content = bytearray(sound)
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
        outcome(path, chains, right)


def test_the_file_cut_short_or_overwritten_is_refused_or_begun_anew(path, chains, right):
    sound = path.read_bytes()
    page = len(sound) // 4096 // 2 * 4096
    damage = {
        "empty": (b"", "right"),
        "ten bytes": (sound[:10], "refused"),
        "half a page": (sound[:2000], "refused"),
        "a page": (sound[:4096], "refused"),
        "half": (sound[:page], "refused"),
        "within a page": (sound[: page + 77], "refused"),
        "all but a hundred bytes": (sound[:-100], "refused or solved again"),
        "zeros": (bytes(len(sound)), "refused"),
        "a page of zeros": (sound[:page] + bytes(4096) + sound[page + 4096 :], "refused"),
        "the size of pages": (sound[:16] + b"\xff" + sound[17:], "refused"),
        "the schema": (sound.replace(b"found BLOB", b"fouod BLOB"), "refused"),
        "text": (b"dear diary " * 1000, "refused"),
    }
    for what, (content, wanted) in damage.items():
        path.write_bytes(content)
        assert outcome(path, chains, right) in wanted, what


def test_another_program_s_database_is_refused_and_left_alone(tmp_path, chains):
    path = tmp_path / "bookmarks"
    change(path, "CREATE TABLE bookmark (address TEXT)")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"is not a checkpoint \(it is a database with the tables \['bookmark'\]\)"):
        distance_matrix(chains, checkpoint=path, **SETTING)
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", ["none", "missing", "cut", "zeros", "flipped"])
def test_a_damaged_log_loses_blocks_and_no_more(tmp_path, chains, right, monkeypatch, damage):
    path, log = tmp_path / "killed", tmp_path / "killed-wal"
    real = checkpoint.Checkpoint.close

    def killed(self):
        """Copies what a process that dies now would leave behind."""
        self._connection.execute("COMMIT")
        shutil.copy(self._path, path)
        shutil.copy(f"{self._path}-wal", log)
        real(self)

    monkeypatch.setattr(checkpoint.Checkpoint, "close", killed)
    distance_matrix(chains, checkpoint=tmp_path / "work", **SETTING)
    monkeypatch.undo()
    monkeypatch.setattr(plan, "GROUP_ENTRIES", 100)
    content = log.read_bytes()
    half = len(content) // 2
    if damage == "missing":
        log.unlink()
    else:
        log.write_bytes(
            {
                "none": content,
                "cut": content[:half],
                "zeros": bytes(len(content)),
                "flipped": content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :],
            }[damage]
        )
    assert outcome(path, chains, right) == "right"


def test_a_full_disk_is_named_and_what_was_finished_is_kept(tmp_path, chains, right, monkeypatch, solved):
    path, connect = tmp_path / "work", sqlite3.connect

    def small(*arguments, **options):
        connection = connect(*arguments, **options)
        connection.executescript("PRAGMA page_size = 512; PRAGMA max_page_count = 7")
        return connection

    monkeypatch.setattr(checkpoint, "_COMMIT_EVERY", 0)
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.sqlite3, "connect", small)
        with pytest.raises(OSError, match=r"checkpoint: database or disk is full\. Blocks that were kept") as caught:
            distance_matrix(chains, checkpoint=path, **SETTING)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(path)
    (kept,) = change(path, "SELECT count(*) FROM block")[0]
    assert kept > 0
    first = len(solved)
    np.testing.assert_array_equal(distance_matrix(chains, checkpoint=path, **SETTING).value, right)
    assert len(solved) - first == change(path, "SELECT count(*) FROM block")[0][0] - kept


def test_a_place_that_cannot_be_written_is_named(tmp_path, chains):
    with pytest.raises(OSError, match="checkpoint: unable to open database file") as caught:
        distance_matrix(chains, checkpoint=tmp_path, **SETTING)
    assert caught.value.errno == errno.EACCES
    assert caught.value.filename == str(tmp_path)
