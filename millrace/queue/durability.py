"""When a job or a result counts as kept: at once (`Fast`), or when replicas have it too (`Replicated`).

Redis acknowledges a write before a replica has it, and a fail-over can lose what was acknowledged. `Replicated` holds
back what a frontend has read until a WAIT behind it says that replicas have it: then what a caller has seen is on
another machine. Workers do not wait; their results only reach callers later.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from millrace.errors import Unavailable
from millrace.queue import history as running
from millrace.queue import scripts
from millrace.queue.connection import AWAY, Redis, RedisError
from millrace.queue.keys import JobRef, ModelVersion
from millrace.queue.types import End, Entry, Result

WAIT_MS = 500
RETRY_S = 0.05


class Durability(Protocol):
    """What a frontend asks before it answers."""

    async def holds(self, ref: JobRef) -> bool:
        """Returns when the job is kept; False where Redis has it no more. Raises Unavailable where that cannot be known
        in time."""

    async def kept(self, ref: JobRef, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Returns when these entries of a log are kept. Fewer of them: the log is not what they say, and must be read
        again. Raises as `holds`."""

    async def run(self) -> None:
        """Works until cancelled."""


class Fast:
    """What the primary has is kept."""

    async def holds(self, ref: JobRef) -> bool:
        return True

    async def kept(self, ref: JobRef, entries: Sequence[Entry]) -> Sequence[Entry]:
        return entries

    async def run(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class _Claim:
    """What is asked for one job, and since when."""

    ref: JobRef
    offset: int
    history: bytes
    ended: bool
    since: float
    answer: asyncio.Future[bool]


class Replicated:
    """What `replicas` replicas have is kept. `redis` is a client of its own, whose calls may wait. One barrier
    at a time serves all that have asked meanwhile."""

    def __init__(self, redis: Redis, *, replicas: int, outage_s: float) -> None:
        self._redis, self._replicas, self._outage_s = redis, replicas, outage_s
        self._claims: list[_Claim] = []
        self._news = asyncio.Event()

    async def holds(self, ref: JobRef) -> bool:
        return await self._ask(ref, 0, b"", ended=False)

    async def kept(self, ref: JobRef, entries: Sequence[Entry]) -> Sequence[Entry]:
        chain = chained(entries)
        last = next((entry for entry in reversed(chain) if isinstance(entry, Result)), None)
        offset, history = (last.offset, last.history) if last is not None else (0, b"")
        stands = await self._ask(ref, offset, history, ended=bool(chain) and isinstance(chain[-1], End))
        return chain if stands else ()

    async def _ask(self, ref: JobRef, offset: int, history: bytes, *, ended: bool) -> bool:
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._claims.append(_Claim(ref, offset, history, ended, time.monotonic(), answer))
        self._news.set()
        return await answer

    async def run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            claims, self._claims = [claim for claim in self._claims if not claim.answer.done()], []
            try:
                await self._settle(claims)
            except Unavailable:
                self._put_back(claims)
                await asyncio.sleep(RETRY_S)

    async def _settle(self, claims: Sequence[_Claim]) -> None:
        """Raises Unavailable where too few replicas have answered, or the connection broke."""
        groups: dict[ModelVersion, list[_Claim]] = defaultdict(list)
        for claim in claims:
            groups[claim.ref.model].append(claim)
        answers = await self._barrier(groups)
        for group, stands in zip(groups.values(), answers, strict=True):
            for claim, answer in zip(group, stands, strict=True):
                if not claim.answer.done():
                    claim.answer.set_result(bool(answer))

    async def _barrier(self, groups: dict[ModelVersion, list[_Claim]]) -> list[list[int]]:
        """All in one breath, which the pipe sends on one connection: so the WAIT is for what the scripts have seen."""
        text, _ = scripts.source("confirm")
        calls = [self._redis.eval(text, 1, model.base, *_arguments(group)) for model, group in groups.items()]
        try:
            *answers, replicas = await asyncio.gather(*calls, self._redis.wait(self._replicas, WAIT_MS))
        except (*AWAY, RedisError) as error:
            raise Unavailable("the queue is not reachable", reason="QUEUE_AWAY") from error
        if replicas < self._replicas:
            raise Unavailable("too few replicas have answered", reason="NOT_REPLICATED")
        return answers

    def _put_back(self, claims: Sequence[_Claim]) -> None:
        """To be asked again; those that have waited too long are given up."""
        for claim in claims:
            if claim.answer.done():
                continue
            if time.monotonic() - claim.since > self._outage_s:
                text = f"no replica has confirmed the job for {self._outage_s:g} s"
                claim.answer.set_exception(Unavailable(text, reason="NOT_REPLICATED"))
            else:
                self._claims.append(claim)
                self._news.set()


def chained(entries: Sequence[Entry]) -> Sequence[Entry]:
    """Those that lead to the last result, and the end behind it. A mailbox brings what it was told before a fail-over
    and after it; the last alone says nothing of the others, but the running hash does."""
    chain: list[Entry] = []
    after: Result | None = None
    for entry in reversed(entries):
        if isinstance(entry, Result):
            if after is not None and not _leads(entry, after):
                continue
            after = entry
        elif isinstance(entry, End) and chain:
            continue
        chain.append(entry)
    return chain[::-1]


def _leads(earlier: Result, later: Result) -> bool:
    if later.body is None or later.offset != earlier.offset + 1:
        return False
    return running.extend(earlier.history, later.body[: -running.FIELD_BYTES]) == later.history


def _arguments(claims: Sequence[_Claim]) -> list[str | bytes | int]:
    return [part for claim in claims for part in (claim.ref.job, claim.offset, claim.history, int(claim.ended))]
