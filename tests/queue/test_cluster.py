"""The queue on a Redis Cluster, whose slots and primaries move while it is used."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot
from redis.exceptions import RedisError, ResponseError

from millrace.errors import Unavailable
from millrace.queue import Ending, JobQueue, ModelVersion, Result, Verdict, connect, dialing, keys
from millrace.queue.connection import AWAY, has_answered
from tests.eventually import eventually
from tests.queue import journey
from tests.queue.bench import MODEL, result, submission
from tests.queue.topologies import Cluster, Node, persist, three_primaries

MODELS = [ModelVersion(name, "1") for name in ("story", "tale", "fable", "ode")]
"""Of which each primary has some."""
EMPTY = b"\x90"
"""A message to a mailbox."""


def slot_of(model: ModelVersion) -> int:
    return key_slot(model.base.encode())


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Each test leaves it whole; the last one takes its first primary."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            yield runner.run(stack.enter_async_context(three_primaries()))
        finally:
            runner.run(stack.aclose())


async def ask(node: Node, *command: str | int) -> object:
    async with Redis.from_url(node.url) as client:
        answer: object = await client.execute_command(*command)  # type: ignore[no-untyped-call]
        return answer


async def test_every_server_serves_everything(server: str) -> None:
    """A cluster of one node among them."""
    async with Redis.from_url(server) as client:
        await client.flushall()
        clustered = (await client.info("cluster"))["cluster_enabled"]
    url = server.replace("redis://", "redis+cluster://") if clustered else server
    await journey.journey(url, url, MODELS[:2])


async def test_models_on_all_primaries_are_served(cluster: Cluster) -> None:
    assert {cluster.owner(slot_of(model)) for model in MODELS} == set(cluster.nodes[:3])
    await journey.journey(cluster.url, cluster.url, MODELS)


async def test_a_ping_is_answered_when_all_primaries_have(cluster: Cluster) -> None:
    async with connect(cluster.url, timeout_s=0.3) as redis:
        asked = time.monotonic()
        assert await redis.ping()
        assert has_answered(redis, since=asked)
        asked = time.monotonic()
        cluster.nodes[2].pause()
        try:
            with pytest.raises(AWAY):
                await redis.ping()
            assert not has_answered(redis, since=asked)
        finally:
            cluster.nodes[2].resume()


async def test_the_fullest_primary_is_what_info_tells_of(cluster: Cluster) -> None:
    async with connect(cluster.url) as redis:
        for node, most in zip(cluster.nodes, (3 << 30, 1 << 30, 2 << 30), strict=False):
            await ask(node, "CONFIG", "SET", "maxmemory", most)
        assert (await redis.info("memory"))["maxmemory"] == 1 << 30
        for node in cluster.nodes:
            await ask(node, "CONFIG", "SET", "maxmemory", 0)


async def test_all_subscribers_are_counted(cluster: Cluster) -> None:
    async with connect(cluster.url) as redis, redis.pubsub() as one, connect(cluster.url) as other:
        await one.subscribe("mr:statistics")
        assert await one.get_message(timeout=1.0)
        assert await other.publish("mr:statistics", "x") == 1
        assert await one.get_message(ignore_subscribe_messages=True, timeout=1.0)


async def test_a_subscription_goes_where_publications_go(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialing, "FOLLOW_S", 0.1)
    async with journey.frontend(cluster.url) as front:
        assert await front.calls.publish(keys.mailbox(journey.FRONTEND), EMPTY)
        await _give(0, cluster.nodes[1], cluster)
        try:

            async def heard() -> bool:
                return bool(await late.publish(keys.mailbox(journey.FRONTEND), EMPTY))

            async with connect(cluster.url) as late:
                await eventually(heard)
        finally:
            await _give(0, cluster.nodes[0], cluster)


@pytest.mark.parametrize("command", [["FLUSHALL"], ["CONFIG", "GET", "maxmemory"], ["KEYS"]])
async def test_what_means_nothing_to_a_cluster_is_refused(command: list[str], cluster: Cluster) -> None:
    async with connect(cluster.url) as redis:
        with pytest.raises(RedisError, match="means nothing"):
            await redis.execute_command(*command)  # type: ignore[no-untyped-call]


async def test_keys_of_several_slots_are_refused_by_the_server(cluster: Cluster) -> None:
    async with connect(cluster.url) as redis:
        with pytest.raises(ResponseError):
            await redis.exists("a", "b")


async def test_a_slot_that_has_moved_is_followed(cluster: Cluster) -> None:
    slot = slot_of(MODEL)
    old, new = cluster.owner(slot), next(node for node in cluster.nodes[:3] if node is not cluster.owner(slot))
    async with connect(cluster.url) as redis:
        queue = JobQueue(redis)
        await queue.load(MODEL)
        await _give(slot, new, cluster)
        try:
            ref = await queue.submit(submission("moved"))
            assert await ask(new, "CLUSTER", "COUNTKEYSINSLOT", slot)
            await queue.end(ref, Ending())
            await queue.forget([ref])
        finally:
            await _give(slot, old, cluster)


async def test_a_wait_behind_a_slot_that_has_moved_fails(cluster: Cluster) -> None:
    """The scripts before it were run on a server that it was not sent to."""
    slot = slot_of(MODEL)
    old, new = cluster.owner(slot), next(node for node in cluster.nodes[:3] if node is not cluster.owner(slot))
    async with connect(cluster.url) as redis:
        await redis.set(f"{MODEL.base}barrier", "")
        assert await redis.wait(0, 100) >= 0
        await _give(slot, new, cluster)
        try:
            written, waited = await asyncio.gather(
                redis.set(f"{MODEL.base}barrier", ""), redis.wait(0, 100), return_exceptions=True
            )
            assert written is True
            assert isinstance(waited, AWAY)
            assert await redis.wait(0, 100) >= 0
        finally:
            await _give(slot, old, cluster)


async def test_while_a_slot_is_moved_its_keys_are_found_and_its_scripts_wait(cluster: Cluster) -> None:
    slot = slot_of(MODEL)
    old, new = cluster.owner(slot), next(node for node in cluster.nodes[:3] if node is not cluster.owner(slot))
    async with connect(cluster.url) as redis:
        queue = JobQueue(redis)
        await ask(old, "FLUSHALL")
        await redis.set(f"{MODEL.base}here", "old")
        await ask(new, "CLUSTER", "SETSLOT", slot, "IMPORTING", await _name(old))
        await ask(old, "CLUSTER", "SETSLOT", slot, "MIGRATING", await _name(new))
        try:
            assert await redis.get(f"{MODEL.base}here") == b"old"
            assert await redis.set(f"{MODEL.base}there", "new")
            assert await redis.get(f"{MODEL.base}there") == b"new"
            assert await ask(new, "CLUSTER", "COUNTKEYSINSLOT", slot) == 1
            with pytest.raises(Unavailable):
                await queue.reap(MODEL)
        finally:
            await ask(new, "FLUSHALL")
            await ask(new, "CLUSTER", "SETSLOT", slot, "STABLE")
            await ask(old, "CLUSTER", "SETSLOT", slot, "STABLE")
        await queue.reap(MODEL)


async def test_streams_outlive_a_primary(cluster: Cluster) -> None:
    """The cluster's last test: the replica takes the place of the first primary."""
    (model,) = (model for model in MODELS if cluster.owner(slot_of(model)) is cluster.nodes[0])
    async with journey.frontend(cluster.url, replicas=1) as front, journey.worker(cluster.url) as back:
        ref = await front.queue.submit(submission("j", watcher=journey.FRONTEND, model=model))
        (lease,) = (await back.queue.take(model, "w", 1, jobs=1, cost=100, alone=True)).leases
        await back.queue.emit(model, [result(lease, 1)])
        await front.durability.kept(ref, await front.queue.read(ref))
        await asyncio.to_thread(cluster.nodes[0].kill)
        with front.mailbox.open(ref) as inbox:
            assert await persist(lambda: back.queue.emit(model, [result(lease, 2)])) == [Verdict.OK]
            await asyncio.wait_for(inbox.wait(), 5.0)
        assert await back.queue.emit(model, [result(lease, 3, ending=Ending())]) == [Verdict.OK]
        offsets = [entry.offset for entry in await front.queue.read(ref) if isinstance(entry, Result)]
        assert offsets == [1, 2, 3]


async def _give(slot: int, owner: Node, cluster: Cluster) -> None:
    """An empty one. Each primary is told, so that none waits for the others' word."""
    name = await _name(owner)
    for node in cluster.nodes[:3]:
        await ask(node, "FLUSHALL")
    await ask(owner, "CLUSTER", "BUMPEPOCH")
    for node in (owner, *(node for node in cluster.nodes[:3] if node is not owner)):
        await ask(node, "CLUSTER", "SETSLOT", slot, "NODE", name)

    async def agreed() -> bool:
        ranges = [await ask(node, "CLUSTER", "SLOTS") for node in cluster.nodes[:3]]
        return all(_owner_port(each, slot) == owner.port for each in ranges)

    await eventually(agreed)


def _owner_port(ranges: Any, slot: int) -> int:
    """By CLUSTER SLOTS."""
    (port,) = (int(primary[1]) for first, last, primary, *_ in ranges if first <= slot <= last)
    return port


async def _name(node: Node) -> str:
    name = await ask(node, "CLUSTER", "MYID")
    return name.decode() if isinstance(name, bytes) else str(name)
