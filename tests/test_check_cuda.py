"""The check of the torch engines on a CUDA device, tried on the CPU: it passes, sees faults, says what is missing."""

import importlib.util

import pytest
import torch

from conftest import ROOT


@pytest.fixture
def run(capsys, monkeypatch):
    """Runs the script with these arguments: its exit status, what it printed, and its module."""
    spec = importlib.util.spec_from_file_location("check_cuda", ROOT / "tools" / "check_cuda.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["check_cuda.py", *arguments])
        with pytest.raises(SystemExit) as ended:
            script.main()
        return int(ended.value.code), "".join(capsys.readouterr())

    call.script = script
    return call


def test_it_passes_where_the_engines_agree(run):
    status, said = run("--device", "cpu", "--states", "4")
    assert (status, said.count("FAILED")) == (0, 0), said
    for kind in ("GatherEngine", "SharedKernelEngine", "distance"):
        for layout in ("sparse", "dense"):
            assert f"ok     {kind}, {layout}, " in said
    assert said.count("time   ") == 10
    assert said.endswith("cuda: passed\n")


def test_it_sees_an_engine_that_is_wrong(run, monkeypatch):
    class Off(run.script.GatherEngine):
        def gradient_y(self, weights, pattern):
            return super().gradient_y(weights, pattern) * (1 + 1e-6)

        def sweep(self, cost, gap, active):
            lower, upper = super().sweep(cost, gap, active)
            return lower + 1e-9, upper + torch.nan

    monkeypatch.setattr(run.script, "ENGINES", (Off,))
    monkeypatch.setattr(run.script, "distance_differences", lambda *_: ())
    monkeypatch.setattr(run.script, "timings", lambda *_: ())
    status, said = run("--device", "cpu", "--states", "4")
    failed = {line.split(", ")[2].split(":")[0] for line in said.splitlines() if line.startswith("FAILED")}
    assert failed == {"gradient_y", "width of the bounds", "bounds that miss the value"}
    assert status == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_it_says_that_there_is_no_device(run):
    assert run() == (2, "cuda: torch finds no CUDA device here, so nothing was checked\n")
