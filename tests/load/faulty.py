"""A service over real gRPC that streams as it should, but for the fault that a test plants.

python -m tests.load.faulty FAULT: serves it until it is interrupted, and prints its address.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import grpc.aio

from millrace.queue import history as running
from millrace.v1.fleet_pb2 import (
    ListModelsRequest,
    ListModelsResponse,
    ListWorkersRequest,
    ListWorkersResponse,
    Model,
)
from millrace.v1.fleet_pb2_grpc import FleetServiceServicer, add_FleetServiceServicer_to_server
from millrace.v1.generation_pb2 import FINISH_REASON_LENGTH, CompletionDelta, GenerateRequest, GenerateResponse
from millrace.v1.generation_pb2_grpc import (
    TextGenerationServiceServicer,
    add_TextGenerationServiceServicer_to_server,
)

Messages: TypeAlias = list[GenerateResponse]
Plant: TypeAlias = Callable[[Messages], Messages]
MODEL = "faulty"
TOKENS = 8
OPTIONS = (("grpc.http2.min_recv_ping_interval_without_data_ms", 500), ("grpc.http2.max_ping_strikes", 0))
"""The client asks each second whether the server is still there."""


def stream(job_id: str, tokens: int = TOKENS, salt: int = 0) -> Messages:
    """A good one, a token in each message. `salt` makes its tokens others."""
    messages, history = [], running.EMPTY
    for offset in range(1, tokens + 1):
        delta = CompletionDelta(text=f"t{offset} ", token_ids=[1000 * salt + offset])
        message = GenerateResponse(job_id=job_id, offset=offset, deltas=[delta])
        if offset == tokens:
            message.deltas[0].finish_reason = FINISH_REASON_LENGTH
            message.usage.prompt_tokens, message.usage.completion_tokens = 5, tokens
        history = running.extend(history, message.SerializeToString())
        message.history = running.to_field(history)
        messages.append(message)
    return messages


def _good(messages: Messages) -> Messages:
    return messages


def _lost(messages: Messages) -> Messages:
    return messages[:2] + messages[3:]


def _lost_first(messages: Messages) -> Messages:
    return messages[1:]


def _repeated(messages: Messages) -> Messages:
    return messages[:3] + messages[2:]


def _swapped(messages: Messages) -> Messages:
    return [*messages[:2], messages[3], messages[2], *messages[4:]]


def _altered(messages: Messages) -> Messages:
    messages[3].deltas[0].text = "something else"
    return messages


def _cut(messages: Messages) -> Messages:
    return messages[:4]


def _overrun(messages: Messages) -> Messages:
    extra = GenerateResponse(job_id=messages[0].job_id, offset=len(messages) + 1, deltas=[CompletionDelta(text="!")])
    return [*messages, extra]


def _foreign(messages: Messages) -> Messages:
    return messages[:3] + stream("another-job", salt=1)[3:4] + messages[4:]


def _renamed(messages: Messages) -> Messages:
    """Another job's delta under this one's name."""
    (other,) = stream(messages[0].job_id, salt=1)[3:4]
    return [*messages[:3], other, *messages[4:]]


def _miscounted(messages: Messages) -> Messages:
    return _finished(messages, completion_tokens=TOKENS + 1)


def _unfinished(messages: Messages) -> Messages:
    messages[-1].deltas[0].finish_reason = 0  # type: ignore[assignment]
    return _finished(messages, completion_tokens=TOKENS)


def _finished(messages: Messages, completion_tokens: int) -> Messages:
    """With that usage, and the history that goes with it."""
    last = messages[-1]
    last.usage.completion_tokens = completion_tokens
    last.ClearField("history")
    earlier = messages[-2].history.to_bytes(8, "little")
    last.history = running.to_field(running.extend(earlier, last.SerializeToString()))
    return messages


PLANTS: dict[str, Plant] = {
    "none": _good,
    "lost": _lost,
    "lost first": _lost_first,
    "repeated": _repeated,
    "swapped": _swapped,
    "altered": _altered,
    "early end": _cut,
    "late delta": _overrun,
    "foreign": _foreign,
    "foreign, renamed": _renamed,
    "wrong usage": _miscounted,
    "no finish reason": _unfinished,
}


class Faulty(TextGenerationServiceServicer, FleetServiceServicer):
    """Answers every generation with a `stream` that has the fault; where it `hangs`, the call never ends."""

    def __init__(self, plant: Plant, *, hangs: bool = False) -> None:
        self._plant, self._hangs = plant, hangs
        self.requests: list[GenerateRequest] = []

    async def Generate(self, request: GenerateRequest, context: Any) -> AsyncIterator[GenerateResponse]:
        self.requests.append(request)
        for message in self._plant(stream(request.job.job_id)):
            yield message
        if self._hangs:
            await asyncio.Event().wait()

    async def ListModels(self, request: ListModelsRequest, context: Any) -> ListModelsResponse:
        return ListModelsResponse(models=[Model(name=MODEL, versions=["1"], task="text-generation", ready_workers=1)])

    async def ListWorkers(self, request: ListWorkersRequest, context: Any) -> ListWorkersResponse:
        return ListWorkersResponse()


@asynccontextmanager
async def serving(faulty: Faulty) -> AsyncIterator[str]:
    """Its address."""
    server = grpc.aio.server(options=OPTIONS)
    add_TextGenerationServiceServicer_to_server(faulty, server)
    add_FleetServiceServicer_to_server(faulty, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def main(fault: str) -> None:
    async with serving(Faulty(PLANTS[fault])) as address:
        print(address, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
