"""Generator processes that do not do what they should."""

import sys

import pytest

from millrace.errors import MillraceError
from millrace.load.crew import Crew
from millrace.load.generator.orders import Order
from millrace.load.scenario import make_scenario

READ = "import sys, time; sys.stdin.readline(); "
ORDER = Order(
    scenario=make_scenario({"model": "stub", "arrivals": {"ramp": {"from": 1, "to": 2}}}),
    task="generate",
    salt="s",
    own=0,
    generators=1,
)


def crew(*programs: str) -> Crew:
    """One process, which is a program of Python instead of a generator."""
    return Crew([ORDER] * len(programs), [sys.executable, "-c", *programs])


async def test_a_process_that_fails_is_reported_with_the_last_line_that_it_said() -> None:
    program = READ + "print('one', file=sys.stderr); sys.exit('the disk is full')"
    async with crew(program) as running:
        with pytest.raises(MillraceError, match="load generator 0 ended with exit status 1: the disk is full"):
            await running.ready()


async def test_a_process_that_is_killed_is_reported_with_the_signal() -> None:
    async with crew(READ + "print('{\"ready\": true}', flush=True); time.sleep(60)") as running:
        await running.ready()
        running.processes[0].kill()
        with pytest.raises(MillraceError, match=r"load generator 0 ended with signal SIGKILL$"):
            await running.report()


async def test_half_a_line_is_no_report() -> None:
    async with crew(READ + "print('{\"ready\": tr', end='', flush=True); sys.exit(7)") as running:
        with pytest.raises(MillraceError, match="exit status 7"):
            await running.report()


async def test_a_process_that_ends_well_without_a_result_is_reported_too() -> None:
    async with crew(READ) as running:
        with pytest.raises(MillraceError, match="exit status 0"):
            await running.report()


async def test_leaving_ends_a_process_that_does_not_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("millrace.load.crew.STOP_S", 0.1)
    async with crew(READ + "time.sleep(60)") as running:
        pass
    assert running.processes[0].returncode == -9


async def test_a_generator_ends_when_its_input_does() -> None:
    async with Crew([ORDER]) as running:
        await running.ready()
    assert running.processes[0].returncode == 3


async def test_a_generator_that_cannot_do_what_it_is_told_says_why_in_one_line() -> None:
    scenario = ORDER.scenario.model_copy(update={"address": ""})
    async with Crew([ORDER.model_copy(update={"scenario": scenario, "task": "infer"})]) as running:
        with pytest.raises(MillraceError, match=r"load generator 0 ended with exit status 1: .+: .+"):
            await running.ready()
