"""A process that makes calls: `python -m millrace.load.generator`, told what to do on standard input (`orders`).

It stops when its input ends, and with the process that started it.
"""

import asyncio
import gc
import os
import sys
import traceback
from collections.abc import Coroutine
from itertools import islice

import uvloop

from millrace.lifetime import die_with_parent
from millrace.load.arrivals import schedule, stretches
from millrace.load.asking.asker import Asker
from millrace.load.generator.driving import Driver, Times
from millrace.load.generator.orders import Begin, Done, Order, Report
from millrace.load.generator.recording import Closed, Recording
from millrace.load.merging import merge_histograms
from millrace.load.result import METRICS, Generator, Interval, encode, quantile_ms
from millrace.load.scenario import PIECES

FAILED, STOPPED = 1, 3
LONGEST_LINE = 1 << 26
GARBAGE = (50_000, 20, 100)
"""Collections are rare: with 15,000 requests under way, each by Python's own thresholds stops all for 0.1 to 0.2 s."""


class Reporter:
    """Writes reports to standard output, one after the other, beside the loop that measures: encoding a histogram takes
    half a millisecond, in which nothing else is done, so the loop runs between any two."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._closed: asyncio.Queue[Closed | None] = asyncio.Queue()

    def say(self, report: Report) -> None:
        self._writer.write(report.model_dump_json(exclude_defaults=True).encode() + b"\n")

    def interval(self, closed: Closed | None) -> None:
        """None: there are no more."""
        self._closed.put_nowait(closed)

    async def intervals(self) -> None:
        """Until there are no more."""
        while (closed := await self._closed.get()) is not None:
            self.say(Report(interval=await _encode(closed)))


async def _encode(closed: Closed) -> Interval:
    histograms = {}
    for metric in METRICS:
        if (held := closed.tally.histograms.get(metric)) is not None:
            histograms[metric] = encode(held)
            await asyncio.sleep(0)
    return Interval(
        at_s=closed.at_s,
        seconds=closed.seconds,
        in_flight=closed.in_flight,
        histograms=histograms,
        **closed.tally.counts(),
    )


async def generate(order: Order, asker: Asker, begin: Begin, reporter: Reporter) -> Done:
    """Makes the calls."""
    scenario = order.scenario
    recording = Recording(stretches(scenario), scenario.slo, streamed=order.task in PIECES)
    times = Times(
        begin=begin.monotonic_s, warmup_s=scenario.warmup_s, seconds=scenario.seconds, drain_s=scenario.drain_s
    )
    driver = Driver(asker, recording, times, reporter.interval)
    callers = scenario.arrivals.callers
    if callers is None:
        await driver.open_loop(islice(schedule(scenario), order.own, None, order.generators))
    else:
        await driver.closed_loop(range(order.own, callers, order.generators), callers)
    stages = recording.stages()
    late = merge_histograms([stage.histograms for stage in stages]).get("late")
    generator = Generator(cpu_share=driver.cpu_share, late_p99_ms=quantile_ms(late, 0.99) or 0.0, sent=recording.sent)
    return Done(stages=stages, generator=generator, verification=asker.verification(), failures=driver.failures)


async def obey(commands: asyncio.StreamReader, reporter: Reporter) -> None:
    """Raises EOFError where the coordinator goes away."""
    order = Order.model_validate_json(await read_line(commands))
    async with Asker(order.scenario, order.task, order.salt) as asker:
        reporter.say(Report(ready=True))
        begin = Begin.model_validate_json(await read_line(commands))
        gc.freeze()
        gc.set_threshold(*GARBAGE)
        reporting = asyncio.create_task(reporter.intervals())
        done = await while_wanted(commands, generate(order, asker, begin, reporter))
        reporter.interval(None)
        await reporting
        reporter.say(Report(done=done))


async def read_line(commands: asyncio.StreamReader) -> bytes:
    line = await commands.readline()
    if not line:
        raise EOFError
    return line


async def while_wanted(commands: asyncio.StreamReader, work: Coroutine[None, None, Done]) -> Done:
    """Gives the work up when the input ends."""
    working, ending = asyncio.create_task(work), asyncio.create_task(commands.read())
    try:
        await asyncio.wait({working, ending}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise EOFError
        return working.result()
    finally:
        working.cancel()
        ending.cancel()
        await asyncio.wait({working, ending})


async def serve() -> None:
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader(limit=LONGEST_LINE)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    reports = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # Whatever else is printed is no report.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), reports
    )
    transport.set_write_buffer_limits(0)
    writer = asyncio.StreamWriter(transport, protocol, None, loop)
    await obey(commands, Reporter(writer))
    await writer.drain()


def main() -> int:
    """What went wrong is the last line on standard error."""
    die_with_parent()
    try:
        uvloop.run(serve())
    except EOFError:
        return STOPPED
    except Exception as error:
        traceback.print_exc()
        print(describe(error), file=sys.stderr)
        return FAILED
    return 0


def describe(error: Exception) -> str:
    """The first of a group, on one line."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}".replace("\n", " ")


if __name__ == "__main__":
    sys.exit(main())
