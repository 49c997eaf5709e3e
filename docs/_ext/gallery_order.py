"""The gallery goes from the simple to the large."""

from pathlib import Path

_FIRST = (
    "plot_first_distance",
    "plot_molecules",
    "plot_bonds",
    "plot_languages",
    "plot_classification",
    "plot_epsilon",
    "plot_large_graphs",
    "plot_block_models",
    "plot_frozen_lake",
    "plot_barycentre",
    "plot_coarsening",
    "plot_gradient_flow",
    "plot_matching_noise",
    "plot_learning_languages",
    "plot_sequences",
    "plot_dask",
)


class Order:
    """The sort key of sphinx-gallery: in the order above, then by name."""

    def __init__(self, source_dir: str) -> None:
        self.source_dir = source_dir

    def __call__(self, filename: str) -> tuple[int, str]:
        """Where an example stands."""
        name = Path(filename).stem
        return (_FIRST.index(name) if name in _FIRST else len(_FIRST), name)

    def __repr__(self) -> str:  # it becomes part of the configuration, which must not change from build to build
        return "Order"
