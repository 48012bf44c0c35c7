"""Short rounds of the experiments that every change has to pass; `make chaos` runs all of them."""

import pytest

from tests.chaos import cancels, frontends_killed, poison, replies_lost, worker_frozen, workers_killed
from tests.chaos.experiment import Outcome, Scale

SHORT = Scale(seed=1)


def check(outcome: Outcome) -> None:
    assert outcome.failures == (), outcome


@pytest.mark.timeout(150)
async def test_streams_survive_a_kill_of_a_worker_each_two_seconds() -> None:
    check(await workers_killed.run(SHORT))


@pytest.mark.timeout(150)
async def test_a_worker_that_was_frozen_for_three_leases_writes_nothing_and_is_back_at_once() -> None:
    check(await worker_frozen.run(SHORT))


@pytest.mark.timeout(150)
async def test_nothing_happens_twice_where_redis_replies_are_lost() -> None:
    check(await replies_lost.run(SHORT))


@pytest.mark.timeout(150)
async def test_streams_survive_a_kill_of_a_frontend_each_five_seconds() -> None:
    check(await frontends_killed.run(SHORT))


@pytest.mark.timeout(150)
async def test_nothing_is_left_of_five_thousand_calls_that_were_given_up() -> None:
    check(await cancels.run(SHORT))


@pytest.mark.timeout(150)
async def test_a_job_that_kills_its_worker_is_given_up_after_three_attempts() -> None:
    check(await poison.run(SHORT))
