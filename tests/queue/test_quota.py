"""What a tenant may take of the fleet: in a minute, and at a time."""

import asyncio

import pytest

from millrace.errors import Code, Exhausted, Unavailable
from millrace.queue import Ending, JobRef, Quota, Quotas, connect
from millrace.queue.keys import ModelVersion
from tests.queue.bench import MODEL, Bench, result
from tests.queue.probe import dump

MINUTE_S = 60


def ref(job_id: str, tenant: str = "acme") -> JobRef:
    return JobRef(MODEL, tenant, job_id)


class Asking:
    """A frontend's quotas, by one bound."""

    def __init__(self, bench: Bench, **bounds: int) -> None:
        self.quotas, self.quota = Quotas(bench.redis), Quota(**bounds)

    async def take(self, job_id: str, cost: int = 1, tenant: str = "acme", timeout_ms: int = 600_000) -> str:
        return await self.quotas.take(ref(job_id, tenant), self.quota, cost=cost, timeout_ms=timeout_ms)

    async def refused(self, job_id: str, cost: int = 1) -> tuple[str, float]:
        """The reason, and after how many seconds to come back."""
        with pytest.raises(Exhausted) as refused:
            await self.take(job_id, cost)
        return refused.value.reason, refused.value.retry_after_s


async def test_a_minute_has_so_many_requests_however_they_come(bench: Bench) -> None:
    asking = Asking(bench, requests_per_minute=3)
    for job_id in "abc":
        await asking.take(job_id)
    assert await asking.refused("d") == ("QUOTA_REQUESTS", 20.0)
    await bench.be_away(19.9)
    assert (await asking.refused("d"))[0] == "QUOTA_REQUESTS"
    await bench.be_away(0.1)
    await asking.take("d")
    assert await asking.refused("e") == ("QUOTA_REQUESTS", 20.0)


async def test_who_comes_back_when_told_to_is_let_in(bench: Bench) -> None:
    asking = Asking(bench, tokens_per_minute=1_000)
    await asking.take("a", 900)
    reason, after_s = await asking.refused("b", 500)
    assert (reason, after_s) == ("QUOTA_TOKENS", 24.0)
    await bench.be_away(after_s)
    await asking.take("b", 500)


async def test_a_job_larger_than_a_minutes_tokens_waits_for_a_full_bucket(bench: Bench) -> None:
    asking = Asking(bench, tokens_per_minute=100)
    await asking.take("a", 1_000)
    assert await asking.refused("b", 1_000) == ("QUOTA_TOKENS", 600.0)
    await bench.be_away(600)
    await asking.take("b", 1_000)


async def test_a_second_bound_that_refuses_takes_nothing_of_the_first(bench: Bench) -> None:
    asking = Asking(bench, requests_per_minute=2, tokens_per_minute=100)
    await asking.take("a", 100)
    for _ in range(3):
        assert (await asking.refused("b", 100))[0] == "QUOTA_TOKENS"
    await bench.be_away(MINUTE_S)
    await asking.take("b", 50)
    await asking.take("c", 50)


async def test_a_job_pays_in_the_end_what_it_has_cost(bench: Bench) -> None:
    asking = Asking(bench, tokens_per_minute=100)
    job = await bench.submit("a", tenant="acme", cost=100)
    await asking.take("a", 100)
    await bench.emit(result(await bench.take_one(), 1, ending=Ending(), cost=10))
    await asking.quotas.settle(job)
    await asking.take("b", 90)
    assert await asking.refused("c", 1) == ("QUOTA_TOKENS", 0.6)


async def test_a_job_that_has_cost_more_than_was_thought_is_paid_off(bench: Bench) -> None:
    asking = Asking(bench, tokens_per_minute=100)
    job = await bench.submit("a", tenant="acme", cost=10)
    await asking.take("a", 10)
    await bench.emit(result(await bench.take_one(), 1, ending=Ending(), cost=200))
    await asking.quotas.settle(job)
    assert await asking.refused("b", 10) == ("QUOTA_TOKENS", 66.0)


async def test_so_many_jobs_hold_places_until_they_have_ended(bench: Bench) -> None:
    asking = Asking(bench, concurrent_jobs=2)
    first = await bench.submit("a", tenant="acme")
    await asking.take("a")
    await asking.take("b")
    assert (await asking.refused("c"))[0] == "QUOTA_JOBS"
    await bench.queue.end(first, Ending(code=Code.CANCELLED, reason="CANCELLED"))
    await asking.quotas.settle(first)
    await asking.take("c")
    assert (await asking.refused("d"))[0] == "QUOTA_JOBS"


async def test_places_of_jobs_whose_end_nobody_has_seen_are_found(bench: Bench) -> None:
    asking = Asking(bench, concurrent_jobs=3)
    runs, ended = [await bench.submit(job_id, tenant="acme") for job_id in "ab"]
    for job_id in ("a", "b", "gone"):
        await asking.take(job_id)
    await bench.queue.end(ended, Ending())
    assert (await asking.refused("c"))[0] == "QUOTA_JOBS", "what has just taken its place may not be queued yet"
    await bench.be_away(11)
    await asking.take("c")
    await asking.take("d")
    assert (await asking.refused("e"))[0] == "QUOTA_JOBS"
    assert await bench.queue.inspect(runs) is not None


async def test_jobs_that_nobody_watches_are_settled_by_those_that_follow(bench: Bench) -> None:
    asking = Asking(bench, tokens_per_minute=1_000)
    for number in range(12):
        job = await bench.submit(f"j{number}", tenant="acme", cost=10)
        await asking.take(job.job_id, 10)
        await bench.finish(await bench.take_one(), cost=50)
        await bench.be_away(11)
    held = (await dump(bench.redis))["mr:quota:{acme}:jobs"].content
    assert len(held) <= 4
    rates = (await dump(bench.redis))["mr:quota:{acme}:rates"].content
    assert float(rates["tokens"]) >= bench.clock.now - 11_000 + 600 + 2_400, "they have cost more than was thought"


async def test_a_place_ends_with_its_jobs_deadline(bench: Bench) -> None:
    asking = Asking(bench, concurrent_jobs=1)
    await bench.submit("a", tenant="acme", timeout_ms=100_000_000)
    await asking.take("a", timeout_ms=1_000)
    await bench.be_away(60)
    assert (await asking.refused("b"))[0] == "QUOTA_JOBS"
    await bench.be_away(1)
    await asking.take("b")


async def test_a_job_that_was_not_queued_gets_back_all_that_it_took(bench: Bench) -> None:
    asking = Asking(bench, requests_per_minute=1, tokens_per_minute=100, concurrent_jobs=1)
    for _ in range(5):
        receipt = await asking.take("a", 100)
        await asking.quotas.undo(ref("a"), receipt)
    await asking.take("b", 100)


async def test_nobody_gives_back_what_another_request_of_the_same_name_took(bench: Bench) -> None:
    asking = Asking(bench, requests_per_minute=2, concurrent_jobs=1)
    await asking.take("a")
    second = await asking.take("a")
    await asking.quotas.undo(ref("a"), second)
    assert (await asking.refused("b"))[0] == "QUOTA_JOBS"


async def test_what_is_repeated_counts_once(bench: Bench) -> None:
    asking = Asking(bench, requests_per_minute=2, tokens_per_minute=100)
    for _ in range(3):
        await asking.take("a", 60)
    for _ in range(3):
        await asking.quotas.settle(ref("a"))
    assert (await asking.refused("b", 60))[0] == "QUOTA_TOKENS"
    await asking.take("b", 40)


async def test_tenants_do_not_see_each_others_quotas(bench: Bench) -> None:
    asking = Asking(bench, requests_per_minute=1)
    await asking.take("a")
    await asking.take("a", tenant="blue")
    assert (await asking.refused("b"))[0] == "QUOTA_REQUESTS"


async def test_of_many_that_ask_at_once_as_many_are_let_in_as_may(bench: Bench) -> None:
    frontends = [Asking(bench, requests_per_minute=7) for _ in range(2)]
    asked = (frontends[number % 2].take(f"j{number}") for number in range(20))
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(answer, str) for answer in answers) == 7


async def test_nothing_is_left_of_a_tenant_that_has_come_to_rest(bench: Bench) -> None:
    asking = Asking(bench, requests_per_minute=1, tokens_per_minute=10, concurrent_jobs=5)
    await asking.take("a", 5, timeout_ms=1_000)
    await asking.take("b", 1, tenant="blue", timeout_ms=1_000)
    await asking.quotas.settle(ref("b", "blue"))
    assert {name.split(":")[-1] for name in await dump(bench.redis)} == {"rates", "jobs"}
    await bench.be_away(3 * MINUTE_S)
    assert await dump(bench.redis) == {}


async def test_a_job_of_a_model_with_any_name_is_found_again(bench: Bench) -> None:
    model = ModelVersion("org/story:7", "12")
    other = JobRef(model, "acme", JobRef.anonymous_id())
    asking = Asking(bench, concurrent_jobs=1)
    await asking.quotas.take(other, asking.quota, cost=1, timeout_ms=600_000)
    await bench.be_away(11)
    await asking.take("next")


async def test_a_server_that_is_away_is_unavailable() -> None:
    async with connect("redis://127.0.0.1:1") as redis:
        with pytest.raises(Unavailable, match="quotas"):
            await Quotas(redis).take(ref("a"), Quota(requests_per_minute=1), cost=1, timeout_ms=1_000)
