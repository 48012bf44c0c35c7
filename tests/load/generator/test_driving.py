"""The loops of one process, against stand-ins for the service."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

import pytest

from millrace.errors import Exhausted, InvalidRequest, Violation
from millrace.load.arrivals import Due, Stretch
from millrace.load.asking.sending import Received
from millrace.load.generator.alarm import Alarm
from millrace.load.generator.driving import Driver, Times
from millrace.load.generator.recording import Closed, Recording
from millrace.load.result import Stage, decode

Serve = Callable[[int], Coroutine[Any, Any, None]]


class Service:
    """Answers with one token once `serve` returns; `serve` has the number of the request."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self.indices: list[int] = []
        self.in_flight = self.most_in_flight = 0

    async def ask(
        self, index: int, prompt_tokens: int | None = None, output_tokens: int | None = None
    ) -> AsyncGenerator[Received, None]:
        self.indices.append(index)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await self._serve(index)
            yield Received(output_tokens or 1, prompt_tokens or 0)
        finally:
            self.in_flight -= 1


class Run:
    """A driver that has a quarter of a second to measure, and what it gave."""

    def __init__(self, serve: Serve, *, seconds: float = 0.25, drain_s: float = 2.0, most_in_flight: int = 100) -> None:
        self.service, self.intervals, self.seconds = Service(serve), list[Closed](), seconds
        self._recording = Recording([Stretch(begin_s=0.0, end_s=seconds)], None)
        times = Times(begin=time.monotonic() + 0.1, warmup_s=0.1, seconds=seconds, drain_s=drain_s)
        self.driver = Driver(self.service, self._recording, times, self.intervals.append, most_in_flight)

    async def at_rate(self, rate: float = 200, **lengths: int) -> Stage:
        count = int(rate * self.seconds)
        await self.driver.open_loop(Due(index=index, at_s=index / rate, **lengths) for index in range(count))
        return self.stage

    async def with_callers(self, callers: int) -> Stage:
        await self.driver.closed_loop(range(callers), callers)
        return self.stage

    @property
    def stage(self) -> Stage:
        return self._recording.stages()[0]


async def at_once(index: int) -> None:
    pass


async def never(index: int) -> None:
    await asyncio.Event().wait()


async def refuse(index: int) -> None:
    raise Exhausted("full", reason="QUEUE_FULL", retry_after_s=0.2)


async def reject(index: int) -> None:
    raise InvalidRequest([Violation("text", "is empty")])


def longer_than(stage: Stage, latency_s: float) -> int:
    """How many requests took longer than that."""
    recorded = decode(stage.histograms["e2e"]).get_recorded_iterator()
    return sum(one.count_added_in_this_iter_step for one in recorded if one.value_iterated_to > latency_s * 1e6)


async def test_a_service_that_stalls_is_charged_for_all_that_were_due_meanwhile() -> None:
    until = time.monotonic() + 0.6
    run = Run(lambda index: asyncio.sleep(until - time.monotonic()), seconds=1.0)
    stage = await run.at_rate(100)
    assert stage.due == stage.ok == 100
    assert 35 <= longer_than(stage, 0.1) <= 60
    assert 15 <= longer_than(stage, 0.3) <= 40


async def test_a_generator_that_stalls_sends_late_and_still_counts_from_when_requests_were_due() -> None:
    async def block_once(index: int) -> None:
        if index == 0:
            time.sleep(0.3)  # noqa: ASYNC251 – it is this that it is about

    run = Run(block_once, seconds=0.5)
    stage = await run.at_rate(100)
    assert stage.due == stage.ok == 50
    assert 15 <= longer_than(stage, 0.1) <= 40
    late = decode(stage.histograms["late"])
    assert late.get_total_count() == 50
    assert late.get_max_value() > 250_000
    assert [closed.tally.due for closed in run.intervals] == [0, 50, 0]


async def test_an_open_loop_waits_for_no_answer() -> None:
    run = Run(lambda index: asyncio.sleep(0.3))
    await run.at_rate()
    assert run.service.most_in_flight >= 25


async def test_the_lengths_of_a_trace_reach_the_request() -> None:
    stage = await Run(at_once).at_rate(prompt_tokens=7, output_tokens=3)
    assert (stage.tokens, stage.prompt_tokens) == (150, 350)


async def test_a_request_that_never_ends_is_cancelled_and_counted_when_the_drain_is_over() -> None:
    run = Run(never, drain_s=0.2)
    stage = await run.at_rate()
    assert stage.ended == {"UNFINISHED": 50}
    assert "e2e" not in stage.histograms
    assert run.service.in_flight == 0
    assert run.intervals[-1].in_flight == 0
    assert sum(closed.tally.ended["UNFINISHED"] for closed in run.intervals) == 50


async def test_a_request_that_is_cancelled_before_it_was_sent_is_counted_too() -> None:
    async def block(index: int) -> None:
        time.sleep(0.4)  # noqa: ASYNC251 – until measuring is over, so that the next one is sent as the drain ends

    run = Run(block, drain_s=0.0)
    await run.driver.open_loop([Due(index=0, at_s=0.0), Due(index=1, at_s=0.1)])
    assert run.stage.due == run.stage.all_ended == 2


async def test_what_would_be_too_many_under_way_is_not_sent_and_counted() -> None:
    run = Run(never, drain_s=0.0, most_in_flight=10)
    stage = await run.at_rate()
    assert stage.ended == {"UNFINISHED": 10, "NOT_SENT": 40}
    assert (stage.due, stage.good, len(run.service.indices)) == (50, 0, 10)
    assert decode(stage.histograms["late"]).get_total_count() == 10


async def test_a_caller_asks_again_when_it_is_answered() -> None:
    run = Run(lambda index: asyncio.sleep(0.05))
    stage = await run.with_callers(3)
    assert run.service.most_in_flight == 3
    assert run.service.indices[:6] == [0, 1, 2, 3, 4, 5]
    assert 6 <= stage.due <= 15
    assert stage.ended == {"OK": stage.due}


async def test_each_process_has_callers_and_requests_of_its_own() -> None:
    run = Run(lambda index: asyncio.sleep(0.05))
    await run.driver.closed_loop(range(1, 5, 2), 5)
    assert run.service.most_in_flight == 2
    assert {index % 5 for index in run.service.indices} == {1, 3}
    assert len(set(run.service.indices)) == len(run.service.indices)


@pytest.mark.parametrize(("serve", "most"), [(refuse, 6), (reject, 8)])
async def test_a_caller_that_is_refused_does_not_come_back_at_once(serve: Serve, most: int) -> None:
    stage = await Run(serve).with_callers(2)
    assert 2 <= stage.due <= most
    assert stage.ok == 0


async def test_the_end_of_measuring_does_not_wait_for_a_caller_that_was_told_to_come_back_much_later() -> None:
    async def refuse_for_long(index: int) -> None:
        raise Exhausted("full", reason="QUEUE_FULL", retry_after_s=60)

    async with asyncio.timeout(5):
        stage = await Run(refuse_for_long).with_callers(2)
    assert stage.due == 0


async def test_refusals_are_counted_by_code_and_reason() -> None:
    stage = await Run(refuse).at_rate()
    assert (stage.ended, stage.reasons) == ({"RESOURCE_EXHAUSTED": 50}, {"QUEUE_FULL": 50})


async def test_an_error_that_is_none_of_the_services_ends_the_run() -> None:
    async def break_down(index: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as raised:
        await Run(break_down).at_rate()
    assert raised.group_contains(ZeroDivisionError)


async def test_intervals_follow_each_other_from_the_warm_up_to_the_last_answer() -> None:
    run = Run(lambda index: asyncio.sleep(0.2), seconds=1.1)
    await run.at_rate(20)
    assert [closed.at_s for closed in run.intervals] == pytest.approx([-0.1, 0.0, 1.0, 1.1])
    assert [closed.seconds for closed in run.intervals] == pytest.approx([0.1, 1.0, 0.1, 0.9])
    assert [closed.tally.due for closed in run.intervals] == [0, 20, 2, 0]


async def test_the_share_of_a_core_is_that_of_the_time_that_was_measured() -> None:
    async def compute_once(index: int) -> None:
        until = time.process_time() + (0.1 if index == 0 else 0.0)
        while time.process_time() < until:
            pass

    run = Run(compute_once, seconds=1.0)
    await run.at_rate(2)
    assert 0.1 <= run.driver.cpu_share < 0.2
    assert run.driver.cpu_share < time.process_time()


async def test_an_alarm_rings_no_sooner_than_it_was_set_to() -> None:
    async with Alarm() as alarm:
        for distance_s in (0.0003, 0.002, 0.05, -1.0):
            moment = time.monotonic() + distance_s
            await alarm.until(moment)
            assert 0 <= time.monotonic() - moment < 0.5 + max(0.0, -distance_s)


async def test_an_alarm_that_nobody_waits_for_any_more_can_be_set_again() -> None:
    async with Alarm() as alarm:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await alarm.until(time.monotonic() + 0.05)
        moment = time.monotonic() + 0.1
        await alarm.until(moment)
        assert time.monotonic() >= moment
