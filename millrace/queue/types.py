"""What goes into the queue and comes out of it. Times are the server's clock in milliseconds."""

from dataclasses import dataclass
from enum import IntEnum, StrEnum

from millrace.errors import Code
from millrace.queue.keys import JobRef


class Priority(IntEnum):
    """A higher class always goes before a lower one; the values are the proto's."""

    BATCH = 10
    STANDARD = 20
    INTERACTIVE = 30


class State(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"


class Verdict(StrEnum):
    """The queue's answer to an emission or a renewal."""

    OK = "ok"
    DUPLICATE = "duplicate"
    """This very emission is in the log already: success."""
    LOST = "lost"
    """The lease is not yours any more: drop the job."""
    GAP = "gap"
    """The offset is not the next one: read the log again."""
    UNWANTED = "unwanted"
    """Nobody wants the job, or it is late; it has been ended: drop it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds and lifetimes that a queue enforces; every process of a deployment uses the same."""

    lease_ms: int = 3_000
    """How long a worker holds a job without renewing it."""
    interest_ms: int = 3_000
    """How long a frontend's interest lasts without being renewed."""
    retention_ms: int = 600_000
    """How long results stay after the end of a job that can be asked for again."""
    linger_ms: int = 30_000
    """The same for a job that cannot; delivery removes it sooner."""
    max_waiting_jobs: int = 10_000
    max_waiting_cost: int = 50_000_000
    max_tenant_jobs: int = 5_000
    """Waiting jobs of one tenant."""
    max_payload_bytes: int = 1 << 30
    """Payloads of all jobs of one model that have not ended. BATCH may fill half of these bounds, STANDARD four fifths;
    behind the first half of that, a tenant gets its share by weight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A validated request on its way into the queue."""

    ref: JobRef
    fingerprint: str
    """Of the request without its JobOptions, before defaults and seed; 32 hexadecimal characters. Nothing in particular
    for an anonymous job, which nobody can ask for again."""
    payload: bytes
    task: str = "generate"
    """What kind of request it is: its field in SubmitJobRequest."""
    cost: int
    """Estimated, in tokens or rows; what the tenant is charged until the actual cost is known."""
    priority: Priority = Priority.STANDARD
    weight: float = 1.0
    """The tenant's share relative to others."""
    timeout_ms: int = 600_000
    resume_window_ms: int = 0
    """How long the job stays wanted after its last watcher has gone."""
    wanted_to_deadline: bool = False
    """Stays wanted until its deadline, watched or not."""
    retained: bool = False
    """Its results stay for the retention time after the end."""
    watcher: str = ""
    """The frontend that relays it from the start; empty where none does."""
    worker_within_ms: int | None = None
    """Where no worker serves the model: how long its jobs may wait for the first one. None where one does."""
    trace: str = ""
    """The caller's trace, as W3C's traceparent; empty where nothing is traced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to work on a job and append to its log, until it lapses."""

    ref: JobRef
    token: str
    epoch: int
    strikes: int
    """Lapses without a new result, before this lease."""
    attempts: int
    """This lease included, and those left out that a job of a higher class has ended."""
    priority: Priority
    last_offset: int
    history: bytes
    """Of the results so far, 8 bytes."""
    cost: int
    fingerprint: str
    submit_ms: int
    first_take_ms: int
    take_ms: int
    deadline_ms: int
    task: str
    """Its field in SubmitJobRequest."""
    payload: bytes | None = None
    """The request, where it is small; else it is in its key."""
    preemptions: int = 0
    """How often the job was given back for one of a higher class."""
    trace: str = ""
    """As in its submission."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    leases: tuple[Lease, ...] = ()
    hold: bool = False
    """A job with a strike waits for this worker to be empty: take nothing else until then."""
    given_back: tuple[str, ...] = ()
    """The tokens of leases whose places the new ones have: they are over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a job ended. `field` names the request's field that is to blame, with INVALID_ARGUMENT."""

    code: Code = Code.OK
    reason: str = ""
    message: str = ""
    field: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Emission:
    """One job's share of an emit: its next result, its end, or both."""

    ref: JobRef
    token: str
    offset: int = 0
    """Of the result; 0 where there is none."""
    history: bytes = b""
    result: bytes = b""
    timing: bytes = b""
    """With the end: a serialised millrace.v1.Timing."""
    ending: Ending | None = None
    cost: int = 0
    """The job's actual cost so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A job as `watch` saw it; state is None where there is no such job."""

    state: State | None
    last_offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A result in the log or in a mailbox; `body` is None where the mailbox carried the offset alone."""

    offset: int
    history: bytes
    body: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """Marks in the log that a new lease began behind `last_offset`."""

    last_offset: int
    epoch: int
    holder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The last entry of a log."""

    last_offset: int
    ending: Ending


Entry = Result | Seal | End


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedJob:
    """A job that was ended by a cancel or by the queue itself: late, unwanted or given up."""

    ref: JobRef
    task: str
    code: Code
    reason: str
    submit_ms: int
    first_take_ms: int
    """0: it was never taken."""
    end_ms: int
    attempts: int
    preemptions: int
    last_offset: int
    cost: int
    """What was done of it."""
    trace: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """What `inspect` tells of a job."""

    ref: JobRef
    task: str
    state: State
    fingerprint: str
    priority: Priority
    last_offset: int
    history: bytes
    attempts: int
    strikes: int
    holder: str
    submit_ms: int
    deadline_ms: int
    end_ms: int
    """0 before the end."""
    expire_ms: int
    """When the results go; 0 before the end."""
    ending: Ending | None
    first_take_ms: int = 0
    """0 before."""
    preemptions: int = 0
    timing: bytes = b""
    """A serialised millrace.v1.Timing, where a worker has ended it."""
    trace: str = ""
