"""One schedule, from its seed: a fleet and callers, some seconds of accidents, then calm until all has ended, then the
checks."""

import asyncio
from collections import Counter
from collections.abc import Callable
from random import Random

from millrace.queue import keys
from tests.queue import probe
from tests.simulation import final
from tests.simulation.book import Book
from tests.simulation.caller import Caller
from tests.simulation.fleet import Fleet
from tests.simulation.network import LinkedRedis
from tests.simulation.plans import LIMITS, MODELS, draw_machine, draw_plans
from tests.simulation.promise import Broken
from tests.simulation.referee import Referee
from tests.simulation.store import Command, Store
from tests.simulation.trace import Trace
from tests.simulation.weather import draw_weather
from tests.simulation.world import World

CALM_S = 60.0
"""Longer than any job's timeout and any caller's retries, by a clock that does not run back."""
TICK_S = 0.5
RETENTION_MS = 3_600_000
"""Longer than any key of a job stays."""


class Schedule:
    """Runs once, on a VirtualLoop. `redis` gives clients that nobody else uses meanwhile."""

    def __init__(
        self,
        store: Store,
        names: dict[str, str],
        redis: Callable[[], LinkedRedis],
        seed: str,
        counts: Counter[str],
        trace: Trace,
    ) -> None:
        self._rng = Random(seed)
        self._store = store
        models = list(MODELS if self._rng.random() < 0.15 else MODELS[:1])
        self._book = Book(models, LIMITS, counts)
        plans = draw_plans(self._rng, models)
        disputed = len({plan.fingerprint for plan in plans}) > 1
        weather = draw_weather(self._rng, may_outlive_names=not disputed)
        self.world = World(store, names, self._rng, weather, Referee(self._book), counts, trace)
        self._fleet = Fleet(self.world, redis, models)
        self._callers = [
            Caller(self.world, self._book, f"c{number}", plan, self._fleet.frontends)
            for number, plan in enumerate(plans, 1)
        ]
        self._redis = redis

    async def run(self) -> None:
        """Raises Broken at the first broken promise."""
        work = self.world.loop.create_task(self._run())
        await asyncio.wait([work, self.world.failed], return_when=asyncio.FIRST_COMPLETED)
        if self.world.failed.done():
            self.world.failed.result()
        self.world.failed.cancel()
        work.result()

    async def _run(self) -> None:
        rng, weather = self._rng, self.world.weather
        machines = [draw_machine(rng, rng.choice(self._fleet.models)) for _ in range(rng.randint(1, 3))]
        self._fleet.start(machines, frontends=2, reapers=rng.choice([1, 1, 2]))
        if rng.random() < 0.3:
            self._fleet.start_stray([caller.plan.ref for caller in self._callers])
        calling = [self.world.loop.create_task(caller.run()) for caller in self._callers]
        look_at = rng.uniform(0.0, 2 * weather.active_s)
        while self.world.now < weather.active_s:
            await self._tick()
            if self.world.now > look_at:
                await self._look()
                look_at = float("inf")
        self._fleet.calm_down()
        self.world.note("schedule", "calm")
        await self._settle(calling)
        await self._check()

    async def _tick(self) -> None:
        await asyncio.sleep(TICK_S)
        self._fleet.tend()

    async def _look(self) -> None:
        self.world.purge()
        final.check_keys(self._book, await self._dump(), self.world.clock_ms)

    async def _settle(self, calling: list[asyncio.Task[None]]) -> None:
        """Until every call and every job has ended, and nothing is under way."""
        end = self.world.now + CALM_S + max(-self.world.skew_ms, 0) / 1000
        while self._book.unended or self.world.under_way or not all(task.done() for task in calling):
            if self.world.now > end:
                hanging = [caller.name for caller, task in zip(self._callers, calling, strict=True) if not task.done()]
                unended = [str(life) for life in self._book.unended]
                raise Broken("I1", f"{CALM_S:g} quiet seconds did not end jobs {unended} and callers {hanging}")
            await self._tick()
        for task in calling:
            task.result()

    async def _check(self) -> None:
        await self._look()
        self._fleet.stop()
        for ref, life in self._book.standing.items():
            life.log = self._store.log(keys.results(ref))
        final.check_logs(self._book.lives)
        for caller in self._callers:
            ref = caller.plan.ref
            final.check_transcript(caller, self._book.of_name(ref.tenant, ref.job_id))
        self.world.skew_ms += RETENTION_MS
        self.world.purge()
        final.check_nothing_left(await self._dump())

    async def _dump(self) -> dict[str, probe.Key]:
        redis = self._redis()
        redis.link = _Direct(self.world, self._store)
        return await probe.dump(redis)


class _Direct:
    """Asks the server without a network."""

    def __init__(self, world: World, store: Store) -> None:
        self._world, self._store = world, store

    async def ask(self, command: Command) -> object:
        return self._store.execute(command, self._world.clock_ms)
