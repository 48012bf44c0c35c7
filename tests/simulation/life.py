"""One accepted job, from its submission until its keys are gone, as the referee knows it."""

from dataclasses import dataclass, field

from millrace.queue.types import Entry, Lease, Submission
from tests.simulation.promise import Broken

MAX_STRIKES, MAX_ATTEMPTS = 3, 50


@dataclass(slots=True)
class Pulse:
    """When one model was reaped, and so until when nothing lapses. Times are the server's."""

    lease_ms: int
    last: int | None = None
    amnesty_until: int = 0
    latest: int = 0
    """The latest time that any script saw since the last reap."""
    slip_ms: int = 0
    """By how much the clock ran back without that a reap noticed it, since it was ahead of the last one again: what was
    to be looked at by the time before is looked at so much later."""

    def see(self, now: int) -> None:
        self.slip_ms = max(self.slip_ms, self.latest - now)
        self.latest = max(self.latest, now)

    def was_away(self, now: int) -> bool:
        return self.last is not None and not self.last <= now <= self.last + self.lease_ms // 2

    def excuses(self, now: int) -> bool:
        return self.was_away(now) or now < self.amnesty_until

    def beat(self, now: int) -> None:
        if self.was_away(now):
            self.amnesty_until = now + self.lease_ms
        if self.last is not None and now < self.last:
            self.slip_ms = 0
        self.last = self.latest = now


@dataclass(slots=True, eq=False)
class Life:
    """A name may have several, one after the other. Lease, strikes and interest follow from the answers alone."""

    submission: Submission
    accepted_ms: int
    born_s: float
    """By virtual time, as `gone_s`."""
    interest_ms: int
    watchers: dict[str, int] = field(default_factory=dict)
    keep_until: int = 0
    token: str = ""
    """Of the lease that holds; empty while the job waits, and after its end."""
    lease_until: int = 0
    has_result: bool = False
    """Under the present lease."""
    epoch: int = 0
    strikes: int = 0
    preemptions: int = 0
    last: int = 0
    written: dict[int, str] = field(default_factory=dict)
    """Offset → the token that wrote it."""
    ender: str = ""
    ending: tuple[str, str] | None = None
    """Code and reason."""
    log: list[Entry] | None = None
    """Once the keys are gone."""
    gone_s: float | None = None
    has_name: bool = True
    """The index leads to it; its entry may go first where the end came long behind the deadline."""

    def __post_init__(self) -> None:
        submission, expiry = self.submission, self.accepted_ms + self.interest_ms
        if submission.watcher:
            self.watchers[submission.watcher] = expiry
            self.keep_until = expiry + submission.resume_window_ms if submission.resume_window_ms else 0
        if submission.wanted_to_deadline:
            self.keep_until = self.deadline_ms

    def __str__(self) -> str:
        return self.submission.ref.job

    @property
    def deadline_ms(self) -> int:
        return self.accepted_ms + self.submission.timeout_ms

    def is_late(self, now: int) -> bool:
        return now >= self.deadline_ms

    def is_wanted(self, now: int, pulse: Pulse) -> bool:
        if now < max([self.keep_until, *self.watchers.values()]):
            return True
        return (bool(self.watchers) or self.keep_until > 0) and pulse.excuses(now)

    def stood(self, since_s: float) -> bool:
        """Whether it was there, and could be found, all the time since then."""
        return self.born_s <= since_s and self.gone_s is None and self.has_name

    # ── interest ─────────────────────────────────────────────────────────────────────────────────────────────────

    def watch(self, frontend: str, now: int, pulse: Pulse) -> None:
        if self.is_late(now):
            return
        expiry, excused = now + self.interest_ms, pulse.excuses(now)
        self.watchers = {name: until for name, until in self.watchers.items() if excused or until > now}
        self.watchers[frontend] = expiry
        if self.submission.resume_window_ms:
            self.keep_until = max(self.keep_until, expiry + self.submission.resume_window_ms)

    @property
    def attempts(self) -> int:
        return self.epoch - self.preemptions

    # ── lease ────────────────────────────────────────────────────────────────────────────────────────────────────

    def take(self, lease: Lease, until: int) -> None:
        """Raises Broken where the lease is not what it must be."""
        if self.token:
            raise Broken("I4", f"{self} got a second holder, epoch {lease.epoch}, while the first has its lease")
        found = (lease.epoch, lease.attempts, lease.strikes, lease.last_offset)
        expected = (self.epoch + 1, self.attempts + 1, self.strikes, self.last)
        if found != expected:
            raise Broken("I4", f"{self}: (epoch, attempts, strikes, last) are {found}, expected {expected}")
        self.token, self.lease_until, self.epoch, self.has_result = lease.token, until, lease.epoch, False

    def write(self, offset: int, token: str) -> None:
        if offset != self.last + 1:
            raise Broken("I2", f"{self}: offset {offset} was accepted behind {self.last}")
        self.last, self.written[offset] = offset, token
        self.strikes, self.has_result = 0, True

    def release(self) -> None:
        self.token = ""

    def give_way(self) -> None:
        self.token = ""
        self.preemptions += 1

    def lapse(self) -> None:
        self.strikes += 0 if self.has_result else 1
        self.token = ""

    def end(self, code: str, reason: str) -> None:
        self.ending, self.token = (code, reason), ""
        self.watchers = {}

    # ── what an ending must be justified by ──────────────────────────────────────────────────────────────────────

    def may_lapse(self, now: int, pulse: Pulse) -> bool:
        return bool(self.token) and now >= self.lease_until and not pulse.excuses(now)

    def deserves(self, reason: str, now: int, pulse: Pulse, *, reaped: bool) -> bool:
        """Whether the queue may end it so on its own."""
        if reason == "DEADLINE_EXCEEDED":
            return self.is_late(now)
        if reason == "ABANDONED":
            return not self.is_wanted(now, pulse)
        if reason == "POISON_JOB":
            lapses = reaped and self.may_lapse(now, pulse) and not self.has_result
            return lapses and self.strikes + 1 >= MAX_STRIKES
        return reason == "TOO_MANY_ATTEMPTS" and self.attempts >= MAX_ATTEMPTS
