"""Whole sets of graphs and chains, ready to be compared: MUTAG, languages, and any set in the TUDataset layout."""

from markovot.datasets.dataset import GraphDataset
from markovot.datasets.languages import LanguageDataset, load_languages
from markovot.datasets.mutag import load_mutag
from markovot.datasets.tudataset import load_tudataset

__all__ = ["GraphDataset", "LanguageDataset", "load_languages", "load_mutag", "load_tudataset"]
