"""How several models share one device."""

import asyncio
from collections import Counter
from functools import partial

import pytest

from services.worker.device import Device


async def take_turn(device: Device, name: str) -> None:
    async with device.turn(name):
        pass


class Clock:
    """Stands still but for what the models use."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def use(self, seconds: float) -> None:
        self.now += seconds


async def test_the_turn_goes_to_the_model_that_has_used_the_device_least(monkeypatch: pytest.MonkeyPatch) -> None:
    device, clock, turns = Device(), Clock(), Counter[str]()
    monkeypatch.setattr("services.worker.device.time", clock)

    async def serve(name: str, seconds: float) -> None:
        while turns["slow"] < 50:
            async with device.turn(name) as turn:
                await turn.run(partial(clock.use, seconds))
                turns[name] += 1

    await asyncio.gather(serve("slow", 8.0), serve("fast", 2.0))
    assert turns["fast"] / turns["slow"] == pytest.approx(4.0, rel=0.05)


async def test_a_lane_is_kept_while_nobody_else_waits_and_what_was_used_then_is_no_debt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device, clock, turns = Device(), Clock(), Counter[str]()
    monkeypatch.setattr("services.worker.device.time", clock)

    async def serve(name: str, count: int) -> None:
        for _ in range(count):
            async with device.turn(name) as turn:
                await turn.run(partial(clock.use, 1.0))
                turns[name] += 1

    async with device.turn("old") as turn:
        clock.use(1000.0)
        assert turn.goes_on()
    await asyncio.gather(serve("old", 10), serve("new", 10))
    assert turns == {"old": 10, "new": 10}
    async with device.turn("old") as turn:
        waiting = asyncio.create_task(serve("new", 1))
        await asyncio.sleep(0)
        clock.use(1.0)
        assert not turn.goes_on()
    await waiting


async def test_a_step_that_hangs_is_noticed_and_a_turn_that_goes_on_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    device, clock = Device(), Clock()
    monkeypatch.setattr("services.worker.device.time", clock)
    stalls: list[float] = []
    async with device.turn("a") as turn:

        def steps() -> None:
            for seconds in (40.0, 50.0, 60.0):
                clock.use(seconds)
                stalls.append(device.stalled_s())
                assert turn.goes_on()

        await turn.run(steps)
        assert device.stalled_s() == 0.0
    assert stalls == [40.0, 50.0, 60.0]


async def test_as_many_turns_go_on_at_once_as_there_are_lanes() -> None:
    device = Device()
    device.widen(2)
    async with device.turn("a"), device.turn("a"):
        third = asyncio.create_task(take_turn(device, "b"))
        await asyncio.sleep(0)
        assert not third.done()
    await asyncio.wait_for(third, 1.0)
    with pytest.raises(ValueError, match="more than the 32"):
        device.widen(33)


async def test_lanes_go_with_the_model_that_brought_them() -> None:
    device = Device()
    device.widen(2)
    device.widen(1)
    device.narrow(2)
    async with device.turn("a"):
        second = asyncio.create_task(take_turn(device, "b"))
        await asyncio.sleep(0)
        assert not second.done()
    await asyncio.wait_for(second, 1.0)


async def test_a_model_that_gives_up_waiting_does_not_keep_the_device() -> None:
    device = Device()

    async with device.turn("a"):
        impatient = asyncio.create_task(take_turn(device, "b"))
        await asyncio.sleep(0)
        impatient.cancel()
        patient = asyncio.create_task(take_turn(device, "c"))
        await asyncio.sleep(0)
    await asyncio.wait_for(patient, 1.0)
    assert impatient.cancelled()
