"""Labels against the right ones: scikit-learn's measures, and the same of resamples.

Precision, recall and F1 are of each label; `macro` is their mean over the labels that are right or were given, and
`weighted` the mean by how often each is right. `micro` counts all labels together: with one label for each example it
is accuracy. ECE is the expected calibration error of the best label's probability, in 15 bins (Guo et al., "On
Calibration of Modern Neural Networks", 2017).
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from scipy import sparse  # type: ignore[import-untyped]
from sklearn import metrics

from millrace.evaluating.asking import Answer
from millrace.evaluating.scores.curves import Ranking
from millrace.evaluating.scores.scorer import Array, Floats

BINS = 15
MOST_CURVES = 50
"""Labels up to which each has a curve."""
MOST_RANKED = 200_000
"""Scores up to which areas under curves have intervals."""
DENSE_COLUMNS = 256
"""Columns up to which a dense product is faster."""


class Classification:
    lower_is_better = frozenset({"ece"})
    proportions = frozenset({"accuracy", "precision_micro", "recall_micro", "f1_micro"})

    def __init__(self, truths: Sequence[str], answers: Sequence[Answer]) -> None:
        self.truths, self.given = list(truths), [answer.label or "" for answer in answers]
        self.labels = ordered({*self.truths, *self.given})
        places = {label: place for place, label in enumerate(self.labels)}
        self.true = np.array([places[label] for label in self.truths], np.intp)
        self.predicted = np.array([places[label] for label in self.given], np.intp)
        self.count = len(self.truths)
        self._answers = answers

    @property
    def is_right(self) -> Array:
        right: Array = self.true == self.predicted
        return right

    @cached_property
    def has_scores(self) -> bool:
        """Of every label that may have a curve, for every example."""
        return all(answer.scores is not None for answer in self._answers)

    @cached_property
    def ranked(self) -> Mapping[str, tuple[Array, Array]]:
        """Of each label that is right somewhere and wrong somewhere: where it is right, and its scores."""
        if not self.has_scores or len(self.labels) > MOST_CURVES:
            return {}
        found = {}
        for place, label in enumerate(self.labels):
            is_right = self.true == place
            if 0 < is_right.sum() < self.count:
                scores = [(answer.scores or {}).get(label, 0.0) for answer in self._answers]
                found[label] = (is_right, np.array(scores))
        return found

    @cached_property
    def confidence(self) -> Array:
        """The given label's probability."""
        return np.array([(answer.scores or {}).get(answer.label or "", np.nan) for answer in self._answers])

    @cached_property
    def loss(self) -> Array:
        """Minus the logarithm of the right label's probability; without scores 1 where the answer is wrong."""
        if not self.has_scores:
            return (~self.is_right).astype(np.float64)
        right = [
            (answer.scores or {}).get(truth, 0.0) for truth, answer in zip(self.truths, self._answers, strict=True)
        ]
        loss: Array = -np.log(np.maximum(right, 1e-12))
        return loss

    def point(self) -> Mapping[str, float]:
        found = {"accuracy": float(metrics.accuracy_score(self.true, self.predicted))}
        for average in ("macro", "weighted", "micro"):
            precision, recall, f1, _ = metrics.precision_recall_fscore_support(
                self.true, self.predicted, average=average, zero_division=0
            )
            found |= {f"precision_{average}": precision, f"recall_{average}": recall, f"f1_{average}": f1}
        if self.ranked:
            areas = [*self.ranked.values()]
            found["auc_macro"] = np.mean([metrics.roc_auc_score(*one) for one in areas])
            found["average_precision_macro"] = np.mean([metrics.average_precision_score(*one) for one in areas])
        if self.has_scores:
            found["ece"] = np.abs(np.bincount(self._bins, self.confidence - self.is_right)).sum() / self.count
        return {name: float(value) for name, value in found.items()}

    def resampled(self, weights: Floats, *, costly: bool) -> Mapping[str, Floats]:
        count, sums = len(self.labels), weights @ self._columns
        right, given, hits = (sums[:, begin : begin + count] for begin in (0, count, 2 * count))
        precision, recall, f1 = (_share(hits, given), _share(hits, right), _share(2 * hits, right + given))
        is_there = right + given > 0
        total = weights.sum(1)
        found = {"accuracy": hits.sum(1) / total}
        for name, values in (("precision", precision), ("recall", recall), ("f1", f1)):
            found[f"{name}_macro"] = (values * is_there).sum(1) / is_there.sum(1)
            found[f"{name}_weighted"] = (values * right).sum(1) / total
            found[f"{name}_micro"] = found["accuracy"]
        if costly and self.ranked and self.count * len(self.ranked) <= MOST_RANKED:
            areas = np.array([ranking.areas(weights) for ranking in self._rankings])
            known = np.isfinite(areas)
            means = np.where(known, areas, 0.0).sum(0) / np.maximum(known.sum(0), 1)
            found |= {"auc_macro": means[0], "average_precision_macro": means[1]}
        if self.has_scores:
            found["ece"] = np.abs(sums[:, 3 * count :]).sum(1) / total
        return found

    def per_label(self) -> Iterator[tuple[str, float, float, float, int]]:
        """Label, precision, recall, F1, how often it is right."""
        shares = metrics.precision_recall_fscore_support(
            self.true, self.predicted, labels=np.arange(len(self.labels)), average=None, zero_division=0
        )
        for label, precision, recall, f1, support in zip(self.labels, *shares, strict=True):
            yield label, float(precision), float(recall), float(f1), int(support)

    def confusion(self) -> list[list[int]]:
        """[right, given]"""
        if len(self.labels) == 1:
            return [[self.count]]
        matrix = metrics.confusion_matrix(self.true, self.predicted, labels=np.arange(len(self.labels)))
        return [[int(cell) for cell in row] for row in matrix]

    def bins(self) -> list[tuple[float, float, int]]:
        """Of each bin that is not empty: mean confidence, share of right answers, examples."""
        counts = np.bincount(self._bins, minlength=BINS)
        sums = np.bincount(self._bins, self.confidence, minlength=BINS)
        rights = np.bincount(self._bins, self.is_right, minlength=BINS)
        return [
            (float(sums[place] / count), float(rights[place] / count), int(count))
            for place, count in enumerate(counts)
            if count
        ]

    @property
    def _bins(self) -> Array:
        """Each example's, by the probability of its answer."""
        return np.minimum((self.confidence * BINS).astype(np.intp), BINS - 1)

    @cached_property
    def _columns(self) -> Any:
        """What is summed over the examples of a resample, [count, columns]: of each label where it is right, where it
        was given, and where both; of each bin, with scores, how much surer its answers are than right."""
        groups, ones = len(self.labels), np.ones(self.count)
        parts = [_spread(self.true, ones, groups), _spread(self.predicted, ones, groups)]
        parts.append(_spread(self.true, self.is_right.astype(np.float64), groups))
        if self.has_scores:
            parts.append(_spread(self._bins, self.confidence - self.is_right, BINS))
        columns = sparse.hstack(parts, format="csr")
        return columns.toarray() if columns.shape[1] <= DENSE_COLUMNS else columns

    @cached_property
    def _rankings(self) -> list[Ranking]:
        return [Ranking(is_right, scores) for is_right, scores in self.ranked.values()]


def ordered(labels: set[str]) -> list[str]:
    """Whole numbers by their size, before other labels by their letters."""
    return sorted(labels, key=lambda label: (not label.isdecimal(), int(label) if label.isdecimal() else 0, label))


def _spread(places: Array, values: Array, groups: int) -> Any:
    """Each value in the column of its place, [values, groups], sparse."""
    return sparse.csr_array((values, (np.arange(len(places)), places)), shape=(len(places), groups))


def _share(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
