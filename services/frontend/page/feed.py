"""The fleet once a second, to all that look: one reading serves them all, and whoever is slow misses some.

Nothing is read while nobody looks.
"""

import asyncio
from collections.abc import Awaitable, Callable

from millrace.errors import Exhausted, Unavailable
from services.frontend.openai.exchange import Exchange
from services.frontend.readiness import Readiness

PERIOD_S = 1.0
MOST_VIEWERS = 64
RETRY_S = 5.0


class Feed:
    """Snapshots as server-sent events. `read` gives one, as a line of text."""

    def __init__(
        self, read: Callable[[], Awaitable[str]], readiness: Readiness, most_viewers: int = MOST_VIEWERS
    ) -> None:
        self._read, self._readiness, self._most_viewers = read, readiness, most_viewers
        self.viewers = 0
        self._snapshot, self._number, self._read_at = "", 0, float("-inf")
        self._reading: asyncio.Task[None] | None = None

    async def follow(self, exchange: Exchange) -> None:
        """Until the viewer leaves, or may not look any more, or the frontend drains.

        Raises:
            Denied: the viewer's credentials do not hold any more.
            Exhausted: too many look already, or this one does not read.
            Unavailable: the frontend is draining.
        """
        if self._readiness.draining:
            raise Unavailable("this frontend is draining", reason="DRAINING")
        if self.viewers >= self._most_viewers:
            text = f"{self.viewers} pages look at this frontend already"
            raise Exhausted(text, reason="TOO_MANY_VIEWERS", retry_after_s=RETRY_S)
        self.viewers += 1
        try:
            await self._follow(exchange)
        finally:
            self.viewers -= 1

    async def _follow(self, exchange: Exchange) -> None:
        call, seen = exchange.call("", exchange.event), 0
        while not self._readiness.draining:
            await self._later_than(seen)
            seen = self._number
            exchange.admit()
            await call.send(f"data: {self._snapshot}\n\n".encode())
        await exchange.end()

    async def _later_than(self, seen: int) -> None:
        """Returns when there is a snapshot that is not older than a period and has a higher number."""
        now = asyncio.get_running_loop().time()
        if self._number > seen and now - self._read_at < PERIOD_S:
            return
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read_when_due(self._read_at + PERIOD_S - now))
            self._reading.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(self._reading)

    async def _read_when_due(self, pause_s: float) -> None:
        await asyncio.sleep(max(pause_s, 0.0))
        self._read_at = asyncio.get_running_loop().time()
        self._snapshot = await self._read()
        self._number += 1
