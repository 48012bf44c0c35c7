"""The processes of one schedule: starts them, lets accidents happen to them, and starts others in their places."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from redis.exceptions import RedisError

from millrace.errors import Unavailable
from millrace.queue.connection import ConnectionLost
from millrace.queue.keys import JobRef, ModelVersion
from tests.simulation.frontend import Frontend
from tests.simulation.network import LinkedRedis
from tests.simulation.plans import LIMITS
from tests.simulation.process import Process
from tests.simulation.worker import Machine, Worker
from tests.simulation.world import World

REAP_S = 1.0
LEAPS_MS = (400, 1_600, 2_900, 5_000, 20_000)
FAR_MS = 700_000
BACKWARDS_MS = (1, 900, 3_000, 20_000)
P = TypeVar("P", bound=Process)


class Reaper(Process):
    """Reaps every model, each second."""

    def start(self, models: list[ModelVersion]) -> None:
        self.spawn(self._run(models))

    async def _run(self, models: list[ModelVersion]) -> None:
        while True:
            for model in models:
                with suppress(Unavailable):
                    await self.queue.reap(model)
            await self.sleep(REAP_S)


class Stray(Process):
    """Somebody whose commands come when nobody expects them: each is harmless at any time."""

    def start(self, refs: list[JobRef], until_s: float) -> None:
        self.spawn(self._run(refs, until_s))

    async def _run(self, refs: list[JobRef], until_s: float) -> None:
        rng = self.world.rng
        while self.world.now < until_s:
            await self.sleep(rng.uniform(0.2, 3.0))
            ref = rng.choice(refs)
            try:
                match rng.randrange(3):
                    case 0 if ref.is_anonymous:
                        await self.queue.forget([ref])
                    case 1:
                        await self.queue.unwatch("stranger", [ref])
                    case _:
                        await self.queue.watch("stranger", [ref])
            except Unavailable:
                pass


@dataclass(slots=True)
class Place:
    """Where a worker stands, and what it is: its successors are the same."""

    machine: Machine
    worker: Worker
    restarts: int = 0


class Fleet:
    """`redis` gives a client for each process."""

    def __init__(self, world: World, redis: Callable[[], LinkedRedis], models: list[ModelVersion]) -> None:
        self.world, self.models = world, models
        self._redis = redis
        self.frontends: list[Frontend] = []
        """All that ever were, the newest last."""
        self._places: list[Place] = []
        self._reapers: list[Reaper] = []

    def start(self, machines: list[Machine], frontends: int, reapers: int) -> None:
        for number in range(reapers):
            reaper = Reaper(self.world, f"r{number + 1}", self._redis(), LIMITS)
            self._reapers.append(reaper)
            reaper.start(self.models)
        for number, machine in enumerate(machines):
            worker = self._worker(machine, f"w{number + 1}")
            self._places.append(Place(machine, worker))
        for _ in range(frontends):
            self._frontend()
        for accident in self.world.weather.accidents:
            self.world.loop.call_at(accident.at_s, self._befall, accident.kind)

    def start_stray(self, refs: list[JobRef]) -> None:
        stray = Stray(self.world, "stray", self._redis(), LIMITS)
        stray.start(refs, self.world.weather.active_s)

    def calm_down(self) -> None:
        """The end of all accidents; every place has a worker again before long."""
        self.world.calm, self.world.is_away = True, False

    def stop(self) -> None:
        for process in self._processes():
            process.crash()

    def _processes(self) -> list[Process]:
        return [*self.frontends, *(place.worker for place in self._places), *self._reapers]

    # ── life and death ───────────────────────────────────────────────────────────────────────────────────────────

    def _worker(self, machine: Machine, name: str) -> Worker:
        worker = Worker(self.world, name, self._redis(), LIMITS, machine)
        worker.start()
        return worker

    def _frontend(self) -> None:
        frontend = Frontend(
            self.world, f"f{len(self.frontends) + 1}", self._redis(), LIMITS, self.world.rng.choice([1.0, 30.0])
        )
        self.frontends.append(frontend)
        frontend.start()

    def tend(self) -> None:
        """Puts another worker where one has ended."""
        for number, place in enumerate(self._places, 1):
            if not place.worker.is_alive:
                place.restarts += 1
                same = self.world.rng.random() < 0.5
                place.worker = self._worker(place.machine, f"w{number}" if same else f"w{number}.{place.restarts}")

    def _one(self, processes: list[P]) -> P | None:
        alive = [process for process in processes if process.is_alive]
        return self.world.rng.choice(alive) if alive else None

    # ── accidents ────────────────────────────────────────────────────────────────────────────────────────────────

    def _befall(self, kind: str) -> None:
        world = self.world
        world.count(f"accident: {kind}")
        world.note("accident", kind)
        rng = world.rng
        worker, frontend = self._one([place.worker for place in self._places]), self._one(self.frontends)
        match kind:
            case "worker crashes" if worker:
                worker.crash()
            case "worker freezes" if worker:
                worker.freeze(rng.uniform(0.5, 9.0))
            case "worker drains" if worker:
                worker.spawn(worker.drain(rng.uniform(0.0, 1.0)))
            case "worker drains at once" if worker:
                worker.spawn(worker.drain(0.0))
            case "frontend crashes" if frontend:
                frontend.crash()
                self._frontend()
            case "frontend freezes" if frontend:
                frontend.freeze(rng.uniform(0.5, 8.0))
            case "frontend drains" if frontend:
                self._frontend()
                frontend.spawn(frontend.drain(rng.uniform(0.0, 1.0)))
            case "reapers freeze":
                for reaper in self._reapers:
                    reaper.freeze(rng.uniform(0.5, 6.0))
            case "redis away":
                self._go_away(rng.uniform(0.05, 4.5))
            case "redis stalls":
                world.stalled_until = world.now + rng.uniform(0.1, 4.0)
            case "scripts lost":
                world.lose_scripts()
            case _:
                self._move_clock(kind)

    def _go_away(self, seconds: float) -> None:
        self.world.is_away = True
        error: RedisError = ConnectionLost("the server went away")
        for process in self._processes():
            process.link.cut(error)
        self.world.loop.call_later(seconds, partial(setattr, self.world, "is_away", False))

    def _move_clock(self, kind: str) -> None:
        rng = self.world.rng
        match kind:
            case "clock leaps":
                self.world.skew_ms += rng.choice(LEAPS_MS)
            case "clock leaps far":
                self.world.skew_ms += FAR_MS
            case "clock runs back":
                self.world.skew_ms -= rng.choice(BACKWARDS_MS)
