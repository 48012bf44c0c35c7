"""Where a job's time went, and what a run was made of."""

import time

import pytest

from millrace.engine import Failure, Output
from millrace.errors import Code
from millrace.oip.inference_pb2 import ModelInferResponse
from millrace.queue import JobRef, Lease, ModelVersion, Priority
from services.worker.statistics import Ledger, Totals
from tests.eventually import eventually
from tests.worker.bench import MODEL, Bench
from tests.worker.counting import CountingEngine

RESULT = ModelInferResponse()
BAD = Failure(code=Code.INVALID_ARGUMENT, reason="BAD", message="is bad")


def lease(token: str, *, queued_ms: int = 100, lost_ms: int = 0) -> Lease:
    """One of a job that waited for its first lease, and lost that after `lost_ms`."""
    return Lease(
        ref=JobRef(ModelVersion("m", "1"), "a", token),
        token=token,
        epoch=1,
        strikes=0,
        attempts=1,
        priority=Priority.STANDARD,
        last_offset=0,
        history=bytes(8),
        cost=1,
        fingerprint="0" * 32,
        submit_ms=1_000,
        first_take_ms=1_000 + queued_ms,
        take_ms=1_000 + queued_ms + lost_ms,
        deadline_ms=600_000,
        task="infer",
    )


def begin(ledger: Ledger, *tokens: str) -> float:
    for token in tokens:
        ledger.taken(lease(token))
        ledger.added(token)
    return time.monotonic()


def output(token: str, rows: int = 1, *, last: bool = True, began: float = 0.0) -> Output:
    return Output(lease=token, result=RESULT, last=last, cost=rows, began=began)


def test_a_job_of_tensors_is_part_of_the_run_that_answers_it() -> None:
    totals = Totals()
    ledger = Ledger(totals, generates=False)
    now = begin(ledger, "a", "b", "c")
    ledger.ran([output("a", 2), output("b", 3)], now, now + 0.5)
    ledger.ran([output("c", 1)], now + 0.5, now + 0.75)
    for token in "abc":
        ledger.ended(token)
    read = totals.read()
    assert (read.rows, read.runs, read.success.count, read.failure.count) == (6, 2, 3, 0)
    assert {size: runs.count for size, runs in read.batches.items()} == {5: 1, 1: 1}
    assert read.batches[5].infer_ns == pytest.approx(5e8, rel=1e-3)
    assert read.compute_infer.ns == pytest.approx(2 * 5e8 + 2.5e8, rel=1e-3)
    assert read.queue.ns == pytest.approx(3 * 1e8 + 5e8, rel=0.1)


def test_a_step_that_waited_before_it_ran_counts_from_when_the_model_began() -> None:
    totals = Totals()
    ledger = Ledger(totals, generates=False)
    now = begin(ledger, "a")
    ledger.ran([output("a", began=now + 0.4)], now, now + 0.5)
    ledger.ended("a")
    read = totals.read()
    assert read.compute_infer.ns == pytest.approx(1e8, rel=1e-3)
    assert read.queue.ns == pytest.approx(5e8, rel=0.1)
    assert read.batches[1].infer_ns == pytest.approx(1e8, rel=1e-3)


def test_a_job_of_several_parts_has_run_in_each_of_them() -> None:
    totals = Totals()
    ledger = Ledger(totals, generates=False)
    now = begin(ledger, "a")
    ledger.ran([output("a", 1, last=False)], now, now + 0.1)
    ledger.ran([output("a", 3)], now + 0.1, now + 0.3)
    ledger.ended("a")
    read = totals.read()
    assert (read.rows, read.runs, read.success.count) == (3, 2, 1)
    assert {size: runs.count for size, runs in read.batches.items()} == {1: 1, 2: 1}
    assert read.compute_infer.ns == pytest.approx(3e8, rel=1e-3)


def test_a_job_that_generates_is_part_of_every_step_behind_its_coming() -> None:
    totals = Totals()
    ledger = Ledger(totals, generates=True)
    now = begin(ledger, "a", "b")
    ledger.ran([], now, now + 0.1)
    ledger.ran([output("a", last=False)], now + 0.1, now + 0.2)
    ledger.ran([output("a"), output("b", last=False)], now + 0.2, now + 0.3)
    ledger.ended("a")
    ledger.ran([output("b")], now + 0.3, now + 0.4)
    ledger.ended("b")
    read = totals.read()
    assert (read.rows, read.runs, read.success.count) == (2, 4, 2)
    assert {size: runs.count for size, runs in read.batches.items()} == {2: 3, 1: 1}
    assert read.compute_infer.ns == pytest.approx(7e8, rel=1e-3)


def test_a_job_that_came_during_a_step_joins_the_next() -> None:
    totals = Totals()
    ledger = Ledger(totals, generates=True)
    now = begin(ledger, "a")
    begin(ledger, "b")
    ledger.ran([output("a", last=False)], now, now + 0.1)
    ledger.ran([output("a"), output("b")], now + 1, now + 1.1)
    assert {size: runs.count for size, runs in totals.read().batches.items()} == {1: 1, 2: 1}


@pytest.mark.parametrize("generates", [False, True])
def test_what_fails_without_a_run_is_a_failure_and_no_run(generates: bool) -> None:
    totals = Totals()
    ledger = Ledger(totals, generates=generates)
    now = begin(ledger, "a")
    ledger.ran([Output(lease="a", last=True, failure=BAD)], now, now)
    ledger.ended("a")
    read = totals.read()
    assert (read.rows, read.runs, read.success.count, read.failure.count) == (0, 0, 0, 1)
    assert read.failure.ns == pytest.approx(1e8, rel=0.1)


@pytest.mark.parametrize("generates", [False, True])
def test_a_job_that_the_engine_had_run_before_it_was_said_to_be_added_is_counted(generates: bool) -> None:
    totals = Totals()
    ledger = Ledger(totals, generates=generates)
    ledger.taken(lease("a"))
    now = time.monotonic()
    ledger.ran([output("a", 2)], now, now + 0.1)
    ledger.added("a")
    ledger.ended("a")
    read = totals.read()
    assert (read.rows, read.runs, read.success.count) == (1 if generates else 2, 1, 1)
    assert read.compute_infer.ns == pytest.approx(1e8, rel=0.01)


def test_of_a_job_that_another_worker_had_before_the_time_there_is_not_queueing() -> None:
    totals = Totals()
    ledger = Ledger(totals, generates=False)
    ledger.taken(lease("a", queued_ms=100, lost_ms=3_000))
    ledger.added("a")
    now = time.monotonic()
    ledger.ran([output("a")], now, now)
    ledger.ended("a")
    read = totals.read()
    assert read.queue.ns == pytest.approx(1e8, rel=0.1)
    assert read.success.ns == pytest.approx(3.1e9, rel=0.1)


@pytest.mark.parametrize("generates", [False, True])
def test_nothing_is_left_of_jobs_that_are_gone(generates: bool) -> None:
    totals = Totals()
    ledger = Ledger(totals, generates=generates)
    now = begin(ledger, "a", "b", "c")
    ledger.ran([output("a", last=False)], now, now + 0.1)
    ledger.dropped("a")
    ledger.cancelled("b")
    ledger.failed("c")
    ledger.ran([output("a")], now, now + 0.1)
    ledger.ended("a")
    read = totals.read()
    assert (read.success.count, read.failure.count, read.cancelled.count) == (0, 1, 1)
    left: list[object] = [ledger._jobs, ledger._fresh, ledger._joined]
    assert not any(left)


async def test_a_host_counts_what_succeeds_fails_and_is_cancelled(bench: Bench) -> None:
    engine = CountingEngine(slots=3)
    good, bad, unwanted = await bench.submit(20), await bench.submit(5, text="refuse"), await bench.submit(100_000)
    async with bench.host(engine) as host:
        await eventually(lambda: bench.ended(good))
        await eventually(lambda: bench.ended(bad))
        await bench.queue.unwatch("test", [unwanted])
        await eventually(lambda: not host.held)
    read = bench.metrics.statistics()[MODEL]
    assert (read.success.count, read.failure.count, read.cancelled.count, read.rows) == (1, 1, 1, 1)
    assert engine.steps <= read.runs + 1
    assert read.success.ns >= read.compute_infer.ns >= 20 * engine.step_s * 1e9
    assert sum(size * runs.count for size, runs in read.batches.items()) >= engine.numbers - 2


async def test_a_job_whose_lease_lapsed_is_nobodys_failure(bench: Bench) -> None:
    ref = await bench.submit(300)
    async with bench.host(CountingEngine(), "first") as host:
        await eventually(lambda: host.held)

    async def reaped() -> bool:
        await bench.queue.reap(MODEL)
        return await bench.ended(ref)

    async with bench.host(CountingEngine(), "second"):
        await eventually(reaped)
    read = bench.metrics.statistics()[MODEL]
    assert (read.success.count, read.failure.count, read.cancelled.count) == (1, 0, 0)
