"""What a sweep says of one worker."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from millrace.load.buckets import stack
from millrace.load.result import Metric
from millrace.load.sweeping.points import Sweep, quantiles_ms

Floats = NDArray[np.float64]
GRID = 2000
"""Equally likely values in place of a distribution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """Serves up to `slots` requests at once."""

    speeds: tuple[float, ...]
    """Requests a second, by how many are served at once, from 1 on; not falling."""
    services_s: Floats
    """What requests take that are alone: equally likely values of it."""

    @property
    def slots(self) -> int:
        return len(self.speeds)

    @property
    def capacity(self) -> float:
        """Requests a second, at most."""
        return self.speeds[-1]

    @property
    def unloaded_s(self) -> float:
        """What a request takes that is alone, mean."""
        return float(np.mean(self.services_s))

    @property
    def scv(self) -> float:
        """The squared coefficient of variation of that."""
        return float(np.var(self.services_s)) / self.unloaded_s**2


def worker_of(sweep: Sweep) -> Worker:
    """Between the measured numbers of callers throughput is interpolated; it ends at the lower of the closed loop's
    saturation and the open loops' knee."""
    services_s = unloaded_s(sweep, "e2e")
    alone = 1 / float(np.mean(services_s))
    capacity = min(sweep.saturation, sweep.knee or sweep.saturation) / sweep.workers
    slots = max(round(sweep.slots / sweep.workers), 1)
    curve = {1.0: alone} | {
        (point.stage.callers or 1) / sweep.workers: point.throughput / sweep.workers
        for point in sweep.closed
        if sweep.workers < (point.stage.callers or 1) < sweep.slots
    }
    places = [*curve, slots] if slots > 1 else [1.0]
    measured = [*curve.values(), capacity] if slots > 1 else [capacity]
    speeds = np.interp(np.arange(1, slots + 1), places, measured)
    rising = np.minimum(np.maximum.accumulate(speeds), capacity)
    return Worker(speeds=tuple(rising.tolist()), services_s=services_s)


def unloaded_s(sweep: Sweep, metric: Metric) -> Floats:
    """What `ttft` or `e2e` took the single caller: `GRID` equally likely values, rising. A service that does not stream
    ends with its first message."""
    held = sweep.closed[0].stage.histograms
    recorded = stack([held.get(metric) or held["e2e"]])
    shares = np.cumsum(recorded.counts[0], dtype=np.float64)
    values: Floats = recorded.values_ms[np.searchsorted(shares / shares[-1], middles(GRID))] / 1000
    return values


def middles(count: int) -> Floats:
    """Of as many equal parts of 0 to 1."""
    return (np.arange(count, dtype=np.float64) + 0.5) / count


def fastest(sweep: Sweep, quantile: float, tpot_ms: float | None) -> float:
    """The rate for each worker up to which TPOT keeps its limit: it follows from how many share a worker, not from the
    queue, and so is read off the open loops. Infinite where none missed it, 0 where all did."""
    kept = 0.0
    for point in sweep.points:
        found = quantiles_ms(point.stage, quantile).get("tpot")
        if tpot_ms is not None and found is not None and found > tpot_ms:
            return kept / sweep.workers
        kept = point.stage.offered_rate
    return float("inf")
