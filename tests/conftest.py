"""Fixtures for all tests. Nothing here changes a global default: a test that wants float64 says so."""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

# Its asserts say what they compared, as those of test files do.
pytest.register_assert_rewrite("engine_contract")

ROOT = Path(__file__).resolve().parents[1]

# Files of tests that import a library of an extra, and are left out where it is not installed. Elsewhere a test that
# needs one calls pytest.importorskip; an import that fails in any other test is a failure of the package.
NEEDED = {
    "click": ["cli_checks.py", "test_cli*.py"],
    "matplotlib": ["test_plot*.py", "test_malformed_calls.py", "test_devices.py"],
    "sklearn": [
        "test_sklearn.py", "test_classification*.py", "test_docs*.py", "test_malformed_calls.py", "test_devices.py",
    ],
    "pandas": [
        "test_features_given.py", "test_interop_frames.py", "test_interop_graphs.py", "test_trajectories.py",
    ],
    "gymnasium": ["test_bisimulation*.py", "test_interop_gymnasium.py"],
    "torch_geometric": ["test_interop_pyg.py"],
    "deeptime": ["test_interop_deeptime.py"],
    "hmmlearn": ["test_hmm*.py", "test_interop_hmm.py"],
    "plotly": ["test_report.py", "test_cli_report.py"],
}
MISSING = [library for library in NEEDED if find_spec(library) is None]
collect_ignore_glob = [pattern for library in MISSING for pattern in NEEDED[library]]


def pytest_report_header() -> list[str]:
    """Say what is left out."""
    return [f"not installed: {name}, so left out: {', '.join(NEEDED[name])}" for name in MISSING]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets that do not ship with the package; without it, the test is skipped."""
    folder = Path(os.environ.get("MARKOVOT_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no shared data: {folder} is not a folder; set MARKOVOT_DATA")
    return folder


@pytest.fixture
def kernel_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The folder of an empty cache for this process, in which kernels are compiled anew, and their parts with them."""
    from markovot.transport.compiled import compiling

    monkeypatch.setenv("MARKOVOT_CACHE_DIR", str(tmp_path / "kernels"))
    compiling.cache_directory.cache_clear()
    yield tmp_path / "kernels"
    compiling.cache_directory.cache_clear()


@pytest.fixture
def figure_axes():
    """Makes axes to draw on; their figures are closed at the end of the test."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    yield lambda: pyplot.subplots(figsize=(8, 5))[1]
    pyplot.close("all")
