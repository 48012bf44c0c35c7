"""Load: clients that note what they receive, while something else goes on."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc.aio

from millrace import AsyncClient
from millrace.client.status import Refusal
from millrace.errors import Code, MillraceError
from millrace.v1.generation_pb2 import GenerateRequest, Stopping
from millrace.v1.generation_pb2_grpc import TextGenerationServiceStub
from tests.survival.fleet import Transcript, stream

MODEL = "stub"
Follow = Callable[[Transcript], Coroutine[Any, Any, object]]
"""Makes a transcript's call and follows it to its end; raises MillraceError where that is not a good one."""


@dataclass(kw_only=True)
class Load:
    """What the clients have seen so far, and their tasks."""

    seen: list[Transcript]
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    stopping: bool = False
    """Nothing new is asked for."""

    @property
    def over(self) -> bool:
        return all(task.done() for task in self.tasks)

    @property
    def under_way(self) -> list[Transcript]:
        return [transcript for transcript in self.seen if transcript.code is None]

    async def begun(self) -> None:
        """Returns when every client has received something, or has no more to receive."""
        while True:
            if self.over or all(transcript.arrivals for transcript in self.under_way):
                return
            await asyncio.sleep(0.01)


def transcripts(name: str, count: int) -> list[Transcript]:
    return [Transcript(job_id=f"{name}-{number}", prompt="go on") for number in range(count)]


def through(client: AsyncClient, tokens: int) -> Follow:
    """Generations through a client, which survive what a client can survive."""
    return lambda transcript: stream(client, transcript, MODEL, max_tokens=tokens)


def submitted(client: AsyncClient, tokens: int) -> Follow:
    """Jobs that are queued by one call and watched by another."""

    async def follow(transcript: Transcript) -> None:
        await client.submit(MODEL, transcript.prompt, job_id=transcript.job_id, max_tokens=tokens)
        async for delta in client.watch(transcript.job_id):
            transcript.note(delta.message)
        transcript.code = Code.OK

    return follow


def unnamed(channel: grpc.aio.Channel, tokens: int) -> Follow:
    """Bare calls, whose jobs are named by the service: nothing repeats them, and nothing of them stays."""
    request = GenerateRequest(model=MODEL, text="go on", stopping=Stopping(max_tokens=tokens))

    async def follow(transcript: Transcript) -> None:
        call = TextGenerationServiceStub(channel).Generate(request)
        try:
            async for message in call:
                transcript.job_id = message.job_id
                transcript.note(message)
        except grpc.aio.AioRpcError as failure:
            raise Refusal(failure).error from None
        finally:
            call.cancel()
        transcript.code = Code.OK

    return follow


@asynccontextmanager
async def streams(follow: Follow, seen: Sequence[Transcript], *, within_s: float) -> AsyncIterator[Load]:
    """Follows all of them at once while the body runs, and after it until they have ended, or `within_s` is over."""
    load = Load(seen=list(seen))
    async with _running(load, [_note(follow, transcript) for transcript in seen], within_s):
        yield load


@asynccontextmanager
async def callers(follow: Follow, name: str, count: int, *, within_s: float) -> AsyncIterator[Load]:
    """So many callers, each of which makes one call after the other until the body ends. The last may take `within_s`
    in all."""
    load = Load(seen=[])

    async def call_again_and_again(caller: int) -> None:
        calls = 0
        while not load.stopping:
            transcript = Transcript(job_id=f"{name}-{caller}-{calls}", prompt="go on")
            load.seen.append(transcript)
            await _note(follow, transcript)
            calls += 1

    async with _running(load, [call_again_and_again(caller) for caller in range(count)], within_s):
        yield load


@asynccontextmanager
async def _running(load: Load, work: Sequence[Coroutine[Any, Any, None]], within_s: float) -> AsyncIterator[None]:
    due = time.monotonic() + within_s
    load.tasks = [asyncio.create_task(one) for one in work]
    try:
        yield
        load.stopping = True
        await asyncio.wait(load.tasks, timeout=max(due - time.monotonic(), 0.0))
    finally:
        for task in load.tasks:
            task.cancel()
        ended = await asyncio.gather(*load.tasks, return_exceptions=True)
    for error in ended:
        if isinstance(error, Exception):
            raise error


async def _note(follow: Follow, transcript: Transcript) -> None:
    try:
        await follow(transcript)
    except MillraceError as error:
        transcript.code, transcript.reason = error.code, error.reason
