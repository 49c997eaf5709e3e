"""Markov decision processes: transition rows and rewards for each action."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from markovot import validate
from markovot.autograd.copying import Copyable
from markovot.chains import MarkovChain, compressed
from markovot.interop._common import sparse_tensor
from markovot.interop.toytext import TransitionTable, transition_table


@dataclass(frozen=True, eq=False)
class DecisionProcess(Copyable):
    """A finite Markov decision process; with one action, a Markov reward process.

    Args:
        transition: probabilities of the next state (actions, n, n), or a list of one (n, n) matrix for each action, or
            one matrix (n, n) of a single action: dense or sparse tensors, NumPy arrays, SciPy sparse matrices; float32
            or float64, rows sum to one. They are copied, but for tensors that require a gradient (see `MarkovChain`),
            and kept as a tuple with one tensor for each action.
        reward: expected reward of each action in each state (n, actions), or (n,) of a single action; finite.

    Attributes:
        chains: the walk that each action makes, one `MarkovChain` for each.

    Raises:
        TypeError: integers, mixed dtypes, or something that is not a matrix.
        ValueError: bad probabilities, rewards that are not finite, shapes that do not fit each other, a device other
            than the CPU.

    Example:
        >>> import torch
        >>> walk = torch.tensor([[[0.0, 1.0], [0.0, 1.0]], [[1.0, 0.0], [0.5, 0.5]]])
        >>> process = DecisionProcess(walk, torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
        >>> process.num_states, process.num_actions
        (2, 2)
    """

    transition: Any
    reward: Any
    chains: tuple[MarkovChain, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        chains = _chains(self.transition)
        object.__setattr__(self, "transition", _matrices(chains))
        object.__setattr__(self, "chains", chains)
        object.__setattr__(self, "reward", _reward(self.reward, chains))

    @classmethod
    def from_gymnasium(cls, env: Any, *, absorbing: bool = True) -> "DecisionProcess":
        """The decision process of a gymnasium toy-text environment.

        Args:
            env: FrozenLake, CliffWalking or Taxi, wrapped or not, or its table P: see `interop.transition_table`.
            absorbing: whether states in which episodes end are made absorbing, with reward 0; see there.

        Raises:
            TypeError: no transition table.
            ValueError: a table with mistakes.

        Example:
            >>> end = [(1.0, 1, 0.0, True)]
            >>> table = {0: {0: [(1.0, 1, 5.0, True)], 1: [(1.0, 0, -1.0, False)]}, 1: {0: end, 1: end}}
            >>> DecisionProcess.from_gymnasium(table).reward.tolist()
            [[5.0, -1.0], [0.0, 0.0]]
        """
        return as_process("env", transition_table(env, absorbing=absorbing))

    @property
    def num_states(self) -> int:
        """How many states there are."""
        return self.chains[0].num_states

    @property
    def num_actions(self) -> int:
        """How many actions there are, the same number in each state."""
        return len(self.chains)

    @property
    def dtype(self) -> torch.dtype:
        """float32 or float64."""
        return self.chains[0].dtype

    @property
    def requires_grad(self) -> bool:
        """Whether a gradient is wanted in the transitions or the rewards."""
        return bool(self.reward.requires_grad) or any(chain.parameter.requires_grad for chain in self.chains)

    def under(self, policy: Any) -> "DecisionProcess":
        r"""The Markov reward process that a policy makes of this process: one action.

        $$P^\pi_{ss'} = \textstyle\sum_a \pi(a \mid s)\, P^a_{ss'}, \qquad r^\pi_s = \sum_a \pi(a \mid s)\, r_{sa}.$$

        Args:
            policy: probabilities of the actions, floats (n, actions) whose rows sum to one, or integers (n,), the
                action taken in each state.

        Returns:
            The process; differentiable in the policy, the transitions and the rewards. Sparse where all actions are.

        Raises:
            TypeError: neither integers nor floats, or a dtype other than the process's.
            ValueError: wrong shapes, actions that do not exist, rows that do not sum to one.

        Example:
            >>> import torch
            >>> process = DecisionProcess(torch.eye(2).expand(2, 2, 2), torch.tensor([[1.0, 5.0], [0.0, 2.0]]))
            >>> process.under(torch.full((2, 2), 0.5)).reward.tolist()
            [[3.0], [1.0]]
        """
        weights = self._policy(policy)
        reward = (weights * self.reward).sum(1)
        if not all(chain.is_sparse for chain in self.chains):
            rows = torch.stack([chain.to_dense().transition for chain in self.chains])
            return DecisionProcess(torch.einsum("sa,ast->st", weights, rows), reward)
        entries = [(chain.compressed.owner(), chain.indices, chain.values) for chain in self.chains]
        scaled = [weights[owner, a] * values for a, (owner, _, values) in enumerate(entries)]
        owners, columns = (torch.cat([entry[part] for entry in entries]) for part in (0, 1))
        mean = compressed.gather(owners, columns, torch.cat(scaled), (self.num_states,))
        index = torch.stack([mean.owner(), mean.indices])
        return DecisionProcess(sparse_tensor(index, mean.values, (self.num_states,) * 2), reward)

    def detach(self) -> "DecisionProcess":
        """The same process, cut off from the tensors it was made from."""
        return DecisionProcess(_matrices(tuple(chain.detach() for chain in self.chains)), self.reward.detach())

    def _policy(self, policy: Any) -> Tensor:
        """Probabilities of the actions (n, actions), rows summing to one in float64."""
        given = validate.as_tensor("policy", policy)
        shape = (self.num_states, self.num_actions)
        if given.is_floating_point():
            validate.floating("policy", given)
            validate.same_kind("policy", given, "the process", self.reward)
            if tuple(given.shape) != shape:
                raise ValueError(
                    f"policy: shape {tuple(given.shape)} is not {shape}, one probability for each action in each state."
                )
            validate.distributions("policy", given, repair="Divide each row by its sum.")
            return given / given.detach().sum(1, keepdim=True)
        if given.dtype.is_complex or given.dtype == torch.bool:
            raise TypeError(f"policy: dtype {given.dtype}. Give integers (actions), or floats (their probabilities).")
        if tuple(given.shape) != shape[:1]:
            raise ValueError(f"policy: shape {tuple(given.shape)} is not {shape[:1]}, one action for each state.")
        outside = (given < 0) | (given >= self.num_actions)
        if bool(outside.any()):
            state = int(outside.nonzero()[0, 0])
            raise ValueError(
                f"policy: {int(given[state])} in state {state} is no action. Actions go from 0 to {shape[1] - 1}."
            )
        return torch.nn.functional.one_hot(given.long(), self.num_actions).to(self.dtype)


def as_process(name: str, value: Any) -> DecisionProcess:
    """A decision process as given, or the one made from a `TransitionTable`."""
    if isinstance(value, DecisionProcess):
        return value
    if isinstance(value, TransitionTable):
        return DecisionProcess(value.transition, value.reward)
    raise TypeError(
        f"{name}: expected a DecisionProcess, got {type(value).__name__}. Make one of arrays with "
        "DecisionProcess(transition, reward), of an environment with DecisionProcess.from_gymnasium(env)."
    )


def _chains(transition: Any) -> tuple[MarkovChain, ...]:
    """One chain for each action, all of one layout."""
    if isinstance(transition, Sequence) and not isinstance(transition, str):
        if not transition:
            raise ValueError("transition: an empty list. Give one matrix (n, n) for each action, at least one.")
        chains = tuple(_chain(f"transition[{a}]", rows) for a, rows in enumerate(transition))
    else:
        whole = MarkovChain.from_transitions(transition, initial="uniform")
        if len(whole.batch_shape) > 1:
            raise ValueError(
                f"transition: shape {(*whole.batch_shape, whole.num_states, whole.num_states)} is not (actions, n, n)."
            )
        chains = tuple(whole[a] for a in range(len(whole))) if whole.batch_shape else (whole,)
    for a, chain in enumerate(chains):
        validate.same_kind(f"transition[{a}]", chain.parameter, "transition[0]", chains[0].parameter)
        if chain.num_states != chains[0].num_states:
            raise ValueError(
                f"transition[{a}]: {chain.num_states} states, but transition[0] has {chains[0].num_states}. Every "
                "action needs a row for every state."
            )
    if chains[0].device.type != "cpu":
        raise ValueError(
            f"transition: on {chains[0].device}, but decision processes are compared on the CPU. Move it with "
            ".to('cpu')."
        )
    if all(chain.is_sparse for chain in chains):
        return chains
    return tuple(chain.to_dense() for chain in chains)


def _matrices(chains: tuple[MarkovChain, ...]) -> tuple[Tensor, ...]:
    """The matrices of chains of one layout."""
    if not chains[0].is_sparse:
        return tuple(chain.transition for chain in chains)
    shape = (chains[0].num_states,) * 2
    places = (torch.stack([chain.compressed.owner(), chain.indices]) for chain in chains)
    return tuple(sparse_tensor(index, chain.values, shape) for index, chain in zip(places, chains, strict=True))


def _chain(name: str, rows: Any) -> MarkovChain:
    try:
        chain = MarkovChain.from_transitions(rows, initial="uniform")
    except (TypeError, ValueError) as error:
        raise type(error)(str(error).replace("transition", name, 1)) from None
    if chain.batch_shape:
        raise ValueError(f"{name}: a batch of shape {tuple(chain.batch_shape)}, not one matrix (n, n).")
    return chain


def _reward(reward: Any, chains: tuple[MarkovChain, ...]) -> Tensor:
    tensor = validate.as_tensor("reward", reward)
    validate.floating("reward", tensor)
    validate.same_kind("reward", tensor, "transition", chains[0].parameter)
    n, actions = chains[0].num_states, len(chains)
    if tensor.ndim == 1 and actions == 1:
        tensor = tensor[:, None]
    if tuple(tensor.shape) != (n, actions):
        raise ValueError(
            f"reward: shape {tuple(tensor.shape)} is not {(n, actions)}, one expected reward for each state and action "
            "of `transition`."
        )
    validate.finite("reward", tensor)
    return tensor
