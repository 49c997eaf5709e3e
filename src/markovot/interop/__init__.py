"""Convert objects of other libraries and graph files to chains, and back; a library is imported when it is used."""

from markovot.interop.files import auto_features, read_graph, read_graphs
from markovot.interop.frames import Frames, from_frame, from_frames, to_frame, to_frames
from markovot.interop.graphs import to_networkx
from markovot.interop.hmm import from_deeptime_hmm, from_hmmlearn
from markovot.interop.matrices import to_scipy
from markovot.interop.msm import from_deeptime, to_deeptime
from markovot.interop.pyg import ChainsAndTargets, from_pyg, from_pyg_dataset, to_pyg
from markovot.interop.toytext import TransitionTable, from_gymnasium, transition_table

__all__ = [
    "ChainsAndTargets",
    "Frames",
    "TransitionTable",
    "auto_features",
    "from_deeptime",
    "from_deeptime_hmm",
    "from_frame",
    "from_frames",
    "from_gymnasium",
    "from_hmmlearn",
    "from_pyg",
    "from_pyg_dataset",
    "read_graph",
    "read_graphs",
    "to_deeptime",
    "to_frame",
    "to_frames",
    "to_networkx",
    "to_pyg",
    "to_scipy",
    "transition_table",
]
