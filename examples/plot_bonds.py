"""
Which bonds matter: a gradient in edge weights
==============================================

A distance is more useful when it says what it is made of. The gradient tells how it changes with the weight of every
bond, and the alignment how much every atom adds to it.
"""

import torch
from matplotlib import pyplot

from markovot import MarkovChain, costs, discounted_wl, plot
from markovot.analysis.explain import explain
from markovot.datasets import load_mutag

mutag = load_mutag(laziness=0.1)
x, y = mutag.chains[36], mutag.chains[77]
setting = {"delta": 0.2, "epsilon": 0.1, "rtol": 1e-8}

# %%
# ``explain`` takes a solution apart. The darker and larger an atom, the more it adds; more weight on a red bond
# would set the molecules further apart, on a blue one it would bring them closer.

found = explain(discounted_wl(x, y, costs.ZeroOne(), **setting), label_names=mutag.label_names)
print(found)
plot.explanation(found, titles=("molecule 36", "molecule 77"))
pyplot.show()

# %%
# The bond that holds the nitro group (N with two O) matters most: the heavier it is, the more often the walker of
# the longer molecule is away from where the other one can follow. Half of this distance is entropy, the price of
# smoothing.
#
# The same numbers by hand
# ------------------------
# Build the chain from weights of the bonds, one parameter for each, and let PyTorch differentiate.

bonds = torch.as_tensor(mutag.edges[36]).T
weights = torch.ones(bonds.shape[1], dtype=torch.float64, requires_grad=True)
n = x.num_states
adjacency = torch.zeros(n, n, dtype=torch.float64)
adjacency = adjacency.index_put((bonds[0], bonds[1]), weights).index_put((bonds[1], bonds[0]), weights)
weighted = MarkovChain.from_adjacency(adjacency, laziness=0.1, features=x.features)

solution = discounted_wl(weighted, y, costs.ZeroOne(), **setting)
solution.value.backward()

names = [mutag.label_names[int(label)] for label in x.features]
for bond in weights.grad.abs().topk(4).indices:
    i, j = bonds[:, bond].tolist()
    print(f"bond {names[i]}{i} - {names[j]}{j}: {weights.grad[bond].item():+.4f}")

# %%
# A gradient promises what a small change does. Check it: make the most important bond heavier by 1 %.

most = int(weights.grad.abs().argmax())
i, j = bonds[:, most]
with torch.no_grad():
    heavier = adjacency.clone()
    heavier[i, j] = heavier[j, i] = 1.01
    changed = MarkovChain.from_adjacency(heavier, laziness=0.1, features=x.features)
    after = discounted_wl(changed, y, costs.ZeroOne(), **setting)
print(f"predicted {0.01 * weights.grad[most].item():+.3e}, found {(after.value - solution.value).item():+.3e}")

# %%
# Why ``epsilon=0.1`` here? All bonds weigh the same, so neighbourhoods match one to one, and there the exact
# distance has a kink: it grows whichever way a weight is moved. Epsilon rounds the kink off. At 0.001 the gradient
# is still one of those between the two sides, but it holds only for changes too small to see.
