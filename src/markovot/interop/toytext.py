"""gymnasium's toy-text environments: decision processes whose whole transition table is known."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from markovot import validate
from markovot.chains import MarkovChain, compressed
from markovot.interop._common import sparse_tensor

_TOLERANCE = validate.SUM_TOLERANCE[torch.float64]


@dataclass(frozen=True, eq=False)
class TransitionTable:
    """A finite Markov decision process.

    Attributes:
        transition: probabilities of the next state, sparse COO, float64 (actions, states, states), coalesced; what
            `MarkovChain.from_transitions` takes as a batch of one chain for each action.
        reward: expected reward of each action in each state, float64 (states, actions).
        terminal: whether some step ends the episode in this state, bool (states,).
        start: law of the first state, float64 (states,); None where the environment does not say.
    """

    transition: Tensor
    reward: Tensor
    terminal: Tensor
    start: Tensor | None

    @property
    def num_states(self) -> int:
        """How many states there are."""
        return self.reward.shape[0]

    @property
    def num_actions(self) -> int:
        """How many actions there are, the same number in each state."""
        return self.reward.shape[1]


def transition_table(env: Any, *, absorbing: bool = True) -> TransitionTable:
    r"""The transition table of a gymnasium toy-text environment, as tensors.

    $$P^a_{ss'} = \Pr(s' \mid s, a), \qquad r_{sa} = \textstyle\sum_{s'} P^a_{ss'} R(s, a, s').$$

    Args:
        env: FrozenLake, CliffWalking, Taxi, wrapped or not; any environment whose `unwrapped.P` is a mapping
            `{state: {action: [(probability, next state, reward, terminated), ...]}}`; or that mapping itself. States
            and actions are numbered from 0. Outcomes with the same next state are added up.
        absorbing: whether a state in which some step ends the episode is made absorbing: every action stays there, for
            reward 0. False: these states keep the rows of the table, which the environment never uses after the end.
            (Taxi's table also walks through such states, at places no episode reaches.)

    Returns:
        The table. Gymnasium itself is not needed.

    Raises:
        TypeError: no such table.
        ValueError: states or actions that are not numbered from 0, next states that do not exist, probabilities that
            are negative or do not sum to one, rewards that are not finite.

    Note:
        Memory grows with the number of outcomes, not with its square: 500 states and 6 actions take 100 kB.

    Example:
        >>> table = transition_table({0: {0: [(1.0, 1, 5.0, True)]}, 1: {0: [(1.0, 0, 9.0, False)]}})
        >>> table.transition.to_dense().tolist(), table.reward.tolist(), table.terminal.tolist()
        ([[[0.0, 1.0], [0.0, 1.0]]], [[5.0], [0.0]], [False, True])
    """
    validate.flag("absorbing", absorbing)
    table = _table(env)
    num_states, num_actions = len(table), len(next(iter(table.values()), ()))
    rows = _outcomes(table, num_states, num_actions)
    action, state, following, probability, gain, ends = (np.array(part) for part in zip(*rows, strict=True))
    terminal = np.zeros(num_states, dtype=bool)
    terminal[following[ends.astype(bool) & (probability > 0)]] = True
    if absorbing:
        keep = ~terminal[state]
        stay = np.array([(a, s) for a in range(num_actions) for s in np.flatnonzero(terminal)], dtype=np.int64)
        stay = stay.reshape(-1, 2).T
        index = np.concatenate([np.stack([action, state, following])[:, keep], stay[[0, 1, 1]]], axis=1)
        probability = np.concatenate([probability[keep], np.ones(stay.shape[1])])
        gain = np.concatenate([gain[keep], np.zeros(stay.shape[1])])
    else:
        index = np.stack([action, state, following])
    reward = np.zeros((num_states, num_actions))
    np.add.at(reward, (index[1], index[0]), probability * gain)
    shape = (num_actions, num_states, num_states)
    transition = sparse_tensor(torch.from_numpy(index), torch.from_numpy(probability), shape)
    return TransitionTable(
        transition.coalesce(), torch.from_numpy(reward), torch.from_numpy(terminal), _start(env, num_states)
    )


def from_gymnasium(
    env: Any,
    policy: Any = None,
    *,
    initial: str | Tensor = "start",
    absorbing: bool = True,
) -> MarkovChain:
    r"""The Markov reward process that a policy makes of a gymnasium toy-text environment.

    $$P_{ss'} = \textstyle\sum_a \pi(a \mid s)\, P^a_{ss'}, \qquad f_s = \sum_a \pi(a \mid s)\, r_{sa}.$$

    Args:
        env: as in `transition_table`, or a `TransitionTable`.
        policy: None: all actions are equally likely. Integers (states,): the action taken in each state. Floats
            (states, actions): the probability of each action in each state; as a tensor, differentiable.
        initial: "start", the law of the environment's `reset`; "uniform"; "stationary" (with absorbing states seldom
            unique); or a tensor.
        absorbing: as in `transition_table`; not used for a `TransitionTable`, which is already made.

    Returns:
        A sparse float64 chain whose features (states,) are the expected rewards.

    Raises:
        TypeError: no transition table, or a policy of neither integers nor floats.
        ValueError: what `transition_table` raises; a policy of the wrong shape, with actions that do not exist, or
            probabilities that do not sum to one; "start" where the table does not say where to start.

    Note:
        Differentiable in a policy of probabilities, through both the transitions and the features.

    Example:
        >>> end = [(1.0, 1, 0.0, True)]
        >>> table = {0: {0: [(1.0, 1, 5.0, True)], 1: [(1.0, 0, -1.0, False)]}, 1: {0: end, 1: end}}
        >>> chain = from_gymnasium(table, initial="uniform")
        >>> chain.to_dense().transition.tolist(), chain.features.tolist()
        ([[0.5, 0.5], [0.0, 1.0]], [2.0, 0.0])
    """
    table = env if isinstance(env, TransitionTable) else transition_table(env, absorbing=absorbing)
    probabilities = _policy(policy, table.num_states, table.num_actions)
    action, state, following = table.transition.indices()
    rows = compressed.gather(
        state, following, probabilities[state, action] * table.transition.values(), (table.num_states,)
    )
    if isinstance(initial, str) and initial == "start":
        if table.start is None:
            raise ValueError(
                "initial: 'start', but the table does not say where to start. Use 'uniform', 'stationary' or a tensor."
            )
        initial = table.start
    index = torch.stack([rows.owner(), rows.indices])
    return MarkovChain.from_transitions(
        sparse_tensor(index, rows.values, (table.num_states, table.num_states)),
        initial=initial,
        features=(probabilities * table.reward).sum(1),
    )


def _table(env: Any) -> Mapping[int, Mapping[int, Any]]:
    table = env if isinstance(env, Mapping) else getattr(getattr(env, "unwrapped", None), "P", None)
    if not isinstance(table, Mapping) or not table or not all(isinstance(row, Mapping) for row in table.values()):
        raise TypeError(
            f"env: {type(env).__name__} has no transition table. Give an environment whose unwrapped.P is {{state: "
            "{action: [(probability, next state, reward, terminated), ...]}}, such as FrozenLake, CliffWalking or Taxi."
        )
    return table


def _outcomes(table: Mapping[int, Mapping[int, Any]], num_states: int, num_actions: int) -> list[tuple[Any, ...]]:
    """Rows (action, state, next state, probability, reward, terminated), checked."""
    if set(table) != set(range(num_states)):
        raise ValueError(f"env: its {num_states} states are not numbered from 0 to {num_states - 1}. Renumber them.")
    rows: list[tuple[Any, ...]] = []
    for state, row in table.items():
        if set(row) != set(range(num_actions)) or not row:
            raise ValueError(
                f"env: state {state} has the actions {sorted(row)}, state {next(iter(table))} has {num_actions}. Every "
                "state needs the same ones, numbered from 0; an action that does nothing leads back to its state."
            )
        for action, outcomes in row.items():
            total = 0.0
            for probability, following, gain, ends in outcomes:
                where = f"env: action {action} in state {state}"
                if following not in table:
                    raise ValueError(f"{where} leads to {following!r}, which is no state. Add the state, or repair it.")
                if not 0 <= probability <= 1 + _TOLERANCE:
                    raise ValueError(
                        f"{where} leads to {following} with probability {probability}. It must lie between 0 and 1."
                    )
                if not np.isfinite(gain):
                    raise ValueError(f"{where} has the reward {gain}. Rewards must be finite.")
                total += probability
                rows.append((action, state, int(following), float(probability), float(gain), bool(ends)))
            if not abs(total - 1) <= _TOLERANCE:
                raise ValueError(
                    f"env: the probabilities of action {action} in state {state} sum to {total:.12g}, not 1. Divide "
                    "them by their sum."
                )
    return rows


def _start(env: Any, num_states: int) -> Tensor | None:
    law = None if isinstance(env, Mapping) else getattr(env.unwrapped, "initial_state_distrib", None)
    if law is None:
        return None
    like = torch.empty(0, dtype=torch.float64, device="cpu")
    return validate.law("initial_state_distrib", np.asarray(law, dtype=np.float64), like, (num_states,))


def _policy(policy: Any, num_states: int, num_actions: int) -> Tensor:
    """Probabilities of the actions, float64 (states, actions)."""
    if policy is None:
        return torch.full((num_states, num_actions), 1 / num_actions, dtype=torch.float64, device="cpu")
    given = validate.as_tensor("policy", policy if isinstance(policy, Tensor) else validate.array("policy", policy))
    if given.is_floating_point():
        if tuple(given.shape) != (num_states, num_actions):
            raise ValueError(
                f"policy: shape {tuple(given.shape)} is not ({num_states}, {num_actions}), one probability for each "
                "action in each state."
            )
        validate.floating("policy", given)
        validate.distributions("policy", given, repair="Divide each row by its sum.")
        return given.double() / given.detach().double().sum(1, keepdim=True)  # float32 rows are a little off
    if given.dtype.is_complex or given.dtype == torch.bool:
        raise TypeError(f"policy: dtype {given.dtype}. Give integers (actions), or floats (probabilities of actions).")
    if tuple(given.shape) != (num_states,):
        raise ValueError(f"policy: shape {tuple(given.shape)} is not ({num_states},), one action for each state.")
    outside = (given < 0) | (given >= num_actions)
    if bool(outside.any()):
        state = int(outside.nonzero()[0, 0])
        raise ValueError(
            f"policy: {int(given[state])} in state {state} is no action. Actions go from 0 to {num_actions - 1}."
        )
    return torch.nn.functional.one_hot(given.long(), num_actions).double()
