"""A process of the fleet: its tasks, its way to the queue, and how it freezes and dies."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from millrace.queue.queue import JobQueue
from millrace.queue.types import Limits
from tests.simulation.network import Link, LinkedRedis
from tests.simulation.verbs import Speaker
from tests.simulation.world import World


class Process:
    """Lives once; `redis` is a client that nobody else uses meanwhile."""

    def __init__(self, world: World, name: str, redis: LinkedRedis, limits: Limits) -> None:
        self.world, self.name = world, name
        self.link = redis.link = Link(world, name, self.gate)
        self.queue = Speaker(JobQueue(redis, limits))
        self.is_alive = True
        self._frozen_until = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self.world.loop.create_task(work)
        self._tasks.append(task)
        task.add_done_callback(self._finished)
        return task

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self.gate()

    async def gate(self) -> None:
        """Returns at once, or when the process is thawed."""
        if self._frozen_until > self.world.now:
            await asyncio.sleep(self._frozen_until - self.world.now)
            await self.gate()

    async def wait(self, news: asyncio.Event, at_most_s: float) -> None:
        """Until there is news, but not for ever."""
        timer = self.world.loop.call_later(at_most_s, news.set)
        try:
            await news.wait()
        finally:
            timer.cancel()
        news.clear()
        await self.gate()

    def freeze(self, seconds: float) -> None:
        self._frozen_until = max(self._frozen_until, self.world.now + seconds)

    def crash(self) -> None:
        """Everything stops; what was sent may still arrive."""
        if not self.is_alive:
            return
        self.is_alive = False
        self.link.cut(None)
        for task in self._tasks:
            task.cancel()

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.remove(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.world.fail(error)
