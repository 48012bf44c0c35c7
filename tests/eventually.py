"""Waiting for what other processes do, with a deadline instead of a guess."""

import asyncio
import inspect
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, overload

T = TypeVar("T")


@overload
async def eventually(
    probe: Callable[[], Coroutine[Any, Any, T | None]], within_s: float = ..., every_s: float = ...
) -> T: ...
@overload
async def eventually(probe: Callable[[], T | None], within_s: float = ..., every_s: float = ...) -> T: ...
async def eventually(probe: Callable[[], Any], within_s: float = 5.0, every_s: float = 0.01) -> Any:
    """The probe's first true answer. Raises AssertionError, with its last answer, where none comes in time."""
    deadline = time.monotonic() + within_s
    while True:
        found = probe()
        answer = await found if inspect.isawaitable(found) else found
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"still {answer!r} after {within_s} s")
        await asyncio.sleep(every_s)
