"""The client for OpenAI's HTTP, against a server that streams."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from bench.peers.openai import run
from bench.peers.specs import Calls

CALLS = Calls(address="", model="llama", prompts=[[1, 2], [3], [4]], tokens=[2, 3, 1], callers=2, warm=[7])


class Server:
    """Says a prompt's last token as often as it is asked to, a line of events for each."""

    def __init__(self, status: str = "200 OK", error: str = "") -> None:
        self.prompts: list[list[int]] = []
        self.running = self.most_running = 0
        self._status, self._error = status, error
        self._answering: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        async with server:
            host, port = server.sockets[0].getsockname()
            yield f"{host}:{port}"
            async with asyncio.timeout(5):
                await asyncio.gather(*self._answering)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._answering.append(asyncio.create_task(self._answer(reader, writer)))

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert head.startswith("POST /v1/completions HTTP/1.0")
        (size,) = [int(line.split()[1]) for line in head.splitlines() if line.startswith("Content-Length")]
        request = json.loads(await reader.readexactly(size))
        self.prompts.append(request["prompt"])
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        writer.write(f"HTTP/1.1 {self._status}\r\nContent-Type: text/event-stream\r\n\r\n".encode())
        for event in self._events(request):
            writer.write(b"data: " + json.dumps(event).encode() + b"\n\n")
            await asyncio.sleep(0.001)
        writer.write(b"data: [DONE]\n\n")
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        self.running -= 1

    def _events(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        if self._error:
            return [{"error": {"message": self._error}}]
        token = [{"choices": [{"text": "", "token_ids": request["prompt"][-1:]}]}]
        usage = {"choices": [], "usage": {"prompt_tokens_details": {"cached_tokens": len(request["prompt"]) - 1}}}
        return [{"choices": [{"text": "", "token_ids": None}]}, *(token * request["max_tokens"]), usage]


def calls(address: str, **changes: Any) -> Calls:
    given = {name: getattr(CALLS, name) for name in CALLS.__slots__}
    return Calls(**(given | {"address": address} | changes))


async def test_each_prompt_is_sent_once_and_its_tokens_are_timed() -> None:
    server = Server()
    async with server.serving() as address:
        found = await run(calls(address))
    assert server.prompts[0] == [7]
    assert sorted(server.prompts[1:]) == [[1, 2], [3], [4]]
    assert server.most_running == 2
    assert found.token_ids == [[2, 2], [3, 3, 3], [4]]
    assert found.cached_tokens == [1, 0, 0]
    for sent, times in zip(found.sent_s, found.times_s, strict=True):
        assert 0 <= sent < times[0]
        assert times == sorted(times)
    assert [len(times) for times in found.times_s] == [2, 3, 1]
    assert max(times[-1] for times in found.times_s) <= found.seconds


async def test_an_open_loop_counts_from_when_a_request_is_due() -> None:
    async with Server().serving() as address:
        found = await run(calls(address, callers=0, due_s=[0.0, 0.05, 0.1]))
    assert found.sent_s == pytest.approx([0.0, 0.05, 0.1])
    assert all(times[0] > sent for sent, times in zip(found.sent_s, found.times_s, strict=True))


@pytest.mark.parametrize(
    ("server", "message"),
    [(Server("400 Bad Request"), "400"), (Server(error="it is too long"), "too long")],
    ids=["status", "event"],
)
async def test_what_the_server_refuses_is_an_error_that_says_so(server: Server, message: str) -> None:
    async with server.serving() as address:
        with pytest.raises(ValueError, match=message):
            await run(calls(address))
