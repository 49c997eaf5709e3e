"""Fixtures for all tests. Nothing here changes a global default: a test that wants float64 says so."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets that do not ship with the package; without it, the test is skipped."""
    folder = Path(os.environ.get("MARKOVOT_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no shared data: {folder} is not a folder; set MARKOVOT_DATA")
    return folder


@pytest.fixture
def figure_axes():
    """Makes axes to draw on; their figures are closed at the end of the test."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    yield lambda: pyplot.subplots(figsize=(8, 5))[1]
    pyplot.close("all")
