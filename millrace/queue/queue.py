"""The queue: what frontends and workers may do to jobs, each verb one atomic script, each safe to repeat.

    frontend   submit → watch … → read → unwatch, end, forget
    worker     take → emit … / renew … → release
    both       reap, each second

A call whose reply is lost is repeated once; a Redis that stays away becomes `Unavailable`.
"""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from millrace.errors import AlreadyExists, Exhausted, Unavailable
from millrace.queue import keys, scripts, wire
from millrace.queue.connection import (
    AWAY,
    NoScriptError,
    OutOfMemoryError,
    Redis,
    RedisError,
    repeated,
)
from millrace.queue.keys import JobRef, ModelVersion
from millrace.queue.types import (
    Emission,
    EndedJob,
    Ending,
    Entry,
    JobRecord,
    Limits,
    Priority,
    Seen,
    State,
    Submission,
    Taken,
    Verdict,
)

CLAIM_MS = 5_000
"""How long a claim on a job's name entitles to submit it."""
MAILBOX_BYTES = 64 << 10
"""A larger result is announced by its offset, and read from the log."""
INLINE_BYTES = 8 << 10
"""A request of at most this size passes through the scripts, which saves a call on either side; more is slow there."""
REAP_JOBS = 256
FOR_EVER_MS = 2**52

RETRY_S = (0.05, 60.0)
"""The least and the most that a refused caller is told to wait."""
UNKNOWN_RETRY_S, FULL_S = 1.0, 2.0
"""What they are told where nothing is known of the rate, and where Redis itself has no memory left."""

_FULL = {
    b"jobs": "too many jobs wait for this model",
    b"cost": "too much work waits for this model",
    b"tenant": "this tenant has more than its share of what may wait for this model",
    b"bytes": "the payloads of this model's jobs fill their share of memory",
}


class JobQueue:
    """All jobs of all models in one Redis. Raises `Unavailable` where Redis is away."""

    def __init__(self, redis: Redis, limits: Limits | None = None) -> None:
        self._redis = redis
        self.limits = limits or Limits()

    # ── frontend ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def submit(self, submission: Submission) -> JobRef:
        """Queues the job, or finds the one that was queued under this name by the same request; answers where it is.

        Raises:
            AlreadyExists: the name belongs to another request.
            Exhausted: a bound of the queue is reached.
        """
        for _ in range(3):
            ref, claimed, fresh = await self._claim(submission)
            if not fresh and (record := await self.inspect(ref)) is not None:
                if record.fingerprint != submission.fingerprint:
                    raise _reused(ref)
                return ref
            placed = submission if ref == submission.ref else replace(submission, ref=ref)
            outcome, *detail = await self._place(placed, claimed + CLAIM_MS)
            if outcome == b"queued" or (outcome == b"exists" and detail[0].decode() == submission.fingerprint):
                return ref
            if outcome == b"exists":
                await self._give_up(placed, claimed)
                raise _reused(ref)
            if outcome in (b"full", b"slow", b"unserved"):
                await self._give_up(placed, claimed)
                raise _refusal(outcome, *detail)
        raise Unavailable("the job could not be queued in time", reason="CLAIM_LAPSED")

    async def _place(self, submission: Submission, not_after_ms: int) -> Any:
        payload, ref = submission.payload, submission.ref
        if len(payload) > INLINE_BYTES or not payload:
            key = keys.payload(ref, submission.fingerprint)
            await self._call(self._redis.set, key, payload, px=2 * CLAIM_MS, nx=True)
            payload = b""
        arguments = wire.submit_arguments(submission, self.limits, not_after_ms, payload)
        return await self._script("submit", ref.model, *arguments)

    async def _claim(self, submission: Submission) -> tuple[JobRef, int, bool]:
        """Where the job is or may be submitted, since when, and whether the claim was made just now."""
        wanted, replaced = submission.ref, ""
        if wanted.is_anonymous:
            return wanted, FOR_EVER_MS, True
        mine = (str(wanted.model), submission.fingerprint)
        lifetime = submission.timeout_ms + self.limits.retention_ms + 60_000
        index = keys.job_index(wanted.tenant, wanted.job_id)
        while True:
            answer = await scripts.run(self._redis, "claim", index, *mine, lifetime, replaced, call=self._call)
            model, fingerprint, claimed, now = answer
            ref = replace(wanted, model=ModelVersion.parse(model.decode()))
            is_mine = fingerprint.decode() == submission.fingerprint
            if now > claimed + CLAIM_MS and await self.inspect(ref) is None:
                replaced = claimed
            elif is_mine:
                return ref, claimed, claimed == now
            else:
                raise _reused(wanted)

    async def _give_up(self, submission: Submission, claimed: int) -> None:
        ref = submission.ref
        if ref.is_anonymous:
            return
        index, mine = keys.job_index(ref.tenant, ref.job_id), (str(ref.model), submission.fingerprint)
        await scripts.run(self._redis, "claim", index, *mine, 0, claimed, call=self._call)

    async def locate(self, tenant: str, job_id: str) -> JobRecord | None:
        """The job of this name as it stands; None where no such job is known."""
        index = keys.job_index(tenant, job_id)
        model = await self._call(self._redis.hget, index, "model")
        if model is None:
            return None
        return await self.inspect(JobRef(ModelVersion.parse(model.decode()), tenant, job_id))

    async def watch(self, frontend: str, refs: Iterable[JobRef]) -> dict[JobRef, Seen]:
        """Renews a frontend's interest in jobs, and says how they stand."""
        seen: dict[JobRef, Seen] = {}
        for model, group in _by_model(refs).items():
            names = [ref.job for ref in group]
            answers = await self._script("watch", model, frontend, self.limits.interest_ms, *names)
            for ref, (state, last) in zip(group, answers, strict=True):
                seen[ref] = Seen(state=State(state.decode()) if state else None, last_offset=last)
        return seen

    async def unwatch(self, frontend: str, refs: Iterable[JobRef]) -> None:
        """Takes back a frontend's interest; a job that nobody wants any more ends."""
        for model, group in _by_model(refs).items():
            await self._script("unwatch", model, frontend, *(ref.job for ref in group))

    async def read(self, ref: JobRef, after: int = 0, count: int = 128, *, epoch: int = 0) -> list[Entry]:
        """The log behind offset `after`, and there behind the seal of `epoch`: its seals, at most `count` entries, and
        the end where it is reached."""
        key = keys.results(ref)
        entries = await self._call(self._redis.xrange, key, f"({after}-{epoch}", "+", count)
        return [wire.decode_entry(entry_id, fields) for entry_id, fields in entries]

    async def inspect(self, ref: JobRef) -> JobRecord | None:
        """The job as it stands; None where there is none."""
        fields = await self._call(self._redis.hgetall, keys.job(ref))
        return wire.decode_record(ref, fields) if fields else None

    async def end(self, ref: JobRef, ending: Ending) -> bool:
        """Ends a job on the caller's word. False where it had ended, or is not known."""
        text = (int(ending.code), ending.reason, ending.message, ending.field)
        return bool(await self._script("end", ref.model, ref.job, *text))

    async def forget(self, refs: Iterable[JobRef]) -> None:
        """Removes ended jobs that were delivered and cannot be asked for again, and the names of those that were never
        queued; those that have not ended stay."""
        for model, group in _by_model(refs).items():
            gone = await self._script("forget", model, *(ref.job for ref in group))
            named = [ref for ref, is_gone in zip(group, gone, strict=True) if is_gone and not ref.is_anonymous]
            indices = (keys.job_index(ref.tenant, ref.job_id) for ref in named)
            await asyncio.gather(*(self._call(self._redis.delete, index) for index in indices))

    # ── worker ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def take(
        self,
        model: ModelVersion,
        worker: str,
        sequence: int,
        *,
        jobs: int,
        cost: float,
        alone: bool,
        payload_bytes: float = float("inf"),
        offered: Sequence[tuple[JobRef, str, int]] = (),
    ) -> Taken:
        """Leases up to `jobs` waiting jobs of at most `cost` each, until their payloads are more than `payload_bytes`
        together. The same `sequence` again gives the same leases.

        `offered` are jobs that the worker holds, lowest class first, given as (job, token, cost so far). Beyond `jobs`,
        each waiting job of a higher class takes the place of the next of them, which goes back to the front of its
        tenant's queue: without a strike, and without counting as an attempt.

        `alone` says that the worker runs nothing, or only jobs that lost their strikes there; only then may it be given
        a job with a strike.
        """
        largest, most_bytes = (int(min(bound, 2**53)) for bound in (cost, payload_bytes))
        nonce = secrets.token_urlsafe(9)
        arguments: list[wire.Argument] = [worker, sequence, jobs, largest, nonce, self.limits.lease_ms, int(alone)]
        arguments += [most_bytes, INLINE_BYTES, *_flat(offered)]
        return wire.decode_taken(model, await self._script("take", model, *arguments))

    async def is_waited_for(self, model: ModelVersion, above: Priority) -> bool:
        """Whether a job of a higher class waits that need not run alone. Costs one short command."""
        lines = [keys.fair(model, priority) for priority in Priority if priority > above]
        return bool(lines) and bool(await self._call(self._redis.exists, *lines))

    async def payload(self, ref: JobRef, fingerprint: str) -> bytes | None:
        """The request's bytes; None where the job has ended."""
        payload: bytes | None = await self._call(self._redis.get, keys.payload(ref, fingerprint))
        return payload

    async def emit(self, model: ModelVersion, emissions: Sequence[Emission]) -> list[Verdict]:
        """Appends one step's results to the logs and ends what is complete: one verdict for each emission."""
        arguments = wire.emit_arguments(emissions)
        return _verdicts(await self._script("emit", model, self.limits.lease_ms, MAILBOX_BYTES, *arguments))

    async def renew(self, model: ModelVersion, held: Sequence[tuple[JobRef, str]]) -> list[Verdict]:
        """Extends leases, given as (job, token)."""
        flat = [part for ref, token in held for part in (ref.job, token)]
        return _verdicts(await self._script("renew", model, self.limits.lease_ms, *flat))

    async def release(self, model: ModelVersion, held: Sequence[tuple[JobRef, str, int]]) -> list[Verdict]:
        """Hands jobs back without a strike, given as (job, token, cost so far)."""
        return _verdicts(await self._script("release", model, *_flat(held)))

    # ── both ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def reap(self, model: ModelVersion) -> list[EndedJob]:
        """Ends what is overdue and requeues lapsed leases. Answers the jobs that ended without a worker's word, by this
        call or any other: each is in the answer of one reap, whoever's, and of none where the answer is lost."""
        ended: list[EndedJob] = []
        while True:
            due, ends = await self._script("reap", model, self.limits.lease_ms, REAP_JOBS, REAP_JOBS)
            ended += [wire.decode_ended(model, end) for end in ends]
            if due < REAP_JOBS and len(ends) < REAP_JOBS:
                return ended

    async def load(self, model: ModelVersion) -> dict[str, float]:
        """What waits and runs: jobs, cost, standard_cost (of the classes before BATCH), interactive_cost, bytes,
        running; capacity, the estimated cost that gets done in a second while something waits, 0 where that was never
        seen."""
        load, pace, running = await asyncio.gather(
            self._call(self._redis.hgetall, f"{model.base}load"),
            self._call(self._redis.hgetall, f"{model.base}pace"),
            self._call(self._redis.zcard, f"{model.base}running"),
        )
        return wire.decode_load(load, pace) | {"running": float(running)}

    async def _script(self, name: str, model: ModelVersion, *args: wire.Argument) -> Any:
        return await scripts.run(self._redis, name, model.base, *args, call=self._call)

    async def _call(self, function: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> Any:
        """Makes a call that may be repeated. What a script says is not there yet goes on to who runs it."""
        try:
            return await repeated(function, *args, **options)
        except AWAY as error:
            raise Unavailable("the queue is not reachable", reason="QUEUE_AWAY") from error
        except NoScriptError:
            raise
        except OutOfMemoryError as error:
            raise Exhausted("the queue's memory is full", reason="MEMORY_FULL", retry_after_s=FULL_S) from error
        except RedisError as error:
            raise Unavailable(f"the queue refused: {error}", reason="QUEUE_REFUSED") from error


def _reused(ref: JobRef) -> AlreadyExists:
    return AlreadyExists(f"job {ref.job_id} is another request", reason="JOB_ID_REUSED")


def _refusal(outcome: bytes, *detail: Any) -> Exhausted | Unavailable:
    """What submit.lua's refusal says to the caller."""
    if outcome == b"unserved":
        return Unavailable("no worker has come for this model", reason="NO_WORKER")
    cause, retry_ms = detail
    retry_s = UNKNOWN_RETRY_S if retry_ms < 0 else min(max(retry_ms / 1000, RETRY_S[0]), RETRY_S[1])
    if outcome == b"slow":
        text = f"the job would wait about {cause / 1000:.1f} s, too long for its deadline"
        return Exhausted(text, reason="DEADLINE_TOO_NEAR", retry_after_s=retry_s)
    return Exhausted(_FULL[cause], reason=f"QUEUE_FULL_{cause.decode().upper()}", retry_after_s=retry_s)


def _flat(held: Sequence[tuple[JobRef, str, int]]) -> list[wire.Argument]:
    return [part for ref, token, cost in held for part in (ref.job, token, cost)]


def _verdicts(answers: list[bytes]) -> list[Verdict]:
    return [Verdict(answer.decode()) for answer in answers]


def _by_model(refs: Iterable[JobRef]) -> dict[ModelVersion, list[JobRef]]:
    groups: dict[ModelVersion, list[JobRef]] = defaultdict(list)
    for ref in refs:
        groups[ref.model].append(ref)
    return groups
