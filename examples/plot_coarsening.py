"""
Coarsening: a large chain in a few states
=========================================

A small chain stands for a large one if it runs like it: a move of the small chain is worth several steps of the large
one, and the features along the way agree. ``coarsen`` finds its transitions and features by gradient steps on the
distance, and reads off the alignment which states it stands for.

The first experiment is that of Brugère, Wan and Wang; the second shows what the dynamics know that features do not; the
third is a map of English.
"""

import math
import os
import pathlib
import time

import numpy
import torch
from matplotlib import pyplot

from markovot import MarkovChain, costs, plot
from markovot.datasets import load_languages
from markovot.learning import Training, coarsen

# %%
# A ring of 30 states
# -------------------
# A directed cycle with places on the circle. A small chain of k states is fitted to the cycle run 30 / k steps at a
# time; where this is not whole, the cycle makes one of the two numbers of steps next to it, at random. delta = 0.5 and
# epsilon = 0.05 are those of the paper. It takes 3,000 steps of Adam at a learning rate of 0.005; 600 steps at 0.03 end
# at the same pictures, and let this page be built sooner.

size = 30
angle = 2 * math.pi * torch.arange(size, dtype=torch.float64) / size
ring = MarkovChain.from_transitions(
    torch.eye(size, dtype=torch.float64).roll(1, 1),
    initial="uniform",
    features=torch.stack([angle.cos(), angle.sin()], dim=1),
)


def next_in_order(chain):
    """How many states have their likeliest step to the next state in the order of the angles."""
    order = torch.atan2(chain.features[:, 1], chain.features[:, 0]).argsort()
    rows = chain.transition[order][:, order]
    count = len(rows)
    return int((rows.argmax(1) == (torch.arange(count) + 1) % count).sum())


rings = []
for count in (5, 10, 15, 20, 25):
    begin = time.perf_counter()
    found = coarsen(
        ring, count, cost=costs.Euclidean(), training=Training(steps=600, lr=3e-2, patience=150, progress=False)
    )
    seconds = time.perf_counter() - begin
    likeliest = found.chain.transition.max(1).values
    print(
        f"{found}: {next_in_order(found.chain)} of {count} lead to the next, with a probability of at least "
        f"{likeliest.min():.2f}; groups of {found.groups.bincount().min()} to {found.groups.bincount().max()}; "
        f"{len(found.history)} steps, {1e3 * seconds / len(found.history):.1f} ms each"
    )
    rings.append(found)

plot.strip([found.chain for found in rings], titles=[f"{found.chain.num_states} states" for found in rings])
pyplot.show()

# %%
# Clean cycles at 5, 10 and 15 states, as in the paper, and at 20 and 25 too: there the target blurs, since 1.5 steps
# are one or two, and yet the small chain keeps to its order.
#
# Blocks that features do not show
# --------------------------------
# 25 states in five blocks. From its block the chain goes to the next one with probability 0.8, to any state of it. The
# features of a state are the place of its block on the circle, with noise so large that they overlap: clusters of the
# features mix the blocks up. A chain of five states, fitted to the steps, tells them apart.

random = numpy.random.default_rng(0)
block = numpy.repeat(numpy.arange(5), 5)
between = numpy.full((5, 5), 0.1 / 3)
for b in range(5):
    between[b, b], between[b, (b + 1) % 5] = 0.1, 0.8
rows = between[numpy.ix_(block, block)] * random.uniform(0.5, 1.5, (25, 25))
rows /= rows.sum(axis=1, keepdims=True)
places = numpy.stack([numpy.cos(2 * math.pi * block / 5), numpy.sin(2 * math.pi * block / 5)], axis=1)
features = places + 0.5 * random.standard_normal((25, 2))
blocks = MarkovChain.from_transitions(rows, features=features)
found = coarsen(
    blocks,
    5,
    cost=costs.Euclidean(),
    delta=0.2,
    steps_per_move=1,
    restarts=4,
    training=Training(steps=300, lr=4e-2, progress=False),
)
print(found, "; all restarts:", found.restart_values.round(4))

nearest = ((features[:, None] - numpy.unique(places, axis=0)) ** 2).sum(axis=2).argmin(axis=1)
for name, groups in (("the true place that is nearest", nearest), ("the alignment", found.groups.numpy())):
    table = numpy.array([[int(((groups == g) & (block == b)).sum()) for b in range(5)] for g in range(5)])
    print(f"states that share a group with most of their block, by {name}: {table.max(axis=0).sum()} of 25")

figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
left.scatter(*features.T, c=block, cmap="tab10", vmax=9, s=45)
left.set_title("features, coloured by block", fontsize=10)
left.set_aspect("equal")
image = middle.imshow(found.assignment.numpy().T, cmap="Blues", vmin=0, vmax=1, aspect="auto")
middle.set_xlabel("state, ordered by block")
middle.set_ylabel("state of the small chain")
middle.set_title("how much of each state it stands for", fontsize=10)
figure.colorbar(image, ax=middle)
plot.chain(found.chain, title="the small chain", ax=right)
pyplot.show()

# %%
# A map of English
# ----------------
# English as a chain of letters, 26 and the boundary between words, ``_``. Letters are alike if the same letters come
# before and after them: these frequencies are the features. A chain of four states, with ``steps_per_move=1``, is then
# a small model of spelling.

languages = load_languages()
letters = languages.chains[languages.names.index("English")]
rows, law = letters.to_dense().transition, letters.initial
before = (law[:, None] * rows).T / law[:, None]  # the letter before each letter
english = MarkovChain.from_transitions(rows, features=torch.cat([before, rows], dim=1), state_names=letters.state_names)
found = coarsen(
    english,
    4,
    cost=costs.Euclidean(),
    delta=0.3,
    epsilon=0.02,
    steps_per_move=1,
    restarts=4,
    training=Training(steps=400, lr=3e-2, progress=False),
)
print(found, "; all restarts:", found.restart_values.round(4))
groups = [
    "".join(name for name, group in zip(english.state_names, found.groups.tolist(), strict=True) if group == state)
    for state in range(found.chain.num_states)
]
for state, own in enumerate(groups):
    moves = found.chain.transition[state].tolist()
    print(f"{own or '(none)'}: then {', '.join(f'{groups[k]} {p:.2f}' for k, p in enumerate(moves) if p > 0.1)}")

figure, ax = pyplot.subplots(figsize=(7, 4.6), layout="constrained")
corners = numpy.array([[0.0, 0.0], [1.6, 0.0], [1.6, 1.0], [0.0, 1.0]])
plot.chain(found.chain, place=corners, names=range(4), threshold=0.08, ax=ax)
for own, corner in zip(groups, corners, strict=True):
    ax.annotate(own, corner, xytext=(0, 13 if corner[1] else -19), textcoords="offset points", ha="center")
ax.margins(0.2)
ax.set_title("the letters of English that a state stands for", fontsize=11)
pyplot.show()

# %%
# A map of flights
# ----------------
# Real networks that do not ship with the package are drawn only where they are at hand: ``MARKOVOT_DATA`` names their
# folder. Here, the seventy US airports with the most passengers are walked from flight to flight and drawn in ten
# states; places are degrees of longitude and latitude, the former shortened as on a map.


def airports(archive, count=70):
    """The chain of the passengers between the largest airports, with their names."""
    import csv
    import io
    import zipfile

    with zipfile.ZipFile(archive) as file:
        nodes, edges = (
            list(csv.DictReader(io.StringIO(file.read(f"IGRAPHDATA/USairports_{part}.csv").decode())))
            for part in ("nodes", "edges")
        )
    flows = numpy.zeros((len(nodes), len(nodes)))
    for edge in edges:
        flows[int(edge["source"]), int(edge["target"])] += float(edge["Passengers"] or 0)
    numpy.fill_diagonal(flows, 0)

    def degrees(text):  # N444827 or W0684941: degrees, minutes, seconds
        value = float(text[1:-4]) + float(text[-4:-2]) / 60 + float(text[-2:]) / 3600
        return -value if text[0] in "SW" else value

    positions = [node["Position"].split() for node in nodes]  # of one airfield, that is another word
    places = numpy.array([[degrees(p[1]), degrees(p[0])] if len(p) == 2 else [0.0, 0.0] for p in positions])
    inside = (places[:, 0] > -130) & (places[:, 0] < -60) & (places[:, 1] > 24)  # neither Alaska nor the islands
    places[:, 0] *= 0.78
    largest = numpy.argsort(-(flows.sum(axis=0) + flows.sum(axis=1)) * inside)[:count]
    chosen = flows[numpy.ix_(largest, largest)]
    chain = MarkovChain.from_adjacency(chosen, initial="stationary", features=places[largest] / 10)
    return chain, [nodes[k]["name"] for k in largest]


archive = pathlib.Path(os.environ.get("MARKOVOT_DATA", "")) / "markov" / "IGRAPHDATA.zip"
if os.environ.get("MARKOVOT_DATA") and archive.is_file():
    flights, names = airports(archive)
    found = coarsen(
        flights,
        10,
        cost=costs.Euclidean(),
        delta=0.3,
        epsilon=0.02,
        steps_per_move=1,
        training=Training(steps=300, lr=3e-2, progress=False),
    )
    print(found)
    figure, ax = pyplot.subplots(figsize=(9, 5.5), layout="constrained")
    plot.chain(found.chain, threshold=0.12, ax=ax)
    ax.scatter(*flights.features.numpy().T, c=found.groups.numpy(), cmap="tab10", s=14, zorder=1)
    for state, place in enumerate(found.chain.features.numpy()):
        own = [name for name, group in zip(names, found.groups.tolist(), strict=True) if group == state]
        ax.annotate(" ".join(own[:3]), place, xytext=(0, -13), textcoords="offset points", ha="center", fontsize=8)
        print(f"state {state}: {' '.join(own)}")
    ax.set_title("the largest airports of the USA in ten states", fontsize=11)
    pyplot.show()
