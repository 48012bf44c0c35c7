"""What a GenerateRequest may say: the ranges of protos/millrace/v1, as data and as checks that list every violation."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration

from millrace.errors import Violation
from millrace.queue import Priority
from millrace.queue.keys import JOB_ID_PATTERN
from millrace.v1.generation_pb2 import GenerateRequest, OutputFormat, Reporting, Sampling, Stopping
from millrace.v1.job_pb2 import JobOptions

MAX_COMPLETIONS = 16
MAX_STOP_STRINGS = 16
MAX_STOP_STRING_BYTES = 256
MAX_LOGPROBS = 20
PRIORITIES = {0: Priority.STANDARD} | {priority.value: priority for priority in Priority}

Violations = Iterator[Violation]


@dataclass(frozen=True, slots=True)
class Range:
    """An optional number of the request: where it is set, `holds` must be true of it."""

    field: str
    holds: Callable[[float], bool]
    description: str


SAMPLING = (
    Range("temperature", lambda value: value >= 0, "must be 0 or more"),
    Range("top_p", lambda value: 0 < value <= 1, "must be in (0, 1]"),
    Range("min_p", lambda value: 0 <= value < 1, "must be in [0, 1)"),
    Range("repetition_penalty", lambda value: value > 0, "must be greater than 0"),
    Range("frequency_penalty", lambda value: -2 <= value <= 2, "must be in [-2, 2]"),
    Range("presence_penalty", lambda value: -2 <= value <= 2, "must be in [-2, 2]"),
    Range("num_completions", lambda value: 1 <= value <= MAX_COMPLETIONS, f"must be in [1, {MAX_COMPLETIONS}]"),
)
REPORTING = (
    Range("logprobs", lambda value: value <= MAX_LOGPROBS, f"must be in [0, {MAX_LOGPROBS}]"),
    Range("prompt_logprobs", lambda value: value <= MAX_LOGPROBS, f"must be in [0, {MAX_LOGPROBS}]"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The server's own limits on what a caller may ask for."""

    max_request_bytes: int
    max_tensor_bytes: int
    """Of a request that carries tensors."""
    default_timeout_s: float
    max_timeout_s: float
    max_resume_window_s: float


def check_generate(request: GenerateRequest) -> Violations:
    """All that is wrong with the request, its JobOptions aside."""
    if not request.model:
        yield Violation("model", "is required")
    yield from check_prompt(request)
    yield from check_sampling(request.sampling)
    yield from check_stopping(request.stopping)
    yield from check_output_format(request.output_format)
    yield from check_reporting(request.reporting)


def check_prompt(request: GenerateRequest) -> Violations:
    kind = request.WhichOneof("prompt")
    if kind is None:
        yield Violation("prompt", "is required: one of text, tokens, conversation")
    elif kind == "text" and not request.text:
        yield Violation("text", "must not be empty")
    elif kind == "tokens" and not request.tokens.ids:
        yield Violation("tokens.ids", "must not be empty")
    elif kind == "conversation":
        if not request.conversation.messages:
            yield Violation("conversation.messages", "must not be empty")
        for index, message in enumerate(request.conversation.messages):
            if not message.role:
                yield Violation(f"conversation.messages[{index}].role", "is required")


def check_sampling(sampling: Sampling) -> Violations:
    yield from _check_ranges("sampling", sampling, SAMPLING)
    for token, bias in sorted(sampling.logit_bias.items()):
        if not math.isfinite(bias):
            yield Violation(f"sampling.logit_bias[{token}]", "must be finite")


def check_reporting(reporting: Reporting) -> Violations:
    yield from _check_ranges("reporting", reporting, REPORTING)


def _check_ranges(path: str, message: Sampling | Reporting, ranges: tuple[Range, ...]) -> Violations:
    present = {field.name: value for field, value in message.ListFields()}
    for rule in ranges:
        value = present.get(rule.field)
        if value is not None and not (math.isfinite(value) and rule.holds(value)):
            yield Violation(f"{path}.{rule.field}", rule.description)


def check_stopping(stopping: Stopping) -> Violations:
    if stopping.HasField("max_tokens"):
        if stopping.max_tokens < 1:
            yield Violation("stopping.max_tokens", "must be 1 or more")
        if stopping.min_tokens > stopping.max_tokens:
            yield Violation("stopping.min_tokens", "must be at most max_tokens")
    if len(stopping.stop_strings) > MAX_STOP_STRINGS:
        yield Violation("stopping.stop_strings", f"must be at most {MAX_STOP_STRINGS}")
    for index, text in enumerate(stopping.stop_strings[:MAX_STOP_STRINGS]):
        if not 1 <= len(text.encode()) <= MAX_STOP_STRING_BYTES:
            description = f"must be 1 to {MAX_STOP_STRING_BYTES} bytes"
            yield Violation(f"stopping.stop_strings[{index}]", description)


def check_output_format(output_format: OutputFormat) -> Violations:
    kind = output_format.WhichOneof("format")
    if kind == "choices":
        if not output_format.choices.texts:
            yield Violation("output_format.choices.texts", "must not be empty")
    elif kind is not None and not getattr(output_format, kind):
        yield Violation(f"output_format.{kind}", "must not be empty")


def check_job(options: JobOptions, bounds: Bounds, *, attachable: bool) -> Violations:
    """All that is wrong with JobOptions; a call that is not `attachable` cannot begin behind an offset."""
    if options.job_id and not JOB_ID_PATTERN.fullmatch(options.job_id):
        yield Violation("job.job_id", f"must match {JOB_ID_PATTERN.pattern}")
    if options.priority not in PRIORITIES:
        yield Violation("job.priority", "is not a known priority")
    if options.after_offset and not attachable:
        yield Violation("job.after_offset", "must be 0 here")
    elif options.after_offset and not options.job_id:
        yield Violation("job.after_offset", "needs the job_id of the job to attach to")
    if options.after_history and not options.after_offset:
        yield Violation("job.after_history", "needs an after_offset")
    yield from _check_duration("job.resume_window", options.resume_window, bounds.max_resume_window_s)
    yield from _check_duration("job.timeout", options.timeout, bounds.max_timeout_s)


def _check_duration(field: str, duration: Duration, max_s: float) -> Violations:
    if not 0 <= duration.seconds + duration.nanos / 1e9 <= max_s:
        yield Violation(field, f"must be 0 to {max_s:g} s")
