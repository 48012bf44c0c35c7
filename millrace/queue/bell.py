"""The hint that wakes an idle worker: a blocking read with a connection of its own."""

import asyncio

from millrace.queue import keys
from millrace.queue.connection import AWAY, Redis, RedisError
from millrace.queue.keys import ModelVersion

BLOCK_S = 1
RETRY_S = 0.1
PATIENCE_S = 3.0
"""How long a bell's client waits for an answer: longer than any takes, so that a server that hangs is left."""


class Bell:
    """`redis` is a client of its own, whose timeout is `PATIENCE_S`. A bell may ring for nothing, and its silence does
    not prove that no work waits."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def wait(self, model: ModelVersion) -> None:
        """Returns when the model's bell rings, and after a second at the latest."""
        try:
            async with asyncio.timeout(2 * BLOCK_S):
                await self._redis.blpop([keys.bell(model)], timeout=BLOCK_S)
        except (*AWAY, RedisError, TimeoutError):
            await asyncio.sleep(RETRY_S)
