"""A graph from a file among those of a set: its labels are compared as they are written, or not at all."""

from typing import Any

import networkx as nx
import pytest

from cli_checks import complaint, loaded


def write(path: Any, labels: Any) -> Any:
    graph = nx.path_graph(len(labels))
    nx.set_node_attributes(graph, dict(enumerate(labels)), "label")
    nx.write_graphml(graph, path)
    return path


def test_numbers_as_labels_are_compared_exactly(tmp_path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for name, labels in {"a": [1, 2, 1], "b": [1, 1, 2], "c": [1, 16777217, 1]}.items():
        write(folder / f"{name}.graphml", labels)
    options = ("-k", "3", "--features", "label", "--epsilon", "0")
    facts = loaded("neighbours", folder, write(tmp_path / "q.graphml", [1.0, 2.0, 1.0]), *options)
    assert facts["neighbours"][0]["distance"] == pytest.approx(0, abs=1e-9)
    assert facts["neighbours"][0]["name"] == "a"
    facts = loaded("neighbours", folder, write(tmp_path / "q.graphml", [1.0, 16777216.0, 1.0]), *options)
    assert min(one["distance"] for one in facts["neighbours"]) > 0.1
    message = complaint(1, "neighbours", folder, write(tmp_path / "q.graphml", "CNC"), *options)
    assert "its labels are strings, those of the data numbers" in message


def test_a_label_between_integers_is_not_rounded(tmp_path) -> None:
    query = write(tmp_path / "q.graphml", [0.0, 1.5, 0.0])
    assert "its labels are numbers such as 1.5" in complaint(1, "neighbours", "mutag", query, "-k", "1")
