"""The house rules a machine can see: who imports whom, what import costs, and the size of things."""

import ast
import inspect
import subprocess
import sys
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path

import pytest

import markovot

SOURCE = Path(markovot.__file__).parent

# Imports run downwards only: a module may import from those above it. Modules on one line may import each
# other one way. A new module is given its place here.
ORDER = [
    ["_arrays", "_progress", "autograd", "autograd.transforms", "autograd.copying", "autograd.centring"],
    ["autograd.eager", "autograd.implicit"],
    ["validate.arguments"],
    ["validate.containers"],
    ["validate.tensors"],
    ["validate"],
    ["_files", "_optional"],
    ["solution"],
    ["transport.rows", "transport.units", "transport.threads", "transport.forcing"],
    ["chains.compressed", "chains.classes"],
    ["chains.sparse"],
    ["chains.stationary"],
    ["chains", "chains.*"],
    ["costs", "costs.*"],
    ["interop._common"],
    ["interop._tables", "interop.frames", "interop.graphs", "interop.matrices", "interop.pyg", "interop.toytext"],
    ["interop.files", "interop.msm", "interop.hmm"],
    ["interop"],
    ["transport.linear"],
    ["transport.engine"],
    ["transport.torch_common"],
    ["transport.newton", "transport.shared_steps"],
    ["transport.shared_kernel", "transport.gather"],
    ["transport.compiled.compiling"],
    ["transport.compiled.simd"],
    ["transport.compiled.layout", "transport.compiled.dual", "transport.compiled.simplex"],
    ["transport.compiled.sweeps", "transport.compiled.lower_bounds", "transport.compiled.entropic_problems"],
    ["transport.compiled.krylov", "transport.compiled.potentials", "transport.compiled.exact_problems"],
    ["transport.compiled.policy"],
    ["transport.compiled.exact_sweeps", "transport.compiled.entropic_pairs"],
    ["transport.compiled.exact_pairs"],
    ["transport.compiled.kernel_engine"],
    ["transport.compiled.entropic", "transport.compiled.exact", "transport.compiled.pairs"],
    ["transport.compiled"],
    ["transport.engines", "transport.single"],
    ["transport"],
    ["solving.bellman", "solving.stopping"],
    ["solving.fixed_point", "solving.problem"],
    ["solving.adjoint", "solving.inputs"],
    ["solving.recursion", "solving.tangents", "solving.parts"],
    ["solving.call"],
    ["solving"],
    ["distances.couplings"],
    ["distances.answer"],
    ["distances.walks"],
    ["distances.horizons"],
    ["distances.discounted", "distances.transport", "distances.debiasing"],
    ["distances"],
    ["mdp", "mdp.*"],
    ["average", "average.*"],
    ["analysis.matching"],
    ["learning._checks"],
    ["learning.parameters", "learning.losses", "learning.history", "learning.checkpoint"],
    ["learning.training"],
    ["learning", "learning.*"],
    ["pairwise", "pairwise.*"],
    ["analysis.similarity"],
    ["analysis.groups", "analysis.explain"],
    ["datasets", "datasets.*"],
    ["analysis.classification", "analysis.classification.*"],
    ["analysis"],
    ["sklearn"],
    ["plot", "plot.*"],
    ["report", "report.*"],
    ["cli.program", "cli.output"],
    ["cli.data", "cli.stored"],
    ["cli.info", "cli.compare", "cli.distances", "cli.neighbours", "cli.classify", "cli.report"],
    ["cli.plot"],
    ["cli.app"],
    ["cli"],
    ["demo", "__main__"],
]
# What to solve, how, where, and what to do about failures: users ask for each by name.
MORE_ARGUMENTS = {("pairwise.matrix", "distance_matrix")}
# These run the package as a user would, so they may import it whole.
PROGRAMS = {"demo", "cli.app", "cli.distances"}


def module_name(path: Path) -> str:
    parts = list(path.relative_to(SOURCE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(SOURCE.rglob("*.py")) if path != SOURCE / "__init__.py"}


def rank(module: str) -> int | None:
    for place, patterns in enumerate(ORDER):
        if any(fnmatch(module, pattern) for pattern in patterns):
            return place
    return None


def imported(path: Path, own_name: str) -> set[str]:
    """Our modules that the file imports, anywhere in it; the package itself counts as ''."""
    found: set[str] = set()
    is_package = path.name == "__init__.py"
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            full = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = ["markovot", *own_name.split(".")]
                above = parts[: len(parts) - node.level + is_package]
                base = ".".join([*above, base]) if base else ".".join(above)
            full = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in full:
            if name == "markovot" or name.startswith("markovot."):
                found.add(nearest_module(name.removeprefix("markovot").lstrip(".")))
    return found - {own_name}


def nearest_module(name: str) -> str:
    """The module that holds `name`: itself, or the longest beginning of it that is one."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name


def test_the_source_is_where_we_look():
    assert len(MODULES) > 10
    assert "datasets" in MODULES


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_downwards(module):
    place = rank(module)
    if place is None:
        if MODULES[module].name == "__init__.py" and not imported(MODULES[module], module):
            return
        pytest.fail(f"{module} has no place in ORDER: put it where it may import from what stands above it")
    for other in imported(MODULES[module], module):
        if other == "":
            assert module in PROGRAMS, f"{module} imports the whole package: name the module it needs"
        else:
            assert rank(other) is not None, f"{other} has no place in ORDER"
            assert rank(other) <= place, f"{module} imports {other}, which stands below it"


def test_no_import_cycles():
    edges = {module: imported(path, module) & set(MODULES) for module, path in MODULES.items()}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"import cycle: {' -> '.join((*trail, module))}"
        if module not in done:
            for other in sorted(edges[module]):
                visit(other, (*trail, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sorted(sys.modules))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_import_is_light():
    # What torch itself brings is not ours to count.
    extra = loaded_by("import torch, markovot") - loaded_by("import torch")
    heavy = {"scipy", "numba", "networkx", "matplotlib", "tqdm", "sklearn", "pandas", "plotly", "hmmlearn", "jaxtyping"}
    assert "markovot" in extra
    assert not heavy & {name.partition(".")[0] for name in extra}


LIGHT = [
    "analysis",
    "analysis.classification",
    "datasets",
    "interop",
    "learning",
    "plot",
    "demo",
    "pairwise",
    "report",
]


@pytest.mark.parametrize("module", LIGHT)
def test_parts_are_light_too(module):
    extra = loaded_by(f"import torch, markovot.{module}") - loaded_by("import torch")
    heavy = {"scipy", "numba", "networkx", "matplotlib", "tqdm", "plotly", "hmmlearn"}
    assert not heavy & {name.partition(".")[0] for name in extra}


def test_public_names_exist_and_are_documented():
    assert len(set(markovot.__all__)) == len(markovot.__all__)
    undocumented = []
    for name in markovot.__all__:
        thing = getattr(markovot, name)
        if not (inspect.isclass(thing) or inspect.isroutine(thing)):
            continue
        if not (thing.__doc__ or "").strip():
            undocumented.append(name)
        for member, method in vars(thing).items() if inspect.isclass(thing) else ():
            method = getattr(method, "__func__", getattr(method, "fget", method))
            if not member.startswith("_") and inspect.isfunction(method) and not (method.__doc__ or "").strip():
                undocumented.append(f"{name}.{member}")
    assert undocumented == []


def functions(path: Path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("module", ["", *MODULES])
def test_no_function_has_more_than_eleven_arguments(module):
    path = MODULES.get(module, SOURCE / "__init__.py")
    for node in functions(path):
        if (module, node.name) in MORE_ARGUMENTS:
            continue
        names = [argument.arg for argument in node.args.posonlyargs + node.args.args + node.args.kwonlyargs]
        names = names[1:] if names[:1] in (["self"], ["cls"]) else names
        assert len(names) <= 11, f"{path.name}:{node.lineno} {node.name} has {len(names)} arguments"


@pytest.mark.parametrize("module", ["", *MODULES])
def test_files_are_short(module):
    path = MODULES.get(module, SOURCE / "__init__.py")
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 420, f"{path.name}: is there a second room in it?"


def test_order_has_no_dead_entries_above_programs():
    # Every exact name in ORDER is a module: a stale line would let a renamed module in at the wrong place.
    exact = [pattern for patterns in ORDER for pattern in patterns if "*" not in pattern]
    missing = [name for name in exact if name not in MODULES and not (SOURCE / Path(*name.split("."))).is_dir()]
    assert missing == []
    assert all(len(set(patterns)) == len(patterns) for patterns in ORDER)
    assert all(above != below for above, below in pairwise(ORDER))
