"""The disk cache of compiled kernels: where it lies, and that it is never stale."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from markovot.transport import compiling

CALL = """
import torch, markovot
from numba.core import event
class Count(event.Listener):
    number = 0
    def on_start(self, e): Count.number += 1
    def on_end(self, e): pass
event.register("numba:compile", Count())
a = torch.tensor([0.5, 0.5], dtype=torch.float64)
markovot.transport_cost(a, a, torch.eye(2, dtype=torch.float64), epsilon=0.1)
print(Count.number)
"""


def compilations(environment: dict[str, str]) -> int:
    run = subprocess.run([sys.executable, "-c", CALL], env=environment, capture_output=True, text=True, check=True)
    return int(run.stdout)


def test_a_second_process_compiles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARKOVOT_CACHE_DIR", str(tmp_path))
    assert compilations(dict(os.environ)) > 0
    assert compilations(dict(os.environ)) == 0


def test_a_folder_that_cannot_be_written_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    occupied = tmp_path / "file"
    occupied.write_text("not a folder")
    monkeypatch.setenv("MARKOVOT_CACHE_DIR", str(occupied / "cache"))
    compiling.cache_directory.cache_clear()
    try:
        folder = compiling.cache_directory()
        assert folder.is_dir()
        assert occupied not in folder.parents
    finally:
        compiling.cache_directory.cache_clear()


def test_the_stamp_of_a_kernel_follows_every_source_file(tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text("import callee")
    (tmp_path / "callee.py").write_text("factor = 1")
    before = compiling.sources_digest(tmp_path)
    (tmp_path / "callee.py").write_text("factor = 2")
    compiling.sources_digest.cache_clear()
    assert compiling.sources_digest(tmp_path) != before
