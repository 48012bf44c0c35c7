"""How one process loads the service: an open loop, whose requests are due at moments that were drawn before, or a
closed one, whose callers each wait for their answer.

    while there is more to come:
        wait until the next request is due, or a second is over
        start whatever is due by now, each a task of its own
        hand out what was tallied in the seconds that are over

Nothing in that waits for an answer, so a service that stalls finds all that was due meanwhile, on time.
"""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from millrace.errors import Exhausted, MillraceError
from millrace.load.arrivals import Due
from millrace.load.asking.sending import Received
from millrace.load.generator.alarm import Alarm
from millrace.load.generator.recording import Closed, Recording, Request

NOT_SENT, UNFINISHED = "NOT_SENT", "UNFINISHED"
"""Codes of requests whose end is the generator's doing: it had too many under way; it waited no longer."""
MOST_IN_FLIGHT = 20_000
MOST_FAILURES = 8
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.05, 1.0


class Asking(Protocol):
    def ask(
        self, index: int, prompt_tokens: int | None = None, output_tokens: int | None = None
    ) -> AsyncGenerator[Received, None]:
        """Makes a request. Raises MillraceError where it is refused or fails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """`begin` of measuring is of time.monotonic(), the rest are seconds."""

    begin: float
    warmup_s: float
    seconds: float
    drain_s: float

    def now(self) -> float:
        """Seconds from the begin of measuring."""
        return time.monotonic() - self.begin


class Driver:
    """One process' share of the load. `emit` is called with each second that is over, and must not take long."""

    def __init__(
        self,
        asker: Asking,
        recording: Recording,
        times: Times,
        emit: Callable[[Closed], None],
        most_in_flight: int = MOST_IN_FLIGHT,
    ) -> None:
        self._asker, self._recording, self._times, self._emit = asker, recording, times, emit
        self._most_in_flight = most_in_flight
        self._under_way: set[asyncio.Task[None]] = set()
        self._open_s = -times.warmup_s
        self.failures: dict[str, str] = {}
        """What the first request that failed was told, by reason."""
        self._cpu_began = self._cpu_ended = 0.0

    @property
    def cpu_share(self) -> float:
        """Of one core, while it measured."""
        return (self._cpu_ended - self._cpu_began) / self._times.seconds

    async def open_loop(self, dues: Iterable[Due]) -> None:
        """Returns when all have ended, or the time to drain is over."""
        async with asyncio.TaskGroup() as tasks, Alarm() as alarm:
            await self._pace(iter(dues), tasks, alarm)
            await self._drain()

    async def closed_loop(self, callers: Iterable[int], step: int) -> None:
        """Callers begin at once; the requests of each have the numbers caller, caller + step, …"""
        async with asyncio.TaskGroup() as tasks, Alarm() as alarm:
            await alarm.until(self._times.begin - self._times.warmup_s)
            for caller in callers:
                self._start(tasks, self._call(caller, step))
            await self._pace(iter(()), tasks, alarm)
            await self._drain()

    async def _pace(self, dues: Iterator[Due], tasks: asyncio.TaskGroup, alarm: Alarm) -> None:
        """Until the end of measuring."""
        self._cpu_began = time.process_time()
        due = next(dues, None)
        while due is not None or self._open_s < self._times.seconds:
            border_s = self._border_s()
            await alarm.until(self._times.begin + (border_s if due is None else min(due.at_s, border_s)))
            now_s = self._times.now()
            while due is not None and due.at_s <= now_s:
                self._close_until(due.at_s)
                self._send(tasks, due)
                due = next(dues, None)
            self._close_until(now_s)

    async def _drain(self) -> None:
        """Waits for what is under way, and ends what takes too long."""
        deadline_s = self._times.seconds + self._times.drain_s
        while self._under_way and (now_s := self._times.now()) < deadline_s:
            await asyncio.wait(self._under_way, timeout=min(self._border_s(), deadline_s) - now_s)
            self._close_until(self._times.now())
        # A task that is cancelled before it runs would end its request nowhere.
        await asyncio.sleep(0)
        for task in self._under_way:
            task.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way)
        # Nothing more comes in the rest of this second.
        self._close(self._border_s())

    def _send(self, tasks: asyncio.TaskGroup, due: Due) -> None:
        request = self._recording.begin(due.at_s)
        if len(self._under_way) < self._most_in_flight:
            self._start(tasks, self._open_ask(request, due))
        else:
            self._recording.end(request, self._times.now(), NOT_SENT)

    async def _open_ask(self, request: Request, due: Due) -> None:
        await self._ask(request, due.index, due.prompt_tokens, due.output_tokens)

    async def _call(self, caller: int, step: int) -> None:
        """A caller of a closed loop. One that is refused comes back when it is told to, so that it loads the service
        as a client does, and not as fast as it can be refused."""
        failures, index = 0, caller
        while (now_s := self._times.now()) < self._times.seconds:
            error = await self._ask(self._recording.begin(now_s), index)
            failures, index = failures + 1 if error else 0, index + step
            if error is not None:
                left_s = self._times.seconds - self._times.now()
                await asyncio.sleep(min(_pause_s(error, failures), left_s))

    async def _ask(
        self, request: Request, index: int, prompt_tokens: int | None = None, output_tokens: int | None = None
    ) -> MillraceError | None:
        """A request from its begin to its end; what it failed with."""
        recording, now = self._recording, self._times.now
        recording.send(request, now())
        try:
            async with aclosing(self._asker.ask(index, prompt_tokens, output_tokens)) as answer:
                async for received in answer:
                    recording.receive(request, now(), received.tokens, received.prompt_tokens)
        except MillraceError as error:
            recording.end(request, now(), error.code.name, error.reason)
            if len(self.failures) < MOST_FAILURES:
                self.failures.setdefault(error.reason or error.code.name, error.message)
            return error
        except asyncio.CancelledError:
            recording.end(request, now(), UNFINISHED)
            raise
        recording.end(request, now())
        return None

    def _start(self, tasks: asyncio.TaskGroup, work: Coroutine[None, None, None]) -> None:
        task = tasks.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    def _border_s(self) -> float:
        """Where the open interval ends: at the next whole second, or with the measuring."""
        following_s = math.floor(self._open_s) + 1.0
        return min(following_s, self._times.seconds) if self._open_s < self._times.seconds else following_s

    def _close_until(self, now_s: float) -> None:
        while (border_s := self._border_s()) <= now_s:
            self._close(border_s)

    def _close(self, end_s: float) -> None:
        self._emit(self._recording.close(self._open_s, end_s))
        self._open_s = end_s
        if end_s == 0:
            self._cpu_began = time.process_time()
        if end_s == self._times.seconds:
            self._cpu_ended = time.process_time()


def _pause_s(error: MillraceError, failures: int) -> float:
    if isinstance(error, Exhausted) and error.retry_after_s > 0:
        return error.retry_after_s
    return min(FIRST_BACKOFF_S * 2.0 ** min(failures - 1, 10), LONGEST_BACKOFF_S)
