"""What models have done, summed over all processes that did it.

Each process writes its own totals since its start, so that a repeated write is harmless, and readers add them up. What
a process has done counts for a day after its last news, whether it lives or not: sums never fall while those live that
contribute to them, and then by what is a day old.

Load generators ask right after their last answer, and take the difference to what they were told before. So whoever
asks tells all others, which announce at once what they have done, and say so.
"""

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import structlog

from millrace.errors import Unavailable
from millrace.queue import keys, scripts
from millrace.queue.connection import AWAY, Redis, RedisError, repeated
from millrace.queue.entries import Entries
from millrace.queue.keys import ModelVersion

LIFETIME_MS = 86_400_000
AGAIN_S = 3_600.0
"""What has not changed is announced so often."""
TICK_S = 1.0
RETRY_S = 0.5
ANSWER_S, POLL_S = 0.5, 0.004
"""How long whoever asks waits for the others, and how often it looks."""
HEARD_MS = 10_000
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Spent:
    """How often something happened, and how long it took together."""

    count: int = 0
    ns: int = 0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(self.count + other.count, self.ns + other.ns)


@dataclass(frozen=True, slots=True)
class Runs:
    """The runs of one batch size: how long they took, and what their jobs' inputs and outputs took together."""

    count: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0

    def __add__(self, other: "Runs") -> "Runs":
        return Runs(
            self.count + other.count,
            self.input_ns + other.input_ns,
            self.infer_ns + other.infer_ns,
            self.output_ns + other.output_ns,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTotals:
    """What was done of one model version. Jobs that ended before any worker took them are not among it."""

    last_run_ms: int = 0
    """In milliseconds since 1970."""
    rows: int = 0
    """Of jobs that succeeded; one for each job that generates."""
    runs: int = 0
    success: Spent = Spent()
    """Jobs, from the submission to the end."""
    failure: Spent = Spent()
    cancelled: Spent = Spent()
    """Jobs that the queue has ended while they ran: nobody wanted them any more, or they were late."""
    queue: Spent = Spent()
    """Of jobs that succeeded, as the next three: from the submission to the begin of the first run, input aside."""
    compute_input: Spent = Spent()
    """Fetching, decoding and laying out."""
    compute_infer: Spent = Spent()
    """The runs that they were part of."""
    compute_output: Spent = Spent()
    """From the end of the last run until the end was in the log."""
    cache_hit: Spent = Spent()
    cache_miss: Spent = Spent()
    batches: Mapping[int, Runs] = field(default_factory=dict)
    """By the rows of a run, or the jobs that generated in it."""

    def __add__(self, other: "ModelTotals") -> "ModelTotals":
        sums = {name: getattr(self, name) + getattr(other, name) for name in _SUMMED}
        sizes = sorted(self.batches.keys() | other.batches.keys())
        batches = {size: self.batches.get(size, Runs()) + other.batches.get(size, Runs()) for size in sizes}
        return ModelTotals(last_run_ms=max(self.last_run_ms, other.last_run_ms), batches=batches, **sums)


_SUMMED = tuple(each.name for each in fields(ModelTotals) if each.name not in ("last_run_ms", "batches"))
_COUNTS = ("last_run_ms", "rows", "runs")
_SPENT = tuple(name for name in _SUMMED if name not in _COUNTS)


class Statistics:
    """One process's totals on their way in, everybody's on their way out; what cannot be read counts for nothing.
    Raises Unavailable where Redis is away."""

    def __init__(self, redis: Redis, name: str) -> None:
        """`name` may come again with the next process: it is made this one's own."""
        self._redis, self._source, self._entries = redis, f"{name}:{secrets.token_hex(4)}", Entries()
        self._announced: dict[ModelVersion, tuple[ModelTotals, float]] = {}
        self._asking, self._asked_at = asyncio.Lock(), 0.0

    async def run(self, read: Callable[[], Mapping[ModelVersion, ModelTotals]]) -> None:
        """Announces what there is to read each second, and at once when somebody asks; until cancelled."""
        while True:
            try:
                async with self._redis.pubsub() as pubsub:
                    await pubsub.subscribe(keys.STATISTICS)
                    while True:
                        message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=TICK_S)
                        await self.announce(read())
                        if message is not None:
                            await self._call(self._redis.incr, keys.heard(message["data"].decode(errors="replace")))
            except (Unavailable, *AWAY, RedisError) as error:
                log.debug("statistics.waiting", error=repr(error))
                await asyncio.sleep(RETRY_S)

    async def announce(self, totals: Mapping[ModelVersion, ModelTotals]) -> None:
        """Says what this process has done since its start, as far as that is news."""
        now = time.monotonic()
        news = {model: of for model, of in totals.items() if self._is_news(model, of, now)}
        await asyncio.gather(*(self._write(model, of) for model, of in news.items()))
        self._announced |= {model: (of, now) for model, of in news.items()}

    async def refresh(self) -> None:
        """Has all announce what they have done up to this call; one question serves all that wait for it."""
        called = time.monotonic()
        async with self._asking:
            if self._asked_at <= called:
                began = time.monotonic()
                await self._ask()
                self._asked_at = began

    async def read(self, models: Iterable[ModelVersion]) -> dict[ModelVersion, ModelTotals]:
        """What was announced."""
        wanted = list(models)
        return dict(zip(wanted, await asyncio.gather(*map(self._sum, wanted)), strict=True))

    def _is_news(self, model: ModelVersion, totals: ModelTotals, now: float) -> bool:
        known, at = self._announced.get(model, (ModelTotals(), now))
        return totals != known or now - at > AGAIN_S

    async def _ask(self) -> None:
        """Returns when all have announced what there is; those that hang are not waited for beyond `ANSWER_S`."""
        heard = keys.heard(secrets.token_hex(8))
        await self._call(self._redis.set, heard, 0, px=HEARD_MS)
        asked: int = await self._call(self._redis.publish, keys.STATISTICS, heard.rpartition(":")[2])
        for _ in range(round(ANSWER_S / POLL_S)):
            if int(await self._call(self._redis.get, heard) or 0) >= asked:
                return
            await asyncio.sleep(POLL_S)

    async def _write(self, model: ModelVersion, totals: ModelTotals) -> None:
        key, text = keys.statistics(model), pack(totals)
        await self._call(scripts.run, self._redis, "announce", key, LIFETIME_MS, self._source, text)

    async def _sum(self, model: ModelVersion) -> ModelTotals:
        """Of what is stored; the next write drops what has expired."""
        key = keys.statistics(model)
        stored: dict[bytes, bytes] = await self._call(self._redis.hgetall, key)
        totals = self._entries.read(key, stored, lambda value: unpack(value.split(b" ", 1)[1]))
        return sum(totals.values(), ModelTotals())

    async def _call(self, function: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> Any:
        try:
            return await repeated(function, *args, **options)
        except (*AWAY, RedisError) as error:
            raise Unavailable("the statistics are not reachable", reason="QUEUE_AWAY") from error


def pack(totals: ModelTotals) -> str:
    counts = {name: getattr(totals, name) for name in _COUNTS}
    spent = {name: (getattr(totals, name).count, getattr(totals, name).ns) for name in _SPENT}
    batches = {
        size: (runs.count, runs.input_ns, runs.infer_ns, runs.output_ns) for size, runs in totals.batches.items()
    }
    return json.dumps(counts | spent | {"batches": batches}, separators=(",", ":"))


def unpack(text: bytes) -> ModelTotals:
    """Fields of a later version are left out, and those that an earlier one lacks are 0."""
    packed = json.loads(text)
    known: dict[str, Any] = {name: Spent(*packed[name]) for name in _SPENT if name in packed}
    known |= {name: packed[name] for name in _COUNTS if name in packed}
    batches = {int(size): Runs(*runs) for size, runs in packed.get("batches", {}).items()}
    return ModelTotals(batches=batches, **known)
