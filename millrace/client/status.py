"""The border where errors come in: gRPC's statuses as the tree of millrace.errors."""

from typing import Any

import grpc.aio
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from millrace.errors import (
    DOMAIN,
    AlreadyExists,
    Code,
    DataLoss,
    Denied,
    Exhausted,
    InvalidRequest,
    JobFailed,
    MillraceError,
    NotFound,
    Unavailable,
    Violation,
)

DETAILS_KEY = "grpc-status-details-bin"
ENDED_KEY = "millrace-ended"
BY_CODE: dict[Code, type[NotFound | AlreadyExists | Unavailable | DataLoss]] = {
    Code.NOT_FOUND: NotFound,
    Code.ALREADY_EXISTS: AlreadyExists,
    Code.UNAVAILABLE: Unavailable,
    Code.DATA_LOSS: DataLoss,
}


class Refusal:
    """What a failed call says."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        trailer: dict[str, Any] = dict(error.trailing_metadata() or ())
        self.code = Code(error.code().value[0])
        self.text = error.details() or ""
        self.ended = trailer.get(ENDED_KEY) == "1"
        """The job itself has ended: trying again gives the same answer."""
        self.details = Status.FromString(trailer.get(DETAILS_KEY, b"")).details

    @property
    def lost(self) -> bool:
        """The frontend cannot go on, or the connection to it was lost: another one can."""
        if self.ended:
            return False
        reset = self.code is Code.INTERNAL and "RST_STREAM" in self.text
        return self.code is Code.UNAVAILABLE or (not self.details and (reset or self.code is Code.CANCELLED))

    @property
    def error(self) -> MillraceError:
        reason = self._info().reason or self.code.name
        if self.code is Code.INVALID_ARGUMENT:
            return InvalidRequest(self._violations() or [Violation("", self.text)], reason=reason)
        if self.ended:
            return JobFailed(self.code, self.text, reason=reason)
        if self.code is Code.RESOURCE_EXHAUSTED:
            return Exhausted(self.text, reason=reason, retry_after_s=self._retry_after_s())
        if self.code in (Code.UNAUTHENTICATED, Code.PERMISSION_DENIED):
            return Denied(self.code, self.text, reason=reason)
        if self.code in BY_CODE:
            return BY_CODE[self.code](self.text, reason=reason)
        error = MillraceError(self.text, reason=reason)
        error.code = self.code
        return error

    def _info(self) -> ErrorInfo:
        return next((info for info in self._unpacked(ErrorInfo) if info.domain == DOMAIN), ErrorInfo())

    def _retry_after_s(self) -> float:
        return next((info.retry_delay.ToMilliseconds() / 1000 for info in self._unpacked(RetryInfo)), 0.0)

    def _violations(self) -> list[Violation]:
        found = (violation for info in self._unpacked(BadRequest) for violation in info.field_violations)
        return [Violation(violation.field, violation.description) for violation in found]

    def _unpacked(self, kind: type[Any]) -> list[Any]:
        found = []
        for detail in self.details:
            message = kind()
            if detail.Unpack(message):
                found.append(message)
        return found
