"""Convert chains to SciPy sparse matrices. `MarkovChain.from_transitions` and `from_adjacency` accept these."""

from typing import TYPE_CHECKING

from markovot.chains import MarkovChain
from markovot.interop._common import check_single

if TYPE_CHECKING:
    from scipy.sparse import csr_array


def to_scipy(chain: MarkovChain) -> "csr_array":
    """The transition probabilities of a single chain as a SciPy sparse matrix.

    `MarkovChain.from_transitions(to_scipy(chain))` has the same probabilities, bit by bit. Features, names and initial
    law are not part of a matrix: hand them over beside it.

    Args:
        chain: a single chain of either layout.

    Returns:
        (n, n), in the chain's dtype, a copy without gradients. Zeros that a sparse chain stores stay stored.

    Raises:
        TypeError: not a chain.
        ValueError: a batch.

    Example:
        >>> import torch
        >>> chain = MarkovChain.from_transitions(torch.tensor([[0.0, 1.0], [0.5, 0.5]]))
        >>> to_scipy(chain).toarray().tolist()
        [[0.0, 1.0], [0.5, 0.5]]
    """
    from scipy.sparse import csr_array

    check_single(chain, "to_scipy")
    if not chain.is_sparse:
        return csr_array(chain.transition.detach().cpu().numpy())  # picks the entries out, and so copies
    parts = (chain.values, chain.indices, chain.indptr)
    return csr_array(
        tuple(part.detach().cpu().numpy().copy() for part in parts), shape=(chain.num_states, chain.num_states)
    )
