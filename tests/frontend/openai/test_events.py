"""OpenAI's API, streamed: events, and how a stream goes on elsewhere."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from millrace.errors import Code
from millrace.queue import Ending, State
from millrace.v1.generation_pb2 import FINISH_REASON_STOP, CompletionDelta, GenerateResponse, TokenLogprobs, Usage
from services.frontend.openai.events import Cursor
from tests.eventually import eventually
from tests.frontend.openai.calling import CHAT, DONE, TEXT, Caller, Reading, caller, chat, emit, error, prompt
from tests.frontend.playing import Held, Worker, frontend

USAGE = {"stream_options": {"include_usage": True}}
LARGE = "x" * (1 << 20)
LAST = GenerateResponse(
    deltas=[CompletionDelta(text="end", finish_reason=FINISH_REASON_STOP)],
    usage=Usage(prompt_tokens=3, completion_tokens=4),
)
EVENTS = 4
"""Of a stream of three results with its usage: what precedes [DONE]."""


@asynccontextmanager
async def streaming(
    http: Caller, worker: Worker, path: str, body: dict[str, Any], **headers: str
) -> AsyncIterator[tuple[Reading, Held]]:
    """A stream whose first result is "one". The answer's headers come with it."""
    taking = asyncio.create_task(_begin(worker))
    async with http.stream(path, body, **headers) as reading:
        yield reading, await taking


@asynccontextmanager
async def another(redis_url: str) -> AsyncIterator[Caller]:
    """A caller of another frontend."""
    async with frontend(redis_url, openai=True) as served, caller(served.http_address) as opened:
        yield opened


@asynccontextmanager
async def unread(address: str, body: bytes) -> AsyncIterator[None]:
    """A caller who asks and reads nothing."""
    host, _, port = address.rpartition(":")
    with socket.socket() as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await asyncio.to_thread(caller.connect, (host, int(port)))
        head = (
            f"POST {TEXT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        caller.sendall(head.encode() + body)
        yield


async def _begin(worker: Worker) -> Held:
    held = await worker.take()
    await held.emit("one")
    return held


async def test_each_result_is_an_event_with_an_id_and_done_is_the_last(http: Caller, worker: Worker) -> None:
    async with streaming(http, worker, TEXT, prompt() | USAGE) as (reading, held):
        await emit(worker, held, LAST, last=True)
        *found, usage, done = await reading.all()
    job_id = held.lease.ref.job_id
    assert [event["choices"][0]["text"] for event in found] == ["one", "end"]
    assert [event["choices"][0]["finish_reason"] for event in found] == [None, "stop"]
    assert {event["id"] for event in found} == {f"cmpl-{job_id}"}
    assert done == DONE
    assert reading.raw.startswith(f"retry: 500\nid: {job_id}.1.".encode())
    assert reading.response.headers["content-type"].startswith("text/event-stream")
    assert reading.response.headers["millrace-job-id"] == job_id
    assert (usage["choices"], usage["usage"]["completion_tokens"]) == ([], 4)
    assert [event["usage"] for event in found] == [None, None]


async def test_a_chats_first_event_names_the_role(http: Caller, worker: Worker) -> None:
    async with streaming(http, worker, CHAT, chat(n=2)) as (reading, held):
        await held.emit("two", last=True)
        first, second, _ = await reading.all()
    assert [choice["delta"] for choice in first["choices"]] == [
        {"role": "assistant", "content": "one"},
        {"role": "assistant", "content": ""},
    ]
    assert [choice["delta"] for choice in second["choices"]] == [{"content": "two"}]
    assert first["object"] == "chat.completion.chunk"


@pytest.mark.parametrize("seen", range(1, EVENTS + 1))
@pytest.mark.parametrize("by_post", [True, False])
async def test_a_stream_goes_on_behind_any_event_on_another_frontend_to_the_byte(
    redis_url: str, http: Caller, worker: Worker, seen: int, by_post: bool
) -> None:
    body = chat() | USAGE
    async with streaming(http, worker, CHAT, body, millrace_job_id="a") as (reading, held):
        await held.emit("two")
        await emit(worker, held, LAST, last=True)
        for _ in range(seen):
            await reading.next()
    async with http.stream(CHAT, body, millrace_job_id="a") as undisturbed:
        await undisturbed.all()
    async with (
        another(redis_url) as elsewhere,
        elsewhere.stream(CHAT, body if by_post else None, last_event_id=reading.last_id) as resumed,
    ):
        await resumed.all()
    assert reading.raw + resumed.raw == undisturbed.raw
    assert undisturbed.raw.count(b"data: ") == EVENTS + 1


async def test_a_stream_goes_on_while_the_job_runs(redis_url: str, http: Caller, worker: Worker) -> None:
    async with streaming(http, worker, TEXT, prompt()) as (reading, held):
        await reading.next()
    await held.emit("two")
    async with (
        another(redis_url) as elsewhere,
        elsewhere.stream(TEXT, None, last_event_id=reading.last_id) as resumed,
    ):
        assert (await resumed.next())["choices"][0]["text"] == "two"
        await held.emit("three", last=True)
        assert (await resumed.all())[-1] == DONE


async def test_the_places_of_tokens_go_on_where_they_were(redis_url: str, http: Caller, worker: Worker) -> None:
    """A token may be part of a character, or hold several."""
    body = prompt(logprobs=0)
    tokens = [b"na", "ï".encode()[:1], "ï".encode()[1:], b"ve", b"!"]
    results = [
        GenerateResponse(deltas=[CompletionDelta(text=text, logprobs=[TokenLogprobs(token=token)])])
        for text, token in zip(("na", "", "ï", "ve", "!"), tokens, strict=True)
    ]
    async with streaming(http, worker, TEXT, body, millrace_job_id="a") as (reading, held):
        await emit(worker, held, *results, last=True)
        for _ in range(4):
            await reading.next()
    async with http.stream(TEXT, body, millrace_job_id="a") as undisturbed:
        _, *found, _ = await undisturbed.all()
    async with (
        another(redis_url) as elsewhere,
        elsewhere.stream(TEXT, None, last_event_id=reading.last_id) as resumed,
    ):
        await resumed.all()
    assert reading.raw + resumed.raw == undisturbed.raw
    scores = [event["choices"][0]["logprobs"] for event in found]
    assert [score["text_offset"] for score in scores] == [[0], [2], [3], [3], [5]]
    assert [score["tokens"] for score in scores][:3] == [["na"], ["bytes:\\xc3"], ["bytes:\\xaf"]]


async def test_who_has_seen_everything_is_told_not_to_come_back(http: Caller, worker: Worker) -> None:
    async with streaming(http, worker, TEXT, prompt()) as (reading, held):
        await held.emit("two", last=True)
        await reading.all()
    for body in (prompt(), None):
        async with http.stream(TEXT, body, last_event_id=reading.last_id) as again:
            assert again.response.status_code == 204


@pytest.mark.parametrize("by_post", [True, False])
async def test_what_cannot_be_resumed_is_refused(http: Caller, worker: Worker, by_post: bool) -> None:
    async with streaming(http, worker, TEXT, prompt(), millrace_job_id="a") as (reading, held):
        await held.emit("two", last=True)
        await reading.all()
    cases = [
        ("b.1.0011223344556677", 404, "job_unknown"),
        ("a.1.0011223344556677", 409, "history_differs"),
        ("a.9.0011223344556677", 409, "results_lost"),
        ("a.18446744073709551615.0011223344556677", 409, "results_lost"),
        ("a.18446744073709551616.0011223344556677", 400, "invalid_request"),
        ("a", 400, "invalid_request"),
    ]
    for cursor, status, code in cases:
        async with http.stream(TEXT, prompt() if by_post else None, last_event_id=cursor) as refused:
            await refused.response.aread()
            assert (refused.response.status_code, error(refused.response)["code"]) == (status, code)


async def test_another_body_does_not_resume_the_job(http: Caller, worker: Worker) -> None:
    async with streaming(http, worker, TEXT, prompt()) as (reading, held):
        await held.emit("two", last=True)
        await reading.all()
        cursor = str(Cursor(job_id=held.lease.ref.job_id))
    async with http.stream(TEXT, prompt("another"), last_event_id=cursor) as refused:
        await refused.response.aread()
        assert error(refused.response)["code"] == "job_id_reused"


async def test_an_error_before_the_first_result_is_a_status(http: Caller, worker: Worker) -> None:
    async def fail() -> None:
        await (await worker.take()).end(Ending(code=Code.INVALID_ARGUMENT, reason="NO_TEMPLATE", message="none"))

    failing = asyncio.create_task(fail())
    async with http.stream(CHAT, chat()) as reading:
        await reading.response.aread()
        assert (reading.response.status_code, error(reading.response)["code"]) == (400, "no_template")
    await failing


async def test_a_stream_that_waits_says_that_it_is_there(
    http: Caller, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it says is no event, and does not stand between two."""
    monkeypatch.setattr("services.frontend.openai.exchange.PING_S", 0.05)
    async with http.stream(TEXT, prompt()) as reading:
        held = await worker.take()
        chunks = reading.response.aiter_raw()
        assert await anext(chunks) == b":\n"
        await held.emit("one", last=True)
        rest = b"".join([chunk async for chunk in chunks]).lstrip(b":\n")
    assert rest.startswith(b"retry: 500\nid: ")
    assert rest.endswith(b"data: [DONE]\n\n")


async def test_an_error_behind_it_is_an_event_and_nothing_is_done(http: Caller, worker: Worker) -> None:
    async with streaming(http, worker, TEXT, prompt()) as (reading, held):
        await held.end(Ending(code=Code.INTERNAL, reason="POISON_JOB", message="it broke"))
        _, last = await reading.all()
    assert (last["error"]["message"], last["error"]["type"]) == ("it broke", "server_error")


async def test_a_drain_cuts_streams_so_that_none_is_taken_for_complete(redis_url: str, worker: Worker) -> None:
    async with (
        frontend(redis_url, openai=True) as served,
        caller(served.http_address) as http,
        streaming(http, worker, TEXT, prompt()) as (reading, held),
    ):
        await reading.next()
        served.stop()
        with pytest.raises(httpx2.RemoteProtocolError):
            await reading.all()
    async with (
        another(redis_url) as elsewhere,
        elsewhere.stream(TEXT, None, last_event_id=reading.last_id) as resumed,
    ):
        await held.emit("two", last=True)
        last, done = await resumed.all()
    assert (last["choices"][0]["text"], done) == ("two", DONE)


async def test_a_caller_who_leaves_is_waited_for_and_then_the_job_stops(redis_url: str, worker: Worker) -> None:
    async with (
        frontend(redis_url, openai=True, openai_resume_window_s=0.5) as served,
        caller(served.http_address) as http,
    ):
        streams = "millrace_frontend_streams"
        async with streaming(http, worker, TEXT, prompt()) as (reading, held):
            await reading.next()
            assert served.metrics.registry.get_sample_value(streams) == 1
        await eventually(lambda: len(served.interest) == 0)
        record = await worker.queue.inspect(held.lease.ref)
        assert record is not None
        assert record.state is State.RUNNING
        assert (await worker.ending(held.lease.ref)).reason == "ABANDONED"
        assert served.metrics.registry.get_sample_value(streams) == 0


async def test_a_caller_who_reads_nothing_is_dropped_and_its_job_stops(redis_url: str, worker: Worker) -> None:
    async with (
        frontend(redis_url, openai=True, slow_reader_s=0.5, openai_resume_window_s=0.5) as served,
        unread(served.http_address, b'{"model":"echo","prompt":"hello","stream":true}'),
    ):
        held = await worker.take()
        for _ in range(16):
            await held.emit(LARGE)
        assert (await worker.ending(held.lease.ref)).reason == "ABANDONED"
        refused = served.metrics.refused.labels("SLOW_READER")
        await eventually(lambda: refused._value.get() == 1)
        await eventually(lambda: len(served.interest) == 0)


async def test_a_connection_whose_answer_nobody_reads_is_ended(redis_url: str, worker: Worker) -> None:
    """The answer is whole and its call has ended: what is left is a buffer that would stay for ever."""
    async with (
        frontend(redis_url, openai=True, slow_reader_s=0.2) as served,
        unread(served.http_address, b'{"model":"echo","prompt":"hello"}'),
    ):
        held = await worker.take()
        for _ in range(16):
            await held.emit(LARGE)
        await held.emit("end", last=True)
        calls = served.metrics.calls.labels("POST /v1/completions", "OK")
        await eventually(lambda: calls._value.get() == 1)
        assert len(served._http.server_state.connections) == 1
        await eventually(lambda: len(served._http.server_state.connections) == 0)


def test_a_cursor_is_read_as_it_was_written() -> None:
    for cursor in (
        Cursor(job_id="a-b_c"),
        Cursor(job_id="a", offset=17, history=b"12345678", with_usage=True),
        Cursor(job_id="a", offset=17, history=b"12345678", with_usage=True, told=True, done=True, lengths=(3, 0, 9)),
        Cursor(job_id="a", offset=17, history=b"12345678", lengths=(3,)),
    ):
        assert Cursor.parse(str(cursor)) == cursor
