"""Submitting: one name, one request, one job; bounds refuse before anything is queued."""

import asyncio
from dataclasses import replace

import pytest

from millrace.errors import AlreadyExists, Exhausted
from millrace.queue import keys
from millrace.queue.keys import ModelVersion
from millrace.queue.queue import CLAIM_MS
from millrace.queue.types import State, Verdict
from tests.queue.bench import MODEL, Bench, result, submission
from tests.queue.probe import dump
from tests.queue.truth import leaked

NOTHING = dict.fromkeys(["jobs", "cost", "standard_cost", "interactive_cost", "bytes", "running", "capacity"], 0)


async def test_the_same_request_under_the_same_name_is_one_job(bench: Bench) -> None:
    first = await bench.submit("j")
    assert await bench.submit("j") == first
    assert (await bench.queue.load(MODEL))["jobs"] == 1


async def test_a_name_that_is_taken_refuses_another_request(bench: Bench) -> None:
    ref = await bench.submit("j")
    with pytest.raises(AlreadyExists):
        await bench.submit("j", fingerprint="2" * 32)
    assert (await bench.record(ref)).fingerprint == "1" * 32


async def test_an_ended_job_answers_for_its_name_as_long_as_its_results_stay(bench: Bench) -> None:
    ref = await bench.submit("j")
    await bench.finish(await bench.take_one())
    assert await bench.submit("j") == ref
    assert await bench.state(ref) is State.ENDED
    await bench.pass_time(601)
    await bench.submit("j", fingerprint="2" * 32)
    assert await bench.state(ref) is State.WAITING


async def test_of_two_requests_that_claim_one_name_in_the_same_millisecond_one_wins(bench: Bench) -> None:
    answers = await asyncio.gather(
        *(bench.submit("j", fingerprint=digit * 32) for digit in "12"), return_exceptions=True
    )
    assert [type(answer) for answer in answers].count(AlreadyExists) == 1
    (found,) = await bench.take(jobs=2)
    assert found.fingerprint == ("1" if isinstance(answers[1], AlreadyExists) else "2") * 32


async def test_a_name_that_was_claimed_under_one_model_finds_its_job_there(bench: Bench) -> None:
    ref = await bench.submit("j")
    newer = replace(submission("j"), ref=replace(ref, model=ModelVersion("story", "2")))
    assert await bench.queue.submit(newer) == ref
    located = await bench.queue.locate("a", "j")
    assert located is not None
    assert (located.ref, located.fingerprint) == (ref, "1" * 32)


async def test_a_job_that_has_outlived_its_name_is_not_another_requests(bench: Bench) -> None:
    """Nobody reaped for longer than names are kept."""
    await bench.submit("j", timeout_ms=1_000)
    await bench.redis.delete(keys.job_index("a", "j"))
    await bench.queue._claim(submission("j", fingerprint="2" * 32))
    with pytest.raises(AlreadyExists):
        await bench.submit("j", fingerprint="2" * 32)


async def test_a_claim_whose_owner_died_can_be_replaced_after_a_while(bench: Bench) -> None:
    await bench.queue._claim(submission("j"))
    with pytest.raises(AlreadyExists):
        await bench.submit("j", fingerprint="2" * 32)
    await bench.pass_time(CLAIM_MS / 1000 + 1)
    await bench.submit("j", fingerprint="2" * 32)


async def test_an_owner_that_comes_back_after_its_claim_was_replaced_is_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = submission("j")
    ref, claimed, _ = await bench.queue._claim(late)
    await bench.pass_time(CLAIM_MS / 1000 + 1)
    await bench.submit("j", fingerprint="2" * 32)

    async def stalled(_: object) -> object:
        return ref, claimed, True

    monkeypatch.setattr(bench.queue, "_claim", stalled)
    with pytest.raises(AlreadyExists):
        await bench.queue.submit(late)
    assert await bench.queue.payload(ref, "1" * 32) is None


@pytest.mark.parametrize(
    ("limits", "bound"),
    [
        ({"max_waiting_jobs": 1}, "JOBS"),
        ({"max_waiting_cost": 19}, "COST"),
        ({"max_tenant_jobs": 1}, "TENANT"),
        ({"max_payload_bytes": 13}, "BYTES"),
    ],
)
async def test_a_bound_refuses_and_leaves_nothing_behind(bench: Bench, limits: dict[str, int], bound: str) -> None:
    narrow = bench.limited(**limits)
    await narrow.submit("first")
    before = set(await dump(bench.redis))
    with pytest.raises(Exhausted) as refusal:
        await narrow.submit("second")
    assert refusal.value.reason == f"QUEUE_FULL_{bound}"
    assert set(await dump(bench.redis)) == before
    await narrow.finish(await narrow.take_one())
    await narrow.submit("second")


async def test_the_payload_of_a_job_that_waited_long_for_its_name_lasts_to_the_deadline(bench: Bench) -> None:
    early = submission("j", timeout_ms=60_000)
    await bench.redis.set(keys.payload(early.ref, early.fingerprint), early.payload, px=1_000, nx=True)
    ref = await bench.queue.submit(early)
    await bench.pass_time(59)
    assert await bench.queue.payload(ref, early.fingerprint) == b"request"


async def test_when_everything_has_ended_and_expired_no_key_of_any_job_is_left(bench: Bench) -> None:
    for index in range(5):
        await bench.submit(f"j{index}", timeout_ms=30_000, retained=index % 2 == 0)
    await bench.finish(await bench.take_one())
    await bench.take_one()
    await bench.pass_time(31)
    await bench.pass_time(601)
    assert sorted(leaked(await dump(bench.redis))) == [f"mr:job-index:a:j{index}" for index in range(5)]
    await bench.pass_time(60)
    assert leaked(await dump(bench.redis)) == []


async def test_a_fleet_that_was_off_for_days_ends_what_it_left_and_counts_right(bench: Bench) -> None:
    ref = await bench.submit("j", timeout_ms=30_000)
    await bench.be_away(3 * 86_400)
    await bench.pass_time(1)
    assert await bench.reason(ref) == "DEADLINE_EXCEEDED"
    assert await bench.queue.load(MODEL) == NOTHING


async def test_an_ended_job_is_forgotten_and_one_that_runs_is_not(bench: Bench) -> None:
    ref = await bench.submit("j", retained=False)
    lease = await bench.take_one()
    await bench.queue.forget([ref])
    assert await bench.queue.locate("a", "j") is not None
    await bench.finish(lease)
    await bench.queue.forget([ref])
    assert leaked(await dump(bench.redis)) == []


async def test_a_job_that_was_claimed_and_never_queued_leaves_nothing_when_it_is_forgotten(bench: Bench) -> None:
    """Its call was cancelled in between."""
    ref, _, _ = await bench.queue._claim(submission("j", retained=False))
    await bench.queue.forget([ref])
    assert leaked(await dump(bench.redis)) == []


async def test_a_server_whose_memory_is_full_refuses_new_work_and_finishes_what_it_has(bench: Bench) -> None:
    ref = await bench.submit("j", retained=False)
    await bench.submit("waiting")
    lease = await bench.take_one()
    await bench.redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(Exhausted):
            await bench.submit("new")
        await bench.pass_time(2, renewing=lease)
        assert await bench.emit(result(lease, 1)) == [Verdict.OK]
        assert await bench.finish(lease) is Verdict.OK
        await bench.queue.forget([ref])
        assert await bench.job_ids(1) == ["waiting"]
    finally:
        await bench.redis.config_set("maxmemory", 0)
