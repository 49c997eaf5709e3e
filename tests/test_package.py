"""What the package promises of itself: versions, extras, what ships. `make package` builds, installs and uses it."""

import re
import tomllib
from importlib import resources

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import markovot
from conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
FOR_USERS = [extra for extra in EXTRAS if extra not in ("all", "docs", "dev")]


def pins(name: str) -> dict[str, Version]:
    """The versions in a constraints file."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pair) == 2 for pair in pairs)
    return {plain(package): Version(version) for package, version in pairs}


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def promised() -> dict[str, Version]:
    """The lower bound of everything that a user may install with the package."""
    found = {}
    for text in [*PROJECT["dependencies"], *(text for extra in FOR_USERS for text in EXTRAS[extra])]:
        requirement = Requirement(text)
        bounds = {each.operator: each for each in requirement.specifier}
        bound = bounds.pop(">=")
        assert not bounds or requirement.name == "numba", f"{text}: users get lower bounds only"
        found[plain(requirement.name)] = Version(bound.version)
    return found


def test_the_oldest_versions_that_are_tested_are_those_that_are_promised():
    oldest = pins("constraints-oldest.txt")
    for name, bound in promised().items():
        assert oldest[name] >= bound
        if name != "torch":  # see the file
            told = f"{name}: pyproject.toml says {bound}, constraints-oldest.txt {oldest[name]}"
            assert (oldest[name].major, oldest[name].minor) == (bound.major, bound.minor), told


def test_all_is_every_extra_for_users():
    (everything,) = map(Requirement, EXTRAS["all"])
    assert everything.name == "markovot"
    assert everything.extras == set(FOR_USERS)


def test_the_versions_we_develop_with_keep_the_promise():
    current = pins("constraints.txt")
    for name, bound in promised().items():
        assert name not in current or current[name] >= bound
    assert current["torch"] == pins("constraints-oldest.txt")["torch"]


def test_numba_is_held_to_versions_that_were_tested():
    """The kernels use its inside, which any minor version may change: see `compiling.py`."""
    (text,) = [text for text in PROJECT["dependencies"] if text.startswith("numba")]
    tested = pins("constraints.txt")["numba"]
    assert Requirement(text).specifier.contains(str(tested))
    assert not Requirement(text).specifier.contains(f"{tested.major}.{tested.minor + 1}.0")


def test_the_version_is_the_same_everywhere():
    assert PROJECT["version"] == markovot.__version__
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version:\s*[\"']?([^\"'\s]+)", citation, re.MULTILINE)[1] == markovot.__version__


def test_every_extra_that_a_message_names_exists():
    named = {}
    for path in (ROOT / "src" / "markovot").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for extra in re.findall(r"extra=\"(\w+)\"|markovot\[([\w,]+)\]", text):
            named |= dict.fromkeys("".join(extra).split(","), path.name)
    assert {"plot", "report", "cli", "sklearn"} <= set(named)
    assert {extra: file for extra, file in named.items() if extra not in EXTRAS} == {}


@pytest.mark.parametrize("name", ["py.typed", "data/MUTAG.zip", "data/languages.json", "report/report.js"])
def test_what_is_no_module_ships_too(name):
    assert resources.files("markovot").joinpath(*name.split("/")).is_file()
