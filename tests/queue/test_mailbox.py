"""The mailbox brings what was written to jobs that a frontend watches; what it cannot bring is read from the log."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from millrace.queue import End, Inbox, JobQueue, Mailbox, Result, connect, keys
from millrace.queue.mailbox import INBOX_BYTES
from millrace.queue.queue import MAILBOX_BYTES
from millrace.queue.types import Ending, Lease
from tests.queue.bench import MODEL, result, submission


@asynccontextmanager
async def reading(url: str) -> AsyncIterator[tuple[Mailbox, Redis]]:
    """The running mailbox of frontend `f`, and the client that it reads with."""
    async with connect(url, timeout_s=None) as redis:
        mailbox = Mailbox(redis, "f")
        task = asyncio.create_task(mailbox.run())
        await mailbox.subscribed.wait()
        try:
            yield mailbox, redis
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def entries(inbox: Inbox, count: int) -> list[Result | End]:
    found: list[Result | End] = []
    while len(found) < count:
        await inbox.wait()
        found += inbox.take()
    return found


async def take(queue: JobQueue) -> Lease:
    (lease,) = (await queue.take(MODEL, "w", 1, jobs=1, cost=100, alone=True)).leases
    return lease


async def test_results_and_the_end_arrive_in_order(redis_url: str) -> None:
    async with reading(redis_url) as (mailbox, _), connect(redis_url) as redis:
        queue, wanted = JobQueue(redis), submission("j", watcher="f")
        with mailbox.open(wanted.ref) as inbox:
            inbox.take()
            await queue.submit(wanted)
            lease = await take(queue)
            await queue.emit(MODEL, [result(lease, 1), result(lease, 2, ending=Ending())])
            first, second, end = await entries(inbox, 3)
        assert [first, second, end] == [
            entry for entry in await queue.read(wanted.ref) if entry in (first, second, end)
        ]
        assert isinstance(end, End)


async def test_a_large_result_is_announced_by_its_offset_and_read_from_the_log(redis_url: str) -> None:
    async with reading(redis_url) as (mailbox, _), connect(redis_url) as redis:
        queue, wanted = JobQueue(redis), submission("j", watcher="f")
        with mailbox.open(wanted.ref) as inbox:
            inbox.take()
            await queue.submit(wanted)
            lease = await take(queue)
            body = bytes(MAILBOX_BYTES + 1)
            await queue.emit(MODEL, [replace(result(lease, 1), result=body)])
            (announced,) = await entries(inbox, 1)
        assert announced == Result(offset=1, history=bytes(8), body=None)
        assert [entry.body for entry in await queue.read(wanted.ref) if isinstance(entry, Result)] == [body]


async def test_a_lost_connection_sends_every_reader_to_the_log(redis_url: str) -> None:
    async with reading(redis_url) as (mailbox, _), connect(redis_url) as redis:
        with mailbox.open(submission("j").ref) as inbox:
            inbox.take()
            await redis.client_kill_filter(_type="pubsub")
            await inbox.wait()
            assert inbox.behind


@pytest.mark.parametrize("message", [b"", b"\xff\xff", b"\x91\x01", b"\x91\x95\xa1j\x01\xa0\xa0\x91\x63"])
async def test_a_message_that_cannot_be_read_sends_every_reader_to_the_log(redis_url: str, message: bytes) -> None:
    async with reading(redis_url) as (mailbox, _), connect(redis_url) as redis:
        with mailbox.open(submission("j").ref) as inbox:
            inbox.take()
            await redis.publish(keys.mailbox("f"), message)
            await inbox.wait()
            assert inbox.behind
        assert mailbox.subscribed.is_set()


async def test_a_message_for_nobody_is_dropped(redis_url: str) -> None:
    async with reading(redis_url) as (mailbox, _), connect(redis_url) as redis:
        queue, wanted = JobQueue(redis), submission("j", watcher="f")
        with mailbox.open(submission("other").ref) as inbox:
            inbox.take()
            await queue.submit(wanted)
            await queue.end(wanted.ref, Ending())
            mailbox.nudge(submission("other").ref)
            await inbox.wait()
            assert inbox.take() == []


def test_an_inbox_that_overflows_is_emptied_and_asks_for_the_log() -> None:
    inbox = Inbox()
    for offset in range(1, 4):
        inbox.put(Result(offset=offset, history=bytes(8), body=bytes(INBOX_BYTES // 2)))
    assert inbox.behind
    assert inbox.take() == []
    assert not inbox.behind
