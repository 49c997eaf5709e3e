"""Learning with the distance: chains made of parameters, and losses to train them with."""

from markovot.learning.losses import DiscountedWLLoss
from markovot.learning.parameters import LabelledChain, TransitionMatrix

__all__ = ["DiscountedWLLoss", "LabelledChain", "TransitionMatrix"]
