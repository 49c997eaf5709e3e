"""One page to look into a data set's distances with: a map, the matrix, neighbours, alignments. Needs `report`."""

from markovot.report.page import write_report

__all__ = ["write_report"]
