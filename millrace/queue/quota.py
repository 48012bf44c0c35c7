"""What a tenant may take of the whole fleet: requests and tokens in a minute, and jobs at a time.

A job takes its place before it is queued, and pays for what it is estimated to cost. Whoever sees its end gives the
place back, and settles what was paid. For jobs whose end nobody saw, whoever takes a place looks at a few others: they
are found sooner than they become many. With its deadline a job's place ends whatever happens.
"""

import asyncio
import secrets
from dataclasses import dataclass
from typing import Any

from millrace.errors import Exhausted, Unavailable
from millrace.queue import keys, scripts
from millrace.queue.connection import AWAY, Redis, RedisError, repeated
from millrace.queue.keys import JobRef, ModelVersion
from millrace.queue.types import State

Fields = list[bytes | None]
"""A job's state, and what it has cost."""
LATE_MS = 60_000
"""How long after its deadline the last trace of a job is gone."""
PLACE_S = 1.0
"""When to ask again where all places are taken: nobody knows when one is given back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """Bounds of one tenant; None: none."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Of the jobs' cost, which is rows where a model takes tensors."""
    concurrent_jobs: int | None = None
    """Jobs that wait or run."""


class Quotas:
    """Raises Unavailable where Redis is away."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def take(self, ref: JobRef, quota: Quota, *, cost: int, timeout_ms: int) -> str:
        """A place for a job of this estimated cost; answers what `undo` wants to know.

        Raises:
            Exhausted: a bound is reached.
        """
        bounds = (quota.requests_per_minute or 0, quota.tokens_per_minute or 0, quota.concurrent_jobs or 0)
        receipt = secrets.token_hex(8)
        asked = (receipt, timeout_ms + LATE_MS, cost, *bounds)
        outcome, *detail = await self._run("take", ref, *asked)
        if outcome in (b"taken", b"jobs") and await self._settle_ended(ref.tenant, detail) and outcome == b"jobs":
            outcome, *detail = await self._run("take", ref, *asked)
        if outcome in (b"taken", b"held"):
            return receipt
        raise _refusal(outcome, detail, quota)

    async def settle(self, ref: JobRef) -> None:
        """Of a job that has ended: gives its place back; it pays what it has really cost, as far as that is known."""
        await self._settle(ref, await self._seen(ref))

    async def undo(self, ref: JobRef, receipt: str) -> None:
        """The job was not queued: what `take` took is given back."""
        await self._run("undo", ref, receipt)

    async def _settle_ended(self, tenant: str, members: list[bytes]) -> bool:
        """Whether some of these jobs have ended; they are settled."""
        refs = [_ref(tenant, member.decode()) for member in members]
        seen = await asyncio.gather(*map(self._seen, refs))
        ended = [(ref, fields) for ref, fields in zip(refs, seen, strict=True) if _has_ended(fields)]
        await asyncio.gather(*(self._settle(ref, fields) for ref, fields in ended))
        return bool(ended)

    async def _settle(self, ref: JobRef, fields: Fields) -> None:
        await self._run("settle", ref, (fields[1] or b"") if _has_ended(fields) else b"")

    async def _seen(self, ref: JobRef) -> Fields:
        try:
            fields: Fields = await repeated(self._redis.hmget, keys.job(ref), ["state", "spent"])
        except (*AWAY, RedisError) as error:
            raise _away() from error
        return fields

    async def _run(self, verb: str, ref: JobRef, *args: str | bytes | int) -> Any:
        base, member = keys.quota(ref.tenant), f"{ref.model}:{ref.job_id}"
        try:
            return await scripts.run(self._redis, "quota", base, verb, member, *args, call=repeated)
        except (*AWAY, RedisError) as error:
            raise _away() from error


def _away() -> Unavailable:
    return Unavailable("the quotas are not reachable", reason="QUEUE_AWAY")


def _has_ended(fields: Fields) -> bool:
    """Or is not known any more."""
    return fields[0] is None or fields[0].decode() == State.ENDED


def _ref(tenant: str, member: str) -> JobRef:
    model, _, job_id = member.rpartition(":")
    return JobRef(ModelVersion.parse(model), tenant, job_id)


def _refusal(outcome: bytes, detail: list[Any], quota: Quota) -> Exhausted:
    if outcome == b"jobs":
        text = f"this tenant may have {quota.concurrent_jobs} jobs at a time"
        return Exhausted(text, reason="QUOTA_JOBS", retry_after_s=PLACE_S)
    kind = outcome.decode()
    most = quota.requests_per_minute if kind == "requests" else quota.tokens_per_minute
    text = f"this tenant may have {most} {kind} in a minute"
    return Exhausted(text, reason=f"QUOTA_{kind.upper()}", retry_after_s=detail[0] / 1000)
