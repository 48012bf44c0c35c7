"""How many workers a rate needs by the model, and what the simulation says of as many."""

import math
from collections.abc import Callable, Mapping

import numpy as np
from pydantic import Field

from millrace.load.result import Metric
from millrace.load.scenario import Slo, Strict
from millrace.load.sweeping.points import Sweep, limits
from millrace.planning.measured import fastest, unloaded_s, worker_of
from millrace.planning.queueing import Prediction, predict
from millrace.planning.simulation import JOBS, quantile, simulate

SEED = 0
BITS = 20
"""Of a rate that is searched for."""
IDLE = Prediction(utilisation=0.0, delay_probability=0.0, delay_s=1.0, stretches=np.ones(1))


class Row(Strict):
    """What the model says of a rate."""

    rate: float
    workers: int | None = Field(description="without the spare ones; None: more than may be planned")
    utilisation: float | None = None
    wait_ms: float | None = Field(default=None, description="in the queue, at the SLO's quantile")
    latencies_ms: Mapping[Metric, float] = Field(default={}, description="at it, of the metrics that have a limit")


class Check(Strict):
    """A latency at the SLO's quantile, by the model and by the simulation."""

    workers: int
    metric: Metric
    model_ms: float | None = Field(description="None: by the model, the fleet cannot bear the rate")
    simulation_ms: float | None = Field(description="None: the queue grows without end")
    uncertainty_ms: float | None = Field(description="standard error of the simulation's")
    meets: bool = Field(description="by the simulation")

    @property
    def error(self) -> float | None:
        """Of the model, by the simulation's."""
        if self.model_ms is None or self.simulation_ms is None:
            return None
        return self.model_ms / self.simulation_ms - 1


class Need:
    """What a rate needs, by the model."""

    def __init__(self, sweep: Sweep, slo: Slo, most_utilisation: float, jobs: int = JOBS) -> None:
        """`jobs`: that a simulation takes. Raises ValueError where no fleet is large enough."""
        self.slo, self.worker, self._jobs = slo, worker_of(sweep), jobs
        self.alone_s = {metric: unloaded_s(sweep, metric) for metric in judged(slo)}
        self._limits_s = {metric: limit / 1000 for metric in self.alone_s if (limit := limits(slo)[metric]) is not None}
        self._usable = most_utilisation * self.worker.capacity
        by_tpot = fastest(sweep, slo.quantile, slo.tpot_ms)
        if not by_tpot:
            raise ValueError(f"TPOT is above {slo.tpot_ms:g} ms at the lowest rate measured: more workers do not help")
        self._fastest = min(self._usable, by_tpot)
        for metric, limit_s in self._limits_s.items():
            if (best_s := IDLE.latency_s(slo.quantile, self.alone_s[metric])) > limit_s:
                raise ValueError(
                    f"{metric} is {1000 * best_s:.4g} ms at p{100 * slo.quantile:g} where nothing waits, above the "
                    f"limit of {1000 * limit_s:.4g} ms: more workers do not help"
                )

    def meets(self, workers: int, rate: float) -> bool:
        if rate > workers * self._fastest or rate >= workers * self.worker.capacity:
            return False
        predicted, allowed = predict(self.worker, workers, rate), 1 - self.slo.quantile
        return all(
            predicted.later(limit_s, self.alone_s[metric]) <= allowed for metric, limit_s in self._limits_s.items()
        )

    def lacks(self, workers: int, rate: float) -> str:
        """Why so many are too few: `tpot` or `utilisation`, that of each worker, or the latency furthest over its
        limit."""
        if rate > workers * self._fastest or rate >= workers * self.worker.capacity:
            return "tpot" if self._fastest < self._usable else "utilisation"
        predicted = self.latencies_s(workers, rate)
        return max(self._limits_s, key=lambda metric: predicted[metric] / self._limits_s[metric])

    def latencies_s(self, workers: int, rate: float) -> dict[Metric, float]:
        predicted = predict(self.worker, workers, rate)
        return {metric: predicted.latency_s(self.slo.quantile, alone_s) for metric, alone_s in self.alone_s.items()}

    def workers(self, rate: float, most: int) -> int | None:
        """The fewest that meet the SLO; None where it takes more than `most`."""
        low, high = math.ceil(rate / self._fastest), most
        if low > high or not self.meets(high, rate):
            return None
        return _first(lambda workers: self.meets(workers, rate), low, high)

    def rate(self, workers: int) -> float:
        """The highest that so many bear within the SLO."""
        low, high = 0.0, workers * min(self._fastest, self.worker.capacity)
        if self.meets(workers, high):
            return high
        for _ in range(BITS):
            middle = (low + high) / 2
            low, high = (middle, high) if self.meets(workers, middle) else (low, middle)
        return low

    def row(self, rate: float, workers: int | None) -> Row:
        if workers is None:
            return Row(rate=rate, workers=None)
        predicted = predict(self.worker, workers, rate)
        return Row(
            rate=rate,
            workers=workers,
            utilisation=predicted.utilisation,
            wait_ms=1000 * predicted.wait_s(self.slo.quantile),
            latencies_ms={metric: 1000 * value for metric, value in self.latencies_s(workers, rate).items()},
        )

    def check(self, workers: int, rate: float) -> list[Check]:
        """The model beside the simulation."""
        if rate >= workers * self.worker.capacity:
            return [self._unbearable(workers, metric) for metric in self.alone_s]
        model = self.latencies_s(workers, rate)
        observed = simulate(self.worker, workers, rate, jobs=self._jobs, seed=SEED)
        checks = []
        for metric, alone_s in self.alone_s.items():
            latencies_s = observed.latencies_s(None if metric == "e2e" else alone_s)
            value, uncertainty = quantile(latencies_s, self.slo.quantile)
            checks.append(
                Check(
                    workers=workers,
                    metric=metric,
                    model_ms=1000 * model[metric],
                    simulation_ms=1000 * value,
                    uncertainty_ms=1000 * uncertainty,
                    meets=value <= self._limits_s.get(metric, math.inf),
                )
            )
        return checks

    def _unbearable(self, workers: int, metric: Metric) -> Check:
        return Check(
            workers=workers, metric=metric, model_ms=None, simulation_ms=None, uncertainty_ms=None, meets=False
        )


def judged(slo: Slo) -> list[Metric]:
    """What the queue lengthens and the SLO limits; e2e where it limits neither."""
    queued: tuple[Metric, ...] = ("ttft", "e2e")
    return [metric for metric in queued if limits(slo)[metric] is not None] or ["e2e"]


def _first(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The first number from `low` that holds; `high` does, and whatever follows one that holds."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
