"""How many workers a fleet needs.

A HorizontalPodAutoscaler asks for ceil(value / target) of each metric, and takes the greatest. All values are in
workers and all targets 1: what a worker holds is only known while one runs, and a target is only asked for at times.

    work   (waiting + running jobs) / jobs that a worker holds
    wait   ready workers x estimated wait / target wait, that is, waiting cost / (a worker's pace x target wait)
    busy   workers that hold a job: a fleet is never asked to become smaller than that. It is left out where the
           ScaledObject says so: jobs spread over all workers, and those of one that is removed go on elsewhere

Neither wait nor work depends on how many workers are starting, so that a fleet that grows is not asked to grow more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from millrace.queue import ModelState, WorkerEntry
from services.frontend.fleet import estimated_wait_s
from services.frontend.models import READY
from services.frontend.scaler.asked import Asked

DRAINING = "draining"


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What is asked of the models of one ScaledObject, and the workers that serve them."""

    asked: Asked
    loads: Sequence[Mapping[str, float]]
    """As `JobQueue.load` tells them."""
    workers: Sequence[WorkerEntry]
    """Of the whole deployment."""

    @property
    def jobs(self) -> float:
        """That wait or run."""
        return sum(load["jobs"] + load["running"] for load in self.loads)

    @property
    def active(self) -> bool:
        return self.jobs > 0

    @property
    def work(self) -> float:
        holds = self.asked.jobs_per_worker or self._holds()
        return self.jobs / holds if holds else min(self.jobs, self._present())

    @property
    def wait(self) -> float:
        """A job runs on one worker, however long it is."""
        waits = [estimated_wait_s(load) for load in self.loads]
        known = [wait for wait in waits if wait is not None]
        if len(known) < len(waits):
            return min(self.jobs, self._present())
        return min(self.jobs, len(self._ready()) * max(known, default=0.0) / self.asked.target_wait_s)

    @property
    def busy(self) -> float:
        """One that drains is being removed already: to count it would call for another in its place."""
        return sum(worker.running_jobs > 0 for worker in self._serving(ModelState.READY, ModelState.UNLOADING))

    def _holds(self) -> float:
        """Jobs that a ready worker holds at most, on average; 0 where none is ready."""
        ready = self._ready()
        return sum(max(worker.running_jobs + worker.free_slots, 1) for worker in ready) / len(ready) if ready else 0.0

    def _present(self) -> int:
        """Where it is not known what a worker can do: those that are there, or one."""
        return max(len(self._serving(*ModelState)), 1)

    def _ready(self) -> list[WorkerEntry]:
        return [worker for worker in self._serving(ModelState.READY) if worker.state == READY]

    def _serving(self, *states: ModelState) -> list[WorkerEntry]:
        """Workers that stay, and on which one of the models stands so."""
        return [
            worker
            for worker in self.workers
            if worker.state != DRAINING
            and any(one.state in states and self.asked.names(one.model) for one in worker.index)
        ]
