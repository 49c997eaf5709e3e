"""The house rules a machine can see: who imports whom, what import costs, and the size of things."""

import ast
import inspect
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path

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
# Names that two things still have. A name that one of them gives up leaves this list; none comes.
CLASSES_TWICE = {
    "Checkpoint", "Enclosure", "FixedPoint", "Table", "_Chunk", "_Run",
}  # fmt: skip
FILES_TWICE = {
    "checkpoint.py", "graphs.py", "history.py", "iteration.py", "matrices.py", "matrix.py",
    "neighbours.py", "solution.py",
}  # fmt: skip
# These run the package as a user would, so they may import it whole.
PROGRAMS = {"demo", "cli.app", "cli.distances"}


def module_name(path: Path) -> str:
    parts = list(path.relative_to(SOURCE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(SOURCE.rglob("*.py")) if path != SOURCE / "__init__.py"}
FILES = {"": SOURCE / "__init__.py"} | MODULES
TEXTS = {module: path.read_text(encoding="utf-8") for module, path in FILES.items()}
TREES = {module: ast.parse(text) for module, text in TEXTS.items()}


def rank(module: str) -> int | None:
    for place, patterns in enumerate(ORDER):
        if any(fnmatch(module, pattern) for pattern in patterns):
            return place
    return None


def imported(own_name: str) -> set[str]:
    """Our modules that a module imports, anywhere in it; the package itself counts as ''."""
    found: set[str] = set()
    is_package = MODULES[own_name].name == "__init__.py"
    for node in ast.walk(TREES[own_name]):
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


IMPORTS = {module: imported(module) for module in MODULES}


def test_the_source_is_where_we_look():
    assert len(MODULES) > 10
    assert "datasets" in MODULES


def test_imports_run_downwards():
    wrong = []
    for module, others in IMPORTS.items():
        place = rank(module)
        if place is None:
            if others or MODULES[module].name != "__init__.py":
                wrong.append(f"{module} has no place in ORDER: put it where it may import from what stands above it")
            continue
        if "" in others and module not in PROGRAMS:
            wrong.append(f"{module} imports the whole package: name the module it needs")
        below = [other for other in sorted(others - {""}) if rank(other) is None or rank(other) > place]
        wrong += [f"{module} imports {other}, which does not stand above it" for other in below]
    assert not wrong, "\n".join(wrong)


def test_no_import_cycles():
    edges = {module: others & set(MODULES) for module, others in IMPORTS.items()}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"import cycle: {' -> '.join((*trail, module))}"
        if module not in done:
            for other in sorted(edges[module]):
                visit(other, (*trail, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


# What torch itself brings is not ours to count.
LIGHT = """
import sys, torch
before = set(sys.modules)
for part in sys.argv[1:]:
    __import__(part)
    print(part, *{name.partition(".")[0] for name in set(sys.modules) - before})
    before = set(sys.modules)
"""
HEAVY = {"scipy", "numba", "networkx", "matplotlib", "tqdm", "sklearn", "pandas", "plotly", "hmmlearn"}
PARTS = ("analysis", "analysis.classification", "datasets", "interop", "learning", "plot", "demo", "pairwise", "report")


def test_import_is_light():
    modules = ["markovot", *(f"markovot.{part}" for part in PARTS)]
    done = subprocess.run([sys.executable, "-c", LIGHT, *modules], capture_output=True, text=True, check=True)
    loaded = {line.split()[0]: set(line.split()[1:]) for line in done.stdout.splitlines()}
    assert list(loaded) == modules
    assert "markovot" in loaded["markovot"]
    assert {module: HEAVY & names for module, names in loaded.items() if HEAVY & names} == {}


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


def test_no_function_has_more_than_eleven_arguments():
    wrong = []
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or (module, node.name) in MORE_ARGUMENTS:
                continue
            names = [argument.arg for argument in node.args.posonlyargs + node.args.args + node.args.kwonlyargs]
            count = len(names) - (names[:1] in (["self"], ["cls"]))
            if count > 11:
                wrong.append(f"{FILES[module]}:{node.lineno} {node.name} has {count} arguments")
    assert not wrong, "\n".join(wrong)


def test_files_are_short():
    lengths = {FILES[module]: len(text.splitlines()) for module, text in TEXTS.items()}
    wrong = [f"{path} has {length} lines" for path, length in lengths.items() if length > 420]
    assert not wrong, "\n".join(["Is there a second room in it?", *wrong])


def twice(places: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The names that stand in two places or more, with all of them."""
    found = defaultdict(list)
    for name, place in places:
        found[name].append(place)
    return {name: sorted(where) for name, where in found.items() if len(where) > 1}


def assert_only_these_stand_twice(places: Iterable[tuple[str, str]], known: set[str]) -> None:
    found = twice(places)
    new = [f"{name} stands in {' and in '.join(found[name])}: rename one" for name in sorted(found.keys() - known)]
    gone = [f"{name} stands once now: take it off the list" for name in sorted(known - found.keys())]
    assert not new + gone, "\n".join(new + gone)


def test_one_name_means_one_class():
    nodes = [(node, module) for module, tree in TREES.items() for node in ast.walk(tree)]
    places = {(node.name, module) for node, module in nodes if isinstance(node, ast.ClassDef)}
    assert_only_these_stand_twice(places, CLASSES_TWICE)


def test_one_name_means_one_file():
    places = [(path.name, module) for module, path in MODULES.items() if path.name != "__init__.py"]
    assert_only_these_stand_twice(places, FILES_TWICE)


def test_order_has_no_dead_entries_above_programs():
    # Every exact name in ORDER is a module: a stale line would let a renamed module in at the wrong place.
    exact = [pattern for patterns in ORDER for pattern in patterns if "*" not in pattern]
    missing = [name for name in exact if name not in MODULES and not (SOURCE / Path(*name.split("."))).is_dir()]
    assert missing == []
    assert all(len(set(patterns)) == len(patterns) for patterns in ORDER)
    assert all(above != below for above, below in pairwise(ORDER))
