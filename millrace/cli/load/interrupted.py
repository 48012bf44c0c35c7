"""What is kept of a load test that was interrupted: its whole seconds, as if it had been no longer."""

from collections.abc import Sequence
from datetime import datetime

from millrace.load.machine import hardware, versions
from millrace.load.merging import total
from millrace.load.result import Interval, Result, Stage
from millrace.load.run import find_model
from millrace.load.scenario import TASKS, Scenario

LEAST_S = 1.0


async def so_far(scenario: Scenario, intervals: Sequence[Interval], started_at: datetime) -> Result | None:
    """None where nothing had been measured yet. Raises MillraceError where the service is gone by now."""
    measured = [one for one in intervals if 0 <= one.at_s < scenario.seconds]
    stages = [_stage(one, scenario.arrivals.callers) for one in measured]
    if not stages or (whole := total(stages)).seconds < LEAST_S:
        return None
    model = await find_model(scenario)
    return Result(
        schema="millrace.load/1",
        scenario=scenario.model_copy(update={"seconds": whole.seconds}),
        started_at=started_at.isoformat(timespec="seconds"),
        task=scenario.task or TASKS[model.task],
        versions=versions() | {scenario.model: ", ".join(model.versions)},
        hardware=hardware(),
        intervals=intervals,
        stages=[whole],
        total=whole,
        notes=[
            f"Interrupted after {whole.seconds:.0f} of {scenario.seconds:g} s. Requests count where they ended; those "
            "under way, what the service said of itself and what --verify found are left out."
        ],
    )


def _stage(interval: Interval, callers: int | None) -> Stage:
    counts = interval.model_dump(exclude={"at_s", "seconds", "in_flight"})
    end_s = interval.at_s + interval.seconds
    return Stage(begin_s=interval.at_s, end_s=end_s, rate=None, callers=callers, answered=interval.ok, **counts)
