"""What enters compiled kernels: contiguous arrays, so that each kernel reads what it was compiled for."""

import importlib
import pkgutil
from typing import Any

import torch
from numba.core import types

import markovot
from markovot import MarkovChain, costs, transport
from markovot.pairwise import distance_matrix, nearest_neighbours
from markovot.transport.rows import array, flat


def kernels() -> dict[str, Any]:
    """All compiled kernels, by module and name."""
    found = {}
    for module in pkgutil.iter_modules(transport.__path__):
        if module.name.startswith("kernels"):
            for name, thing in vars(importlib.import_module(f"markovot.transport.{module.name}")).items():
                if hasattr(thing, "signatures") and getattr(thing, "_cache", None) is not None:
                    found[f"{module.name}.{name}"] = thing
    return found


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
        cost = torch.rand(5, 5, dtype=torch.float64, generator=random).mT.requires_grad_()
        found = markovot.discounted_wl(wide, rows[:, None][:, 0], cost, delta=0.3, epsilon=value)
        (found.value.sum() + found.cost_to_go.mT.sum()).backward()
        markovot.transport_cost(rows[0, 0].expand(4, 5), rows[:, 0][:1], cost.mT, epsilon=value)
        chains = [x[0], sparse, x[2]]
        setting = {"cost": costs.Euclidean(), "delta": 0.3, "epsilon": value, "progress": False}
        distance_matrix(chains, chains[:2], **setting)
        distance_matrix(chains, **setting)
        nearest_neighbours(chains, k=1, **setting)


def test_every_array_of_every_kernel_is_contiguous():
    solve_many_kinds()
    compiled = {name: kernel.signatures for name, kernel in kernels().items() if kernel.signatures}
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
