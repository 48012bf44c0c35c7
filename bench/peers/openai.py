"""The client process for servers that speak OpenAI's HTTP: streams of /v1/completions, in a closed or an open loop.

    python -m bench.peers.openai SPEC.json RESULT.json

As little of a client as there can be, since it shares the server's cores. HTTP/1.0 makes the server send the body as it
is and close behind it: server-sent events, a line of JSON each. Lines are kept as they come, and read in the end.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from bench.completions import Completions
from bench.load import sleep_until
from bench.peers.specs import Calls

EVENT, END = b"data: ", b"[DONE]"
LINE_BYTES = 1 << 20
Send = Callable[[int, float], Coroutine[Any, Any, None]]
"""Of a request's index, and when it counts as sent."""


@dataclass(slots=True)
class Stream:
    """One call."""

    sent: float
    times: list[float] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)

    def read(self) -> tuple[list[float], list[int], int]:
        """When token ids came, which they are, and how many tokens of the prompt were cached. Raises ValueError for an
        error among the events."""
        times, token_ids, cached = list[float](), list[int](), 0
        for at, line in zip(self.times, self.lines, strict=True):
            event = json.loads(line)
            if "choices" not in event:
                raise ValueError(f"the server says {line.decode(errors='replace')}")
            if found := [token for choice in event["choices"] for token in choice["token_ids"] or ()]:
                times.append(at)
                token_ids += found
            details = (event.get("usage") or {}).get("prompt_tokens_details") or {}
            cached = max(cached, details.get("cached_tokens") or 0)
        return times, token_ids, cached


async def send(calls: Calls, prompt: Sequence[int], tokens: int, sent: float) -> Stream:
    """Raises ValueError where the server answers with anything but a stream, and OSError."""
    stream, body = Stream(sent), _body(calls.model, prompt, tokens)
    host, _, port = calls.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=LINE_BYTES)
    try:
        writer.write(
            b"POST /v1/completions HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (len(body), body)
        )
        status = await reader.readline()
        while (await reader.readline()).strip():
            pass
        if status.split()[1:2] != [b"200"]:
            raise ValueError(f"the server answers {(status + await reader.read(1000)).decode(errors='replace')}")
        async for line in reader:
            if line.startswith(EVENT) and not line.startswith(END, len(EVENT)):
                stream.times.append(time.perf_counter())
                stream.lines.append(line[len(EVENT) :])
    finally:
        writer.close()
        await writer.wait_closed()
    return stream


def _body(model: str, prompt: Sequence[int], tokens: int) -> bytes:
    body: dict[str, Any] = {
        "model": model,
        "prompt": list(prompt),
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
    }
    return json.dumps(body).encode()


async def run(calls: Calls) -> Completions:
    streams: dict[int, Stream] = {}

    async def send_one(index: int, sent: float) -> None:
        streams[index] = await send(calls, calls.prompts[index], calls.tokens[index], sent)

    if calls.warm:
        await send(calls, calls.warm, 1, 0.0)
    began = time.perf_counter()
    await (_open_loop(calls, send_one, began) if calls.due_s else _closed_loop(calls, send_one))
    seconds = time.perf_counter() - began
    read = [streams[index].read() for index in range(len(calls.prompts))]
    return Completions(
        seconds=seconds,
        sent_s=[streams[index].sent - began for index in range(len(calls.prompts))],
        times_s=[[came - began for came in times] for times, _, _ in read],
        token_ids=[token_ids for _, token_ids, _ in read],
        cached_tokens=[cached for _, _, cached in read],
    )


async def _closed_loop(calls: Calls, send_one: Send) -> None:
    async def caller(waiting: Iterator[int]) -> None:
        for index in waiting:
            await send_one(index, time.perf_counter())

    shared = iter(range(len(calls.prompts)))
    await asyncio.gather(*(caller(shared) for _ in range(calls.callers)))


async def _open_loop(calls: Calls, send_one: Send, began: float) -> None:
    async with asyncio.TaskGroup() as tasks:
        for index, offset in enumerate(calls.due_s):
            await sleep_until(began + offset)
            tasks.create_task(send_one(index, began + offset))


def main() -> None:
    spec, result = sys.argv[1:]
    measured = uvloop.run(run(Calls(**json.loads(Path(spec).read_text()))))
    Path(result).write_text(json.dumps(asdict(measured)))


if __name__ == "__main__":
    main()
