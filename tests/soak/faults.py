"""What goes wrong while the callers call: one thing after the other, each mended before the next."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from tests.proxy import Proxy
from tests.survival.fleet import Fleet

KINDS = ("kill", "stop", "redis", "cut")
PAUSE_S = (0.5, 3.0)
"""Between two faults."""
FROZEN_S = (0.2, 3.0)
AWAY_S = (0.0, 1.0)


class Faults:
    """kill: kill -9 of a frontend or worker that is no witness, and its start. stop: any of them frozen for a while.
    redis: Redis ends, by SIGTERM or kill -9, and comes back with its file. cut: the connections of one door break."""

    def __init__(self, running: Fleet, doors: Sequence[Proxy], kinds: Sequence[str], chance: random.Random) -> None:
        self._running, self._doors, self._chance = running, doors, chance
        all_kinds: dict[str, Callable[[], Awaitable[None]]] = {
            "kill": self._kill,
            "stop": self._stop,
            "redis": self._redis,
            "cut": self._cut,
        }
        self._kinds = [(kind, all_kinds[kind]) for kind in KINDS if kind in kinds]
        self.done = Counter[str]()
        self.longest_s = 0.0

    async def run(self, over: asyncio.Event) -> None:
        """Until `over` is set, and the last fault is mended."""
        while self._kinds and not await _wait(over, self._chance.uniform(*PAUSE_S)):
            kind, fault = self._chance.choice(self._kinds)
            began = time.monotonic()
            await fault()
            self.done[kind] += 1
            self.longest_s = max(self.longest_s, time.monotonic() - began)

    async def _kill(self) -> None:
        await self._running.replace(self._chance.choice((*self._running.frontends[1:], *self._running.workers[1:])))

    async def _stop(self) -> None:
        victim = self._chance.choice((*self._running.frontends, *self._running.workers))
        victim.pause()
        try:
            await asyncio.sleep(self._chance.uniform(*FROZEN_S))
        finally:
            victim.resume()

    async def _redis(self) -> None:
        valkey = self._running.valkey
        await asyncio.to_thread(self._chance.choice((valkey.stop, valkey.kill)))
        await asyncio.sleep(self._chance.uniform(*AWAY_S))
        await asyncio.to_thread(valkey.start)

    async def _cut(self) -> None:
        self._chance.choice(self._doors).break_connections()


async def _wait(over: asyncio.Event, seconds: float) -> bool:
    """Whether it is over, at once or within the time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await over.wait()
    return over.is_set()
