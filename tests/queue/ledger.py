"""What the oracle keeps: the jobs, who waits, who has paid, what frontends were told; and the one way to end a job."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from millrace.errors import Code
from millrace.queue.types import End, Ending, Entry, Limits, Priority, Result, State, Submission
from tests.queue.fair import FairShare

MAX_STRIKES, MAX_ATTEMPTS = 3, 50
ABANDONED = Ending(code=Code.CANCELLED, reason="ABANDONED", message="nobody wanted the job any more")
LATE = Ending(
    code=Code.DEADLINE_EXCEEDED, reason="DEADLINE_EXCEEDED", message="the job did not end before its deadline"
)
POISON = Ending(code=Code.INTERNAL, reason="POISON_JOB", message="the job lost its worker 3 times without a result")
WORN_OUT = Ending(
    code=Code.INTERNAL, reason="TOO_MANY_ATTEMPTS", message=f"the job was given up after {MAX_ATTEMPTS} attempts"
)


@dataclass(slots=True)
class Job:
    submission: Submission
    sequence: int
    submit_ms: int
    keep_until: int = 0
    watchers: dict[str, int] = field(default_factory=dict)
    state: State = State.WAITING
    token: str = ""
    holder: str = ""
    lease_until: int = 0
    base: int = 0
    epoch: int = 0
    attempts: int = 0
    strikes: int = 0
    preemptions: int = 0
    first_take_ms: int = 0
    timing: bytes = b""
    spent: int = 0
    charged: int = 0
    log: list[Entry] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    """Which lease each result was written under."""
    ender: str = ""
    ending: Ending | None = None
    expire_ms: int = 0

    @property
    def name(self) -> str:
        return self.submission.ref.job

    @property
    def tenant(self) -> str:
        return self.submission.ref.tenant

    @property
    def priority(self) -> Priority:
        return self.submission.priority

    @property
    def deadline_ms(self) -> int:
        return self.submit_ms + self.submission.timeout_ms

    @property
    def results(self) -> list[Result]:
        return [entry for entry in self.log if isinstance(entry, Result)]

    @property
    def last(self) -> int:
        return len(self.tokens)

    @property
    def history(self) -> bytes:
        return self.results[-1].history if self.tokens else bytes(8)

    @property
    def wanted_until(self) -> int:
        return max([self.keep_until, *self.watchers.values()])

    def retention_ms(self, limits: Limits) -> int:
        return limits.retention_ms if self.submission.retained else limits.linger_ms

    def holds(self, token: str) -> bool:
        return self.state is State.RUNNING and self.token == token


Post = tuple[str, Result | End]
Told = tuple[str, Code, str, int, int]
"""A job that no worker has ended: its name, code, reason, attempts and last offset."""
UNTOLD_MS = 3_600_000


class Ledger:
    """One model's jobs at the time `now`. `posts` collects, by frontend, what must be in their mailboxes,
    `untold` what the next reap must tell."""

    def __init__(self, limits: Limits, now: int) -> None:
        self.limits, self.now = limits, now
        self.jobs: dict[str, Job] = {}
        self.shares = {priority: FairShare() for priority in Priority}
        self.posts: dict[str, list[Post]] = {}
        self.untold: list[Told] = []
        self.untold_until = 0
        self.last_reap: int | None = None
        self.amnesty_until = 0

    @property
    def was_away(self) -> bool:
        last = self.last_reap
        return last is not None and not last <= self.now <= last + self.limits.lease_ms // 2

    @property
    def is_amnesty(self) -> bool:
        return self.was_away or self.now < self.amnesty_until

    @property
    def unended(self) -> list[Job]:
        return self._by_sequence(job for job in self.jobs.values() if not job.ending)

    def _waiting(self, matches: Callable[[Job], bool]) -> list[Job]:
        return self._by_sequence(job for job in self.jobs.values() if job.state is State.WAITING and matches(job))

    def _line(self, tenant: str, priority: Priority) -> list[Job]:
        """A tenant's jobs without a strike that wait in one class, first come first."""
        return self._waiting(lambda job: (job.tenant, job.priority, job.strikes) == (tenant, priority, 0))

    @staticmethod
    def _by_sequence(jobs: Iterable[Job]) -> list[Job]:
        return sorted(jobs, key=lambda job: job.sequence)

    def _is_wanted(self, job: Job) -> bool:
        had_interest = bool(job.watchers) or job.keep_until > 0
        return self.now < job.wanted_until or (had_interest and self.is_amnesty)

    def _end_if_useless(self, job: Job) -> bool:
        if self.now >= job.deadline_ms:
            self._finish(job, LATE)
        elif not self._is_wanted(job):
            self._finish(job, ABANDONED)
        return job.ending is not None

    def _enqueue(self, job: Job) -> None:
        job.state = State.WAITING
        if job.strikes == 0:
            self.shares[job.priority].arrive(job.tenant)

    def _dequeue(self, job: Job) -> None:
        """Takes a waiting job out of the line; call before its state changes."""
        if job.strikes == 0 and len(self._line(job.tenant, job.priority)) == 1:
            self.shares[job.priority].leave(job.tenant)

    def _requeue(self, job: Job) -> None:
        self._leave_running(job)
        self._enqueue(job)

    def _leave_running(self, job: Job) -> None:
        job.token = job.holder = ""
        self._charge(job, job.spent)

    def _charge(self, job: Job, amount: int) -> None:
        """What the tenant has paid for the job is `amount` from now on."""
        self.shares[job.priority].charge(job.tenant, (amount - job.charged) / job.submission.weight)
        job.charged = amount

    def _finish(self, job: Job, ending: Ending) -> None:
        if job.state is State.WAITING:
            self._dequeue(job)
        else:
            self._leave_running(job)
        job.state, job.ending = State.ENDED, ending
        job.expire_ms = self.now + job.retention_ms(self.limits)
        end = End(last_offset=job.last, ending=ending)
        job.log.append(end)
        self._post(job, end)
        job.watchers = {}
        if not job.ender:
            self.untold.append((job.name, ending.code, ending.reason, job.attempts, job.last))
            self.untold_until = self.now + UNTOLD_MS

    def _post(self, job: Job, entry: Result | End) -> None:
        for frontend in job.watchers:
            self.posts.setdefault(frontend, []).append((job.name, entry))
