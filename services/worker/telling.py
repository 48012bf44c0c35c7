"""What a worker tells of the jobs that it holds: the one event of each job's life, where this worker ends it, and the
spans of each lease, where the job is traced.

A job's life is told once, after its end is in its log: by the worker whose emission ended it, or, where a cancel or
the queue itself ended it (late, unwanted, given up), by the process whose reap is the next to look (JobQueue.reap). Who
dies between the two, or loses the reap's answer, tells nothing.
"""

import time

import structlog
from google.protobuf.message import DecodeError

from millrace import tracing
from millrace.engine import Work
from millrace.errors import Code
from millrace.queue import Ending, Lease
from millrace.telemetry import about, prompts, tell_end
from millrace.tracing import Attributes, Context, Span
from millrace.v1.job_service_pb2 import SubmitJobRequest
from services.worker.results import Ended, Held

MOST_PROMPT_CHARACTERS = 2_000
"""Of a prompt, in an event."""
LOSSES = ("lost", "gap", "incomplete")
"""How a lease ends that should not have ended so."""
OPERATIONS = {"generate": "text_completion", "embed": "embeddings"}
"""What OpenTelemetry's conventions for generative AI call a task."""
log = structlog.get_logger()


def tell(ended: Ended) -> None:
    """The event `job.ended`."""
    lease = ended.lease
    tell_end(
        lease.ref,
        ended.ending,
        ended.timing,
        task=lease.task,
        results=ended.results,
        trace=lease.trace,
        cost=ended.cost,
        usage=ended.usage if ended.usage.completion_tokens else None,
    )


def tell_asked(lease: Lease, work: Work) -> None:
    """The event `job.asked`, where events may hold prompts."""
    if prompts.told and (prompt := read_prompt(work)):
        log.info("job.asked", **about(lease.ref, lease.trace), prompt=prompt[:MOST_PROMPT_CHARACTERS])


def read_prompt(work: Work) -> str:
    """What is text of a request; empty where nothing is, and where the request cannot be read."""
    asked = SubmitJobRequest()
    if work.task not in ("generate", "embed", "classify"):
        return ""
    request = getattr(asked, work.task)
    try:
        request.MergeFromString(work.request)
    except DecodeError:
        return ""
    if work.task == "generate":
        said = [f"{message.role}: {message.content}" for message in request.conversation.messages]
        return "\n".join(said) or request.text
    return request.text if work.task == "classify" else "\n".join(request.texts)


def trace_take(lease: Lease) -> None:
    """The span `queue`, at a job's first take."""
    context = Context.parse(lease.trace)
    if context is None or lease.epoch > 1:
        return
    span = tracing.begin("queue", "INTERNAL", context, _job(lease), at_ns=lease.submit_ms * 1_000_000)
    span.end(lease.first_take_ms * 1_000_000)


def trace_lease(held: Held, worker_id: str, how: str, ending: Ending | None = None) -> None:
    """The span `lease` and those below it, when the worker lets go of a job: `how` is "ended", "preempted", "drained",
    "unwanted" or one of LOSSES."""
    lease = held.lease
    context = Context.parse(lease.trace)
    if context is None or not context.sampled:
        return
    to_1970, until = time.time() - time.monotonic(), time.monotonic()
    attributes = _job(lease) | {
        "millrace.worker_id": worker_id,
        "millrace.attempt": lease.attempts,
        "millrace.epoch": lease.epoch,
        "millrace.preemptions": lease.preemptions,
        "millrace.results": held.offset,
    }
    span = tracing.begin("lease", "CONSUMER", context, attributes, at_ns=_nanoseconds(held.taken_at + to_1970))
    if not span.is_recorded:
        return
    for name, since, to in _stretches(held, until):
        part = tracing.begin(name, "INTERNAL", span.context, at_ns=_nanoseconds(since + to_1970))
        if name == "decode":
            part.note({"millrace.results": held.offset - lease.last_offset})
        part.end(_nanoseconds(to + to_1970))
    _conclude(span, held, how, ending)
    span.end(_nanoseconds(until + to_1970))


def _job(lease: Lease) -> Attributes:
    told: Attributes = {
        "millrace.job_id": lease.ref.job_id,
        "millrace.tenant": lease.ref.tenant,
        "millrace.task": lease.task,
        "gen_ai.provider.name": "millrace",
        "gen_ai.request.model": lease.ref.model.name,
    }
    if operation := OPERATIONS.get(lease.task):
        told["gen_ai.operation.name"] = operation
    return told


def _stretches(held: Held, until: float) -> list[tuple[str, float, float]]:
    """Name, begin and end of what a lease consists of, as far as it came, by the monotonic clock."""
    stretches = [("batch", held.taken_at, held.started_at or until)]
    if not held.started_at:
        return stretches
    if held.lease.task != "generate":
        return [*stretches, ("run", held.started_at, until)]
    stretches.append(("prefill", held.started_at, held.first_output_at or until))
    if held.first_output_at:
        stretches.append(("decode", held.first_output_at, until))
    return stretches


def _conclude(span: Span, held: Held, how: str, ending: Ending | None) -> None:
    usage = held.usage
    if usage.completion_tokens:
        span.note(
            {
                "gen_ai.usage.input_tokens": usage.prompt_tokens,
                "gen_ai.usage.cache_read.input_tokens": usage.cached_prompt_tokens,
                "gen_ai.usage.output_tokens": usage.completion_tokens,
            }
        )
    if ending is None:
        span.happened(how, {"millrace.offset": held.offset})
    else:
        span.note({"millrace.code": ending.code.name, "millrace.reason": ending.reason})
    if how in LOSSES:
        span.fail(how)
    elif ending is not None and ending.code not in tracing.CALLERS_FAULT | {Code.OK}:
        span.fail(ending.reason)


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
