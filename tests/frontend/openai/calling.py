"""A caller of OpenAI's HTTP API who sees the bytes."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from millrace.queue import Emission, Ending, history
from millrace.v1.generation_pb2 import GenerateResponse
from tests.frontend.playing import HISTORY_TAG, Held, Worker

TEXT, CHAT = "/v1/completions", "/v1/chat/completions"
DONE = "[DONE]"
WAIT_S = 10.0


def prompt(text: str = "hello", **fields: Any) -> dict[str, Any]:
    return {"model": "echo", "prompt": text} | fields


def chat(text: str = "hello", **fields: Any) -> dict[str, Any]:
    return {"model": "echo", "messages": [{"role": "user", "content": text}]} | fields


class Reading:
    """A stream of events, as far as it was read. `raw` are the bytes of the events that are whole."""

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response
        self.raw = b""
        self._chunks = response.aiter_bytes()
        self._rest = b""

    @property
    def last_id(self) -> str:
        """What a browser would come back with."""
        lines = self.raw.decode().split("\n")
        return next((line.removeprefix("id: ") for line in reversed(lines) if line.startswith("id: ")), "")

    async def next(self) -> Any:
        """The data of the next event. Raises StopAsyncIteration behind the last."""
        while b"\n\n" not in self._rest:
            self._rest += await anext(self._chunks)
        block, _, self._rest = self._rest.partition(b"\n\n")
        self.raw += block + b"\n\n"
        return data(block.decode())

    async def all(self) -> list[Any]:
        """The data of all that follows."""
        found = []
        try:
            while True:
                found.append(await self.next())
        except StopAsyncIteration:
            assert self._rest == b""
            return found


def data(block: str) -> Any:
    text = next(line.removeprefix("data: ") for line in block.split("\n") if line.startswith("data: "))
    return DONE if text == DONE else json.loads(text)


async def emit(worker: Worker, held: Held, *responses: GenerateResponse, last: bool = False) -> None:
    """Results that tell more than a text."""
    for number, response in enumerate(responses, 1):
        held.offset += 1
        body = response.SerializeToString()
        held.history = history.extend(held.history, body)
        emission = Emission(
            ref=held.lease.ref,
            token=held.lease.token,
            offset=held.offset,
            history=held.history,
            result=body + HISTORY_TAG + held.history,
            ending=Ending() if last and number == len(responses) else None,
            cost=held.offset,
        )
        await worker.queue.emit(held.lease.ref.model, [emission])


class Caller:
    """One client of one frontend."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self.client = client

    async def post(self, path: str, body: object, **headers: str) -> httpx2.Response:
        return await self.client.post(path, json=body, headers=_named(headers))

    @asynccontextmanager
    async def stream(self, path: str, body: dict[str, Any] | None, **headers: str) -> AsyncIterator[Reading]:
        """Without a body: a GET."""
        content = None if body is None else body | {"stream": True}
        method = "GET" if body is None else "POST"
        async with self.client.stream(method, path, json=content, headers=_named(headers)) as response:
            yield Reading(response)


@asynccontextmanager
async def caller(address: str) -> AsyncIterator[Caller]:
    async with httpx2.AsyncClient(base_url=f"http://{address}", timeout=WAIT_S) as client:
        yield Caller(client)


def error(response: httpx2.Response) -> dict[str, Any]:
    told: dict[str, Any] = response.json()["error"]
    return told


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
