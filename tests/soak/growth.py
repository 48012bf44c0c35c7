"""Whether something has grown, from samples that were taken whenever all was quiet.

What can be counted (keys, connections, files, tasks) must be back to what it was at the first sample, and not one more.
Memory is never exactly what it was: an allocator keeps what it may need again. Its trend is the median of the slopes
between all pairs of samples (Theil, 1950; Sen, 1968), which up to 29 % of wild samples do not move; what that trend
adds up to over the run must stay below a bound.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """How much memory may grow over a run, in bytes."""

    per_thousand: float
    """For each thousand calls."""
    noise: float
    """Whatever the number of calls: what the trend of a process that leaks nothing may show."""

    def over(self, calls: float) -> float:
        return self.per_thousand * calls / 1000 + self.noise


def trend(calls: Sequence[float], values: Sequence[float]) -> float:
    """The growth for each call; 0 where there is no pair to compare."""
    points = zip(calls, values, strict=True)
    slopes = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in combinations(points, 2) if x2 != x1]
    return median(slopes) if slopes else 0.0


def growth(calls: Sequence[float], values: Sequence[float]) -> float:
    """What the trend adds up to from the first sample to the last."""
    return trend(calls, values) * (calls[-1] - calls[0])


def grows(calls: Sequence[float], values: Sequence[float], bound: Bound) -> bool:
    return growth(calls, values) > bound.over(calls[-1] - calls[0])


def rises(values: Sequence[float]) -> bool:
    """Whether any sample is above the first one."""
    return any(value > values[0] for value in values)
