"""Child processes that are kept alive: started, watched, started again when they die, stopped in order."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from millrace.lifetime import die_with_parent

FIRST_DELAY_S, LONGEST_DELAY_S, STEADY_S = 0.2, 10.0, 30.0


@dataclass(kw_only=True)
class Child:
    """One supervised process. `ready` is set while it runs and has printed a line that holds `ready_mark`."""

    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    ready_mark: str | None = None
    """None: ready as soon as it runs."""
    stop_s: float = 30.0
    """What it gets between SIGTERM and SIGKILL."""
    on_ready: Callable[[str], None] = lambda line: None

    def __post_init__(self) -> None:
        self.ready = asyncio.Event()
        self.failures = 0
        self._stopping = False
        self._process: asyncio.subprocess.Process | None = None

    async def run(self) -> None:
        """Keeps the process alive until `stop`; a process that dies at once again and again is started ever later."""
        delay = FIRST_DELAY_S
        while not self._stopping:
            began = time.monotonic()
            code = await self._run_once()
            self.ready.clear()
            if self._stopping:
                return
            self.failures += 1
            delay = FIRST_DELAY_S if time.monotonic() - began > STEADY_S else min(delay * 2, LONGEST_DELAY_S)
            say(f"{self.name} ended with {describe_exit(code)}; starting it again in {delay:.1f} s")
            await asyncio.sleep(delay)

    async def _run_once(self) -> int:
        self._process = await asyncio.create_subprocess_exec(
            *self.command,
            env=os.environ | self.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        if self.ready_mark is None:
            self.ready.set()
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        await asyncio.gather(self._forward(self._process.stdout), self._forward(self._process.stderr))
        return await self._process.wait()

    async def _forward(self, stream: asyncio.StreamReader) -> None:
        while raw := await stream.readline():
            line = raw.decode(errors="replace").rstrip()
            if self.ready_mark is not None and self.ready_mark in line:
                self.on_ready(line)
                self.ready.set()
            else:
                say(f"[{self.name}] {line}")

    async def stop(self) -> None:
        """Asks it to end, and makes it end after `stop_s`."""
        self._stopping = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(self.stop_s):
                await process.wait()
        except TimeoutError:
            say(f"{self.name} did not end in {self.stop_s:.0f} s; killing it")
            process.kill()
            await process.wait()


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def describe_exit(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
