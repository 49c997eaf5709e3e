"""Finished work survives: interruptions, and the death of the process."""

import re
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest

from markovot import costs
from markovot.datasets import load_mutag
from markovot.pairwise import checkpoint, distance_matrix, plan, running
from markovot.pairwise.blocks import Found
from solving import blocks_solved

SETTING = {"cost": costs.ZeroOne(), "delta": 0.2, "epsilon": 0.01, "progress": False}
# As in the script below: some seconds of work in many blocks.
RTOL, COUNT = 1e-9, 100
SCRIPT = f"""
import sys, torch
from markovot import costs
from markovot.datasets import load_mutag
from markovot.pairwise import distance_matrix
torch.set_num_threads(1)
distance_matrix(load_mutag().chains[:{COUNT}], cost=costs.ZeroOne(), delta=0.2, epsilon=0.01,
                rtol=1e-9, checkpoint=sys.argv[1], progress=False)
"""


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(plan, "GROUP_ENTRIES", 400)


@pytest.fixture
def chains():
    return load_mutag().chains[:30]


def blocks_in(path) -> int:
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT count(*) FROM block").fetchone()[0]
    finally:
        connection.close()


def assert_same(one, other):
    np.testing.assert_array_equal(one.value, other.value)
    np.testing.assert_array_equal(one.error_bound, other.error_bound)
    np.testing.assert_array_equal(one.status, other.status)


def test_a_killed_process_loses_little_and_a_rerun_gives_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.undo()  # the process has blocks of the usual size
    path, log = tmp_path / "work.checkpoint", tmp_path / "work.checkpoint-wal"
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(path)])
    begun = None
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        size = log.stat().st_size if log.exists() else 0
        begun = size if begun is None and size else begun
        if begun is not None and size > begun + 20_000:
            break
        time.sleep(0.02)
    assert process.poll() is None, "it finished before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = blocks_in(path)
    seen = blocks_solved(monkeypatch)
    chains = load_mutag().chains[:COUNT]
    resumed = distance_matrix(chains, rtol=RTOL, checkpoint=path, **SETTING)
    rest = len(seen)
    assert kept > 0
    assert rest > 0
    whole = distance_matrix(chains, rtol=RTOL, **SETTING)
    assert len(seen) - rest == kept + rest
    assert_same(resumed, whole)


def test_an_interruption_keeps_what_is_finished(tmp_path, monkeypatch, chains):
    path = tmp_path / "work"
    real, calls = running.solve_block, []

    def interrupted(block, setting):
        calls.append(block)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(block, setting)

    monkeypatch.setattr(running, "solve_block", interrupted)
    with pytest.raises(KeyboardInterrupt):
        distance_matrix(chains, checkpoint=path, **SETTING)
    monkeypatch.setattr(running, "solve_block", real)
    kept = blocks_in(path)
    assert kept >= 1
    seen = blocks_solved(monkeypatch)
    assert_same(distance_matrix(chains, checkpoint=path, **SETTING), distance_matrix(chains, **SETTING))
    assert len(seen) > kept


def test_an_interruption_between_two_transactions_is_no_trouble(tmp_path):
    file = checkpoint.Checkpoint(tmp_path / "work", {"delta": "0.2"})
    file.save(3, Found(np.ones(2), np.zeros(2), np.zeros(2, dtype=np.uint8), np.ones(2, dtype=np.int64)))
    file._connection.execute("COMMIT")
    file.close()
    assert blocks_in(tmp_path / "work") == 1


def test_a_finished_file_needs_no_more_work(tmp_path, monkeypatch, chains):
    first = distance_matrix(chains, checkpoint=tmp_path / "work", **SETTING)
    seen = blocks_solved(monkeypatch)
    assert_same(first, distance_matrix(chains, checkpoint=str(tmp_path / "work"), **SETTING))
    assert seen == []


def test_rectangles_and_self_distances_are_kept_too(tmp_path, monkeypatch, chains):
    task = {"debiased": True, "checkpoint": tmp_path / "work", **SETTING}
    first = distance_matrix(chains[:10], chains[10:], **task)
    seen = blocks_solved(monkeypatch)
    assert_same(first, distance_matrix(chains[:10], chains[10:], **task))
    assert seen == []
    with pytest.raises(ValueError, match="made with other self-distances"):
        distance_matrix(chains[:10], chains[10:], **task | {"debiased": False})


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"delta": 0.3}, r"delta \(delta was '0.2', now '0.3'\)"),
        ({"epsilon": 0.02}, "epsilon"),
        ({"cost": costs.Given(np.zeros((3, 3)))}, "chains and cost"),
        ({"rtol": 1e-3}, "rtol"),
    ],
)
def test_a_file_made_with_other_settings_is_refused(tmp_path, chains, change, name):
    path = tmp_path / "work"
    distance_matrix(chains[:3], checkpoint=path, **SETTING)
    other = chains[:3]
    if "cost" in change:
        other = [np.full((3, 3), 1 / 3)] * 2
    with pytest.raises(ValueError, match=f"checkpoint: {re.escape(str(path))} was made with other {name}"):
        distance_matrix(other, checkpoint=path, **SETTING | change | {"throw": False})


def test_a_file_made_with_other_data_is_refused(tmp_path, chains):
    path = tmp_path / "work"
    distance_matrix(chains[:4], checkpoint=path, **SETTING)
    for other in (chains[:5], chains[1:5], chains[3::-1]):
        with pytest.raises(ValueError, match="made with other chains"):
            distance_matrix(other, checkpoint=path, **SETTING)
    with pytest.raises(ValueError, match="made with other others"):
        distance_matrix(chains[:4], chains[:4], checkpoint=path, **SETTING)


def test_what_is_no_checkpoint_is_refused_and_left_alone(tmp_path, chains):
    path = tmp_path / "notes.txt"
    path.write_text("dear diary " * 100)
    with pytest.raises(ValueError, match=r"notes.txt is not a checkpoint \("):
        distance_matrix(chains[:2], checkpoint=path, **SETTING)
    assert path.read_text().startswith("dear diary")
    with pytest.raises(ValueError, match=r"checkpoint: there is no folder .*missing. Make it first"):
        distance_matrix(chains[:2], checkpoint=tmp_path / "missing" / "work", **SETTING)


def test_two_at_a_time_are_refused(tmp_path, chains):
    path = tmp_path / "work"
    distance_matrix(chains[:2], checkpoint=path, **SETTING)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(RuntimeError, match=r"cannot be opened for writing \(database is locked\). Another process"):
        distance_matrix(chains[:2], checkpoint=path, **SETTING)
    other.close()
