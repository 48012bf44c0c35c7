"""Log lines as events: one line each, with the job's id wherever there is one, and its trace's where it is traced.

What the libraries say through `logging`, warnings and what ends the process come in the same form, so that with "json"
each line on standard error is one JSON object; only native code may write others.

    job.ended    one for each job's life (docs/operations.md lists its fields)
    job.asked    what was asked, cut short: only where prompts may be told
"""

import logging
import sys
from types import TracebackType

import structlog
from google.protobuf.duration_pb2 import Duration
from structlog.typing import EventDict, Processor, WrappedLogger

from millrace.queue import EndedJob, Ending, JobRef
from millrace.tracing.context import trace_id
from millrace.v1.generation_pb2 import Usage
from millrace.v1.job_pb2 import Timing

log = structlog.get_logger()


class Levels:
    """Which levels are written, from now on. The first of structlog's processors: it drops the events of the others."""

    def __init__(self) -> None:
        self.verbose, self.info, self.warning, self.error = False, True, True, True

    def set(self, threshold: int) -> None:
        """This level of `logging`, and those above it."""
        self.verbose, self.info = threshold <= logging.DEBUG, threshold <= logging.INFO
        self.warning, self.error = threshold <= logging.WARNING, threshold <= logging.ERROR

    def __call__(self, _logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        shown = {"debug": self.verbose, "info": self.info, "warning": self.warning, "error": self.error}
        if not shown.get(method, True):
            raise structlog.DropEvent
        return event


class Prompts:
    """Whether events may hold what was asked."""

    def __init__(self) -> None:
        self.told = False


levels, prompts = Levels(), Prompts()
"""Of this process: structlog has one configuration."""


def configure_logging(log_format: str, level: str, *, log_prompts: bool = False) -> None:
    """Sends structlog's and the libraries' log lines to standard error, for people ("console") or machines ("json")."""
    levels.set(getattr(logging, level.upper()))
    prompts.told = log_prompts
    renderer = _renderer(log_format)
    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[levels, *common, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    _configure_libraries([*common, structlog.stdlib.add_logger_name], renderer)


def about(ref: JobRef, traceparent: str) -> dict[str, str]:
    """What each event about a job has."""
    traced = {"trace_id": trace_id(traceparent)} if traceparent else {}
    return {"job_id": ref.job_id, "tenant": ref.tenant, "model": str(ref.model)} | traced


def tell_end(
    ref: JobRef,
    ending: Ending,
    timing: Timing,
    *,
    task: str,
    results: int,
    trace: str,
    cost: int | None = None,
    usage: Usage | None = None,
) -> None:
    """The one event of a job's life, by whoever has ended it. `cost` and `usage` are known where it has run."""
    tokens = {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens} if usage else {}
    log.info(
        "job.ended",
        **about(ref, trace),
        task=task,
        code=ending.code.name,
        reason=ending.reason,
        attempts=timing.attempts,
        preemptions=timing.preemptions,
        queued_ms=milliseconds(timing.queued),
        batching_ms=milliseconds(timing.batching),
        first_output_ms=milliseconds(timing.first_output),
        remaining_output_ms=milliseconds(timing.remaining_output),
        results=results,
        worker_id=timing.worker_id,
        **({} if cost is None else {"cost": cost}),
        **tokens,
    )


def tell_ended_job(job: EndedJob) -> None:
    """The same, of a job that no worker has ended, by who has reaped it."""
    timing = Timing(attempts=job.attempts, preemptions=job.preemptions)
    timing.queued.FromMilliseconds(max((job.first_take_ms or job.end_ms) - job.submit_ms, 0))
    ending = Ending(code=job.code, reason=job.reason)
    tell_end(job.ref, ending, timing, task=job.task, results=job.last_offset, trace=job.trace, cost=job.cost)


def milliseconds(duration: Duration) -> float:
    """To the microsecond."""
    return duration.ToMicroseconds() / 1000


def _renderer(log_format: str) -> Processor:
    if log_format == "json":
        return structlog.processors.JSONRenderer()
    return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)


def _configure_libraries(common: list[Processor], renderer: Processor) -> None:
    """Their warnings and errors; what ends the process, too, which Python would write as it likes."""
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=common, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer]
    )
    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(formatter)
    logging.basicConfig(level=logging.WARNING, handlers=[lines])
    logging.captureWarnings(True)
    sys.excepthook = _tell_uncaught


def _tell_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    structlog.get_logger().error("process.failed", error=repr(error), exc_info=(kind, error, trace))
