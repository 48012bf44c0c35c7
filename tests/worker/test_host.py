"""The worker's shell around an engine: take, add, step, emit, renew, drop, drain."""

from functools import partial

import pytest

from millrace.errors import Code
from millrace.queue import Ending, JobRef, Result, State, connect, keys
from millrace.queue.bell import Bell
from millrace.v1.generation_pb2 import GenerateResponse
from tests.eventually import eventually
from tests.worker.bench import LIMITS, MODEL, Bench, ending, of, tokens
from tests.worker.counting import CountingEngine


async def test_a_job_is_taken_stepped_and_written_to_its_log_with_an_end(bench: Bench) -> None:
    ref = await bench.submit(20)
    async with bench.host(CountingEngine()):
        await eventually(lambda: bench.ended(ref))
    log = await bench.log(ref)
    assert tokens(log) == list(range(20))
    assert ending(log) == Ending()
    results = [entry for entry in log if isinstance(entry, Result)]
    assert [result.offset for result in results] == list(range(1, len(results) + 1))
    last = GenerateResponse.FromString(results[-1].body or b"")
    assert (last.job_id, last.offset) == (ref.job_id, len(results))
    assert last.history == int.from_bytes(results[-1].history, "little")
    assert (last.timing.attempts, last.timing.worker_id) == (1, "w1")


async def test_jobs_join_running_ones_up_to_the_engines_room(bench: Bench) -> None:
    engine = CountingEngine(slots=3)
    refs = [await bench.submit(30) for _ in range(8)]
    async with bench.host(engine):
        for ref in refs:
            await eventually(partial(bench.ended, ref))
    assert engine.largest_batch == 3
    for ref in refs:
        assert tokens(await bench.log(ref)) == list(range(30))


async def test_a_job_that_the_engine_refuses_ends_with_its_failure(bench: Bench) -> None:
    ref, other = await bench.submit(5, text="refuse"), await bench.submit(5)
    async with bench.host(CountingEngine()):
        await eventually(lambda: bench.ended(ref))
        await eventually(lambda: bench.ended(other))
    expected = Ending(
        code=Code.INVALID_ARGUMENT, reason="REFUSED", message="the engine refuses this prompt", field="text"
    )
    assert ending(await bench.log(ref)) == expected
    assert ending(await bench.log(other)) == Ending()


async def test_a_cancelled_job_leaves_the_engine_and_its_slot(bench: Bench) -> None:
    engine = CountingEngine(slots=1)
    ref, next_ref = await bench.submit(1_000_000), await bench.submit(5)
    async with bench.host(engine):
        await eventually(lambda: engine.jobs)
        await bench.queue.end(ref, Ending(code=Code.CANCELLED, reason="CANCELLED", message="by the test"))
        await eventually(lambda: bench.ended(next_ref))
    assert engine.aborted == [ref.job]


async def test_a_job_that_nobody_wants_any_more_stops(bench: Bench) -> None:
    engine = CountingEngine()
    ref = await bench.submit(1_000_000)
    async with bench.host(engine):
        await eventually(lambda: engine.jobs)
        await bench.queue.unwatch("test", [ref])
        await eventually(lambda: not engine.jobs)
    assert ending(await bench.log(ref)).reason == "ABANDONED"


async def test_another_worker_continues_a_job_where_the_log_ends(bench: Bench) -> None:
    ref = await bench.submit(300)
    async with bench.host(CountingEngine(), "first") as host:
        await eventually(lambda: (held := of(host, ref)) and held.offset > 5)
    async with bench.host(CountingEngine(), "second"):

        async def reaped() -> bool:
            await bench.queue.reap(MODEL)
            return await bench.ended(ref)

        await eventually(reaped)
    log = await bench.log(ref)
    assert tokens(log) == list(range(300))
    record = await bench.record(ref)
    assert (record.attempts, record.strikes) == (2, 0)


async def test_renewal_keeps_a_lease_through_steps_that_are_longer_than_it(bench: Bench) -> None:
    ref = await bench.submit(2)
    async with bench.host(CountingEngine(step_s=2 * LIMITS.lease_ms / 1000)):

        async def reaped() -> bool:
            await bench.queue.reap(MODEL)
            return await bench.ended(ref)

        await eventually(reaped)
    record = await bench.record(ref)
    assert record.attempts == 1


async def test_a_draining_host_hands_its_jobs_back_without_a_strike(bench: Bench) -> None:
    ref = await bench.submit(100_000)
    async with bench.host(CountingEngine(), "first") as host:
        await eventually(lambda: (held := of(host, ref)) and held.offset > 2)
        await host.drain(0.05)
        assert await bench.state(ref) is State.WAITING
    record = await bench.record(ref)
    assert record.strikes == 0


async def test_a_draining_host_lets_short_jobs_finish(bench: Bench) -> None:
    ref = await bench.submit(50)
    async with bench.host(CountingEngine()) as host:
        await eventually(lambda: host.held)
        await host.drain(10.0)
    assert await bench.ended(ref)
    assert tokens(await bench.log(ref)) == list(range(50))


async def test_an_engine_that_fails_ends_the_host(bench: Bench) -> None:
    engine = CountingEngine()
    engine.broken = True
    await bench.submit(5)
    async with connect(bench.url, timeout_s=None) as waits:
        host = bench.make_host(Bell(waits), engine, "w1")
        with pytest.raises(BaseExceptionGroup) as caught:
            await host.run()
    assert caught.group_contains(RuntimeError, match="the device is gone")


async def test_a_job_with_a_strike_runs_alone_until_it_has_a_result(bench: Bench) -> None:
    struck = await bench.submit(100)
    taken = await bench.queue.take(MODEL, "dead", 1, jobs=1, cost=1e9, alone=True)
    assert [lease.ref for lease in taken.leases] == [struck]
    others = [await bench.submit(400) for _ in range(2)]
    engine = CountingEngine()
    async with bench.host(engine):

        async def reaped(ref: JobRef) -> bool:
            await bench.queue.reap(MODEL)
            return await bench.ended(ref)

        for ref in (struck, *others):
            await eventually(partial(reaped, ref), within_s=20)
    for ref, wanted in ((struck, 100), *((other, 400) for other in others)):
        assert tokens(await bench.log(ref)) == list(range(wanted))


async def test_a_job_whose_request_is_gone_ends_with_data_loss(bench: Bench) -> None:
    ref = await bench.submit(5)
    await bench.calls.delete(keys.payload(ref, "f" * 32))
    async with bench.host(CountingEngine()):
        await eventually(lambda: bench.ended(ref))
    assert (ending(await bench.log(ref)).code, ending(await bench.log(ref)).reason) == (
        Code.DATA_LOSS,
        "JOB_INCOMPLETE",
    )


async def test_a_job_whose_results_were_lost_is_handed_back_and_continued_from_what_is_there(bench: Bench) -> None:
    ref = await bench.submit(500)
    async with bench.host(CountingEngine()) as host:
        await eventually(lambda: (held := of(host, ref)) and held.offset > 20)
        of(host, ref).offset += 1  # type: ignore[union-attr]
        await eventually(lambda: bench.ended(ref))
    assert tokens(await bench.log(ref)) == list(range(500))
    record = await bench.record(ref)
    assert (record.attempts, record.strikes) == (2, 0)


async def test_a_log_is_read_whole_however_many_leases_have_left_their_seals_in_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.worker.loading.LOG_PAGE", 4)
    ref = await bench.submit(200)
    async with bench.host(CountingEngine(slots=1)) as host:
        await eventually(lambda: (held := of(host, ref)) and held.offset > 5)
        await host.drain(0.0)
    for sequence in range(1, 20):
        taken = await bench.queue.take(MODEL, "passing", sequence, jobs=1, cost=1e9, alone=True)
        await bench.queue.release(MODEL, [(lease.ref, lease.token, 0) for lease in taken.leases])
    async with bench.host(CountingEngine()):
        await eventually(lambda: bench.ended(ref))
    assert tokens(await bench.log(ref)) == list(range(200))
    assert (await bench.record(ref)).attempts == 21
