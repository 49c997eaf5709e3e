"""What is run for each claim about another package: functions that give words, or raise."""

import importlib.metadata
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from suite import cases, training

MOVING = Path(__file__).resolve().parents[2] / "docs" / "moving.md"
BLOCK = r"```\{testcode\}\n(.*?)```"

# --- shared


def rows(kind: str, size: int, seed: int) -> torch.Tensor:
    """Random rows in single precision, full ones or of three entries."""
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0.2, 1.0, (size, size))
    if kind == "sparse":
        for row in weights:
            row[rng.permutation(size)[3:]] = 0.0
    return torch.from_numpy((weights / weights.sum(1, keepdims=True)).astype(np.float32))


def moving(part: str) -> str:
    """The first snippet under a heading of the page on moving over, with what stands before all of them."""
    text = MOVING.read_text(encoding="utf-8")
    head, *sections = re.split(r"^## ", text, flags=re.MULTILINE)
    section = next(each for each in sections if each.startswith(part))
    names: dict[str, Any] = {}
    for snippet in (re.findall(BLOCK, head, re.DOTALL)[0], re.findall(BLOCK, section, re.DOTALL)[0]):
        exec(re.sub(r"^:skipif:.*\n", "", snippet), names)
    return "runs"


def metadata(package: str) -> str:
    about = importlib.metadata.metadata(cases.NEEDS[package])
    classifiers = [each.split(" :: ")[-1] for each in about.get_all("Classifier") or [] if each.startswith("License")]
    licence = about.get("License-Expression") or (about.get("License") or "").strip().splitlines()[:1]
    named = licence if isinstance(licence, str) else (licence or [""])[0]
    if named in ("", "UNKNOWN"):
        named = (classifiers or ["no licence named"])[0]
    return f"{named[:40]}; Python {about.get('Requires-Python') or 'any'}"


# --- ot-markov-distances

X, Y = 6, 10


def omd_value(x: torch.Tensor, y: torch.Tensor, cost: torch.Tensor, *laws: torch.Tensor, **options: Any) -> Any:
    from ot_markov_distances import discounted_wl_infty

    torch.manual_seed(0)
    some = {"delta": 0.5, "sinkhorn_reg": 0.05} | options
    return discounted_wl_infty(x[None], y[None], cost[None], *(law[None] for law in laws), **some).sum()


def omd_inputs(kind_x: str, kind_y: str) -> dict[str, torch.Tensor]:
    cost = np.random.default_rng(2).random((X, Y)).astype(np.float32)
    return {
        "rows of X": rows(kind_x, X, 0),
        "rows of Y": rows(kind_y, Y, 1),
        "cost": torch.from_numpy(cost),
        "law of X": torch.full((X,), 1 / X),
        "law of Y": torch.full((Y,), 1 / Y),
    }


def omd_gradients(kind_x: str, kind_y: str, **options: Any) -> str:
    """Each input asked for alone: which gradients come back, and what the others raise."""
    gives, raised = [], {}
    for name in ("cost", "law of X", "law of Y", "rows of X", "rows of Y"):
        given = omd_inputs(kind_x, kind_y)
        given[name].requires_grad_()
        try:
            omd_value(*given.values(), **options).backward()
            gives.append(name)
        except (TypeError, AssertionError) as error:
            raised[name] = type(error).__name__
    return "; ".join([f"gives {', '.join(gives)}", *(f"{each} for {name}" for name, each in raised.items())])


def omd_beside_ours() -> str:
    """Its gradients with raised limits, and ours, at one dense and one sparse chain."""
    from markovot import MarkovChain, discounted_wl

    given = omd_inputs("dense", "sparse")
    mine = {name: each.double() / (each.double().sum(-1, keepdim=True) if name != "cost" else 1) for name, each in
            given.items()}  # fmt: skip
    wanted = ("cost", "law of X", "law of Y", "rows of X")
    for name in wanted:
        given[name].requires_grad_()
        mine[name] = mine[name].detach().requires_grad_()
    omd_value(*given.values(), **training.TIGHT | {"convergence_threshold_atol": 1e-6}).backward()
    x, y = (
        MarkovChain.from_transitions(mine[f"rows of {side}"], initial=mine[f"law of {side}"]) for side in ("X", "Y")
    )
    accuracy = {"rtol": 1e-10}
    discounted_wl(x, y, mine["cost"], delta=0.5, epsilon=0.05, **accuracy).value.backward()
    gap = max(float((given[name].grad - mine[name].grad).abs().max() / mine[name].grad.abs().max()) for name in wanted)
    return f"{'agree' if gap < 1e-4 else 'differ'}, within {gap:.0e} of the largest entry"


def omd_parameter(name: str) -> str:
    given = omd_inputs("dense", "sparse")
    number = torch.tensor(0.3, requires_grad=True)
    omd_value(*given.values(), **{name: number}).backward()
    return "gives a gradient"


def omd_double(laws: bool) -> str:
    x, y, cost, *both = (each.double() for each in omd_inputs("dense", "sparse").values())
    return str(omd_value(x, y, cost, *(both if laws else ())).dtype)


def omd_twice() -> str:
    from ot_markov_distances import discounted_wl_infty

    x, y, cost, *_ = (each[None] for each in omd_inputs("dense", "sparse").values())
    some = {discounted_wl_infty(x, y, cost, delta=0.1, sinkhorn_reg=0.01).item() for _ in range(5)}
    return "one value" if len(some) == 1 else f"{len(some)} values in five calls, {max(some) - min(some):.0e} apart"


def first_example() -> tuple[torch.Tensor, ...]:
    """The chains of the README, in double precision: rounded to single they are others."""
    numbers = [[0.9, 0.1], [0.5, 0.5]], [[0.6, 0.4], [0.4, 0.6]], [[0.0, 1.0], [1.0, 0.0]]
    return tuple(torch.tensor(each, dtype=torch.float64) for each in numbers)


def omd_first(**options: Any) -> str:
    single = [each.float() for each in first_example()]
    return f"{float(omd_value(*single, delta=0.2, sinkhorn_reg=0.01, **options)):.3f}"


def omd_weights() -> str:
    """A cost of one everywhere has the distance one, if the weights of the steps sum to one."""
    from ot_markov_distances import discounted_wl_k

    x, y, cost = (each.float()[None] for each in first_example())
    return f"{discounted_wl_k(x, y, cost_matrix=torch.ones_like(cost), delta=0.2, k=1, reg=0.01).item():.2f}"


def omd_pads() -> str:
    from ot_markov_distances.utils import pad_one_markov_to

    padded, _ = pad_one_markov_to(rows("dense", 3, 0), torch.full((3,), 1 / 3), 5)
    return f"a chain of {len(padded)} states"


def omd_exact() -> str:
    value = float(omd_value(*omd_inputs("dense", "sparse").values(), sinkhorn_reg=0.0))
    return "NaN" if np.isnan(value) else f"{value:.4f}"


# --- POT


def pot_emd() -> str:
    import ot

    cost = torch.rand(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    laws = [torch.full((size,), 1 / size, dtype=torch.float64, requires_grad=True) for size in (4, 5)]
    ot.emd2(*laws, cost).backward()
    return "gives cost, laws" if all(each.grad is not None for each in (cost, *laws)) else "gives none"


def _graphs(torch_too: bool = False) -> tuple[Any, ...]:
    import networkx

    graphs = [networkx.to_numpy_array(networkx.cycle_graph(6)), networkx.to_numpy_array(networkx.path_graph(5))]
    cost = np.random.default_rng(0).random((6, 5))
    arrays = (cost, *graphs, np.full(6, 1 / 6), np.full(5, 1 / 5))
    return tuple(torch.from_numpy(each).requires_grad_() for each in arrays) if torch_too else arrays


def pot_fused() -> str:
    import ot

    cost, one, two, p, q = _graphs(torch_too=True)
    ot.gromov.fused_gromov_wasserstein2(cost, one, two, p, q, alpha=0.5).backward()
    names = {"cost": cost, "structures": one, "laws": p}
    return f"gives {', '.join(name for name, each in names.items() if each.grad is not None)}"


def pot_marginals() -> str:
    import ot

    cost, one, two, p, q = _graphs()
    plan = ot.gromov.fused_gromov_wasserstein(cost, one, two, p, q, alpha=0.5)
    return "p and q" if max(abs(plan.sum(1) - p).max(), abs(plan.sum(0) - q).max()) < 1e-9 else "others"


def pot_starts() -> str:
    """From random starts, without features."""
    import ot

    _, one, two, p, q = _graphs()
    rng, found = np.random.default_rng(0), set()
    for _ in range(20):
        start = ot.emd(p, q, rng.random((6, 5)))
        found.add(round(float(ot.gromov.gromov_wasserstein2(one, two, p, q, G0=start)), 6))
    return f"{len(found)} values from 20 starts, {min(found):.3g} to {max(found):.3g}"


def pot_batch(sizes: tuple[int, int]) -> str:
    import ot

    costs = [torch.rand(size, size) for size in sizes]
    values = ot.solve_batch(torch.stack(costs) if len(set(sizes)) == 1 else costs, reg=0.1)
    return f"{len(values.value_linear)} values"


# --- pyotc


def _otc_problem() -> tuple[np.ndarray, ...]:
    random = np.random.default_rng(0)
    p, q = random.random((4, 4)), random.random((5, 5))
    return p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True), random.random((4, 5))


def otc_exact() -> str:
    from pyotc import exact_otc

    from markovot import optimal_transition_coupling

    value, coupling, _ = exact_otc(*_otc_problem())
    gap = abs(float(value) - optimal_transition_coupling(*_otc_problem()).value.item())
    return f"{'the same' if gap < 1e-6 else 'another value'}, to {gap:.0e}; coupling {coupling.shape}"


def otc_entropic() -> str:
    """Its `exp_cost` beside both of our numbers."""
    from pyotc import entropic_otc

    from markovot import optimal_transition_coupling

    theirs = float(entropic_otc(*_otc_problem(), xi=10.0, L=1000, T=1000, sink_iter=1000)[0])
    found = optimal_transition_coupling(*_otc_problem(), epsilon=0.1)
    mine = {"expected_cost": found.expected_cost.item(), "value": found.value.item()}
    near = [name for name, number in mine.items() if abs(number - theirs) < 1e-4]
    told = ", ".join(f"{name} {number:.4f}" for name, number in mine.items())
    return f"is our {' and '.join(near) or 'neither'}: {theirs:.4f} there; here {told}"


def otc_first() -> str:
    from pyotc import exact_otc

    return f"{float(exact_otc(*(each.numpy() for each in first_example()))[0]):.4f}"


def otc_gradient() -> str:
    from pyotc import exact_otc

    p, q, c = (torch.from_numpy(each) for each in _otc_problem())
    value = exact_otc(p, q, c.requires_grad_())[0]
    return "gives a gradient" if getattr(value, "requires_grad", False) else "none: a number without one"


# --- graph kernels


def grakel_kernel() -> str:
    from grakel import VertexHistogram, WeisfeilerLehman

    two = [({0: [1], 1: [0]}, {0: "a", 1: "b"}), ({0: [1, 2], 1: [0], 2: [0]}, {0: "a", 1: "b", 2: "b"})]
    kernel = WeisfeilerLehman(n_iter=3, base_graph_kernel=VertexHistogram, normalize=True).fit_transform(two)
    return f"a {type(kernel).__name__} {kernel.shape}, of graphs of different sizes"


def grakel_vectors() -> str:
    from grakel import PropagationAttr

    two = [({0: [1], 1: [0]}, {0: [0.1, 0.2], 1: [0.3, 0.1]}), ({0: [1], 1: [0]}, {0: [0.5, 0.2], 1: [0.3, 0.9]})]
    return f"a {type(PropagationAttr(random_state=0).fit_transform(two)).__name__}"


def grakel_edges() -> str:
    from grakel import NeighborhoodSubgraphPairwiseDistance

    def graph(edge: str) -> Any:
        return ({(0, 1): 1.0, (1, 0): 1.0}, {0: "a", 1: "b"}, {(0, 1): edge, (1, 0): edge})

    kernel = NeighborhoodSubgraphPairwiseDistance(normalize=True).fit_transform([graph("x"), graph("y")])
    return "they count" if kernel[0, 1] < kernel[0, 0] - 1e-9 else "they do not"


def wwl_kernel(features: bool, **options: Any) -> str:
    import igraph
    from wwl import wwl

    graphs = [igraph.Graph.Ring(4), igraph.Graph.Ring(6)]
    for graph in graphs:
        graph.vs["label"] = list(range(graph.vcount()))
    rng = np.random.default_rng(0)
    # It makes an array of the list, which needs one number of nodes.
    vectors = {"node_features": np.array([rng.random((4, 2)), rng.random((4, 2))])} if features else {}
    kernel = wwl([graphs[0]] * 2 if features else graphs, num_iterations=2, **vectors, **options)
    return f"a {type(kernel).__name__} {kernel.shape}"
