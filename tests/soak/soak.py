"""The soak: rounds of load with faults, each followed by quiet, in which everything must be as it was.

    load     callers of all kinds (stories.py), while one fault after the other strikes (faults.py)
    quiet    the last callers leave; every job ends, and expires; then a sample is taken (samples.py)

The first frontend and the first worker are the witnesses: they are frozen and cut off like the others, and never
killed, so that their memory tells of all that the run did to them. The first rounds fill pools and caches and are not
judged. At the end even the jobs' names, which outlive them by a minute, must be gone.
"""

import asyncio
import gc
import random
import shutil
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from millrace.queue import JobQueue, connect
from millrace.queue.connection import Redis
from tests.chaos.unary import DIGITS
from tests.processes import Valkey
from tests.proxy import Proxy
from tests.soak.faults import Faults
from tests.soak.judge import Judge
from tests.soak.samples import Sample, indices, take
from tests.soak.stories import TIMEOUT_S, Stories
from tests.stub_models import write_stub
from tests.survival.fleet import Fleet, fleet

FRONTENDS, WORKERS, STEP_MS, SLOTS = 2, 2, 10, 64
RATE, AT_ONCE = 40.0, 64
"""Callers a second, at the times of a Poisson process, while fewer than so many are at it."""
LOAD_S, STORY_S = 25.0, 70.0
RETENTION_S = 8.0
QUIET_S = RETENTION_S + 30.0
INDEX_S = TIMEOUT_S + RETENTION_S + 60.0 + 10.0
PAUSE_S = 0.1
LOOKS, LOOK_S = 4, 0.3
ROUND_S = LOAD_S + RETENTION_S + 8.0
WARM_UP = 2
SETTINGS = {
    "MILLRACE_RETENTION_MS": str(round(1000 * RETENTION_S)),
    "MILLRACE_LINGER_MS": str(round(1000 * RETENTION_S)),
    "MILLRACE_LEASE_MS": "1500",
    "MILLRACE_INTEREST_MS": "1500",
    "MILLRACE_SLOW_READER_S": "4",
    "MILLRACE_DRAIN_S": "1",
}


@dataclass(kw_only=True)
class Report:
    """What a soak has seen."""

    judge: Judge
    faults: Faults
    samples: list[Sample] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    longest_pause_s: float = 0.0
    """Of this process's own event loop."""

    @property
    def judged(self) -> Sequence[Sample]:
        return self.samples[WARM_UP:]


@dataclass(kw_only=True)
class Soak:
    """One run."""

    running: Fleet
    addresses: list[str]
    """Of the doors before the frontends."""
    redis: Redis
    chance: random.Random
    report: Report

    async def round(self) -> Sample:
        await self._load()
        sample = await self._quiet()
        self.report.samples.append(sample)
        return sample

    async def _load(self) -> None:
        over = asyncio.Event()
        async with Stories(self.addresses, self.report.judge, self.chance) as stories, asyncio.TaskGroup() as tasks:
            tasks.create_task(self.report.faults.run(over))
            tasks.create_task(self._notice_pauses(over))
            ends = time.monotonic() + LOAD_S
            told = set[asyncio.Task[None]]()
            while time.monotonic() < ends:
                await asyncio.sleep(self.chance.expovariate(RATE))
                if len(told) < AT_ONCE:
                    task = tasks.create_task(self._tell(stories))
                    told.add(task)
                    task.add_done_callback(told.discard)
            over.set()
        gc.collect()  # A channel that is closed keeps its connection while anything in a cycle holds one of its calls.

    async def _notice_pauses(self, over: asyncio.Event) -> None:
        """A machine that stands still for longer than jobs are kept is a fault of its own."""
        while not over.is_set():
            began = time.monotonic()
            await asyncio.sleep(PAUSE_S)
            self.report.longest_pause_s = max(self.report.longest_pause_s, time.monotonic() - began - PAUSE_S)

    async def _tell(self, stories: Stories) -> None:
        story = stories.draw()
        try:
            async with asyncio.timeout(STORY_S):
                await story(stories)
        except TimeoutError:
            self.report.judge.wrong(story.__name__, f"did not end within {STORY_S:g} s")
        except Exception as error:
            self.report.judge.wrong(story.__name__, f"{type(error).__name__}: {error}")

    async def _quiet(self) -> Sample:
        """The first sample in which no job is left and nothing is more than it was in the first one judged; failing
        that, the last."""
        deadline = time.monotonic() + QUIET_S
        sample = await self._look()
        while not self._is_quiet(sample) and time.monotonic() < deadline:
            sample = await self._look()
        return sample

    async def _look(self) -> Sample:
        """What is always there in a few looks: a task that begins and ends all the time has not been left behind."""
        looks = []
        for _ in range(LOOKS):
            await asyncio.sleep(LOOK_S)
            looks.append(await take(self.running, self.redis))
        least = {name: min(look.counts[name] for look in looks) for name in looks[0].counts}
        return replace(looks[-1], counts=least)

    def _is_quiet(self, sample: Sample) -> bool:
        first = self.report.judged[0].counts if self.report.judged else {"keys of jobs": 0}
        return all(sample.counts[name] <= count for name, count in first.items())

    async def finish(self) -> None:
        """Waits until nothing is left of any job."""
        deadline = time.monotonic() + INDEX_S
        while left := await indices(self.redis):
            if time.monotonic() > deadline:
                self.report.failures.append(f"{left} names of jobs are still there after {INDEX_S:g} s")
                return
            await asyncio.sleep(1.0)


@asynccontextmanager
async def soaking(kinds: Sequence[str], seed: int) -> AsyncIterator[Soak]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        write_stub(folder, step_ms=STEP_MS, slots=SLOTS)
        shutil.copytree(DIGITS, folder / "digits")
        valkey = await stack.enter_async_context(Valkey("--appendfsync", "no", durable=True))
        redis_door = await stack.enter_async_context(Proxy(valkey.url.removeprefix("redis://").partition("/")[0]))
        settings = SETTINGS | {"MILLRACE_REDIS_URL": f"redis://{redis_door.address}/0"}
        parts = fleet(folder, frontends=FRONTENDS, workers=WORKERS, valkey=valkey, **settings)
        running = await stack.enter_async_context(parts)
        doors = [await stack.enter_async_context(Proxy(address)) for address in running.addresses]
        redis = await stack.enter_async_context(connect(valkey.url))
        faults = Faults(running, [redis_door, *doors], kinds, random.Random(seed))
        report = Report(judge=Judge(JobQueue(redis)), faults=faults)
        addresses = [door.address for door in doors]
        yield Soak(running=running, addresses=addresses, redis=redis, chance=random.Random(seed + 1), report=report)


async def soak(minutes: float, kinds: Sequence[str], seed: int, say: Callable[[Soak], None]) -> Report:
    """Rounds as long as there is time for another one and the end, at least three that are judged."""
    ends = time.monotonic() + 60 * minutes - INDEX_S
    async with soaking(kinds, seed) as run:
        while len(run.report.judged) < 3 or time.monotonic() + ROUND_S < ends:
            await run.round()
            say(run)
        await run.finish()
        return run.report
