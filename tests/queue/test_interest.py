"""Interest leases: a job is worked on only while somebody wants it."""

from typing import Any

from millrace.queue.types import State, Verdict
from tests.queue.bench import MODEL, Bench, result


async def watched(bench: Bench, **fields: Any) -> None:
    await bench.pass_time(1)
    await bench.submit("j", **({"wanted_to_deadline": False, "watcher": "f1"} | fields))


async def test_a_job_whose_only_frontend_died_ends_when_its_interest_lapses(bench: Bench) -> None:
    await watched(bench)
    lease = await bench.take_one()
    await bench.pass_time(2, renewing=lease)
    assert await bench.state(lease.ref) is State.RUNNING
    await bench.pass_time(1, renewing=lease)
    assert await bench.reason(lease.ref) == "ABANDONED"


async def test_a_worker_learns_from_its_next_emission_that_nobody_wants_the_job(bench: Bench) -> None:
    await watched(bench, timeout_ms=500)
    lease = await bench.take_one()
    bench.clock.now += 600
    assert await bench.emit(result(lease, 1)) == [Verdict.UNWANTED]
    assert await bench.reason(lease.ref) == "DEADLINE_EXCEEDED"


async def test_a_job_ends_at_once_when_its_last_watcher_leaves(bench: Bench) -> None:
    await watched(bench)
    lease = await bench.take_one()
    await bench.queue.watch("f2", [lease.ref])
    await bench.queue.unwatch("f1", [lease.ref])
    assert await bench.state(lease.ref) is State.RUNNING
    await bench.queue.unwatch("f2", [lease.ref])
    assert await bench.reason(lease.ref) == "ABANDONED"
    assert await bench.queue.renew(MODEL, [(lease.ref, lease.token)]) == [Verdict.LOST]


async def test_the_interest_of_others_is_excused_while_the_server_was_away(bench: Bench) -> None:
    await watched(bench)
    lease = await bench.take_one()
    await bench.queue.watch("f2", [lease.ref])
    await bench.be_away(20)
    await bench.queue.unwatch("f1", [lease.ref])
    assert await bench.state(lease.ref) is State.RUNNING


async def test_a_resume_window_keeps_a_job_wanted_after_its_last_watcher_has_gone(bench: Bench) -> None:
    await watched(bench, resume_window_ms=10_000)
    lease = await bench.take_one()
    await bench.queue.unwatch("f1", [lease.ref])
    await bench.pass_time(9, renewing=lease)
    assert await bench.state(lease.ref) is State.RUNNING
    await bench.pass_time(5, renewing=lease)
    assert await bench.reason(lease.ref) == "ABANDONED"


async def test_a_late_job_is_never_started(bench: Bench) -> None:
    ref = await bench.submit("j", timeout_ms=500)
    bench.clock.now += 500
    assert await bench.take() == []
    assert await bench.reason(ref) == "DEADLINE_EXCEEDED"


async def test_a_job_ends_within_a_second_of_its_deadline_without_any_worker(bench: Bench) -> None:
    ref = await bench.submit("j", timeout_ms=5_500)
    await bench.pass_time(6)
    assert await bench.reason(ref) == "DEADLINE_EXCEEDED"


async def test_watching_tells_state_and_last_offset_even_of_jobs_that_are_not_known(bench: Bench) -> None:
    ref = await bench.submit("j")
    lease = await bench.take_one()
    await bench.emit(result(lease, 1))
    await bench.finish(lease)
    other = lease.ref.parse(MODEL, "a:unknown")
    seen = await bench.queue.watch("f1", [ref, other])
    assert [(entry.state, entry.last_offset) for entry in seen.values()] == [(State.ENDED, 1), (None, 0)]
