"""
Optimal transition coupling of two block models
===============================================

Two random networks with the same communities, drawn independently: no two of their edges correspond, but their blocks
do. A coupling for the long run finds which block goes with which, from the numbers of neighbours alone.
"""

import networkx
import numpy
import torch
from matplotlib import pyplot

from markovot import MarkovChain, optimal_transition_coupling, stationary_distribution

sizes = [5, 8, 13, 18]
within, between = 0.95, 0.03  # the chance of an edge


def network(order, seed):
    """A connected block model, with its blocks in the given order, and the block of each node."""
    probabilities = numpy.full((4, 4), between)
    numpy.fill_diagonal(probabilities, within)
    graph = networkx.stochastic_block_model([sizes[block] for block in order], probabilities, seed=seed)
    assert networkx.is_connected(graph)
    return graph, numpy.repeat(order, [sizes[block] for block in order])


first, blocks_x = network([0, 1, 2, 3], seed=1)
second, blocks_y = network([2, 0, 3, 1], seed=2)
x, y = MarkovChain.from_networkx(first), MarkovChain.from_networkx(second)

# %%
# The cost of standing on two nodes is the difference of their numbers of neighbours; nothing says which block a
# node is in. The coupling minimises its mean over an endless walk.


def degrees(graph):
    """The number of neighbours of each node, (n, 1)."""
    return torch.tensor([[float(degree)] for _, degree in graph.degree()], dtype=torch.float64)


cost = torch.cdist(degrees(first), degrees(second))
solution = optimal_transition_coupling(x, y, cost)
print(f"least mean cost a step: {solution.value.item():.4f}, certified to {solution.error_bound.item():.0e}")

laws = [stationary_distribution(chain.to_dense().transition) for chain in (x, y)]
print(f"of two walkers who ignore each other: {(laws[0] @ cost @ laws[1]).item():.4f}")

# %%
# The alignment is how often the coupled walkers stand on each pair of nodes in the long run. Its rows and columns
# are ordered by block, which the method did not know.

order_x, order_y = numpy.argsort(blocks_x, kind="stable"), numpy.argsort(blocks_y, kind="stable")
alignment = solution.alignment.numpy()[numpy.ix_(order_x, order_y)]
by_block = numpy.array(
    [[solution.alignment.numpy()[numpy.ix_(blocks_x == a, blocks_y == b)].sum() for b in range(4)] for a in range(4)]
)

figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
left.imshow(alignment, cmap="Greys")
for edge in numpy.cumsum(sizes)[:-1] - 0.5:
    left.axhline(edge, color="tab:red", lw=0.8)
    left.axvline(edge, color="tab:red", lw=0.8)
left.set(title="how often each pair of nodes is met", xlabel="node of the second", ylabel="node of the first")
right.imshow(by_block, cmap="Greys", vmin=0)
for (a, b), share in numpy.ndenumerate(by_block):
    right.text(b, a, f"{share:.0%}", ha="center", va="center", color="white" if share > by_block.max() / 2 else "black")
right.set(title="summed over blocks", xlabel="block of the second", ylabel="block of the first")
right.set(xticks=range(4), yticks=range(4))
pyplot.show()

independent = (by_block.sum(0) * by_block.sum(1)).sum()
print(f"on the same block: {numpy.trace(by_block):.0%} of the time; walkers who ignore each other: {independent:.0%}")

# %%
# It is not all of the time, since a walker leaves its block when it comes to an edge that leads out, and in the
# other network that edge is elsewhere.
