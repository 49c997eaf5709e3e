"""The demonstration: its own small rules, and one run on a few molecules."""

import numpy as np
import pytest

from markovot import demo


def test_nearest_neighbour_leaves_out_itself_and_takes_the_first_of_equals():
    distances = np.array(
        [
            [0.0, 1.0, 1.0, 5.0],
            [1.0, 0.0, 3.0, 2.0],
            [1.0, 3.0, 0.0, 4.0],
            [
                5.0,
                2.0,
                4.0,
                -9.0,
            ],  # an entropic distance to itself may be below all others: it must not count
        ]
    )
    # Neighbours: 0 -> 1 (tie with 2), 1 -> 0, 2 -> 0, 3 -> 1.
    assert demo.nearest_neighbour_accuracy(distances, np.array([1, 1, 0, 1])) == 0.75
    assert demo.nearest_neighbour_accuracy(distances, np.array([0, 1, 0, 1])) == 0.5
    assert distances[3, 3] == -9.0


def test_lookalikes_differ_in_class_and_size():
    distances = np.array([[0, 1, 2, 3], [1, 0, 4, 2], [2, 4, 0, 1], [3, 2, 1, 0]], dtype=float)
    assert demo.lookalikes(distances, np.array([5, 6, 5, 6]), np.array([1, 1, 0, 0])) == (
        0, 3, "the closest of different class and size",
    )  # fmt: skip
    assert demo.lookalikes(distances, np.array([5, 6, 5, 6]), np.array([1, 1, 1, 1])) == (
        0, 1, "the closest of different size",
    )  # fmt: skip
    assert demo.lookalikes(distances, np.array([5, 5, 5, 5]), np.array([1, 1, 1, 1])) == (0, 1, "the closest")


def test_limit_spreads_over_the_set():
    assert demo.choose(188, None).tolist() == list(range(188))
    assert demo.choose(188, 200).tolist() == list(range(188))
    assert demo.choose(188, 4).tolist() == [0, 47, 94, 141]


def test_small_limit_is_refused(capsys):
    with pytest.raises(SystemExit):
        demo.main(["--limit", "2"])
    assert "--limit must be at least 3" in capsys.readouterr().err


def test_run_on_a_few_molecules(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    out = tmp_path / "not" / "there" / "yet"
    demo.main(["--out", str(out), "--limit", "6"])
    printed = capsys.readouterr().out
    assert "MUTAG: 6 molecules" in printed
    assert "for 21 pairs" in printed
    for phrase in (
        "largest certified error:",
        "leave-one-out 1-nearest-neighbour accuracy:",
        "aligned: molecule",
    ):
        assert phrase in printed
    for name in ("mutag_distances.png", "mutag_alignment.png"):
        assert f"wrote {out / name}" in printed
        assert (out / name).read_bytes().startswith(b"\x89PNG")
