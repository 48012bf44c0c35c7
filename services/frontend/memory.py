"""How full Redis is: new work is refused while it is nearly full, so that what runs can still write its results."""

import asyncio

import structlog

from millrace.errors import Exhausted
from millrace.queue import Priority
from millrace.queue.connection import AWAY, Redis, RedisError

READ_S = 0.25
RETRY_S = 2.0
SHARES = {Priority.INTERACTIVE: 0.70, Priority.STANDARD: 0.65, Priority.BATCH: 0.60}
"""Of `maxmemory`, up to which a class is admitted."""
JOB_BYTES = 4 << 10
"""What a job takes beside its payload, until the next reading shows it."""
log = structlog.get_logger()


class Memory:
    """Read a few times a second; what was admitted since the last reading counts as used. A Redis without `maxmemory`
    is never full."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._used = self._most = 0
        self._warned = False

    def admit(self, priority: Priority, payload_bytes: int) -> None:
        """Raises Exhausted where Redis is too full for a further job of this class."""
        self._used += payload_bytes + JOB_BYTES
        if self._most and self._used > SHARES[priority] * self._most:
            self._used -= payload_bytes + JOB_BYTES
            raise Exhausted("the queue's memory is nearly full", reason="MEMORY_FULL", retry_after_s=RETRY_S)

    async def run(self) -> None:
        """Until cancelled, through outages of Redis."""
        while True:
            try:
                self._note(await self._redis.info("memory"))
            except (*AWAY, RedisError) as error:
                log.debug("memory.unknown", error=repr(error))
            await asyncio.sleep(READ_S)

    def _note(self, memory: dict[str, int | str]) -> None:
        self._used, self._most = int(memory["used_memory"]), int(memory["maxmemory"])
        policy = str(memory["maxmemory_policy"])
        if self._most and policy != "noeviction" and not self._warned:
            self._warned = True
            log.warning("redis.evicts", policy=policy, remedy="set maxmemory-policy noeviction: evicted jobs are lost")
