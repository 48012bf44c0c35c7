"""A frontend, a worker that plays a classifier, and a client."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from millrace import AsyncClient
from millrace.errors import Code
from millrace.queue import Ending, Priority
from millrace.v1.tasks_pb2 import ClassifyRequest, ClassifyResponse
from services.frontend.server import Frontend
from tests.client.typed_worker import Held, TypedWorker, entry
from tests.frontend.playing import frontend

REFUSED = Ending(code=Code.INVALID_ARGUMENT, reason="INVALID_REQUEST", message="is no animal", field="text")
BROKEN = Ending(code=Code.INTERNAL, reason="MODEL_FAILED", message="broken")


@dataclass
class Classifier:
    """Labels a text by its first word, refuses `stone`, fails at `broken` while `is_broken`."""

    worker: TypedWorker
    asked: list[str] = field(default_factory=list)
    is_broken: bool = True
    priorities: set[Priority] = field(default_factory=set)

    async def serve(self) -> None:
        while True:
            held = await self.worker.next(ClassifyRequest, within_s=60)
            self.asked.append(held.request.text)
            self.priorities.add(held.lease.priority)
            await self._answer(held)

    async def _answer(self, held: Held) -> None:
        word = held.request.text.split()[0]
        if word == "stone" or (word == "broken" and self.is_broken):
            await held.give(ClassifyResponse(), REFUSED if word == "stone" else BROKEN)
            return
        labels = [ClassifyResponse.Label(name=word, score=0.75), ClassifyResponse.Label(name="other", score=0.25)]
        await held.give(ClassifyResponse(labels=labels), Ending())


@pytest.fixture
async def served(redis_url: str) -> AsyncIterator[Frontend]:
    async with frontend(redis_url) as running:
        yield running


@pytest.fixture
async def classifier(redis_url: str, served: Frontend) -> AsyncIterator[Classifier]:
    async with TypedWorker(redis_url, entry("classify")) as worker:
        playing = Classifier(worker)
        serving = asyncio.create_task(playing.serve())
        yield playing
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving


@pytest.fixture
async def client(served: Frontend) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(served.grpc_address, retry_s=5) as opened:
        yield opened
