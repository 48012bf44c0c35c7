"""How calls of redis-py are awaited."""

import asyncio

import pytest

from millrace.queue.connection import call


async def test_a_call_that_swallows_a_cancellation_is_cancelled_all_the_same() -> None:
    began = asyncio.Event()

    async def swallow() -> str:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "answered"
        raise AssertionError("nothing else ends the wait")

    task = asyncio.create_task(call(swallow))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_call_made_while_a_task_is_being_cancelled_is_answered() -> None:
    async def answer() -> str:
        return "answered"

    async def clean_up() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            answers.append(await call(answer))
        raise AssertionError("nothing else ends the wait")

    answers: list[str] = []
    task = asyncio.create_task(clean_up())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert answers == ["answered"]
