"""
From one chain to another, downhill
===================================

The distance has a gradient in the transition probabilities and in the features of the states. Follow it, and one chain
turns into the other; stop on the way, and there are chains between the two. The same gradients place a chain at given
distances from others.
"""

import math

import numpy
import torch
from matplotlib import pyplot

from markovot import MarkovChain, costs, discounted_wl, plot
from markovot.learning import LabelledChain, Training, fit_distances, gradient_flow, minimise

# %%
# A flow
# ------
# From a random chain on nine scattered points to a directed cycle of nine.

random = numpy.random.default_rng(4)
size = 9
angle = 2 * math.pi * torch.arange(size, dtype=torch.float64) / size
circle = torch.stack([angle.cos(), angle.sin()], dim=1)
goal = MarkovChain.from_transitions(torch.eye(size, dtype=torch.float64).roll(1, 1), initial="uniform", features=circle)
begin = MarkovChain.from_transitions(
    random.dirichlet(numpy.full(size, 0.3), size), initial="uniform", features=0.8 * random.standard_normal((size, 2))
)
flow = gradient_flow(
    begin, goal, cost=costs.Euclidean(), snapshots=6, training=Training(steps=500, lr=2e-2, progress=False)
)
print(flow)
titles = [f"step {step}: {value:.2f}" for step, value in zip(flow.steps, flow.values, strict=True)]
plot.strip(flow.chains, titles=titles)
pyplot.show()

# %%
# The numbers are distances to the goal. They do not go to 0: at ``epsilon=0.01`` the goal is some way from itself too.
# Nothing assures that a flow arrives, since the distance is not convex in the parameters; this one does.

itself = discounted_wl(goal, goal, costs.Euclidean(), delta=0.5, epsilon=0.01).value
print(f"of the goal to itself: {itself.item():.3f}; at the end: {flow.values[-1]:.3f}")
plot.history(flow.history, title="distance to the goal")
pyplot.show()

# %%
# At given distances
# ------------------
# Three cycles with the corners of a triangle for centres, and a chain of four states that is to be 1.5 from the first,
# 2 from the second, and 2.5 from the third.

corners = torch.tensor([[0.0, 0.0], [3.0, 0.0], [1.5, 2.6]], dtype=torch.float64)
rings = [
    MarkovChain.from_transitions(goal.transition, initial="uniform", features=0.5 * circle + corner)
    for corner in corners
]
fit = fit_distances(
    rings, [1.5, 2.0, 2.5], 4, cost=costs.Euclidean(), training=Training(steps=300, lr=3e-2, progress=False)
)
print(fit)
print("wanted:", fit.targets.tolist(), "found:", fit.distances.numpy().round(3))
figure, ax = pyplot.subplots(figsize=(5.5, 4.8), layout="constrained")
for ring, wanted in zip(rings, fit.targets.tolist(), strict=True):
    ax.scatter(*ring.features.numpy().T, color="0.6", s=12)
    ax.annotate(f"{wanted:g}", ring.features.mean(0).numpy(), ha="center", va="center", color="0.4")
everything = torch.cat([ring.features for ring in rings]).numpy()
plot.chain(fit.chain, title="a chain at 1.5, 2 and 2.5 from three others", ax=ax)
ax.set_xlim(everything[:, 0].min() - 0.2, everything[:, 0].max() + 0.2)
ax.set_ylim(everything[:, 1].min() - 0.2, everything[:, 1].max() + 0.2)
pyplot.show()

# %%
# An objective of one's own
# -------------------------
# ``minimise`` trains any module on any objective: here, a chain that is to be near the cycle of nine and yet to stay
# where it is half of the time. The pair that the objective returns lets the history show the certified error.

chain = LabelledChain(size, features=goal.features, learn_features=False, generator=torch.Generator().manual_seed(0))


def objective(module):
    """The distance to the cycle, and how far the chances of staying are from a half."""
    now = module()
    solution = discounted_wl(now, goal, costs.Euclidean(), delta=0.5, epsilon=0.01)
    stays = now.transition.diagonal()
    return solution.value + (stays - 0.5).square().sum(), solution


history = minimise(chain, objective, steps=300, lr=5e-2, patience=40, progress=False)
print(history, "; the largest certified error:", f"{history.error_bound.max():.1e}")
with torch.no_grad():
    print("chances of staying:", chain().transition.diagonal().numpy().round(2))
