"""From the results log to the caller: each offset once, in order, until the job's end.

The inbox brings what is new; whatever it does not bring (a gap, a result too large for it, a nudge) is paged from the
log. Each result's running hash is checked against the one before, so that a log that lost and rewrote results ends the
stream instead of continuing it with other text. Nothing is sent before it is kept (millrace.queue.durability).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractContextManager

from millrace import tracing
from millrace.errors import Code, DataLoss, JobFailed, MillraceError, Unavailable
from millrace.exposition import exemplar
from millrace.queue import Durability, End, Ending, Entry, JobQueue, JobRef, Result, Seal
from millrace.queue import history as running
from services.frontend.admission import Admission, Target
from services.frontend.call import Call
from services.frontend.flight import read_flight
from services.frontend.interest import Interest, Stream
from services.frontend.metrics import Metrics
from services.frontend.parse import Asked, Position, ValidOptions
from services.frontend.status import from_ending
from services.frontend.tracing import Tracing

PAGE_ENTRIES = 128
PAGE_BYTES = 1 << 20
RETRY_S = 0.2

Encode = Callable[[Result, bytes], bytes]
"""What the caller is sent for a result and its body."""
Send = Callable[[Result, bytes], Awaitable[None]]


class Relays:
    """Relays jobs to calls."""

    def __init__(
        self,
        queue: JobQueue,
        admission: Admission,
        interest: Interest,
        durability: Durability,
        metrics: Metrics,
        tracing: Tracing,
    ) -> None:
        self._queue, self._admission, self._interest = queue, admission, interest
        self._durability, self._metrics, self._tracing = durability, metrics, tracing

    @property
    def watcher(self) -> str:
        """The name under which this frontend watches jobs."""
        return self._interest.frontend_id

    def open(self, wanted: JobRef) -> AbstractContextManager[Stream]:
        """A stream for a job, opened before the job is submitted; however it ends, the interest in the job goes."""
        return self._interest.open(wanted)

    async def submit(self, call: Call, stream: Stream, target: Target, request: Asked) -> JobRef:
        """Queues the job for a stream that watches it, or finds it; answers where it is."""
        options, resolved = request.options, time.monotonic()
        stream.wanted, stream.retained = True, bool(options.job_id or options.resume_window_ms)
        try:
            with tracing.within("submit", "PRODUCER") as span:
                span.note({"millrace.job_id": target.ref.job_id, "gen_ai.request.model": target.ref.model.name})
                ref = await self._admission.submit(
                    target,
                    request,
                    timeout_ms=_timeout_ms(options, call.remaining_s),
                    retained=stream.retained,
                    watcher=self.watcher,
                )
        except MillraceError as error:
            stream.wanted = isinstance(error, Unavailable)
            raise
        call.trace = self._tracing.begin(ref, call.since, resolved)
        return ref

    async def run(
        self, call: Call, stream: Stream, ref: JobRef, position: Position, encode: Encode, *, attached: bool
    ) -> None:
        """Sends everything behind the position, and ends the call as the job ends.

        Raises:
            DataLoss: the log is not what the caller has seen.
            MillraceError: the job's own ending, where it is not success.
        """
        history = await self._admission.history_at(ref, position)
        stream.offset = position.offset
        self._interest.place(stream, ref, attached=attached)
        await call.begin()

        async def send(result: Result, body: bytes) -> None:
            await call.send(encode(result, body))

        await self._relay(call, stream, history, send, attached=attached)

    async def single(self, call: Call, stream: Stream, ref: JobRef, *, attached: bool) -> bytes:
        """The one result of a job that gives one, without its history. Raises the job's own ending."""
        self._interest.place(stream, ref, attached=attached)
        answers: list[bytes] = []

        async def keep(_: Result, body: bytes) -> None:
            answers.append(body[: -running.FIELD_BYTES])

        await self._relay(call, stream, running.EMPTY, keep, attached=attached)
        if len(answers) != 1:
            raise JobFailed(
                Code.INTERNAL, f"the job gave {len(answers)} results instead of one", reason="RESULTS_WRONG"
            )
        return answers[0]

    async def _relay(self, call: Call, stream: Stream, history: bytes, send: Send, *, attached: bool) -> None:
        try:
            with tracing.within("relay") as span:
                if attached and span.is_recorded:
                    await self._link(span, stream)
                ending = await Relay(self._queue, self._durability, self._metrics, call, stream, history, send).run()
        finally:
            if call.trace is not None:
                call.trace.write()
        call.ended = True
        if call.wants_flight:
            call.flight = await read_flight(self._queue, stream.ref)
        await self._admission.spending.settle(call.caller, stream.ref)
        if ending.code is not Code.OK:
            raise from_ending(ending)

    async def _link(self, span: tracing.Span, stream: Stream) -> None:
        """Of a call that may have come back to its job: where it goes on, and the trace in which the job runs."""
        if stream.offset:
            span.happened("resumed", {"millrace.offset": stream.offset})
        record = await self._queue.inspect(stream.ref)
        context = tracing.Context.parse(record.trace) if record is not None else None
        if context is not None and context.trace_id != span.trace_id:
            span.link(context)


class Relay:
    """One stream's way from `stream.offset`, behind which the results have the running hash `history`, to the end."""

    def __init__(
        self,
        queue: JobQueue,
        durability: Durability,
        metrics: Metrics,
        call: Call,
        stream: Stream,
        history: bytes,
        send: Send,
    ) -> None:
        self._queue, self._durability, self._metrics = queue, durability, metrics
        self._call, self._stream, self._history, self._send = call, stream, history, send
        self._largest = 1
        self._delivered = 0

    async def run(self) -> Ending:
        """Raises what the stream was failed with, and DataLoss where the log is not what was sent."""
        stream, inbox = self._stream, self._stream.inbox
        ending: Ending | None = None
        while ending is None:
            await inbox.wait()
            behind = inbox.behind
            news = inbox.take()
            kept = await self._durability.kept(stream.ref, news)
            ending, gap = await self._deliver(kept)
            if ending is None and (behind or gap or len(kept) < len(news)):
                ending = await self._catch_up()
            if ending is None and stream.error is not None:
                raise stream.error
        stream.ended = True
        return ending

    async def _catch_up(self) -> Ending | None:
        """Pages the log to its present end; a page may hold nothing but seals."""
        epoch = 0
        while True:
            count = max(1, min(PAGE_ENTRIES, PAGE_BYTES // self._largest))
            entries = await self._read(count, epoch)
            kept = await self._durability.kept(self._stream.ref, entries)
            if len(kept) < len(entries):
                await self._pause()
                continue
            ending, gap = await self._deliver(entries)
            if gap:
                raise DataLoss("the log has lost results", reason="RESULTS_LOST")
            if ending is not None or len(entries) < count:
                return ending
            epoch = entries[-1].epoch if isinstance(entries[-1], Seal) else 0

    async def _read(self, count: int, epoch: int) -> list[Entry]:
        """Waits through an outage of Redis; one that lasts too long fails the stream."""
        while True:
            self._metrics.log_reads.inc()
            try:
                return await self._queue.read(self._stream.ref, self._stream.offset, count, epoch=epoch)
            except Unavailable:
                await self._pause()

    async def _pause(self) -> None:
        """Before the log is read again, where the stream was not failed meanwhile."""
        if self._stream.error is not None:
            raise self._stream.error
        await asyncio.sleep(RETRY_S)

    async def _deliver(self, entries: Iterable[Entry]) -> tuple[Ending | None, bool]:
        """Passes on what follows; answers the job's end, and whether something is missing before it."""
        for entry in entries:
            if isinstance(entry, Result):
                if entry.offset <= self._stream.offset:
                    continue
                if entry.offset != self._stream.offset + 1 or entry.body is None:
                    self._largest = max(self._largest, PAGE_BYTES // 8 if entry.body is None else 1)
                    return None, True
                await self._pass_on(entry, entry.body)
            elif isinstance(entry, End):
                if entry.last_offset == self._stream.offset:
                    return entry.ending, False
                return None, True
        return None, False

    async def _pass_on(self, result: Result, body: bytes) -> None:
        self._history = running.extend(self._history, body[: -running.FIELD_BYTES])
        if self._history != result.history:
            raise DataLoss("the results in the log are not those that were sent", reason="HISTORY_DIFFERS")
        self._largest = max(self._largest, len(body))
        await self._send(result, body)
        self._stream.offset = result.offset
        self._metrics.results.inc()
        if not self._delivered:
            span = tracing.current()
            self._metrics.first_result.observe(time.monotonic() - self._call.since, exemplar(span.traceparent))
            span.happened("first result")
            if self._call.trace is not None:
                self._call.trace.mark("first_result")
        self._delivered += 1


def _timeout_ms(options: ValidOptions, remaining_s: float | None) -> int:
    """A job that nobody can come back for ends with its call's deadline."""
    if options.resume_window_ms or remaining_s is None:
        return options.timeout_ms
    return max(1, min(options.timeout_ms, round(remaining_s * 1000)))
