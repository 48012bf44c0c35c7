"""How several models share one device."""

import asyncio
import time
from collections import Counter
from functools import partial

from services.worker.device import Device
from tests.eventually import eventually


async def test_the_turn_goes_to_the_model_that_has_used_the_device_least() -> None:
    device, used, stop = Device(), Counter[str](), asyncio.Event()

    async def serve(name: str, seconds: float) -> None:
        while not stop.is_set():
            async with device.turn(name):
                await device.run(partial(time.sleep, seconds))
                used[name] += 1

    serving = [asyncio.create_task(serve(*model)) for model in (("slow", 0.008), ("fast", 0.002))]
    await eventually(lambda: used["slow"] >= 20)
    stop.set()
    await asyncio.gather(*serving)
    assert 2.5 <= used["fast"] / used["slow"] <= 5.0


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
