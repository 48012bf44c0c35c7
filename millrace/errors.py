"""The errors that cross a border, in one tree:

    MillraceError                 code, reason, retryable
    ├── InvalidRequest            INVALID_ARGUMENT     the request itself; carries field violations
    ├── Denied                    UNAUTHENTICATED      nobody knows who calls
    │                             PERMISSION_DENIED    the caller may not do this
    ├── NotFound                  NOT_FOUND            no such model, version or job
    ├── AlreadyExists             ALREADY_EXISTS       the job_id names another request
    ├── Exhausted                 RESOURCE_EXHAUSTED   a bound or quota; says when to come back
    ├── Unavailable               UNAVAILABLE          Redis away, draining, no worker; try again
    ├── DataLoss                  DATA_LOSS            results that the caller saw are no longer in the log
    └── JobFailed                 any code             the job's own ending; trying again gives the same answer

A worker's failure crosses Redis as (code, reason, message) and becomes a JobFailed in the frontend; the frontend maps
the tree to `google.rpc.Status`, the client maps it back. Messages of this tree reach the caller; other errors do not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

DOMAIN = "millrace"


class Code(IntEnum):
    """The canonical status codes of `google.rpc.Code`, as far as Millrace uses them."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


@dataclass(frozen=True, slots=True)
class Violation:
    """One field of a request that is wrong: its path in the proto, and what would be right."""

    field: str
    description: str


class MillraceError(Exception):
    """`code` and `reason` are the contract; the message may change."""

    code: Code = Code.UNKNOWN
    retryable: bool = False

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason


class InvalidRequest(MillraceError):
    code = Code.INVALID_ARGUMENT

    def __init__(self, violations: Sequence[Violation], *, reason: str = "INVALID_REQUEST") -> None:
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in violations), reason=reason)
        self.violations = tuple(violations)


class Denied(MillraceError):
    """`code` is UNAUTHENTICATED or PERMISSION_DENIED."""

    def __init__(self, code: Code, message: str, *, reason: str) -> None:
        super().__init__(message, reason=reason)
        self.code = code


class NotFound(MillraceError):
    code = Code.NOT_FOUND


class AlreadyExists(MillraceError):
    code = Code.ALREADY_EXISTS


class Exhausted(MillraceError):
    code = Code.RESOURCE_EXHAUSTED
    retryable = True

    def __init__(self, message: str, *, reason: str, retry_after_s: float) -> None:
        super().__init__(message, reason=reason)
        self.retry_after_s = retry_after_s


class Unavailable(MillraceError):
    code = Code.UNAVAILABLE
    retryable = True


class DataLoss(MillraceError):
    code = Code.DATA_LOSS


class JobFailed(MillraceError):
    """The job itself ended with `code`; the call's trailer says `millrace-ended: 1`."""

    def __init__(self, code: Code, message: str, *, reason: str) -> None:
        super().__init__(message, reason=reason)
        self.code = code
