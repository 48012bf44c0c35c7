"""How many calls are under way: as many as the service takes.

The window doubles with every round of answers until the service first refuses, then grows by one a round, and halves
where it refuses (additive increase, multiplicative decrease: Chiu and Jain, "Analysis of the Increase and Decrease
Algorithms for Congestion Avoidance in Computer Networks", 1989).
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

FIRST = 4
LEAST_PAUSE_S = 0.1


class Window:
    def __init__(self, most: int) -> None:
        self._most = most
        self._size = float(min(FIRST, most))
        self._threshold = float(most)
        self._under_way = 0
        self._resume_at = 0.0
        self._changed = asyncio.Condition()

    @property
    def size(self) -> int:
        return int(self._size)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """One of the places, once there is one and no refusal is still to be waited for."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._under_way < self.size)
            self._under_way += 1
        try:
            await asyncio.sleep(self._resume_at - time.monotonic())
            yield
        finally:
            self._under_way -= 1
            async with self._changed:
                self._changed.notify_all()

    def answered(self) -> None:
        self._size = min(self._size + (1 if self._size < self._threshold else 1 / self._size), float(self._most))

    def refused(self, retry_after_s: float) -> None:
        """Refusals of calls that went out together halve it once."""
        now = time.monotonic()
        if now >= self._resume_at:
            self._size = self._threshold = max(self._size / 2, 1.0)
        self._resume_at = max(self._resume_at, now + max(retry_after_s, LEAST_PAUSE_S))
