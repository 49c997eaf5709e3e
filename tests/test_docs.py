"""The documentation holds together: names, pages, citations and gallery scripts. Nothing is built here."""

import ast
import importlib
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS, EXAMPLES = ROOT / "docs", ROOT / "examples"
PAGES = sorted(path for path in DOCS.rglob("*.md") if not {"_ext", "_static", "gallery"} & {*path.parts})
SCRIPTS = sorted(EXAMPLES.glob("plot_*.py"))
# A source distribution has the tests without the pages.
pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="the documentation is not here")
# Modules from which users import; `markovot` has what they share.
PUBLIC = (
    "markovot",
    "markovot.analysis.classification",
    "markovot.costs",
    "markovot.datasets",
    "markovot.analysis.explain",
    "markovot.analysis.groups",
    "markovot.interop",
    "markovot.analysis.similarity",
    "markovot.learning",
    "markovot.analysis.matching",
    "markovot.pairwise",
    "markovot.plot",
    "markovot.report",
    "markovot.sklearn",
)


def public_names(module: str) -> set[str]:
    """What a module says is public, or else what it defines without an underscore."""
    found = importlib.import_module(module)
    if hasattr(found, "__all__"):
        return set(found.__all__)
    return {
        name
        for name, value in vars(found).items()
        if not name.startswith("_") and callable(value) and getattr(value, "__module__", None) == module
    }


@cache
def documented() -> dict[str, set[str]]:
    """The names on the API pages, by module."""
    found: dict[str, set[str]] = {module: set() for module in PUBLIC}
    for page in (DOCS / "api").glob("*.md"):
        text = page.read_text(encoding="utf-8")
        for kind, target in re.findall(r"^\.\. auto(module|class|function):: (\S+)$", text, re.MULTILINE):
            if kind == "module":
                found[target] |= public_names(target)
                found["markovot"].add(target.removeprefix("markovot."))
            else:
                module, _, name = target.rpartition(".")
                found[module].add(name)
    return found


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_is_on_an_api_page(module: str) -> None:
    assert public_names(module) <= documented()[module]


@pytest.mark.parametrize("module", PUBLIC)
def test_every_name_on_an_api_page_exists(module: str) -> None:
    found = importlib.import_module(module)
    for name in documented()[module]:
        assert hasattr(found, name) or (module == "markovot" and importlib.import_module(f"markovot.{name}"))


def test_modules_that_gather_names_from_elsewhere_show_them() -> None:
    for page in (DOCS / "api").glob("*.md"):
        text = page.read_text(encoding="utf-8")
        for module, options in re.findall(r"^\.\. automodule:: (\S+)\n((?: +:.*\n)*)", text, re.MULTILINE):
            found = importlib.import_module(module)
            names = getattr(found, "__all__", ())
            gathers = any(getattr(getattr(found, name), "__module__", module) != module for name in names)
            assert (":imported-members:" in options) == gathers, module


def test_every_command_is_on_its_page() -> None:
    pytest.importorskip("click")
    pytest.importorskip("rich")
    from markovot.cli.app import app

    text = (DOCS / "api" / "commandline.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^```\{command-help\} (\S+)$", text, re.MULTILINE)) == set(app.commands)


def test_every_page_is_in_a_toctree() -> None:
    listed = {"index"}
    for page in PAGES:
        for tree in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            entries = [line for line in tree.splitlines() if line and not line.startswith(":")]
            listed |= {(page.parent / entry).relative_to(DOCS).as_posix() for entry in entries}
    assert {page.relative_to(DOCS).with_suffix("").as_posix() for page in PAGES} | {"gallery/index"} == listed


def test_every_citation_is_in_the_bibliography_and_cited() -> None:
    entries = re.findall(r"^@\w+\{(\w+),", (DOCS / "references.bib").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(entries) == len(set(entries))
    cited = set()
    for page in PAGES:
        for keys in re.findall(r"\{cite:\w+\}`([^`]*)`", page.read_text(encoding="utf-8")):
            cited |= {key.strip() for key in keys.split(",")}
    assert cited
    assert cited <= set(entries)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_every_link_and_picture_of_a_page_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text) + re.findall(r"```\{image\} (\S+)", text)
    for target in targets:
        if "://" in target:
            continue
        if "gallery/" in target:  # made from the scripts when the site is built
            name = Path(target).stem
            assert name == "index" or (EXAMPLES / f"{name}.py").is_file(), target
        else:
            assert (page.parent / target).is_file(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_python_on_a_page_is_run_when_the_site_is_built(page: Path) -> None:
    assert not re.search(r"^```(?:python|py|\{code-block\} python)$", page.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_gallery_script_has_a_title_and_a_picture(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    tree = ast.parse(text)
    title, line, *rest = (ast.get_docstring(tree) or "").splitlines()
    assert title
    assert set(line) == {"="}
    assert len(line) >= len(title)
    assert "".join(rest).strip(), "says nothing of what it shows"
    assert "# %%" in text
    assert re.search(r"pyplot|matplotlib|plot\.", text), "has no picture"
    assert "/work" not in text
    assert "/tmp" not in text


def test_there_are_gallery_scripts() -> None:
    assert len(SCRIPTS) >= 10
