"""What one worker counts, served at /metrics."""

from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import Counter, Gauge, Histogram

from millrace.errors import Code
from millrace.exposition import Aliases, make_registry
from millrace.queue import ModelTotals, ModelVersion, Verdict
from services.worker.aliases import aliases
from services.worker.engine_series import EngineSeries, Read
from services.worker.job_series import JobSeries
from services.worker.results import Ended
from services.worker.run_series import RunSeries
from services.worker.statistics import Totals

STEP_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """All series of one worker, in a registry of its own. They are read on any thread."""

    def __init__(self) -> None:
        self.registry = make_registry()
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
        self._ready = Gauge(
            "millrace_worker_ready", "1: it serves, and Redis answers; as at /readyz", registry=self.registry
        )
        self._of_jobs = JobSeries(self.registry)
        self._totals: dict[ModelVersion, Totals] = {}
        self._engines, runs = EngineSeries(), RunSeries(self.statistics)
        sources = (self._jobs, self._ended, *self._of_jobs.histograms, self._engines)
        for collector in (self._engines, runs, Aliases(sources, aliases(self._generates))):
            self.registry.register(collector)

    def of(self, model: ModelVersion) -> "ModelMetrics":
        name = str(model)
        observe = self._of_jobs.of(name)
        self._ended.labels(name, Code.OK.name)
        for verdict in (Verdict.LOST, Verdict.UNWANTED, Verdict.GAP):
            self._dropped.labels(name, verdict.value)

        def ended(job: Ended) -> None:
            self._ended.labels(name, job.ending.code.name).inc()
            observe(job)

        return ModelMetrics(
            jobs=self._jobs.labels(name),
            free_slots=self._free_slots.labels(name),
            taken=self._taken.labels(name),
            preemptions=self._preemptions.labels(name),
            results=self._results.labels(name),
            steps=self._steps.labels(name),
            totals=self._totals.setdefault(model, Totals()),
            ended=ended,
            dropped=lambda verdict: self._dropped.labels(name, verdict.value).inc(),
        )

    def statistics(self) -> dict[ModelVersion, ModelTotals]:
        """What this process has done, by model, those included that it serves no more."""
        return {model: totals.read() for model, totals in list(self._totals.items())}

    def watch_device(self, stalled_s: Callable[[], float]) -> None:
        self._stall.set_function(stalled_s)

    def watch_readiness(self, ready: Callable[[], bool]) -> None:
        self._ready.set_function(ready)

    def watch_engine(self, model: ModelVersion, counters: Read, gauges: Read = dict) -> None:
        self._engines.add(str(model), counters, gauges)

    def forget(self, model: ModelVersion) -> None:
        """Of a model that is served no more, what tells of the moment goes, and with it all that holds its engine; what
        was counted stays."""
        self._jobs.remove(str(model))
        self._free_slots.remove(str(model))
        self._engines.remove(str(model))

    def _generates(self, model: str) -> bool:
        totals = self._totals.get(ModelVersion.parse(model))
        return totals is not None and totals.generates

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
