"""Chains with known shapes, and whether a learned chain has it."""

import math

import numpy as np
import torch

from markovot import MarkovChain

DOUBLE = torch.float64


def points_on_circle(n):
    angle = torch.arange(n, dtype=DOUBLE) * (2 * math.pi / n)
    return torch.stack([angle.cos(), angle.sin()], 1)


def directed_ring(n, noise=0.0, seed=0):
    """A directed cycle whose features are places on the circle, with normal noise."""
    random = np.random.default_rng(seed)
    features = points_on_circle(n) + noise * torch.from_numpy(random.standard_normal((n, 2)))
    transition = torch.eye(n, dtype=DOUBLE).roll(1, 1)
    return MarkovChain.from_transitions(transition, initial="uniform", features=features)


def is_clean_cycle(chain):
    """Whether the likeliest step of each state goes to the next one in angular order, so that they form one cycle."""
    features = chain.features
    order = torch.atan2(features[:, 1], features[:, 0]).argsort()
    rows = chain.to_dense().transition[order][:, order]
    n = len(rows)
    return bool((rows.argmax(1) == (torch.arange(n) + 1) % n).all())


def block_chain(noise, seed, blocks=5, size=5):
    """States in blocks that follow one another in a ring, with uneven steps, noisy features, and in random order.

    The chain stays in its block with chance 0.1, goes to the next with 0.8, and elsewhere with the rest. The features
    are the blocks' places on the circle with normal noise.
    """
    random = np.random.default_rng(seed)
    block = np.repeat(np.arange(blocks), size)
    between = np.full((blocks, blocks), 0.1 / (blocks - 2))
    for b in range(blocks):
        between[b, b], between[b, (b + 1) % blocks] = 0.1, 0.8
    rows = between[np.ix_(block, block)] * random.uniform(0.5, 1.5, (len(block), len(block)))
    rows /= rows.sum(1, keepdims=True)
    features = points_on_circle(blocks).numpy()[block] + noise * random.standard_normal((len(block), 2))
    order = random.permutation(len(block))
    chain = MarkovChain.from_transitions(rows[np.ix_(order, order)], features=features[order])
    return chain, block[order]


def most_agreeing(groups, truth, count):
    """How many states are in the right group, under the best naming of the groups."""
    from scipy.optimize import linear_sum_assignment

    table = np.zeros((count, count))
    np.add.at(table, (np.asarray(groups), truth), 1)
    return int(table[linear_sum_assignment(-table)].sum())
