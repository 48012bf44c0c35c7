"""What one worker counts, served at /metrics."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from millrace.queue import ModelTotals, ModelVersion, Verdict
from services.worker.results import Ended
from services.worker.statistics import Totals

STEP_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
Read = Callable[[], Mapping[str, float]]


class Metrics:
    """All series of one worker, in a registry of its own. They are read on any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._jobs = self._gauge("jobs_running", "jobs that this worker holds")
        self._free_slots = self._gauge("free_slots", "room for further jobs")
        self._taken = self._counter("jobs_taken", "jobs leased from the queue")
        self._ended = self._counter("jobs_ended", "jobs whose end this worker has written, by its code", "code")
        self._dropped = self._counter(
            "jobs_dropped", "jobs let go of because the queue said so: lost (the lease), unwanted or gap", "verdict"
        )
        self._preemptions = self._counter("preemptions", "jobs handed back to make room for a higher class")
        self._results = self._counter("results_emitted", "results written to logs")
        self._steps = Histogram(
            "millrace_worker_step_seconds",
            "steps that ran something, by how long they took",
            ["model"],
            buckets=STEP_S,
            registry=self.registry,
        )
        self._stall = Gauge(
            "millrace_worker_device_stall_seconds",
            "for how long the oldest step that runs has been running; 0 where none does",
            registry=self.registry,
        )
        self._totals: dict[ModelVersion, Totals] = {}
        self._engines = EngineCounters()
        self.registry.register(self._engines)

    def of(self, model: ModelVersion) -> "ModelMetrics":
        name = str(model)
        return ModelMetrics(
            jobs=self._jobs.labels(name),
            free_slots=self._free_slots.labels(name),
            taken=self._taken.labels(name),
            preemptions=self._preemptions.labels(name),
            results=self._results.labels(name),
            steps=self._steps.labels(name),
            totals=self._totals.setdefault(model, Totals()),
            ended=lambda ended: self._ended.labels(name, ended.ending.code.name).inc(),
            dropped=lambda verdict: self._dropped.labels(name, verdict.value).inc(),
        )

    def statistics(self) -> dict[ModelVersion, ModelTotals]:
        """What this process has done, by model, those included that it serves no more."""
        return {model: totals.read() for model, totals in self._totals.items()}

    def watch_device(self, stalled_s: Callable[[], float]) -> None:
        self._stall.set_function(stalled_s)

    def watch_engine(self, model: ModelVersion, counters: Read) -> None:
        self._engines.add(str(model), counters)

    def forget(self, model: ModelVersion) -> None:
        """Of a model that is served no more, what tells of the moment goes, and with it all that holds its engine; what
        was counted stays."""
        self._jobs.remove(str(model))
        self._free_slots.remove(str(model))
        self._engines.remove(str(model))

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"millrace_worker_{name}", text, ["model"], registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"millrace_worker_{name}", text, ["model", *labels], registry=self.registry)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelMetrics:
    """The series of one model."""

    jobs: Gauge
    free_slots: Gauge
    taken: Counter
    preemptions: Counter
    results: Counter
    steps: Histogram
    totals: Totals
    """What frontends tell of the model."""
    ended: Callable[[Ended], None]
    dropped: Callable[[Verdict], None]


class EngineCounters(Collector):
    """What engines count of themselves: each name becomes millrace_engine_NAME_total, by model."""

    def __init__(self) -> None:
        self._sources: dict[str, Read] = {}

    def add(self, model: str, counters: Read) -> None:
        self._sources[model] = counters

    def remove(self, model: str) -> None:
        self._sources.pop(model, None)

    def collect(self) -> Iterable[CounterMetricFamily]:
        families: dict[str, CounterMetricFamily] = {}
        for model, read in list(self._sources.items()):
            for name, value in read().items():
                if name not in families:
                    text = "counted by the engine; see its documentation"
                    families[name] = CounterMetricFamily(f"millrace_engine_{name}", text, labels=["model"])
                families[name].add_metric([model], value)
        return families.values()
