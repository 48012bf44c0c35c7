"""A primary that Sentinels watch over, and that goes while it is needed."""

import asyncio

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from millrace.queue import Ending, Result, Verdict, connect, dialing
from millrace.queue.connection import AWAY
from tests.eventually import eventually
from tests.processes import Valkey
from tests.queue import journey
from tests.queue.bench import MODEL, result, submission
from tests.queue.servers import RedisServer
from tests.queue.topologies import PRIMARY, SENTINEL_PASSWORD, Sentinel, persist, watched


async def test_a_stream_outlives_its_primary() -> None:
    async with watched(RedisServer) as servers:
        url = servers.sentinel.url
        await journey.journey(url, url)
        async with journey.frontend(url, replicas=1) as front, journey.worker(url) as back:
            ref = await front.queue.submit(submission("j", watcher=journey.FRONTEND))
            (lease,) = (await back.queue.take(MODEL, "w", 1, jobs=1, cost=100, alone=True)).leases
            await back.queue.emit(MODEL, [result(lease, 1)])
            await front.durability.kept(ref, await front.queue.read(ref))
            await asyncio.to_thread(servers.primary.kill)
            with front.mailbox.open(ref) as inbox:
                assert await persist(lambda: back.queue.emit(MODEL, [result(lease, 2)])) == [Verdict.OK]
                await asyncio.wait_for(inbox.wait(), 5.0)
            ringing = asyncio.create_task(back.bell.wait(MODEL))
            await front.queue.submit(submission("next"))
            await ringing
            assert await back.queue.emit(MODEL, [result(lease, 3, ending=Ending())]) == [Verdict.OK]
            offsets = [entry.offset for entry in await front.queue.read(ref) if isinstance(entry, Result)]
            assert offsets == [1, 2, 3]


async def test_connections_leave_a_primary_that_has_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialing, "FOLLOW_S", 0.1)
    async with watched() as servers, connect(servers.sentinel.url) as redis:
        assert await redis.set("key", "before")
        await _hand_over(servers.sentinel)

        async def on_the_new_one() -> bool:
            try:
                return bool(await redis.set("key", "after")) and bool(
                    (await redis.info("server"))["tcp_port"] == servers.replica.port
                )
            except AWAY:
                return False

        await eventually(on_the_new_one, within_s=6.0)
        assert await redis.get("key") == b"after"


async def _hand_over(sentinel: Sentinel) -> None:
    """As soon as the Sentinel knows how the replica is."""
    async with Redis(port=sentinel.port, password=SENTINEL_PASSWORD) as asking:

        async def begun() -> bool:
            try:
                return bool(await asking.execute_command("SENTINEL", "FAILOVER", PRIMARY))  # type: ignore[no-untyped-call]
            except ResponseError:
                return False

        await eventually(begun, within_s=15.0)


async def test_a_replica_that_a_sentinel_takes_for_the_primary_is_not_written_to() -> None:
    async with (
        Valkey() as primary,
        Valkey("--replicaof", f"127.0.0.1 {primary.port}") as replica,
        Sentinel(replica, replica.port) as mistaken,
        connect(mistaken.url) as redis,
    ):
        with pytest.raises(AWAY, match="is not the primary"):
            await redis.ping()


async def test_sentinels_that_know_nothing_are_named() -> None:
    async with Valkey() as primary, Sentinel(primary, primary.port) as sentinel:
        other = sentinel.url.replace(f"/{PRIMARY}?", "/other?")
        async with connect(other) as redis:
            with pytest.raises(AWAY, match=r"no Sentinel says where other is: .*knows none of this name"):
                await redis.ping()
