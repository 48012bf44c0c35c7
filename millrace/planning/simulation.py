"""A simulation of the scheduler, by which the model is checked.

Jobs arrive at exponential distances and wait in one queue; workers with room wait for them in turn, as they do at the
queue's bell, and take the next as soon as they have room. Jobs on one worker share its speed, which depends on how many
they are. Between two events of a worker all its jobs advance alike, so that it is enough to know how far: a job ends
when the worker has given to each as much as the job is (processor sharing by virtual time, Parekh and Gallager 1993).
"""

import heapq
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from millrace.planning.measured import Floats, Worker

JOBS = 200_000
WARMUP = 0.25
"""The share of the jobs that come before the steady state, and are left out."""
BATCHES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Jobs in the order in which they arrived."""

    waits_s: Floats
    stretches: Floats
    """What each took once it was taken, by what it would have taken alone."""
    services_s: Floats

    def latencies_s(self, alone_s: Floats | None = None) -> Floats:
        """Wait and service. With `alone_s`, equally likely values of what a part of the service takes alone: wait and
        that part."""
        if alone_s is None:
            return self.waits_s + self.services_s
        parts: Floats = np.random.default_rng(0).choice(alone_s, len(self.waits_s))
        return self.waits_s + self.stretches * parts


def quantile(values: Floats, share: float) -> tuple[float, float]:
    """And its standard error, by the method of batch means: neighbouring jobs' waits are alike."""
    parts = [np.quantile(part, share) for part in np.array_split(values, BATCHES)]
    return float(np.quantile(values, share)), float(np.std(parts, ddof=1) / math.sqrt(BATCHES))


def simulate(worker: Worker, workers: int, rate: float, *, jobs: int = JOBS, seed: int = 0) -> Observed:
    """Takes about 5 µs a job."""
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1 / rate, jobs))
    alone_s = rng.choice(worker.services_s, jobs)
    work = alone_s * worker.speeds[0]
    began, ended = _Fleet(worker, workers, work.tolist()).serve(arrivals.tolist())
    kept = slice(int(WARMUP * jobs), None)
    services = np.array(ended) - np.array(began)
    return Observed(
        waits_s=(np.array(began) - arrivals)[kept],
        stretches=(services / alone_s)[kept],
        services_s=services[kept],
    )


class _Sharing:
    """One worker. Its jobs' end is said in what each job has been given until then."""

    __slots__ = ("at_s", "given", "jobs", "paces", "turn")

    def __init__(self, paces: Sequence[float]) -> None:
        self.paces = paces
        """What each job is given in a second, by the number of jobs."""
        self.jobs: list[tuple[float, int]] = []
        self.given = self.at_s = 0.0
        self.turn = 0
        """Counts changes: an end that was foreseen before the last one is void."""

    def advance(self, now_s: float) -> None:
        self.given += (now_s - self.at_s) * self.paces[len(self.jobs)]
        self.at_s = now_s

    def next_end_s(self) -> float:
        return self.at_s + (self.jobs[0][0] - self.given) / self.paces[len(self.jobs)]


class _Fleet:
    def __init__(self, worker: Worker, workers: int, work: Sequence[float]) -> None:
        paces = [0.0, *(speed / (place + 1) for place, speed in enumerate(worker.speeds))]
        self._slots, self._work = worker.slots, work
        self._workers = [_Sharing(paces) for _ in range(workers)]
        self._with_room = deque(self._workers)
        self._ends: list[tuple[float, int, int, _Sharing]] = []
        self._waiting: deque[int] = deque()
        self._began, self._ended = [0.0] * len(work), [0.0] * len(work)
        self._seen = 0

    def serve(self, arrivals: Sequence[float]) -> tuple[list[float], list[float]]:
        """When each job was taken and when it ended."""
        for job, now_s in enumerate(arrivals):
            self._end_until(now_s)
            if self._with_room:
                self._take(self._with_room.popleft(), job, now_s)
            else:
                self._waiting.append(job)
        self._end_until(math.inf)
        return self._began, self._ended

    def _end_until(self, until_s: float) -> None:
        ends = self._ends
        while ends and ends[0][0] <= until_s:
            now_s, turn, _, worker = heapq.heappop(ends)
            if turn == worker.turn:
                self._end(worker, now_s)

    def _take(self, worker: _Sharing, job: int, now_s: float) -> None:
        worker.advance(now_s)
        heapq.heappush(worker.jobs, (worker.given + self._work[job], job))
        self._began[job] = now_s
        if len(worker.jobs) < self._slots:
            self._with_room.append(worker)
        self._foresee(worker)

    def _end(self, worker: _Sharing, now_s: float) -> None:
        was_full = len(worker.jobs) == self._slots
        worker.advance(now_s)
        self._ended[heapq.heappop(worker.jobs)[1]] = now_s
        if self._waiting:
            self._take(worker, self._waiting.popleft(), now_s)
            return
        if was_full:
            self._with_room.append(worker)
        if worker.jobs:
            self._foresee(worker)

    def _foresee(self, worker: _Sharing) -> None:
        worker.turn += 1
        self._seen += 1
        heapq.heappush(self._ends, (worker.next_end_s(), worker.turn, self._seen, worker))
