"""Areas under ROC and precision-recall curves, for many weightings of the same scores at once."""

import numpy as np

from millrace.evaluating.scores.scorer import Array, Floats


class Ranking:
    """Scores of one label, sorted once. Equal scores share a threshold."""

    def __init__(self, is_positive: Array, scores: Array) -> None:
        self._order = np.argsort(-scores, kind="stable")
        ordered = scores[self._order]
        self._begins = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        self._positive = is_positive[self._order].astype(np.float64)

    def areas(self, weights: Floats) -> tuple[Floats, Floats]:
        """Under the ROC curve, and average precision, [resamples] each, from weights [resamples, scores]. NaN where a
        resample has only one kind.

        The ROC's area is the chance that a positive outranks a negative, ties counting half (Hanley and McNeil, "The
        Meaning and Use of the Area under a ROC Curve", 1982); average precision is the sum over thresholds of the
        precision there times the recall gained.
        """
        ordered = weights[:, self._order]
        hits = np.add.reduceat(ordered * self._positive, self._begins, axis=1)
        drawn = np.add.reduceat(ordered, self._begins, axis=1)
        false_alarms = drawn - hits
        positives, negatives = hits.sum(1), false_alarms.sum(1)
        below = negatives[:, None] - np.cumsum(false_alarms, axis=1) + false_alarms / 2
        precision = np.divide(hits.cumsum(1), drawn.cumsum(1), out=np.zeros_like(hits), where=drawn.cumsum(1) > 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            defined = np.where((positives > 0) & (negatives > 0), 1.0, np.nan)
            auc = (hits * below).sum(1) / (positives * negatives) * defined
            average_precision = (hits * precision).sum(1) / positives * defined
        return auc, average_precision
