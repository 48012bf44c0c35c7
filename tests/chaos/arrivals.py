"""Open-loop load: calls that come at their own rate, whatever becomes of those before."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc.aio

from millrace.client.status import Refusal
from millrace.errors import Code, Exhausted
from millrace.v1.generation_pb2 import GenerateRequest, Stopping
from millrace.v1.generation_pb2_grpc import TextGenerationServiceStub
from millrace.v1.job_pb2 import PRIORITY_STANDARD, JobOptions, Priority
from tests.chaos.experiment import percentile
from tests.chaos.load import MODEL


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What a caller asks for."""

    tokens: int
    timeout_s: float
    tenant: str = "default"
    priority: Priority.ValueType = PRIORITY_STANDARD


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One call, when it is over. Times are by the monotonic clock."""

    kind: Kind
    sent: float
    ended: float
    code: Code
    reason: str = ""
    retry_after_s: float = 0.0

    @property
    def latency_s(self) -> float:
        return self.ended - self.sent

    @property
    def is_good(self) -> bool:
        return self.code is Code.OK

    @property
    def is_refused(self) -> bool:
        return self.code is Code.RESOURCE_EXHAUSTED


class Caller:
    """Speaks to one frontend."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._generation = TextGenerationServiceStub(channel)

    async def call(self, kind: Kind) -> Answered:
        """One generation, to its end."""
        request = GenerateRequest(model=MODEL, text="go on", stopping=Stopping(max_tokens=kind.tokens))
        request.job.CopyFrom(JobOptions(priority=kind.priority))
        request.job.timeout.FromMilliseconds(round(1000 * kind.timeout_s))
        sent = time.monotonic()
        call = self._generation.Generate(request, metadata=(("millrace-tenant", kind.tenant),))
        try:
            async for _ in call:
                pass
        except grpc.aio.AioRpcError as failure:
            error = Refusal(failure).error
            retry_s = error.retry_after_s if isinstance(error, Exhausted) else 0.0
            return Answered(
                kind=kind,
                sent=sent,
                ended=time.monotonic(),
                code=error.code,
                reason=error.reason,
                retry_after_s=retry_s,
            )
        finally:
            call.cancel()
        return Answered(kind=kind, sent=sent, ended=time.monotonic(), code=Code.OK)

    async def offer(
        self, rates: Mapping[Kind, float], seconds: float, chance: random.Random, *, cut: bool = False
    ) -> "Offered":
        """Poisson arrivals of each kind, at its rate a second; answers when all calls are over. `cut`: those that are
        not over when the seconds are, are cancelled and left out."""
        moments = sorted((moment, kind) for kind, rate in rates.items() for moment in _poisson(rate, seconds, chance))
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            calls = []
            for moment, kind in moments:
                await asyncio.sleep(max(began + moment - time.monotonic(), 0.0))
                calls.append(group.create_task(self.call(kind)))
            await asyncio.sleep(began + seconds - time.monotonic())
            for call in calls if cut else ():
                call.cancel()
        answers = [call.result() for call in calls if not call.cancelled()]
        return Offered(began=began, seconds=seconds, answers=answers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """What became of the calls of some seconds."""

    began: float
    seconds: float
    answers: Sequence[Answered]

    def of(self, **fields: object) -> "Offered":
        """Only the calls whose kind has these fields."""
        chosen = [one for one in self.answers if all(getattr(one.kind, name) == fields[name] for name in fields)]
        return Offered(began=self.began, seconds=self.seconds, answers=chosen)

    @property
    def good(self) -> list[Answered]:
        return [one for one in self.answers if one.is_good]

    @property
    def refused(self) -> list[Answered]:
        return [one for one in self.answers if one.is_refused]

    @property
    def goodput(self) -> float:
        """Good calls a second, of those that ended while calls came, the first of the seconds left out."""
        first = self.began + 1.0
        return sum(first <= one.ended < self.began + self.seconds for one in self.good) / (self.seconds - 1.0)

    def latency_s(self, share: float) -> float:
        """Of what was accepted, however it ended."""
        return percentile([one.latency_s for one in self.answers if not one.is_refused], share)

    @property
    def others(self) -> list[Answered]:
        """Neither good nor refused: accepted, and not done in time."""
        return [one for one in self.answers if not one.is_good and not one.is_refused]


def _poisson(rate: float, seconds: float, chance: random.Random) -> list[float]:
    moments, moment = [], chance.expovariate(rate)
    while moment < seconds:
        moments.append(moment)
        moment += chance.expovariate(rate)
    return moments


@asynccontextmanager
async def caller(address: str) -> AsyncIterator[Caller]:
    async with grpc.aio.insecure_channel(address) as channel:
        yield Caller(channel)
