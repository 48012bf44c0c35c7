"""Workers of known speed, whose service times are of known distributions."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from millrace.planning.measured import GRID, Floats, Worker, middles

SHARES = middles(GRID)


def lognormal(mean_s: float, scv: float) -> Floats:
    variance = math.log1p(scv)
    normal = np.array([NormalDist().inv_cdf(share) for share in SHARES.tolist()])
    times: Floats = mean_s * np.exp(math.sqrt(variance) * normal - variance / 2)
    return times


def exponential(mean_s: float) -> Floats:
    return np.asarray(-mean_s * np.log1p(-SHARES), np.float64)


def worker(slots: int = 1, times_s: Floats | None = None, slowing: float = 0.0) -> Worker:
    """Each further request slows all by `slowing` of what one takes alone, 1 s unless `times_s` says otherwise."""
    times_s = exponential(1.0) if times_s is None else times_s
    mean_s = float(np.mean(times_s))
    return Worker(speeds=speeds(slots, mean_s, slowing), services_s=times_s)


def speeds(slots: int, mean_s: float, slowing: float) -> tuple[float, ...]:
    counts: Sequence[int] = range(1, slots + 1)
    return tuple(count / (1 + slowing * (count - 1)) / mean_s for count in counts)
