"""
First distance
==============

In 1972 a karate club broke in two: one half followed its instructor, the other its president. How different are the
two halves, as networks of friends, and who in one corresponds to whom in the other?
"""

import networkx
from matplotlib import pyplot

from markovot import MarkovChain, costs, discounted_wl, plot

club = networkx.karate_club_graph()
halves = {
    leader: club.subgraph([member for member in club if club.nodes[member]["club"] == name])
    for name, leader in [("Mr. Hi", 0), ("Officer", 33)]
}

# %%
# A graph becomes a Markov chain: a walker who goes from a member to one of the member's friends, more often to
# closer ones. What we know of a member, the *feature*, is the number of friends in the half; the cost of matching
# two members is the difference of these numbers.

chains = []
for half in halves.values():
    friends = {member: float(degree) for member, degree in half.degree()}
    chains.append(MarkovChain.from_networkx(half, features=friends))
print(*chains, sep="\n")

# %%
# The distance lets two walkers go side by side, one in each half, so that they stand on similar members as often as
# possible. ``delta=0.2``: they walk for five steps in the mean. ``epsilon=0``: exact, no smoothing.

solution = discounted_wl(*chains, costs.AbsoluteDifference(), delta=0.2, epsilon=0.0)
print(f"distance {solution.value.item():.3f} friends, certified to {solution.error_bound.item():.0e}")

# %%
# What it is made of is the *alignment*: how much of each member of one half goes with each member of the other. The
# wider a line, the more. The two leaders, 0 and 33, find each other, though nothing but the graphs told who they
# are.

colours = {str(member): "tab:red" if member in halves else "dimgrey" for member in club}
plot.alignment(
    *chains, solution.alignment, label_colors=colours, titles=("the instructor's half", "the president's half")
)
pyplot.show()

# %%
partner = solution.alignment.argmax(dim=1)
names_x, names_y = (chain.state_names for chain in chains)
for member, other in list(zip(names_x, partner, strict=True))[:5]:
    print(f"member {member} goes mostly with member {names_y[other]}")
