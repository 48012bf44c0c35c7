"""Calls that are given up before their end, in every way in which a call can be given up."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterable, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

import grpc.aio
import numpy as np
from grpc.aio import AioRpcError

from millrace import AsyncClient
from millrace.client.tensors import make_infer_request
from millrace.errors import Code
from millrace.oip.inference_pb2_grpc import GRPCInferenceServiceStub
from millrace.queue import Entry, JobQueue, JobRef
from millrace.v1.generation_pb2 import GenerateRequest, GenerateResponse, Stopping
from millrace.v1.generation_pb2_grpc import TextGenerationServiceStub
from tests.chaos.load import MODEL
from tests.chaos.redis_view import STUB
from tests.proxy import Proxy
from tests.survival.fleet import Transcript

OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)
NAMES = "named"
MOST_ENTRIES = 10_000
IMAGE = np.zeros((1, 1, 8, 8), np.float32)

Given = tuple[str, bool]
"""In which way a call was given up, and whether it had not ended before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """How long calls are: `tokens` for the streams, which takes `whole_s`, and `infer_s` for tensors."""

    tokens: int
    whole_s: float
    infer_s: float
    settle_s: float
    """When work on a job has to be over that was cancelled: one step and one renewal."""


class GivingUp:
    """Makes calls of a frontend, and gives them up. Early moments are drawn as often as late ones."""

    def __init__(
        self, client: AsyncClient, channel: grpc.aio.Channel, address: str, queue: JobQueue, calls: Calls
    ) -> None:
        self._client, self._channel, self._address, self._queue, self._calls = client, channel, address, queue, calls
        self._request = GenerateRequest(model=MODEL, text="go on", stopping=Stopping(max_tokens=calls.tokens))
        self.named: list[Transcript] = []
        """Of jobs with names, whose logs stay for a while."""
        self.looks: dict[str, asyncio.Task[tuple[int, list[Entry]]]] = {}
        """Of those that were given up: how many entries the log had when work had to be over, and the log later on."""
        self.given: Counter[Given] = Counter()

    async def once(self, chance: random.Random) -> None:
        """One call, given up in one of the ways."""
        ways: list[Callable[[float], Awaitable[bool]]] = [self._cancelled, self._late, self._hung_up, self._cut]
        ways += [self._unary, self._leave, self._drop]
        (way,) = chance.choices(ways, (50, 15, 3, 2, 10, 10, 10))
        part = chance.random() if chance.random() < 0.5 else 10 ** chance.uniform(-3, 0)
        self.given[way.__name__.strip("_"), await way(part)] += 1

    async def _cancelled(self, part: float) -> bool:
        call = TextGenerationServiceStub(self._channel).Generate(self._request)
        try:
            return await _is_cut_short(call, part * self._calls.whole_s)
        finally:
            call.cancel()

    async def _late(self, part: float) -> bool:
        call = TextGenerationServiceStub(self._channel).Generate(self._request, timeout=part * self._calls.whole_s)
        try:
            return await _is_cut_short(call, 10.0)
        finally:
            call.cancel()

    async def _hung_up(self, part: float) -> bool:
        async with grpc.aio.insecure_channel(self._address, options=OWN_CONNECTION) as channel:
            call = TextGenerationServiceStub(channel).Generate(self._request)
            reading = asyncio.create_task(_is_cut_short(call, 10.0))
            await asyncio.sleep(part * self._calls.whole_s)
        await asyncio.wait([reading])
        return reading.cancelled() or reading.result()

    async def _cut(self, part: float) -> bool:
        async with Proxy(self._address) as proxy, grpc.aio.insecure_channel(proxy.address) as channel:
            call = TextGenerationServiceStub(channel).Generate(self._request)
            reading = asyncio.create_task(_is_cut_short(call, 10.0))
            await asyncio.sleep(part * self._calls.whole_s)
            proxy.break_connections()
            return await reading

    async def _unary(self, part: float) -> bool:
        request = make_infer_request("digits", {"x": IMAGE}, None, "")
        call = GRPCInferenceServiceStub(self._channel).ModelInfer(request)
        try:
            async with asyncio.timeout(part * self._calls.infer_s):
                await call
        except TimeoutError:
            return True
        finally:
            call.cancel()
        return False

    async def _leave(self, part: float) -> bool:
        """The client's stream is left, so that it tells the service to cancel the job."""
        transcript = self._name()
        stream = self._client.generate(
            MODEL, transcript.prompt, job_id=transcript.job_id, max_tokens=self._calls.tokens
        )
        try:
            async with asyncio.timeout(part * self._calls.whole_s), aclosing(stream) as deltas:
                async for delta in deltas:
                    transcript.note(delta.message)
        except TimeoutError:
            return self._gave_up(transcript)
        transcript.code = Code.OK
        return False

    async def _drop(self, part: float) -> bool:
        """A named job that nobody watches any more, since its only call is cancelled."""
        transcript, request = self._name(), GenerateRequest()
        request.CopyFrom(self._request)
        request.job.job_id = transcript.job_id
        call = TextGenerationServiceStub(self._channel).Generate(request)
        try:
            async with asyncio.timeout(part * self._calls.whole_s):
                async for message in call:
                    transcript.note(message)
        except TimeoutError:
            return self._gave_up(transcript)
        finally:
            call.cancel()
        transcript.code = Code.OK
        return False

    def _name(self) -> Transcript:
        self.named.append(Transcript(job_id=f"{NAMES}-{len(self.named)}", prompt=self._request.text))
        return self.named[-1]

    def _gave_up(self, transcript: Transcript) -> bool:
        self.looks[transcript.job_id] = asyncio.create_task(self._look(transcript.job_id))
        return True

    async def _look(self, job_id: str) -> tuple[int, list[Entry]]:
        ref = JobRef(STUB, "default", job_id)
        await asyncio.sleep(self._calls.settle_s)
        settled = len(await self._queue.read(ref, 0, MOST_ENTRIES))
        await asyncio.sleep(self._calls.settle_s)
        return settled, await self._queue.read(ref, 0, MOST_ENTRIES)


async def _is_cut_short(call: AsyncIterable[GenerateResponse], within_s: float) -> bool:
    """Reads; whether the end was not reached."""
    try:
        async with asyncio.timeout(within_s):
            async for _ in call:
                pass
    except (TimeoutError, AioRpcError):
        return True
    return False
