"""Drives the real queue and the oracle side by side, and compares all that can be seen after every step.

Three workers and two frontends share nine jobs of three tenants. Workers keep every lease that they ever got, so that
each is also a zombie; every call may be repeated as if its reply had been lost; the clock jumps, and runs backwards.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from millrace.errors import AlreadyExists, Code, Exhausted
from millrace.queue.keys import JobRef, job_index
from millrace.queue.types import Emission, Ending, Lease, Priority, Submission, Taken
from tests.queue import truth
from tests.queue.compare import foreseen, same, seen
from tests.queue.ledger import Job
from tests.queue.oracle import Leased, Oracle
from tests.queue.probe import dump
from tests.queue.rig import (
    ENDINGS,
    FRONTENDS,
    LIMITS,
    MODEL,
    NAMES,
    WORKERS,
    Rig,
    frontends,
    index,
    moments,
    picks,
    submissions,
    workers,
)


@dataclass(slots=True)
class Held:
    """A lease as its worker knows it: it may have lapsed long ago."""

    worker: str
    lease: Lease
    last: int


class QueueMachine(RuleBasedStateMachine):
    """Needs a rig, by a subclass."""

    rig: Rig

    def __init__(self) -> None:
        super().__init__()
        self.rig.reset()
        self.queue, self.clock = self.rig.queue, self.rig.clock
        self.oracle = Oracle(LIMITS, self.clock.now)
        self.held: list[Held] = []
        self.sequences = dict.fromkeys(WORKERS, 0)
        self.written = 0
        self.again: Callable[[], None] = lambda: None

    def do(self, step: Callable[[], None]) -> None:
        """Runs a step; `again` is how it is repeated."""
        self.again = step
        step()

    def ask(self, call: Awaitable[Any]) -> Any:
        return self.rig.run(call)

    # ── frontend ─────────────────────────────────────────────────────────────────────────────────────────────────

    @initialize(first=st.lists(submissions, min_size=2, max_size=5, unique_by=lambda submission: submission.ref))
    def begin(self, first: list[Submission]) -> None:
        self.reap()
        for submission in first:
            self.submit(submission)

    @rule(submission=submissions)
    def submit(self, submission: Submission) -> None:
        self.do(lambda: self._submit(submission))

    @precondition(lambda self: self.oracle.jobs)
    @rule(pick=index, fingerprint=st.sampled_from(["1" * 32, "2" * 32]))
    def submit_again(self, pick: int, fingerprint: str) -> None:
        """Under a name that is taken."""
        self.submit(replace(self._known(pick).submission, fingerprint=fingerprint))

    def _known(self, pick: int) -> Job:
        jobs = list(self.oracle.jobs.values())
        return jobs[pick % len(jobs)]

    def _some(self, picks: list[int]) -> list[JobRef]:
        """Jobs, most of which are known."""
        return list(dict.fromkeys(self._known(pick).submission.ref if pick else NAMES[-1] for pick in picks))

    def _submit(self, submission: Submission) -> None:
        try:
            found = "ok" if self.ask(self.queue.submit(submission)) == submission.ref else "elsewhere"
        except AlreadyExists:
            found = "reused"
        except Exhausted as error:
            found = error.reason.removeprefix("QUEUE_FULL_").lower()
        same("submit", found, self.oracle.submit(submission, slow=found == "deadline_too_near"))

    @precondition(lambda self: self.oracle.jobs)
    @rule(frontend=frontends, picks=picks)
    def watch(self, frontend: str, picks: list[int]) -> None:
        watched = self._some(picks)

        def step() -> None:
            seen = self.ask(self.queue.watch(frontend, watched))
            same("watch", list(seen.values()), self.oracle.watch(frontend, [ref.job for ref in watched]))

        self.do(step)

    @precondition(lambda self: self.oracle.jobs)
    @rule(frontend=frontends, picks=picks)
    def unwatch(self, frontend: str, picks: list[int]) -> None:
        watched = self._some(picks)

        def step() -> None:
            self.ask(self.queue.unwatch(frontend, watched))
            self.oracle.unwatch(frontend, [ref.job for ref in watched])

        self.do(step)

    @precondition(lambda self: self.oracle.jobs)
    @rule(pick=index)
    def cancel(self, pick: int) -> None:
        ref = self._known(pick).submission.ref
        ending = Ending(code=Code.CANCELLED, reason="CANCELLED", message="the caller cancelled")
        self.do(lambda: same("end", self.ask(self.queue.end(ref, ending)), self.oracle.end(ref.job, ending)))

    @precondition(lambda self: self.oracle.jobs)
    @rule(pick=index)
    def forget(self, pick: int) -> None:
        ref = self._known(pick).submission.ref

        def step() -> None:
            self.ask(self.queue.forget([ref]))
            self.oracle.forget(ref.job)

        self.do(step)

    # ── worker ───────────────────────────────────────────────────────────────────────────────────────────────────

    @rule(
        worker=workers,
        jobs=st.sampled_from([1, 2, 3, 0]),
        largest=st.sampled_from([float("inf"), float("inf"), 10]),
        alone=st.booleans(),
        after_ms=moments,
    )
    def take(self, worker: str, jobs: int, largest: float, alone: bool, after_ms: int) -> None:
        self._move_clock(after_ms)
        self.sequences[worker] += 1
        sequence = self.sequences[worker]

        def step() -> None:
            call = self.queue.take(MODEL, worker, sequence, jobs=jobs, cost=largest, alone=alone)
            self._compare_take(worker, self.ask(call), *self.oracle.take(worker, sequence, jobs, largest, alone))

        self.do(step)

    @precondition(lambda self: self.held)
    @rule(
        worker=workers,
        jobs=st.sampled_from([0, 0, 1]),
        picks=picks,
        cost=st.sampled_from([0, 8]),
        largest=st.sampled_from([float("inf"), float("inf"), 10]),
    )
    def take_in_place(self, worker: str, jobs: int, picks: list[int], cost: int, largest: float) -> None:
        """Jobs of a higher class in the places of those that the worker, or a zombie, holds."""
        self._take_in_place(worker, jobs, [self._pick(pick).lease for pick in picks], cost, largest)

    @rule(worker=workers, lower=submissions, higher=submissions, cost=st.sampled_from([0, 8]))
    def give_way(self, worker: str, lower: Submission, higher: Submission, cost: int) -> None:
        """A job of the highest class comes to a worker without room, which offers all the leases that it ever had."""
        self.submit(replace(lower, priority=Priority.BATCH))
        self.take(worker, 3, float("inf"), False, 0)
        self.submit(replace(higher, priority=Priority.INTERACTIVE))
        self._take_in_place(worker, 0, [held.lease for held in self.held], cost, float("inf"))

    def _take_in_place(self, worker: str, jobs: int, leases: list[Lease], cost: int, largest: float) -> None:
        self.sequences[worker] += 1
        sequence = self.sequences[worker]
        offered = sorted(leases, key=lambda lease: lease.priority)
        real = [(lease.ref, lease.token, cost) for lease in offered]
        foretold = [(lease.ref.job, lease.token, cost) for lease in offered]

        def step() -> None:
            call = self.queue.take(MODEL, worker, sequence, jobs=jobs, cost=largest, alone=False, offered=real)
            answer = self.oracle.take(worker, sequence, jobs, largest, False, foretold)
            self._compare_take(worker, self.ask(call), *answer)

        self.do(step)

    def _compare_take(self, worker: str, taken: Taken, hold: bool, leases: list[Leased], given: list[str]) -> None:
        found = [
            Leased(
                job=lease.ref.job,
                epoch=lease.epoch,
                strikes=lease.strikes,
                attempts=lease.attempts,
                last_offset=lease.last_offset,
                history=lease.history,
                priority=lease.priority,
                preemptions=lease.preemptions,
                trace=lease.trace,
            )
            for lease in taken.leases
        ]
        same("take", (taken.hold, found, list(taken.given_back)), (hold, leases, given))
        known = {held.lease.token for held in self.held}
        for lease in taken.leases:
            if lease.token not in known:
                self.oracle.jobs[lease.ref.job].token = lease.token
                self.held.append(Held(worker, lease, lease.last_offset))

    @precondition(lambda self: self._current())
    @rule(
        pick=index,
        results=st.sampled_from([1, 2]),
        ending=st.sampled_from([None, None, None, *ENDINGS]),
        cost=st.sampled_from([0, 2, 8, 30]),
        after_ms=moments,
    )
    def work(self, pick: int, results: int, ending: Ending | None, cost: int, after_ms: int) -> None:
        """A worker with a good lease goes on."""
        self._move_clock(after_ms)
        held = self._current()[pick % len(self._current())]
        emissions = [self._emission(held, held.last + 1 + more, cost=cost) for more in range(results)]
        self._emit([*emissions[:-1], replace(emissions[-1], ending=ending)])

    @precondition(lambda self: self.held)
    @rule(
        picks=picks, skew=st.sampled_from([0, 1, -1, 2]), ending=st.sampled_from([None, *ENDINGS]), bare=st.booleans()
    )
    def emit(self, picks: list[int], skew: int, ending: Ending | None, bare: bool) -> None:
        """Workers with any lease write at any offset, or only the end."""
        chosen = [self._pick(pick) for pick in picks]
        offsets = [0 if bare else max(held.last + 1 + skew, 1) for held in chosen]
        self._emit(
            [
                replace(self._emission(held, offset, cost=9), ending=ending)
                for held, offset in zip(chosen, offsets, strict=True)
            ]
        )

    def _emission(self, held: Held, offset: int, cost: int) -> Emission:
        self.written += 1
        return Emission(
            ref=held.lease.ref,
            token=held.lease.token,
            offset=offset,
            history=self.written.to_bytes(8, "big"),
            result=f"{held.worker} {self.written}".encode(),
            timing=f"timing {self.written}".encode(),
            cost=cost,
        )

    def _emit(self, emissions: list[Emission]) -> None:
        def step() -> None:
            same("emit", self.ask(self.queue.emit(MODEL, emissions)), self.oracle.emit(emissions))

        self.do(step)
        for held in self.held:
            job = self.oracle.jobs.get(held.lease.ref.job)
            held.last = job.last if job else held.last

    def _current(self) -> list[Held]:
        """The leases that are still good."""
        jobs = self.oracle.jobs
        return [
            held
            for held in self.held
            if held.lease.ref.job in jobs and jobs[held.lease.ref.job].holds(held.lease.token)
        ]

    @precondition(lambda self: self.held)
    @rule(picks=picks, after_ms=moments)
    def renew(self, picks: list[int], after_ms: int) -> None:
        self._move_clock(after_ms)
        leases = [self._pick(pick).lease for pick in picks]

        def step() -> None:
            found = self.ask(self.queue.renew(MODEL, [(lease.ref, lease.token) for lease in leases]))
            same("renew", found, self.oracle.renew([(lease.ref.job, lease.token) for lease in leases]))

        self.do(step)

    @precondition(lambda self: self.held)
    @rule(picks=picks, cost=st.sampled_from([0, 8]))
    def release(self, picks: list[int], cost: int) -> None:
        leases = [self._pick(pick).lease for pick in picks]

        def step() -> None:
            found = self.ask(self.queue.release(MODEL, [(lease.ref, lease.token, cost) for lease in leases]))
            same("release", found, self.oracle.release([(lease.ref.job, lease.token, cost) for lease in leases]))

        self.do(step)

    def _pick(self, pick: int) -> Held:
        """A lease: first those of zombies whose job another worker holds, then the good ones, then any."""
        jobs = self.oracle.jobs
        zombies = [held for held in self.held if jobs.get(held.lease.ref.job, held.lease).token != held.lease.token]
        running = [held for held in zombies if held.lease.ref.job in jobs and jobs[held.lease.ref.job].holder]
        pool = [*running, *self._current(), *self.held[-2:]]
        return pool[pick % len(pool)]

    # ── time, loss, accidents ────────────────────────────────────────────────────────────────────────────────────

    @rule()
    def reap(self) -> None:
        def step() -> None:
            order = self._due_order()
            ended = self.ask(self.queue.reap(MODEL))
            told = [(job.ref.job, job.code, job.reason, job.attempts, job.last_offset) for job in ended]
            same("reap", sorted(told), sorted(self.oracle.reap(order)))

        self.do(step)

    def _due_order(self) -> list[str]:
        """In which order reap looks at jobs: by when they are due; all at once after the clock ran backwards."""
        due = self.ask(self.rig.redis.zrange(f"{MODEL.base}due", 0, -1, withscores=True))
        latest = self.clock.now if self.clock.now < (self.oracle.last_reap or 0) else float("inf")
        return [job.decode() for job, at in sorted(due, key=lambda pair: (min(pair[1], latest), pair[0]))]

    @rule(seconds=st.sampled_from([1, 2, 4]), alive=st.sets(st.sampled_from([*WORKERS, *FRONTENDS])))
    def live(self, seconds: int, alive: set[str]) -> None:
        """Time passes while the living renew and somebody reaps, each second."""
        for _ in range(seconds):
            self.pass_time(1_000)
            for held in [held for held in self.held if held.worker in alive][-4:]:
                pair = held.lease.ref, held.lease.token
                found = self.ask(self.queue.renew(MODEL, [pair]))
                same("renew", found, self.oracle.renew([(pair[0].job, pair[1])]))
            for frontend in sorted(alive & set(FRONTENDS)):
                names = [job.name for job in self.oracle.unended if frontend in job.watchers]
                watched = [JobRef.parse(MODEL, name) for name in names]
                same(
                    "watch",
                    list(self.ask(self.queue.watch(frontend, watched)).values()),
                    self.oracle.watch(frontend, names),
                )
            self.reap()

    @rule(worker=workers, alone=st.sampled_from([True, True, False]), result=st.booleans(), next_worker=workers)
    def take_and_die(self, worker: str, alone: bool, result: bool, next_worker: str) -> None:
        """The frontends live on, and see the lease lapse; another worker comes."""
        self.take(worker, 1, float("inf"), alone, 0)
        if result and self._current():
            self.work(-1, 1, None, 2, 0)
        self.live(4, set(FRONTENDS))
        self.take(next_worker, 2, float("inf"), alone, 0)
        if not alone:
            self.take(worker, 2, float("inf"), alone, 0)

    @rule(by_ms=st.sampled_from([1, 1_400, 1_501, 3_000, 9_000, 25_000, 700_000]))
    def pass_time(self, by_ms: int) -> None:
        """Time passes and nobody does anything: after more than half a lease, as if the server had been away."""
        self._move_clock(by_ms)

    @precondition(lambda self: not self.oracle.was_away)
    @rule(by_ms=st.sampled_from([1, 2_000, 20_000]))
    def run_backwards(self, by_ms: int) -> None:
        """To before the last reap, so that the next one notices."""
        last = self.oracle.last_reap or self.clock.now
        self._move_clock(last - by_ms - self.clock.now)

    def _move_clock(self, by_ms: int) -> None:
        if not by_ms:
            return
        if self.oracle.last_reap is not None and self.clock.now < self.oracle.last_reap:
            self.reap()
        self.clock.now += by_ms
        self.oracle.now = self.clock.now
        self.ask(self.rig.redis.purge())
        self.oracle.purge()
        self.again = lambda: None

    @rule()
    def repeat(self) -> None:
        """The last reply was lost and the call is made again: nothing changes, but that a bell may ring."""
        before = self._state()
        self.again()
        same("state after the call was repeated", self._state(), before)

    def _state(self) -> dict[str, Any]:
        keys = self.ask(dump(self.rig.redis))
        return {name: key for name, key in keys.items() if not name.endswith(":bell")}

    @rule()
    def lose_scripts(self) -> None:
        self.ask(self.rig.redis.script_flush())

    # ── what must hold after every step ──────────────────────────────────────────────────────────────────────────

    @invariant()
    def everything_agrees(self) -> None:
        keys = self.ask(dump(self.rig.redis))
        wrong = truth.differences(MODEL, keys, self.clock.now, was_away=self.oracle.was_away)
        same("differences between the keys", wrong, [])
        found = {job: seen(keys, job, fields) for job, fields in truth.hashes(MODEL, keys).items()}
        expected = {job.name: foreseen(job) for job in self.oracle.jobs.values()}
        same("jobs", found, expected)
        self._compare_shares(keys)
        start = job_index("", "").removesuffix(":")
        same(
            "claims",
            {
                name.removeprefix(start): (
                    key.content["fingerprint"].decode(),
                    int(key.content["claimed"]),
                    key.expire_ms,
                )
                for name, key in keys.items()
                if name.startswith(start)
            },
            self.oracle.claims,
        )
        same("mailboxes", self.ask(self.rig.listener.heard()), self.oracle.posts)
        self.oracle.posts.clear()

    def _compare_shares(self, keys: truth.Keys) -> None:
        for priority, share in self.oracle.shares.items():
            for kind, expected in (("fair", share.waiting), ("rest", share.resting)):
                key = keys.get(f"{MODEL.base}{kind}:{int(priority)}")
                same(f"{kind} {priority.name}", key.content if key else {}, expected)

    def teardown(self) -> None:
        """When everything has ended and expired, no key of a job is left (I9), and every job had one ending (I1)."""
        self._move_clock(7_000_000)
        for _ in range(2):
            self.reap()
            self.everything_agrees()
            self._move_clock(LIMITS.lease_ms)
        same("jobs without an end", self.oracle.unended, [])
        self._move_clock(700_000)
        same("keys that are left", truth.leaked(self.ask(dump(self.rig.redis))), [])
