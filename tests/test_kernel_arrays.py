"""What enters compiled kernels, and what their parts hand back.

Arrays that enter are contiguous, of one type each: a kernel is compiled once, and reads what it was compiled for.
Code without reference counts (`compiling.helper`, `compiling.kernel`) makes no arrays and hands none back.
"""

import importlib
import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numba.core import types
from numba.core.errors import NumbaError
from numba.core.registry import CPUDispatcher, cpu_target

import markovot
from markovot import MarkovChain, costs, transport
from markovot.pairwise import distance_matrix, nearest_neighbours
from markovot.transport.compiled.compiling import helper, kernel
from markovot.transport.rows import array, flat
from solving import value_iteration


def functions() -> list[Any]:
    """All functions of the package that numba compiles where they are used, kernels and their parts."""
    for module in pkgutil.walk_packages(transport.__path__, "markovot.transport."):
        importlib.import_module(module.name)
    modules = [module for name, module in sys.modules.items() if name.startswith("markovot.transport.")]
    found = {id(each): each for module in modules for each in vars(module).values() if isinstance(each, CPUDispatcher)}
    return list(found.values())


def kernels() -> list[Any]:
    """Those that Python calls."""
    return [each for each in functions() if not each.targetoptions.get("no_cpython_wrapper")]


def uncounted() -> list[Any]:
    """Those without reference counts."""
    return [each for each in functions() if not each.targetoptions.get("_nrt", True)]


def name_of(function: Any) -> str:
    return f"{function.py_func.__module__}.{function.py_func.__qualname__}"


def arrays(kind: Any) -> list[Any]:
    """All array types within the type of an argument."""
    if isinstance(kind, types.Array):
        return [kind]
    if isinstance(kind, types.BaseTuple):
        return [each for part in kind for each in arrays(part)]
    return []


def solve_many_kinds() -> None:
    """Batches that are broadcast, sliced and strided; every function and layout."""
    random = torch.Generator().manual_seed(0)
    weights = torch.rand(3, 5, 5, dtype=torch.float64, generator=random)
    rows = weights / weights.sum(-1, keepdim=True)
    features = torch.rand(3, 5, 2, dtype=torch.float64, generator=random)
    x = MarkovChain.from_transitions(rows.mT.contiguous().mT, initial="uniform", features=features)
    sparse = MarkovChain.from_transitions(rows[0].to_sparse_coo(), initial="uniform", features=features[0])
    epsilon = torch.tensor([0.05, 0.1, 0.2], dtype=torch.float64)
    for one, other in ((x, x[0]), (x, sparse), (sparse, sparse), (MarkovChain.stack([sparse, sparse]), sparse)):
        for value in (0.0, 0.05, epsilon if one is x else 0.1):
            found = markovot.discounted_wl(one, other, costs.Euclidean(), delta=0.3, epsilon=value)
            assert found.alignment.sum() > 0
            markovot.wl(one, other, costs.Euclidean(), depth=2, epsilon=value)
            markovot.optimal_transition_coupling(one, other, costs.Euclidean(), epsilon=value)
    for value in (0.0, 0.05):
        wide = rows.expand(2, 3, 5, 5).requires_grad_()
        other = rows[:, None][:, 0].clone().requires_grad_()
        cost = torch.rand(5, 5, dtype=torch.float64, generator=random).mT.requires_grad_()
        level = torch.tensor(value, dtype=torch.float64, requires_grad=True)
        found = markovot.discounted_wl(wide, other, cost, delta=0.3, epsilon=level)
        (found.value.sum() + found.cost_to_go.mT.sum()).backward()
        with value_iteration():
            markovot.discounted_wl(x, x[0], costs.Euclidean(), delta=0.3, epsilon=value, rtol=0.1)
        markovot.transport_cost(rows[0, 0].expand(4, 5), rows[:, 0][:1], cost.mT, epsilon=value)
        chains = [x[0], sparse, x[2]]
        setting = {"cost": costs.Euclidean(), "delta": 0.3, "epsilon": value, "progress": False}
        distance_matrix(chains, chains[:2], **setting)
        distance_matrix(chains, **setting)
        nearest_neighbours(chains, k=1, **setting)


def test_every_array_of_every_kernel_is_contiguous():
    solve_many_kinds()
    compiled = {name_of(each): each.signatures for each in kernels() if each.signatures}
    assert len(compiled) > 12, sorted(compiled)
    for name, signatures in compiled.items():
        for signature in signatures:
            layouts = {each.layout for kind in signature for each in arrays(kind)}
            assert layouts <= {"C"}, (name, signature)


def test_the_door_to_kernels_makes_arrays_contiguous_and_copies_no_others():
    plain = torch.arange(6.0)
    for strided in (plain[:1].expand(4), plain.view(2, 3).mT, plain[::2], plain.view(2, 3)[:, 1:]):
        assert array(strided).flags.c_contiguous
        assert array(strided).tolist() == strided.tolist()
        assert flat(strided).tolist() == strided.flatten().tolist()
    array(plain)[0] = 7.0
    assert plain[0] == 7.0


def faults(function: Any) -> list[str]:
    """Where a compiled function without reference counts hands back an array, alone or in a tuple, or makes one."""
    found = []
    for result in function.overloads.values():
        kind = result.signature.return_type
        if cpu_target.target_context.data_model_manager[kind].contains_nrt_meminfo():
            found.append(f"returns {kind}")
        if "NRT_" in result.library.get_llvm_str():
            found.append("counts or allocates")
    return found


def report() -> None:
    """Print how many signatures this process compiled of each function, and the faults of those without counts."""
    solve_many_kinds()
    signatures = {name_of(each): len(each.signatures) for each in functions()}
    wrong = {name_of(each): faults(each) for each in uncounted()}
    print(json.dumps({"signatures": signatures, "faults": wrong}))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process compiles that starts on an empty cache: parts of kernels are in no cache of their own."""
    environment = {**os.environ, "MARKOVOT_CACHE_DIR": str(tmp_path_factory.mktemp("kernels"))}
    command = [sys.executable, "-c", f"import {__name__}; {__name__}.report()"]
    run = subprocess.run(command, env=environment, cwd=Path(__file__).parent, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_kernels_and_their_parts_are_compiled_for_one_signature(compiled: dict[str, Any]):
    counts = compiled["signatures"]
    assert len(counts) > 80
    assert {name: count for name, count in counts.items() if count > 1} == {}
    # Products of their own are for chains too large for a test that compiles all kernels.
    assert {name.rpartition(".")[2] for name, count in counts.items() if not count} <= {"apply", "apply_transpose"}


def test_code_without_reference_counts_makes_no_arrays_and_hands_none_back(compiled: dict[str, Any]):
    assert len(compiled["faults"]) > 70
    assert {name: found for name, found in compiled["faults"].items() if found} == {}


@helper
def same(x):
    return x


@helper
def count_and_tail(x):
    return x.size, (x[1:], 0)


@helper
def total(x):
    return x.size, (x[0] + x[1:].sum(), 0)


@pytest.mark.usefixtures("kernel_cache")
@pytest.mark.parametrize(("part", "number"), [(same, 1), (count_and_tail, 1), (total, 0)])
def test_a_part_that_hands_back_an_array_is_found(part: Any, number: int):
    kernel(lambda x: part(x) is None).compile((types.float64[::1],))  # to run it would free the array twice
    assert len(faults(part)) == number


@pytest.mark.usefixtures("kernel_cache")
def test_a_part_that_makes_an_array_is_not_compiled():
    @helper
    def part(x):
        return np.empty(x.size)[0]

    with pytest.raises(NumbaError, match="NRT"):
        kernel(lambda x: part(x)).compile((types.float64[::1],))
