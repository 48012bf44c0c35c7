"""What callers do: each story is one caller's, ends by itself, and judges what it got.

Those that end well, those that cancel, vanish, come back, ask for too much or for nonsense, and those that do not read.
"""

import asyncio
import random
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING, Self

import grpc.aio
import numpy as np

from millrace import AlreadyExists, AsyncClient, Code, Delta, InvalidRequest, MillraceError, NotFound
from millrace.client.status import Refusal
from millrace.v1.generation_pb2 import GenerateRequest, GenerateResponse, Stopping
from millrace.v1.generation_pb2_grpc import TextGenerationServiceStub
from millrace.v1.job_pb2 import JobOptions
from tests.chaos.unary import DIGITS
from tests.checker.history import Received
from tests.soak.judge import Judge

if TYPE_CHECKING:
    from millrace.v1.generation_pb2_grpc import TextGenerationServiceAsyncStub

TENANTS = ("amber", "blue", "coral")
PROMPT = "go on"
TIMEOUT_S = 30.0
"""Of every job, so that nothing of it is left soon after."""
WINDOW_S = 15
"""How long a named job is kept for a caller whose connection was lost."""
STALL_S = 6.0
"""How long a caller does not read; longer than the frontends put up with."""
INFER = "/inference.GRPCInferenceService/ModelInfer"
SMALL_WINDOW = (("grpc.http2.lookahead_bytes", 1), ("grpc.http2.bdp_probe", 0))


class Stories:
    """The callers of one round, with connections of their own, which are gone at its end."""

    def __init__(self, addresses: list[str], judge: Judge, chance: random.Random) -> None:
        self._addresses, self._judge, self._chance = addresses, judge, chance
        with np.load(DIGITS / "held_out.npz") as held_out:
            self._images, self._labels = held_out["x"].astype(np.float32), held_out["label"].tolist()

    async def __aenter__(self) -> Self:
        self._stack = AsyncExitStack()
        self._clients = {
            tenant: await self._stack.enter_async_context(AsyncClient(*self._addresses, tenant=tenant))
            for tenant in TENANTS
        }
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def draw(self) -> "Story":
        stories, weights = list(STORIES), list(STORIES.values())
        return self._chance.choices(stories, weights)[0]

    # ── streams ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def read_all(self) -> None:
        tenant, job_id = self._caller()
        received = await _read(self._generate(tenant, job_id, self._chance.randint(1, 200)))
        await self._judge.stream("read_all", tenant, job_id, received)

    async def read_and_cancel(self) -> None:
        """Leaving the client's stream cancels the job."""
        tenant, job_id = self._caller()
        received = await _read(self._generate(tenant, job_id, 200), self._chance.randint(1, 60))
        await self._judge.stream("read_and_cancel", tenant, job_id, received, whole=False)

    async def read_twice(self) -> None:
        """Two callers of one job, the second of whom comes later."""
        tenant, job_id = self._caller()
        tokens = self._chance.randint(50, 200)
        pause_s = self._chance.uniform(0, 0.4)
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(_read(self._generate(tenant, job_id, tokens)))
            await asyncio.sleep(pause_s)
            second = tasks.create_task(_read(self._generate(tenant, job_id, tokens)))
        for reader in (first, second):
            await self._judge.stream("read_twice", tenant, job_id, reader.result())

    async def vanish_and_return(self) -> None:
        """A caller whose connection is lost, who comes back for all of it within the window."""
        tenant, job_id = self._caller()
        tokens = self._chance.randint(50, 200)
        await self._vanish(tenant, JobOptions(job_id=job_id), tokens)
        received = await _read(self._generate(tenant, job_id, tokens))
        await self._judge.stream("vanish_and_return", tenant, job_id, received)

    async def vanish(self) -> None:
        """A caller who does not come back, named or not."""
        tenant, job_id = self._caller()
        await self._vanish(tenant, JobOptions(job_id=self._chance.choice(("", job_id))), 200)
        self._judge.right("vanish")

    async def submit_and_watch(self) -> None:
        tenant, job_id = self._caller()
        client = self._clients[tenant]
        tokens = self._chance.randint(1, 200)
        await client.submit("stub", PROMPT, job_id=job_id, timeout_s=TIMEOUT_S, max_tokens=tokens)
        await asyncio.sleep(self._chance.uniform(0, 0.5))
        await self._judge.stream("submit_and_watch", tenant, job_id, await _read(client.watch(job_id)))

    async def stall(self) -> None:
        """Takes a stream, and does not read it."""
        tenant, _ = self._caller()
        async with grpc.aio.insecure_channel(self._chance.choice(self._addresses), options=SMALL_WINDOW) as channel:
            call = self._call(channel, tenant, JobOptions(), 200)
            await asyncio.sleep(STALL_S)
            call.cancel()
        self._judge.right("stall")

    # ── answers at once ──────────────────────────────────────────────────────────────────────────────────────────

    async def tensors(self) -> None:
        tenant, job_id = self._caller()
        at = self._chance.randrange(len(self._images))
        named, image = self._chance.random() < 0.5, self._images[at][np.newaxis]
        answer = await self._clients[tenant].infer(
            "digits",
            {"x": image},
            job_id=job_id if named else None,
            resume_window_s=WINDOW_S if named else 0,
            timeout_s=TIMEOUT_S,
        )
        if answer["label"].tolist() == [self._labels[at]]:
            self._judge.right("tensors")
        else:
            self._judge.wrong("tensors", f"image {at} is not a {answer['label'].tolist()}")

    async def too_late(self) -> None:
        """More than can be done in time; where it is known to be, the job is refused."""
        tenant, job_id = self._caller()
        try:
            await _read(self._generate(tenant, job_id, 10_000, timeout_s=self._chance.uniform(0.05, 0.5)))
        except MillraceError as error:
            refused = error.reason == "DEADLINE_TOO_NEAR"
            self._expect("too_late", error, refused or error.code is Code.DEADLINE_EXCEEDED)

    async def nonsense(self) -> None:
        tenant, job_id = self._caller()
        client = self._clients[tenant]
        asked: list[tuple[type[MillraceError], Callable[[], Awaitable[object]]]] = [
            (NotFound, lambda: client.generate_text("nobody", PROMPT, job_id=job_id, timeout_s=TIMEOUT_S)),
            (NotFound, lambda: client.get(job_id)),
            (InvalidRequest, lambda: client.generate_text("stub", PROMPT, job_id="not a name")),
            (InvalidRequest, lambda: client.infer("digits", {"x": np.zeros((1, 3), np.int64)})),
            (InvalidRequest, self._garbage),
            (AlreadyExists, lambda: self._reuse(client, job_id)),
        ]
        kind, ask = self._chance.choice(asked)
        try:
            await ask()
            self._judge.wrong("nonsense", f"{kind.__name__} was expected")
        except MillraceError as error:
            self._expect("nonsense", error, isinstance(error, kind))

    async def _garbage(self) -> None:
        """A frontend that dies under it says as little as one that refuses it."""
        async with grpc.aio.insecure_channel(self._chance.choice(self._addresses)) as channel:
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(INFER)
            try:
                await call(self._chance.randbytes(self._chance.randint(8, 200)), timeout=TIMEOUT_S)
            except grpc.aio.AioRpcError as failure:
                refusal = Refusal(failure)
                raise InvalidRequest([]) if refusal.lost else refusal.error from failure

    async def _reuse(self, client: AsyncClient, job_id: str) -> None:
        await client.submit("stub", PROMPT, job_id=job_id, timeout_s=TIMEOUT_S, max_tokens=1)
        await client.submit("stub", "something else", job_id=job_id, timeout_s=TIMEOUT_S, max_tokens=1)

    # ── what they share ──────────────────────────────────────────────────────────────────────────────────────────

    def _caller(self) -> tuple[str, str]:
        return self._chance.choice(TENANTS), uuid.UUID(int=self._chance.getrandbits(128)).hex

    def _generate(
        self, tenant: str, job_id: str, tokens: int, timeout_s: float = TIMEOUT_S
    ) -> AsyncGenerator[Delta, None]:
        return self._clients[tenant].generate("stub", PROMPT, job_id=job_id, timeout_s=timeout_s, max_tokens=tokens)

    async def _vanish(self, tenant: str, job: JobOptions, tokens: int) -> None:
        if job.job_id:
            job.resume_window.FromSeconds(WINDOW_S)
        async with grpc.aio.insecure_channel(self._chance.choice(self._addresses)) as channel:
            call = self._call(channel, tenant, job, tokens)
            await asyncio.sleep(self._chance.uniform(0, 0.5))
            call.cancel()

    def _call(
        self, channel: grpc.aio.Channel, tenant: str, job: JobOptions, tokens: int
    ) -> "grpc.aio.UnaryStreamCall[GenerateRequest, GenerateResponse]":
        job.timeout.FromSeconds(int(TIMEOUT_S))
        request = GenerateRequest(model="stub", text=PROMPT, stopping=Stopping(max_tokens=tokens), job=job)
        stub: TextGenerationServiceAsyncStub = TextGenerationServiceStub(channel)
        return stub.Generate(request, metadata=(("millrace-tenant", tenant),))

    def _expect(self, kind: str, error: MillraceError, right: bool) -> None:
        if right:
            self._judge.right(kind)
        else:
            self._judge.wrong(kind, f"{error.code.name} {error.reason}: {error}")


Story = Callable[[Stories], Awaitable[None]]
STORIES: dict[Story, float] = {
    Stories.read_all: 3,
    Stories.read_and_cancel: 2,
    Stories.read_twice: 1,
    Stories.vanish_and_return: 1,
    Stories.vanish: 2,
    Stories.submit_and_watch: 2,
    Stories.stall: 0.5,
    Stories.tensors: 6,
    Stories.too_late: 1,
    Stories.nonsense: 2,
}
"""How often each is told, relative to the others."""


async def _read(deltas: AsyncGenerator[Delta, None], at_most: int | None = None) -> list[Received]:
    """What a stream gives, to its end or so far; then it is left."""
    received: list[Received] = []
    async with aclosing(deltas):
        async for delta in deltas:
            received.append(Received(message=delta.message, at=time.monotonic()))
            if len(received) == at_most:
                break
    return received
