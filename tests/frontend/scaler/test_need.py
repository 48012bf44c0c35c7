"""How many workers are asked for, and what a HorizontalPodAutoscaler makes of it."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.queue import Indexed, ModelState, WorkerEntry
from services.frontend.scaler.asked import Asked
from services.frontend.scaler.need import Need
from services.frontend.scaler.service import METRICS

ASKED = Asked(models=(("m", ""),))
TOLERANCE = 0.1
"""A HorizontalPodAutoscaler does nothing where it is off by less."""
SYNC_S, STABLE_S = 15, 300
MOST = 200
"""The ScaledObject's maxReplicaCount."""
"""How often it looks, and for how long the greatest that it has seen keeps it from scaling down."""


def worker(
    name: str = "w",
    *,
    running: int = 0,
    free: int = 4,
    state: str = "ready",
    model: str = "m",
    stands: ModelState = ModelState.READY,
) -> WorkerEntry:
    return WorkerEntry(
        worker_id=name,
        device="CPU",
        execution_provider="CPUExecutionProvider",
        state=state,
        index=(Indexed(name=model, version="1", state=stands),),
        running_jobs=running,
        free_slots=free,
    )


def load(*, waiting: float = 0, running: float = 0, cost: float = 0, pace: float = 0) -> dict[str, float]:
    return {"jobs": waiting, "running": running, "standard_cost": cost, "capacity": pace}


def need(*workers: WorkerEntry, asked: Asked = ASKED, **what: float) -> Need:
    return Need(asked=asked, loads=[load(**what)], workers=workers)


def replicas(now: int, needed: Need, metrics: Sequence[str] = METRICS) -> int:
    """What a HorizontalPodAutoscaler asks for; KEDA gives it whole thousandths."""
    values = [int(1000 * getattr(needed, metric)) / 1000 for metric in metrics]
    return max(1, *(now if abs(value / now - 1) <= TOLERANCE else math.ceil(value) for value in values))


def test_work_is_counted_in_what_the_workers_say_that_they_hold() -> None:
    assert need(worker(running=3, free=1), worker(running=4, free=0), waiting=11, running=7).work == 4.5


def test_work_is_counted_in_what_the_operator_says() -> None:
    assert need(worker(), asked=Asked(models=ASKED.models, jobs_per_worker=2), waiting=3).work == 1.5


def test_where_no_worker_has_said_what_it_holds_those_that_start_are_kept() -> None:
    starting = [worker(state="loading", stands=ModelState.LOADING, free=0) for _ in range(3)]
    assert need(*starting, waiting=100).work == 3
    assert need(waiting=100).work == 1
    assert need().work == 0


def test_the_wait_asks_for_the_workers_that_bring_it_to_its_target() -> None:
    assert need(worker(), worker(), waiting=90, cost=600, pace=20).wait == pytest.approx(2 * 30 / 5)


def test_workers_that_start_do_not_let_the_wait_ask_for_more() -> None:
    starting = worker(state="loading", stands=ModelState.LOADING)
    needed = need(worker(), *([starting] * 9), waiting=90, cost=600, pace=20)
    assert needed.wait == need(worker(), waiting=90, cost=600, pace=20).wait


def test_a_wait_that_is_not_known_keeps_what_is_there() -> None:
    assert need(worker(), worker(), waiting=50, cost=9_000).wait == 2


def test_one_long_job_needs_one_worker() -> None:
    assert need(worker(running=4, free=0), waiting=1, cost=1e6, pace=10).wait == 1


def test_only_workers_that_stay_and_serve_one_of_the_models_are_busy() -> None:
    workers = [
        worker(running=1),
        worker(running=1, stands=ModelState.UNLOADING),
        worker(running=0),
        worker(running=1, state="draining"),
        worker(running=1, model="other"),
    ]
    assert need(*workers).busy == 2


workers = st.builds(
    worker,
    running=st.integers(0, 8),
    free=st.integers(0, 8),
    state=st.sampled_from(("loading", "ready", "draining")),
    stands=st.sampled_from(ModelState),
)


@given(
    fleet=st.lists(workers, max_size=40),
    starting=st.integers(0, 5),
    waiting=st.integers(0, 1000),
    cost=st.floats(0, 1e6),
    pace=st.floats(0, 1e4),
)
def test_busy_capacity_is_never_asked_away(
    fleet: list[WorkerEntry], starting: int, waiting: int, cost: float, pace: float
) -> None:
    stay = [one for one in fleet if one.state != "draining"]
    needed = need(*fleet, waiting=waiting, running=sum(one.running_jobs for one in fleet), cost=cost, pace=pace)
    assert replicas(max(len(stay) + starting, 1), needed) >= needed.busy


@dataclass(kw_only=True)
class Cluster:
    """A fleet whose size a HorizontalPodAutoscaler sets; second by second, jobs as a fluid."""

    arrivals: float
    job_s: float
    slots: int
    start_s: int
    metrics: Sequence[str] = METRICS
    jobs: float = 0.0
    now: int = 0
    born: list[int] = field(default_factory=lambda: [-1_000])
    asked: deque[int] = field(default_factory=lambda: deque(maxlen=STABLE_S // SYNC_S))

    @property
    def ready(self) -> int:
        return sum(self.now - born >= self.start_s for born in self.born)

    @property
    def running(self) -> float:
        return min(self.jobs, self.ready * self.slots)

    @property
    def waiting(self) -> float:
        return self.jobs - self.running

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1
            self.jobs += self.arrivals - self.running / self.job_s
            if self.now % SYNC_S == 0:
                self._scale()

    def _scale(self) -> None:
        held = [
            round(self.running * (at + 1) / self.ready) - round(self.running * at / self.ready)
            for at in range(self.ready)
        ]
        fleet = [worker(running=jobs, free=self.slots - jobs) for jobs in held]
        fleet += [worker(state="loading", stands=ModelState.LOADING)] * (len(self.born) - self.ready)
        pace = self.ready * self.slots / self.job_s
        needed = need(*fleet, waiting=self.waiting, running=self.running, cost=self.waiting, pace=pace)
        self.asked.append(min(replicas(len(self.born), needed, self.metrics), MOST))
        wanted = max(self.asked)
        self.born = self.born[:wanted] + [self.now] * (wanted - len(self.born))


@pytest.mark.parametrize("start_s", [5, 120])
@pytest.mark.parametrize("arrivals", [0.5, 8, 60])
def test_a_fleet_grows_to_what_its_load_needs_and_stays_there(arrivals: float, start_s: int) -> None:
    cluster = Cluster(arrivals=arrivals, job_s=4.0, slots=4, start_s=start_s, metrics=("work", "wait"))
    cluster.run(1_800)
    enough = math.ceil(arrivals * cluster.job_s / cluster.slots)
    assert enough <= len(cluster.born) <= enough * (1 + TOLERANCE) + 1
    assert cluster.waiting == pytest.approx(0, abs=1e-3)


def test_a_fleet_shrinks_when_its_load_is_gone() -> None:
    cluster = Cluster(arrivals=60, job_s=4.0, slots=4, start_s=5)
    cluster.run(600)
    cluster.arrivals = 0
    cluster.run(600)
    assert len(cluster.born) == 1
