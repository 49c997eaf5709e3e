"""Learning with the distance: chains made of parameters, losses, a training loop, and functions that fit chains."""

from markovot.learning.barycentres import Barycentre, barycentre
from markovot.learning.coarsening import Coarsening, coarsen, several_steps
from markovot.learning.fitting import DistanceFit, Flow, fit_distances, gradient_flow
from markovot.learning.history import History
from markovot.learning.losses import DiscountedWLLoss
from markovot.learning.parameters import LabelledChain, TransitionMatrix
from markovot.learning.training import Training, TrainingError, minimise

__all__ = [
    "Barycentre",
    "Coarsening",
    "DiscountedWLLoss",
    "DistanceFit",
    "Flow",
    "History",
    "LabelledChain",
    "Training",
    "TrainingError",
    "TransitionMatrix",
    "barycentre",
    "coarsen",
    "fit_distances",
    "gradient_flow",
    "minimise",
    "several_steps",
]
