"""DATA on the command line: a path or the name of a set, as chains with names and classes."""

import dataclasses
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from markovot.cli.program import Failure, Reading

if TYPE_CHECKING:
    from markovot.chains import MarkovChain
    from markovot.costs import Cost
    from markovot.datasets import GraphDataset

BUILT_IN = ("mutag", "languages")
LAZINESS = 0.1
_GRAPH_FILES = (".graphml", ".gml", ".edgelist", ".edges", ".txt", ".csv")
_TUDATASET = ("*_graph_indicator.txt", "*_graph_labels.txt")
# Some options suit only some kinds of data. For other kinds they are refused, never ignored.
_TAKEN = {
    "set": ("features", "laziness", "initial", "directed", "empty_graphs"),
    "files": ("features", "laziness", "initial", "directed", "weight"),
    "languages": ("initial",),
}


@dataclass(frozen=True)
class Data:
    """A data set, with the same attributes for all sources.

    Attributes:
        set: the chains and classes; `targets` is empty where there are none.
        names: the name of each graph, or None if it only has a number.
        laziness: how lazy its walks were made.
        reading: the options that were given to read it.
        attribute: what a graph file must have for its nodes to be compared with these: the name of an attribute, or
            "degree"; None where no attribute of a file goes with them by default.
    """

    set: "GraphDataset"
    names: list[str] | None
    laziness: float
    reading: dict[str, Any]
    attribute: str | None

    def __len__(self) -> int:
        return len(self.set)

    def name(self, number: int) -> str:
        """The name of graph `number`."""
        return str(number) if self.names is None else self.names[number]

    def class_name(self, target: int) -> str:
        """The name of a class."""
        return self.set.target_names.get(target, str(target))

    def class_of(self, number: int) -> str | None:
        """The name of the class of graph `number`, if there are classes."""
        return self.class_name(int(self.set.targets[number])) if len(self.set.targets) else None


def load(data: str, reading: Reading) -> Data:
    """Read a data set.

    Args:
        data: what the user typed. A built-in name comes before a folder of that name, which is `./mutag`.
        reading: how.

    Raises:
        BadParameter: there is no such data.
        UsageError: an option that the data have no use for.
        ValueError, OSError: the data cannot be read.
    """
    if data == "languages":
        return _languages(reading)
    if data == "mutag":
        return _mutag(reading)
    path = Path(data)
    if not path.exists():
        what = f"there is no file or folder {data!r}, and it is no built-in set ({' or '.join(BUILT_IN)})."
        raise click.BadParameter(what, param_hint="DATA")
    if path.suffix.lower() == ".zip" or (path.is_dir() and _holds_tudataset(path)):
        return _tudataset(path, reading)
    return _graph_files(path, reading)


def _options(reading: Reading, kind: str) -> dict[str, Any]:
    """The options that were given; one that this kind of data does not use is refused."""
    given = {name: value for name, value in dataclasses.asdict(reading).items() if value is not None}
    for name in given:
        if name not in _TAKEN[kind]:
            what = {"set": "sets in the TUDataset layout", "files": "graph files"}.get(kind, kind)
            raise click.UsageError(f"--{name.replace('_', '-')} does not apply to {what}.")
    return given


def _languages(reading: Reading) -> Data:
    from markovot.datasets import GraphDataset, load_languages

    options = _options(reading, "languages")
    found = load_languages(**options)
    families = list(dict.fromkeys(found.families))
    return Data(
        _as_set(
            GraphDataset,
            name="languages",
            chains=found.chains,
            classes=found.families,
            order=families,
            feature_kind="labels",
        ),
        found.names,
        0.0,
        options,
        "label",
    )


def _as_set(
    kind: "type[GraphDataset]", *, name: str, chains: "list[MarkovChain]", classes: list[str], order: list[str],
    feature_kind: str,
) -> "GraphDataset":  # fmt: skip
    """Chains with classes that have names, as a GraphDataset."""
    import numpy as np

    return kind(
        name=name,
        chains=chains,
        targets=np.array([order.index(one) for one in classes], dtype=np.int64),
        target_names=dict(enumerate(order)),
        feature_kind=feature_kind,
        numbers=np.arange(len(chains)),
    )


def _tudataset(path: Path, reading: Reading) -> Data:
    from markovot.datasets import load_tudataset

    options = _options(reading, "set")
    found = load_tudataset(path, **({"laziness": LAZINESS} | options))
    attribute = {"labels": "label", "degree": "degree"}.get(found.feature_kind)
    return Data(found, None, options.get("laziness", LAZINESS), options, attribute)


def _mutag(reading: Reading) -> Data:
    from markovot.datasets import load_mutag

    # It is read like any other set, so that it takes the same options; then its names are added.
    with resources.as_file(resources.files("markovot") / "data" / "MUTAG.zip") as path:
        plain = _tudataset(path, reading)
    named = load_mutag()
    labels = named.label_names if plain.set.feature_kind == "labels" else ()
    return dataclasses.replace(
        plain, set=dataclasses.replace(plain.set, target_names=named.target_names, label_names=labels)
    )


def _holds_tudataset(folder: Path) -> bool:
    return any(next(folder.glob(depth + end), None) for end in _TUDATASET for depth in ("", "*/", "*/*/"))


def _graph_files(path: Path, reading: Reading) -> Data:
    """One graph file, or all in a folder; folders in it are classes."""
    from markovot.datasets import GraphDataset

    paths = _list(path) if path.is_dir() else [path]
    options = _options(reading, "files")
    read = read_files(paths, options)
    inner = [one.parent.relative_to(path).as_posix() for one in paths] if path.is_dir() else ["."]
    if "." in inner and set(inner) != {"."}:
        stray = paths[inner.index(".")]
        raise Failure(f"{path}: some graphs lie in folders, which are their classes, but {stray.name} lies outside.")
    classes = [] if "." in inner else inner
    order = sorted(set(classes))
    name = path.stem if path.is_file() else path.resolve().name
    found = _as_set(
        GraphDataset, name=name, chains=read.chains, classes=classes, order=order, feature_kind=read.feature_kind
    )
    return Data(found, [one.stem for one in paths], options.get("laziness", LAZINESS), options, read.attribute)


def _list(folder: Path) -> list[Path]:
    """The graph files in a folder and its subfolders, sorted by path, without notes and hidden files."""
    paths = [
        path
        for path in sorted([*folder.glob("*"), *folder.glob("*/*")])
        if path.suffix.lower() in _GRAPH_FILES
        and path.is_file()
        and not path.stem.upper().startswith(("README", "LICENSE", "."))
    ]
    if not paths:
        raise Failure(
            f"{folder}: it holds neither a set in the TUDataset layout nor graph files ({', '.join(_GRAPH_FILES)})."
        )
    return paths


class Files(NamedTuple):
    """Graphs from files."""

    chains: "list[MarkovChain]"
    feature_kind: str  # labels, attributes or degree
    attribute: str  # the node attribute that was read, or degree


def read_files(paths: list[Path], options: dict[str, Any]) -> Files:
    """Read graphs whose features are to be compared.

    Args:
        paths: the files.
        options: those of `interop.read_graphs`.
    """
    from markovot.interop import auto_features, read_graphs

    features = options.get("features", "auto")
    if features == "auto":
        features = auto_features(paths)
    chains = read_graphs(paths, **({"laziness": LAZINESS} | options | {"features": features}))
    if features == "degree":
        return Files(chains, "degree", features)
    first = chains[0].features
    assert first is not None
    # A "label" that is a number still counts as a label: 1 and 2 differ as much as 1 and 6.
    return Files(chains, "labels" if features == "label" or not first.is_floating_point() else "attributes", features)


def choose_cost(name: str, kind: str) -> "tuple[Cost, str]":
    """The cost with this name, and its name; for "auto" the kind of the features decides."""
    from markovot import costs

    if name == "auto":
        name = "euclidean" if kind == "attributes" else "zero-one"
    classes: dict[str, type[Any]] = {
        "zero-one": costs.ZeroOne,
        "euclidean": costs.Euclidean,
        "squared-euclidean": costs.SquaredEuclidean,
        "absolute": costs.AbsoluteDifference,
    }
    return classes[name](), name


def read_like(data: Data, path: Path, features: str | None) -> "MarkovChain":
    """A graph from a file, to be compared with those of a data set.

    Args:
        data: the set; the graph is read with its options.
        path: the file.
        features: the node attribute to compare; None: `data.attribute`.

    Raises:
        BadParameter: it is not known which attribute is meant.
    """
    import torch

    from markovot.chains import label_code

    options = {name: value for name, value in data.reading.items() if name in _TAKEN["files"]}
    features = features or data.attribute
    if features is None:
        what = "which attribute of the nodes goes with the attributes of the data? Name it."
        raise click.BadParameter(what, param_hint="--query-features")
    (chain,) = read_files([path], {"laziness": data.laziness} | options | {"features": features}).chains
    if data.set.feature_kind == "labels" and chain.features is not None:
        number = {label_code(name): k for k, name in enumerate(data.set.label_names)}
        own = data.set.chains[0].features
        if chain.features.dim() == 1 and own is not None:
            # A label that the set does not have keeps its code, which equals none of the set's.
            labels = [number.get(label, label) for label in chain.features.tolist()]
            values = _written_alike(labels, own.is_floating_point(), path)
            chain.features = torch.tensor(values, dtype=own.dtype, device="cpu")
    return chain


def _written_alike(labels: list[Any], as_floats: bool, path: Path) -> list[Any]:
    """Labels converted between integers and floats; refused if a value would change."""
    other = [label for label in labels if isinstance(label, float) != as_floats]
    for label in other:
        if label != int(label) or abs(label) > 2**53:
            ours, theirs = ("numbers", "strings") if as_floats else ("integers or strings", f"numbers such as {label}")
            raise Failure(f"{path}: its labels are {theirs}, those of the data {ours}. Write both in one way.")
    return labels if as_floats else [int(label) for label in labels]


def file_options(reading: Reading) -> dict[str, Any]:
    """The options that were given, for graph files."""
    return _options(reading, "files")
