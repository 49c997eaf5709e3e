"""Whether the torch engines do on a CUDA device what they do on the CPU: `make cuda`, in less than five minutes.

Bounds, plans, linear systems and gradients of both engines are compared with the compiled ones, on sparse and dense
batches of chains of different sizes; a distance and all its gradients with those on the CPU and with differences. Then
sweeps and distances are timed. Ends with 1 if something differs, and with 2 where there is no CUDA device.
`--device cpu --states 6` tries the script itself.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from markovot import MarkovChain, discounted_wl
from markovot.transport.compiled.entropic import CompiledEngine
from markovot.transport.gather import GatherEngine
from markovot.transport.shared_kernel import SharedKernelEngine

GAP = 1e-10
PAIRS = ((0, 0), (1, 2), (1, 0), (2, 1))  # of three chains and three; two serve in two items
ENGINES = (GatherEngine, SharedKernelEngine)
LAYOUTS = ("sparse", "dense")


def main() -> None:
    """Run all checks; each says how large a difference it saw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--states", type=int, default=48, help="of the largest chains compared; timed ones are larger")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("cuda: torch finds no CUDA device here, so nothing was checked", file=sys.stderr)
        sys.exit(2)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    print(f"torch {torch.__version__} on {name}")
    failed = 0
    for what, difference, allowed in checks(device, options.states):
        right = difference <= allowed  # which a NaN is not
        failed += not right
        print(f"{'ok    ' if right else 'FAILED'} {what}: {difference:.1e}, allowed {allowed:.0e}", flush=True)
    for kind, layout, times in ((GatherEngine, "sparse", 4), (SharedKernelEngine, "dense", 2)):
        for what, duration in timings(kind, layout, times * options.states, device):
            print(f"time   {what}: {1e3 * duration:.1f} ms", flush=True)
    print(f"cuda: {f'FAILED: {failed} checks' if failed else 'passed'}")
    sys.exit(failed > 0)


def checks(device: torch.device, states: int) -> Iterator[tuple[str, float, float]]:
    """What is compared, the largest difference, and what it may be."""
    for kind in ENGINES:
        for layout in LAYOUTS:
            for what, found in engine_differences(kind, layout, device, states):
                yield f"{kind.__name__}, {layout}, {what}", *found
    for layout in LAYOUTS:
        for what, found in distance_differences(layout, device, states):
            yield f"distance, {layout}, {what}", *found


# --- problems
def random(*shape: int, seed: int) -> Tensor:
    """The same on every device."""
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def rows_of(n: int, layout: str, seed: int) -> Tensor:
    """Transition rows, all full or with a few entries each."""
    weights = random(n, n, seed=seed) + 0.1
    if layout == "sparse":
        weights = weights * (random(n, n, seed=seed + 1) < 3 / n) + 0.3 * torch.eye(n).double().roll(1, 1)
    return weights / weights.sum(1, keepdim=True)


def batch_of(states: int, layout: str, seed: int) -> MarkovChain:
    """Three chains of different sizes."""
    parts = []
    for k, n in enumerate((states, states // 2, 3)):
        rows = rows_of(n, layout, seed + 10 * k)
        stored = rows.to_sparse_coo() if layout == "sparse" else rows
        parts.append(MarkovChain.from_transitions(stored, initial="uniform"))
    return MarkovChain.stack(parts)


# --- engines
def engine_differences(
    kind: Any, layout: str, device: torch.device, states: int
) -> Iterator[tuple[str, tuple[float, float]]]:
    """One engine on the device beside the compiled one on the CPU."""
    chains = batch_of(states, layout, 1), batch_of(states, layout, 2)
    pairs = [torch.tensor(side) for side in zip(*PAIRS, strict=True)]
    epsilon = torch.tensor([0.3, 0.1, 0.05, 0.02]).double()
    cost, v = (random(4, states, states, seed=seed) for seed in (3, 4))
    sizes = [chain.sizes[pair] for chain, pair in zip(chains, pairs, strict=True)]
    at = torch.arange(states)
    real = (at < sizes[0][:, None])[:, :, None] & (at < sizes[1][:, None])[:, None]
    v, active, gap = v * real, torch.ones(4, dtype=torch.bool), torch.full((4,), GAP).double()
    discount = torch.tensor([0.1, 0.3, 0.5, 0.7]).double()

    def results(engine_kind: Any, place: Any) -> dict[str, Tensor]:
        x, y = (chain.to(place).rows() for chain in chains)
        given = [part.to(place) for part in (*pairs, epsilon)]
        engine = engine_kind(x, y, *given)
        there = [part.to(place) for part in (cost, gap, active, v, discount)]
        lower, upper = engine.sweep(*there[:3])
        vector, on, delta = there[3], there[2], there[4]
        solved = [engine.solve(vector, delta, there[1], on, transpose=way, max_iter=200).x for way in (False, True)]
        found = {
            "lower": lower, "upper": upper, "apply": engine.apply(vector, on),
            "apply_transpose": engine.apply_transpose(vector, on), "solve": solved[0], "solve, transposed": solved[1],
            "kl": engine.kl(),
        }  # fmt: skip
        for side, rows, gradient in (("x", x, engine.gradient_x), ("y", y, engine.gradient_y)):
            full, inside = gradient(vector, None), torch.arange(states, device=place) < rows.sizes[:, None]
            found[f"gradient_{side}"] = centred(full, inside[:, :, None] & inside[:, None])
            found[f"pattern_{side}"] = gradient(vector, rows) - full[*rows.owners(), rows.indices]
        return {name: part.cpu() for name, part in found.items()}

    want, found = results(CompiledEngine, "cpu"), results(kind, device)
    yield "width of the bounds", (float((found["upper"] - found["lower"]).max()), 1.1 * GAP + 1e-12)
    apart = torch.maximum(found["lower"] - want["upper"], want["lower"] - found["upper"])
    yield "bounds that miss the value", (float(apart.max()), 1e-12)
    for name in want:
        if name.startswith("pattern"):
            yield f"{name}, beside all entries", (largest(found[name]), 1e-10)
        elif name not in ("lower", "upper"):
            yield name, (largest(found[name] - want[name]) / max(1.0, largest(want[name])), 1e-7)


def centred(values: Tensor, mask: Tensor) -> Tensor:
    """Less the mean of each row over the mask: potentials are known up to a constant."""
    mean = (values * mask).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp_min(1)
    return (values - mean) * mask


def largest(values: Tensor) -> float:
    """The largest modulus; NaN where there is one."""
    return float(values.abs().max())


# --- distances
def distance_differences(
    layout: str, device: torch.device, states: int
) -> Iterator[tuple[str, tuple[float, float]]]:
    """A batch of distances and all gradients, beside those on the CPU and beside differences."""
    n, m = states, states // 2
    inputs = {
        "x": rows_of(n, layout, 5), "y": rows_of(m, layout, 6), "cost": random(2, n, m, seed=7),
        "initial": torch.full((n,), 1 / n, dtype=torch.float64), "delta": torch.tensor([0.2, 0.6]).double(),
        "epsilon": torch.tensor([0.1, 0.3]).double(),
    }  # fmt: skip

    def solved(place: Any, given: dict[str, Tensor]) -> Any:
        there = {name: part.to(place) for name, part in given.items()}
        sides = [there[name].to_sparse_coo() if layout == "sparse" else there[name] for name in ("x", "y")]
        x = MarkovChain.from_transitions(sides[0], initial=there["initial"])
        y = MarkovChain.from_transitions(sides[1], initial="uniform")
        return discounted_wl(x, y, there["cost"], delta=there["delta"], epsilon=there["epsilon"], rtol=1e-10)

    def with_gradients(place: Any) -> tuple[Any, dict[str, Tensor]]:
        leaves = {name: part.clone().requires_grad_() for name, part in inputs.items()}
        found = solved(place, leaves)
        found.value.sum().backward()
        gradients = {name: leaf.grad for name, leaf in leaves.items()}
        return found, {name: part.to_dense() if part.is_sparse else part for name, part in gradients.items()}

    (here, want), (there, gradients) = with_gradients("cpu"), with_gradients(device)
    bound = float((here.error_bound + there.error_bound.cpu()).max())
    yield "value", (largest((here.value - there.value.cpu()).detach()), bound + 1e-12)
    yield "alignment", (largest((here.alignment - there.alignment.cpu()).detach()), 1e-6)
    for name in inputs:
        yield f"gradient in {name}", (largest(gradients[name].cpu() - want[name]), 1e-6)
        mask = inputs[name] > 0
        direction = random(*inputs[name].shape, seed=8) * mask
        if name in ("x", "y", "initial"):
            direction = centred(direction, mask)
        ends = [inputs | {name: inputs[name] + step * direction} for step in (1e-5, -1e-5)]
        above, below = (float(solved(device, end).value.sum()) for end in ends)
        slope = float((gradients[name].cpu() * direction).sum())
        off = abs((above - below) / 2e-5 - slope)
        yield f"gradient in {name} beside differences", (off, 1e-5 * max(1.0, abs(slope)))


# --- times
def timings(kind: Any, layout: str, n: int, device: torch.device) -> Iterator[tuple[str, float]]:
    """A sweep, the two products, and a distance of such chains."""
    stored = [rows_of(n, layout, seed) for seed in (1, 2)]
    stored = [rows.to_sparse_coo() if layout == "sparse" else rows for rows in stored]
    chains = [MarkovChain.from_transitions(rows, initial="uniform").to(device) for rows in stored]
    rows = [chain.rows() for chain in chains]
    item, one = torch.zeros(1, dtype=torch.int64, device=device), torch.ones(1, dtype=torch.bool, device=device)
    epsilon, gap = (torch.tensor([size]).double().to(device) for size in (0.05, 1e-6))
    cost = random(1, n, n, seed=3).to(device)
    engine = kind(*rows, item, item, epsilon)
    calls = {
        f"{kind.__name__}, sweep": lambda: kind(*rows, item, item, epsilon).sweep(cost, gap, one),
        f"{kind.__name__}, the same sweep again": lambda: engine.sweep(cost, gap, one),
        f"{kind.__name__}, apply": lambda: engine.apply(cost, one),
        f"{kind.__name__}, apply_transpose": lambda: engine.apply_transpose(cost, one),
        "discounted_wl": lambda: discounted_wl(*chains, cost[0], delta=0.2, epsilon=0.05),
    }
    for what, call in calls.items():
        yield f"{what}, {layout}, {n} states and {n}", seconds(call, device)


def seconds(call: Callable[[], Any], device: torch.device) -> float:
    """How long the second call takes."""
    call()
    wait(device)
    start = time.perf_counter()
    call()
    wait(device)
    return time.perf_counter() - start


def wait(device: torch.device) -> None:
    """Until the device has nothing left to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
