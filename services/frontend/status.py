"""The border where errors leave: the tree of millrace.errors as `google.rpc.Status`, and a job's ending as an error."""

from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from millrace.errors import DOMAIN, Code, Exhausted, InvalidRequest, JobFailed, MillraceError, Violation
from millrace.queue import Ending

DETAILS_KEY = "grpc-status-details-bin"
MESSAGE_BYTES, FIELD_BYTES, DESCRIPTION_BYTES = 512, 100, 250
"""What is told of texts that may hold the caller's own: a status travels in trailers, which clients take up to 8 KB of,
three bytes for each that is not ASCII, and drop whole where they are larger."""


class Unexpected(MillraceError):
    """All that a caller learns of an error that is not in the tree."""

    code = Code.INTERNAL

    def __init__(self) -> None:
        super().__init__("an error inside the service", reason="INTERNAL")


def to_status(error: MillraceError) -> Status:
    """With ErrorInfo always, RetryInfo on Exhausted, BadRequest on InvalidRequest."""
    details: list[Message] = [ErrorInfo(reason=error.reason, domain=DOMAIN)]
    if isinstance(error, Exhausted):
        retry = RetryInfo()
        retry.retry_delay.FromMilliseconds(round(error.retry_after_s * 1000))
        details.append(retry)
    if isinstance(error, InvalidRequest):
        details.append(BadRequest(field_violations=[_violation(violation) for violation in error.violations]))
    message = _shorten(error.message, MESSAGE_BYTES)
    return Status(code=int(error.code), message=message, details=[_any(detail) for detail in details])


def from_ending(ending: Ending) -> MillraceError:
    """A job's own ending. It is never UNAVAILABLE, which would tell the caller to try elsewhere."""
    if ending.code is Code.INVALID_ARGUMENT and ending.field:
        return InvalidRequest([Violation(ending.field, ending.message)], reason=ending.reason)
    code = Code.INTERNAL if ending.code is Code.UNAVAILABLE else ending.code
    return JobFailed(code, ending.message, reason=ending.reason)


def _violation(violation: Violation) -> BadRequest.FieldViolation:
    return BadRequest.FieldViolation(
        field=_shorten(violation.field, FIELD_BYTES), description=_shorten(violation.description, DESCRIPTION_BYTES)
    )


def _shorten(text: str, most_bytes: int) -> str:
    encoded = text[:most_bytes].encode(errors="replace")
    if len(text) <= most_bytes and len(encoded) <= most_bytes:
        return encoded.decode()
    return encoded[:most_bytes].decode(errors="ignore") + "…"


def _any(detail: Message) -> Any:
    packed = Any()
    packed.Pack(detail)
    return packed
