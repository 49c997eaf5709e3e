"""Gymnasium's toy-text tables, on the real library and beside the tables of the shared data."""

import csv
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from interop_checks import dense
from markovot import costs, discounted_wl, interop
from markovot.chains import MarkovChain, as_chain


def newest(name: str) -> str:
    """The newest version of an environment: older ones are refused or warned of."""
    return max(
        (spec.id for spec in gymnasium.registry.values() if spec.name == name),
        key=lambda id: int(id.rpartition("v")[2]),
    )


def make(name: str, **options: Any) -> gymnasium.Env:
    return gymnasium.make(newest(name), **options)


TABLES: dict[str, Callable[[], gymnasium.Env]] = {
    "FrozenLake4x4": lambda: make("FrozenLake", is_slippery=False),
    "FrozenLake4x4_slippery": lambda: make("FrozenLake", is_slippery=True),
    "FrozenLake8x8": lambda: make("FrozenLake", map_name="8x8", is_slippery=False),
    "FrozenLake8x8_slippery": lambda: make("FrozenLake", map_name="8x8", is_slippery=True),
    "CliffWalking": lambda: make("CliffWalking", is_slippery=False),
    "CliffWalking_slippery": lambda: make("CliffWalking", is_slippery=True),
    "Taxi": lambda: make("Taxi", is_rainy=False),
    "Taxi_rainy": lambda: make("Taxi", is_rainy=True),
}


def stored_table(folder: Path, name: str) -> dict[int, dict[int, list[tuple[float, int, float, bool]]]]:
    """A table of the shared data in the form of `env.unwrapped.P`."""
    with zipfile.ZipFile(folder / "markov" / "GYM_TOYTEXT.zip") as archive:
        text = archive.read(f"GYM_TOYTEXT/{name}.csv").decode()
    table: dict[int, dict[int, list[tuple[float, int, float, bool]]]] = {}
    for row in csv.DictReader(io.StringIO(text)):
        outcome = (float(row["probability"]), int(row["next_state"]), float(row["reward"]), row["terminated"] == "1")
        table.setdefault(int(row["state"]), {}).setdefault(int(row["action"]), []).append(outcome)
    return table


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("absorbing", [True, False])
def test_the_library_and_the_stored_tables_agree(shared_data: Path, name: str, absorbing: bool) -> None:
    found = interop.transition_table(TABLES[name](), absorbing=absorbing)
    wanted = interop.transition_table(stored_table(shared_data, name), absorbing=absorbing)
    torch.testing.assert_close(found.transition.to_dense(), wanted.transition.to_dense(), rtol=1e-15, atol=1e-15)
    torch.testing.assert_close(found.reward, wanted.reward, rtol=1e-15, atol=1e-15)
    assert torch.equal(found.terminal, wanted.terminal)
    assert wanted.start is None
    assert found.start is not None


@pytest.mark.parametrize("name", ["FrozenLake4x4_slippery", "CliffWalking", "Taxi_rainy"])
def test_the_table_is_what_the_outcomes_say(name: str) -> None:
    env = TABLES[name]()
    table = interop.transition_table(env, absorbing=False)
    outcomes = env.unwrapped.P
    transition, reward = np.zeros(table.transition.shape), np.zeros(table.reward.shape)
    for s, actions in outcomes.items():
        for a, rows in actions.items():
            for p, following, gain, _ in rows:
                transition[a, s, following] += p
                reward[s, a] += p * gain
    assert (table.num_states, table.num_actions) == (len(outcomes), len(outcomes[0]))
    np.testing.assert_allclose(table.transition.to_dense(), transition, rtol=1e-15)
    np.testing.assert_allclose(table.reward, reward, rtol=1e-15)
    assert table.transition.is_coalesced()
    batch = MarkovChain.from_transitions(table.transition, initial="uniform")  # one chain for each action
    assert (len(batch), batch.num_states, batch.is_sparse) == (table.num_actions, table.num_states, True)


@pytest.mark.parametrize(
    ("name", "terminal"),
    [("FrozenLake4x4", [5, 7, 11, 12, 15]), ("CliffWalking", [47]), ("Taxi", [0, 85, 410, 475])],
)
def test_episodes_end_in_absorbing_states(name: str, terminal: list[int]) -> None:
    table = interop.transition_table(TABLES[name]())
    assert table.terminal.nonzero()[:, 0].tolist() == terminal
    rows = table.transition.to_dense()[:, terminal]
    assert torch.equal(rows, torch.eye(table.num_states).double()[terminal].expand_as(rows))
    assert not table.reward[terminal].any()
    other = interop.transition_table(TABLES[name](), absorbing=False)
    assert torch.equal(other.terminal, table.terminal)
    rest = ~table.terminal
    assert torch.equal(other.transition.to_dense()[:, rest], table.transition.to_dense()[:, rest])
    assert torch.equal(other.reward[rest], table.reward[rest])
    if name != "FrozenLake4x4":
        assert not torch.equal(other.transition.to_dense(), table.transition.to_dense())


def test_what_never_happens_ends_no_episode() -> None:
    table = {0: {0: [(1.0, 0, 1.0, False), (0.0, 1, 9.0, True)]}, 1: {0: [(1.0, 0, 2.0, False)]}}
    found = interop.transition_table(table)
    assert found.terminal.tolist() == [False, False]
    assert found.reward.tolist() == [[1.0], [2.0]]


# --- policies
def test_the_uniform_policy_is_the_mean_over_actions() -> None:
    env = TABLES["FrozenLake4x4_slippery"]()
    chain, table = interop.from_gymnasium(env), interop.transition_table(env)
    torch.testing.assert_close(dense(chain), table.transition.to_dense().mean(0))
    torch.testing.assert_close(chain.features, table.reward.mean(1))
    assert (chain.is_sparse, chain.dtype, chain.features.shape) == (True, torch.float64, (16,))
    again = interop.from_gymnasium(table)
    assert torch.equal(dense(again), dense(chain))
    assert torch.equal(again.initial, chain.initial)


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_a_policy_of_actions(kind: Any) -> None:
    env = TABLES["CliffWalking"]()
    chain = interop.from_gymnasium(env, kind([0] + [1] * 47))  # up, then right
    rows = dense(chain)
    assert rows[0, 0] == rows[1, 2] == rows[11, 11] == rows[36, 36] == rows[47, 47] == 1
    assert chain.features[36] == -100  # right of the start is the cliff
    assert chain.features[47] == 0
    assert chain.features[1] == -1


def test_a_policy_of_probabilities() -> None:
    env = TABLES["Taxi"]()
    table = interop.transition_table(env)
    weights = torch.rand(500, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    policy = weights / weights.sum(1, keepdim=True)
    chain = interop.from_gymnasium(env, policy)
    torch.testing.assert_close(dense(chain), torch.einsum("sa,ast->st", policy, table.transition.to_dense()))
    torch.testing.assert_close(chain.features, (policy * table.reward).sum(1))
    for given in (policy.numpy(), policy.float()):
        torch.testing.assert_close(dense(interop.from_gymnasium(env, given)), dense(chain), rtol=1e-6, atol=1e-7)
    assert interop.from_gymnasium(env, policy, absorbing=False).features[0] != 0


def test_a_policy_is_differentiable() -> None:
    table = interop.transition_table(TABLES["FrozenLake4x4_slippery"]())
    logits = torch.randn(16, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()

    def transition_and_reward(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        chain = interop.from_gymnasium(table, logits.softmax(1))
        return dense(chain), chain.features

    assert torch.autograd.gradcheck(transition_and_reward, (logits,))
    chain = interop.from_gymnasium(table, logits.softmax(1), initial="uniform")
    other = interop.from_gymnasium(table, initial="uniform")
    discounted_wl(chain, other, costs.Euclidean(), delta=0.2, epsilon=0.05).value.backward()
    assert logits.grad[14].abs().max() > 1e-4  # from there an action leads to the goal
    assert not logits.grad[15].any()  # the goal


def test_initial_laws() -> None:
    env = TABLES["Taxi"]()
    chain = interop.from_gymnasium(env)
    np.testing.assert_allclose(chain.initial, env.unwrapped.initial_state_distrib)
    assert chain.initial.max() == pytest.approx(1 / 300)
    assert interop.from_gymnasium(env, initial="uniform").initial_law == "uniform"
    law = torch.zeros(500, dtype=torch.float64)
    law[7] = 1
    assert torch.equal(interop.from_gymnasium(env, initial=law).initial, law)
    with pytest.raises(ValueError, match="'start', but the table does not say where to start"):
        interop.from_gymnasium(env.unwrapped.P)
    with pytest.raises(ValueError, match="initial: 'middle' is not"):
        interop.from_gymnasium(env, initial="middle")
    back_and_forth = {0: {0: [(1.0, 1, 0.0, False)]}, 1: {0: [(0.5, 0, 1.0, False), (0.5, 1, 0.0, False)]}}
    stationary = interop.from_gymnasium(back_and_forth, initial="stationary")
    torch.testing.assert_close(stationary.initial, torch.tensor([1 / 3, 2 / 3], dtype=torch.float64))


def test_a_careful_and_a_careless_walk_differ() -> None:
    env = TABLES["CliffWalking"]()
    up, right = (interop.from_gymnasium(env, np.full(48, action)) for action in (0, 1))
    value = discounted_wl(up, right, costs.AbsoluteDifference(), delta=0.2, epsilon=1e-3).value
    assert value == pytest.approx(99, rel=0.01)  # -1 at every step against -100


# --- what is refused
def outcome(*rows: tuple[Any, ...]) -> dict[int, dict[int, Any]]:
    return {0: {0: list(rows)}, 1: {0: [(1.0, 1, 0.0, False)]}}


@pytest.mark.parametrize(
    ("env", "error", "message"),
    [
        (None, TypeError, r"env: NoneType has no transition table.*unwrapped\.P is \{state: \{action"),
        ({}, TypeError, "dict has no transition table"),
        ({0: [1]}, TypeError, "dict has no transition table"),
        ({1: {0: [(1.0, 1, 0.0, False)]}}, ValueError, "its 1 states are not numbered from 0 to 0"),
        ({0: {0: [(1.0, 0, 0.0, False)]}, 1: {}}, ValueError, r"state 1 has the actions \[\], state 0 has 1"),
        ({0: {}}, ValueError, r"state 0 has the actions \[\]"),
        ({0: {1: [(1.0, 0, 0.0, False)]}}, ValueError, r"state 0 has the actions \[1\]"),
        (outcome((1.0, 2, 0.0, False)), ValueError, "action 0 in state 0 leads to 2, which is no state"),
        (outcome((-0.5, 0, 0.0, False), (1.5, 1, 0.0, False)), ValueError, "leads to 0 with probability -0.5"),
        (outcome((0.5, 0, 0.0, False)), ValueError, "the probabilities of action 0 in state 0 sum to 0.5, not 1"),
        (outcome(), ValueError, "action 0 in state 0 sum to 0, not 1"),
        (outcome((1.0, 0, float("nan"), False)), ValueError, "action 0 in state 0 has the reward nan"),
        (outcome((float("nan"), 0, 0.0, False)), ValueError, "with probability nan"),
    ],
)
def test_bad_tables(env: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        interop.transition_table(env)


def test_environments_without_a_table_are_refused() -> None:
    with pytest.raises(TypeError, match=r"env: .* has no transition table"):
        interop.transition_table(gymnasium.make(newest("CartPole")))
    with pytest.raises(TypeError, match="absorbing: 1 is neither True nor False"):
        interop.transition_table(TABLES["FrozenLake4x4"](), absorbing=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Use markovot\.interop\.from_gymnasium\(environment, policy\)"):
        as_chain(TABLES["FrozenLake4x4"]())


@pytest.mark.parametrize(
    ("policy", "error", "message"),
    [
        (np.zeros(15, dtype=int), ValueError, r"policy: shape \(15,\) is not \(16,\), one action for each state"),
        (np.full(16, 4), ValueError, "policy: 4 in state 0 is no action. Actions go from 0 to 3"),
        (np.full(16, -1), ValueError, "policy: -1 in state 0 is no action"),
        (np.ones((4, 16)), ValueError, r"policy: shape \(4, 16\) is not \(16, 4\)"),
        (np.ones((16, 4)), ValueError, "policy: row 0 sums to 4, not 1.*Divide each row by its sum.$"),
        (np.full((16, 4), np.nan), ValueError, r"policy: entry \(0, 0\) is nan"),
        (torch.ones(16, 4).half(), TypeError, r"policy: dtype torch\.float16"),
        (np.ones(16, dtype=bool), TypeError, r"policy: dtype torch\.bool. Give integers"),
        (["up"] * 16, TypeError, "policy: expected an array of numbers"),
    ],
)
def test_bad_policies(policy: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        interop.from_gymnasium(TABLES["FrozenLake4x4"](), policy)


def test_as_chain_knows_environments_by_the_classes_they_inherit_from() -> None:
    class Mine(gymnasium.Env):
        pass

    with pytest.raises(TypeError, match=r"does not convert Mine\. Use markovot\.interop\.from_gymnasium"):
        as_chain(Mine())
