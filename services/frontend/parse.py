"""The way in: serialised requests become validated ones, which cannot be mistaken for raw input further on."""

import hashlib
import secrets
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from millrace.errors import InvalidRequest, Violation
from millrace.queue import Priority
from millrace.queue.keys import JOB_ID_PATTERN
from millrace.v1.generation_pb2 import GenerateRequest
from millrace.v1.job_pb2 import JobOptions
from millrace.v1.job_service_pb2 import SubmitJobRequest, WatchJobRequest
from services.frontend.rules import PRIORITIES, Bounds, Violations, check_generate, check_job

M = TypeVar("M", bound=Message)
BYTES_PER_TOKEN = 4
DEFAULT_MAX_TOKENS = 256
"""What a completion without max_tokens is taken to cost."""


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
class ValidGenerate:
    """A GenerateRequest whose ranges hold, ready to be queued."""

    model: str
    model_version: str
    """Empty: whichever the model serves."""
    fingerprint: str
    payload: bytes
    cost: int
    """Estimated, in tokens, not knowing the model's context length."""
    options: ValidOptions


def parse_generate(raw: bytes, bounds: Bounds) -> ValidGenerate:
    """Raises InvalidRequest with every violation."""
    request = decode(GenerateRequest, raw, bounds.max_request_bytes)
    _raise_any(check_generate(request), check_job(request.job, bounds, attachable=True))
    return _valid(request, request.job, bounds)


def parse_submit(raw: bytes, bounds: Bounds) -> ValidGenerate | None:
    """None where the task is of a kind that is not served. Raises InvalidRequest with every violation."""
    request = decode(SubmitJobRequest, raw, bounds.max_request_bytes)
    kind = request.WhichOneof("task")
    if kind is None:
        raise InvalidRequest([Violation("task", "is required")])
    if kind != "generate":
        return None
    _raise_any(_check_submit(request), check_job(request.job, bounds, attachable=False))
    return _valid(request.generate, request.job, bounds)


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


def decode(kind: type[M], raw: bytes, max_bytes: int) -> M:
    if len(raw) > max_bytes:
        raise InvalidRequest([Violation("", f"the request has {len(raw)} bytes, at most {max_bytes} are taken")])
    try:
        return kind.FromString(raw)
    except DecodeError as error:
        raise InvalidRequest([Violation("", "the request is not a valid message")]) from error


def _check_submit(request: SubmitJobRequest) -> Violations:
    if request.generate.HasField("job"):
        yield Violation("generate.job", "must be unset: the job's options stand beside the task")
    for violation in check_generate(request.generate):
        yield Violation(f"generate.{violation.field}", violation.description)


def _raise_any(*checks: Violations) -> None:
    if violations := [violation for check in checks for violation in check]:
        raise InvalidRequest(violations)


def _valid(request: GenerateRequest, options: JobOptions, bounds: Bounds) -> ValidGenerate:
    valid_options = _valid_options(options, bounds)
    request.ClearField("job")
    fingerprint = _fingerprint(request)
    if not request.sampling.HasField("seed"):
        request.sampling.seed = secrets.randbits(64)
    return ValidGenerate(
        model=request.model,
        model_version=request.model_version,
        fingerprint=fingerprint,
        payload=request.SerializeToString(),
        cost=_cost(request),
        options=valid_options,
    )


def _valid_options(options: JobOptions, bounds: Bounds) -> ValidOptions:
    timeout_ms = options.timeout.ToMilliseconds() or round(bounds.default_timeout_s * 1000)
    return ValidOptions(
        job_id=options.job_id,
        position=_position(options.after_offset, options.after_history),
        priority=PRIORITIES[options.priority],
        resume_window_ms=options.resume_window.ToMilliseconds(),
        timeout_ms=timeout_ms,
    )


def _position(offset: int, history: int) -> Position:
    return Position(offset=offset, history=history.to_bytes(8, "little") if history else b"")


def _fingerprint(request: Message) -> str:
    """Of the request as the caller sent it: before defaults, without a seed of ours, without its JobOptions."""
    text = request.DESCRIPTOR.full_name.encode() + b"\0" + request.SerializeToString(deterministic=True)
    return hashlib.sha256(text).hexdigest()[:32]


def _cost(request: GenerateRequest) -> int:
    output = request.stopping.max_tokens if request.stopping.HasField("max_tokens") else DEFAULT_MAX_TOKENS
    return max(1, _prompt_tokens(request)) + output


def _prompt_tokens(request: GenerateRequest) -> int:
    if request.HasField("tokens"):
        return len(request.tokens.ids)
    texts = [message.content for message in request.conversation.messages] or [request.text]
    return sum(len(text.encode()) for text in texts) // BYTES_PER_TOKEN
