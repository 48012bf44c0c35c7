"""What no process of ours has written into Redis, and a Redis that refuses, harm no process and no stream."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ResponseError

from millrace import AsyncClient
from millrace.queue import ModelVersion, connect, keys
from millrace.queue.connection import Redis
from tests.stub_models import write_stub
from tests.survival.fleet import Fleet, Transcript, all_have, fleet, stream
from tests.survival.verdict import differences

STREAMS, TOKENS, STEP_MS = 8, 120, 20
LOOKS_S = 1.5
"""In which every process has read all that it reads again and again."""
BUSY_S = 1.2
STUB = ModelVersion("stub", "1")
NEVER = "9999999999999"
GARBAGE: dict[Any, Any] = {
    "a": b"",
    "b": b"not an entry",
    "c": b"\xff\x00",
    "d": f"{NEVER} [".encode(),
    "e": f"{NEVER} {{}}".encode(),
}


async def plant(redis: Redis) -> None:
    """Garbage in each hash that processes share, in the place of a bell, and on each channel that has a reader."""
    for key in (keys.WORKERS, keys.MODELS, keys.statistics(STUB)):
        await redis.hset(key, mapping=GARBAGE)
    commands: dict[Any, Any] = {f"models/{field}": value for field, value in GARBAGE.items()}
    await redis.hset(keys.COMMANDS, mapping=commands)
    await redis.delete(keys.bell(STUB))
    await redis.set(keys.bell(STUB), "not a list", px=1_000)
    channels = await redis.pubsub_channels()
    assert keys.STATISTICS.encode() in channels
    assert any(keys.mailbox("").encode() in channel for channel in channels)
    for channel in channels:
        for message in (*GARBAGE.values(), b"\x91\x95\xa1j\x01\xa0\xa0\x91\x63"):
            await redis.publish(channel, message)


async def keep_busy(url: str, seconds: float) -> None:
    """A script that does not end: the server refuses whatever else it is asked."""
    async with connect(url, timeout_s=None) as first, connect(url) as second:
        await first.config_set("busy-reply-threshold", 50)
        endless = asyncio.ensure_future(first.eval("while true do end", 0))
        await asyncio.sleep(seconds)
        with pytest.raises(ResponseError, match="BUSY"):
            await second.ping()
        await second.script_kill()
        with pytest.raises(ResponseError, match="killed"):
            await endless


async def streaming(running: Fleet, name: str, disturb: Awaitable[None]) -> None:
    seen = [Transcript(job_id=f"{name}-{number}", prompt="x") for number in range(STREAMS)]
    async with AsyncClient(*running.addresses) as client, asyncio.TaskGroup() as tasks:
        for transcript in seen:
            tasks.create_task(stream(client, transcript, "stub", max_tokens=TOKENS))
        await all_have(seen, 10)
        await disturb
    assert await differences(running, "stub", seen, stub=True) == []
    assert [transcript.tokens for transcript in seen] == [TOKENS] * STREAMS
    assert all(service.returncode is None for service in (*running.frontends, *running.workers))


async def test_garbage_in_what_processes_share_is_told_and_harms_nobody(tmp_path: Path) -> None:
    write_stub(tmp_path, step_ms=STEP_MS)
    async with fleet(tmp_path, frontends=1, workers=1) as running, connect(running.valkey.url) as redis:
        await streaming(running, "garbage", plant(redis))
        await asyncio.sleep(LOOKS_S)
        await streaming(running, "behind", asyncio.sleep(0))
        (frontend,), (worker,) = running.frontends, running.workers
        for key in (keys.WORKERS, keys.MODELS):
            assert f"field=d key={key}" in frontend.log
        assert "mailbox.unreadable" in frontend.log
        assert f"field=models/d key={keys.COMMANDS}" in worker.log


async def test_a_redis_that_refuses_for_a_while_ends_no_stream(tmp_path: Path) -> None:
    write_stub(tmp_path, step_ms=STEP_MS)
    async with fleet(tmp_path, frontends=1, workers=1) as running:
        await streaming(running, "busy", keep_busy(running.valkey.url, BUSY_S))
