"""
Languages as chains of letters
==============================

A language is a Markov chain: from a letter to the next, with the frequencies of its texts. Which languages spell
alike?
"""

from matplotlib import pyplot

from markovot import costs, plot
from markovot.datasets import load_languages
from markovot.pairwise import distance_matrix

languages = load_languages()
print(languages)

# %%
# The cost is 0 between equal letters and 1 between others. ``debiased=True`` takes off what entropy adds, so that a
# language is at distance 0 from itself.

found = distance_matrix(languages.chains, cost=costs.ZeroOne(), delta=0.3, epsilon=0.05, debiased=True, progress=False)
plot.dendrogram(found, languages.names, labels=languages.families, title="31 languages as chains of letters")
pyplot.show()

# %%
# The Germanic, Romance, Slavic and Baltic languages each form one branch; Spanish and Catalan, Norwegian and
# Danish, Czech and Slovak stand closest; Finnish joins Estonian.
#
# What it does not show is descent. Hungarian stands apart from its Uralic relatives, Indonesian beside Turkish, and
# Polish far out among the Slavic languages, since spelling counts: letters with different marks are different
# letters here.

values = found.value
for name in ("English", "Polish", "Finnish"):
    here = languages.names.index(name)
    order = values[here].argsort()[1:4]
    print(f"nearest to {name}:", ", ".join(f"{languages.names[k]} ({values[here, k]:.3f})" for k in order))
