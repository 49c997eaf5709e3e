"""
Alignment of two molecules
==========================

MUTAG holds 188 molecules, some of which make bacteria mutate. Two of them look much alike, and yet one is mutagenic
and the other is not. The alignment shows which atoms correspond, and where they do not.
"""

from matplotlib import pyplot

from markovot import costs, discounted_wl, plot
from markovot.datasets import load_mutag

mutag = load_mutag(laziness=0.1)
pair = 36, 77
x, y = (mutag.chains[number] for number in pair)
titles = tuple(f"molecule {number} ({mutag.target_names[int(mutag.targets[number])]})" for number in pair)

# %%
# The cost is 0 between equal atoms and 1 between different ones. A walker starts at any atom and follows the bonds.

solution = discounted_wl(x, y, costs.ZeroOne(), delta=0.2, epsilon=0.01)
print(f"distance {solution.value.item():.4f}, certified to {solution.error_bound.item():.0e}")

plot.alignment(x, y, solution.alignment, label_names=mutag.label_names, label_colors=plot.ELEMENT_COLORS, titles=titles)
pyplot.show()

# %%
# The alignment is a probability on pairs of atoms, the law of where the two walkers stand when they stop. Its sum
# over the atoms of one molecule is how often the walker on the other stands at each atom.

print(f"total {solution.alignment.sum().item():.6f}")
print("most of the time on:", [int(atom) for atom in solution.alignment.sum(1).topk(3).indices])

# %%
# Why are the lines soft? A walker on the longer molecule has no partner of its own for each atom, so atoms share.
# With ``delta=0.8`` the walk is short and only the atoms themselves count; with ``delta=0.05`` it sees whole
# molecules.

figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
for ax, delta in zip(axes, (0.8, 0.05), strict=True):
    found = discounted_wl(x, y, costs.ZeroOne(), delta=delta, epsilon=0.01)
    shown = ax.imshow(found.alignment.numpy(), cmap="Greys", vmin=0.0)
    ax.set(title=f"delta = {delta}: distance {found.value.item():.3f}", xlabel="atom of 77", ylabel="atom of 36")
    figure.colorbar(shown, ax=ax, label="share of the alignment", shrink=0.8)
pyplot.show()
