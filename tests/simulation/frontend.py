"""A frontend on the virtual clock, as services/frontend/interest.py and relay.py are.

One task tells the queue of its interest, one call after the other: departures, what may be forgotten, arrivals, and
each second a watch of everything, which wakes the streams that are behind. Each call is a task that submits or
attaches, and relays from the mailbox or the log.
"""

import asyncio
from collections import deque
from collections.abc import Iterable

from millrace.errors import AlreadyExists, DataLoss, MillraceError, NotFound, Unavailable
from millrace.queue import history as running
from millrace.queue.keys import JobRef
from millrace.queue.types import End, Ending, Entry, Limits, Result, Seen, State
from tests.simulation.call import Call, Plan
from tests.simulation.network import LinkedRedis
from tests.simulation.process import Process
from tests.simulation.world import World

RETRY_S, RENEW_S, GRACE_S = 0.2, 1.0, 0.5
LOG_PAGE = 64
"""More than the seals that can stand between two results."""


class Stream:
    """One call's way from the job's log to its caller."""

    def __init__(self, call: Call) -> None:
        self.call, self.ref, self.offset = call, call.plan.ref, call.transcript.offset
        self.inbox: deque[Result | End] = deque()
        self.is_behind = False
        self.news = asyncio.Event()
        self.error: MillraceError | None = None
        self.may_be_wanted = self.is_placed = self.has_ended = self.is_kept = False

    def put(self, entry: Result | End) -> None:
        self.inbox.append(entry)
        self.news.set()

    def nudge(self) -> None:
        self.is_behind = True
        self.news.set()

    def fail(self, error: MillraceError) -> None:
        self.error = self.error or error
        self.nudge()

    def take(self) -> tuple[list[Result | End], bool]:
        taken, behind = list(self.inbox), self.is_behind
        self.inbox.clear()
        self.is_behind = False
        self.news.clear()
        return taken, behind


class Frontend(Process):
    def __init__(self, world: World, name: str, redis: LinkedRedis, limits: Limits, outage_s: float) -> None:
        super().__init__(world, name, redis, limits)
        self._outage_s = outage_s
        self._streams: list[Stream] = []
        self._calls: dict[Call, asyncio.Task[None]] = {}
        self._arrivals: dict[JobRef, None] = {}
        self._departures: dict[JobRef, None] = {}
        self._forgets: dict[JobRef, None] = {}
        self._news = asyncio.Event()
        self._is_draining = False

    def start(self) -> None:
        self.world.mailboxes[self.name] = self._receive
        self.spawn(self._keep_interest())

    def crash(self) -> None:
        """Its callers see their connections break."""
        self.world.mailboxes.pop(self.name, None)
        super().crash()
        for call in list(self._calls):
            self.world.loop.call_later(self.world.latency(), call.end, None)

    async def drain(self, timeout_s: float) -> None:
        """Takes no more calls, sends its callers elsewhere after a while, and ends; the interest lapses by itself."""
        self._is_draining = True
        await self.sleep(timeout_s)
        self._fail_all(Unavailable("this frontend is draining", reason="DRAINING"))
        await self.sleep(GRACE_S)
        self.crash()

    def _fail_all(self, error: MillraceError) -> None:
        for stream in self._streams:
            stream.is_kept = True
            stream.fail(error)

    # ── calls ────────────────────────────────────────────────────────────────────────────────────────────────────

    def serve(self, call: Call) -> None:
        task = self.spawn(self._serve(call))
        self._calls[call] = task

    def leave(self, call: Call) -> None:
        """The caller has gone."""
        call.open = False
        if call in self._calls and self.is_alive:
            self._calls[call].cancel()

    async def _serve(self, call: Call) -> None:
        stream = Stream(call)
        self._streams.append(stream)
        try:
            await self.gate()
            if self._is_draining:
                raise Unavailable("this frontend is draining", reason="DRAINING")
            call.end(await self._answer(stream, call.plan))
        except MillraceError as error:
            call.end(error)
        finally:
            del self._calls[call]
            self._leave(stream)

    async def _answer(self, stream: Stream, plan: Plan) -> Ending:
        if stream.offset or (plan.outlives_calls and stream.call.transcript.is_submitted):
            ref = await self._attach(plan)
        elif plan.outlives_calls:
            ref = await self.queue.submit(plan.submission(watcher=""))
            stream.call.transcript.is_submitted = True
        else:
            ref = await self._submit(stream, plan)
        await self._check_history(stream, ref)
        self._place(stream, ref)
        return await self._relay(stream)

    async def _submit(self, stream: Stream, plan: Plan) -> JobRef:
        stream.may_be_wanted = True
        try:
            return await self.queue.submit(plan.submission(watcher=self.name))
        except MillraceError as error:
            stream.may_be_wanted = isinstance(error, Unavailable)
            raise

    async def _attach(self, plan: Plan) -> JobRef:
        record = await self.queue.locate(plan.ref.tenant, plan.ref.job_id)
        if record is None:
            raise NotFound("there is no such job", reason="JOB_UNKNOWN")
        if record.fingerprint != plan.fingerprint:
            raise AlreadyExists("the job is another request", reason="JOB_ID_REUSED")
        return record.ref

    async def _check_history(self, stream: Stream, ref: JobRef) -> None:
        if not stream.offset:
            return
        entries = await self.queue.read(ref, stream.offset - 1, 64)
        found = [entry.history for entry in entries if isinstance(entry, Result) and entry.offset == stream.offset]
        if found != [stream.call.transcript.history]:
            raise DataLoss("the log is not what was sent", reason="HISTORY_DIFFERS")

    async def cancel(self, plan: Plan, ending: Ending) -> None:
        """Ends the job on its caller's word."""
        record = await self.queue.locate(plan.ref.tenant, plan.ref.job_id)
        if record is not None:
            await self.queue.end(record.ref, ending)

    # ── relay ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _receive(self, job: str, entry: Result | End) -> None:
        for stream in self._streams:
            if stream.ref.job == job:
                stream.put(entry)

    async def _relay(self, stream: Stream) -> Ending:
        ending: Ending | None = None
        while ending is None:
            await stream.news.wait()
            await self.gate()
            entries, behind = stream.take()
            ending, gap = self._deliver(stream, entries)
            if ending is None and (behind or gap):
                ending = await self._catch_up(stream)
            if ending is None and stream.error is not None:
                raise stream.error
        stream.has_ended = True
        return ending

    async def _catch_up(self, stream: Stream) -> Ending | None:
        while True:
            entries = await self._read(stream)
            ending, gap = self._deliver(stream, entries)
            if gap:
                raise DataLoss("the log has lost results", reason="RESULTS_LOST")
            if ending is not None or len(entries) < LOG_PAGE:
                return ending

    async def _read(self, stream: Stream) -> list[Entry]:
        while True:
            try:
                return await self.queue.read(stream.ref, stream.offset, LOG_PAGE)
            except Unavailable:
                if stream.error is not None:
                    raise stream.error from None
                await self.sleep(RETRY_S)

    def _deliver(self, stream: Stream, entries: Iterable[Entry]) -> tuple[Ending | None, bool]:
        """The job's end where it is reached, and whether something is missing before it."""
        for entry in entries:
            if isinstance(entry, Result):
                if entry.offset <= stream.offset:
                    continue
                if entry.offset != stream.offset + 1 or entry.body is None:
                    return None, True
                expected = running.extend(stream.call.transcript.history, entry.body[: -running.FIELD_BYTES])
                if entry.history != expected:
                    raise DataLoss("the results are not those that were sent", reason="HISTORY_DIFFERS")
                stream.call.deliver(entry, self.world.now)
                stream.offset = entry.offset
            elif isinstance(entry, End):
                return (entry.ending, False) if entry.last_offset == stream.offset else (None, True)
        return None, False

    # ── interest ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _place(self, stream: Stream, ref: JobRef) -> None:
        stream.ref, stream.may_be_wanted, stream.is_placed = ref, True, True
        self._departures.pop(ref, None)
        if stream.call.plan.is_named:
            self._arrivals[ref] = None
            self._news.set()
            stream.nudge()

    def _leave(self, stream: Stream) -> None:
        self._streams.remove(stream)
        is_last = all(other.ref != stream.ref for other in self._streams)
        if not is_last or not stream.may_be_wanted or stream.is_kept:
            return
        if not stream.has_ended:
            self._departures[stream.ref] = None
        if not stream.call.plan.is_named:
            self._forgets[stream.ref] = None
        self._arrivals.pop(stream.ref, None)
        self._news.set()

    async def _keep_interest(self) -> None:
        due = answered = self.world.now
        while True:
            try:
                await self._flush()
                if self.world.now >= due:
                    await self._watch([stream.ref for stream in self._streams])
                    due = self.world.now + RENEW_S
                answered = self.world.now
                await self.wait(self._news, max(due - self.world.now, 0.0))
            except Unavailable:
                if self.world.now - answered > self._outage_s:
                    self._fail_all(Unavailable("the queue is not reachable", reason="QUEUE_AWAY"))
                await self.sleep(RETRY_S)

    async def _flush(self) -> None:
        self._news.clear()
        for pending, tell in (
            (self._departures, self._unwatch),
            (self._forgets, self.queue.forget),
            (self._arrivals, self._watch),
        ):
            while refs := list(pending):
                pending.clear()
                try:
                    await tell(refs)
                except Unavailable:
                    pending.update(dict.fromkeys(refs))
                    raise

    async def _unwatch(self, refs: list[JobRef]) -> None:
        await self.queue.unwatch(self.name, refs)

    async def _watch(self, refs: list[JobRef]) -> None:
        """Renews the interest in those of the jobs that are still relayed here, and wakes who is behind."""
        placed = [(stream, stream.offset) for stream in self._streams if stream.is_placed and stream.ref in refs]
        watched = list(dict.fromkeys(stream.ref for stream, _ in placed))
        if not watched:
            return
        seen = await self.queue.watch(self.name, watched)
        for stream, offset in placed:
            _wake(stream, offset, seen[stream.ref])


def _wake(stream: Stream, offset: int, seen: Seen) -> None:
    if seen.state is None:
        stream.fail(DataLoss("the job is no longer known", reason="JOB_LOST"))
    elif seen.last_offset < offset:
        stream.fail(DataLoss("results that were sent are no longer in the log", reason="RESULTS_LOST"))
    elif seen.state is State.ENDED or seen.last_offset > stream.offset:
        stream.nudge()
