"""As many calls at once as the service takes."""

import asyncio
import time

from millrace.evaluating.asking.window import FIRST, Window


def test_it_doubles_until_it_is_refused_then_grows_by_one_a_round() -> None:
    window = Window(64)
    for _ in range(FIRST):
        window.answered()
    assert window.size == 2 * FIRST
    window.refused(0.0)
    assert window.size == FIRST
    for _ in range(FIRST + 1):
        window.answered()
    assert window.size == FIRST + 1


def test_refusals_of_calls_that_went_out_together_halve_it_once() -> None:
    window = Window(64)
    for _ in range(4):
        window.refused(10.0)
    assert window.size == FIRST // 2


def test_it_stays_within_its_bounds() -> None:
    small = Window(2)
    for _ in range(100):
        small.answered()
    assert small.size == 2
    lone = Window(1)
    lone.refused(1.0)
    assert lone.size == 1


async def test_no_more_are_under_way_than_it_says() -> None:
    window, under_way, most = Window(64), 0, 0

    async def call() -> None:
        nonlocal under_way, most
        async with window.place():
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0)
            under_way -= 1

    await asyncio.gather(*(call() for _ in range(50)))
    assert (under_way, most) == (0, FIRST)


async def test_after_a_refusal_nobody_calls_before_the_service_says_so() -> None:
    window = Window(8)
    window.refused(0.2)
    began = time.monotonic()
    async with window.place():
        assert time.monotonic() - began >= 0.19
