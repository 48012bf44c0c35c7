"""Whether this frontend can serve: does Redis answer, and is the mailbox subscribed."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from millrace.errors import Unavailable
from millrace.queue import Mailbox
from millrace.queue.connection import AWAY, ConnectionLost, Redis, RedisError, has_answered

CHECK_S = 0.5
ANSWER_S = 1.0
RETRY_S = 0.02
log = structlog.get_logger()


class Readiness:
    """Checked all the time; `changed` is told each new answer."""

    def __init__(self, redis: Redis, mailbox: Mailbox) -> None:
        self._redis, self._mailbox = redis, mailbox
        self.redis_answers = False
        self.draining = False
        self.once_ready = asyncio.Event()

    @property
    def mailbox_subscribed(self) -> bool:
        return self._mailbox.subscribed.is_set()

    @property
    def ready(self) -> bool:
        return self.redis_answers and self.mailbox_subscribed and not self.draining

    def require(self) -> None:
        """Refuses new work while Redis is known to be away, so that its callers need not wait for a timeout each.

        A subscription lost for a moment is no reason: every stream looks into the log when it is back.
        """
        if not self.redis_answers or not self.once_ready.is_set():
            raise Unavailable("the queue is not reachable", reason="QUEUE_AWAY")

    async def run(self, changed: Callable[[bool], Awaitable[None]]) -> None:
        last = False
        if not await self._ping():
            log.warning("frontend.waiting", reason="Redis does not answer yet")
        while True:
            self.redis_answers = await self._ping()
            if self.ready != last:
                last = self.ready
                say = log.info if last or self.draining else log.warning
                say("frontend.readiness", ready=last, redis=self.redis_answers, mailbox=self.mailbox_subscribed)
                await changed(last)
            if last:
                self.once_ready.set()
            await asyncio.sleep(CHECK_S if last or self.draining else CHECK_S / 10)

    async def _ping(self) -> bool:
        """An answer that is lost with its connection says nothing of the server: the next connection tells. Nor does
        one that is late while others come: then this process has more to do than it can."""
        asked = time.monotonic()
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self._redis_pings()
        except TimeoutError:
            return has_answered(self._redis, since=asked)
        except (*AWAY, RedisError):
            return False

    async def _redis_pings(self) -> bool:
        while True:
            try:
                await self._redis.ping()
            except ConnectionLost:
                await asyncio.sleep(RETRY_S)
            else:
                return True
