"""Markov chains: what the distances compare."""

from markovot.chains.chain import MarkovChain
from markovot.chains.convert import as_chain, chain_of, converted, single
from markovot.chains.labels import label_code

__all__ = ["MarkovChain", "as_chain", "chain_of", "converted", "label_code", "single"]
