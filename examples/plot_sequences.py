"""
Sequences: clustered by the models that fit them
================================================

How far apart are two sequences of which no letter stands at the same place? Fit a model to each, and take the distance
between the models: Markov state models of what is seen, or hidden Markov models, whose hidden states are compared by
what they emit.

The texts of the first part are not part of markovot. Where the folder of shared data is not there (``MARKOVOT_DATA``
names it), sequences drawn from the letter chains of three languages, which are, take their place; the first line that
is printed says which of the two was run.
"""

import os
import pathlib
import re
import warnings
import zipfile

import numpy
import torch
from deeptime.markov import TransitionCountEstimator
from deeptime.markov.msm import MaximumLikelihoodMSM
from hmmlearn.hmm import CategoricalHMM, GaussianHMM
from matplotlib import pyplot
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from sklearn.metrics import adjusted_rand_score

from markovot import MarkovChain, costs, plot
from markovot.analysis.similarity import dissimilarities
from markovot.datasets import load_languages
from markovot.interop import from_deeptime, from_hmmlearn
from markovot.pairwise import distance_matrix

LETTERS = " abcdefghijklmnopqrstuvwxyz"
LENGTH, PIECES = 2000, 6


def codes(text):
    """Letters as numbers from 1 to 26; everything else between two of them as one 0."""
    plain = re.sub("[^a-z]+", " ", text.lower()).strip()
    return numpy.array([LETTERS.index(letter) for letter in plain])


def real_texts(archive):
    """First names, the titles of bills in the Senate, and The Adventures of Sherlock Holmes."""
    rng, found = numpy.random.default_rng(0), {}
    for name in ("names", "senate-bills", "sherlock"):
        lines = archive.read(f"TEXT_BIGRAMS/{name}.txt").decode("utf-8-sig").splitlines()
        if name != "sherlock":
            rng.shuffle(lines)  # the lists are sorted
        found[name] = codes("\n".join(lines))
    return found


def simulated_texts(length):
    """Sequences drawn from the chains of three languages; letters beyond a to z are left out of the chains."""
    languages, rng, found = load_languages(), numpy.random.default_rng(0), {}
    for name in ("Italian", "Finnish", "Polish"):
        chain = languages.chains[languages.names.index(name)]
        kept = [k for k, letter in enumerate(chain.state_names) if letter == "_" or letter in LETTERS]
        rows = chain.to_dense().transition.numpy()[numpy.ix_(kept, kept)]
        rows = (rows / rows.sum(1, keepdims=True)).cumsum(1)
        state, draws = 0, []
        for uniform in rng.random(length):
            state = min(int(numpy.searchsorted(rows[state], uniform)), len(kept) - 1)
            draws.append(LETTERS.index(chain.state_names[kept[state]].replace("_", " ")))
        found[name] = numpy.array(draws)
    return found


beside = [above / "shared" / "data" for above in pathlib.Path.cwd().parents]
folder = pathlib.Path(os.environ.get("MARKOVOT_DATA") or next(filter(pathlib.Path.is_dir, beside), "."))
archive = folder / "markov" / "TEXT_BIGRAMS.zip"
if archive.is_file():
    texts = real_texts(zipfile.ZipFile(archive))
    print("real texts:", ", ".join(texts))
else:
    texts = simulated_texts(LENGTH * PIECES)
    print("no shared data: sequences drawn from the letter chains of", ", ".join(texts))

# %%
# The sequences
# -------------
# Six pieces of 2,000 letters of each text. And, as a trap, six pieces of the last text read backwards: they have the
# same letters, equally often, and only their order tells them from the others.

texts[f"{list(texts)[-1]}, backwards"] = list(texts.values())[-1][::-1]
pieces, sources = [], []
for name, text in texts.items():
    for k in range(PIECES):
        pieces.append(text[k * LENGTH : (k + 1) * LENGTH])
        sources.append(name)
for name in texts:
    print(f"{name:24}", "".join(LETTERS[code] for code in pieces[sources.index(name)][:60]))


def clusters(distances, count):
    """The clusters into which average linkage cuts a distance matrix."""
    return fcluster(linkage(squareform(dissimilarities(distances)), "average"), count, "maxclust")


def agreement(found, sources):
    """The adjusted Rand index of the clusters against the sources: 1 for the same ones, 0 for chance."""
    return adjusted_rand_score(sources, clusters(found.value, len(set(sources))))


# %%
# As Markov state models
# ----------------------
# deeptime counts the steps and estimates the chain; ``from_deeptime`` takes it over. Letters are states, and equal ones
# cost nothing. With ``delta=1`` only the first letter is compared, in the stationary law: how often each letter occurs.
# A smaller ``delta`` sees the order too.


def markov_state_model(piece):
    """The chain of the letters of a piece."""
    counts = TransitionCountEstimator(lagtime=1, count_mode="sliding").fit_fetch(piece).submodel_largest()
    model = MaximumLikelihoodMSM(reversible=False).fit_fetch(counts)
    return from_deeptime(model, features=torch.from_numpy(counts.state_symbols))


chains = [markov_state_model(piece) for piece in pieces]
for delta in (1.0, 0.3):
    found = distance_matrix(chains, cost=costs.ZeroOne(), delta=delta, epsilon=0.05, debiased=True, progress=False)
    print(f"delta = {delta}: adjusted Rand index {agreement(found, sources):.2f}")

axes = plot.dendrogram(found, [""] * len(pieces), labels=sources, title="Markov state models of letters, delta = 0.3")
axes.figure.set_size_inches(8, 5)

# %%
# As hidden Markov models
# -----------------------
# hmmlearn fits models of a few hidden states, which tend to be vowels, consonants and ends of words. Their numbers mean
# nothing, and no two fits need have them in the same order: states are compared by what they emit, here by the
# Jensen-Shannon distance between their laws on the letters.
#
# Such a fit ends in one of many local optima, and two pieces of one text that ended in different ones look far apart:
# from random starts, the index stayed near 0.5 even without the trap. So one model is fitted to a mixture of all
# sources first, from several seeds, and each piece starts from the best of them. Hidden states that are told apart by
# what comes before and after them carry the order of the letters in themselves, so that here even ``delta=1``, which
# compares no more than the shares of the hidden states, sees more than frequencies. Two states are too few.


def hidden_model(piece, start):
    """A model of one piece, from another model on."""
    model = CategoricalHMM(start.n_components, n_features=len(LETTERS), init_params="", n_iter=25, tol=0.1)
    model.startprob_ = numpy.full(start.n_components, 1 / start.n_components)
    model.transmat_, model.emissionprob_ = start.transmat_, start.emissionprob_
    return model.fit(piece[:, None])


def common_model(count):
    """The best of three models of the first letters of all pieces."""
    mixture = numpy.concatenate([piece[:500] for piece in pieces])[:, None]
    models = [
        CategoricalHMM(count, n_features=len(LETTERS), random_state=seed, n_iter=60, tol=0.1).fit(mixture)
        for seed in range(3)
    ]
    return max(models, key=lambda model: model.score(mixture))


fits = {}
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for count in (2, 3, 4, 5):
        common = common_model(count)
        fits[count] = [from_hmmlearn(hidden_model(piece, common), initial="stationary") for piece in pieces]
for count, models in fits.items():
    scores = []
    for delta in (1.0, 0.3):
        found = distance_matrix(models, cost=costs.JensenShannon(), delta=delta, epsilon=0.0, progress=False)
        scores.append(f"delta = {delta}: {agreement(found, sources):.2f}")
    print(f"{count} hidden states: adjusted Rand index", ", ".join(scores))

plot.embedding(found, sources, title="Hidden Markov models of five states, delta = 0.3")
pyplot.gcf().set_size_inches(7, 5)

# %%
# Who is who among the hidden states
# ----------------------------------
# What the hidden states of one model emit, and how they follow each other: three states, for the first piece of the
# third text. In English, one has the vowels, one leads up to them (t, h, and the space between words), and one follows
# them (n, r, s, t, and the space again).

shown = fits[3][2 * PIECES]
figure, panels = pyplot.subplots(1, 2, figsize=(9, 2.6), width_ratios=(4, 1))
panels[0].imshow(shown.features, cmap="Blues", aspect="auto")
panels[0].set(xticks=range(len(LETTERS)), xticklabels=["_", *LETTERS[1:]], yticks=range(3), title="emits")
panels[1].imshow(shown.transition, cmap="Blues", vmin=0, vmax=1)
panels[1].set(xticks=range(3), yticks=range(3), title="followed by")
figure.tight_layout()

# %%
# Sales of five products
# ----------------------
# 269 sales each, in six classes of size (from the R package markovchain; where the data are there). Cut into three,
# each part makes a chain of 90 steps. Classes are ordered, so that the cost is the difference of their numbers. That is
# little data, and the picture says so: two of the products, D and E, are sold alike and cannot be told apart, and a
# third of C is nearest to one of B. The adjusted Rand index is 0.53.

archive = folder / "markov" / "R_MARKOVCHAIN.zip"
if archive.is_file():
    table = zipfile.ZipFile(archive).read("R_MARKOVCHAIN/sales.csv").decode().split()
    products = table[0].split(",")
    sales = numpy.array([[int(float(entry)) - 1 for entry in row.split(",")] for row in table[1:]])
    parts = [
        (name, part) for name, column in zip(products, sales.T, strict=True) for part in numpy.array_split(column, 3)
    ]
    labels = [name for name, _ in parts]
    sold = [
        MarkovChain.from_trajectories(part, num_states=6, pseudo_count=0.1, features=numpy.arange(6.0))
        for _, part in parts
    ]
    found = distance_matrix(sold, cost=costs.AbsoluteDifference(), delta=0.2, epsilon=0.0, progress=False)
    print(f"five products: adjusted Rand index {agreement(found, labels):.2f}")
    plot.dendrogram(found, labels, labels=labels, title="Sales of five products, in thirds")

# %%
# Numbers instead of letters
# --------------------------
# For Gaussian emissions there is the Wasserstein distance between Gaussians. Three processes, each drawn six times, all
# with the same two regimes, calm and wild, equally often: only how long a regime lasts differs. To compare the laws of
# single numbers (``delta=1``) is no use; to look ahead is.

generator, stays, series = numpy.random.default_rng(1), (0.5, 0.85, 0.98), []
for stay in stays:
    for _ in range(PIECES):
        wild = (generator.random(1500) > stay).cumsum() % 2
        series.append(generator.normal(0.0, numpy.where(wild, 3.0, 1.0))[:, None])
kinds = [f"stays: {stay}" for stay in stays for _ in range(PIECES)]

start = GaussianHMM(2, covariance_type="full", init_params="", n_iter=50)
models = []
for numbers in series:
    start.startprob_, start.transmat_ = numpy.array([0.5, 0.5]), numpy.full((2, 2), 0.5) + 0.2 * numpy.eye(2) - 0.1
    start.means_, start.covars_ = numpy.zeros((2, 1)), numpy.array([[[1.0]], [[9.0]]])
    models.append(from_hmmlearn(start.fit(numbers), initial="stationary"))
for delta in (1.0, 0.2):
    found = distance_matrix(models, cost=costs.GaussianWasserstein(1), delta=delta, epsilon=0.0, progress=False)
    print(f"delta = {delta}: adjusted Rand index {agreement(found, kinds):.2f}")

plot.embedding(found, kinds, title="Gaussian hidden Markov models, delta = 0.2")
pyplot.gcf().set_size_inches(7, 5)
