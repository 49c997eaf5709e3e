"""What the tests of interop share."""

import torch
from torch import Tensor

from markovot.chains import MarkovChain


def dense(chain: MarkovChain) -> Tensor:
    return chain.to_dense().transition


def assert_same_chain(found: MarkovChain, wanted: MarkovChain, *, names: bool = True) -> None:
    """The same walk, features (also their dtype), names and initial law."""
    assert found.num_states == wanted.num_states
    torch.testing.assert_close(dense(found), dense(wanted), rtol=1e-14, atol=1e-15)
    if wanted.features is None:
        assert found.features is None
    else:
        assert found.features is not None
        assert torch.equal(found.features, wanted.features)
        assert found.features.dtype == wanted.features.dtype
    if names:
        assert found.state_names == wanted.state_names
    torch.testing.assert_close(found.initial, wanted.initial)


def sample(layout: str = "sparse", **parts: object) -> MarkovChain:
    """Four states: one that can stay, one that never leaves (as an isolated node), and steps that go one way only."""
    rows = torch.tensor(
        [[0.0, 0.7, 0.3, 0.0], [0.1, 0.2, 0.7, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]], dtype=torch.float64
    )
    given = rows if layout == "dense" else rows.to_sparse()
    return MarkovChain.from_transitions(given, **{"initial": "uniform", **parts})  # type: ignore[arg-type]
