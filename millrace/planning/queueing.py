"""The queueing model: M/G/c whose servers' speed depends on how many are busy.

Whether a request waits follows from the birth-death chain of the number in the system, which for servers that do not
slow each other down is Erlang's C formula (Erlang 1917). How long it waits is corrected for service times that are not
exponential by (1 + scv) / 2 (Allen and Cunneen: Allen, "Probability, Statistics, and Queueing Theory", 1978; Lee and
Longton 1959 for M/G/c), and its distribution is taken to be exponential beyond 0, which it is for M/M/c and, in heavy
traffic, for M/G/c (Köllerström 1974; Abate, Choudhury and Whitt 1995 on how good it is elsewhere).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from millrace.planning.measured import Floats, Worker, middles

HALVINGS = 30
STRETCHES = 32
"""Equally likely values of how far a request is stretched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A fleet in steady state."""

    utilisation: float
    delay_probability: float
    delay_s: float
    """What is waited by those who wait, mean."""
    stretches: Floats
    """What a request takes, once it is taken, by what it takes alone: equally likely values, rising."""

    def wait_s(self, quantile: float) -> float:
        """In the queue."""
        return self.delay_s * math.log(max(self.delay_probability / (1 - quantile), 1.0))

    def latency_s(self, quantile: float, alone_s: Floats) -> float:
        """Wait, and what takes `alone_s` where nobody waits or shares: equally likely values."""
        low, high = 0.0, float(self.stretches[-1] * np.max(alone_s)) + self.wait_s(quantile)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self.later(middle, alone_s) > 1 - quantile else (low, middle)
        return high

    def later(self, latency_s: float, alone_s: Floats) -> float:
        """The share of requests that take longer. Wait and service are independent where the first that came is the
        first that is served."""
        left = latency_s - np.outer(self.stretches, alone_s)
        waits = self.delay_probability * np.exp(-np.maximum(left, 0) / self.delay_s)
        return float(np.mean(np.where(left < 0, 1.0, waits)))


def predict(worker: Worker, workers: int, rate: float) -> Prediction:
    """`rate`: requests a second. Raises ValueError where the fleet cannot bear it."""
    capacity = workers * worker.capacity
    if rate >= capacity:
        raise ValueError(f"{workers} workers bear {capacity:.4g} requests a second, not {rate:.4g}")
    busy = _steady(worker, workers, rate)
    return Prediction(
        utilisation=rate / capacity,
        delay_probability=float(busy[-1]),
        delay_s=(1 + worker.scv) / 2 / (capacity - rate),
        stretches=_stretches(worker, workers, busy),
    )


def _steady(worker: Worker, workers: int, rate: float) -> Floats:
    """The probabilities that 0, 1, … or all slots are busy. Jobs are taken to be spread evenly."""
    busy = np.arange(1, workers * worker.slots + 1)
    leaving = np.minimum(busy, workers) * _speeds(worker, workers, busy)
    logs = np.concatenate([[0.0], np.cumsum(np.log(rate / leaving))])
    weights: Floats = np.exp(logs - logs.max())
    weights[-1] /= 1 - rate / (workers * worker.capacity)
    weights /= weights.sum()
    return weights


def _speeds(worker: Worker, workers: int, busy: NDArray[np.int_]) -> Floats:
    """Of each worker that has a job."""
    return np.interp(np.maximum(busy / workers, 1), np.arange(1, worker.slots + 1), worker.speeds)


def _stretches(worker: Worker, workers: int, probabilities: Floats) -> Floats:
    """As the jobs see it, which are many where many slots are busy. What a job meets at its begin it has forgotten by
    its end: of a process that forgets exponentially, the mean over that time has 2 / e of the variance."""
    busy = np.arange(1, len(probabilities))
    pace = _speeds(worker, workers, busy) / np.maximum(busy / workers, 1)
    seen = np.cumsum(busy * probabilities[1:])
    found: Floats = (worker.speeds[0] / pace)[np.searchsorted(seen / seen[-1], middles(STRETCHES))]
    if np.isclose(found[0], found[-1]):
        return found[:1]
    found = 1 / np.mean(1 / found) + math.sqrt(2 / math.e) * (found - found.mean())
    return found
