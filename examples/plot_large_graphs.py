"""
Scaling to large graphs
=======================

What a pair of sparse graphs costs, from 32 to 1,024 nodes each: forward, backward, and exact.
"""

import time

import networkx
import torch
from matplotlib import pyplot

from markovot import MarkovChain, costs, discounted_wl

sizes = [32, 64, 128, 256, 512, 1024]


def road_map(n, seed):
    """Random points of the unit square, joined to those nearby: some six neighbours each, as in a road map."""
    graph = networkx.random_geometric_graph(n, (6 / (3.14 * n)) ** 0.5, seed=seed)
    places = {node: data["pos"] for node, data in graph.nodes(data=True)}
    return MarkovChain.from_networkx(graph, features=places, laziness=0.1)


def seconds(n, epsilon, backward):
    """Of solving a pair, and of its gradients in the cost and in both chains' transitions."""
    x, y = road_map(n, 1), road_map(n, 2)
    cost = costs.Euclidean()(x.features, y.features)
    leaves = [cost, x.values, y.values] if backward else []
    for leaf in leaves:
        leaf.requires_grad_()
    start = time.perf_counter()
    solution = discounted_wl(x, y, cost, delta=0.2, epsilon=epsilon)
    middle = time.perf_counter()
    if backward:
        torch.autograd.grad(solution.value, leaves)
    return middle - start, time.perf_counter() - middle, solution


for epsilon in (0.01, 0.0):
    seconds(8, epsilon, True)  # compiles

forward, backward, exact = [], [], []
for n in sizes:
    taken, back, solution = seconds(n, 0.01, True)
    forward.append(taken)
    backward.append(back)
    exact.append(seconds(n, 0.0, False)[0])
    print(f"{n:5d} nodes: {taken:.3f} s forward, {back:.3f} s backward, {exact[-1]:.3f} s exact")
    print(f"             distance {solution.value.item():.3f}, certified to {solution.error_bound.item():.0e}")

# %%
# There are n m local problems, each as large as two neighbourhoods, so time and memory grow with n m. The dotted
# line is n^2.

figure, ax = pyplot.subplots(figsize=(6.5, 4.2), layout="constrained")
ax.loglog(sizes, forward, "o-", label="epsilon = 0.01, forward (with one polishing step)")
ax.loglog(sizes, backward, "s-", label="its gradients")
ax.loglog(sizes, exact, "^-", label="epsilon = 0, value only")
ax.loglog(sizes, [forward[-1] * (n / sizes[-1]) ** 2 for n in sizes], "k:", lw=1, label="n²")
ax.set(xlabel="nodes of each graph", ylabel="seconds on two cores", xticks=sizes, xticklabels=sizes)
ax.minorticks_off()
ax.grid(alpha=0.3)
ax.legend()
pyplot.show()

# %%
# Beyond some thousand nodes each, memory is what ends it: a solution keeps the potentials of all local problems.
# For a whole data set of small graphs none of this matters; see the page on molecules.
