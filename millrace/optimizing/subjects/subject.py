"""What is run on a candidate's graph, and how well it does."""

import math
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Protocol

from millrace.exporting.parity import Tensors


class Metric(StrEnum):
    ACCURACY = "accuracy"
    PERPLEXITY = "perplexity"

    def of(self, total: float, count: int) -> float:
        """From sums over examples: of right answers, or of tokens' negative log-probabilities."""
        return total / count if self is Metric.ACCURACY else math.exp(min(total / count, 700.0))

    def loss(self, before: float, after: float) -> float:
        """What is given away: of accuracy the difference, of perplexity the share; below 0 where it is better."""
        return before - after if self is Metric.ACCURACY else after / before - 1


class Subject(Protocol):
    """Inputs of one model, on one session of one of its graphs."""

    unit: str
    """What a run has more of with more rows: "rows" or "tokens"."""
    metric: Metric | None
    """None: there are no labels, and only outputs can be compared."""

    def row_counts(self) -> list[int]:
        """Batches that are tried, ascending: 1 alone where the rows of this graph are not independent."""

    def probe(self) -> Iterator[Tensors]:
        """Outputs of a few single rows, the same ones for every graph of the model."""

    def judge(self) -> Iterator[tuple[float, int]]:
        """Runs all data in the largest batches that a worker would form; what each run adds to the metric's sums."""

    def repeat(self, rows: int) -> Callable[[], object]:
        """A call that runs so many rows once, again and again."""
