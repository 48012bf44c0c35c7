"""A frontend's mailbox: one subscription for the process, fanned out to one bounded inbox for each stream.

The mailbox only saves reading the log: what is lost, dropped or too large for it is read there. An inbox that is full
is emptied and marked, and its reader goes to the log; so does every reader after a lost connection, or after a message
that this version of the service cannot read.
"""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from millrace.queue import keys, wire
from millrace.queue.connection import AWAY, Redis, RedisError
from millrace.queue.keys import JobRef
from millrace.queue.types import End, Result

INBOX_BYTES = 256 << 10
RECONNECT_S = 0.2
log = structlog.get_logger()


class Inbox:
    """What has arrived for one stream. `behind` asks the reader to look into the log."""

    def __init__(self) -> None:
        self.entries: deque[Result | End] = deque()
        self.behind = False
        self._bytes = 0
        self._news = asyncio.Event()

    def put(self, entry: Result | End) -> None:
        size = len(entry.body or b"") if isinstance(entry, Result) else 0
        if self._bytes + size > INBOX_BYTES:
            self.entries.clear()
            self._bytes = 0
            self.behind = True
        else:
            self.entries.append(entry)
            self._bytes += size
        self._news.set()

    def nudge(self) -> None:
        """Makes the reader look into the log."""
        self.behind = True
        self._news.set()

    async def wait(self) -> None:
        """Returns when there is an entry, or a reason to look into the log."""
        await self._news.wait()

    def take(self) -> list[Result | End]:
        """All entries; forgets the reason to look into the log."""
        taken = list(self.entries)
        self.entries.clear()
        self._bytes, self.behind = 0, False
        self._news.clear()
        return taken


class Mailbox:
    """Reads one frontend's channel. `redis` is a client of its own, without a read timeout."""

    def __init__(self, redis: Redis, frontend: str) -> None:
        self._redis = redis
        self._channel = keys.mailbox(frontend)
        self._inboxes: dict[tuple[str, str], set[Inbox]] = {}
        self.subscribed = asyncio.Event()

    @contextmanager
    def open(self, ref: JobRef) -> Iterator[Inbox]:
        """An inbox for one stream, from before the job is submitted until the stream ends."""
        inbox = Inbox()
        inboxes = self._inboxes.setdefault(_address(ref), set())
        inboxes.add(inbox)
        try:
            yield inbox
        finally:
            inboxes.discard(inbox)
            if not inboxes:
                self._inboxes.pop(_address(ref), None)

    def nudge(self, ref: JobRef) -> None:
        for inbox in self._inboxes.get(_address(ref), ()):
            inbox.nudge()

    async def run(self) -> None:
        """Reads until cancelled, through lost connections and a Redis that refuses."""
        told = ""
        while True:
            try:
                await self._read()
            except AWAY as error:
                if self.subscribed.is_set():
                    log.warning("mailbox.lost", error=repr(error))
            except RedisError as error:
                if self.subscribed.is_set() or repr(error) != told:
                    told = repr(error)
                    log.error("mailbox.refused", error=told)
            self.subscribed.clear()
            await asyncio.sleep(RECONNECT_S)

    async def _read(self) -> None:
        async with self._redis.pubsub() as pubsub:
            await pubsub.subscribe(self._channel)
            async for message in pubsub.listen():
                if message["type"] == "subscribe":
                    self.subscribed.set()
                    self._nudge_all()
                elif message["type"] == "message":
                    self._deliver(message["data"])

    def _deliver(self, message: bytes) -> None:
        try:
            entries = wire.decode_mailbox(message)
        except Exception as error:  # of any kind: the parser expects what this version writes
            log.warning("mailbox.unreadable", bytes=len(message), error=repr(error))
            self._nudge_all()
            return
        for job, entry in entries:
            tenant, _, job_id = job.partition(":")
            for inbox in self._inboxes.get((tenant, job_id), ()):
                inbox.put(entry)

    def _nudge_all(self) -> None:
        for inboxes in self._inboxes.values():
            for inbox in inboxes:
                inbox.nudge()


def _address(ref: JobRef) -> tuple[str, str]:
    return ref.tenant, ref.job_id
