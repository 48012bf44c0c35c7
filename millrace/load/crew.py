"""The generator processes, as their coordinator sees them."""

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from pydantic import BaseModel

from millrace.errors import MillraceError
from millrace.load.generator.orders import Begin, Order, Report

COMMAND = (sys.executable, "-m", "millrace.load.generator")
LONGEST_LINE = 1 << 26
"""Some megabytes of histograms: the last report has all of a ramp's stages."""
STOP_S = 3.0
"""What they get to cancel their requests in."""


class Crew:
    """Processes that live within `async with`. Where one of them dies or fails, `report` raises MillraceError with the
    last line of what it said on standard error."""

    def __init__(self, orders: Sequence[Order], command: Sequence[str] = COMMAND) -> None:
        self._orders, self._command = orders, command
        self.processes: list[Process] = []
        self._reading: list[asyncio.Task[None]] = []
        self._reports: asyncio.Queue[tuple[int, Report | MillraceError]] = asyncio.Queue()

    async def ready(self) -> None:
        """Returns when all of them can begin."""
        for _ in self.processes:
            await self.report()

    def begin(self, monotonic_s: float) -> None:
        for process in self.processes:
            _tell(process, Begin(monotonic_s=monotonic_s))

    async def report(self) -> tuple[int, Report]:
        """The next one, and whose it is."""
        number, report = await self._reports.get()
        if isinstance(report, MillraceError):
            raise report
        return number, report

    async def __aenter__(self) -> Self:
        try:
            for number, order in enumerate(self._orders):
                process = await asyncio.create_subprocess_exec(
                    *self._command, stdin=PIPE, stdout=PIPE, stderr=PIPE, limit=LONGEST_LINE, start_new_session=True
                )
                self.processes.append(process)
                self._reading.append(asyncio.create_task(self._read(number, process)))
                _tell(process, order)
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        """They end when their input does; those that do not are killed."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.close()
        try:
            async with asyncio.timeout(STOP_S):
                await asyncio.gather(*(process.wait() for process in self.processes))
        except TimeoutError:
            pass
        finally:
            for process in self.processes:
                if process.returncode is None:
                    process.kill()
            await asyncio.gather(*(process.wait() for process in self.processes), *self._reading)

    async def _read(self, number: int, process: Process) -> None:
        """Until it ends."""
        assert process.stdout is not None
        assert process.stderr is not None
        said = asyncio.create_task(_last_line(process.stderr))
        is_done = False
        # One that is killed may leave half a line.
        while (line := await process.stdout.readline()).endswith(b"\n"):
            report = Report.model_validate_json(line)
            is_done = is_done or report.done is not None
            self._reports.put_nowait((number, report))
        code, last = await process.wait(), await said
        if not is_done:
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
            message = f"load generator {number} ended with {how}{': ' if last else ''}{last}"
            self._reports.put_nowait((number, MillraceError(message, reason="GENERATOR_FAILED")))


def _tell(process: Process, what: BaseModel) -> None:
    assert process.stdin is not None
    process.stdin.write(what.model_dump_json(by_alias=True).encode() + b"\n")


async def _last_line(stream: asyncio.StreamReader) -> str:
    """Of all that comes until its end; the rest is forgotten."""
    last = b""
    while line := await stream.readline():
        last = line.strip() or last
    return last.decode(errors="replace")
