"""Whether Redis answers is not mistaken for whether this process has time."""

import asyncio
import time

import pytest

from millrace.queue import Mailbox, connect
from millrace.queue.connection import Redis
from services.frontend import readiness
from services.frontend.readiness import Readiness
from tests.eventually import eventually

ANSWER_S = 0.1
CALLERS, ROUNDS, BUSY_S = 100, 6, 0.004
"""A round of all callers keeps the loop busy for longer than `ANSWER_S`."""


async def test_a_process_that_is_overloaded_does_not_take_redis_for_away(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "ANSWER_S", ANSWER_S)
    monkeypatch.setattr(readiness, "CHECK_S", ANSWER_S)
    told: list[bool] = []

    async def changed(ready: bool) -> None:
        told.append(ready)

    async with connect(redis_url) as calls, connect(redis_url, timeout_s=None) as listens:
        mailbox = Mailbox(listens, "overloaded")
        watching = Readiness(calls, mailbox)
        tasks = [asyncio.create_task(mailbox.run()), asyncio.create_task(watching.run(changed))]
        await eventually(lambda: told == [True])
        await asyncio.gather(*(_toil(calls) for _ in range(CALLERS)))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert told == [True]


async def _toil(redis: Redis) -> None:
    for _ in range(ROUNDS):
        await redis.get("nothing")
        until = time.perf_counter() + BUSY_S
        while time.perf_counter() < until:
            pass
