"""What is known of one job when all is over: what its client received, and what Redis holds."""

from collections.abc import Sequence
from dataclasses import dataclass

from millrace.errors import Code
from millrace.queue import Entry
from millrace.v1.generation_pb2 import GenerateResponse


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One message as a client received it, `at` by its monotonic clock."""

    message: GenerateResponse
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JobHistory:
    """One job."""

    job: str
    """TENANT:JOB_ID."""
    received: Sequence[Received]
    code: Code | None
    """How the client's call ended; None where it never did."""
    log: Sequence[Entry]
    """The whole log: seals, results, end."""
    settled: int | None = None
    """How many entries the log had when work on a job that was cancelled had to be over; None: it was not cancelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The first thing about a job that is not as promised."""

    job: str
    kind: str
    detail: str
