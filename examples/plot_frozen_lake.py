"""
A bisimulation map of FrozenLake
================================

On a frozen lake one wants to reach the goal and not fall into a hole; the ice is slippery, so that a step goes astray
two times in three. Which tiles are alike, as seen by someone who only cares for what can be earned from there?
"""

import warnings

import numpy
import torch
from matplotlib import pyplot

from markovot import DecisionProcess, bisimulation

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what gymnasium's imports say of each other
    import gymnasium

    env = gymnasium.make("FrozenLake-v1", map_name="4x4", is_slippery=True)
tiles = env.unwrapped.desc.astype(str)
process = DecisionProcess.from_gymnasium(env)
gamma = 0.95

# %%
# The bisimulation metric says how far apart two tiles are: 0 where they behave alike for ever, whatever one does.
# It is certified, and exact zeros are found exactly.

found = bisimulation(process, gamma=gamma)
print(f"{len(found.value)} tiles, error at most {found.error_bound:.0e}, {found.num_iter} sweeps")
alike = [(int(i), int(j)) for i, j in found.bisimilar.triu(1).nonzero()]
print("tiles that behave alike:", alike)

# %%
# These are the holes and the goal: nothing happens there any more. Each picture shows how far all tiles are from
# the one with the star.

marks = {"start": 0, "beside the goal": 14, "a hole": 5}
figure, axes = pyplot.subplots(1, 3, figsize=(11, 3.9), layout="constrained")
top = float(found.value.max())
for ax, (name, tile) in zip(axes, marks.items(), strict=True):
    image = ax.imshow(found.value[tile].reshape(4, 4).numpy(), cmap="Blues", vmin=0, vmax=top)
    for (row, column), letter in numpy.ndenumerate(tiles):
        number = 4 * row + column
        far = float(found.value[tile, number])
        text = f"{letter}{'*' if number == tile else ''}\n{far:.3f}"
        ax.text(column, row, text, ha="center", va="center", color="white" if far > top / 2 else "black", fontsize=9)
    ax.set(title=f"from {name}", xticks=[], yticks=[])
figure.colorbar(image, ax=axes, label="distance, in units of the reward", shrink=0.9)
pyplot.show()

# %%
# What the metric promises: optimal values differ by no more than the distance over 1 - gamma. Value iteration
# confirms it.

transition = torch.stack([chain.to_dense().transition for chain in process.chains])  # (actions, n, n)
value = torch.zeros(16, dtype=torch.float64)
for _ in range(2000):
    value = (process.reward.T + gamma * transition @ value).amax(0)
gap = (value[:, None] - value).abs()
bound = found.value / (1 - gamma)
print(f"largest difference of values over its bound: {(gap / bound.clamp(min=1e-12)).max().item():.2f}, at most 1")
figure, ax = pyplot.subplots(figsize=(4.6, 4.2), layout="constrained")
upper = torch.triu_indices(16, 16, 1)
ax.plot(bound[*upper], gap[*upper], "o", ms=4, alpha=0.6)
ax.plot([0, float(bound.max())], [0, float(bound.max())], "k:", lw=1)
ax.set(xlabel="distance / (1 - gamma)", ylabel="difference of optimal values", title="Every pair of tiles")
pyplot.show()
