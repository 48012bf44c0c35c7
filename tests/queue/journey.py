"""Everything that a frontend and a worker do with the queue, once, by the clients that they do it with."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from millrace.queue import (
    Commands,
    Emission,
    End,
    Ending,
    JobQueue,
    JobRef,
    Lease,
    Mailbox,
    ModelEntry,
    ModelTotals,
    ModelVersion,
    Priority,
    Quota,
    Quotas,
    Registry,
    Replicated,
    Result,
    State,
    Statistics,
    Verb,
    Verdict,
    WorkerEntry,
    connect,
)
from millrace.queue.bell import PATIENCE_S, Bell
from millrace.queue.connection import Redis, Server
from millrace.queue.queue import INLINE_BYTES
from tests.queue.bench import result, submission

ONE = ModelVersion("story", "1")
FRONTEND, WORKER = "f1", "w1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontend:
    calls: Redis
    queue: JobQueue
    mailbox: Mailbox
    durability: Replicated


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    calls: Redis
    queue: JobQueue
    bell: Bell


@asynccontextmanager
async def frontend(server: Server | str, replicas: int = 0) -> AsyncIterator[Frontend]:
    """With its subscription made."""
    async with connect(server) as calls, connect(server, timeout_s=None) as hears, connect(server) as barriers:
        mailbox = Mailbox(hears, FRONTEND)
        durability = Replicated(barriers, replicas=replicas, outage_s=5.0)
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(mailbox.run()), tasks.create_task(durability.run())]
            await asyncio.wait_for(mailbox.subscribed.wait(), 5.0)
            yield Frontend(calls=calls, queue=JobQueue(calls), mailbox=mailbox, durability=durability)
            for task in running:
                task.cancel()


@asynccontextmanager
async def worker(server: Server | str) -> AsyncIterator[Worker]:
    async with connect(server) as calls, connect(server, timeout_s=PATIENCE_S) as waits:
        yield Worker(calls=calls, queue=JobQueue(calls), bell=Bell(waits))


async def journey(asks: Server | str, serves: Server | str, models: Sequence[ModelVersion] = (ONE,)) -> None:
    """Raises where anything is refused, or not as it must be."""
    async with frontend(asks) as front, worker(serves) as back:
        await _meet(front, back, models)
        for model in models:
            await _serve(front, back, model)
            await _give_up(front, back, model)
        await _count(front, back, models)
        await _pay(front)


async def _meet(front: Frontend, back: Worker, models: Sequence[ModelVersion]) -> None:
    """The registry, and commands."""
    entries = [ModelEntry(name=of.name, version=of.version, task="text-generation", digest="") for of in models]
    entry = WorkerEntry(worker_id=WORKER, device="CPU", execution_provider="CPU", state="ready")
    await Registry(back.calls).announce(entry, entries)
    assert [one.worker_id for one in await Registry(front.calls).workers()] == [WORKER]
    assert sorted(one.model for one in await Registry(front.calls).models()) == sorted(models)
    await Commands(front.calls).give("models", "story", Verb.LOOK)
    assert (await Commands(back.calls).read("models"))["story"].verb is Verb.LOOK
    assert await front.calls.ping()
    assert int((await front.calls.info("memory"))["used_memory"]) > 0


async def _serve(front: Frontend, back: Worker, model: ModelVersion) -> None:
    """Two jobs: one from the submission to the end, the other handed back on the way."""
    ringing = asyncio.create_task(back.bell.wait(model))
    large = replace(submission(f"large-{model.name}", watcher=FRONTEND), payload=bytes(2 * INLINE_BYTES))
    named = replace(large, ref=replace(large.ref, model=model))
    with front.mailbox.open(named.ref) as inbox:
        ref = await front.queue.submit(named)
        assert await front.durability.holds(ref)
        await ringing
        lease = await _take(back, model)
        assert await back.queue.payload(ref, named.fingerprint) == named.payload
        assert await back.queue.emit(model, [result(lease, 1)]) == [Verdict.OK]
        await asyncio.wait_for(inbox.wait(), 5.0)
        assert [entry.offset for entry in inbox.take() if isinstance(entry, Result)] == [1]
    assert await back.queue.renew(model, [(ref, lease.token)]) == [Verdict.OK]
    assert not await back.queue.is_waited_for(model, Priority.BATCH)
    assert await back.queue.release(model, [(ref, lease.token, 1)]) == [Verdict.OK]
    again = await _take(back, model)
    assert await back.queue.emit(model, [Emission(ref=ref, token=again.token, ending=Ending())]) == [Verdict.OK]
    entries = await front.queue.read(ref)
    assert await front.durability.kept(ref, entries) == entries
    assert isinstance(entries[-1], End)
    located = await front.queue.locate(ref.tenant, ref.job_id)
    assert located is not None
    assert located.state is State.ENDED
    await front.queue.unwatch(FRONTEND, [ref])
    await front.queue.forget([ref])
    assert await front.queue.locate(ref.tenant, ref.job_id) is None


async def _give_up(front: Frontend, back: Worker, model: ModelVersion) -> None:
    """A small job that ends on its caller's word, while others look at the queue."""
    small = submission(f"small-{model.name}", watcher=FRONTEND)
    ref = await front.queue.submit(replace(small, ref=replace(small.ref, model=model)))
    assert (await front.queue.watch(FRONTEND, [ref]))[ref].state is State.WAITING
    assert (await front.queue.load(model))["jobs"] == 1
    await front.queue.reap(model)
    await back.queue.reap(model)
    lease = await _take(back, model)
    assert await front.queue.end(ref, Ending())
    assert await back.queue.emit(model, [result(lease, 1)]) != [Verdict.OK]
    await front.queue.forget([ref])


async def _count(front: Frontend, back: Worker, models: Sequence[ModelVersion]) -> None:
    """Whoever asks for statistics is heard by all, and told by all."""
    done = {model: ModelTotals(rows=number) for number, model in enumerate(models, 1)}
    asks, tells = Statistics(front.calls, FRONTEND), Statistics(back.calls, WORKER)
    telling = [asyncio.create_task(tells.run(lambda: done)), asyncio.create_task(asks.run(lambda: {}))]
    try:
        async with asyncio.timeout(5.0):
            while await asks.read(models) != done:
                await asks.refresh()
    finally:
        for task in telling:
            task.cancel()
        await asyncio.gather(*telling, return_exceptions=True)


async def _pay(front: Frontend) -> None:
    """What a tenant takes of the fleet."""
    quotas, quota = Quotas(front.calls), Quota(requests_per_minute=10, tokens_per_minute=100, concurrent_jobs=1)
    one, other = (JobRef(ONE, "a", job_id) for job_id in ("1", "2"))
    receipt = await quotas.take(one, quota, cost=10, timeout_ms=1_000)
    await quotas.undo(one, receipt)
    await quotas.take(other, quota, cost=10, timeout_ms=1_000)
    await quotas.settle(other)


async def _take(back: Worker, model: ModelVersion) -> Lease:
    taken = await back.queue.take(model, WORKER, _next(), jobs=1, cost=1e9, alone=True)
    (lease,) = taken.leases
    return lease


_numbers = iter(range(1, 2**53))


def _next() -> int:
    return next(_numbers)
