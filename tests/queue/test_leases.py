"""Work leases: one holder, results only under its token, strikes for those who lose their workers."""

from typing import Any

import pytest

from millrace.queue.types import Emission, End, Ending, Lease, Seal, State, Verdict
from tests.queue.bench import MODEL, Bench, result


async def test_a_take_whose_reply_was_lost_gives_the_same_leases_again(bench: Bench) -> None:
    await bench.submit("1")
    await bench.submit("2")
    first = await bench.queue.take(MODEL, "w", 7, jobs=1, cost=100, alone=True)
    assert await bench.queue.take(MODEL, "w", 7, jobs=1, cost=100, alone=True) == first
    assert await bench.job_ids(1, worker="other") == ["2"]


async def test_a_take_that_comes_late_leases_nothing(bench: Bench) -> None:
    """Its worker has given it up, and asked anew."""
    await bench.submit("a")
    taken = await bench.queue.take(MODEL, "w", 8, jobs=1, cost=100, alone=True)
    await bench.submit("b")
    late = await bench.queue.take(MODEL, "w", 7, jobs=1, cost=100, alone=True)
    assert ([lease.ref.job_id for lease in taken.leases], late.leases) == (["a"], ())
    assert await bench.job_ids(1, worker="other") == ["b"]


async def test_an_emission_whose_reply_was_lost_is_a_duplicate(bench: Bench) -> None:
    ref = await bench.submit("j")
    lease = await bench.take_one()
    assert await bench.emit(result(lease, 1)) == [Verdict.OK]
    assert await bench.emit(result(lease, 1)) == [Verdict.DUPLICATE]
    last = result(lease, 2, ending=Ending())
    assert await bench.emit(last) == [Verdict.OK]
    assert await bench.emit(last) == [Verdict.DUPLICATE]
    assert await bench.offsets(ref) == [1, 2]


async def test_an_end_without_a_result_whose_reply_was_lost_is_a_duplicate(bench: Bench) -> None:
    await bench.submit("j")
    lease = await bench.take_one()
    assert [await bench.finish(lease), await bench.finish(lease)] == [Verdict.OK, Verdict.DUPLICATE]


async def test_an_offset_that_is_not_the_next_is_a_gap(bench: Bench) -> None:
    ref = await bench.submit("j")
    lease = await bench.take_one()
    assert await bench.emit(result(lease, 2)) == [Verdict.GAP]
    assert await bench.offsets(ref) == []


async def test_the_next_worker_goes_on_behind_the_last_result_and_the_zombie_is_refused(bench: Bench) -> None:
    ref = await bench.submit("j")
    zombie = await bench.take_one("w1")
    await bench.emit(result(zombie, 1))
    await bench.pass_time(4)
    lease = await bench.take_one("w2")
    assert (lease.last_offset, lease.epoch, lease.attempts, lease.strikes) == (1, 2, 2, 0)
    assert await bench.emit(result(zombie, 2), result(lease, 2), result(zombie, 3)) == ["lost", "ok", "lost"]
    assert await bench.queue.renew(MODEL, [(ref, zombie.token)]) == [Verdict.LOST]
    assert await bench.queue.release(MODEL, [(ref, zombie.token, 5)]) == [Verdict.LOST]
    assert await bench.finish(zombie) is Verdict.LOST
    log = [entry for entry in await bench.queue.read(ref) if isinstance(entry, Seal)]
    assert [(seal.last_offset, seal.epoch, seal.holder) for seal in log] == [(0, 1, "w1"), (1, 2, "w2")]


async def test_a_lease_that_lapsed_unnoticed_is_still_good(bench: Bench) -> None:
    await bench.submit("j")
    lease = await bench.take_one()
    await bench.be_away(60)
    assert await bench.emit(result(lease, 1)) == [Verdict.OK]


async def test_a_lease_lasts_as_long_as_it_is_renewed(bench: Bench) -> None:
    ref = await bench.submit("j")
    lease = await bench.take_one()
    await bench.pass_time(20, renewing=lease)
    assert (await bench.record(ref)).holder == "w"
    await bench.pass_time(4)
    assert await bench.state(ref) is State.WAITING


@pytest.mark.parametrize("token", ["", "made up"])
async def test_nobody_writes_without_a_lease(bench: Bench, token: str) -> None:
    ref = await bench.submit("j")
    emission = Emission(ref=ref, token=token, offset=1, result=b"?")
    assert await bench.emit(emission) == [Verdict.LOST]
    assert await bench.queue.renew(MODEL, [(ref, token)]) == [Verdict.LOST]
    assert await bench.queue.release(MODEL, [(ref, token, 0)]) == [Verdict.LOST]
    await bench.queue.end(ref, Ending())
    assert await bench.queue.release(MODEL, [(ref, token, 0)]) == [Verdict.LOST]
    assert await bench.state(ref) is State.ENDED


async def test_a_released_job_goes_to_the_front_without_a_strike(bench: Bench) -> None:
    for job_id in "123":
        await bench.submit(job_id)
    lease = await bench.take_one()
    await bench.queue.release(MODEL, [(lease.ref, lease.token, 3)])
    again = await bench.take_one()
    assert (again.ref.job_id, again.strikes) == ("1", 0)
    assert await bench.job_ids(2) == ["2", "3"]


async def test_three_lapses_without_a_result_are_poison(bench: Bench) -> None:
    ref = await bench.submit("j")
    for strikes in range(3):
        assert (await bench.take_one()).strikes == strikes
        await bench.pass_time(4)
    assert await bench.reason(ref) == "POISON_JOB"


async def test_any_result_clears_the_strikes(bench: Bench) -> None:
    ref = await bench.submit("j")
    for offset in range(1, 6):
        await bench.take_one()
        await bench.pass_time(4)
        await bench.emit(result(await bench.take_one(), offset))
        await bench.pass_time(4)
        assert (await bench.record(ref)).strikes == 0


async def strike(bench: Bench, job_id: str, **fields: Any) -> None:
    await bench.submit(job_id, **fields)
    await bench.take_one("dead")
    await bench.pass_time(4)


async def test_a_job_with_a_strike_runs_alone_and_a_busy_worker_makes_room_for_it(bench: Bench) -> None:
    await strike(bench, "suspect")
    await bench.submit("good")
    busy = await bench.queue.take(MODEL, "busy", 1, jobs=4, cost=100, alone=False)
    assert busy.hold
    assert not busy.leases
    assert await bench.take("other", alone=False) != []
    (suspect,) = await bench.take("busy", jobs=4)
    assert (suspect.ref.job_id, suspect.strikes) == ("suspect", 1)


async def test_a_job_with_a_strike_is_left_to_a_worker_that_it_fits(bench: Bench) -> None:
    await strike(bench, "big", cost=100)
    assert await bench.take("small", cost=50) == []
    assert len(await bench.take("large", cost=200)) == 1


async def test_a_job_is_given_up_after_fifty_attempts(bench: Bench) -> None:
    ref = await bench.submit("j")
    for _ in range(50):
        lease = await bench.take_one()
        await bench.queue.release(MODEL, [(ref, lease.token, 0)])
    assert await bench.take() == []
    assert await bench.reason(ref) == "TOO_MANY_ATTEMPTS"


async def test_nothing_lapses_for_one_lease_after_the_server_was_away(bench: Bench) -> None:
    await bench.pass_time(1)
    ref = await bench.submit("j", wanted_to_deadline=False, watcher="f")
    lease = await bench.take_one()
    await bench.be_away(20)
    assert await bench.emit(result(lease, 1)) == [Verdict.OK], "before anybody reaped"
    await bench.pass_time(2)
    assert await bench.emit(result(lease, 2)) == [Verdict.OK], "in the amnesty"
    await bench.pass_time(2)
    assert await bench.reason(ref) == "ABANDONED", "after it"


async def test_a_clock_that_ran_backwards_stretches_no_lease(bench: Bench) -> None:
    await bench.pass_time(1)
    ref = await bench.submit("j")
    await bench.take_one()
    bench.clock.now -= 3_600_000
    await bench.pass_time(5)
    assert await bench.state(ref) is State.WAITING


async def test_an_ended_job_has_one_end_and_its_worker_learns_of_it(bench: Bench) -> None:
    ref = await bench.submit("j")
    lease: Lease = await bench.take_one()
    assert [await bench.queue.end(ref, Ending(reason="CANCELLED")) for _ in range(2)] == [True, False]
    assert await bench.emit(result(lease, 1)) == [Verdict.LOST]
    assert [type(entry) for entry in await bench.queue.read(ref)] == [Seal, End]
    assert await bench.queue.payload(ref, lease.fingerprint) is None
