"""Resamples of a run, and what its figures might as well have been.

Seconds of a run resemble their neighbours: a queue that is long stays long for a while. So runs are resampled in blocks
of consecutive intervals, which keeps what ties them together (the moving-block bootstrap: Künsch, "The Jackknife and
the Bootstrap for General Stationary Observations", 1989), and stage by stage, since a run of several loads is not
stationary. Every figure is reckoned anew from each resample; the middle 95 % of the ratios is the interval (the
percentile method: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from millrace.load.buckets import Array, stack
from millrace.load.result import Interval, Metric, Result

CONFIDENCE = 0.95
BLOCK_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Resampled:
    """A run, and resamples of it. Every array of its figures is [1 + resamples], the run's own figure first."""

    intervals: Sequence[Interval]
    """All since the warm-up, those that drained after it too."""
    measured: Array
    """[intervals]: 1 while requests came, 0 while it drained."""
    weights: Array
    """[1 + resamples, intervals]: how often each is taken."""

    @classmethod
    def of(cls, result: Result, generator: np.random.Generator, resamples: int) -> "Resampled":
        intervals = [one for one in result.intervals if _middle_s(one) >= 0 and one.seconds > 0]
        measured = np.array([_middle_s(one) < result.scenario.seconds for one in intervals], np.float64)
        bounds = [stage.begin_s for stage in result.stages][1:]
        stages = np.searchsorted(bounds, [_middle_s(one) for one in intervals], side="right")
        weights = np.ones((1 + resamples, len(intervals)), np.float32)
        for stage in np.unique(stages):
            places = np.flatnonzero(stages == stage)
            seconds = float(np.median([intervals[place].seconds for place in places]))
            weights[1:, places] = _blocks(len(places), max(1, round(BLOCK_S / seconds)), resamples, generator)
        return cls(intervals=intervals, measured=measured, weights=weights)

    @property
    def seconds(self) -> float:
        return float(self.measured @ np.array([one.seconds for one in self.intervals]))

    def per_second(self, count: Callable[[Interval], int]) -> Array:
        return self.share(count, lambda one: one.seconds, self.measured)

    def share(
        self, part: Callable[[Interval], float], whole: Callable[[Interval], float], of: Array | float = 1.0
    ) -> Array:
        """The sum of the one divided by that of the other; 0 where that is 0."""
        parts, wholes = (
            self.weights @ (np.array([one(each) for each in self.intervals]) * of) for one in (part, whole)
        )
        return np.divide(parts, wholes, out=np.zeros(len(parts)), where=wholes > 0)

    def quantiles(self, metric: Metric, shares: Sequence[float]) -> Array:
        """Milliseconds [shares, 1 + resamples], NaN where nothing was recorded."""
        return stack([one.histograms.get(metric) for one in self.intervals]).merged(self.weights).quantiles(shares)


def _blocks(count: int, length: int, resamples: int, generator: np.random.Generator) -> Array:
    """Resamples of `count` consecutive intervals, as weights [resamples, count]: blocks that begin anywhere, laid end
    to end, the last cut to fit."""
    length = min(length, count)
    begins = generator.integers(0, count - length + 1, (resamples, -(-count // length)))
    taken = (begins[:, :, None] + np.arange(length)).reshape(resamples, -1)[:, :count]
    cells = taken + count * np.arange(resamples)[:, None]
    return np.bincount(cells.ravel(), minlength=resamples * count).reshape(resamples, count).astype(np.float32)


def interval(figures: Array) -> tuple[float | None, float | None]:
    """The middle of the resamples, without those that have no figure."""
    known = figures[1:][np.isfinite(figures[1:])]
    if not known.size:
        return None, None
    low, high = np.quantile(known, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _middle_s(interval: Interval) -> float:
    return interval.at_s + interval.seconds / 2
