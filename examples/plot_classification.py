"""
Classifying molecules
=====================

All distances between the 188 molecules of MUTAG, a map of them, and how well they tell mutagenic molecules from
others.
"""

import time

from matplotlib import pyplot

from markovot import costs, plot
from markovot.analysis.classification import NestedCV, classify
from markovot.datasets import load_mutag
from markovot.pairwise import distance_matrix

mutag = load_mutag(laziness=0.1)

start = time.perf_counter()
found = distance_matrix(mutag.chains, cost=costs.ZeroOne(), delta=0.2, epsilon=0.01, progress=False)
seconds = time.perf_counter() - start
print(f"188 x 188 distances in {seconds:.1f} s; largest certified error {found.error_bound.max():.0e}")

# %%
# In the ordered matrix, bright blocks are groups of similar molecules.

plot.distance_matrix(found, mutag.targets, class_names=mutag.target_names)
pyplot.show()

# %%
# The map puts each molecule where its distances to the others are met best. How far it is off stands in its corner.

plot.embedding(found, mutag.targets, class_names=mutag.target_names)
pyplot.show()

# %%
# Accuracy is measured by nested cross-validation: delta, and everything else that can be chosen, is chosen inside
# each training fold. The grid here is small, so that the page builds quickly; ``markovot classify mutag`` tries the
# usual one.

protocol = NestedCV(folds=5, inner_folds=3, scales=(0.3, 1.0), C=(1.0, 100.0))
for method, result in classify(mutag, deltas=(0.1, 0.5), protocol=protocol, progress=False).items():
    mean, spread = 100 * result.accuracy.mean(), 100 * result.accuracy.std()
    print(f"{method}: {mean:.1f} % +- {spread:.1f} over the folds; chosen first: {result.chosen[0]['setting']}")
largest = max((mutag.targets == target).mean() for target in mutag.target_names)
print(f"always guessing the larger class: {100 * largest:.1f} %")
