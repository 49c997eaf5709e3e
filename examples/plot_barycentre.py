"""
Barycentres: the mean of several graphs
=======================================

The barycentre of a set of chains is the small chain whose mean distance to them is least. Its transition probabilities
and the features of its states are found by gradient steps. Brugère, Wan and Wang showed this on noisy circles; here are
their circles, the same for undirected graphs beside the barycentre of POT's fused Gromov-Wasserstein distance, and what
the two classes of MUTAG look like in twelve atoms.
"""

import math
import time

import networkx
import numpy
import ot
from matplotlib import pyplot

from markovot import MarkovChain, costs, plot
from markovot.datasets import load_mutag
from markovot.learning import Training, barycentre

random = numpy.random.default_rng(0)


def noisy_circle_points(size, noise=0.1):
    """Points on the unit circle in their order, moved a little."""
    angle = 2 * math.pi * numpy.arange(size) / size
    return numpy.stack([numpy.cos(angle), numpy.sin(angle)], axis=1) + noise * random.standard_normal((size, 2))


# %%
# Oriented circles
# ----------------
# Eight directed cycles of 5 to 20 states. The settings are those of the paper: delta = 0.5, epsilon = 0.01, and 300
# steps of Adam at a learning rate of 0.01. Nothing says that the barycentre is to be a cycle: all its transitions are
# free.

circles = [
    MarkovChain.from_transitions(numpy.roll(numpy.eye(size), 1, axis=1), initial="uniform", features=points)
    for size in (5, 6, 8, 9, 11, 14, 17, 20)
    for points in [noisy_circle_points(size)]
]
begin = time.perf_counter()
found = barycentre(circles, 9, cost=costs.Euclidean(), training=Training(steps=300, lr=1e-2, progress=False))
print(f"{found} of {len(circles)} circles, {len(found.restart_values)} restarts, {time.perf_counter() - begin:.1f} s")
print("all restarts:", found.restart_values.round(4))


def ahead(chain):
    """How many places on, in the order of the angles, the likeliest step of each state leads."""
    points = chain.features.numpy()
    order = numpy.arctan2(points[:, 1], points[:, 0]).argsort()
    rows = chain.transition.numpy()[numpy.ix_(order, order)]
    return (rows.argmax(axis=1) - numpy.arange(len(rows))) % len(rows)


print("places that the likeliest step of each state leads on:", ahead(found.chain))

# %%
# All are 1: the best of the four restarts is one clean cycle through all states, in the order of their angles. It is
# not the only place where gradient steps end; the other restarts stop higher, and the learning rate of the paper is
# slow (0.03 ends lower in as many steps).

figure = pyplot.figure(figsize=(11, 5.6), layout="constrained")
grid = figure.add_gridspec(2, 6)
small = [figure.add_subplot(grid[row, column]) for row in range(2) for column in range(2)]
plot.strip(circles[::2], titles=[f"{chain.num_states} states" for chain in circles[::2]], axes=small)
plot.chain(found.chain, title=f"their barycentre, {found.chain.num_states} states", ax=figure.add_subplot(grid[:, 2:4]))
plot.history(found.history, title="four restarts", ax=figure.add_subplot(grid[:, 4:]))
pyplot.show()

# %%
# Graphs, and what fused Gromov-Wasserstein makes of them
# -------------------------------------------------------
# Undirected circles of 20 nodes, each with some edges too many, and noisy places. Users of POT have reported (its issue
# 547, of version 0.9.1) that the barycentre of ``fgw_barycenters`` came out as a complete graph. It is run here on the
# same graphs, with the same features, from their adjacency matrices and from the numbers of steps between their nodes.

size, count = 20, 6
graphs = []
for _ in range(count):
    graph = networkx.cycle_graph(size)
    graph.add_edges_from([pair for pair in networkx.non_edges(graph) if random.random() < 0.02])
    graphs.append((graph, noisy_circle_points(size)))
walks = [MarkovChain.from_adjacency(networkx.to_numpy_array(graph), features=points) for graph, points in graphs]

begin = time.perf_counter()
mean = barycentre(
    walks, size, cost=costs.Euclidean(), restarts=2, training=Training(steps=300, lr=3e-2, progress=False)
)
print(f"{mean}, {time.perf_counter() - begin:.1f} s")

print("POT", ot.__version__)
structures = {
    "POT, adjacency": [networkx.to_numpy_array(graph) for graph, _ in graphs],
    "POT, steps between": [numpy.array(networkx.floyd_warshall_numpy(graph)) for graph, _ in graphs],
}
drawn = {"markovot": (mean.chain.features.numpy(), mean.chain.transition.numpy())}
for name, matrices in structures.items():
    begin = time.perf_counter()
    points, matrix = ot.gromov.fgw_barycenters(
        size, [points for _, points in graphs], matrices, alpha=0.5, random_state=0, max_iter=100
    )
    print(f"{name}: {time.perf_counter() - begin:.1f} s, entries from {matrix.min():.3f} to {matrix.max():.3f}")
    # A number of steps becomes a weight that falls with it.
    drawn[name] = points, matrix if "adjacency" in name else numpy.exp(-matrix) * (1 - numpy.eye(size))

# %%
# Three numbers: how many neighbours a node has in effect (the exponential of the entropy of its weights: 2 in a circle,
# 20 in a complete graph with loops); how many of the 20 heaviest edges are those of the circle, in the order of the
# angles; and how heavy the heaviest edge is that is not.


def judge(points, weights):
    """The number of neighbours in effect, and the share of the circle among the heaviest edges."""
    rows = weights / weights.sum(axis=1, keepdims=True)
    entropy = -(rows * numpy.log(numpy.maximum(rows, 1e-300))).sum(axis=1)
    order = numpy.arctan2(points[:, 1], points[:, 0]).argsort()
    both = numpy.triu((weights + weights.T)[numpy.ix_(order, order)], 1)
    heaviest = numpy.argsort(-both, axis=None)[:size]
    apart = numpy.abs(numpy.subtract(*numpy.unravel_index(heaviest, both.shape)))
    return numpy.exp(entropy).mean(), int(numpy.isin(apart, (1, size - 1)).sum())


figure, axes = pyplot.subplots(1, 4, figsize=(12.5, 3.5), layout="constrained")
plot.chain(walks[0], title="one of the six graphs", ax=axes[0])
for ax, (name, (points, weights)) in zip(axes[1:], drawn.items(), strict=True):
    neighbours, right = judge(points, weights)
    print(f"{name}: {neighbours:.1f} neighbours in effect; of the {size} heaviest edges, {right} are the circle's")
    rows = MarkovChain.from_adjacency(weights, features=points)
    plot.chain(rows, title=f"{name}\n{neighbours:.1f} neighbours, {right} of {size} edges", ax=ax)
pyplot.show()

# %%
# The barycentre of the walks is a circle and next to nothing else. POT, as it is now, does not collapse to a complete
# graph on these: from adjacency matrices, its heaviest edges are the circle's too, among light ones that are left of
# the edges too many. From the numbers of steps, several of its nodes fall together, and edges have to be guessed from
# a matrix that holds none.
#
# Two classes of molecules
# ------------------------
# The barycentre of 16 mutagenic and of 16 other molecules of MUTAG, in twelve atoms. Atoms are labels: what is learned
# is how likely each atom is in each state, and the likeliest is drawn.

mutag = load_mutag()
atoms = mutag.label_names
figure, axes = pyplot.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
for ax, target in zip(axes, (1, -1), strict=True):
    some = numpy.flatnonzero(mutag.targets == target)[:16]
    begin = time.perf_counter()
    centre = barycentre(
        [mutag.chains[k] for k in some],
        12,
        cost=costs.ZeroOne(),
        restarts=2,
        training=Training(steps=200, lr=5e-2, progress=False),
    )
    names = [atoms[label] for label in centre.chain.features]
    print(f"{mutag.target_names[target]}: {centre}, {''.join(sorted(names))}, {time.perf_counter() - begin:.1f} s")
    plot.chain(
        centre.chain,
        names=names,
        label_colors=plot.ELEMENT_COLORS,
        threshold=0.15,
        title=f"{mutag.target_names[target]}: mean distance {centre.value:.3f}",
        ax=ax,
    )
pyplot.show()

# %%
# Arrows are steps of a probability of at least 0.15, rings about states that may stay. Both classes keep the nitro
# group, N beside O, and a body of carbon. Which carbon is which the distance cannot tell and need not: states whose
# neighbourhoods look alike may be merged, so that a ring may come out as a state that stays with itself.
