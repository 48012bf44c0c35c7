"""Looking again and again, until q or a signal ends it."""

import asyncio
import os
import signal
import sys
import termios
import tty
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live

from millrace.cli.top import view
from millrace.cli.top.reading import Reader, Snapshot
from millrace.cli.top.rows import Totals, overview

WINDOW_S = 3.0
"""Over which rates are taken: each process tells once a second what it has done."""
HISTORY = 240
"""Ticks that sparklines may show."""
QUIT = b"qQ\x03\x04"


class Watch:
    """A live view on a terminal."""

    def __init__(self, reader: Reader, console: Console, interval_s: float) -> None:
        self._reader, self._console, self._interval_s = reader, console, interval_s
        self._snapshots: deque[Snapshot] = deque()
        self._history: deque[Totals] = deque(maxlen=HISTORY)

    async def run(self) -> None:
        """Returns when q is pressed, or a signal comes."""
        with _ending() as ended, Live(console=self._console, screen=True, auto_refresh=False) as live:
            tasks = [asyncio.create_task(self._draw(live)), asyncio.create_task(ended.wait())]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if not tasks[0].cancelled():
                tasks[0].result()

    async def _draw(self, live: Live) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + self._interval_s
            await self.tick(live)
            await asyncio.sleep(due - loop.time())

    async def tick(self, live: Live) -> None:
        now = await self._reader.read()
        shown = overview(now, self._before(now))
        self._snapshots.append(now)
        self._history.append(shown.totals)
        width, height = self._console.size
        live.update(view.live(shown, self._history, width, height), refresh=True)

    def _before(self, now: Snapshot) -> Snapshot | None:
        """The latest that is at least `WINDOW_S` old; while there is none, the first."""
        while len(self._snapshots) > 1 and self._snapshots[1].at_s <= now.at_s - WINDOW_S:
            self._snapshots.popleft()
        return self._snapshots[0] if self._snapshots else None


@contextmanager
def _ending() -> Iterator[asyncio.Event]:
    """Set by q, and by signals that end a program; meanwhile the terminal gives keys as they are pressed."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in signals:
        loop.add_signal_handler(number, ended.set)
    try:
        with _keys(ended):
            yield ended
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


@contextmanager
def _keys(ended: asyncio.Event) -> Iterator[None]:
    if not sys.stdin.isatty():
        yield
        return
    loop, descriptor = asyncio.get_running_loop(), sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def pressed() -> None:
        keys = os.read(descriptor, 64)
        if not keys or any(key in QUIT for key in keys):
            ended.set()

    tty.setcbreak(descriptor)
    loop.add_reader(descriptor, pressed)
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
