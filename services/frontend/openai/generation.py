"""From a body to its answer, or to its events: read → resolve → open an inbox → submit → relay, as for gRPC."""

import asyncio
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn

from prometheus_client import Gauge

from millrace.errors import InvalidRequest, NotFound, Violation
from millrace.queue import JobRef
from millrace.v1.generation_pb2 import GenerateRequest
from services.frontend.admission import Admission
from services.frontend.call import JOB_ID_KEY
from services.frontend.openai import events
from services.frontend.openai.answers import MOST_SCORES, Answer, to_object
from services.frontend.openai.events import Cursor, Events
from services.frontend.openai.exchange import Exchange, HttpCall
from services.frontend.openai.fields import parse_object, to_json
from services.frontend.openai.options import Options
from services.frontend.openai.requests import Wanted
from services.frontend.openai.styles import Style
from services.frontend.parse import Position, ValidRequest, raise_any, valid_generate
from services.frontend.relay import Relays
from services.frontend.rules import check_generate

CURSOR_QUERY = "last_event_id"
"""For a reader that cannot set a header on its first request."""
MakeEvents = Callable[[int], Events]
"""Of the time at which the job was submitted."""


class Generation:
    """What is generated in one style."""

    def __init__(self, style: Style, admission: Admission, relays: Relays, options: Options, streams: Gauge) -> None:
        self._style, self._admission, self._relays, self._options = style, admission, relays, options
        self._streams = streams

    async def begin(self, exchange: Exchange) -> None:
        """A POST: one answer or a stream, which goes on where the caller says what it has seen."""
        wanted = self._style.read(parse_object(exchange.body))
        if not wanted.stream:
            await self._answer(exchange, wanted)
        elif (cursor := _cursor(exchange)) is None:
            await self._start(exchange, wanted)
        else:
            await self._continue(exchange, wanted, cursor)

    async def resume(self, exchange: Exchange) -> None:
        """A GET, which has no body that could be compared: who knows the cursor may read on."""
        cursor = _cursor(exchange) or _refuse_cursor("is required: a GET only reads on; a POST begins")
        if cursor.done:
            return await exchange.reply_nothing()
        record = await self._admission.find(exchange.caller.tenant, cursor.job_id)
        if record.task != "generate":
            raise NotFound(f"job {cursor.job_id} is no generation", reason="JOB_UNKNOWN")
        await self._follow(
            exchange, record.ref, cursor, lambda created: Events(self._style, record.ref, created, cursor)
        )

    # ── one answer ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _answer(self, exchange: Exchange, wanted: Wanted) -> None:
        exchange.job_id = exchange.named or uuid.uuid4().hex
        try:
            async with asyncio.TaskGroup() as group:
                numbers = range(len(wanted.requests))
                tasks = [group.create_task(self._gather(exchange, wanted, number)) for number in numbers]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        answers = [task.result() for task in tasks]
        await exchange.reply_text(await asyncio.to_thread(self._write, wanted, answers, exchange.job_id))

    def _write(self, wanted: Wanted, answers: Sequence[Answer], job_id: str) -> str:
        """In a thread: log-probabilities make it long."""
        return to_json(to_object(self._style, wanted, answers, job_id))

    async def _gather(self, exchange: Exchange, wanted: Wanted, number: int) -> Answer:
        """One of the prompts. Where there are several, their jobs have the request's name and their number. A named job
        waits for a caller who leaves; another stops at once."""
        named = bool(exchange.named)
        job_id = exchange.job_id if len(wanted.requests) == 1 else f"{exchange.job_id}-{number}"
        request = self._valid(wanted.requests[number], job_id if named else "", resumable=named)
        answer = Answer(wanted.completions, MOST_SCORES // len(wanted.requests))
        call = exchange.call(job_id, answer.add)
        target = await self._admission.resolve(call.caller, job_id, request)
        with self._relays.open(target.ref) as stream:
            ref = await self._relays.submit(call, stream, target, request)
            answer.place(ref, await self._created(ref))
            await self._relays.run(call, stream, ref, Position(), lambda _, body: body, attached=named)
        return answer

    # ── streams ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _start(self, exchange: Exchange, wanted: Wanted) -> None:
        request = self._valid(wanted.requests[0], exchange.named, resumable=True)
        exchange.job_id = exchange.named or uuid.uuid4().hex
        call = exchange.call(exchange.job_id, exchange.event)
        target = await self._admission.resolve(call.caller, exchange.job_id, request)
        with self._relays.open(target.ref) as stream, self._streams.track_inprogress():
            ref = await self._relays.submit(call, stream, target, request)
            cursor = Cursor(job_id=ref.job_id, with_usage=wanted.with_usage)
            made = self._events(wanted, ref, cursor, await self._created(ref))
            async with exchange.kept_alive():
                await self._relays.run(call, stream, ref, Position(), made.encode, attached=bool(exchange.named))
            await self._finish(exchange, call, made)

    async def _continue(self, exchange: Exchange, wanted: Wanted, cursor: Cursor) -> None:
        """Only ever attaches: where the job is not known any more, nothing is started anew."""
        if exchange.named not in ("", cursor.job_id):
            _refuse_cursor(f"is of another job than {JOB_ID_KEY}")
        if cursor.done:
            return await exchange.reply_nothing()
        request = self._valid(wanted.requests[0], cursor.job_id, resumable=True)
        ref = await self._admission.attach(exchange.caller.tenant, cursor.job_id, request.fingerprint)
        await self._follow(exchange, ref, cursor, partial(self._events, wanted, ref, cursor))

    async def _follow(self, exchange: Exchange, ref: JobRef, cursor: Cursor, make_events: MakeEvents) -> None:
        """A job that is there, from the result at the cursor on: what follows it may not have been told."""
        exchange.job_id = ref.job_id
        await self._admission.history_at(ref, Position(offset=cursor.offset, history=cursor.history))
        made = make_events(await self._created(ref))
        call = exchange.call(ref.job_id, exchange.event)
        before = Position(offset=max(cursor.offset - 1, 0))
        with self._relays.open(ref) as stream, self._streams.track_inprogress():
            async with exchange.kept_alive():
                await self._relays.run(call, stream, ref, before, made.encode, attached=True)
            await self._finish(exchange, call, made)

    async def _finish(self, exchange: Exchange, call: HttpCall, made: Events) -> None:
        await call.send(made.done())
        await exchange.end()

    def _events(self, wanted: Wanted, ref: JobRef, cursor: Cursor, created: int) -> Events:
        echo = next((text for text in wanted.echoes if text), "")
        return Events(self._style, ref, created, cursor, completions=wanted.completions, echo=echo)

    # ── both ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _valid(self, request: GenerateRequest, job_id: str, *, resumable: bool) -> ValidRequest:
        """Raises InvalidRequest."""
        options = self._options.make(job_id, resumable=resumable)
        raise_any(check_generate(request), self._options.check(options))
        return valid_generate(request, options, self._options.bounds)

    async def _created(self, ref: JobRef) -> int:
        """When the job was submitted, in seconds since 1970: the same for whoever reads it, whenever."""
        record = await self._admission.find(ref.tenant, ref.job_id)
        return record.submit_ms // 1000


def _cursor(exchange: Exchange) -> Cursor | None:
    """Raises InvalidRequest where it is none."""
    request = exchange.request
    text = request.headers.get(events.HEADER) or request.query_params.get(CURSOR_QUERY)
    return Cursor.parse(text) if text else None


def _refuse_cursor(description: str) -> NoReturn:
    raise InvalidRequest([Violation("Last-Event-ID", description)])
