"""What waits, runs and was done in the whole fleet, by model, beside each frontend's own series at /metrics.

These series are the fleet's, and the same on each frontend: over frontends take max or avg of them, never sum. What was
done is as old as the processes' last news of it, a second at most; its sums fall by what is a day old.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from millrace.errors import MillraceError
from millrace.exposition import Alias, Relabel
from millrace.queue import JobQueue, ModelTotals, ModelVersion, Statistics
from services.frontend.fleet import estimated_wait_s
from services.frontend.models import Models
from services.frontend.readiness import Readiness

FRESH_S = 0.9
"""Whoever scrapes each second gets a new reading each time; more scrapes share it."""
ANSWER_S = 0.8
"""How long a scrape waits for Redis; without an answer it has the process's own series alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelNow:
    """What a model version holds, and what was done of it."""

    ready_workers: int
    load: Mapping[str, float]
    """As `JobQueue.load` tells it."""
    totals: ModelTotals

    @property
    def estimated_wait_s(self) -> float | None:
        return estimated_wait_s(self.load)

    @property
    def run_rows(self) -> int:
        return sum(size * runs.count for size, runs in self.totals.batches.items())


Value = Callable[[ModelNow], float | None]
"""None: the model has no such series."""
GAUGES: tuple[tuple[str, str, Value], ...] = (
    ("millrace_queue_waiting_jobs", "jobs that wait, in the fleet", lambda now: now.load["jobs"]),
    ("millrace_queue_running_jobs", "jobs that workers hold, in the fleet", lambda now: now.load["running"]),
    (
        "millrace_queue_estimated_wait_seconds",
        "what a job submitted now at standard priority would wait; absent where no rate was seen yet",
        lambda now: now.estimated_wait_s,
    ),
    ("millrace_queue_ready_workers", "workers that are ready, in the fleet", lambda now: now.ready_workers),
)
COUNTERS: tuple[tuple[str, str, Value], ...] = (
    ("millrace_model_runs", "runs (steps, where it generates) of the fleet", lambda now: now.totals.runs),
    ("millrace_model_run_rows", "rows (sequences, where it generates) in the fleet's runs", lambda now: now.run_rows),
)
COSTS: tuple[tuple[str, Value], ...] = (
    ("interactive", lambda now: now.load["interactive_cost"]),
    ("standard", lambda now: now.load["standard_cost"] - now.load["interactive_cost"]),
    ("batch", lambda now: now.load["cost"] - now.load["standard_cost"]),
)
"""By priority class."""


def _relabel(model_label: str) -> Relabel:
    def relabel(labels: Mapping[str, str]) -> dict[str, str]:
        model = ModelVersion.parse(labels["model"])
        return {model_label: model.name, "version": model.version}

    return relabel


THE_FLEETS = "the whole fleet's, and the same on each frontend: take max, not sum"
ALIASES = (
    Alias(
        name="vllm:num_requests_waiting",
        of="millrace_queue_waiting_jobs",
        difference=THE_FLEETS + "; of models of each kind",
        relabel=_relabel("model_name"),
    ),
    Alias(
        name="nv_inference_pending_request_count",
        of="millrace_queue_waiting_jobs",
        difference=THE_FLEETS,
        relabel=_relabel("model"),
    ),
)


class FleetMetrics(Collector):
    """Collects, on any thread, what the last `refresh` has read: nothing of the fleet where Redis did not answer it."""

    def __init__(self, queue: JobQueue, models: Models, statistics: Statistics, readiness: Readiness) -> None:
        self._queue, self._models, self._statistics, self._readiness = queue, models, statistics, readiness
        self._now: Mapping[str, ModelNow] = {}
        self._reading, self._read_at = asyncio.Lock(), float("-inf")

    async def refresh(self) -> None:
        """Reads anew where the last reading is older than `FRESH_S`; takes `ANSWER_S` at most.

        A reading is 4 commands to Redis, and 4 more for each model, pipelined. What they bring grows with the number of
        workers and of models, not with that of jobs or streams.
        """
        async with self._reading:
            if time.monotonic() - self._read_at >= FRESH_S:
                self._read_at = time.monotonic()
                self._now = await self._read_in_time() if self._readiness.redis_answers else {}

    def collect(self) -> Iterator[Metric]:
        yield from _states(self._readiness)
        if self._now:
            yield from _of_the_fleet(self._now)

    async def _read_in_time(self) -> Mapping[str, ModelNow]:
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self._read()
        except (MillraceError, TimeoutError):
            return {}

    async def _read(self) -> Mapping[str, ModelNow]:
        ready = await self._models.ready_workers()
        models = {name: ModelVersion.parse(name) for name in ready}
        loads, totals = await asyncio.gather(
            asyncio.gather(*map(self._queue.load, models.values())), self._statistics.read(models.values())
        )
        return {
            name: ModelNow(ready_workers=ready[name], load=load, totals=totals[model])
            for (name, model), load in zip(models.items(), loads, strict=True)
        }


def _states(readiness: Readiness) -> Iterator[Metric]:
    """This frontend's own."""
    for name, text, holds in (
        ("ready", "1: it serves; as at /readyz", readiness.ready),
        ("redis_up", "1: Redis answers", readiness.redis_answers),
        (
            "mailbox_up",
            "1: subscribed to what workers write; else results come by reading logs",
            readiness.mailbox_subscribed,
        ),
    ):
        yield GaugeMetricFamily(f"millrace_frontend_{name}", text, value=holds)


def _of_the_fleet(models: Mapping[str, ModelNow]) -> Iterator[Metric]:
    for name, text, value in GAUGES:
        gauge = GaugeMetricFamily(name, text, labels=["model"])
        _fill(gauge, models, value)
        yield gauge
        yield from (alias.family(gauge) for alias in ALIASES if alias.of == name)
    for name, text, value in COUNTERS:
        counter = CounterMetricFamily(name, text, labels=["model"])
        _fill(counter, models, value)
        yield counter
    costs = GaugeMetricFamily(
        "millrace_queue_waiting_cost",
        "what waits in the fleet, in tokens or rows, by its class",
        labels=["model", "priority"],
    )
    jobs = CounterMetricFamily("millrace_model_jobs", "jobs that have ended, in the fleet", labels=["model", "outcome"])
    for model, now in models.items():
        for priority, value in COSTS:
            costs.add_metric([model, priority], value(now) or 0.0)
        for outcome in ("success", "failure", "cancelled"):
            jobs.add_metric([model, outcome], getattr(now.totals, outcome).count)
    yield costs
    yield jobs


def _fill(family: GaugeMetricFamily | CounterMetricFamily, models: Mapping[str, ModelNow], value: Value) -> None:
    for model, now in models.items():
        if (known := value(now)) is not None:
            family.add_metric([model], known)
