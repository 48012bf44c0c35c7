"""What is run on a candidate's graph, and how well it does."""

import math
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Protocol

from millrace.exporting.parity import Tensors


class Metric(StrEnum):
    """The first measure of its kind of data, by the names that `millrace evaluate` has for them."""

    ACCURACY = "accuracy"
    PERPLEXITY = "perplexity"
    WORD_ERROR_RATE = "wer"
    RETRIEVAL = "ndcg@10"

    def of(self, total: float, count: int) -> float:
        """From sums over examples: of right answers, or of tokens' negative log-probabilities."""
        return total / count if self is Metric.ACCURACY else math.exp(min(total / count, 700.0))

    def loss(self, before: float, after: float) -> float:
        """What is given away: of perplexity the share, of the others the difference; below 0 where it is better."""
        match self:
            case Metric.PERPLEXITY:
                return after / before - 1
            case Metric.WORD_ERROR_RATE:
                return after - before
        return before - after

    def told(self, score: float) -> str:
        return f"{score:.2%}" if self in (Metric.ACCURACY, Metric.WORD_ERROR_RATE) else f"{score:.3f}"


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
