"""What a caller asks for, and one call of it at a frontend."""

import asyncio
from dataclasses import dataclass, field

from millrace.errors import MillraceError
from millrace.queue import history as running
from millrace.queue.keys import JobRef
from millrace.queue.types import Ending, Priority, Result, Submission
from millrace.v1.generation_pb2 import GenerateResponse
from tests.checker.history import Received
from tests.simulation.held import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one caller will do."""

    ref: JobRef
    fingerprint: str
    task: Task
    cost: int
    priority: Priority
    timeout_ms: int
    resume_window_ms: int
    start_s: float
    outlives_calls: bool
    """Submitted as a job, wanted to its deadline, watched later."""
    leaves_after_s: float | None
    returns: bool
    cancels_after_s: float | None

    @property
    def is_named(self) -> bool:
        return not self.ref.is_anonymous

    def submission(self, watcher: str) -> Submission:
        return Submission(
            ref=self.ref,
            fingerprint=self.fingerprint,
            payload=self.task.payload(),
            cost=self.cost,
            priority=self.priority,
            timeout_ms=self.timeout_ms,
            resume_window_ms=self.resume_window_ms,
            wanted_to_deadline=self.outlives_calls,
            retained=self.is_named,
            watcher=watcher,
        )


@dataclass(slots=True, eq=False)
class Transcript:
    """What a caller received of its job, over all its calls."""

    received: list[Received] = field(default_factory=list)
    history: bytes = running.EMPTY
    is_submitted: bool = False
    """The job is known to have been accepted, and is only watched from now on."""

    @property
    def offset(self) -> int:
        return self.received[-1].message.offset if self.received else 0


@dataclass(slots=True, eq=False)
class Call:
    """`ended` is set once: to how the job ended, to the error that the frontend answered, or to None where the
    frontend died. A call that is not `open` delivers nothing more."""

    plan: Plan
    transcript: Transcript
    began_s: float
    ended: asyncio.Future[Ending | MillraceError | None]
    open: bool = True

    def deliver(self, result: Result, now: float) -> None:
        if self.open and result.body is not None:
            message = GenerateResponse.FromString(result.body)
            self.transcript.received.append(Received(message=message, at=now))
            self.transcript.history = result.history

    def end(self, how: Ending | MillraceError | None) -> None:
        if not self.ended.done():
            self.ended.set_result(how)
