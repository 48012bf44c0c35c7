"""A run's intervals as series over time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from millrace.load.buckets import Array, stack
from millrace.load.result import Interval, Metric, Result

MOST_POINTS = 80
LEAST_POINTS = 12
"""Of latencies over time, however few requests that leaves to each."""
WANTED = 100
"""Requests that a p99 should be taken over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Intervals in groups of neighbours; every array has a figure for each group."""

    intervals: Sequence[Interval]
    groups: Array
    """[groups, intervals], 1 where the interval is in the group."""

    @property
    def at_s(self) -> Array:
        """Their middles."""
        return (self.begin_s + self.end_s) / 2

    @property
    def begin_s(self) -> Array:
        return np.array([self.intervals[int(row.argmax())].at_s for row in self.groups])

    @property
    def end_s(self) -> Array:
        lasts = [self.intervals[int(np.flatnonzero(row)[-1])] for row in self.groups]
        return np.array([one.at_s + one.seconds for one in lasts])

    @property
    def seconds(self) -> Array:
        return self.sum(lambda one: one.seconds)

    def sum(self, of: Callable[[Interval], float]) -> Array:
        return self.groups @ np.array([of(one) for one in self.intervals], np.float64)

    def rate(self, of: Callable[[Interval], float]) -> Array:
        """A second."""
        return self.sum(of) / np.maximum(self.seconds, 1e-9)

    def last(self, of: Callable[[Interval], float]) -> Array:
        return np.array([of(self.intervals[int(np.flatnonzero(row)[-1])]) for row in self.groups], np.float64)

    def quantiles(self, metric: Metric, shares: Sequence[float]) -> Array:
        """Milliseconds [shares, groups], NaN where nothing was recorded."""
        return stack([one.histograms.get(metric) for one in self.intervals]).merged(self.groups).quantiles(shares)


def series(result: Result, *, points: int = MOST_POINTS) -> Series:
    """All of a run's intervals in at most so many groups."""
    intervals = [one for one in result.intervals if one.seconds > 0]
    size = max(1, -(-len(intervals) // points))
    groups = np.arange(len(intervals)) // size
    if len(intervals) > 1 and _is_stub(intervals, size):
        groups[groups == groups[-1]] -= 1
    return Series(intervals=intervals, groups=(groups == np.unique(groups)[:, None]).astype(np.float64))


def latency_series(result: Result) -> Series:
    """Of what was measured, in groups that hold the requests that a p99 needs, if that leaves groups enough."""
    measured = result.model_copy(update={"intervals": [one for one in result.intervals if one.histograms]})
    enough = result.total.ok // WANTED
    return series(measured, points=min(max(enough, LEAST_POINTS), MOST_POINTS))


def _is_stub(intervals: Sequence[Interval], size: int) -> bool:
    """Whether the last group is shorter than half of the others."""
    last = intervals[(len(intervals) - 1) // size * size :]
    usual = size * float(np.median([one.seconds for one in intervals]))
    return len(intervals) > len(last) and sum(one.seconds for one in last) < usual / 2
