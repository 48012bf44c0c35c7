"""`millrace load`: from the flags to the files."""

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime
from functools import partial
from typing import Any

from rich.console import Console

from millrace.cli import calls
from millrace.cli.calls import errors
from millrace.cli.load.flags import Flags
from millrace.cli.load.interrupted import so_far
from millrace.cli.load.outputs import Outputs
from millrace.cli.load.scenario import scenario_of
from millrace.cli.load.summary import misses, summary
from millrace.load.live import watching
from millrace.load.report import write_report
from millrace.load.result import Interval, Result, write_result
from millrace.load.run import run
from millrace.load.scenario import Scenario

FAILED, WRONG, UNDER_SLO = 1, 2, 3


def run_one(flags: Flags, outputs: Outputs, *, fail_under_slo: bool) -> int:
    """The exit status."""
    return reported(_run(flags, outputs, fail_under_slo=fail_under_slo))


async def _run(flags: Flags, outputs: Outputs, *, fail_under_slo: bool) -> int:
    scenario = scenario_of(flags)
    if fail_under_slo and scenario.slo is None:
        raise ValueError("--fail-under-slo needs an SLO: --slo interactive, or slo in the scenario")
    with outputs.files(scenario.name, "result") as files:
        result, is_whole = await _measure(scenario, live=outputs.live)
        Console(highlight=False).print(summary(result))
        files.write(partial(write_result, result), partial(write_report, result))
    return judge(result, fail_under_slo=fail_under_slo) if is_whole else calls.INTERRUPTED


def judge(result: Result, *, fail_under_slo: bool) -> int:
    """The exit status of a whole run."""
    if result.is_faulty or result.total.ok == 0:
        return FAILED
    return UNDER_SLO if fail_under_slo and misses(result) else 0


async def _measure(scenario: Scenario, *, live: bool) -> tuple[Result, bool]:
    """What came of it, and whether that is all: after Ctrl-C it is what there was by then. Raises CancelledError where
    that was nothing."""
    intervals, started_at = list[Interval](), datetime.now(UTC)
    try:
        with watching(scenario, errors, live=live) as watch:

            def keep(interval: Interval) -> None:
                intervals.append(interval)
                watch(interval)

            return await run(scenario, keep), True
    except asyncio.CancelledError:
        if (result := await so_far(scenario, intervals, started_at)) is None:
            errors.print("Interrupted before anything was measured: nothing was kept.")
            raise
        return result, False


def reported(call: Coroutine[Any, Any, int]) -> int:
    """Runs a command whose result is its exit status; prints what went wrong, and what to do about it."""
    status = 0

    async def keep() -> None:
        nonlocal status
        status = await call

    try:
        return calls.run(keep()) or status
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        errors.print(f"{where}{error.strerror or error}", markup=False, soft_wrap=True)
    except ValueError as error:
        errors.print(str(error), markup=False, soft_wrap=True)
    return WRONG
