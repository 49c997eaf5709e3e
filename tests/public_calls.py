"""One good call of every public function, constructor and method, on problems of two or three states."""

import functools
import importlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import markovot
from markovot import MarkovChain, costs

MODULES = [
    "markovot",
    *(
        f"markovot.{name}"
        for name in (
            "costs", "pairwise", "learning", "analysis.matching", "analysis.groups", "analysis.explain",
            "analysis.similarity", "plot", "report", "sklearn", "analysis.classification", "interop", "datasets",
        )
    ),
]  # fmt: skip

# What the package makes, and users only read: their constructors are not for them, but their methods are.
RESULTS = {
    "BisimulationSolution", "Certified", "ChainSolution", "HorizonSolution", "Solution", "TransitionCouplingSolution",
    "Neighbours",
    "PairwiseSolution", "Barycentre", "Coarsening", "DistanceFit", "Flow", "History", "Matching", "GroupComparison",
    "Explanation", "StatePair", "TransitionEffect", "Clipped", "ErrorHistory", "Positions", "NestedAccuracy", "Ground",
    "Setting", "ChainsAndTargets", "Frames", "TransitionTable", "GraphDataset", "LanguageDataset", "Status",
    "SolveError", "TrainingError", "Cost", "MarkovChain",
}  # fmt: skip

# Methods that the package calls, with its own objects; `to` hands its arguments to torch.
INSIDE = {"NestedAccuracy.summary", "Status.of", "Status.each", "MarkovChain.to"}


class Call(NamedTuple):
    """A function and good arguments for it, by name."""

    function: Callable[..., Any]
    arguments: dict[str, Any]

    def __call__(self, **changed: Any) -> Any:
        given = self.arguments | changed
        positional: list[Any] = []
        for parameter in inspect.signature(self.function).parameters.values():
            if parameter.kind is parameter.VAR_POSITIONAL:
                positional = [given.pop(parameter.name)]
            elif parameter.kind is parameter.POSITIONAL_ONLY:
                positional.append(given.pop(parameter.name))
        return self.function(*positional, **given)


def public() -> Iterator[tuple[str, Any]]:
    """Every public function, constructor and method by its name, as a call of it is to be written."""
    seen = set()
    for name in MODULES:
        module = importlib.import_module(name)
        for member in module.__all__:
            found = getattr(module, member)
            if not callable(found) or id(found) in seen:
                continue
            seen.add(id(found))
            room = name.partition(".")[2]
            yield from _parts(f"{room}.{member}" if room else member, member, found)


def _parts(name: str, member: str, found: Any) -> Iterator[tuple[str, Any]]:
    if not inspect.isclass(found):
        yield name, found
        return
    if issubclass(found, Warning):
        return
    if member not in RESULTS and inspect.signature(found).parameters:
        yield name, found
    for key, part in _own(found).items():
        function = part.__func__ if isinstance(part, classmethod | staticmethod) else part
        if key.startswith("_") or not inspect.isfunction(function):
            continue
        if key == "raise_unless_converged" or f"{member}.{key}" in INSIDE:
            continue
        if set(inspect.signature(function).parameters) - {"self", "cls"}:
            yield f"{name}.{key}", function


def _own(kind: type) -> dict[str, Any]:
    """The members of a class that are ours, with those of its bases."""
    ours = [base for base in reversed(kind.__mro__) if base.__module__.startswith("markovot")]
    return {key: part for base in ours for key, part in vars(base).items()}


def rows(n: int) -> torch.Tensor:
    """A chain that tends to go on to the next state."""
    return (torch.eye(n).double().roll(1, 1) + 0.5 / n) / 1.5


def chain(n: int, **parts: Any) -> MarkovChain:
    """With numbers for features."""
    return MarkovChain.from_transitions(rows(n), features=torch.arange(n).double()[:, None], **parts)


def good_calls(folder: Path) -> dict[str, Call]:
    """A good call for each of the names of `public`."""
    x, y, ground = chain(2), chain(3), torch.tensor([[0.0, 1.0, 2.0], [1.0, 0.0, 1.0]]).double()
    cost, pair = costs.AbsoluteDifference(), {"x": x, "y": y, "cost": ground}
    setting = {"cost": cost, "delta": 0.5, "epsilon": 0.1}
    solution = markovot.discounted_wl(**pair, delta=0.5, epsilon=0.1)
    distances = np.abs(np.arange(8.0)[:, None] - np.arange(8.0))
    two, stored = [rows(2), rows(2)], folder / "chain.npz"
    x.save(stored)
    calls = {
        "DecisionProcess": (markovot.DecisionProcess, {"transition": two, "reward": torch.eye(2).double()}),
        "ChainSolution.coupling": (solution.coupling, {"i": 0, "j": 1}),
        "ChainSolution.transition_coupling": (solution.transition_coupling, {}),
        "MarkovChain.from_transitions": (MarkovChain.from_transitions, {"transition": rows(3)}),
        "MarkovChain.from_adjacency": (MarkovChain.from_adjacency, {"adjacency": rows(3)}),
        "MarkovChain.from_trajectories": (MarkovChain.from_trajectories, {"trajectories": [[0, 1, 0, 0]]}),
        "MarkovChain.load": (MarkovChain.load, {"path": stored}),
        "MarkovChain.save": (x.save, {"path": stored}),
        "MarkovChain.stack": (MarkovChain.stack, {"chains": [x, y]}),
        "as_chain": (markovot.as_chain, {"obj": rows(2)}),
        "label_code": (markovot.label_code, {"label": "C"}),
        "stationary_distribution": (markovot.stationary_distribution, {"transition": rows(3)}),
        "discounted_wl": (markovot.discounted_wl, pair | {"delta": 0.5, "epsilon": 0.1}),
        "wl": (markovot.wl, pair | {"depth": 2, "epsilon": 0.1}),
        "horizon_wl": (markovot.horizon_wl, pair | {"law": torch.tensor([0.5, 0.5]).double(), "epsilon": 0.1}),
        "debiased": (markovot.debiased, {"distance": markovot.discounted_wl, "x": x, "y": y, **setting}),
        "optimal_transition_coupling": (markovot.optimal_transition_coupling, pair),
        "transport_cost": (
            markovot.transport_cost,
            {"a": x.initial, "b": y.initial, "cost": ground, "epsilon": 0.1},
        ),
        "costs.Given": (costs.Given, {"matrix": ground}),
        "costs.GaussianWasserstein": (costs.GaussianWasserstein, {"dimension": 1}),
        "costs.GaussianWasserstein.features": (
            costs.GaussianWasserstein.features,
            {"mean": torch.ones(2, 1), "covariance": torch.ones(2, 1, 1)},
        ),
        "costs.resolve_cost": (costs.resolve_cost, pair),
    }
    horizon = markovot.wl(**pair, depth=2, epsilon=0.1)
    calls["HorizonSolution.coupling"] = (horizon.coupling, {"i": 0, "j": 1})
    calls["HorizonSolution.transition_coupling"] = (horizon.transition_coupling, {})
    average = markovot.optimal_transition_coupling(**pair)
    calls["TransitionCouplingSolution.coupling"] = (average.coupling, {"i": 0, "j": 1})
    calls["TransitionCouplingSolution.transition_coupling"] = (average.transition_coupling, {})
    process = markovot.DecisionProcess(two, torch.eye(2).double())
    calls["DecisionProcess.under"] = (process.under, {"policy": torch.tensor([0, 1])})
    calls["bisimulation"] = (markovot.bisimulation, {"mdp": process, "gamma": 0.5})
    calls |= _of_sets([x, y, chain(3, initial="uniform")], setting, distances, folder)
    calls |= _of_learning(x, y, setting)
    calls |= _of_pictures(x, y, solution, distances)
    calls |= _of_libraries(x, folder)
    return {name: Call(*call) for name, call in calls.items()}


def _of_sets(chains: list[MarkovChain], setting: dict[str, Any], distances: Any, folder: Path) -> dict[str, Any]:
    from markovot import datasets, pairwise, report, sklearn
    from markovot.analysis import classification, explain, groups, matching, similarity

    quiet = setting | {"progress": False}
    found = pairwise.distance_matrix(chains, **quiet)
    x, y = chains[:2]
    solved = markovot.discounted_wl(x, y, **setting)
    matched = matching.match(solved)
    explained = explain.explain(solved)
    mutag = datasets.load_mutag().subset([0, 3, 4, 5, 1, 2, 6, 7])
    cross = classification.NestedCV(folds=2, inner_folds=2, kinds=("laplacian",), scales=(1.0,), C=(1.0,))
    classes = [0, 0, 0, 0, 1, 1, 1, 1]
    fitted = sklearn.DistanceKernel().fit(distances)
    space = sklearn.MarkovDistance(setting["cost"]).fit(chains)
    few = mutag.subset([0, 4])
    tried = {"deltas": [0.5], "epsilons": [0.1], "progress": False}
    return {
        "pairwise.distance_matrix": (pairwise.distance_matrix, {"chains": chains, **quiet}),
        "pairwise.nearest_neighbours": (pairwise.nearest_neighbours, {"queries": chains, **quiet}),
        "analysis.matching.match": (matching.match, {"solution": solved}),
        "analysis.matching.descriptors": (matching.descriptors, {"adjacencies": rows(3)}),
        "analysis.matching.disagreement": (matching.disagreement, {"x": x, "y": y, "matching": matched}),
        "analysis.matching.accuracy": (matching.accuracy, {"matching": matched, "truth": [0, 1]}),
        "analysis.groups.compare_groups": (
            groups.compare_groups,
            {"distances": distances, "labels": classes, "permutations": 25},
        ),
        "analysis.explain.explain": (explain.explain, {"solution": solved}),
        "analysis.explain.Explanation.top": (explained.top, {}),
        "analysis.explain.Explanation.top_transitions": (explained.top_transitions, {}),
        "analysis.similarity.laplacian": (similarity.laplacian, {"distances": distances, "scale": 1.0}),
        "analysis.similarity.gaussian": (similarity.gaussian, {"distances": distances, "scale": 1.0}),
        "analysis.similarity.median_distance": (similarity.median_distance, {"distances": distances}),
        "analysis.similarity.clip": (similarity.clip, {"kernel": np.exp(-distances)}),
        "report.write_report": (
            report.write_report,
            {"found": found, "path": folder / "page.html", "k": 1, "progress": False},
        ),
        "sklearn.MarkovDistance": (used(sklearn.MarkovDistance, chains), {"cost": setting["cost"]}),
        "sklearn.MarkovDistance.fit": (space.fit, {"X": chains}),
        "sklearn.MarkovDistance.fit_transform": (space.fit_transform, {"X": chains}),
        "sklearn.MarkovDistance.solve": (space.solve, {"X": chains}),
        "sklearn.MarkovDistance.transform": (space.transform, {"X": chains}),
        "sklearn.DistanceKernel": (used(sklearn.DistanceKernel, distances), {}),
        "sklearn.DistanceKernel.fit": (fitted.fit, {"X": distances}),
        "sklearn.DistanceKernel.fit_transform": (fitted.fit_transform, {"X": distances}),
        "sklearn.DistanceKernel.transform": (fitted.transform, {"X": distances}),
        "analysis.classification.NestedCV": (classification.NestedCV, {}),
        "analysis.classification.classify": (
            classification.classify,
            {"dataset": mutag, "protocol": cross, "methods": ["knn"], **tried},
        ),
        "analysis.classification.distance_matrices": (classification.distance_matrices, {"dataset": few, **tried}),
        "analysis.classification.debias": (classification.debias, {"distances": distances}),
        "analysis.classification.ground": (classification.ground, {"dataset": few}),
        "analysis.classification.nested_accuracy": (
            classification.nested_accuracy,
            {"matrices": {"line": distances}, "targets": classes, "method": "knn", "protocol": cross},
        ),
        "datasets.GraphDataset.subset": (few.subset, {"indices": [0]}),
        "datasets.load_languages": (datasets.load_languages, {}),
        "datasets.load_mutag": (datasets.load_mutag, {}),
        "datasets.load_tudataset": (datasets.load_tudataset, {"path": tiny_set(folder)}),
    }


def used(estimator: Callable[..., Any], data: Any) -> Callable[..., Any]:
    """The constructor of an estimator, which by scikit-learn's custom checks nothing, and the methods that do."""

    @functools.wraps(estimator)
    def fitted(**settings: Any) -> Any:
        return estimator(**settings).fit_transform(data)

    fitted.__signature__ = inspect.signature(estimator)  # type: ignore[attr-defined]
    return fitted


def _of_learning(x: MarkovChain, y: MarkovChain, setting: dict[str, Any]) -> dict[str, Any]:
    from markovot import learning

    one = learning.Training(steps=1, progress=False)
    loss = learning.DiscountedWLLoss(**setting, warm_start=False)
    line = torch.nn.Linear(1, 1, bias=False)

    def objective(module: Any) -> torch.Tensor:
        return module.weight.square().sum()

    run = {"module": line, "objective": objective}
    small = {"n_states": 2, "cost": setting["cost"], "training": one, "restarts": 1}
    return {
        "learning.DiscountedWLLoss": (learning.DiscountedWLLoss, setting),
        "learning.DiscountedWLLoss.forward": (loss.forward, {"x": x, "y": y}),
        "learning.LabelledChain": (learning.LabelledChain, {"n_states": 2}),
        "learning.Training": (learning.Training, {}),
        "learning.Training.run": (one.run, run),
        "learning.TransitionMatrix": (learning.TransitionMatrix, {"n_states": 2}),
        "learning.TransitionMatrix.from_transition": (
            learning.TransitionMatrix.from_transition,
            {"transition": rows(2)},
        ),
        "learning.minimise": (learning.minimise, run | {"steps": 1, "progress": False}),
        "learning.barycentre": (learning.barycentre, {"chains": [x, y], **small}),
        "learning.coarsen": (learning.coarsen, {"chain": y, **small}),
        "learning.fit_distances": (learning.fit_distances, {"chains": [x, y], "targets": [0.5, 0.5], **small}),
        "learning.gradient_flow": (
            learning.gradient_flow,
            {"x": x, "y": y, "cost": setting["cost"], "training": one, "snapshots": 2},
        ),
        "learning.several_steps": (learning.several_steps, {"chain": x, "steps": 2.0}),
    }


def _of_pictures(x: MarkovChain, y: MarkovChain, solution: Any, distances: Any) -> dict[str, Any]:
    from markovot import learning, plot
    from markovot.analysis.explain import explain

    labels = list("aaaabbbb")
    steps = learning.History(np.array([0.5, 0.2]), np.zeros(2), np.ones(2, dtype=np.int64), np.ones(2))
    pair = {"x": x, "y": y, "cost": costs.AbsoluteDifference(), "delta": 0.5, "epsilon": 0.1}
    mild = {"rtol": 1e-2}
    return {
        "plot.alignment": (
            plot.alignment,
            {"chain_x": x, "chain_y": y, "alignment": solution.alignment},
        ),
        "plot.chain": (plot.chain, {"chain": y}),
        "plot.class_order": (plot.class_order, {"values": distances, "labels": labels}),
        "plot.convergence": (plot.convergence, pair | mild),
        "plot.dendrogram": (plot.dendrogram, {"distances": distances}),
        "plot.distance_matrix": (plot.distance_matrix, {"values": distances, "labels": labels}),
        "plot.embedding": (plot.embedding, {"distances": distances, "starts": 0}),
        "plot.error_history": (plot.error_history, pair | mild),
        "plot.explanation": (
            plot.explanation,
            {"explanation": explain(solution)},
        ),
        "plot.history": (plot.history, {"history": steps}),
        "plot.positions": (plot.positions, {"distances": distances, "starts": 0}),
        "plot.strip": (plot.strip, {"chains": [x, y]}),
    }


def _of_libraries(x: MarkovChain, folder: Path) -> dict[str, Any]:
    import deeptime
    import networkx
    import pandas
    from hmmlearn import hmm
    from torch_geometric.data import Data

    from markovot import interop

    model = hmm.GaussianHMM(2)
    model.n_features = 1
    model.startprob_, model.transmat_ = np.array([0.5, 0.5]), rows(2).numpy()
    model.means_, model.covars_ = np.zeros((2, 1)), np.ones((2, 1))
    msm = deeptime.markov.msm.MarkovStateModel(rows(2).numpy())
    outputs = deeptime.markov.hmm.DiscreteOutputModel(np.full((2, 2), 0.5))
    hidden = deeptime.markov.hmm.HiddenMarkovModel(msm, outputs, initial_distribution=np.array([0.5, 0.5]))
    edges = pandas.DataFrame({"source": ["a", "b"], "target": ["b", "c"], "weight": [1.0, 3.0]})
    many = edges.assign(graph=["g", "g"])
    data = Data(x=torch.eye(2), edge_index=torch.tensor([[0, 1], [1, 0]]), y=torch.tensor([1]))
    path = folder / "graph.graphml"
    networkx.write_graphml(networkx.path_graph(3), path)
    env = Toy()
    graph = networkx.path_graph(3)
    return {
        "MarkovChain.from_networkx": (MarkovChain.from_networkx, {"graph": graph}),
        "DecisionProcess.from_gymnasium": (markovot.DecisionProcess.from_gymnasium, {"env": env}),
        "interop.auto_features": (interop.auto_features, {"paths": [path]}),
        "interop.from_deeptime": (interop.from_deeptime, {"msm": msm}),
        "interop.from_deeptime_hmm": (interop.from_deeptime_hmm, {"model": hidden}),
        "interop.from_frame": (interop.from_frame, {"edges": edges, "directed": False}),
        "interop.from_frames": (interop.from_frames, {"edges": many, "directed": False}),
        "interop.from_gymnasium": (interop.from_gymnasium, {"env": env}),
        "interop.from_hmmlearn": (interop.from_hmmlearn, {"model": model}),
        "interop.from_pyg": (interop.from_pyg, {"data": data}),
        "interop.from_pyg_dataset": (interop.from_pyg_dataset, {"dataset": [data]}),
        "interop.read_graph": (interop.read_graph, {"path": path}),
        "interop.read_graphs": (interop.read_graphs, {"paths": [path]}),
        "interop.to_deeptime": (interop.to_deeptime, {"chain": x}),
        "interop.to_frame": (interop.to_frame, {"chain": x}),
        "interop.to_frames": (interop.to_frames, {"chains": [x]}),
        "interop.to_networkx": (interop.to_networkx, {"chain": x}),
        "interop.to_pyg": (interop.to_pyg, {"chain": x}),
        "interop.to_scipy": (interop.to_scipy, {"chain": x}),
        "interop.transition_table": (interop.transition_table, {"env": env}),
    }


class Toy:
    """An environment of two states and two actions, as Gymnasium's toy-text family writes them."""

    def __init__(self) -> None:
        self.P = {state: {action: [(1.0, action, 0.5, False)] for action in range(2)} for state in range(2)}
        self.initial_state_distrib = np.array([0.5, 0.5])

    @property
    def unwrapped(self) -> "Toy":
        return self


def tiny_set(folder: Path) -> Path:
    """A data set of two graphs in the TUDataset layout."""
    where = folder / "TINY"
    where.mkdir(exist_ok=True)
    parts = {"A": "1, 2\n2, 1\n3, 4\n4, 3\n", "graph_indicator": "1\n1\n2\n2\n", "graph_labels": "1\n-1\n"}
    for part, text in parts.items():
        (where / f"TINY_{part}.txt").write_text(text)
    return where
