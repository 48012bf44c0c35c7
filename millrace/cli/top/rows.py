"""What is shown: the state of now, and rates since an earlier snapshot. Rates are a second; None: not known."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from millrace.cli.top.reading import Scraped, Snapshot
from millrace.cli.top.spans import Span, fleet_span, process_span
from millrace.v1.fleet_pb2 import Model, Worker

SCHEMA = "millrace.top/1"
FRONTEND, MODEL = "millrace_frontend_", "millrace_model_"
OWN = "FleetService/"
"""Calls by which whoever looks changes what there is to see."""
GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    name: str
    task: str
    versions: Sequence[str]
    ready_workers: int
    waiting_jobs: int
    running_jobs: int
    estimated_wait_s: float | None
    jobs_s: float | None
    """That ended, well or not."""
    failures_s: float | None
    runs_s: float | None
    batch_size: float | None
    """Rows, or sequences, of a run; the mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRow:
    worker_id: str
    device: str
    execution_provider: str
    state: str
    """loading, ready or draining; gone: it was there before, and is no longer heard."""
    models: Sequence[str]
    running_jobs: int
    free_slots: int
    memory_used_bytes: int
    memory_total_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontendRow:
    address: str
    problem: str = ""
    """Why it is not reached; it tells nothing else then."""
    streams: int | None = None
    calls_s: float | None = None
    results_s: float | None = None
    refusals_s: Mapping[str, float] | None = None
    log_reads_s: float | None = None
    first_result_p50_s: float | None = None
    first_result_p99_s: float | None = None
    cpu_share: float | None = None
    """Of one core."""
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Of the frontends that were reached, and of all models."""

    frontends_reached: int
    workers_ready: int
    streams: int
    calls_s: float | None
    results_s: float | None
    """Results hold a token or more, an embedding, a row of tensors."""
    refusals_s: Mapping[str, float]
    waiting_jobs: int
    running_jobs: int
    jobs_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    schema: str = SCHEMA
    totals: Totals
    models: Sequence[ModelRow]
    workers: Sequence[WorkerRow]
    frontends: Sequence[FrontendRow]
    fleet_problem: str
    """Why nobody tells of models and workers: what stands of them is as it was last told."""
    fleet_age_s: float | None
    """Of what is told of models and workers; None: nobody ever told."""


def overview(now: Snapshot, before: Snapshot | None = None) -> Overview:
    frontends = [_frontend(address, scraped, before) for address, scraped in now.frontends.items()]
    models, workers = _models(now, before), _workers(now, before)
    reached = [row for row in frontends if not row.problem]
    totals = Totals(
        frontends_reached=len(reached),
        workers_ready=sum(row.state == "ready" for row in workers),
        streams=sum(row.streams or 0 for row in reached),
        calls_s=_sum(row.calls_s for row in reached),
        results_s=_sum(row.results_s for row in reached),
        refusals_s=_merged(row.refusals_s for row in reached),
        waiting_jobs=sum(row.waiting_jobs for row in models),
        running_jobs=sum(row.running_jobs for row in models),
        jobs_s=_sum(row.jobs_s for row in models),
    )
    return Overview(
        totals=totals,
        models=models,
        workers=workers,
        frontends=frontends,
        fleet_problem=now.fleet_problem,
        fleet_age_s=now.at_s - now.fleet.at_s if now.fleet else None,
    )


def _models(now: Snapshot, before: Snapshot | None) -> list[ModelRow]:
    span = fleet_span(before.frontends, now.frontends, f"{MODEL}runs_total") if before else None
    return [_model(model, span) for model in (now.fleet.models if now.fleet else ())]


def _model(model: Model, span: Span | None) -> ModelRow:
    names = [f"{model.name}/{version}" for version in model.versions]
    known = span and [name for name in names if name in span.before.by(f"{MODEL}runs_total", "model")]
    rates: dict[str, float | None] = dict.fromkeys(("jobs_s", "failures_s", "runs_s", "batch_size"))
    if span and known:
        runs, rows, jobs, failed = (
            sum(span.rate(f"{MODEL}{series}_total", model=name, **labels) for name in known)
            for series, labels in (("runs", {}), ("run_rows", {}), ("jobs", {}), ("jobs", {"outcome": "failure"}))
        )
        rates = {"jobs_s": jobs, "failures_s": failed, "runs_s": runs, "batch_size": rows / runs if runs else None}
    return ModelRow(
        name=model.name,
        task=model.task,
        versions=list(model.versions),
        ready_workers=model.ready_workers,
        waiting_jobs=model.waiting_jobs,
        running_jobs=model.running_jobs,
        estimated_wait_s=model.estimated_wait.ToMilliseconds() / 1000 if model.HasField("estimated_wait") else None,
        **rates,
    )


def _workers(now: Snapshot, before: Snapshot | None) -> list[WorkerRow]:
    listed = {worker.worker_id: worker for worker in (now.fleet.workers if now.fleet else ())}
    earlier = before.fleet.workers if before and before.fleet else ()
    gone = {worker.worker_id: worker for worker in earlier if worker.worker_id not in listed}
    return [
        _worker(worker, GONE if worker_id in gone else _state(worker))
        for worker_id, worker in sorted((listed | gone).items())
    ]


def _worker(worker: Worker, state: str) -> WorkerRow:
    return WorkerRow(
        worker_id=worker.worker_id,
        device=worker.device,
        execution_provider=worker.execution_provider,
        state=state,
        models=list(worker.models),
        running_jobs=worker.running_jobs,
        free_slots=worker.free_slots,
        memory_used_bytes=worker.memory_used_bytes,
        memory_total_bytes=worker.memory_total_bytes,
    )


def _state(worker: Worker) -> str:
    return Worker.State.Name(worker.state).removeprefix("STATE_").lower()


def _frontend(address: str, scraped: Scraped, before: Snapshot | None) -> FrontendRow:
    if scraped.samples is None:
        return FrontendRow(address=address, problem=scraped.problem)
    streams = round(scraped.samples.value(f"{FRONTEND}streams"))
    memory = round(scraped.samples.value("process_resident_memory_bytes"))
    span = process_span(before.frontends.get(address) if before else None, scraped)
    if span is None:
        return FrontendRow(address=address, streams=streams, memory_bytes=memory)
    calls = span.rates(f"{FRONTEND}calls_total", "method")
    return FrontendRow(
        address=address,
        streams=streams,
        calls_s=sum(rate for method, rate in calls.items() if OWN not in method),
        results_s=span.rate(f"{FRONTEND}results_total"),
        refusals_s=span.rates(f"{FRONTEND}calls_refused_total", "reason"),
        log_reads_s=span.rate(f"{FRONTEND}log_reads_total"),
        first_result_p50_s=span.quantile(f"{FRONTEND}first_result_seconds", 0.5),
        first_result_p99_s=span.quantile(f"{FRONTEND}first_result_seconds", 0.99),
        cpu_share=span.rate("process_cpu_seconds_total"),
        memory_bytes=memory,
    )


def _sum(values: Iterable[float | None]) -> float | None:
    """Of those that are known; None where none is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _merged(parts: Iterable[Mapping[str, float] | None]) -> dict[str, float]:
    known = [part for part in parts if part]
    return {key: sum(part.get(key, 0.0) for part in known) for key in sorted({key for part in known for key in part})}
