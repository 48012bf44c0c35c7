"""The queue in plain Python: what every verb answers and leaves behind, by the invariants I1 to I9 of the design.

It knows nothing of keys or scripts. `now` is moved by the test; a verb answers what the real one must answer. Lease
tokens are random: the test tells the oracle which it saw.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from millrace.queue.queue import CLAIM_MS
from millrace.queue.types import Emission, Ending, Limits, Priority, Result, Seal, Seen, State, Submission, Verdict
from tests.queue.ledger import ABANDONED, LATE, MAX_ATTEMPTS, MAX_STRIKES, POISON, WORN_OUT, Job, Ledger, Told

ROOM = {Priority.INTERACTIVE: 1.0, Priority.STANDARD: 0.8, Priority.BATCH: 0.5}


@dataclass(frozen=True, slots=True)
class Leased:
    """A lease as the oracle foresees it, its token apart."""

    job: str
    epoch: int
    strikes: int
    attempts: int
    last_offset: int
    history: bytes
    priority: Priority
    preemptions: int
    trace: str


Offer = tuple[str, str, int]
"""A job that its worker would give back: its name, the lease's token, its cost so far."""


class Oracle(Ledger):
    """One model's queue."""

    def __init__(self, limits: Limits, now: int) -> None:
        super().__init__(limits, now)
        self.claims: dict[str, tuple[str, int, int]] = {}
        """Job → fingerprint, claimed, expiry."""
        self._sequence = 0
        self._hold: tuple[str, int] = ("", 0)
        self._takes: dict[str, tuple[int, bool, list[Leased], list[str], int]] = {}

    # ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def purge(self) -> None:
        """Forgets what has outlived its time."""
        self.jobs = {name: job for name, job in self.jobs.items() if not job.ending or job.expire_ms > self.now}
        self.claims = {name: claim for name, claim in self.claims.items() if claim[2] > self.now}
        self._hold = self._hold if self._hold[1] > self.now else ("", 0)
        self._takes = {worker: take for worker, take in self._takes.items() if take[4] > self.now}
        self.untold = self.untold if self.untold_until > self.now else []

    # ── frontend ─────────────────────────────────────────────────────────────────────────────────────────────────

    def submit(self, submission: Submission, *, slow: bool = False) -> str:
        """`ok`, `reused`, or the bound that is full. `slow`: the queue says that the job could not make its deadline,
        which may only be where something waits."""
        name, mine, limits = submission.ref.job, submission.fingerprint, self.limits
        fingerprint, claimed, _ = self.claims.get(name, ("", 0, 0))
        if name not in self.claims or (name not in self.jobs and self.now > claimed + CLAIM_MS):
            lifetime = submission.timeout_ms + limits.retention_ms + 60_000
            self.claims[name] = mine, self.now, self.now + lifetime
        elif fingerprint != mine:
            return "reused"
        if name in self.jobs and self.jobs[name].submission.fingerprint != mine:
            del self.claims[name]
            return "reused"
        if name in self.jobs:
            return "ok"
        if bound := self._full(submission) or ("deadline_too_near" if slow and self.load()["jobs"] else ""):
            del self.claims[name]
            return bound
        self._sequence += 1
        job = Job(submission, self._sequence, self.now)
        if submission.watcher:
            job.watchers[submission.watcher] = self.now + limits.interest_ms
            if submission.resume_window_ms:
                job.keep_until = self.now + limits.interest_ms + submission.resume_window_ms
        if submission.wanted_to_deadline:
            job.keep_until = job.deadline_ms
        self.jobs[name] = job
        self._enqueue(job)
        return "ok"

    def watch(self, frontend: str, names: Iterable[str]) -> list[Seen]:
        return [self._watch(frontend, self.jobs.get(name)) for name in names]

    def _watch(self, frontend: str, job: Job | None) -> Seen:
        if job is None:
            return Seen(state=None, last_offset=0)
        if not job.ending and self.now >= job.deadline_ms:
            self._finish(job, LATE)
        elif not job.ending:
            expiry = self.now + self.limits.interest_ms
            excused = self.is_amnesty
            job.watchers = {name: until for name, until in job.watchers.items() if until > self.now or excused}
            job.watchers[frontend] = expiry
            if job.submission.resume_window_ms:
                job.keep_until = max(job.keep_until, expiry + job.submission.resume_window_ms)
        return Seen(state=job.state, last_offset=job.last)

    def unwatch(self, frontend: str, names: Iterable[str]) -> None:
        for name in names:
            job = self.jobs.get(name)
            if job and not job.ending:
                job.watchers.pop(frontend, None)
                if not self._is_wanted(job):
                    self._finish(job, ABANDONED)

    def end(self, name: str, ending: Ending) -> bool:
        job = self.jobs.get(name)
        if job is None or job.ending:
            return False
        self._finish(job, ending)
        return True

    def forget(self, name: str) -> None:
        if name not in self.jobs or self.jobs[name].ending:
            self.jobs.pop(name, None)
            self.claims.pop(name, None)

    # ── worker ───────────────────────────────────────────────────────────────────────────────────────────────────

    def take(
        self, worker: str, sequence: int, room: int, largest: float, alone: bool, offered: Sequence[Offer] = ()
    ) -> tuple[bool, list[Leased], list[str]]:
        if worker in self._takes and self._takes[worker][0] == sequence:
            return self._takes[worker][1:4]
        if worker in self._takes and sequence < self._takes[worker][0]:
            return False, [], []
        leases: list[Leased] = []
        given: list[str] = []
        hold = room > 0 and self._take_struck(worker, largest, alone, leases)
        if not hold:
            offers = deque(offered)
            for priority in sorted(Priority, reverse=True):
                self._take_class(priority, worker, room, largest, leases, offers, given)
        hold = hold and not leases
        self._takes[worker] = sequence, hold, leases, given, self.now + 2 * self.limits.lease_ms
        return hold, leases, given

    def _take_struck(self, worker: str, largest: float, alone: bool, leases: list[Leased]) -> bool:
        """Whether the worker may take nothing else now."""
        while struck := self._waiting(lambda job: job.strikes > 0):
            head = struck[0]
            if self._end_head_if_useless(head):
                continue
            if alone:
                if head.submission.cost > largest:
                    return False
                self._hold = "", 0
                leases.append(self._lease(head, worker))
                return True
            holder, until = self._hold
            if until > self.now and holder != worker:
                return False
            self._hold = worker, self.now + self.limits.lease_ms
            return True
        return False

    def _take_class(
        self,
        priority: Priority,
        worker: str,
        room: int,
        largest: float,
        leases: list[Leased],
        offers: deque[Offer],
        given: list[str],
    ) -> None:
        share, skipped = self.shares[priority], 0
        while skipped < len(share.waiting):
            is_full = len(leases) >= room + len(given)
            if is_full and not self._is_offered(priority, offers):
                return
            tenant = share.order()[skipped]
            head = self._line(tenant, priority)[0]
            if self._end_head_if_useless(head):
                continue
            if head.submission.cost > largest:
                skipped += 1
            else:
                if is_full:
                    given.append(self._give_back(*offers.popleft()))
                share.serve(tenant)
                leases.append(self._lease(head, worker))

    def _is_offered(self, priority: Priority, offers: deque[Offer]) -> bool:
        """Whether the next offer that stands is a job of a lower class. Drops those that do not stand."""
        while offers:
            job = self.jobs.get(offers[0][0])
            if job is not None and job.holds(offers[0][1]):
                return job.priority < priority
            offers.popleft()
        return False

    def _give_back(self, name: str, token: str, cost: int) -> str:
        self._release(self.jobs[name], token, cost)
        if not self.jobs[name].ending:
            self.jobs[name].attempts -= 1
            self.jobs[name].preemptions += 1
        return token

    def _end_head_if_useless(self, job: Job) -> bool:
        if job.attempts >= MAX_ATTEMPTS:
            self._finish(job, WORN_OUT)
        return bool(job.ending) or self._end_if_useless(job)

    def _lease(self, job: Job, worker: str) -> Leased:
        self._dequeue(job)
        job.state, job.holder, job.lease_until = State.RUNNING, worker, self.now + self.limits.lease_ms
        job.epoch += 1
        job.attempts += 1
        job.base = job.last
        job.first_take_ms = job.first_take_ms or self.now
        self._charge(job, max(job.submission.cost, job.spent))
        job.log.append(Seal(last_offset=job.last, epoch=job.epoch, holder=worker))
        return Leased(
            job=job.name,
            epoch=job.epoch,
            strikes=job.strikes,
            attempts=job.attempts,
            last_offset=job.last,
            history=job.history,
            priority=job.priority,
            preemptions=job.preemptions,
            trace=job.submission.trace,
        )

    def emit(self, emissions: Sequence[Emission]) -> list[Verdict]:
        return [self._emit(emission) for emission in emissions]

    def _emit(self, emission: Emission) -> Verdict:
        job, offset, token = self.jobs.get(emission.ref.job), emission.offset, emission.token
        if job is None:
            return Verdict.LOST
        if (job.ender == token) if offset == 0 else (offset <= job.last and job.tokens[offset - 1] == token):
            return Verdict.DUPLICATE
        if not job.holds(token):
            return Verdict.LOST
        if offset not in (0, job.last + 1):
            return Verdict.GAP
        if self._end_if_useless(job):
            return Verdict.UNWANTED
        if offset:
            result = Result(offset=offset, history=emission.history, body=emission.result)
            job.log.append(result)
            job.tokens.append(token)
            job.strikes = 0
            self._post(job, result)
        job.spent = max(job.spent, emission.cost)
        if emission.ending:
            job.ender, job.timing = token, emission.timing
            self._finish(job, emission.ending)
        else:
            job.lease_until = self.now + self.limits.lease_ms
        return Verdict.OK

    def renew(self, held: Sequence[tuple[str, str]]) -> list[Verdict]:
        return [self._renew(self.jobs.get(name), token) for name, token in held]

    def _renew(self, job: Job | None, token: str) -> Verdict:
        if job is None or not job.holds(token):
            return Verdict.LOST
        if self._end_if_useless(job):
            return Verdict.UNWANTED
        job.lease_until = self.now + self.limits.lease_ms
        return Verdict.OK

    def release(self, held: Sequence[tuple[str, str, int]]) -> list[Verdict]:
        return [self._release(self.jobs.get(name), token, cost) for name, token, cost in held]

    def _release(self, job: Job | None, token: str, cost: int) -> Verdict:
        if job is None or not job.holds(token):
            return Verdict.LOST
        job.spent = max(job.spent, cost)
        if not self._end_if_useless(job):
            self._requeue(job)
        return Verdict.OK

    # ── both ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def reap(self, order: Sequence[str] = ()) -> list[Told]:
        """`order` says which jobs are looked at first; the contract leaves it open."""
        if self.was_away:
            self.amnesty_until = self.now + self.limits.lease_ms
        self.last_reap = self.now
        for job in sorted(self.unended, key=lambda job: order.index(job.name) if job.name in order else len(order)):
            job.lease_until = min(job.lease_until, self.now + self.limits.lease_ms)
            if self._end_if_useless(job) or job.state is not State.RUNNING:
                continue
            if self.now >= job.lease_until and not self.is_amnesty:
                self._lapse(job)
        told, self.untold = self.untold, []
        return told

    def _lapse(self, job: Job) -> None:
        if job.last == job.base:
            job.strikes += 1
        if job.strikes >= MAX_STRIKES:
            self._finish(job, POISON)
        else:
            self._requeue(job)

    def load(self) -> dict[str, float]:
        """What waits and runs."""
        return self._held(lambda _: True) | {"running": float(len(self.unended) - len(self._waiting(lambda _: True)))}

    def _held(self, matches: Callable[[Job], bool]) -> dict[str, float]:
        waiting, unended = self._waiting(matches), [job for job in self.unended if matches(job)]
        return {
            "jobs": float(len(waiting)),
            "cost": float(sum(job.submission.cost for job in waiting)),
            "bytes": float(sum(len(job.submission.payload) for job in unended)),
        }

    def _full(self, submission: Submission) -> str:
        """A class may fill its part of a bound; behind the first half of that, a tenant its share by weight."""
        limits, tenant, room = self.limits, submission.ref.tenant, ROOM[submission.priority]
        bounds = {"jobs": limits.max_waiting_jobs, "cost": limits.max_waiting_cost, "bytes": limits.max_payload_bytes}
        amounts = {"jobs": 1, "cost": submission.cost, "bytes": len(submission.payload)}
        held, own = self._held(lambda _: True), self._held(lambda job: job.tenant == tenant)
        share = self._share(submission)
        for bound, limit in bounds.items():
            most, amount = limit * room, amounts[bound]
            if held[bound] + amount > most:
                return bound
            if own[bound] and held[bound] + amount > most / 2 and own[bound] + amount > most * share:
                return "tenant"
        return "tenant" if own["jobs"] >= limits.max_tenant_jobs else ""

    def _share(self, submission: Submission) -> float:
        others = self._waiting(
            lambda job: (job.priority, job.strikes) == (submission.priority, 0) and job.tenant != submission.ref.tenant
        )
        weights = {job.tenant: job.submission.weight for job in others}
        return submission.weight / (submission.weight + sum(weights.values()))
