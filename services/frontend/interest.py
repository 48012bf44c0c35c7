"""The frontend's interest in the jobs that it relays: renewed while their streams are open, taken back when they end.

One task does all of it, one call after the other, so that a renewal can never overtake a departure:

    departures   unwatch what nobody here relays any more, forget what was delivered and cannot be asked for again
    arrivals     watch what was attached to, at once: others may be about to let go of it
    renewal      each second, watch everything, and wake the streams whose job is further than they are
"""

import asyncio
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice

import structlog

from millrace.errors import DataLoss, MillraceError, Unavailable
from millrace.queue import Inbox, JobQueue, JobRef, Mailbox, Seen, State

CHUNK = 256
RETRY_S = 0.2
log = structlog.get_logger()


class Stream:
    """One call that relays one job. The relay moves `offset`; whoever sets `error` ends the stream with it."""

    def __init__(self, ref: JobRef, inbox: Inbox) -> None:
        self.ref = ref
        self.inbox = inbox
        self.offset = 0
        self.error: MillraceError | None = None
        self.wanted = False
        """Redis may know of our interest in the job."""
        self.placed = False
        """The job is in the queue, so the interest is to be renewed."""
        self.retained = True
        """The results stay after the end; else they go with the stream."""
        self.ended = False
        """The job's end was read."""
        self.kept = False
        """The interest is left to lapse by itself, for a caller that comes back through another frontend."""

    def fail(self, error: MillraceError) -> None:
        self.error = self.error or error
        self.inbox.nudge()


class Interest:
    """All streams of one frontend, by job."""

    def __init__(self, queue: JobQueue, mailbox: Mailbox, frontend_id: str, outage_s: float) -> None:
        self._queue, self._mailbox, self.frontend_id, self._outage_s = queue, mailbox, frontend_id, outage_s
        self._streams: dict[JobRef, set[Stream]] = {}
        self._arrivals: dict[JobRef, None] = {}
        self._departures: dict[JobRef, None] = {}
        self._forgets: dict[JobRef, None] = {}
        self._news, self._empty = asyncio.Event(), asyncio.Event()
        self._empty.set()
        self._renew_s = min(1.0, queue.limits.interest_ms / 3000)

    def __len__(self) -> int:
        return sum(len(streams) for streams in self._streams.values())

    async def empty(self) -> None:
        """Returns when no stream is open."""
        await self._empty.wait()

    @contextmanager
    def open(self, ref: JobRef) -> Iterator[Stream]:
        """A stream for a job that may have to be queued yet, its inbox open; however it ends, the interest goes."""
        with self._mailbox.open(ref) as inbox:
            stream = Stream(ref, inbox)
            self._add(stream)
            try:
                yield stream
            finally:
                self._leave(stream)

    def place(self, stream: Stream, ref: JobRef, *, attached: bool) -> None:
        """The job is in the queue, at `ref`. One that was there before is watched at once and looked up in the log."""
        if ref != stream.ref:
            self._remove(stream)
            stream.ref = ref
            self._add(stream)
        stream.wanted = stream.placed = True
        self._departures.pop(ref, None)
        if attached:
            self._arrivals[ref] = None
            self._news.set()
            stream.inbox.nudge()

    def fail_all(self, error: MillraceError) -> None:
        """Ends every stream with `error`, leaving the interest to lapse by itself."""
        for stream in self._all():
            stream.kept = True
            stream.fail(error)

    async def run(self) -> None:
        """Until cancelled, through outages of Redis."""
        loop = asyncio.get_running_loop()
        due = answered = loop.time()
        while True:
            try:
                await self._flush()
                if loop.time() >= due:
                    await self._renew()
                    due = loop.time() + self._renew_s
                answered = loop.time()
                await self._wait_until(due)
            except Unavailable as error:
                log.debug("interest.waiting", error=error.message)
                if loop.time() - answered > self._outage_s:
                    self.fail_all(Unavailable("the queue is not reachable", reason="QUEUE_AWAY"))
                await asyncio.sleep(RETRY_S)

    # ── streams ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _all(self) -> list[Stream]:
        return [stream for streams in self._streams.values() for stream in streams]

    def _leave(self, stream: Stream) -> None:
        last = self._remove(stream)
        if not last or not stream.wanted or stream.kept:
            return
        if not stream.ended:
            self._departures[stream.ref] = None
        if not stream.retained:
            self._forgets[stream.ref] = None
        self._arrivals.pop(stream.ref, None)
        self._news.set()

    def _add(self, stream: Stream) -> None:
        self._streams.setdefault(stream.ref, set()).add(stream)
        self._empty.clear()

    def _remove(self, stream: Stream) -> bool:
        """Whether it was the last of its job."""
        streams = self._streams[stream.ref]
        streams.discard(stream)
        if not streams:
            del self._streams[stream.ref]
        if not self._streams:
            self._empty.set()
        return not streams

    # ── Redis ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _wait_until(self, due: float) -> None:
        try:
            async with asyncio.timeout_at(due):
                await self._news.wait()
        except TimeoutError:
            pass

    async def _flush(self) -> None:
        self._news.clear()
        while refs := _pop(self._departures, CHUNK):
            with _again(self._departures, refs):
                await self._queue.unwatch(self.frontend_id, refs)
        while refs := _pop(self._forgets, CHUNK, but=self._departures):
            with _again(self._forgets, refs):
                await self._queue.forget(refs)
        while refs := _pop(self._arrivals, CHUNK):
            with _again(self._arrivals, refs):
                await self._watch(refs)

    async def _renew(self) -> None:
        waiting = dict.fromkeys(sorted(self._streams))
        while refs := _pop(waiting, CHUNK):
            await self._watch(refs)
            await self._flush()

    async def _watch(self, refs: Iterable[JobRef]) -> None:
        """Renews the interest in those of the jobs that are still relayed here, and wakes who is behind."""
        placed = {stream: stream.offset for ref in refs for stream in self._streams.get(ref, ()) if stream.placed}
        seen = await self._queue.watch(self.frontend_id, {stream.ref for stream in placed})
        for stream, offset in placed.items():
            _wake(stream, offset, seen[stream.ref])


def _pop(pending: dict[JobRef, None], count: int, but: Container[JobRef] = ()) -> list[JobRef]:
    """Takes out so many; `but` are left in: who leaves while others are forgotten has to depart first."""
    refs = list(islice((ref for ref in pending if ref not in but), count))
    for ref in refs:
        del pending[ref]
    return refs


@contextmanager
def _again(pending: dict[JobRef, None], refs: list[JobRef]) -> Iterator[None]:
    """What could not be told to Redis is pending again."""
    try:
        yield
    except Unavailable:
        pending.update(dict.fromkeys(refs))
        raise


def _wake(stream: Stream, offset: int, seen: Seen) -> None:
    """Compares how the job stands with where the stream stood when that was asked."""
    if seen.state is None:
        stream.fail(DataLoss("the job is no longer known", reason="JOB_LOST"))
    elif seen.last_offset < offset:
        stream.fail(DataLoss("results that were sent are no longer in the log", reason="RESULTS_LOST"))
    elif seen.state is State.ENDED or seen.last_offset > stream.offset:
        stream.inbox.nudge()
