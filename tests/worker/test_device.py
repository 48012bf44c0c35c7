"""How several models share one device."""

import asyncio
from collections import Counter
from functools import partial

import pytest

from services.worker.device import Device


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
            async with device.turn(name):
                await device.run(partial(clock.use, seconds))
                turns[name] += 1

    await asyncio.gather(serve("slow", 8.0), serve("fast", 2.0))
    assert turns["fast"] / turns["slow"] == pytest.approx(4.0, rel=0.05)


async def test_a_model_that_gives_up_waiting_does_not_keep_the_device() -> None:
    device = Device()

    async def one(name: str) -> None:
        async with device.turn(name):
            pass

    async with device.turn("a"):
        impatient = asyncio.create_task(one("b"))
        await asyncio.sleep(0)
        impatient.cancel()
        patient = asyncio.create_task(one("c"))
        await asyncio.sleep(0)
    await asyncio.wait_for(patient, 1.0)
    assert impatient.cancelled()
