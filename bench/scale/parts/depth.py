"""Depth: the same scripts on a short queue and on a long one, in turns, so that both see the same machine."""

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass, field

from bench.run import median
from bench.scale.report import Part, Table
from bench.scale.stage import PROMPT_BYTES, VERSION, WITHIN_S, Run
from millrace.queue import Emission, Ending, JobQueue, JobRef, Limits, Submission, connect
from millrace.queue.connection import Redis
from tests.processes import Valkey

NAME = "depth"
AT_ONCE, SUBMISSIONS, EMITS, ROUNDS = 500, 300, 20, 15
LIMITS = Limits(lease_ms=600_000, max_waiting_jobs=10**7, max_tenant_jobs=10**7)
TIMEOUT_MS = 10**10
"""Longer than all that waits will take: admission lets everything in."""
VERBS = ("submit", "take", "emit", "end")


@dataclass(slots=True, kw_only=True)
class Line:
    """A queue, and the microseconds of its scripts in each round: for each job, its name's claim included."""

    queue: JobQueue
    redis: Redis
    submitted: int = 0
    took_us: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    async def submit(self, jobs: int) -> None:
        fresh = range(self.submitted, self.submitted + jobs)
        self.submitted += jobs
        await asyncio.gather(*(self.queue.submit(_submission(index)) for index in fresh))

    async def work(self, jobs: int) -> None:
        """One round."""
        await self.redis.config_resetstat()
        taken = await self.queue.take(VERSION, "worker", time.time_ns(), jobs=jobs, cost=float("inf"), alone=True)
        leases = taken.leases
        await self._note("take", jobs)
        for offset in range(1, EMITS + 1):
            steps = [Emission(ref=each.ref, token=each.token, offset=offset, history=bytes(8)) for each in leases]
            await self.queue.emit(VERSION, steps)
        await self._note("emit", jobs * EMITS)
        ends = [Emission(ref=each.ref, token=each.token, ending=Ending()) for each in leases]
        await self.queue.emit(VERSION, ends)
        await self._note("end", jobs)
        await self.submit(SUBMISSIONS)
        await self._note("submit", SUBMISSIONS)

    async def _note(self, verb: str, jobs: int) -> None:
        scripts = (await self.redis.info("commandstats"))["cmdstat_evalsha"]
        self.took_us[verb].append(float(scripts["usec"]) / jobs)
        await self.redis.config_resetstat()


async def run(run: Run) -> Part:
    settings = run.settings
    with Valkey() as short_server, Valkey() as long_server:
        async with (
            connect(short_server.url, timeout_s=WITHIN_S) as short_calls,
            connect(long_server.url, timeout_s=WITHIN_S) as long_calls,
        ):
            lines = [Line(queue=JobQueue(each, LIMITS), redis=each) for each in (short_calls, long_calls)]
            depths = (settings.short_queue, settings.waiting_jobs)
            for line, depth in zip(lines, depths, strict=True):
                for begin in range(0, depth, AT_ONCE):
                    await line.submit(min(AT_ONCE, depth - begin))
                await line.work(settings.slots)
                line.took_us.clear()
            for _ in range(ROUNDS):
                for line in lines:
                    await line.work(settings.slots)
    rows = {verb: [median(line.took_us[verb]) for line in lines] for verb in VERBS}
    run.say(NAME, f"{depths[1]:,} jobs beside {depths[0]:,}", _said(rows))
    table = Table(
        title="Scripts in Redis, µs for each job",
        columns=("", *(f"{depth:,} jobs wait" for depth in depths), "ratio"),
        rows=[(verb, *took, took[1] / took[0]) for verb, took in rows.items()],
    )
    return Part(name=NAME, tables=(table,), data={"depths": depths, "us": rows})


def _said(rows: dict[str, list[float]]) -> str:
    return ", ".join(f"{verb} {took[0]:.0f} and {took[1]:.0f} µs" for verb, took in rows.items())


def _submission(index: int) -> Submission:
    return Submission(
        ref=JobRef(VERSION, "default", f"job-{index}"),
        fingerprint="0" * 32,
        payload=b"x" * PROMPT_BYTES,
        cost=1,
        timeout_ms=TIMEOUT_MS,
        wanted_to_deadline=True,
        retained=True,
    )
