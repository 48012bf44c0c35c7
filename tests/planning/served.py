"""A service of known capacity: the runs of a load test, simulated request by request."""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from millrace.load.result import Interval, Metric, Result, Stage, encode, histogram
from millrace.load.scenario import Scenario
from millrace.load.sweeping.sweep import Fleet, Watch

FIRST_TOKEN = 0.1
"""Of a request's service time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Slots that take from one queue, each for as long as a request needs: lognormal, by mean and variance."""

    workers: int = 2
    slots: int = 4
    """Of a worker."""
    mean_s: float = 0.2
    scv: float = 0.25
    tokens: int = 21
    asked: list[Scenario] = field(default_factory=list)
    """What has been run."""

    @property
    def capacity(self) -> float:
        return self.workers * self.slots / self.mean_s

    async def look(self, _: Scenario) -> Fleet:
        return Fleet(workers=self.workers, jobs=0)

    async def run(self, scenario: Scenario, _: Watch) -> Result:
        self.asked.append(scenario)
        served = list(self._closed(scenario) if scenario.arrivals.callers else self._open(scenario))
        return Result(
            schema="millrace.load/1",
            scenario=scenario,
            started_at="2026-01-02T03:04:05Z",
            task="generate",
            versions={"millrace": "0.1.0"},
            hardware={"cores": 2},
            intervals=[],
            stages=[],
            total=self._stage(scenario, served),
        )

    def _open(self, scenario: Scenario) -> Iterator[tuple[float, float, float]]:
        """When each was due, was begun and ended."""
        rng = np.random.default_rng(scenario.seed)
        free = [-scenario.warmup_s] * (self.workers * self.slots)
        due = -scenario.warmup_s
        while (due := due + float(rng.exponential(1 / (scenario.arrivals.poisson or 1)))) < scenario.seconds:
            begin = max(due, free[0])
            heapq.heapreplace(free, end := begin + self._service_s(rng))
            yield due, begin, end

    def _closed(self, scenario: Scenario) -> Iterator[tuple[float, float, float]]:
        rng = np.random.default_rng(scenario.seed)
        free = [-scenario.warmup_s] * (self.workers * self.slots)
        callers = [-scenario.warmup_s] * (scenario.arrivals.callers or 1)
        while (due := callers[0]) < scenario.seconds:
            begin = max(due, free[0])
            heapq.heapreplace(free, end := begin + self._service_s(rng))
            heapq.heapreplace(callers, end)
            yield due, begin, end

    def _service_s(self, rng: np.random.Generator) -> float:
        spread = np.log1p(self.scv)
        return self.mean_s * float(rng.lognormal(-spread / 2, np.sqrt(spread)))

    def _stage(self, scenario: Scenario, served: Sequence[tuple[float, float, float]]) -> Stage:
        mine = [one for one in served if one[0] >= 0]
        held = {metric: histogram() for metric in _latencies(0, 0, 0, 2)}
        for one in mine:
            for metric, latency_s in _latencies(*one, self.tokens).items():
                held[metric].record_value(max(round(1e6 * latency_s), 1))
        return Stage(
            begin_s=0,
            end_s=scenario.seconds,
            rate=scenario.arrivals.poisson,
            due=len(mine),
            ended={"OK": len(mine)},
            tokens=self.tokens * len(mine),
            answered=sum(0 <= end < scenario.seconds for _, _, end in served),
            histograms={metric: encode(one) for metric, one in held.items()},
        )


def _latencies(due: float, begin: float, end: float, tokens: int) -> dict[Metric, float]:
    first = begin + FIRST_TOKEN * (end - begin)
    return {"e2e": end - due, "ttft": first - due, "tpot": (end - first) / (tokens - 1)}


def ignore(_: Interval) -> None:
    """Watches nothing."""
