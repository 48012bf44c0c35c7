"""The requests of a call that has many of them, until a drain ends the reading."""

import asyncio
from collections.abc import AsyncIterator
from typing import Self


class Reading:
    """Iterates over a call's requests; once stopped, it ends as if there were no more of them."""

    def __init__(self, requests: AsyncIterator[bytes]) -> None:
        self._requests = requests
        self._waiting: asyncio.Timeout | None = None
        self.stopped = False

    def stop(self) -> None:
        self.stopped = True
        if self._waiting is not None:
            self._waiting.reschedule(asyncio.get_running_loop().time())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self.stopped:
            raise StopAsyncIteration
        try:
            async with asyncio.timeout(None) as self._waiting:
                return await anext(self._requests)
        except TimeoutError:
            raise StopAsyncIteration from None
        finally:
            self._waiting = None
