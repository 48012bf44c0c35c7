"""The highest rate that meets an SLO: `millrace load sweep`.

    one caller → twice as many callers each time, until throughput grows no more → shares of that → bisection

The single caller measures what a request takes where none waits, the growing closed loop how throughput follows
occupancy and where it saturates, the open loops what callers would see at each rate. Between two runs the queue
empties.
"""

import asyncio
import statistics
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from millrace.errors import Unavailable
from millrace.load.result import Interval, Result
from millrace.load.run import find_model, run
from millrace.load.scenario import Arrivals, Scenario, Slo
from millrace.load.sweeping.knee import knee
from millrace.load.sweeping.points import SCHEMA, Point, Service, Sweep, judge, read_sweep, service, write_sweep

__all__ = ["Point", "Sweep", "look_at", "read_sweep", "sweep", "write_sweep"]
SHARES = (0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.3)
"""Of the saturation's throughput, on offer in an open loop."""
LOWER_SHARES = (0.25, 0.1)
"""What is tried where the lowest of `SHARES` misses."""
PRECISION = 0.05
"""How far apart, at most, the highest rate that met the SLO and the lowest that missed it are."""
GROWTH = 1.05
"""Four times as many callers that bring less than this have saturated the service."""
SAME = 0.97
"""A throughput that is so near the highest is no less."""
MOST_CALLERS = 16_384
FEW = 30
"""Requests at low load, below which their mean is a guess."""
SETTLE_S = 60.0
GLANCE_S = 0.25

Watch = Callable[[Interval], None]
Run = Callable[[Scenario, Watch], Awaitable[Result]]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What stands behind the address, for one model."""

    workers: int
    jobs: int
    """Waiting and running."""


Look = Callable[[Scenario], Awaitable[Fleet]]


async def look_at(scenario: Scenario) -> Fleet:
    """Raises MillraceError where nobody answers, the model is not served, or no worker is ready for it."""
    model = await find_model(scenario)
    if not model.ready_workers:
        raise Unavailable(f"no worker is ready for {scenario.model}", reason="NO_WORKER")
    return Fleet(workers=model.ready_workers, jobs=model.waiting_jobs + model.running_jobs)


async def sweep(
    scenario: Scenario,
    *,
    run: Run = run,
    watch: Watch = lambda _: None,
    say: Say = lambda _: None,
    look: Look = look_at,
) -> Sweep:
    """Runs the scenario at rates of its own choice. `say` is told how far it is and how long it takes, a sentence
    at a time. Raises ValueError where the scenario has no SLO or a single caller is never answered, and what `run` and
    `look` raise."""
    if scenario.slo is None:
        raise ValueError("a sweep needs limits to meet: give `slo: interactive`, `slo: server`, or limits of your own")
    return await _Search(scenario, scenario.slo, run, watch, say, look).find()


class _Search:
    """One sweep while it is under way."""

    def __init__(self, scenario: Scenario, slo: Slo, run: Run, watch: Watch, say: Say, look: Look) -> None:
        self._scenario, self._slo, self._run, self._watch, self._say, self._look = scenario, slo, run, watch, say, look
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self._warmup_s = scenario.warmup_s
        self._closed: dict[int, Point] = {}
        self._open: dict[float, Point] = {}
        self._service: Service | None = None
        self._last: Result | None = None
        self._runs_left = 7 + len(SHARES) + 3
        self._notes: list[str] = []

    async def find(self) -> Sweep:
        workers = (await self._look(self._scenario)).workers
        self._say(f"{_counted(workers, 'worker')}; about {self._runs_left} runs, {self._duration()}")
        saturation = await self._saturate(workers)
        self._runs_left = len(SHARES) + 3
        best = await self._climb(saturation)
        if (await self._look(self._scenario)).workers != workers:
            self._note(f"There were {_counted(workers, 'worker')} at the begin, and not at the end.")
        return self._conclude(workers, saturation, best)

    async def _saturate(self, workers: int) -> float:
        """The throughput that the closed loop does not grow beyond."""
        lonely = await self._close(1)
        self._service = service(lonely.stage)
        if self._service.requests < FEW:
            self._note(
                f"Service times rest on {self._service.requests} requests: more seconds would make them certain."
            )
        self._warmup_s = max(self._warmup_s, 2 * lonely.quantiles_ms["e2e"] / 1000)
        callers, reached = workers, [lonely.throughput]
        while callers <= MOST_CALLERS and (len(reached) < 4 or reached[-1] >= GROWTH * reached[-3]):
            reached.append((await self._close(callers)).throughput)
            callers *= 2
        await self._close(max(min(self._plateau()) * 3 // 4, 1))
        return statistics.mean(self._plateau().values())

    def _plateau(self) -> dict[int, float]:
        """The highest throughput and those that are no less, by callers."""
        reached = {callers: point.throughput for callers, point in self._closed.items()}
        highest = max(reached.values())
        return {callers: rate for callers, rate in reached.items() if rate >= SAME * highest}

    async def _climb(self, saturation: float) -> float | None:
        """The highest rate on offer that met the SLO."""
        for share in SHARES:
            await self._offer(share * saturation)
        for share in LOWER_SHARES:
            if self._bracket()[0] is None:
                await self._offer(share * saturation)
        met, missed = self._bracket()
        while met is not None and missed is not None and missed > (1 + PRECISION) * met:
            await self._offer((met + missed) / 2)
            met, missed = self._bracket()
        return None if met is None else self._open[met].stage.offered_rate

    def _bracket(self) -> tuple[float | None, float | None]:
        """The lowest rate that missed, behind the highest below it, which met."""
        missed = min((rate for rate, point in self._open.items() if not point.meets), default=None)
        met = max((rate for rate in self._open if missed is None or rate < missed), default=None)
        return met, missed

    async def _close(self, callers: int) -> Point:
        if callers not in self._closed:
            seconds = self._scenario.seconds if callers == 1 else self._scenario.seconds / 2
            self._closed[callers] = await self._measure(Arrivals(callers=callers), seconds)
            self._tell(_counted(callers, "caller"), self._closed[callers])
        return self._closed[callers]

    async def _offer(self, rate: float) -> Point:
        point = self._open[rate] = await self._measure(Arrivals(poisson=rate), self._scenario.seconds)
        missed = ", ".join(limit for limit, met in point.met.items() if not met)
        self._tell(f"{rate:.4g} requests/s, {f'misses {missed}' if missed else 'meets the SLO'}", point)
        return point

    async def _measure(self, arrivals: Arrivals, seconds: float) -> Point:
        await self._settle()
        changes = {"arrivals": arrivals, "seconds": seconds, "warmup_s": self._warmup_s}
        self._last = await self._run(self._scenario.model_copy(update=changes), self._watch)
        self._note(*self._last.notes)
        return judge(self._last, self._slo, self._service.e2e.mean_s if self._service else 0.0)

    async def _settle(self) -> None:
        """Until nothing waits or runs, at most a minute."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SETTLE_S
        while (await self._look(self._scenario)).jobs:
            if loop.time() > deadline:
                self._note("There were jobs of others, or of the run before, at the begin of a run.")
                return
            await asyncio.sleep(GLANCE_S)

    def _tell(self, what: str, point: Point) -> None:
        self._runs_left = max(self._runs_left - 1, 0)
        if point.bottleneck:
            self._note(f"{what}: {point.bottleneck}")
        left = f"about {self._duration()} left" if self._runs_left else "nearly done"
        self._say(f"{what}: {point.throughput:.4g} answered/s; {left}")

    def _duration(self) -> str:
        seconds = self._runs_left * (self._warmup_s + self._scenario.seconds + 1)
        return f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s"

    def _note(self, *notes: str) -> None:
        self._notes += [note for note in notes if note not in self._notes]

    def _conclude(self, workers: int, saturation: float, best: float | None) -> Sweep:
        assert self._last is not None
        assert self._service is not None
        points = [point for _, point in sorted(self._open.items())]
        return Sweep(
            schema=SCHEMA,
            scenario=self._scenario,
            slo=self._slo,
            started_at=self._started_at,
            task=self._last.task,
            closed=[point for _, point in sorted(self._closed.items())],
            points=points,
            saturation=saturation,
            slots=min(self._plateau()),
            knee=knee([(point.stage.offered_rate, point.stage.throughput) for point in points]),
            best_rate=best,
            workers=workers,
            service=self._service,
            hardware=self._last.hardware,
            versions=self._last.versions,
            notes=self._notes,
        )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
