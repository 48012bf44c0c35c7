"""The way in: serialised requests become validated ones, which cannot be mistaken for raw input further on."""

import hashlib
import secrets
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Self, TypeVar, cast

from google.protobuf.descriptor import Descriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message

from millrace.errors import Code, InvalidRequest, MillraceError, Violation
from millrace.queue import ModelEntry, Priority
from millrace.queue.keys import JOB_ID_PATTERN
from millrace.v1.generation_pb2 import GenerateRequest
from millrace.v1.job_pb2 import JobOptions
from millrace.v1.job_service_pb2 import WatchJobRequest
from services.frontend.rules import PRIORITIES, Bounds, Violations, check_generate, check_job
from services.frontend.wire import is_swollen

M = TypeVar("M", bound=Message)
BYTES_PER_TOKEN = 4
DEFAULT_MAX_TOKENS = 256
"""What a completion without max_tokens is taken to cost."""
LARGEST_CONTEXT = 1 << 20
"""Where a model does not say how long its context is: the most that a generation is taken to cost."""
CALLS = {
    "generate": "Generate",
    "embed": "Embed",
    "classify": "Classify",
    "transcribe": "Transcribe",
    "infer": "ModelInfer",
}
"""By the task, the call that it is asked for with."""
MOST_VIOLATIONS = 10
"""What a refusal names; it travels in the call's trailers, which clients take up to 8 KB of."""


class OtherTask(MillraceError):
    """The model's requests are of another kind, or the kind is not served."""

    code = Code.UNIMPLEMENTED

    @classmethod
    def of(cls, entry: ModelEntry, task: str) -> Self:
        """The model does not take this task's requests."""
        taken = " or ".join(CALLS.get(known, known) for known in entry.tasks)
        text = f"model {entry.name} does not take {CALLS[task]}: it is called by {taken}"
        return cls(text, reason="TASK_UNIMPLEMENTED")


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where in a job's results a caller stands: behind `offset`, having seen results with this running hash."""

    offset: int = 0
    history: bytes = b""
    """8 bytes; empty where the caller does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidOptions:
    """JobOptions whose ranges hold, with the server's defaults filled in."""

    job_id: str
    """Empty where the caller leaves it to us."""
    position: Position
    priority: Priority
    resume_window_ms: int
    timeout_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a request asks for, as far as it is the same for every task."""

    model: str
    model_version: str
    """Empty: whichever the model serves."""
    fingerprint: str
    options: ValidOptions

    def against(self, entry: ModelEntry) -> "ValidRequest":
        """The request once it is known which model runs it. Raises InvalidRequest, or OtherTask."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidRequest(Asked):
    """A request that can be queued."""

    task: str
    """Its field in SubmitJobRequest."""
    payload: bytes
    cost: int
    """Estimated: tokens, or rows."""
    completions: int = 1

    def against(self, entry: ModelEntry) -> "ValidRequest":
        """A completion costs no more than the model's context holds."""
        if self.task not in entry.tasks:
            raise OtherTask.of(entry, self.task)
        most = self.completions * (entry.context_length or LARGEST_CONTEXT)
        return replace(self, cost=min(self.cost, most))


def parse_generate(raw: bytes, bounds: Bounds) -> ValidRequest:
    """Raises InvalidRequest with the violations, as `raise_any` does."""
    request = decode(GenerateRequest, raw, bounds.max_request_bytes)
    raise_any(check_generate(request), check_job(request.job, bounds, attachable=True))
    return valid_generate(request, request.job, bounds)


def parse_watch(raw: bytes, bounds: Bounds) -> tuple[str, Position]:
    """The job's id, and where to go on. Raises InvalidRequest."""
    request = decode(WatchJobRequest, raw, bounds.max_request_bytes)
    check_job_id(request.job_id)
    if request.after_history and not request.after_offset:
        raise InvalidRequest([Violation("after_history", "needs an after_offset")])
    return request.job_id, _position(request.after_offset, request.after_history)


def check_job_id(job_id: str) -> None:
    if not JOB_ID_PATTERN.fullmatch(job_id):
        raise InvalidRequest([Violation("job_id", f"must match {JOB_ID_PATTERN.pattern}")])


def decode(kind: type[M], raw: bytes, max_bytes: int, field: str = "") -> M:
    """`field` is to blame where the message is too large, in bytes or in parts."""
    if len(raw) > max_bytes:
        raise InvalidRequest([Violation(field, f"the request has {len(raw)} bytes, at most {max_bytes} are taken")])
    if is_swollen(raw, cast(Descriptor, kind.DESCRIPTOR)):
        raise InvalidRequest([Violation(field, "the request has too many fields, or too many packed numbers")])
    try:
        return kind.FromString(raw)
    except DecodeError as error:
        raise InvalidRequest([Violation("", "the request is not a valid message")]) from error


def raise_any(*checks: Violations) -> None:
    """Raises InvalidRequest with the first `MOST_VIOLATIONS`, and looks for no more."""
    if violations := list(islice(chain.from_iterable(checks), MOST_VIOLATIONS)):
        raise InvalidRequest(violations)


def valid_generate(request: GenerateRequest, options: JobOptions, bounds: Bounds) -> ValidRequest:
    """A request that was checked; the seed is drawn where the caller leaves it to us."""
    valid_options = make_options(options, bounds)
    request.ClearField("job")
    fingerprint = make_fingerprint(request)
    if not request.sampling.HasField("seed"):
        request.sampling.seed = secrets.randbits(64)
    return ValidRequest(
        task="generate",
        model=request.model,
        model_version=request.model_version,
        fingerprint=fingerprint,
        payload=request.SerializeToString(),
        cost=_cost(request),
        completions=_completions(request),
        options=valid_options,
    )


def make_options(options: JobOptions, bounds: Bounds) -> ValidOptions:
    """JobOptions that were checked."""
    timeout_ms = _milliseconds(options.timeout) or round(bounds.default_timeout_s * 1000)
    return ValidOptions(
        job_id=options.job_id,
        position=_position(options.after_offset, options.after_history),
        priority=PRIORITIES[options.priority],
        resume_window_ms=_milliseconds(options.resume_window),
        timeout_ms=timeout_ms,
    )


def _position(offset: int, history: int) -> Position:
    return Position(offset=offset, history=history.to_bytes(8, "little") if history else b"")


def _milliseconds(duration: Duration) -> int:
    """Rounded up: what is set never becomes 0, which means something else."""
    return -(-duration.ToNanoseconds() // 1_000_000)


def make_fingerprint(request: Message) -> str:
    """Of the request as the caller sent it: before defaults, without a seed of ours, without its JobOptions."""
    text = request.DESCRIPTOR.full_name.encode() + b"\0" + request.SerializeToString(deterministic=True)
    return hashlib.sha256(text).hexdigest()[:32]


def _cost(request: GenerateRequest) -> int:
    output = request.stopping.max_tokens if request.stopping.HasField("max_tokens") else DEFAULT_MAX_TOKENS
    return max(1, _prompt_tokens(request)) + _completions(request) * output


def _completions(request: GenerateRequest) -> int:
    return request.sampling.num_completions or 1


def _prompt_tokens(request: GenerateRequest) -> int:
    if request.HasField("tokens"):
        return len(request.tokens.ids)
    texts = [message.content for message in request.conversation.messages] or [request.text]
    return sum(len(text.encode()) for text in texts) // BYTES_PER_TOKEN
