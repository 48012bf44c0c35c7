"""Waking up at a moment, to about fifty microseconds: the event loops' own timers count whole milliseconds, which is
what a short request takes altogether."""

import asyncio
import ctypes
import os
import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

CLOCK_MONOTONIC, TFD_TIMER_ABSTIME = 1, 1
LIBC = ctypes.CDLL(None, use_errno=True)


class Alarm:
    """Linux' timerfd_create(2), which Python has from 3.13 on; elsewhere the event loop's timer. Within `async with`
    one task at a time may wait."""

    def __init__(self) -> None:
        self._timer: int | None = None
        self._rung = asyncio.Event()

    async def until(self, moment: float) -> None:
        """`moment` is of time.monotonic(). Other tasks run even where it is past."""
        left_s = moment - time.monotonic()
        if left_s <= 0 or self._timer is None:
            await asyncio.sleep(max(left_s, 0))
            return
        self._rung.clear()
        self._set(self._timer, moment)
        await self._rung.wait()

    async def __aenter__(self) -> Self:
        if sys.platform == "linux":
            timer = LIBC.timerfd_create(CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
            if timer < 0:
                raise OSError(ctypes.get_errno(), "timerfd_create")
            self._timer = timer
            asyncio.get_running_loop().add_reader(timer, self._ring)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            asyncio.get_running_loop().remove_reader(self._timer)
            os.close(self._timer)
            self._timer = None

    def _set(self, timer: int, moment: float) -> None:
        seconds, nanoseconds = divmod(int(moment * 1e9), 1_000_000_000)
        # An itimerspec: it does not repeat, and rings at the moment.
        times = (ctypes.c_long * 4)(0, 0, seconds, nanoseconds)
        LIBC.timerfd_settime(timer, TFD_TIMER_ABSTIME, ctypes.byref(times), None)

    def _ring(self) -> None:
        assert self._timer is not None
        with suppress(BlockingIOError):
            os.read(self._timer, 8)
            self._rung.set()
