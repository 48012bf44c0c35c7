"""What the steps add is written in their order, and who waits for it is told."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from millrace.engine import Output
from millrace.queue import Ending, Verdict
from millrace.v1.generation_pb2 import CompletionDelta, GenerateResponse
from services.worker.emitter import Emitter
from services.worker.results import Held
from tests.worker.bench import MODEL, Bench, ending, tokens


@dataclass
class Jobs:
    """The jobs of a worker without an engine."""

    held: dict[str, Held] = field(default_factory=dict)
    lost: list[Verdict] = field(default_factory=list)

    def refused(self, lease: str, verdict: Verdict) -> None:
        del self.held[lease]
        self.lost.append(verdict)

    def ended(self, lease: str) -> None:
        del self.held[lease]


def output(job: Held, token_id: int, *, last: bool = False) -> Output:
    result = GenerateResponse(deltas=[CompletionDelta(token_ids=[token_id])])
    return Output(lease=job.lease.token, result=result, last=last)


@pytest.fixture
async def jobs(bench: Bench) -> Jobs:
    """One job, leased."""
    await bench.submit(5)
    taken = await bench.queue.take(MODEL, "w", 1, jobs=1, cost=1e9, alone=True)
    return Jobs({lease.token: Held(lease=lease, offset=0, history=lease.history) for lease in taken.leases})


@pytest.fixture
async def emitter(bench: Bench, jobs: Jobs) -> AsyncIterator[Emitter]:
    emitter = Emitter(bench.queue, MODEL, "w", jobs, bench.metrics.of(MODEL))
    running = asyncio.create_task(emitter.run())
    yield emitter
    running.cancel()
    await asyncio.wait([running])


async def test_what_was_put_is_in_the_log_when_it_is_said_to_be_written(
    bench: Bench, jobs: Jobs, emitter: Emitter
) -> None:
    (job,) = jobs.held.values()
    await emitter.written()
    for token_id in range(5):
        emitter.put([output(job, token_id, last=token_id == 4)])
        await emitter.written()
        assert tokens(await bench.log(job.lease.ref)) == list(range(token_id + 1))
    assert ending(await bench.log(job.lease.ref)) == Ending()
    assert jobs.held == {}


async def test_nobody_waits_for_what_is_not_wanted_any_more(bench: Bench, jobs: Jobs, emitter: Emitter) -> None:
    (job,) = jobs.held.values()
    emitter.put([output(job, 0)])
    emitter.forget(job.lease.token)
    await emitter.written()
    assert tokens(await bench.log(job.lease.ref)) == []
    await bench.queue.release(MODEL, [(job.lease.ref, job.lease.token, 0)])
    emitter.put([output(job, 0)])
    await emitter.written()
    assert jobs.lost == [Verdict.LOST]
