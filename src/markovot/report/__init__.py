"""One page that shows the distances of a data set: a map, the matrix, neighbours, alignments. Needs `report`."""

from markovot.report.page import write_report

__all__ = ["write_report"]
